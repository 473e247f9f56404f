"""Batches that come over a stream and are acknowledged (wire/hep_batch.py): each is taken once.

What a batch gives to a sink becomes one batch of that sink, whose id follows from the sender's.
The sender is told once all of them are written, or in a spool: from then on no kill of this process
can lose anything.  A batch that was not told comes again, after a kill to a process that knows
nothing of it: it gives the same batches under the same ids, and stores which keep ids take them
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from homerd.core.batches import Receipt
from homerd.core.sink import BatchSink
from homerd.wire import hep_batch

if TYPE_CHECKING:
    from homerd.core.engine import Arrival, Datagram, Engine

AT_ONCE = 64  # the engine has so many decoded at a time, whatever they unpack to
IDS_KEPT = 100_000  # of batches taken, some 15 MB
# homerd ends a batch at 4 MiB; a frame more may be begun before.
LARGEST_BATCH = 8 << 20
# Of all connections together: without it 2048 of them are 16 GiB, from whomever.
MOST_GATHERED = 256 << 20
OVERHEAD = 120  # of each frame beyond its bytes: 6 bytes are a frame already

Tell = Callable[[bool], None]


class Intake:
    """What one worker has taken.

    taken: batches and frames that are safe, and those that came again ("repeated_frames").
    gathered: bytes of batches that are not whole yet.
    """

    def __init__(self, engine: Engine, sinks: Sequence[BatchSink]) -> None:
        self.engine = engine
        self.sinks = sinks
        self.taken: Counter[str] = Counter()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._open: dict[str, _Open] = {}
        self.gathered = 0
        self._gathering: set[BatchedStream] = set()

    def gather(self, stream: BatchedStream, size: int) -> None:
        """Count what *stream* keeps; when all is too much, the one that keeps most is closed."""
        self._gathering.add(stream)
        self.gathered += size
        stream.size += size
        while self.gathered > MOST_GATHERED:
            max(self._gathering, key=attrgetter("size")).refuse("no_room")

    def release(self, stream: BatchedStream) -> None:
        """It keeps nothing any more."""
        self._gathering.discard(stream)
        self.gathered -= stream.size
        stream.size = 0

    def take(self, id: str, datagrams: Sequence[Datagram], source: Arrival, tell: Tell) -> bool:
        """Route a batch; *tell* is called on the loop, with False when it is to come again.

        False when it came before, and was not routed again.
        """
        if id in self._ids or id in self._open:
            self.taken["repeated_frames"] += len(datagrams)
            if id in self._ids:
                tell(True)
            else:
                self._open[id].tells.append(tell)
            return False
        batch = self._open[id] = _Open(len(datagrams), tell)
        sinks = list(self.sinks)
        try:
            for sink in sinks:
                sink.gather()
            for start in range(0, len(datagrams), AT_ONCE):
                self.engine.handle(datagrams[start : start + AT_ONCE], source)
        except BaseException:
            # The rest comes again, and with it what is in the sinks: under the sender's id stores
            # would take what they have for all of it.
            for sink in sinks:
                sink.hand_over()
            self._settle(id, safe=False)
            raise
        for sink in sinks:
            receipt = Receipt(self._from_any_thread(id))
            batch.parts += sink.hand_over(_own_id(id, sink), receipt)
        self._settle(id, safe=True)
        return True

    def _from_any_thread(self, id: str) -> Tell:
        """For a sink's threads: have the loop settle its part."""
        loop = asyncio.get_running_loop()

        def settled(safe: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its connections
                loop.call_soon_threadsafe(self._settle, id, safe)

        return settled

    def _settle(self, id: str, safe: bool) -> None:
        batch = self._open[id]
        batch.parts -= 1
        batch.safe &= safe
        if batch.parts:
            return
        del self._open[id]
        if batch.safe:
            self.taken["batches"] += 1
            self.taken["frames"] += batch.frames
            self._ids[id] = None
            if len(self._ids) > IDS_KEPT:
                self._ids.popitem(last=False)
        for tell in batch.tells:
            tell(batch.safe)


class _Open:
    """A batch that is not safe yet.  parts: sinks that have not settled theirs, and the taking."""

    __slots__ = ("frames", "parts", "safe", "tells")

    def __init__(self, frames: int, tell: Tell) -> None:
        self.frames = frames
        self.tells = [tell]
        self.parts = 1
        self.safe = True


class BatchedStream:
    """One connection whose sender asked for acknowledgements.

    answer: sends bytes.  drop: closes the connection, counted by a reason.  size: bytes it keeps of
    a batch that is not whole.
    """

    def __init__(
        self,
        intake: Intake,
        source: Arrival,
        address: tuple[object, ...],
        answer: Callable[[bytes], None],
        drop: Callable[[str], None],
    ) -> None:
        self.intake = intake
        self.source = source
        self.address = address
        self.answer = answer
        self.drop = drop
        self.size = 0
        self._datagrams: list[Datagram] = []
        self._ended = False

    @property
    def pending(self) -> bool:
        """Whether a batch has begun and is not whole."""
        return bool(self._datagrams)

    def feed(self, frames: Sequence[bytes]) -> int:
        """Take frames; gives how many were routed, once their batches were whole."""
        routed = 0
        for frame in frames:
            if self._ended:
                break
            kind, body = hep_batch.read(frame)
            if kind == hep_batch.HELLO:
                self.answer(hep_batch.message(hep_batch.WELCOME))
            elif kind == hep_batch.END:
                number, id = hep_batch.read_end(body)
                datagrams, self._datagrams = self._datagrams, []
                self.intake.release(self)
                if not id or number != len(datagrams):
                    self.refuse("bad_batch")
                elif self.intake.take(id, datagrams, self.source, self._teller(id)):
                    routed += number
            elif not kind:
                self._datagrams.append((frame, self.address))
                self.intake.gather(self, len(frame) + OVERHEAD)
                if self.size > LARGEST_BATCH:
                    self.refuse("batch_too_large")
        return routed

    def refuse(self, reason: str) -> None:
        """Close the connection; its sender has what is not acknowledged."""
        self.end()
        self.drop(reason)

    def end(self) -> None:
        """The connection is closed: let go of what came over it."""
        self._ended = True
        self._datagrams.clear()
        self.intake.release(self)

    def _teller(self, id: str) -> Tell:
        def tell(safe: bool) -> None:
            if safe:
                self.answer(hep_batch.message(hep_batch.TAKEN, id.encode()))
            else:
                self.drop("not_stored")

        return tell


def _own_id(id: str, sink: BatchSink) -> str:
    """The same for the same batch and sink, in every process and in every place."""
    return hashlib.sha1(f"{id} {sink.name}".encode()).hexdigest()[:32]
