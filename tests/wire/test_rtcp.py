"""RTCP to values and to the JSON that agents send; what is no RTCP is a DecodeError."""

from __future__ import annotations

import json
from struct import pack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import rtcp

SSRC, OTHER = 305419896, 2271560481


def part(kind: int, count: int, body: bytes, *, padding: int = 0) -> bytes:
    body += bytes(padding - 1) + bytes([padding]) if padding else b""
    assert len(body) % 4 == 0
    return pack(">BBH", 0x80 | (0x20 if padding else 0) | count, kind, len(body) // 4) + body


def block(lost: int = 3, source: int = OTHER) -> bytes:
    return pack(">IIIIII", source, lost & 0xFFFFFF, 1024, 14, 0, 0)


SENDER = pack(">IIIIII", SSRC, 3909988800, 530239482, 160000, 1000, 160000)
REPORT = part(200, 1, SENDER + block())
CNAME = part(202, 1, pack(">IBB", SSRC, 1, 5) + b"a@lab\0\0\0"[:6])
VOIP = pack(
    ">BBHIBBBBHHHHbbBBBBBBBxHHH",
    *(7, 0, 8, OTHER, 1, 2, 0, 3, 0, 500, 180, 140),
    *(-21, -50, 55, 16, 90, 127, 42, 41, 0x3C, 40, 80, 120),
)


def test_a_sender_report_is_what_captagent_sends_of_it():
    assert json.dumps(rtcp.as_json(rtcp.decode(REPORT))[0], separators=(",", ":")) == (
        '{"sender_information":{"ntp_timestamp_sec":3909988800,"ntp_timestamp_usec":530239482,'
        '"octets":160000,"rtp_timestamp":160000,"packets":1000},"ssrc":305419896,"type":200,'
        '"report_count":1,"report_blocks":[{"source_ssrc":2271560481,"fraction_lost":0,'
        '"packets_lost":3,"highest_seq_no":1024,"ia_jitter":14,"lsr":0,"dlsr":0}]}'
    )


def test_a_receiver_report_has_no_sender_information_and_all_its_blocks():
    body = pack(">I", SSRC) + block(-1) + block(0x7FFFFF, source=7)
    (told,) = rtcp.as_json(rtcp.decode(part(201, 2, body)))
    assert "sender_information" not in told
    assert (told["type"], told["report_count"]) == (201, 2)
    assert [each["packets_lost"] for each in told["report_blocks"]] == [-1, 0x7FFFFF]
    assert [each["source_ssrc"] for each in told["report_blocks"]] == [OTHER, 7]


def test_the_description_of_the_reporter_goes_into_its_report():
    (told,) = rtcp.as_json(rtcp.decode(REPORT + CNAME))
    assert told["type"] == 200
    assert told["sdes_ssrc"] == SSRC
    assert told["sdes_report_count"] == 1
    assert told["sdes_information"] == [{"type": 1, "text": "a@lab"}]


def test_a_mixers_other_chunks_are_told_apart_and_each_begins_at_a_word():
    chunks = pack(">IBB", SSRC, 1, 2) + b"ab" + bytes(4) + pack(">IBB", 9, 1, 1) + b"c\0"
    (told,) = rtcp.as_json(rtcp.decode(REPORT + part(202, 2, chunks)))
    assert told["sdes_information"] == [
        {"type": 1, "text": "ab"},
        {"type": 1, "text": "c", "sdes_chunk_ssrc": 9},
    ]


def test_a_description_alone_is_a_report_of_its_own_kind():
    (told,) = rtcp.as_json(rtcp.decode(CNAME))
    assert (told["type"], told["ssrc"], told["report_blocks"]) == (202, SSRC, [])


def test_voice_metrics_are_heplifys_object_with_mos_in_the_order_of_the_rfc():
    (told,) = rtcp.as_json(rtcp.decode(REPORT + part(207, 0, pack(">I", SSRC) + VOIP)))
    assert told["type"] == 200
    assert told["report_blocks_xr"] == {
        "type": 7,
        "id": OTHER,
        "fraction_lost": 1,
        "fraction_discard": 2,
        "burst_density": 0,
        "gap_density": 3,
        "burst_duration": 0,
        "gap_duration": 500,
        "round_trip_delay": 180,
        "end_system_delay": 140,
    }
    assert told["voip_metrics"] == {
        "signal_level": -21,
        "noise_level": -50,
        "rerl": 55,
        "gmin": 16,
        "r_factor": 90,
        "ext_r_factor": 127,
        "mos_lq": 42,
        "mos_cq": 41,
        "rx_config": 0x3C,
        "jb_nominal": 40,
        "jb_maximum": 80,
        "jb_abs_max": 120,
    }


def test_voice_metrics_of_two_sources_are_two_reports():
    first, second = rtcp.as_json(rtcp.decode(part(207, 0, pack(">I", SSRC) + VOIP + VOIP)))
    assert (first["type"], second["type"]) == (207, 207)
    assert first["report_blocks_xr"] == second["report_blocks_xr"]


def test_the_other_extended_blocks_are_told_too():
    runs = pack(">BBHIHHHH", 1, 2, 3, OTHER, 10, 20, 0x4005, 0)
    times = pack(">BBHIHHI", 3, 0, 3, OTHER, 10, 11, 99)
    reference = pack(">BBHII", 4, 0, 2, 3909988800, 5)
    delays = pack(">BBHIII", 5, 0, 3, OTHER, 6, 7)
    summary = pack(">BBHIHHIIIIIIBBBB", 6, 0xF0, 9, OTHER, 1, 9, 2, 1, 3, 8, 5, 4, 60, 64, 62, 1)
    unknown = pack(">BBHI", 77, 0, 1, 1)
    body = pack(">I", SSRC) + runs + times + reference + delays + summary + unknown
    (told,) = rtcp.as_json(rtcp.decode(part(207, 0, body)))
    assert told["runs"] == [
        {"type": 1, "id": OTHER, "begin_seq": 10, "end_seq": 20},
        {"type": 3, "id": OTHER, "begin_seq": 10, "end_seq": 11},
    ]
    assert told["receiver_reference_time"] == {
        "ntp_timestamp_sec": 3909988800,
        "ntp_timestamp_usec": 5,
    }
    assert told["dlrr"] == [{"ssrc": OTHER, "lrr": 6, "dlrr": 7}]
    assert told["statistics_summary"] == [
        {
            "flags": 0xF0,
            "id": OTHER,
            "begin_seq": 1,
            "end_seq": 9,
            "lost_packets": 2,
            "dup_packets": 1,
            "min_jitter": 3,
            "max_jitter": 8,
            "mean_jitter": 5,
            "dev_jitter": 4,
            "min_ttl": 60,
            "max_ttl": 64,
            "mean_ttl": 62,
            "dev_ttl": 1,
        }
    ]


def test_what_reports_nothing_is_read_but_not_told():
    bye = part(203, 1, pack(">IB", SSRC, 3) + b"bye")
    app = part(204, 2, pack(">I", SSRC) + b"nameDATA")
    nack = part(205, 1, pack(">II", SSRC, OTHER) + b"\0\1\0\0")
    assert rtcp.decode(bye + app + nack + part(210, 0, b"")) == [
        rtcp.Goodbye([SSRC], b"bye"),
        rtcp.Application(2, SSRC, b"name", b"DATA"),
        rtcp.Feedback(205, 1, SSRC, OTHER, b"\0\1\0\0"),
        rtcp.Other(210, b""),
    ]
    assert rtcp.as_json(rtcp.decode(bye + app + nack)) == []


def test_padding_is_no_content():
    assert rtcp.decode(part(203, 1, pack(">I", SSRC), padding=4)) == [rtcp.Goodbye([SSRC], b"")]


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "rtcp_truncated", 0),
        (REPORT[:-1], "rtcp_truncated", 2),
        (REPORT + b"\x80\xca", "rtcp_truncated", len(REPORT)),
        (b"\x41" + REPORT[1:], "rtcp_version", 0),
        (b"\x80\x00\x00\x00", "rtcp_version", 0),
        (REPORT + b"\x80\x00\x00\x00", "rtcp_version", len(REPORT)),
        (part(200, 2, SENDER + block()), "rtcp_content", 28),
        (part(203, 1, pack(">IB", SSRC, 4) + b"bye"), "rtcp_content", 8),
        (part(203, 0, b"", padding=4)[:-1] + b"\x09", "rtcp_padding", 7),
        (part(203, 0, b"", padding=4)[:-1] + b"\x00", "rtcp_padding", 7),
        (part(207, 0, pack(">IBBH", SSRC, 7, 0, 8)), "rtcp_content", 8),
        (part(202, 1, pack(">IBB", SSRC, 1, 200) + b"ab"), "rtcp_content", 10),
    ],
)
def test_what_is_no_rtcp_has_a_reason_and_a_place(data, reason, offset):
    with pytest.raises(DecodeError) as told:
        rtcp.decode(data)
    assert (told.value.reason, told.value.offset) == (reason, offset)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (REPORT, True),
        (REPORT + CNAME, True),
        (REPORT[:-4], False),
        (REPORT + bytes(14), False),  # SRTCP has an index and a tag behind it
        (b"", False),
        (b"\x80\x00" + bytes(10), False),
    ],
)
def test_rtcp_is_told_by_its_content(data, answer):
    assert rtcp.looks_like_rtcp(data) is answer


@given(st.binary(max_size=200), st.integers(0, 255), st.integers(192, 223))
@example(b"", 0x80, 200)
def test_any_bytes_give_values_or_a_reason(data, first, kind):
    whole = data[: len(data) // 4 * 4]
    for each in (data, bytes([first, kind]) + pack(">H", len(whole) // 4) + whole):
        fault = None
        try:
            json.dumps(rtcp.as_json(rtcp.decode(each)))
        except DecodeError as error:
            fault = error
        if fault is None:
            assert rtcp.looks_like_rtcp(each)
        else:
            assert fault.reason in rtcp.REASONS
            assert 0 <= fault.offset <= len(each)


@pytest.mark.parametrize("cut", range(1, len(REPORT + CNAME)))
def test_a_cut_packet_is_a_reason_or_its_whole_parts(cut):
    whole = REPORT + CNAME
    if cut == len(REPORT):
        assert len(rtcp.decode(whole[:cut])) == 1
        return
    with pytest.raises(DecodeError):
        rtcp.decode(whole[:cut])
