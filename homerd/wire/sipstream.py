"""Cuts a byte stream into SIP messages by their Content-Length.

A stream may begin anywhere and hold anything: what is no message is passed over up to the next
line that begins one, and counted.  At most `limit` bytes of an unfinished message are kept and
none is looked at more than a few times, however the stream is cut.
Source: RFC 3261 18.3, RFC 5626 3.5.1 and RFC 4571.
"""

from __future__ import annotations

import re
from collections import Counter
from struct import Struct

from homerd.wire.sip import looks_like_sip

MESSAGE_LIMIT = 65536

# What was lost or guessed, and what is met between messages and is no loss.
REASONS = (
    "no_start_line",
    "sip_too_large",
    "bad_content_length",
    "missing_content_length",
    "content_length_differs",
)
NOTES = ("keep_alive", "stun")

_find_head_end = re.compile(rb"\n\r?\n").search
# CRLF CRLF, its answer, and what some phones send in their place.
_match_keep_alive = re.compile(rb"[\r\n\0]+|(?:jaK)+").match
# A line without one of these is no start line, and no STUN is near.
_find_sign = re.compile(rb"[Ss][Ii][Pp]/2\.0|\x21\x12\xa4\x42").search
# Blanks before the colon and folded values are legal.  A folded line begins with a blank, so that
# what it holds is not taken for a header.  Spelt so that it begins with one letter: a search for
# `^` with re.M and re.I takes five times as long.
_find_lengths = re.compile(
    rb"\n(?:[cC](?i:ontent-length)|[lL])[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
).findall
_match_number = re.compile(rb"0*([0-9]{1,10})").fullmatch
# A line behind lost bytes may be the rest of one: "E sip:a@b SIP/2.0" is told by its first word.
_match_known_start = re.compile(
    rb"(?:SIP/2\.0|INVITE|ACK|BYE|CANCEL|REGISTER|OPTIONS|PRACK|SUBSCRIBE|NOTIFY|PUBLISH|INFO"
    rb"|REFER|MESSAGE|UPDATE|SERVICE|BENOTIFY)[ \t]"
).match

_LINE, _HEAD, _BODY = range(3)
_COOKIE = b"\x21\x12\xa4\x42"
_STUN_HEAD, _MAX_STUN = 20, 2048
_NEAR = 10  # bytes that tell whether STUN begins
_u16 = Struct(">H").unpack_from


class SipFramer:
    """Takes a stream piece by piece and gives its messages.

    counts: what was met, by REASONS and NOTES.  skipped: bytes passed over since the last message.
    """

    __slots__ = (
        "_aligned",
        "_at",
        "_buffer",
        "_head_from",
        "_line_from",
        "_lost",
        "_skip",
        "_state",
        "_wanted",
        "counts",
        "limit",
        "skipped",
    )

    def __init__(
        self,
        counts: Counter[str] | None = None,
        limit: int = MESSAGE_LIMIT,
        mid_stream: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.limit = limit
        self.skipped = 0
        self._buffer = bytearray()
        self._at = 0  # where the line or message that is being read begins
        self._line_from = self._head_from = 0  # before it there is no end of the line, of the head
        self._wanted = 0  # size of the message whose head was read
        self._skip = 0
        self._state = _LINE
        self._lost = mid_stream  # looking for the next message, which was told already
        self._aligned = not mid_stream  # a line begins where the buffer does

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished message are kept."""
        return len(self._buffer)

    @property
    def unfinished(self) -> bool:
        """Whether a message is lost when the stream ends here."""
        return self._state != _LINE or (not self._lost and bool(self._buffer.strip(b"\r\n\0")))

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the messages that are now whole."""
        messages: list[bytes] = []
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        going_on = True
        while going_on:
            if self._state == _LINE:
                going_on = self._read_line()
            elif self._state == _HEAD:
                going_on = self._read_head()
            else:
                going_on = self._read_body(messages)
        del self._buffer[: self._at]
        self._line_from = max(0, self._line_from - self._at)
        self._head_from = max(0, self._head_from - self._at)
        self._at = 0
        return messages

    def lose(self) -> None:
        """Bytes are missing here: give up what is unfinished and look for the next message."""
        self._buffer.clear()
        self._at = self._line_from = self._head_from = self._skip = 0
        self._state = _LINE
        self._lost = True
        self._aligned = False

    def _read_line(self) -> bool:
        """Pass over keep-alives, or a line that begins no message; False when more is needed."""
        buffer, at = self._buffer, self._at
        if at == len(buffer):
            return False
        if buffer[at] < 4 and (known := self._skip_stun()) is not None:
            return known
        if blank := _match_keep_alive(buffer, at):
            self._at = self._end_of_blank(blank.end())
            self._aligned = self._aligned or b"\n" in blank[0]
            if not self._lost:
                self.counts["keep_alive"] += 1
            return True
        end = buffer.find(b"\n", max(at, self._line_from)) + 1
        if not end:
            self._line_from = len(buffer)
            if len(buffer) - at <= self.limit:
                return False
            self._pass_over(len(buffer))
            self._aligned = False
            return False
        line = bytes(buffer[at:end])
        if looks_like_sip(line) and (self._aligned or _match_known_start(line)):
            self._state = _HEAD
            self._head_from = max(self._head_from, end - 1)
        else:
            self._pass_over(self._end_of_junk(end))
        self._aligned = True
        return True

    def _read_head(self) -> bool:
        buffer, at = self._buffer, self._at
        found = _find_head_end(buffer, self._head_from)
        end = found.end() if found else len(buffer)
        # Kept also when this head is given up, so that many start lines cost no more than one.
        self._head_from = max(self._head_from, found.start() if found else end - 2)
        if end - at > self.limit:
            self._give_up("sip_too_large", buffer.find(b"\n", at) + 1)
            return True
        if found is None:
            return False
        length = self._content_length(bytes(buffer[at:end]))
        if length is None:
            self._give_up("bad_content_length", end)
        elif end - at + length > self.limit:
            self._give_up("sip_too_large", end)
        else:
            self._wanted = end - at + length
            self._state = _BODY
        return True

    def _read_body(self, messages: list[bytes]) -> bool:
        end = self._at + self._wanted
        if len(self._buffer) < end:
            return False
        messages.append(bytes(self._buffer[self._at : end]))
        self._at = end
        self._state = _LINE
        self.skipped = 0
        return True

    def _content_length(self, head: bytes) -> int | None:
        """Bytes of the body, None when what is said cannot be; also whether the next is lost."""
        self._lost = False
        lengths = [value.strip() for value in _find_lengths(head)]
        if not lengths:
            # The body, if there is one, ends where the next message begins.
            self.counts["missing_content_length"] += 1
            self._lost = True
            return 0
        number = _match_number(lengths[0])
        if len(set(lengths)) > 1:
            self.counts["content_length_differs"] += 1
        return int(number[1]) if number else None

    def _give_up(self, reason: str, end: int) -> None:
        self.counts[reason] += 1
        self._state = _LINE
        self._lost = True
        self._pass_over(end)

    def _pass_over(self, end: int) -> None:
        if not self._lost:
            self.counts["no_start_line"] += 1
            self._lost = True
        self.skipped += end - self._at
        self._at = end

    def _end_of_blank(self, end: int) -> int:
        """Up to where the line ends and NULs before *end* are surely no beginning of STUN."""
        buffer, at = self._buffer, self._at
        if buffer.find(0, at, end) < 0:
            return end
        cookie = buffer.find(_COOKIE, at, end + _NEAR)
        end = min(end, len(buffer) - _NEAR + 1, cookie - 6 if cookie >= 0 else end)
        return max(end, at + 1)

    def _end_of_junk(self, end: int) -> int:
        """How far lines behind *end* can be passed over together.  One by one they take 7 µs."""
        buffer = self._buffer
        found = _find_sign(buffer, end)
        stop = found.start() - 6 if found else len(buffer) - _NEAR
        return max(end, buffer.rfind(b"\n", end, max(end, stop)) + 1)

    def _skip_stun(self) -> bool | None:
        """Pass over a STUN packet, with or without the length of RFC 4571; None if there is none.

        length(u16), then type(u16) length(u16) cookie(4) transaction(12) attributes
        """
        buffer, at = self._buffer, self._at
        have = len(buffer) - at
        size = 0
        if have >= 8 and buffer[at + 4 : at + 8] == _COOKIE:
            size = _STUN_HEAD + _u16(buffer, at + 2)[0]
        elif have >= _NEAR and buffer[at + 6 : at + 10] == _COOKIE:
            size = 2 + _STUN_HEAD + _u16(buffer, at + 4)[0]
        elif have < _NEAR:
            return False
        if not 0 < size <= _MAX_STUN:
            return None
        self.counts["stun"] += 1
        self._at = min(at + size, len(buffer))
        self._skip = at + size - self._at
        return True
