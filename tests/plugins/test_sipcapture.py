"""Scripts that capture: what goes to the sink, what is refused, what does not load."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, ScriptErrors
from homerd.wire.hep import Frame, encode
from homerd_plugins._tables import CaptureMode, TableName
from homerd_plugins.sipcapture import COMPUTED_TABLES

MODULES = ("pv", "xlog", "sipcapture")
ON = (
    'modparam("sipcapture", "capture_on", 1)\n'
    'modparam("sipcapture", "hep_capture_on", 1)\n'
    'modparam("sipcapture", "db_url", "sqlite://@DIR@/x.db")\n'
)
JULY_14 = 1500000000  # 2017-07-14 02:40:00 UTC
MIDNIGHT = 1499990400  # 2017-07-14 00:00:00 UTC
INVITE = (
    "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKa\r\n"
    "From: <sip:alice@a.example>;tag=f\r\nTo: <sip:bob@b.example>\r\n"
    "Call-ID: %s\r\nCSeq: 7 INVITE\r\n\r\n"
)


def hep3(payload: str, **chunks: object) -> Frame:
    """A HEP 3 packet of July 14, 2017; captured by agent 2001 between 10.0.0.1 and 10.0.0.2."""
    told = {
        "family": 2,
        "protocol": 17,
        "src": bytes([10, 0, 0, 1]),
        "dst": bytes([10, 0, 0, 2]),
        "src_port": 5060,
        "dst_port": 5061,
        "seconds": JULY_14,
        "micros": 42,
        "payload_type": 1,
        "capture_id": 2001,
        "payload": payload.encode(),
    }
    frame = Frame(**(told | chunks))  # type: ignore[arg-type]
    frame.raw = encode(frame)
    return frame


class Capture:
    """A worker over one script; each packet gives what it emitted and what it logged."""

    def __init__(self, text: str, folder: Path, deliver: bool) -> None:
        self.folder = folder
        self.lines: list[str] = []
        head = "debug=2\n" + "".join(f'loadmodule "{name}"\n' for name in MODULES)
        self.program = load(Path("test.cfg"), text=head + (ON + text).replace("@DIR@", str(folder)))
        self.plugin = self.program.registry.plugin("sipcapture")
        self.worker = Worker(
            self.program,
            deliver=deliver,
            log=lambda level, line: self.lines.append(line.rstrip("\n")),
        )
        self.worker.start()

    def feed(self, frame: Frame) -> list[tuple[str, str, tuple[object, ...]]]:
        """Route it; gives (sink, table, row) of each record."""
        packet, failure = self.worker.engine.feed(frame)
        assert not isinstance(failure, Exception), failure
        return [(sink.name, record[0], record[2]) for sink, record in packet.effects]

    def tables(self, *frames: Frame) -> list[str]:
        """The tables of what *frames* emit."""
        return [table for frame in frames for _, table, _ in self.feed(frame)]

    def invite(self, call_id: str = "c1", **chunks: object) -> list[str]:
        """The tables of what an INVITE emits."""
        return self.tables(hep3(INVITE % call_id, **chunks))


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Callable[..., Capture]]:
    """Makes a Capture of a script's text; stops it at the end."""
    made: list[Capture] = []

    def make(text: str, deliver: bool = False) -> Capture:
        made.append(Capture(text, tmp_path, deliver))
        return made[-1]

    yield make
    for one in made:
        one.worker.stop()


@pytest.fixture
def route(capture: Callable[..., Capture]) -> Callable[..., Capture]:
    """Makes a Capture whose request_route holds these statements."""
    return lambda statements, extra="": capture(f"{extra}\nrequest_route {{ {statements} }}")


# Tables


@pytest.mark.parametrize(
    ("name", "seconds", "table"),
    [
        ("sip_capture", JULY_14, "sip_capture"),
        ("call_%Y%m%d", JULY_14, "call_20170714"),
        ("call_%Y%m%d", MIDNIGHT - 1, "call_20170713"),
        ("call_%Y%m%d", MIDNIGHT, "call_20170714"),
        ("c_%Y_%j_%U_%H%M%S", JULY_14, "c_2017_195_28_024000"),
    ],
)
def test_codes_in_a_table_are_those_of_the_packets_time_in_utc(route, name, seconds, table):
    one = route(f'sip_capture("{name}");')
    assert one.invite(seconds=seconds) == [table]


def test_packets_before_and_after_midnight_may_come_in_any_order():
    name = TableName("t_%Y%m%d")
    found = [name.at(MIDNIGHT + shift) for shift in (1, -1, 0, -2)]
    assert found == ["t_20170714", "t_20170713", "t_20170714", "t_20170713"]


def test_microseconds_above_a_million_count_for_the_table(route):
    one = route('sip_capture("t_%S");')
    assert one.invite(micros=3_000_000) == ["t_03"]


def test_a_table_in_a_variable_that_looks_rotated_is_taken(route):
    one = route('$var(t) = "x_" + $hep(0x00c); sip_capture("$var(t)");')
    assert one.invite() == ["x_2001"]


def test_a_variable_is_the_whole_name_and_what_follows_it_is_dropped(route):
    one = route('$var(t) = "t1"; sip_capture("$var(t)_%Y");')
    assert one.invite() == ["t1"]


@pytest.mark.parametrize("name", ["mine", "t1_x", "a b1", "t1; DROP", "sqlite_stat1", "t%Q1", ""])
def test_other_names_in_a_variable_are_refused_unless_the_table_is_there(route, name):
    one = route(f'$var(t) = "{name}"; sip_capture("$var(t)"); xlog("$rc");')
    assert (one.invite(), one.lines) == ([], ["-1"])
    assert sum(one.plugin.refused.values()) == 1


def test_a_table_that_is_there_may_be_named_by_a_variable(capture, tmp_path):
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE mine (callid TEXT)")
    connection.close()
    script = 'request_route { $var(t) = "mine"; sip_capture("$var(t)"); }'
    assert capture(script, deliver=True).invite() == ["mine"]


def test_computed_names_make_a_bounded_number_of_tables(route):
    one = route('$var(t) = "x_" + $ci; sip_capture("$var(t)");')
    made = [table for number in range(COMPUTED_TABLES + 5) for table in one.invite(str(number))]
    assert (len(made), one.plugin.refused) == (COMPUTED_TABLES, {"too_many_tables": 5})
    assert one.invite("7") == ["x_7"]


def test_a_refused_table_is_logged_once_a_second_with_the_remedy(route, caplog):
    one = route('$var(t) = "mine"; sip_capture("$var(t)"); sip_capture("$var(t)");')
    with caplog.at_level(logging.WARNING, "homerd.sipcapture"):
        one.invite()
    assert [record.message for record in caplog.records] == [
        "sip_capture refused reason=no_table table='mine' count=1 "
        "remedy='make the table, or let the script name it without variables'"
    ]


def test_without_a_table_those_of_the_parameters(route):
    table_name = 'modparam("sipcapture", "table_name", "t_%Y")'
    assert route("sip_capture();", table_name).invite() == ["t_2017"]
    assert route("sip_capture();").invite() == ["sip_capture"]


def test_round_robin_takes_tables_in_turn(route):
    one = route(
        "sip_capture();",
        'modparam("sipcapture", "table_name", "a|b|c")\n'
        'modparam("sipcapture", "mt_mode", "round_robin")',
    )
    assert [table for _ in range(4) for table in one.invite()] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("source", "call_id", "table"),
    [
        ("call_id", "call-1@example.org", "t0"),  # its CRC-32 is 1550974096
        ("call_id", "abc", "t2"),  # 891568578
        ("call_id", "abc and more", "t2"),
        ("from_user", "x", "t3"),  # alice: 663665735
        ("to_user", "x", "t0"),  # bob: 4123767104
    ],
)
def test_hash_takes_the_crc_32_of_its_source(route, source, call_id, table):
    one = route(
        "sip_capture();",
        'modparam("sipcapture", "table_name", "t0|t1|t2|t3")\n'
        'modparam("sipcapture", "mt_mode", "hash")\n'
        f'modparam("sipcapture", "hash_source", "{source}")',
    )
    assert one.invite(call_id) == [table]


def test_rand_takes_every_table_now_and_then(route):
    one = route("sip_capture();", 'modparam("sipcapture", "table_name", "a|b")')
    assert {table for _ in range(64) for table in one.invite()} == {"a", "b"}


# Modes


def test_a_mode_has_its_own_store_and_counts(capture):
    one = capture(
        'modparam("sipcapture", "capture_mode", '
        '"archive=>db_url=sqlite://@DIR@/y.db;table_name=a|b;mt_mode=round_robin")\n'
        'request_route { sip_capture("t", "archive"); sip_capture("u"); }'
    )
    found = one.feed(hep3(INVITE % "c"))
    assert [(sink, table) for sink, table, _ in found] == [
        ("sipcapture.archive", "t"),
        ("sipcapture", "u"),
    ]
    counted = [
        (labels["mode"], value)
        for name, labels, value in one.plugin.metrics()
        if name == "homerd_sipcapture_captured_requests_total"
    ]
    assert counted == [("default", 1), ("archive", 1)]


def test_modes_on_one_file_share_its_sink(capture):
    one = capture(
        'modparam("sipcapture", "capture_mode", '
        '"other=>db_url=sqlite://@DIR@/x.db;table_name=a;mt_mode=rand")\n'
        "request_route { drop; }"
    )
    assert [sink.name for sink in one.worker.sinks] == ["sipcapture"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=>db_url=sqlite://x;table_name=t", "lacks mt_mode"),
        ("a=>db_url=sqlite://x;table_name=t;mt_mode=best", "expected one of rand"),
        ("a=>db_url=sqlite://x;table_name=t;mt_mode=hash;hash_source=via", "call_id, from_user"),
        ("a=>url=sqlite://x", 'has no setting "url"'),
        ("db_url=sqlite://x", 'expected "NAME=>'),
        ("a=>db_url=sqlite://x;table_name=t t;mt_mode=rand", "cannot be a table"),
    ],
)
def test_modes_that_do_not_load(text, message):
    with pytest.raises(ValueError, match=message):
        CaptureMode.from_script(text)


# Rows


def test_a_request_and_its_reply_are_counted_and_stored(capture):
    one = capture('request_route { sip_capture("t"); }\nonreply_route { sip_capture("t"); }')
    reply = (INVITE % "c").replace("INVITE sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK")
    rows = [one.feed(hep3(text))[0][2] for text in (INVITE % "c", reply)]
    assert [row[2] for row in rows] == ["INVITE", "200"]


def test_rows_reach_the_database(capture, tmp_path):
    one = capture('request_route { sip_capture("call_%Y%m%d"); }', deliver=True)
    one.invite(correlation_id="corr-1")
    one.worker.stop()
    connection = sqlite3.connect(tmp_path / "x.db")
    query = "SELECT date, source_ip, destination_port, node, correlation_id FROM call_20170714"
    assert connection.execute(query).fetchall() == [
        ("2017-07-14 02:40:00", "10.0.0.1", 5061, "homer01:2001", "corr-1")
    ]
    connection.close()


def test_parameters_that_shape_a_row(route):
    one = route(
        'sip_capture("t");',
        'modparam("sipcapture", "capture_node", "edge")\n'
        'modparam("sipcapture", "callid_aleg_header", "X-No;Subject")\n'
        'modparam("sipcapture", "custom_field1_header", "CSeq")\n'
        'modparam("sipcapture", "ip_protocol_numbers", 1)\n'
        'modparam("sipcapture", "callid_column", "cid")\n'
        'modparam("sipcapture", "correlation_column", "corr")',
    )
    message = (INVITE % "c").replace("\r\n\r\n", "\r\nSubject: leg\r\n\r\n")
    packet, _ = one.worker.engine.feed(hep3(message))
    ((sink, record),) = packet.effects
    row = sink.describe(record)["record"]
    shaped = ("node", "callid_aleg", "custom_field1", "proto", "cid", "corr")
    assert [row[name] for name in shaped] == ["edge:2001", "leg", "7 INVITE", 17, "c", "c"]


def test_with_capture_off_nothing_is_stored(capture):
    one = capture(
        'modparam("sipcapture", "capture_on", 0)\n'
        'request_route { sip_capture("t"); xlog("$rc"); report_capture("t"); xlog("$rc"); }'
    )
    assert (one.invite(), one.lines, one.worker.sinks) == ([], ["-1", "-1"], [])


# Reports


def test_a_report_with_an_id_and_text(route):
    one = route('report_capture("report_capture", "id-1", "MOS=4");')
    ((_, table, row),) = one.feed(hep3(INVITE % "c"))
    assert table == "report_capture"
    assert row == (
        "2017-07-14 02:40:00",
        1500000000000042,
        "id-1",
        "10.0.0.1",
        5060,
        "10.0.0.2",
        5061,
        1,
        2,
        1,
        "homer01:2001",
        "MOS=4",
    )


@pytest.mark.parametrize("data", ["", ', ""', ', "", ""', ', "", "report_capture"'])
def test_a_report_is_the_whole_message_of_its_call_when_the_script_says_no_other(route, data):
    row = route(f'report_capture("t1"{data});').feed(hep3(INVITE % "c"))[0][2]
    assert (row[2], row[11]) == ("c", INVITE % "c")


def test_the_table_of_a_report_has_no_codes(route):
    one = route('report_capture("t_%Y"); xlog("$rc");')
    assert (one.invite(), one.lines) == ([], ["-1"])


@pytest.mark.parametrize(
    ("payload_type", "table", "kind"),
    [
        (5, "rtcp_capture", 3),
        (32, "report_capture", 2),
        (33, "report_capture", 33),
        (34, "report_capture", 34),
        (35, "report_capture", 35),
        (36, "report_capture", 36),
        (37, "report_capture", 37),
        (38, "report_capture", 38),
        (99, "report_capture", 4),
        (100, "logs_capture", 5),
    ],
)
def test_reports_are_stored_without_the_script(route, payload_type, table, kind):
    one = route('xlog("routed");')
    found = one.feed(hep3("{}", payload_type=payload_type, correlation_id="c1"))
    assert [(name, row[2], row[9], row[11]) for _, name, row in found] == [
        (table, "c1", kind, "{}")
    ]
    assert one.lines == []


def test_a_report_of_no_call_is_counted(route):
    one = route("drop;")
    assert one.feed(hep3("{}", payload_type=5)) == []
    assert one.plugin.refused == {"no_correlation_id": 1}


@pytest.mark.parametrize("payload_type", [5, 32, 33, 34, 35, 36, 37, 38, 99, 100])
def test_a_report_of_no_call_is_stored_on_demand_and_found_by_its_empty_id(route, payload_type):
    one = route("drop;", 'modparam("sipcapture", "store_uncorrelated", 1)')
    ((_, _, row),) = one.feed(hep3("{}", payload_type=payload_type))
    assert (row[2], row[11], one.plugin.refused) == ("", "{}", {})


@pytest.mark.parametrize("payload_type", [2, 33, 34, 35, 36, 37, 38])
def test_sip_in_a_report_is_a_message_as_any_other(route, payload_type):
    one = route('sip_capture("sip_capture");')
    frame = hep3(INVITE % "c", payload_type=payload_type, correlation_id="c1")
    assert one.tables(frame) == ["sip_capture"]


@pytest.mark.parametrize("payload_type", [32, 99])
def test_sip_in_a_report_that_kamailio_knows_is_a_report(route, payload_type):
    frame = hep3(INVITE % "c", payload_type=payload_type, correlation_id="c1")
    assert route('sip_capture("sip_capture");').tables(frame) == ["report_capture"]


PUBLISH = (
    "PUBLISH sip:collector@a.example SIP/2.0\r\nCall-ID: publish-1\r\nCSeq: 1 PUBLISH\r\n"
    "Content-Type: application/vq-rtcpxr\r\n\r\n"
)
SESSION_REPORT = "VQSessionReport: CallTerm\r\n%s\r\nLocalID:<sip:alice@a.example>\r\n"


@pytest.mark.parametrize(("payload_type", "head"), [(35, ""), (99, ""), (99, PUBLISH)])
@pytest.mark.parametrize("line", ["CallID:c7@host", "CallID: c7@host ", "callid : c7@host"])
def test_a_voice_quality_report_names_its_call_itself(route, payload_type, head, line):
    one = route("drop;")
    text = head + SESSION_REPORT % line
    ((_, table, row),) = one.feed(hep3(text, payload_type=payload_type))
    assert (table, row[2], row[11]) == ("report_capture", "c7@host", text)


def test_what_the_envelope_says_goes_before_what_the_report_says(route):
    frame = hep3(SESSION_REPORT % "CallID: c7", payload_type=35, correlation_id="c1")
    assert route("drop;").feed(frame)[0][2][2] == "c1"


# The hook


def test_in_the_hook_a_report_has_the_addresses_and_payload_of_the_envelope(capture):
    one = capture(
        'modparam("sipcapture", "nonsip_hook", 1)\n'
        'event_route[sipcapture:request] { report_capture("t1"); sip_capture("t1"); '
        'xlog("$rc"); return 0; }\nrequest_route { drop; }'
    )
    ((_, _, row),) = one.feed(hep3("{}", payload_type=5, correlation_id="c1"))
    assert row[:4] == ("2017-07-14 02:40:00", 1500000000000042, "c1", "10.0.0.1")
    assert (row[9], row[11]) == (3, "{}")
    assert one.lines == ["-1"]


def test_the_hook_sees_hep_whatever_hep_capture_on_says(capture):
    one = capture(
        'modparam("sipcapture", "nonsip_hook", 1)\nmodparam("sipcapture", "hep_capture_on", 0)\n'
        'event_route[sipcapture:request] { xlog("hook"); return 1; }\n'
        'request_route { xlog("route"); drop; }'
    )
    one.invite()
    assert one.lines == ["hook", "route"]


def test_without_hep_capture_on_hep_is_refused(capture):
    one = capture(
        'modparam("sipcapture", "hep_capture_on", 0)\nrequest_route { sip_capture("t"); }'
    )
    assert (one.invite(), one.worker.engine.refused) == ([], {"hep_off": 1})


# $hep and float2int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "3"),
        ("0x001", "2"),
        ("0x003", "10.0.0.1"),
        ("0x005", ""),
        ("0x007", "5060"),
        ("0x009", "1500000000"),
        ("0x00a", "42"),
        ("0x00B", "1"),
        ("0x00c", "2001"),
        ("0x00e", ""),
        ("0x011", "corr"),
        ("0x012", "7"),  # Kamailio gives -1 for this and all later ones
        ("0x013", ""),
        ("0x065", "-1"),
    ],
)
def test_hep(route, name, value):
    one = route(f'xlog("[$hep({name})]");')
    chunks = {"vlan": 7, "unknown_chunks": [(0x65, b"x")]}
    one.feed(hep3(INVITE % "c", correlation_id="corr", extra=chunks))
    assert one.lines == [f"[{value}]"]


def test_a_missing_chunk_is_empty_text_and_not_null(route):
    one = route('if ($hep(0x00e) == "") xlog("empty"); if ($hep(0x00e) == $null) xlog("null");')
    one.invite()
    assert one.lines == ["empty"]


@pytest.mark.parametrize(
    ("value", "factor", "result"),
    [
        ("4.17", '"10"', "41"),
        ("4.17", "10", "41"),
        ("0.001", '"10"', "-1"),
        ("-2.5", '"10"', "-25"),
        (" 1e2x", '"2"', "200"),
        ("text", '"10"', "-1"),
        (".5", '"4"', "2"),
        ("1e300", '"10"', "-2147483648"),
    ],
)
def test_float2int(route, value, factor, result):
    one = route(f'float2int("{value}", {factor}); xlog("$rc");')
    one.invite()
    assert one.lines == [result]


# What does not load


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modparam("sipcapture", "nonsip_hook", 1)', "there is no event_route"),
        ('modparam("sipcapture", "mt_mode", "best")', "expected one of rand, hash, round_robin"),
        ('modparam("sipcapture", "hash_source", "via")', "expected one of call_id"),
        ('modparam("sipcapture", "table_name", "a-b")', "cannot be a table"),
        ('modparam("sipcapture", "insert_retries", 501)', "expected 0 to 500"),
        ('modparam("sipcapture", "nosuch_column", "x")', "has no parameter"),
        ('route[A] { sip_capture("t_%Q"); }', '"%Q" in "t_%Q" is no code'),
        ('route[A] { sip_capture("t-1"); }', "cannot be a table"),
        ('route[A] { sip_capture("t", "no"); }', 'unknown capture mode "no", known: default'),
        ("route[A] { $var(x) = $hep(11); }", 'got "11"'),
        ("route[A] { $var(x) = $hep(0x0011); }", 'got "0x0011"'),
        ("route[A] { $var(x) = $hep; }", "expected version or 0x"),
    ],
)
def test_scripts_that_do_not_load(refusal, text, message):
    assert message in refusal(f"{text}\nrequest_route {{ drop; }}", MODULES)


def test_hash_without_a_source_is_a_warning():
    text = (
        'loadmodule "sipcapture"\nmodparam("sipcapture", "capture_mode", '
        '"a=>db_url=sqlite://x.db;table_name=t;mt_mode=hash")\nrequest_route { drop; }'
    )
    warnings = [found.message for found in load(Path("test.cfg"), text=text).warnings]
    assert any("does not say what hash is taken of" in warning for warning in warnings)


def test_an_entry_event_that_is_never_run_is_a_warning():
    text = (
        'loadmodule "sipcapture"\nmodparam("sipcapture", "nonsip_hook", {})\n'
        "event_route[sipcapture:request] {{ return 1; }}\nrequest_route {{ drop; }}"
    )
    warned = {
        hook: [found.message for found in load(Path("test.cfg"), text=text.format(hook)).warnings]
        for hook in (0, 1)
    }
    assert warned == {
        0: ["event_route[sipcapture:request] is never run: nonsip_hook is 0"],
        1: [],
    }


def test_a_database_that_cannot_be_opened_stops_the_start(capture):
    message = r'modparam\("sipcapture", "db_url", .*no such folder'
    text = 'modparam("sipcapture", "db_url", "sqlite://@DIR@/no/x.db")\nrequest_route { drop; }'
    with pytest.raises(ConfigError, match=message):
        capture(text, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("db_url", "oracle://u:secret@h/db"),
        ("capture_mode", "two=>db_url=oracle://u:secret@h/db;table_name=t;mt_mode=rand"),
    ],
)
def test_an_address_that_cannot_be_read_is_told_at_its_line(capture, name, value):
    with pytest.raises(ScriptErrors) as raised:
        capture(f'modparam("sipcapture", "{name}", "{value}")\nrequest_route {{ drop; }}')
    (told,) = raised.value.diagnostics
    assert "there is no store for oracle" in told.message
    assert "secret" not in told.message


def test_other_stores_can_be_named_from_outside(capture, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "HOMERD_DB",
        f"mysql://192.0.2.1/a=sqlite://{tmp_path}/a.db;mysql://192.0.2.1/b=sqlite://{tmp_path}/b.db",
    )
    one = capture(
        'modparam("sipcapture", "db_url", "mysql://u:secret@192.0.2.1/a")\n'
        'modparam("sipcapture", "capture_mode",'
        ' "two=>db_url=mysql://u:secret@192.0.2.1/b;table_name=t;mt_mode=rand")\n'
        'request_route { sip_capture(); sip_capture("t", "two"); }',
        True,
    )
    assert [sink.where for sink in one.worker.sinks] == [
        f"sqlite:{tmp_path}/a.db",
        f"sqlite:{tmp_path}/b.db",
    ]


def test_stat_tells_what_each_mode_captured(capture):
    one = capture(
        'modparam("sipcapture", "capture_mode", "two=>db_url=sqlite://@DIR@/b.db;table_name=t;'
        'mt_mode=rand")\n'
        'request_route { sip_capture(); sip_capture("t", "two"); sip_capture("t", "two");'
        ' xlog("$stat(captured_requests) $stat(sipcapture:captured_requests)'
        ' $stat(captured_requests[two]) $stat(captured_replies)"); }'
    )
    one.invite()
    assert one.lines == ["1 1 2 0"]
