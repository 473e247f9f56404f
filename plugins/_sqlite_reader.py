"""Reading stored messages from an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from homerd.api import ConfigError
from homerd_plugins._homer5 import Column
from homerd_plugins._reader import Described, Reader, Table
from homerd_plugins._stores import Address

BUSY_SECONDS = 5.0

_SQLITE_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_SQLITE_COLUMNS = "SELECT name FROM pragma_table_info(?)"
_SQLITE_INDEXES = (
    "SELECT c.seqno, c.name FROM pragma_index_list(?) AS i, pragma_index_info(i.name) AS c"
)


class SqliteReader(Reader):
    """An SQLite file."""

    mark = "?"
    errors = (sqlite3.Error, UnicodeError)

    def __init__(self, address: Address, source: str, layout: Sequence[Column]) -> None:
        super().__init__(address, source, layout)
        self.path = self.where = address.database
        self._connection: sqlite3.Connection | None = None

    def connect(self) -> None:
        if not Path(self.path).is_file():
            raise ConfigError(f"{self.source}: no such database")
        self._connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode=ro", uri=True, timeout=BUSY_SECONDS
        )
        self._connection.text_factory = _text_or_bytes

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        return self._connection.execute(statement, values).fetchall()

    def described(self, name: str = "") -> Iterator[Described]:
        one = " AND name = ? COLLATE NOCASE" if name else ""
        for (table,) in self.run(_SQLITE_TABLES + one, [name] if name else []):
            columns = {column: "" for (column,) in self.run(_SQLITE_COLUMNS, [table])}
            # The first of an index, or the second behind homerd's bucket, which has no name.
            indexed = {column for place, column in self.run(_SQLITE_INDEXES, [table]) if place < 2}
            yield Described(table, columns, columns, indexed)

    def find_tables(self) -> Iterator[Table]:
        for table in super().find_tables():
            if table.time is not None and not self._is_text(table.name, table.time):
                table.time = None
            yield table

    def _is_text(self, table: str, date: str) -> bool:
        """Whether `date` is text that sorts as time does; Kamailio writes a Julian day."""
        kind = f"SELECT typeof({self.quoted(date)}) FROM {self.quoted(table)} LIMIT 1"
        return (self.run(kind) or [("text",)])[0][0] == "text"

    def is_gone(self, error: Exception) -> bool:
        return str(error).startswith("no such table")

    def begins(self, expression: str, start: str) -> tuple[str, list[str]]:
        # LIKE takes upper and lower case for the same, and finds no index.
        return f"{expression} >= ? AND {expression} < ?", [start, start + "\U0010ffff"]

    def moments(
        self, table: Table, sign: str, moment: int, has_keys: bool
    ) -> Iterator[tuple[str, Any]]:
        if table.time is not None and not has_keys:
            yield self.time_condition(table, sign, moment)
        yield f"{self.expression(table, 'micro_ts')} {sign} ?", moment

    def order(self, table: Table, has_keys: bool) -> str:
        micros = self.expression(table, "micro_ts")
        if table.time is None or has_keys:
            return f"+{micros} DESC"  # "+" keeps a key's index from losing to that of the time
        return f"{self.quoted(table.time)} DESC, {micros} DESC"


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
