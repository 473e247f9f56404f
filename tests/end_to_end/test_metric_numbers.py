"""The metric blocks of scripts/: their numbers by hand, the same in every metric store."""

from __future__ import annotations

import json
import re

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from shipped import INVITE, Shipped, sip

STORES = ("DO_PROMETHEUS", "DO_INFLUXDB", "DO_ELASTICSEARCH", "DO_STATSD")
WITHIN, WITHOUT = "To: <sip:b@b>;tag=2", "To: <sip:b@b>"


def request(method, call, number=1, to=WITHOUT, *headers):
    return sip(f"{method} sip:b@b SIP/2.0", method, to, *headers, call=call, number=number)


def reply(status, call, number=1, method="INVITE", *headers):
    return sip(f"SIP/2.0 {status} X", method, WITHIN, *headers, call=call, number=number)


def told(run, metric):
    """What each store was given of a metric, by field: Prometheus, InfluxDB, Elasticsearch, statsd."""
    page = (line.split(" ") for line in run.page(f"homer_{metric}_"))
    prometheus = {
        name.removeprefix(f"homer_{metric}_"): float(value)
        for name, value in page
        if "{" not in name
    }
    influx, elastic, statsd = {}, {}, {}
    for line in run.lines["influxdb"]:
        series, fields, _ = line.split(" ")
        if series.startswith(f"stats_{metric},"):
            field, value = fields.split("=")
            influx[field] = float(value)
    for index, _, text in run.lines["elasticsearch"]:
        if index.startswith(f"homerd-stats-{metric}-"):
            document = json.loads(text)
            elastic |= {name: document[name] for name in document.keys() - {"@timestamp", "host"}}
    for line in run.lines["statsd"]:
        found = re.fullmatch(rf"homer\.{metric}\.(\w+):(.*)\|g\n", line)
        if found:
            statsd[found[1]] = float(found[2])
    return prometheus, influx, elastic, statsd


@pytest.mark.parametrize(
    ("calls", "asr", "ner", "sdr"),
    [
        # attempts (INVITEs that begin a call, less those asked to authenticate), answered, user's own
        ([[200]], 100, 100, 0),
        ([[407, 200]], 100, 100, 0),  # 2 - 1, 1
        ([[200], [486], [487], [603], [503], [404], [480], [408]], 12.5, 50, 0),  # 8, 1, 3
        ([[407, 200], [401, 486], [500]], 33.33, 66.66, 0),  # 5 - 2, 1, 1
        ([[183, 180, 200], [180, 487], [600]], 33.33, 66.66, 0),  # 3, 1, 1
        ([[503], [500]], 0, 0, None),  # 2, 0, 0: nothing was answered, so no ratio of defects
    ],
)
def test_kpi_of_a_minute(shipped, calls, asr, ner, sdr):
    run = shipped(*STORES, "DO_METRIC_KPI")
    for number, statuses in enumerate(calls):
        call, cseq = f"c{number}", 1
        run.feed(request("INVITE", call, cseq))
        for status in statuses:
            run.feed(reply(status, call, cseq))
            if status in (401, 407):
                cseq += 1
                run.feed(request("INVITE", call, cseq))
    run.worker.advance(60)
    expected = {"asr": asr, "ner": ner} | ({} if sdr is None else {"sdr": sdr})
    for numbers in told(run, "kpi"):
        assert {name: numbers[name] for name in numbers if name != "srd"} == {
            **({"sdr": 0} if sdr is None and "sdr" in numbers else {}),
            **expected,
        }


def test_what_happens_within_a_call_is_no_call(shipped):
    run = shipped(*STORES, "DO_METRIC_KPI")
    run.feed(request("INVITE", "c1"), reply(200, "c1"))
    run.feed(request("INVITE", "c1", 2, WITHIN), reply(407, "c1", 2))
    run.feed(request("INVITE", "c1", 3, WITHIN), reply(200, "c1", 3))
    run.feed(request("INVITE", "c2"), reply(503, "c2"))
    run.feed(reply(200, "unheard-of"))
    run.worker.advance(60)
    for numbers in told(run, "kpi"):
        assert (numbers["asr"], numbers["ner"]) == (50, 50)


@pytest.mark.parametrize(
    ("causes", "sdr"),
    [
        (("cause=16",), 0),
        (("cause=17", "cause=38"), 50),
        (("cause=127;text=x", "cause=16 ;text=y", "cause=161", "cause=1"), 75),
    ],
)
def test_defects_are_of_the_answered_calls(shipped, causes, sdr):
    run = shipped(*STORES, "DO_METRIC_KPI")
    for number, cause in enumerate(causes):
        call = f"c{number}"
        run.feed(request("INVITE", call), reply(200, call))
        run.feed(request("BYE", call, 2, WITHIN, f"Reason: Q.850;{cause}"))
    run.worker.advance(60)
    assert [numbers["sdr"] for numbers in told(run, "kpi")] == [sdr] * 4


@pytest.mark.parametrize(
    ("messages", "srd"),
    [
        # milliseconds from the first INVITE of the call to the first 18x or 200
        ([(0, "INVITE", 1), (0.1, 100, 1), (0.75, 180, 1), (4, 200, 1)], 750),
        ([(0, "INVITE", 1), (2.001, 200, 1)], 2001),
        ([(0, "INVITE", 1), (0.05, 407, 1), (0.1, "INVITE", 2), (1.25, 183, 2)], 1250),
        ([(0, "INVITE", 1), (1, 486, 1)], None),
        ([(0, "INVITE", 1), (-1, 180, 1)], None),  # two agents' clocks
    ],
)
def test_the_delay_until_it_rings(shipped, messages, srd):
    run = shipped(*STORES, "DO_METRIC_KPI")
    for after, what, cseq in messages:
        made = request(what, "c1", cseq) if what == "INVITE" else reply(what, "c1", cseq)
        run.feed(made, at=1700000000 + after)
    run.worker.advance(60)
    prometheus, *others = told(run, "kpi") if srd or run.lines else ({},)
    assert [numbers.get("srd") for numbers in others] == [srd] * 3
    assert prometheus.get("srd") == srd


STAT = "CS=0;PS=1433;PR=1522;PL=10,5;EN=PCMA,FAX;JI=23,2;DL=20,20,21;IP=192.0.2.4:7082,1.1.1.1:1"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        # 15 of 2955 packets: 0.507 %; 2 x 23 + 20 + 10 = 76: R = 93.2 - 1.9 - 1.2675 = 90.0325 (90.033)
        ((f"X-RTP-Stat: {STAT}",), {"jitter": 23, "delay": 20, "lost": 0.507, "mos": 4.34}),
        # in the form with commas: 2 x 2 + 20 + 10 = 34: R = 92.35
        (
            ("X-RTP-Stat: PS=100,OS=16000,PR=100,OR=16000,PL=0,JI=2,LA=20",),
            {"jitter": 2, "delay": 20, "lost": 0, "mos": 4.392},
        ),
        (
            ("P-RTP-Stat: PS=1433,OS=229280,PR=1522,OR=243520,PL=0,JI=2,LA=20,DU=28",),
            {"jitter": 2, "delay": 20, "lost": 0, "mos": 4.392},
        ),
        (
            ("X-Siemens-RTP-stats: PS=50;PR=50;PL=50;JI=2;LA=20",),
            {"jitter": 2, "delay": 20, "lost": 50, "mos": 1},
        ),
        # 16 units of 1/8000 s are 2 ms; no round trip: 2 x 2 + 10 = 14: R = 92.85
        (
            (
                "RTP-RxStat: Dur=28,Pkt=1522,Oct=243520,LatePkt=0,LostPkt=0,AvgJit=16",
                "RTP-TxStat: Dur=28,Pkt=1433,Oct=229280",
            ),
            {"jitter": 2, "lost": 0, "mos": 4.402},
        ),
        (("X-RTP-Stat-Add: DQ=43;DSS=0",), {"quality": 4.3}),
        # X-RTP-Stat goes before the others
        (
            (
                "P-RTP-Stat: PS=1,PR=1,PL=1,JI=9",
                f"X-RTP-Stat: {STAT}",
                "X-RTP-Stat-Add: DSS=1;DQ=31",
            ),
            {"jitter": 23, "delay": 20, "lost": 0.507, "mos": 4.34, "quality": 3.1},
        ),
        (("X-RTP-Stat: CS=0;PS=-;PR=-;JI=-",), {}),
        (("X-RTP-Stat: PS=0;PR=0;JI=0,0",), {}),
        (("X-RTP-Stat-T38: FP=1",), {}),
    ],
)
@pytest.mark.parametrize("status", [None, 200])
def test_media_as_agents_tell_of_it(shipped, headers, expected, status):
    run = shipped(*STORES, "DO_METRIC_RTP", "DO_METRIC_METHOD")
    if status is None:
        run.feed(request("BYE", "c1", 2, WITHIN, *headers))
    else:
        run.feed(reply(status, "c1", 2, "BYE", *headers), request("INVITE", "c1"))
    run.worker.advance(60)
    for store in ("influxdb", "elasticsearch"):
        run.lines.setdefault(store, [])
    for numbers in told(run, "xrtp"):
        assert {name: round(value, 3) for name, value in numbers.items()} == expected


def test_what_is_told_while_the_call_lasts_does_not_count(shipped):
    run = shipped(*STORES, "DO_METRIC_RTP")
    run.feed(request("INFO", "c1", 2, WITHIN, f"X-RTP-Stat: {STAT}"))
    assert run.lines.keys() == {"sipcapture"}


def test_errors_each_with_its_call(shipped):
    run = shipped(*STORES, "DO_METRIC_ERRORS")
    run.feed(
        *(reply(status, f"c{status}") for status in (180, 200, 302, 401, 404, 407, 486, 503, 603)),
        reply(403, "r1", 1, "REGISTER"),
        reply(401, "r1", 2, "REGISTER"),
    )
    assert run.page() == [
        'homer_4xx_total{response="404",method="INVITE"} 1',
        'homer_4xx_total{response="486",method="INVITE"} 1',
        'homer_4xx_total{response="403",method="REGISTER"} 1',
        'homer_5xx_total{response="503",method="INVITE"} 1',
        'homer_6xx_total{response="603",method="INVITE"} 1',
        'homer_regerr_total{response="403",method="REGISTER"} 1',
    ]
    assert run.lines["statsd"] == [
        "homer.4xx.404.INVITE:1|c\n",
        "homer.4xx.486.INVITE:1|c\n",
        "homer.5xx.503.INVITE:1|c\n",
        "homer.6xx.603.INVITE:1|c\n",
        "homer.4xx.403.REGISTER:1|c\n",
        "homer.regerr.403.REGISTER:1|c\n",
    ]
    points = [re.sub("host=[^,]*", "host=H", line) for line in run.lines["influxdb"]]
    fields = 'from="a",to="b",srcIP="10.0.0.1",dstIP="10.0.0.2",value=1 1700000000000000'
    assert points[0] == f'stats_4xx,host=H,response=404,method=INVITE id="c404",{fields}'
    assert points[5] == f'stats_regerr,host=H,response=403,method=REGISTER id="r1",{fields}'
    index, _, text = run.lines["elasticsearch"][2]
    document = json.loads(text)
    assert (index, document.pop("host", "") != "") == ("homerd-stats-5xx-2023.11.14", True)
    assert document == {
        "@timestamp": "2023-11-14T22:13:20.000000Z",
        "response": "503",
        "method": "INVITE",
        "id": "c503",
        "from": "a",
        "to": "b",
        "srcIP": "10.0.0.1",
        "dstIP": "10.0.0.2",
        "value": 1,
    }


@pytest.fixture(scope="module")
def countries(tmp_path_factory):
    """A MaxMind database of two countries."""
    writer = MMDBWriter(6, "GeoLite2-Country", ipv4_compatible=True)
    writer.insert_network(IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "DE"}})
    writer.insert_network(IPSet(["2001:db8::/32"]), {"country": {"iso_code": "SE"}})
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"continent": {"code": "EU"}})
    path = tmp_path_factory.mktemp("geo") / "countries.mmdb"
    writer.to_db_file(str(path))
    return path


def test_countries(shipped, countries):
    run = shipped(*STORES, "DO_METRIC_GEO", HOMERD_GEO_DB=countries)
    for number, address in enumerate(["192.0.2.9", "192.0.2.8", "198.51.100.1", "10.0.0.1"]):
        run.feed(request("INVITE", f"c{number}"), src=address)
    run.feed(request("REGISTER", "r1"), request("OPTIONS", "o1"), src="192.0.2.9")
    run.feed(reply(200, "c1"), src="192.0.2.9")
    counted = {("DE", "INVITE"): 2, ("unknown", "INVITE"): 2, ("DE", "REGISTER"): 1}
    assert run.page() == [
        f'homer_geo_total{{country="{country}",method="{method}"}} {count}'
        for (country, method), count in counted.items()
    ]
    assert run.counts("elasticsearch") == {
        ("stats-geo", (("country", country), ("method", method))): count
        for (country, method), count in counted.items()
    }
    assert [
        re.sub("host=[^,]*", "host=H", key) + f" {count}"
        for key, count in run.counts("influxdb").items()
    ] == [
        f"stats_geo,host=H,country={country},method={method} {count}"
        for (country, method), count in counted.items()
    ]
    assert run.lines["statsd"] == [
        *["homer.geo.DE.INVITE:1|c\n"] * 2,
        *["homer.geo.unknown.INVITE:1|c\n"] * 2,
        "homer.geo.DE.REGISTER:1|c\n",
    ]


def test_the_same_call_in_real_stores(
    tmp_path, monkeypatch, influx_v1, elasticsearch, statsd, countries
):
    monkeypatch.chdir(tmp_path)
    blocks = ("KPI", "METHOD", "ERRORS", "RTP", "GEO", "USERAGENT")
    run = Shipped(
        *STORES,
        *(f"DO_METRIC_{block}" for block in blocks),
        deliver=True,
        more='modparam("influxdb", "version", 1)\nmodparam("elasticsearch", "timeout", 30)\n'
        f'modparam("statsd", "port", "{statsd.port}")\n',
        HOMERD_INFLUXDB_URL=influx_v1.url,
        HOMERD_ELASTICSEARCH_URL=elasticsearch.url,
        HOMERD_GEO_DB=countries,
    )
    run.feed(INVITE, request("INVITE", "c2"), src="192.0.2.9")
    run.feed(reply(200, "c1"), reply(503, "c2"), at=1700000001.5)
    run.feed(request("BYE", "c1", 2, WITHIN, "Reason: Q.850;cause=38", f"X-RTP-Stat: {STAT}"))
    run.worker.advance(60)
    run.worker.stop()
    assert sum(sink.rejected + sink.dropped for sink in run.worker.sinks) == 0

    page = run.page()
    for name, value in (("asr", 50), ("ner", 50), ("sdr", 100), ("srd", 1500)):
        told_influx = influx_v1.rows(f"SELECT {name} FROM stats_kpi")
        assert [row[name] for row in told_influx] == [value]
        told_elastic = elasticsearch.of("homerd-stats-kpi-*")
        assert [each[name] for each in told_elastic if name in each] == [value]
        told_statsd = statsd.wait_for("gauges", f"homer.kpi.{name}")
        assert float(told_statsd[f"homer.kpi.{name}"]) == value
        assert f"homer_kpi_{name} {value}" in page
    (mos,) = influx_v1.rows("SELECT mos FROM stats_xrtp")
    assert round(mos["mos"], 3) == 4.34
    (error,) = influx_v1.rows("SELECT * FROM stats_5xx")
    assert (error["response"], error["id"], error["srcIP"]) == ("503", "c2", "10.0.0.1")
    counts = influx_v1.rows("SELECT method, value FROM stats_method")
    assert {row["method"]: row["value"] for row in counts} == {"INVITE": 2, "BYE": 1}
    (country,) = elasticsearch.of("homerd-stats-geo-*")
    assert (country["country"], country["method"], country["value"]) == ("DE", "INVITE", 2)
    (agent,) = elasticsearch.of("homerd-stats-useragent-*")
    assert (agent["useragent"], agent["value"]) == ("Phone, 1", 1)
    counters = statsd.wait_for("counters", "homer.method.BYE")
    assert counters["homer.method.INVITE"] == "2"
    assert counters["homer.5xx.503.INVITE"] == "1"
