"""Captured frames down to UDP payloads."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import ip

SRC4, DST4 = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
SRC6, DST6 = bytes(15) + b"\x01", bytes(15) + b"\x02"
MACS = bytes(12)


def reason(linktype: int, data: bytes) -> str | None:
    """Why no packet is found in *data*, None when one is."""
    try:
        ip.decode_linktype(linktype, data)
    except DecodeError as error:
        return error.reason
    return None


def udp(payload: bytes, length: int | None = None) -> bytes:
    return pack(">HHHH", 5060, 5062, 8 + len(payload) if length is None else length, 0) + payload


def ipv4(body: bytes, *, protocol=17, fragment=0, options=b"", total: int | None = None) -> bytes:
    head = 20 + len(options)
    total = head + len(body) if total is None else total
    first = 0x40 | head // 4
    packed = pack(">BBHHHBBH", first, 0, total, 7, fragment, 64, protocol, 0)
    return packed + SRC4 + DST4 + options + body


def ipv6(body: bytes, kind: int = 17) -> bytes:
    return pack(">IHBB", 0x60000000, len(body), kind, 64) + SRC6 + DST6 + body


def ethernet(kind: int, body: bytes) -> bytes:
    return MACS + pack(">H", kind) + body


PLAIN4, PLAIN6 = ipv4(udp(b"hello")), ipv6(udp(b"hello"))


@pytest.mark.parametrize(
    ("linktype", "data"),
    [
        (1, ethernet(0x0800, PLAIN4)),
        (1, ethernet(0x0800, PLAIN4 + b"padding of a short frame")),
        (1, ethernet(0x8100, pack(">HH", 0x2005, 0x0800) + PLAIN4)),
        (1, ethernet(0x88A8, pack(">HHHH", 5, 0x8100, 6, 0x0800) + PLAIN4)),
        (1, ethernet(0x8864, pack(">BBHHH", 0x11, 0, 1, 0, 0x0021) + PLAIN4)),
        (113, bytes(14) + pack(">H", 0x0800) + PLAIN4),
        (276, pack(">H", 0x0800) + bytes(18) + PLAIN4),
        (101, PLAIN4),
        (12, PLAIN4),
        (228, PLAIN4),
        (101, ipv4(udp(b"hello"), options=bytes(4))),
        (101, ipv4(udp(b"hello"), total=0)),
        (101, ipv4(udp(b"hello", length=3))),
        (101, ipv4(udp(b"hello", length=500))),
    ],
)
def test_an_ipv4_datagram_is_found(linktype, data):
    packet = ip.decode_linktype(linktype, data)
    assert (packet.src, packet.dst, packet.protocol) == (SRC4, DST4, 17)
    assert (packet.src_port, packet.dst_port, packet.payload) == (5060, 5062, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN6,
        ipv6(pack(">BB6x", 17, 0) + udp(b"hello"), 0),
        ipv6(pack(">BB14x", 43, 1) + pack(">BB6x", 17, 0) + udp(b"hello"), 60),
        ipv6(pack(">BB10x", 17, 1) + udp(b"hello"), 51),
        ipv6(pack(">BxHI", 17, 0, 9) + udp(b"hello"), 44),
    ],
    ids=["plain", "hop-by-hop", "destination and routing", "AH", "a fragment that is whole"],
)
def test_an_ipv6_datagram_is_found_behind_its_extension_headers(data):
    packet = ip.decode_linktype(1, ethernet(0x86DD, data + b"padding"))
    assert (packet.src, packet.dst, packet.payload) == (SRC6, DST6, b"hello")


def test_the_outermost_vlan_is_told():
    tagged = ethernet(0x88A8, pack(">HHHH", 0xE005, 0x8100, 6, 0x0800) + PLAIN4)
    assert ip.decode_ethernet(tagged).vlan == 5
    assert ip.decode_ethernet(ethernet(0x0800, PLAIN4)).vlan is None


@pytest.mark.parametrize(
    ("linktype", "data", "why"),
    [
        (1, ethernet(0x0806, bytes(28)), "not_ip"),
        (1, ethernet(0x0800, b"\x15" + bytes(40)), "not_ip"),
        (1, ethernet(0x0800, b"\x41" + bytes(40)), "not_ip"),
        (1, ethernet(0x0800, ipv4(bytes(20), protocol=6)), "not_udp"),
        (1, ethernet(0x0800, ipv4(udp(b"x"), fragment=0x2000)), "fragment"),
        (1, ethernet(0x0800, ipv4(b"x", fragment=0x0003)), "fragment"),
        (1, ethernet(0x86DD, ipv6(pack(">BxHI", 17, 1, 9) + udp(b"x"), 44)), "fragment"),
        (1, ethernet(0x86DD, ipv6(b"", 59)), "not_udp"),
        (1, ethernet(0x0800, ipv4(b"short")), "truncated"),
        (1, b"", "truncated"),
        (0, bytes(60), "link_type"),
    ],
)
def test_what_is_no_whole_udp_datagram_says_why(linktype, data, why):
    assert reason(linktype, data) == why


def test_a_frame_with_nothing_but_vlan_tags_is_not_ip():
    assert reason(1, ethernet(0x8100, pack(">HH", 1, 0x8100) * 9)) == "not_ip"


WHOLE = [
    ethernet(0x8100, pack(">HH", 5, 0x0800) + PLAIN4),
    ethernet(0x86DD, ipv6(pack(">BB6x", 17, 0) + udp(b"hello"), 0)),
]


@pytest.mark.parametrize("data", WHOLE)
def test_every_beginning_of_a_frame_gives_a_packet_or_a_listed_error(data):
    assert {reason(1, data[:cut]) for cut in range(len(data))} <= {None, *ip.REASONS}


@given(
    st.sampled_from([1, 12, 101, 113, 276]),
    st.sampled_from([b"", b"\x45", b"\x60", MACS + b"\x08\x00\x45", MACS + b"\x86\xdd\x60"]),
    st.binary(max_size=120),
)
def test_any_bytes_give_a_packet_or_a_listed_error(linktype, start, data):
    assert reason(linktype, start + data) in {None, *ip.REASONS}
