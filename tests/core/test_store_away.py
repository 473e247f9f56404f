"""A store that goes and comes back, as its sink tells it."""

import logging

from homerd.core.sink import BatchSink
from homerd.errors import RetryLater
from homerd.testing import wait_until


class Store(BatchSink):
    """Refuses until it is opened."""

    def __init__(self):
        super().__init__("store", first_delay=0.01, last_delay=0.01)
        self.is_open = False

    def write(self, batch):
        if not self.is_open:
            raise RetryLater("nobody there")


def test_it_is_told_when_the_store_is_away_and_when_it_is_back(caplog):
    caplog.set_level(logging.WARNING, "homerd.sink")
    sink = Store()
    sink.start()
    sink.add("row")
    sink.flush(0.0)
    wait_until(lambda: sink.outage.error)
    away = (sink.outage.error, sink.outage.since > 0)
    sink.is_open = True
    assert sink.flush(30)
    wait_until(lambda: not sink.outage.since)
    sink.stop()
    assert away == ("nobody there", True)
    assert (sink.outage.error, sink.written) == ("", 1)
    assert "store is back sink=store away_seconds=0" in caplog.messages
