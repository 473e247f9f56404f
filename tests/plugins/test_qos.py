"""Module qos: what a script reads of quality reports, and what is counted."""

from __future__ import annotations

import pytest

from homerd import testing
from homerd_plugins.qos import Qos
from homerd_plugins.sipcapture import SipCapture
from homerd_plugins.xlog import Xlog

VQ = b"""VQSessionReport: CallTerm\r
CallID: xr-call-1@192.0.2.10\r
LocalAddr: IP=192.0.2.10 PORT=40000 SSRC=0x2468ACE0\r
RemoteAddr: IP=192.0.2.20 PORT=41000 SSRC=0x13579BDF\r
x-UserAgent: snom821/8.9\r
LocalMetrics:\r
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z\r
SessionDesc: PT=8 PD=PCMA SR=8000 FD=20 FO=160 FPP=1 PPS=50 PLC=3 SSUP=off\r
PacketLoss: NLR=0.5 JDR=2.0\r
BurstGapLoss: BLD=1.5 BD=20 GLD=2.0 GD=500 GMIN=16\r
Delay: RTD=200 ESD=140 SOWD=110 IAJ=2 MAJ=10\r
Signal: SL=-21 NL=-50 RERL=55\r
QualityEst: RLQ=90 RCQ=85 MOSLQ=4.2 MOSCQ=4.1\r
RemoteMetrics:\r
Timestamps: START=2026-01-01T00:55:00Z STOP=2026-01-01T00:59:58Z\r
PacketLoss: NLR=1.7 JDR=1.1\r
Delay: RTD=190 IAJ=7\r
QualityEst: MOSLQ=3.9\r
"""
RTCP = b'{"sender_information":{"packets":1000,"octets":160000},"ssrc":7,"type":200,"report_blocks":[{"source_ssrc":9,"fraction_lost":64,"packets_lost":3,"ia_jitter":14}]}'
PUBLISH = testing.request(
    "PUBLISH", headers={"Content-Type": "application/vq-rtcpxr"}, body=VQ.decode()
)
BYE = testing.request(
    "BYE",
    headers={
        "X-RTP-Stat": "CS=0;PS=1433;PR=1522;PL=0,0;EN=PCMA,FAX;DE=PCMA;JI=23,2;DL=20,20,21",
    },
)


@pytest.fixture
def shown():
    """What a text with `$qos` is for one packet, and the run, for its metrics."""
    runs = []

    def run(text: str, payload: bytes, *, before: str = "", **envelope):
        script = testing.Script(
            f"""
            loadmodule "xlog"
            loadmodule "sipcapture"
            loadmodule "qos"
            modparam("sipcapture", "capture_on", 1)
            modparam("sipcapture", "hep_capture_on", 1)
            modparam("sipcapture", "nonsip_hook", 1)
            {before}
            event_route[sipcapture:request] {{
                if ($hep(0x00b) == 1) return 1;
                xlog("{text}");
                drop;
            }}
            request_route {{ xlog("{text}"); exit; }}
            """,
            Xlog,
            SipCapture,
            Qos,
        )
        runs.append(script)
        outcome = script.feed(payload, **envelope)
        assert outcome.error == ""
        return outcome.lines[0], script

    yield run
    for script in runs:
        script.stop()


VALUES = {
    "form": "vq-rtcpxr",
    "kind": "session",
    "call_id": "xr-call-1@192.0.2.10",
    "alert": "<null>",
    "severity": "<null>",
    "user_agent": "snom821/8.9",
    "direction": "received",
    "ssrc": "324508639",
    "codec": "PCMA",
    "clock": "8000",
    "packets": "<null>",
    "octets": "<null>",
    "lost": "<null>",
    "loss": "0.50",
    "discard": "2.00",
    "jitter": "2",
    "max_jitter": "<null>",
    "rtt": "200",
    "one_way": "110",
    "end_system": "140",
    "burst_loss": "1.50",
    "burst_duration": "20",
    "gap_loss": "2.00",
    "gap_duration": "500",
    "signal": "-21",
    "noise": "-50",
    "r": "85",
    "r_source": "report",
    "mos": "4.20",
    "mos_source": "report",
    "mos_lq": "4.20",
    "mos_lq_source": "report",
    "mos_cq": "4.10",
    "mos_cq_source": "report",
    "local.mos_lq": "4.20",
    "remote.mos_lq": "3.90",
    "remote.jitter": "7",
    "remote.loss": "1.70",
    "remote.mos_cq": "<null>",
    "incoming.mos": "<null>",
}


def test_each_value_of_a_published_report(shown):
    text = "|".join(f"$qos({name})" for name in VALUES)
    line, _ = shown(text, PUBLISH)
    assert dict(zip(VALUES, line.split("|"), strict=True)) == VALUES


@pytest.mark.parametrize(("payload", "type"), [(VQ, 35), (PUBLISH, 99), (VQ, 99)])
def test_a_report_that_an_agent_passes_on(shown, payload, type):
    line, _ = shown("$qos(call_id) $qos(mos) $qos(remote.mos)", payload, type=type)
    assert line == "xr-call-1@192.0.2.10 4.20 3.90"


def test_rtcp_of_an_agent(shown):
    line, _ = shown(
        "$qos(form) $qos(packets) $qos(lost) $qos(loss) $qos(jitter) $qos(rtt)", RTCP, type=5
    )
    assert line == "rtcp-json 1000 3 25.00 2 <null>"


@pytest.mark.parametrize(
    ("payload", "type", "call_id"),
    [
        (RTCP, 5, "c9"),
        (b'{"MOS":4.1,"CORRELATION_ID":"c8"}', 34, "c8"),
        (b'{"MOS":4.1}', 34, "c9"),
        (BYE, 1, "call-1@192.0.2.10"),
        (VQ.replace(b"CallID: xr", b"NoID: xr"), 35, "c9"),
        (PUBLISH.replace(b"CallID: xr", b"NoID: xr"), 1, "<null>"),
    ],
)
def test_the_call_is_that_of_the_report_else_what_the_agent_says(shown, payload, type, call_id):
    assert shown("$qos(call_id)", payload, type=type, correlation_id="c9")[0] == call_id


def test_the_clock_of_rtcp_is_a_parameter(shown):
    before = 'modparam("qos", "rtcp_clock", 1000)'
    assert shown("$qos(jitter)", RTCP, type=5, before=before)[0] == "14"
    before = 'modparam("qos", "rtcp_clock", 0)'
    assert shown("$qos(jitter)", RTCP, type=5, before=before)[0] == "<null>"


def test_a_header_of_bye(shown):
    line, _ = shown("$qos(form) $qos(kind) $qos(packets) $qos(jitter) $qos(rtt) $qos(codec)", BYE)
    assert line == "rtp-stat X-RTP-Stat 1522 23 20 PCMA"
    line, _ = shown("$qos(remote.packets) $qos(remote.jitter) $qos(mos) $qos(mos_source)", BYE)
    assert line == "1433 2 4.37 heplify"


def test_parts_of_a_percent_may_be_left_out_as_heplify_server_does(shown):
    bye = BYE.replace(b"PL=0,0", b"PL=26,0")  # 0.88 percent
    assert shown("$qos(mos) $qos(r)", bye)[0] == "4.32 89"
    before = 'modparam("qos", "legacy_integer_loss", 1)'
    assert shown("$qos(mos) $qos(r)", bye, before=before)[0] == "4.37 91"


def test_whole_numbers_can_be_compared():
    script = testing.Script(
        """
        loadmodule "xlog"
        loadmodule "sipcapture"
        loadmodule "qos"
        modparam("sipcapture", "capture_on", 1)
        modparam("sipcapture", "hep_capture_on", 1)
        request_route {
            if ($qos(r) != $null && $qos(r) < 86 && $qos(rtt) >= 200) xlog("bad");
            if (float2int("$qos(mos)", "100")) xlog("mos $rc");
            exit;
        }
        """,
        Xlog,
        SipCapture,
        Qos,
    )
    with script as run:
        assert run.feed(PUBLISH).lines == ["bad", "mos 420"]


# -- what is not there, and what cannot be read


@pytest.mark.parametrize(
    ("payload", "type"),
    [(testing.request("INVITE"), 1), (b"a line of a log", 100), (b'{"a":1}', 32), (b"", 5)],
)
def test_a_packet_that_is_no_report_is_null_and_not_counted(shown, payload, type):
    line, run = shown("$qos(form) $qos(mos) $qos(remote.mos)", payload, type=type)
    assert line == "<null> <null> <null>"
    assert counted(run) == {}


def counted(run: testing.Script) -> dict[str, float]:
    return {name: value for name, value in run.metrics().items() if name.startswith("homerd_qos_")}


def test_reports_are_counted_once_and_only_when_asked_for(shown):
    assert counted(shown("no", PUBLISH)[1]) == {}
    _, run = shown("$qos(mos) $qos(loss) $qos(codec)", PUBLISH)
    assert counted(run) == {
        'homerd_qos_reports_total{form="vq-rtcpxr"}': 1,
        'homerd_qos_ties_total{by="report"}': 1,
    }


def test_a_report_that_cannot_be_read_is_counted_by_reason(shown):
    line, run = shown("$qos(mos)", b"VQWhat: 1", type=35)
    assert line == "<null>"
    assert counted(run) == {'homerd_qos_unread_total{reason="vq_kind"}': 1}


def test_a_field_that_cannot_be_read_is_counted_by_its_name(shown):
    report = VQ.replace(b"MOSLQ=4.2", b"MOSLQ=good").replace(b"RTD=200", b"RTD=70000")
    line, run = shown("$qos(local.mos_lq) $qos(local.rtt) $qos(jitter)", report, type=35)
    # listening quality follows from RLQ of the report
    assert line == "4.34 <null> 2"
    assert counted(run) == {
        'homerd_qos_reports_total{form="vq-rtcpxr"}': 1,
        'homerd_qos_ties_total{by="report"}': 1,
        'homerd_qos_unread_fields_total{fault="number",field="moslq",form="vq-rtcpxr"}': 1,
        'homerd_qos_unread_fields_total{fault="range",field="rtd",form="vq-rtcpxr"}': 1,
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mso", 'nothing of a report is called "mso": did you mean "mos"?'),
        (
            "remote.jiter",
            'nothing of a report is called "remote.jiter": did you mean "remote.jitter"?',
        ),
        ("near.mos", 'there is no leg "near": there are local, remote, incoming, outgoing'),
        ("local.call_id", 'nothing of a report is called "local.call_id"'),
        ("zzz", "there are form, kind, call_id, "),
        ("", "expected a name in parentheses"),
    ],
)
def test_an_unknown_name_is_a_mistake_of_the_script(name, said):
    script = f'loadmodule "qos"\nloadmodule "xlog"\nrequest_route {{ xlog("$qos({name})"); }}'
    (mistake,) = testing.diagnostics(script, Qos, Xlog)
    assert said in mistake
