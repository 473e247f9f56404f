"""RTCP and RTP to the calls they belong to."""

from __future__ import annotations

import json
from ipaddress import ip_address
from struct import pack

import pytest

from homerd.core import calls, media
from homerd.core.dissect import NOTES, REASONS, Dissector
from homerd.core.media import MediaTable
from homerd.errors import DecodeError
from homerd.wire.frame import IPV4, SIP, Frame
from homerd.wire.ip import Datagram

ALICE, BOB, PROXY = "192.0.2.10", "192.0.2.20", "192.0.2.1"
T0 = 1_700_000_000


def sdp(host: str, port: int, more: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )


def sip(
    first: str,
    body: str = "",
    *,
    call_id: str = "c1",
    cseq: str = "1 INVITE",
    src: str = PROXY,
    at: int = T0,
) -> Frame:
    text = (
        f"{first}\r\nVia: SIP/2.0/UDP {src}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    ends = ip_address(src).packed, ip_address(PROXY).packed, 5060, 5060
    return Frame(0, IPV4, 17, *ends, at, 0, SIP, payload=text)


INVITE = sip("INVITE sip:b@x SIP/2.0", sdp(ALICE, 40000))
OK = sip("SIP/2.0 200 OK", sdp(BOB, 50000))
BYE = sip("BYE sip:b@x SIP/2.0", cseq="2 BYE")
REFUSED = sip("SIP/2.0 486 Busy Here")

RR = pack(">BBHI", 0x80, 201, 1, 7)


def datagram(
    payload: bytes,
    src: tuple[str, int] = (ALICE, 40001),
    dst: tuple[str, int] = (BOB, 50001),
    at: float = T0,
) -> Datagram:
    ends = ip_address(src[0]).packed, ip_address(dst[0]).packed, 17, src[1], dst[1]
    seconds = int(at)
    return Datagram(*ends, payload, seconds, round((at - seconds) * 1e6))


def rtp(
    number: int, at: float, kind: int = 0, src: tuple[str, int] = (ALICE, 40000), ssrc: int = 7
) -> Datagram:
    head = pack(">BBHII", 0x80, kind, number & 0xFFFF, number * 160, ssrc)
    return datagram(head + bytes(160), src, (BOB, 50000), at)


def learnt(*frames: Frame, report_seconds: int = 0) -> MediaTable:
    table = MediaTable(report_seconds)
    for frame in frames:
        table.learn(frame)
    return table


def call_of(table: MediaTable, *arguments, at: float = T0) -> str | None:
    frame = table.take(datagram(RR, *arguments, at=at))
    assert frame is not None
    return frame.correlation_id


def told(frame: Frame | None) -> dict[str, object]:
    assert frame is not None
    return json.loads(frame.payload)


def test_rtcp_is_json_with_the_addresses_it_had_and_the_call_id():
    frame = learnt(INVITE).take(datagram(RR))
    assert told(frame) == {"ssrc": 7, "type": 201, "report_count": 0, "report_blocks": []}
    assert (frame.src_ip, frame.src_port, frame.dst_ip, frame.dst_port) == (
        ALICE,
        40001,
        BOB,
        50001,
    )
    assert (frame.seconds, frame.payload_type, frame.correlation_id) == (T0, 5, "c1")


@pytest.mark.parametrize(
    ("frames", "src", "dst", "call_id"),
    [
        ([INVITE], (ALICE, 40001), (BOB, 9), "c1"),
        ([INVITE], (BOB, 9), (ALICE, 40001), "c1"),
        ([INVITE], (ALICE, 40000), (BOB, 9), "c1"),  # one port for both
        ([OK], (BOB, 50001), (ALICE, 9), "c1"),
        ([INVITE], (ALICE, 40003), (BOB, 9), None),
        ([INVITE], (BOB, 40001), (BOB, 9), None),
        ([], (ALICE, 40001), (BOB, 9), None),
        ([sip("ACK sip:b@x SIP/2.0", sdp(ALICE, 6, "a=rtcp:77\r\n"))], (ALICE, 77), (BOB, 9), "c1"),
        # the source goes before the destination, the newest before what was
        ([INVITE, sip("SIP/2.0 183 x", sdp(BOB, 50000), call_id="c2")],
         (BOB, 50001), (ALICE, 40001), "c2"),
        ([INVITE, sip("INVITE sip:b@x SIP/2.0", sdp(ALICE, 40000), call_id="c2")],
         (ALICE, 40001), (BOB, 9), "c2"),
        # behind NAT the message's source is the better address, but only where nothing is known
        ([sip("INVITE sip:b@x SIP/2.0", sdp("10.0.0.5", 40000), src=ALICE)],
         (ALICE, 40001), (BOB, 9), "c1"),
        ([sip("INVITE sip:b@x SIP/2.0", sdp(PROXY, 6), call_id="relay"),
          sip("INVITE sip:b@x SIP/2.0", sdp("10.0.0.5", 6), src=PROXY)],
         (PROXY, 7), (BOB, 9), "relay"),
    ],
)  # fmt: skip
def test_the_call_is_found_by_address_and_port(frames, src, dst, call_id):
    assert call_of(learnt(*frames), src, dst) == call_id


def test_rtcp_of_no_known_call_is_told_without_a_call_id_and_counted():
    table = learnt()
    assert call_of(table) is None
    assert table.counts == {"rtcp_no_call": 1}


def test_after_bye_the_last_reports_still_find_their_call_for_a_minute():
    table = learnt(INVITE, OK, BYE)
    assert call_of(table, at=T0 + 59) == "c1"
    assert call_of(table, at=T0 + 62) is None


def test_a_refusal_ends_a_call_that_nobody_answered_and_no_other():
    assert call_of(learnt(INVITE, REFUSED), at=T0 + 60) is None
    assert call_of(learnt(INVITE, OK, REFUSED), at=T0 + 60) == "c1"
    assert call_of(learnt(INVITE, REFUSED, INVITE), at=T0 + 60) == "c1"


def test_a_call_without_an_end_is_forgotten_after_four_hours():
    assert call_of(learnt(INVITE), at=T0 + 14_399) == "c1"
    assert call_of(learnt(INVITE), at=T0 + 14_400) is None


def test_more_addresses_than_there_is_room_for_push_out_the_oldest_call(monkeypatch):
    monkeypatch.setattr(calls, "MAX_ADDRESSES", 4)
    invites = [
        sip("INVITE sip:b@x SIP/2.0", sdp(ALICE, 40000 + 2 * n), call_id=f"c{n}") for n in range(3)
    ]
    table = learnt(*invites)
    found = [call_of(table, (ALICE, 40001 + 2 * n), (BOB, 9)) for n in range(3)]
    assert found == [None, "c1", "c2"]
    assert table.counts["media_forgotten"] == 1


def test_sdp_without_a_call_id_is_counted():
    table = learnt(Frame(0, IPV4, payload=b"INVITE sip:a SIP/2.0\r\n\r\n" + sdp(ALICE, 6).encode()))
    assert table.counts == {"media_no_call_id": 1}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (RR[:6], "rtcp_truncated"),
        (RR + bytes(14), "rtcp_version"),
        (pack(">BBHI", 0x81, 203, 1, 7), "rtcp_no_report"),
        (pack(">BBHII", 0x81, 206, 2, 7, 8), "rtcp_no_report"),
    ],
)
def test_rtcp_that_says_nothing_has_a_reason(payload, reason):
    with pytest.raises(DecodeError) as error:
        learnt().take(datagram(payload))
    assert error.value.reason == reason
    assert reason in REASONS


def test_several_reporters_in_one_packet_are_several_packets():
    table = learnt(INVITE)
    first = table.take(datagram(RR + pack(">BBHI", 0x80, 201, 1, 8)))
    assert [told(each)["ssrc"] for each in (first, *table.take_late())] == [7, 8]
    assert table.take_late() == []


def test_rtp_is_not_looked_at_unless_asked_for():
    assert learnt(INVITE).take(rtp(1, T0)) is None
    assert Dissector().media.report_seconds == 0


def test_a_stream_is_reported_each_interval_and_when_it_ends():
    table = learnt(INVITE, report_seconds=5)
    reports = [table.take(rtp(n, T0 + n * 0.02)) for n in range(300) if n not in (10, 280)]
    (periodic,) = [each for each in reports if each is not None]
    assert periodic.payload_type == 34
    assert told(periodic) == {
        "CORRELATION_ID": "c1",
        "RTP_SIP_CALL_ID": "c1",
        "REPORT_TS": T0 + 5,
        "TYPE": "PERIODIC",
        "SSRC": 7,
        "SRC_IP": ALICE,
        "SRC_PORT": 40000,
        "DST_IP": BOB,
        "DST_PORT": 50000,
        "CODEC_PT": 0,
        "CODEC_NAME": "PCMU",
        "CLOCK": 8000,
        "TOTAL_PK": 250,
        "EXPECTED_PK": 251,
        "PACKET_LOSS": 1,
        "TL_BYTE": 40000,
        "SEQ": 250,
        "OUT_ORDER": 0,
        "DELTA": 20.0,
        "MAX_DELTA": 40.0,
        "SKEW": 0.0,
        "MAX_SKEW": 0.0,
        "JITTER": 0.0,
        "MAX_JITTER": 0.0,
        "MEAN_JITTER": 0.0,
        "RFACTOR": 91.7,
        "MOS": 4.38,
        "MIN_RFACTOR": 91.7,
        "MIN_MOS": 4.38,
        "MEAN_RFACTOR": 91.7,
        "MEAN_MOS": 4.38,
    }
    table.expire(T0 + 14)
    assert table.take_late() == []
    table.expire(T0 + 15)
    (final,) = table.take_late()
    assert final.correlation_id == "c1"
    assert (final.seconds, final.micros) == (T0 + 5, 980_000)
    wanted = {"TYPE": "FINAL", "TOTAL_PK": 298, "EXPECTED_PK": 300, "PACKET_LOSS": 2}
    assert {key: told(final)[key] for key in wanted} == wanted
    assert table.counts == {}


def test_what_is_left_at_the_end_is_reported():
    table = learnt(INVITE, report_seconds=5)
    table.take(rtp(1, T0))
    table.take(rtp(1, T0, ssrc=8))
    table.finish()
    assert [told(each)["SSRC"] for each in table.take_late()] == [7, 8]
    table.finish()
    assert table.take_late() == []


def test_tones_do_not_change_what_a_stream_is_said_to_carry():
    table = learnt(INVITE, report_seconds=5)
    for number, kind in enumerate((0, 101, 101)):
        table.take(rtp(number, T0, kind))
    table.finish()
    (final,) = table.take_late()
    assert (told(final)["CODEC_PT"], told(final)["CODEC_NAME"]) == (0, "PCMU")


def test_rtp_of_no_known_call_is_counted_and_not_measured():
    table = learnt(report_seconds=5)
    assert table.take(rtp(1, T0)) is None
    assert table.counts == {"rtp_no_call": 1}


def test_streams_beyond_the_limit_are_counted(monkeypatch):
    monkeypatch.setattr(media, "MAX_STREAMS", 1)
    table = learnt(INVITE, report_seconds=5)
    table.take(rtp(1, T0))
    table.take(rtp(1, T0, ssrc=8))
    assert table.counts == {"rtp_streams": 1}


def test_a_clock_that_leaps_and_comes_back_ends_nothing_for_good():
    table = learnt(INVITE, report_seconds=5)
    table.take(rtp(1, T0))
    table.take(datagram(RR, at=T0 - 1000))
    table.take(rtp(2, T0 + 1))
    table.finish()
    assert [told(each)["TOTAL_PK"] for each in table.take_late() if each.payload_type == 34] == [2]


def test_reasons_and_notes_are_among_those_of_dissection():
    assert set(media.REASONS) <= set(REASONS)
    assert set(media.NOTES) <= set(NOTES)
