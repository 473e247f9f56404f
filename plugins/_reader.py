"""Reading stored messages: a reader for each kind of database.

Searches use the indexes whatever the tables' size: a key (Call-ID, user) is looked up first and the
time is only compared, a time alone is looked up by the time's index.  Nothing is written: a user
who may only read is enough.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from homerd.api import ConfigError
from homerd_plugins._homer5 import Column
from homerd_plugins._serversink import one_line
from homerd_plugins._stored import READ, Cells, Homer5Table, Homer7Table, time_of
from homerd_plugins._stores import POSTGRES, SQLITE, Address

Table = Homer5Table | Homer7Table
Key = tuple[str, Sequence[str], bool]  # part, values of which one must fit, whether as beginnings


class Described(NamedTuple):
    """A table as the database has it.

    columns: the type of each, where that matters.  times, indexed: which of them hold a time, and
    which an index begins with.
    """

    name: str
    columns: Mapping[str, str]
    times: Container[str]
    indexed: Container[str]


class Reader:
    """A database of captured messages, opened for reading.

    where: the database without its password.  source: what the operator wrote, for messages.
    tables: those of SIP messages, newest day first.
    """

    mark = "%s"
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, address: Address, source: str, layout: Sequence[Column]) -> None:
        self.where = address.shown
        self.source = source
        self.layout = layout
        self.tables: list[Table] = []

    # What a database's own reader gives

    def connect(self) -> None:
        """Connect; any of `errors` when that fails."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the connection."""
        raise NotImplementedError

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a question."""
        raise NotImplementedError

    def described(self, name: str = "") -> Iterator[Described]:
        """The tables there are, or the one of that name."""
        raise NotImplementedError

    def find_tables(self) -> Iterator[Table]:
        """The tables of messages."""
        for found in self.described():
            yield from self.homer5_table(*found)

    def is_gone(self, error: Exception) -> bool:
        """Whether a table is not there any more."""
        raise NotImplementedError

    def quoted(self, name: str) -> str:
        """A table or column for SQL."""
        return '"' + name.replace('"', '""') + '"'

    def equal(self, expression: str, values: Sequence[str]) -> tuple[str, list[str]]:
        """The condition that *expression* is one of *values*."""
        if len(values) == 1:
            return f"{expression} = {self.mark}", [values[0]]
        return f"{expression} IN ({', '.join([self.mark] * len(values))})", list(values)

    def exact(self, expression: str) -> str:
        """*expression* such that only equal texts are taken for the same."""
        return expression

    def begins(self, expression: str, start: str) -> tuple[str, list[str]]:
        """The condition that *expression* begins with *start*."""
        return f"{expression} LIKE {self.mark} ESCAPE '|'", [f"{_escaped(start)}%"]

    def homer5_table(
        self, name: str, columns: Iterable[str], times: Container[str], indexed: Container[str]
    ) -> Iterator[Homer5Table]:
        """The table when messages are in it; of its columns, those that are times or indexed."""
        by_name = {column.lower(): column for column in columns}
        table = Homer5Table(name, by_name, self.layout, times=times, indexed=indexed)
        if table.is_of_messages:
            yield table

    # What is asked of it

    def open(self) -> None:
        """Connect and see which tables there are; raises ConfigError."""
        try:
            with self.faults():
                self.connect()
                self.tables = list(self.find_tables())
        except ConfigError:
            self.close()
            raise
        self.tables.sort(key=lambda table: table.until or 1 << 63, reverse=True)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn the database's errors into ConfigError, in one line."""
        try:
            yield
        except self.errors as error:
            raise ConfigError(f"{self.source}: {one_line(error)}") from error

    def search(
        self,
        keys: Sequence[Key],
        since: int | None,
        until: int | None,
        limit: int,
        *,
        by_index: bool = False,
    ) -> list[Cells]:
        """The newest *limit* messages of which all *keys* hold, in the order of time.

        since, until: microseconds since 1970; the second is not part of it.
        by_index: leave out tables that have no index of the keys.  Raises ConfigError.
        """
        found: list[Cells] = []
        for table in self.tables:
            if table.until is not None and (
                (since is not None and table.until <= since)
                or (len(found) == limit and table.until <= found[0]["micro_ts"])
            ):
                continue
            if by_index and not all(column in table.indexed for column, *_ in keys):
                continue
            try:
                found += self._search(table, keys, since, until, limit)
            except self.errors as error:
                if self.is_gone(error):
                    continue
                raise ConfigError(f"{self.source}: {one_line(error)}") from error
            found.sort(key=lambda cells: (cells["micro_ts"], cells["id"]))
            del found[:-limit]
        return found

    def _search(
        self,
        table: Table,
        keys: Sequence[Key],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> list[Cells]:
        query = self.query(table, keys, since, until, limit)
        if query is None:
            return []
        return [table.cells(row) for row in self.run(*query)]

    def query(
        self,
        table: Table,
        keys: Sequence[Key],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> tuple[str, list[Any]] | None:
        """The SQL for one table and its values; None when the table lacks a part."""
        conditions: list[str] = []
        values: list[Any] = []
        for part, wanted, is_begin in keys:
            expression = self.expression(table, part)
            if expression is None:
                return None
            match = self.begins(expression, wanted[0]) if is_begin else None
            condition, bound = match or self.equal(expression, wanted)
            conditions += [condition, *self.index_conditions(table, part)]
            values += bound
        for sign, moment in ((">=", since), ("<", until)):
            if moment is not None:
                for condition, value in self.moments(table, sign, moment, bool(keys)):
                    conditions.append(condition)
                    values.append(value)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return (
            f"SELECT {self.selected(table)} FROM {self.quoted(table.name)}{where}"
            f" ORDER BY {self.order(table, bool(keys))} LIMIT {limit}"
        ), values

    def expression(self, table: Table, part: str) -> str | None:
        """Where a part of a message is, in SQL."""
        if isinstance(table, Homer7Table):
            return table.expression(part)
        column = table.column.get(part)
        return None if column is None else self.quoted(column)

    def selected(self, table: Table) -> str:
        """What `table.cells` reads."""
        if isinstance(table, Homer7Table):
            return "id, create_date, sid, protocol_header, data_header, raw"
        parts = (self.expression(table, part) for part in READ)
        return ", ".join([self.quoted(table.id), *(part or "NULL" for part in parts)])

    def moments(
        self, table: Table, sign: str, moment: int, has_keys: bool
    ) -> Iterator[tuple[str, Any]]:
        """Conditions of a time: exact, and such that an index is of use."""
        if table.time is not None:
            yield self.time_condition(table, sign, moment)
        if not table.is_exact:
            yield f"{self.expression(table, 'micro_ts')} {sign} {self.mark}", moment

    def time_condition(self, table: Table, sign: str, moment: int) -> tuple[str, Any]:
        """The same for the column that has an index."""
        time = self.quoted(table.time or "")
        if table.is_exact:
            return f"{time} {sign} {self.mark}", time_of(moment)
        # The whole second of the moment; micro_ts then tells exactly.
        sign = ">=" if sign == ">=" else "<="
        return f"{time} {sign} {self.mark}", _second(moment)

    def order(self, table: Table, has_keys: bool) -> str:
        """Newest first."""
        return f"{self.expression(table, 'micro_ts')} DESC"

    def index_conditions(self, table: Table, part: str) -> list[str]:
        """The conditions of partial indexes, without which they may not be used."""
        if isinstance(table, Homer7Table) or part not in ("callid_aleg", "correlation_id"):
            return []
        column = self.expression(table, part)
        other = self.expression(table, "callid") if part == "correlation_id" else "''"
        return [f"{column} <> {other}"]


def reader_of(address: Address, source: str, layout: Sequence[Column]) -> Reader:
    """Who reads from *address*; drivers are imported here."""
    if address.store == SQLITE:
        from homerd_plugins._sqlite_reader import SqliteReader

        return SqliteReader(address, source, layout)
    from homerd_plugins._server_readers import MysqlReader, PostgresReader

    kind = PostgresReader if address.store == POSTGRES else MysqlReader
    return kind(address, source, layout)


def _escaped(start: str) -> str:
    return re.sub("([|%_])", r"|\1", start)


def _second(micros: int) -> str:
    return time_of(micros).strftime("%Y-%m-%d %H:%M:%S")
