"""TcpStreams: any segments leave it within its bounds; those of one stream give what it holds.

Run: python tests/fuzz/fuzz_streams.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from homerd.wire.streams import ACK, NOTES, REASONS, SYN, TcpStreams

A, B = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
KNOWN = {*REASONS, *NOTES}


def any_segments(given: atheris.FuzzedDataProvider) -> None:
    streams = TcpStreams(streams=3, memory=6000, ahead_limit=200, message_limit=400)
    seconds = 1
    while given.remaining_bytes() > 4:
        port, flags = given.ConsumeIntInRange(0, 4), given.ConsumeIntInRange(0, 255)
        sequence = given.ConsumeInt(4) & 0xFFFFFFFF if flags & 0x80 else given.ConsumeInt(1) & 0xFF
        seconds += given.ConsumeIntInRange(-1, 2)
        data = given.ConsumeBytes(given.ConsumeIntInRange(0, 250))
        ends = (A, port, B, 5060) if flags & 0x40 else (B, 5060, A, port)
        streams.feed(*ends, sequence, flags & 0x3F, data, seconds)
        streams.take_late()
        assert len(streams) <= 3
        assert 0 <= streams.kept <= 6000
    streams.finish()
    assert (len(streams), streams.kept) == (0, 0)
    assert set(streams.counts) <= KNOWN


def one_stream(given: atheris.FuzzedDataProvider) -> None:
    """The segments of a stream in any order, some twice, behind a SYN."""
    first = given.ConsumeInt(4) & 0xFFFFFFFF
    places = [(given.ConsumeInt(2) & 0x1FF, given.ConsumeInt(1) & 0xFF) for _ in range(12)]
    stream = given.ConsumeBytes(400)
    if not stream:
        return
    ends = (A, 1, B, 2)
    whole, streams = TcpStreams(), TcpStreams()
    wanted = whole.feed(*ends, first, SYN, stream, 1)
    got = streams.feed(*ends, first, SYN, b"", 1)
    for at, size in (*places, (0, len(stream))):
        if piece := stream[at : at + size]:
            got += streams.feed(*ends, (first + 1 + at) % (1 << 32), ACK, piece, 1)
    assert got == wanted
    assert streams.counts["tcp_gap"] == 0


def one_input(data: bytes) -> None:
    given = atheris.FuzzedDataProvider(data)
    if given.ConsumeBool():
        any_segments(given)
    else:
        one_stream(given)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
