"""BatchSink: takes records on the loop thread, writes them in batches on a thread of its own.

`add` never waits.  While the store is away or slow batches go to the spool, on another thread: the
loop does not wait for a disk either.  At any moment

    added + recovered = written + pending + spooled + rejected + dropped

Delivery is at least once: a batch whose write failed half-way is written again, under the same id,
so that a store which keeps the ids takes it once.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homerd.core.batches import BATCH_SIZE, QUEUE_LIMIT, Batch, Batches, Receipt
from homerd.core.outage import Outage
from homerd.core.quarantine import Quarantine, described_by, shown
from homerd.core.segment import Packed
from homerd.core.spool import Spool
from homerd.core.spooler import Spooler, unpacked
from homerd.errors import ConfigError, Rejected, RetryLater

log = logging.getLogger("homerd.sink")

BATCH_AGE = 1.0
FIRST_DELAY, LAST_DELAY = 0.5, 30.0
SLOW_SECONDS = 1.0

REJECTED, WRITE_FAILED = "rejected", "write_failed"

# So many records of a batch are looked for one by one; then the parts that fail are at fault whole.
_MOST_FAULTS = 32
_EARLY = 0.5  # the tick comes each second, but sooner after a late one: that must do as well
_HANG_SECONDS = 1.0
_SPOOL_SECONDS = 5.0  # what a disk may take at stop

Record = Any  # whatever the subclass's own plugin builds


class BatchSink:
    """A queue, threads, retries, a spool and counters around `write(batch)`.

    A subclass overrides `write` and, if it holds a connection, `connect` and `close`; all three run
    on the sink's thread only.  `connect` raises ConfigError for what only the operator can mend,
    RetryLater for a store that is away.

    It may set:
    where: the store as the operator knows it, without its password; said on start.
    is_store: False for what tells people or other servers; its labels are no tables.
    spools: False for a store to which records are worth nothing later.
    in_order: True when no record may overtake another, not even one that is spooled.
    record_format: another number when spooled records of an earlier version cannot be written.
    ids_kept_seconds: for how long a store keeps ids of batches.  Only an outage that is longer, and
    began between a commit and its answer, can make one batch come twice.

    batch_id: during `write`, the batch's name, the same in each try and after a restart; "" when
    `write` is called by hand.  A SQL store inserts it into its table `homerd_batches` in the
    transaction of the records; when it is there already the batch is stored, and `write` returns.

    queue_limit: most records that wait in memory; above it the oldest batch goes to the spool, or
    is dropped where there is none.
    slow_seconds: a write that takes longer sends everything that waits to the spool.
    rejected: records the store refused, which are in quarantine.  lost: all that is lost, by
    reason.  stored: written records by `label`.
    recovered: records of earlier runs, spooled or lost when a run was killed.
    """

    where = ""
    is_store = True
    spools = True
    in_order = False
    record_format = 1
    ids_kept_seconds = 3 * 86_400

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        batch_age: float = BATCH_AGE,
        queue_limit: int = QUEUE_LIMIT,
        first_delay: float = FIRST_DELAY,
        last_delay: float = LAST_DELAY,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.name = name
        self.batch_size = max(1, min(batch_size, queue_limit))
        self.batch_age = batch_age
        self.queue_limit = queue_limit
        self.first_delay = first_delay
        self.last_delay = last_delay
        self.slow_seconds = slow_seconds
        self.batch_id = ""
        self.outage = Outage(name)

        self.written = 0
        self.rejected = 0
        self.recovered = 0
        self.retries = 0
        self.batches = 0
        self.write_seconds = 0.0
        self.stored: Counter[str] = Counter()
        self.spool: Spool | None = None
        self.quarantine: Quarantine | None = None

        self._batch: list[Record] = []
        self._handed = 0
        self._handed_at = 0.0
        self._batches = Batches(queue_limit, self.batch_size, in_order=self.in_order)
        self._changed = self._batches.changed
        self._spooler: Spooler | None = None
        self._seen: tuple[Batch | None, float] = (None, 0.0)
        self._thread: threading.Thread | None = None
        self._connected = False
        self._first_connect: ConfigError | None = None
        self._ready = threading.Event()
        self._delay = first_delay
        self._stop_at: float | None = None  # time.monotonic(): when to give up
        self._said: dict[str, float] = {}

    # What a subclass overrides

    def connect(self) -> None:
        """Open what `write` needs; called again after RetryLater."""

    def write(self, batch: list[Record]) -> None:
        """Store *batch*; raises RetryLater or Rejected, see errors.py.

        After any other exception the halves are tried, and theirs, until the record is found.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what `connect` opened."""

    def label(self, record: Record) -> str:
        """What *record* is counted under once it is stored, for most stores the table."""
        return self.name

    def describe(self, record: Record) -> dict[str, Any]:
        """*record* as JSON values, for trace and quarantine: {"table": …, "record": {…}}."""
        return {"record": repr(record)}

    def pack(self, record: Record) -> Packed:
        """*record* as the spool can hold it: plain values in tuples, lists and dictionaries."""
        return record

    def unpack(self, packed: Packed) -> Record:
        """The record again."""
        return packed

    def store_key(self) -> str:
        """What tells its store from others of the same name: each has a spool of its own."""
        return self.where

    # What is counted

    @property
    def added(self) -> int:
        """Records taken so far."""
        return self._handed + len(self._batch)

    @property
    def pending(self) -> int:
        """Records in memory that are neither written nor lost yet."""
        with self._changed:
            return len(self._batch) + self._batches.in_memory

    @property
    def spooled(self) -> int:
        """Records on disk that are to be written."""
        return self._batches.on_disk

    @property
    def dropped(self) -> int:
        """Records lost without the store having seen them."""
        return self._batches.dropped

    @property
    def lost(self) -> Counter[str]:
        """Records lost, by reason."""
        return self._batches.lost

    @property
    def not_packed(self) -> int:
        """Records that the spool could not hold; they waited in memory."""
        return self._spooler.not_packed if self._spooler is not None else 0

    def counts(self) -> dict[str, int]:
        """Both sides of the equation, of one moment; for the loop thread."""
        with self._changed:
            return {
                "added": self.added,
                "recovered": self.recovered,
                "written": self.written,
                "pending": len(self._batch) + self._batches.in_memory,
                "spooled": self._batches.on_disk,
                "rejected": self.rejected,
                "dropped": self._batches.dropped,
            }

    # The loop thread

    def add(self, record: Record) -> None:
        """Take one record; never waits."""
        # Hot path: an append and a comparison; a condition per record would be 0.5 µs.
        batch = self._batch
        batch.append(record)
        if len(batch) >= self.batch_size:
            self.hand_over()

    def note(self) -> None:
        """After some packets: leave word of how many records a kill would cost now."""
        self._batches.volatile[0] = len(self._batch)

    def tick(self, now: float) -> None:
        """Hand over what waits longer than batch_age; *now* from any clock that only grows."""
        if not self._batch:
            self._handed_at = now
        elif now - self._handed_at >= self.batch_age - _EARLY:
            self.hand_over()
            self._handed_at = now
        self._watch(now)

    def spool_into(self, folder: Path, limit: int) -> None:
        """Before `start`: have a spool in *folder*, of at most *limit* bytes; 0 for none."""
        if not self.spools or limit <= 0:
            return
        key = hashlib.sha1(self.store_key().encode("utf-8", "replace")).hexdigest()[:8]
        place = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)}-{key}"
        self.spool = Spool(place, limit, format=self.record_format)
        self.quarantine = Quarantine(place)

    def start(self, wait_seconds: float = 10.0) -> None:
        """Start the threads and wait for the first connect; raises the ConfigError it raised.

        A store that is away is no reason not to start: its records wait for it.
        """
        self._open_spool()
        self._thread = threading.Thread(target=self._run, name=f"sink-{self.name}", daemon=True)
        self._thread.start()
        self._ready.wait(wait_seconds)
        self._ready.set()  # what comes later stops no start, and is tried again
        if self._first_connect is not None:
            self.stop(0.0)
            raise self._first_connect

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was added or spooled is written or lost; False when it is not."""
        self.hand_over()
        with self._changed:
            if self._thread is None:
                return self._batches.idle
            return self._changed.wait_for(lambda: self._batches.idle, timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Write what is left, for at most *timeout* seconds; the rest goes to the spool.

        Where there is none it is lost.  With one, a store that is away is not waited for.
        """
        if self._thread is None:
            return
        self.hand_over()
        with self._changed:
            self._stop_at = time.monotonic() + timeout
            if self._batches.all_to_disk:
                timeout = 0.0
            self._changed.notify_all()
        # The thread gives up by itself; what comes on top is for a write that hangs.
        self._thread.join(timeout + _HANG_SECONDS)
        if self._spooler is not None:
            self._spooler.stop(_SPOOL_SECONDS, hangs=self._thread.is_alive())
        self._abandon()
        self._thread = None

    def gather(self) -> None:
        """Before some packets: begin a batch that `hand_over` ends, whatever its size."""
        self.hand_over()
        self.batch_size = sys.maxsize

    def hand_over(self, id: str = "", receipt: Receipt | None = None) -> bool:
        """Move the open batch to the queue, make room there if need be; False without a batch."""
        self.batch_size = self._batches.batch_size
        if not self._batch:
            return False
        records, self._batch = self._batch, []
        dropped = self._batches.hand_over(records, id, receipt)
        self._handed += len(records)
        if dropped:
            self._say(
                "records dropped sink=%s reason=queue_full records=%d in_total=%d queue_limit=%d",
                (self.name, dropped, self.lost["queue_full"], self.queue_limit),
            )
        return True

    def _watch(self, now: float) -> None:
        """Have everything go to the spool while a write takes long."""
        batches = self._batches
        with self._changed:
            batch, since = self._seen
            if batch is not batches.flying:
                self._seen = (batches.flying, now)
            elif batch is not None and now - since >= self.slow_seconds and not batches.away:
                batches.away = True
                self._changed.notify_all()

    # The sink's own thread

    def _run(self) -> None:
        try:
            self._open()
        except ConfigError as error:
            self._first_connect = error
            return
        except RetryLater as error:
            self._batches.away = True
            self.outage.said(error)
        finally:
            self._ready.set()
        while (batch := self._take()) is not None:
            self._attempt(batch)
        self._shut()

    def _take(self) -> Batch | None:
        """Wait for a batch, which is in flight then; None when the sink is to stop."""
        batches = self._batches
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._is_to_end():
                    return None
                batch = None
                if batches.next_is_waiting:
                    batch = batches.first_waiting()
                elif batches.held:
                    batch = batches.held.popleft()
                    batches.on_disk -= len(batch.records)
                if batch is not None:
                    batches.fly(batch)
                    return batch
            assert self._spooler is not None  # who else puts anything on disk?
            batch = self._spooler.take()
            if batch is not None and self._unpack(batch):
                return batch

    def _unpack(self, batch: Batch) -> bool:
        """Make records of what the spool gave; False when they are none, and all are refused."""
        batch.records, bad, told = unpacked(self.unpack, batch.records)
        if bad:
            self._refuse(batch, bad, WRITE_FAILED, told)
        if not batch.records:
            self._finish(batch)
        return bool(batch.records)

    def _has_work(self) -> bool:
        batches = self._batches
        return self._is_to_end() or batches.next_is_waiting or batches.on_disk > 0

    def _is_to_end(self) -> bool:
        """At stop what is in memory is written, not what is on disk: that is safe."""
        batches = self._batches
        if self._stop_at is None:
            return False
        if batches.all_to_disk:
            return True
        if time.monotonic() >= self._stop_at + (0.0 if batches.away else _HANG_SECONDS):
            return True
        return not batches.next_is_waiting and not batches.spooling_records

    def _attempt(self, batch: Batch) -> None:
        """Try to write *batch*: it is settled then, or somewhere to be taken from again."""
        try:
            self._open()
            self._write(batch)
        except RetryLater as error:
            self._batches.away = True
            self.outage.begins(error)
            self._put_back(batch, [batch])
            self._shut()
            self._back_off(error)
            return
        except Rejected as error:
            self._without(batch, error)
        except Exception as error:  # counted, and the thread must outlive any fault of a driver
            self._shut()
            self._divide(batch, error)
        else:
            self._written(batch)
        self._batches.away = False
        self.outage.ends()
        self._delay = self.first_delay

    def _write(self, batch: Batch) -> None:
        self.batch_id = batch.id
        started = time.perf_counter()
        try:
            self.write(batch.records)
        finally:
            self.write_seconds += time.perf_counter() - started
            self.batch_id = ""

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

    def _back_off(self, error: RetryLater) -> None:
        """Wait before the next try, or until the sink stops."""
        seconds = self._delay * random.uniform(0.75, 1.25)
        self._delay = min(self._delay * 2, self.last_delay)
        self._say(
            'store is away, batch kept sink=%s retry_seconds=%.1f error="%s"',
            (self.name, seconds, error),
        )
        until = time.monotonic() + seconds
        with self._changed:
            self.retries += 1
            while (now := time.monotonic()) < until:
                stop_at = self._stop_at
                if stop_at is not None and (self._batches.all_to_disk or now >= stop_at):
                    return
                self._changed.wait((until if stop_at is None else min(until, stop_at)) - now)

    # What becomes of a batch

    def _written(self, batch: Batch) -> None:
        self._finish(batch, self._labels(batch.records))

    def _put_back(self, batch: Batch, parts: list[Batch]) -> None:
        """Have *parts*, all that is left of *batch*, tried again before any other."""
        batches = self._batches
        with self._changed:
            if batches.ended:
                return
            batches.land(batch)
            if batch.entry is None:
                batches.wait_first(parts)
            else:
                batch.entry.parts += len(parts) - 1
                for part in parts:
                    part.entry = batch.entry
                batches.hold(parts)
            batches.note()
            self._changed.notify_all()

    def _without(self, batch: Batch, error: Rejected) -> None:
        """Go on without the records the store refused; all of them when it names none."""
        records = batch.records
        refused = {index for index in error.indices if 0 <= index < len(records)}
        refused = refused or set(range(len(records)))
        self._refuse(batch, [records[index] for index in sorted(refused)], REJECTED, str(error))
        batch.records = [record for index, record in enumerate(records) if index not in refused]
        if batch.records:
            self._put_back(batch, [batch])
        else:
            self._finish(batch)

    def _divide(self, batch: Batch, error: Exception) -> None:
        """Look for the record that *error* is about: the halves are tried, and theirs."""
        records = batch.records
        if not batch.faults:
            batch.faults.append(0)
            log.error(
                "batch failed, its parts are tried sink=%s records=%d",
                self.name,
                len(records),
                exc_info=error,
            )
        if len(records) == 1 or batch.faults[0] >= _MOST_FAULTS:
            batch.faults[0] += 1
            self._refuse(batch, records, WRITE_FAILED, f"{type(error).__name__}: {error}")
            self._finish(batch)
            return
        middle = len(records) // 2
        halves = (records[:middle], records[middle:])
        if batch.receipt is not None:
            batch.receipt.parts += 1
        parts = [
            Batch(half, f"{batch.id}.{number}", faults=batch.faults, receipt=batch.receipt)
            for number, half in enumerate(halves)
        ]
        self._put_back(batch, parts)

    def _refuse(self, batch: Batch, records: list[Record], reason: str, told: str) -> None:
        """Count *records* and put them into quarantine."""
        described = [described_by(self.describe, record) for record in records]
        self._say(
            'records rejected sink=%s records=%d error="%s" sample=%s',
            (self.name, len(records), told, shown(described[0])[:300]),
        )
        if self.quarantine is not None:
            self.quarantine.put(self.name, batch.id, told, described)
        with self._changed:
            if self._batches.ended:
                return
            self.rejected += len(records)
            self.lost[reason] += len(records)
            self._batches.flying_records -= len(records)
            self._batches.note()

    def _finish(self, batch: Batch, labels: Counter[str] | None = None) -> None:
        """Nothing is left of *batch*; labels: of its records, when they are written."""
        settled = self._settle(batch)
        with self._changed:
            if labels is not None:
                if self._batches.ended:
                    return
                self.batches += 1
                self.written += len(batch.records)
                self.stored.update(labels)
            self._batches.settle(batch)
            self._batches.land(batch)
        if not settled:
            self._settle(batch)

    def _settle(self, batch: Batch) -> bool:
        """Take *batch* out of the spool; False while it is not there.

        It may be copied into it until it has landed, so whoever lands it asks twice.
        """
        if self._spooler is None or batch.entry is None:
            return False
        self._spooler.settle(batch.entry)
        return True

    def _labels(self, records: list[Record]) -> Counter[str]:
        try:
            return Counter(map(self.label, records))
        except Exception:  # the records are stored, whatever a plugin calls them
            log.exception("label failed sink=%s", self.name)
            return Counter({self.name: len(records)})

    # Start and stop

    def _open_spool(self) -> None:
        if self.spool is None:
            return
        packs = type(self).pack is not BatchSink.pack
        spooler = Spooler(
            self.name,
            self._batches,
            self.spool,
            self.pack if packs else None,
            self._say,
        )
        try:
            self.recovered = spooler.start()
        except OSError as error:
            log.error('spool is off sink=%s error="%s"', self.name, error)
            self.spool = self.quarantine = None
            return
        self._spooler = spooler

    def _abandon(self) -> None:
        """Count what is left in memory as lost; what the thread may still do no longer counts."""
        batches = self._batches
        with self._changed:
            batches.ended = True
            left = batches.in_memory
            batches.waiting.clear()
            batches.waiting_records = batches.spooling_records = batches.flying_records = 0
            batches.lose(left, "stopped")
            self._changed.notify_all()
        self.outage.lost(left)

    def _say(self, text: str, values: Sequence[object]) -> None:
        """Log a warning, each text at most once a second."""
        now = time.monotonic()
        if now - self._said.get(text, -1.0) >= 1.0:
            self._said[text] = now
            log.warning(text, *values)
