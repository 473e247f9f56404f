import logging
import threading

import pytest

from homerd.core.sink import BatchSink
from homerd.errors import ConfigError, Rejected, RetryLater

LONG = 10.0


class Store(BatchSink):
    """Keeps what is written; `answers` are raised in turn before it does."""

    def __init__(self, *answers, **options):
        options.setdefault("first_delay", 0.001)
        super().__init__("store", **options)
        self.rows = []
        self.sizes = []
        self.answers = list(answers)
        self.connects = 0

    def connect(self):
        self.connects += 1

    def write(self, batch):
        if self.answers:
            answer = self.answers.pop(0)
            if answer is not None:
                raise answer
        self.sizes.append(len(batch))
        self.rows += batch

    def label(self, record):
        return f"table_{record % 2}"


class Gate(Store):
    """Writes only once it is opened."""

    def __init__(self, **options):
        super().__init__(**options)
        self.open = threading.Event()
        self.writing = threading.Event()

    def write(self, batch):
        self.writing.set()
        assert self.open.wait(LONG)
        super().write(batch)


@pytest.fixture
def start():
    started = []

    def begin(sink):
        sink.start()
        started.append(sink)
        return sink

    yield begin
    for sink in started:
        sink.stop(0.0)


def fill(sink, count):
    for number in range(count):
        sink.add(number)


def balance(sink):
    return sink.written + sink.rejected + sink.dropped + sink.pending


def test_everything_added_is_written_in_order(start):
    sink = start(Store(batch_size=10))
    fill(sink, 25)
    assert sink.flush(LONG)
    assert sink.rows == list(range(25))
    assert (sink.added, sink.written, sink.pending) == (25, 25, 0)
    assert sink.stored == {"table_0": 13, "table_1": 12}


def test_a_batch_that_is_not_full_waits_for_its_age(start):
    sink = start(Store(batch_size=10, batch_age=1.0))
    sink.tick(100.0)
    fill(sink, 3)
    sink.tick(100.4)
    sink.add(3)
    sink.tick(101.0)
    assert sink.flush(LONG)
    assert (sink.rows, sink.batches) == ([0, 1, 2, 3], 1)


def test_small_batches_that_wait_become_one(start):
    sink = start(Gate(batch_size=10))
    sink.add(0)
    sink.tick(0.0)
    sink.tick(1.0)
    assert sink.writing.wait(LONG)
    for now, number in enumerate((1, 2, 3), start=2):
        sink.add(number)
        sink.tick(float(now))
    sink.open.set()
    assert sink.flush(LONG)
    assert sink.rows == [0, 1, 2, 3]
    assert len(sink.sizes) == 2


def test_a_store_that_is_away_is_tried_again_over_a_new_connection(start):
    sink = start(Store(RetryLater("away"), RetryLater("still away")))
    fill(sink, 5)
    assert sink.flush(LONG)
    assert sink.rows == [0, 1, 2, 3, 4]
    assert (sink.retries, sink.written, sink.connects) == (2, 5, 3)


def test_refused_records_are_counted_and_the_others_written(start, caplog):
    sink = start(Store(Rejected([1, 3], "too long")))
    fill(sink, 5)
    assert sink.flush(LONG)
    assert sink.rows == [0, 2, 4]
    assert (sink.written, sink.rejected, sink.lost) == (3, 2, {"rejected": 2})
    assert "too long" in caplog.text
    assert "'1'" in caplog.text


@pytest.mark.parametrize("indices", [[], [99]])
def test_a_refusal_that_names_no_record_refuses_them_all(start, indices):
    sink = start(Store(Rejected(indices, "no")))
    fill(sink, 5)
    assert sink.flush(LONG)
    assert (sink.written, sink.rejected, balance(sink)) == (0, 5, 5)


class Picky(Store):
    """Fails on a batch with one of the records in *bad*, as a driver does: the whole of it."""

    def __init__(self, bad, **options):
        super().__init__(**options)
        self.bad = set(bad)
        self.ids = []

    def write(self, batch):
        self.ids.append(self.batch_id)
        for record in batch:
            if record in self.bad:
                raise ZeroDivisionError(f"driver: {record}")
        super().write(batch)


@pytest.mark.parametrize("bad", [[], [0], [7], [99], [13, 14], [0, 50, 99]])
def test_a_record_at_fault_is_found_and_the_others_written(start, bad, caplog):
    sink = start(Picky(bad, batch_size=100))
    fill(sink, 100)
    assert sink.flush(LONG)
    assert sorted(sink.rows) == [number for number in range(100) if number not in bad]
    assert (sink.written, sink.rejected) == (100 - len(bad), len(bad))
    assert sink.lost == ({"write_failed": len(bad)} if bad else {})
    assert len(sink.ids) == len(set(sink.ids))
    assert ("ZeroDivisionError: driver" in caplog.text) == bool(bad)
    assert caplog.text.count("Traceback") == bool(bad)


def test_a_store_that_fails_on_everything_is_not_asked_for_each_record(start):
    sink = start(Picky(range(1000), batch_size=1000))
    fill(sink, 1000)
    assert sink.flush(LONG)
    assert (sink.written, sink.rejected, balance(sink)) == (0, 1000, 1000)
    assert len(sink.ids) < 100


def test_a_batch_has_one_id_however_often_it_is_tried(start):
    class Trying(Picky):
        def write(self, batch):
            super().write(batch)

    sink = start(Trying([]))
    sink.answers = [RetryLater("away"), Rejected([0], "no"), None]
    fill(sink, 5)
    assert sink.flush(LONG)
    sink.add(5)
    assert sink.flush(LONG)
    first, second, third, other = sink.ids
    assert first == second == third != other
    assert sink.batch_id == ""


def test_the_oldest_batch_is_dropped_when_the_queue_is_full(start, caplog):
    sink = start(Gate(batch_size=10, queue_limit=20))
    fill(sink, 10)
    assert sink.writing.wait(LONG)
    for number in range(10, 50):
        sink.add(number)
    assert (sink.dropped, sink.lost, sink.pending) == (20, {"queue_full": 20}, 30)
    sink.open.set()
    assert sink.flush(LONG)
    assert sink.rows == [*range(10), *range(30, 50)]
    assert balance(sink) == sink.added == 50
    assert "reason=queue_full records=10" in caplog.text


def test_stop_writes_what_is_left():
    sink = Store(batch_size=1000)
    sink.start()
    fill(sink, 7)
    sink.stop()
    assert (sink.written, sink.pending) == (7, 0)


def test_stop_gives_up_on_a_store_that_stays_away_and_counts_the_loss(caplog):
    caplog.set_level(logging.ERROR)
    sink = Store(*[RetryLater("away")] * 1000, batch_size=4, first_delay=30.0)
    sink.start()
    fill(sink, 6)
    sink.stop(0.05)
    assert (sink.written, sink.dropped, sink.lost) == (0, 6, {"stopped": 6})
    assert balance(sink) == sink.added
    assert caplog.messages == ['records lost at stop sink=store records=6 error="away"']


def test_flush_tells_when_time_ran_out(start):
    sink = start(Gate())
    sink.add(1)
    assert not sink.flush(0.01)
    sink.open.set()
    assert sink.flush(LONG)


def test_a_store_the_operator_must_mend_stops_the_start():
    class Wrong(Store):
        def connect(self):
            raise ConfigError("no such directory")

    sink = Wrong()
    with pytest.raises(ConfigError, match="no such directory"):
        sink.start()
    sink.stop()


def test_a_store_that_is_away_does_not_stop_the_start(start):
    class Away(Store):
        def connect(self):
            super().connect()
            if self.connects < 3:
                raise RetryLater("refused")

    sink = start(Away())
    fill(sink, 2)
    assert sink.flush(LONG)
    assert sink.rows == [0, 1]
    assert sink.retries == 1


def test_what_comes_too_late_to_stop_the_start_is_tried_again():
    class Slow(Store):
        def __init__(self):
            super().__init__()
            self.reached = threading.Event()

        def connect(self):
            super().connect()
            assert self.reached.wait(LONG)
            if self.connects == 1:
                raise ConfigError("wrong password")

    sink = Slow()
    sink.start(wait_seconds=0.01)
    sink.reached.set()
    sink.add(1)
    assert sink.flush(LONG)
    sink.stop()
    assert sink.rows == [1]


def test_all_three_calls_come_from_the_sinks_own_thread():
    class Named(Store):
        threads: list[str]

        def connect(self):
            self.threads = [threading.current_thread().name]

        def write(self, batch):
            self.threads.append(threading.current_thread().name)

        def close(self):
            self.threads.append(threading.current_thread().name)

    sink = Named()
    sink.start()
    sink.add(1)
    sink.stop()
    assert sink.threads == ["sink-store"] * 3
