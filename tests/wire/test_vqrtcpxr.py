"""Voice quality reports of phones to values; what cannot be read is null and named."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homerd.errors import DecodeError
from homerd.wire import vqrtcpxr
from homerd.wire.measured import FAULTS
from homerd.wire.vqrtcpxr import Address, Alert, Metrics

# Every line and name of RFC 6035 4.6; the figures are made up.
SESSION = b"""VQSessionReport: CallTerm\r
CallID:6dg37f1890463\r
LocalID:Alice <sip:alice@example.org>\r
RemoteID:Bill <sip:bill@example.net>\r
OrigID:Alice <sip:alice@example.org>\r
LocalAddr:IP=192.0.2.10 PORT=5000 SSRC=0x2468abcd\r
RemoteAddr:IP=2001:db8::7 PORT=5002 SSRC=0x1357efff\r
LocalGroup:branch 7\r
RemoteGroup:gateways\r
LocalMAC:00:1f:5b:cc:21:0f\r
LocalMetrics:\r
Timestamps:START=2023-11-14T22:13:20Z STOP=2023-11-14T22:15:20.5Z\r
SessionDesc:PT=18 PD=G729 SR=8000 FD=20 FO=20 FPP=2 PPS=50 FMTP="annexb=no" PLC=3 SSUP=on\r
JitterBuffer:JBA=3 JBR=2 JBN=40 JBM=80 JBX=120\r
PacketLoss:NLR=5.0 JDR=2.0\r
BurstGapLoss:BLD=0 BD=0 GLD=2.0 GD=500 GMIN=16\r
Delay:RTD=200 ESD=140 OWD=100 SOWD=90 IAJ=2 MAJ=10\r
Signal:SL=-18 NL=-60 RERL=14\r
QualityEst:RLQ=90 RLQEstAlg=P.564 RCQ=85 RCQEstAlg=P.565 EXTRI=91 ExtRIEstAlg=G.107 EXTRO=80 ExtROEstAlg=G.108 MOSLQ=4.2 MOSLQEstAlg=P.566 MOSCQ=4.3 MOSCQEstAlg=P.567 QoEEstAlg=P.568\r
RemoteMetrics:\r
Timestamps:START=2023-11-14T22:13:20Z STOP=2023-11-14T22:15:20Z\r
PacketLoss:NLR=1.5 JDR=0\r
QualityEst:MOSLQ=3.9\r
DialogID:6dg37f1890463;to-tag=8472761;from-tag=9123dh311\r
"""

# In the layout of snom's phones: lines of the session among the metrics, lines of their own, a
# missing blank; the figures are made up.
SNOM = b"""VQSessionReport
LocalMetrics:
Timestamps:START=2024-02-17T13:59:42Z STOP=2024-02-17T13:59:46Z
SessionDesc:PT=0 PD=G.711U PPS=50 SSUP=off
CallID:3c26a8de-12ct7zov
x-UserAgent:snom821/8.9
FromID:<sip:446@example.org>
LocalAddr:IP=192.0.2.13 PORT=62754 SSRC=0xCBE3450E
x-SIPmetrics:SVA=RG SRD=310 SFC=0
x-SIPterm:SDC=OK
JitterBuffer:JBA=0 JBR=0 JBN=20 JBM=20JBX=65535
PacketLoss:NLR=0.0 JDR=0.0
Delay:RTD=0 ESD=0 IAJ=4
RemoteMetrics:
Delay:RTD=0 ESD=0 IAJ=2
"""


def report(*lines: str, first: str = "VQSessionReport: CallTerm") -> vqrtcpxr.Report:
    metrics = "\n".join(lines)
    text = (
        f"{first}\nCallID: c1\nLocalMetrics:\nTimestamps: START=2024-01-01T00:00:00Z\n{metrics}\n"
    )
    return vqrtcpxr.decode(text.encode())


def test_every_field_of_the_rfc_is_read():
    told = vqrtcpxr.decode(SESSION)
    assert (told.kind, told.call_term, told.call_id) == ("session", True, "6dg37f1890463")
    assert told.local_address == Address("192.0.2.10", 5000, 0x2468ABCD)
    assert told.remote_address == Address("2001:db8::7", 5002, 0x1357EFFF)
    assert told.local == Metrics(
        start=1700000000.0,
        stop=1700000120.5,
        pt=18,
        pd="G729",
        sr=8000,
        fd=20,
        fo=20,
        fpp=2,
        pps=50,
        fmtp="annexb=no",
        plc=3,
        ssup="on",
        jba=3,
        jbr=2,
        jbn=40,
        jbm=80,
        jbx=120,
        nlr=5.0,
        jdr=2.0,
        bld=0,
        bd=0,
        gld=2.0,
        gd=500,
        gmin=16,
        rtd=200,
        esd=140,
        owd=100,
        sowd=90,
        iaj=2,
        maj=10,
        sl=-18,
        nl=-60,
        rerl=14,
        rlq=90,
        rlqestalg="P.564",
        rcq=85,
        rcqestalg="P.565",
        extri=91,
        extriestalg="G.107",
        extro=80,
        extroestalg="G.108",
        moslq=4.2,
        moslqestalg="P.566",
        moscq=4.3,
        moscqestalg="P.567",
        qoeestalg="P.568",
    )
    assert told.remote == Metrics(start=1700000000.0, stop=1700000120.0, nlr=1.5, jdr=0, moslq=3.9)
    assert told.info["localmac"] == "00:1f:5b:cc:21:0f"
    assert told.info["remotegroup"] == "gateways"
    assert told.info["dialogid"] == "6dg37f1890463;to-tag=8472761;from-tag=9123dh311"
    assert told.faults == []


def test_lines_of_the_maker_are_kept_and_a_missing_blank_is_made_up_for():
    told = vqrtcpxr.decode(SNOM)
    assert (told.kind, told.call_term, told.call_id) == ("session", False, "3c26a8de-12ct7zov")
    assert told.info["x-useragent"] == "snom821/8.9"
    assert told.info["x-sipmetrics"] == "SVA=RG SRD=310 SFC=0"
    assert told.local.jbm == 20
    assert told.local.jbx == 65535
    assert (told.local.iaj, told.remote.iaj) == (4, 2)
    assert told.faults == [("jbm", "joined")]


@pytest.mark.parametrize(
    ("first", "kind", "call_term"),
    [
        ("VQSessionReport: CallTerm", "session", True),
        ("VQSessionReport : CallTerm", "session", True),
        ("VQSessionReport", "session", False),
        ("vqintervalreport:", "interval", False),
        ("VQIntervalReport: CallTerm", "interval", True),
    ],
)
def test_the_first_line_tells_the_kind(first, kind, call_term):
    told = report(first=first)
    assert (told.kind, told.call_term) == (kind, call_term)


def test_an_alert_says_what_is_wrong_and_may_have_no_metrics():
    told = vqrtcpxr.decode(b"VQAlertReport: Type=NLR Severity=Critical Dir=local\nCallID: c1\n")
    assert (told.kind, told.alert) == ("alert", Alert("NLR", "Critical", "local"))
    assert (told.local, told.remote, told.faults) == (None, None, [])


# -- spellings


@pytest.mark.parametrize("line", ["CallID: c7", "CallID : c7", "callid:c7", "CallID=c7"])
def test_a_line_may_be_spelt_in_many_ways(line):
    told = vqrtcpxr.decode(f"VQAlertReport: Type=NLR\n{line}\n".encode())
    assert told.call_id == "c7"


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("IP=192.0.2.1 Port=6000 SSRC=0x54c62a13", Address("192.0.2.1", 6000, 0x54C62A13)),
        ("IP:192.0.2.1 PORT:30539", Address("192.0.2.1", 30539)),
        ("IP=192.0.2.1 PORT=7078 SSRC=1357", Address("192.0.2.1", 7078, 1357)),
        ("IP= PORT=62754 SSRC=", Address(None, 62754)),
    ],
)
def test_addresses_of_phones(line, address):
    told = vqrtcpxr.decode(f"VQAlertReport: Type=NLR\nCallID:c\nLocalAddr: {line}\n".encode())
    assert (told.local_address, told.faults) == (address, [])


def test_a_sign_of_an_ssrc_is_taken_away_and_counted():
    told = vqrtcpxr.decode(b"VQAlertReport: Type=NLR\nCallID:c\nRemoteAddr: SSRC=-2\n")
    assert told.remote_address.ssrc == 0xFFFFFFFE
    assert told.faults == [("remoteaddr", "sign")]


# -- what cannot be read


@pytest.mark.parametrize(
    ("line", "field", "fault"),
    [
        ("QualityEst: MOSLQ=good", "moslq", "number"),
        ("QualityEst: MOSLQ=4,2", "moslq", "number"),
        ("QualityEst: MOSLQ=5.1", "moslq", "range"),
        ("QualityEst: RCQ=-1", "rcq", "range"),
        ("PacketLoss: NLR=100.1", "nlr", "range"),
        ("Delay: RTD=65536", "rtd", "range"),
        ("SessionDesc: PT=128", "pt", "range"),
        ("JitterBuffer: JBR=0x2", "jbr", "number"),
        ("Delay: IAJ=1 IAJ=2", "iaj", "doubled"),
        ("Delay: IAJ=1\nDelay: IAJ=2", "iaj", "doubled"),
        ("Timestamps: STOP=0", "stop", "number"),
    ],
)
def test_a_field_that_cannot_be_read_is_null_and_named(line, field, fault):
    told = report(line, "Signal: SL=-18")
    assert getattr(told.local, field) is None
    assert told.faults == [(field, fault)]
    assert told.local.sl == -18


@pytest.mark.parametrize(
    "line", ["QualityEst: MOSLQ=127", "QualityEst: MOSLQ=", "QualityEst:", "QualityEst: X=1"]
)
def test_what_nobody_measured_is_null_without_a_fault(line):
    told = report(line)
    assert (told.local.moslq, told.faults) == (None, [])


def test_the_same_value_twice_is_no_fault():
    assert report("Delay: IAJ=2", "Delay: IAJ=2").local.iaj == 2
    assert report("Delay: IAJ=2", "Delay: IAJ=2").faults == []


def test_what_every_report_must_have_is_missed():
    told = vqrtcpxr.decode(b"VQSessionReport\nLocalMetrics:\nPacketLoss:NLR=1\n")
    assert told.local.nlr == 1
    assert told.faults == [("callid", "missing"), ("timestamps", "missing")]


def test_two_call_ids_are_none():
    told = vqrtcpxr.decode(b"VQAlertReport: Type=NLR\nCallID:a\nCallID:b\n")
    assert (told.call_id, told.faults) == (None, [("callid", "doubled")])


@pytest.mark.parametrize(
    "data", [b"", b"\r\n\r\n", b"VQ", b"VQReport:\n", b"PUBLISH sip:a SIP/2.0"]
)
def test_what_is_no_report_has_a_reason(data):
    with pytest.raises(DecodeError) as raised:
        vqrtcpxr.decode(data)
    assert raised.value.reason == "vq_kind"


@pytest.mark.parametrize(
    "filler",
    [b"A" * 60_000, b" " * 60_000 + b"x", b'A="' * 20_000, b"A= " * 20_000, b"1A=" * 20_000],
)
def test_a_line_as_long_as_a_datagram_is_read_at_once(filler):
    vqrtcpxr.decode(b"VQSessionReport\nDelay:" + filler + b"\nLocalAddr:" + filler)


@given(st.binary(max_size=300), st.sampled_from([SESSION, SNOM]), st.integers(0, 1500))
@example(b"\x00\x0b\xff", SNOM, 30)
def test_any_bytes_give_a_report_or_a_reason(data, whole, at):
    for each in (data, whole[:at] + data, whole[:at] + data + whole[at:]):
        fault = None
        try:
            told = vqrtcpxr.decode(each)
        except DecodeError as error:
            fault = error
        if fault is None:
            assert {why for _, why in told.faults} <= set(FAULTS)
        else:
            assert fault.reason in vqrtcpxr.REASONS


def test_of_a_report_without_end_the_beginning_is_read():
    told = vqrtcpxr.decode(
        b"VQSessionReport: CallTerm\r\nCallID:c1\r\nLocalMetrics:\r\nTimestamps:START=2026-01-01T00:00:00Z\r\n"
        b"QualityEst:MOSLQ=4.1\r\nPacketLoss:" + b"NLR=1 " * 10_000 + b"\r\nDelay:RTD=20\r\n"
    )
    assert (told.call_id, told.local.moslq, told.local.nlr) == ("c1", 4.1, None)
    assert told.faults == [("report", "range")]
