"""Link layers, IP and tunnels: any bytes give a place within them or a listed reason.

Run: python tests/fuzz/fuzz_headers.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from homerd.errors import DecodeError
    from homerd.wire import ip, link, tunnel

LINK_TYPES = (*sorted(link._READERS), link.ETHERNET, 147)


def one_input(data: bytes) -> None:
    """link type(u8, an index) what stands before the frame(u8, a length), the frame."""
    if len(data) < 2:
        return
    linktype, start, data = LINK_TYPES[data[0] % len(LINK_TYPES)], data[1] % 8, data[2:]
    start = min(start, len(data))
    try:
        at, vlan = link.ip_at(linktype, data, start)
    except DecodeError as error:
        known(error, link.REASONS)
        return
    assert start <= at <= len(data)
    assert vlan is None or 0 <= vlan < 4096
    try:
        packet = ip.decode(data, at)
    except DecodeError as error:
        known(error, ip.REASONS)
        return
    assert at < packet.start <= packet.end <= len(data)
    try:
        inner = tunnel.inner(packet)
    except DecodeError as error:
        known(error, tunnel.REASONS)
        return
    assert inner is None or inner[1] >= packet.start


def known(error: DecodeError, reasons: tuple[str, ...]) -> None:
    """A reason that labels a counter must be in its list."""
    if error.reason not in reasons:
        raise AssertionError(error.reason)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
