"""Counts that are kept for a while and then written, one record a series.

How many series there are depends on what the network sends: beyond `max_series` the next ones are
counted together, under the name the caller gives for that.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any, Generic, TypeVar

from homerd.api import BatchSink, ConfigError, ModParam, Plugin, Sample, Worker, hookimpl

K = TypeVar("K", bound=Hashable)


class Counts(Generic[K]):
    """How often each key was added since the last `drain`.

    over_budget: additions that went to another key than their own.
    """

    def __init__(self, max_series: int) -> None:
        self.max_series = max_series
        self.over_budget = 0
        self._counts: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: K, other: K) -> None:
        """Count one; under *other* when *key* is new and there are enough."""
        counts = self._counts
        if key not in counts and len(counts) >= self.max_series:
            self.over_budget += 1
            key = other
        counts[key] = counts.get(key, 0) + 1

    def drain(self) -> dict[K, int]:
        """What was counted; counting begins again."""
        counts, self._counts = self._counts, {}
        return counts


class CountingStore(Generic[K], Plugin):
    """What the modules that write counts into a store have in common."""

    name = "_counts"
    refused_metric = over_budget_metric = ""

    host = ModParam(
        str, "", help="value of `host` in all that is written; empty: this machine's name"
    )
    interval = ModParam(int, 60, help="seconds between two writes of what was counted")
    max_series = ModParam(
        int,
        10_000,
        reloadable=True,
        help='most combinations of values that are counted; what comes then is "other"',
    )
    timeout = ModParam(float, 10.0, help="seconds to wait for an answer")

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.counts: Counts[K] = Counts(self.max_series)
        self.host_name = ""
        self.sink: BatchSink
        self._worker: Worker | None = None

    def record_of(self, key: K, count: int, micros: int) -> Any:
        """What is written of a count; Any: the sink's own kind of record."""
        raise NotImplementedError

    def make_sink(self) -> BatchSink:
        """The sink, as the parameters say."""
        raise NotImplementedError

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the numbers, and take the budget."""
        for name in ("interval", "max_series", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f'modparam("{self.name}", "{name}", {getattr(self, name)}): expected 1 or more'
                )
        self.counts.max_series = self.max_series
        self.host_name = self.host or socket.gethostname()

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the sink, and the writing of counts."""
        self.sink = worker.add_sink(self.make_sink())
        self._worker = worker
        worker.every(self.interval, self.write_counts)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Write what was counted since the last time."""
        self.write_counts()

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """What could not be made, and counts that went to "other"."""
        for reason, count in self.refused.items():
            labels = {"reason": reason}
            yield Sample(self.refused_metric, labels, count, "Records not made.")
        over = self.counts.over_budget
        yield Sample(self.over_budget_metric, {}, over, 'Counted under "other".')

    def write_counts(self) -> None:
        """Hand what was counted to the sink."""
        assert self._worker is not None
        micros = int(self._worker.now() * 1_000_000)
        for key, count in self.counts.drain().items():
            if self._worker.deliver:
                self.sink.add(self.record_of(key, count, micros))
