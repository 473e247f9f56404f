"""Partitions of Homer 7 in PostgreSQL: how long, between which, by whom, and rows that came before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from homerd.errors import RetryLater
from homerd_plugins import _partitions
from homerd_plugins._homer7 import COLUMNS, PartitionStep
from homerd_plugins._postgres import PostgresSink
from homerd_plugins._stores import Address, sink_for

CALL = "hep_proto_1_call"
HOUR, DAY = 3600, 86400
NOW = int(time.time())
MIDNIGHT = NOW // DAY * DAY


def row(seconds: int, sid: str = "s", table: str = CALL):
    created = datetime.fromtimestamp(seconds, UTC).isoformat(" ")
    return table, 0, (sid, created, "{}", "{}", "raw")


def named(seconds: int, table: str = CALL) -> str:
    return f"{table}_{time.strftime('%Y%m%d_%H%M', time.gmtime(seconds))}"


@pytest.fixture
def sink(postgres) -> Iterator[Callable[..., PostgresSink]]:
    made: list[PostgresSink] = []

    def make(step: str = "", **options) -> PostgresSink:
        steps = PartitionStep.from_script(step) if step else {}
        address = Address.of(postgres.url("postgres"))
        made.append(sink_for(address, "sipcapture", [COLUMNS], steps=steps, **options))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows_by_partition(postgres) -> dict[str, int]:
    return dict(
        postgres.rows(
            f"SELECT tableoid::regclass::text, count(*) FROM {CALL} GROUP BY 1 ORDER BY 1"
        )
    )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("day", {"": DAY}),
        ("hour", {"": HOUR}),
        ("30min", {"": 1800}),
        ("15 m", {"": 900}),
        ("1d", {"": DAY}),
        ("2h; hep_proto_1_registration=day", {"": 2 * HOUR, "hep_proto_1_registration": DAY}),
    ],
)
def test_a_step_is_read(text, steps):
    assert PartitionStep.from_script(text) == steps


@pytest.mark.parametrize("text", ["week", "7h", "1m", "2d", "0h", "-1h", "h", "15", "calls=1h"])
def test_a_step_that_does_not_part_a_day_is_refused(text):
    with pytest.raises(ValueError, match=r"expected day, hour or a part|no table of Homer 7"):
        PartitionStep.from_script(text)


@pytest.mark.parametrize(("step", "seconds"), [("day", DAY), ("hour", HOUR), ("15m", 900)])
def test_a_partition_is_as_long_as_it_is_told_to_be(sink, postgres, step, seconds):
    sink(step).write([row(NOW)])
    assert rows_by_partition(postgres) == {named(NOW // seconds * seconds): 1}


def test_each_table_may_have_a_step_of_its_own(sink, postgres):
    sink(f"15m;{CALL}=day").write([row(NOW), row(NOW, table="hep_proto_1_default")])
    assert rows_by_partition(postgres) == {named(MIDNIGHT): 1}
    found = postgres.rows("SELECT tableoid::regclass::text FROM hep_proto_1_default")
    assert found == [(named(NOW // 900 * 900, "hep_proto_1_default"),)]


def test_older_rows_share_a_partition_a_day_however_short_the_step(sink, postgres):
    old = MIDNIGHT - 5 * DAY
    sink("5m").write([row(old + number * 600) for number in range(100)])
    assert rows_by_partition(postgres) == {named(old): 100}


def test_a_longer_step_takes_what_the_shorter_ones_have_left(sink, postgres):
    ahead = MIDNIGHT + DAY
    sink("2h").write([row(ahead + 4 * HOUR), row(ahead + 8 * HOUR)])
    sink("day").write([row(ahead + number * HOUR) for number in range(24)])
    assert rows_by_partition(postgres) == {
        named(ahead): 4,
        named(ahead + 4 * HOUR): 3,
        named(ahead + 6 * HOUR): 2,
        named(ahead + 8 * HOUR): 3,
        named(ahead + 10 * HOUR): 14,
    }


def test_partitions_of_another_program_are_left_as_they_are(sink, postgres):
    sink().make(CALL, COLUMNS)
    begin = MIDNIGHT - 9 * HOUR  # midnight somewhere else
    postgres.rows(
        f"CREATE TABLE theirs PARTITION OF {CALL}"
        f" FOR VALUES FROM (to_timestamp({begin})) TO (to_timestamp({begin + DAY}))"
    )
    sink("day").write([row(begin), row(begin - 1), row(begin + DAY)])
    assert rows_by_partition(postgres) == {
        named(MIDNIGHT - DAY): 1,
        "theirs": 1,
        named(begin + DAY): 1,
    }


def test_rows_that_lie_in_the_default_partition_are_moved_with_their_partition(sink, postgres):
    one = sink("hour")
    one.write([row(MIDNIGHT)])
    postgres.rows(
        f"INSERT INTO {CALL}_default (sid, create_date, protocol_header, data_header, raw)"
        f" SELECT 's' || n, to_timestamp({MIDNIGHT + DAY} + n), '{{}}', '{{}}', 'raw'"
        " FROM generate_series(1, 100) AS n"
    )
    one.write([row(MIDNIGHT + DAY)])
    assert rows_by_partition(postgres)[named(MIDNIGHT + DAY)] == 101
    assert f"{CALL}_default" not in rows_by_partition(postgres)
    assert one.partitions.moved == 100
    assert postgres.rows(f"SELECT count(DISTINCT id), count(*) FROM {CALL}") == [(102, 102)]


def test_more_rows_than_a_batch_may_wait_for_are_moved_by_the_hourly_round(
    sink, postgres, monkeypatch, caplog
):
    monkeypatch.setattr(_partitions, "MOST_MOVED", 10)
    one = sink("hour")
    one.write([row(MIDNIGHT)])
    postgres.rows(
        f"INSERT INTO {CALL}_default (sid, create_date, protocol_header, data_header, raw)"
        f" SELECT 's', to_timestamp({MIDNIGHT + DAY}), '{{}}', '{{}}', 'raw'"
        " FROM generate_series(1, 11)"
    )
    one.write([row(MIDNIGHT + DAY), row(MIDNIGHT + DAY)])
    assert rows_by_partition(postgres)[f"{CALL}_default"] == 13
    assert (one.partitions.put_off, one.partitions.odd_clocks) == (1, 0)
    assert "partition put off" in caplog.text
    keeper = sink("hour")
    keeper.make_partitions_ahead([NOW])
    assert rows_by_partition(postgres)[named(MIDNIGHT + DAY)] == 13
    assert keeper.moved_rows == 13


def test_a_reader_that_holds_the_table_stops_no_row(sink, postgres, monkeypatch):
    monkeypatch.setattr(_partitions, "LOCK_SECONDS", 1)
    one = sink("hour")
    one.write([row(MIDNIGHT)])
    reader = postgres.connection()
    reader.autocommit = False
    reader.execute(f"SELECT count(*) FROM {CALL}")
    one.write([row(MIDNIGHT + DAY, "first")])
    one.write([row(MIDNIGHT + DAY, "second")])
    assert rows_by_partition(postgres)[f"{CALL}_default"] == 2
    assert one.partitions.put_off == 1
    reader.close()
    sink("hour").write([row(MIDNIGHT + DAY, "third")])
    assert rows_by_partition(postgres) == {named(MIDNIGHT): 1, named(MIDNIGHT + DAY): 3}


def test_several_writers_make_partitions_at_the_same_time(sink, postgres):
    batch = [row(MIDNIGHT + hour * HOUR) for hour in range(-8, 8)]
    failures: list[Exception] = []
    writers = [sink("hour") for _ in range(4)]

    def write(one: PostgresSink) -> None:
        try:
            one.write(batch)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=[one]) for one in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(rows_by_partition(postgres).values()) == {4}
    assert [one.partitions.put_off for one in writers] == [0] * 4


def test_a_table_without_a_default_partition_gets_one(sink, postgres):
    one = sink()
    one.make(CALL, COLUMNS)
    postgres.rows(f"DROP TABLE {CALL}_default")
    one.write([row(60), row(NOW)])
    assert rows_by_partition(postgres)[f"{CALL}_default"] == 1
    assert one.partitions.odd_clocks == 1


def test_a_user_who_may_not_make_partitions_still_stores(sink, postgres, caplog):
    sink().write([row(MIDNIGHT)])
    root = postgres.root()
    root.execute("DROP ROLE IF EXISTS writer")
    root.execute("CREATE ROLE writer LOGIN PASSWORD 'w'")
    root.close()
    postgres.rows("GRANT USAGE ON SCHEMA public TO writer")
    postgres.rows("GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA public TO writer")
    postgres.rows("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writer")
    address = Address.of(postgres.url("postgres", "writer", "w"))
    one = sink_for(address, "sipcapture", [COLUMNS])
    one.connect()
    one.write([row(MIDNIGHT + DAY)])
    one.write([row(MIDNIGHT + DAY)])
    one.close()
    assert rows_by_partition(postgres)[f"{CALL}_default"] == 2
    assert caplog.text.count("partition put off") == 1


def test_no_partition_is_made_where_no_table_shall_be(sink, postgres):
    one = sink()
    one.make(CALL, COLUMNS)
    sink(create_tables=False).write([row(NOW)])
    assert rows_by_partition(postgres) == {f"{CALL}_default": 1}


def test_new_indexes_and_columns_reach_the_next_partition(sink, postgres):
    one = sink("hour")
    one.make(CALL, COLUMNS)
    postgres.rows(
        f"CREATE TABLE older PARTITION OF {CALL} FOR VALUES"
        f" FROM (to_timestamp({MIDNIGHT})) TO (to_timestamp({MIDNIGHT + HOUR}))"
    )
    postgres.rows(f"ALTER TABLE {CALL} ADD COLUMN own text DEFAULT 'x'")
    one.write([row(MIDNIGHT), row(MIDNIGHT + HOUR)])
    name = named(MIDNIGHT + HOUR)
    counts = dict(postgres.rows("SELECT tablename, count(*) FROM pg_indexes GROUP BY 1"))
    assert ("older" in counts, counts[name]) == (False, 13)
    assert postgres.rows(f"SELECT own FROM {name}") == [("x",)]


def test_a_server_that_goes_away_meanwhile_is_told_as_away(sink, postgres):
    one = sink("hour")
    one.write([row(MIDNIGHT)])
    postgres.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'homerd'"
    )
    with pytest.raises(RetryLater):
        one.write([row(MIDNIGHT + DAY)])
