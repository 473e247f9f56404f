"""SCTP: the messages in DATA and I-DATA chunks, those of several chunks joined in order.

Kept are at most MAX_BYTES of pieces, each with PIECE_COST for its own keeping, of MAX_STREAMS
directions of associations; the one that was silent longest gives way.  What was sent twice is
taken once.  Checksums are not verified.  Source: RFC 9260 3, RFC 8260 2.1.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from struct import Struct
from typing import NamedTuple

from homerd.errors import DecodeError
from homerd.wire.ip import IpPacket

REASONS = ("truncated", "sctp_chunk", "sctp_control", "sctp_piece", "sctp_repeated")
NOTES = ("sctp_evicted", "sctp_too_long", "sctp_unfinished")

MAX_WAITING = 256 << 10  # of one direction, and
MAX_PIECES = 128  # as each that comes is walked to from its neighbours
MAX_STREAMS = 4096
MAX_BYTES = 16 << 20
PIECE_COST = 256
MAX_CHUNKS = 512  # in one packet: 64 KiB of DATA chunks with a byte each are more, and not sent

_DATA, _I_DATA = 0, 64
_END, _BEGIN, _UNORDERED = 1, 2, 4
_U32 = 0xFFFFFFFF
_REMEMBERED = 1024  # transmission numbers, to tell what was sent twice
_WINDOW = (1 << _REMEMBERED) - 1

_common = Struct(">HHI").unpack_from
_chunk = Struct(">BBH").unpack_from
_data = Struct(">IHxxI").unpack_from  # number, stream, sequence, payload protocol
_i_data = Struct(">IHxxII").unpack_from  # number, stream, message, payload protocol or piece

Key = tuple[bytes, bytes, int, int, int]


class Message(NamedTuple):
    """What the user of SCTP sent, and the payload protocol identifier it gave."""

    protocol: int
    data: bytes


class Packet(NamedTuple):
    """One SCTP packet: its ports and the messages that are whole with it."""

    src_port: int
    dst_port: int
    messages: list[Message]


class Sctp:
    """Follows associations.

    counts: by NOTES, pieces that never became a message.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.held = 0  # bytes, with PIECE_COST for each piece
        self._directions: OrderedDict[Key, _Direction] = OrderedDict()

    def __len__(self) -> int:
        return len(self._directions)

    def feed(self, packet: IpPacket) -> Packet:
        """source(u16) destination(u16) tag(u32) checksum(u32), then chunks padded to four bytes.

        Raises DecodeError when no message is whole: "sctp_piece" when the rest of one is awaited,
        "sctp_control" when the packet has none at all, else what is wrong.
        """
        data, at, end = packet.data, packet.start, packet.end
        if end < at + 12:
            raise DecodeError("truncated", end)
        src_port, dst_port, tag = _common(data, at)
        messages: list[Message] = []
        direction: _Direction | None = None
        reason, fault = "sctp_control", at
        at += 12
        for _ in range(MAX_CHUNKS):
            if end < at + 4:
                break
            kind, flags, length = _chunk(data, at)
            if length < 4:
                reason, fault = "sctp_chunk", at
                break
            stop = at + length
            if kind in (_DATA, _I_DATA):
                if stop > end:
                    reason, fault = "truncated", end
                    break
                if direction is None:
                    direction = self._direction((packet.src, packet.dst, src_port, dst_port, tag))
                piece = _piece(data, at, stop, flags)
                if piece is None:
                    reason, fault = "sctp_chunk", at
                    break
                why, message = self._take(direction, piece)
                if message is not None:
                    messages.append(message)
                elif reason != "sctp_piece":
                    reason = why
            at = stop + -(stop - packet.start) % 4
        if not messages:
            raise DecodeError(reason, fault)
        return Packet(src_port, dst_port, messages)

    def finish(self) -> None:
        """Nothing more will come."""
        for direction in self._directions.values():
            self._lose(direction, "sctp_unfinished")
        self._directions.clear()

    def _direction(self, key: Key) -> _Direction:
        direction = self._directions.get(key)
        if direction is not None:
            self._directions.move_to_end(key)
            return direction
        if len(self._directions) >= MAX_STREAMS:
            self._evict()
        direction = self._directions[key] = _Direction()
        return direction

    def _evict(self) -> None:
        """Let the direction go that has been silent longest."""
        _, silent = self._directions.popitem(last=False)
        self._lose(silent, "sctp_evicted")

    def _lose(self, direction: _Direction, why: str) -> None:
        if not direction.pieces:
            return
        self.counts[why] += len(direction.pieces)
        self.held -= direction.held
        direction.pieces.clear()
        direction.held = 0

    def _take(self, direction: _Direction, piece: _Piece) -> tuple[str, Message | None]:
        if direction.repeated(piece.number):
            return "sctp_repeated", None
        if piece.begins and piece.ends:
            return "", Message(piece.protocol, piece.data)
        before = direction.held
        if piece.key in direction.pieces:  # its numbers began anew
            self.counts["sctp_unfinished"] += 1
            direction.forget(piece.key)
        message = direction.join(piece)
        self.held += direction.held - before
        if direction.held > MAX_WAITING or len(direction.pieces) > MAX_PIECES:
            self._lose(direction, "sctp_too_long")
        while self.held > MAX_BYTES:
            self._evict()
        return "sctp_piece", message


class _Piece(NamedTuple):
    """A chunk of data: what it is known by, and so those before and after it in its message."""

    number: int
    key: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    begins: bool
    ends: bool
    protocol: int
    data: bytes


def _piece(data: bytes, at: int, stop: int, flags: int) -> _Piece | None:
    """DATA is joined by its transmission number, I-DATA by its place; None when nothing is sent."""
    begins, ends = flags & _BEGIN != 0, flags & _END != 0
    head = at + (16 if data[at] == _DATA else 20)
    if stop <= head:
        return None
    number, stream, told = _data(data, at + 4)
    line: tuple[int, ...] = _DATA, stream, flags & _UNORDERED
    place, protocol = number, told
    if data[at] == _I_DATA:
        # number, stream, reserved(u16), message, and the payload protocol of the first piece where
        # the others tell their place
        _, _, message, told = _i_data(data, at + 4)
        line = _I_DATA, stream, flags & _UNORDERED, message
        place, protocol = (0, told) if begins else (told, 0)
    before, after = place - 1 & _U32, place + 1 & _U32
    return _Piece(
        number,
        (*line, place),
        (*line, before),
        (*line, after),
        begins,
        ends,
        protocol,
        data[head:stop],
    )


class _Direction:
    """What one side of an association sent and is not whole yet."""

    __slots__ = ("_highest", "_seen", "held", "pieces")

    def __init__(self) -> None:
        self.pieces: dict[tuple[int, ...], _Piece] = {}
        self.held = 0
        self._highest = 0
        self._seen = 0  # bit n: whether number highest - n came

    def repeated(self, number: int) -> bool:
        """Whether this transmission number came before, a while ago at most."""
        behind = self._highest - number & _U32
        if behind < _REMEMBERED:
            repeated = self._seen >> behind & 1 == 1
            self._seen |= 1 << behind
            return repeated
        # Ahead, or so far behind that the numbers began anew.
        self._seen = (self._seen << min(number - self._highest & _U32, _REMEMBERED) | 1) & _WINDOW
        self._highest = number
        return False

    def join(self, piece: _Piece) -> Message | None:
        """Keep *piece*; gives the message that is whole with it."""
        self.pieces[piece.key] = piece
        self.held += len(piece.data) + PIECE_COST
        first = last = piece
        parts = [piece]
        while not first.begins:
            before = self.pieces.get(first.before)
            if before is None or before.ends:
                return None
            first = before
            parts.append(first)
        parts.reverse()
        while not last.ends:
            after = self.pieces.get(last.after)
            if after is None or after.begins:
                return None
            last = after
            parts.append(last)
        for part in parts:
            self.forget(part.key)
        return Message(first.protocol, b"".join(part.data for part in parts))

    def forget(self, key: tuple[int, ...]) -> None:
        """Let a piece go."""
        self.held -= len(self.pieces.pop(key).data) + PIECE_COST
