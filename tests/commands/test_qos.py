"""homerd qos: calls of bad quality from each kind of store, and one call over time."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from servers import database_on, free_port

from homerd.cli import main
from homerd.commands import _qos_plot
from homerd.commands._qos_report import Report, quality_of
from homerd.commands._qos_table import calls_table
from homerd_plugins._qos_rows import QOS_COLUMNS
from homerd_plugins._stores import Address, sink_for

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
PUBLISH = """\
PUBLISH sip:collector@example.net SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1
From: <sip:alice@example.org>;tag=p1
To: <sip:collector@example.net>
Call-ID: report-1@192.0.2.10
CSeq: 1 PUBLISH
Event: vq-rtcpxr
User-Agent: snom370/8.7
Content-Type: application/vq-rtcpxr

VQSessionReport: CallTerm
CallID: call-1@192.0.2.10
LocalMetrics:
SessionDesc: PT=8 PD=PCMA SR=8000
PacketLoss: NLR=6.2 JDR=2.0
Delay: RTD=200 ESD=140 IAJ=12
QualityEst: RCQ=60 MOSLQ=3.1 MOSCQ=3.0
"""


def report(at: float, call_id: str, **cells: Any) -> tuple[str, int, tuple[Any, ...]]:
    """A stored report, *at* seconds after new year."""
    told = {
        "date": datetime.fromtimestamp(NEW_YEAR + int(at), UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "micro_ts": round((NEW_YEAR + at) * 1_000_000),
        "call_id": call_id,
        "tied_by": "report" if call_id else "",
        "source_ip": "192.0.2.10",
        "source_port": 5060,
        "destination_ip": "192.0.2.1",
        "destination_port": 9060,
        "node": "homer01",
        "trunk": "",
        "form": "vq-rtcpxr",
        "kind": "interval",
        "leg": "local",
        "direction": "received",
    } | cells
    if "mos" in told:
        told = {"mos_source": "report"} | told
    return "qos_capture", 0, tuple(told.get(column.key) for column in QOS_COLUMNS)


GOLD = {"trunk": "gold", "user_agent": "snom370/8.7"}
SILVER = {"trunk": "silver", "user_agent": "Yealink T46S"}
RTCP = {"form": "rtcp", "kind": None, "user_agent": None}
REPORTS = [
    report(0, "good", mos=4.3, loss=0.0, jitter=4.0, rtt=60.0, codec="PCMA", **GOLD),
    report(10, "bad", mos=3.2, loss=4.5, jitter=12.0, rtt=90.0, codec="G729", **SILVER),
    report(15, "bad", mos=2.9, loss=3.0, jitter=30.0, ssrc=0xCAFE, **SILVER),
    report(15.5, "bad", mos=4.0, rtt=250.0, leg="remote", direction="sent", **SILVER),
    report(20, "BAD", mos=3.3, mos_source="g107", loss=1.0, jitter=8.0, codec="PCMA", **GOLD),
    report(30, "poor", mos=3.5, loss=2.0, jitter=9.0, codec="PCMA", **GOLD),
    report(40, "rtcp", jitter=55.5, lost=-3, octets=1 << 40, **RTCP),
    report(50, "", mos=2.0, loss=9.0, ssrc=77, correlation_id="x1", **RTCP),
    report(55, "", jitter=1.0, ssrc=78, correlation_id="x2", **RTCP),
]
SERVERS = {"postgres": "postgres_server", "mariadb": "mariadb_server"}
STORES = ("sqlite", *SERVERS)


def store(url: str, reports: Iterable[tuple[str, int, tuple[Any, ...]]]) -> str:
    """A database with the reports."""
    sink = sink_for(Address.of(url), "qos", [QOS_COLUMNS])
    sink.connect()
    sink.write(list(reports))
    sink.close()
    return url


@pytest.fixture(scope="module", params=STORES)
def stored(request, tmp_path_factory) -> str:
    """REPORTS in a store of each kind; tests only read."""
    url = f"sqlite://{tmp_path_factory.mktemp('qos') / 'x.db'}"
    if request.param != "sqlite":
        url = database_on(request.getfixturevalue(SERVERS[request.param]), "homer_qos")
    return store(url, REPORTS)


@pytest.fixture
def database(tmp_path) -> str:
    """REPORTS in an SQLite file."""
    return store(f"sqlite://{tmp_path / 'x.db'}", REPORTS)


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def qos(capsys) -> Ask:
    """Runs the command over a database; gives exit status, output and errors."""

    def run(url: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["qos", *(["--db", url] if url else []), *arguments])
        return status, *capsys.readouterr()

    return run


def told(qos: Ask, url: str, *arguments: str) -> list[dict[str, Any]]:
    status, out, errors = qos(url, "--json", *arguments)
    assert (status, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


# Lists


def test_the_worst_call_stands_first_and_the_usual_threshold_is_told(qos, database):
    assert qos(database) == (
        0,
        "TIME (UTC)            MOS  SOURCE  USERS                    LOSS %  JITTER ms  RTT ms  CODEC  TRUNK   USER AGENT    CALL-ID\n"
        "2026-01-01 00:00:15  2.90  report  nearly all dissatisfied     4.5       30.0      90  G729   silver  Yealink T46S  bad\n"
        "2026-01-01 00:00:20  3.30  g107    many dissatisfied           1.0        8.0       -  PCMA   gold    snom370/8.7   BAD\n"
        "bad is a MOS below 3.5; --mos-below, --loss-above, --jitter-above, --rtt-above choose otherwise\n"
        "besides, 1 report of no known call: --no-call\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["bad", "BAD"]),
        (["--mos-below", "3.51"], ["bad", "BAD", "poor"]),
        (["--mos-below", "4.5", "--limit", "3"], ["bad", "BAD", "poor"]),
        (["--loss-above", "0.9"], ["bad", "poor", "BAD"]),
        (["--loss-above", "1.5", "--mos-below", "3.5"], ["bad"]),
        (["--jitter-above", "20"], ["rtcp", "bad"]),
        (["--rtt-above", "100"], ["bad"]),
        (["--mos-below", "5", "--trunk", "gold"], ["BAD", "poor", "good"]),
        (["--mos-below", "5", "--trunk", "Gold"], []),
        (["--mos-below", "5", "--trunk", "g*"], ["BAD", "poor", "good"]),
        (["--mos-below", "5", "--user-agent", "Yealink*"], ["bad"]),
        (["--mos-below", "5", "--user-agent", "yealink*"], []),
        (["--mos-below", "5", "--codec", "PCMA"], ["BAD", "poor", "good"]),
        (["--mos-below", "5", "--codec", "*"], ["bad", "BAD", "poor", "good"]),
        (["--since", "2026-01-01T00:00:15.1"], ["BAD"]),
        (["--until", "2026-01-01T00:00:15"], ["bad"]),
        (["--until", "2026-01-01T00:00:10"], []),
        (["--since", "2026-01-02"], []),
    ],
)
def test_which_calls_are_bad_and_in_which_order(qos, stored, arguments, found):
    assert [each["call_id"] for each in told(qos, stored, *arguments)] == found


def test_a_call_has_the_worst_of_those_of_its_reports_that_are_beyond_the_thresholds(qos, stored):
    (bad,) = told(qos, stored, "--mos-below", "3.3")
    assert (bad["time"], bad["mos"], bad["mos_source"]) == ("2026-01-01T00:00:15Z", 2.9, "report")
    assert (bad["loss"], bad["jitter"], bad["rtt"], bad["reports"]) == (4.5, 30.0, 90.0, 2)
    assert (bad["quality"], bad["codec"], bad["ssrc"]) == (
        "nearly all dissatisfied",
        "G729",
        0xCAFE,
    )
    (rtcp,) = told(qos, stored, "--jitter-above", "50")
    assert (rtcp["mos"], rtcp["quality"], rtcp["octets"], rtcp["lost"]) == (None, None, 1 << 40, -3)


def test_reports_of_no_known_call_are_all_shown_where_no_threshold_is_given(qos, stored):
    found = told(qos, stored, "--no-call")
    assert [(each["correlation_id"], each["mos"]) for each in found] == [("x1", 2.0), ("x2", None)]
    assert [each["ssrc"] for each in told(qos, stored, "--no-call", "--mos-below", "3")] == [77]
    _, out, _ = qos(stored, "--no-call", "--limit", "1")
    assert out.splitlines()[1:] == [
        "2026-01-01 00:00:50  2.00  report  not recommended     9.0  0x0000004d  192.0.2.10:5060 > 192.0.2.1:9060  x1",
        "the worst 1; there are more: --limit N",
    ]


def test_a_summary_counts_all_calls_and_the_bad_ones(qos, stored):
    silver, gold, none = told(qos, stored, "--by", "trunk", "--until", "2026-01-01T00:00:45")
    assert silver == {
        "trunk": "silver", "reports": 3, "calls": 1, "bad": 1,
        "worst_mos": 2.9, "mean_mos": pytest.approx(3.36667, abs=1e-4),
        "worst_loss": 4.5, "mean_loss": 3.75, "worst_jitter": 30.0, "mean_jitter": 21.0,
        "worst_rtt": 250.0, "mean_rtt": 170.0, "quality": "many dissatisfied",
    }  # fmt: skip
    assert (gold["trunk"], gold["calls"], gold["bad"]) == ("gold", 3, 1)
    assert gold["mean_mos"] == pytest.approx(3.7)
    assert (none["trunk"], none["calls"], none["bad"], none["mean_mos"]) == ("", 1, 0, None)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--by", "user-agent"], [("", 1, 0), ("Yealink T46S", 1, 1), ("snom370/8.7", 3, 1)]),
        (["--by", "codec"], [("", 2, 1), ("G729", 1, 1), ("PCMA", 3, 1)]),
        (["--by", "codec", "--trunk", "gold"], [("PCMA", 3, 1)]),
        (["--by", "trunk", "--loss-above", "1.5"], [("", 1, 0), ("silver", 1, 1), ("gold", 3, 1)]),
        (["--by", "trunk", "--no-call"], [("", 0, 0)]),
    ],
)
def test_groups_with_the_worst_mean_first(qos, stored, arguments, found):
    part = arguments[1].replace("-", "_")
    groups = told(qos, stored, *arguments)
    assert [(each[part], each["calls"], each["bad"]) for each in groups] == found


def test_a_summary_as_text(qos, database):
    assert qos(database, "--by", "trunk", "--trunk", "*", "--limit", "2")[1] == (
        "TRUNK   CALLS  BAD  REPORTS  WORST MOS  MEAN MOS  USERS              WORST LOSS %  MEAN LOSS %  WORST JITTER ms  MEAN JITTER ms  WORST RTT ms  MEAN RTT ms\n"
        "-           1    0        3       2.00      2.00  not recommended             9.0          9.0             55.5            28.2             -            -\n"
        "silver      1    1        3       2.90      3.37  many dissatisfied           4.5          3.8             30.0            21.0           250          170\n"
        "the worst 2; there are more: --limit N\n"
        "bad is a MOS below 3.5; --mos-below, --loss-above, --jitter-above, --rtt-above choose otherwise\n"
    )


def test_nothing_found_is_said_and_no_fault(qos, database):
    path = database.removeprefix("sqlite://")
    assert qos(database, "--loss-above", "50", "--mos-below", "2") == (
        0, f"no call with MOS below 2 and loss above 50 % in {path}\n", "",
    )  # fmt: skip
    assert qos(database, "--by", "codec", "--since", "1h")[1] == f"no report in {path}\n"
    assert qos(database, "none")[:2] == (0, f"no report of none in {path}\n")
    assert qos(database, "none", "--json") == (0, "", "")


class Terminal(io.StringIO):
    """A terminal that shows UTF-8."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_colours_and_no_more_columns_than_fit(monkeypatch):
    reports = [
        Report(NEW_YEAR * 1_000_000, "good", mos=4.2, mos_source="g107", loss=1.0, trunk="gold"),
        Report(NEW_YEAR * 1_000_000, "poor", mos=3.7, codec="PCMA", user_agent="Phone/1"),
        Report(NEW_YEAR * 1_000_000, "\x1b[2Jbad", mos=2.0, user_agent="Phone/1" * 9),
    ]
    monkeypatch.setenv("COLUMNS", "48")
    out = Terminal()
    calls_table(reports).print(out)
    assert out.getvalue().splitlines() == [
        "TIME (UTC)            MOS  LOSS %  CALL-ID",
        "\x1b[32m2026-01-01 00:00:00  4.20     1.0  good\x1b[0m",
        "\x1b[33m2026-01-01 00:00:00  3.70       -  poor\x1b[0m",
        "\x1b[31m2026-01-01 00:00:00  2.00       -  ?[2Jbad\x1b[0m",
        "no room for USER AGENT, SOURCE, USERS, CODEC, TRUNK: --json tells all",
    ]
    monkeypatch.setenv("COLUMNS", "30")
    out = Terminal()
    calls_table(reports[:1]).print(out)
    assert out.getvalue().splitlines()[1] == "\x1b[32m2026-01-01 00:00:00  4.20  go…\x1b[0m"


@pytest.mark.parametrize(
    ("mos", "words"),
    [
        (4.5, "very satisfied"), (4.336, "very satisfied"), (4.33, "satisfied"),
        (4.0, "some dissatisfied"), (3.59, "many dissatisfied"), (3.0, "nearly all dissatisfied"),
        (2.57, "not recommended"), (0.0, "not recommended"), (None, ""),
    ],
)  # fmt: skip
def test_scores_in_words(mos, words):
    assert quality_of(mos) == words


# One call


def test_a_calls_reports_over_time(qos, stored):
    _, out, _ = qos(stored, "bad")
    assert out == (
        "2026-01-01 UTC, 3 reports\n"
        "Call-ID bad\n"
        "trunk silver\n"
        "user agent Yealink T46S\n"
        "worst MOS 2.90 (report): nearly all dissatisfied\n"
        "\n"
        "TIME (UTC)    REPORT              FROM        LEG     DIRECTION  SSRC        CODEC   MOS  SOURCE  USERS                    LOSS %  JITTER ms  RTT ms  TIED BY\n"
        "00:00:10.000  vq-rtcpxr interval  192.0.2.10  local   received   -           G729   3.20  report  many dissatisfied           4.5       12.0    90.0  report\n"
        "00:00:15.000  vq-rtcpxr interval  192.0.2.10  local   received   0x0000cafe  -      2.90  report  nearly all dissatisfied     3.0       30.0       -  report\n"
        "00:00:15.500  vq-rtcpxr interval  192.0.2.10  remote  sent       -           -      4.00  report  some dissatisfied             -          -   250.0  report\n"
    )


def test_one_calls_reports_as_json_and_within_times(qos, stored):
    found = told(qos, stored, "bad")
    assert [(each["leg"], each["rtt"]) for each in found] == [
        ("local", 90.0), ("local", None), ("remote", 250.0),
    ]  # fmt: skip
    assert found[1]["time"] == "2026-01-01T00:00:15Z"
    assert [each["call_id"] for each in told(qos, stored, "BAD")] == ["BAD"]
    assert len(told(qos, stored, "bad", "--since", "2026-01-01T00:00:15.5")) == 1
    assert len(told(qos, stored, "bad", "--until", "2026-01-01T00:00:15.5")) == 2


def test_what_belongs_to_no_known_call_is_found_by_its_correlation_id(qos, stored):
    assert [each["ssrc"] for each in told(qos, stored, "x1")] == [77]


def test_the_call_of_a_publish_through_the_script_and_back(qos, tmp_path, capsys):
    (tmp_path / "homer.cfg").write_text(
        'loadmodule "qos"\n'
        f'modparam("qos", "db_url", "sqlite://{tmp_path}/q.db")\nmodparam("qos", "table", "voice")\n'
        'request_route { qos_capture("gold"); drop; }\n'
    )
    (tmp_path / "one.sip").write_text(PUBLISH)
    script = ["-f", str(tmp_path / "homer.cfg")]
    assert main(["replay", *script, str(tmp_path / "one.sip")]) == 0
    capsys.readouterr()
    (one,) = told(qos, "", *script)
    assert (one["call_id"], one["mos"], one["trunk"]) == ("call-1@192.0.2.10", 3.1, "gold")
    assert (one["loss"], one["jitter"], one["rtt"], one["codec"]) == (6.2, 12, 200, "PCMA")
    assert one["user_agent"] == "snom370/8.7"
    assert "call-1@192.0.2.10" in qos("", *script, "call-1@192.0.2.10")[1]


@pytest.mark.parametrize("command", ["show", "flow"])
def test_a_stored_call_tells_that_there_are_reports_of_it(command, tmp_path, capsys):
    script, store_url = tmp_path / "homer.cfg", f"sqlite://{tmp_path}/q.db"
    script.write_text(
        'loadmodule "sipcapture"\nloadmodule "qos"\nmodparam("sipcapture", "capture_on", 1)\n'
        f'modparam("sipcapture", "db_url", "{store_url}")\nmodparam("qos", "db_url", "{store_url}")\n'
        "request_route { sip_capture(); qos_capture(); drop; }\n"
    )
    report_id, call_id = "report-1@192.0.2.10", "call-1@192.0.2.10"
    (tmp_path / "one.sip").write_text(PUBLISH)
    (tmp_path / "two.sip").write_text(PUBLISH.replace(report_id, call_id))
    assert main(["replay", "-f", str(script), *map(str, sorted(tmp_path.glob("*.sip")))]) == 0
    capsys.readouterr()
    for asked in (["-f", str(script)], ["--db", f"{tmp_path}/q.db"]):
        assert main([command, *asked, call_id]) == 0
        assert capsys.readouterr().out.endswith(f"\nquality: homerd qos {call_id}\n")
        assert main([command, *asked, report_id]) == 0
        assert "quality:" not in capsys.readouterr().out


# Plots


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack_from(">II", png, 16)
    return width, height


def texts_of(svg: Path) -> list[str]:
    root = ElementTree.parse(svg).getroot()
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_has_a_panel_for_each_figure_and_a_line_for_each_leg(qos, stored, tmp_path):
    png, svg = tmp_path / "a.PNG", tmp_path / "a.svg"
    assert qos(stored, "bad", "--save", str(png)) == (0, f"{png}: 3 streams\n", "")
    assert qos(stored, "bad", "--save", str(svg))[0] == 0
    width, height = size_of(png.read_bytes())
    assert (width, 900 < height < 1300) == (1200, True)
    found = texts_of(svg)
    assert {"Call-ID bad", "MOS", "loss, %", "jitter, ms", "round trip, ms"} <= set(found)
    assert {"time on 2026-01-01, UTC", "00:00:15"} <= set(found)
    assert {"local received", "local received 0x0000cafe", "remote sent"} <= set(found)
    assert {"not recommended", "very satisfied"} <= set(found)


def test_one_report_alone_is_a_point_and_what_it_does_not_tell_has_no_panel(
    qos, database, tmp_path
):
    svg = tmp_path / "a.svg"
    assert qos(database, "rtcp", "--save", str(svg), "--json")[0::2] == (0, f"{svg}: 1 stream\n")
    found = texts_of(svg)
    assert "jitter, ms" in found
    assert not {"MOS", "loss, %", "round trip, ms"} & set(found)


def test_text_of_the_network_is_drawn_as_it_is(qos, tmp_path):
    call_id, leg = r"a$\frac{1$<&>日_^é", "_$x"
    url = store(f"sqlite://{tmp_path}/y.db", [report(0, call_id, mos=4.0, leg=leg)])
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    assert qos(url, call_id, "--save", str(svg))[0::2] == (0, "")
    assert qos(url, call_id, "--save", str(png))[0::2] == (0, "")
    assert {f"Call-ID {call_id}", "_$x received"} <= set(texts_of(svg))


def test_figures_out_of_their_mind_are_drawn_nevertheless(qos, tmp_path):
    wild = [
        report(0, "c", mos=4.0, jitter=1e307, loss=-1e300, leg="\x1b[2J\0", ssrc=-1),
        report(5, "c", mos=-7.0, jitter=0.0, loss=1e-300, micro_ts=(1 << 63) - 1),
        report(5, "c", mos=1e9, rtt=0.0, micro_ts=-(1 << 62)),
    ]
    url = store(f"sqlite://{tmp_path}/y.db", wild)
    for asked in ([], ["--plot"], ["--json"]):
        assert qos(url, "c", *asked)[0::2] == (0, "")
    for form in ("svg", "png"):
        assert qos(url, "c", "--save", str(tmp_path / f"a.{form}"))[0::2] == (0, "")
    assert "?[2J? received" in texts_of(tmp_path / "a.svg")
    assert [each["mos"] for each in told(qos, url)] == [-7.0]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_user_who_may_only_read_is_enough(qos, request, kind):
    server = request.getfixturevalue(SERVERS[kind])
    name, user = "homer_qos_read", f"qos_reader_of_{kind}"
    store(database_on(server, name), REPORTS)
    if kind == "postgres":
        server.rows_as_root(f"CREATE USER {user} WITH PASSWORD 'x'", name)
        server.rows_as_root(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}", name)
    else:
        server.rows_as_root(f"CREATE USER {user} IDENTIFIED BY 'x'", name)
        server.rows_as_root(f"GRANT SELECT ON {name}.* TO {user}", name)
    url = server.url("postgres" if kind == "postgres" else "mysql", user, "x", name)
    assert [each["call_id"] for each in told(qos, url)] == ["bad", "BAD"]
    assert len(told(qos, url, "bad")) == 3


def test_a_plot_of_text(qos, stored):
    status, out, errors = qos(stored, "bad", "--plot")
    lines = out.splitlines()
    assert (status, errors) == (0, "")
    assert lines[6:9] == [
        "x local received", "+ local received 0x0000cafe", "o remote sent",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100
    assert [line.strip() for line in lines if line.strip() in ("MOS", "loss, %", "jitter, ms", "round trip, ms")] == [
        "MOS", "loss, %", "jitter, ms", "round trip, ms",
    ]  # fmt: skip
    # One report each in the first panel: at its time and its height.
    panel = lines[9:21]
    levels = {line[:7].strip(" ┤"): line for line in panel}
    assert levels["4"].rstrip("│ ").endswith("o")
    assert levels["3"].rstrip("│ ").endswith("+")
    assert panel[-1].split() == ["00:00:05", "00:00:10", "00:00:15", "00:00:20"]


def test_a_terminal_that_shows_no_boxes_has_signs():
    reports = [Report(NEW_YEAR * 1_000_000 + at, "c", leg="local", mos=3.0) for at in (0, 10**7)]
    plot = _qos_plot.Plot.of("c", reports)
    drawn = _qos_plot.text_plot(plot, 60, colours=True, can_show=str.isascii)
    assert re.sub("\x1b[^m]*m", "", drawn).isascii()
    assert "\x1b[34m" in drawn
    plain = _qos_plot.text_plot(plot, 60, colours=False, can_show=lambda _: True)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) == 60


def test_more_streams_than_can_be_told_apart_are_counted(qos, tmp_path):
    reports = [
        report(at, "c", mos=4.0, ssrc=ssrc) for ssrc in range(10) for at in range(1 + (ssrc != 3))
    ]
    url = store(f"sqlite://{tmp_path}/y.db", reports)
    _, out, _ = qos(url, "c", "--save", str(tmp_path / "a.svg"))
    assert out.splitlines()[1:] == ["2 streams with fewer reports are not drawn"]
    found = texts_of(tmp_path / "a.svg")
    assert "local received 0x00000000" in found
    assert "local received 0x00000003" not in found


def test_a_call_without_figures_cannot_be_drawn(qos, tmp_path):
    url = store(f"sqlite://{tmp_path}/y.db", [report(0, "c", alert="MOSLQ")])
    told = "homerd: c: its reports tell neither MOS, loss, jitter nor round trip\n"
    assert qos(url, "c", "--plot") == (1, "", told)


# Faults


def test_faults_of_a_picture(qos, database, tmp_path):
    svg = tmp_path / "no" / "a.svg"
    assert qos(database, "bad", "--save", str(svg)) == (
        1, "", f"homerd: {svg}: No such file or directory\n",
    )  # fmt: skip
    status, _, errors = qos(database, "none", "--save", str(tmp_path / "a.svg"))
    assert (status, "no report of none in" in errors) == (1, True)
    assert list(tmp_path.glob("*.svg")) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["c", "--save", "a.pdf"], 'expected FILE.png or FILE.svg, got "a.pdf"'),
        (["c", "--save", "png"], 'expected FILE.png or FILE.svg, got "png"'),
        ([""], "CALL-ID is empty: --no-call lists reports that belong to no known call"),
        (["--save", "a.png"], "--save draws one call: homerd qos CALL-ID --save"),
        (["--plot"], "--plot draws one call: homerd qos CALL-ID --plot"),
        (["c", "--by", "codec"], "--by chooses among calls, and does not go with CALL-ID"),
        (["c", "--no-call"], "--no-call chooses among calls"),
        (["c", "--trunk", "x"], "--trunk chooses among calls"),
        (["c", "--plot", "--json"], "--json and --plot do not go together"),
        (["--mos-below", "six"], 'expected a number, 0 to 5, got "six"'),
        (["--mos-below", "nan"], 'expected a number, 0 to 5, got "nan"'),
        (["--mos-below", "-1"], "expected a number, 0 to 5"),
        (["--rtt-above", "inf"], 'expected a number, 0 or more, got "inf"'),
        (["--by", "phone"], "invalid choice: 'phone'"),
        (["--limit", "0"], "expected a number from 1 to 1000000"),
    ],
)
def test_faults_of_the_arguments(qos, database, arguments, fault):
    status, out, errors = qos(database, *arguments)
    assert (status, out) == (2, "")
    assert "usage: homerd qos" in errors
    assert fault in errors.replace("\n", " ")


def test_a_store_without_the_table(qos, request, tmp_path):
    sqlite3.connect(tmp_path / "e.db").close()
    names = {
        "sqlite": (f"sqlite://{tmp_path}/e.db", f"{tmp_path}/e.db"),
        "postgres": (database_on(request.getfixturevalue("postgres_server"), "homer_no_qos"), ""),
        "mariadb": (database_on(request.getfixturevalue("mariadb_server"), "homer_no_qos"), ""),
    }
    for url, where in names.values():
        where = where or Address.of(url).shown
        assert qos(url) == (
            1, "",
            f"homerd: no table qos_capture that may be read in {where}: qos_capture() in the"
            " script makes it\n",
        )  # fmt: skip


def test_faults_of_the_store_are_one_line(qos, tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    assert qos(str(tmp_path / "no.db")) == (1, "", f"homerd: {tmp_path}/no.db: no such database\n")
    assert qos(str(tmp_path / "text")) == (
        1, "", f"homerd: {tmp_path}/text: file is not a database\n",
    )  # fmt: skip
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE qos_capture (id, mos)")
    assert qos(str(tmp_path / "other.db")) == (
        1, "", f"homerd: {tmp_path}/other.db: table qos_capture is none of qos_capture()\n",
    )  # fmt: skip
    for scheme in ("postgres", "mysql"):
        status, out, errors = qos(f"{scheme}://homer:secret@127.0.0.1:{free_port()}/homer_data")
        assert (status, out, errors.count("\n")) == (1, "", 1)
        assert errors.startswith(f"homerd: {scheme}://127.0.0.1:")
        assert "secret" not in errors
    status, _, errors = qos("oracle://u:secret@h/d")
    assert (status, errors) == (
        1, "homerd: oracle://…@h/d: there is no store for oracle: use sqlite, postgres or mysql\n",
    )  # fmt: skip


def test_a_script_that_stores_no_reports(qos, tmp_path):
    script = tmp_path / "homer.cfg"
    for loads, fault in (
        ("", "loads no qos: give -f and -A as to homerd run, or --db PATH"),
        ('loadmodule "qos"\n', "module qos has no db_url: --db PATH names a database"),
    ):
        script.write_text(f"{loads}request_route {{ drop; }}\n")
        assert qos("", "-f", str(script)) == (1, "", f"homerd: {script}: {fault}\n")


def test_a_table_of_another_version_lacks_what_it_does_not_know(qos, tmp_path):
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("CREATE TABLE qos_capture (id INTEGER, micro_ts, Call_ID, mos, later)")
        old.execute(f"INSERT INTO qos_capture VALUES (1, {NEW_YEAR}000000, 'c', 3.0, 'x')")
        old.execute(f"INSERT INTO qos_capture VALUES (2, {NEW_YEAR}000001, 'c', 'none', 'x')")
    url = f"sqlite://{tmp_path}/old.db"
    (one,) = told(qos, url, "--since", "2026-01-01")
    assert (one["call_id"], one["mos"], one["loss"], one["trunk"]) == ("c", 3.0, None, None)
    assert [each["mos"] for each in told(qos, url, "c")] == [3.0, None]
    (group,) = told(qos, url, "--by", "trunk")
    assert (group["trunk"], group["calls"], group["worst_loss"]) == ("", 1, None)


@pytest.mark.parametrize(
    ("library", "option", "wanted"),
    [("plotext", "--plot", "plotext>=6,<7"), ("matplotlib", "--save=a.svg", "matplotlib>=3.8")],
)
def test_a_library_that_is_not_installed_is_named(library, option, wanted, database, tmp_path):
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from homerd.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "qos", "--db", database, "bad", option],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    needs = f'homerd: {option.partition("=")[0]} needs {library}: pip install "{wanted}"\n'
    assert (done.returncode, done.stderr) == (1, needs)


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        (["bad"], "qos_capture_call_id (ANY(<expr>) AND call_id=?)"),
        (["--since", "2026-01-01"], "qos_capture_date (date>?)"),
    ],
)
def test_reports_are_found_by_an_index(qos, database, monkeypatch, asked, index):
    plans: list[str] = []
    path = database.removeprefix("sqlite://")

    def explained(reader: Any, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path) as connection:
            if "qos_capture" in statement:
                rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
                plans.extend(row[3] for row in rows)
            return connection.execute(statement, values).fetchall()

    monkeypatch.setattr("homerd_plugins._sqlite_reader.SqliteReader.run", explained)
    assert qos(database, *asked)[0] == 0
    assert any(index in plan for plan in plans), plans
