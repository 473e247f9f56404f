"""Counts that are kept for a while and then written, one record a series.

How many series there are depends on what the network sends: beyond `max_series` the next ones are
counted together, under the name the caller gives for that.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

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
