"""Timers on the script's clock, which a replay can move on without anything sleeping."""

from __future__ import annotations

import math
from collections.abc import Callable


class Timer:
    """One call that comes again; missed counts the runs a slow one left out."""

    __slots__ = ("call", "due", "missed", "runs", "seconds")

    def __init__(self, seconds: float, call: Callable[[], None], due: float) -> None:
        self.seconds = seconds
        self.call = call
        self.due = due
        self.runs = 0
        self.missed = 0

    def run(self, now: Callable[[], float]) -> None:
        """Call once and choose the next time; runs that would already be over are left out."""
        self.runs += 1
        try:
            self.call()
        finally:
            self.due += self.seconds
            late = now() - self.due
            if late > 0:
                left_out = math.ceil(late / self.seconds)
                self.missed += left_out
                self.due += left_out * self.seconds


class Timers:
    """All timers of a worker, run one after the other, so that none overlaps itself.

    now: the script's clock.  move: sets it on by so many seconds.
    """

    def __init__(self, now: Callable[[], float], move: Callable[[float], None]) -> None:
        self._now = now
        self._move = move
        self._timers: list[Timer] = []

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call *call* each *seconds*, first after one interval."""
        if not seconds > 0:
            raise ValueError(f"expected an interval above 0 seconds, got {seconds}")
        timer = Timer(seconds, call, self._now() + seconds)
        self._timers.append(timer)
        return timer

    @property
    def missed(self) -> int:
        """Runs left out because an earlier one took too long."""
        return sum(timer.missed for timer in self._timers)

    def seconds_to_next(self) -> float | None:
        """How long until the next run is due; None without timers."""
        if not self._timers:
            return None
        return max(0.0, min(timer.due for timer in self._timers) - self._now())

    def run_due(self) -> None:
        """Run what is due, in order of time; each timer once."""
        now = self._now()
        for timer in sorted(self._timers, key=_due):
            if timer.due <= now:
                timer.run(self._now)

    def advance(self, seconds: float) -> None:
        """Move the clock on by *seconds*; it stands at each run's own time while that runs."""
        target = self._now() + seconds
        while self._timers:
            timer = min(self._timers, key=_due)
            if timer.due > target:
                break
            self._move(max(0.0, timer.due - self._now()))
            due = timer.due
            timer.run(lambda: due)  # noqa: B023  called at once: a run takes no time here
        self._move(max(0.0, target - self._now()))


def _due(timer: Timer) -> float:
    return timer.due
