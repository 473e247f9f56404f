"""`homerd run` as a process, read by a real Prometheus."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from metric_servers import Prometheus, running
from servers import START_SECONDS, free_port

from homerd.wire import hep
from homerd.wire.hep import Frame

SCRIPT = """
listen=udp:127.0.0.1:{hep}
metrics=127.0.0.1:{metrics}
spool_dir="{folder}/spool"
loadmodule "pv"
loadmodule "sipcapture"
loadmodule "prometheus"
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("prometheus", "prom_counter", "name=calls_total; label=method:agent; help=Calls.")
modparam("prometheus", "prom_histogram", "name=size_bytes; buckets=10:1000")
request_route {{
    prom_counter_inc("calls_total", 1, $rm, "$ua");
    prom_histogram_observe("size_bytes", $ml);
    sip_capture("sip_capture");
}}
"""
INVITE = (
    b"INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\n"
    b'User-Agent: a "quoted\\" one, \xff\r\n\r\n'
)


@pytest.fixture
def daemon(tmp_path):
    """A running homerd: its HEP port and the port of its pages."""
    ports = free_port(), free_port()
    script = tmp_path / "homer.cfg"
    script.write_text(SCRIPT.format(hep=ports[0], metrics=ports[1], folder=tmp_path))
    command = [sys.executable, "-m", "homerd", "run", "-f", str(script)]
    process = subprocess.Popen([*command, "--socket", str(tmp_path / "socket")])
    until = time.monotonic() + START_SECONDS
    while not answers(ports[1]):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    yield ports
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_SECONDS) == 0


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as page:
            return page.read() == b"ok\n"
    except OSError:
        return False


def test_prometheus_reads_what_homerd_and_its_script_count(daemon):
    port, pages = daemon
    frame = Frame(
        3, hep.IPV4, 17, b"\1\1\1\1", b"\2\2\2\2", 5060, 5060, 1500000000, 42, 1, 7, payload=INVITE
    )
    with running(Prometheus, f"127.0.0.1:{pages}") as prometheus:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(hep.encode(frame), ("127.0.0.1", port))
        assert prometheus.wait_for("homerd_received_total == 3") == 3
        assert prometheus.wait_for("homerd_sink_written_total == 3") == 3
        assert (
            prometheus.value('calls_total{method="INVITE",agent="a \\"quoted\\\\\\" one, ?"}') == 3
        )
        assert prometheus.value('size_bytes_bucket{le="1000"}') == 3
        assert prometheus.value('up{job="homerd"}') == 1
        assert prometheus.value("homerd_kernel_drops_total") == 0
