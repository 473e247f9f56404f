"""Modules that keep the loop waiting, in a real server: named, interrupted, left out at last."""

from __future__ import annotations

import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

import pytest
from servers import free_port

from homerd import testing
from homerd.core.control import ask
from homerd.wire import hep

SECONDS = 30.0  # a deadline nobody should meet

HEAD = """
import re
import socket
import threading
import time

from homerd.api import Packet, Plugin, script_function

class {name}(Plugin):
    @script_function
    def {name}(self, packet: Packet) -> bool:
"""

# Each is a word of a module of its own.
WORDS = {
    "sleeps": """
        try:
            time.sleep(600)
        except Exception:
            pass
""",
    "spins": """
        while True:
            pass
""",
    "listens": """
        with socket.socket(type=socket.SOCK_DGRAM) as waiting:
            waiting.bind(("127.0.0.1", 0))
            waiting.recv(1)
""",
    "locks": """
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
""",
    "searches": """
        re.match(r"(a+)+$", "a" * 40 + "b")
""",
    "well": """
        return True
""",
}

SCRIPT = """
listen=udp:127.0.0.1:{port}
metrics={metrics}
plugin_block_seconds=0.4
mpath "{folder}"
loadmodule "pv"
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
"""
ROUTE = "".join(f'loadmodule "{word}"\n' for word in WORDS) + "request_route {\n"
ROUTE += "".join(f'    if ($tU == "{word}") {word}();\n' for word in WORDS)
ROUTE += '    sip_capture("sip_capture");\n}\n'


class Daemon:
    def __init__(self, folder, port, metrics):
        self.folder, self.port, self.metrics = folder, port, metrics
        for name, body in WORDS.items():
            (folder / f"{name}.py").write_text(HEAD.format(name=name) + body.strip("\n") + "\n")
        script = SCRIPT.format(folder=folder, port=port, metrics=metrics) + ROUTE
        (folder / "homer.cfg").write_text(script)
        self.log = ""
        self.process = subprocess.Popen(
            self.command("run", "-f", str(folder / "homer.cfg")), stderr=subprocess.PIPE, bufsize=0
        )
        self.wait_for("started script=")

    def command(self, *arguments):
        return [sys.executable, "-m", "homerd", *arguments, "--socket", str(self.folder / "sock")]

    def wait_for(self, text):
        until = time.monotonic() + SECONDS
        while text not in self.log:
            ready, _, _ = select.select([self.process.stderr], [], [], until - time.monotonic())
            piece = self.process.stderr.read(65536) if ready else b""
            assert piece, f"no {text!r} in:\n{self.log}"
            self.log += piece.decode()

    def status(self):
        return ask(self.folder / "sock", "status", timeout=SECONDS)

    def wait_until(self, holds):
        until = time.monotonic() + SECONDS
        while not holds(status := self.status()):
            assert time.monotonic() < until, status
            time.sleep(0.02)
        return status

    def send(self, *users):
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for number, user in enumerate(users):
                message = testing.request(to=user, call_id=f"{user}-{number}")
                sender.sendto(hep.encode(testing.frame(message)), ("127.0.0.1", self.port))

    def rows(self):
        with sqlite3.connect(self.folder / "homer.db") as database:
            return [
                row[0] for row in database.execute("SELECT callid FROM sip_capture ORDER BY id")
            ]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=SECONDS)
        self.log += rest.decode()
        return self.process.returncode


@pytest.fixture
def run(tmp_path):
    daemons = []

    def start():
        daemons.append(Daemon(tmp_path, free_port(), free_port()))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.communicate()


def test_words_that_do_not_return_are_interrupted_and_the_packets_behind_them_stored(run):
    daemon = run()
    sent = ["bob", "sleeps", "spins", "listens", "locks", "searches", "well"]
    daemon.send(*sent)
    status = daemon.wait_until(lambda status: status["received"] == len(sent))
    blocked = {name: told["errors"] for name, told in status["plugins"].items()}
    assert blocked == {name: {"blocked": 1} for name in sent[1:-1]}
    for name, told in status["plugins"].items():
        assert "did not return for" in told["last_error"]
        assert f"{daemon.folder}/{name}.py:" in told["last_error"]
    assert sum(status["route_errors"].values()) == len(blocked)
    assert status["ledger"]["difference"] == 0
    assert daemon.stop() == 0
    assert daemon.rows() == ["bob-0", "well-6"]
    assert "Traceback" not in daemon.log
    assert "module=sleeps" in daemon.log


def test_who_keeps_the_loop_waiting_three_times_is_left_out(run):
    daemon = run()
    daemon.send(*["sleeps"] * 6)
    status = daemon.wait_until(lambda status: status["received"] == 6)
    told = status["plugins"]["sleeps"]
    assert told["errors"] == {"blocked": 3}
    assert told["cut_off"] == "it kept all packets waiting 3 times"
    assert told["skipped"] == 3
    page = urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics}/metrics", timeout=SECONDS)
    assert b'homerd_plugin_cut_off{plugin="sleeps"} 1' in page.read()
    daemon.wait_for("module cut off module=sleeps")
    assert daemon.stop() == 0
    assert daemon.rows() == [f"sleeps-{number}" for number in (3, 4, 5)]
