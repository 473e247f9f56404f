"""Reload of a running daemon, counted from outside: packets sent, received and stored."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from servers import free_port

from homerd.core.control import ask
from homerd.wire import hep
from homerd.wire.hep import Frame

SECONDS = 60.0  # a deadline nobody should meet
BURST = 500  # most packets sent at once when the sender is late

SCRIPT = """
listen=udp:127.0.0.1:{port}
loadmodule "pv.so"
loadmodule "htable.so"
loadmodule "sipcapture.so"
modparam("htable", "htable", "seen=>size=8")
modparam("sipcapture", "db_url", "sqlite:///{database}")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
include_file "{part}"
"""
# What a packet is stored as begins and ends with the number of the script that did it.
PART = """
request_route {{
    $var(first) = "{number}";
    $sht(seen=>all) = $(sht(seen=>all){{s.int}}) + 1;
    route(STORE);
}}
route[STORE] {{
    if ($var(first) != "{number}") {{ sip_capture("sip_mixed"); exit; }}
    sip_capture("sip_by_{number}");
}}
"""


class Daemon:
    """A homerd on *port* with one included file, and what can be asked of it."""

    def __init__(self, folder, port, *arguments):
        self.port = port
        self.database = folder / "homer.db"
        self.control = folder / "homerd.sock"
        self.script, self.part, self.log = (folder / n for n in ("homer.cfg", "part.cfg", "log"))
        self.save(1)
        self.script.write_text(SCRIPT.format(port=port, database=self.database, part=self.part))
        with self.log.open("wb") as log:
            command = self.command("run", "-f", str(self.script), *arguments)
            self.process = subprocess.Popen(command, stderr=log)
        self.wait("started script=")

    def command(self, *arguments):
        return [sys.executable, "-m", "homerd", *arguments, "--socket", str(self.control)]

    def save(self, number, text=PART):
        """As many editors do: a new file in the place of the old one."""
        new = self.part.with_suffix(".new")
        new.write_text(text.format(number=number))
        new.replace(self.part)

    def homerd(self, *arguments):
        command = self.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)

    def status(self):
        return ask(self.control, "status", timeout=SECONDS)

    def wait(self, text):
        """Wait until *text* is in the log."""
        until = time.monotonic() + SECONDS
        while text not in (said := self.log.read_text()):
            assert time.monotonic() < until, said
            assert self.process.poll() is None, said
            time.sleep(0.01)

    def wait_for(self, true):
        """Wait until the status is as wanted."""
        until = time.monotonic() + SECONDS
        while not true(status := self.status()):
            assert time.monotonic() < until, status
            time.sleep(0.02)
        return status

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0

    def stored(self):
        """Table -> rows."""
        with sqlite3.connect(self.database) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            names = [name for (name,) in tables if name.startswith("sip_")]
            rows = {
                name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in names
            }
        return {name: count for name, count in rows.items() if count}


class Sender(threading.Thread):
    """Sends INVITEs at a steady rate until told to stop.

    Never more ahead of the daemon than its receive buffer holds: a machine with other work may not
    have the time for them all.
    """

    def __init__(self, daemon, per_second=4000):
        super().__init__()
        self.daemon_process, self.per_second = daemon, per_second
        self.sent = 0
        self.ends = threading.Event()

    def run(self):
        started, received = time.monotonic(), 0
        # the kernel grants twice what it tells, and takes 1.3 KB for one of these packets
        ahead = self.daemon_process.status()["sources"][0]["receive_buffer"] // 2048
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.connect(("127.0.0.1", self.daemon_process.port))
            while not self.ends.wait(0.002):
                if self.sent - received > ahead:
                    received = self.daemon_process.status()["received"]
                    continue
                due = int((time.monotonic() - started) * self.per_second)
                for _ in range(min(due - self.sent, ahead, BURST)):
                    opened.send(packet(self.sent))
                    self.sent += 1

    def stop(self):
        self.ends.set()
        self.join()
        return self.sent


def packet(number, method="INVITE", agent=7):
    text = (
        f"{method} sip:bob@example.org SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n"
        "From: <sip:alice@example.org>;tag=1\r\n"
        "To: <sip:bob@example.org>\r\n"
        f"Call-ID: {number}\r\n"
        f"CSeq: 1 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    source, target = b"\xc0\0\2\1", b"\xc0\0\2\2"
    frame = Frame(3, hep.IPV4, 17, source, target, 5060, 5070, 1500000000, 42, 1, agent)
    frame.payload = text.encode()
    return hep.encode(frame)


@pytest.fixture
def run(tmp_path):
    daemons = []

    def start(*arguments):
        daemons.append(Daemon(tmp_path, free_port(), *arguments))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.wait()


def send(daemon, count, **options):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect(("127.0.0.1", daemon.port))
        for number in range(count):
            opened.send(packet(number, **options))


def test_reloads_under_load_lose_no_packet_and_each_is_routed_by_one_script_whole(run):
    daemon = run()
    sender = Sender(daemon)
    sender.start()
    try:
        for number in range(2, 6):
            before = daemon.status()["received"]
            daemon.wait_for(lambda status, before=before: status["received"] > before + 1000)
            daemon.save(number)
            if number == 3:
                assert daemon.homerd("reload").returncode == 0
            elif number == 4:
                daemon.process.send_signal(signal.SIGHUP)
            table = f"sip_by_{number}"
            daemon.wait_for(lambda status, table=table: status["stored"].get(table, 0) > 0)
    finally:
        sent = sender.stop()
    status = daemon.wait_for(lambda status: status["received"] >= sent)
    daemon.stop()
    stored = daemon.stored()
    assert (status["received"], status["kernel_drops"], sum(stored.values())) == (sent, 0, sent)
    assert stored.keys() == {f"sip_by_{number}" for number in range(1, 6)}
    assert status["reloads"]["reloaded"] >= 4


def test_a_script_that_does_not_compile_is_reported_and_the_old_one_stays(run):
    daemon = run()
    daemon.save(2, PART.replace("sip_capture(", "sip_captur("))
    daemon.wait("reload result=refused why=saved")
    asked = daemon.homerd("reload")
    assert asked.returncode == 1
    assert 'error[E201]: unknown function "sip_captur"' in asked.stderr
    assert "^^^^^^^^^^" in asked.stderr
    assert "homerd: not reloaded: 2 errors, the old script stays" in asked.stderr
    send(daemon, 10)
    status = daemon.wait_for(lambda status: status["received"] == 10)
    assert status["last_reload"]["result"] == "refused"
    assert 'error[E201]: unknown function "sip_captur"' in daemon.log.read_text()
    assert "reload    refused" in daemon.homerd("status").stdout
    daemon.stop()
    assert daemon.stored() == {"sip_by_1": 10}


def test_what_needs_a_restart_is_refused_by_name(run):
    daemon = run("--no-watch")
    text = daemon.script.read_text()
    daemon.script.write_text(text.replace(str(daemon.port), "9").replace("homer.db", "other.db"))
    asked = daemon.homerd("reload")
    assert asked.returncode == 1
    assert "error[E408]: listen cannot change while homerd runs: it needs a restart" in asked.stderr
    assert 'error[E408]: modparam("sipcapture", "db_url") cannot change' in asked.stderr


def test_a_file_that_is_included_only_now_is_watched_from_then_on(run):
    daemon = run()
    further = daemon.part.with_name("further.cfg")
    further.write_text("# nothing yet\n")
    daemon.script.write_text(daemon.script.read_text() + f'include_file "{further}"\n')
    first = daemon.wait_for(lambda status: status["reloads"]["reloaded"] == 1)
    further.write_text("# another line\n")
    second = daemon.wait_for(lambda status: status["reloads"]["reloaded"] == 2)
    assert first["digest"] != second["digest"]


def test_without_watching_nothing_happens_until_it_is_asked(run):
    daemon = run("--no-watch")
    first = daemon.status()["digest"]
    daemon.save(2)
    send(daemon, 10)
    assert daemon.wait_for(lambda status: status["received"] == 10)["digest"] == first
    asked = daemon.homerd("reload")
    assert (asked.returncode, asked.stdout[:12]) == (0, "reloaded in ")
    send(daemon, 5)
    daemon.wait_for(lambda status: status["received"] == 15)
    daemon.stop()
    assert daemon.stored() == {"sip_by_1": 10, "sip_by_2": 5}


def test_a_script_that_fails_under_load_goes_back_by_itself_and_no_packet_is_lost(run):
    daemon = run("--rollback-percent", "5", "--rollback-packets", "20")
    sender = Sender(daemon, per_second=2000)
    sender.start()
    try:
        # each packet is stored, and then the script fails
        broken = PART.replace(
            'sip_capture("sip_by_{number}");', 'sip_capture("sip_by_{number}"); $var(x) = 1 / 0;'
        )
        daemon.save(2, broken)
        back = daemon.wait_for(lambda status: status["reloads"]["rolled_back"] == 1)
        received = back["received"]
        daemon.wait_for(lambda status: status["received"] > received + 500)
    finally:
        sent = sender.stop()
    status = daemon.wait_for(lambda status: status["received"] >= sent)
    daemon.wait("reload result=rolled_back why=errors")
    assert status["last_reload"]["result"] == "rolled_back"
    assert f"{daemon.part}:9" in status["last_reload"]["message"]
    assert "reload    rolled_back" in daemon.homerd("status").stdout
    daemon.stop()
    stored = daemon.stored()
    assert sum(stored.values()) == sent
    assert stored["sip_by_2"] == sum(status["route_errors"].values())
    assert stored.keys() == {"sip_by_1", "sip_by_2"}


# The candidate beside the script that runs

DROPS_OPTIONS = PART.replace("route(STORE);", 'if ($rm == "OPTIONS") drop; route(STORE);')


def test_a_capture_shows_what_would_go_elsewhere_and_without_a_terminal_nothing_is_swapped(
    run, tmp_path
):
    daemon = run("--no-watch")
    digest = daemon.status()["digest"]
    capture = tmp_path / "capture.hep"
    capture.write_bytes(
        packet(1) + packet(2, "OPTIONS", 8) + packet(3, "OPTIONS", 8) + packet(4, "BYE")
    )
    daemon.save(1, DROPS_OPTIONS)
    asked = daemon.homerd("reload", "--shadow", str(capture))
    assert (asked.returncode, asked.stderr) == (0, "")
    words = [line.split() for line in asked.stdout.splitlines()]
    assert ["4", "packets", "compared,", "both", "scripts", "with", "empty", "tables"] in words
    assert ["2", "would", "go", "elsewhere", "(50.0", "%)"] in words
    assert ["2", "OPTIONS"] in words
    assert ["2", "8"] in words
    assert ["2", "sip_by_1", "→", "nothing"] in words
    assert asked.stdout.endswith("not swapped: without a terminal, say --yes to swap\n")
    status = daemon.status()
    assert (status["digest"], status["received"], status["stored"]) == (digest, 0, {})
    swapped = daemon.homerd("reload", "--shadow", str(capture), "--yes")
    assert swapped.returncode == 0
    assert daemon.status()["digest"] != digest


def test_live_packets_are_compared_while_they_are_stored_as_ever(run):
    daemon = run("--no-watch")
    daemon.save(2)
    sender = Sender(daemon, per_second=1000)
    sender.start()
    try:
        asked = daemon.homerd("reload", "--for", "1")
    finally:
        sent = sender.stop()
    assert (asked.returncode, asked.stderr) == (0, "")
    elsewhere = [line for line in asked.stdout.splitlines() if line.endswith("elsewhere (100.0 %)")]
    assert int(elsewhere[0].split()[0].replace(",", "")) > 0
    assert "sip_by_1 → sip_by_2" in asked.stdout
    daemon.wait_for(lambda status: status["received"] >= sent)
    daemon.stop()
    assert daemon.stored() == {"sip_by_1": sent}


def test_a_candidate_that_does_not_compile_is_not_compared(run, tmp_path):
    daemon = run("--no-watch")
    daemon.save(2, "request_route {{ nonsense(); }}")
    asked = daemon.homerd("reload", "--for", "1", "--yes")
    assert asked.returncode == 1
    assert 'error[E201]: unknown function "nonsense"' in asked.stderr


@pytest.mark.parametrize(
    "arguments", [["--shadow"], ["--shadow", "x", "--for", "1"], ["--for", "x"]]
)
def test_arguments_that_make_no_sense_are_refused(run, arguments):
    daemon = run("--no-watch")
    assert daemon.homerd("reload", *arguments).returncode == 2
