"""Voice quality reports as text: what is written is read again as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire import qos, vqrtcpxr, vqrtcpxr_text
from homerd.wire.qos import QosRecord
from homerd.wire.vqrtcpxr import Address, Alert, Metrics, Report

LOCAL = Metrics(
    start=1_700_000_000,
    stop=1_700_000_120.5,
    pt=18,
    pd="G729",
    sr=8000,
    fmtp="annexb=no; bitrate=8",
    nlr=5.25,
    jdr=0.0,
    gmin=16,
    rtd=200,
    iaj=2,
    sl=-18,
    rcq=85,
    rcqestalg="G.107",
    moslq=4.1,
)
REPORT = Report(
    vqrtcpxr.SESSION,
    True,
    "call-1@192.0.2.10",
    {
        "callid": "call-1@192.0.2.10",
        "localid": '"Alice" <sip:alice@example.org>',
        "remoteid": "<sip:bob@example.net>",
        "origid": '"Alice" <sip:alice@example.org>',
        "localaddr": "IP=192.0.2.10 PORT=40000 SSRC=0x2468abcd",
        "remoteaddr": "IP=2001:db8::7 PORT=41000 SSRC=0x00000007",
        "dialogid": "call-1@192.0.2.10;to-tag=b1;from-tag=a1",
    },
    Address("192.0.2.10", 40000, 0x2468ABCD),
    Address("2001:db8::7", 41000, 7),
    LOCAL,
    Metrics(start=1_700_000_000, stop=1_700_000_120, nlr=1.5, moslq=3.9),
    None,
    [],
)
TEXT = b"""VQSessionReport: CallTerm\r
CallID:call-1@192.0.2.10\r
LocalID:"Alice" <sip:alice@example.org>\r
RemoteID:<sip:bob@example.net>\r
OrigID:"Alice" <sip:alice@example.org>\r
LocalAddr:IP=192.0.2.10 PORT=40000 SSRC=0x2468abcd\r
RemoteAddr:IP=2001:db8::7 PORT=41000 SSRC=0x00000007\r
LocalMetrics:\r
Timestamps:START=2023-11-14T22:13:20Z STOP=2023-11-14T22:15:20.500Z\r
SessionDesc:PT=18 PD=G729 SR=8000 FMTP="annexb=no; bitrate=8"\r
PacketLoss:NLR=5.25 JDR=0.0\r
BurstGapLoss:GMIN=16\r
Delay:RTD=200 IAJ=2\r
Signal:SL=-18\r
QualityEst:RCQ=85 RCQEstAlg=G.107 MOSLQ=4.1\r
RemoteMetrics:\r
Timestamps:START=2023-11-14T22:13:20Z STOP=2023-11-14T22:15:20Z\r
PacketLoss:NLR=1.5\r
QualityEst:MOSLQ=3.9\r
DialogID:call-1@192.0.2.10;to-tag=b1;from-tag=a1\r
"""


def test_a_report_is_written_in_the_order_of_the_rfc():
    assert vqrtcpxr_text.encode(REPORT) == TEXT


def test_what_is_written_is_read_again_as_it_was():
    assert vqrtcpxr.decode(TEXT) == REPORT


@pytest.mark.parametrize(
    ("report", "first"),
    [
        (REPORT._replace(call_term=False), b"VQSessionReport\r\n"),
        (REPORT._replace(kind=vqrtcpxr.INTERVAL, call_term=False), b"VQIntervalReport\r\n"),
        (
            REPORT._replace(
                kind=vqrtcpxr.ALERT, call_term=False, alert=Alert("NLR", "Critical", "local")
            ),
            b"VQAlertReport: Type=NLR Severity=Critical Dir=local\r\n",
        ),
    ],
)
def test_each_kind_has_its_first_line(report, first):
    text = vqrtcpxr_text.encode(report)
    assert text.startswith(first)
    assert vqrtcpxr.decode(text) == report


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (Metrics(nlr=120, jdr=-1), b"PacketLoss:NLR=100.0 JDR=0.0"),
        (Metrics(moslq=5.0, moscq=4.409), b"QualityEst:MOSLQ=4.9 MOSCQ=4.41"),
        (Metrics(rlq=130, rcq=-2), b"QualityEst:RLQ=120 RCQ=0"),
        (Metrics(rtd=70_000, iaj=0.4), b"Delay:RTD=65535 IAJ=0"),
        (Metrics(sl=127, nl=-0.2), b"Signal:SL=126 NL=0"),
        (Metrics(pd='G 729 "B"\r\nNLR=0'), b"SessionDesc:PD=\"G 729 'B' NLR=0\""),
    ],
)
def test_a_value_outside_of_its_range_becomes_the_nearest_within(metrics, line):
    assert line in vqrtcpxr_text.encode(REPORT._replace(local=metrics)).split(b"\r\n")


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x85", "\u2028", "\x0b", "\0"])
def test_no_name_can_add_a_line(end):
    info = {"localid": f"a{end}PacketLoss:NLR=99", "remoteid": f"{end}"}
    told = vqrtcpxr.decode(
        vqrtcpxr_text.encode(REPORT._replace(info=info, call_id=f"c{end}LocalID:x"))
    )
    assert told.info["localid"] == "a PacketLoss:NLR=99"
    assert told.call_id == "c LocalID:x"
    assert "remoteid" not in told.info
    assert told.local.nlr == 5.25


words = st.text(max_size=20)
texts = st.none() | words
metrics = st.builds(
    Metrics,
    pd=texts,
    fmtp=texts,
    nlr=st.none() | st.floats(-10, 200),
    rtd=st.none() | st.floats(-10, 1e6),
    sl=st.none() | st.floats(-300, 300),
    moscq=st.none() | st.floats(-1, 10),
    start=st.none() | st.floats(0, 4e9),
)


@given(metrics, words, words)
def test_any_values_give_a_report_that_is_read_without_a_fault_of_a_value(side, call_id, name):
    report = REPORT._replace(call_id=call_id, info={"localid": name}, local=side)
    told = vqrtcpxr.decode(vqrtcpxr_text.encode(report))
    assert {fault for fault in told.faults if fault[1] != "missing"} == set()
    assert told.remote == REPORT.remote
    assert (told.local.nlr is None) == (side.nlr is None)


def test_a_record_of_a_call_becomes_the_metrics_of_one_side():
    record = QosRecord(
        "local", qos.RECEIVED, codec="PCMA", clock=8000, loss=1.5, jitter=7.6, rtt=40,
        r=90.2, r_source=qos.G107, mos_lq=4.3, mos_lq_source=qos.G107,
        mos_cq=4.2, mos_cq_source=qos.REPORTED,
    )  # fmt: skip
    assert vqrtcpxr_text.metrics_of(record, 100, 200) == Metrics(
        start=100, stop=200, pd="PCMA", sr=8000, nlr=1.5, iaj=7.6, rtd=40,
        rcq=90, rcqestalg="G.107", moslq=4.3, moslqestalg="G.107", moscq=4.2,
    )  # fmt: skip


def test_r_without_a_delay_is_of_listening_alone():
    record = QosRecord("local", qos.RECEIVED, loss=0.0, r=93.2, r_source=qos.G107)
    made = vqrtcpxr_text.metrics_of(record, None, None)
    assert (made.rlq, made.rcq) == (93, None)
