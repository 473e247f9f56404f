"""Archived rows into a store again, as often as the file has them and no more.

Before rows go in, those of the same times that are there already are read and compared in all
columns but the id, which each store gives itself.  So a file may come twice, or half and again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from homerd.api import (
    ArchiveColumn,
    ArchiveEntry,
    ArchiveError,
    ArchiveHead,
    Rejected,
    RetryLater,
    reading_archive,
    verify_archive,
)
from homerd_plugins import _homer7
from homerd_plugins._archive_stores import StoreTables, time_column
from homerd_plugins._homer5 import INTEGER, REAL, REPORT_COLUMNS, SIP_COLUMNS, TEXT, Column
from homerd_plugins._stores import POSTGRES, SQLITE
from homerd_plugins._upkeep import date_of

CHUNK_ROWS, CHUNK_BYTES = 2000, 8 << 20
# A row that is in a file twice has its twin within so many rows.
REMEMBERED = 100_000
BUSY = "another import writes to it now"

_SEVEN = [column.key for column in _homer7.COLUMNS]


@dataclass(slots=True)
class Imported:
    """What became of a file's rows.

    stored + there + refused = rows.  mended, cut: cells that the store could not hold as they are.
    lacks: columns of the file that the table has not.  reason: of the first row that was refused.
    """

    table: str
    rows: int
    stored: int = 0
    there: int = 0
    refused: int = 0
    mended: int = 0
    cut: int = 0
    lacks: list[str] = field(default_factory=list)
    reason: str = ""

    def __str__(self) -> str:
        told = [f"{self.rows:,} rows into {self.table}: {self.stored:,} stored"]
        for count, what in (
            (self.there, "there already"),
            (self.refused, f"refused ({self.reason})"),
            (self.mended, "cells mended"),
            (self.cut, "cells cut"),
        ):
            if count:
                told.append(f"{count:,} {what}")
        if self.lacks:
            told.append(f"the table lacks {', '.join(self.lacks)}")
        return ", ".join(told)


class Refill:
    """Brings the rows of one file into a store.

    make_sink: gives a sink for a layout.  layouts: the columns as the operator named them.
    """

    def __init__(
        self,
        tables: StoreTables,
        make_sink: Callable[[Sequence[Column]], Any],
        layouts: Iterable[Iterable[Column]],
    ) -> None:
        self.tables = tables
        self._make_sink = make_sink
        self._known = {column.key: column for layout in layouts for column in layout}

    def run(
        self,
        path: Path,
        entry: ArchiveEntry | None,
        verified: Callable[[int], object] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Imported:
        """Verify the file, then store its rows; raises ArchiveError before the first row goes in.

        verified, progress: are told bytes of the file, in each of both readings.
        """
        verify_archive(path, entry, verified)
        with reading_archive(path, progress) as (head, rows):
            try:
                time = time_column(head.columns)
            except ArchiveError as error:
                raise ArchiveError(f"{path}: {error}") from None
            layout, order = self._layout(path, head)
            table = head.into.lower() if self.tables.kind == POSTGRES else head.into
            whole = self._whole(layout)
            target = _Target(self.tables, self._make_sink(layout), table, layout, whole)
            done = Imported(table, head.rows)
            time_at = [head.columns[at].name for at in order].index(time.name)
            with target.opened():
                for chunk in _chunks([row[at] for at in order] for row in rows):
                    dated = date_of(head.table) if head.table != head.into else None
                    target.store(chunk, time_at, done, makes_partitions=dated is not None)
            done.lacks = target.lacks
        return done

    def _layout(self, path: Path, head: ArchiveHead) -> tuple[Sequence[Column], list[int]]:
        """The columns that the store is given, and where they stand in the file."""
        keys = [column.key or column.name.lower() for column in head.columns]
        if set(_SEVEN) <= set(keys):
            if self.tables.kind != POSTGRES:
                raise ArchiveError(
                    f"{path}: {head.table} is of Homer 7, which is for PostgreSQL: postgres://…"
                )
            return _homer7.COLUMNS, [keys.index(key) for key in _SEVEN]
        order = [at for at, key in enumerate(keys) if key != "id"]
        return [self._column(keys[at], head.columns[at]) for at in order], order

    def _whole(self, layout: Sequence[Column]) -> Sequence[Column]:
        """The columns of a table that is made for *layout*: those it lacks of Homer 5 as well."""
        if layout is _homer7.COLUMNS:
            return layout
        keys = {column.key for column in layout}
        usual = SIP_COLUMNS if {"callid", "cseq"} <= keys else REPORT_COLUMNS
        named = {column.key for column in usual}
        whole = [self._known[each.key] for each in usual]
        return [*whole, *(column for column in layout if column.key not in named)]

    def _column(self, key: str, column: ArchiveColumn) -> Column:
        if key in self._known:
            return self._known[key]
        kind = {"integer": INTEGER, "real": REAL}.get(column.kind, TEXT)
        return Column(key, kind, renamed=column.name)


class _Target:
    """The table that rows go to."""

    def __init__(
        self,
        tables: StoreTables,
        sink: Any,
        table: str,
        layout: Sequence[Column],
        whole: Sequence[Column],
    ) -> None:
        self.tables = tables
        self.sink = sink
        self.table = table
        self.layout = layout
        self.whole = whole
        self.lacks: list[str] = []
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Connected, and the only one who imports."""
        with self._lock():
            try:
                self.sink.connect()
                with self.tables:
                    if not self.tables.lock_import():
                        raise ArchiveError(f"{self.tables.source}: {BUSY}")
                    self.tables.make(self.table, self.whole)
                    yield
            except RetryLater as error:
                raise ArchiveError(
                    f"{error}; what is in stays, and the same import goes on from there"
                ) from error
            finally:
                self.sink.close()

    def store(
        self, chunk: list[Sequence[Any]], time_at: int, done: Imported, makes_partitions: bool
    ) -> None:
        """Store what of *chunk* is not there yet."""
        any_time = self.tables.kind == SQLITE  # Kamailio's driver writes a Julian day
        rows = [
            row
            for row in chunk
            if _is_time(row[time_at]) or (any_time and row[time_at] is not None)
        ]
        self._refuse(done, len(chunk) - len(rows), "a time that is none")
        if not rows:
            return
        if makes_partitions and self.layout is _homer7.COLUMNS:
            for hour in sorted({str(row[time_at])[:13] for row in rows}):
                moment = datetime.fromisoformat(f"{hour}:00:00+00:00")
                self.sink.make_partition(self.table, int(moment.timestamp()))
        waiting = self._missing(rows, time_at)
        done.there += len(rows) - len(waiting)
        while waiting:
            try:
                self.sink.write([(self.table, 0, tuple(row)) for row in waiting])
            except Rejected as error:
                refused = set(error.indices)
                self._refuse(done, len(refused), str(error))
                waiting = [row for at, row in enumerate(waiting) if at not in refused]
                continue
            break
        done.stored += len(waiting)
        done.mended = getattr(self.sink, "mended", 0)
        done.cut = sum(getattr(self.sink, "truncated", {}).values())

    def _missing(self, rows: list[Sequence[Any]], time_at: int) -> list[Sequence[Any]]:
        """The rows that the store has fewer times than the file up to here."""
        there = {column.name.lower(): column for column in self.tables.columns(self.table)}
        kept = [at for at, column in enumerate(self.layout) if column.name.lower() in there]
        self.lacks = [each.name for at, each in enumerate(self.layout) if at not in kept]
        columns = [there[self.layout[at].name.lower()] for at in kept]
        if self.tables.kind == SQLITE:
            stored_as = [tuple(row[at] for at in kept) for row in rows]
        else:
            stored_as = self.sink.as_stored(self.table, 0, rows)
        digests = [_digest(row) for row in stored_as]
        if time_at not in kept:
            raise ArchiveError(
                f"{self.tables.source}: table {self.table} has no column"
                f" {self.layout[time_at].name}, by whose times rows are compared"
            )
        where = kept.index(time_at)
        times = list({_time_text(row[where]) for row in stored_as})
        found: Counter[bytes] = Counter()
        wanted = set(digests)
        for row in self.tables.rows_at(self.table, columns, columns[where].name, times):
            digest = _digest(row)
            if digest in wanted:
                found[digest] += 1
        missing = []
        for row, digest in zip(rows, digests, strict=True):
            count = self._seen.pop(digest, 0) + 1
            self._seen[digest] = count
            if count > found[digest]:
                found[digest] += 1
                missing.append(row)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return missing

    def _refuse(self, done: Imported, count: int, reason: str) -> None:
        if count:
            done.refused += count
            done.reason = done.reason or reason

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Two imports at a time could each find a row missing and both store it."""
        if self.tables.kind != SQLITE:
            yield
            return
        # Not the file itself: closing it would let go of SQLite's own locks.
        number = os.open(Path(self.tables.address.database).resolve().parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ArchiveError(f"{self.tables.source}: {BUSY}") from None
            yield
        finally:
            os.close(number)


def _chunks(rows: Iterator[Sequence[Any]] | Any) -> Iterator[list[Sequence[Any]]]:
    chunk: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _digest(row: Sequence[Any]) -> bytes:
    cells = repr([_time_text(cell) for cell in row])
    return hashlib.blake2b(cells.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def _time_text(cell: Any) -> Any:
    """A time as the stores spell it; bytes and text that is none as they are."""
    if isinstance(cell, datetime):
        cell = str(cell.replace(tzinfo=None))
    if isinstance(cell, str):
        if len(cell) > 19 and cell[4:5] == "-" and cell[13:14] == ":" and len(cell) <= 32:
            cell = cell.removesuffix("+00:00").removesuffix("+00")
            return cell.rstrip("0").rstrip(".") if "." in cell else cell
        try:
            cell.encode()
        except UnicodeEncodeError:
            return cell.encode("utf-8", "surrogateescape")
    return bytes(cell) if isinstance(cell, bytearray | memoryview) else cell


def _is_time(cell: Any) -> bool:
    try:
        datetime.fromisoformat(cell)
    except (TypeError, ValueError):
        return False
    return True
