"""/metrics and /healthz, over real sockets; what stands on the page, in exposition format 0.0.4."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from servers import missing

from homerd.commands.status import lines
from homerd.core import metrics, telemetry
from homerd.core.endpoint import Endpoint, health
from homerd.core.program import load
from homerd.core.settings import Listen
from homerd.core.worker import Worker
from homerd.errors import ConfigError, ScriptErrors
from homerd.plugin.exposition import render
from homerd.plugin.hookspecs import HttpAnswer, Sample

SIP = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"


@pytest.fixture
def serve(free_port):
    """Serves pages on a loop of its own; gives what makes a connection to it."""
    stops = []

    def start(pages):
        endpoint = Endpoint(Listen("tcp", "127.0.0.1", free_port, "metrics"), pages)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(endpoint.serve(), loop).result(10)
        stops.append((endpoint, loop, thread))
        return endpoint

    async def end(endpoint):
        endpoint.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    yield start
    for endpoint, loop, thread in stops:
        asyncio.run_coroutine_threadsafe(end(endpoint), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def ask(endpoint, method, path, connection=None):
    connection = connection or http.client.HTTPConnection(*endpoint.address, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def text(*samples):
    return render(samples).decode().splitlines()


def lines_of(worker):
    return telemetry.page(worker).body.decode().splitlines()


# -- the format


def test_a_counter_ends_in_total_and_everything_else_is_a_gauge():
    assert text(("a_total", {}, 1), ("b", {"x": "y"}, 0.5)) == [
        "# TYPE a_total counter",
        "a_total 1",
        "# TYPE b gauge",
        'b{x="y"} 0.5',
    ]


def test_the_lines_of_one_metric_stand_together():
    assert text(("a", {"x": "1"}, 1), ("b", {}, 2), ("a", {"x": "2"}, 3)) == [
        "# TYPE a gauge",
        'a{x="1"} 1',
        'a{x="2"} 3',
        "# TYPE b gauge",
        "b 2",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('a"b', r"a\"b"),
        ("a\\b", r"a\\b"),
        ("a\nb", r"a\nb"),
        ("a\\nb", r"a\\nb"),
        ("é", "é"),
        ("\udcff", "?"),
        ("}", "}"),
        ("", ""),
    ],
)
def test_a_label_is_escaped(value, shown):
    assert text(("a", {"x": value}, 1))[1:] == [f'a{{x="{shown}"}} 1']


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (2**63, "9223372036854775808"),
        (-0.5, "-0.5"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
        (True, "1"),
    ],
)
def test_a_number_is_as_prometheus_reads_it(value, shown):
    assert text(("a", {}, value))[1:] == [f"a {shown}"]


def test_help_is_escaped_and_stands_before_the_type():
    assert text(Sample("a", {}, 1, "back\\slash\nand line")) == [
        "# HELP a back\\\\slash\\nand line",
        "# TYPE a gauge",
        "a 1",
    ]


def test_a_histogram_is_one_metric():
    samples = [
        Sample("h_bucket", {"le": "+Inf"}, 2, "H.", "histogram"),
        Sample("h_sum", {}, 3.5, "H.", "histogram"),
        Sample("h_count", {}, 2, "H.", "histogram"),
    ]
    assert text(*samples) == [
        "# HELP h H.",
        "# TYPE h histogram",
        'h_bucket{le="+Inf"} 2',
        "h_sum 3.5",
        "h_count 2",
    ]


def test_what_would_spoil_the_page_is_left_out():
    samples = [("a b", {}, 1), ("c", {"x-y": "1", "z": "2"}, 1), ("c", {"z": "2"}, 9)]
    assert text(*samples) == ["# TYPE c gauge", 'c{z="2"} 1']


# -- the page


def test_the_page_tells_what_the_worker_counted(worker_for):
    worker = worker_for("request_route { drop; }")
    worker.engine.handle([(b"not hep", None), (SIP, None)], None)
    lines = lines_of(worker)
    assert "homerd_received_total 2" in lines
    (info,) = (line for line in lines if line.startswith("homerd_script_info"))
    digest = worker.program.script.digest
    assert info == f'homerd_script_info{{script="homer.cfg",digest="{digest}"}} 1'
    assert sum(line.startswith("homerd_undecoded_total{reason=") for line in lines) == 1


def test_a_module_whose_metrics_fail_is_left_out_and_counted(worker_for, monkeypatch):
    worker = worker_for(
        'loadmodule "xhttp"\nevent_route[xhttp:request] { exit; }\nrequest_route { drop; }'
    )
    xhttp = worker.program.registry.plugin("xhttp")
    assert "homerd_xhttp_skipped_total 0" in lines_of(worker)
    monkeypatch.setattr(xhttp, "metrics", lambda: [("too", "many", "parts", 1, 2, 3)])
    lines = lines_of(worker)
    assert not [line for line in lines if "xhttp_skipped" in line]
    assert worker.engine.route_errors.total() == 1


def test_prometheus_own_tool_finds_nothing_wrong_with_the_page():
    if shutil.which("promtool") is None:
        missing("prometheus")
    script = """
    loadmodule "pv"
    loadmodule "sipcapture"
    loadmodule "prometheus"
    modparam("prometheus", "prom_counter", "name=calls_total; label=from; help=Calls.")
    modparam("prometheus", "prom_gauge", "name=load")
    modparam("prometheus", "prom_histogram", "name=delay_seconds; label=a:b; buckets=0.5:1")
    modparam("sipcapture", "db_url", "sqlite://x.db")
    request_route {
        prom_counter_inc("calls_total", 1, "a\\\\\\"b{},=$rm");
        prom_gauge_set("load", "0.25");
        prom_histogram_observe("delay_seconds", "0.7", "x", "y");
        drop;
    }
    """
    worker = Worker(load(Path("test.cfg"), text=script), deliver=False)
    worker.start()
    worker.engine.handle([(SIP, None), (b"HEP", None)], None)
    page = telemetry.page(worker).body
    assert page.count(b"\ncalls_total{") == 1
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_beyond_so_many_tables_they_are_told_together(worker_for, monkeypatch):
    monkeypatch.setattr(telemetry, "MOST_MEMBERS", 2)
    worker = worker_for("request_route { drop; }")
    worker.engine.not_stored.update({"a": 1, "b": 2, "c": 3, "d": 4})
    told = [line for line in lines_of(worker) if line.startswith("homerd_not_stored_total")]
    assert told == [
        'homerd_not_stored_total{line="a"} 1',
        'homerd_not_stored_total{line="b"} 2',
        'homerd_not_stored_total{line="other"} 7',
    ]


# -- the server


def test_a_page_is_served_several_times_over_one_connection(serve):
    endpoint = serve({"/metrics": lambda: HttpAnswer(200, "OK", (), b"a 1\n"), "/healthz": health})
    connection = http.client.HTTPConnection(*endpoint.address, timeout=10)
    asked = [ask(endpoint, "GET", path, connection) for path in ("/metrics?x=1", "/healthz")]
    assert asked == [(200, "a 1\n"), (200, "ok\n")]
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "counted"),
    [
        ("HEAD", "/healthz", 200, "", "answered"),
        ("POST", "/healthz", 405, "", "refused"),
        ("GET", "/nothing", 404, "/healthz\n", "not_found"),
    ],
)
def test_what_else_is_asked(serve, method, path, status, body, counted):
    endpoint = serve({"/healthz": health})
    assert ask(endpoint, method, path) == (status, body)
    assert endpoint.http == {counted: 1}


def test_what_is_no_http_is_refused_and_the_next_is_served(serve):
    endpoint = serve({"/healthz": health})
    connection = http.client.HTTPConnection(*endpoint.address, timeout=10)
    connection.connect()
    connection.sock.sendall(b"\0\0\0\0\r\n\r\n")
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 400")
    connection.close()
    assert ask(endpoint, "GET", "/healthz") == (200, "ok\n")


def test_an_address_in_use_is_told_with_the_setting(serve):
    endpoint = serve({})
    with pytest.raises(ConfigError, match=r"metrics.*in use"):
        Endpoint(Listen("tcp", *endpoint.address, "metrics"), {})


# -- the setting


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("127.0.0.1:9100", "127.0.0.1", 9100),
        ('"[::1]:9100"', "::1", 9100),
        ("9100", "127.0.0.1", 9100),
        ('"0.0.0.0"', "0.0.0.0", 9096),
    ],
)
def test_the_setting_says_where(value, host, port):
    listen = load(
        Path("x.cfg"), text=f"metrics={value}\nrequest_route {{ drop; }}"
    ).settings.metrics
    assert (listen.host, listen.port) == (host, port)


@pytest.mark.parametrize("value", ["0", '"udp:127.0.0.1:9100"', '"a:1 b:2"', '"127.0.0.1:70000"'])
def test_a_setting_that_is_no_address_is_refused(value):
    with pytest.raises(ScriptErrors):
        load(Path("x.cfg"), text=f"metrics={value}\nrequest_route {{ drop; }}")


def test_what_tells_people_stands_beside_the_tables(worker_for):
    worker = worker_for('request_route { keep("$rm"); }')
    worker.probe.sink.is_store = False
    worker.engine.handle([(SIP, None)])
    assert worker.flush(20.0)
    told = lines_of(worker)
    assert 'homerd_sink_sent_total{sink="kept",what="OPTIONS"} 1' in told
    assert not [line for line in told if line.startswith("homerd_stored_total")]
    status = metrics.snapshot(worker)
    assert (status["stored"], status["sent"]) == ({}, {"kept: OPTIONS": 1})
    assert ["kept:", "OPTIONS", "1"] in [line.split() for line in lines(status)]
