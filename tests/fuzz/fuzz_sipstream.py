"""SipFramer: any stream gives the same messages however it is cut, within the bounds.

Run: python tests/fuzz/fuzz_sipstream.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from homerd.wire.sipstream import SipFramer

LIMIT = 300


def one_input(data: bytes) -> None:
    """flags(u8) then the sizes of eight pieces(u8 each) and the stream."""
    if len(data) < 9:
        return
    mid_stream, sizes, stream = bool(data[0] & 1), data[1:9], data[9:]
    wanted = SipFramer(limit=LIMIT, mid_stream=mid_stream).feed(stream)
    framer, got, at = SipFramer(limit=LIMIT, mid_stream=mid_stream), [], 0
    for size in (*sizes, len(stream)):
        got += framer.feed(stream[at : at + size])
        at += size
        assert framer.pending <= LIMIT
    assert got == wanted
    assert all(len(message) <= LIMIT for message in got)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
