"""HEP3 frames on a captured connection, of which bytes may be missing.

hep.Framer serves a connection of our own, which is closed at a fault; here the next frame is looked
for.  Of an unfinished frame at most the 65535 bytes are kept that its length can tell.
"""

from __future__ import annotations

import re
from collections import Counter
from struct import Struct

REASONS = ("hep_frame",)
MAGICS = (b"HEP3", b"EEP3", b"EEP1")

_find_magic = re.compile(rb"HEP3|EEP[31]").search
_HEAD = 6
_u16 = Struct(">H").unpack_from


class HepStream:
    """Takes a stream piece by piece and gives its frames.

    counts: faults, each followed by what is no frame.  skipped: bytes of it since the last frame.
    """

    __slots__ = ("_buffer", "_seeking", "counts", "skipped")

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.skipped = 0
        self._buffer = bytearray()
        self._seeking = False

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return len(self._buffer)

    @property
    def unfinished(self) -> bool:
        """Whether a frame is lost when the stream ends here."""
        return bool(self._buffer) and not self._seeking

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the frames that are now whole.

        magic(4) total(u16), then the rest of total; line ends between frames are keep-alives.
        """
        frames: list[bytes] = []
        buffer = self._buffer
        buffer += data
        at = 0
        while True:
            at = self._seek(at) if self._seeking else self._skip_line_ends(at)
            if self._seeking or len(buffer) - at < _HEAD:
                break
            total = _u16(buffer, at + 4)[0]
            if total < _HEAD or not buffer.startswith(MAGICS, at):
                self.counts["hep_frame"] += 1
                self._seeking = True
                self.skipped += 1
                at += 1
                continue
            if len(buffer) - at < total:
                break
            frames.append(bytes(buffer[at : at + total]))
            self.skipped = 0
            at += total
        del buffer[:at]
        return frames

    def lose(self) -> None:
        """Bytes are missing here: give up what is unfinished and look for the next frame."""
        self._buffer.clear()
        self._seeking = True

    def _seek(self, at: int) -> int:
        """Pass over what is no magic, but for what may be the beginning of one."""
        found = _find_magic(self._buffer, at)
        self._seeking = found is None
        start = found.start() if found else max(at, len(self._buffer) - 3)
        self.skipped += start - at
        return start

    def _skip_line_ends(self, at: int) -> int:
        buffer = self._buffer
        while at < len(buffer) and buffer[at] in b"\r\n":
            at += 1
        return at
