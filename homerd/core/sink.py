"""BatchSink: takes records on the loop thread, writes them in batches on a thread of its own.

`add` never waits.  Every record that was added is written, rejected, dropped or still pending, and
the four are counted.  Delivery is at least once: a batch whose write failed half-way is written
again, so records carry their own time.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from homerd.errors import ConfigError, Rejected, RetryLater

log = logging.getLogger("homerd.sink")

BATCH_SIZE = 1000
BATCH_AGE = 1.0
QUEUE_LIMIT = 100_000
FIRST_DELAY, LAST_DELAY = 0.5, 30.0

Record = Any  # whatever the subclass's own plugin builds


class BatchSink:
    """A queue, a thread, retries and counters around `write(batch)`.

    A subclass overrides `write` and, if it holds a connection, `connect` and `close`; all three run
    on the sink's thread only.  `connect` raises ConfigError for what only the operator can mend,
    RetryLater for a store that is away.

    queue_limit: most records that wait; above it the oldest batch is dropped.
    rejected, dropped: records lost; `lost` says why.  stored: written records by `label`.
    where: the store as the operator knows it, without its password; said on start.
    """

    where = ""

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        batch_age: float = BATCH_AGE,
        queue_limit: int = QUEUE_LIMIT,
        first_delay: float = FIRST_DELAY,
        last_delay: float = LAST_DELAY,
    ) -> None:
        self.name = name
        self.batch_size = max(1, min(batch_size, queue_limit))
        self.batch_age = batch_age
        self.queue_limit = queue_limit
        self.first_delay = first_delay
        self.last_delay = last_delay

        self.written = 0
        self.rejected = 0
        self.dropped = 0
        self.retries = 0
        self.batches = 0
        self.write_seconds = 0.0
        self.stored: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

        self._batch: list[Record] = []
        self._handed = 0
        self._handed_at = 0.0
        self._waiting: deque[list[Record]] = deque()
        self._waiting_records = 0
        self._in_flight = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._connected = False
        self._first_connect: ConfigError | None = None
        self._ready = threading.Event()
        self._stop_at: float | None = None  # time.monotonic(): when to give up
        self._abandoned = False
        self._said: dict[str, float] = {}

    # What a subclass overrides

    def connect(self) -> None:
        """Open what `write` needs; called again after RetryLater."""

    def write(self, batch: list[Record]) -> None:
        """Store *batch*; raises RetryLater or Rejected, see errors.py."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what `connect` opened."""

    def label(self, record: Record) -> str:
        """What *record* is counted under once it is stored, for most stores the table."""
        return self.name

    def describe(self, record: Record) -> dict[str, Any]:
        """*record* as JSON values, for trace: {"table": …, "record": {…}}."""
        return {"record": repr(record)}

    # The loop thread

    @property
    def added(self) -> int:
        """Records taken so far."""
        return self._handed + len(self._batch)

    @property
    def pending(self) -> int:
        """Records taken, and neither written nor lost yet."""
        with self._changed:
            return len(self._batch) + self._waiting_records + self._in_flight

    def add(self, record: Record) -> None:
        """Take one record; never waits."""
        # Hot path: an append and a comparison; a condition per record would be 0.5 µs.
        batch = self._batch
        batch.append(record)
        if len(batch) >= self.batch_size:
            self._hand_over()

    def tick(self, now: float) -> None:
        """Hand over what waits longer than batch_age; *now* from any clock that only grows."""
        if not self._batch:
            self._handed_at = now
        elif now - self._handed_at >= self.batch_age:
            self._hand_over()
            self._handed_at = now

    def start(self, wait_seconds: float = 10.0) -> None:
        """Start the thread and wait for its first connect; raises the ConfigError it raised.

        A store that is away is no reason not to start: its records wait for it.
        """
        self._thread = threading.Thread(target=self._run, name=f"sink-{self.name}", daemon=True)
        self._thread.start()
        self._ready.wait(wait_seconds)
        if self._first_connect is not None:
            raise self._first_connect

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything added so far is written or lost; False when it is not."""
        self._hand_over()
        if self._thread is None:
            return self._is_idle()
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Write what is left, for at most *timeout* seconds; what is not written then is lost."""
        if self._thread is None:
            return
        self._hand_over()
        with self._changed:
            self._stop_at = time.monotonic() + timeout
            self._changed.notify_all()
        # The thread gives up by itself; the second more is for a write that hangs.
        self._thread.join(timeout + 1.0)
        if self._thread.is_alive():
            self._abandon("the store did not answer at stop")
        self._thread = None

    def _hand_over(self) -> None:
        """Move the open batch to the queue, and make room there if it must be."""
        if not self._batch:
            return
        with self._changed:
            batch, self._batch = self._batch, []
            self._handed += len(batch)
            self._waiting.append(batch)
            self._waiting_records += len(batch)
            dropped = 0
            while self._waiting_records > self.queue_limit:
                oldest = len(self._waiting.popleft())
                self._waiting_records -= oldest
                dropped += oldest
            if dropped:
                self.dropped += dropped
                self.lost["queue_full"] += dropped
            self._changed.notify_all()
        if dropped:
            self._say(
                "records dropped sink=%s reason=queue_full records=%d in_total=%d queue_limit=%d",
                (self.name, dropped, self.lost["queue_full"], self.queue_limit),
            )

    # The sink's own thread

    def _run(self) -> None:
        try:
            self._open()
        except ConfigError as error:
            self._first_connect = error
            return
        except RetryLater as error:
            log.warning('store is away, records wait sink=%s error="%s"', self.name, error)
        finally:
            self._ready.set()
        while (batch := self._take()) is not None:
            self._deliver(batch)
        self._shut()

    def _take(self) -> list[Record] | None:
        """Wait for a batch; small ones that wait become one.  None when the sink is to stop."""
        with self._changed:
            self._in_flight = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._stop_at is not None)
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            while self._waiting and len(batch) + len(self._waiting[0]) <= self.batch_size:
                batch += self._waiting.popleft()
            self._waiting_records -= len(batch)
            self._in_flight = len(batch)
            return batch

    def _deliver(self, batch: list[Record]) -> None:
        """Write *batch* until nothing of it is left, one way or the other."""
        delay = self.first_delay
        while batch:
            try:
                self._open()
                self._write(batch)
                return
            except RetryLater as error:
                self._shut()
                if not self._wait(delay, error):
                    return
                delay = min(delay * 2, self.last_delay)
            except Rejected as error:
                batch = self._without(batch, error)
            except Exception:  # counted, and the thread must outlive any fault of a driver
                log.exception("batch rejected sink=%s records=%d", self.name, len(batch))
                self._shut()
                self._lose(len(batch), "write_failed")
                return

    def _open(self) -> None:
        """Connect if need be; once started, any failure only means to try again."""
        if self._connected:
            return
        try:
            self.connect()
        except RetryLater:
            raise
        except ConfigError as error:
            if not self._ready.is_set():
                raise
            raise RetryLater(str(error)) from error
        except Exception as error:  # a driver's own, no fault of the records
            raise RetryLater(f"{type(error).__name__}: {error}") from error
        self._connected = True

    def _shut(self) -> None:
        self._connected = False
        try:
            self.close()
        except Exception:  # the connection is given up either way
            log.debug("close failed sink=%s", self.name, exc_info=True)

    def _write(self, batch: list[Record]) -> None:
        started = time.perf_counter()
        try:
            self.write(batch)
        finally:
            self.write_seconds += time.perf_counter() - started
        labels = Counter(map(self.label, batch))
        with self._changed:
            if self._abandoned:
                return
            self.batches += 1
            self.written += len(batch)
            self._in_flight = 0
            self.stored.update(labels)

    def _wait(self, delay: float, error: RetryLater) -> bool:
        """Wait before the next try; False when the sink stops first and what is left is lost."""
        seconds = delay * random.uniform(0.75, 1.25)
        self._say(
            'store is away, batch kept sink=%s retry_seconds=%.1f error="%s"',
            (self.name, seconds, error),
        )
        until = time.monotonic() + seconds
        with self._changed:
            self.retries += 1
            while (now := time.monotonic()) < until:
                if self._stop_at is not None and now >= self._stop_at:
                    break
                ends = until if self._stop_at is None else min(until, self._stop_at)
                self._changed.wait(ends - now)
            given_up = self._stop_at is not None and time.monotonic() >= self._stop_at
        if given_up:
            self._abandon(str(error))
        return not given_up

    def _without(self, batch: list[Record], error: Rejected) -> list[Record]:
        """*batch* without the records the store refused; all of them when it names none."""
        refused = {index for index in error.indices if 0 <= index < len(batch)}
        refused = refused or set(range(len(batch)))
        sample = self._sample(batch[min(refused)])
        self._say(
            'records rejected sink=%s records=%d error="%s" sample=%s',
            (self.name, len(refused), error, sample),
        )
        self._lose(len(refused), "rejected")
        return [record for index, record in enumerate(batch) if index not in refused]

    def _sample(self, record: Record) -> str:
        try:
            return str(self.describe(record))[:300]
        except Exception as error:  # a record the store refuses may be one nobody can describe
            return f"{type(record).__name__} ({error})"

    def _lose(self, count: int, reason: str) -> None:
        with self._changed:
            if self._abandoned:
                return
            self.rejected += count
            self.lost[reason] += count
            self._in_flight -= count

    def _abandon(self, error: str) -> None:
        """Count everything that is left as lost; what the thread may still do no longer counts."""
        with self._changed:
            left = self._in_flight + self._waiting_records
            self._abandoned = True
            self._waiting.clear()
            self._waiting_records = self._in_flight = 0
            self.dropped += left
            self.lost["stopped"] += left
            self._changed.notify_all()
        log.error('records lost at stop sink=%s records=%d error="%s"', self.name, left, error)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._in_flight

    def _say(self, text: str, values: Sequence[object]) -> None:
        """Log a warning, each text at most once a second."""
        now = time.monotonic()
        if now - self._said.get(text, -1.0) >= 1.0:
            self._said[text] = now
            log.warning(text, *values)
