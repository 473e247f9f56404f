"""`homerd bench`: what a packet costs on the loop thread, stage by stage, with one's own script."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from homerd.commands.check import add_script_options
from homerd.core import log
from homerd.core.inputs import read_input
from homerd.core.program import load
from homerd.core.sink import BatchSink
from homerd.core.udp import DRAIN_LIMIT
from homerd.core.worker import Worker, settle_collector
from homerd.errors import ConfigError
from homerd.packet import Packet
from homerd.wire import hep
from homerd.wire.hep import Frame

ROUNDS = 7
LEAST_PACKETS = 2000
MOST_PACKETS = 20_000

_INVITE = """INVITE sip:+4930123{n:04}@sip.example.com SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.{h}:5060;rport;branch=z9hG4bK-{n:08x}\r
Max-Forwards: 70\r
From: "Alice" <sip:1{n:05}@sip.example.com>;tag=a{n:08x}\r
To: <sip:+4930123{n:04}@sip.example.com>\r
Call-ID: {n:016x}@192.0.2.{h}\r
CSeq: 102 INVITE\r
Contact: <sip:1{n:05}@192.0.2.{h}:5060>\r
User-Agent: Example Phone 2.1.7\r
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO\r
Supported: replaces, timer\r
Content-Type: application/sdp\r
Content-Length: 204\r
\r
v=0\r
o=- 1700000000 1700000000 IN IP4 192.0.2.{h}\r
s=-\r
c=IN IP4 192.0.2.{h}\r
t=0 0\r
m=audio 14000 RTP/AVP 8 0 101\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-15\r
a=ptime:20\r
a=sendrecv\r
"""
_OK = """SIP/2.0 200 OK\r
Via: SIP/2.0/UDP 192.0.2.{h}:5060;rport=5060;branch=z9hG4bK-{n:08x};received=192.0.2.{h}\r
From: "Alice" <sip:1{n:05}@sip.example.com>;tag=a{n:08x}\r
To: <sip:+4930123{n:04}@sip.example.com>;tag=b{n:08x}\r
Call-ID: {n:016x}@192.0.2.{h}\r
CSeq: 102 INVITE\r
Contact: <sip:+4930123{n:04}@198.51.100.7:5060>\r
Server: Example Switch 3.0\r
Content-Length: 0\r
\r
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "bench", help="µs per packet of each stage, with the operator's own script"
    )
    add_script_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "input", nargs="?", metavar="INPUT", help="packets (default: made up, half INVITE half 200)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure each stage alone, and the line as a whole."""
    program = load(options.file, defines=options.define)
    log.start()
    datagrams = _datagrams(options.input)
    worker = Worker(program, deliver=False, log=lambda level, text: None)
    worker.start()
    settle_collector()
    engine = worker.engine
    frames = [hep.decode(data) if data[:1] != b"S" else None for data in datagrams]
    known = [frame for frame in frames if frame is not None]

    def route() -> list[Packet]:
        packets = []
        for frame in known:
            packet = Packet(frame, engine.state)
            engine.script.run(packet)
            packets.append(packet)
        return packets

    records = [record for packet in route() for _, record in packet.effects]
    sink = _Discard("bench")

    def add() -> None:
        for record in records:
            sink.add(record)
        sink.discard()

    def whole() -> None:
        for start in range(0, len(datagrams), DRAIN_LIMIT):
            engine.handle([(data, None) for data in datagrams[start : start + DRAIN_LIMIT]])

    count = len(datagrams)
    stages = {
        "receive": _receive(datagrams),
        "decode": _best(lambda: [hep.decode(data) for data in datagrams]) / count,
        "route and build records": _best(route) / count,
        "hand to sinks": _best(add) / count,
    }
    together = _best(whole) / count
    total = stages["receive"] + together + stages["hand to sinks"]
    worker.stop()
    if options.json:
        stages_us = {name: _us(value) for name, value in stages.items()}
        described = {"packets": count, "records": len(records), "total_us": _us(total)}
        print(json.dumps({**described, "stages_us": stages_us}))
        return 0
    _print(options, stages, total, count, len(records))
    return 0


def _print(
    options: argparse.Namespace, stages: dict[str, float], total: float, count: int, records: int
) -> None:
    bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    longest = max(stages.values())
    print(f"{options.file}, {count:,} packets a round, the best of {ROUNDS} rounds, µs a packet:\n")
    for name, seconds in stages.items():
        print(f"  {name:24}{_us(seconds):8.2f}  {bar * max(1, round(30 * seconds / longest))}")
    print(f"\n  {'loop thread in all':24}{_us(total):8.2f}  {1 / total:,.0f} packets/s")
    print(f"  {'records a packet':24}{records / count:8.2f}")


class _Discard(BatchSink):
    """Takes records as any sink does, and is emptied by its owner instead of written."""

    def __init__(self, name: str) -> None:
        super().__init__(name, batch_size=1 << 30)

    def write(self, batch: Sequence[Any]) -> None:
        """Never called: the sink is not started."""

    def discard(self) -> None:
        """Forget what was added."""
        self._batch.clear()


def _datagrams(path: str | None) -> list[bytes]:
    """Datagrams as they would arrive: those of INPUT again and again, or made-up ones."""
    if path is None:
        return [data for number in range(LEAST_PACKETS // 2) for data in _made_up(number)]
    found: list[bytes] = []
    for item in read_input(path):
        if isinstance(item, Frame):
            found.append(item.raw if item.version else hep.encode(item))
        if len(found) >= MOST_PACKETS:
            break
    if not found:
        raise ConfigError(f"{path}: no packet in it that homerd can read")
    return found * (LEAST_PACKETS // len(found) + 1)


def _made_up(number: int) -> Iterable[bytes]:
    host = number % 250 + 1
    for text in (_INVITE, _OK):
        payload = text.format(n=number, h=host).encode()
        src, dst = bytes((192, 0, 2, host)), bytes((198, 51, 100, 7))
        if text is _OK:
            src, dst = dst, src
        yield hep.encode(
            Frame(3, 2, 17, src, dst, 5060, 5060, 1_700_000_000 + number // 100, number % 1_000_000,
                  hep.SIP, 2001, correlation_id=None, payload=payload)
        )  # fmt: skip


def _receive(datagrams: list[bytes]) -> float:
    """Seconds for one recv of a datagram that waits."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as giver,
    ):
        taker.bind(("127.0.0.1", 0))
        taker.setblocking(False)
        giver.connect(taker.getsockname())
        best = 1.0
        for start in range(0, min(len(datagrams), 40 * DRAIN_LIMIT), DRAIN_LIMIT):
            part = datagrams[start : start + DRAIN_LIMIT]
            for data in part:
                giver.send(data)
            before = time.perf_counter()
            for _ in part:
                taker.recv(65535)
            best = min(best, (time.perf_counter() - before) / len(part))
        return best


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
    return best


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 2)
