"""Two scripts on the same packets, nothing delivered: which packets would go elsewhere.

Both begin with plugin objects of their own, so that tables are empty for both and no running one is
touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from homerd.core.engine import Engine, Peer
from homerd.core.program import Program
from homerd.core.worker import Worker
from homerd.lang.runtime import End
from homerd.packet import Packet
from homerd.wire.hep import Frame

EXAMPLES = 5
NOWHERE = "nothing"

Place = tuple[str, str]  # sink, table


class Fate(NamedTuple):
    """What became of a packet: where it went, how it ended, and what was stored."""

    places: tuple[Place, ...]
    ended: str
    records: list[Any]

    @property
    def told(self) -> str:
        """Where it went, in a few words."""
        return ", ".join(table or sink for sink, table in self.places) or NOWHERE


class Example(NamedTuple):
    """A packet that would go elsewhere."""

    packet: str
    before: Fate
    after: Fate


@dataclass(slots=True)
class Comparison:
    """What was found so far.

    elsewhere: packets that would go elsewhere; by_method, by_agent and by_table tell which.
    altered: those that would go to the same place with other contents.
    failures: of the script, before and after.
    """

    packets: int = 0
    elsewhere: int = 0
    altered: int = 0
    by_method: Counter[str] = field(default_factory=Counter)
    by_agent: Counter[str] = field(default_factory=Counter)
    by_table: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    failures: tuple[int, int] = (0, 0)


class Shadow:
    """Feeds the same packets to two scripts and compares what becomes of them."""

    def __init__(self, before: Program, after: Program) -> None:
        self.found = Comparison()
        self._workers = tuple(
            Worker(program, deliver=False, log=_say_nothing, debug=-5)
            for program in (before, after)
        )
        self._seen: set[tuple[str, str, str]] = set()

    def __enter__(self) -> Shadow:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop(0.0)

    def feed(self, frame: Frame, again: Frame | None = None, peer: Peer | None = None) -> None:
        """One packet through both; *again*: the same packet, decoded for the second."""
        before, after = self._workers
        packet, first = _fate(before.engine, frame, peer)
        _, second = _fate(after.engine, again or frame, peer)
        self._compare(packet, first, second)

    def take(self, data: bytes, peer: Peer | None) -> None:
        """A datagram; what is no packet counts for nothing."""
        before, after = self._workers
        frame, again = (
            worker.engine.decode(data, () if peer else None, _Known(peer) if peer else None)
            for worker in (before, after)
        )
        if frame is not None:
            self.feed(frame, again, peer)
        for worker in self._workers:
            worker.timers.run_due()

    def advance(self, seconds: float) -> None:
        """Time goes on for both."""
        for worker in self._workers:
            worker.settle(0.0)
            worker.advance(seconds)

    def _compare(self, packet: Packet, before: Fate, after: Fate) -> None:
        found = self.found
        found.packets += 1
        found.failures = tuple(  # type: ignore[assignment]  # two workers, two numbers
            sum(worker.engine.route_errors.values()) for worker in self._workers
        )
        if before.places == after.places:
            found.altered += before.records != after.records
            return
        method, agent = _method(packet), _agent(packet)
        found.elsewhere += 1
        found.by_method[method] += 1
        found.by_agent[agent] += 1
        found.by_table[(before.told, after.told)] += 1
        kind = (method, before.told, after.told)
        if kind not in self._seen and len(found.examples) < EXAMPLES:
            self._seen.add(kind)
            found.examples.append(Example(_described(packet, agent), before, after))


class _Known:
    """An Arrival whose peer is known already."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def peer(self, address: tuple[Any, ...]) -> Peer:
        return self._peer


def report(found: Comparison) -> Iterator[str]:
    """The comparison for people."""
    percent = 100 * found.elsewhere / found.packets if found.packets else 0.0
    yield f"{found.packets:,} packets compared, both scripts with empty tables"
    yield f"{found.elsewhere:,} would go elsewhere ({percent:.1f} %)"
    if found.altered:
        yield f"{found.altered:,} would go to the same place with other contents"
    before, after = found.failures
    if before or after:
        yield f"errors of the script: {before:,} before, {after:,} after"
    by_table = {f"{old} → {new}": count for (old, new), count in found.by_table.items()}
    for title, counts in (
        ("method", found.by_method), ("agent", found.by_agent), ("table", by_table)
    ):  # fmt: skip
        if counts:
            yield f"by {title}"
            yield from _counts(counts)
    if found.examples:
        yield "for example"
    for example in found.examples:
        yield f"   {example.packet}"
        yield f"      before  {example.before.told} ({example.before.ended})"
        yield f"      after   {example.after.told} ({example.after.ended})"


def _counts(counts: Mapping[str, int]) -> Iterator[str]:
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"   {count:>9,}  {name}"


def _fate(engine: Engine, frame: Frame, peer: Peer | None) -> tuple[Packet, Fate]:
    packet, end = engine.feed(frame, peer)
    described = [(sink.name, _described_record(sink, record)) for sink, record in packet.effects]
    places = tuple(sorted({(name, str(item.get("table") or "")) for name, item in described}))
    return packet, Fate(places, _ended(end), described)


def _described_record(sink: Any, record: Any) -> dict[str, Any]:  # a plugin's own
    described: dict[str, Any] = sink.describe(record)
    return described


def _ended(end: End | Exception | None) -> str:
    if end is None:
        return "a keep-alive"
    if isinstance(end, Exception):
        return f"failed: {end}"
    return f"{end.kind} {end.reason or end.place}".rstrip()


def _method(packet: Packet) -> str:
    sip = packet.sip
    if sip.is_request:
        return sip.method or "?"
    if sip.is_reply:
        return f"reply to {sip.cseq_method or '?'}"
    return f"payload type {packet.frame.payload_type}"


def _agent(packet: Packet) -> str:
    number = packet.frame.capture_id
    return "without a capture id" if number is None else str(number)


def _described(packet: Packet, agent: str) -> str:
    sip = packet.sip
    line = packet.frame.payload.lstrip(b"\r\n").split(b"\r\n", 1)[0].decode("utf-8", "replace")
    first = line if sip.is_request or sip.is_reply else _method(packet)
    return f"{first[:100]}, Call-ID {packet.call_id or '-'}, agent {agent}"


def _say_nothing(level: int, text: str) -> None:
    pass
