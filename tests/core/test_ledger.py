"""The ledger's sums, and that they hold from outside: overload, outage, kill."""

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from homerd.core import ledger, metrics
from homerd.core.control import ask
from homerd.errors import ConfigError

SINK = {
    "added": 10, "recovered": 5, "written": 8, "queued": 1, "spooled": 3, "rejected": 2,
    "dropped": 1,
}  # fmt: skip
COUNTERS = {
    "received": 10,
    "routed": {"request_route": 4, "onreply_route": 1},
    "handled": {"keep_alive": 2},
    "refused": {"not_sip": 1},
    "undecoded": {"not_hep": 2},
    "gave_records": 3,
    "not_stored": {"script:homer.cfg:7": 2, "keep_alive": 2, "not_sip": 1},
    "kernel_drops": 6,
    "sources": [
        {"listen": "udp:1", "received": 7, "kernel_drops": 6},
        {"listen": "tcp:1", "received": 3},
    ],
    "sinks": {"store": SINK},
}


def test_all_sums_of_one_server():
    assert ledger.ledger(COUNTERS) == {
        "difference": 0,
        "sources": {
            "in": {"udp:1": 7, "tcp:1": 3, "kernel_drops": 6},
            "out": {"received": 10, "kernel_drops": 6},
            "difference": 0,
        },
        "packets": {
            "in": {"received": 10},
            "out": {"routed": 5, "handled": 2, "refused": 1, "undecoded": 2},
            "difference": 0,
        },
        "fates": {
            "in": {"received": 10},
            "out": {"gave_records": 3, "gave_none": 5, "undecoded": 2},
            "difference": 0,
        },
        "sinks": {
            "store": {
                "in": {"added": 10, "recovered": 5},
                "out": {"written": 8, "queued": 1, "spooled": 3, "rejected": 2, "lost": 1},
                "difference": 0,
            }
        },
    }


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"received": 11, "sources": []},
            "packets: +1 unaccounted for: "
            "received 11 = routed 5 + handled 2 + refused 1 + undecoded 2",
        ),
        (
            {"sinks": {"store": SINK | {"written": 9}}},
            "sink store: -1 unaccounted for: added 10 + recovered 5"
            " = written 9 + queued 1 + spooled 3 + rejected 2 + lost 1",
        ),
    ],
)
def test_what_does_not_add_up_is_told(changed, line):
    told = ledger.ledger(COUNTERS | changed)
    assert told["difference"] > 0
    assert line in list(ledger.unbalanced(told))


def test_packets_from_files_have_no_listeners():
    assert ledger.sources(COUNTERS | {"sources": []}).difference == 0


def test_a_worker_balances_whatever_its_packets_end_as(worker_for):
    worker = worker_for(
        'request_route { if ($rm == "OPTIONS") drop; keep("$rm"); keep("again"); if ($rm == "BYE")'
        " fail(); } onreply_route { fail(); }"
    )
    packets = [b"INVITE", b"OPTIONS", b"BYE", b"SIP/2.0 200 OK"]
    data = [
        (start + (b" sip:a@b SIP/2.0" if b" " not in start else b"") + b"\r\nCall-ID: 1\r\n\r\n")
        for start in packets
    ]
    worker.engine.handle([(each, None) for each in (*data, b"nonsense", b"HEP3")])
    told = metrics.snapshot(worker)["ledger"]
    assert told["difference"] == 0
    assert told["fates"]["out"] == {"gave_records": 2, "gave_none": 2, "undecoded": 2}
    assert told["sinks"]["kept"]["in"] == {"added": 4, "recovered": 0}


# -- from outside

SECONDS = 60.0  # a deadline nobody should meet

SCRIPT = """
listen=udp:127.0.0.1:{port}
spool_dir="{folder}/spool"
loadmodule "pv"
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "sqlite://{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
request_route {{
    if ($rm == "OPTIONS") drop;
    sip_capture("sip_capture");
}}
"""
MESSAGE = (
    "{method} sip:b@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    "To: <sip:b@b>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
)


class Daemon:
    """A homerd over one database, which can be started and killed again and again."""

    def __init__(self, folder, port):
        self.folder = folder
        self.script = folder / "homer.cfg"
        self.script.write_text(SCRIPT.format(folder=folder, port=port))
        self.socket = folder / "sock"
        self.sender = socket.socket(type=socket.SOCK_DGRAM)
        self.sender.connect(("127.0.0.1", port))
        self.process = None
        self.sent = 0

    def start(self):
        self.process = subprocess.Popen(self.command("run", "-f", str(self.script)))
        self.until(lambda: self.socket.exists() and self.asked() is not None)

    def command(self, *words):
        return [sys.executable, "-m", "homerd", *words, "--socket", str(self.socket)]

    def asked(self):
        try:
            return ask(self.socket, "status", timeout=SECONDS)
        except ConfigError:
            return None

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.asked()
            time.sleep(0.02)

    def send(self, count, method="INVITE"):
        for _ in range(count):
            self.sent += 1
            self.sender.send(MESSAGE.format(method=method, call=self.sent).encode())

    def wait(self, received):
        """The status once so many packets were received."""
        self.until(lambda: self.asked()["received"] >= received)
        return self.asked()

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def lock(self):
        """Let nobody else write, or read, the database."""
        other = sqlite3.connect(self.folder / "homer.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return closing(other)

    def calls(self):
        with closing(sqlite3.connect(self.folder / "homer.db")) as database:
            rows = database.execute("SELECT callid FROM sip_capture").fetchall()
        return sorted(int(call) for (call,) in rows)


@pytest.fixture
def daemon(tmp_path, free_port):
    made = Daemon(tmp_path, free_port)
    yield made
    made.sender.close()
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def sink(status):
    return status["sinks"]["sipcapture"]


def test_an_outage_of_the_store_loses_nothing_and_balances_all_the_time(daemon):
    daemon.start()
    daemon.send(200)
    daemon.until(lambda: sink(daemon.asked())["written"] == 200)
    with daemon.lock():
        for _ in range(5):
            daemon.send(300)
            daemon.send(10, "OPTIONS")
            status = daemon.wait(daemon.sent)
            assert status["ledger"]["difference"] == 0
        daemon.until(lambda: sink(daemon.asked())["spooled"] >= 1000)
    daemon.until(lambda: sink(daemon.asked())["written"] == 1700)
    status = daemon.asked()
    assert status["ledger"]["difference"] == 0
    assert sum(status["not_stored"].values()) == 50
    assert (sink(status)["lost"], sink(status)["spooled"]) == ({}, 0)
    assert daemon.end(signal.SIGTERM) == 0
    calls = daemon.calls()
    assert len(calls) == len(set(calls)) == 1700
    assert not (daemon.folder / "spool").exists()


def test_a_kill_in_an_outage_costs_what_was_in_memory_and_status_says_how_many(daemon):
    daemon.start()
    daemon.send(100)
    daemon.until(lambda: sink(daemon.asked())["written"] == 100)
    with daemon.lock():
        daemon.send(1000)
        daemon.wait(1100)
        daemon.until(lambda: sink(daemon.asked())["spooled"] == 1000)
        daemon.send(70)
        daemon.wait(1170)
        daemon.end(signal.SIGKILL)
    daemon.socket.unlink()
    daemon.start()
    daemon.until(lambda: sink(daemon.asked())["spooled"] == sink(daemon.asked())["queued"] == 0)
    status = daemon.asked()
    killed = sink(status)["lost"].get("killed", 0)
    assert status["ledger"]["difference"] == 0
    assert sink(status)["recovered"] == sink(status)["written"] + killed
    calls = daemon.calls()
    assert len(calls) == len(set(calls)) == 1170 - killed
    assert killed <= 70
    assert set(range(1, 1101)) <= set(calls)
    shown = subprocess.run(daemon.command("status"), capture_output=True, text=True).stdout
    assert "ledger    balances" in shown


def test_a_stop_in_an_outage_loses_nothing(daemon):
    daemon.start()
    daemon.send(100)
    daemon.until(lambda: sink(daemon.asked())["written"] == 100)
    with daemon.lock():
        daemon.send(500)
        daemon.wait(600)
        assert daemon.end(signal.SIGTERM) == 0
    daemon.start()
    daemon.send(50)
    daemon.until(lambda: sink(daemon.asked())["written"] == 550)
    assert sink(daemon.asked())["recovered"] == 500
    assert daemon.calls() == list(range(1, 651))
