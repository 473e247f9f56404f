"""SCTP: any packets give messages or a listed reason, and what is kept stays bounded.

Run: python tests/fuzz/fuzz_sctp.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from homerd.errors import DecodeError
    from homerd.wire import sctp
    from homerd.wire.ip import IpPacket
    from homerd.wire.sctp import Sctp


def one_input(data: bytes) -> None:
    """Packets parted by 0xfffefdfc; each has a common header put before its chunks."""
    table = Sctp()
    for chunks in data.split(b"\xff\xfe\xfd\xfc"):
        body = b"\x13\xc4\x13\xc4" + chunks[:1] + bytes(7) + chunks[1:]
        try:
            packet = table.feed(IpPacket(bytes(4), bytes(4), 132, body, 0, len(body)))
        except DecodeError as error:
            if error.reason not in sctp.REASONS:
                raise AssertionError(error.reason) from None
        else:
            assert packet.messages
            assert all(message.data for message in packet.messages)
        assert table.held == sum(each.held for each in table._directions.values())
        assert all(each.held <= sctp.MAX_WAITING for each in table._directions.values())
    table.finish()
    assert (len(table), table.held) == (0, 0)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
