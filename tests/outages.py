"""What it takes to see that nothing is lost: a server, a sender that numbers its packets, mishaps.

Each packet is an INVITE whose Call-ID is made of its number, so that a row that is missing or there
twice can be named.  tests/end_to_end/test_outage.py and tests/bench use it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servers import DATABASE, DatabaseServer, free_port

from homerd.core.control import ask
from homerd.errors import ConfigError
from homerd.wire import hep

TABLE = "sip_capture_call"
DEADLINE = 60.0  # nobody should meet it
BURST = 64  # datagrams between two looks at the clock

Outage = Callable[[], None]

SCRIPT = """
listen=udp:127.0.0.1:{port}
spool_dir="{folder}/spool"
{settings}
loadmodule "pv"
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "{url}")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
request_route {{
    sip_capture("{table}");
}}
"""
# Call-IDs are scattered, as real ones are: in their order an index would take them at its end.
SCATTER = 2_654_435_761
GATHER = pow(SCATTER, -1, 1 << 32)
CALL, CALLER = b"@@@@@@@@", b"%%%%%%"  # what goes there differs from packet to packet
CALLERS = 100_000
MESSAGE = (
    "INVITE sip:2%%%%%%@example.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 10.1.0.1:5060;branch=z9hG4bK@@@@@@@@;rport\r\nMax-Forwards: 70\r\n"
    'From: "User %%%%%%" <sip:1%%%%%%@example.org>;tag=@@@@@@@@\r\n'
    "To: <sip:2%%%%%%@example.org>\r\n"
    "Call-ID: @@@@@@@@\r\nCSeq: 1 INVITE\r\nContact: <sip:1%%%%%%@10.1.0.1:5060>\r\n"
    "User-Agent: Phone 1.2.3\r\n"
    "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE\r\n"
    "Content-Type: application/sdp\r\nContent-Length: 480\r\n\r\nv=0\r\n"
    + "a=rtpmap:101 telephone-event/8000\r\n"
    * 14
).encode()


def call_id(number: int) -> bytes:
    """Of this packet."""
    return b"%08x" % (number * SCATTER % (1 << 32))


def number_of(call: str) -> int:
    """The packet with this Call-ID."""
    return int(call, 16) * GATHER % (1 << 32)


def datagram(seconds: int) -> bytes:
    """A packet captured then, with CALL and CALLER in it."""
    client, peer = b"\x0a\x01\x00\x01", b"\xc0\x00\x02\x01"
    frame = hep.Frame(3, hep.IPV4, 17, client, peer, 5060, 5060, seconds, 0, 1, payload=MESSAGE)
    frame.capture_id = 2001
    return hep.encode(frame)


class Sender(threading.Thread):
    """Sends numbered packets at a steady rate.

    sent: how many were, all of those before this number.  refused: sent while nobody listened.
    rate: packets a second, 0 for as fast as it goes.
    """

    def __init__(self, port: int, count: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.count = count
        self.rate = rate
        self.sent = 0
        self.refused = 0
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._between = threading.Lock()  # held during a burst

    def run(self) -> None:
        template = datagram(int(time.time()))
        due = time.monotonic()
        while self.sent < self.count:
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            with self._between:
                for number in range(self.sent, min(self.sent + BURST, self.count)):
                    caller = b"%06d" % (number * SCATTER % CALLERS)
                    self._send(template.replace(CALL, call_id(number)).replace(CALLER, caller))
                    self.sent += 1
            if self.rate:  # who was held up makes up for a second, no more
                due = max(due, now - 1.0) + BURST / self.rate
        self._socket.close()

    def finish(self) -> None:
        """Send no more."""
        self.count = 0
        if self.is_alive():
            self.join()

    def _send(self, data: bytes) -> None:
        while True:
            try:
                self._socket.send(data)
                return
            except ConnectionRefusedError:  # said of an earlier one; this one was not sent
                self.refused += 1

    def rest(self) -> None:
        """Send nothing until `go`."""
        self._between.acquire()

    def go(self) -> None:
        """Go on."""
        self._between.release()


class Daemon:
    """A homerd that stores in one database, and can be killed and started again.

    kernel_drops, arrived: of runs that were killed, datagrams dropped and all of them.
    peak_kilobytes, cpu_seconds: of all runs.
    """

    def __init__(self, folder: Path, url: str, settings: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.control = folder / "homerd.sock"
        self.script = folder / "homer.cfg"
        self.script.write_text(
            SCRIPT.format(port=self.port, folder=folder, url=url, settings=settings, table=TABLE)
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.kernel_drops = 0
        self.arrived = 0
        self.peak_kilobytes = 0
        self._cpu_seconds = 0.0

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.control.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as output:
            command = self.command("run", "-f", str(self.script))
            self.process = subprocess.Popen(command, stderr=output)
        self.until(lambda status: status is not None)

    def command(self, *words: str) -> list[str]:
        """homerd's command line."""
        return [sys.executable, "-m", "homerd", *words, "--socket", str(self.control)]

    def asked(self) -> dict[str, Any] | None:
        """What `homerd status` knows, without a process for it; None while nobody answers."""
        try:
            return ask(self.control, "status")
        except (ConfigError, OSError):
            return None

    def status(self) -> dict[str, Any]:
        """What `homerd status --json` prints."""
        done = subprocess.run(self.command("status", "--json"), capture_output=True, check=True)
        return json.loads(done.stdout)

    def until(self, condition: Callable[[Any], bool], seconds: float = DEADLINE) -> dict[str, Any]:
        """The status once *condition* holds of it."""
        end = time.monotonic() + seconds
        while not condition(status := self.asked()):
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, (status, self.log())
            time.sleep(0.05)
        return status

    def received(self, sender: Sender) -> dict[str, Any]:
        """The status once all that was sent is received or was dropped by the kernel."""
        return self.until(lambda status: self.arrived + arrived(status) >= sender.sent)

    def drained(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The status once no record waits anywhere."""
        return self.until(lambda status: all(map(is_empty, status["sinks"].values())), seconds)

    def kill(self) -> None:
        """Kill -9, and note what only a living process tells."""
        status = self.until(lambda status: status is not None)
        self.kernel_drops += status["kernel_drops"]
        self.arrived += arrived(status)
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it; gives its exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it, whatever has become of it."""
        if self._runs:
            self._end(signal.SIGKILL)

    @property
    def cpu_seconds(self) -> float:
        """Processor time, of all runs."""
        return self._cpu_seconds + (cpu_seconds(self.process.pid) if self._runs else 0.0)

    def measure(self) -> None:
        """Note the most memory it has had so far."""
        if self._runs:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
            peak = int(text.partition("VmHWM:")[2].split(None, 1)[0])
            self.peak_kilobytes = max(self.peak_kilobytes, peak)

    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / "log").read_text()[-3000:]

    @property
    def _runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self._runs:
            self.measure()
            self._cpu_seconds = self.cpu_seconds
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def sink_of(status: dict[str, Any]) -> dict[str, Any]:
    """The one sink."""
    return status["sinks"]["sipcapture"]


def arrived(status: dict[str, Any]) -> int:
    """Packets that were received, or that the kernel had no room for."""
    return status["received"] + status["kernel_drops"]


def is_empty(sink: dict[str, Any]) -> bool:
    """Whether nothing waits in it."""
    return sink["queued"] == sink["spooled"] == 0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Trial:
    """A server, a homerd that stores in it, a sender, and what may befall them.

    Each mishap begins, lets `outage` pass, and ends.
    """

    def __init__(self, server: DatabaseServer, daemon: Daemon, sender: Sender) -> None:
        self.server = server
        self.daemon = daemon
        self.sender = sender
        self._before: Counter[int] = Counter()

    def stored(self) -> Counter[int]:
        """How often each packet was stored."""
        found = self.server.rows_as_root(f"SELECT callid FROM {TABLE}", DATABASE)
        return self._before + Counter(number_of(call) for (call,) in found)

    def settled(self) -> tuple[dict[str, Any], Counter[int]]:
        """Once all that was sent is stored or lost: the status, and how often each was stored."""
        self.daemon.received(self.sender)
        return self.daemon.drained(), self.stored()

    def spool_more(self, records: int) -> None:
        """Let time pass until so many records more wait on disk."""
        wanted = sink_of(self.daemon.until(bool))["spooled"] + records
        self.daemon.until(lambda status: sink_of(status)["spooled"] >= wanted)

    def retry(self) -> None:
        """Let time pass until a write was tried again."""
        wanted = sink_of(self.daemon.until(bool))["retries"] + 1
        self.daemon.until(lambda status: sink_of(status)["retries"] >= wanted)

    def write_more(self) -> None:
        """Let time pass until a batch more is written."""
        wanted = sink_of(self.daemon.until(bool))["written"] + 1
        self.daemon.until(lambda status: sink_of(status)["written"] >= wanted)

    def stopped(self, outage: Outage) -> None:
        """The server ends, and is started again."""
        self.server.stop()
        outage()
        self.server.start()

    def held(self, outage: Outage) -> None:
        """The server takes connections and answers nothing."""
        self.server.hold()
        outage()
        self.server.release()

    def killed(self, outage: Outage) -> None:
        """The server ends; homerd is killed meanwhile and started again.

        Nobody sends while homerd is away, so what is missing was in its hands.
        """
        self.server.stop()
        outage()
        self.sender.rest()
        self.daemon.received(self.sender)
        self.daemon.kill()
        self.daemon.start()
        self.sender.go()
        outage()
        self.server.start()

    def restarted(self, outage: Outage) -> None:
        """The server is killed and started again, three times."""
        for _ in range(3):
            self.server.kill()
            self.server.start()
        outage()

    def cut(self, outage: Outage) -> None:
        """An administrator ends homerd's connections, again and again."""
        ends = threading.Event()

        def cut_and_cut() -> None:
            while not ends.wait(0.1):
                self.server.cut()

        cutter = threading.Thread(target=cut_and_cut)
        cutter.start()
        outage()
        ends.set()
        cutter.join()

    def refused(self, outage: Outage) -> None:
        """The server has no connection to spare for homerd."""
        with self.server.crowded():
            self.server.cut()
            outage()

    def dropped(self, outage: Outage) -> None:
        """The database is dropped, and made again empty."""
        self.server.admit(False)
        self.server.cut()
        self._before = self.stored()
        self.server.drop()
        outage()
        self.server.create()
        self.server.admit(True)


MISHAPS = ("stopped", "held", "restarted", "cut", "refused", "dropped", "killed")
