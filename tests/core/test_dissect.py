"""Captured frames to the packets a script sees."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from frames import (
    BEGIN,
    DST4,
    DST6,
    DST_MAC,
    END,
    SRC4,
    SRC6,
    SRC_MAC,
    data_chunk,
    ethernet,
    ipv4,
    ipv6,
    piece4,
    piece6,
    sctp,
    tcp,
    udp,
)
from hypothesis import given
from hypothesis import strategies as st

from homerd.core import dissect
from homerd.core.dissect import Dissector
from homerd.wire import hep
from homerd.wire.frame import Frame

SIP = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 7\r\nContent-Length: 0\r\n\r\n"
LONG = SIP[:-4] + b"\r\nSubject: " + b"x" * 2000 + b"\r\n\r\n"
HEP = hep.assemble([(0, 1, b"\x02"), (0, 11, b"\x01"), (0, 12, bytes(4)), (0, 15, SIP)])
ETHERNET, RAW, COOKED = 1, 101, 113


def feed(
    data: bytes, dissector: Dissector | None = None, linktype: int = ETHERNET
) -> list[Frame] | str:
    """The packets in a frame, or the reason why there are none."""
    dissector = dissector or Dissector()
    before = dissector.undecoded.total()
    frames = dissector.feed(linktype, 1_700_000_000, 123_456, data)
    assert dissector.undecoded.total() == before + (not frames)
    return frames or dissector.reason


def test_a_bare_message_tells_what_the_headers_below_it_said():
    tagged = ethernet(pack(">HH", 0xE005, 0x0800) + ipv4(udp(SIP), tos=0x68), 0x8100)
    (frame,) = feed(tagged, Dissector(capture_id=2001, node_name="mirror"))
    assert (frame.version, frame.payload_type, frame.family, frame.protocol) == (0, 1, 2, 17)
    assert (frame.src, frame.src_port, frame.dst, frame.dst_port) == (SRC4, 5060, DST4, 5062)
    assert (frame.seconds, frame.micros) == (1_700_000_000, 123_456)
    assert (frame.payload, frame.raw, list(frame.warnings)) == (SIP, SIP, [])
    assert (frame.capture_id, frame.correlation_id) == (2001, None)
    assert frame.extra == {
        "vlan": 5,
        "src_mac": int.from_bytes(SRC_MAC, "big"),
        "dst_mac": int.from_bytes(DST_MAC, "big"),
        "ip_tos": 0x68,
        "node_name": "mirror",
    }


def test_a_message_over_ipv6_without_ethernet():
    (frame,) = feed(bytes(14) + b"\x86\xdd" + ipv6(udp(SIP)), linktype=COOKED)
    assert (frame.family, frame.src, frame.dst, frame.capture_id) == (10, SRC6, DST6, None)
    assert frame.extra == {"ip_tos": 0}


@pytest.mark.parametrize("start", [b"", b"\r\n", b"\n\r\n"])
def test_line_ends_before_a_message_are_let_pass(start):
    (frame,) = feed(ethernet(ipv4(udp(start + SIP))))
    assert frame.payload == start + SIP


@pytest.mark.parametrize("length", [0, 7, 9000])
def test_a_length_of_udp_that_cannot_be_is_not_believed(length):
    (frame,) = feed(ethernet(ipv4(udp(SIP, length=length))))
    assert frame.payload == SIP


def test_a_message_of_which_less_was_captured_says_so():
    dissector = Dissector()
    (frame,) = feed(ethernet(ipv4(udp(LONG)))[:500], dissector)
    assert (frame.warnings, frame.payload) == (("snapped",), LONG[: 500 - 42])
    assert dissector.notes == {"snapped": 1}


@pytest.mark.parametrize(
    ("outer", "addresses"),
    [
        (ethernet(ipv4(ipv4(udp(SIP), src=SRC4, dst=DST4), 4, src=b"\1\1\1\1")), (SRC4, DST4)),
        (ethernet(ipv6(ipv4(udp(SIP)), 4)), (SRC4, DST4)),
        (ethernet(ipv4(ipv6(udp(SIP)), 41)), (SRC6, DST6)),
        (
            ethernet(ipv4(b"\x10\0\x88\xbe" + bytes(12) + ethernet(ipv4(udp(SIP))), 47)),
            (SRC4, DST4),
        ),
        (
            ethernet(ipv4(udp(b"\x08" + bytes(7) + ethernet(ipv6(udp(SIP))), 4000, 4789))),
            (SRC6, DST6),
        ),
        (
            ethernet(ipv4(udp(b"\x01\0\0\x01\x01" + ethernet(ipv4(udp(SIP))), 4000, 37008))),
            (SRC4, DST4),
        ),
    ],
    ids=["IPv4 in IPv4", "IPv4 in IPv6", "IPv6 in IPv4", "ERSPAN", "VXLAN", "TZSP"],
)
def test_addresses_are_those_inside_of_a_tunnel(outer, addresses):
    (frame,) = feed(outer)
    assert (frame.src, frame.dst, frame.payload) == (*addresses, SIP)


def nested(depth: int) -> bytes:
    packet = ipv4(udp(SIP))
    for _ in range(depth):
        packet = ipv4(packet, 4)
    return ethernet(packet)


def test_tunnels_are_walked_four_deep():
    (frame,) = feed(nested(4))
    assert frame.payload == SIP
    assert feed(nested(5)) == "tunnel_too_deep"


def test_the_vlan_is_the_outermost_and_the_addresses_of_ethernet_the_innermost():
    inside = b"\x0a" * 6 + b"\x0b" * 6 + pack(">HHH", 0x8100, 9, 0x0800) + ipv4(udp(SIP))
    outside = ethernet(pack(">HH", 5, 0x0800) + ipv4(b"\0\0\x65\x58" + inside, 47), 0x8100)
    (frame,) = feed(outside)
    assert (frame.extra["vlan"], frame.extra["dst_mac"]) == (5, 0x0A0A0A0A0A0A)
    (frame,) = feed(ethernet(ipv4(b"\0\0\x65\x58" + inside, 47)))
    assert frame.extra["vlan"] == 9


@pytest.mark.parametrize("piece", [piece4, piece6])
def test_fragments_make_one_packet_at_the_time_of_the_last(piece):
    dissector, datagram = Dissector(), udp(LONG)
    assert dissector.feed(ETHERNET, 1000, 1, ethernet(piece(datagram, 800, len(datagram)))) == []
    assert (dissector.reason, dissector.undecoded) == ("fragment", {"fragment": 1})
    (frame,) = dissector.feed(ETHERNET, 1003, 2, ethernet(piece(datagram, 0, 800)))
    assert (frame.payload, frame.src_port, frame.seconds, frame.micros) == (LONG, 5060, 1003, 2)


def test_a_tunnel_in_fragments_and_fragments_in_a_tunnel():
    dissector = Dissector()
    inner = ipv4(udp(LONG))
    for start, stop in ((0, 1000), (1000, len(inner))):
        more = 0x2000 if stop < len(inner) else 0
        told = feed(ethernet(ipv4(inner[start:stop], 4, fragment=more | start // 8)), dissector)
    assert told[0].payload == LONG
    datagram = udp(LONG)
    feed(ethernet(ipv4(piece4(datagram, 0, 800), 4)), dissector)
    (frame,) = feed(ethernet(ipv4(piece4(datagram, 800, len(datagram)), 4)), dissector)
    assert frame.payload == LONG


def test_fragments_that_are_left_in_the_end_are_noted():
    dissector = Dissector()
    feed(ethernet(piece4(udp(LONG), 0, 800)), dissector)
    assert dissector.finish() == []
    assert dissector.notes == {"fragments_expired": 1}


def test_messages_of_a_stream_have_the_time_and_the_flags_of_the_segment_that_ends_them():
    dissector = Dissector()
    assert feed(ethernet(ipv4(tcp(b"", 99, 0x02), 6)), dissector) == "tcp_no_data"
    assert feed(ethernet(ipv4(tcp(SIP[:30], 100), 6)), dissector) == "tcp_segment"
    first, second = dissector.feed(
        ETHERNET, 1005, 6, ethernet(ipv4(tcp(SIP[30:] + SIP, 130, 0x19), 6))
    )
    assert (first.payload, second.payload) == (SIP, SIP)
    assert (first.protocol, first.src_port, first.dst_port) == (6, 5060, 5062)
    assert (first.seconds, first.micros, first.extra["tcp_flags"]) == (1005, 6, 0x19)
    assert dissector.undecoded == {"tcp_no_data": 1, "tcp_segment": 1}


def test_a_message_behind_a_gap_that_never_fills_comes_late_at_its_own_time():
    dissector = Dissector()
    feed(ethernet(ipv4(tcp(b"", 99, 0x02), 6)), dissector)
    feed(ethernet(ipv4(tcp(SIP, 200), 6)), dissector)
    assert dissector.expire(1_700_000_001) == []
    (frame,) = dissector.expire(1_700_000_060)
    assert (frame.payload, frame.seconds, frame.micros) == (SIP, 1_700_000_000, 123_456)
    assert dissector.notes["tcp_gap"] == 1


def test_hep_over_tcp_is_read_frame_by_frame():
    dissector = Dissector()
    bad = hep.assemble([(0, 1, b"\x02\x02")])
    frames = feed(ethernet(ipv4(tcp(HEP + bad + HEP), 6)), dissector)
    assert [frame.version for frame in frames] == [3, 3]
    assert dissector.notes == {"bad_chunk_size": 1}


def test_messages_over_sctp():
    chunks = data_chunk(SIP, 1), data_chunk(b"no SIP", 2), data_chunk(SIP, 3)
    frames = feed(ethernet(ipv4(sctp(*chunks), 132)))
    assert [(frame.payload, frame.protocol, frame.payload_type) for frame in frames] == [
        (SIP, 132, 1)
    ] * 2
    assert feed(ethernet(ipv4(sctp(data_chunk(b"no SIP")), 132))) == "sctp_payload"
    assert feed(ethernet(ipv4(sctp(data_chunk(SIP, 1, BEGIN)), 132))) == "sctp_piece"


@pytest.mark.parametrize(
    ("protocol", "kind"), [(2, 8), (3, 9), (5, 13)], ids=["M2UA", "M3UA", "M2PA"]
)
def test_ss7_over_sctp_has_the_payload_type_that_agents_send(protocol, kind):
    (frame,) = feed(ethernet(ipv4(sctp(data_chunk(b"\1\0\1\1", 1, BEGIN | END, protocol)), 132)))
    assert (frame.payload_type, frame.payload) == (kind, b"\1\0\1\1")


def test_hep_that_was_captured_is_opened_unless_it_may_be_our_own():
    data = ethernet(ipv4(udp(HEP)))
    (frame,) = feed(data)
    assert (frame.version, frame.payload, frame.seconds) == (3, SIP, 1_700_000_000)
    assert feed(data, Dissector(take_hep=False)) == "hep"


def test_frames_that_are_not_wanted_are_counted():
    dissector = Dissector(wanted=lambda linktype, data: linktype == RAW)
    assert feed(ethernet(ipv4(udp(SIP))), dissector) == "filtered"
    assert feed(ipv4(udp(SIP)), dissector, RAW)[0].payload == SIP


STUN = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (ethernet(bytes(28), 0x0806), "not_ip"),
        (ethernet(ipv4(b"short")), "truncated"),
        (ethernet(ipv4(b"", 88)), "ip_protocol"),
        (ethernet(ipv4(bytes(64), 1)), "icmp"),
        (ethernet(ipv6(bytes(64), 58)), "icmp"),
        (ethernet(ipv4(bytes(64), 50)), "esp"),
        (ethernet(ipv6(b"", 59)), "ip_protocol"),
        (ethernet(ipv4(b"\0\1\x08\0", 47)), "tunnel"),
        (ethernet(ipv4(udp(b"\x30\xff" + bytes(6) + ipv4(udp(SIP)), 2152, 2152))), "gtp"),
        (ethernet(ipv4(udp(b""))), "keep_alive"),
        (ethernet(ipv4(udp(b"\r\n\r\n"))), "keep_alive"),
        (ethernet(ipv4(udp(bytes(4)))), "keep_alive"),
        (ethernet(ipv4(udp(b"jaK\0"))), "keep_alive"),
        (ethernet(ipv4(udp(b"\x80\x08" + bytes(170)))), "media"),
        (ethernet(ipv6(udp(b"\x80\x08" + bytes(170)))), "media"),
        (ethernet(ipv4(udp(b"\x80\x08" + bytes(170)), options=bytes(4))), "media"),
        (ethernet(ipv4(udp(STUN, 40000, 3478))), "stun"),
        (ethernet(ipv4(udp(b"\x12\x34" + bytes(20), 40000, 53))), "dns"),
        (ethernet(ipv4(udp(b"\x01\x00 no HEP of version 1"))), "not_hep"),
        (ethernet(ipv4(udp(b"\x1f\x8b no gzip"))), "decompress_failed"),
        (ethernet(ipv4(udp(b"GET / HTTP/1.1\r\n"))), "not_hep"),
        (ethernet(ipv4(udp(HEP[:-1]))), "truncated"),
        (ethernet(ipv4(tcp(b"")[:19], 6)), "truncated"),
        (ethernet(ipv4(tcp(SIP)[:12] + b"\x40" + tcp(SIP)[13:], 6)), "tcp_header"),
        (ethernet(ipv4(tcp(b"")[:12] + b"\xf0" + tcp(b"")[13:], 6)), "tcp_header"),
    ],
)
def test_a_frame_that_gives_nothing_says_why(data, why):
    assert feed(data) == why


def test_what_is_sent_to_the_port_of_a_tunnel_is_not_taken_for_media():
    policy = b"\x88\0\0\0\0\0\x2a\0" + ethernet(ipv4(udp(SIP)))
    (frame,) = feed(ethernet(ipv4(udp(policy, 40000, 4789))))
    assert frame.payload == SIP


def test_icmp_that_quotes_a_message_is_left_alone():
    assert feed(ethernet(ipv4(b"\x03\x03" + bytes(6) + ipv4(udp(SIP)), 1))) == "icmp"


def test_every_reason_and_note_is_in_the_manual():
    docs = Path(__file__).parent.parent.parent / "docs"
    manual = (docs / "captures.md").read_text() + (docs / "media.md").read_text()
    told = {*dissect.REASONS, *dissect.NOTES} - {*hep.REASONS}
    assert [name for name in sorted(told) if f"`{name}`" not in manual] == []


PIECES = st.sampled_from(
    [
        ethernet(b"", 0x0800), ethernet(b"", 0x86DD), ethernet(b"", 0x8100), ipv4(b""), ipv4(b"", 4),
        ipv4(b"", 6), ipv4(b"", 47), ipv4(b"", 132), ipv4(b"", fragment=0x2000), ipv6(b""),
        ipv6(b"", 44), udp(b""), udp(b"", 1, 4789), tcp(b""), sctp(), data_chunk(SIP), SIP, HEP,
        b"\x80\xc8\0\1", b"\x80\0",
    ]
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 9, 12, 101, 105, 113, 127, 239, 276]),
            st.lists(PIECES | st.binary(max_size=20), max_size=6).map(b"".join),
        ),
        max_size=8,
    )
)
def test_any_frames_give_packets_or_one_listed_reason_each(frames):
    dissector = Dissector()
    for linktype, data in frames:
        feed(data, dissector, linktype)
    dissector.finish()
    assert {*dissector.undecoded} <= {*dissect.REASONS}
    assert {*dissector.notes} <= {*dissect.NOTES}
