"""IPv4 and IPv6 headers."""

from __future__ import annotations

from struct import pack

import pytest
from frames import DST4, DST6, SRC4, SRC6, ipv4, ipv6
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import ip
from homerd.wire.ip import Fragment


def reason(data: bytes) -> str | None:
    """Why no packet is found in *data*, None when one is."""
    try:
        ip.decode(data)
    except DecodeError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (ipv4(b"hello"), False),
        (ipv4(b"hello") + b"padding of a short frame", False),
        (ipv4(b"hello", options=bytes(4)), False),
        (ipv4(b"hello", total=0), False),
        (ipv4(b"hello", total=1000), True),
        (ipv4(pack(">BB10x", 17, 1) + b"hello", 51), False),
    ],
    ids=["plain", "padding", "options", "segmentation offload", "cut by the capture", "AH"],
)
def test_an_ipv4_packet(data, cut):
    packet = ip.decode(data)
    assert (packet.src, packet.dst, packet.protocol) == (SRC4, DST4, 17)
    assert (packet.payload, packet.cut, packet.fragment) == (b"hello", cut, None)


@pytest.mark.parametrize(
    "data",
    [
        ipv6(b"hello"),
        ipv6(pack(">BB6x", 17, 0) + b"hello", 0),
        ipv6(pack(">BB14x", 43, 1) + pack(">BB6x", 17, 0) + b"hello", 60),
        ipv6(pack(">BB10x", 17, 1) + b"hello", 51),
        ipv6(pack(">BB6x", 17, 0) + b"hello", 135),
        ipv6(pack(">BxHI", 17, 0, 9) + b"hello", 44),
    ],
    ids=["plain", "hop-by-hop", "destination, routing", "AH", "mobility", "an atomic fragment"],
)
def test_an_ipv6_packet_behind_its_extension_headers(data):
    packet = ip.decode(data + b"padding")
    assert (packet.src, packet.dst, packet.protocol) == (SRC6, DST6, 17)
    assert (packet.payload, packet.cut, packet.fragment) == (b"hello", False, None)


def test_an_ipv6_packet_cut_by_the_capture():
    packet = ip.decode(ipv6(b"hello")[:-2])
    assert (packet.payload, packet.cut) == (b"hel", True)


def test_a_jumbogram_goes_to_the_end_of_the_capture():
    data = bytearray(ipv6(b"hello"))
    data[4:6] = b"\0\0"
    assert ip.decode(bytes(data)).payload == b"hello"


@pytest.mark.parametrize("made", [ipv4, ipv6])
def test_the_type_of_service(made):
    assert ip.decode(made(b"hello", tos=0xB8)).tos == 0xB8


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        (ipv4(b"hello", fragment=0x2000, identification=300), Fragment(300, 0, True)),
        (ipv4(b"hello", fragment=0x0003), Fragment(7, 24, False)),
        (ipv6(pack(">BxHI", 17, 24 | 1, 1 << 31) + b"hello", 44), Fragment(1 << 31, 24, True)),
        (ipv6(pack(">BB6x", 44, 0) + pack(">BxHI", 17, 24, 5) + b"hello", 0), Fragment(5, 24, False)),
    ],
)  # fmt: skip
def test_a_fragment_says_which_piece_it_is(data, fragment):
    packet = ip.decode(data)
    assert (packet.fragment, packet.payload) == (fragment, b"hello")


def test_a_packet_inside_of_another_ends_where_that_ends():
    packet = ip.decode(b"outer" + ipv4(b"hello"), 5, 5 + 20 + 3)
    assert (packet.payload, packet.cut) == (b"hel", True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (b"\x15" + bytes(40), "not_ip"),
        (b"\x41" + bytes(40), "not_ip"),
        (ipv4(b"", total=19), "not_ip"),
        (ipv4(b"", options=bytes(8))[:-1], "truncated"),
        (ipv4(b"")[:19], "truncated"),
        (ipv6(b"")[:39], "truncated"),
        (ipv6(b"\x11\x00", 0), "truncated"),
        (ipv6(b"\x11\x09" + bytes(14), 0), "truncated"),
        (ipv6(bytes(8) * 40, 0), "extension_headers"),
    ],
)
def test_what_is_no_whole_header_says_why(data, why):
    assert reason(data) == why


WHOLE = [
    ipv4(b"hello", options=bytes(4)),
    ipv6(pack(">BB14x", 44, 1) + pack(">BxHI", 17, 8, 9) + b"hello", 60),
]


@pytest.mark.parametrize("data", WHOLE)
def test_every_beginning_of_a_packet_gives_a_packet_or_a_listed_reason(data):
    assert {reason(data[:cut]) for cut in range(len(data))} <= {None, *ip.REASONS}


@given(
    st.sampled_from([b"", b"\x45", b"\x60", *WHOLE, *(one[:20] for one in WHOLE)]),
    st.binary(max_size=120),
)
def test_any_bytes_give_a_packet_within_them_or_a_listed_reason(start, data):
    data = start + data
    if (why := reason(data)) is not None:
        assert why in ip.REASONS
        return
    packet = ip.decode(data)
    assert 0 <= packet.start <= packet.end <= len(data)
