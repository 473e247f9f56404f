"""RTCP, RTP and SDP: any bytes give values or a DecodeError, and what is kept stays bounded.

Run: python tests/fuzz/fuzz_media.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports():
    from homerd.core import media
    from homerd.core.media import MediaTable
    from homerd.errors import DecodeError
    from homerd.wire import rtcp, rtp, sdp
    from homerd.wire.frame import Frame
    from homerd.wire.ip import Datagram

INVITE = b"INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n"
ADDRESS = b"\x0a\x00\x00\x01"


def one_input(data: bytes) -> None:
    """what(u8), then a packet or a body."""
    what, data = data[:1], data[1:]
    if what < b"\x40":
        for each in sdp.media(data):
            assert 0 < each.port < 65536
            assert 0 <= each.rtcp_port < 65536
    elif what < b"\x80":
        parts = read(rtcp.decode, data, rtcp.REASONS)
        if parts is not None:
            assert rtcp.looks_like_rtcp(data)
            json.dumps(rtcp.as_json(parts))
    elif what < b"\xa0":
        header = read(rtp.decode, data, rtp.REASONS)
        assert header is None or 12 <= header.start <= header.end <= len(data)
    else:
        through_table(data.split(b"\xff\x00\xff"))


def read(decode, data, reasons):
    """What *data* is; None when it is nothing, for one of *reasons*."""
    try:
        return decode(data)
    except DecodeError as error:
        if error.reason not in reasons:
            raise AssertionError(error.reason) from None
        return None


def through_table(pieces: list[bytes]) -> None:
    """Each piece as SDP and as a datagram; its first byte is how many seconds later it comes."""
    table = MediaTable(5)
    at = 0
    for number, piece in enumerate(pieces):
        at += piece[0] if piece else 0
        body = b"v=0\nc=IN IP4 10.0.0.1\nm=audio 40000 x 0\n" + piece
        frame = Frame(0, 2, src=ADDRESS, seconds=at, payload=INVITE + body)
        table.learn(frame if number % 2 else Frame(0, 2, seconds=at, payload=piece))
        read(
            table.take,
            Datagram(ADDRESS, ADDRESS, 17, 40000, 40001, piece, at, 0),
            media.REASONS,
        )
    table.expire(at + 10)
    table.finish()
    for frame in table.take_late():
        json.loads(frame.payload)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
