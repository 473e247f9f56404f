"""Reading stored messages from PostgreSQL, MariaDB and MySQL."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from homerd_plugins._homer5 import Column
from homerd_plugins._reader import Described, Key, Reader, Table
from homerd_plugins._stored import MICROS, Cells, Homer7Table, micros_of
from homerd_plugins._stores import Address

ANSWER_SECONDS, HANG_SECONDS = 60.0, 5.0
NO_SUCH_TABLE = 1146

# How far back the newest rows are looked for, as long as there are not enough of them.
WINDOWS = (8, 64, 512, 4096, 32768)
OF_A_CALL = ("callid", "callid_aleg", "correlation_id")

_HOMER7_SIP = re.compile(r"hep_proto_1_[a-z0-9]+", re.A)

_VISIBLE = (
    "c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)"
    " AND c.relnamespace <> 'pg_catalog'::regnamespace"
    # Partitions, of either kind, are read through their table.
    " AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)"
    " AND has_table_privilege(c.oid, 'SELECT')"
)
_POSTGRES_COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    f" WHERE {_VISIBLE}"
)
_POSTGRES_INDEXES = (
    "SELECT c.relname, a.attname FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
    f" WHERE i.indisvalid AND {_VISIBLE}"
)
_MYSQL_COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns"
    " WHERE table_schema = DATABASE()"
)
_MYSQL_INDEXES = (
    "SELECT table_name, column_name FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND seq_in_index = 1"
)


class ServerReader(Reader):
    """A database server."""

    def _search(
        self,
        table: Table,
        keys: Sequence[Key],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> list[Cells]:
        """The newest rows are looked for in more and more of the table, until there are enough.

        A BRIN cannot be read backwards by time, `date` alone does not tell which of a second's
        messages is the newest, and a number that half of all calls go to has too many rows to sort.
        """
        if self.is_walked(table, keys):
            last = self._last(table)
            if last is not None:
                last = last if until is None else min(last, until)
                for seconds in WINDOWS:
                    begin = last - seconds * MICROS
                    if since is not None and begin <= since:
                        break
                    found = super()._search(table, keys, begin, until, limit)
                    if len(found) >= limit:
                        return found
        return super()._search(table, keys, since, until, limit)

    def is_walked(self, table: Table, keys: Sequence[Key]) -> bool:
        """Whether the newest rows are not found at once: of a call there are but a few."""
        is_of_call = any(part in OF_A_CALL and not is_begin for part, _, is_begin in keys)
        return table.time is not None and not is_of_call and bool(keys or not table.is_exact)

    def _last(self, table: Table) -> int | None:
        """The time of the row that came last."""
        if isinstance(table, Homer7Table):
            order, time = "create_date", "create_date"
        else:
            order, time = self.quoted(table.id), self.expression(table, "micro_ts")
        name = self.quoted(table.name)
        rows = self.run(f"SELECT {time} FROM {name} ORDER BY {order} DESC LIMIT 1")
        if not rows or rows[0][0] is None:
            return None
        return micros_of(rows[0][0]) if table.is_exact else int(rows[0][0])


class PostgresReader(ServerReader):
    """PostgreSQL."""

    def __init__(self, address: Address, source: str, layout: Sequence[Column]) -> None:
        import psycopg

        super().__init__(address, source, layout)
        self.address = address
        self.errors = (psycopg.Error, UnicodeError)
        self._gone = psycopg.errors.UndefinedTable
        self._connection: Any = None  # a psycopg.Connection

    def connect(self) -> None:
        from homerd_plugins._postgres import connected

        self._connection = connected(self.address)
        self.run("SET default_transaction_read_only = on")
        self.run(f"SET statement_timeout = {round(ANSWER_SECONDS * 1000)}")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # The server itself ends what takes too long; the timer is for one that hangs.
        timer = threading.Timer(ANSWER_SECONDS + HANG_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        try:
            cursor = self._connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
        finally:
            timer.cancel()

    def _cut(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)

    def described(self, name: str = "") -> Iterator[Described]:
        one, values = (" AND c.relname = %s", [name.lower()]) if name else ("", [])
        indexed: dict[str, set[str]] = {}
        for table, column in self.run(_POSTGRES_INDEXES + one, values):
            indexed.setdefault(table, set()).add(column)
        tables: dict[str, dict[str, str]] = {}
        for table, column, kind in self.run(_POSTGRES_COLUMNS + one, values):
            tables.setdefault(table, {})[column] = kind
        for table, kinds in tables.items():
            times = {column for column, kind in kinds.items() if kind.startswith("timestamp")}
            yield Described(table, kinds, times, indexed.get(table, set()))

    def find_tables(self) -> Iterator[Table]:
        for found in self.described():
            if _HOMER7_SIP.fullmatch(found.name) and found.columns.get("data_header") == "jsonb":
                yield Homer7Table(found.name)
            else:
                yield from self.homer5_table(*found)

    def is_gone(self, error: Exception) -> bool:
        return isinstance(error, self._gone)

    def order(self, table: Table, has_keys: bool) -> str:
        if not isinstance(table, Homer7Table):
            return super().order(table, has_keys)
        # A sum keeps a key's index from losing to that of the time.
        return "create_date + interval '0' DESC" if has_keys else "create_date DESC"


class MysqlReader(ServerReader):
    """MariaDB or MySQL."""

    def __init__(self, address: Address, source: str, layout: Sequence[Column]) -> None:
        import pymysql

        super().__init__(address, source, layout)
        self.address = address
        self.errors = (pymysql.MySQLError, OSError, UnicodeError)
        self._connection: Any = None  # a pymysql.Connection

    def connect(self) -> None:
        from homerd_plugins._mysql import connected

        self._connection = connected(self.address, ANSWER_SECONDS)
        self.run("SET SESSION TRANSACTION READ ONLY")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def described(self, name: str = "") -> Iterator[Described]:
        one, values = (" AND table_name = %s", [name]) if name else ("", [])
        indexed: dict[str, set[str]] = {}
        for table, column in self.run(_MYSQL_INDEXES + one, values):
            indexed.setdefault(table, set()).add(column)
        tables: dict[str, dict[str, str]] = {}
        for table, column, kind in self.run(_MYSQL_COLUMNS + one, values):
            tables.setdefault(table, {})[column] = kind.lower()
        for table, kinds in tables.items():
            times = {column for column, kind in kinds.items() if kind in ("timestamp", "datetime")}
            yield Described(table, kinds, times, indexed.get(table, set()))

    def is_gone(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == NO_SUCH_TABLE

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    # Most collations take A and a for the same.  The plain comparison finds the index, that of
    # bytes what is meant.

    def exact(self, expression: str) -> str:
        return f"CONVERT({expression} USING utf8mb4) COLLATE utf8mb4_bin"

    def equal(self, expression: str, values: Sequence[str]) -> tuple[str, list[str]]:
        plain, bound = super().equal(expression, values)
        exact, _ = super().equal(self.exact(expression), values)
        return f"{plain} AND {exact}", bound * 2

    def begins(self, expression: str, start: str) -> tuple[str, list[str]]:
        plain, bound = super().begins(expression, start)
        exact, _ = super().begins(self.exact(expression), start)
        return f"{plain} AND {exact}", bound * 2
