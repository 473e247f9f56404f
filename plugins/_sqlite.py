"""Rows of Homer 5 into an SQLite file.

A record is (table, layout, row): the row's cells stand in the order of the layout's columns.
Missing tables are made with their indexes; tables that are there keep the shape they have.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from homerd.api import ConfigError, Rejected, RetryLater
from homerd_plugins._homer5 import ALONE, BEHIND_TIME, Column, Row, format_of
from homerd_plugins._rowsink import Record, RowSink
from homerd_plugins._upkeep import time_column

log = logging.getLogger("homerd.sqlite")


# 8 KiB pages hold several messages each: 15 µs a row where 4 KiB take 17 (bench_store).
PAGE_SIZE = 8192
CACHE_KIB = 32 * 1024
CHECKPOINT_PAGES = 8192  # 64 MiB of log are carried over at once
JOURNAL_LIMIT = 64 << 20
INCREMENTAL = 2  # PRAGMA auto_vacuum
VACUUM_PAGES = 1000
BUSY_SECONDS = 2.0

# A second's worth of rows in one transaction writes each index page once, not twenty times.
BATCH_SIZE = 10_000
QUEUE_LIMIT = 100_000

# The interpreter lock changes hands once a statement: beside a busy thread 20,000 to 30,000 rows/s
# (bench_store), where executemany(), which lets it go for each row, came to 700 to 4,000.  More
# rows than these gain nothing.
ROWS_AT_ONCE = 256
VARIABLES = 32_766  # SQLITE_MAX_VARIABLE_NUMBER unless built otherwise

# Indexes begin with a bucket of 32,768 rows, so that inserts touch the pages of the newest bucket
# alone and cost the same whatever the table's size: 15 µs a row, where plain indexes take 15 at
# the start, 30 after a million rows and more beyond.  SQLite looks into each bucket in turn
# (skip-scan), for any reader's `WHERE callid = …`, once it knows how few buckets there are: that is
# what the rows in sqlite_stat1 tell it.
BUCKET_BITS = 15
INDEXED = (
    "callid",
    "from_user",
    "to_user",
    "ruri_user",
    "source_ip",
    "destination_ip",
    "callid_aleg",
    "correlation_id",
)
# Rows of these need no entry: the value is the usual one.
PARTIAL = {
    "callid_aleg": "{callid_aleg} <> ''",
    "correlation_id": "{correlation_id} <> {callid}",
}


class SqliteSink(RowSink):
    """Writes batches into one SQLite file, a transaction each.

    layouts: the columns of each kind of row.  tables: lower-case names of those that are there,
    filled by connect; the loop thread only reads it.  create_tables: whether missing ones are made.
    source: what the operator wrote, for messages.  shrinks: whether a file that is new can give
    back room, which costs inserts a tenth; else what is dropped leaves room for what comes.
    """

    moved_rows = 0

    def __init__(
        self,
        name: str,
        path: str,
        layouts: Sequence[Sequence[Column]],
        *,
        create_tables: bool = True,
        source: str = "",
        shrinks: bool = False,
        batch_size: int = BATCH_SIZE,
        batch_age: float = 1.0,
        queue_limit: int = QUEUE_LIMIT,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        super().__init__(name, batch_size=batch_size, batch_age=batch_age, queue_limit=queue_limit)
        self.path = path
        self.where = f"sqlite:{path}"
        self.layouts = [tuple(layout) for layout in layouts]
        self.record_format = format_of(self.layouts)
        self.create_tables = create_tables
        self.source = source or f"sqlite://{path}"
        self.shrinks = shrinks
        self.busy_seconds = busy_seconds
        self.tables: frozenset[str] = frozenset()
        self._connection: sqlite3.Connection | None = None
        self._has_batches = False
        self._told: set[str] = set()  # of which tables it was said that they lack columns
        self._shape = -1  # schema_version of the file as `tables` and `_inserts` know it
        self._inserts: dict[tuple[str, int], _Insert] = {}

    # What BatchSink asks for

    def connect(self) -> None:
        """Open the file and see which tables it has."""
        folder = Path(self.path).parent
        if not folder.is_dir():
            raise ConfigError(f"{self.source}: no such folder: {folder}")
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=self.busy_seconds,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
            )
        except sqlite3.Error as error:
            raise ConfigError(f"{self.source}: cannot open the database: {error}") from error
        try:
            self._prepare(connection)
            self._look(connection)
        except sqlite3.Error as error:
            connection.close()
            if _code(error) in _PASSING:
                raise RetryLater(f"{self.source}: {error}") from error
            raise ConfigError(f"{self.source}: cannot use the database: {error}") from error
        self._connection = connection

    def write(self, batch: list[Record]) -> None:
        """Insert *batch* in one transaction; all of it or nothing."""
        connection = self._connection
        assert connection is not None
        groups: dict[tuple[str, int], list[int]] = {}
        for index, (table, layout, _) in enumerate(batch):
            groups.setdefault((table, layout), []).append(index)
        try:
            self._make_batches(connection)
            connection.execute("BEGIN IMMEDIATE")
            self._look(connection)
            if not self._claim(connection):
                connection.execute("ROLLBACK")
                return
            refused = self._insert_all(connection, batch, groups)
            if not refused:
                connection.execute("COMMIT")
        except (sqlite3.Error, *_UNBINDABLE) as error:
            self._undo(connection)
            if _is_of_the_store(error):
                raise RetryLater(f"{self.source}: {error}") from error
            raise Rejected(self._find_refused(batch), f"{self.path}: {error}") from error
        if refused:
            self._undo(connection)
            raise Rejected(*refused)

    def close(self) -> None:
        """Close the file; the log is carried over into it."""
        self._inserts.clear()
        self._shape = -1
        self._has_batches = False
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def store_key(self) -> str:
        """The file, wherever it is named from."""
        return str(Path(self.path).resolve())

    # Upkeep, on a sink that is never started

    errors = (sqlite3.Error,)

    def is_connected(self) -> bool:
        """Whether the file is open."""
        return self._connection is not None

    def kept_tables(self) -> list[str]:
        """Tables that are there."""
        assert self._connection is not None
        rows = self._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return [name for (name,) in rows]

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Drop *table*, or delete its rows before a time."""
        connection = self._connection
        assert connection is not None
        name = _quoted(table)
        try:
            if whole:
                connection.execute(f"DROP TABLE IF EXISTS {name}")
                return
            rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
            date = _quoted(time_column(self.layouts, (column for (column,) in rows)))
            # Kamailio's driver writes Julian days, and any number is less than any text.
            connection.execute(
                f"DELETE FROM {name} WHERE {date} < ?1 AND (typeof({date}) = 'text'"
                f" OR typeof({date}) = 'real' AND {date} < julianday(?1))",
                (before,),
            )
        except sqlite3.Error as error:
            raise RetryLater(f"{self.source}: {error}") from error

    def sizes(self) -> dict[str, int]:
        """Bytes of each table: its part of what is used of the file, by its number of rows."""
        connection = self._connection
        assert connection is not None
        rows = {}
        try:
            used = self._pragma("page_count") - self._pragma("freelist_count")
            for name in self.kept_tables():
                with contextlib.suppress(sqlite3.OperationalError):  # a table without rowid
                    query = f"SELECT max(rowid) - min(rowid) + 1 FROM {_quoted(name)}"
                    rows[name] = connection.execute(query).fetchone()[0] or 0
        except sqlite3.Error as error:
            raise RetryLater(f"{self.source}: {error}") from error
        share = used * self._pragma("page_size") / max(1, sum(rows.values()))
        return {name: round(count * share) for name, count in rows.items()}

    def give_back(self) -> None:
        """Shorten the file by its free pages, if it was made for that: 1.5 s for 100 MB.

        By steps of 30 ms, between which rows are written.
        """
        connection = self._connection
        assert connection is not None
        try:
            if self._pragma("auto_vacuum") != INCREMENTAL:
                return
            while free := self._pragma("freelist_count"):
                connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
                if self._pragma("freelist_count") >= free:
                    return
        except sqlite3.Error as error:
            raise RetryLater(f"{self.source}: {error}") from error

    def _pragma(self, name: str) -> int:
        assert self._connection is not None
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def make_ahead(self, table: str, layout: int) -> None:
        """Nothing: a table is made within a millisecond when its first row comes."""

    def make_partitions_ahead(self, seconds: Sequence[int]) -> None:
        """Nothing: SQLite has no partitions."""

    # The file

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for pragma in (
            f"page_size={PAGE_SIZE}",  # of a file that is new, as is what follows
            *([f"auto_vacuum={INCREMENTAL}"] if self.shrinks else ()),
            "journal_mode=WAL",
            "synchronous=NORMAL",
            f"cache_size=-{CACHE_KIB}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            f"journal_size_limit={JOURNAL_LIMIT}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN IMMEDIATE")  # a file that cannot be written to says so now
        connection.execute("ROLLBACK")

    def _look(self, connection: sqlite3.Connection) -> None:
        """Learn the tables again when the file's schema has changed."""
        (shape,) = connection.execute("PRAGMA schema_version").fetchone()
        if shape == self._shape:
            return
        rows = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
        self.tables = frozenset(name.lower() for (name,) in rows)
        self._inserts.clear()
        self._shape = shape

    def _make_batches(self, connection: sqlite3.Connection) -> None:
        """Make the table of batches' ids, once, and clear it of old ones."""
        if not self.batch_id or self._has_batches:
            return
        keep_batches(connection, self.ids_kept_seconds)
        self._has_batches = True

    def _claim(self, connection: sqlite3.Connection) -> bool:
        """Note the batch within its transaction; False when it is stored already."""
        return not self.batch_id or claim(connection, self.batch_id)

    def _insert_all(
        self,
        connection: sqlite3.Connection,
        batch: list[Record],
        groups: dict[tuple[str, int], list[int]],
    ) -> tuple[list[int], str] | None:
        """Insert every group; what the file has no place for is given back with the reason."""
        refused: list[int] = []
        reason = ""
        for key, indices in groups.items():
            insert = self._inserts.get(key)
            try:
                if insert is None:
                    insert = self._inserts[key] = self._into(connection, *key)
            except _NoTableError as error:
                refused += indices
                reason = str(error)
                continue
            insert.run(connection, [batch[index][2] for index in indices])
        return (refused, reason) if refused else None

    def _into(self, connection: sqlite3.Connection, table: str, layout: int) -> _Insert:
        """How rows get into *table*, which is made if it is missing."""
        columns = self.layouts[layout]
        if table.lower() not in self.tables:
            if not self.create_tables:
                raise _NoTableError(f'no table "{table}" in {self.path}, and create_tables is 0')
            for statement in ddl(table, columns):
                connection.execute(statement)
            (self._shape,) = connection.execute("PRAGMA schema_version").fetchone()
            self.tables |= {table.lower()}
            log.info("table made table=%s file=%s", table, self.path)
            return _Insert(table, columns, range(len(columns)))
        rows = connection.execute(_TABLE_INFO, (table,)).fetchall()
        there = {name.lower() for name, *_ in rows}
        kept = [index for index, column in enumerate(columns) if column.name.lower() in there]
        if not kept:
            raise _NoTableError(
                f'table "{table}" in {self.path} has none of the columns of a message'
            )
        missing = [column.name for column in columns if column.name.lower() not in there]
        if missing and table.lower() not in self._told:
            self._told.add(table.lower())
            log.warning(
                "table lacks columns, the others are written table=%s columns=%s",
                table,
                ",".join(missing),
            )
        written = {columns[index].name.lower() for index in kept}
        others = {name: kind for name, kind, required in rows if required}
        fillers = {name: kind for name, kind in others.items() if name.lower() not in written}
        return _Insert(table, [columns[index] for index in kept], kept, fillers)

    def _undo(self, connection: sqlite3.Connection) -> None:
        """Roll back; what was learned of tables made in this transaction is forgotten."""
        self._shape = -1
        self._inserts.clear()
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.debug("rollback failed file=%s error=%s", self.path, error)

    def _find_refused(self, batch: list[Record]) -> list[int]:
        """Which records fail when they are inserted alone."""
        connection = self._connection
        assert connection is not None
        refused = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._look(connection)
            for index, (table, layout, row) in enumerate(batch):
                try:
                    self._into(connection, table, layout).run(connection, [row])
                except (sqlite3.Error, _NoTableError, *_UNBINDABLE):
                    refused.append(index)
        except sqlite3.Error as error:
            raise RetryLater(f"{self.source}: {error}") from error
        finally:
            self._undo(connection)
        if not refused:
            raise RetryLater(f"{self.source}: refused the rows together, took them one by one")
        return refused


class _NoTableError(Exception):
    """There is no table for a record, and none can be made."""


class _Insert:
    """The statements that put rows into one table: many rows at once, and powers of two below."""

    __slots__ = ("_kept", "_most", "_statements", "_whole")

    def __init__(
        self,
        table: str,
        columns: Sequence[Column],
        kept: Sequence[int],
        fillers: Mapping[str, str] | None = None,
    ) -> None:
        """fillers: name and type of columns that each row must name, given '' or 0."""
        others = fillers or {}
        names = ", ".join(map(_quoted, (*(column.name for column in columns), *others)))
        values = ["?"] * len(columns)
        values += ["0" if "INT" in kind.upper() else "''" for kind in others.values()]
        head = f"INSERT INTO {_quoted(table)} ({names}) VALUES "
        group = f"({','.join(values)})"
        most = 1
        while most * 2 <= min(ROWS_AT_ONCE, VARIABLES // len(columns)):
            most *= 2
        self._most = most
        self._statements: dict[int, str] = {}
        while most:
            self._statements[most] = head + ",".join([group] * most)
            most //= 2
        self._kept = tuple(kept)
        self._whole = self._kept == tuple(range(len(self._kept)))

    def run(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        if not self._whole or (rows and len(rows[0]) != len(self._kept)):
            rows = [tuple(row[index] for index in self._kept) for row in rows]
        done, count = 0, len(rows)
        while done < count:
            size = min(self._most, 1 << ((count - done).bit_length() - 1))
            cells = list(chain.from_iterable(rows[done : done + size]))
            connection.execute(self._statements[size], cells)
            done += size


def keep_batches(connection: sqlite3.Connection, seconds: float) -> None:
    """Make the table of batches' ids, and clear it of those that are older."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS homerd_batches"
        " (batch TEXT PRIMARY KEY, written INTEGER NOT NULL) WITHOUT ROWID"
    )
    until = time.time() - seconds
    connection.execute("DELETE FROM homerd_batches WHERE written < ?", (until,))


def claim(connection: sqlite3.Connection, batch_id: str) -> bool:
    """Note a batch within its transaction; False when it is stored already."""
    values = (batch_id, int(time.time()))
    noted = connection.execute("INSERT OR IGNORE INTO homerd_batches VALUES (?, ?)", values)
    return noted.rowcount > 0


def ddl(table: str, columns: Sequence[Column]) -> Iterable[str]:
    """The statements that make *table* and its indexes."""
    names = {column.key: _quoted(column.name) for column in columns}
    cells = ", ".join(f"{_quoted(column.name)} {column.type}" for column in columns)
    yield f"CREATE TABLE {_quoted(table)} (id INTEGER PRIMARY KEY, {cells})"
    yield "ANALYZE sqlite_schema"  # makes sqlite_stat1 where it is missing
    searched = [column for column in columns if column.index]
    times = [names["date"], *(names[each.key] for each in searched if each.index == BEHIND_TIME)]
    yield f"CREATE INDEX {_quoted(table + '_date')} ON {_quoted(table)} ({', '.join(times)})"
    yield _statistics(table, "date", f"1000000 1000{' 100' * (len(times) - 1)}")
    for key in [each.key for each in searched if each.index == ALONE] if searched else INDEXED:
        if key not in names:
            continue
        where = PARTIAL[key].format(**names) if key in PARTIAL and "callid" in names else ""
        yield (
            f"CREATE INDEX {_quoted(f'{table}_{key}')} ON {_quoted(table)}"
            f" (id >> {BUCKET_BITS}, {names[key]})" + (f" WHERE {where}" if where else "")
        )
        yield _statistics(table, key, f"1000000 {1 << BUCKET_BITS} 8")


# What a table has, and whether each row must name it.
_TABLE_INFO = (
    'SELECT name, type, "notnull" AND dflt_value IS NULL AND NOT pk FROM pragma_table_info(?)'
)


def _statistics(table: str, column: str, numbers: str) -> str:
    return f"INSERT INTO sqlite_stat1 VALUES ('{table}', '{table}_{column}', '{numbers}')"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _code(error: Exception) -> int:
    """SQLite's primary result code; that of a misuse for what the driver itself refuses."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return code & 0xFF


def _is_of_the_store(error: Exception) -> bool:
    """Whether the file is busy, full, read-only or broken, and no row is at fault."""
    return _code(error) not in _ROWS_AT_FAULT


# What a value may be that no column takes: an integer of more than 64 bits, text that is no UTF-8.
_UNBINDABLE = (OverflowError, UnicodeError)
# What may be over without the operator: a full disk is no reason not to start and to spool.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
)
_ROWS_AT_FAULT = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_RANGE,
)
