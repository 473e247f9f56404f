"""Any bytes as a HEP datagram, a HEP stream, a SIP message or a capture file: a value or its error.

Run: python tests/fuzz/fuzz_hep.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.  The
first byte of an input chooses what the bytes behind it are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import atheris

with atheris.instrument_imports():
    from homerd.core.inputs import read_input
    from homerd.errors import ConfigError, DecodeError
    from homerd.wire import hep
    from homerd.wire.sip import SipMessage, looks_like_sip

SHARES = (  # what begins as it must gets further
    b"HEP3", b"\x01\x10", b"\x02\x10", b"INVITE sip:a@b SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n",
    b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00", b"\x0a\x0d\x0d\x0a", b"\x1f\x8b\x08", b"",
)  # fmt: skip
PROPERTIES = [name for name, kind in vars(SipMessage).items() if isinstance(kind, property)]


def datagram(data: bytes) -> None:
    """A frame whose payload keeps to the bound, or a DecodeError."""
    try:
        frame = hep.decode(data)
    except DecodeError:
        return
    assert len(frame.payload) <= max(len(data), hep.INFLATE_LIMIT)


def stream(data: bytes) -> None:
    """Cut anywhere, a stream gives the same frames and ends the same way."""
    whole, cut = hep.Framer(), hep.Framer()
    frames = whole.feed(data)
    at = len(data) // 3
    parts = cut.feed(data[:at])
    if cut.fault is None:
        parts += cut.feed(data[at:])
    assert frames == parts
    assert (whole.fault is None) == (cut.fault is None)


def message(data: bytes) -> None:
    """Every property of a message can be asked for."""
    looks_like_sip(data)
    sip = SipMessage(data)
    for name in PROPERTIES:
        getattr(sip, name)


def file(data: bytes) -> None:
    """Items, or one ConfigError."""
    with NamedTemporaryFile(prefix="homerd-fuzz-") as opened:
        Path(opened.name).write_bytes(data)
        try:
            for _ in read_input(opened.name):
                pass
        except ConfigError:
            pass


READERS = (datagram, stream, message, file)


def test_one(data: bytes) -> None:
    if data:
        start = SHARES[data[0] // len(READERS) % len(SHARES)]
        READERS[data[0] % len(READERS)](start + data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()
