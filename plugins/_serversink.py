"""What sinks for database servers have in common: tables, their shapes, cells that fit, batches.

A record is (table, layout, row) as for SQLite.  A batch is one transaction; its id, when it has
one, is kept in the same transaction, so that a batch that comes again is not stored again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from homerd.api import Rejected, RetryLater
from homerd_plugins._homer5 import Cell, Column, Row, format_of
from homerd_plugins._rowsink import Record, RowSink
from homerd_plugins._upkeep import time_column

log = logging.getLogger("homerd.store")


# 5,000 rows are a transaction of 8 MB; a commit a second costs the server nothing to speak of.
BATCH_SIZE = 5000
QUEUE_LIMIT = 100_000
CONNECT_SECONDS = 5.0
# A try costs a server that is back one connection; with a full spool, waiting costs records.
LAST_DELAY = 5.0
# A server that takes connections and answers nothing is given up on after this long.
ANSWER_SECONDS = 60.0

BATCH_DAYS = 7

_FILLERS: dict[str, str | int] = {"text": "", "integer": 0, "real": 0}

AWAY, SHAPE, ROWS = "away", "shape", "rows"  # what an error is about


@dataclass(frozen=True, slots=True)
class ServerColumn:
    """A column as the server has it.

    width: most characters, 0 for any number.  kind: "text", "integer", "real", "time", "bytes",
    "other".  of: its type as the server calls it.  charset: of text, where the server has several.
    empty: whether it is '' or 0 in a row that does not name it.  required: whether each row must.
    """

    name: str
    kind: str
    width: int = 0
    nullable: bool = False
    of: str = ""
    charset: str = ""
    empty: bool = False
    required: bool = False


class Shape:
    """How the rows of a layout fit into a table that is there.

    inserted: the columns that are written: those the layout has too, and those of others that each
    row must name, which are given '' or 0.
    """

    __slots__ = ("columns", "inserted", "kept", "layout", "whole")

    def __init__(self, layout: Sequence[Column], there: Sequence[ServerColumn]) -> None:
        by_name = {column.name.lower(): column for column in there}
        found = [
            (index, _narrowed(by_name[column.name.lower()], column))
            for index, column in enumerate(layout)
            if column.name.lower() in by_name
        ]
        written = {column.name for _, column in found}
        self.layout = layout
        self.kept = tuple(index for index, _ in found)
        self.columns = tuple(column for _, column in found)
        self.whole = self.kept == tuple(range(len(layout)))
        others = (
            column
            for column in there
            if column.required and column.kind in _FILLERS and column.name not in written
        )
        self.inserted = (*self.columns, *others)

    def filled(self, columns: list[Sequence[Any]]) -> list[Sequence[Any]]:
        """*columns* with those of others that a row must name."""
        count = len(columns[0])
        others = self.inserted[len(self.columns) :]
        return columns + [[_FILLERS[column.kind]] * count for column in others]

    def is_outdated(self) -> bool:
        """Whether the table would be made with more, or wider, columns now."""
        pairs = zip((self.layout[at] for at in self.kept), self.columns, strict=True)
        return bool(self.missing) or any(
            there.kind == "text" and 0 < there.width < column.width and column.key != "msg"
            for column, there in pairs
        )

    @property
    def missing(self) -> list[str]:
        """Columns of the layout the table does not have."""
        return [each.name for index, each in enumerate(self.layout) if index not in self.kept]


class ServerSink(RowSink):
    """Writes batches to a database server.

    layouts: the columns of each kind of row.  tables: lower-case names of those that are there; the
    loop thread only reads it.  source: what the operator wrote, for messages.
    truncated: cells cut by column; mended: cells with characters the store cannot hold; replayed:
    records that a batch which came again brought again.  moved_rows: rows that upkeep has moved to
    where they belong.
    """

    errors: tuple[type[Exception], ...] = ()
    moved_rows = 0
    ids_kept_seconds = BATCH_DAYS * 86_400

    def __init__(
        self,
        name: str,
        layouts: Sequence[Sequence[Column]],
        *,
        create_tables: bool = True,
        source: str = "",
        where: str = "",
        batch_size: int = BATCH_SIZE,
        batch_age: float = 1.0,
        queue_limit: int = QUEUE_LIMIT,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            batch_age=batch_age,
            queue_limit=queue_limit,
            last_delay=LAST_DELAY,
        )
        self.layouts = [tuple(layout) for layout in layouts]
        self.record_format = format_of(self.layouts)
        self.create_tables = create_tables
        self.source = source
        self.where = where
        self.answer_seconds = answer_seconds
        self.tables: frozenset[str] = frozenset()
        self.truncated: Counter[str] = Counter()
        self.mended = 0
        self.replayed = 0
        self._shapes: dict[tuple[str, int], Shape] = {}
        self._told: set[str] = set()  # of which tables it was said that they lack columns
        self._has_batches = False

    # What a server's own sink gives

    def open_connection(self) -> None:
        """Connect; any of `errors` when that fails."""
        raise NotImplementedError

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The tables that are there."""
        raise NotImplementedError

    def columns_of(self, table: str) -> list[ServerColumn]:
        """The columns of *table*, none when it is not there."""
        raise NotImplementedError

    def make(self, table: str, layout: Sequence[Column]) -> None:
        """Make *table* with its indexes, unless somebody else does at the same time."""
        raise NotImplementedError

    def prepare(self, batch: list[Record], groups: dict[tuple[str, int], list[int]]) -> None:
        """Make what tables that are there still lack for *batch*."""

    def insert(self, table: str, shape: Shape, columns: list[Sequence[Any]]) -> None:
        """Insert rows, within the transaction.

        columns: the cells of each column that *shape* inserts, which fit into it.
        """
        raise NotImplementedError

    def claim(self, batch_id: str) -> bool:
        """Note *batch_id* within the transaction; False when it is there already."""
        raise NotImplementedError

    def about(self, error: Exception) -> str:
        """What *error* is about: the server, the shape of a table, or rows."""
        raise NotImplementedError

    # What BatchSink asks for

    def connect(self) -> None:
        """Connect and see which tables there are."""
        try:
            self.open_connection()
            self.tables = frozenset(name.lower() for name in self.names())
        except self.errors as error:
            self.close()
            raise RetryLater(f"{self.source}: {one_line(error)}") from error

    def write(self, batch: list[Record]) -> None:
        """Insert *batch* in one transaction; all of it or nothing."""
        groups: dict[tuple[str, int], list[int]] = {}
        for index, (table, layout, _) in enumerate(batch):
            groups.setdefault((table, layout), []).append(index)
        for again in (True, False):
            try:
                shapes, refused = self._shapes_of(groups)
                if not refused:
                    self.prepare(batch, groups)
                    self._transaction(batch, groups, shapes)
                    return
            except self.errors as error:
                what = self.about(error)
                self._undo()
                if what == AWAY or (what == SHAPE and not again):
                    raise RetryLater(f"{self.source}: {one_line(error)}") from error
                if what == SHAPE:
                    self._shapes.clear()
                    self._has_batches = False
                    self.tables = frozenset()
                    continue
                raise Rejected(self._find_refused(batch), one_line(error)) from error
            reason = next(iter(refused.values()))
            raise Rejected([index for key in refused for index in groups[key]], reason)

    def close(self) -> None:
        """Forget what was learned; the connection is the subclass's to close."""
        self._shapes.clear()
        self._has_batches = False

    # Upkeep, on a sink that is never started

    def kept_tables(self) -> list[str]:
        """Tables and partitions that are there."""
        return self.names()

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Drop *table*, or delete its rows before a time; the name is one of `kept_tables`."""
        name = self.quoted(table)
        if whole:
            self.run(f"DROP TABLE IF EXISTS {name}")
            return
        time = time_column(self.layouts, (column.name for column in self.columns_of(table)))
        self.run(f"DELETE FROM {name} WHERE {self.quoted(time)} < %s", [before])

    def sizes(self) -> dict[str, int]:
        """Bytes of each table and partition, with its indexes."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Nothing: a server gives back what a dropped table took."""

    def make_ahead(self, table: str, layout: int) -> None:
        """Make *table* unless it is there."""
        if not self.create_tables:
            return
        if table.lower() not in self.tables:
            self._shape(table, layout)
            return
        columns = self.layouts[layout]
        if not Shape(columns, self.columns_of(table)).is_outdated():
            return
        try:
            if self.remake(table, columns):
                log.info("table made anew, with other columns table=%s store=%s", table, self.where)
        except self.errors as error:
            if self.about(error) == AWAY and not self.is_connected():
                raise
            self._undo()
            log.debug("table not made anew table=%s error=%s", table, one_line(error))

    def remake(self, table: str, layout: Sequence[Column]) -> bool:
        """Drop *table* and make it again, if it is empty; False when it is not."""
        raise NotImplementedError

    def is_connected(self) -> bool:
        """Whether the connection is there still."""
        raise NotImplementedError

    def make_partitions_ahead(self, seconds: Sequence[int]) -> None:
        """Make the partitions of these times, of all partitioned tables."""

    def quoted(self, name: str) -> str:
        """A table or column for SQL."""
        raise NotImplementedError

    # For archives

    def as_stored(self, table: str, layout: int, rows: list[Row]) -> list[tuple[Any, ...]]:
        """*rows* as they would stand in *table*, in the columns it has; nothing is counted."""
        counted, mended = Counter(self.truncated), self.mended
        shape = self._shapes.get((table, layout)) or self._shape(table, layout)
        columns = self._fitted(shape, rows)
        self.truncated, self.mended = counted, mended
        return list(zip(*columns, strict=True))

    # Tables

    def _shapes_of(
        self, groups: dict[tuple[str, int], list[int]]
    ) -> tuple[dict[tuple[str, int], Shape], dict[tuple[str, int], str]]:
        """How each group gets into its table, which is made if need be; why one cannot."""
        refused: dict[tuple[str, int], str] = {}
        for key in groups:
            if key not in self._shapes:
                try:
                    self._shapes[key] = self._shape(*key)
                except _NoTableError as error:
                    refused[key] = str(error)
        return self._shapes, refused

    def _shape(self, table: str, layout: int) -> Shape:
        columns = self.layouts[layout]
        there = self.columns_of(table)
        if not there:
            if not self.create_tables:
                raise _NoTableError(f'no table "{table}" in {self.where}, and create_tables is 0')
            self.make(table, columns)
            log.info("table made table=%s store=%s", table, self.where)
            there = self.columns_of(table)
        self.tables |= {table.lower()}
        shape = Shape(columns, there)
        if not shape.kept:
            raise _NoTableError(
                f'table "{table}" in {self.where} has none of the columns of a message'
            )
        if shape.missing and table.lower() not in self._told:
            self._told.add(table.lower())
            log.warning(
                "table lacks columns, the others are written table=%s columns=%s",
                table,
                ",".join(shape.missing),
            )
        return shape

    # A batch

    def _transaction(
        self,
        batch: list[Record],
        groups: dict[tuple[str, int], list[int]],
        shapes: dict[tuple[str, int], Shape],
    ) -> None:
        batch_id = self.batch_id
        if batch_id and not self._has_batches:
            self._find_batches()
            self._has_batches = True
        self.run("BEGIN")
        if batch_id and not self.claim(batch_id):
            self.run("ROLLBACK")
            self.replayed += len(batch)
            return
        for key, indices in groups.items():
            shape = shapes[key]
            columns = self._fitted(shape, [batch[index][2] for index in indices])
            self.insert(key[0], shape, shape.filled(columns))
        self.run("COMMIT")

    def make_batches(self) -> None:
        """Make the table of batches' ids, and clear it of old ones."""
        raise NotImplementedError

    def _find_batches(self) -> None:
        """The same; who may make no table, or delete nothing, uses the one that is there."""
        try:
            self.make_batches()
        except self.errors as error:
            try:
                self.run("ROLLBACK")
                self.run("SELECT 1 FROM homerd_batches WHERE 1 = 0")
            except self.errors:
                raise error from None

    def _fitted(self, shape: Shape, rows: list[Row]) -> list[Sequence[Any]]:
        """The columns of *rows* that the table has, with cells it can hold."""
        # Hot path: by column, 2 µs a row of 44 cells; cell by cell would be 10.
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        return list(map(self._fitted_column, shape.columns, [columns[at] for at in shape.kept]))

    def _fitted_column(self, column: ServerColumn, cells: Sequence[Any]) -> Sequence[Any]:
        if column.kind == "text":
            if None in cells:
                if column.nullable:
                    return self._with_nulls(column, cells)
                cells = ["" if cell is None else cell for cell in cells]
            kinds = set(map(type, cells))
            if kinds != {str}:
                self.mended += sum(isinstance(cell, bytes) for cell in cells)
                cells = [_as_text(cell) for cell in cells]
            cells = self.storable(column, cells)
            if column.width and max(map(len, cells)) > column.width:
                self.truncated[column.name] += sum(len(cell) > column.width for cell in cells)
                cells = [cell[: column.width] for cell in cells]
        elif column.kind in ("integer", "real"):
            if column.kind == "real" and not set(map(type, cells)) <= _REAL:  # of an archive
                cells = [_as_real(cell) for cell in cells]
            if None in cells and not column.nullable:
                cells = [0 if cell is None else cell for cell in cells]
        else:
            cells = self.converted(column, cells)
        return cells

    def _with_nulls(self, column: ServerColumn, cells: Sequence[Any]) -> Sequence[Any]:
        """Text as the column can hold it, and NULL where there is none."""
        told = [cell for cell in cells if cell is not None]
        fitted = iter(self._fitted_column(column, told) if told else ())
        return [None if cell is None else next(fitted) for cell in cells]

    def storable(self, column: ServerColumn, cells: Sequence[str]) -> Sequence[str]:
        """*cells* of text without what the store cannot hold."""
        return cells

    def converted(self, column: ServerColumn, cells: Sequence[Any]) -> Sequence[Any]:
        """*cells* of a column that is neither text nor number."""
        return cells

    def _find_refused(self, batch: list[Record]) -> list[int]:
        """Which records fail when they are inserted without the others, by halves."""
        refused: list[int] = []
        waiting = [range(len(batch))]
        while waiting:
            part = waiting.pop()
            try:
                self.run("BEGIN")
                for index in part:
                    table, layout, row = batch[index]
                    shape = self._shapes.get((table, layout)) or self._shape(table, layout)
                    self.insert(table, shape, shape.filled(self._fitted(shape, [row])))
            except self.errors as error:
                if self.about(error) == AWAY:
                    self._undo()
                    raise RetryLater(f"{self.source}: {one_line(error)}") from error
                if len(part) == 1:
                    refused.append(part[0])
                else:
                    waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
            self._undo()
        if not refused:
            raise RetryLater(f"{self.source}: refused the rows together, took them one by one")
        return sorted(refused)

    def _undo(self) -> None:
        try:
            self.run("ROLLBACK")
        except self.errors as error:
            log.debug("rollback failed store=%s error=%s", self.where, one_line(error))


class _NoTableError(Exception):
    """There is no table for a record, and none can be made."""


def one_line(error: Exception) -> str:
    """What a driver says, on one line and without a number pair's brackets."""
    if len(error.args) == 2 and isinstance(error.args[0], int):
        return f"{error.args[1]} ({error.args[0]})"
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines) or type(error).__name__


def _as_text(cell: Cell) -> str:
    """Bytes that are no UTF-8 as Latin-1: each stays one character and can be found again."""
    if isinstance(cell, bytes):
        return cell.decode("latin-1")
    return str(cell)


_REAL = {int, float, type(None)}


def _as_real(cell: Cell) -> float | None:
    """The number that a cell of another store is; None for one that is none."""
    try:
        return None if cell is None else float(cell)
    except ValueError:
        return None


def _narrowed(there: ServerColumn, column: Column) -> ServerColumn:
    """Text that nobody told is '' in Homer 5, whatever the table allows."""
    if there.kind == "text" and there.nullable and not column.nullable:
        return replace(there, nullable=False)
    return there
