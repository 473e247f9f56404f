"""scripts/metric_heplify.cfg: heplify-server's metrics; scripts/metric_rtcp.cfg; scripts/reports.cfg."""

from __future__ import annotations

import json

import pytest
from shipped import INVITE, OK, RINGING, sip

RTCP = {
    "type": 201,
    "ssrc": 1,
    "report_count": 1,
    "report_blocks": [
        {
            "source_ssrc": 2,
            "fraction_lost": 12,
            "packets_lost": 34,
            "ia_jitter": 56,
            "lsr": 0,
            "dlsr": 4294967295,
        }
    ],
}
XR = {
    "type": 207,
    "report_blocks_xr": {
        "type": 7,
        "fraction_lost": 1,
        "fraction_discard": 2,
        "burst_density": 3,
        "gap_density": 4,
        "burst_duration": 5,
        "gap_duration": 6,
        "round_trip_delay": 7,
        "end_system_delay": 8,
    },
}
VQ = (
    b"VQSessionReport: CallTerm\r\nCallID: c1\r\nLocalMetrics:\r\n"
    b"PacketLoss:NLR=5.0 JDR=2.5\r\nDelay:RTD=200 ESD=140 IAJ=2 MAJ=10\r\n"
    b"QualityEst:MOSLQ=4.2 MOSLQEstAlg=P.564 MOSCQ=127\r\n"
    b"RemoteMetrics:\r\nPacketLoss:NLR=9.0 JDR=9.0\r\nQualityEst:MOSLQ=1.0 MOSCQ=1.1\r\n"
)


def lines(run, *prefixes):
    return [line for prefix in prefixes for line in run.page(prefix)]


def test_packets_by_node_and_type(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    run.feed(INVITE, INVITE)
    for number in (5, 34, 35, 38, 53, 54, 100):
        run.feed(b"{}", type=number)
    sip_bytes = len(INVITE)
    assert lines(run, "heplify_packets") == [
        'heplify_packets_total{node_id="7",type="sip"} 2',
        *(
            f'heplify_packets_total{{node_id="7",type="{name}"}} 1'
            for name in ("rtcp", "rtpagent", "rtcpxr", "horaclifix", "dns", "54", "log")
        ),
        f'heplify_packets_size{{node_id="7",type="sip"}} {sip_bytes}',
        *(
            f'heplify_packets_size{{node_id="7",type="{name}"}} 2'
            for name in ("rtcp", "rtpagent", "rtcpxr", "horaclifix", "dns", "54", "log")
        ),
    ]


def test_without_targets_a_message_counts_once(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    run.feed(INVITE, INVITE, RINGING, OK, OK)
    assert lines(run, "heplify_method") == [
        f'heplify_method_response{{target_name="",direction="",node_id="7",response="{what}",method="INVITE"}} 1'
        for what in ("INVITE", "180", "200")
    ]


def test_with_targets_a_message_counts_for_both_ends(shipped):
    run = shipped("DO_METRIC_HEPLIFY", HOMERD_TARGETS="10.0.0.1=sbc;10.0.0.2=pbx;2001:db8::1=six")
    run.feed(INVITE)
    run.feed(INVITE, src="192.0.2.1")
    run.feed(INVITE, src="192.0.2.1", dst="192.0.2.2")
    run.feed(INVITE, src="2001:db8::1", dst="2001:db8::2")
    assert lines(run, "heplify_method") == [
        f'heplify_method_response{{target_name="{name}",direction="{direction}",node_id="7",'
        f'response="INVITE",method="INVITE"}} {count}'
        for name, direction, count in (
            ("pbx", "dst", 2),
            ("sbc", "src", 1),
            ("unknown", "", 1),
            ("six", "src", 1),
        )
    ]


def test_the_name_of_the_node_goes_before_its_number(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    run.feed(INVITE, node="probe-3")
    assert lines(run, "heplify_packets_total") == [
        'heplify_packets_total{node_id="probe-3",type="sip"} 1'
    ]


def test_causes(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    reason = 'Reason: SIP;cause=200, Q.850;cause=34;text="No circuit"'
    run.feed(
        sip("BYE sip:b@b SIP/2.0", "BYE", "Reason: Q.850 ;cause=16"),
        sip("SIP/2.0 503 X", "INVITE", 'Reason: Q.850;cause=38;text="x"'),
        sip("BYE sip:b@b SIP/2.0", "BYE", reason, call="c2"),
        sip("BYE sip:b@b SIP/2.0", "BYE", "Reason: SIP;cause=200", call="c3"),
    )
    assert lines(run, "heplify_reason") == [
        'heplify_reason_isup_total{target_name="",cause="16",method="BYE"} 1',
        'heplify_reason_isup_total{target_name="",cause="38",method="503"} 1',
        'heplify_reason_isup_total{target_name="",cause="34",method="BYE"} 1',
    ]


def test_delays_are_nanoseconds_from_the_first_request_to_an_answer_to_where_it_came_from(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    there, back = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "10.0.0.2", "dst": "10.0.0.1"}
    further = {"src": "10.0.0.3", "dst": "10.0.0.2"}
    run.feed(INVITE, at=100.5, **there)
    run.feed(INVITE.replace(b"Call-ID: c1", b"Call-ID: c1_b2b-1"), at=100.6, **further)
    run.feed(RINGING.replace(b"180", b"100"), at=100.7, **back)
    run.feed(
        RINGING.replace(b"Call-ID: c1", b"Call-ID: c1_b2b-1"),
        at=101,
        src="10.0.0.2",
        dst="10.0.0.3",
    )
    run.feed(RINGING, at=101.75, **back)
    run.feed(OK, at=109, **back)
    register = sip("REGISTER sip:b SIP/2.0", "REGISTER", call="r1")
    run.feed(register, at=200, **there)
    run.feed(sip("SIP/2.0 401 X", "REGISTER", "To: <sip:a@b>;tag=9", call="r1"), at=200.1, **back)
    run.feed(sip("SIP/2.0 200 X", "REGISTER", "To: <sip:a@b>;tag=9", call="r1"), at=200.25, **back)
    assert lines(run, "heplify_kpi") == [
        'heplify_kpi_srd{target_name="",node_id="7"} 1250000000',
        'heplify_kpi_rrd{target_name="",node_id="7"} 250000000',
    ]


def test_media_as_agents_tell_of_it(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    stat = "X-RTP-Stat: CS=1500;PS=1433;PR=1522;PL=0,3;JI=23,2;DL=20,20,21"
    run.feed(sip("BYE sip:b@b SIP/2.0", "BYE", stat.replace("0,3", "0,0")))
    # R 91.3; what heplify-server gives for these numbers
    assert lines(run, "heplify_xrtp_mos") == ['heplify_xrtp_mos{target_name=""} 4.369533']
    run.feed(sip("BYE sip:b@b SIP/2.0", "BYE", stat, call="c2"))
    names = ("cs", "jir", "jis", "plr", "pls", "dle")
    assert lines(run, *(f"heplify_xrtp_{name}" for name in names)) == [
        f'heplify_xrtp_{name}{{target_name=""}} {value}'
        for name, value in zip(names, (1.5, 23, 2, 0, 3, 20), strict=True)
    ]


def test_rtcp(shipped):
    run = shipped("DO_METRIC_HEPLIFY", HOMERD_TARGETS="10.0.0.1=sbc")
    run.feed(json.dumps(RTCP).encode(), json.dumps(XR).encode(), type=5)
    labels = 'target_name="sbc",direction="src",node_id="7"'
    expected = {"fraction_lost": 12, "packets_lost": 34, "jitter": 56, "dlsr": 0}
    assert lines(run, "heplify_rtcp_") == [
        f"heplify_rtcp_{name}{{{labels}}} {value}" for name, value in expected.items()
    ]
    assert sorted(lines(run, "heplify_rtcpxr")) == sorted(
        f"heplify_rtcpxr_{name}{{{labels}}} {value}"
        for name, value in XR["report_blocks_xr"].items()
        if name != "type"
    )


def test_quality_reports(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    run.feed(VQ, type=35)
    expected = {"nlr": 5, "jdr": 2.5, "iaj": 2, "moslq": 4.2, "moscq": 127}
    assert lines(run, "heplify_vqrtcpxr") == [
        f'heplify_vqrtcpxr_{name}{{node_id="7"}} {value}' for name, value in expected.items()
    ]


def test_agents_of_rtp_and_sbcs(shipped):
    run = shipped("DO_METRIC_HEPLIFY")
    run.feed(b'{"DELTA":20.5,"JITTER":1.25,"MOS":4.3,"PACKET_LOSS":2}', type=34)
    assert lines(run, "heplify_rtpagent") == [
        f'heplify_rtpagent_{name}{{node_id="7"}} {value}'
        for name, value in (("delta", 20.5), ("jitter", 1.25), ("mos", 4.3), ("packets_lost", 2))
    ]
    report = {"NAME": "sbc1", "INC_REALM": "in", "OUT_REALM": "out"}
    report |= {"INC_MOS": 410, "OUT_MOS": 395, "INC_RVAL": 9210, "OUT_RTP_PK": 1000}
    report |= {"OUT_RTCP_MAX_LAT": 25, "INC_RTCP_AVG_LAT": 5, "INC_RTP_AVG_JITTER": 3}
    run.feed(json.dumps(report).encode(), type=38)

    def labels(direction):
        return f'{{sbc_name="sbc1",direction="{direction}",inc_realm="in",out_realm="out"}}'

    assert sorted(lines(run, "horaclifix")) == sorted(
        [
            f"horaclifix_rtp_mos{labels('inc')} 4.1",
            f"horaclifix_rtp_mos{labels('out')} 3.95",
            f"horaclifix_rtp_rval{labels('inc')} 92.1",
            f"horaclifix_rtp_packets{labels('out')} 1000",
            f"horaclifix_rtp_avg_jitter{labels('inc')} 3",
            f"horaclifix_rtcp_avg_lat{labels('inc')} 5",
            f"horaclifix_rtcp_max_lat{labels('out')} 25",
        ]
    )


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"report_blocks":[]}', b"\xff\x00", b"null"]
)
@pytest.mark.parametrize("type", [5, 34, 35, 38, 100])
def test_a_report_that_says_nothing_counts_as_a_packet(shipped, type, payload):
    run = shipped("DO_METRIC_HEPLIFY", "DO_METRIC_RTCP", "DO_STATSD")
    run.feed(payload, type=type)
    assert len(run.page("heplify_")) == 2
    assert sum(run.worker.engine.route_errors.values()) == 0


# -- the same for homerd's own names


def test_rtcp_and_quality_reports_for_all_stores(shipped):
    run = shipped("DO_PROMETHEUS", "DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_STATSD", "DO_METRIC_RTCP")
    run.feed(json.dumps(RTCP).encode(), type=5)
    run.feed(VQ, type=35)
    publish = sip("PUBLISH sip:b SIP/2.0", "PUBLISH", "Content-Type: application/vq-rtcpxr")
    run.feed(publish + VQ.replace(b"4.2", b"3.9"))
    assert run.page() == [
        "homer_rtcp_fraction_lost 12",
        "homer_rtcp_packets_lost 34",
        "homer_rtcp_jitter 56",
        "homer_rtcpxr_nlr 5",
        "homer_rtcpxr_jdr 2.5",
        "homer_rtcpxr_iaj 2",
        "homer_rtcpxr_moslq 3.9",
    ]
    expected = ["fraction_lost=12", "packets_lost=34", "jitter=56"]
    for moslq in ("4.2", "3.9"):
        expected += ["nlr=5", "jdr=2.5", "iaj=2", f"moslq={moslq}"]
    assert [line.split(" ")[1] for line in run.lines["influxdb"]] == expected
    documents = [json.loads(text) for _, _, text in run.lines["elasticsearch"]]
    assert [documents[0]["fraction_lost"], documents[-1]["moslq"]] == [12, 3.9]
    assert run.lines["statsd"][2] == "homer.rtcp.jitter:56|g\n"
    assert run.lines["statsd"][-1] == "homer.rtcpxr.moslq:3.9|g\n"


# -- reports are stored as without the hook


REPORTED = b"VQSessionReport: CallTerm\r\nCallID: c1@host\r\n"


def fed_with_reports(run):
    """What sipcapture was given of every type, with and without an id."""
    for number in (1, 2, 4, 5, *range(32, 39), 50, 99, 100, 101):
        run.feed(b'{"a":1}', REPORTED, INVITE, type=number, correlation="c1")
        run.feed(b'{"a":1}', REPORTED, type=number)
    return run.lines["sipcapture"]


@pytest.mark.parametrize("switches", [("DO_METRIC_HEPLIFY",), ("DO_METRIC_RTCP", "DO_STATSD")])
def test_reports_are_stored_with_the_hook_as_without(shipped, switches):
    records = fed_with_reports(shipped(*switches))
    assert records == fed_with_reports(shipped())
    tables = [table for table, *_ in records]
    assert (tables.count("rtcp_capture"), tables.count("logs_capture")) == (3, 3)
    # with an id all three of types 32 and 99, else SIP is none; and what names its call itself
    assert tables.count("report_capture") == 2 * 3 + 6 * 2 + 2
    # SIP of types 1, 2, 4, 50, 101, and of 33 to 38
    assert tables.count("sip_capture_call_20231114") == 5 + 6
