"""A datagram's way from bytes to the sinks; the straight line everything else serves.

Every datagram ends in exactly one counter: received = undecoded + refused + handled + routed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from homerd.core.containment import SINK, WORD, described
from homerd.core.inflation import NO_ROOM, Inflation
from homerd.core.tally import Tally
from homerd.errors import FAULTS, DecodeError, Place
from homerd.packet import SIP, Packet, RunState, Sink, Statistics
from homerd.wire.hep import Frame, decode, encode
from homerd.wire.sip import looks_like_sip

if TYPE_CHECKING:
    from homerd.core.intake import Intake
    from homerd.lang.runtime import End
    from homerd.lang.script import CompiledScript

log = logging.getLogger("homerd.engine")

KEEP_ALIVE = "keep_alive"

# Counters of Kamailio's core for what a capture server never does.
NOTHING_SENT = (
    "fwd_requests",
    "fwd_replies",
    "drop_replies",
    "err_requests",
    "err_replies",
    "bad_URIs_rcvd",
    "unsupported_methods",
)


class Peer(NamedTuple):
    """Who sent a datagram and where it arrived; addresses packed."""

    family: int
    protocol: int
    src: bytes
    src_port: int
    dst: bytes
    dst_port: int


Address = tuple[Any, ...]  # as recvfrom gives it: two parts for IPv4, four for IPv6
Datagram = tuple[bytes, Address | None]


Came = list[tuple[Frame | None, Address | None]]


class Arrival(Protocol):
    """What the engine needs of a source: the addresses, but only where they matter."""

    def peer(self, address: Address) -> Peer:
        """*address* as recvfrom gives it, with the socket's own."""


Admit = Callable[[Frame, Address | None, Arrival | None], str]


class Failure(NamedTuple):
    """A fault of the script at run time."""

    message: str
    place: Place | None


class Engine:
    """Decodes, routes, hands the effects to the sinks, and counts.

    deliver: False for trace, which only looks at the effects.
    undecoded, refused: by reason.  handled: packets a plugin took in place of the script, and
    keep-alives.  routed: by route.  route_errors: by place.  effects: by sink.
    gave_records: packets with an effect.  not_stored: those without, by what ended them.
    after: called when a source's datagrams have been routed.
    fault: shown what a packet's run ended with; gives the module whose fault it is, "" for none.
    admit: says why a packet that came to a listener is not routed, "" when it is; None: all are.
    inflation: bounds what unpacked payloads take; None: whatever they take.
    intake: takes batches that are acknowledged; None where nobody does.
    last_failure: set by each fault; whoever wants to know clears it before.
    """

    def __init__(self, script: CompiledScript, state: RunState, *, deliver: bool = True) -> None:
        self.script = script
        self.state = state
        self._needs_peer = script.needs_peer
        self.deliver = deliver
        self.received = 0
        self.undecoded: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        # Hot path: each packet bumps these two; a Counter takes 0.14 µs for it, a defaultdict 0.05.
        self.routed: defaultdict[str, int] = defaultdict(int)
        self.effects: defaultdict[str, int] = defaultdict(int)
        self.gave_records = 0
        self.after: Callable[[], None] = _nothing
        self.fault: Callable[[BaseException, str], str] = _nobody
        self.route_errors: Counter[str] = Counter()
        self.not_stored: Counter[str] = Counter()
        self.tally = Tally()
        self._tallies = False
        self.last_failure: Failure | None = None
        self.intake: Intake | None = None
        self.admit: Admit | None = None
        self.inflation: Inflation | None = None
        self._logged: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()

    def handle(self, datagrams: Iterable[Datagram], source: Arrival | None = None) -> None:
        """Datagrams in the order they came: decode, route, hand over the effects.  Never raises."""
        # Hot path: all are decoded before the first is routed.  Done in turns, each pushes the
        # other's code out of the processor's cache: 18.5 µs a packet, 15.4 in batches of 64.
        frames = [(self.decode(data, address, source), address) for data, address in datagrams]
        if self.admit is not None:
            frames = self._admitted(frames, self.admit, source)
        feed, needs_peer = self.feed, self._needs_peer and source is not None
        for frame, address in frames:
            if frame is None:
                continue
            # Hot path: 0.09 µs; a payload is longer than what came only where it was packed.
            if len(frame.payload) > len(frame.raw) and not self._has_room(frame):
                continue
            if needs_peer and address is not None and source is not None:
                feed(frame, source.peer(address))
            else:
                feed(frame)
        self.after()

    def _admitted(self, frames: Came, admit: Admit, source: Arrival | None) -> Came:
        """The frames of agents that may send; the others are counted."""
        found: Came = []
        for frame, address in frames:
            reason = "" if frame is None else admit(frame, address, source)
            if not reason:
                found.append((frame, address))
                continue
            self.refuse(reason)
        return found

    def _has_room(self, frame: Frame) -> bool:
        """Whether there is room for what a packed payload has become; counted when there is not."""
        gained = len(frame.payload) - len(frame.raw)
        if self.inflation is None or self.inflation.admits(gained):
            return True
        self.refuse(NO_ROOM)
        return False

    def refuse(self, reason: str) -> None:
        """Count a packet that is not routed."""
        self.received += 1
        self.refused[reason] += 1
        self.not_stored[reason] += 1

    def take(self, frames: Iterable[Frame]) -> None:
        """Packets that were captured live, in the order they came: route them.  Never raises."""
        feed, needs_peer = self.feed, self._needs_peer
        for frame in frames:
            if needs_peer:
                feed(frame, _ends(frame))
            else:
                feed(frame)
        self.after()

    def tell(self, statistics: Statistics) -> None:
        """Let `$stat` read what was counted, by the names Kamailio's core has for it.

        The packet that asks is counted among those received.
        """

        def received(route: str) -> Callable[[Packet], int]:
            return lambda packet: self.routed[route] + (packet.route == route)

        statistics.watch("core", "rcv_requests", received("request_route"))
        statistics.watch("core", "rcv_replies", received("onreply_route"))
        statistics.watch("core", "drop_requests", lambda packet: self.refused.total())
        statistics.watch("core", "bad_msg_hdr", lambda packet: self.undecoded.total())
        for name in NOTHING_SENT:
            statistics.watch("core", name, lambda packet: 0)
        self.tally.tell(statistics, self._begin_tally)

    def _begin_tally(self) -> None:
        self._tallies = True

    def swap(self, script: CompiledScript) -> None:
        """Route with *script* from the next packet on; called on the loop, between two packets."""
        self.script, self._needs_peer = script, script.needs_peer

    @property
    def copied(self) -> bool:
        """Whether somebody is shown the datagrams."""
        return "handle" in self.__dict__

    def copy_to(self, copy: Callable[[bytes, Peer | None], None] | None) -> None:
        """Show each datagram to *copy* before it is routed, until called with None.

        Of what was captured live it is the message within.
        """
        # Hot path: nobody copies on most days, and then nothing is asked per packet.
        self.__dict__.pop("handle", None)
        self.__dict__.pop("take", None)
        if copy is None:
            return
        handle, take = self.handle, self.take

        def copying(datagrams: Iterable[Datagram], source: Arrival | None = None) -> None:
            taken = list(datagrams)
            for data, address in taken:
                copy(data, source.peer(address) if source and address else None)
            handle(taken, source)

        def copying_frames(frames: Iterable[Frame]) -> None:
            captured = list(frames)
            for frame in captured:
                copy(_datagram(frame), _ends(frame))
            take(captured)

        self.__dict__["handle"] = copying
        self.__dict__["take"] = copying_frames

    def decode(
        self, data: bytes, address: Address | None = None, source: Arrival | None = None
    ) -> Frame | None:
        """The packet in a datagram; None, counted, when it is neither HEP nor SIP."""
        try:
            return decode(data)
        except DecodeError as error:
            if error.reason != "not_hep" or not looks_like_sip(data):
                self.received += 1
                self.undecoded[error.reason] += 1
                return None
            return bare_sip(data, source.peer(address) if source and address else None)

    def feed(self, frame: Frame, peer: Peer | None = None) -> tuple[Packet, End | Exception | None]:
        """Route a decoded packet.

        Gives the packet with its effects, and how the script ended: an End, what it failed with, or
        None for a keep-alive, which no script sees.  peer: kept as packet.scratch["peer"].
        """
        self.received += 1
        packet = Packet(frame, self.state)
        if frame.payload_type is None and not frame.payload:
            self.handled[KEEP_ALIVE] += 1
            self.not_stored[KEEP_ALIVE] += 1
            return packet, None
        if peer is not None:
            packet.scratch["peer"] = peer
        try:
            end = self.script.run(packet)
        except FAULTS as error:  # counted; the next packet is served
            self._failed(error, packet)
            return packet, _as_exception(error)
        kind = end.kind
        if kind == "refused":
            self.refused[end.reason] += 1
        elif kind == "handled":
            self.handled[f"hep_type_{frame.payload_type}"] += 1
        else:
            self.routed[packet.route] += 1
            if self._tallies:
                self.tally.add(packet)
        if packet.effects:
            self.gave_records += 1
            self._deliver(iter(packet.effects))
        elif kind == "refused":
            self.not_stored[end.reason] += 1
        elif kind == "handled":
            self.not_stored[f"hep_type_{frame.payload_type}"] += 1
        else:
            self.not_stored[f"script:{end.place}"] += 1
        return packet, end

    def run_route(self, name: str, packet: Packet) -> End | Exception | None:
        """Run `route[name]`, for a timer; None when there is none.  Never raises."""
        try:
            end = self.script.run_route(name, packet)
        except FAULTS as error:  # counted, like a packet's
            self._report(error, packet)
            self._deliver(iter(packet.effects))
            return _as_exception(error)
        self._deliver(iter(packet.effects))
        return end

    def run_event(self, name: str, packet: Packet) -> End | Exception | None:
        """Run `event_route[name]`; None when there is none.  Never raises."""
        try:
            end = self.script.run_event(name, packet)
        except FAULTS as error:  # counted, like a packet's
            self._report(error, packet)
            self._deliver(iter(packet.effects))
            return _as_exception(error)
        self._deliver(iter(packet.effects))
        return end

    def report(self, message: str, place: Place | None, module: str = "") -> None:
        """Count a fault under its line; log it, once a second at most for each line."""
        self.last_failure = Failure(message, place)
        where = str(place) if place is not None else "unknown"
        self.route_errors[where] += 1
        now = time.monotonic()
        if now - self._logged.get(where, -1.0) < 1.0:
            self._suppressed[where] += 1
            return
        self._logged[where] = now
        route = place.route if place is not None else ""
        log.error(
            'script failed place=%s route=%s module=%s suppressed=%d error="%s"',
            where,
            route or "-",
            module or "-",
            self._suppressed.pop(where, 0),
            message,
        )

    def _deliver(self, left: Iterator[tuple[Sink, Any]]) -> None:
        effects, deliver = self.effects, self.deliver
        while True:
            try:
                for sink, record in left:
                    effects[sink.name] += 1
                    if deliver:
                        sink.add(record)
                return
            except FAULTS as error:  # counted; a sink of a plugin's own keeps nothing from others
                self.report(described(error), None, self.fault(error, SINK))

    def _failed(self, error: BaseException, packet: Packet) -> None:
        """A packet whose script failed midway; what it emitted before still goes out."""
        place = self._report(error, packet)
        if packet.route:
            self.routed[packet.route] += 1
        else:
            self.handled["failed"] += 1
        if packet.effects:
            self.gave_records += 1
            self._deliver(iter(packet.effects))
        else:
            self.not_stored[f"error:{place}"] += 1

    def _report(self, error: BaseException, packet: Packet) -> str:
        place = self.script.locate(error)
        if place is not None and not place.route:
            place = place._replace(route=packet.route)
        self.report(described(error), place, self.fault(error, WORD))
        return str(place) if place is not None else "unknown"


def bare_sip(data: bytes, peer: Peer | None) -> Frame:
    """A SIP message that came without an envelope, as a Frame of version 0."""
    if peer is None:
        return Frame(0, payload_type=SIP, payload=data, raw=data)
    return Frame(
        0,
        peer.family,
        peer.protocol,
        peer.src,
        peer.dst,
        peer.src_port,
        peer.dst_port,
        payload_type=SIP,
        payload=data,
        raw=data,
    )


def _datagram(frame: Frame) -> bytes:
    """What was captured as a datagram; the message alone where no frame is large enough."""
    try:
        return frame.raw or encode(frame)
    except ValueError:
        return frame.payload


def _ends(frame: Frame) -> Peer:
    """Who sent what was captured, and to whom."""
    return Peer(frame.family, frame.protocol, frame.src, frame.src_port, frame.dst, frame.dst_port)


def _nothing() -> None:
    """Nobody wants to know."""


def _nobody(error: BaseException, what: str) -> str:
    """No module is known."""
    return ""


def _as_exception(error: BaseException) -> Exception:
    """What a packet's run ended with, for who is told of it."""
    return error if isinstance(error, Exception) else RuntimeError(described(error))
