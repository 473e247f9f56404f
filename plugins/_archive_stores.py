"""Stores as archives see them: tables that are read whole in a snapshot, and removed afterwards.

A table has gained no row since it was read, or it is not removed: the rows are counted again in the
transaction that removes them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from homerd.api import ArchiveColumn, ArchiveError, ConfigError
from homerd_plugins._homer5 import Column
from homerd_plugins._postgres import TYPES as POSTGRES_TYPES
from homerd_plugins._serversink import one_line
from homerd_plugins._stores import MYSQL, POSTGRES, SQLITE, Address

OURS = "homerd_batches"  # ids of batches, which are worth nothing elsewhere
LOCK_SECONDS = 30
ANSWER_SECONDS = 3600.0

TIMES = ("date", "create_date")
_BODIES = ("msg", "raw")


class Mark(NamedTuple):
    """How many rows there are, and their lowest and highest id."""

    rows: int
    first: int | None = None
    last: int | None = None


class StoreTables:
    """The tables of one store, on a connection of its own.

    mode: the capture mode that names the store.  source: what the operator wrote.  columns: names
    the operator gave, by key.
    """

    kind = ""
    hole = "%s"
    only = ""
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, mode: str, source: str, address: Address, layouts: Sequence[Any]) -> None:
        self.mode = mode
        self.source = source
        self.address = address
        self.where = address.shown
        self.keys = _renamed(layouts)
        self._connection: Any = None

    # What each store has of its own

    def connected(self) -> Any:
        """A connection; any of `errors` without one."""
        raise NotImplementedError

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        raise NotImplementedError

    def listed(self) -> list[str]:
        """The tables and partitions that hold rows themselves."""
        raise NotImplementedError

    def shape(self, table: str) -> list[ArchiveColumn]:
        """The columns of *table*."""
        raise NotImplementedError

    def parent(self, table: str) -> str:
        """The table that rows of *table* belong to."""
        return table

    def begin_snapshot(self) -> None:
        """Begin a transaction that sees the store as it is now."""
        raise NotImplementedError

    def streamed(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, without having all of them at once."""
        raise NotImplementedError

    def lock_and_drop(self, table: str, mark: Mark) -> bool:
        """Drop *table* unless its mark is another one."""
        raise NotImplementedError

    def delete(self, statement: str) -> int:
        """Carry out a DELETE and say how many rows went."""
        raise NotImplementedError

    def ddl(self, table: str, columns: Sequence[Column]) -> Iterable[str]:
        """What makes *table*."""
        raise NotImplementedError

    def lock_import(self) -> bool:
        """Be the only one who imports while connected; False when somebody else does."""
        return True

    def quoted(self, name: str) -> str:
        """A table or column for SQL."""
        return '"' + name.replace('"', '""') + '"'

    def selected(self, column: ArchiveColumn) -> str:
        """A column such that it arrives as null, number, text or bytes."""
        return self.quoted(column.name)

    # What is done with them

    def __enter__(self) -> StoreTables:
        with self._told():
            self._connection = self.connected()
        return self

    def __exit__(self, *_: object) -> None:
        connection, self._connection = self._connection, None
        with contextlib.suppress(*self.errors):
            connection.close()

    def names(self) -> list[str]:
        """The tables and partitions, in order."""
        with self._told():
            return sorted(name for name in self.listed() if name.lower() != OURS)

    def columns(self, table: str) -> tuple[ArchiveColumn, ...]:
        """The columns of *table*."""
        with self._told():
            return tuple(
                replace(column, key=self.keys.get(column.name.lower(), ""))
                for column in self.shape(table)
            )

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """See the store as it is now, whatever is written meanwhile."""
        with self._told():
            self.begin_snapshot()
        try:
            yield
        finally:
            with contextlib.suppress(*self.errors):
                self.run("ROLLBACK")

    def mark(self, table: str, condition: str, columns: Sequence[ArchiveColumn]) -> Mark:
        """What tells whether the rows of *table* are still the same."""
        has_id = any(column.name == "id" and column.kind == "integer" for column in columns)
        ids = f", min({self.quoted('id')}), max({self.quoted('id')})" if has_id else ""
        with self._told():
            return Mark(*self.run(f"SELECT count(*){ids} FROM {self._from(table, condition)}")[0])

    def rows(
        self, table: str, condition: str, columns: Sequence[ArchiveColumn]
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of *table*, one after the other."""
        names = ", ".join(map(self.selected, columns))
        with self._told():
            yield from self.streamed(f"SELECT {names} FROM {self._from(table, condition)}")

    def rows_at(
        self, table: str, columns: Sequence[ArchiveColumn], time: str, times: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Rows whose column *time* is one of *times*, those of partitions too."""
        names = ", ".join(map(self.selected, columns))
        holes = ", ".join([self.hole] * len(times))
        query = f"SELECT {names} FROM {self.quoted(table)} WHERE {self.quoted(time)} IN ({holes})"
        with self._told():
            yield from self.streamed(query, times)

    def make(self, table: str, columns: Sequence[Column]) -> None:
        """Make *table* with its indexes, unless it is there."""
        with self._told():
            if self.shape(table):
                return
            self.run("BEGIN")
            try:
                for statement in self.ddl(table, columns):
                    self.run(statement)
                self.run("COMMIT")
            except self.errors:
                self.run("ROLLBACK")
                raise

    def older(self, columns: Sequence[ArchiveColumn], before: str) -> str:
        """The condition for rows before a day, `YYYY-MM-DD`."""
        return f"{self.quoted(time_column(columns).name)} < '{before} 00:00:00'"

    def drop(self, table: str, mark: Mark) -> bool:
        """Drop *table*; False when it has other rows than those of *mark* by now."""
        with self._told():
            return self.lock_and_drop(table, mark)

    def delete_rows(self, table: str, condition: str, mark: Mark) -> bool:
        """Delete the rows of *mark*; False when there are others by now, and none is deleted."""
        if mark.last is not None:
            condition = f"{condition} AND {self.quoted('id')} <= {mark.last}"
        with self._told():
            self.run("BEGIN")
            try:
                gone = self.delete(f"DELETE FROM {self._from(table, condition)}")
            except self.errors:
                self.run("ROLLBACK")
                raise
            self.run("COMMIT" if gone == mark.rows else "ROLLBACK")
        return gone == mark.rows

    def _from(self, table: str, condition: str) -> str:
        where = f" WHERE {condition}" if condition else ""
        return f"{self.only}{self.quoted(table)}{where}"

    def _is_marked(self, table: str, mark: Mark) -> bool:
        ids = f", min({self.quoted('id')}), max({self.quoted('id')})"
        query = f"SELECT count(*){ids if mark.last is not None else ''}"
        return Mark(*self.run(f"{query} FROM {self._from(table, '')}")[0]) == mark

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            raise ArchiveError(f"{self.source}: {one_line(error)}") from error


class SqliteTables(StoreTables):
    """An SQLite file."""

    kind = SQLITE
    hole = "?"
    errors = (sqlite3.Error,)

    def connected(self) -> Any:
        """The file, which must be there."""
        path = self.address.database
        if not os.path.isfile(path):
            raise ConfigError(f"{self.source}: no such file: {path}")
        connection = sqlite3.connect(
            path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _lenient
        return connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        rows: list[tuple[Any, ...]] = self._connection.execute(statement, values).fetchall()
        return rows

    def listed(self) -> list[str]:
        """The tables of the file, without SQLite's own."""
        rows = self.run("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return [name for (name,) in rows if not name.startswith("sqlite_")]

    def shape(self, table: str) -> list[ArchiveColumn]:
        """The columns of *table*; a cell may be of another kind than its column."""
        rows = self.run("SELECT name, type FROM pragma_table_info(?)", (table,))
        return [ArchiveColumn(name, type or "", _sqlite_kind(type.upper())) for name, type in rows]

    def begin_snapshot(self) -> None:
        """The snapshot begins with the first row that is read."""
        self.run("BEGIN")

    def streamed(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as SQLite finds them."""
        yield from self._connection.execute(query, values)

    def lock_and_drop(self, table: str, mark: Mark) -> bool:
        """In one transaction."""
        self.run("BEGIN IMMEDIATE")
        try:
            same = self._is_marked(table, mark)
            if same:
                self.run(f"DROP TABLE {self.quoted(table)}")
            self.run("COMMIT")
        except sqlite3.Error:
            self.run("ROLLBACK")
            raise
        return same

    def delete(self, statement: str) -> int:
        """Carry out a DELETE and say how many rows went."""
        count: int = self._connection.execute(statement).rowcount
        return count

    def ddl(self, table: str, columns: Sequence[Column]) -> Iterable[str]:
        """What makes *table*."""
        from homerd_plugins import _sqlite

        return _sqlite.ddl(table, columns)


class PostgresTables(StoreTables):
    """A database of PostgreSQL."""

    kind = POSTGRES
    only = "ONLY "  # children of a table are tables that are read themselves

    def __init__(self, *arguments: Any) -> None:
        import psycopg

        super().__init__(*arguments)
        self.errors = (psycopg.Error,)

    def connected(self) -> Any:
        """A session in UTC that reads each table from its beginning and waits for no lock long."""
        from homerd_plugins import _postgres

        connection = _postgres.connected(self.address)
        connection.execute("SET synchronize_seqscans = off")
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        return connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        cursor = self._connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def listed(self) -> list[str]:
        """Tables and partitions of the search path; what is divided holds no rows itself."""
        return [
            name
            for (name,) in self.run(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
                " AND relnamespace <> 'pg_catalog'::regnamespace"
                " AND relnamespace <> 'information_schema'::regnamespace"
            )
        ]

    def shape(self, table: str) -> list[ArchiveColumn]:
        """The columns of *table*."""
        rows = self.run(
            "SELECT attname, format_type(atttypid, atttypmod), format_type(atttypid, NULL)"
            " FROM pg_attribute WHERE attrelid = to_regclass(%s)"
            " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            [self.quoted(table)],
        )
        return [
            ArchiveColumn(name, type, POSTGRES_TYPES.get(base, "other"))
            for name, type, base in rows
        ]

    def parent(self, table: str) -> str:
        """Of a partition, the table it is a part of."""
        rows = self.run(
            "SELECT p.relname FROM pg_inherits JOIN pg_class p ON p.oid = inhparent"
            " WHERE inhrelid = to_regclass(%s)",
            [self.quoted(table)],
        )
        return rows[0][0] if rows else table

    def begin_snapshot(self) -> None:
        """A transaction that sees the store as it is now."""
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def selected(self, column: ArchiveColumn) -> str:
        """Times without zone, and all that is neither number nor bytes as text."""
        name = self.quoted(column.name)
        if column.kind in ("integer", "real", "bytes"):
            return name
        if column.type.endswith("with time zone") and column.kind == "time":
            return f"({name} AT TIME ZONE 'UTC')::text"
        return f"{name}::text"

    def streamed(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Row by row as the server sends them."""
        with self._connection.cursor() as cursor:
            yield from cursor.stream(query, list(values) or None)

    def rows_at(
        self, table: str, columns: Sequence[ArchiveColumn], time: str, times: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Rows whose column *time* is one of *times*, those of partitions too."""
        names = ", ".join(map(self.selected, columns))
        kind = next(column.type for column in columns if column.name == time)
        array = "timestamptz[]" if kind.endswith("with time zone") else "timestamp[]"
        with self._told():
            yield from self.streamed(
                f"SELECT {names} FROM {self.quoted(table)}"
                f" WHERE {self.quoted(time)} = ANY(%s::{array})",
                [list(times)],
            )

    def lock_and_drop(self, table: str, mark: Mark) -> bool:
        """In one transaction, in which others may read."""
        from homerd_plugins import _postgres

        name = self.quoted(table)
        self.run("BEGIN")
        try:
            self.run(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")
            same = self._is_marked(table, mark)
            if same:
                _postgres.drop(self.run, name)
            self.run("COMMIT")
        except self.errors:
            with contextlib.suppress(*self.errors):
                self.run("ROLLBACK")
            raise
        return same

    def delete(self, statement: str) -> int:
        """Carry out a DELETE and say how many rows went."""
        count: int = self._connection.execute(statement).rowcount
        return count

    def ddl(self, table: str, columns: Sequence[Column]) -> Iterable[str]:
        """What makes *table*."""
        from homerd_plugins import _postgres

        return _postgres.ddl(table, columns)

    def lock_import(self) -> bool:
        """Be the only one who imports while connected; False when somebody else does."""
        return bool(self.run("SELECT pg_try_advisory_lock(hashtext('homerd import'))")[0][0])


class MysqlTables(StoreTables):
    """A database of MariaDB or MySQL."""

    kind = MYSQL

    def __init__(self, *arguments: Any) -> None:
        import pymysql

        super().__init__(*arguments)
        self.errors = (pymysql.MySQLError, OSError)

    def connected(self) -> Any:
        """A session in UTC that waits for no lock long."""
        from homerd_plugins import _mysql

        connection = _mysql.connected(self.address, ANSWER_SECONDS)
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_wait_timeout = {LOCK_SECONDS}")
        return connection

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Carry out a statement and give its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def listed(self) -> list[str]:
        """The tables of the database, without views."""
        rows = self.run("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
        return [name for name, _ in rows]

    def shape(self, table: str) -> list[ArchiveColumn]:
        """The columns of *table*."""
        rows = self.run(
            "SELECT column_name, column_type, data_type FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
            [table],
        )
        return [
            ArchiveColumn(name, type, _MYSQL_KINDS.get(base.lower(), "other"))
            for name, type, base in rows
        ]

    def begin_snapshot(self) -> None:
        """A transaction that sees the store as it is now."""
        self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def quoted(self, name: str) -> str:
        """A table or column for SQL."""
        return "`" + name.replace("`", "``") + "`"

    def selected(self, column: ArchiveColumn) -> str:
        """Times and all that is neither number, text nor bytes as text."""
        name = self.quoted(column.name)
        as_is = column.kind in ("integer", "real", "text", "bytes")
        return name if as_is else f"CAST({name} AS CHAR)"

    def streamed(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Row by row as the server sends them."""
        from pymysql.cursors import SSCursor

        with self._connection.cursor(SSCursor) as cursor:
            cursor.execute(query, values or None)
            yield from cursor.fetchall_unbuffered()

    def lock_and_drop(self, table: str, mark: Mark) -> bool:
        """Under a lock, for want of transactions that take a DROP."""
        name = self.quoted(table)
        self.run(f"LOCK TABLES {name} WRITE")
        try:
            same = self._is_marked(table, mark)
            if same:
                self.run(f"DROP TABLE {name}")
        finally:
            self.run("UNLOCK TABLES")
        return same

    def delete(self, statement: str) -> int:
        """Carry out a DELETE and say how many rows went."""
        with self._connection.cursor() as cursor:
            count: int = cursor.execute(statement)
        return count

    def ddl(self, table: str, columns: Sequence[Column]) -> Iterable[str]:
        """What makes *table*."""
        from homerd_plugins import _mysql

        yield _mysql.ddl(table, columns)

    def lock_import(self) -> bool:
        """Be the only one who imports while connected; False when somebody else does."""
        return bool(self.run("SELECT GET_LOCK('homerd import', 0)")[0][0])


_MYSQL_KINDS = {
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), "integer"),
    **dict.fromkeys(("float", "double"), "real"),
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob"), "bytes"),
    **dict.fromkeys(("binary", "varbinary"), "bytes"),
    **dict.fromkeys(("timestamp", "datetime"), "time"),
}


_STORES: dict[str, type[StoreTables]] = {
    SQLITE: SqliteTables,
    POSTGRES: PostgresTables,
    MYSQL: MysqlTables,
}


def has_tables(address: Any) -> bool:
    """Whether the store at *address* has tables, not files."""
    return address.store in _STORES


def tables_of(mode: str, source: str, address: Any, layouts: Sequence[Any]) -> StoreTables:
    """The tables of the store at *address*; raises ConfigError for one without tables."""
    if not has_tables(address):
        raise ConfigError(f"{source}: a store of files, which are archives of their own")
    return _STORES[address.store](mode, source, address, layouts)


def time_column(columns: Sequence[ArchiveColumn]) -> ArchiveColumn:
    """The column of a row's time; raises ArchiveError for what is no table of messages."""
    by_key = {column.key or column.name.lower(): column for column in columns}
    for key in TIMES:
        if key in by_key and any(body in by_key for body in _BODIES):
            return by_key[key]
    raise ArchiveError("it has no columns of a captured message: date and msg, or create_date, raw")


def is_captured(columns: Sequence[ArchiveColumn]) -> bool:
    """Whether these are the columns of captured messages."""
    try:
        time_column(columns)
    except ArchiveError:
        return False
    return True


def _renamed(layouts: Sequence[Sequence[Column]]) -> dict[str, str]:
    """Names the operator gave to columns -> their keys."""
    return {
        column.renamed.lower(): column.key
        for layout in layouts
        for column in layout
        if column.renamed
    }


def _sqlite_kind(type: str) -> str:
    """What a declared type is, by SQLite's own rules as far as they tell numbers."""
    if "INT" in type:
        return "integer"
    return "real" if any(each in type for each in ("REAL", "FLOA", "DOUB")) else "text"


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
