"""Tunnels that mirrors use."""

from __future__ import annotations

import pytest
from frames import ethernet, ipv4, ipv6, udp
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import ip, link, tunnel

INNER = ipv4(b"inside")
FRAME = ethernet(INNER)
VXLAN = b"\x08\0\0\0\0\0\x2a\0"
TZSP = b"\x01\x00\x00\x01"


def found(packet: bytes) -> tuple[int, int] | str | None:
    """What inner gives, or the reason why it gives nothing."""
    try:
        return tunnel.inner(ip.decode(packet))
    except DecodeError as error:
        return error.reason


@pytest.mark.parametrize(
    ("packet", "linktype", "inside"),
    [
        (ipv4(INNER, 4), link.RAW, INNER),
        (ipv6(INNER, 4), link.RAW, INNER),
        (ipv4(ipv6(b"x"), 41), link.RAW, ipv6(b"x")),
        (ipv4(b"\0\0\x08\0" + INNER, 47), link.RAW, INNER),
        (ipv4(b"\0\0\x86\xdd" + ipv6(b"x"), 47), link.RAW, ipv6(b"x")),
        (ipv4(b"\0\0\x65\x58" + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(b"\xb0\0\x65\x58" + bytes(12) + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(b"\0\0\x88\xbe" + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(b"\x10\0\x88\xbe" + bytes(4) + bytes(8) + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(b"\x10\0\x22\xeb" + bytes(4) + bytes(12) + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(b"\x10\0\x22\xeb" + bytes(4) + bytes(11) + b"\1" + bytes(8) + FRAME, 47), link.ETHERNET, FRAME),
        (ipv4(udp(VXLAN + FRAME, 40000, 4789)), link.ETHERNET, FRAME),
        (ipv4(udp(b"\x88" + VXLAN[1:] + FRAME, 40000, 4789)), link.ETHERNET, FRAME),
        (ipv4(udp(TZSP + b"\x01" + FRAME, 40000, 37008)), link.ETHERNET, FRAME),
        (ipv4(udp(TZSP + b"\x00\x0a\x01\xc4\x01" + FRAME, 40000, 37008)), link.ETHERNET, FRAME),
        (ipv4(udp(b"\x01\x00\x00\x12\x01" + FRAME, 40000, 37008)), link.WIFI, FRAME),
        (ipv4(udp(b"\x01\x00\x00\x7f\x01" + FRAME, 40000, 37008)), link.RADIOTAP, FRAME),
    ],
    ids=[
        "IPv4 in IPv4", "IPv4 in IPv6", "IPv6 in IPv4", "GRE", "GRE with IPv6",
        "GRE with Ethernet", "GRE with checksum, key and number", "ERSPAN I", "ERSPAN II",
        "ERSPAN III", "ERSPAN III with a subheader", "VXLAN", "VXLAN with a policy", "TZSP",
        "TZSP with tags", "TZSP with 802.11", "TZSP with radiotap",
    ],
)  # fmt: skip
def test_what_is_inside(packet, linktype, inside):
    kind, at = found(packet)
    assert (kind, packet[at:]) == (linktype, inside)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(udp(b"INVITE sip:a@b SIP/2.0")),
        ipv4(udp(b"INVITE sip:a@b SIP/2.0\r\n\r\n", 5060, 4789)),
        ipv4(udp(b"INVITE sip:a@b SIP/2.0\r\n\r\n", 5060, 37008)),
        ipv4(udp(b"INVITE sip:a@b SIP/2.0\r\n\r\n", 5060, 2152)),
        ipv4(udp(VXLAN, 40000, 4789)),
        ipv4(b"", 17),
        ipv4(b"anything", 6),
    ],
)
def test_an_ordinary_packet_has_nothing_inside(packet):
    assert found(packet) is None


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (ipv4(b"\0\0\x08", 47), "truncated"),
        (ipv4(b"\0\1\x08\0" + INNER, 47), "tunnel"),
        (ipv4(b"\0\0\x88\x0b" + INNER, 47), "tunnel"),
        (ipv4(b"\x10\0\x22\xeb" + bytes(8), 47), "truncated"),
        (ipv4(udp(b"\x01\x00\x00\x77" + FRAME, 40000, 37008)), "tunnel"),
        (ipv4(udp(TZSP + bytes(20), 40000, 37008)), "truncated"),
        (ipv4(udp(TZSP + b"\x0a\xff" + bytes(20), 40000, 37008)), "truncated"),
        (ipv4(udp(b"\x30\xff\0\x40\0\0\0\1" + INNER, 2152, 2152)), "gtp"),
    ],
)
def test_what_cannot_be_looked_into_says_why(packet, why):
    assert found(packet) == why


@given(
    st.sampled_from([4, 17, 41, 47]),
    st.sampled_from([b"", udp(b"", 1, 4789), udp(b"", 1, 37008), udp(TZSP, 1, 37008), udp(b"", 1, 2152)]),
    st.binary(max_size=60),
)  # fmt: skip
def test_any_bytes_give_an_inside_nothing_or_a_listed_reason(protocol, start, data):
    inside = found(ipv4(start + data, protocol))
    if isinstance(inside, str):
        assert inside in tunnel.REASONS
    else:
        # What begins behind the end is told by whoever reads it: it is truncated.
        assert inside is None or inside[1] >= 20
