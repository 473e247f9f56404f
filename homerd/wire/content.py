"""What one direction of a TCP connection carries, told by its first bytes.

SIP, SIP over WebSocket and HEP version 3 are read; TLS, and what never gives a message, is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from homerd.wire.hepstream import MAGICS, HepStream
from homerd.wire.sipstream import SipFramer
from homerd.wire.websocket import WebSocketFramer, begins_sip, is_upgrade

REASONS = ("hep", "not_sip", "tls")

_HTTP = (b"GET ", b"HTTP/1.1 101 ")
_MAX_HTTP_HEAD = 16384
_DATA_FRAMES = (0x81, 0x82)  # of WebSocket
_TLS_TYPES = range(0x14, 0x18)  # of records: change cipher, alert, handshake, data


class Framer(Protocol):
    """Cuts a stream into messages."""

    @property
    def pending(self) -> int:
        """How many bytes are kept."""

    @property
    def unfinished(self) -> bool:
        """Whether a message is lost when the stream ends here."""

    @property
    def skipped(self) -> int:
        """Bytes that were no message, since the last one."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the messages that are now whole."""

    def lose(self) -> None:
        """Bytes are missing here: give up what is unfinished and look for the next message."""


class Content:
    """Takes the bytes of one direction in their order and gives its messages.

    limit: bytes of a message.  mid_stream: what came before was not seen.
    take_hep: whether HEP is opened; it is counted otherwise.
    """

    __slots__ = (
        "_framer",
        "_fruitful",
        "_head",
        "_ignored",
        "_limit",
        "_mid_stream",
        "_take_hep",
        "counts",
    )

    def __init__(self, counts: Counter[str], limit: int, mid_stream: bool, take_hep: bool) -> None:
        self.counts = counts
        self._limit = limit
        self._mid_stream = mid_stream
        self._take_hep = take_hep
        self._head = b""  # while it does not tell yet
        self._framer: Framer | None = None
        self._fruitful = False
        self._ignored = ""  # why the rest is not looked at

    @property
    def pending(self) -> int:
        """How many bytes are kept."""
        return len(self._head) + (self._framer.pending if self._framer else 0)

    @property
    def unfinished(self) -> bool:
        """Whether a message is lost when the stream ends here."""
        return self._framer.unfinished if self._framer else bool(self._head)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the messages that are now whole, SIP or HEP frames."""
        framer = self._framer
        if framer is None:
            if not data:
                return []
            if not self._ignored:
                data, self._head = self._head + data, b""
                framer, data = self._choose(data)
                self._framer = framer
            if framer is None:
                if self._ignored:
                    self.counts[self._ignored] += 1
                else:
                    self._head = data
                return []
        messages = framer.feed(data)
        if messages:
            self._fruitful = True
        elif not self._fruitful and framer.skipped > 2 * self._limit:
            # No message is so long; what is carried is something else.
            self._framer = None
            self._ignored = "not_sip"
        return messages

    def lose(self) -> None:
        """Bytes are missing here."""
        self._mid_stream = True
        self._head = b""
        if self._framer is not None:
            self._framer.lose()

    def _choose(self, data: bytes) -> tuple[Framer | None, bytes]:
        """Who reads what begins so, and what is to be read.

        Nobody while it cannot be told, and when it is to be ignored.
        """
        if data[0] in _TLS_TYPES:
            if len(data) < 3:
                return None, data
            if data[1] == 3 and data[2] <= 4:
                self._ignored = "tls"
                return None, b""
        elif _may_begin(data, MAGICS):
            if len(data) < 4:
                return None, data
            if self._take_hep:
                return HepStream(self.counts), data
            self._ignored = "hep"
            return None, b""
        elif _may_begin(data, _HTTP):
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 and len(data) < _MAX_HTTP_HEAD:
                return None, data
            if is_upgrade(data[:end]):
                return WebSocketFramer(self.counts, self._limit), data[end:]
        elif self._mid_stream and data[0] in _DATA_FRAMES:
            begins = begins_sip(data)
            if begins is None:
                return None, data
            if begins:
                return WebSocketFramer(self.counts, self._limit), data
        return SipFramer(self.counts, self._limit, self._mid_stream), data


def _may_begin(data: bytes, beginnings: tuple[bytes, ...]) -> bool:
    """Whether *data*, of which more may come, begins with one of these."""
    return any(data.startswith(word) or word.startswith(data) for word in beginnings)
