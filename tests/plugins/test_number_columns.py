"""Columns of numbers with a fraction, and NULL that stays NULL, in every store."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from homerd import testing
from homerd.core.sink import BatchSink
from homerd.errors import Rejected
from homerd_plugins._flatstore import FileAddress, FlatSink
from homerd_plugins._homer5 import (
    ALONE,
    BEHIND_TIME,
    BIGINT,
    INTEGER,
    REAL,
    REPORT_COLUMNS,
    TEXT,
    Column,
    Row,
)
from homerd_plugins._stores import Address, sink_for

DATE = "2026-01-01 00:00:00"
LAYOUT = (
    Column("date", TEXT, 19),
    Column("micro_ts", INTEGER),
    Column("call_id", TEXT, 256, index=ALONE),
    Column("codec", TEXT, 10, nullable=True),
    Column("port", INTEGER),
    Column("lost", BIGINT, nullable=True),
    Column("mos", REAL, nullable=True, index=BEHIND_TIME),
    Column("loss", REAL),
)
NAMES = ", ".join(column.name for column in LAYOUT[1:])
NUMBERS: list[Row] = [
    (DATE, 1, "whole", "PCMA", 5060, 3, 4.25, 0.5),
    (DATE, 2, "null", None, 0, None, None, None),
    (DATE, 3, "empty", "", 0, 0, 0.0, 0.0),
    (DATE, 4, "integer", "Ü'\\\x1f", 1, -5, 4, 2),
    (DATE, 5, "large", None, 65535, (1 << 63) - 1, 1.5e300, 0.1 + 0.2),
    (DATE, 6, "small", None, 65535, -(1 << 63), -1e-300, 1e-7),
]


class Store:
    """A database, its URL, and sinks on it."""

    def __init__(self, url: str, rows: Callable[[str], Any]) -> None:
        self.url = url
        self.ask = rows
        self.made: list[BatchSink] = []

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.ask(query)]

    def sink(self, layout=LAYOUT) -> Any:
        self.made.append(sink_for(Address.of(self.url), "qos", [layout], source="test"))
        return self.made[-1]

    def connected(self, layout=LAYOUT) -> Any:
        sink = self.sink(layout)
        sink.connect()
        return sink


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path) -> Iterator[Store]:
    if request.param == "sqlite":
        path = tmp_path / "qos.db"

        def rows(query: str) -> list[tuple[Any, ...]]:
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                return connection.execute(query).fetchall()

        made = Store(f"sqlite://{path}", rows)
    else:
        server = request.getfixturevalue(request.param)
        scheme = "postgres" if request.param == "postgres" else "mysql"
        made = Store(server.url(scheme), server.rows)
    yield made
    for sink in made.made:
        sink.close()


def test_numbers_come_back_as_they_were_and_null_as_null(store):
    store.connected().write([("t", 0, row) for row in NUMBERS])
    found = store.rows(f"SELECT {NAMES} FROM t ORDER BY id")
    wanted = [row[1:] for row in NUMBERS]
    if not store.url.startswith("sqlite"):
        wanted[1] = (*wanted[1][:-1], 0.0)  # the last column takes no NULL
    assert found == wanted


@pytest.mark.parametrize("count", [1, 2, 255, 257, 600])
def test_any_number_of_rows_with_and_without_null(store, count):
    rows = [NUMBERS[number % len(NUMBERS)] for number in range(count)]
    store.connected().write([("t", 0, row) for row in rows])
    (found,) = store.rows("SELECT count(*), count(mos), count(codec), sum(port) FROM t")
    told = count, *(sum(row[at] is not None for row in rows) for at in (6, 3))
    assert found[:3] == told
    assert int(found[3]) == sum(row[4] for row in rows)


def test_null_is_told_from_an_empty_text_and_a_nought(store):
    store.connected().write([("t", 0, row) for row in NUMBERS])
    found = store.rows("SELECT call_id FROM t WHERE codec IS NULL AND mos IS NULL")
    assert found == [("null",)]
    assert store.rows("SELECT call_id FROM t WHERE codec = '' AND mos = 0") == [("empty",)]


def test_a_table_of_others_that_takes_no_null_gets_nothing_told(store):
    text = "text" if store.url.startswith("sqlite") else "varchar(20)"
    store.rows(
        f"CREATE TABLE t (call_id {text}, codec {text} NOT NULL, lost bigint NOT NULL,"
        " mos double precision NOT NULL)"
    )
    if store.url.startswith("sqlite"):
        with pytest.raises(Rejected):  # SQLite's columns are as they are
            store.connected().write([("t", 0, NUMBERS[1])])
        return
    store.connected().write([("t", 0, NUMBERS[1])])
    assert store.rows("SELECT * FROM t") == [("null", "", 0, 0.0)]


def test_messages_have_no_null_in_their_texts_as_before(store):
    row = ("2026-01-01 00:00:00", 1, None, "10.0.0.1", 1, "10.0.0.2", 2, 1, None, 3, "n", "{}")
    store.rows("CREATE TABLE t (correlation_id varchar(20), family smallint, msg varchar(20))")
    store.connected(REPORT_COLUMNS).write([("t", 0, row)])
    kept = None if store.url.startswith("sqlite") else ""
    assert store.rows("SELECT * FROM t") == [(kept, None, "{}")]


def test_a_row_that_is_refused_is_found_among_the_others(store):
    sink = store.connected()
    store.rows("CREATE TABLE few (call_id varchar(20) NOT NULL UNIQUE, mos double precision)")
    store.rows("INSERT INTO few VALUES ('c2', 1), ('c5', NULL)")
    batch = [
        ("few", 0, (DATE, 1, f"c{number}", None, 0, None, None if number % 2 else 3.5, 0.0))
        for number in range(8)
    ]
    with pytest.raises(Rejected) as refused:
        sink.write(batch)
    assert refused.value.indices == [2, 5]
    assert len(store.rows("SELECT * FROM few")) == 2


def test_a_record_that_no_column_takes_is_quarantined_and_the_others_stored(store, tmp_path):
    batch = [("t", 0, (DATE, at, f"c{at}", None, 0, at, at / 4, 0.0)) for at in range(20)]
    batch[7] = ("t", 0, (DATE, 7, "c7", None, 0, 1 << 70, 4.5, 0.0))
    with testing.SinkRun(store.sink(), tmp_path / "spool") as run:
        run.feed(*batch)
        assert run.flush()
        (found,) = run.quarantined
    assert (found["record"]["call_id"], found["record"]["mos"]) == ("c7", 4.5)
    assert store.rows("SELECT count(*), max(mos) FROM t") == [(19, 4.75)]


def test_rows_that_waited_on_disk_are_the_same(tmp_path):
    folder = tmp_path / "spool"
    (tmp_path / "later").mkdir()
    path = tmp_path / "later" / "qos.db"

    def sink() -> Any:
        return sink_for(Address.of(f"sqlite://{path}"), "qos", [LAYOUT], source="test")

    first = sink()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as held:
        held.execute("PRAGMA journal_mode=WAL").fetchall()
        first.busy_seconds = 0.01
        with testing.SinkRun(first, folder) as run:
            held.execute("BEGIN EXCLUSIVE")
            run.feed(*(("t", 0, row) for row in NUMBERS))
            run.tick()
            testing.wait_until(lambda: run.counts["spooled"] == len(NUMBERS))
            held.execute("ROLLBACK")
    with testing.SinkRun(sink(), folder) as run:
        assert run.flush()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT {NAMES} FROM t ORDER BY id").fetchall()
    assert found == [row[1:] for row in NUMBERS]


def test_a_call_and_a_time_are_found_by_an_index(store):
    sink = store.connected()
    times = [f"2026-01-{1 + at // 200:02d} 00:00:00" for at in range(2000)]
    rows = [(times[at], at, f"c{at}", None, 0, at, at % 40 / 10, 0.0) for at in range(2000)]
    sink.write([("t", 0, row) for row in rows])
    since = "date >= '2026-01-05 00:00:00' AND date < '2026-01-05 12:00:00'"
    for column, query in (
        ("call_id", "SELECT mos FROM t WHERE call_id = 'c7'"),
        ("date", f"SELECT call_id FROM t WHERE {since} AND mos < 1"),
    ):
        if store.url.startswith("sqlite"):
            assert f"USING INDEX t_{column} " in str(store.rows(f"EXPLAIN QUERY PLAN {query}"))
        elif store.url.startswith("mysql"):
            assert store.rows(f"EXPLAIN {query}")[0][5] == column
        else:
            store.rows("ANALYZE t")
            assert f" t_{column} " in str(store.rows(f"EXPLAIN {query}"))


@pytest.mark.parametrize(("form", "line"), [("file", '"mos":4.25'), ("flatstore", "|3|4.25|0.5\n")])
def test_files_of_lines_have_numbers_as_they_are(tmp_path, form, line):
    address = FileAddress.of(f"{form}:{tmp_path}")
    assert address is not None
    sink = FlatSink("qos", address, [LAYOUT])
    sink.connect()
    sink.write([("t", 0, row) for row in NUMBERS[:2]])
    sink.close()
    (path,) = tmp_path.glob("t_*")
    assert line in path.read_text()
