"""Rows of Homer 5 into PostgreSQL, by binary COPY.

A row of 1.1 KB costs 3 µs here and 17 in the server with eight indexes, where COPY of text takes 6
and 18.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from homerd_plugins import _homer7
from homerd_plugins._homer5 import ALONE, BEHIND_TIME, BIGINT, INTEGER, REAL, Column
from homerd_plugins._partitions import LOCK, LOCK_SECONDS, Partitions, Run
from homerd_plugins._serversink import (
    AWAY,
    BATCH_DAYS,
    CONNECT_SECONDS,
    ROWS,
    SHAPE,
    Record,
    ServerColumn,
    ServerSink,
    Shape,
)
from homerd_plugins._upkeep import time_column

if TYPE_CHECKING:
    from homerd_plugins._stores import Address

log = logging.getLogger("homerd.store")

# SQLSTATEs by their beginning.  A missing table, column or partition, and a table that is there by
# now (two writers made it); a row's data; what is left is the server's or the operator's affair.
_SHAPE = ("42P01", "42703", "42P07", "42710", "23514", "42804")
_ROWS = ("22", "23", "P0", "54")
_REFUSED_LOGIN = "28"

DROP_TRIES, DROP_MILLISECONDS, DROP_PAUSE = 5, 200, 0.5

# Data type -> kind of a column; another one is "other".
TYPES = {
    "text": "text",
    "character varying": "text",
    "character": "text",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "real": "real",
    "double precision": "real",
    "timestamp without time zone": "time",
    "timestamp with time zone": "time",
    "bytea": "bytes",
}

# Entries for those alone whose value is not the usual one; `callid_aleg = 'x'` finds the index.
_PARTIAL = {"pid_user", "auth_user", "callid_aleg"}
_INDEXED = ("callid", "from_user", "to_user", "ruri_user", "pid_user", "auth_user", "callid_aleg")
_INTEGERS = {"micro_ts": "bigint", "family": "smallint"}
_NUMBERS = {INTEGER: "integer", BIGINT: "bigint", REAL: "double precision"}


class PostgresSink(ServerSink):
    """Writes batches to PostgreSQL, a COPY for each table and one transaction for all.

    steps: seconds that a partition of Homer 7 holds, by table.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *arguments: Any,
        steps: Mapping[str, int] | None = None,
        **options: Any,
    ) -> None:
        import psycopg

        super().__init__(name, *arguments, where=address.shown, **options)
        self.address = address
        # ValueError: NUL in text, where nobody looked
        self.errors = (psycopg.Error, UnicodeError, ValueError)
        self._connection: Any = None  # a psycopg.Connection
        self.partitions = Partitions(self.run, self.where, steps or {})

    def open_connection(self) -> None:
        """Connect with a session in UTC."""
        self._connection = connected(self.address)

    def connect(self) -> None:
        """Connect and see which tables there are."""
        with self._limited():
            super().connect()

    def write(self, batch: list[Record]) -> None:
        """Insert *batch* in one transaction; all of it or nothing."""
        with self._limited():
            super().write(batch)

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self.partitions.forget()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        cursor = self._connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def names(self) -> list[str]:
        """The tables of the search path."""
        return [name for (name,) in self.run(TABLES)]

    def columns_of(self, table: str) -> list[ServerColumn]:
        """The columns of *table*."""
        return self._columns(quoted(table))

    def _columns(self, name: str) -> list[ServerColumn]:
        rows = self.run(
            "SELECT a.attname, format_type(a.atttypid, NULL), a.atttypmod, NOT a.attnotnull,"
            " a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''"
            " FROM pg_attribute a WHERE a.attrelid = to_regclass(%s)"
            " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''",
            [name],
        )
        return [
            ServerColumn(
                name,
                TYPES.get(kind, "other"),
                modifier - 4 if kind.startswith("character") and modifier > 4 else 0,
                nullable,
                kind,
                required=required,
            )
            for name, kind, modifier, nullable, required in rows
        ]

    def make(self, table: str, layout: Sequence[Column]) -> None:
        """Make *table* with its indexes."""
        self.run("BEGIN")
        self.run(LOCK)
        for statement in ddl(table, layout):
            self.run(statement)
        self.run("COMMIT")

    def remake(self, table: str, layout: Sequence[Column]) -> bool:
        """Drop *table* and make it again, if it is empty; False when it is not."""
        self.run("BEGIN")
        self.run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        self.run(LOCK)
        self.run(f"LOCK TABLE {quoted(table)} IN ACCESS EXCLUSIVE MODE")
        is_empty = not self.run(f"SELECT 1 FROM {quoted(table)} LIMIT 1")
        if is_empty:
            self.run(f"DROP TABLE {quoted(table)}")
            for statement in ddl(table, layout):
                self.run(statement)
        self.run("COMMIT")
        return is_empty

    def is_connected(self) -> bool:
        """Whether the connection is there still."""
        return self._connection is not None and not self._connection.closed

    def prepare(self, batch: list[Record], groups: dict[tuple[str, int], list[int]]) -> None:
        """Make partitions that rows of Homer 7 need; those of odd clocks go to the default one."""
        if not self.create_tables:
            return
        for (table, layout), indices in groups.items():
            if self.layouts[layout] == _homer7.COLUMNS:
                self.partitions.make_default(table)
                times = [batch[index][2][1][:16] for index in indices]  # type: ignore[index]
                self.partitions.make_for(table, times)

    def make_partition(self, table: str, seconds: int) -> None:
        """Make the partition of *table* that holds a time, unless there is one."""
        self.partitions.make(table, seconds)

    @property
    def moved_rows(self) -> int:
        """Rows taken out of default partitions."""
        return self.partitions.moved

    def kept_tables(self) -> list[str]:
        """Tables, and the partitions of Homer 7."""
        with self._limited():
            return self.names() + [name for (name,) in self.run(PARTITIONS)]

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Drop *table*, or delete its rows before a time; others' tables may have capitals."""
        with self._limited():
            self._remove(exactly(table), before, whole)

    def _remove(self, name: str, before: str, whole: bool) -> None:
        if whole:
            self.run("BEGIN")
            try:
                drop(self.run, name)
            except self.errors:
                self._undo()
                raise
            self.run("COMMIT")
            return
        time = time_column(self.layouts, (column.name for column in self._columns(name)))
        self.run(f"DELETE FROM {name} WHERE {exactly(time)} < %s", [before])

    def sizes(self) -> dict[str, int]:
        """Bytes of each table and partition, with its indexes."""
        with self._limited():
            return {name: int(size) for name, size in self.run(SIZES)}

    def make_ahead(self, table: str, layout: int) -> None:
        """Make *table* unless it is there."""
        with self._limited():
            super().make_ahead(table, layout)

    def make_partitions_ahead(self, seconds: Sequence[int]) -> None:
        """Make the partitions of these times, of all tables of Homer 7."""
        with self._limited():
            tables = self.run(PARTITIONED)
        for (table,) in tables:
            if self.create_tables and _homer7.is_homer7_table(table):
                with self._limited():
                    self.partitions.make_ahead(table, seconds)

    def quoted(self, name: str) -> str:
        """A table or column for SQL."""
        return quoted(name)

    def make_batches(self) -> None:
        """Make the table of batches' ids, and clear it of old ones."""
        self.run("BEGIN")
        self.run(LOCK)
        for statement in BATCHES:
            self.run(statement)
        self.run("COMMIT")

    def claim(self, batch_id: str) -> bool:
        """Note *batch_id*; waits for a transaction that is about to note the same."""
        noted = self.run(
            "INSERT INTO homerd_batches (batch) VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1",
            [batch_id],
        )
        return bool(noted)

    def insert(self, table: str, shape: Shape, columns: list[Sequence[Any]]) -> None:
        """COPY rows."""
        names = ", ".join(quoted(column.name) for column in shape.inserted)
        binary = all(column.kind != "other" for column in shape.inserted)
        form = " (FORMAT binary)" if binary else ""
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {quoted(table)} ({names}) FROM STDIN{form}") as copy,
        ):
            if binary:
                copy.set_types([_wire_type(column) for column in shape.inserted])
            write_row = copy.write_row
            for row in zip(*columns, strict=True):
                write_row(row)

    def storable(self, column: ServerColumn, cells: Sequence[str]) -> Sequence[str]:
        """*cells* without NUL, which no text of PostgreSQL holds, and without lone surrogates."""
        whole = "".join(cells)
        if "\0" not in whole and (whole.isascii() or _is_encodable(whole)):
            return cells
        mended = [mend(cell) for cell in cells]
        self.mended += sum(map(str.__ne__, cells, mended))
        return mended

    def converted(self, column: ServerColumn, cells: Sequence[Any]) -> Sequence[Any]:
        """Times as the driver wants them for binary COPY; bytes as they came."""
        if column.kind == "time":
            read = _time if column.of == "timestamp without time zone" else _time_with_zone
            return [read(cell) for cell in cells]
        if column.kind == "bytes":
            return [cell.encode() if isinstance(cell, str) else cell or b"" for cell in cells]
        return cells

    def about(self, error: Exception) -> str:
        """Rows, a table's shape, or all else."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            is_rows = isinstance(error, UnicodeError | ValueError | self._data_error)
            return ROWS if is_rows and self.is_connected() else AWAY
        if state.startswith(_SHAPE):
            return SHAPE
        return ROWS if state.startswith(_ROWS) else AWAY

    @property
    def _data_error(self) -> type[Exception]:
        import psycopg

        return psycopg.DataError

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Cut the connection when the server does not answer; libpq itself would wait for ever."""
        timer = threading.Timer(self.answer_seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return
        with contextlib.suppress(OSError):
            number = os.dup(connection.fileno())
            with socket.socket(fileno=number) as line:
                line.shutdown(socket.SHUT_RDWR)


BATCHES = (
    "CREATE TABLE IF NOT EXISTS homerd_batches (batch text PRIMARY KEY,"
    " written timestamp with time zone NOT NULL DEFAULT current_timestamp)",
    f"DELETE FROM homerd_batches WHERE written < now() - interval '{BATCH_DAYS} days'",
)

# Views and partitions are no tables of their own.
TABLES = (
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
    " AND pg_table_is_visible(oid) AND relnamespace <> 'pg_catalog'::regnamespace"
)

_VISIBLE = "pg_table_is_visible(oid) AND relnamespace <> 'pg_catalog'::regnamespace"
PARTITIONED = f"SELECT relname FROM pg_class WHERE relkind = 'p' AND {_VISIBLE}"
PARTITIONS = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relispartition"
    f" AND relname LIKE 'hep\\_proto\\_%' AND {_VISIBLE}"
)
# A table that is dropped meanwhile has no size.
SIZES = (
    "SELECT relname, coalesce(pg_total_relation_size(oid), 0) FROM pg_class"
    f" WHERE relkind = 'r' AND {_VISIBLE}"
)


def connected(address: Address, options: str = "", seconds: float = CONNECT_SECONDS) -> Any:
    """A connection that commits each statement unless BEGIN is run; a psycopg.Error without.

    options: of the session, in place of those of our own rows: UTC, ISO.
    """
    import psycopg

    options = options or "-c timezone=UTC -c standard_conforming_strings=on -c datestyle=ISO"
    try:
        return _connect(address, address.password, options, seconds)
    except psycopg.OperationalError:
        # Kamailio takes a password as it is written, others escape what is special in a URL.
        if address.decoded_password == address.password:
            raise
        return _connect(address, address.decoded_password, options, seconds)


def _connect(address: Address, password: str, options: str, seconds: float) -> Any:
    import psycopg

    wanted = {
        "host": address.socket or address.host,
        "port": str(address.port or ""),
        "user": address.user,
        "password": password,
    }
    return psycopg.connect(
        dbname=address.database,
        connect_timeout=max(2, round(seconds)),
        options=options,
        client_encoding="utf8",
        application_name="homerd",
        autocommit=True,
        **{key: value for key, value in wanted.items() if value},
    )


def quoted(name: str) -> str:
    """A table or column as SQL without quotes would take it: in small letters."""
    return exactly(name.lower())


def exactly(name: str) -> str:
    """A table or column by the name the server has for it."""
    return '"' + name.replace('"', '""') + '"'


def drop(run: Run, name: str) -> None:
    """Drop a table within a transaction, once nobody reads it or what it is a partition of.

    Whoever inserts waits behind a DROP that waits for a reader: it gives up soon, a few times.
    """
    import psycopg

    for left in reversed(range(DROP_TRIES)):
        run("SAVEPOINT before_drop")
        run(f"SET LOCAL lock_timeout = {DROP_MILLISECONDS}")
        try:
            run(f"DROP TABLE IF EXISTS {name}")
            return
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
            run("ROLLBACK TO SAVEPOINT before_drop")
        time.sleep(DROP_PAUSE)


def ddl(table: str, columns: Sequence[Column]) -> Iterator[str]:
    """The statements that make *table* and its indexes."""
    if columns == _homer7.COLUMNS:
        yield _homer7.ddl(table.lower())
        yield from _homer7.default_ddl(table.lower())
        return
    cells = ", ".join(f"{quoted(column.name)} {_type(column)}" for column in columns)
    names = {column.key: quoted(column.name) for column in columns}
    yield (
        f"CREATE TABLE IF NOT EXISTS {quoted(table)}"
        f" (id bigserial NOT NULL, {cells}, PRIMARY KEY (id, {names['date']}))"
    )
    searched = [column for column in columns if column.index]
    if searched:
        behind = [names[each.key] for each in searched if each.index == BEHIND_TIME]
        yield _index(table, "date", f"({', '.join([names['date'], *behind])})")
        for each in searched:
            if each.index == ALONE:
                yield _index(table, each.key, f"({names[each.key]} text_pattern_ops)")
        return
    # A BRIN of the time is a thousandth of a b-tree and costs next to nothing: rows come in order.
    # Where it is not kept up, the newest rows are all read for a search by time.
    yield _index(table, "date", f"USING brin ({names['date']}) WITH (autosummarize = on)")
    if "callid" not in names:
        if "correlation_id" in names:
            yield _index(table, "correlation", f"({names['correlation_id']})")
        return
    # Compared by bytes, an index finds beginnings (LIKE 'x%') whatever the locale; a row costs the
    # server a seventh less.
    for key in _INDEXED:
        where = f" WHERE {names[key]} <> ''" if key in _PARTIAL else ""
        yield _index(table, key, f"({names[key]} text_pattern_ops){where}")
    correlation_id = names["correlation_id"]
    other = f"({correlation_id} text_pattern_ops) WHERE {correlation_id} <> {names['callid']}"
    yield _index(table, "correlation_id", other)


def _index(table: str, column: str, of: str) -> str:
    return f"CREATE INDEX IF NOT EXISTS {quoted(f'{table}_{column}')} ON {quoted(table)} {of}"


def _type(column: Column) -> str:
    if column.key == "date":
        return "timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')"
    if column.key == "family":
        return "smallint"
    if column.type in _NUMBERS:
        kind = _INTEGERS.get(column.key) or _NUMBERS[column.type]
        return kind if column.nullable else f"{kind} NOT NULL DEFAULT 0"
    # A message has whatever length it has.
    is_long = column.key == "msg" or not column.width
    kind = "text" if is_long else f"varchar({column.width})"
    return kind if column.nullable else f"{kind} NOT NULL DEFAULT ''"


def _wire_type(column: ServerColumn) -> str:
    """The type that COPY is told: all text goes as text."""
    return "text" if column.kind == "text" else column.of


@functools.lru_cache(4096)  # thousands of packets share a second
def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


@functools.lru_cache(4096)
def _time_with_zone(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def mend(cell: str) -> str:
    """*cell* without NUL, and with U+FFFD for what is no character."""
    return cell.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
