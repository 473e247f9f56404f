"""Turns: while more comes than is routed, the datagrams of each agent wait in a queue of their own.

One datagram of each agent is served in turn, for what costs time is datagrams, not bytes.  All that
waits is within `limit` bytes; what is beyond is taken from the end of the longest queue, so that an
agent with more than its share loses its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homerd.core.agents import Agents
    from homerd.core.engine import Datagram, Engine

CROWDED = "crowded"
UNKNOWN = "(unknown)"  # no agent can have that name
# Counted with each datagram: the objects of it, its address and its place; 33 + 56 + 150 bytes.
OVERHEAD = 240
_size = attrgetter("size")


class Turns:
    """What waits to be served.

    limit: bytes of all queues together.
    """

    def __init__(self, agents: Agents, engine: Engine, limit: int) -> None:
        self.agents = agents
        self.engine = engine
        self.limit = limit
        self._queues: dict[str, _Queue] = {}
        self._turns: deque[str] = deque()  # agents with something waiting, whose turn is next first
        self._size = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, datagrams: Iterable[Datagram]) -> None:
        """Have *datagrams* wait; what there is no room for is refused and counted."""
        owner = self.agents.owner
        for datagram in datagrams:
            data, address = datagram
            name = owner(data, address)
            queue = self._queues.get(name)
            if queue is None:
                queue = self._queues[name] = _Queue(name)
            if not queue.waiting:
                self._turns.append(name)
            size = len(data) + OVERHEAD
            queue.waiting.append(datagram)
            queue.size += size
            self._size += size
            self._length += 1
            while self._size > self.limit:
                self._refuse_one()

    def take(self, most: int) -> list[Datagram]:
        """Up to *most*, one of each agent in turn; those of one agent in the order they came."""
        found: list[Datagram] = []
        queues, turns = self._queues, self._turns
        while turns and len(found) < most:
            name = turns.popleft()
            queue = queues[name]
            datagram = queue.waiting.popleft()
            found.append(datagram)
            size = len(datagram[0]) + OVERHEAD
            queue.size -= size
            self._size -= size
            if queue.waiting:
                turns.append(name)
            else:
                del queues[name]
        self._length -= len(found)
        return found

    def lengths(self) -> dict[str, int]:
        """How many datagrams wait, by agent."""
        return {name or UNKNOWN: len(queue.waiting) for name, queue in self._queues.items()}

    def _refuse_one(self) -> None:
        queue: _Queue = max(self._queues.values(), key=_size)
        data, _ = queue.waiting.pop()
        size = len(data) + OVERHEAD
        queue.size -= size
        self._size -= size
        self._length -= 1
        if not queue.waiting:
            del self._queues[queue.name]
            self._turns.remove(queue.name)
        self.engine.refuse(CROWDED)
        self.agents.crowded(queue.name, data)


class _Queue:
    """What waits of one agent, and its size in bytes."""

    __slots__ = ("name", "size", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0
        self.waiting: deque[Datagram] = deque()
