"""Where IP begins in a captured frame."""

from __future__ import annotations

from struct import pack

import pytest
from frames import DST_MAC, SRC_MAC, ethernet
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import link

IP = b"\x45" + bytes(27)
MACS = DST_MAC + SRC_MAC
SNAP = b"\xaa\xaa\x03\0\0\0\x08\x00"
QOS_DATA, TO_DS, BOTH_DS, PROTECTED, ORDER = 0x88, 0x01, 0x03, 0x40, 0x80


def wifi(kind: int, flags: int, rest: int) -> bytes:
    """An 802.11 header of 24 bytes and *rest* more."""
    return bytes([kind, flags]) + bytes(22 + rest)


WHOLE = [
    ("Ethernet", 1, ethernet(b"", 0x0800), None),
    ("Ethernet, IPv6", 1, ethernet(b"", 0x86DD), None),
    ("VLAN, its priority cut off", 1, ethernet(pack(">HH", 0xE005, 0x0800), 0x8100), 5),
    ("QinQ, the outermost", 1, ethernet(pack(">HHHH", 5, 0x8100, 6, 0x0800), 0x88A8), 5),
    ("old QinQ", 1, ethernet(pack(">HHHH", 8, 0x9200, 6, 0x86DD), 0x9100), 8),
    ("four tags", 1, ethernet(pack(">HHHHHHHH", 1, 0x8100, 2, 0x8100, 3, 0x8100, 4, 0x0800), 0x8100), 1),
    ("PPPoE", 1, ethernet(pack(">BBHHH", 0x11, 0, 1, 0, 0x0021), 0x8864), None),
    ("PPPoE in a VLAN", 1, ethernet(pack(">HHBBHHH", 3, 0x8864, 0x11, 0, 1, 0, 0x0057), 0x8100), 3),
    ("MPLS, two labels", 1, ethernet(pack(">II", 99 << 12 | 64, 98 << 12 | 0x100 | 64), 0x8847), None),
    ("MPLS, multicast", 1, ethernet(pack(">I", 0x100), 0x8848), None),
    ("802.3 with SNAP", 1, ethernet(SNAP, 36), None),
    ("802.3 with bridged SNAP", 1, ethernet(b"\xaa\xaa\x03\0\0\xf8\x86\xdd", 36), None),
    ("802.3 with LLC alone", 1, ethernet(b"\x06\x06\x03", 36), None),
    ("802.3 with a VLAN behind SNAP", 1, ethernet(SNAP[:6] + pack(">HHH", 0x8100, 9, 0x0800), 36), 9),
    ("Linux cooked", 113, bytes(14) + b"\x08\x00", None),
    ("Linux cooked with a VLAN", 113, bytes(14) + pack(">HHH", 0x8100, 7, 0x86DD), 7),
    ("Linux cooked with LLC", 113, bytes(14) + b"\0\x04" + SNAP, None),
    ("Linux cooked 2", 276, b"\x08\x00" + bytes(18), None),
    ("BSD loopback, little endian", 0, pack("<I", 2), None),
    ("BSD loopback, big endian", 0, pack(">I", 30), None),
    ("OpenBSD loopback", 108, pack(">I", 24), None),
    ("OpenBSD ENC", 109, pack("<I", 2) + bytes(8), None),
    ("raw", 101, b"", None),
    ("raw, as OpenBSD numbered it", 14, b"", None),
    ("raw, as others numbered it", 12, b"", None),
    ("IPv4 alone", 228, b"", None),
    ("IPv6 alone", 229, b"", None),
    ("SLIP of BSD/OS", 8, bytes(16), None),
    ("PPP", 9, b"\x00\x21", None),
    ("PPP with an address", 9, b"\xff\x03\x00\x57", None),
    ("PPP, protocol in one byte", 9, b"\xff\x03\x21", None),
    ("PPP with MPLS", 9, b"\x02\x81" + pack(">I", 0x100), None),
    ("PPP in HDLC", 50, b"\xff\x03\x00\x21", None),
    ("Cisco HDLC", 50, b"\x0f\x00\x08\x00", None),
    ("Cisco HDLC, its own number", 104, b"\x8f\x00\x86\xdd", None),
    ("PPPoE alone", 51, pack(">BBHHH", 0x11, 0, 1, 0, 0x0021), None),
    ("token ring", 6, bytes(14) + SNAP, None),
    ("token ring, routed", 6, bytes(8) + b"\x80" + bytes(5) + b"\x06" + bytes(5) + SNAP, None),
    ("FDDI", 10, bytes(13) + SNAP, None),
    ("802.11", 105, wifi(0x08, TO_DS, 0) + SNAP, None),
    ("802.11, QoS", 105, wifi(QOS_DATA, TO_DS, 2) + SNAP, None),
    ("802.11, QoS and HT control", 105, wifi(QOS_DATA, TO_DS | ORDER, 6) + SNAP, None),
    ("802.11, four addresses", 105, wifi(0x08, BOTH_DS, 6) + SNAP, None),
    ("radiotap", 127, b"\0\0\x0a\0" + bytes(6) + wifi(0x08, TO_DS, 0) + SNAP, None),
    ("PFLOG", 117, b"\x3d" + bytes(63), None),
    ("IPNET", 226, bytes(24), None),
    ("NFLOG", 239, b"\x02\0\0\0" + pack("<HHI", 8, 1, 0) + pack("<HHBxxx", 5, 10, 1) + pack("<HH", 32, 9), None),
    ("NFLOG of a big-endian host", 239, b"\x02\0\0\0" + pack(">HHBxxx", 5, 10, 1) + pack(">HH", 32, 9), None),
]  # fmt: skip
CASES = [pytest.param(*case[1:], id=case[0]) for case in WHOLE]


def found(linktype: int, data: bytes) -> tuple[int, int | None] | str:
    """What ip_at gives, or the reason why it gives nothing."""
    try:
        return link.ip_at(linktype, data)
    except DecodeError as error:
        return error.reason


@pytest.mark.parametrize(("linktype", "head", "vlan"), CASES)
def test_ip_is_found_behind_the_link_header(linktype, head, vlan):
    assert found(linktype, head + IP) == (len(head), vlan)


@pytest.mark.parametrize(("linktype", "head", "vlan"), CASES)
def test_ip_is_found_in_a_frame_that_is_inside_of_another(linktype, head, vlan):
    assert link.ip_at(linktype, b"outer" + head + IP, 5) == (5 + len(head), vlan)


@pytest.mark.parametrize(("linktype", "head", "vlan"), CASES)
def test_every_beginning_of_a_frame_gives_an_offset_or_a_listed_reason(linktype, head, vlan):
    told = [found(linktype, head[:cut]) for cut in range(len(head))]
    assert {one for one in told if isinstance(one, str)} <= {*link.REASONS}


@pytest.mark.parametrize(
    ("linktype", "data", "why"),
    [
        (147, bytes(60), "link_type"),
        (1, ethernet(bytes(28), 0x0806), "not_ip"),
        (1, b"", "truncated"),
        (1, ethernet(b"", 0x8100), "truncated"),
        (1, ethernet(pack(">HH", 1, 0x8100) * 9, 0x8100), "not_ip"),
        (1, ethernet(pack(">BBHHH", 0x11, 0, 1, 0, 0xC021) + IP, 0x8864), "not_ip"),
        (1, ethernet(pack(">I", 5 << 12) * 40, 0x8847), "not_ip"),
        (1, ethernet(b"\x42\x42\x03" + IP, 36), "not_ip"),
        (1, ethernet(b"\xaa\xaa\x03\0\0\x0c\x20\0" + IP, 36), "not_ip"),
        (1, ethernet(SNAP[:6] + b"\0\x20" + IP, 36), "not_ip"),
        (1, ethernet((SNAP[:6] + pack(">HHH", 0x8100, 9, 36)) * 700 + IP, 36), "not_ip"),
        (0, pack("<I", 7) + IP, "not_ip"),
        (0, b"\x02\0\0", "truncated"),
        (9, b"\xff\x03\xc0\x21" + IP, "not_ip"),
        (101, b"", "truncated"),
        (105, wifi(0x80, 0, 0) + SNAP + IP, "not_ip"),
        (105, wifi(0x48, TO_DS, 0) + SNAP + IP, "not_ip"),
        (105, wifi(0x08, TO_DS | PROTECTED, 0) + SNAP + IP, "encrypted"),
        (105, wifi(QOS_DATA, TO_DS, 0) + b"\x80\0" + SNAP + IP, "not_ip"),
        (239, b"\x02\0\0\0" + pack("<HH", 0, 1) + IP, "not_ip"),
        (239, b"\x02\0\0\0" + pack("<HHI", 8, 1, 0), "truncated"),
    ],
)
def test_a_frame_without_ip_says_why(linktype, data, why):
    assert found(linktype, data) == why


LINK_TYPES = st.sampled_from(sorted({case[1] for case in WHOLE} | {147}))


@given(LINK_TYPES, st.sampled_from([b"", *(case[2] for case in WHOLE)]), st.binary(max_size=60))
def test_any_bytes_give_an_offset_within_the_frame_or_a_listed_reason(linktype, start, data):
    told = found(linktype, start + data)
    if isinstance(told, str):
        assert told in link.REASONS
    else:
        assert 0 <= told[0] <= len(start + data)
