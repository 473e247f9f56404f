"""The metric blocks of scripts/, from packets to what each metric store is given."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from homerd.api import render_metrics
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

ROOT = Path(__file__).parent.parent.parent
HOMER = ROOT / "homer.cfg"
STORES = ("DO_PROMETHEUS", "DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_STATSD")
BLOCKS = tuple(re.findall(r"^##!define (DO_METRIC_\w+)", HOMER.read_text(), re.MULTILINE))
GEO = "DO_METRIC_GEO"  # needs a database to start


def sip(first_line, cseq, *headers, call="c1"):
    lines = [first_line, f"Call-ID: {call}", f"CSeq: 1 {cseq}", "From: <sip:a@b>;tag=1", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


INVITE = sip("INVITE sip:b@b SIP/2.0", "INVITE", "To: <sip:b@b>", "User-Agent: Phone, 1")
REINVITE = sip("INVITE sip:b@b SIP/2.0", "INVITE", "To: <sip:b@b>;tag=2", call="c0")
RINGING = sip("SIP/2.0 180 Ringing", "INVITE", "To: <sip:b@b>;tag=2")
OK = sip("SIP/2.0 200 OK", "INVITE", "To: <sip:b@b>;tag=2")
STAT = "CS=0;PS=1433;ES=1525;PR=1522;PL=0,0;EN=PCMA,FAX;JI=23,2;DL=20,20,21;IP=192.0.2.4:7082,1.1.1.1:1"
BYE = sip("BYE sip:b@b SIP/2.0", "BYE", "To: <sip:b@b>;tag=2", f"X-RTP-Stat: {STAT}")


class Shipped:
    """A worker of homer.cfg with switches on; nothing leaves it.

    lines: what the stores were given, by sink, in the order of the packets.
    """

    def __init__(self, *switches):
        self.worker = Worker(load(HOMER, defines=switches), deliver=False)
        self.lines = {}
        self.worker.route_seen = lambda route, packet, end: self._keep(packet)
        self.worker.start()

    def feed(self, *payloads, seconds=1700000000, micros=0, capture_id=7):
        for payload in payloads:
            frame = Frame(
                3,
                2,
                17,
                b"\x0a\0\0\1",
                b"\x0a\0\0\2",
                5060,
                5060,
                seconds,
                micros,
                1,
                payload=payload,
            )
            frame.capture_id = capture_id
            packet, failure = self.worker.engine.feed(frame)
            assert not isinstance(failure, Exception), failure
            self._keep(packet)

    def page(self):
        samples = self.worker.program.registry.plugin("prometheus").metrics()
        lines = render_metrics(samples).decode().splitlines()
        return [line for line in lines if line.startswith("homer_")]

    def counts(self, module):
        """What is counted and not written yet."""
        return self.worker.program.registry.plugin(module).counts.drain()

    def _keep(self, packet):
        for sink, record in packet.effects:
            self.lines.setdefault(sink.name, []).append(record)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(*switches):
        made.append(Shipped(*switches))
        return made[-1]

    yield make
    for each in made:
        each.worker.stop()


def test_there_are_blocks():
    assert len(BLOCKS) == 8


@pytest.mark.parametrize("store", [(), *((name,) for name in STORES), STORES], ids="+".join)
@pytest.mark.parametrize("blocks", [*((name,) for name in BLOCKS), BLOCKS], ids="+".join)
def test_a_block_compiles_without_a_warning_for_whatever_store(store, blocks):
    assert load(HOMER, defines=[*store, *blocks]).warnings == []


def test_each_two_blocks_go_together():
    for pair in itertools.combinations(BLOCKS, 2):
        assert load(HOMER, defines=[*STORES, *pair]).warnings == []


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


def test_how_calls_go(shipped):
    run = shipped("DO_PROMETHEUS", "DO_INFLUXDB", "DO_METRIC_KPI")
    run.feed(INVITE)
    run.feed(RINGING, OK, seconds=1700000001, micros=250000)
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
