"""Retention and tables made ahead: which names go, and that stores do as they are told."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from alarm_peers import wait_for

from homerd.cli import main
from homerd_plugins._archive_stores import tables_of
from homerd_plugins._homer5 import REPORT_COLUMNS, SIP_COLUMNS
from homerd_plugins._homer7 import COLUMNS, partition_name
from homerd_plugins._serversink import ServerSink
from homerd_plugins._sql import read_all
from homerd_plugins._stores import Address, sink_for
from homerd_plugins._upkeep import (
    AGE,
    Kept,
    Retention,
    RetentionSize,
    Upkeep,
    oversize,
    removals,
    remove_old,
)

NOON = 1700049600  # 2023-11-15 12:00:00 UTC
LAYOUTS = (SIP_COLUMNS, REPORT_COLUMNS, COLUMNS)
DAY = 86400


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("sip_capture_call_20231104", ["drop sip_capture_call_20231104"]),
        ("sip_capture_call_20231105", []),
        ("sip_capture_call_2023110423", ["drop sip_capture_call_2023110423"]),
        ("Sip_Capture_Call_20200101", ["drop Sip_Capture_Call_20200101"]),
        ("sip_capture_call_20231399", []),
        ("sip_capture_call_2023", []),
        ("sip_capture_call", ["delete rows of sip_capture_call before 2023-11-05"]),
        ("sip_capture_call_old_20200101", []),
        ("other_20200101", []),
        ("rtcp_capture_all_20200101", ["drop rtcp_capture_all_20200101"]),
        ("hep_proto_1_call_20231101_2200", ["drop hep_proto_1_call_20231101_2200"]),
        ("hep_proto_1_call_default", []),
        ("homerd_batches", []),
    ],
)
def test_what_is_older_than_its_family_may_be(name, what):
    days = Retention.from_script("sip_capture_call=10; rtcp_capture=5;hep_proto_1_call=7;")
    assert [str(removal) for removal in removals([name], days, NOON)] == what


@pytest.mark.parametrize("text", ["sip_capture", "a=b", "a=0", "a=-1", "a b=3"])
def test_a_retention_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="expected FAMILY=DAYS"):
        Retention.from_script(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10 << 30), ("1.5tb", 3 << 39), (" 500 MB ", 500 << 20), ("2g", 2 << 30), ("0", 0)],
)
def test_a_size_is_read(text, size):
    assert RetentionSize.from_script(text) == size


@pytest.mark.parametrize("text", ["", "ten", "10 apples", "-1GB", "GB", "10GBB", "1KB", "0x10MB"])
def test_a_size_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=r"expected (a size, as|1MB or more)"):
        RetentionSize.from_script(text)


SIZES = {
    "c_20231114": 40,
    "r_20231113": 30,
    "c_20231113": 30,
    "c_20231115": 90,
    "c_20231116": 5,
    "c": 20,
    "other_20200101": 1000,
}


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (215, []),
        (214, ["c_20231113"]),
        (160, ["c_20231113", "r_20231113"]),
        (100, ["c_20231113", "r_20231113", "c_20231114"]),
        (1, ["c_20231113", "r_20231113", "c_20231114"]),
    ],
)
def test_the_oldest_tables_go_until_the_rest_fits_but_never_those_of_today(limit, what):
    found = oversize(SIZES, limit, ("c", "r").__contains__, NOON)
    assert [removal.table for removal in found] == what


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/x.db"
    server = request.getfixturevalue(request.param)
    return server.url("postgres" if request.param == "postgres" else "mysql")


@pytest.fixture
def opened(url):
    """A keeper of the store, for layouts."""
    made = []

    def make(layouts):
        made.append(sink_for(Address.of(url), "upkeep", layouts))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def keeper(opened):
    return opened(LAYOUTS)


def report(table: str, date: str):
    return table, 1, (date, 1, "c", "10.0.0.1", 1, "10.0.0.2", 2, 1, 2, 3, "homer01", "{}")


def test_old_tables_go_and_old_rows_of_tables_without_a_date(keeper):
    keeper.write(
        [
            report("r_20200101", "2020-01-01 00:00:00"),
            report("r_20231115", "2020-01-01 00:00:00"),
            report("r", "2023-11-09 23:59:59"),
            report("r", "2023-11-15 00:00:00"),
        ]
    )
    days = Kept({"r": 5})
    expected = ["drop r_20200101", "delete rows of r before 2023-11-10"]
    assert [str(each) for each in remove_old(keeper, days, NOON, dry=True)] == expected
    assert "r_20200101" in keeper.kept_tables()
    assert [str(each) for each in remove_old(keeper, days, NOON)] == expected
    assert "r_20200101" not in keeper.kept_tables()
    assert "r_20231115" in keeper.kept_tables()


def test_rows_go_by_the_column_that_the_operator_named(opened, url):
    columns = [REPORT_COLUMNS[0]._replace(renamed="seen_at"), *REPORT_COLUMNS[1:]]
    before = opened(LAYOUTS)
    before.write([report("older", "2023-11-01 00:00:00"), report("older", "2023-11-15 00:00:00")])
    keeper = opened((SIP_COLUMNS, columns))
    keeper.write([report("r", "2023-11-01 00:00:00"), report("r", "2023-11-15 00:00:00")])
    remove_old(keeper, Kept({"r": 5, "older": 5}), NOON)
    for query in (
        "SELECT count(*), count(seen_at) FROM r",
        "SELECT count(*), count(date) FROM older",
    ):
        assert [*read_all(Address.of(url), query, 5.0, 1)] == [(1, 1)]


def test_names_with_capitals_are_taken_as_they_are(postgres):
    one = sink_for(Address.of(postgres.url("postgres")), "upkeep", LAYOUTS)
    one.connect()
    for name in ('"R_20200101"', "r_20231115"):
        postgres.rows(f"CREATE TABLE {name} (date timestamp)")
    postgres.rows('CREATE TABLE "R" ("Date" timestamp)')
    postgres.rows("INSERT INTO \"R\" VALUES ('2023-11-01'), ('2023-11-15')")
    remove_old(one, Kept({"r": 5}), NOON)
    assert sorted(one.names()) == ["R", "r_20231115"]
    assert postgres.rows('SELECT count(*) FROM "R"') == [(1,)]
    one.close()


def test_days_as_kamailio_writes_them_to_sqlite_are_understood(tmp_path):
    one = sink_for(Address.of(f"sqlite://{tmp_path}/x.db"), "upkeep", LAYOUTS)
    one.connect()
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE c (date DATETIME)")
    connection.execute("INSERT INTO c VALUES (julianday('2023-11-01')), (julianday('2023-11-15'))")
    connection.commit()
    remove_old(one, Kept({"c": 5}), NOON)
    assert connection.execute("SELECT date(date) FROM c").fetchall() == [("2023-11-15",)]
    connection.close()
    one.close()


def test_a_store_that_is_too_large_loses_its_oldest_tables(keeper, caplog):
    text = "x" * 20_000
    for day in ("20231110", "20231111", "20231112", "20231115"):
        row = report(f"r_{day}", "2023-11-15 00:00:00")
        keeper.write([(*row[:2], (*row[2][:-1], f"{number}{text}")) for number in range(200)])
        if keeper.where.startswith("mysql"):
            keeper.run(f"ANALYZE TABLE r_{day}")  # what the server does by itself, later
    keeper.write([report("other_20200101", "2020-01-01 00:00:00")])
    sizes = keeper.sizes()
    total = sum(size for name, size in sizes.items() if name.startswith("r_"))
    kept = Kept({}, total - sizes["r_20231110"] * 3 // 2, "r".__eq__)
    expected = ["r_20231110", "r_20231111"]
    assert [each.table for each in remove_old(keeper, kept, NOON, dry=True)] == expected
    assert expected[0] in keeper.kept_tables()
    assert [(each.table, each.why) for each in remove_old(keeper, kept, NOON)] == [
        (name, "size") for name in expected
    ]
    assert not {*expected} & {*keeper.kept_tables()}
    assert remove_old(keeper, Kept({}, 1, "r".__eq__), NOON)[0].table == "r_20231112"
    assert {"r_20231115", "other_20200101"} <= {*keeper.kept_tables()}
    assert "store is larger than retention_size" in caplog.text


@pytest.mark.parametrize("shrinks", [True, False])
def test_a_file_that_may_shrink_gives_back_what_a_dropped_table_took(tmp_path, shrinks):
    path = tmp_path / "x.db"
    one = sink_for(Address.of(f"sqlite://{path}"), "upkeep", LAYOUTS, shrinks=shrinks)
    one.connect()
    for day in ("20231110", "20231115"):
        row = report(f"r_{day}", "2023-11-15 00:00:00")
        one.write([(*row[:2], (*row[2][:-1], "x" * 20_000))] * 200)
    assert [each.whole for each in remove_old(one, Kept({"r": 2}), NOON)] == [True]
    one.close()
    assert (path.stat().st_size < 6_000_000) is shrinks


def test_partitions_of_homer_7_are_made_ahead_and_go_by_their_date(postgres):
    one = sink_for(Address.of(postgres.url("postgres")), "upkeep", LAYOUTS)
    one.connect()
    now = int(time.time())
    created = datetime.fromtimestamp(now, UTC).isoformat(" ")
    one.write([("hep_proto_1_call", 2, ("s", created, "{}", "{}", "raw"))])
    one.make_partitions_ahead([now - 3 * DAY, now, now + DAY])
    times = [(now + days * DAY) // 7200 * 7200 for days in (-3, 0, 1)]
    times[0] = times[0] // DAY * DAY  # of older rows, one holds a day
    names = [partition_name("hep_proto_1_call", at) for at in times]
    assert set(names) <= set(one.kept_tables())
    gone = remove_old(one, Kept({"hep_proto_1_call": 2}), now)
    assert [removal.table for removal in gone if removal.whole] == [names[0]]
    assert not {names[0]} & set(one.kept_tables())
    assert postgres.rows("SELECT raw FROM hep_proto_1_call") == [("raw",)]
    one.close()


@pytest.fixture
def old_partition(postgres):
    """Name of a partition of 2020 with a row, beside one of now."""
    one = sink_for(Address.of(postgres.url("postgres")), "sipcapture", LAYOUTS)
    one.connect()
    now = datetime.now(UTC).isoformat(" ")
    one.write([("hep_proto_1_call", 2, ("s", now, "{}", "{}", "raw"))])
    one.make_partition("hep_proto_1_call", 1577836800)
    one.close()
    postgres.rows("INSERT INTO hep_proto_1_call (sid, create_date, protocol_header, data_header, raw)"
                  " VALUES ('s', '2020-01-01 00:30:00', '{}', '{}', 'old')")  # fmt: skip
    return partition_name("hep_proto_1_call", 1577836800)


@pytest.mark.parametrize("by", ["retention", "archive"])
def test_nobody_who_inserts_waits_for_a_partition_that_somebody_reads(by, postgres, old_partition):
    address = Address.of(postgres.url("postgres"))
    if by == "archive":
        tables = tables_of("default", "db_url", address, LAYOUTS)
        tables.__enter__()
        mark = tables.mark(old_partition, "", tables.columns(old_partition))
        remove = partial(tables.drop, old_partition, mark)
    else:
        keeper = sink_for(address, "upkeep", LAYOUTS)
        keeper.connect()
        remove = partial(keeper.remove, old_partition, "", True)
    reader, writer = postgres.connection(), postgres.connection()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM hep_proto_1_call WHERE create_date > '2026-01-01'")
    writer.execute("SET statement_timeout = '3s'")
    with closing(writer), ThreadPoolExecutor(1) as pool, closing(reader):
        removed = pool.submit(remove)
        inserted = 0
        while not removed.done():
            writer.execute(
                "INSERT INTO hep_proto_1_call (sid, create_date, protocol_header, data_header, raw)"
                " VALUES ('s', now(), '{}', '{}', 'new')"
            )
            inserted += 1
        with pytest.raises(Exception, match="lock timeout"):
            removed.result()
    assert inserted
    remove()
    assert postgres.rows("SELECT count(*) FROM hep_proto_1_call") == [(1 + inserted,)]


def test_a_table_that_cannot_be_removed_stops_no_other(keeper):
    date = "2023-11-01 00:00:00"
    keeper.write([report(table, date) for table in ("r_20231101", "r")])
    execute = keeper.run if isinstance(keeper, ServerSink) else keeper._connection.execute
    execute("CREATE TABLE a (k int)")
    done = remove_old(keeper, Kept({"r": 5, "a": 5}), NOON)
    assert [(each.table, bool(each.fault)) for each in done] == [
        ("r_20231101", False), ("a", True), ("r", False)
    ]  # fmt: skip
    assert "there is no column of a row's time, none of create_date, date" in done[1].fault


@pytest.fixture
def kept_by_a_view(postgres):
    """A table of retention and one of its size that nobody may drop, and others."""
    address = Address.of(postgres.url("postgres"))
    one = sink_for(address, "sipcapture", LAYOUTS)
    one.connect()
    for name in ("r_20200101", "r_20200102", "s_20200101"):
        one.write([report(name, "2020-01-01 00:00:00")])
    one.close()
    postgres.rows("CREATE VIEW v AS SELECT * FROM r_20200101")
    return postgres


def test_tables_are_made_ahead_whatever_cannot_be_removed(kept_by_a_view, caplog):
    address = Address.of(kept_by_a_view.url("postgres"))
    upkeep = Upkeep(
        [lambda: sink_for(address, "upkeep", LAYOUTS)],
        Kept({"r": 5, "s": 5}),
        lambda place, times: [("r_20991231", 1)],
    )
    upkeep.start()
    wait_for(lambda: upkeep.dropped[AGE] == 2)
    upkeep.stop()
    assert upkeep.failures == 1
    names = kept_by_a_view.rows(
        "SELECT relname FROM pg_class WHERE relname LIKE '__2%' AND relkind='r'"
    )
    assert sorted(names) == [("r_20200101",), ("r_20991231",)]
    assert 'not removed, tried again in a minute what="drop r_20200101"' in caplog.text


def test_the_command_goes_on_after_a_table_that_cannot_be_removed(kept_by_a_view, tmp_path, capsys):
    path = tmp_path / "homer.cfg"
    url = kept_by_a_view.url("postgres")
    path.write_text(
        f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "{url}")\n'
        'modparam("sipcapture", "retention", "r=5;s=5")\nrequest_route { exit; }\n'
    )
    assert main(["retention", "-f", str(path)]) == 1
    told = capsys.readouterr()
    assert [line.partition(": ")[2] for line in told.out.splitlines()] == [
        "drop r_20200102", "drop s_20200101"
    ]  # fmt: skip
    assert "drop r_20200101: cannot drop table r_20200101 because other objects" in told.err


def test_a_newer_table_does_not_go_for_the_size_in_place_of_an_older(kept_by_a_view):
    keeper = sink_for(Address.of(kept_by_a_view.url("postgres")), "upkeep", LAYOUTS)
    keeper.connect()
    done = remove_old(keeper, Kept({}, 1, "r".__eq__), NOON)
    assert [(each.table, bool(each.fault)) for each in done] == [("r_20200101", True)]
    keeper.close()


@pytest.mark.parametrize(
    "step",
    [
        lambda keeper: keeper.kept_tables(),
        lambda keeper: keeper.sizes(),
        lambda keeper: keeper.remove("r", "2023-11-10 00:00:00", False),
        lambda keeper: keeper.remove("r", "", True),
        lambda keeper: keeper.make_ahead("s", 1),
        lambda keeper: keeper.make_partitions_ahead([int(time.time())]),
    ],
    ids=["tables", "sizes", "delete", "drop", "make", "partition"],
)
@pytest.mark.parametrize("store", ["postgres", "mariadb"])
def test_a_server_that_hangs_does_not_keep_the_upkeep(step, store, request):
    server = request.getfixturevalue(store)
    address = Address.of(server.url("postgres" if store == "postgres" else "mysql"))
    keeper = sink_for(address, "upkeep", LAYOUTS, answer_seconds=0.5)
    keeper.connect()
    keeper.write([report("r", "2023-11-15 00:00:00")])
    server.hold()
    try:
        with suppress(*keeper.errors):
            step(keeper)
    finally:
        server.release()
    keeper.close()


def test_tables_made_ahead_are_those_a_row_would_make(postgres):
    one = sink_for(Address.of(postgres.url("postgres")), "upkeep", LAYOUTS)
    one.connect()
    one.make_ahead("t_20260101", 0)
    one.make_ahead("t_20260101", 0)
    assert postgres.rows("SELECT count(*) FROM t_20260101") == [(0,)]
    one.close()


def test_the_command_shows_what_would_go_and_then_removes_it(tmp_path: Path, capsys):
    script = tmp_path / "homer.cfg"
    script.write_text(
        f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "sqlite://{tmp_path}/x.db")\n'
        'modparam("sipcapture", "retention", "sip_capture_call=10")\nrequest_route { exit; }\n'
    )
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE sip_capture_call_20200101 (callid TEXT)")
    line = f"sqlite://{tmp_path}/x.db: drop sip_capture_call_20200101\n"
    assert main(["retention", "-f", str(script), "--dry-run"]) == 0
    assert capsys.readouterr().out == line
    assert main(["retention", "-f", str(script)]) == 0
    assert capsys.readouterr().out == line
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


def test_the_command_goes_by_size_over_tables_the_script_names(tmp_path: Path, capsys):
    script = tmp_path / "homer.cfg"
    script.write_text(
        f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "sqlite://{tmp_path}/x.db")\n'
        'modparam("sipcapture", "retention_size", "1MB")\n'
        'request_route { sip_capture("mine_%Y%m%d"); exit; }\n'
    )
    connection = sqlite3.connect(tmp_path / "x.db")
    for name in ("mine_20200102", "mine_20200101", "theirs2_20200101", "sip_capture_call_20200103"):
        connection.execute(f"CREATE TABLE {name} (msg TEXT)")
        connection.execute(f"INSERT INTO {name} VALUES (?)", ["x" * 600_000])
    connection.commit()
    assert main(["retention", "-f", str(script), "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0].split()[-1] for line in told] == ["mine_20200101", "mine_20200102"]
    assert told[0].endswith(" KB, for retention_size")
    assert main(["retention", "-f", str(script)]) == 0
    names = connection.execute("SELECT name FROM sqlite_schema ORDER BY 1").fetchall()
    assert names == [("sip_capture_call_20200103",), ("theirs2_20200101",)]
    connection.close()


def test_a_wrong_size_is_told_at_its_line(tmp_path: Path, capsys):
    script = tmp_path / "homer.cfg"
    script.write_text(
        'loadmodule "sipcapture"\nmodparam("sipcapture", "retention_size", "lots")\n'
        "request_route { exit; }\n"
    )
    assert main(["check", "-f", str(script)]) == 1
    told = capsys.readouterr().err
    assert ":2:" in told
    assert 'expected a size, as 500MB, 10GB or 1.5TB, got "lots"' in told
