"""Fragments of IP datagrams put together again, on the time of the packets.

Kept are at most MAX_BYTES of pieces, each with PIECE_COST for its own keeping, of MAX_DATAGRAMS
datagrams; the oldest gives way.  Where pieces of IPv4 overlap what came first stays, a datagram of
IPv6 is dropped whole (RFC 5722); a piece that came twice is no overlap.
"""

from __future__ import annotations

from collections import Counter

from homerd.errors import DecodeError
from homerd.wire import ip
from homerd.wire.ip import IpPacket

REASONS = (
    "fragment",
    "fragment_duplicate",
    "fragment_overlap",
    "fragment_length",
    "fragment_cut",
    "fragment_pieces",
)
NOTES = ("fragments_expired", "fragments_evicted", "fragments_overlapping")

MAX_DATAGRAM = 65_535
MAX_PIECES = 256  # 64 KiB in the smallest packets IPv6 allows are 55
MAX_DATAGRAMS = 4096
MAX_BYTES = 16 << 20
PIECE_COST = 256
LIFETIME = {4: 30, 16: 60}  # seconds, by the size of an address

Key = tuple[bytes, bytes, int, int]


class Fragments:
    """Puts datagrams together.

    counts: by NOTES, datagrams that never became whole, and pieces of IPv4 that overlapped.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.held = 0  # bytes, with PIECE_COST for each piece
        self._datagrams: dict[Key, _Datagram] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._datagrams)

    def add(self, packet: IpPacket, seconds: int) -> IpPacket:
        """Take a piece, captured at *seconds*; gives the datagram that is whole with it.

        Raises DecodeError "fragment" when pieces are missing, else why the piece is of no use.
        """
        self.expire(seconds)
        piece = packet.fragment
        if piece is None:
            return packet
        if packet.cut:
            raise DecodeError("fragment_cut", packet.end)
        data = packet.payload
        end = piece.offset + len(data)
        if end > MAX_DATAGRAM or not data or (piece.more and len(data) % 8):
            raise DecodeError("fragment_length", packet.start)
        # The pieces of IPv6 are told apart by their number alone (RFC 8200 4.5).
        protocol = packet.protocol if len(packet.src) == 4 else 0
        key = packet.src, packet.dst, protocol, piece.identification
        datagram = self._datagrams.get(key)
        if datagram is None:
            self._make_room()
            datagram = self._datagrams[key] = _Datagram(seconds)
            self.held += datagram.held
        before = datagram.held
        try:
            if datagram.add(packet, piece.offset, end, data, piece.more):
                self.counts["fragments_overlapping"] += 1
        finally:
            self.held += datagram.held - before
        if not datagram.whole:
            while self.held > MAX_BYTES:
                self._forget(next(iter(self._datagrams)), "fragments_evicted")
            raise DecodeError("fragment", packet.start)
        del self._datagrams[key]
        self.held -= datagram.held
        first = datagram.first or packet
        return ip.joined(first, b"".join(part for _, _, part in datagram.parts))

    def expire(self, seconds: int) -> None:
        """Forget what has waited too long, also when the packets' clock was set back."""
        while self._datagrams:
            key, oldest = next(iter(self._datagrams.items()))
            # Datagrams of both lifetimes are in one line: the longer may hold the shorter up.
            if abs(seconds - oldest.since) <= LIFETIME[len(key[0])]:
                return
            self._forget(key, "fragments_expired")

    def finish(self) -> None:
        """Nothing more will come."""
        for key in [*self._datagrams]:
            self._forget(key, "fragments_expired")

    def _make_room(self) -> None:
        while len(self._datagrams) >= MAX_DATAGRAMS or self.held > MAX_BYTES - MAX_DATAGRAM:
            self._forget(next(iter(self._datagrams)), "fragments_evicted")

    def _forget(self, key: Key, why: str) -> None:
        datagram = self._datagrams.pop(key)
        self.held -= datagram.held
        if not datagram.spoilt:
            self.counts[why] += 1


class _Datagram:
    """The pieces of one datagram: parts are (offset, end, bytes) that do not overlap, in order."""

    __slots__ = ("first", "held", "parts", "since", "size", "spoilt", "total")

    def __init__(self, since: int) -> None:
        self.since = since
        self.first: IpPacket | None = None
        self.parts: list[tuple[int, int, bytes]] = []
        self.size = 0
        self.held = PIECE_COST
        self.total: int | None = None
        self.spoilt = ""

    @property
    def whole(self) -> bool:
        return self.size == self.total

    def add(self, packet: IpPacket, offset: int, end: int, data: bytes, more: bool) -> bool:
        """Take a piece; gives whether something else stood where it belongs."""
        if self.spoilt:
            raise DecodeError(self.spoilt, packet.start)
        if (offset, end, data) in self.parts:
            raise DecodeError("fragment_duplicate", packet.start)
        last = self.parts[-1][1] if self.parts else 0
        if self.total is None and not more:
            if end < last:
                self._spoil("fragment_length", packet)
            self.total = end
        elif self.total is not None and (end > self.total or (not more and end != self.total)):
            self._spoil("fragment_length", packet)
        if len(self.parts) >= MAX_PIECES:
            self._spoil("fragment_pieces", packet)
        free = self._free(offset, end)
        overlaps = sum(stop - start for start, stop in free) < end - offset
        if overlaps and len(packet.src) == 16:
            self._spoil("fragment_overlap", packet)
        if offset == 0 and self.first is None:
            self.first = IpPacket(packet.src, packet.dst, packet.protocol, b"", 0, 0, packet.tos)
        for start, stop in free:
            self.parts.append((start, stop, data[start - offset : stop - offset]))
            self.size += stop - start
            self.held += stop - start + PIECE_COST
        self.parts.sort()
        return overlaps

    def _spoil(self, why: str, packet: IpPacket) -> None:
        """Nothing comes of this datagram: let its pieces go, and refuse those that still come."""
        self.spoilt = why
        self.parts.clear()
        self.held = PIECE_COST
        raise DecodeError(why, packet.start)

    def _free(self, offset: int, end: int) -> list[tuple[int, int]]:
        """The stretches of offset…end that no part holds."""
        free = []
        for start, stop, _ in self.parts:
            if start >= end:
                break
            if stop <= offset:
                continue
            if start > offset:
                free.append((offset, start))
            offset = max(offset, stop)
        if offset < end:
            free.append((offset, end))
        return free
