"""A packet on its way through the script: one Frame, lazy views of its payload, its effects.

Script values are `str`, `int` and `None` (null).  Text is UTF-8 decoded with "surrogateescape",
so that bytes which are no UTF-8 come out again as they came in.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

from homerd.errors import Flood, Place
from homerd.wire.hep import Frame
from homerd.wire.sip import SipMessage

Value = str | int | None


SIP = 1  # HEP payload type, chunk 0x000b

# More than any script means: a module that never ends must not fill the memory.
MOST_EFFECTS = 10_000
MOST_LINES = 10_000


class Sink(Protocol):
    """What a packet needs of the thing it emits to."""

    name: str

    def add(self, record: Any) -> None:  # a record is whatever the sink's own plugin builds
        """Take one record; never waits."""


class Statistics(dict[str, int]):
    """What `$stat` reads, by name: what the script counts, and what is counted elsewhere anyway.

    A name of the script's own hides one of elsewhere.
    """

    __slots__ = ("_begins", "_elsewhere")

    def __init__(self) -> None:
        super().__init__()
        self._elsewhere: dict[str, Callable[[Packet], int]] = {}
        self._begins: dict[str, Callable[[], None]] = {}

    def watch(
        self,
        group: str,
        name: str,
        read: Callable[[Packet], int],
        begin: Callable[[], None] | None = None,
    ) -> None:
        """Let *read* tell `name` and `group:name` when they are asked for.

        begin: called when a script names it, for what is not counted otherwise.
        """
        for each in (name, f"{group}:{name}"):
            self._elsewhere[each] = read
            if begin is not None:
                self._begins[each] = begin

    def expect(self, name: str) -> None:
        """A script names this one."""
        begin = self._begins.get(name)
        if begin is not None:
            begin()

    def value(self, name: str, packet: Packet) -> int | None:
        """A statistic as *packet* sees it; None when there is none of that name."""
        if name in self:
            return self[name]
        self.expect(name)
        read = self._elsewhere.get(name)
        return None if read is None else read(packet)


class RunState:
    """What outlives a packet: `$var`, the script's clock, where its log lines go.

    Each worker has one for its packets and one for each of its timers, as Kamailio's processes
    have.  The clock is wall, with clock_offset seconds added, which `{"wait": s}` moves in replay.
    globals are the script's own (`group.field = value`), statistics what `$stat` reads; all states
    of a worker share both.  prefix gives what stands before a packet's log lines.  report takes
    what failed while the script went on (a division by zero, an endless loop) and where.
    """

    __slots__ = (
        "clock_offset",
        "debug",
        "globals",
        "log",
        "prefix",
        "report",
        "statistics",
        "variables",
        "wall",
    )

    def __init__(
        self,
        log: Callable[[int, str], None],
        debug: int = 0,
        report: Callable[[str, Place], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.wall = wall
        self.variables: defaultdict[str, str | int] = defaultdict(int)
        self.clock_offset = 0.0
        self.globals: dict[str, str | int] = {}
        self.statistics = Statistics()
        self.log = log
        self.prefix: Callable[[Packet], str] | None = None
        self.report = report or _no_report
        self.debug = debug

    def now(self) -> float:
        """Seconds since 1970 by the script's clock."""
        return self.wall() + self.clock_offset


def _no_report(message: str, place: Place) -> None:
    """Nobody asked to be told."""


class Envelope(Frame):
    """The datagram itself, as the route sees it that runs before what is inside is looked at.

    Addresses are those of the sender and of our socket, the payload is the undecoded datagram.
    hep: what the envelope says.
    """

    __slots__ = ("hep",)

    hep: Frame


def envelope(packet: Packet) -> Packet:
    """The same packet seen from outside; both hand their effects to one list."""
    frame = packet.frame
    outside = Envelope(frame.version, payload=frame.raw, raw=frame.raw)
    outside.hep = frame
    peer = packet.scratch.get("peer")
    if peer is not None:
        outside.family, outside.protocol = peer.family, peer.protocol
        outside.src, outside.src_port = peer.src, peer.src_port
        outside.dst, outside.dst_port = peer.dst, peer.dst_port
    seen = Packet(outside, packet.state)
    seen.effects = packet.effects
    return seen


class Packet:
    """One captured packet.

    rc: what the last function or route returned.
    route: the route block it runs through, "" before.
    effects: (sink, record) pairs in the order they were emitted.
    scratch: whatever plugins keep with the packet (AVPs, flags, the cached time), by their name.
    """

    __slots__ = (
        "_scratch",
        "_sip",
        "effects",
        "frame",
        "rc",
        "returned",
        "route",
        "state",
        "variables",
    )

    def __init__(self, frame: Frame, state: RunState) -> None:
        self.frame = frame
        self.state = state
        self.variables = state.variables
        self.effects: list[tuple[Sink, Any]] = []
        self.rc = 0
        self.returned = False
        self.route = ""
        self._sip: SipMessage | None = None
        self._scratch: dict[str, Any] | None = None

    def become(self, frame: Frame) -> None:
        """Go on as another packet: what was read of the payload is read anew."""
        self.frame = frame
        self._sip = None

    @property
    def sip(self) -> SipMessage:
        """The payload read as SIP; a message without any field when it is not SIP."""
        if self._sip is None:
            self._sip = SipMessage(self.frame.payload)
        return self._sip

    @property
    def scratch(self) -> dict[str, Any]:
        """The place of plugins to keep what lives as long as the packet."""
        if self._scratch is None:
            self._scratch = {}
        return self._scratch

    @property
    def hep(self) -> Frame:
        """What the HEP envelope says, wherever the script looks from."""
        frame = self.frame
        return frame.hep if isinstance(frame, Envelope) else frame

    @property
    def src_ip(self) -> str:
        """Source address of the captured packet as text, "" when unknown."""
        return self.frame.src_ip

    @property
    def dst_ip(self) -> str:
        """Destination address of the captured packet as text, "" when unknown."""
        return self.frame.dst_ip

    @property
    def call_id(self) -> str:
        """Call-ID of the SIP message, else the correlation id, else ""."""
        return self.sip.call_id or self.frame.correlation_id or ""

    @property
    def seconds(self) -> int:
        """When the packet was captured; when it was received if the envelope does not say."""
        return self.frame.seconds or int(self._received())

    @property
    def micros(self) -> int:
        """Microseconds that belong to `seconds`; may exceed a million, as on the wire."""
        return self.frame.micros if self.frame.seconds else int(self._received() % 1 * 1_000_000)

    def _received(self) -> float:
        scratch = self.scratch
        if "received" not in scratch:
            scratch["received"] = self.state.now()
        received: float = scratch["received"]
        return received

    def emit(self, sink: Sink, record: Any) -> bool:
        """Hand *record* to *sink* when the script is done with the packet.

        Raises Flood when the packet has MOST_EFFECTS of them.
        """
        effects = self.effects
        if len(effects) >= MOST_EFFECTS:
            raise Flood(f"more than {MOST_EFFECTS} records from one packet, the rest is not taken")
        effects.append((sink, record))
        return True

    def log(self, level: int, text: str) -> None:
        """Print *text* when *level* (Kamailio's numbers, -5 alert to 3 debug) is wanted.

        Raises Flood when the packet has printed MOST_LINES.
        """
        state = self.state
        if level <= state.debug:
            scratch = self.scratch
            lines = scratch["log_lines"] = scratch.get("log_lines", 0) + 1
            if lines > MOST_LINES:
                raise Flood(
                    f"more than {MOST_LINES} log lines from one packet, the rest is left out"
                )
            state.log(level, text if state.prefix is None else state.prefix(self) + text)
