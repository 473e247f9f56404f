"""Reports of captures, held against what tshark 4.0.17 reads in the same packets.

    tshark -r CAPTURE -Y rtcp -T fields -e FIELD …

The packets are in tests/data/qos/, the figures stand here as tshark prints them.  HEP has no
dissector in 4.0: its payloads were written to a capture of their own with text2pcap and read with
`-d udp.port==PORT,json -e json.path_with_value`.  Of application/vq-rtcpxr tshark shows the text.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from homerd.wire import hep, qos, rtcp
from homerd.wire.roundtrip import RoundTrips
from homerd.wire.sip import SipMessage

DATA = Path(__file__).parents[1] / "data" / "qos"


def lines(file: str) -> list[list[str]]:
    return [line.split() for line in (DATA / file).read_text().splitlines() if line[0] != "#"]


def packets(file: str) -> dict[tuple[str, int], bytes]:
    return {(name, int(frame)): bytes.fromhex(data) for name, frame, _, data in lines(file)}


RTCP = packets("rtcp.txt")
HEP = packets("hep.txt")
BARESIP, VOICE = "made-baresip-call-rtp-rtcp", "made-rtcpxr-publish"
XLITE, OVER_TCP, COMPOUND = "asterisk-zfone-xlite", "sip-over-tcp", "rtcp-compound"


@pytest.mark.parametrize(
    ("capture", "senders", "receivers", "descriptions", "extended", "goodbyes", "applications"),
    [  # how often rtcp.pt is 200, 201, 202, 207, 203 and 204
        (BARESIP, 4, 0, 6, 0, 2, 2),
        (VOICE, 6, 0, 6, 6, 0, 0),
        (XLITE, 0, 2, 2, 0, 0, 0),
        (OVER_TCP, 2, 0, 2, 0, 0, 0),
        (COMPOUND, 3, 2, 5, 0, 0, 0),
    ],
)
def test_as_many_parts_of_each_kind(
    capture, senders, receivers, descriptions, extended, goodbyes, applications
):
    parts = [
        type(part)
        for (name, _), data in RTCP.items()
        if name == capture
        for part in rtcp.decode(data)
    ]
    assert parts.count(rtcp.SenderReport) == senders
    assert parts.count(rtcp.ReceiverReport) == receivers
    assert parts.count(rtcp.SourceDescription) == descriptions
    assert parts.count(rtcp.ExtendedReport) == extended
    assert parts.count(rtcp.Goodbye) == goodbyes
    assert parts.count(rtcp.Application) == applications


@pytest.mark.parametrize(
    ("capture", "frame", "identifier", "fraction", "cum_nr", "jitter"),
    [  # rtcp.ssrc.identifier, the first, and rtcp.ssrc.fraction, .cum_nr, .jitter
        (BARESIP, 502, 0x6B76B25C, 0, 0, 23),
        (BARESIP, 507, 0x1DFC991F, 0, 0, 41),
        (BARESIP, 1004, 0x6B76B25C, 0, 0, 20),
        (BARESIP, 1009, 0x1DFC991F, 0, 0, 12),
        (VOICE, 11, 0x13579BDF, 1, 3, 77),
        (VOICE, 12, 0x2468ACE0, 1, 3, 77),
        (VOICE, 13, 0x13579BDF, 2, 6, 77),
        (VOICE, 14, 0x2468ACE0, 3, 9, 77),
        (VOICE, 15, 0x13579BDF, 3, 9, 77),
        (VOICE, 16, 0x2468ACE0, 5, 15, 77),
        (OVER_TCP, 17, 0x42F433D4, 0, 0, 0),
        (COMPOUND, 1, 0x00000000, 0, 1, 0),
        (COMPOUND, 2, 0x00000000, 1, 1, 1),
        (COMPOUND, 3, 0x01932DB4, 0, 1, 0),
        (COMPOUND, 4, 0x5D931534, 0, 1, 6),
        (COMPOUND, 5, 0x01932DB4, 0, 1, 0),
    ],
)
def test_what_was_received(capture, frame, identifier, fraction, cum_nr, jitter):
    (local,) = (each for each in qos.decode(RTCP[capture, frame]).records if each.leg == "local")
    assert (local.direction, local.ssrc, local.lost) == ("received", identifier, cum_nr)
    assert local.loss == fraction * 100 / 256
    assert local.jitter == jitter / 8  # a unit is an eighth of a millisecond


@pytest.mark.parametrize(
    ("capture", "frame", "sender", "packetcount", "octetcount"),
    [  # rtcp.senderssrc, the first, and rtcp.sender.packetcount, .octetcount
        (BARESIP, 502, 0x1DFC991F, 249, 39840),
        (BARESIP, 507, 0x6B76B25C, 248, 39680),
        (BARESIP, 1004, 0x1DFC991F, 499, 79840),
        (BARESIP, 1009, 0x6B76B25C, 498, 79680),
        *((VOICE, frame, 0x2468ACE0, 250, 40000) for frame in (11, 13, 15)),
        *((VOICE, frame, 0x13579BDF, 250, 40000) for frame in (12, 14, 16)),
        (OVER_TCP, 14, 0x42F433D4, 1, 160),
        (OVER_TCP, 17, 0x5A3361B3, 1, 160),
        (COMPOUND, 1, 0x5D931534, 200, 32000),
        (COMPOUND, 3, 0x5D931534, 401, 64160),
        (COMPOUND, 5, 0x5D931534, 602, 96320),
    ],
)
def test_what_was_sent(capture, frame, sender, packetcount, octetcount):
    (remote,) = (each for each in qos.decode(RTCP[capture, frame]).records if each.leg == "remote")
    assert (remote.direction, remote.ssrc) == ("sent", sender)
    assert (remote.packets, remote.octets) == (packetcount, octetcount)


@pytest.mark.parametrize(
    ("frame", "fraction", "r", "lq", "cq"),
    [  # rtcp.ssrc.fraction, and rtcp.xr.voipmetrics.rfactor, .moslq, .moscq
        (11, 1, 90, 4.2, 4.1),
        (12, 1, 85, 4.0, 3.9),
        (13, 2, 89, 4.1, 4.0),
        (14, 3, 84, 3.9, 3.8),
        (15, 3, 88, 4.0, 3.9),
        (16, 5, 83, 3.8, 3.7),
    ],
)
def test_voice_metrics(frame, fraction, r, lq, cq):
    local = qos.decode(RTCP[VOICE, frame]).records[0]
    assert local.loss == fraction * 100 / 256
    assert (local.r, local.mos_lq, local.mos_cq) == (r, lq, cq)
    assert (local.r_source, local.mos_source) == ("report", "report")
    # rtcp.ssrc.discarded 2; voipmetrics.burstdensity 0, .gapdensity 3, .burstduration 0,
    # .gapduration 500, .rtdelay 180, .esdelay 140, .signallevel -21, .noiselevel -50 in all six.
    assert local.discard == 2 * 100 / 256
    assert (local.burst_loss, local.gap_loss) == (0, 3 * 100 / 256)
    assert (local.burst_duration, local.gap_duration) == (0, 500)
    assert (local.rtt, local.end_system) == (180, 140)
    assert (local.signal, local.noise) == (-21, -50)


@pytest.mark.parametrize(
    ("capture", "frame"),
    [(BARESIP, 3), (BARESIP, 5), (BARESIP, 1411), (XLITE, 21), (XLITE, 25)],
)
def test_what_reports_on_no_source_has_no_record(capture, frame):
    # rtcp.pt 204; 204; 203,202; 201,202 with rtcp.rc 0, twice
    assert qos.decode(RTCP[capture, frame]).records == ()


def round_trip(capture: str, frame: int) -> float | None:
    """Of the first block of a report, after those before it in the capture."""
    trips = RoundTrips()
    for name, number, time, data in lines("rtcp.txt"):
        if name != capture:
            continue
        report, micros = rtcp.decode(bytes.fromhex(data))[0], round(float(time) * 1_000_000)
        if int(number) == frame:
            block = report.blocks[0]
            return trips.back(0, block.source_ssrc, block.lsr, block.dlsr, micros)
        if isinstance(report, rtcp.SenderReport):
            middle = (report.ntp_seconds & 0xFFFF) << 16 | report.ntp_fraction >> 16
            trips.sent(0, report.ssrc, middle, micros, 0)
    return None


@pytest.mark.parametrize(
    ("capture", "frame", "captured", "dlsr", "delay", "trip"),
    [  # rtcp.lsr-frame-captured, rtcp.ssrc.dlsr and rtcp.roundtrip-delay, of tshark -2
        # -o rtcp.show_roundtrip_calculation:TRUE -o rtcp.roundtrip_min_threshhold:0
        (BARESIP, 507, 36, 2359, 1, 0.356),
        (BARESIP, 1004, 4964, 325320, 1, 0),
        (BARESIP, 1009, 36, 2359, 1, 0.304),
        (OVER_TCP, 17, 17, 1048, 2, 1.379),
    ],
)
def test_round_trips(capture, frame, captured, dlsr, delay, trip):
    assert round_trip(capture, frame) == pytest.approx(trip, abs=0.001)
    # tshark subtracts what it has cut off to whole milliseconds.  By the microsecond that of frame
    # 1004 is -0.31 ms, which two clocks may differ by.
    assert captured - dlsr * 1000 // 65536 == delay
    assert delay - 2 < trip <= delay


def test_a_round_trip_that_no_sdp_announced():
    # tshark tells none: the capture has no SIP.  DLSR 263452, 4.028126 s after frame 1.
    assert round_trip(COMPOUND, 4) == pytest.approx(8.168, abs=0.001)


# frame, ssrc, its packets and octets; source_ssrc, fraction_lost, packets_lost, ia_jitter
@pytest.mark.parametrize(
    ("frame", "ssrc", "sent", "octets", "source", "fraction", "lost", "jitter"),
    [
        (1, 2711724449, 49, 7840, 2998055602, 1, 1, 38),
        (2, 2998055602, 49, 7840, 2711724449, 2, 2, 39),
        (3, 2711724449, 99, 15840, 2998055602, 2, 2, 39),
        (4, 2998055602, 99, 15840, 2711724449, 4, 4, 41),
        (5, 2711724449, 149, 23840, 2998055602, 3, 3, 40),
        (6, 2998055602, 149, 23840, 2711724449, 6, 6, 43),
        (7, 2711724449, 199, 31840, 2998055602, 4, 4, 41),
        (8, 2998055602, 199, 31840, 2711724449, 8, 8, 45),
        (9, 2711724449, 249, 39840, 2998055602, 5, 5, 42),
        (10, 2998055602, 249, 39840, 2711724449, 10, 10, 47),
    ],
)
def test_json_of_rtpengine(frame, ssrc, sent, octets, source, fraction, lost, jitter):
    envelope = hep.decode(HEP["made-rtpengine-hep3-rtcp", frame])
    assert (envelope.payload_type, envelope.correlation_id) == (5, "rtcp-hep-1@homerd.test")
    local, remote = qos.decode(envelope.payload).records
    assert (local.ssrc, local.lost, local.loss) == (source, lost, fraction * 100 / 256)
    assert local.jitter == jitter / 8
    assert (remote.ssrc, remote.packets, remote.octets) == (ssrc, sent, octets)


def test_json_of_hepgen():
    # /ssrc 451916597, /sender_information/packets 106, octets 16960; source_ssrc 898343773,
    # fraction_lost 0, packets_lost 0, ia_jitter 1; report_count 0
    envelope = hep.decode(HEP["hep-wireshark-hep", 8])
    local, remote = qos.decode(envelope.payload).records
    assert (local.ssrc, local.lost, local.loss, local.jitter) == (898343773, 0, 0, 0.125)
    assert (remote.ssrc, remote.packets, remote.octets) == (451916597, 106, 16960)


def test_the_publish_of_hepgen():
    # SessionDesc:PT=124 PD=opus SR=48000; PacketLoss:NLR=8.0; Delay:IAJ=93;
    # LocalAddr:IP:192.168.1.55 PORT:30539; no RemoteMetrics
    sip = SipMessage(hep.decode(HEP["hep-wireshark-hep", 7]).payload)
    told = qos.decode_vqrtcpxr(sip.body.encode())
    assert (told.kind, told.call_id) == ("interval", "qgf3dm9rudi@127.0.0.1")
    (local,) = told.records
    assert (local.codec, local.clock, local.loss, local.jitter) == ("opus", 48000, 8.0, 93)
    assert (local.r, local.mos, told.faults) == (None, None, ())


# What the three reports of made-rtcpxr-publish have in common, frames 1, 3 and 5; the text is what
# tshark shows as sip.msg_body.
PUBLISHED = """{first}
CallID: {call_id}
LocalAddr: IP=192.0.2.10 PORT=40000 SSRC=0x2468ACE0
RemoteAddr: IP=192.0.2.20 PORT=41000 SSRC=0x13579BDF
LocalMetrics:
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z
SessionDesc: PT=8 PD=PCMA SR=8000 FD=20 FO=160 FPP=1 PPS=50 PLC=3 SSUP=off
JitterBuffer: JBA=3 JBR=2 JBN=40 JBM=80 JBX=120
PacketLoss: NLR={nlr} JDR=2.0
BurstGapLoss: BLD=0.0 BD=0 GLD=2.0 GD=500 GMIN=16
Delay: RTD=200 ESD=140 SOWD=200 IAJ=2 MAJ=10
Signal: SL=-21 NL=-50 RERL=55
QualityEst: RLQ=90 RCQ=85 EXTRI=90 MOSLQ={moslq} MOSCQ=4.1 QoEEstAlg=P.564
RemoteMetrics:
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z
SessionDesc: PT=8 PD=PCMA SR=8000 FD=20 FO=160 FPP=1 PPS=50 PLC=3 SSUP=off
JitterBuffer: JBA=3 JBR=2 JBN=40 JBM=80 JBX=120
PacketLoss: NLR=1.7 JDR=1.1
Delay: RTD=200 ESD=140 SOWD=200 IAJ=2 MAJ=10
QualityEst: RLQ=88 RCQ=84 MOSLQ=3.9 MOSCQ=3.8 QoEEstAlg=P.564
"""


@pytest.mark.parametrize(
    ("first", "call_id", "nlr", "moslq"),
    [
        ("VQSessionReport: CallTerm", "xr-call-1@192.0.2.10", 0.5, 4.2),
        ("VQSessionReport", "xr-call-2@192.0.2.10", 6.25, 3.1),
        ("VQSessionReport: CallTerm", "xr-call-3@192.0.2.10", 31.0, 1.4),
    ],
)
def test_published_reports(first, call_id, nlr, moslq):
    text = PUBLISHED.format(first=first, call_id=call_id, nlr=nlr, moslq=moslq)
    told = qos.decode_vqrtcpxr(text.encode())
    assert (told.call_id, told.faults) == (call_id, ())
    local, remote = told.records
    assert (local.ssrc, local.loss, local.discard, local.jitter) == (0x13579BDF, nlr, 2.0, 2)
    assert (local.rtt, local.one_way, local.end_system) == (200, 200, 140)
    assert (local.r, local.mos_lq, local.mos_cq, local.mos) == (85, moslq, 4.1, moslq)
    assert (local.burst_loss, local.gap_loss, local.gap_duration) == (0.0, 2.0, 500)
    assert (remote.ssrc, remote.loss, remote.discard) == (0x2468ACE0, 1.7, 1.1)
    assert (remote.r, remote.mos_lq, remote.mos_cq) == (84, 3.9, 3.8)


def test_headers_of_baresip():
    # made-baresip-call-rtp-rtcp, the BYE in frame 1410
    stat = (
        "EX=BareSip;CS=0;CD=10;PR=499;PS=496;PL=0,0;PD=0,0;JI=14.0,20.0;"
        "IP=0.0.0.0:20406,127.0.0.1:20416;EN=PCMA/8000;DE=PCMA/8000"
    )
    local, remote = qos.of_headers({"X-RTP-Stat": stat}.get).records
    assert (local.packets, local.lost, local.loss, local.jitter) == (499, 0, 0, 14.0)
    assert (remote.packets, remote.lost, remote.loss, remote.jitter) == (496, 0, 0, 20.0)
    assert (local.codec, remote.codec) == ("PCMA", "PCMA")
