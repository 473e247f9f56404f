"""SqliteSink against files: what it makes, what it keeps, what it refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homerd.errors import ConfigError, Rejected, RetryLater
from homerd_plugins._homer5 import INTEGER, REPORT_COLUMNS, SIP_COLUMNS, Column
from homerd_plugins._sqlite import SqliteSink
from homerd_plugins._stores import Address

SIP, REPORT = 0, 1


def sip_record(table: str = "sip_capture_call_20260101", **cells: object):
    """A record with these cells, 0 or "" in the others."""
    usual = {column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS}
    row = tuple((usual | {"date": "2026-01-01 00:00:00", "callid": "c"} | cells).values())
    return table, SIP, row


REPORT_RECORD = (
    "rtcp_capture",
    REPORT,
    ("2026-01-01 00:00:00", 1, "c", "10.0.0.1", 1, "10.0.0.2", 2, 1, 2, 3, "homer01", "{}"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def sink(path: Path) -> Iterator[Callable[..., SqliteSink]]:
    """Makes sinks on one file; closes them at the end."""
    made: list[SqliteSink] = []

    def make(layouts=(SIP_COLUMNS, REPORT_COLUMNS), **options) -> SqliteSink:
        made.append(SqliteSink("sipcapture", str(path), layouts, busy_seconds=0, **options))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def plan(path: Path, query: str) -> str:
    return "; ".join(str(row[3]) for row in rows(path, f"EXPLAIN QUERY PLAN {query}"))


def test_rows_of_both_kinds_into_tables_that_were_missing(sink, path):
    sink().write([sip_record(callid="a"), REPORT_RECORD, sip_record(callid="b", auth=None)])
    assert rows(path, "SELECT id, callid, auth FROM sip_capture_call_20260101 ORDER BY id") == [
        (1, "a", ""),
        (2, "b", None),
    ]
    assert rows(path, "SELECT correlation_id, type, msg FROM rtcp_capture") == [("c", 3, "{}")]


def test_a_batch_that_comes_again_is_not_stored_again(sink, path):
    one, other = sink(), sink()
    one.batch_id = other.batch_id = "b1"
    one.write([sip_record("t", callid="a")])
    other.write([sip_record("t", callid="a")])
    other.batch_id = "b2"
    other.write([sip_record("t", callid="b")])
    assert rows(path, "SELECT callid FROM t") == [("a",), ("b",)]


def test_columns_stand_in_kamailios_order(sink, path):
    sink().write([sip_record("t")])
    names = [name for (name,) in rows(path, "SELECT name FROM pragma_table_info('t')")]
    assert names == ["id", *(column.key for column in SIP_COLUMNS)]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_any_number_of_rows_in_their_order(sink, path, count):
    sink().write([sip_record("t", callid=str(number)) for number in range(count)])
    stored = rows(path, "SELECT callid FROM t ORDER BY id")
    assert stored == [(str(number),) for number in range(count)]


def test_bytes_nul_and_any_text_come_back_as_they_were(sink, path):
    sink().write([sip_record("t", msg=b"\xff\0"), sip_record("t", msg="a\0b Ü '\"")])
    assert rows(path, "SELECT msg FROM t ORDER BY id") == [(b"\xff\0",), ("a\0b Ü '\"",)]


@pytest.mark.parametrize(
    "condition",
    [
        "callid = 'x'",
        "callid >= 'x' AND callid < 'y'",
        "from_user = 'x'",
        "to_user = 'x'",
        "ruri_user = 'x'",
        "source_ip = 'x'",
        "destination_ip = 'x'",
        "callid_aleg = 'x' AND callid_aleg <> ''",
        "correlation_id = 'x' AND correlation_id <> callid",
        "date >= '2026-01-01 00:00:00' AND date < '2026-01-02'",
    ],
)
def test_whoever_searches_has_an_index(sink, path, condition):
    sink().write([sip_record("t")])
    asked = plan(path, f"SELECT * FROM t WHERE {condition}")
    assert "SEARCH t USING INDEX" in asked
    assert "SCAN" not in asked


def test_indexes_work_over_many_buckets_of_rows(sink, path):
    one = sink()
    one.write([sip_record("t", callid="here")])
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO t (id, callid, msg) VALUES (10000000, 'here', 'late')")
    connection.commit()
    connection.close()
    one.write([sip_record("t", callid="here"), sip_record("t", callid="there")])
    found = rows(path, "SELECT id FROM t WHERE callid = 'here' ORDER BY id")
    assert found == [(1,), (10000000,), (10000001,)]


def test_columns_may_have_other_names(sink, path):
    names = {"callid": "cid", "date": "at", "correlation_id": "corr"}
    layout = [column._replace(renamed=names.get(column.key, "")) for column in SIP_COLUMNS]
    sink((layout,)).write([sip_record("t", callid="a")])
    assert rows(path, "SELECT cid FROM t WHERE cid = 'a'") == [("a",)]
    assert "SEARCH t USING INDEX" in plan(path, "SELECT * FROM t WHERE cid = 'a'")


def test_a_table_that_is_there_keeps_its_shape(sink, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (msg TEXT, CallID TEXT, own INTEGER DEFAULT 7)")
    connection.close()
    sink().write([sip_record("mine", callid="a", msg="m")])
    assert rows(path, "SELECT * FROM mine") == [("m", "a", 7)]


def test_a_table_for_something_else_is_refused_and_the_rest_can_be_written(sink, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE kv (k TEXT)")
    connection.close()
    one = sink()
    batch = [sip_record("t"), sip_record("kv"), sip_record("t")]
    with pytest.raises(Rejected, match=r'table "kv" .* none of the columns') as refused:
        one.write(batch)
    assert refused.value.indices == [1]
    one.write([batch[0], batch[2]])
    assert rows(path, "SELECT count(*) FROM t") == [(2,)]


def test_without_create_tables_a_missing_table_is_refused(sink, path):
    with pytest.raises(Rejected, match=r'no table "t" in .*, and create_tables is 0'):
        sink(create_tables=False).write([sip_record("t")])


@pytest.mark.parametrize("value", ["\udc80", 1 << 64])
def test_a_value_no_column_takes_costs_its_own_row_only(sink, path, value):
    with pytest.raises(Rejected) as refused:
        sink().write([sip_record("t"), sip_record("t", family=value), sip_record("t")])
    assert refused.value.indices == [1]
    assert rows(path, "SELECT name FROM sqlite_schema WHERE name = 't'") == []


def test_a_row_that_breaks_a_constraint_of_the_operators_costs_itself_only(sink, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (callid TEXT UNIQUE)")
    connection.close()
    with pytest.raises(Rejected, match="UNIQUE") as refused:
        sink().write([sip_record("t", callid=name) for name in ("a", "b", "a")])
    assert refused.value.indices == [2]


def test_a_locked_file_means_later_and_nothing_is_half_written(sink, path):
    one = sink()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryLater, match="locked"):
        one.write([sip_record("t")])
    other.execute("ROLLBACK")
    other.close()
    one.write([sip_record("t")])
    assert rows(path, "SELECT count(*) FROM t") == [(1,)]


def test_a_table_dropped_meanwhile_is_made_again(sink, path):
    one = sink()
    one.write([sip_record("t")])
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE t")
    connection.close()
    one.write([sip_record("t", callid="a")])
    assert rows(path, "SELECT id, callid FROM t") == [(1, "a")]


def test_readers_see_rows_while_the_sink_is_open(sink, path):
    one = sink()
    reader = sqlite3.connect(path)
    one.write([sip_record("t")])
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
    one.write([sip_record("t")])
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (2,)
    reader.close()


def test_closing_leaves_one_file(sink, path):
    one = sink()
    one.write([sip_record("t")])
    one.close()
    assert [item.name for item in path.parent.iterdir()] == ["x.db"]


def test_tables_known_to_the_loop_thread(sink, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Mine (msg TEXT)")
    connection.close()
    one = sink()
    assert one.tables == {"mine"}
    one.write([sip_record("T1")])
    assert one.tables >= {"mine", "t1"}


def test_a_record_described():
    sink = SqliteSink("sipcapture", "x.db", [[Column("callid"), Column("msg", renamed="raw")]])
    assert sink.describe(("t", 0, ("c", b"\xff"))) == {
        "table": "t",
        "record": {"callid": "c", "raw": "\ufffd"},
    }
    assert sink.label(("t", 0, ())) == "t"


def test_a_folder_that_is_not_there_is_the_operators_to_mend(tmp_path):
    sink = SqliteSink("s", f"{tmp_path}/no/x.db", [SIP_COLUMNS], source='modparam("db_url")')
    with pytest.raises(ConfigError, match=r'modparam\("db_url"\): no such folder: .*/no'):
        sink.connect()


def test_a_file_of_another_kind_is_the_operators_to_mend(tmp_path):
    other = tmp_path / "x.db"
    other.write_text("#!KAMAILIO\n" * 200)
    sink = SqliteSink("s", str(other), [SIP_COLUMNS], source='modparam("db_url")')
    with pytest.raises(ConfigError, match=r'modparam\("db_url"\): .*file is not a database'):
        sink.connect()


def test_a_folder_in_place_of_a_file_is_the_operators_to_mend(tmp_path):
    with pytest.raises(ConfigError, match="unable to open database file"):
        SqliteSink("s", str(tmp_path), [SIP_COLUMNS]).connect()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tmp/x.db", "/tmp/x.db"),
        ("sqlite://x.db", "x.db"),
        ("sqlite:////tmp/x.db", "//tmp/x.db"),
        ("SQLite://var/x.db", "var/x.db"),
    ],
)
def test_the_path_is_what_follows_the_two_slashes(url, path):
    assert Address.of(url).database == path
