"""What packed payloads may take in memory."""

import zlib

from listeners import FRAME, OPTIONS_REQUEST

from homerd.core import metrics
from homerd.core.inflation import Inflation
from homerd.core.sink import BatchSink
from homerd.errors import RetryLater
from homerd.wire import hep

PACKED = hep.assemble([(0, 11, b"\1"), (0, 16, zlib.compress(OPTIONS_REQUEST + bytes(100_000)))])
GAINED = len(OPTIONS_REQUEST) + 100_000 - len(PACKED)


class Store(BatchSink):
    away = True

    def write(self, batch):
        if self.away:
            raise RetryLater("away")


def test_what_was_gained_is_held_until_its_records_are_written():
    store = Store("store", first_delay=0.001, last_delay=0.001)
    inflation = Inflation([store], limit=100)
    store.start()
    assert [inflation.admits(60), inflation.admits(60), inflation.admits(40)] == [True, False, True]
    store.add("a")
    inflation.tick()
    store.add("b")
    inflation.tick()
    assert inflation.held == 100
    store.away = False
    assert store.flush(20.0)
    inflation.tick()
    assert inflation.held == 0
    store.stop()


def test_where_no_record_waits_a_tick_gives_it_back():
    inflation = Inflation([Store("store")], limit=100)
    assert inflation.admits(100)
    assert not inflation.admits(1)
    inflation.tick()
    assert inflation.admits(100)


def test_a_packet_without_room_is_refused_and_counted_and_others_are_not(listener_for):
    listener = listener_for("tcp")
    worker = listener.worker
    worker.engine.inflation.limit = 2 * GAINED
    listener.connect().sendall(PACKED * 3 + FRAME)
    listener.wait_for(lambda: worker.engine.received == 4)
    counters = metrics.snapshot(worker)
    assert counters["refused"] == {"no_room_to_unpack": 1}
    assert counters["ledger"]["difference"] == 0
    assert worker.engine.inflation.held == 2 * GAINED
    assert listener.call(worker.flush, 20.0)
    listener.call(worker.tick)
    assert worker.engine.inflation.held == 0
