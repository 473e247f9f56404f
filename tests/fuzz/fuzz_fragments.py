"""Fragments: any pieces in any order are joined as a plain model joins them, within the bounds.

Run: python tests/fuzz/fuzz_fragments.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from homerd.errors import DecodeError
    from homerd.wire import fragments
    from homerd.wire.fragments import Fragments
    from homerd.wire.ip import Fragment, IpPacket


def one_input(data: bytes) -> None:
    """flags(u8) seconds(u8) offset(u8) size(u8) for each piece; its bytes are its number."""
    table = Fragments()
    # What came first at each place, of each datagram of IPv4.
    model: dict[int, dict[int, int]] = {}
    seconds = 1000
    for number in range(len(data) // 4):
        flags, later, offset, size = data[number * 4 : number * 4 + 4]
        seconds += later % 4 if later < 250 else later - 500
        address = bytes(16) if flags & 1 else bytes(4)
        more, which = bool(flags & 2), flags >> 2 & 3
        body = bytes([number & 255]) * (size & 0xF8 if more else size)
        packet = IpPacket(
            address, address, 17, body, 0, len(body), fragment=Fragment(which, offset * 8, more)
        )
        try:
            whole = table.add(packet, seconds)
        except DecodeError as error:
            if error.reason not in fragments.REASONS:
                raise AssertionError(error.reason) from None
            whole = None
        assert table.held >= 0
        assert table.held == sum(each.held for each in table._datagrams.values())
        if whole is not None and len(address) == 4:
            # Never a byte that no piece brought, and never one from another datagram.
            assert set(whole.payload) <= {n & 255 for n in model.get(which, {})} | {number & 255}
            model.pop(which, None)
        else:
            model.setdefault(which, {})[number] = size
    table.finish()
    assert (len(table), table.held) == (0, 0)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
