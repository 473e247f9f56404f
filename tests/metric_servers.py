"""Real metric stores for tests, as tests/servers.py has databases.

A server listens on a free port of 127.0.0.1 and keeps its data in a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from servers import START_SECONDS, free_port, missing

BUILT = Path(__file__).parent.parent / ".servers"  # by .ci/servers


class MetricServer:
    """A server's process and its folder."""

    package = program = ping = ""
    start_seconds = START_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def require(cls) -> None:
        """Skip the test where the server is not installed; where CI=true it fails."""
        if shutil.which(cls.program) is None:
            missing(cls.package)

    def command(self) -> list[str]:
        """The server's command line."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, cwd=self.folder
            )
        until = time.monotonic() + self.start_seconds
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.package}: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Have it end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def get(self, path: str, **query: str) -> Any:
        """What it answers, read as JSON lines when it is several."""
        with urllib.request.urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=10) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines() if line.strip()]
        return lines[0] if len(lines) == 1 else lines

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url + self.ping, timeout=2).close()
        except (OSError, urllib.error.URLError):
            return False
        return True


class VictoriaMetrics(MetricServer):
    """Takes the v2 API of InfluxDB; keeps numbers only."""

    package, program, ping = "victoria-metrics", "victoria-metrics", "/health"

    def command(self) -> list[str]:
        return [
            self.program,
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
        ]

    def series(self, match: str) -> list[tuple[dict[str, str], list[float], list[int]]]:
        """Labels, values and milliseconds of what matches."""
        self.get("/internal/force_flush")
        found = self.get("/api/v1/export", **{"match[]": match})
        lines = found if isinstance(found, list) else [found]
        return sorted(
            ((each["metric"], each["values"], each["timestamps"]) for each in lines),
            key=lambda item: sorted(item[0].items()),
        )


class InfluxV1(MetricServer):
    """InfluxDB 1.6, which has no v2 API."""

    package, program, ping = "influxdb", "influxd", "/ping"

    def command(self) -> list[str]:
        data = self.folder / "data"
        (self.folder / "influxdb.conf").write_text(
            "reporting-disabled = true\n"
            f'bind-address = "127.0.0.1:{free_port()}"\n'
            f'[meta]\n  dir = "{data / "meta"}"\n'
            f'[data]\n  dir = "{data / "data"}"\n  wal-dir = "{data / "wal"}"\n'
            f'[http]\n  bind-address = "127.0.0.1:{self.port}"\n  log-enabled = false\n'
            "[monitor]\n  store-enabled = false\n"
        )
        return [self.program, "-config", str(self.folder / "influxdb.conf")]

    def rows(self, query: str, db: str = "homer") -> list[dict[str, Any]]:
        """What a query gives, times in microseconds."""
        answer = self.get("/query", db=db, q=query, epoch="u")
        return [
            dict(zip(series["columns"], values, strict=True))
            for series in answer["results"][0].get("series", [])
            for values in series["values"]
        ]


class Prometheus(MetricServer):
    """Prometheus, which reads the pages of its targets each 100 ms."""

    package, program, ping = "prometheus", "prometheus", "/-/ready"

    def watch(self, *targets: str) -> None:
        """Read these targets, `127.0.0.1:9096`, from the start on."""
        jobs = [{"job_name": "homerd", "static_configs": [{"targets": list(targets)}]}]
        settings = {"global": {"scrape_interval": "100ms"}, "scrape_configs": jobs}
        # YAML is a superset of JSON
        (self.folder / "prometheus.yml").write_text(json.dumps(settings))

    def command(self) -> list[str]:
        return [
            self.program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def value(self, query: str) -> float | None:
        """The one value a query gives, None when it gives none."""
        found = self.get("/api/v1/query", query=query)["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, query: str) -> float:
        """The value, once there is one."""
        until = time.monotonic() + START_SECONDS
        while (value := self.value(query)) is None:
            assert time.monotonic() < until, self.get("/api/v1/targets")
            time.sleep(0.05)
        return value


class BuiltServer(MetricServer):
    """One that .ci/servers puts together."""

    @classmethod
    def require(cls) -> None:
        if (BUILT / cls.package / "made-from").is_file() and shutil.which(cls.program):
            return
        reason = f"no server: .ci/servers makes {cls.package} (with {cls.program})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


class Elasticsearch(BuiltServer):
    """One node of Elasticsearch 8; what needs its modules (security, GET /) is not there."""

    package, program, ping = "elasticsearch", "java", "/_cluster/health"
    start_seconds = 60.0

    def command(self) -> list[str]:
        built = BUILT / "elasticsearch"
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (home / "modules").symlink_to(built / "modules")
        modules = "jdk.net,org.elasticsearch.server,org.elasticsearch.preallocate"
        settings = {
            "path.home": home,
            "http.port": self.port,
            "transport.port": free_port(),
            "discovery.type": "single-node",
            "action.destructive_requires_name": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        return [
            self.program,
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"--module-path={built / 'lib'}",
            f"--add-modules={modules},org.apache.logging.log4j.core",
            "-cp",
            str(built / "classes"),
            "SmallNode",
            *(f"{name}={value}" for name, value in settings.items()),
        ]

    def ask(self, method: str, path: str, body: str = "", kind: str = "application/json") -> Any:
        """Its status and what it answers."""
        data, headers = body.encode() or None, {"Content-Type": kind} if body else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def of(self, index: str, sort: str = "@timestamp") -> list[dict[str, Any]]:
        """The documents of an index."""
        self.ask("POST", f"/{index}/_refresh")
        found = self.get(f"/{index}/_search", size="1000", sort=sort)
        return [each["_source"] for each in found["hits"]["hits"]]

    def clear(self) -> None:
        """Away with the indices of tests."""
        self.ask("DELETE", "/homerd-*")


class Statsd(BuiltServer):
    """statsd of npm; it keeps what it is told until it ends, and writes it to its log then."""

    package, program = "statsd", "node"

    def command(self) -> list[str]:
        self.management = free_port()
        settings = {
            "address": "127.0.0.1",
            "port": self.port,
            "mgmt_address": "127.0.0.1",
            "mgmt_port": self.management,
            "flushInterval": 3_600_000,
            "backends": ["./backends/console"],
            "console": {"prettyprint": False},
            "title": False,
        }
        (self.folder / "config.js").write_text(json.dumps(settings))
        program = BUILT / "statsd/node_modules/statsd/stats.js"
        return [self.program, str(program), str(self.folder / "config.js")]

    def told(self, what: str) -> dict[str, str]:
        """`counters`, `gauges` or `timers` as the management port shows them, less its own."""
        shown = self._managed(what, b"END\n\n")
        found = re.findall(r"(?:'([^'\n]+)'|(\w+)): (\[[^]]*\]|[^\s,}]+)", shown)
        told = {quoted or plain: value for quoted, plain, value in found}
        return {name: value for name, value in told.items() if not name.startswith("statsd.")}

    def wait_for(self, what: str, name: str, value: str | None = None) -> dict[str, str]:
        """The same, once *name* is among it (and has that value)."""
        until = time.monotonic() + START_SECONDS
        while name not in (found := self.told(what)) or value not in (None, found[name]):
            assert time.monotonic() < until, found
            time.sleep(0.02)
        return found

    def bad_lines(self) -> int:
        """Lines it could not read."""
        shown = self._managed("counters", b"END\n\n")
        found = re.search(r"'statsd.bad_lines_seen': ([0-9]+)", shown)
        return int(found[1]) if found else 0

    def _managed(self, command: str, end: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.management), timeout=10) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while not answer.endswith(end):
                answer += (received := connection.recv(1 << 16))
                assert received, answer
        return answer.removesuffix(end).decode()

    def _answers(self) -> bool:
        try:
            return "up" in self._managed("health", b"\n")
        except OSError:
            return False


@contextlib.contextmanager
def running(kind: type[MetricServer], *targets: str) -> Iterator[Any]:
    """A server that is gone afterwards, with its folder; targets: what Prometheus is to read."""
    kind.require()
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.package}-"))
    server = kind(folder)
    try:
        if isinstance(server, Prometheus):
            server.watch(*targets)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def victoria_metrics() -> Iterator[VictoriaMetrics]:
    """VictoriaMetrics for the tests of a module; what they write has names of its own."""
    with running(VictoriaMetrics) as server:
        yield server


@pytest.fixture(scope="module")
def influx_v1() -> Iterator[InfluxV1]:
    """InfluxDB 1 for the tests of a module."""
    with running(InfluxV1) as server:
        yield server


@pytest.fixture(scope="session")
def elasticsearch_server() -> Iterator[Elasticsearch]:
    """Elasticsearch for the session."""
    with running(Elasticsearch) as server:
        yield server


@pytest.fixture
def elasticsearch(elasticsearch_server: Elasticsearch) -> Elasticsearch:
    """Elasticsearch without documents."""
    elasticsearch_server.clear()
    return elasticsearch_server


@pytest.fixture(scope="module")
def statsd() -> Iterator[Statsd]:
    """statsd for the tests of a module; what they send has names of its own."""
    with running(Statsd) as server:
        yield server
