"""RTCP as JSON, in the dialects of those who send it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import rtcpjson
from homerd.wire.measured import FAULTS
from homerd.wire.rtcpjson import Block, Sender

# As captagent sends it.
CAPTAGENT = b'{"sender_information":{"ntp_timestamp_sec":3909988800,"ntp_timestamp_usec":530239482,"octets":160000,"rtp_timestamp":160000,"packets":1000},"ssrc":305419896,"type":200,"report_count":1,"report_blocks":[{"source_ssrc":2271560481,"fraction_lost":0,"packets_lost":3,"highest_seq_no":1024,"ia_jitter":14,"lsr":0,"dlsr":0}]}'
# rtpengine 10.5 with --homer, third packet of a call.
RTPENGINE = b'{ "sender_information":{"ntp_timestamp_sec":4004158494,"ntp_timestamp_usec":2422626304,"octets":15840,"rtp_timestamp":15840, "packets":99},"ssrc":2711724449,"type":200,"report_count":1,"report_blocks":[{"source_ssrc":2998055602,"highest_seq_no":1099,"fraction_lost":2,"ia_jitter":39,"packets_lost":2,"lsr":305419896,"dlsr":65536}],"sdes_report_count":1,"sdes_information": [ {"sdes_chunk_ssrc":2711724449,"type":1,"text":"user@homer"}] }'
# github.com/sipcapture/hep-wireshark, pcap/hep.pcap, frame 8.
SIGNED = b'{"sender_information":{"ntp_timestamp_sec":3650797214,"packets":106,"ntp_timestamp_usec":13217348104192,"octets":16960,"rtp_timestamp":16960},"ssrc":451916597,"type":200,"report_blocks":[{"source_ssrc":898343773,"highest_seq_no":20881,"fraction_lost":0,"ia_jitter":1,"packets_lost":0,"lsr":-1097006646,"dlsr":7733}],"report_count":0}'


def decode(**fields):
    return rtcpjson.decode(json.dumps(fields).encode())


def block(**fields):
    return decode(report_blocks=[fields])


def test_captagent():
    told = rtcpjson.decode(CAPTAGENT)
    assert (told.ssrc, told.kind) == (305419896, 200)
    assert told.sender == Sender(1701000000, 160000, 1000, 160000, (0xB1C01F9A,))
    assert told.blocks == [Block(2271560481, 0, 3, 1024, 14, 0, 0)]
    assert told.faults == []


def test_rtpengine():
    told = rtcpjson.decode(RTPENGINE)
    assert told.sender == Sender(1795169694, 15840, 99, 15840, (0x9C1E9066,))
    assert told.blocks == [Block(2998055602, 2, 2, 1099, 39, 305419896, 65536)]
    assert (told.cname, told.faults) == ("user@homer", [])


def test_blocks_are_counted_and_a_sign_is_taken_away():
    told = rtcpjson.decode(SIGNED)
    assert told.blocks == [Block(898343773, 0, 0, 20881, 1, 3197960650, 7733)]
    assert told.faults == [("report_count", "count"), ("lsr", "sign")]


def test_asterisk_has_unix_time_text_and_signs():
    told = decode(
        ssrc=-1,
        type=200,
        report_count=1,
        sender_information={
            "ntp_timestamp_sec": "1700000000",
            "ntp_timestamp_usec": "500000",
            "rtp_timestamp": -96,
            "packets": 50,
            "octets": 8000,
        },
        report_blocks=[{"source_ssrc": -2, "lsr": "12345", "ia_jitter": 20, "packets_lost": -1}],
    )
    assert told.ssrc == 0xFFFFFFFF
    assert told.sender == Sender(1700000000, 0xFFFFFFA0, 50, 8000, (0xF1000007, 0x6F808000))
    assert told.blocks == [Block(0xFFFFFFFE, None, -1, None, 20, 12345, None)]
    assert told.faults == [
        ("ssrc", "sign"),
        ("ntp_timestamp_sec", "epoch"),
        ("rtp_timestamp", "sign"),
        ("source_ssrc", "sign"),
    ]


def test_heplify_prints_what_is_lost_without_its_sign():
    told = block(packets_lost=16777215)
    assert (told.blocks[0].packets_lost, told.faults) == (-1, [("packets_lost", "sign")])
    told = block(packets_lost=8388607)
    assert (told.blocks[0].packets_lost, told.faults) == (8388607, [])


def test_heplify_may_tell_a_score():
    assert decode(type=200, mos=4.3).mos == 4.3
    assert decode(type=200, mos="4.3").mos == 4.3
    assert (decode(mos=0).mos, decode(mos=127).mos) == (None, None)
    assert decode(mos=5.5).faults == [("mos", "range")]


def test_a_level_without_its_sign_is_put_right_and_counted():
    told = decode(voip_metrics={"signal_level": 235, "noise_level": -50, "r_factor": 90})
    assert (told.voice.signal, told.voice.noise) == (-21, -50)
    assert told.faults == [("signal_level", "sign")]


def test_captagent_tells_one_block_and_others_all():
    two = [{"source_ssrc": 1}, {"source_ssrc": 2}]
    assert len(decode(report_count=2, report_blocks=two).blocks) == 2
    told = decode(report_count=1, report_blocks=two)
    assert (len(told.blocks), told.faults) == (2, [("report_count", "count")])


def test_heplify_has_zeros_where_there_is_no_sender_and_no_extended_report():
    told = decode(
        type=201,
        sender_information={"ntp_timestamp_sec": 0, "packets": 0, "octets": 0},
        report_blocks_xr={"type": 0, "id": 0, "fraction_lost": 0, "round_trip_delay": 0},
    )
    assert (told.sender, told.voice, told.blocks) == (None, None, [])


def test_voice_metrics_have_the_units_of_people():
    told = decode(
        type=207,
        report_blocks_xr={
            "type": 7,
            "id": 7,
            "fraction_lost": 64,
            "fraction_discard": 16,
            "burst_density": 128,
            "gap_density": 8,
            "burst_duration": 100,
            "gap_duration": 500,
            "round_trip_delay": 180,
            "end_system_delay": 140,
        },
        voip_metrics={
            "signal_level": 235,
            "rerl": 127,
            "r_factor": 90,
            "mos_lq": 42,
            "mos_cq": 127,
        },
    )
    voice = told.voice
    assert (voice.loss, voice.discard, voice.burst_density, voice.gap_density) == (
        25,
        6.25,
        50,
        3.125,
    )
    assert (voice.burst_duration, voice.gap_duration) == (100, 500)
    assert (voice.round_trip, voice.end_system) == (180, 140)
    assert (voice.signal, voice.rerl) == (-21, None)
    assert (voice.r, voice.mos_lq, voice.mos_cq) == (90, 4.2, None)


def test_the_highest_jitter_of_a_summary_that_measured_it():
    summary = {"flags": 0xE0, "id": 7, "lost_packets": 3, "max_jitter": 90, "mean_jitter": 20}
    assert decode(report_blocks=[], statistics_summary=[summary]).most_jitter == {7: 90}
    told = decode(statistics_summary=[{**summary, "flags": 0xC0}, {"flags": "x"}])
    assert (told.most_jitter, told.faults) == ({}, [("flags", "number")])


def test_captagents_own_names_of_voice_metrics():
    told = decode(
        Extended_report_information={
            "identifier": 9,
            "loss_rate": 1,
            "round_trip_delay": 0,
            "signal_lev": -21,
            "R_fact": 127,
            "MOS_LQ": 41,
            "MOS_CQ": "38",
            "JB_nom": 40,
            "JB_abs_max": 65535,
        }
    )
    voice = told.voice
    assert (voice.source_ssrc, voice.loss, voice.round_trip) == (9, 0.390625, None)
    assert (voice.signal, voice.r, voice.mos_lq, voice.mos_cq) == (-21, None, 4.1, 3.8)
    assert (voice.jb_nominal, voice.jb_abs_max) == (40, None)


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("fraction_lost", 256, "range"),
        ("fraction_lost", "many", "number"),
        ("fraction_lost", True, "number"),
        ("ia_jitter", [1], "number"),
        ("ia_jitter", math.nan, "number"),
        ("packets_lost", 1 << 24, "range"),
        ("lsr", 10**400, "range"),
        ("dlsr", "1" * 400, "number"),
    ],
)
def test_a_field_that_cannot_be_read_is_null_and_named(field, value, fault):
    told = block(source_ssrc=7, **{field: value})
    assert told.blocks[0].source_ssrc == 7
    assert getattr(told.blocks[0], field) is None
    assert told.faults == [(field, fault)]


@pytest.mark.parametrize("blocks", [7, "x", [1, 2], [None]])
def test_blocks_that_are_none_are_named(blocks):
    told = decode(report_blocks=blocks)
    assert (told.blocks, told.faults) == ([], [("report_blocks", "number")])


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b'{"a":' * 30_000])
def test_what_is_no_object_has_a_reason(data):
    with pytest.raises(DecodeError) as raised:
        rtcpjson.decode(data)
    assert raised.value.reason == "rtcp_json"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_FIELDS = st.sampled_from(
    [
        "type",
        "id",
        "packets",
        "packets_lost",
        "fraction_lost",
        "lsr",
        "ia_jitter",
        "mos_lq",
        "r_factor",
        "gmin",
        "text",
        "MOS_LQ",
    ]
)
_OBJECTS = st.dictionaries(_FIELDS, _VALUES, max_size=5)
_KEYS = st.sampled_from(
    [
        "sender_information",
        "report_blocks",
        "report_blocks_xr",
        "voip_metrics",
        "mos",
        "ssrc",
        "type",
        "Extended_report_information",
        "sdes_information",
    ]
)


@given(st.dictionaries(_KEYS, _VALUES | _OBJECTS | st.lists(_OBJECTS, max_size=3), max_size=6))
@example({"report_blocks_xr": {"type": []}})
def test_any_object_gives_a_report(found):
    assert {fault for _, fault in rtcpjson.read(found).faults} <= set(FAULTS)
