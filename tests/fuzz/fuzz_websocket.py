"""WebSocketFramer: any stream gives the same messages however it is cut, within the bounds.

Run: python tests/fuzz/fuzz_websocket.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys
from collections import Counter

import atheris

with atheris.instrument_imports():
    from homerd.wire.websocket import WebSocketFramer, is_upgrade

LIMIT, INFLATER = 300, 44_000


def one_input(data: bytes) -> None:
    """flags(u8) then the sizes of eight pieces(u8 each) and the stream."""
    if len(data) < 9:
        return
    seeking, sizes, stream = bool(data[0] & 1), data[1:9], data[9:]
    is_upgrade(stream)
    wanted = WebSocketFramer(Counter(), LIMIT, seeking).feed(stream)
    framer, got, at = WebSocketFramer(Counter(), LIMIT, seeking), [], 0
    for size in (*sizes, len(stream)):
        got += framer.feed(stream[at : at + size])
        at += size
        assert framer.pending <= 2 * LIMIT + 14 + INFLATER
    assert got == wanted
    assert all(len(message) <= LIMIT for message in got)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
