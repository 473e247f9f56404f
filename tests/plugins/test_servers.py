"""Rows into PostgreSQL and MariaDB, the same behaviour held against each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import DATABASE

from homerd.errors import Rejected, RetryLater
from homerd_plugins._homer5 import INTEGER, REPORT_COLUMNS, SIP_COLUMNS, Cell
from homerd_plugins._serversink import ServerSink
from homerd_plugins._stores import Address, sink_for

SIP, REPORT = 0, 1
LAYOUTS = (SIP_COLUMNS, REPORT_COLUMNS)
WIDTHS = {column.key: column.width for column in SIP_COLUMNS}


def sip_record(table: str = "sip_capture_call_20260101", **cells: Cell):
    """A record with these cells, 0 or "" in the others."""
    usual: dict[str, Cell] = {
        column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS
    }
    row = tuple(
        (usual | {"date": "2026-01-01 00:00:00", "callid": "c", "auth": None} | cells).values()
    )
    return table, SIP, row


WRITER = {"postgres": " LOGIN PASSWORD 'w'", "mysql": " IDENTIFIED BY 'w'"}
# What a user needs who makes no tables.
GRANTS = {
    "postgres": (
        "USAGE ON SCHEMA public TO inserter",
        "SELECT, INSERT ON t, homerd_batches TO inserter",
        "USAGE ON SEQUENCE t_id_seq TO inserter",
    ),
    "mysql": (
        f"SELECT, INSERT ON {DATABASE}.t TO inserter",
        f"SELECT, INSERT ON {DATABASE}.homerd_batches TO inserter",
    ),
}
REPORT_RECORD = (
    "rtcp_capture",
    REPORT,
    ("2026-01-01 00:00:00", 1, "c", "10.0.0.1", 1, "10.0.0.2", 2, 1, 2, 3, "homer01", "{}"),
)


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def scheme(server: Any) -> str:
    return "postgres" if server.package == "postgresql" else "mysql"


@pytest.fixture
def sink(server: Any) -> Iterator[Callable[..., ServerSink]]:
    """Makes sinks on the server's database; closes them at the end."""
    made: list[ServerSink] = []

    def make(layouts=LAYOUTS, url: str = "", connect: bool = True, **options) -> ServerSink:
        address = Address.of(url or server.url(scheme(server)))
        options = {"source": 'modparam("sipcapture", "db_url", "…")'} | options
        made.append(sink_for(address, "sipcapture", layouts, **options))
        if connect:
            made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_rows_of_both_kinds_into_tables_that_were_missing(sink, server):
    sink().write([sip_record(callid="a"), REPORT_RECORD, sip_record(callid="b")])
    found = server.rows("SELECT id, callid, auth FROM sip_capture_call_20260101 ORDER BY id")
    assert found == [(1, "a", ""), (2, "b", "")]
    assert server.rows("SELECT correlation_id, type, msg FROM rtcp_capture") == [("c", 3, "{}")]


def test_every_column_comes_back_as_it_was_written(sink, server):
    cells: dict[str, Cell] = {
        column.key: number if column.type == INTEGER else f"text {number}"
        for number, column in enumerate(SIP_COLUMNS)
    }
    cells |= {"date": "2026-02-03 04:05:06", "micro_ts": 1770091506123456, "family": 10}
    sink().write([("t", SIP, tuple(cells.values()))])
    names = ", ".join(cells)
    ((date, *others),) = server.rows(f"SELECT {names} FROM t")
    assert (str(date), others) == (cells["date"], list(cells.values())[1:])


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_any_number_of_rows_in_their_order(sink, server, count):
    sink().write([sip_record("t", callid=str(number)) for number in range(count)])
    assert server.rows("SELECT callid FROM t ORDER BY id") == [(str(n),) for n in range(count)]


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\nline\r\n",
        "\\N",
        "\\",
        "'",
        "''",
        "a\\'b",
        '"`%s$1;--',
        "Ü \U0001f600",
        "\x1e\x1f",
        "\x1d",
        "NULL",
    ],
)
def test_any_text_comes_back_as_it_was(sink, server, text):
    sink().write([sip_record("t", callid="before"), sip_record("t", msg=text, from_user=text)])
    assert server.rows("SELECT msg, from_user FROM t ORDER BY id")[1] == (text, text)


def test_a_message_of_60_kilobytes_is_stored_whole(sink, server):
    sink().write([sip_record("t", msg="x'\\" * 20_000)])
    assert server.rows("SELECT msg FROM t") == [("x'\\" * 20_000,)]


def test_bytes_that_are_no_text_are_stored_as_latin_1_and_counted(sink, server):
    one = sink()
    one.write([sip_record("t", msg=b"a\xff\xfe"), sip_record("t", from_user="u\udcff")])
    found = server.rows("SELECT msg, from_user FROM t ORDER BY id")
    assert (found, one.mended) == ([("a\xff\xfe", ""), ("", "u\ufffd")], 2)


def test_nul_is_stored_where_it_can_be(sink, server):
    one = sink()
    one.write([sip_record("t", msg="a\0b", callid="c"), sip_record("t", msg="d")])
    kept = "a\0b" if scheme(server) == "mysql" else "ab"
    assert server.rows("SELECT msg FROM t ORDER BY id") == [(kept,), ("d",)]


def test_what_is_too_long_is_cut_on_a_character_and_counted(sink, server):
    one = sink()
    one.write([sip_record("t", callid="Ü" * 200, via_1="v" * 300), sip_record("t")])
    ((callid, via),) = server.rows("SELECT callid, via_1 FROM t WHERE via_1 <> ''")
    assert (callid, via) == ("Ü" * WIDTHS["callid"], "v" * WIDTHS["via_1"])
    assert one.truncated == {"callid": 1, "via_1": 1}


def test_a_table_that_is_there_keeps_its_shape_and_its_widths(sink, server):
    server.rows(
        "CREATE TABLE mine (msg varchar(5), callid char(4), family smallint, own int DEFAULT 7)"
    )
    one = sink()
    one.write([sip_record("mine", callid="call-1", msg="message", family=None)])
    assert server.rows("SELECT * FROM mine") == [("messa", "call", None, 7)]


def test_other_character_sets_of_mysql_hold_what_they_can(sink, mariadb):
    mariadb.rows("CREATE TABLE old (callid varchar(20)) CHARSET latin1")
    mariadb.rows("CREATE TABLE older (callid varchar(20)) CHARSET utf8mb3")
    url = mariadb.url("mysql")
    one = sink(url=url)
    one.write([sip_record("t", callid="Ü😀"), sip_record("old", callid="Ü😀")])
    one.write([sip_record("older", callid="Ü😀"), sip_record("t", callid="ß")])
    assert mariadb.rows("SELECT callid FROM t ORDER BY id") == [("Ü😀",), ("ß",)]
    assert mariadb.rows("SELECT callid FROM old UNION SELECT callid FROM older") == [
        ("Ü?",),
        ("Ü\ufffd",),
    ]


def test_a_clock_that_timestamp_cannot_hold_is_cut_and_counted(sink, mariadb):
    one = sink(url=mariadb.url("mysql"))
    one.write([sip_record("t", date="2106-02-07 06:28:15"), sip_record("t")])
    found = mariadb.rows("SELECT CAST(date AS char) FROM t ORDER BY id")
    assert found == [("2038-01-19 03:14:07",), ("2026-01-01 00:00:00",)]
    assert one.truncated == {"date": 1}


def test_a_table_for_something_else_is_refused_and_the_rest_can_be_written(sink, server):
    server.rows("CREATE TABLE kv (k varchar(5))")
    one = sink()
    batch = [sip_record("t"), sip_record("kv"), sip_record("t")]
    with pytest.raises(Rejected, match=r'table "kv" .* none of the columns') as refused:
        one.write(batch)
    assert refused.value.indices == [1]
    one.write([batch[0], batch[2]])
    assert server.rows("SELECT count(*) FROM t") == [(2,)]


def test_tables_are_not_made_when_they_shall_not_be(sink):
    with pytest.raises(Rejected, match="create_tables is 0"):
        sink(create_tables=False).write([sip_record("t")])


def test_who_may_but_insert_stores_into_tables_that_are_there(sink, server):
    first = sink()
    first.batch_id = "b1"
    first.write([sip_record("t")])
    server.rows_as_root("CREATE USER inserter" + WRITER[scheme(server)], DATABASE)
    for grant in GRANTS[scheme(server)]:
        server.rows_as_root(f"GRANT {grant}", DATABASE)
    try:
        url = server.url(scheme(server), user="inserter", password="w")
        one = sink(url=url, create_tables=False)
        for batch in ("b2", "b2", "b3"):
            one.batch_id = batch
            one.write([sip_record("t", callid=batch)])
        one.close()
        found = server.rows("SELECT callid FROM t WHERE callid <> 'c' ORDER BY id")
        assert found == [("b2",), ("b3",)]
    finally:
        if scheme(server) == "postgres":
            server.rows_as_root("DROP OWNED BY inserter", DATABASE)
        server.rows_as_root("DROP USER inserter", DATABASE)


def test_a_row_the_server_refuses_is_found_among_the_others(sink, server):
    one = sink()
    server.rows("CREATE TABLE few (callid varchar(20) NOT NULL UNIQUE)")
    server.rows("INSERT INTO few VALUES ('2'), ('5')")
    with pytest.raises(Rejected) as refused:
        one.write([sip_record("few", callid=str(number)) for number in range(8)])
    assert refused.value.indices == [2, 5]
    assert len(server.rows("SELECT * FROM few")) == 2


def test_a_table_that_was_dropped_is_made_again(sink, server):
    one = sink()
    one.write([sip_record("t")])
    server.rows("DROP TABLE t")
    one.write([sip_record("t"), sip_record("u")])
    assert server.rows("SELECT count(*) FROM t") == [(1,)]


def test_a_batch_that_comes_again_is_not_stored_again(sink, server):
    one, other = sink(), sink()
    one.batch_id = other.batch_id = "b1"
    one.write([sip_record("t")])
    other.write([sip_record("t")])
    assert (server.rows("SELECT count(*) FROM t"), other.replayed) == ([(1,)], 1)


def test_several_writers_make_the_same_tables_at_once(sink, server):
    writers = [sink() for _ in range(6)]
    failures: list[Exception] = []

    def write(writer: ServerSink) -> None:
        try:
            writer.batch_id = f"of {id(writer)}"
            writer.write([sip_record("t"), sip_record("u"), REPORT_RECORD])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert server.rows("SELECT count(*) FROM u") == [(6,)]


@pytest.mark.parametrize(
    ("part", "what"),
    [({"password": "wrong"}, "password|denied"), ({"database": "nowhere"}, "nowhere")],
)
def test_a_store_that_refuses_is_one_line_that_names_the_parameter(sink, server, part, what):
    one = sink(url=server.url(scheme(server), **part), connect=False)
    with pytest.raises(RetryLater, match=rf'^modparam\("sipcapture", "db_url", .*({what})') as away:
        one.connect()
    assert "\n" not in str(away.value)


def test_a_server_that_is_away_is_tried_again(sink, server):
    one = sink(connect=False)
    server.stop()
    try:
        with pytest.raises(RetryLater, match=r"refused|connect"):
            one.connect()
    finally:
        server.start()
    one.connect()
    one.write([sip_record("t")])
    server.stop()
    server.start()
    with pytest.raises(RetryLater):
        one.write([sip_record("t")])
    one.close()
    one.connect()
    one.write([sip_record("t")])
    assert server.rows("SELECT count(*) FROM t") == [(2,)]


def test_a_server_that_hangs_is_given_up_on(sink, server):
    one = sink(answer_seconds=1.0)
    one.write([sip_record("t")])
    server.hold()
    try:
        with pytest.raises(RetryLater):
            one.write([sip_record("t")] * 500)
    finally:
        server.release()


@pytest.mark.parametrize("escaped", [True, False])
def test_a_password_stands_as_it_is_or_escaped(sink, server, escaped):
    url = server.url(scheme(server))
    if not escaped:
        url = url.replace("p%40ss%3Aw%2Frd%25", "p@ss:w/rd%")
    sink(url=url).write([sip_record("t")])


def test_the_host_may_be_a_socket(sink, server):
    if scheme(server) == "mysql":
        url = f"mysql://homer:p@ss:w/rd%@[{server.socket}]/homer_data"
    else:
        url = f"postgresql://homer@[{server.folder}]:{server.port}/homer_data"
    sink(url=url).write([sip_record("t")])


def test_trace_shows_a_row_by_column(sink):
    shown = sink().describe(REPORT_RECORD)
    assert (shown["table"], shown["record"]["node"]) == ("rtcp_capture", "homer01")
