"""Partitions of Homer 7's tables: made as rows and hours come, between those that are there.

Each writer makes what it needs; an advisory lock and a second look let one of several do it.  A
partition is filled and indexed before it is attached, so that those who read and write the table
wait for nothing but the default partition, and for that no longer than LOCK_SECONDS.
"""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from homerd_plugins import _homer7

log = logging.getLogger("homerd.store")

# Rows that are older or newer have no partition of their own.
PAST_SECONDS, FUTURE_SECONDS = 31 * 86400, 2 * 86400
# Older ones than these share a partition a day, however short the step: their number has a bound.
RECENT_SECONDS = 2 * 86400

LOCK_SECONDS = 5
AGAIN_SECONDS = 60.0  # after a partition could not be made
# Moving more than these out of the default partition is left to the hourly round.
MOST_MOVED = 20_000

# Several writers make one table or partition at the same time: one does, the others wait for it.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('homerd tables'))"

_PARTITIONS = (
    "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i"
    " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(%s)"
)
_COLUMNS = (
    "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
    " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)
_BOUNDS = re.compile(r"FOR VALUES FROM \((.+?)\) TO \((.+?)\)")
_EVER = 1 << 40

Run = Callable[..., list[tuple[Any, ...]]]


@dataclass(slots=True)
class _Table:
    """What is known of a table: (begin, end) of each partition, in order, and the default one."""

    bounds: list[tuple[int, int]] = field(default_factory=list)
    default: str = ""

    def around(self, seconds: int, begin: int, end: int) -> tuple[int, int] | None:
        """What of *begin* to *end* is free around a time; None when the time has a partition."""
        at = bisect_right(self.bounds, (seconds, _EVER * 2))
        if at:
            begin = max(begin, self.bounds[at - 1][1])
        if at < len(self.bounds):
            end = min(end, self.bounds[at][0])
        return (begin, end) if begin <= seconds < end else None


class Partitions:
    """The partitions of one database, made by *run*, which carries out a statement.

    steps: seconds that one holds, by table; "" for all others.  odd_clocks: rows whose time gets
    none.  moved: rows taken out of the default one.  put_off: those that could not be made.
    """

    def __init__(self, run: Run, where: str, steps: Mapping[str, int]) -> None:
        self.odd_clocks = 0
        self.moved = 0
        self.put_off = 0
        self._run = run
        self._where = where
        self._steps = steps
        self._known: dict[str, _Table] = {}
        self._waits: dict[tuple[str, int], float] = {}

    def forget(self) -> None:
        """Look again at what is there, for whoever has changed it."""
        self._known.clear()

    def make_for(self, table: str, times: Iterable[str]) -> None:
        """Make what rows of these minutes need (`YYYY-MM-DD HH:MM`); count those of odd clocks."""
        now = int(time.time())
        for minute, count in Counter(times).items():
            at = _homer7.seconds_of(minute)
            if -PAST_SECONDS <= at - now <= FUTURE_SECONDS:
                self.make(table, at, MOST_MOVED)
            else:
                self.odd_clocks += count

    def make_ahead(self, table: str, times: Sequence[int]) -> None:
        """Make those of *times*, and of the rows that the default one has but need not keep."""
        for at in times:
            self.make(table, at)
        default = self._look(table).default
        if not default:
            return
        step = self._step(table, times[0])
        rows = self._run(
            f"SELECT DISTINCT floor(extract(epoch FROM create_date) / {step})::bigint * {step}"
            f" FROM {_quoted(default)}"
            f" WHERE create_date >= now() - interval '{PAST_SECONDS} seconds'"
            f" AND create_date < now() + interval '{FUTURE_SECONDS} seconds' ORDER BY 1"
        )
        for (at,) in rows:
            self.make(table, at)

    def make(self, table: str, seconds: int, most: int | None = None) -> None:
        """Make the partition that holds a time, unless there is one.

        most: the most rows to move for it out of the default one.  What fails is put off: the rows
        go to the default partition and are moved later.
        """
        import psycopg

        known = self._known.get(table) or self._look(table)
        step = self._step(table, seconds)
        begin = seconds // step * step
        if known.around(seconds, begin, begin + step) is None:
            return
        if time.monotonic() < self._waits.get((table, begin), 0.0):
            return
        try:
            self._run("BEGIN")
            self._run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            self._run(LOCK)
            self._make(table, seconds, begin, begin + step, most)
            self._run("COMMIT")
        except (psycopg.Error, _TooManyError) as error:
            self._known.pop(table, None)
            self._run("ROLLBACK")  # a connection that is lost ends here
            self.put_off += 1
            self._waits[table, begin] = time.monotonic() + AGAIN_SECONDS
            log.warning(
                'partition put off, its rows go to the default one table=%s store=%s error="%s"',
                table,
                self._where,
                " ".join(str(error).split()),
            )

    def _make(self, table: str, seconds: int, begin: int, end: int, most: int | None) -> None:
        known = self._look(table)  # others may have made it while we waited for the lock
        free = known.around(seconds, begin, end)
        if free is None:
            return
        begin, end = free
        name = _homer7.partition_name(table, begin)
        self._run(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        bounds = (_homer7.bound(begin), _homer7.bound(end))
        moved = self._move(table, known.default, name, bounds, most) if known.default else 0
        for statement in _homer7.index_ddl(table, name):
            self._run(statement)
        self._run(
            f"ALTER TABLE {table} ATTACH PARTITION {name}"
            " FOR VALUES FROM ('{}') TO ('{}')".format(*bounds)
        )
        insort(known.bounds, (begin, end))
        self.moved += moved
        log.info("partition made partition=%s moved_rows=%d store=%s", name, moved, self._where)

    def _move(
        self, table: str, default: str, name: str, bounds: tuple[str, str], most: int | None
    ) -> int:
        """Move rows of these times out of the default partition, which is kept from others."""
        inside = "create_date >= '{}' AND create_date < '{}'".format(*bounds)
        source = _quoted(default)
        limit = "" if most is None else f" LIMIT {most + 1}"
        found = f"SELECT count(*) FROM (SELECT FROM {source} WHERE {inside}{limit}) AS found"
        ((count,),) = self._run(found)
        if not count:
            return 0
        if most is not None and count > most:
            raise _TooManyError(f"more than {most} rows are to be moved, the hourly round does it")
        self._run(f"LOCK TABLE {source} IN ACCESS EXCLUSIVE MODE")
        ((columns,),) = self._run(_COLUMNS, [table])
        ((moved,),) = self._run(
            f"WITH moved AS (DELETE FROM {source} WHERE {inside} RETURNING {columns}),"
            f" stored AS (INSERT INTO {name} ({columns}) SELECT {columns} FROM moved RETURNING 1)"
            " SELECT count(*) FROM stored"
        )
        return int(moved)

    def _look(self, table: str) -> _Table:
        """What partitions *table* has; the default one is made where it is missing."""
        known = _Table()
        for name, told in self._run(_PARTITIONS, [table]):
            found = _BOUNDS.fullmatch(told)
            if found is None:
                known.default = name
            else:
                known.bounds.append((_instant(found[1], -_EVER), _instant(found[2], _EVER)))
        known.bounds.sort()
        self._known[table] = known
        return known

    def make_default(self, table: str) -> None:
        """Make the default partition, where somebody made the table without."""
        known = self._known.get(table) or self._look(table)
        if known.default:
            return
        self._run("BEGIN")
        self._run(LOCK)
        if not self._look(table).default:
            for statement in _homer7.default_ddl(table):
                self._run(statement)
        self._run("COMMIT")
        self._look(table)

    def _step(self, table: str, seconds: int) -> int:
        step = self._steps.get(table) or self._steps.get("") or _homer7.step_seconds(table)
        return step if seconds > time.time() - RECENT_SECONDS else max(step, 86400)


class _TooManyError(Exception):
    """Rows that would take too long to move."""


def _instant(text: str, ever: int) -> int:
    """A bound as seconds since 1970; *ever* where it is MINVALUE or MAXVALUE."""
    try:
        when = datetime.fromisoformat(text.strip("'"))
    except ValueError:
        return ever
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
