"""Where a sink's batches are: each in one place at any moment, and counted there.

    waiting ──▶ in flight ──▶ written, refused
       │  ▲         │  ▲
       ▼  └─────────┘  │
    spooling ──▶ on disk

Three threads meet here: the loop hands over, the sink's own takes, the spooler moves what must not
be lost.  All but `hand_over` is called with `changed` held.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from homerd.core.spool import Entry

QUEUE_LIMIT = 100_000
BATCH_SIZE = 1000


class Receipt:
    """Who is told, once, that no kill can lose a batch any more, or that it was lost.

    parts: pieces of the batch that are not settled.  records: of all of it.
    """

    __slots__ = ("_lost", "_tell", "parts", "records")

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell: Callable[[bool], None] | None = tell
        self._lost = False
        self.parts = 1
        self.records = 0

    def settle(self, safe: bool) -> bool:
        """One piece less, with `changed` held; True when it was the last."""
        self.parts -= 1
        self._lost |= not safe
        if self.parts > 0 or self._tell is None:
            return False
        tell, self._tell = self._tell, None
        tell(not self._lost)
        return True


class Batch:
    """Records on their way.

    id: "" until it is first taken.  entry: its place in the spool.  packable: False for what the
    spool cannot hold.  copied: whether it is in the spool, or about to be, while it is in flight.
    faults: how many of its records were found at fault, shared by the parts of one batch.
    receipt: for whoever sent it, until it is settled.
    """

    __slots__ = ("copied", "entry", "faults", "id", "packable", "receipt", "records")

    def __init__(
        self,
        records: list[Any],
        id: str = "",
        entry: Entry | None = None,
        *,
        packable: bool = True,
        faults: list[int] | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        self.records = records
        self.id = id
        self.entry = entry
        self.packable = packable
        self.copied = False
        self.faults = faults or []
        self.receipt = receipt


class Batches:
    """The places, and what decides where a batch goes next.

    away: the store, or it has not answered for long.  spools: there is a spool, and it works.
    closing: the sink is about to end, and what is in memory goes to the spool.
    volatile: how many records a kill would cost: in the open batch, and elsewhere.
    lent: records in memory that their sender keeps until their receipt is settled.
    dropped, lost: records that had no room; lost is by reason.
    """

    def __init__(self, limit: int, batch_size: int, *, in_order: bool) -> None:
        self.limit = limit
        self.batch_size = batch_size
        self.in_order = in_order
        self.changed = threading.Condition()
        self.away = False
        self.spools = False
        self.closing = False
        self.ended = False
        self.volatile: memoryview | list[int] = [0, 0]
        self.dropped = 0
        self.lost: Counter[str] = Counter()
        self.waiting: deque[Batch] = deque()
        self.waiting_records = 0
        self.spooling_records = 0
        self.flying: Batch | None = None
        self.flying_records = 0
        self.held: deque[Batch] = deque()  # on disk, and in memory as well
        self.on_disk = 0
        self.lent = 0
        self._run = secrets.token_hex(8)
        self._numbers = 0

    def hand_over(self, records: list[Any], id: str = "", receipt: Receipt | None = None) -> int:
        """On the loop: take the open batch; how many records were dropped for it."""
        with self.changed:
            self.waiting.append(Batch(records, id, receipt=receipt))
            if receipt is not None:
                receipt.records = len(records)
                self.lent += receipt.records
            self.waiting_records += len(records)
            dropped = self.make_room()
            self.note()
            self.volatile[0] = 0
            self.changed.notify_all()
        return dropped

    @property
    def in_memory(self) -> int:
        """Records that are nowhere else, but for what is in flight from the disk."""
        return self.waiting_records + self.spooling_records + self.flying_records

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.in_memory and not self.on_disk

    @property
    def all_to_disk(self) -> bool:
        """Whether batches go to the spool, one and all."""
        return self.spools and (self.away or self.closing)

    @property
    def next_is_waiting(self) -> bool:
        """Whether the next batch to write is one in memory, which come first unless the store is
        away or the order matters."""
        if not self.waiting:
            return False
        if self.in_order and self.spools:
            return not self.on_disk and not self.spooling_records
        return not self.all_to_disk or not self.waiting[0].packable

    def first_waiting(self) -> Batch:
        """The oldest; small ones that follow become part of it."""
        batch = self.waiting.popleft()
        records = batch.records
        while not batch.id and self.waiting and not self.waiting[0].id:
            following = self.waiting[0]
            if len(records) + len(following.records) > self.batch_size:
                break
            if following.packable is not batch.packable or following.receipt is not None:
                break
            records = records + self.waiting.popleft().records
        batch.records = records
        self.waiting_records -= len(records)
        return batch

    def wait_first(self, batches: Iterable[Batch]) -> None:
        """Put *batches* before all that waits."""
        for batch in reversed(list(batches)):
            self.waiting.appendleft(batch)
            self.waiting_records += len(batch.records)

    def fly(self, batch: Batch) -> None:
        self.name(batch)
        self.flying = batch
        self.flying_records = len(batch.records)
        self.note()

    def land(self, batch: Batch) -> None:
        if self.flying is batch:
            self.flying = None
            self.flying_records = 0
            self.note()
            self.changed.notify_all()

    def hold(self, batches: list[Batch]) -> None:
        """Put *batches*, whose entry stays on disk, before all that is there."""
        for batch in reversed(batches):
            self.held.appendleft(batch)
            self.on_disk += len(batch.records)

    def name(self, batch: Batch) -> None:
        if not batch.id:
            self._numbers += 1
            batch.id = f"{self._run}-{self._numbers}"

    def note(self) -> None:
        safe = self.flying is not None and self.flying.entry is not None
        kept = self.lent + (self.flying_records if safe else 0)
        self.volatile[1] = max(0, self.in_memory - kept)

    def settle(self, batch: Batch, *, safe: bool = True) -> None:
        """It is written, refused or on disk; or lost."""
        receipt, batch.receipt = batch.receipt, None
        if receipt is not None and receipt.settle(safe):
            self.lent -= receipt.records

    def lose(self, count: int, reason: str) -> None:
        if count:
            self.dropped += count
            self.lost[reason] += count

    def make_room(self) -> int:
        """Drop the oldest above the limit; as much again may be on its way to the disk."""
        limit = self.limit * (2 if self.spools else 1)
        dropped = 0
        while self.waiting_records > limit:
            oldest = self.waiting.popleft()
            self.waiting_records -= len(oldest.records)
            dropped += len(oldest.records)
            self.settle(oldest, safe=False)
        self.lose(dropped, "queue_full")
        return dropped
