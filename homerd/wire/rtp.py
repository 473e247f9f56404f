"""RTP: the header, and how a stream of them arrives.

Only counts are kept of a stream, no packets.  Any bytes give a Header or a DecodeError with one of
REASONS.  Sources: RFC 3550 5.1, A.3 (loss), A.8 (jitter), RFC 3551 6 (payload types).
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from homerd.errors import DecodeError
from homerd.wire.sdp import Codec

REASONS = ("rtp_version", "rtp_truncated", "rtp_padding")

# RFC 3551 6: payload types that no SDP need explain.
CODECS = {
    0: Codec("PCMU", 8000),
    3: Codec("GSM", 8000),
    4: Codec("G723", 8000),
    5: Codec("DVI4", 8000),
    6: Codec("DVI4", 16000),
    7: Codec("LPC", 8000),
    8: Codec("PCMA", 8000),
    9: Codec("G722", 8000),
    10: Codec("L16", 44100),
    11: Codec("L16", 44100),
    12: Codec("QCELP", 8000),
    13: Codec("CN", 8000),
    14: Codec("MPA", 90000),
    15: Codec("G728", 8000),
    16: Codec("DVI4", 11025),
    17: Codec("DVI4", 22050),
    18: Codec("G729", 8000),
    25: Codec("CelB", 90000),
    26: Codec("JPEG", 90000),
    28: Codec("nv", 90000),
    31: Codec("H261", 90000),
    32: Codec("MPV", 90000),
    33: Codec("MP2T", 90000),
    34: Codec("H263", 90000),
}
_QUIET = frozenset({"CN"})
# Packets of one event have one time stamp: it says nothing of when they were due.
_STANDING = frozenset({"TELEPHONE-EVENT"})

_MAX_DROPOUT = 3000
_MAX_MISORDER = 100

_fixed = Struct(">BBHII").unpack_from
_extension = Struct(">HH").unpack_from


def is_beside(codec: Codec | None) -> bool:
    """Whether *codec* is for tones or silence, beside the one that carries the media."""
    return codec is not None and codec.name.upper() in _QUIET | _STANDING


class Header(NamedTuple):
    """start, end: where the payload lies, without padding."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    csrc: tuple[int, ...]
    start: int
    end: int


def decode(data: bytes) -> Header:
    """Read a packet's header.

    version(2 bits) padding(1) extension(1) count(4) marker(1) type(7) sequence(u16) timestamp(u32)
    ssrc(u32) csrc(u32, count times) [profile(u16) length(u16, words) extension]
    """
    size = len(data)
    if size < 12:
        raise DecodeError("rtp_truncated", size)
    first, kind, sequence, timestamp, ssrc = _fixed(data)
    if first & 0xC0 != 0x80:
        raise DecodeError("rtp_version", 0)
    start, end = 12, size
    csrc: tuple[int, ...] = ()
    if first & 0x0F:
        start += 4 * (first & 0x0F)
        if start > size:
            raise DecodeError("rtp_truncated", size)
        csrc = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(12, start, 4))
    if first & 0x10:
        if start + 4 > size:
            raise DecodeError("rtp_truncated", size)
        start += 4 + 4 * _extension(data, start)[1]
        if start > size:
            raise DecodeError("rtp_truncated", size)
    if first & 0x20:
        end -= data[-1]
        if end < start or end == size:
            raise DecodeError("rtp_padding", size - 1)
    return Header(kind & 0x7F, kind > 0x7F, sequence, timestamp, ssrc, csrc, start, end)


class Reception:
    """How the packets of one SSRC arrived; times in microseconds, jitter in milliseconds.

    packets, octets: received, payload only.  out_of_order: those that came after a later one.
    jitter, max_jitter, mean_jitter: None while no packet of a codec with a known clock came twice.
    delta, max_delta: between the arrivals of two packets.  skew, max_skew: how far the sender's
    clock is ahead of ours since the first packet.
    """

    __slots__ = (
        "_arrival",
        "_base",
        "_begin",
        "_cycles",
        "_highest",
        "_jitters",
        "_previous",
        "_sum",
        "delta",
        "jitter",
        "max_delta",
        "max_jitter",
        "max_skew",
        "octets",
        "out_of_order",
        "packets",
        "restarted",
        "skew",
    )

    def __init__(self) -> None:
        self.packets = self.octets = self.out_of_order = 0
        self.restarted = 0  # packets expected before the sender began counting anew
        self.jitter: float | None = None
        self.max_jitter = self.delta = self.max_delta = self.skew = self.max_skew = 0.0
        self._base = self._highest = self._cycles = 0
        self._arrival = 0
        self._previous: tuple[int, int, int] | None = None  # clock, time stamp, arrival
        self._begin: tuple[int, int, int] | None = None
        self._sum = 0.0
        self._jitters = 0

    @property
    def expected(self) -> int:
        """How many packets the sender's numbers say there were."""
        if not self.packets:
            return 0
        return self.restarted + self._cycles + self._highest - self._base + 1

    @property
    def lost(self) -> int:
        """Those that did not come; less than 0 when some came twice."""
        return self.expected - self.packets

    @property
    def highest(self) -> int:
        """The highest sequence number, with the cycles it went through above 16 bits."""
        return self._cycles + self._highest

    @property
    def mean_jitter(self) -> float | None:
        """Of the values after each packet of a talkspurt but its first."""
        return self._sum / self._jitters if self._jitters else None

    def add(self, header: Header, arrival: int, codec: Codec | None) -> None:
        """One packet, which arrived at *arrival*."""
        self._count(header.sequence)
        self.octets += header.end - header.start
        name = codec.name.upper() if codec is not None else ""
        quiet = name in _QUIET
        # A marker begins a talkspurt: what went before it was silence, not delay.
        if self._arrival and not header.marker and not quiet:
            self.delta = (arrival - self._arrival) / 1000
            self.max_delta = max(self.max_delta, self.delta)
        self._arrival = 0 if quiet else arrival
        if codec is not None and codec.clock and name not in _STANDING:
            self._time(header, arrival, codec.clock, quiet)

    def _count(self, sequence: int) -> None:
        """RFC 3550 A.1, without probation: the stream is known from its call's SDP."""
        if not self.packets:
            self._base = self._highest = sequence
        else:
            ahead = sequence - self._highest & 0xFFFF
            if 0 < ahead < _MAX_DROPOUT:
                if sequence < self._highest:
                    self._cycles += 1 << 16
                self._highest = sequence
            elif ahead > 0x10000 - _MAX_MISORDER or ahead == 0:
                self.out_of_order += ahead != 0
            else:
                # A jump too wide for loss: the sender began anew.
                self.restarted = self.expected
                self._base = self._highest = sequence
                self._cycles = 0
                self._previous = self._begin = None
        self.packets += 1

    def _time(self, header: Header, arrival: int, clock: int, quiet: bool) -> None:
        """J = J + (|D| - J) / 16, D the change of transit time between two packets."""
        here = clock, header.timestamp, arrival
        previous, self._previous = self._previous, here
        if previous is not None and previous[0] == clock:
            apart = _apart(previous[1], here[1]) * 1000 / clock
            change = abs((arrival - previous[2]) / 1000 - apart)
            jitter = self.jitter or 0.0
            jitter += (change - jitter) / 16
            self.jitter = jitter
            self.max_jitter = max(self.max_jitter, jitter)
            if not quiet and not header.marker:
                self._sum += jitter
                self._jitters += 1
        if self._begin is None or self._begin[0] != clock:
            self._begin = here
            return
        nominal = _apart(self._begin[1], here[1]) * 1000 / clock
        self.skew = nominal - (arrival - self._begin[2]) / 1000
        if abs(self.skew) > abs(self.max_skew):
            self.max_skew = self.skew


def _apart(before: int, after: int) -> int:
    """The way from one time stamp to another, which may lie behind it."""
    way = after - before & 0xFFFFFFFF
    return way - (1 << 32) if way >= 1 << 31 else way
