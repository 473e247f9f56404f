"""One record of every kind of report; R and MOS with where they are from."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import emodel, qos

# Two baresip 1.0.0 that call each other, the first report of one.
BARESIP = "81c8000c1dfc991feeaa9cae1a36f3b200011e2b000000f900009ba06b76b25c0000000000004ec600000017000000000000000081ca00081dfc991f01167369703a7562403132372e302e302e313a313534313000000000"
# Made after RFC 3611 with a block of voice metrics.
VOICE = "81c8000c13579bdfed0053af0000000000000640000000fa00009c402468ace00500000f000013880000004d111122220001000081ca000313579bdf010561406c61620080cf000d13579bdf04000002ed0053af00000000070000082468ace005020003000001f400b4008cebce3710537f26253c00002800500078"


def test_voice_metrics_are_of_the_stream_they_name():
    local, remote = qos.decode(bytes.fromhex(VOICE)).records
    # tshark: R 83, MOS 3.8 and 3.7, round trip 180, end system 140
    assert (local.r, local.mos_lq, local.mos_cq, local.rtt, local.end_system) == (
        83,
        3.8,
        3.7,
        180,
        140,
    )
    assert (local.r_source, local.mos_lq_source, local.mos_cq_source) == ("report",) * 3
    assert (local.burst_loss, local.gap_loss, local.gap_duration) == (0, 1.171875, 500)
    assert (local.discard, local.signal, local.noise) == (0.78125, -21, -50)
    assert (remote.leg, remote.direction, remote.ssrc, remote.octets, remote.mos) == (
        "remote",
        "sent",
        0x13579BDF,
        40000,
        None,
    )


def test_the_highest_jitter_is_of_the_summary_of_statistics():
    # RFC 3611 4.6: flags, length, ssrc, begin, end, lost, doubled, jitter least, highest, …
    summary = "06e00009" + "6b76b25c" + "00010100" + "00000003" + "00000000"
    summary += "00000001" + "00000050" + "00000017" + "00000002" + "00000000"
    told = qos.decode(bytes.fromhex(BARESIP + "80cf000b1dfc991f" + summary))
    assert (told.records[0].jitter, told.records[0].max_jitter) == (23 / 8, 10)


def test_jitter_needs_a_clock():
    assert qos.decode(bytes.fromhex(BARESIP), clock=48000).first(None, "jitter") == 23 / 48
    assert qos.decode(bytes.fromhex(BARESIP), clock=0).first(None, "jitter") is None


def test_json_of_agents():
    # rtpengine 10.5 with --homer, last packet of a call
    told = qos.decode(
        b'{ "sender_information":{"ntp_timestamp_sec":4004158495,"octets":23840,"packets":149},"ssrc":2998055602,"type":200,"report_count":1,"report_blocks":[{"source_ssrc":2711724449,"highest_seq_no":1149,"fraction_lost":6,"ia_jitter":43,"packets_lost":6,"lsr":305419896,"dlsr":65536}]}'
    )
    assert told.form == "rtcp-json"
    assert told.first("local", "lost") == 6
    assert told.first(None, "loss") == 2.34375
    assert told.first(None, "jitter") == 5.375
    assert told.first(None, "packets") == 149


VQ = b"""VQSessionReport: CallTerm
CallID: c7
LocalAddr: IP=192.0.2.10 PORT=40000 SSRC=0x2468ACE0
RemoteAddr: IP=192.0.2.20 PORT=41000 SSRC=0x13579BDF
LocalMetrics:
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z
SessionDesc: PT=8 PD=PCMA SR=8000 PLC=3
PacketLoss: NLR=0.5 JDR=2.0
BurstGapLoss: BLD=1.0 BD=20 GLD=2.0 GD=500 GMIN=16
Delay: RTD=200 ESD=140 SOWD=110 IAJ=2
QualityEst: RLQ=90 RCQ=85 MOSLQ=4.2 MOSCQ=4.1
RemoteMetrics:
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z
SessionDesc: PT=8 PD=PCMA SR=8000 PLC=3
PacketLoss: NLR=1.7 JDR=1.1
QualityEst: RLQ=88
"""


def test_both_sides_of_a_voice_quality_report():
    told = qos.decode(VQ)
    assert (told.form, told.kind, told.call_id) == ("vq-rtcpxr", "session", "c7")
    local, remote = told.records
    assert (local.ssrc, remote.ssrc) == (0x13579BDF, 0x2468ACE0)
    assert (local.codec, local.loss, local.discard, local.jitter) == ("PCMA", 0.5, 2.0, 2)
    assert (local.rtt, local.one_way, local.end_system) == (200, 110, 140)
    assert (local.burst_loss, local.burst_duration, local.gap_loss, local.gap_duration) == (
        1.0,
        20,
        2.0,
        500,
    )
    assert (local.r, local.mos_lq, local.mos_cq, local.mos) == (85, 4.2, 4.1, 4.2)
    assert (remote.loss, remote.rtt) == (1.7, None)


def test_a_score_follows_from_the_reports_own_r():
    remote = qos.decode(VQ).records[1]
    assert (remote.mos_lq, remote.mos_lq_source) == (emodel.mos(88), "r")
    assert (remote.r, remote.r_source) == (88, "report")
    assert remote.mos_source == "r"


@pytest.mark.parametrize(
    ("lines", "r", "mos_lq", "mos_cq"),
    [
        ("PacketLoss: NLR=1.0", 89.56, 4.328, None),
        ("PacketLoss: NLR=0.4 JDR=0.6", 89.56, 4.328, None),
        ("PacketLoss: NLR=1.0\nDelay: RTD=300", 85.96, 4.328, 4.223),
        ("PacketLoss: NLR=1.0\nDelay: RTD=300 OWD=100 ESD=50", 85.96, 4.328, 4.223),
    ],
)
def test_without_a_score_it_is_reckoned_from_loss_and_delay(lines, r, mos_lq, mos_cq):
    text = f"VQIntervalReport\nCallID:c\nLocalMetrics:\nSessionDesc: PD=PCMU\n{lines}\n"
    local = qos.decode(text.encode()).records[0]
    assert (local.r, local.mos_lq) == pytest.approx((r, mos_lq), abs=0.01)
    assert local.mos_cq == (None if mos_cq is None else pytest.approx(mos_cq, abs=0.01))
    assert (local.r_source, local.mos_lq_source) == ("g107", "g107")


def test_gaps_that_nobody_fills_cost_more():
    text = (
        "VQIntervalReport\nCallID:c\nLocalMetrics:\nSessionDesc: PD=PCMU PLC=1\nPacketLoss: NLR=1"
    )
    assert qos.decode(text.encode()).first(None, "mos") == pytest.approx(3.834, abs=0.001)


@pytest.mark.parametrize("codec", ["opus", ""])
def test_a_codec_without_known_values_has_no_score(codec):
    text = f"VQIntervalReport\nCallID:c\nLocalMetrics:\nSessionDesc: PD={codec}\nPacketLoss: NLR=1"
    local = qos.decode(text.encode()).records[0]
    assert (local.loss, local.r, local.mos, local.mos_source) == (1, None, None, None)


def test_a_reported_conversation_is_before_a_reckoned_listening():
    text = "VQIntervalReport\nCallID:c\nLocalMetrics:\nSessionDesc: PD=PCMU\nPacketLoss: NLR=1\nQualityEst: MOSCQ=2.5"
    local = qos.decode(text.encode()).records[0]
    assert (local.mos, local.mos_source) == (2.5, "report")
    assert local.mos_lq_source == "g107"


def headers(**bodies):
    return qos.of_headers(lambda name: bodies.get(name.replace("-", "_")))


def test_a_header_of_bye():
    told = headers(
        X_RTP_Stat="PS=1433;PR=1522;PL=0,7;EN=PCMU;DE=PCMA;JI=23,2;DL=20,20,21",
        X_RTP_Stat_Add="DQ=43",
    )
    assert (told.form, told.kind) == ("rtp-stat", "X-RTP-Stat")
    local, remote = told.records
    assert (local.packets, local.lost, local.loss, local.jitter) == (1522, 0, 0, 23)
    assert (remote.packets, remote.lost, remote.jitter) == (1433, 7, 2)
    assert remote.loss == pytest.approx(700 / 1433)
    assert (local.rtt, local.codec, remote.codec) == (20, "PCMA", "PCMU")
    assert (local.mos, local.mos_source) == (4.3, "report")
    assert (local.r_source, local.mos_cq_source) == ("heplify", "heplify")


def test_a_header_without_a_score_has_that_of_heplify_server():
    local = headers(X_RTP_Stat="PS=1433;PR=1522;PL=0,0;DE=PCMA;JI=23,2;DL=20,20,21").records[0]
    assert local.r == pytest.approx(91.3)
    assert local.mos == pytest.approx(4.3695, abs=0.0001)
    assert local.mos_source == "heplify"


def test_two_headers_of_one_call():
    told = headers(
        RTP_RxStat="Dur=28,Pkt=1522,Oct=243520,LatePkt=0,LostPkt=3,AvgJit=16",
        RTP_TxStat="Dur=28,Pkt=1433,Oct=229280",
    )
    local, remote = told.records
    assert (local.packets, local.lost, local.jitter, remote.packets) == (1522, 3, 2, 1433)


@pytest.mark.parametrize(
    ("name", "body"),
    [("X_RTP_Stat_T38", "DR=9600;PR=120"), ("X_NG_RTP_STATS", "a=1;b"), ("X_RTP_Stat", "EX=Phone")],
)
def test_what_tells_nothing_of_voice_has_no_record(name, body):
    told = headers(**{name: body})
    assert (told.kind, told.records) == (name.replace("_", "-"), ())


def test_one_direction_alone_is_one_record():
    (remote,) = headers(RTP_TxStat="Dur=28,Pkt=1433,Oct=229280").records
    assert (remote.leg, remote.packets) == ("remote", 1433)


def test_no_header_is_no_report():
    assert headers(Subject="x") is None


def test_an_agent_of_rtp():
    agent = {"CORRELATION_ID": "c1", "TYPE": "PERIODIC", "SSRC": "0x1357efff", "CODEC_NAME": "PCMA"}
    agent |= {
        "CLOCK": 8000,
        "TOTAL_PK": 990,
        "EXPECTED_PK": 1000,
        "PACKET_LOSS": 10,
        "JITTER": 1.25,
    }
    agent |= {"MAX_JITTER": 3.5, "MOS": 4.33, "RFACTOR": 89.6, "TL_BYTE": 158400}
    told = qos.decode(json.dumps(agent).encode())
    assert (told.form, told.call_id, told.kind) == ("rtp-agent", "c1", "PERIODIC")
    (local,) = told.records
    assert (local.ssrc, local.codec, local.clock) == (0x1357EFFF, "PCMA", 8000)
    assert (local.packets, local.lost, local.loss) == (990, 10, 1.0)
    assert (local.jitter, local.max_jitter, local.mos, local.r) == (1.25, 3.5, 4.33, 89.6)


def test_the_two_sides_of_an_sbc():
    sbc = {"NAME": "sbc1", "CALL_ID": "c2", "INC_MOS": 410, "INC_RVAL": 9210, "OUT_MOS": 395}
    sbc |= {
        "OUT_RTP_PK": 950,
        "OUT_RTP_PK_LOSS": 50,
        "INC_RTP_AVG_JITTER": 3,
        "INC_RTCP_AVG_LAT": 5,
    }
    told = qos.decode(json.dumps(sbc).encode())
    assert (told.form, told.call_id) == ("horaclifix", "c2")
    incoming, outgoing = told.records
    assert (incoming.mos, incoming.r, incoming.jitter, incoming.rtt) == (4.1, 92.1, 3, 5)
    assert (outgoing.leg, outgoing.mos, outgoing.loss) == ("outgoing", 3.95, 5.0)


@pytest.mark.parametrize(
    "data",
    [b"", b"INVITE sip:a SIP/2.0", b'{"a":1}', b" \r\n{}", b"\x80\x00", b"text", b"\x00\x00"],
)
def test_what_is_no_report_is_none(data):
    assert qos.decode(data) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"VQWhat", "vq_kind"), (b"{", "qos_json"), (b"\x81\xc8\0\1abcd", "rtcp_content")],
)
def test_a_report_that_cannot_be_read_has_a_reason(data, reason):
    with pytest.raises(DecodeError) as raised:
        qos.decode(data)
    assert raised.value.reason == reason
    assert reason in qos.REASONS


_NAMES = st.sampled_from(
    [
        "INC_MOS",
        "OUT_RTP_PK",
        "OUT_RTP_PK_LOSS",
        "TOTAL_PK",
        "EXPECTED_PK",
        "PACKET_LOSS",
        "MOS",
        "SSRC",
        "CODEC_NAME",
        "CLOCK",
    ]
)
_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["1", "PCMA", "0x_", ""])
)


@given(st.binary(max_size=200), st.dictionaries(_NAMES, _VALUES), st.integers(0, 150))
@example(b"{" * 3000, {"MOS": 10**400}, 0)
@example(b"", {"SSRC": "0x_", "MOS": 1}, 0)
def test_any_bytes_give_a_report_or_a_reason(data, found, at):
    packet = bytes.fromhex(VOICE)
    for each in (
        data,
        json.dumps(found).encode(),
        packet[:at] + data + packet[at:],
        VQ[:at] + data,
    ):
        fault = None
        try:
            told = qos.decode(each)
        except DecodeError as error:
            fault = error
        if fault is not None:
            assert fault.reason in qos.REASONS
        elif told is not None:
            assert all(0 <= (record.loss or 0) <= 100 for record in told.records)


def test_half_a_character_of_json_is_replaced():
    report = qos.decode(
        rb'{"TOTAL_PK": 1, "RTP_SIP_CALL_ID": "\ud800call", "CODEC_NAME": "\ud83d\ude00", "TYPE": "\udfff"}'
    )
    assert (report.call_id, report.records[0].codec) == ("\ufffdcall", "\U0001f600")
    assert report.kind == "\ufffd"


def test_r_of_headers_is_never_below_0():
    header = {"X-RTP-Stat": "PS=1;PR=100;PL=400,0;JI=900,2;DL=20"}
    local = qos.of_headers(header.get).records[0]
    assert (local.r, local.r_source, local.mos_cq, local.loss) == (0.0, "heplify", 1.0, 80.0)


def test_voice_metrics_of_two_sources_are_with_their_blocks():
    blocks = "".join(f"{ssrc:08x} 05 000007 000003e8 00000050 00000000 00000000" for ssrc in (2, 3))
    voices = "".join(
        f"07000008 {ssrc:08x} 0a000000 0000 0000 0064 0014 ecc41410 507f2827 00000028 00500078"
        for ssrc in (2, 3)
    )
    data = bytes.fromhex(f"82c9000d 00000001 {blocks} 80cf0013 00000001 {voices}")
    records = qos.decode(data).records
    assert [(each.ssrc, each.lost, each.jitter, each.mos_lq, each.rtt) for each in records] == [
        (2, 7, 10, 4.0, 100),
        (3, 7, 10, 4.0, 100),
    ]
