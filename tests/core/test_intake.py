"""Acknowledged batches: taken once, and told once they are safe."""

from __future__ import annotations

import asyncio

import pytest
from listeners import FRAME

from homerd.core.batches import Receipt
from homerd.core.intake import LARGEST_BATCH, MOST_GATHERED, BatchedStream, Intake
from homerd.core.sink import BatchSink
from homerd.errors import Rejected, RetryLater
from homerd.wire import hep_batch

PEER = ("192.0.2.1", 9060)


class Store(BatchSink):
    """Keeps what it is given with the ids of the batches; `away` and `refuses` as told."""

    def __init__(self, name="store", **more):
        super().__init__(name, first_delay=0.01, **more)
        self.kept = []
        self.away = False
        self.refuses = ()

    def write(self, batch):
        if self.away:
            raise RetryLater("away")
        bad = [n for n, record in enumerate(batch) if record in self.refuses]
        if bad:
            raise Rejected(bad, "no")
        self.kept.append((self.batch_id, batch))


class Engine:
    """Gives each datagram to each sink, `times` times."""

    def __init__(self, sinks, times=1):
        self.sinks = sinks
        self.times = times

    def handle(self, datagrams, source=None):
        for data, _ in datagrams:
            for sink in self.sinks:
                for _ in range(self.times):
                    sink.add(data)


@pytest.fixture
def store(tmp_path):
    """Makes a started Store."""
    made = []

    def make(name="store", spool=False, **more):
        sink = Store(name, **more)
        if spool:
            sink.spool_into(tmp_path, 1 << 20)
        sink.start()
        made.append(sink)
        return sink

    yield make
    for each in made:
        each.stop(0.0)


def taken(intake, id, frames, times=1):
    """What a sender was told of each try."""

    async def course():
        told = []
        for _ in range(times):
            arrived = asyncio.Event()

            def tell(safe, arrived=arrived):
                told.append(safe)
                arrived.set()

            intake.take(id, [(frame, PEER) for frame in frames], None, tell)
            await asyncio.wait_for(arrived.wait(), 5)
        return told

    return asyncio.run(course())


def test_a_batch_is_one_batch_of_each_sink_whatever_its_size(store):
    sinks = [store("one", batch_size=2), store("two")]
    intake = Intake(Engine(sinks, times=3), sinks)
    assert taken(intake, "b-1", [b"x"] * 5) == [True]
    assert [len(batch) for sink in sinks for _, batch in sink.kept] == [15, 15]
    ids = {id for sink in sinks for id, _ in sink.kept}
    assert len(ids) == 2
    assert sinks[0].batch_size == 2


def test_the_same_batch_has_the_same_ids_in_another_process(store):
    ids = []
    for _ in range(2):
        sink = store()
        assert taken(Intake(Engine([sink]), [sink]), "b-1", [b"x"]) == [True]
        ids += [id for id, _ in sink.kept]
    assert ids[0] == ids[1]


def test_a_batch_that_comes_again_is_told_and_not_routed(store):
    sink = store()
    intake = Intake(Engine([sink]), [sink])
    assert taken(intake, "b-1", [b"x", b"y"], times=2) == [True, True]
    assert [batch for _, batch in sink.kept] == [[b"x", b"y"]]
    assert intake.taken == {"batches": 1, "frames": 2, "repeated_frames": 2}


def test_a_batch_without_records_is_told_at_once(store):
    sink = store()
    assert taken(Intake(Engine([]), [sink]), "b-1", [b"x"]) == [True]


def test_what_came_before_is_no_part_of_the_batch(store):
    sink = store()
    sink.add(b"before")
    assert taken(Intake(Engine([sink]), [sink]), "b-1", [b"x"]) == [True]
    assert [batch for _, batch in sink.kept] == [[b"before"], [b"x"]]


def test_records_that_are_refused_do_not_keep_the_batch_from_being_told(store):
    sink = store()
    sink.refuses = (b"bad",)
    assert taken(Intake(Engine([sink]), [sink]), "b-1", [b"x", b"bad"]) == [True]
    assert sink.rejected == 1


def test_a_batch_is_told_once_it_is_in_the_spool(store):
    sink = store(spool=True)
    sink.away = True
    assert taken(Intake(Engine([sink]), [sink]), "b-1", [b"x"]) == [True]
    assert sink.kept == []
    assert sink.spool.size > 0


def test_a_batch_that_found_no_room_is_to_come_again(store):
    sink = store(queue_limit=2)
    sink.away = True
    intake = Intake(Engine([sink]), [sink])

    async def course():
        told = {}
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def tell(safe):
            if not done.done():
                done.set_result(safe)

        for number in range(4):
            intake.take(f"b-{number}", [(b"x", PEER), (b"y", PEER)], None, tell)
        told["first"] = await asyncio.wait_for(done, 5)
        return told["first"]

    assert asyncio.run(course()) is False
    assert sink.lost["queue_full"] > 0


def test_a_fault_within_a_batch_has_it_come_again_whole(store):
    class Faulty(Engine):
        def handle(self, datagrams, source=None):
            super().handle(datagrams[:1])
            raise MemoryError

    sink = store(batch_size=2)
    intake = Intake(Faulty([sink]), [sink])
    told = []
    with pytest.raises(MemoryError):
        intake.take("b-1", [(b"x", PEER), (b"y", PEER)], None, told.append)
    assert (told, sink.batch_size) == ([False], 2)
    intake.engine = Engine([sink])
    assert taken(intake, "b-1", [b"x", b"y"]) == [True]
    assert [batch for _, batch in sink.kept] == [[b"x"], [b"x", b"y"]]


def test_batches_that_no_spool_can_hold_are_each_told(store):
    sink = store(spool=True)
    sink.away = True
    intake = Intake(Engine([sink]), [sink])

    async def course():
        told = {}
        done = asyncio.Event()

        def teller(id):
            def tell(safe):
                told[id] = safe
                if len(told) == 2:
                    done.set()

            return tell

        for id in ("b-1", "b-2"):
            intake.take(id, [(object(), PEER)], None, teller(id))
        while sink.not_packed < 2:
            await asyncio.sleep(0.001)
        sink.away = False
        await asyncio.wait_for(done.wait(), 5)
        return told

    assert asyncio.run(course()) == {"b-1": True, "b-2": True}


def test_a_batch_is_decoded_a_few_frames_at_a_time(store):
    class Counting(Engine):
        sizes = ()

        def handle(self, datagrams, source=None):
            self.sizes = (*self.sizes, len(datagrams))
            super().handle(datagrams)

    sink = store()
    engine = Counting([sink])
    assert taken(Intake(engine, [sink]), "b-1", [b"x"] * 150) == [True]
    assert (engine.sizes, len(sink.kept)) == ((64, 64, 22), 1)


def test_a_receipt_is_told_once():
    told = []
    receipt = Receipt(told.append)
    receipt.parts = 2
    assert [receipt.settle(safe=True), receipt.settle(safe=False), receipt.settle(safe=True)] == [
        False, True, False
    ]  # fmt: skip
    assert told == [False]


# The stream


class Recorded(Intake):
    def __init__(self):
        super().__init__(None, [])
        self.answers, self.drops, self.batches = [], [], []

    def take(self, id, datagrams, source, tell):
        self.batches.append((id, [data for data, _ in datagrams]))
        tell(True)
        return True


@pytest.fixture
def stream():
    seen = Recorded()
    made = BatchedStream(
        seen, None, PEER, lambda data: seen.answers.append(hep_batch.read(data)), seen.drops.append
    )
    return made, seen


def test_a_hello_is_answered_and_a_batch_told(stream):
    made, seen = stream
    assert made.feed([hep_batch.message(hep_batch.HELLO), b"f1"]) == 0
    assert made.pending
    assert made.feed([b"f2", hep_batch.end(2, "b-1")]) == 2
    assert not made.pending
    assert seen.batches == [("b-1", [b"f1", b"f2"])]
    assert seen.answers == [(hep_batch.WELCOME, b""), (hep_batch.TAKEN, b"b-1")]


@pytest.mark.parametrize(
    "end",
    [
        hep_batch.end(3, "b-1"),
        hep_batch.end(1, ""),
        hep_batch.end(1, "x" * 101),
        hep_batch.message(hep_batch.END, b"\0\0\0\1\xff"),
        hep_batch.message(hep_batch.END),
    ],
)
def test_a_batch_that_ends_wrong_closes_the_connection(stream, end):
    made, seen = stream
    made.feed([b"f1", end])
    assert (seen.drops, seen.batches) == (["bad_batch"], [])


def test_a_batch_without_end_is_bounded(stream):
    made, seen = stream
    made.feed([bytes(60_000)] * (LARGEST_BATCH // 60_000 + 1))
    assert seen.drops == ["batch_too_large"]
    assert seen.gathered == 0


def test_frames_of_nothing_count_as_what_they_take(stream):
    made, seen = stream
    made.feed([b"HEP3\0\6"] * (LARGEST_BATCH // 100))
    assert seen.drops == ["batch_too_large"]


def test_when_all_begun_batches_are_too_much_the_largest_is_closed():
    seen, drops = Intake(None, []), []
    piece = [bytes(1 << 16)] * 16
    for number in range(MOST_GATHERED // (1 << 22) + 1):
        made = BatchedStream(seen, None, PEER, None, lambda why, of=number: drops.append((of, why)))
        made.feed(piece * (5 if number == 3 else 4))
        if drops:
            break
    assert drops == [(3, "no_room")]
    assert 0 < seen.gathered <= MOST_GATHERED
    before = seen.gathered
    made.end()
    assert before - seen.gathered > 1 << 22


@pytest.mark.parametrize("cut", range(20))
def test_any_bytes_are_read_as_a_message_or_as_none(cut):
    whole = hep_batch.end(200, "b-1")
    kind, body = hep_batch.read(whole[:cut])
    assert (kind, body) == ((hep_batch.END, whole[12:]) if cut == len(whole) else (0, b""))


def test_what_a_connection_leaves_behind_is_let_go_of(listener_for):
    listener = listener_for("tcp")
    client = listener.connect()
    client.sendall(hep_batch.message(hep_batch.HELLO) + FRAME)
    assert client.recv(1000) == hep_batch.message(hep_batch.WELCOME)
    intake = listener.worker.engine.intake
    listener.wait_for(lambda: intake.gathered > len(FRAME))
    client.close()
    listener.wait_for(lambda: not listener.source.connections)
    assert intake.gathered == 0
