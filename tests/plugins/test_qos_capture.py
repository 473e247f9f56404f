"""qos_capture(): rows of quality reports in real stores, and histograms of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from frames import ethernet, ipv4, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from homerd import testing
from homerd.cli import main
from homerd.errors import ConfigError
from homerd.wire import qos
from homerd_plugins._qos_calls import Tie, Told
from homerd_plugins._qos_metrics import MOST_SETS, QosHistograms
from homerd_plugins._qos_rows import QOS_COLUMNS, QosRows
from homerd_plugins.qos import Qos

VQ = """VQSessionReport: CallTerm\r
CallID: xr-call-1@192.0.2.10\r
LocalAddr: IP=192.0.2.10 PORT=40000 SSRC=0x2468ACE0\r
RemoteAddr: IP=192.0.2.20 PORT=41000 SSRC=0x13579BDF\r
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
PUBLISH = testing.request(
    "PUBLISH",
    headers={"Content-Type": "application/vq-rtcpxr", "User-Agent": "phone/1.0"},
    body=VQ,
)
RTCP = b'{"sender_information":{"packets":1000,"octets":160000},"ssrc":7,"type":200,"report_blocks":[{"source_ssrc":9,"fraction_lost":64,"packets_lost":-3,"ia_jitter":14}]}'
BYE = testing.request(
    "BYE",
    headers={
        "User-Agent": "phone/2.0",
        "X-RTP-Stat": "CS=0;PS=1433;PR=1522;PL=0,0;EN=PCMA,FAX;DE=PCMA;JI=23,2;DL=20,20,21",
    },
)
AT = "2026-01-02 12:00:00"
NAMES = [column.name for column in QOS_COLUMNS]
NUMBERS = [column.name for column in QOS_COLUMNS if column.type in ("REAL", "BIGINT")]

ONLY_SIP = "event_route[sipcapture:request] { return 1; }\n"
ROUTES = """
event_route[sipcapture:request] {
    if ($hep(0x00b) == 1) return 1;
    if (qos_capture("of reports")) xlog("kept");
    drop;
}
request_route { if (qos_capture()) xlog("kept"); drop; }
"""


def script(params: str, routes: str = ROUTES) -> str:
    return (
        'loadmodule "pv"\nloadmodule "xlog"\nloadmodule "sipcapture"\nloadmodule "qos"\n'
        'modparam("sipcapture", "capture_on", 1)\nmodparam("sipcapture", "hep_capture_on", 1)\n'
        'modparam("sipcapture", "nonsip_hook", 1)\nmodparam("qos", "node", "homer01")\n'
        f"{params}\n{routes}"
    )


def url_param(url: str) -> str:
    return f'modparam("qos", "db_url", "{url}")\n'


class Store:
    """A database, its URL, and its rows by column."""

    def __init__(self, url: str, ask: Callable[[str], Any]) -> None:
        self.url = url
        self.ask = ask

    def rows(self, where: str = "") -> list[dict[str, Any]]:
        found = self.ask(f"SELECT {', '.join(NAMES)} FROM qos_capture {where} ORDER BY id")
        return [dict(zip(NAMES, row, strict=True)) for row in found]

    def told(self, where: str = "") -> list[dict[str, Any]]:
        """Without what is NULL, and the date as text."""
        return [
            {name: cell if name != "date" else str(cell) for name, cell in row.items()}
            for row in (
                {name: cell for name, cell in row.items() if cell is not None}
                for row in self.rows(where)
            )
        ]


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return sqlite_store(tmp_path)
    server = request.getfixturevalue(request.param)
    return Store(server.url("postgres" if request.param == "postgres" else "mysql"), server.rows)


def sqlite_store(folder: Path) -> Store:
    def ask(query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(folder / "qos.db")) as connection, connection:
            return connection.execute(query).fetchall()

    return Store(f"sqlite://{folder / 'qos.db'}", ask)


@pytest.fixture
def run() -> Iterator[Callable[..., testing.Script]]:
    """Makes scripts that write to their stores."""
    made: list[testing.Script] = []

    def make(params: str, routes: str = ROUTES, **options: Any) -> testing.Script:
        made.append(testing.Script(script(params, routes), **({"deliver": True} | options)))
        return made[-1]

    yield make
    for each in made:
        each.stop()


# -- rows

ENDS = {
    "source_ip": "192.0.2.1",
    "source_port": 5060,
    "destination_ip": "192.0.2.2",
    "destination_port": 5060,
    "node": "homer01:101",
}
TIME = {"date": AT, "micro_ts": 1767355200000000}
REPORTED = {"mos_source": "report", "mos_lq_source": "report"}
OF_PUBLISH = TIME | ENDS | REPORTED | {
    "call_id": "xr-call-1@192.0.2.10",
    "tied_by": "report",
    "trunk": "",
    "user_agent": "phone/1.0",
    "form": "vq-rtcpxr",
    "kind": "session",
}  # fmt: skip
LOCAL = OF_PUBLISH | {
    "leg": "local",
    "direction": "received",
    "ssrc": 0x13579BDF,
    "codec": "PCMA",
    "clock": 8000,
    "loss": 0.5,
    "discard": 2.0,
    "jitter": 2.0,
    "rtt": 200.0,
    "one_way": 110.0,
    "end_system": 140.0,
    "burst_loss": 1.5,
    "burst_duration": 20.0,
    "gap_loss": 2.0,
    "gap_duration": 500.0,
    "signal_level": -21.0,
    "noise_level": -50.0,
    "r": 85.0,
    "r_source": "report",
    "mos_lq": 4.2,
    "mos_cq": 4.1,
    "mos_cq_source": "report",
    "mos": 4.2,
}
REMOTE = OF_PUBLISH | {
    "leg": "remote",
    "direction": "sent",
    "ssrc": 0x2468ACE0,
    "loss": 1.7,
    "discard": 1.1,
    "jitter": 7.0,
    "rtt": 190.0,
    "mos_lq": 3.9,
    "mos": 3.9,
}
OF_RTCP = TIME | ENDS | {
    "call_id": "call-9",
    "tied_by": "correlation_id",
    "correlation_id": "call-9",
    "trunk": "of reports",
    "form": "rtcp-json",
}  # fmt: skip
HEARD = {"leg": "local", "direction": "received", "ssrc": 9, "lost": -3, "loss": 25.0}


def test_every_record_of_every_form_is_a_row_of_every_store(run, store):
    one = run(url_param(store.url))
    assert one.feed(PUBLISH).lines == ["kept"]
    assert one.feed(RTCP, type=5, correlation_id="call-9").lines == ["kept"]
    assert one.feed(BYE).lines == ["kept"]
    assert one.flush()
    local, remote, heard, sent, received, told = store.told()
    assert local == LOCAL
    assert remote == REMOTE
    assert heard == OF_RTCP | HEARD | {"jitter": 1.75}
    assert sent == OF_RTCP | {
        "leg": "remote",
        "direction": "sent",
        "ssrc": 7,
        "packets": 1000,
        "octets": 160000,
    }
    shown = ("call_id", "tied_by", "form", "kind", "user_agent", "codec", "mos_source", "jitter")
    assert [received[name] for name in shown] == [
        "call-1@192.0.2.10", "report", "rtp-stat", "X-RTP-Stat", "phone/2.0", "PCMA", "heplify", 23.0,
    ]  # fmt: skip
    assert received["mos"] == pytest.approx(4.3695, abs=1e-4)
    assert (told["leg"], told["packets"], told["lost"]) == ("remote", 1433, 0)


def test_a_report_of_no_known_call_is_stored_and_found_as_such(run, store):
    one = run(url_param(store.url))
    one.feed(RTCP, type=5)
    one.feed(PUBLISH)
    assert one.flush()
    found = store.told("WHERE call_id = ''")
    assert [row["form"] for row in found] == ["rtcp-json"] * 2
    assert {row["tied_by"] for row in found} == {""}
    assert "correlation_id" not in found[0]


def test_a_report_without_figures_is_no_row_and_counted(run, tmp_path):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url))
    assert one.feed(b'{"ssrc":7,"type":201,"report_blocks":[]}', type=5).lines == []
    assert one.feed(testing.request("INVITE")).lines == []
    assert one.metrics()['homerd_qos_empty_total{form="rtcp-json"}'] == 1
    assert one.counters()["sinks"]["qos"]["added"] == 0


def test_an_alert_without_figures_is_a_row_all_the_same(run, tmp_path):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url))
    alert = b"VQAlertReport: Type=NLR Severity=Critical Dir=local\r\nCallID: c7\r\n"
    assert one.feed(alert, type=35).lines == ["kept"]
    assert one.flush()
    (row,) = store.told()
    assert (row["kind"], row["alert"], row["severity"], row["call_id"]) == (
        "alert", "NLR", "Critical", "c7",
    )  # fmt: skip
    assert "leg" not in row


def test_the_packets_own_time_and_ends_are_those_of_the_row(run, store):
    one = run(url_param(store.url))
    one.feed(
        RTCP,
        type=5,
        src="[2001:db8::1]:40001",
        dst="[2001:db8::2]:41001",
        at=1_700_000_000.25,
        capture_id=7,
    )
    assert one.flush()
    row = store.told()[0]
    wanted = {
        "date": "2023-11-14 22:13:20",
        "micro_ts": 1700000000250000,
        "source_ip": "2001:db8::1",
        "source_port": 40001,
        "destination_ip": "2001:db8::2",
        "destination_port": 41001,
        "node": "homer01:7",
    }
    assert {name: row[name] for name in wanted} == wanted


def test_the_machines_name_is_the_node_that_nobody_named(run, tmp_path):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url) + 'modparam("qos", "node", "")')
    one.feed(PUBLISH)
    assert one.flush()
    assert store.told()[0]["node"] == f"{socket.gethostname()}:101"


@pytest.mark.parametrize(
    ("payload", "type", "agent"),
    [
        (PUBLISH.replace(b"LocalMetrics:", b"x-UserAgent: snom/8\r\nLocalMetrics:"), 1, "snom/8"),
        (PUBLISH, 1, "phone/1.0"),
        (PUBLISH, 99, "phone/1.0"),
        (VQ.encode(), 35, None),
        (BYE, 1, "phone/2.0"),
    ],
)
def test_who_reports_is_told_by_the_report_else_by_its_message(run, tmp_path, payload, type, agent):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url))
    one.feed(payload, type=type)
    assert one.flush()
    assert store.rows()[0]["user_agent"] == agent


def test_the_trunk_is_what_the_script_says(run, tmp_path):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url), ONLY_SIP + 'request_route { qos_capture("to $rd"); drop; }')
    one.feed(PUBLISH)
    assert one.flush()
    assert {row["trunk"] for row in store.rows()} == {"to example.net"}


def test_a_table_that_is_there_is_taken_as_it_is(run, store):
    store.ask("CREATE TABLE qos_capture (call_id varchar(20), mos double precision, own int)")
    one = run(url_param(store.url))
    one.feed(PUBLISH)
    assert one.flush()
    found = store.ask("SELECT call_id, mos, own FROM qos_capture")
    assert sorted(map(tuple, found)) == [
        ("xr-call-1@192.0.2.10", 3.9, None),
        ("xr-call-1@192.0.2.10", 4.2, None),
    ]


def test_the_table_has_the_name_it_is_given(run, tmp_path):
    store = sqlite_store(tmp_path)
    one = run(url_param(store.url) + 'modparam("qos", "table", "quality")')
    one.feed(PUBLISH)
    assert one.flush()
    assert store.ask("SELECT count(*) FROM quality") == [(2,)]


def test_rows_older_than_keep_days_go(run, store):
    run(url_param(store.url)).feed(PUBLISH, at=time.time() - 9 * 86_400)
    kept = run(url_param(store.url) + 'modparam("qos", "keep_days", 3)', clock=None, deliver=False)
    kept.stop()
    first = run(url_param(store.url), clock=None)
    for days in (9, 2):
        first.feed(PUBLISH, at=time.time() - days * 86_400)
    assert first.flush()
    run(url_param(store.url) + 'modparam("qos", "keep_days", 3)', clock=None)
    testing.wait_until(lambda: len(store.rows()) == 2)


def test_rows_wait_on_disk_while_the_store_is_away(run, mariadb_server, mariadb, tmp_path):
    store = Store(mariadb.url("mysql"), mariadb.rows)
    one = run(url_param(store.url), spool=tmp_path / "spool")
    one.feed(PUBLISH)
    assert one.flush()
    mariadb_server.stop()
    try:
        one.feed(RTCP, type=5)
        (sink,) = (each for each in one.worker.sinks if each.name == "qos")
        sink.hand_over()
        testing.wait_until(lambda: sink.spooled == 2)
    finally:
        mariadb_server.start()
    assert one.flush()
    assert [row["form"] for row in store.rows()] == ["vq-rtcpxr"] * 2 + ["rtcp-json"] * 2
    assert store.told()[2]["jitter"] == 1.75


def test_reports_of_several_scripts_stand_in_one_table(run, tmp_path):
    store = sqlite_store(tmp_path)
    for _ in range(2):
        one = run(url_param(store.url))
        one.feed(PUBLISH)
        assert one.flush()
    assert len(store.rows()) == 4


# -- what the network makes up


def of(record: qos.QosRecord, **report: Any) -> tuple[dict[str, Any], dict[Any, int]]:
    """The row of one record, by column, and what was mended."""
    rows = QosRows()
    with testing.Script(script("")) as one:
        packet = one.feed(testing.request("INVITE")).packet
    told = Told(qos.Report(qos.RTCP, (record,), **report), Tie("c", "report"))
    (row,) = rows.of(packet, told, "", None)
    return dict(zip(NAMES, row, strict=True)), dict(rows.mended)


def record(**figures: Any) -> qos.QosRecord:
    return qos.QosRecord("local", "received", **figures)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("jitter", math.nan, None),
        ("jitter", math.inf, None),
        ("mos_lq", -math.inf, None),
        ("loss", 1e300, 1e300),
        ("rtt", 1 << 2000, None),
        ("lost", 1 << 63, None),
        ("lost", -(1 << 70), None),
        ("packets", math.nan, None),
        ("packets", 1e30, None),
        ("octets", (1 << 63) - 1, (1 << 63) - 1),
        ("jitter", 1e15, 1e15),
    ],
)
def test_a_number_that_no_column_holds_is_null_and_counted(field, value, kept):
    row, mended = of(record(**{field: value}, r=20.0, ssrc=7))
    assert (row[field], row["r"], row["ssrc"]) == (kept, 20.0, 7)
    assert mended == ({} if kept is not None else {(field, "range"): 1})


def test_two_that_cancel_out_are_seen_as_well():
    row, mended = of(record(jitter=math.inf, rtt=-math.inf, r=50.0))
    assert (row["jitter"], row["rtt"], row["r"]) == (None, None, 50.0)
    assert mended == {("jitter", "range"): 1, ("rtt", "range"): 1}


def test_a_count_with_a_fraction_is_cut_off():
    row, mended = of(record(packets=14.9))
    assert (row["packets"], type(row["packets"]), mended) == (14, int, {})


def test_texts_are_cut_and_cleaned_for_any_store():
    row, mended = of(record(codec="x" * 70), kind="Ü\0\udcff", call_id=None)
    assert (row["codec"], row["kind"]) == ("x" * 50, "Ü\ufffd\ufffd")
    assert mended == {("codec", "long"): 1}


def test_a_report_made_to_break_a_batch_is_stored_with_the_others(run, store):
    one = run(url_param(store.url))
    hostile = {
        "MOS": "nan",
        "JITTER": 1e308,
        "MAX_JITTER": "inf",
        "PACKET_LOSS": 10**40,
        "TOTAL_PK": 1 << 80,
        "SSRC": -(1 << 60),
        "RFACTOR": "1e999",
        "CODEC_NAME": "\ud800';DROP TABLE qos_capture;--\0" + "\U0001f600" * 200,
        "RTP_SIP_CALL_ID": "\0\udcff" + "y" * 3000,
        "TYPE": "\x1d\x1e\x1f\\'",
    }
    one.feed(json.dumps(hostile).encode(), type=34, correlation_id="z" * 1000)
    one.feed(PUBLISH.replace(b"phone/1.0", b"\xff\xfe'" + b"u" * 1000))
    one.feed(RTCP, type=5)
    assert one.flush()
    assert one.counters()["sinks"]["qos"]["rejected"] == 0
    row, local, *_ = store.rows()
    assert (row["mos"], row["jitter"], row["lost"], row["packets"]) == (None, None, None, None)
    assert (row["kind"], row["codec"][:14]) == ("\x1d\x1e\x1f\\'", "\ufffd';DROP TABLE ")
    assert (len(row["codec"]), len(row["call_id"]), len(row["correlation_id"])) == (50, 256, 256)
    assert local["user_agent"].startswith("\ufffd\ufffd'uuu")
    metrics = one.metrics()
    assert metrics['homerd_qos_mended_total{column="call_id",fault="long"}'] == 1


VALUES = st.none() | st.floats() | st.integers() | st.integers(-5, 5)


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(qos.QosRecord._fields[2:], VALUES)),
    st.text(max_size=80) | st.none(),
)
def test_any_figures_are_cells_that_every_store_takes(figures, codec):
    figures = {
        name: value
        for name, value in figures.items()
        if name not in ("codec", *(each for each in qos.QosRecord._fields if "source" in each))
    }
    rows = QosRows()
    (column_types,) = [{column.name: column for column in QOS_COLUMNS}]
    made = rows._figures(record(**figures, codec=codec))
    for name, cell in zip(NAMES[-len(made) :], made, strict=True):
        column = column_types[name]
        if cell is None:
            continue
        if column.type == "BIGINT":
            assert type(cell) is int
            assert -(1 << 63) <= cell < 1 << 63
        elif column.type == "REAL":
            assert math.isfinite(cell)
        else:
            assert len(cell) <= column.width
            assert "\0" not in cell
            cell.encode()


# -- histograms


def histograms(one: testing.Script) -> dict[str, float]:
    return {
        name: value
        for name, value in one.metrics().items()
        if name.startswith(
            ("homerd_qos_mos", "homerd_qos_jitter", "homerd_qos_loss", "homerd_qos_r")
        )
        and "_reports_" not in name
    }


def test_figures_are_in_histograms_in_base_units(run):
    one = run("")
    assert one.feed(PUBLISH).lines == ["kept"]
    labels = 'codec="PCMA",leg="local",trunk=""'
    found = histograms(one)
    assert {
        name.replace(f"{{{labels}}}", ""): value
        for name, value in found.items()
        if labels in name and "_bucket" not in name
    } == {
        "homerd_qos_mos_sum": 4.2,
        "homerd_qos_mos_count": 1,
        "homerd_qos_jitter_seconds_sum": 0.002,
        "homerd_qos_jitter_seconds_count": 1,
        "homerd_qos_loss_ratio_sum": 0.005,
        "homerd_qos_loss_ratio_count": 1,
        "homerd_qos_round_trip_seconds_sum": 0.2,
        "homerd_qos_round_trip_seconds_count": 1,
    }
    buckets = {
        le: found[f'homerd_qos_mos_bucket{{codec="PCMA",le="{le}",leg="local",trunk=""}}']
        for le in ("1.5", "4", "4.25", "4.5", "+Inf")
    }
    assert buckets == {"1.5": 0, "4": 0, "4.25": 1, "4.5": 1, "+Inf": 1}


def test_there_are_none_where_metrics_is_0(run, tmp_path):
    one = run(url_param(f"sqlite://{tmp_path}/qos.db") + 'modparam("qos", "metrics", 0)')
    assert one.feed(PUBLISH).lines == ["kept"]
    assert histograms(one) == {}


@pytest.mark.parametrize(
    ("codec", "label"),
    [
        ("pcmu", "PCMU"),
        ("OPUS", "opus"),
        ("G711A", "PCMA"),
        ("G.729A", "G729"),
        ("G722/8000", "G722"),
        ("made up", "other"),
        ("", "other"),
        (None, ""),
        ("\udcff\n", "other"),
    ],
)
def test_a_codec_that_is_not_known_is_other(codec, label):
    filled = QosHistograms()
    assert filled.observe("t", record(codec=codec, mos_lq=4.0))
    (labels,) = {
        tuple(sorted(sample.labels.items()))
        for sample in filled.samples()
        if "le" not in sample.labels
    }
    assert dict(labels)["codec"] == label


def test_sets_of_labels_are_bounded():
    filled = QosHistograms()
    for number in range(MOST_SETS + 50):
        assert filled.observe(f"trunk {number}", record(codec="PCMA", loss=1.0))
    counts = [s for s in filled.samples() if s.name == "homerd_qos_loss_ratio_count"]
    assert len(counts) == MOST_SETS + 1
    assert (counts[-1].labels, counts[-1].value) == (
        {"trunk": "other", "codec": "other", "leg": "local"},
        50,
    )
    assert filled.over_budget == 50


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_measure_is_not_observed(value):
    filled = QosHistograms()
    assert not filled.observe("t", record(loss=value, jitter=value))
    assert list(filled.samples()) == []


def test_the_page_can_be_read(run):
    from homerd.core.telemetry import page

    one = run("", ONLY_SIP + 'request_route { qos_capture("a\\"b\\\\ $ua"); drop; }')
    one.feed(PUBLISH.replace(b"phone/1.0", b"\xff\x00x"))
    text = page(one.worker).body.decode()
    (line,) = (
        each
        for each in text.splitlines()
        if each.startswith("homerd_qos_mos_sum") and "PCMA" in each
    )
    assert line.endswith('",codec="PCMA",leg="local"} 4.2')
    assert text.count("# TYPE homerd_qos_mos histogram") == 1


# -- the script


def refused(params: str) -> list[str]:
    return testing.diagnostics(script(params))


def test_a_script_that_keeps_nothing_is_told_so():
    (said,) = refused('modparam("qos", "metrics", 0)')
    assert said == "W906 qos_capture() keeps nothing: metrics is 0, and there is no db_url"
    assert refused("") == []
    assert refused('modparam("qos", "metrics", 0)\n' + url_param("sqlite://x.db")) == []
    never = script(url_param("sqlite://x.db"), "request_route { drop; }")
    told = testing.diagnostics(never.replace('"nonsip_hook", 1', '"nonsip_hook", 0'))
    assert told == ["W906 db_url is set, and qos_capture() is not called"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (url_param("sqlit://x.db"), 'db_url: there is no store for sqlit: did you mean "sqlite"?'),
        ('modparam("qos", "table", "a b")', "expected a table of at most 64 of A-Z a-z 0-9 and _"),
        ('modparam("qos", "metrics", "yes")', "expected a number"),
        ('modparam("qos", "keep_days", "x")', "expected a number"),
    ],
)
def test_a_parameter_that_cannot_be_is_a_mistake_of_the_script(params, said):
    assert said in refused(params)[0]


def test_days_below_nought_are_refused():
    with pytest.raises(ConfigError, match="expected days, 0 or more"):
        refused('modparam("qos", "keep_days", -1)')


def test_a_password_is_never_shown(monkeypatch):
    (said,) = refused(url_param("mysql://u:geheim@127.0.0.1:x/db"))
    assert "geheim" not in said
    assert "db_url" in said


def test_trace_shows_rows_by_column_and_stores_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("homer.cfg").write_text(script(url_param("sqlite://qos.db")))
    data = ethernet(ipv4(udp(PUBLISH)))
    head = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    Path("c.pcap").write_bytes(head + pack("<IIII", 1000, 0, len(data), len(data)) + data)
    assert main(["trace", "--json", "c.pcap"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    effects = [each for line in told for each in line.get("effects", ())]
    shown = [(each["table"], each["record"]["mos"], each["record"]["rtt"]) for each in effects]
    assert shown == [("qos_capture", 4.2, 200), ("qos_capture", 3.9, 190)]
    assert not os.path.exists("qos.db")


def test_a_cell_that_is_cut_while_metrics_are_told_disturbs_them_not():
    plugin = Qos()
    plugin._store = SimpleNamespace(truncated=Counter(codec=1, kind=1))
    told = plugin.metrics()
    first = next(sample for sample in told if sample.name == "homerd_qos_mended_total")
    plugin._store.truncated["trunk"] += 1  # by the store's own thread
    columns = [each.labels["column"] for each in (first, *told) if "column" in each.labels]
    assert columns == ["codec", "kind"]
