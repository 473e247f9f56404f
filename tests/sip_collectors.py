"""Collectors of PUBLISH for tests: sipp, and a socket that answers as a test says."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import free_port

from homerd.wire.sip import SipMessage

SECONDS = 20.0

_SCENARIO = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="collector">
  <recv request="PUBLISH"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:];tag=[pid]
[last_Call-ID:]
[last_CSeq:]
SIP-ETag: [call_number]
Content-Length: 0

]]></send>
</scenario>
"""

Answer = Callable[[SipMessage, int], int]


def reply_to(request: SipMessage, status: int) -> bytes:
    """An answer without a body."""
    copied = "".join(
        f"{name}: {request.header(name)}\r\n" for name in ("Via", "From", "Call-ID", "CSeq")
    )
    to = request.header("To")
    return (
        f"SIP/2.0 {status} Told\r\n{copied}To: {to};tag=c\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class Collector:
    """Answers over UDP.  requests: every one that came, repeated ones too.

    answer: given the request and how many came before, the status of the answer; 0: none.
    """

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.answer = answer
        self.requests: list[SipMessage] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.settimeout(SECONDS)
        self.port = self.socket.getsockname()[1]
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hear nothing more."""
        self._ending = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waking:
            waking.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(SECONDS)
        self.socket.close()

    def _run(self) -> None:
        while True:
            data, sender = self.socket.recvfrom(65535)
            if self._ending:
                return
            request = SipMessage(data)
            number = len(self.requests)
            self.requests.append(request)
            status = self.answer(request, number)
            if status:
                self.socket.sendto(reply_to(request, status), sender)


@contextlib.contextmanager
def collecting(answer: Answer = lambda request, number: 200, port: int = 0) -> Iterator[Collector]:
    """A Collector that ends with the block."""
    made = Collector(answer, port)
    try:
        yield made
    finally:
        made.stop()


class Sipp:
    """sipp, answering PUBLISH with 200; each is in the trace once."""

    def __init__(self, folder: Path, transport: str) -> None:
        self.program = shutil.which("sipp")
        if self.program is None:
            pytest.skip("sipp is not installed: apt-get install sip-tester")
        self.port = free_port()
        self.trace = folder / "messages.log"
        scenario = folder / "collector.xml"
        scenario.write_text(_SCENARIO)
        self.process = subprocess.Popen(
            (
                self.program, "-sf", str(scenario), "-i", "127.0.0.1", "-p", str(self.port),
                "-t", "t1" if transport == "tcp" else "u1", "-nostdin",
                "-trace_msg", "-message_file", str(self.trace), "-message_overwrite", "false",
            ),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._await(transport)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(SECONDS)

    def bodies(self, number: int) -> list[bytes]:
        """The bodies of the first *number* requests that came."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            text = self.trace.read_bytes() if self.trace.exists() else b""
            found = re.findall(
                rb"\nPUBLISH .*?\r?\n\r?\n(.*?)\n-{20,}", text + b"\n" + b"-" * 20, re.S
            )
            if len(found) >= number:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{len(found)} of {number} came")

    def _await(self, transport: str) -> None:
        """Until it listens: a UDP port is bound then, a TCP port takes connections."""
        kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with socket.socket(socket.AF_INET, kind) as probe:
                try:
                    probe.bind(("127.0.0.1", self.port))
                except OSError:
                    return
            time.sleep(0.02)
        raise AssertionError("sipp does not listen")


@contextlib.contextmanager
def sipp_collector(folder: Path, transport: str = "udp") -> Iterator[Sipp]:
    """A Sipp that ends with the block."""
    made = Sipp(folder, transport)
    try:
        yield made
    finally:
        made.stop()
