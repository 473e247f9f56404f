"""Reading stored messages: by which indexes, from tables of others, from servers that hang."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from homerd.errors import ConfigError
from homerd_plugins import _server_readers
from homerd_plugins._homer5 import INTEGER, SIP_COLUMNS
from homerd_plugins._homer7 import COLUMNS
from homerd_plugins._reader import Reader, reader_of
from homerd_plugins._stored import end_of
from homerd_plugins._stores import Address, sink_for

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
MICROS = 1_000_000
TABLE = "sip_capture_call_20260101"


def record(table: str = TABLE, **cells: object):
    """A message of new year."""
    usual = {column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS}
    told = {"date": "2026-01-01 00:00:00", "micro_ts": NEW_YEAR * MICROS, "callid": "c"}
    return table, 0, tuple((usual | told | cells).values())


def url_of(server: Any) -> str:
    return server.url("postgres" if server.package == "postgresql" else "mysql")


def reader(url: str) -> Reader:
    one = reader_of(Address.of(url), "db_url", SIP_COLUMNS)
    one.open()
    return one


def store(url: str, records: list[Any], layouts: Any = (SIP_COLUMNS,)) -> None:
    sink = sink_for(Address.of(url), "sipcapture", layouts)
    sink.connect()
    sink.write(records)
    sink.close()


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def equal(part: str) -> tuple[tuple[str, list[str], bool], ...]:
    return ((part, ["x"], False),)


@pytest.mark.parametrize(
    ("keys", "since", "until", "index"),
    [
        (equal("callid"), None, None, "callid"),
        ((("callid", ["x", "y"], False),), None, None, "callid"),
        ((("callid", ["x"], True),), None, None, "callid"),
        (equal("from_user"), None, None, "from_user"),
        (equal("to_user"), NEW_YEAR, None, "to_user"),
        ((("to_user", ["x"], True),), None, None, "to_user"),
        (equal("callid_aleg"), NEW_YEAR, NEW_YEAR + 9, "callid_aleg"),
        (equal("correlation_id"), NEW_YEAR, NEW_YEAR + 9, "correlation_id"),
        ((), NEW_YEAR, None, "date"),
        ((), None, NEW_YEAR, "date"),
        ((), None, None, "date"),
    ],
)
def test_no_search_reads_a_whole_table_of_sqlite(tmp_path, keys, since, until, index):
    store(f"sqlite://{tmp_path}/x.db", [record()])
    one = reader(f"sqlite://{tmp_path}/x.db")
    times = (None if time is None else time * MICROS for time in (since, until))
    query = one.query(one.tables[0], keys, *times, 9)
    assert query is not None
    plan = [row[3] for row in one.run(f"EXPLAIN QUERY PLAN {query[0]}", query[1])]
    one.close()
    # Without a condition the newest rows are read along the index, as many as are wanted.
    how = "SEARCH" if "WHERE" in query[0] else "SCAN"
    assert plan[0].startswith(f"{how} {TABLE} USING INDEX {TABLE}_{index}")


@pytest.mark.parametrize("part", ["callid", "from_user", "to_user", "callid_aleg"])
@pytest.mark.parametrize("is_begin", [False, True])
def test_a_server_can_use_the_index_of_a_key(server, part, is_begin):
    store(url_of(server), [record(callid=str(at), callid_aleg="x") for at in range(500)])
    one = reader(url_of(server))
    query = one.query(one.tables[0], ((part, ["x"], is_begin),), None, None, 9)
    assert query is not None
    if server.package == "postgresql":
        one.run("SET enable_seqscan = off")  # which is quicker for so few rows
        plan = "\n".join(row[0] for row in one.run(f"EXPLAIN (COSTS OFF) {query[0]}", query[1]))
        assert re.search(rf"Index Cond: \(+{part}\)::text", plan)
    else:
        assert part in one.run(f"EXPLAIN {query[0]}", query[1])[0][4].split(",")
    one.close()


def test_tables_are_asked_newest_day_first_and_older_ones_only_when_there_is_not_enough(tmp_path):
    url = f"sqlite://{tmp_path}/x.db"
    days = range(5)
    told = [(NEW_YEAR + day * 86400) * MICROS for day in days]
    store(url, [record(f"t_2026010{day + 1}", micro_ts=told[day]) for day in days])
    one = reader(url)
    asked: list[str] = []
    one.run = lambda sql, values=(), run=one.run: (asked.append(sql), run(sql, values))[1]  # type: ignore[method-assign]
    assert [each["table"] for each in one.search((), None, None, 1)] == ["t_20260105"]
    # A day more than is needed, for clocks that differ.
    assert [sql.split('FROM "')[1][:10] for sql in asked] == ["t_20260105", "t_20260104"]
    one.close()


def test_a_table_of_others_is_read_by_the_columns_it_has(server):
    server.rows(
        "CREATE TABLE sip_capture (id integer, micro_ts bigint, callid varchar(99), method varchar(9))"
    )
    server.rows("CREATE TABLE unrelated (id integer, callid varchar(99))")
    server.rows(f"INSERT INTO sip_capture VALUES (1, {NEW_YEAR * MICROS}, 'k', 'BYE')")
    one = reader(url_of(server))
    (found,) = one.search((("callid", ["k"], False),), NEW_YEAR * MICROS, None, 9)
    assert (found["method"], found["from_user"], found["msg"]) == ("BYE", "", "")
    assert one.search((("from_user", ["x"], False),), None, None, 9) == []
    assert one.search((("callid", ["k"], False),), None, None, 9, by_index=True) == []
    one.close()


def test_a_partition_made_by_inheritance_is_read_through_its_table(postgres):
    store(url_of(postgres), [record("sip_capture")])
    postgres.rows("CREATE TABLE sip_capture_p2026010100 () INHERITS (sip_capture)")
    postgres.rows(
        "INSERT INTO sip_capture_p2026010100 (id, date, micro_ts, callid)"
        f" VALUES (7, '2026-01-01', {NEW_YEAR * MICROS}, 'p')"
    )
    one = reader(url_of(postgres))
    assert [each["callid"] for each in one.search((), None, None, 9)] == ["c", "p"]
    one.close()


def test_what_heplify_server_writes_is_read(postgres):
    header = {"srcIp": "192.0.2.1", "srcPort": 5060.0, "dstIp": "192.0.2.2", "dstPort": "5070"}
    header |= {"timeSeconds": NEW_YEAR, "timeUseconds": 42, "protocol": 6, "captureId": "node1"}
    raw = "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\n\r\n"
    row = ("c@h", "2026-01-01 00:00:00.000042+00:00", json.dumps(header), '{"method":"404"}', raw)
    bare = ("d@h", "2026-01-01 00:00:01+00:00", "[]", "7", "")
    records = [("hep_proto_1_call", 0, row), ("hep_proto_1_default", 0, bare)]
    store(url_of(postgres), [*records, ("hep_proto_5_default", 0, bare)], (COLUMNS,))
    one = reader(url_of(postgres))
    found, empty = one.search((), None, None, 9)
    assert (found["micro_ts"], found["source_port"]) == (NEW_YEAR * MICROS + 42, 5060)
    assert (found["destination_port"], found["protocol"], found["node"]) == (5070, "tcp", "node1")
    assert (found["method"], found["reply_reason"]) == ("404", "Not Found")
    assert (found["via_1_branch"], found["callid"]) == ("z9hG4bK1", "c@h")
    assert (empty["micro_ts"], empty["method"]) == ((NEW_YEAR + 1) * MICROS, "")
    one.close()


def test_a_server_that_hangs_is_given_up_on(server, monkeypatch):
    monkeypatch.setattr(_server_readers, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(_server_readers, "HANG_SECONDS", 0.1)
    store(url_of(server), [record()])
    one = reader(url_of(server))
    server.hold()
    try:
        with pytest.raises(ConfigError, match="db_url: "):
            one.search((), None, None, 9)
    finally:
        server.release()
        one.close()


def test_nothing_can_be_written(server, tmp_path):
    store(url_of(server), [record()])
    store(f"sqlite://{tmp_path}/x.db", [record()])
    for url in (url_of(server), f"sqlite://{tmp_path}/x.db"):
        one = reader(url)
        with pytest.raises((*one.errors, sqlite3.Error)):
            one.run(f"DELETE FROM {TABLE}")
        one.close()


def test_a_table_that_goes_meanwhile_is_passed_over(server):
    store(url_of(server), [record("t_20260101"), record("t_20260102", callid="d")])
    one = reader(url_of(server))
    server.rows("DROP TABLE t_20260102")
    assert [each["callid"] for each in one.search((), None, None, 9)] == ["c"]
    one.close()


@pytest.mark.parametrize("micros", [-1, 0, 1 << 62])
def test_a_time_that_cannot_be_is_found_and_told(tmp_path, micros):
    store(f"sqlite://{tmp_path}/x.db", [record("t", micro_ts=micros)])
    one = reader(f"sqlite://{tmp_path}/x.db")
    assert [each["micro_ts"] for each in one.search((), None, None, 9)] == [micros]
    assert one.search((("callid", ["c"], False),), -(1 << 62), 1 << 61, 9) == [] or micros < 1
    one.close()


def test_the_last_day_there_is_ends_no_search():
    assert [end_of(f"x_{day}") for day in (99991231, 20260101)] == [
        None,
        (NEW_YEAR + 2 * 86400) * MICROS,
    ]
