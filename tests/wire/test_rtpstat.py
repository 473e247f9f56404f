"""What phones tell of their media in headers of BYE."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import rtpstat
from homerd.wire.measured import FAULTS
from homerd.wire.rtpstat import Side

AVM = b"CS=0;PS=1433;ES=1525;OS=229280;SP=0/0;SO=0;QS=-;PR=1522;ER=1525;OR=243520;CR=0;SR=0;QR=-;PL=0,0;BL=0;LS=0;RB=0/0;SB=-/-;EN=PCMA,FAX;DE=PCMA;JI=23,2;DL=20,20,21;IP=192.0.2.4:7082,198.51.100.9:25132"
# baresip 1.0.0
BARESIP = b"EX=BareSip;CS=0;CD=10;PR=499;PS=496;PL=0,0;PD=0,0;JI=14.0,20.0;IP=0.0.0.0:20406,127.0.0.1:20416;EN=PCMA/8000;DE=PCMA/8000"


def test_every_value_of_the_long_form_is_kept():
    told = rtpstat.decode("X-RTP-Stat", AVM)
    assert told.received == Side(1522, 243520, 0, 23, "PCMA")
    assert told.sent == Side(1433, 229280, 0, 2, "PCMA")
    assert told.round_trip_ms == 20
    assert told.text["IP"] == "192.0.2.4:7082,198.51.100.9:25132"
    assert told.text["EN"] == "PCMA,FAX"
    assert told.numbers["DL"] == (20, 20, 21)
    assert told.numbers["SP"] == (0, 0)
    assert told.numbers["QS"] == (None,)
    assert told.numbers["SB"] == (None, None)
    assert told.faults == []


def test_baresip_has_decimals_and_clocks():
    told = rtpstat.decode("x-rtp-stat", BARESIP)
    assert told.received == Side(499, None, 0, 14.0, "PCMA")
    assert told.sent == Side(496, None, 0, 20.0, "PCMA")
    assert (told.round_trip_ms, told.text["EX"], told.faults) == (None, "BareSip", [])


@pytest.mark.parametrize("header", ["X-RTP-Stat", "P-RTP-Stat"])
def test_commas_between_values_are_told_from_those_within(header):
    told = rtpstat.decode(header, b"PS=1433,OS=229280,PR=1522,OR=243520,PL=4,JI=2,LA=20,DU=28")
    assert told.received == Side(1522, 243520, 4, 2)
    assert told.sent == Side(1433, 229280)
    assert (told.round_trip_ms, told.numbers["DU"]) == (20, (28,))


def test_siemens():
    told = rtpstat.decode("X-Siemens-RTP-stats", b"PS=1433;PR=1522;PL=1;JI=2;LA=20;CGP=3")
    assert told.received == Side(1522, None, 1, 2)
    assert told.text["CGP"] == "3"


def test_units_of_the_clock_become_milliseconds():
    told = rtpstat.decode("RTP-RxStat", b"Dur=28,Pkt=1522,Oct=243520,LatePkt=0,LostPkt=3,AvgJit=16")
    assert (told.received, told.sent) == (Side(1522, 243520, 3, 2.0), Side())
    told = rtpstat.decode("RTP-TxStat", b"Dur=28,Pkt=1433,Oct=229280")
    assert (told.received, told.sent) == (Side(), Side(1433, 229280))


def test_the_quality_that_phones_reckon():
    assert rtpstat.decode("X-RTP-Stat-Add", b"DQ=43 ;DSS=0;DS=0;PLCS=16;JS=0").quality == 4.3
    assert rtpstat.decode("X-RTP-Stat", b"PS=1;PR=1;MOS=4.1").quality == 4.1


def test_counters_of_a_fax_are_none_of_voice():
    told = rtpstat.decode("X-RTP-Stat-T38", b"DR=9600;ER=3;PR=120;PS=118")
    assert told.text == {"DR": "9600", "ER": "3", "PR": "120", "PS": "118"}
    assert (told.numbers, told.received, told.sent) == ({}, Side(), Side())


def test_audiocodes_doubles_a_separator():
    # from the manual of the MediaPack 6.2
    told = rtpstat.decode("X-RTP-Stat", b"PS=207;OS=49680;;PR=314;OR=50240;PL=0;JI=600;LA=40;")
    assert told.received == Side(314, 50240, 0, 600)
    assert (told.sent, told.round_trip_ms, told.faults) == (Side(207, 49680), 40, [])


def test_text_that_nobody_has_described_is_kept_as_it_is():
    told = rtpstat.decode("X-NG-RTP-STATS", b"a=1;b;c")
    assert (told.text, told.numbers, told.faults) == ({"": "a=1;b;c"}, {}, [])


# R: 93.2 - 76/40; 93.2 - (256 - 120)/10 - 2.5; 93.2 - 28/40 - 250.
@pytest.mark.parametrize(
    ("body", "r", "mos"),
    [
        (AVM, 91.3, 4.3695),
        (b"PS=500;PR=500;PL=10,0;JI=113,0;DL=20,20,20", 77.1, 3.9098),
        (b"PS=500;PR=500;PL=1000,0;JI=9,0", -157.5, 1.0),
    ],
)
def test_the_score_is_that_of_heplify_server(body, r, mos):
    told = rtpstat.r_factor(rtpstat.decode("X-RTP-Stat", body))
    assert told == pytest.approx(r)
    assert rtpstat.mos(told) == pytest.approx(mos, abs=0.0001)


def test_a_part_of_a_percent_counts_unless_asked_not_to():
    told = rtpstat.decode("X-RTP-Stat", b"PS=500;PR=500;PL=15,0;JI=23,2;DL=20,20,21")
    assert rtpstat.r_factor(told) == pytest.approx(91.3 - 3.75)
    assert rtpstat.r_factor(told, whole_percent=True) == pytest.approx(91.3 - 2.5)


@pytest.mark.parametrize("body", [b"PS=0;PR=0;JI=1,1", b"PS=5;PR=5", b"DE=PCMA"])
def test_what_does_not_tell_packets_or_jitter_has_no_score(body):
    assert rtpstat.r_factor(rtpstat.decode("X-RTP-Stat", body)) is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"PR=many;JI=2,2", ("PR", "number")),
        (b"PR=-1;JI=2,2", ("PR", "range")),
        (b"PR=99999999999;JI=2,2", ("PR", "range")),
        (b"PR=1;PR=2;JI=2,2", ("PR", "doubled")),
    ],
)
def test_a_field_that_cannot_be_read_is_null_and_named(body, fault):
    told = rtpstat.decode("X-RTP-Stat", body)
    assert told.received == Side(jitter_ms=2)
    assert told.faults == [fault]


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ("X-RTP-Stat", b"", "rtpstat_empty"),
        ("X-RTP-Stat", b"nothing", "rtpstat_empty"),
        ("Subject", b"PS=1", "rtpstat_header"),
    ],
)
def test_what_tells_nothing_has_a_reason(header, body, reason):
    with pytest.raises(DecodeError) as raised:
        rtpstat.decode(header, body)
    assert raised.value.reason == reason


@given(st.sampled_from(rtpstat.HEADERS), st.binary(max_size=80), st.integers(0, len(AVM)))
def test_any_bytes_give_statistics_or_a_reason(header, data, at):
    for body in (data, AVM[:at] + data, b"PR=" + data + b";JI=1"):
        fault = None
        try:
            told = rtpstat.decode(header, body)
            rtpstat.mos(rtpstat.r_factor(told) or 0)
        except DecodeError as error:
            fault = error
        if fault is None:
            assert {why for _, why in told.faults} <= set(FAULTS)
        else:
            assert fault.reason in rtpstat.REASONS
