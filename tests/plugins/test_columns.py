"""Columns that change: the next table has them, one that is there is written with what it has."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame
from homerd_plugins._homer5 import INTEGER, SIP_COLUMNS, Cell, Column, ColumnWidths
from homerd_plugins._stores import Address, sink_for

OLDER = tuple(column for column in SIP_COLUMNS if column.key != "custom_field3")
NEWER = (*SIP_COLUMNS, Column("server", width=200))


class Database:
    """A store of any kind: its URL and what a query gives."""

    def __init__(self, kind: str, url: str, rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self.kind = kind
        self.url = url
        self.rows = rows
        self.made: list[Any] = []

    def sink(self, layout=SIP_COLUMNS, **options) -> Any:
        self.made.append(sink_for(Address.of(self.url), "sipcapture", [layout], **options))
        self.made[-1].connect()
        return self.made[-1]

    def columns(self, table: str) -> set[str]:
        if self.kind == "sqlite":
            found = self.rows(f"SELECT name FROM pragma_table_info('{table}')")
        else:
            found = self.rows(
                f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
            )
        return {name for (name,) in found}


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def database(request, tmp_path) -> Iterator[Database]:
    if request.param == "sqlite":
        path = tmp_path / "x.db"

        def rows(query: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                return connection.execute(query).fetchall()

        one = Database("sqlite", f"sqlite://{path}", rows)
    else:
        server = request.getfixturevalue(request.param)
        scheme = "postgres" if request.param == "postgres" else "mysql"
        one = Database(request.param, server.url(scheme), server.rows)
    yield one
    for sink in one.made:
        sink.close()


def record(table: str, layout=SIP_COLUMNS, **cells: Cell):
    usual: dict[str, Cell] = {column.key: 0 if column.type == INTEGER else "" for column in layout}
    row = usual | {"date": "2026-01-01 00:00:00", "callid": "c", "msg": "m"} | cells
    return table, 0, tuple(row.values())


def test_a_column_of_a_newer_version_is_in_the_next_table(database, caplog):
    database.sink(SIP_COLUMNS).write([record("c_1")])
    one = database.sink(NEWER)
    one.write([record("c_1", NEWER, server="s"), record("c_2", NEWER, server="s")])
    one.close()
    one.connect()
    one.write([record("c_1", NEWER, server="s")])
    assert database.rows("SELECT count(*) FROM c_1") == [(3,)]
    assert database.rows("SELECT server FROM c_2") == [("s",)]
    assert "server" not in database.columns("c_1")
    assert caplog.text.count("table lacks columns") == 1


def test_a_row_of_a_column_less_goes_into_a_table_that_has_more(database):
    database.sink(SIP_COLUMNS).write([record("c_1")])
    database.sink(OLDER).write([record("c_1", OLDER)])
    assert database.rows("SELECT count(*), max(custom_field3) FROM c_1") == [(2, "")]


@pytest.mark.parametrize("key", ["msg", "callid", "source_port", "method"])
def test_a_column_with_another_name_is_in_the_next_table(database, key):
    layout = [
        column._replace(renamed="other") if column.key == key else column for column in SIP_COLUMNS
    ]
    database.sink().write([record("c_1")])
    value = 7 if key == "source_port" else "x"
    database.sink(layout).write([record("c_1", **{key: value}), record("c_2", **{key: value})])
    assert database.rows("SELECT count(*) FROM c_1") == [(2,)]
    assert database.rows("SELECT other FROM c_2") == [(value,)]


def test_a_column_of_others_that_each_row_must_name_is_given_nothing(database):
    database.rows(
        "CREATE TABLE theirs (callid varchar(20) NOT NULL, note varchar(20) NOT NULL,"
        " n integer NOT NULL, own integer NOT NULL DEFAULT 7)"
    )
    one = database.sink()
    one.write([record("theirs", callid=str(number)) for number in range(3)])
    assert set(database.rows("SELECT note, n, own FROM theirs")) == {("", 0, 7)}


def test_a_wider_column_is_in_the_next_table_and_the_older_one_keeps_its_width(database):
    wide = [
        column._replace(width=300) if column.key == "callid" else column for column in SIP_COLUMNS
    ]
    database.sink().write([record("c_1")])
    one = database.sink(wide)
    one.write([record("c_1", callid="Ü" * 400), record("c_2", callid="Ü" * 400)])
    found = [database.rows(f"SELECT max(length(callid)) FROM {name}") for name in ("c_1", "c_2")]
    if database.kind == "sqlite":  # holds text of any length
        assert found == [[(400,)], [(400,)]]
    elif database.kind == "mariadb":  # counts bytes
        assert found == [[(240,)], [(600,)]]
    else:
        assert found == [[(120,)], [(300,)]]


def test_a_table_made_ahead_is_made_anew_while_it_is_empty(database, caplog):
    caplog.set_level(logging.INFO)
    before = database.sink()
    before.make_ahead("c_1", 0)
    before.make_ahead("c_2", 0)
    before.write([record("c_2")])
    now = database.sink(NEWER)
    now.make_ahead("c_1", 0)
    now.make_ahead("c_2", 0)
    now.write([record("c_1", NEWER, server="s"), record("c_2", NEWER, server="s")])
    assert database.rows("SELECT server FROM c_1") == [("s",)]
    assert database.rows("SELECT count(*) FROM c_2") == [(2,)]
    expected = 0 if database.kind == "sqlite" else 1  # which makes nothing ahead
    assert caplog.text.count("made anew") == expected


@pytest.mark.parametrize(
    "text", ["callid", "callid=0", "callid=513", "callid=x", "msg=10", "nosuch=5", "micro_ts=5"]
)
def test_a_width_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=r"expected callid=1 to 512|no text column"):
        ColumnWidths.from_script(text)


def test_names_and_widths_of_a_script_are_those_of_the_table(database):
    text = (
        'loadmodule "sipcapture"\nmodparam("sipcapture", "capture_on", 1)\n'
        'modparam("sipcapture", "hep_capture_on", 1)\n'
        f'modparam("sipcapture", "db_url", "{database.url}")\n'
        'modparam("sipcapture", "callid_column", "call_id")\n'
        'modparam("sipcapture", "column_width", "callid=8; user_agent=512")\n'
        'request_route { sip_capture("calls"); drop; }\n'
    )
    worker = Worker(load(Path("test.cfg"), text=text))
    worker.start()
    message = (
        "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z\r\nFrom: <sip:a@b>;tag=1\r\n"
        "To: <sip:a@b>\r\nCall-ID: 0123456789\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    worker.engine.feed(
        Frame(3, 2, 17, b"\x0a\0\0\1", b"\x0a\0\0\2", 5060, 5061, 1, 0, 1, payload=message.encode())
    )
    worker.flush(20)
    worker.stop()
    whole = "0123456789" if database.kind == "sqlite" else "01234567"
    assert database.rows("SELECT call_id FROM calls") == [(whole,)]
