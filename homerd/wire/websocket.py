"""SIP over WebSocket as it is captured: frames of RFC 6455 to the messages of RFC 7118.

One WebSocket message is one SIP message.  The mask is what the frame says it is, whoever sent it.
Frames that cannot be, and bytes that are missing, lose the place in the stream; it is found again
at a frame whose payload begins a SIP message.  Compressed messages (RFC 7692) are unpacked.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from struct import Struct

from homerd.wire.sip import looks_like_sip

REASONS = ("ws_bad_frame", "ws_bad_deflate", "ws_not_sip")
NOTES = ("keep_alive", "ws_control")

_CONTINUATION, _CONTROL = 0, 8
_OPCODES = frozenset({0, 1, 2, 8, 9, 10})  # continuation, text, binary; close, ping, pong
_FIN, _COMPRESSED, _RESERVED, _MASKED = 0x80, 0x40, 0x30, 0x80
_LONGEST_FRAME = 16 << 20  # a longer one is no frame but a place that was lost
_INFLATER_SIZE = 44_000  # window and state

_u16 = Struct(">H").unpack_from
_u64 = Struct(">Q").unpack_from

# Whole or first frame of a message, with a payload of 24 bytes or more.
_find_data_frame = re.compile(rb"[\x81\x82](?:[\x18-\x7f\x98-\xff]|\Z)").search
_match_beginning = re.compile(rb"SIP/2\.0 |[A-Z]{3,16} (?:sips?|tel|urn):", re.A).match
_BEGINNING = 24  # bytes that show it
_DEFLATE_TAIL = b"\x00\x00\xff\xff"

_find_upgrade = re.compile(rb"^upgrade[ \t]*:[^\r\n]*websocket", re.I | re.M).search
_find_protocol = re.compile(
    rb"^sec-websocket-protocol[ \t]*:(?:[^\r\n]*,)?[ \t]*sip[ \t]*(?:,|\r?$)", re.I | re.M
).search


class WebSocketFramer:
    """Takes one direction of a connection behind its HTTP head and gives the SIP messages.

    skipped: bytes that were no message, since the last one.
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_dropping",
        "_inflater",
        "_message",
        "_open",
        "_seeking",
        "_skip",
        "counts",
        "limit",
        "skipped",
    )

    def __init__(self, counts: Counter[str], limit: int, seeking: bool = False) -> None:
        self.counts = counts
        self.limit = limit
        self.skipped = 0
        self._buffer = bytearray()
        self._message = bytearray()  # what its frames have held so far
        self._open = False  # a message has begun and not ended
        self._compressed = False
        self._dropping = False  # the rest of a message that is too large
        self._seeking = seeking
        self._skip = 0
        self._inflater: zlib._Decompress | None = None

    @property
    def pending(self) -> int:
        """How many bytes are kept."""
        kept = len(self._buffer) + len(self._message)
        return kept if self._inflater is None else kept + _INFLATER_SIZE

    @property
    def unfinished(self) -> bool:
        """Whether a message is lost when the stream ends here."""
        return self._open or (bool(self._buffer) and not self._seeking)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the SIP messages that are now whole."""
        messages: list[bytes] = []
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        at = 0
        while taken := self._seek(at, messages) if self._seeking else self._read(at, messages):
            at += taken
        del self._buffer[:at]
        return messages

    def lose(self) -> None:
        """Bytes are missing here: give up what is unfinished and look for the next message."""
        self._buffer.clear()
        self._skip = 0
        self._lose_place()

    def _lose_place(self) -> None:
        self._message.clear()
        self._open = self._dropping = False
        self._inflater = None  # what is to come refers to what was lost
        self._seeking = True

    def _seek(self, at: int, messages: list[bytes]) -> int:
        """Pass over what begins no SIP message; how many bytes, 0 when more are needed."""
        found = _find_data_frame(self._buffer, at)
        start = found.start() if found else len(self._buffer)
        if start == at and found:
            begins = begins_sip(self._buffer, at)
            if begins is None:
                return 0
            if begins:
                self._seeking = False
                return self._read(at, messages)
            start += 1
        self.skipped += start - at
        return start - at

    def _read(self, at: int, messages: list[bytes]) -> int:
        """Read the frame at *at*; how many bytes it takes, 0 when more are needed.

        FIN, RSV and opcode(u8) MASK and length(u8) length(u16 or u64)? mask(4)? payload
        """
        buffer = self._buffer
        head = _head(buffer, at)
        if head is None:
            return 0
        start, size, mask = head
        first = buffer[at]
        opcode = first & 0x0F
        if not self._may_be(first, size):
            self.counts["ws_bad_frame"] += 1
            self._lose_place()
            self.skipped += 1
            return 1
        total = start - at + size
        whole = len(buffer) - at >= total
        before = len(self._message) if opcode == _CONTINUATION else 0
        drops = before + size > self.limit or (opcode == _CONTINUATION and self._dropping)
        if not whole and not drops:
            return 0
        if opcode & _CONTROL:
            self.counts["ws_control"] += 1
            return total
        if opcode != _CONTINUATION:
            self._begin(bool(first & _COMPRESSED))
        if drops:
            self._drop(total)
        else:
            self._message += _unmasked(buffer[start : at + total], mask)
        if first & _FIN:
            self._end(messages)
        taken = min(total, len(buffer) - at)
        self._skip = total - taken
        return taken

    def _may_be(self, first: int, size: int) -> bool:
        opcode = first & 0x0F
        if first & _RESERVED or opcode not in _OPCODES or size > _LONGEST_FRAME:
            return False
        if opcode & _CONTROL:
            return first & (_FIN | _COMPRESSED) == _FIN and size <= 125
        return opcode != _CONTINUATION or (self._open and not first & _COMPRESSED)

    def _begin(self, compressed: bool) -> None:
        if self._open:
            self.counts["ws_bad_frame"] += 1
        self._message.clear()
        self._open, self._dropping, self._compressed = True, False, compressed

    def _drop(self, size: int) -> None:
        """Pass over a frame of a message that is too large."""
        if not self._dropping:
            self.counts["sip_too_large"] += 1
            self._dropping = True
            self._message.clear()
            self._inflater = None
        self.skipped += size

    def _end(self, messages: list[bytes]) -> None:
        """The message is whole, or has passed."""
        message: bytes | None = None if self._dropping else bytes(self._message)
        self._message.clear()
        self._open = self._dropping = False
        if message and self._compressed:
            message = self._inflate(message)
        if message is None:
            return
        text = message.lstrip(b"\r\n\0")
        if looks_like_sip(text):
            messages.append(text)
            self.skipped = 0
        elif not text:
            self.counts["keep_alive"] += 1
        else:
            self.counts["ws_not_sip"] += 1
            self.skipped += len(text)

    def _inflate(self, message: bytes) -> bytes | None:
        """RFC 7692 7.2.2.  A peer that empties its window after each message is read the same."""
        if self._inflater is None or self._inflater.eof:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            text = self._inflater.decompress(message + _DEFLATE_TAIL, self.limit + 1)
        except zlib.error:
            self.counts["ws_bad_deflate"] += 1
            self._inflater = None
            return None
        if len(text) > self.limit:
            self.counts["sip_too_large"] += 1
            self._inflater = None
            return None
        return text


def is_upgrade(head: bytes) -> bool:
    """Whether this HTTP head, a request or an answer, makes the connection one of SIP frames."""
    if not head.startswith((b"GET ", b"HTTP/1.1 101")):
        return False
    return _find_upgrade(head) is not None and _find_protocol(head) is not None


def begins_sip(data: bytes | bytearray, at: int = 0) -> bool | None:
    """Whether a frame at *at* is the first of a SIP message; None while that cannot be told."""
    head = _head(data, at)
    if head is None:
        return None
    start, size, mask = head
    if size < _BEGINNING:
        return False
    if len(data) < start + _BEGINNING:
        return None
    beginning = _unmasked(data[start : start + _BEGINNING], mask)
    return _match_beginning(beginning) is not None


def _head(data: bytes | bytearray, at: int) -> tuple[int, int, bytes] | None:
    """Where the payload of the frame at *at* begins, its size and mask; None when cut off."""
    have = len(data) - at
    if have < 2:
        return None
    size = data[at + 1] & 0x7F
    start = at + 2 + (2 if size == 126 else 8 if size == 127 else 0)
    masked = bool(data[at + 1] & _MASKED)
    if len(data) < start + 4 * masked:
        return None
    if size == 126:
        (size,) = _u16(data, at + 2)
    elif size == 127:
        (size,) = _u64(data, at + 2)
    if masked:
        return start + 4, size, bytes(data[start : start + 4])
    return start, size, b""


def _unmasked(payload: bytes | bytearray, mask: bytes) -> bytes:
    if not mask or not payload:
        return bytes(payload)
    size = len(payload)
    # Hot path: as two numbers, 64 KiB take 0.2 ms; byte by byte, 4 ms.
    key = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return number.to_bytes(size, "little")
