"""Batches of HEP3 frames on a stream, told by their receiver once nothing of them can be lost.

    sender                                receiver
    HELLO ───────────────────────────────▶
          ◀────────────────────────────── WELCOME
    frame, frame, … END(number, id) ─────▶
          ◀────────────────────────────── TAKEN(id)

Each of the four is a HEP3 frame of one vendor chunk, with neither payload nor type: a receiver that
does not know them takes a keep-alive.  A sender that hears no WELCOME sends frames and no more.
"""

from __future__ import annotations

from struct import Struct

from homerd.wire.hep import assemble

VENDOR = 0x6864  # "hd"; no vendor of the HEP3 paper
# No generic chunk is near: some receivers look at the type alone, whatever the vendor.
HELLO, WELCOME, END, TAKEN = range(0x7F01, 0x7F05)
LONGEST_ID = 100

_head = Struct(">HHH").unpack_from
_number = Struct(">I")


def message(kind: int, body: bytes = b"") -> bytes:
    """One of the four as a frame."""
    return assemble([(VENDOR, kind, body)])


def end(frames: int, id: str) -> bytes:
    """What ends a batch of so many frames."""
    return message(END, _number.pack(frames) + id.encode("ascii"))


def read(data: bytes) -> tuple[int, bytes]:
    """Which of the four a whole frame is, and what it carries; (0, b"") for any other frame."""
    if len(data) < 12:
        return 0, b""
    vendor, kind, length = _head(data, 6)
    if vendor != VENDOR or length + 6 != len(data) or not HELLO <= kind <= TAKEN:
        return 0, b""
    return kind, data[12:]


def read_end(body: bytes) -> tuple[int, str]:
    """How many frames the batch has, and its id; (0, "") when that cannot be read."""
    if not 4 < len(body) <= 4 + LONGEST_ID:
        return 0, ""
    (frames,) = _number.unpack_from(body)
    id = body[4:].decode("ascii", "replace")
    return (frames, id) if id.isascii() and id.isprintable() else (0, "")
