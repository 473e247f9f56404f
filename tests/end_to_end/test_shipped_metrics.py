"""The metric blocks of scripts/, from packets to what each metric store is given."""

from __future__ import annotations

import json
import re

import pytest
from shipped import BYE, HOMER, INVITE, OK, REINVITE, RINGING, sip

from homerd.core.program import load

STORES = ("DO_PROMETHEUS", "DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_STATSD")
BLOCKS = tuple(re.findall(r"^##!define (DO_METRIC_\w+)", HOMER.read_text(), re.MULTILINE))
GEO = "DO_METRIC_GEO"  # needs a database to start


def test_there_are_blocks():
    assert len(BLOCKS) == 11


@pytest.mark.parametrize("store", [(), *((name,) for name in STORES), STORES], ids="+".join)
@pytest.mark.parametrize("blocks", [*((name,) for name in BLOCKS), BLOCKS], ids="+".join)
def test_a_block_compiles_without_a_warning_for_whatever_store(store, blocks):
    assert load(HOMER, defines=[*store, *blocks]).warnings == []


@pytest.mark.parametrize("without", BLOCKS)
def test_all_blocks_but_one_go_together(without):
    blocks = [block for block in BLOCKS if block != without]
    assert load(HOMER, defines=[*STORES, *blocks]).warnings == []


def test_methods_and_responses_for_prometheus(shipped):
    run = shipped("DO_PROMETHEUS", "DO_METRIC_METHOD", "DO_METRIC_RESPONSE")
    run.feed(INVITE, INVITE, REINVITE, RINGING, OK, BYE, OK.replace(b"CSeq: 1", b"CSeq: 181"))
    assert run.page() == [
        'homer_method_total{method="INVITE"} 1',
        'homer_method_total{method="REINVITE"} 1',
        'homer_method_total{method="BYE"} 1',
        'homer_response_method_total{response="180",method="INVITE"} 1',
        'homer_response_method_total{response="200",method="INVITE"} 2',
    ]


def test_a_message_counts_again_once_it_may_be_another(shipped):
    run = shipped("DO_PROMETHEUS", "DO_METRIC_METHOD")
    run.feed(INVITE, INVITE)
    run.worker.advance(40)
    run.feed(INVITE)
    assert run.page() == ['homer_method_total{method="INVITE"} 2']


def test_user_agents_for_influxdb_and_elasticsearch(shipped):
    run = shipped("DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_METRIC_USERAGENT")
    run.feed(INVITE, BYE)
    ((key, count),) = run.counts("influxdb").items()
    assert (
        re.sub(r"host=[^,]*", "host=H", key)
        == r"stats_useragent,host=H,useragent=Phone\,\ 1,method=INVITE"
    )
    assert count == 1
    assert run.counts("elasticsearch") == {
        ("stats-useragent", (("useragent", "Phone, 1"), ("method", "INVITE"))): 1
    }


def test_methods_for_statsd(shipped):
    run = shipped("DO_STATSD", "DO_METRIC_METHOD", "DO_METRIC_USERAGENT", "DO_METRIC_PACKETS")
    run.feed(INVITE)
    assert run.lines["statsd"] == [
        "homer.packets.7:1|c\n",
        f"homer.packets.size:{len(INVITE)}|h\n",
        "homer.method.INVITE:1|c\n",
        "homer.useragent.Phone_1.INVITE:1|c\n",
    ]


def test_packets_count_again_and_again(shipped):
    run = shipped("DO_PROMETHEUS", "DO_METRIC_PACKETS")
    run.feed(INVITE, INVITE, OK)
    assert run.page() == [
        'homer_packets_total{capture_id="7"} 3',
        f'homer_packet_bytes_total{{capture_id="7"}} {2 * len(INVITE) + len(OK)}',
    ]


def test_scanners(shipped):
    run = shipped("DO_PROMETHEUS", "DO_METRIC_MALICIOUS")
    run.feed(INVITE, INVITE.replace(b"Phone, 1", b"friendly-scanner").replace(b"c1", b"c2"))
    assert run.page() == [
        'homer_malicious_total{useragent="friendly-scanner",source_ip="10.0.0.1"} 1'
    ]


def test_scanners_are_those_that_the_operator_names_for_every_block(shipped):
    switches = ("DO_PROMETHEUS", "DO_METRIC_MALICIOUS", "DO_DROP_SCANNERS", "DO_ALARM_SCANNER")
    run = shipped(*switches, HOMERD_SCANNERS="^Phone, 1|evil")
    run.feed(INVITE, INVITE.replace(b"Phone, 1", b"friendly-scanner").replace(b"c1", b"c2"))
    run.worker.advance(2)
    assert run.page() == ['homer_malicious_total{useragent="Phone, 1",source_ip="10.0.0.1"} 1']
    assert [record[2][13] for record in run.lines["sipcapture"]] == ["c2"]
    assert [record[2][1] for record in run.lines["alarm"] if record[0] == "alarm_data"] == [
        "scanner"
    ]


def test_how_calls_go(shipped):
    run = shipped("DO_PROMETHEUS", "DO_INFLUXDB", "DO_METRIC_KPI")
    run.feed(INVITE)
    run.feed(RINGING, OK, at=1700000001.25)
    for number, status in enumerate(("401 No", "486 Busy", "503 No", "404 No"), 2):
        call = f"c{number}".encode()
        run.feed(
            INVITE.replace(b"c1", call), OK.replace(b"c1", call).replace(b"200 OK", status.encode())
        )
    run.feed(BYE.replace(b"X-RTP-Stat", b"Reason: Q.850;cause=127\r\nX-RTP-Stat"))
    run.worker.advance(60)
    # five calls, one of them asked to authenticate; one answered, one busy; one ended with a defect
    page = run.page()
    assert [line for line in page if line.startswith("homer_kpi")] == [
        "homer_kpi_asr 25",
        "homer_kpi_ner 50",
        "homer_kpi_sdr 100",
        "homer_kpi_srd 1250",
    ]
    assert "homer_srd_seconds_count 1" in page
    assert "homer_srd_seconds_sum 1.25" in page
    told = [line.split(" ") for line in run.lines["influxdb"]]
    assert [fields for _, fields, _ in told] == ["srd=1250", "asr=25", "ner=50", "sdr=100"]
    assert told[0][2] == "1700000001250000"


@pytest.mark.parametrize("cause", ["16", "17"])
def test_a_call_that_ends_as_calls_do_is_no_defect(shipped, cause):
    run = shipped("DO_STATSD", "DO_METRIC_KPI")
    reason = f"Reason: Q.850;cause={cause};text=x\r\nX-RTP-Stat".encode()
    run.feed(INVITE, OK, BYE.replace(b"X-RTP-Stat", reason))
    run.worker.advance(60)
    assert run.lines["statsd"][1:] == [
        "homer.kpi.asr:10000e-2|g\n",
        "homer.kpi.ner:10000e-2|g\n",
        "homer.kpi.sdr:0e-2|g\n",
    ]


def test_what_phones_say_of_their_media(shipped):
    run = shipped("DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_METRIC_RTP")
    run.feed(BYE, sip("BYE sip:b@b SIP/2.0", "BYE", "X-RTP-Stat: nothing of use", call="c9"))
    fields = [line.split(" ")[1] for line in run.lines["influxdb"]]
    assert fields == ["jitter=23", "delay=20", "lost=0", "mos=4.369533"]
    documents = [json.loads(text) for _, _, text in run.lines["elasticsearch"]]
    assert documents[3]["mos"] == 4.369533


def test_every_switch_at_once_routes_a_call(shipped):
    run = shipped(*STORES, *(block for block in BLOCKS if block != GEO))
    run.feed(INVITE, RINGING, OK, REINVITE, BYE)
    run.worker.advance(60)
    refused = [
        sample
        for name in ("prometheus", "influxdb", "elasticsearch")
        for sample in run.worker.program.registry.plugin(name).metrics()
        if sample.name.endswith(("_refused_total", "_over_budget_total")) and sample.value
    ]
    assert refused == []
    assert sum(run.worker.engine.route_errors.values()) == 0
