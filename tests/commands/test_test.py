"""`homerd test`: cases of a script, their outcome and how it is told."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from homerd.cli import main
from homerd.commands.judge import compare

ROOT = Path(__file__).parents[2]

SCRIPT = """\
loadmodule "pv"
loadmodule "xlog"
loadmodule "textops"
loadmodule "statsd"
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "sqlite://{folder}/never-made.db")
modparam("sipcapture", "capture_on", 1)
request_route {{
    xlog("L_WARN", "$rm from $fU\\n");
    if (is_method("OPTIONS")) drop;
    if (is_method("BYE")) $var(x) = 1 / $var(zero);
    statsd_incr("calls");
    sip_capture("sip_capture_call_%Y%m%d");
#!ifdef LOUD
    xlog("loud\\n");
#!endif
    exit;
}}
"""

CASE = """\
- name: a call is stored
  clock: 2026-01-02 12:00:00
  packets:
    - sip: |
        INVITE sip:bob@example.net SIP/2.0
        Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1
        From: <sip:alice@example.org>;tag=a
        To: <sip:bob@example.net>
        Call-ID: 1
        CSeq: 1 INVITE
  expect:
"""

STORED = """\
    log: ["INVITE from alice"]
    rows: {sip_capture_call_20260102: [{method: INVITE, from_user: alice, via_1: {matches: ".*192.0.2.1.*"}}]}
    udp: "calls:1|c"
    result: exit
    route: request_route
"""


@pytest.fixture
def tested(tmp_path, capsys):
    """Runs the script above against cases; gives the exit status and what was printed."""
    (tmp_path / "homer.cfg").write_text(SCRIPT.format(folder=tmp_path))

    def run(cases, *arguments, name="homer.test.yaml"):
        (tmp_path / name).write_text(cases)
        status = main(["test", str(tmp_path / "homer.cfg"), *arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return (
            status,
            printed.out.replace(str(tmp_path), ""),
            printed.err.replace(str(tmp_path), ""),
        )

    return run


def test_a_case_that_holds_is_one_line_and_status_0(tested):
    status, out, _ = tested(CASE + STORED)
    assert status == 0
    assert out.splitlines()[:2] == ["/homer.test.yaml", "  ok    a call is stored"]
    assert out.splitlines()[2].startswith("1 passed, 0 failed in ")


def test_nothing_of_a_script_in_use_is_delivered(tested, tmp_path):
    assert tested(CASE + STORED)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["homer.cfg", "homer.test.yaml"]


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ('log: ["INVITE from bob"]', ["log: - expected, + got", "- INVITE from bob", "+ INVITE from alice"]),
        ("log: []", ["+ INVITE from alice"]),
        ("log: [{level: ERROR, text: INVITE from alice}]", ["- ERROR: INVITE from alice", "+ WARNING: INVITE from alice"]),
        ("rows: {sip_capture_call_20260102: [{method: BYE, callid: 1}]}", ["rows of sip_capture_call_20260102", "-   method: BYE", "+   method: INVITE", "    callid: 1"]),
        ("rows: {other: [{method: INVITE}]}", ["- row 1", "rows came into: sip_capture_call_20260102"]),
        ("rows: {sip_capture_*: 2}", ["- 2 rows", "+ 1 rows"]),
        ("rows: {sip_capture_call_20260102: [{metod: INVITE}]}", ["-   metod: INVITE", "+   metod: (no such column)"]),
        ("udp: []", ["+ calls:1|c"]),
        ("result: drop", ["- drop", "+ exit"]),
        ("route: onreply_route", ["- onreply_route", "+ request_route"]),
        ("metrics: {homerd_statsd_not_numbers_total: 2}", ["- homerd_statsd_not_numbers_total 2", "+ homerd_statsd_not_numbers_total 0"]),
        ("metrics: {homerd_nothing: 2}", ["+ (no such metric)"]),
        ("effects: [{sink: statsd}]", ["- {'sink': 'statsd'}"]),
        ("diagnostics: [W902]", ["- W902"]),
        ("load: error", ["- error", "+ ok"]),
    ],
)  # fmt: skip
def test_what_is_not_as_expected_is_shown_against_what_came(tested, expected, shown):
    status, out, _ = tested(CASE + f"    {expected}\n")
    assert status == 1
    assert [text for text in shown if text not in out] == []
    assert "0 passed, 1 failed" in out


def test_an_error_of_the_script_fails_a_case_that_does_not_expect_it(tested):
    bye = CASE.replace("INVITE", "BYE")
    status, out, _ = tested(bye + "    result: exit\n")
    assert status == 1
    assert "errors: - expected, + got" in out
    assert "+ division by zero" in out
    assert tested(bye + '    errors: ["division by zero"]\n')[0] == 0


def test_an_expectation_may_belong_to_one_packet(tested):
    status, out, _ = tested(
        CASE.removesuffix("  expect:\n") + '      expect: {log: ["BYE"], result: exit}\n'
    )
    assert status == 1
    assert "packet 1, log: - expected, + got" in out


def test_a_script_that_does_not_compile_fails_with_its_diagnostics(tested, tmp_path):
    (tmp_path / "homer.cfg").write_text('request_route { sip_captur("x"); }\n')
    status, out, _ = tested(CASE + STORED)
    assert status == 1
    assert 'error[E201]: unknown function "sip_captur"' in out


def test_load_error_and_codes_can_be_expected(tested):
    script = "- {script: 'request_route { nope(); }', expect: {load: error, diagnostics: E201}}\n"
    assert tested(script)[0] == 0


def test_a_hep_packet_may_say_what_matters_alone_and_its_payload_may_be_a_mapping(tested):
    case = """\
- script: |
    loadmodule "pv"
    loadmodule "xlog"
    loadmodule "sipcapture"
    modparam("sipcapture", "hep_capture_on", 1)
    modparam("sipcapture", "nonsip_hook", 1)
    event_route[sipcapture:request] { xlog("$hep(0x00b) $hep(0x00c) $(rb{s.len})\\n"); drop; }
    request_route { exit; }
  packets:
    - hep: {proto_type: 5, capture_id: 7, payload: {a: 1}}
  expect: {log: [{matches: "5 7 [0-9]+"}]}
"""
    assert tested(case)[0] == 0


def test_a_case_with_a_script_of_its_own_may_ask_for_rows_of_its_database(tested):
    script = SCRIPT.format(folder="@DIR@").replace("\n", "\n    ")
    case = CASE.replace("- name", "- script: |\n    " + script + "\n  name").replace(
        "  clock", "  database: never-made.db\n  clock"
    )
    assert tested(case + "    rows: {sip_capture_call_20260102: [{method: INVITE}]}\n")[0] == 0
    status, out, _ = tested(case + "    rows: {sip_capture_call_20260102: [{method: BYE}]}\n")
    assert status == 1
    assert "+   method: INVITE" in out


def test_switches_come_from_the_case_and_from_the_command_line(tested):
    expected = CASE + '    log: ["INVITE from alice", loud]\n'
    assert tested(expected.replace("  clock", "  define: [LOUD]\n  clock"))[0] == 0
    assert tested(expected, "-A", "LOUD")[0] == 0
    assert tested(expected)[0] == 1


def test_k_chooses_by_name(tested):
    two = CASE + STORED + CASE.replace("a call is stored", "another") + "    result: drop\n"
    assert tested(two, "-k", "CALL")[0] == 0
    assert tested(two, "-k", "another")[0] == 1
    status, _, err = tested(two, "-k", "no such")
    assert (status, err) == (1, "homerd: no case has 'no such' in its name\n")


def test_v_tells_each_packet(tested):
    assert "#1 127.0.0.1:5060 > 127.0.0.1:5060 INVITE" in tested(CASE + STORED, "-v")[1]


def test_json_is_an_object_a_case_and_a_summary(tested):
    status, out, _ = tested(CASE + "    result: drop\n", "--json")
    case, summary = (json.loads(line) for line in out.splitlines())
    assert status == 1
    assert (case["name"], case["passed"]) == ("a call is stored", False)
    assert case["wrong"] == [
        {"what": "result", "expected": ["drop"], "got": ["exit"], "note": ""}
    ]  # fmt: skip
    assert (summary["summary"]["passed"], summary["summary"]["failed"]) == (0, 1)


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ("- {packets: [{sipp: x}]}", 'case 1 "case 1": packet 1: expected one of the keys'),
        ("- {paket: []}", 'case 1: unknown key "paket"'),
        ("- {packets: [], expect: {rowz: 1}}", 'unknown key "rowz"'),
        ("- {packets: [], clock: noon}", 'clock: expected a date and time, got "noon"'),
        ("x: [", "while parsing"),
        ("42", "expected a list of cases"),
        ("- 42", "case 1: expected a mapping"),
        ("- {packets: {a: 1}}", "packets: expected a list"),
    ],
)
def test_a_file_of_cases_with_a_fault_is_named_and_status_1(tested, cases, told):
    status, _, err = tested(cases)
    assert status == 1
    assert err.startswith("homerd: /homer.test.yaml")
    assert told in err


def test_without_cases_it_says_where_it_looked(tmp_path, capsys):
    (tmp_path / "a.cfg").write_text("")
    assert main(["test", str(tmp_path / "a.cfg")]) == 1
    assert "neither a.test.yaml nor tests/a.test.yaml" in capsys.readouterr().err
    assert main(["test", str(tmp_path / "b.cfg")]) == 1
    assert "b.cfg: no such file" in capsys.readouterr().err


def test_wrong_options_are_status_2(capsys):
    assert main(["test", "--nope"]) == 2
    assert "--nope" in capsys.readouterr().err


def test_cases_in_a_folder_named_tests_are_found(tested, tmp_path):
    (tmp_path / "tests").mkdir()
    status, out, _ = tested(CASE + STORED, name="tests/homer.test.yaml")
    assert (status, out.splitlines()[0]) == (0, "/tests/homer.test.yaml")


def test_numbers_and_their_text_are_the_same_and_null_is_the_empty_text():
    got = {"rows": {"t": [{"n": 486, "a": None, "b": ""}]}}
    assert compare({"rows": {"t": [{"n": "486", "a": "", "b": None}]}}, got) == []


SHIPPED = sorted({*ROOT.glob("*.test.yaml"), *ROOT.glob("examples/**/*.test.yaml")})


@pytest.mark.parametrize("cases", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_cases_of_a_shipped_script_hold(cases, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    script = cases.with_name(cases.name.removesuffix(".test.yaml") + ".cfg")
    status = main(["test", str(script)])
    assert status == 0, capsys.readouterr().out


def test_what_a_script_asks_of_its_database_is_answered_by_the_case(tested, monkeypatch):
    monkeypatch.delenv("HOMERD_DB", raising=False)
    case = f"""\
- script: |
    mpath="{ROOT / "plugins"}"
    loadmodule "pv"
    loadmodule "xlog"
    loadmodule "sqlops"
    modparam("sqlops", "sqlcon", "cb=>mysql://user:secret@192.0.2.1/homer_data")
    request_route {{
        sql_query("cb", "select name from customers where ip = '192.0.2.1'", "r");
        xlog("$dbr(r=>[0,0])\\n");
        sql_query("cb", "insert into seen values (1)");
        drop;
    }}
  sql: ["CREATE TABLE customers (ip TEXT, name TEXT)", "INSERT INTO customers VALUES ('192.0.2.1', 'acme')"]
  packets: ["OPTIONS sip:a@b SIP/2.0\\nVia: SIP/2.0/UDP 192.0.2.1;branch=z\\nFrom: <sip:a@b>;tag=1\\nTo: <sip:a@b>\\nCall-ID: 1\\nCSeq: 1 OPTIONS\\n"]
  expect: {{log: [acme], rows: {{seen: [{{sql: insert into seen values (1)}}]}}}}
"""
    status, out, _ = tested(case)
    assert status == 0, out
    assert "HOMERD_DB" not in os.environ


def test_a_store_that_is_named_answers_the_cases_without_one(tested, monkeypatch, tmp_path):
    monkeypatch.setenv("HOMERD_DB", "")
    with closing(sqlite3.connect(tmp_path / "real.db")) as store:
        store.execute("CREATE TABLE customers (name TEXT)")
        store.execute("INSERT INTO customers VALUES ('acme')")
        store.commit()
    case = f"""\
- script: |
    mpath="{ROOT / "plugins"}"
    loadmodule "xlog"
    loadmodule "sqlops"
    modparam("sqlops", "sqlcon", "cb=>mysql://user:secret@192.0.2.1/homer_data")
    request_route {{
        sql_query("cb", "select name from customers", "r");
        xlog("$dbr(r=>[0,0])\\n");
        drop;
    }}
  packets: ["OPTIONS sip:a@b SIP/2.0\\nVia: SIP/2.0/UDP 192.0.2.1;branch=z\\nFrom: <sip:a@b>;tag=1\\nTo: <sip:a@b>\\nCall-ID: 1\\nCSeq: 1 OPTIONS\\n"]
  expect: {{log: [acme]}}
"""
    assert tested(case)[0] == 1
    status, out, _ = tested(case, "--db", f"sqlite://{tmp_path}/real.db")
    assert status == 0, out


def test_sent_is_what_left_by_a_sink(tested):
    assert tested(CASE + '    sent: {statsd: ["calls:1|c"]}\n')[0] == 0
    status, out, _ = tested(CASE + '    sent: {"http*": ["x"]}\n')
    assert status == 1
    assert "sent by: statsd" in out
