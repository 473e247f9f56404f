"""Tables look after themselves: old ones go by the date in their name, coming ones are made ahead.

A table whose name has no date is never dropped; rows of one that `retention` names are deleted.
When a store is larger than `retention_size` its oldest tables go, never those of today, nor those
of a family that is not known to be homerd's.  All dates are UTC, as those in the names.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from homerd.api import ArchiveError, ConfigError, RetryLater
from homerd_plugins._homer5 import Column

log = logging.getLogger("homerd.upkeep")

DAYS_AHEAD = 2
PERIOD_SECONDS = 3600.0
AGAIN_SECONDS = 60.0  # after a store was away

# FAMILY_YYYYMMDD, of Homer 7 with _HHMM; YYYYMMDDHH are partitions of the rotation scripts
_DATED = re.compile(r"(.+?)_p?([0-9]{8})(?:_?[0-9]{2}(?:[0-9]{2})?)?", re.A)
_ITEM = re.compile(r"\s*([A-Za-z0-9_]{1,64})\s*=\s*([0-9]{1,5})\s*", re.A)
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGTP]?)(?:i?B)?\s*", re.I | re.A)
_UNITS = " KMGTP"
_TIMES = ("date", "create_date")  # keys of the column that rows are deleted by
LEAST_SIZE = 1 << 20

AGE, SIZE = "age", "size"  # why something goes
_REFUSALS = (ArchiveError, ConfigError, RetryLater)  # of a keeper, beside its driver's errors


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


class RetentionSize:
    """`retention_size`: how large a store may grow, `500MB`, `10GB`, `1.5TB`; a KB has 1024."""

    @classmethod
    def from_script(cls, text: str | int) -> int:
        """Read modparam's value, in bytes; 0 for any size."""
        found = _SIZE.fullmatch(str(text))
        if found is None:
            raise ValueError(f'expected a size, as 500MB, 10GB or 1.5TB, got "{text}"')
        size = int(float(found[1]) * 1024 ** _UNITS.index(found[2].upper() or " "))
        if 0 < size < LEAST_SIZE:
            raise ValueError(f'expected 1MB or more, or 0 for any size, got "{text}"')
        return size


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go: a whole table, or the rows of one that are older than *before*.

    bytes: what the table takes, where its size is why it goes.  fault: why it is there still.
    """

    table: str
    before: datetime
    whole: bool
    why: str = AGE
    bytes: int = 0
    fault: str = ""

    def __str__(self) -> str:
        if self.why == SIZE:
            return f"drop {self.table}, {shown_size(self.bytes)}, for retention_size"
        if self.whole:
            return f"drop {self.table}"
        return f"delete rows of {self.table} before {self.before:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store may keep.

    days: by family.  size: bytes of all tables, 0 for any.  is_ours: of a family or an undated
    name, whether its tables count towards the size and may go for it.
    """

    days: Mapping[str, int]
    size: int = 0
    is_ours: Callable[[str], bool] = lambda family: False


class Keeper(Protocol):
    """A store's own connection for upkeep.

    moved_rows: those brought from a default partition to their own.  errors: its driver's.
    """

    where: str
    moved_rows: int
    errors: tuple[type[Exception], ...]

    def connect(self) -> None:
        """Connect; raises RetryLater, ConfigError."""

    def close(self) -> None:
        """Let go of the connection."""

    def is_connected(self) -> bool:
        """Whether the connection is there still."""

    def kept_tables(self) -> list[str]:
        """Tables and partitions that are there."""

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Drop *table*, or delete its rows before a time."""

    def sizes(self) -> dict[str, int]:
        """Bytes that each table and partition takes, with its indexes."""

    def give_back(self) -> None:
        """After removals: let go of the room they left, where that takes doing."""

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


def family_of(name: str) -> str:
    """What *name* is without its date, in small letters."""
    dated = date_of(name)
    return dated[0] if dated else name.lower()


def shown_size(size: float) -> str:
    """*size* in bytes for people: `1.5 GB`."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g} {_UNITS[unit].strip()}B"


def removals(names: Iterable[str], days: Mapping[str, int], now: float) -> Iterator[Removal]:
    """What of *names* is older than its family may be; whole tables first."""
    today = _midnight(now)
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


def time_column(layouts: Iterable[Iterable[Column]], there: Iterable[str]) -> str:
    """The column of a row's time among those of a table; ConfigError without one.

    Tables made before the operator gave it a name have the usual one.
    """
    by_name = {name.lower(): name for name in there}
    times = [column for layout in layouts for column in layout if column.key in _TIMES]
    wanted = [column.name.lower() for column in times] + [column.key for column in times]
    for name in wanted:
        if name in by_name:
            return by_name[name]
    raise ConfigError(f"there is no column of a row's time, none of {', '.join(sorted({*wanted}))}")


def _midnight(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def oversize(
    sizes: Mapping[str, int], limit: int, is_ours: Callable[[str], bool], now: float
) -> Iterator[Removal]:
    """The tables that go, oldest first, until the others are within *limit* bytes."""
    today = _midnight(now)
    total, old = 0, []
    for name, size in sizes.items():
        dated = date_of(name)
        family = dated[0] if dated else name.lower()
        if not is_ours(family):
            continue
        total += size
        if dated and dated[1] < today:
            old.append((dated[1], name, size))
    for day, name, size in sorted(old):
        if total <= limit:
            return
        total -= size
        yield Removal(name, day, whole=True, why=SIZE, bytes=size)


def remove_old(keeper: Keeper, kept: Kept, now: float, *, dry: bool = False) -> list[Removal]:
    """Remove what is too old or too much; gives what was, or with *dry* would be, removed.

    A table that cannot be removed is given with its fault, and stops no other.
    """
    done = []
    for removal in removals(keeper.kept_tables(), kept.days, now):
        done.append(removal if dry else _remove(keeper, removal))
    if kept.size:
        done += _shrink(
            keeper, kept, now, {each.table for each in done if each.whole and not each.fault}, dry
        )
    if not dry and not all(removal.fault for removal in done):
        keeper.give_back()
    return done


def _shrink(keeper: Keeper, kept: Kept, now: float, gone: set[str], dry: bool) -> Iterator[Removal]:
    """Remove the oldest tables until the store is within its size, measured after each."""
    sizes = {name: size for name, size in keeper.sizes().items() if name not in gone}
    if dry:
        yield from oversize(sizes, kept.size, kept.is_ours, now)
        return
    while (removal := next(oversize(sizes, kept.size, kept.is_ours, now), None)) is not None:
        removal = _remove(keeper, removal)
        yield removal
        if removal.fault:  # a newer table is not to go in place of an older one
            return
        sizes = keeper.sizes()
        if removal.table in sizes:  # nobody may drop it, and it would be tried for ever
            log.warning("table is still there table=%s store=%s", removal.table, keeper.where)
            return
    left = sum(size for name, size in sizes.items() if kept.is_ours(family_of(name)))
    if left > kept.size:
        log.warning(
            "store is larger than retention_size, and no table is older than today"
            " store=%s size=%s retention_size=%s",
            keeper.where,
            shown_size(left),
            shown_size(kept.size),
        )


def _remove(keeper: Keeper, removal: Removal) -> Removal:
    """Remove; gives *removal*, with its fault if it was not done."""
    try:
        keeper.remove(removal.table, f"{removal.before:%Y-%m-%d %H:%M:%S}", removal.whole)
    except (*keeper.errors, *_REFUSALS) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        if not keeper.is_connected():
            raise RetryLater(f"{removal}: {told}") from error
        return replace(removal, fault=told)
    if removal.whole:
        log.info(
            "table dropped by retention table=%s why=%s store=%s",
            removal.table,
            removal.why,
            keeper.where,
        )
    return removal


class Upkeep:
    """A thread that looks after the stores once an hour, on connections of its own.

    keepers: makes one for each store.  tables: those that will be needed, with their layout, by
    the store's place in *keepers*, at a time.  failures: steps that a store did not let finish, and
    tables that could not be removed.
    dropped: tables, by why.  moved: rows brought from a default partition to their own.
    chores: what is to be done once; ConfigError puts it off.
    """

    def __init__(
        self,
        keepers: Sequence[Callable[[], Any]],
        kept: Kept,
        tables: Callable[[int, Sequence[int]], Iterable[tuple[str, int]]],
        chores: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.failures = 0
        self.dropped: Counter[str] = Counter()
        self.moved = 0
        self._keepers = keepers
        self._kept = kept
        self._tables = tables
        self._chores = list(chores)
        self._said: set[str] = set()  # what failed, since all went well
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
            done.append(self._do_chores())
            if all(done):
                self._said.clear()
            waits = PERIOD_SECONDS if all(done) else AGAIN_SECONDS

    def _do_chores(self) -> bool:
        """Do what is still to be done; False when some of it is."""
        while self._chores:
            try:
                self._chores[0]()
            except ConfigError as error:
                self._failed('upkeep put off error="%s"', error)
                return False
            del self._chores[0]
        return True

    def _round(self, place: int) -> bool:
        """Look after one store; False when it did not let that finish."""
        keeper: Keeper = self._keepers[place]()
        failures = self.failures
        if self._step(keeper, keeper.connect):
            # Rows that come need their tables; what is too old can wait.
            self._step(keeper, partial(self._make_ahead, keeper, place))
            self._step(keeper, partial(self._remove_old, keeper))
        self._step(keeper, keeper.close)
        return self.failures == failures

    def _step(self, keeper: Keeper, step: Callable[[], object]) -> bool:
        """Do a part of a round; False when it failed."""
        try:
            step()
        except Exception as error:  # a store's own, and the thread must outlive it
            away = isinstance(error, RetryLater)
            self._failed('upkeep put off store=%s error="%s"', keeper.where, error, away=away)
            return False
        return True

    def _make_ahead(self, keeper: Keeper, place: int) -> None:
        now = int(time.time())
        times = [now + hours * 3600 for hours in range(24 * DAYS_AHEAD + 1)]
        for table, layout in self._tables(place, times):
            keeper.make_ahead(table, layout)
        keeper.make_partitions_ahead(times)
        self.moved += keeper.moved_rows

    def _remove_old(self, keeper: Keeper) -> None:
        for removal in remove_old(keeper, self._kept, time.time()):
            if removal.fault:
                self._failed(
                    'not removed, tried again in a minute what="%s" store=%s error="%s"',
                    removal,
                    keeper.where,
                    removal.fault,
                )
            elif removal.whole:
                self.dropped[removal.why] += 1

    def _failed(self, text: str, *values: object, away: bool = False) -> None:
        """Count a failure and tell it, not once a minute."""
        self.failures += 1
        said = text % values
        level = logging.DEBUG if away or said in self._said else logging.WARNING
        log.log(level, text, *values)
        self._said.add(said)
