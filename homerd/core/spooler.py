"""The spooler: moves a sink's batches between memory and the spool, on a thread of its own.

It moves them all while the store is away or a write hangs, the oldest when too many wait, and at
the end whatever is left.  A disk that is full or broken is tried again each second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from homerd.core.batches import Batch, Batches
from homerd.core.segment import Packed, dump, plain
from homerd.core.spool import Entry, Spool

log = logging.getLogger("homerd.sink")

SYNC_SECONDS = 1.0
RETRY_SECONDS = 1.0


class Spooler:
    """One sink's, between its batches and its spool.

    pack: what the spool holds of a record; None when it is the record.
    say: logs a warning, each text at most once a second.
    not_packed: records that the spool cannot hold; they wait in memory.
    """

    def __init__(
        self,
        name: str,
        batches: Batches,
        spool: Spool,
        pack: Callable[[Any], Packed] | None,
        say: Callable[[str, Sequence[object]], None],
    ) -> None:
        self.name = name
        self.batches = batches
        self.spool = spool
        self.not_packed = 0
        self._pack = pack
        self._say = say
        self._shed = 0
        self._damaged = 0
        # What one thread does to the spool and to the counts is one step for the other.
        self._step = threading.Lock()
        self._flight_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"spool-{name}", daemon=True)

    def start(self) -> int:
        """Open the spool; how many records of earlier runs there were.  Raises OSError."""
        spool, batches = self.spool, self.batches
        spool.open()
        batches.spools = True
        batches.volatile = spool.volatile
        batches.on_disk = spool.found
        batches.lose(spool.killed, "killed")
        batches.lose(spool.foreign, "spool_format")
        recovered = spool.found + spool.killed + spool.foreign
        if recovered or spool.torn:
            log.warning(
                "spool found sink=%s records=%d lost_when_killed=%d torn=%d folder=%s",
                self.name,
                spool.found,
                spool.killed,
                spool.torn,
                spool.folder,
            )
        self._thread.start()
        return recovered

    def stop(self, timeout: float, *, hangs: bool) -> None:
        """Move what is in memory to the disk, for at most *timeout* seconds.

        hangs: what is in flight will not come back.
        """
        batches = self.batches
        with batches.changed:
            self._flight_given_up = hangs
            batches.closing = True
            batches.changed.notify_all()
        self._thread.join(timeout)
        with batches.changed:
            batches.ended = True
            flying = batches.flying
            if flying is not None and flying.entry is not None:
                batches.on_disk += batches.flying_records
                batches.land(flying)
        if not self._thread.is_alive():
            self.spool.close()
        if batches.on_disk:
            log.warning(
                "records wait in the spool for the next start sink=%s records=%d folder=%s",
                self.name,
                batches.on_disk,
                self.spool.folder,
            )

    # The sink's thread

    def take(self) -> Batch | None:
        """The oldest batch on disk, in flight now; None when none can be read."""
        batches = self.batches
        with self._step:
            found = self.spool.take()
            if found is None:
                with batches.changed:
                    self._account()
                    # Somebody removed the files: what was in them is no more.
                    gone = batches.on_disk - sum(len(batch.records) for batch in batches.held)
                    batches.on_disk -= gone
                    batches.lose(gone, "spool_damaged")
                    batches.changed.notify_all()
                return None
            batch = Batch(found.records, found.id, found.entry)
            with batches.changed:
                self._account()
                batches.on_disk -= len(found.records)
                batches.fly(batch)
        return batch

    def settle(self, entry: Entry) -> None:
        """One part less: what is on disk is done with when nothing of it is left."""
        entry.parts -= 1
        if entry.parts == 0:
            self.spool.done(entry)

    # The spooler's own

    def _run(self) -> None:
        batches, spool = self.batches, self.spool
        synced = failed = 0.0
        while True:
            with batches.changed:
                batches.changed.wait_for(self._has_work, SYNC_SECONDS)
                now = time.monotonic()
                if not batches.spools and not batches.closing and now - failed >= RETRY_SECONDS:
                    batches.spools = True
                copy = self._flight()
                batch = copy or self._waiting()
                ends = batch is None and batches.closing
            if batch is not None and not self._move(batch, copy=copy is not None):
                failed = time.monotonic()
            if spool.unsynced and (batch is None or time.monotonic() - synced >= SYNC_SECONDS):
                self._sync()
                synced = time.monotonic()
            if ends:
                return

    def _has_work(self) -> bool:
        return self.batches.closing or self._copies() or self._moves()

    def _copies(self) -> bool:
        """Whether what is in flight must be on disk as well."""
        batches = self.batches
        batch = batches.flying
        if batch is None or batch.entry is not None or batch.copied or not batch.packable:
            return False
        return batches.all_to_disk and (self._flight_given_up or not batches.closing)

    def _moves(self) -> bool:
        """Whether something in memory must go to the disk."""
        batches = self.batches
        if not batches.spools or not any(batch.packable for batch in batches.waiting):
            return False
        if batches.all_to_disk or batches.waiting_records > batches.limit:
            return True
        return batches.in_order and batches.on_disk > 0

    def _flight(self) -> Batch | None:
        if not self._copies():
            return None
        batch = self.batches.flying
        assert batch is not None
        batch.copied = True
        return batch

    def _waiting(self) -> Batch | None:
        if not self._moves():
            return None
        batches = self.batches
        batch = next(batch for batch in batches.waiting if batch.packable)
        batches.waiting.remove(batch)
        batches.waiting_records -= len(batch.records)
        batches.spooling_records += len(batch.records)
        batches.name(batch)
        return batch

    def _move(self, batch: Batch, *, copy: bool) -> bool:
        """Write *batch* to the disk; False when it could not be."""
        batches, records = self.batches, batch.records
        payload, bad = self._packed(records)
        count = len(records) - len(bad)
        entry: Entry | None = None
        failure: OSError | None = None
        with self._step:
            try:
                if count:
                    entry = self.spool.append(batch.id, count, payload, taken=copy)
            except OSError as error:
                failure = error
            with batches.changed:
                self._account()
                batches.spools = failure is None
                stale = self._copied(batch, entry) if copy else False
                if not copy:
                    batches.spooling_records -= len(records)
                    kept = [batch] if failure else []
                    if failure is None:
                        batches.on_disk += count
                        self.not_packed += len(bad)
                        if bad:
                            kept = [Batch(bad, packable=False, receipt=batch.receipt)]
                        else:
                            batches.settle(batch)
                    batches.wait_first(kept)
                batches.make_room()
                batches.note()
                batches.changed.notify_all()
        if stale and entry is not None:
            self.spool.done(entry)
        if failure is not None:
            self._say(
                'batch cannot be spooled sink=%s folder=%s error="%s"',
                (self.name, self.spool.folder, failure),
            )
        if bad and not copy:
            self._say(
                "records cannot be spooled, they wait in memory sink=%s records=%d type=%s",
                (self.name, len(bad), type(bad[0]).__name__),
            )
        return failure is None

    def _copied(self, batch: Batch, entry: Entry | None) -> bool:
        """The copy of what was in flight: its own now, unless it came back meanwhile."""
        if self.batches.flying is batch and entry is not None:
            batch.entry = entry
            self.batches.settle(batch)
            return False
        batch.copied = False
        return True

    def _packed(self, records: list[Any]) -> tuple[bytes, list[Any]]:
        """The payload, and the records that cannot be part of it."""
        pack = self._pack
        try:
            return dump(records if pack is None else list(map(pack, records))), []
        except Exception:  # a plugin's `pack`, or marshal: each record by itself, then
            good, bad = [], []
        for record in records:
            try:
                packed = plain(record if pack is None else pack(record))
                dump([packed])
                good.append(packed)
            except Exception:  # counted
                bad.append(record)
        return dump(good), bad

    def _account(self) -> None:
        """Count what the spool has lost since; with `changed` held."""
        spool, batches = self.spool, self.batches
        shed, damaged = spool.shed - self._shed, spool.damaged - self._damaged
        self._shed, self._damaged = spool.shed, spool.damaged
        batches.on_disk -= shed + damaged
        batches.lose(shed, "spool_full")
        batches.lose(damaged, "spool_damaged")
        if shed:
            self._say(
                "records dropped sink=%s reason=spool_full records=%d in_total=%d spool_limit=%d",
                (self.name, shed, spool.shed, spool.limit),
            )

    def _sync(self) -> None:
        try:
            self.spool.sync()
        except OSError as error:
            self._say(
                'spool cannot be synced sink=%s folder=%s error="%s"',
                (self.name, self.spool.folder, error),
            )


def unpacked(
    unpack: Callable[[Packed], Any], packed: Sequence[Packed]
) -> tuple[list[Any], list[Packed], str]:
    """The records; what cannot be made one, as an earlier version may have left it; and why."""
    good, bad, told = [], [], ""
    for each in packed:
        try:
            good.append(unpack(each))
        except Exception as error:  # counted
            bad.append(each)
            told = f"no record of this version: {type(error).__name__}: {error}"
    return good, bad, told
