"""Inflation: what packets gained when they were unpacked, as long as their records are in memory.

Sinks bound their queues by records, and a record may be a thousand times what came for it: 1 KB of
HEP unpacks to 1 MiB.  So what was gained is bounded as well, whatever the stores do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homerd.core.sink import BatchSink

LIMIT = 256 << 20  # 20,000 packets a second that gain 4 KB each take a third of it
NO_ROOM = "no_room_to_unpack"


class Inflation:
    """Bytes gained that may be in memory.

    What came before a tick is gone once each sink has settled as many records as it had then.
    """

    def __init__(self, sinks: Sequence[BatchSink], limit: int = LIMIT) -> None:
        self.sinks = sinks
        self.limit = limit
        self.held = 0
        self._latest = 0
        self._earlier: deque[tuple[int, list[tuple[BatchSink, int]]]] = deque()

    def admits(self, gained: int) -> bool:
        """Whether there is room for a packet that gained so much; it is taken then."""
        if self.held + gained > self.limit:
            return False
        self.held += gained
        self._latest += gained
        return True

    def tick(self) -> None:
        """Each second: give back what is in memory no more."""
        if self._latest:
            self._earlier.append((self._latest, [(sink, sink.added) for sink in self.sinks]))
            self._latest = 0
        while self._earlier:
            gained, added = self._earlier[0]
            if any(sink.added - sink.pending < count for sink, count in added):
                return
            self.held -= gained
            self._earlier.popleft()
