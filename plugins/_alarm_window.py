"""A sliding window of time: how much was counted in it, or what the values in it come to.

Time is cut into buckets, twenty a window, and whole buckets leave it: what was counted is gone from
a window of 60 s after 57 to 60.  However much is counted, a window is so many small lists at most.
"""

from __future__ import annotations

from homerd_plugins._alarm_definition import COUNT, LAST

BUCKETS = 20

_Bucket = list[int | float]  # number, samples, sum


class Window:
    """The last *seconds*; times are of any clock, and one that is set back begins it anew.

    samples: how many values or counts are in it.  sum: of them.  last: the latest.
    """

    __slots__ = ("_buckets", "_step", "last", "samples", "sum")

    def __init__(self, seconds: float) -> None:
        self._step = seconds / BUCKETS
        self._buckets: list[_Bucket] = []
        self.samples = 0
        self.sum: int | float = 0
        self.last: int | float = 0

    def add(self, now: float, amount: int | float) -> int | float:
        """Count *amount* at *now*; gives the sum."""
        number = now // self._step
        buckets = self._buckets
        # Hot path: a busy key stays in one bucket for many packets: 0.2 µs, and 0.6 for a new one.
        if not buckets or buckets[-1][0] != number:
            self.move(now)
            buckets.append([number, 0, 0])
        bucket = buckets[-1]
        bucket[1] += 1
        bucket[2] += amount
        self.samples += 1
        self.sum += amount
        self.last = amount
        return self.sum

    def move(self, now: float) -> None:
        """Let go of what is older than the window at *now*."""
        buckets = self._buckets
        if not buckets:
            return
        number = now // self._step
        if number < buckets[-1][0]:
            buckets.clear()
        oldest = number - BUCKETS
        gone = 0
        for bucket in buckets:
            if bucket[0] > oldest:
                break
            self.samples -= int(bucket[1])
            self.sum -= bucket[2]
            gone += 1
        del buckets[:gone]
        if not buckets:
            self.samples, self.sum = 0, 0  # what adding fractions has left over goes too

    def value(self, now: float, of: str) -> int | float | None:
        """The count, the mean or the last value at *now*; None when there is no value."""
        self.move(now)
        if of == COUNT:
            return max(0, self.sum)
        if not self.samples:
            return None
        return self.last if of == LAST else self.sum / self.samples
