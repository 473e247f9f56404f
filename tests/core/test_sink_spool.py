"""A sink with its spool: stores that are away, hang, refuse, and come back."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from homerd.core.sink import BatchSink
from homerd.errors import Rejected, RetryLater
from homerd.lang.vocabulary import ConstantText

LONG = 20.0


class Store(BatchSink):
    """Away until it is `back`; hangs in `write` until it is `open`."""

    def __init__(self, *, back=True, opened=True, **options):
        options.setdefault("first_delay", 0.001)
        options.setdefault("last_delay", 0.01)
        options.setdefault("batch_size", 10)
        super().__init__("store", **options)
        self.back = back
        self.open = threading.Event()
        self.writing = threading.Event()
        self.rows = []
        self.ids = []
        if opened:
            self.open.set()

    def write(self, batch):
        self.writing.set()
        assert self.open.wait(LONG)
        if not self.back:
            raise RetryLater("away")
        self.ids.append(self.batch_id)
        self.rows += batch


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(sink, limit=1 << 20):
        sink.spool_into(tmp_path / "spool", limit)
        started.append(sink)
        sink.start()
        return sink

    yield begin
    for sink in started:
        getattr(sink, "open", threading.Event()).set()
        sink.stop(0.0)


def fill(sink, *numbers):
    for number in numbers:
        sink.add(number)


def until(sink, condition):
    """Wait until *condition*; the sink says when something has changed."""
    with sink._changed:
        assert sink._changed.wait_for(condition, LONG), sink.counts()


def difference(sink):
    counts = sink.counts()
    out = ("written", "pending", "spooled", "rejected", "dropped")
    return counts["added"] + counts["recovered"] - sum(counts[key] for key in out)


def test_while_the_store_is_away_batches_are_on_disk_and_then_written_oldest_first(start):
    sink = start(Store(back=False))
    for number in range(0, 50, 10):
        fill(sink, *range(number, number + 10))
        until(sink, lambda: difference(sink) == 0)
    until(sink, lambda: sink.spooled == 50)
    sink.back = True
    assert sink.flush(LONG)
    assert sink.rows == list(range(50))
    assert (sink.written, sink.spooled, sink.pending, sink.dropped) == (50, 0, 0, 0)
    assert list(sink.spool.folder.glob("*/*.seg")) == []


def test_live_records_come_before_spooled_ones(start):
    sink = start(Store(back=False))
    fill(sink, *range(20))
    until(sink, lambda: sink.spooled == 20)
    sink.open.clear()
    sink.writing.clear()
    assert sink.writing.wait(LONG)  # with the oldest, which will be stored
    sink.back = True
    sink.open.set()
    fill(sink, *range(100, 110))
    assert sink.flush(LONG)
    assert sorted(sink.rows) == [*range(20), *range(100, 110)]
    assert sink.rows[:10] == list(range(10))


def test_an_order_that_matters_is_kept(start):
    class Ordered(Store):
        in_order = True

    sink = start(Ordered(back=False, queue_limit=20))
    for number in range(0, 60, 10):
        fill(sink, *range(number, number + 10))
    until(sink, lambda: sink.spooled > 0)
    sink.back = True
    for number in range(60, 200, 10):
        fill(sink, *range(number, number + 10))
    assert sink.flush(LONG)
    lost = sink.dropped
    assert sink.rows == sorted(sink.rows)
    assert len(sink.rows) + lost == 200


def test_a_write_that_hangs_sends_everything_to_disk_and_nothing_comes_twice(start):
    sink = start(Store(opened=False))
    fill(sink, *range(10))
    assert sink.writing.wait(LONG)
    sink.tick(1.0)
    fill(sink, *range(10, 30))
    assert sink.spooled == 0
    sink.tick(2.0)
    until(sink, lambda: sink.spooled == 20 and sink.spool.volatile[1] == 0)
    assert sink.counts()["pending"] == 10  # in flight still, and on disk as well
    sink.open.set()
    assert sink.flush(LONG)
    assert sink.rows == list(range(30))
    assert len(set(sink.ids)) == 3


def test_a_queue_that_is_too_long_goes_to_disk(start):
    sink = start(Store(opened=False, queue_limit=20))
    fill(sink, *range(10))
    assert sink.writing.wait(LONG)
    for number in range(10, 70, 10):
        fill(sink, *range(number, number + 10))
        until(sink, lambda: sink._batches.waiting_records <= 20)
    until(sink, lambda: sink.spooled == 40)
    assert (sink.dropped, difference(sink)) == (0, 0)
    sink.open.set()
    assert sink.flush(LONG)
    # first what was in flight, then what waited in memory, then the disk
    assert sink.rows == [*range(10), *range(50, 70), *range(10, 50)]


def test_stop_loses_nothing_when_the_store_is_away_and_the_next_start_writes_it(start, caplog):
    first = start(Store(back=False))
    fill(first, *range(25))
    first.stop()
    assert (first.written, first.spooled, first.dropped, difference(first)) == (0, 25, 0, 0)
    assert "records wait in the spool for the next start sink=store records=25" in caplog.text
    second = start(Store())
    assert (second.recovered, second.added) == (25, 0)
    assert second.flush(LONG)
    assert second.rows == list(range(25))
    assert difference(second) == 0


def test_stop_does_not_wait_for_a_write_that_hangs(start):
    first = start(Store(opened=False))
    fill(first, *range(10))
    assert first.writing.wait(LONG)
    fill(first, *range(10, 25))
    first.stop(0.0)
    assert (first.written, first.spooled, first.dropped, difference(first)) == (0, 25, 0, 0)
    second = start(Store())
    assert second.flush(LONG)
    assert second.rows == list(range(25))


def test_an_id_is_the_same_after_a_restart(start):
    class Noting(Store):
        def write(self, batch):
            self.ids.append(self.batch_id)
            super().write(batch)

    first = start(Noting(back=False))
    fill(first, *range(10))
    first.stop()
    second = start(Noting())
    assert second.flush(LONG)
    assert set(first.ids) == set(second.ids) != {""}


def test_another_store_of_the_same_name_has_another_spool(start):
    first, second = Store(back=False), Store()
    first.where, second.where = "postgres://one/homer", "postgres://two/homer"
    start(first)
    fill(first, *range(10))
    first.stop()
    assert start(second).recovered == 0


def test_above_its_limit_the_oldest_records_go_and_are_counted(start, caplog):
    sink = start(Store(back=False, batch_size=1), limit=2000)
    for number in range(200):
        sink.add(number)
    until(sink, lambda: not sink.counts()["pending"])
    lost = sink.lost["spool_full"]
    assert 0 < lost < 200
    assert (sink.dropped, sink.spooled, difference(sink)) == (lost, 200 - lost, 0)
    assert "reason=spool_full" in caplog.text
    sink.back = True
    assert sink.flush(LONG)
    # the one in hands is written though its place on disk was taken
    assert sorted(sink.rows)[1:] == list(range(200))[-len(sink.rows) + 1 :]


def test_records_that_no_spool_can_hold_wait_in_memory(start, caplog):
    first, second = object(), object()
    sink = start(Store(back=False))
    fill(sink, 1, first, 2, second, *range(3, 9))
    until(sink, lambda: sink.not_packed == 2 and sink.spooled == 8)
    assert difference(sink) == 0
    sink.back = True
    assert sink.flush(LONG)
    assert set(sink.rows) == {1, 2, first, second, *range(3, 9)}
    sink.stop()
    assert "records cannot be spooled, they wait in memory sink=store records=2" in caplog.text


def test_a_constant_of_the_script_is_spooled_as_the_text_it_is(start):
    first = start(Store(back=False))
    record = (ConstantText("calls"), [{"key": ConstantText("all")}], 1.5, b"x", None)
    first.add(record)
    first.stop()
    assert (first.spooled, first.not_packed) == (1, 0)
    second = start(Store())
    assert second.flush(LONG)
    assert second.rows == [record]
    assert type(second.rows[0][0]) is str


def test_pack_and_unpack_let_any_record_be_spooled(start):
    class Packing(Store):
        def pack(self, record):
            return list(record)

        def unpack(self, packed):
            return frozenset(packed)

    sink = start(Packing(back=False, batch_size=2))
    fill(sink, frozenset({1}), frozenset({2}))
    until(sink, lambda: sink.spooled == 2)
    sink.back = True
    assert sink.flush(LONG)
    assert sink.rows == [{1}, {2}]


def test_a_sink_whose_records_are_worth_nothing_later_has_no_spool(start):
    class Now(Store):
        spools = False

    assert start(Now()).spool is None


def test_without_a_place_for_it_the_sink_works_as_before(start, tmp_path, caplog):
    (tmp_path / "spool").write_text("a file")
    sink = start(Store())
    fill(sink, *range(10))
    assert sink.flush(LONG)
    assert (sink.rows, sink.spool) == (list(range(10)), None)
    assert "spool is off sink=store" in caplog.text


def test_a_disk_that_fails_leaves_the_records_in_memory(start, monkeypatch, caplog):
    sink = start(Store(back=False))
    monkeypatch.setattr("homerd.core.segment.os.pwrite", fail)
    fill(sink, *range(10))
    until(sink, lambda: "batch cannot be spooled" in caplog.text)
    assert (sink.pending, sink.spooled, difference(sink)) == (10, 0, 0)
    sink.back = True
    assert sink.flush(LONG)
    assert sink.rows == list(range(10))


def fail(*_):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("spooled", [False, True])
def test_refused_records_are_in_quarantine_with_the_reason(start, spooled):
    class Refusing(Store):
        def write(self, batch):
            super().write(batch)
            del self.rows[-len(batch) :]
            if 3 in batch:
                raise Rejected([batch.index(3)], "three is too many")
            if 5 in batch:
                raise ValueError("no five")
            self.rows += batch

    sink = start(Refusing(back=not spooled))
    fill(sink, *range(10))
    if spooled:
        until(sink, lambda: sink.spooled == 10)
        sink.back = True
    assert sink.flush(LONG)
    assert sorted(sink.rows) == [0, 1, 2, 4, 6, 7, 8, 9]
    assert (sink.rejected, sink.lost) == (2, {"rejected": 1, "write_failed": 1})
    assert difference(sink) == 0
    told = [json.loads(line) for line in sink.quarantine.path.read_text().splitlines()]
    assert [(line["reason"], line["record"], line["sink"]) for line in told] == [
        ("three is too many", "3", "store"),
        ("ValueError: no five", "5", "store"),
    ]
    assert sink.quarantine.kept == 2
    assert list(sink.spool.folder.glob("*/*.seg")) == []


def test_what_is_no_record_any_more_costs_itself_alone(start):
    class Newer(Store):
        def unpack(self, packed):
            return {1: "one", 3: "three"}[packed]

    sink = start(Newer(back=False, batch_size=2))
    fill(sink, 0, 1, 2, 2, 3, 3)
    until(sink, lambda: sink.spooled + sink.lost.total() == 6)
    sink.back = True
    assert sink.flush(LONG)
    assert sorted(sink.rows) == ["one", "three", "three"]
    assert (sink.lost, difference(sink)) == ({"write_failed": 3}, 0)
    told = [json.loads(line) for line in sink.quarantine.path.read_text().splitlines()]
    assert [line["record"] for line in told] == ["0", "2", "2"]
    assert told[0]["reason"] == "no record of this version: KeyError: 0"
    assert list(sink.spool.folder.glob("*/*.seg")) == []


class Unprintable:
    def __repr__(self):
        raise LookupError


@pytest.mark.parametrize(
    ("described", "kept"),
    [({b"callid": 1}, "{b'callid': 1}"), ({"a": Unprintable()}, ""), ([], "[]")],
)
def test_a_refused_record_that_is_no_json_is_in_quarantine_too(start, described, kept):
    class Refusing(Store):
        def write(self, batch):
            if 1 in batch:
                raise Rejected([], "no")
            super().write(batch)

        def describe(self, record):
            return described

    sink = start(Refusing(batch_size=1))
    fill(sink, 1, 2)
    assert sink.flush(LONG)
    assert (sink.rows, sink.rejected, sink.quarantine.kept) == ([2], 1, 1)
    (line,) = sink.quarantine.path.read_text().splitlines()
    assert kept in json.loads(line).get("record", "")


KILLED = """
import os, signal, sys
from pathlib import Path
from homerd.core.sink import BatchSink
from homerd.errors import RetryLater

class Away(BatchSink):
    def write(self, batch):
        raise RetryLater("away")

sink = Away("store", batch_size=10)
sink.spool_into(Path(sys.argv[1]), 1 << 20)
sink.start()
for number in range(47):
    sink.add(number)
sink.note()
with sink._changed:
    assert sink._changed.wait_for(lambda: sink.spooled == 40, 20)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_what_was_spooled_is_written_and_what_was_not_is_counted(start, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "spool"], timeout=60)
    assert done.returncode == -signal.SIGKILL
    sink = start(Store())
    assert sink.flush(LONG)
    assert sink.rows == list(range(40))
    assert (sink.recovered, sink.lost, difference(sink)) == (47, {"killed": 7}, 0)


class Rows(BatchSink):
    """A table of numbers in SQLite, with the ids of the batches beside it."""

    def __init__(self, path, **options):
        super().__init__("rows", first_delay=0.001, last_delay=0.01, batch_size=10, **options)
        self.path = path
        self.where = f"sqlite://{path}"

    def connect(self):
        self.database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            self.database.execute("CREATE TABLE IF NOT EXISTS homerd_batches (id TEXT PRIMARY KEY)")
            self.database.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER)")
        except sqlite3.OperationalError as error:
            raise RetryLater(str(error)) from error

    def write(self, batch):
        try:
            self.database.execute("BEGIN IMMEDIATE")
            new = "INSERT OR IGNORE INTO homerd_batches VALUES (?)"
            if self.database.execute(new, (self.batch_id,)).rowcount:
                values = ",".join(f"({number})" for number in batch)
                self.database.execute(f"INSERT INTO rows VALUES {values}")
            self.database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise RetryLater(str(error)) from error

    def close(self):
        self.database.close()


def numbers(path):
    with sqlite3.connect(path) as database:
        return [number for (number,) in database.execute("SELECT n FROM rows ORDER BY n")]


def test_a_database_locked_by_somebody_gets_everything_once(start, tmp_path):
    path = tmp_path / "rows.db"
    sink = start(Rows(path))
    fill(sink, *range(20))
    assert sink.flush(LONG)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        for number in range(20, 120, 10):
            fill(sink, *range(number, number + 10))
            assert difference(sink) == 0
        until(sink, lambda: sink.spooled + sink._batches.flying_records >= 100)
        sink.stop()
        assert (sink.written, sink.spooled, difference(sink)) == (20, 100, 0)
    again = start(Rows(path))
    fill(again, *range(120, 150))
    assert again.flush(LONG)
    assert numbers(path) == list(range(150))
    assert difference(again) == 0


def test_a_batch_whose_commit_went_unnoticed_is_stored_once(start, tmp_path):
    class Forgetful(Rows):
        forgets = True

        def write(self, batch):
            super().write(batch)
            if self.forgets:
                raise RetryLater("the connection broke after the commit")

    path = tmp_path / "rows.db"
    first = start(Forgetful(path))
    fill(first, *range(10))
    until(first, lambda: first.retries >= 2)
    first.stop()
    second = start(Rows(path))
    assert second.flush(LONG)
    assert numbers(path) == list(range(10))
    assert (second.recovered, second.written) == (10, 10)


def test_the_folder_is_gone_after_a_clean_end(start, tmp_path):
    sink = start(Store())
    fill(sink, 1)
    sink.stop()
    assert not (tmp_path / "spool").exists()
    assert sink.written == 1


def test_a_batch_is_handed_over_on_a_tick_that_comes_soon_after_a_late_one(start):
    sink = start(Store(batch_size=100, batch_age=1.0))
    sink.tick(10.0)
    sink.add(1)
    sink.tick(10.6)
    assert sink.flush(LONG)
    assert len(sink.ids) == 1
