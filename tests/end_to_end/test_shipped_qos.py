"""The quality switches of homer.cfg: what is kept, what the metric stores are given, alarms."""

from __future__ import annotations

import itertools
import json
import re
import socket
import sqlite3

import pytest
from quality_reports import RFC_REPORT, SNOM_REPORT, publish
from shipped import HOMER, STAT

from homerd.core.program import load
from homerd.wire.hep import decode

STORES = ("DO_PROMETHEUS", "DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_STATSD")
SOURCES = ("DO_QOS", "DO_RTCPXR", "DO_XRTP")
BESIDE = ("DO_METRIC_RTCP", "DO_METRIC_RTP", "DO_METRIC_HEPLIFY", "DO_ALARM_SCANNER")
SEVERAL = [chosen for size in (1, 2, 3) for chosen in itertools.combinations(SOURCES, size)]
RTCP = {
    "type": 200,
    "ssrc": 305419896,
    "sender_information": {"packets": 1000, "octets": 160000},
    "report_blocks": [
        {"source_ssrc": 7, "fraction_lost": 64, "packets_lost": 3, "ia_jitter": 160, "lsr": 0}
    ],
}
AGENT = {"RTP_SIP_CALL_ID": "c1", "JITTER": 12, "MOS": 3.9, "TOTAL_PK": 500, "PACKET_LOSS": 0}


def message(first_line, cseq, *headers, call="c1", domain="acme.example", tag=""):
    lines = [
        first_line,
        f"Call-ID: {call}",
        f"CSeq: {cseq}",
        f"From: <sip:alice@{domain}>;tag=1",
        f"To: <sip:bob@example.net>{tag}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


INVITE = message("INVITE sip:bob@example.net SIP/2.0", "1 INVITE")
OK = message("SIP/2.0 200 OK", "1 INVITE", tag=";tag=2")
MEDIA = b"v=0\r\nc=IN IP4 192.0.2.4\r\nm=audio 4000 RTP/AVP 8\r\n"
INVITE_WITH_MEDIA = (
    INVITE.replace(b"\r\n\r\n", b"\r\nContent-Type: application/sdp\r\n\r\n") + MEDIA
)
BYE = message("BYE sip:bob@example.net SIP/2.0", "2 BYE", f"X-RTP-Stat: {STAT}", tag=";tag=2")


def rows(columns, table="qos_capture"):
    with sqlite3.connect("homerd.db") as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master")]
        if table not in names:
            return []
        return store.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()


def stored(run, columns, table="qos_capture"):
    """Rows, once all is written."""
    assert run.worker.flush(20)
    return rows(columns, table)


def scored(mos, number):
    """A report of its own with a score."""
    text = SNOM_REPORT.replace("MOSLQ=4.1", f"MOSLQ={mos}").replace("825962570309", f"{number}")
    return publish(text).replace(b"k3l43id034ksererf", b"p%d" % number)


# What compiles


@pytest.mark.parametrize("chosen", SEVERAL, ids="+".join)
def test_the_switches_compile_without_a_warning(chosen):
    assert load(HOMER, defines=chosen).warnings == []


@pytest.mark.parametrize("store", STORES)
def test_the_switches_compile_without_a_warning_for_whatever_store(store):
    assert load(HOMER, defines=[*SOURCES, store]).warnings == []


@pytest.mark.parametrize("chosen", SEVERAL, ids="+".join)
def test_the_switches_go_with_other_blocks(chosen):
    defines = [*chosen, "DO_QOS_FORWARD", "DO_QOS_PUBLISH", "DO_ALARM_NOTIFY", *STORES, *BESIDE]
    assert load(HOMER, defines=defines).warnings == []


# Store and forward


def test_a_published_report_is_kept_as_it_came_and_as_rows_and_not_as_sip(shipped):
    run = shipped("DO_RTCPXR", deliver=True)
    run.feed(publish(RFC_REPORT))
    assert stored(run, "correlation_id, type, msg", "report_capture") == [
        ("6dg37f1890463", 1, publish(RFC_REPORT).decode())
    ]
    values = "call_id, tied_by, form, kind, leg, codec, mos, mos_source, jitter, loss, rtt"
    assert stored(run, values) == [
        ("6dg37f1890463", "report", "vq-rtcpxr", "session", leg, "G729", mos, "report", 2, 5, 200)
        for leg, mos in (("local", 4.2), ("remote", 4.3))
    ]
    names = stored(run, "name", "sqlite_master")
    assert [name for (name,) in names if name.startswith("sip_capture")] == []


def test_without_the_switch_a_published_report_is_sip(shipped):
    run = shipped("DO_XRTP", deliver=True)
    run.feed(publish(RFC_REPORT), at=1700000000)
    assert stored(run, "method", "sip_capture_rest_20231114") == [("PUBLISH",)]
    assert stored(run, "*") == []


@pytest.mark.parametrize(("kind", "text"), [(35, RFC_REPORT), (99, publish(RFC_REPORT).decode())])
def test_a_report_of_an_agent_that_collects_them(shipped, kind, text):
    run = shipped("DO_RTCPXR", deliver=True, HOMERD_TARGETS="198.51.100.150=sbc")
    run.feed(text.encode(), type=kind)
    column = 4 if kind == 99 else kind
    assert stored(run, "correlation_id, type, msg", "report_capture") == [
        ("6dg37f1890463", column, text)
    ]
    assert stored(run, "call_id, trunk, mos") == [
        ("6dg37f1890463", "sbc", 4.2),
        ("6dg37f1890463", "sbc", 4.3),
    ]


@pytest.mark.parametrize(("kind", "text"), [(35, RFC_REPORT), (99, publish(RFC_REPORT).decode())])
def test_values_of_such_a_report_are_of_the_domain_that_it_names(shipped, kind, text):
    run = shipped("DO_RTCPXR", "DO_INFLUXDB", HOMERD_TARGETS="198.51.100.150=sbc")
    run.feed(text.encode(), type=kind)
    (line,) = run.lines["influxdb"]
    assert "customer=example.org,trunk=sbc,form=vq-rtcpxr id=" in line


def test_headers_of_bye_become_rows_and_the_message_is_stored(shipped):
    run = shipped("DO_XRTP", deliver=True)
    run.feed(INVITE, OK, BYE, at=1700000000)
    assert stored(run, "call_id, form, kind, leg, jitter, rtt, round(mos, 2)") == [
        ("c1", "rtp-stat", "X-RTP-Stat", "local", 23, 20, 4.37),
        ("c1", "rtp-stat", "X-RTP-Stat", "remote", 2, 20, 4.41),
    ]
    assert stored(run, "method", "sip_capture_call_20231114") == [("INVITE",), ("200",), ("BYE",)]


def test_rtcp_and_reports_of_agents(shipped):
    run = shipped("DO_QOS", deliver=True)
    run.feed(json.dumps(RTCP).encode(), type=5, correlation="c1")
    run.feed(json.dumps(AGENT).encode(), type=34)
    assert stored(run, "correlation_id, type", "rtcp_capture") == [("c1", 3)]
    assert stored(run, "correlation_id, type", "report_capture") == [("c1", 34)]
    assert stored(run, "call_id, tied_by, form, leg, loss, jitter, packets") == [
        ("c1", "correlation_id", "rtcp-json", "local", 25, 20, None),
        ("c1", "correlation_id", "rtcp-json", "remote", None, None, 1000),
        ("c1", "report", "rtp-agent", "local", 0, 12, 500),
    ]


def test_rtcp_without_an_id_belongs_to_the_call_whose_media_flow_there(shipped):
    run = shipped("DO_QOS", "DO_METRIC_RTCP", deliver=True)
    run.feed(INVITE_WITH_MEDIA, OK)
    run.feed(json.dumps(RTCP).encode(), type=5, src="10.0.0.9", dst="192.0.2.4", dst_port=4001)
    assert stored(run, "call_id, tied_by, leg") == [("c1", "sdp", "local"), ("c1", "sdp", "remote")]
    assert stored(run, "correlation_id", "rtcp_capture") == [("c1",)]


def test_a_report_of_no_known_call_is_stored_and_found_as_such(shipped):
    run = shipped("DO_QOS", deliver=True)
    run.feed(json.dumps(RTCP).encode(), type=5)
    assert stored(run, "call_id, tied_by, leg") == [("", "", "local"), ("", "", "remote")]
    assert stored(run, "correlation_id, msg", "rtcp_capture") == [("", json.dumps(RTCP))]


def test_what_is_no_quality_report_goes_where_it_goes_without_the_switches(shipped):
    run = shipped(*SOURCES, deliver=True)
    run.feed(b"a line", type=100, correlation="c1")
    run.feed(b"of no call", type=100)
    run.feed(b'{"x": 1}', type=32, correlation="c1")
    run.feed(INVITE, type=2, at=1700000000)
    run.feed(INVITE, type=34, at=1700000000)
    assert stored(run, "correlation_id, msg", "logs_capture") == [("c1", "a line")]
    assert stored(run, "correlation_id, type, msg", "report_capture") == [("c1", 2, '{"x": 1}')]
    assert stored(run, "method", "sip_capture_call_20231114") == [("INVITE",)] * 2
    assert stored(run, "*") == []


def test_reports_are_forwarded_as_they_came(shipped):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(20)
        target = f"udp:127.0.0.1:{other.getsockname()[1]}"
        run = shipped(*SOURCES, "DO_QOS_FORWARD", deliver=True, HOMERD_QOS_TARGET=target)
        text = json.dumps(RTCP).encode()
        run.feed(INVITE)
        run.feed(text, type=5, correlation="c1")
        run.feed(publish(RFC_REPORT))
        assert run.worker.flush(20)
        found = [decode(other.recv(65535)) for _ in range(2)]
    assert [(frame.payload_type, frame.correlation_id, frame.payload) for frame in found] == [
        (5, "c1", text),
        (1, None, publish(RFC_REPORT)),
    ]


def test_reports_are_made_of_rtcp_and_sent(shipped):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(20)
        target = f"hep:127.0.0.1:{other.getsockname()[1]}"
        run = shipped("DO_QOS_PUBLISH", deliver=True, HOMERD_QOS_COLLECTOR=target)
        run.feed(INVITE_WITH_MEDIA)
        run.feed(OK)
        run.feed(json.dumps(RTCP).encode(), type=5, correlation="c1")
        run.feed(BYE)
        run.worker.stop()
        frame = decode(other.recv(65535))
    assert (frame.payload_type, frame.correlation_id) == (35, "c1")
    told = frame.payload.decode().splitlines()
    assert told[:2] == ["VQSessionReport: CallTerm", "CallID:c1"]
    assert {"PacketLoss:NLR=25.0", "Delay:IAJ=20"} <= set(told)


# Values


def test_values_of_a_report_in_every_store(shipped):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(20)
        port = f'\nmodparam("statsd", "port", "{statsd.getsockname()[1]}")\n'
        run = shipped(
            "DO_RTCPXR", "DO_STATSD", deliver=True, more=port, HOMERD_TARGETS="10.0.0.2=sbc"
        )
        run.feed(publish(RFC_REPORT))
        assert run.worker.flush(20)
        assert [statsd.recv(2000) for _ in range(8)] == [
            b"homer.qos.customer.acme_example.mos:4.20|g\n",
            b"homer.qos.customer.acme_example.jitter:2|g\n",
            b"homer.qos.customer.acme_example.loss:5.00|g\n",
            b"homer.qos.customer.acme_example.rtt:200|g\n",
            b"homer.qos.trunk.sbc.mos:4.20|g\n",
            b"homer.qos.trunk.sbc.jitter:2|g\n",
            b"homer.qos.trunk.sbc.loss:5.00|g\n",
            b"homer.qos.trunk.sbc.rtt:200|g\n",
        ]
    others = shipped(*SOURCES, *STORES[:3], HOMERD_TARGETS="10.0.0.2=sbc")
    others.feed(publish(RFC_REPORT))
    page = others.page("homer_qos_")
    labels = 'customer="acme.example",trunk="sbc"'
    assert [line for line in page if "_bucket" not in line] == [
        f"homer_qos_mos_sum{{{labels}}} 4.2",
        f"homer_qos_mos_count{{{labels}}} 1",
        f"homer_qos_loss_ratio_sum{{{labels}}} 0.05",
        f"homer_qos_loss_ratio_count{{{labels}}} 1",
        f"homer_qos_jitter_seconds_sum{{{labels}}} 0.002",
        f"homer_qos_jitter_seconds_count{{{labels}}} 1",
        f"homer_qos_rtt_seconds_sum{{{labels}}} 0.2",
        f"homer_qos_rtt_seconds_count{{{labels}}} 1",
    ]
    assert f'homer_qos_mos_bucket{{{labels},le="4.25"}} 1' in page
    assert f'homer_qos_mos_bucket{{{labels},le="4"}} 0' in page
    (line,) = others.lines["influxdb"]
    assert re.sub(r"host=[^,]*", "host=H", line) == (
        "stats_qos,host=H,customer=acme.example,trunk=sbc,form=vq-rtcpxr "
        'id="6dg37f1890463",codec="G729",mos=4.2,jitter=2,loss=5,rtt=200 1700000000000000'
    )
    ((_, _, text),) = others.lines["elasticsearch"]
    document = json.loads(text)
    names = ("customer", "trunk", "form", "id", "codec", "mos", "jitter", "loss", "rtt")
    assert [document[name] for name in names] == [
        *("acme.example", "sbc", "vq-rtcpxr", "6dg37f1890463", "G729"),
        *(4.2, 2, 5, 200),
    ]


def test_values_of_rtcp_are_those_of_the_calls_customer_and_trunk(shipped):
    run = shipped("DO_QOS", "DO_INFLUXDB", "DO_ELASTICSEARCH", HOMERD_TARGETS="10.0.0.2=sbc")
    run.feed(INVITE, OK)
    run.feed(json.dumps(RTCP).encode(), type=5, correlation="c1", src="10.9.9.9", dst="10.9.9.8")
    (line,) = run.lines["influxdb"]
    assert ",customer=acme.example,trunk=sbc,form=rtcp-json " in line
    # of the packet's time, though the event route sees the datagram around it
    assert line.endswith(' id="c1",jitter=20,loss=25 1700000000000000')
    ((index, _, _),) = run.lines["elasticsearch"]
    assert index == "homerd-stats-qos-2023.11.14"


def test_a_call_is_forgotten_when_it_is_refused_and_after_its_end(shipped):
    run = shipped("DO_QOS", "DO_INFLUXDB")
    table = run.worker.program.registry.plugin("htable").tables["qos_calls"]
    run.feed(INVITE)
    assert round(table.seconds_left("c1")) == 180
    run.feed(OK)
    assert round(table.seconds_left("c1")) == 14400
    run.feed(BYE)
    assert round(table.seconds_left("c1")) == 60


def test_the_customer_is_what_the_operator_says(shipped):
    run = shipped(*SOURCES, "DO_INFLUXDB", HOMERD_CUSTOMER="$hdr(X-Customer)")
    run.feed(INVITE.replace(b"To:", b"X-Customer: Globex\r\nTo:"), OK, BYE)
    (line,) = run.lines["influxdb"]
    assert ",customer=Globex,form=rtp-stat " in line


def test_a_caller_cannot_say_which_trunk_he_came_by(shipped):
    run = shipped(*SOURCES, "DO_INFLUXDB", HOMERD_TARGETS="10.9.9.9=sbc")
    run.feed(INVITE.replace(b"acme.example", b"acme.example/sbc/x"), OK, BYE)
    (line,) = run.lines["influxdb"]
    assert ",customer=acme.example/sbc/x,form=rtp-stat " in line


def test_a_message_that_comes_again_counts_once(shipped):
    run = shipped(*SOURCES, "DO_INFLUXDB")
    run.feed(publish(RFC_REPORT), publish(RFC_REPORT), BYE, BYE)
    assert len(run.lines["influxdb"]) == 2
    tables = [table for table, *_ in run.lines["qos"] + run.lines["sipcapture"]]
    assert tables.count("qos_capture") == 4
    assert tables.count("report_capture") == 2


def test_a_report_that_tells_nothing_is_a_row_and_no_value(shipped):
    run = shipped("DO_RTCPXR", "DO_INFLUXDB", "DO_ELASTICSEARCH")
    run.feed(publish("VQSessionReport: CallTerm\r\nCallID: c1\r\nLocalMetrics:\r\n"))
    assert [table for table, *_ in run.lines["qos"]] == ["qos_capture"]
    assert run.lines.keys().isdisjoint({"influxdb", "elasticsearch"})
    assert sum(run.worker.engine.route_errors.values()) == 0


def test_the_other_blocks_say_what_they_say_alone(shipped):
    def fed(*switches):
        run = shipped("DO_PROMETHEUS", *BESIDE, *switches)
        run.feed(INVITE, OK, publish(RFC_REPORT), BYE)
        run.feed(json.dumps(RTCP).encode(), type=5, correlation="c1")
        run.feed(RFC_REPORT.encode(), type=35, correlation="c1")
        assert sum(run.worker.engine.route_errors.values()) == 0
        page = run.page("h")
        return [each for each in page if not each.startswith(("homer_qos_", "homerd_"))]

    assert fed(*SOURCES) == fed() != []


# Alarms


def told(run):
    """Rows of alarm_data: name, what it is about, whether it was raised."""
    table = stored(run, "type, description, status", "alarm_data")
    return [(name, text.partition(":")[0], status) for name, text, status in table]


def test_a_score_that_falls_raises_one_alarm_which_clears_above_where_it_was_raised(shipped):
    run = shipped("DO_RTCPXR", deliver=True, HOMERD_TARGETS="10.0.0.2=sbc")
    numbers = itertools.count()

    def hear(*scores):
        run.feed(*(scored(each, next(numbers)) for each in scores))
        run.worker.advance(2)
        return told(run)

    raised = [("qos_mos", "sbc", 1)]
    assert hear("2.0", "2.0") == []  # three at least
    assert hear("2.0") == raised
    assert hear("2.0", "2.0") == raised
    # mean 3.2: above where it was raised, not yet where it clears
    assert hear(*["4.4"] * 5) == raised
    # mean 3.8
    assert hear(*["4.4"] * 10) == [*raised, ("qos_mos", "sbc", 0)]
    # mean 3.5: below where it cleared, not yet where it is raised
    assert hear(*["2.0"] * 4) == [*raised, ("qos_mos", "sbc", 0)]


def test_jitter_raises_an_alarm_by_user_agent_where_there_is_no_trunk(shipped):
    run = shipped("DO_RTCPXR", deliver=True)
    late = SNOM_REPORT.replace("IAJ=0", "IAJ=80")
    for number in range(3):
        run.feed(publish(late).replace(b"k3l43id034ksererf", b"p%d" % number))
    run.worker.advance(2)
    assert told(run) == [("qos_jitter", "snom821/873_19_20130321", 1)]
    # five minutes later no value is left
    run.worker.advance(400)
    assert told(run)[1:] == [("qos_jitter", "snom821/873_19_20130321", 0)]


def test_the_packets_that_raised_an_alarm_are_kept(shipped):
    run = shipped("DO_QOS", deliver=True, HOMERD_TARGETS="10.0.0.2=sbc")
    late = {**RTCP, "report_blocks": [{**RTCP["report_blocks"][0], "ia_jitter": 800}]}
    for _ in range(3):
        run.feed(json.dumps(late).encode(), type=5, correlation="c1")
    run.worker.advance(2)
    assert told(run) == [("qos_jitter", "sbc", 1)]
    assert len(stored(run, "*", "alarm_evidence")) == 3


def test_thresholds_are_the_operators(shipped):
    run = shipped("DO_RTCPXR", deliver=True, HOMERD_MOS_ALARM="raise=4.15;clear=4.3")
    run.feed(*(scored("4.1", number) for number in range(3)))
    run.worker.advance(2)
    assert [(name, status) for name, _, status in told(run)] == [("qos_mos", 1)]
