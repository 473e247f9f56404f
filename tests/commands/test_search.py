"""homerd search: what it finds, how it looks, and that it uses the indexes."""

from __future__ import annotations

import argparse
import io
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from homerd.cli import main
from homerd.commands._choice import moment
from homerd.commands._message import Message
from homerd.commands.search import print_table
from homerd_plugins._homer5 import INTEGER, REPORT_COLUMNS, SIP_COLUMNS
from homerd_plugins._reader import reader_of
from homerd_plugins._sqlite import SqliteSink
from homerd_plugins._stores import Address

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
MICROS = 1_000_000


def record(table: str, at: float, **cells: object):
    """A stored message, *at* seconds after new year."""
    seconds = NEW_YEAR + int(at)
    usual = {column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS}
    told = {
        "date": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "micro_ts": round((NEW_YEAR + at) * MICROS),
        "method": "INVITE",
        "cseq": "7 INVITE",
        "from_user": "alice",
        "to_user": "bob",
        "callid": "c1",
        "correlation_id": "c1",
        "source_ip": "10.0.0.1",
        "source_port": 5060,
        "destination_ip": "10.0.0.2",
        "destination_port": 5061,
        "node": "homer01:1",
        "msg": "INVITE sip:bob@b SIP/2.0\r\n\r\n",
    }
    return table, 0, tuple((usual | told | cells).values())


def stored(path: Path, records: list[tuple[str, int, tuple[object, ...]]]) -> Path:
    """A database with *records*."""
    sink = SqliteSink("sipcapture", str(path), [SIP_COLUMNS, REPORT_COLUMNS])
    sink.connect()
    sink.write(records)
    sink.close()
    return path


CALL, REST = "sip_capture_call_20260101", "sip_capture_rest_20260101"
OK = {"method": "200", "reply_reason": "OK", "source_ip": "10.0.0.2", "destination_ip": "10.0.0.1"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return stored(
        tmp_path / "x.db",
        [
            record(CALL, 1.5),
            record(CALL, 2.25, **OK),
            record(REST, 2, method="OPTIONS", cseq="1 OPTIONS", callid="o1", from_user="carol"),
            record(CALL, 60, callid="c2", from_user="alan", to_user=None, msg=b"\xff\0"),
            ("rtcp_capture", 1, ("2026-01-01 00:00:00", 1, "c1", *[""] * 9)),
        ],
    )


@pytest.fixture
def search(database, capsys):
    """Runs the command over the database; gives exit status, output and errors."""

    def run(*arguments: str, db: Path | None = database):
        status = main(["search", *(["--db", str(db)] if db else []), *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def call_ids(search):
    """Runs the command; gives the Call-IDs it finds, in its order."""

    def run(*arguments: str) -> list[str]:
        status, out, _ = search("--json", *arguments)
        assert status == 0
        return [json.loads(line)["callid"] for line in out.splitlines()]

    return run


def test_messages_in_the_order_of_time_one_a_line(search):
    assert search() == (
        0,
        "TIME (UTC)               MESSAGE        FROM > TO    SOURCE > DESTINATION           CALL-ID\n"
        "2026-01-01 00:00:01.500  INVITE         alice > bob  10.0.0.1:5060 > 10.0.0.2:5061  c1\n"
        "2026-01-01 00:00:02.000  OPTIONS        carol > bob  10.0.0.1:5060 > 10.0.0.2:5061  o1\n"
        "2026-01-01 00:00:02.250  INVITE 200 OK  alice > bob  10.0.0.2:5060 > 10.0.0.1:5061  c1\n"
        "2026-01-01 00:01:00.000  INVITE         alan > -     10.0.0.1:5060 > 10.0.0.2:5061  c2\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--call-id", "c1"], ["c1", "c1"]),
        (["--call-id", "c*"], ["c1", "c1", "c2"]),
        (["--call-id", "C1"], []),
        (["--from", "alice"], ["c1", "c1"]),
        (["--from", "al*"], ["c1", "c1", "c2"]),
        (["--from", "al"], []),
        (["--to", "bob"], ["c1", "o1", "c1"]),
        (["--to", "*"], ["c1", "o1", "c1", "c2"]),
        (["--from", "carol", "--to", "bob"], ["o1"]),
        (["--from", "carol", "--call-id", "c1"], []),
        (["--since", "2026-01-01T00:00:02"], ["o1", "c1", "c2"]),
        (["--since", "2026-01-01T00:00:02.1"], ["c1", "c2"]),
        (["--since", "2026-01-01T01:00:02+01:00"], ["o1", "c1", "c2"]),
        (["--until", "2026-01-01T00:00:02.25"], ["c1", "o1"]),
        (["--until", "2026-01-01T00:00:02"], ["c1"]),
        (["--since", "2026-01-01", "--until", "2026-01-01T00:00:02", "--to", "bob"], ["c1"]),
        (["--since", "2026-01-02"], []),
        (["--limit", "2"], ["c1", "c2"]),
    ],
)
def test_what_is_found(call_ids, arguments, found):
    assert call_ids(*arguments) == found


def test_a_json_line_has_the_columns_and_the_message(search):
    _, out, _ = search("--json", "--call-id", "c2")
    told = json.loads(out)
    assert told["time"] == "2026-01-01T00:01:00Z"
    assert told["micro_ts"] == (NEW_YEAR + 60) * MICROS
    assert (told["table"], told["id"], told["node"]) == (CALL, 3, "homer01:1")
    assert (told["to_user"], told["msg"]) == ("", "\ufffd\0")


def test_more_than_the_limit_is_said(search):
    _, out, _ = search("--limit", "1")
    assert out.splitlines()[1:] == [
        "2026-01-01 00:01:00.000  INVITE   alan > -   10.0.0.1:5060 > 10.0.0.2:5061  c2",
        "the newest 1; there are older ones: --limit N, --until TIME",
    ]


def test_nothing_found_is_no_fault(search, database):
    assert search("--call-id", "none") == (0, f"nothing found in {database}\n", "")
    assert search("--json", "--call-id", "none") == (0, "", "")


def test_what_came_from_the_network_cannot_move_the_cursor(search, tmp_path):
    path = stored(tmp_path / "y.db", [record("t", 0, callid="\x1b[2Jü\n")])
    assert search(db=path)[1].splitlines()[1].endswith("  ?[2Jü?")


class Terminal(io.StringIO):
    """A terminal that shows UTF-8."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_has_shorter_columns_and_colours(database, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    reader = reader_of(Address.of(f"sqlite://{database}"), "", SIP_COLUMNS)
    reader.open()
    cells = reader.search((), None, (NEW_YEAR + 3) * MICROS, 9)
    reader.close()
    found = [Message.of(each, "") for each in cells]
    out = Terminal()
    print_table(found, out)
    assert out.getvalue().splitlines() == [
        "TIME (UTC)      MESSAGE     FROM > TO    SOURCE > DESTINATION  CALL-ID",
        "01-01 00:00:01  INVITE      alice > bob  10.0.0.1 > 10.0.0.2   c1",
        "01-01 00:00:02  OPTIONS     carol > bob  10.0.0.1 > 10.0.0.2   o1",
        "\x1b[32m01-01 00:00:02  INVITE 200  alice > bob  10.0.0.2 > 10.0.0.1   c1\x1b[0m",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    print_table(found[:1], out)
    assert out.getvalue().splitlines()[1] == "01-01 00:00:01  INVITE   alice > bob  1…"


def test_the_database_is_that_of_the_script(search, database, tmp_path):
    script = tmp_path / "homer.cfg"
    script.write_text(
        f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "sqlite://{database}")\n'
        "request_route { drop; }\n"
    )
    status, out, _ = search("-f", str(script), "--call-id", "c2", db=None)
    assert (status, out.splitlines()[-1].split()[-1]) == (0, "c2")


def test_faults_of_the_input_are_one_line(search, tmp_path):
    missing, other, empty = tmp_path / "no.db", tmp_path / "text", tmp_path / "empty.db"
    other.write_text("no database " * 100)
    sqlite3.connect(empty).close()
    assert search(db=missing) == (
        1,
        "",
        f"homerd: {missing}: no such database\n",
    )
    assert search(db=other) == (1, "", f"homerd: {other}: file is not a database\n")
    empty.touch()
    assert search(db=empty) == (
        1,
        "",
        f"homerd: {empty}: no table of SIP messages that may be read\n",
    )
    without = tmp_path / "plain.cfg"
    without.write_text("request_route { drop; }\n")
    assert search("-f", str(without), db=None) == (
        1,
        "",
        f"homerd: {without}: loads no sipcapture: give -f and -A as to homerd run, or --db PATH\n",
    )


def test_stores_that_are_no_databases_are_left_out(search, database, tmp_path):
    script = tmp_path / "homer.cfg"
    files = f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "file:{tmp_path}")\n'
    mode = f'modparam("sipcapture", "capture_mode", "m=>db_url=sqlite://{database};table_name=t;mt_mode=rand")\n'
    script.write_text(f"{files}{mode}request_route {{ drop; }}\n")
    assert search("-f", str(script), "--call-id", "c2", "--json", db=None)[0::2] == (0, "")
    script.write_text(f"{files}request_route {{ drop; }}\n")
    told = "stores in files alone, which are not searched: --db PATH names a database"
    assert search("-f", str(script), db=None) == (1, "", f"homerd: {script}: {told}\n")


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--limit", "0"]])
def test_faults_of_the_arguments(search, arguments):
    status, out, errors = search(*arguments)
    assert (status, out) == (2, "")
    assert "usage: homerd search" in errors


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90s", NEW_YEAR - 90),
        ("1h", NEW_YEAR - 3600),
        ("2d", NEW_YEAR - 172800),
        ("2026-01-01", NEW_YEAR),
        ("2026-01-01T00:00:01Z", NEW_YEAR + 1),
        ("2026-01-01 01:00:00+01:00", NEW_YEAR),
    ],
)
def test_moments(text, found):
    assert moment(text, datetime(2026, 1, 1, tzinfo=UTC)) == found * MICROS


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "999999999w", "2026-13-01"])
def test_texts_that_are_no_moment(text):
    with pytest.raises(argparse.ArgumentTypeError):
        moment(text)


def test_tables_of_kamailio_with_other_columns_and_julian_days(search, tmp_path):
    path = tmp_path / "k.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE sip_capture (id INTEGER PRIMARY KEY, date, micro_ts, method, callid, msg)"
    )
    connection.execute(
        "INSERT INTO sip_capture VALUES (1, 2461041.5, ?, 'BYE', 'k1', x'42')",
        (NEW_YEAR * MICROS,),
    )
    connection.commit()
    connection.close()
    _, out, _ = search("--since", "2026-01-01", "--json", db=path)
    told = json.loads(out)
    assert (told["callid"], told["msg"], told["from_user"]) == ("k1", "B", "")
    assert search("--from", "alice", "--json", db=path)[1] == ""


def test_messages_can_be_read_while_they_are_written(search, tmp_path):
    sink = SqliteSink("sipcapture", str(tmp_path / "z.db"), [SIP_COLUMNS])
    sink.connect()
    sink.write([record("t", 0)])
    assert len(search("--json", db=tmp_path / "z.db")[1].splitlines()) == 1
    sink.close()
