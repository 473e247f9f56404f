"""Tables into an archive: which of them, in a snapshot each, and removed when the file is sound.

A table that was archived before is archived again when it has changed: into the same file when it
has all the rows that the file has, else into another one beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from homerd.api import (
    Archive,
    ArchiveColumn,
    ArchiveEntry,
    ArchiveError,
    ArchiveHead,
    ConfigError,
    verify_archive,
)
from homerd_plugins._archive_stores import Mark, StoreTables, is_captured, time_column
from homerd_plugins._upkeep import date_of

WRITTEN, THERE, EMPTY = "written", "there already", "empty"
CHANGED = "it has changed since, export again"


@dataclass(frozen=True, slots=True)
class Selection:
    """A table, or its rows before a day, `YYYY-MM-DD`."""

    table: str
    before: str = ""

    def __str__(self) -> str:
        return f"{self.table} before {self.before}" if self.before else self.table


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of a table.

    state: written, there already, empty.  kept: why it was not removed, "" when it was, or when
    nobody wanted that.
    """

    state: str
    rows: int
    entry: ArchiveEntry | None = None
    removed: bool = False
    kept: str = ""

    @property
    def changed(self) -> bool:
        """Whether a table that was to go stayed because rows came meanwhile."""
        return self.kept == CHANGED


def selections(
    tables: StoreTables, wanted: Sequence[str], before: datetime | None
) -> Iterator[Selection]:
    """The tables of captured messages that have a name or family of *wanted*, or all.

    before: tables of older days alone, and of those without a day in their name the older rows.
    Raises ConfigError for a name that no table has.
    """
    missing = {name.lower(): name for name in wanted}
    names = tables.names()
    for name in names:
        dated = date_of(name)
        family = dated[0] if dated else name.lower()
        called = {name.lower(), family, family.removesuffix("_all")}
        if wanted:
            if not called & {each.lower() for each in wanted}:
                continue
            for each in called:
                missing.pop(each, None)
        if not is_captured(tables.columns(name)):
            if wanted:
                raise ConfigError(f"{tables.source}: {name} is no table of captured messages")
            continue
        if before is None:
            yield Selection(name)
        elif dated is None:
            yield Selection(name, f"{before:%Y-%m-%d}")
        elif dated[1] < before:
            yield Selection(name)
    if missing:
        there = ", ".join(sorted({(date_of(name) or [name])[0] for name in names})) or "none"
        raise ConfigError(
            f"{tables.source}: no table or family {', '.join(missing.values())}; there are: {there}"
        )


def export(
    tables: StoreTables,
    archive: Archive,
    selection: Selection,
    *,
    drop: bool = False,
    counted: Callable[[int], Callable[[int], object] | None] = lambda rows: None,
) -> Exported:
    """Archive a selection, within `archive.locked`; with *drop* remove it then.

    counted: is told how many rows there are, and may give who is told as they are written.
    """
    table = selection.table
    columns = tables.columns(table)
    try:
        time_column(columns)
    except ArchiveError as error:
        raise ArchiveError(f"{tables.source}: {table}: {error}") from None
    condition = tables.older(columns, selection.before) if selection.before else ""
    with tables.snapshot():
        mark = tables.mark(table, condition, columns)
        done = _archived(tables, archive, selection, columns, condition, mark, counted)
    if not drop:
        return done
    if selection.before:
        removed = not mark.rows or tables.delete_rows(table, condition, mark)
    else:
        why = _why_kept(table)
        if why:
            return Exported(done.state, done.rows, done.entry, kept=why)
        removed = tables.drop(table, mark)
    kept = "" if removed else CHANGED
    return Exported(done.state, done.rows, done.entry, removed, kept)


class Exporter:
    """A store for the command: its tables, and what becomes of them."""

    def __init__(self, tables: StoreTables) -> None:
        self.tables = tables
        self.mode = tables.mode
        self.where = tables.where

    def __enter__(self) -> Exporter:
        self.tables.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.tables.__exit__(*raised)

    def selections(self, wanted: Sequence[str], before: datetime | None) -> list[Selection]:
        """See the function of this name."""
        return list(selections(self.tables, wanted, before))

    def export(self, archive: Archive, selection: Selection, **options: Any) -> Exported:
        """See the function of this name."""
        return export(self.tables, archive, selection, **options)


class ArchivingKeeper:
    """A store's keeper, which archives whatever it removes; what cannot be archived stays."""

    def __init__(self, keeper: Any, tables: StoreTables, archive: Archive) -> None:
        self._keeper = keeper
        self._tables = tables
        self._archive = archive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keeper, name)

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Archive and drop *table*, or its rows before a time; raises ArchiveError."""
        selection = Selection(table, "" if whole else before[:10])
        with self._archive.locked(), self._tables as tables:
            if table not in tables.names():
                return
            done = export(tables, self._archive, selection, drop=True)
        if not done.removed:
            raise ArchiveError(f"{self._tables.source}: {table} stays: {done.kept}")


def _archived(
    tables: StoreTables,
    archive: Archive,
    selection: Selection,
    columns: tuple[ArchiveColumn, ...],
    condition: str,
    mark: Mark,
    counted: Callable[[int], Callable[[int], object] | None],
) -> Exported:
    table, before = selection.table, selection.before
    if not mark.rows:
        return Exported(EMPTY, 0)
    replaces = None
    for entry in archive.entries():
        if (entry.store, entry.table, entry.before) != (tables.mode, table, before):
            continue
        if entry.last is None:
            continue
        if Mark(entry.rows, entry.first, entry.last) == mark:
            with contextlib.suppress(ArchiveError):
                verify_archive(archive.folder / entry.file, entry)
                return Exported(THERE, mark.rows, entry)
            replaces = entry  # it is damaged
        elif entry.first == mark.first:
            upto = f"{tables.quoted('id')} <= {int(entry.last)}"
            both = f"{condition} AND {upto}" if condition else upto
            if tables.mark(table, both, columns) == (entry.rows, entry.first, entry.last):
                replaces = entry
    head = ArchiveHead(
        table,
        tables.parent(table),
        tables.mode,
        tables.kind,
        columns,
        mark.rows,
        before,
        mark.first,
        mark.last,
    )
    with contextlib.closing(tables.rows(table, condition, columns)) as rows:
        entry = archive.write(head, rows, replaces, counted(mark.rows))
    return Exported(WRITTEN, mark.rows, entry)


def _why_kept(table: str) -> str:
    """Why a table is not dropped whole whatever is archived."""
    dated = date_of(table)
    if dated is None:
        return "its name has no date; --before DATE removes the older rows"
    if dated[1].date() >= datetime.now(UTC).date():
        return "its day is not over"
    return ""
