"""Tables look after themselves: old ones go by the date in their name, coming ones are made ahead.

A table whose name has no date is never dropped; rows of one that `retention` names are deleted.
All dates are UTC, as those in the names.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from homerd.api import RetryLater

log = logging.getLogger("homerd.upkeep")

DAYS_AHEAD = 2
PERIOD_SECONDS = 3600.0
AGAIN_SECONDS = 60.0  # after a store was away

# FAMILY_YYYYMMDD, of Homer 7 with _HHMM; YYYYMMDDHH are partitions of the rotation scripts
_DATED = re.compile(r"(.+?)_p?([0-9]{8})(?:_?[0-9]{2}(?:[0-9]{2})?)?", re.A)
_ITEM = re.compile(r"\s*([A-Za-z0-9_]{1,64})\s*=\s*([0-9]{1,5})\s*", re.A)


class Retention:
    """`retention`: `FAMILY=DAYS;FAMILY=DAYS`, how long tables of a family are kept."""

    @classmethod
    def from_script(cls, text: str | int) -> dict[str, int]:
        """Read modparam's value."""
        days: dict[str, int] = {}
        for item in filter(str.strip, str(text).split(";")):
            found = _ITEM.fullmatch(item)
            if found is None or int(found[2]) < 1:
                raise ValueError(f'expected FAMILY=DAYS;FAMILY=DAYS, got "{item.strip()}"')
            days[found[1].lower()] = int(found[2])
        return days


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go: a whole table, or the rows of one that are older than *before*."""

    table: str
    before: datetime
    whole: bool

    def __str__(self) -> str:
        if self.whole:
            return f"drop {self.table}"
        return f"delete rows of {self.table} before {self.before:%Y-%m-%d}"


class Keeper(Protocol):
    """A store's own connection for upkeep."""

    where: str

    def connect(self) -> None:
        """Connect; raises RetryLater, ConfigError."""

    def close(self) -> None:
        """Let go of the connection."""

    def kept_tables(self) -> list[str]:
        """Tables and partitions that are there."""

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Drop *table*, or delete its rows before a time."""

    def make_ahead(self, table: str, layout: int) -> None:
        """Make *table* unless it is there."""

    def make_partitions_ahead(self, seconds: Sequence[int]) -> None:
        """Make the partitions of these times, of all partitioned tables."""


def date_of(name: str) -> tuple[str, datetime] | None:
    """Family and day of a table's name; None when there is no date in it."""
    found = _DATED.fullmatch(name)
    if found is None:
        return None
    try:
        day = datetime.strptime(found[2], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return found[1].lower(), day


def removals(names: Iterable[str], days: Mapping[str, int], now: float) -> Iterator[Removal]:
    """What of *names* is older than its family may be; whole tables first."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    trims = []
    for name in sorted(names):
        dated = date_of(name)
        family = dated[0] if dated else name.lower()
        kept = days.get(family, days.get(family.removesuffix("_all")))
        if kept is None:
            continue
        before = today - timedelta(days=kept)
        if dated is None:
            trims.append(Removal(name, before, whole=False))
        elif dated[1] < before:
            yield Removal(name, before, whole=True)
    yield from trims


def remove_old(
    keeper: Keeper, days: Mapping[str, int], now: float, *, dry: bool = False
) -> list[Removal]:
    """Remove what is too old; gives what was, or with *dry* would be, removed."""
    done = []
    for removal in removals(keeper.kept_tables(), days, now):
        done.append(removal)
        if dry:
            continue
        keeper.remove(removal.table, f"{removal.before:%Y-%m-%d %H:%M:%S}", removal.whole)
        if removal.whole:
            log.info("table dropped by retention table=%s store=%s", removal.table, keeper.where)
    return done


class Upkeep:
    """A thread that looks after the stores once an hour, on connections of its own.

    keepers: makes one for each store.  tables: those that will be needed, with their layout, by
    the store's place in *keepers*, at a time.  failures: rounds that a store did not let finish.
    """

    def __init__(
        self,
        keepers: Sequence[Callable[[], Any]],
        days: Callable[[], Mapping[str, int]],
        tables: Callable[[int, Sequence[int]], Iterable[tuple[str, int]]],
    ) -> None:
        self.failures = 0
        self.dropped = 0
        self._keepers = keepers
        self._days = days
        self._tables = tables
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin with a round at once."""
        self._thread.start()

    def stop(self) -> None:
        """End; a round under way is left to itself."""
        self._stopped.set()

    def _run(self) -> None:
        waits = 0.0
        while not self._stopped.wait(waits):
            done = [self._round(place) for place in range(len(self._keepers))]
            waits = PERIOD_SECONDS if all(done) else AGAIN_SECONDS

    def _round(self, place: int) -> bool:
        """Look after one store; False when it did not let that finish."""
        keeper: Keeper = self._keepers[place]()
        try:
            keeper.connect()
            self.dropped += sum(
                removal.whole for removal in remove_old(keeper, self._days(), time.time())
            )
            now = int(time.time())
            times = [now + hours * 3600 for hours in range(24 * DAYS_AHEAD + 1)]
            for table, layout in self._tables(place, times):
                keeper.make_ahead(table, layout)
            keeper.make_partitions_ahead(times)
        except Exception as error:  # a store's own, and the thread must outlive it
            self.failures += 1
            level = logging.DEBUG if isinstance(error, RetryLater) else logging.WARNING
            log.log(level, 'upkeep put off store=%s error="%s"', keeper.where, error)
            return False
        finally:
            keeper.close()
        return True
