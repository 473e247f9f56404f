"""The stores that scripts have SQL for: the drivers of SQLite, PostgreSQL and MySQL.

A driver is imported when an address asks for it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from homerd.api import Value
from homerd_plugins import _mysql, _postgres, _sqlite
from homerd_plugins._partitions import LOCK
from homerd_plugins._sqltext import MYSQL, POSTGRES, SQLITE
from homerd_plugins._stores import Address

MOST_ROWS = 10_000
BATCH_DAYS = 7  # as long as sipcapture keeps them in the same table


class Answer:
    """Rows that came back; values are as the driver gives them, or text.

    affected: rows the statement changed.
    """

    __slots__ = ("affected", "columns", "rows")

    def __init__(
        self, columns: Sequence[str] = (), rows: Sequence[Sequence[Value]] = (), affected: int = 0
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.affected = affected


class Store:
    """A driver; connections commit each statement unless BEGIN is run.

    ends_transaction: a statement that ends the transaction it stands in.
    """

    begin = "BEGIN"
    failure_ends_transaction = False
    ends_transaction = re.compile(r"\s*(?:begin|start|commit|end|rollback)\b", re.I)
    errors: tuple[type[Exception], ...] = ()
    folder: Path | None = None

    def __init__(self, address: Address) -> None:
        self.address = address

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        """Connect within *seconds*; statements may take *answer_seconds*, 0 for any time."""
        raise NotImplementedError

    def run(self, connection: Any, text: str) -> None:
        """Carry out a statement whose rows nobody wants."""
        cursor = connection.cursor()
        try:
            cursor.execute(text)
        finally:
            cursor.close()

    def ask(self, connection: Any, text: str, most: int = MOST_ROWS) -> Answer:
        """Carry out a statement and take its rows, *most* of them."""
        cursor = connection.cursor()
        try:
            cursor.execute(text)
            if cursor.description is None:
                return Answer(affected=max(0, cursor.rowcount))
            rows = cursor.fetchmany(most)
            columns = [column[0] for column in cursor.description]
            return Answer(columns, [tuple(map(_value, row)) for row in rows])
        finally:
            cursor.close()

    def interrupt(self, connection: Any) -> None:
        """Make a statement end that takes too long; called from another thread."""

    def is_away(self, error: Exception) -> bool:
        """Whether the store, and no statement, is at fault."""
        raise NotImplementedError

    def unique_keys(self, connection: Any, table: str) -> list[list[str]]:
        """The unique keys of *table*, the primary one first."""
        return []

    def keep_batches(self, connection: Any) -> None:
        """Make the table of batches' ids, which sipcapture's is, and clear it of old ones."""
        raise NotImplementedError

    def claim(self, connection: Any, batch_id: str) -> bool:
        """Note *batch_id* within the transaction; False when it is there already."""
        raise NotImplementedError


class _Sqlite(Store):
    begin = "BEGIN IMMEDIATE"

    def __init__(self, address: Address) -> None:
        import sqlite3

        super().__init__(address)
        self.driver = sqlite3
        self.folder = Path(address.database).parent
        # ValueError: a NUL in the text; ProgrammingError is an sqlite3.Error
        self.errors = (sqlite3.Error, ValueError, OverflowError)
        self._at_fault = (
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_TOOBIG,
            sqlite3.SQLITE_CONSTRAINT,
            sqlite3.SQLITE_MISMATCH,
            sqlite3.SQLITE_MISUSE,
            sqlite3.SQLITE_RANGE,
            sqlite3.SQLITE_INTERRUPT,
            sqlite3.SQLITE_AUTH,
        )

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        connection = self.driver.connect(
            self.address.database,
            timeout=answer_seconds or seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        if answer_seconds:
            return connection
        try:
            # A reader beside a writer, as sipcapture has it for the same file.
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("PRAGMA synchronous=NORMAL").fetchall()
        except self.driver.Error:
            connection.close()
            raise
        return connection

    def interrupt(self, connection: Any) -> None:
        if connection is not None:
            connection.interrupt()

    def is_away(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", self.driver.SQLITE_MISUSE)
        return code & 0xFF not in self._at_fault

    def keep_batches(self, connection: Any) -> None:
        _sqlite.keep_batches(connection, BATCH_DAYS * 86400)

    def claim(self, connection: Any, batch_id: str) -> bool:
        return _sqlite.claim(connection, batch_id)


class _Postgres(Store):
    failure_ends_transaction = True
    # Connections, resources, an operator's interruption, deadlocks; the rest is the statement's.
    _AWAY = ("08", "53", "55P03", "57P", "40001", "40P01")

    def __init__(self, address: Address) -> None:
        import psycopg

        super().__init__(address)
        self.driver = psycopg
        self.errors = (psycopg.Error, UnicodeError)

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        limit = f" -c statement_timeout={int(answer_seconds * 1000)}" if answer_seconds else ""
        options = f"-c standard_conforming_strings=on{limit}"
        return _postgres.connected(self.address, options, seconds)

    def is_away(self, error: Exception) -> bool:
        state = getattr(error, "sqlstate", None)
        if state is None:
            return isinstance(error, self.driver.OperationalError | self.driver.InterfaceError)
        return bool(state.startswith(self._AWAY))

    def unique_keys(self, connection: Any, table: str) -> list[list[str]]:
        cursor = connection.execute(
            "SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i"
            " CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place)"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number"
            " WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indpred IS NULL"
            " AND NOT 0 = ANY(i.indkey)"
            " GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid",
            (table,),
        )
        return [list(names) for (names,) in cursor.fetchall()]

    def keep_batches(self, connection: Any) -> None:
        with connection.transaction():
            connection.execute(LOCK)
            for statement in _postgres.BATCHES:
                connection.execute(statement)

    def claim(self, connection: Any, batch_id: str) -> bool:
        noted = connection.execute(
            "INSERT INTO homerd_batches (batch) VALUES (%s) ON CONFLICT DO NOTHING", (batch_id,)
        )
        return bool(noted.rowcount)


class _Mysql(Store):
    ends_transaction = re.compile(
        r"\s*(?:begin|start|commit|rollback|alter|analyze|create|drop|flush|grant|lock|optimize"
        r"|rename|repair|revoke|set\s+(?:@@)?autocommit|truncate|unlock|load|call)\b",
        re.I,
    )
    # Too many connections, shut down, lost, refused, lock wait, deadlock.
    _AWAY = frozenset({1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013, 2014, 2055})

    def __init__(self, address: Address) -> None:
        import pymysql

        super().__init__(address)
        self.driver = pymysql
        self.errors = (pymysql.MySQLError, OSError, UnicodeError)

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        limit = max(1, round(answer_seconds)) if answer_seconds else 0
        return _mysql.connected(self.address, limit, session="", seconds=seconds)

    def is_away(self, error: Exception) -> bool:
        if isinstance(error, self.driver.InterfaceError | OSError):
            return True
        code = error.args[0] if error.args else 0
        return isinstance(error, self.driver.MySQLError) and code in self._AWAY

    def keep_batches(self, connection: Any) -> None:
        for statement in _mysql.BATCHES:
            self.run(connection, statement)

    def claim(self, connection: Any, batch_id: str) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("INSERT IGNORE INTO homerd_batches (batch) VALUES (%s)", (batch_id,))
            return bool(cursor.rowcount)


_STORES: dict[str, Callable[[Address], Store]] = {
    SQLITE: _Sqlite,
    POSTGRES: _Postgres,
    MYSQL: _Mysql,
}


def store_of(address: Address) -> Store:
    """The driver for *address*, imported now."""
    return _STORES[address.store](address)


def _value(value: object) -> Value:
    """A driver's value as the script's: whole numbers, text, null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    return str(value)
