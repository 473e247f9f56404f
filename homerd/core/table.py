"""Table: keys that may expire, the memory behind htable and whoever counts over time.

The clock is given, so that a replay can move it.  An expired key reads as missing at once; `purge`
frees it and tells who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class Table(Generic[V]):
    """Keys, their values and when they end.

    clock: seconds, any origin.  expire_seconds: how long a key lives, 0 for ever.
    renew: whether each write starts the key's life again.
    limit: most keys the table takes, 0 for no limit; what it refuses is counted in `refused`.
    """

    __slots__ = ("_clock", "_ends", "_values", "expire_seconds", "limit", "refused", "renew")

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        expire_seconds: float = 0,
        renew: bool = True,
        limit: int = 0,
    ) -> None:
        self.expire_seconds = expire_seconds
        self.renew = renew
        self.limit = limit
        self.refused = 0
        self._clock = clock
        self._values: dict[str, V] = {}
        self._ends: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._values) - len(self._ended())

    def __contains__(self, key: str) -> bool:
        return key in self._values and not self._has_ended(key)

    def get(self, key: str, default: V | None = None) -> V | None:
        """The value of *key*, *default* when it is missing or has expired."""
        # Hot path: a table whose keys live for ever never asks the clock (0.1 of 0.16 µs).
        if key in self._ends and self._has_ended(key):
            return default
        return self._values.get(key, default)

    def put(self, key: str, value: V, seconds: float | None = None) -> bool:
        """Set *key*; False when the table is full and the key is new.

        seconds: how long this key lives from now, in place of the table's own rule; 0 for ever.
        """
        values = self._values
        if key not in values and self.limit and len(values) >= self.limit and not self._make_room():
            self.refused += 1
            return False
        if seconds is not None:
            self._end_after(key, seconds)
        elif self.expire_seconds and (self.renew or key not in values or self._has_ended(key)):
            self._ends[key] = self._clock() + self.expire_seconds
        values[key] = value
        return True

    def remove(self, key: str) -> bool:
        """Forget *key*; False when it was not there."""
        there = key in self
        self._values.pop(key, None)
        self._ends.pop(key, None)
        return there

    def clear(self) -> None:
        """Forget every key."""
        self._values.clear()
        self._ends.clear()

    def keys(self) -> list[str]:
        """The keys alive now; a copy, so that the table may change while it is walked."""
        return [key for key, _ in self.items()]

    def items(self) -> list[tuple[str, V]]:
        """The keys alive now with their values; a copy."""
        ended = self._ended()
        return [(key, value) for key, value in self._values.items() if key not in ended]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def seconds_left(self, key: str) -> float | None:
        """How long *key* still lives; None when it is missing or lives for ever."""
        end = self._ends.get(key)
        if end is None or self._has_ended(key):
            return None
        return end - self._clock()

    def expire(self, key: str, seconds: float) -> bool:
        """Let *key* live *seconds* from now (0 for ever); False when it is missing."""
        if key not in self:
            return False
        self._end_after(key, seconds)
        return True

    def purge(self, on_expired: Callable[[str, V], None] | None = None) -> int:
        """Free what has expired, each told to *on_expired* after it is gone; gives how many."""
        ended = self._ended()
        for key in ended:
            # on_expired may write to the table: a key it set anew is not this one's to free.
            if key not in self._ends or not self._has_ended(key):
                continue
            value = self._values.pop(key)
            del self._ends[key]
            if on_expired is not None:
                on_expired(key, value)
        return len(ended)

    def _end_after(self, key: str, seconds: float) -> None:
        if seconds:
            self._ends[key] = self._clock() + seconds
        else:
            self._ends.pop(key, None)

    def _has_ended(self, key: str) -> bool:
        end = self._ends.get(key)
        return end is not None and end <= self._clock()

    def _ended(self) -> dict[str, None]:
        if not self._ends:
            return {}
        now = self._clock()
        return {key: None for key, end in self._ends.items() if end <= now}

    def _make_room(self) -> bool:
        """Whether expired keys could be freed; who waits for their end is not told then."""
        return self.purge() > 0
