"""Reading stored quality reports: the table of qos_capture(), for `homerd qos`.

A report is a dictionary of the table's columns, None for what it does not say or the table has no
column for.  Calls and their reports are found by the indexes of the time and of the Call-ID.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from homerd.api import ConfigError
from homerd_plugins._homer5 import BIGINT, INTEGER, REAL, TEXT, Column
from homerd_plugins._qos_rows import QOS_COLUMNS
from homerd_plugins._reader import Key, Reader, reader_of
from homerd_plugins._stored import Cells, Homer5Table, text
from homerd_plugins._stores import Address, store_of_url, without_password

READ = tuple(column for column in QOS_COLUMNS if column.key != "date")
_TEXTS = frozenset(column.key for column in QOS_COLUMNS if column.type == TEXT)
_WHOLE = (INTEGER, BIGINT)
# What a whole call is shown with: the worst of its reports.
WORST = {"mos": "MIN", "loss": "MAX", "jitter": "MAX", "rtt": "MAX"}
# What one report of a call may tell and another not.
_SAID = ("codec", "trunk", "user_agent")

Limit = tuple[str, float]  # a part of WORST, and what it is worse than


class QosReader:
    """A database with a table of quality reports, opened for reading.

    where: the database without its password.
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self.where = reader.where
        self.name = name
        self._reader = reader
        self._table = Homer5Table(name, {}, ())

    def open(self) -> None:
        """Connect and see the table; raises ConfigError."""
        reader = self._reader
        with reader.faults():
            reader.connect()
            found = next(reader.described(self.name), None)
        if found is None:
            raise ConfigError(
                f"no table {self.name} that may be read in {self.where}:"
                " qos_capture() in the script makes it"
            )
        by_name = {column.lower(): column for column in found.columns}
        self._table = Homer5Table(
            found.name, by_name, QOS_COLUMNS, times=found.times, indexed=found.indexed
        )
        if not {"micro_ts", "call_id"} <= self._table.column.keys():
            raise ConfigError(f"{self.where}: table {self.name} is none of qos_capture()")

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()

    def call(
        self, call_id: str, since: int | None, until: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest *limit* reports of a call, in the order of time; raises ConfigError.

        Of one that is no known call, those whose correlation id it is.
        """
        found = self._reports((("call_id", [call_id], False),), since, until, limit)
        if not found and call_id:
            keys = (("call_id", [""], False), ("correlation_id", [call_id], False))
            found = self._reports(keys, since, until, limit)
        return found[::-1]

    def has_call(self, call_id: str) -> bool:
        """Whether there are reports of a call."""
        return bool(self._reports((("call_id", [call_id], False),), None, None, 1))

    def without_call(
        self,
        keys: Sequence[Key],
        limits: Sequence[Limit],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> list[Cells]:
        """Reports that belong to no known call, the worst first."""
        where, values = self._where((("call_id", [""], False), *keys), limits, since, until)
        statement = (
            f"SELECT {self._all} FROM {self._name}{where}"
            f" ORDER BY {self._worst_first(limits)} LIMIT {limit}"
        )
        return [_cells(row, READ) for row in self._run(statement, values)]

    def count_without_call(
        self, keys: Sequence[Key], limits: Sequence[Limit], since: int | None, until: int | None
    ) -> int:
        """How many there are of them."""
        where, values = self._where((("call_id", [""], False), *keys), limits, since, until)
        return int(self._run(f"SELECT COUNT(*) FROM {self._name}{where}", values)[0][0])

    def worst(
        self,
        keys: Sequence[Key],
        limits: Sequence[Limit],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> list[Cells]:
        """Calls with a report of which all *keys* and *limits* hold, the worst first.

        A call is the one of these reports that has its worst MOS, with `reports`, their number, and
        the worst of WORST among them.
        """
        where, values = self._where(keys, limits, since, until, has_call=True)
        call = f"PARTITION BY {self._reader.exact(self._part('call_id'))}"
        place = f"ROW_NUMBER() OVER ({call} ORDER BY {self._worst_first(())})"
        parts = [self._of_call(column, call) for column in READ]
        inner = (
            f"SELECT {', '.join(parts)}, COUNT(*) OVER ({call}) AS reports, {place} AS place"
            f" FROM {self._name}{where}"
        )
        names = ", ".join(_of_call_named(column.key) for column in READ)
        order = self._worst_first(limits, named=True)
        statement = (
            f"SELECT {names}, reports FROM ({inner}) AS calls WHERE place = 1"
            f" ORDER BY {order} LIMIT {limit}"
        )
        return [_cells(row, (*READ, _REPORTS)) for row in self._run(statement, values)]

    def groups(
        self,
        by: str,
        keys: Sequence[Key],
        limits: Sequence[Limit],
        since: int | None,
        until: int | None,
        limit: int,
    ) -> list[Cells]:
        """All reports by their *by*, the group with the worst mean MOS first.

        bad: calls with a report of which all *limits* hold.
        """
        where, values = self._where(keys, (), since, until)
        beyond, bounds = self._beyond(limits)
        call = self._reader.exact(f"NULLIF({self._part('call_id')}, '')")
        columns = [
            f"COALESCE({self._reader.exact(self._part(by))}, '') AS part",
            "COUNT(*)",
            f"COUNT(DISTINCT {call})",
            f"COUNT(DISTINCT CASE WHEN {' AND '.join(beyond)} THEN {call} END)",
        ]
        for part, worst in WORST.items():
            columns += [f"{worst}({self._part(part)})", f"AVG({self._part(part)})"]
        mean = f"AVG({self._part('mos')})"
        statement = (
            f"SELECT {', '.join(columns)} FROM {self._name}{where} GROUP BY part"
            f" ORDER BY {mean} IS NULL, {mean} LIMIT {limit}"
        )
        return [_cells(row, _GROUP) for row in self._run(statement, [*bounds, *values])]

    # SQL

    @property
    def _name(self) -> str:
        return self._reader.quoted(self._table.name)

    @property
    def _all(self) -> str:
        return ", ".join(self._part(column.key) for column in READ)

    def _part(self, key: str) -> str:
        """A column, or a null of its type."""
        found = self._reader.expression(self._table, key)
        return found or ("NULLIF('', '')" if key in _TEXTS else "(NULL + 0.0)")

    def _of_call(self, column: Column, call: str) -> str:
        expression = self._part(column.key)
        if worst := WORST.get(column.key):
            expression = f"{worst}({expression}) OVER ({call})"
        elif column.key in _SAID:
            expression = f"COALESCE(NULLIF({expression}, ''), MAX({expression}) OVER ({call}))"
        return f"{expression} AS {_of_call_named(column.key)}"

    def _worst_first(self, limits: Sequence[Limit], *, named: bool = False) -> str:
        """By the first of *limits*, else by MOS; what does not tell it comes last.

        named: of calls, see _of_call.
        """
        key = limits[0][0] if limits else "mos"
        of = _of_call_named if named else self._part
        way = "ASC" if WORST[key] == "MIN" else "DESC"
        return f"{of(key)} IS NULL, {of(key)} {way}, {of('micro_ts')} DESC"

    def _beyond(self, limits: Sequence[Limit]) -> tuple[list[str], list[Any]]:
        signs = {"MIN": "<", "MAX": ">"}
        conditions = [
            f"{self._part(key)} {signs[WORST[key]]} {self._reader.mark}" for key, _ in limits
        ]
        return conditions, [bound for _, bound in limits]

    def _where(
        self,
        keys: Sequence[Key],
        limits: Sequence[Limit],
        since: int | None,
        until: int | None,
        *,
        has_call: bool = False,
    ) -> tuple[str, list[Any]]:
        """The conditions and their values."""
        reader = self._reader
        conditions, values = self._beyond(limits)
        for part, wanted, is_begin in keys:
            of = self._part(part)
            condition, bound = (
                reader.begins(of, wanted[0]) if is_begin else reader.equal(of, wanted)
            )
            conditions.append(condition)
            values += bound
        if has_call:
            conditions.append(f"{self._part('call_id')} <> ''")
        is_of_call = any(part == "call_id" and wanted != [""] for part, wanted, _ in keys)
        for sign, moment in ((">=", since), ("<", until)):
            if moment is not None:
                for condition, value in reader.moments(self._table, sign, moment, is_of_call):
                    conditions.append(condition)
                    values.append(value)
        return f" WHERE {' AND '.join(conditions)}" if conditions else "", values

    def _reports(
        self, keys: Sequence[Key], since: int | None, until: int | None, limit: int
    ) -> list[Cells]:
        where, values = self._where(keys, (), since, until)
        order = self._reader.order(self._table, has_keys=True)
        if self._table.id:  # records of one report have one time
            order += f", {self._reader.quoted(self._table.id)} DESC"
        statement = f"SELECT {self._all} FROM {self._name}{where} ORDER BY {order} LIMIT {limit}"
        return [_cells(row, READ) for row in self._run(statement, values)]

    def _run(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._reader.faults():
            return self._reader.run(statement, values)


def qos_readers(db_url: str, table: str, url: str) -> list[QosReader]:
    """Who reads the reports of a script's *db_url*, "" for none, or in its place those of *url*."""
    named = url or (db_url and store_of_url(db_url))
    if not named:
        return []
    source = "" if url else f'modparam("qos", "db_url", "{without_password(db_url)}")'
    try:
        address = Address.of(named)
    except ValueError as error:
        raise ConfigError(f"{source or without_password(url)}: {error}") from None
    source = source or address.shown.removeprefix("sqlite://")
    return [QosReader(reader_of(address, source, ()), table)]


_REPORTS = Column("reports", INTEGER)


def _group() -> Iterator[Column]:
    yield Column("group", TEXT)
    for name in ("reports", "calls", "bad"):
        yield Column(name, INTEGER)
    for part in WORST:
        yield Column(f"worst_{part}", REAL)
        yield Column(f"mean_{part}", REAL)


_GROUP = tuple(_group())


def _of_call_named(key: str) -> str:
    # Were it the column's own name, MariaDB would take it for that in the window's order.
    return f"call_{key}"


def _cells(row: Sequence[Any], columns: Iterable[Column]) -> Cells:
    return {column.key: _cell(cell, column.type) for cell, column in zip(row, columns, strict=True)}


def _cell(cell: object, kind: str) -> str | int | float | None:
    if cell is None:
        return None
    if kind == TEXT:
        return text(cell)
    if kind in _WHOLE and isinstance(cell, int):
        return cell
    try:
        found = float(text(cell))
    except ValueError:
        return None
    if not math.isfinite(found):
        return None
    return int(found) if kind in _WHOLE else found
