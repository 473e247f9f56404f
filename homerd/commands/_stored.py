"""Stored SIP messages, read back from the SQLite file with the standard library alone.

Searches use the indexes whatever the tables' size: a key (Call-ID, user) is looked up first and the
time is only compared, a time alone is looked up by `date`.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from homerd.commands.check import DEFAULT_SCRIPT
from homerd.errors import ConfigError

MICROS = 1_000_000
_AGO = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Message:
    """One stored SIP message; the names are those of the columns.

    method: of a reply, the status code.  msg: as text, U+FFFD for what is none.
    """

    table: str
    id: int
    micro_ts: int
    method: str
    reply_reason: str
    cseq: str
    from_user: str
    to_user: str
    ruri_user: str
    source_ip: str
    source_port: int
    destination_ip: str
    destination_port: int
    callid: str
    callid_aleg: str
    correlation_id: str
    via_1_branch: str
    content_type: str
    user_agent: str
    node: str
    msg: str

    @property
    def status(self) -> int | None:
        """A reply's code."""
        return int(self.method) if self.method.isdecimal() else None

    @property
    def title(self) -> str:
        """`INVITE`, or `200 OK` for a reply."""
        return f"{self.method} {self.reply_reason}".rstrip()

    @property
    def transaction(self) -> str:
        """The method in CSeq, for a reply what it answers."""
        return (self.cseq.split() or [""])[-1]

    @property
    def time(self) -> datetime:
        """When it was captured, UTC."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.micro_ts)

    def as_dict(self) -> dict[str, str | int]:
        """The message as JSON values, with its time as text."""
        described = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"time": self.time.isoformat().replace("+00:00", "Z"), **described}


_COLUMNS = tuple(field.name for field in fields(Message) if field.name not in ("table", "id"))
_NUMBERS = frozenset({"micro_ts", "source_port", "destination_port"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; None or empty for what does not matter.

    keys: (column, value) of which all must hold; a value that ends in "*" is a beginning.
    since, until: microseconds since 1970; the second is not part of it.
    """

    keys: tuple[tuple[str, str], ...] = ()
    since: int | None = None
    until: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of SIP messages: its columns, and whether `date` is text that sorts as time does."""

    name: str
    columns: frozenset[str]
    has_date: bool


class Store:
    """An SQLite file of captured messages, opened for reading."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        self.tables = list(self._tables())
        if not self.tables:
            raise ConfigError(f"{path}: no table of SIP messages in it")

    def search(self, wanted: Wanted) -> list[Message]:
        """The newest messages that fit, in the order of time."""
        found: list[Message] = []
        for table in self.tables:
            query = self.query(table, wanted)
            if query is not None:
                found += self._read(table, *query)
        found.sort(key=_in_time)
        return found if wanted.limit is None else found[-wanted.limit :]

    def query(self, table: Table, wanted: Wanted) -> tuple[str, list[str | int]] | None:
        """The SQL for one table and its values; None when the table lacks a column searched for."""
        keys = [(column, value) for column, value in wanted.keys if value != "*"]
        if any(column not in table.columns for column, _ in keys):
            return None
        by_time = table.has_date and not keys
        conditions: list[str] = []
        values: list[str | int] = []
        for column, value in keys:
            condition, bound = _matching(column, value)
            conditions.append(condition)
            values += bound
        for sign, moment in ((">=", wanted.since), ("<", wanted.until)):
            if moment is None:
                continue
            if by_time:
                # The whole second of the moment; micro_ts then tells exactly.
                conditions.append(f"date {'>=' if sign == '>=' else '<='} ?")
                values.append(_date(moment))
            conditions.append(f"micro_ts {sign} ?")
            values.append(moment)
        columns = ", ".join(
            _quoted(name) if name in table.columns else f"NULL AS {name}" for name in _COLUMNS
        )
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # "+" keeps a key's index from losing to that of the time.
        order = "date DESC, micro_ts DESC" if by_time else "+micro_ts DESC"
        sql = f"SELECT id, {columns} FROM {_quoted(table.name)}{where} ORDER BY {order}"
        if wanted.limit is not None:
            sql += " LIMIT ?"
            values.append(wanted.limit)
        return sql, values

    def call(self, call_id: str, most: int = 64) -> list[Message]:
        """Every message of the call and of its related legs, in the order of time.

        Legs are related when one names the other's Call-ID in callid_aleg or correlation_id.
        """
        found: dict[tuple[str, int], Message] = {}
        seen: set[str] = set()
        waiting = [call_id]
        while waiting and len(seen) < most:
            name = waiting.pop(0)
            seen.add(name)
            for column in ("callid", "callid_aleg", "correlation_id"):
                for message in self.search(Wanted(keys=((column, name),))):
                    found[message.table, message.id] = message
                    for other in (message.callid, message.callid_aleg, message.correlation_id):
                        if other and other not in seen and other not in waiting:
                            waiting.append(other)
        return sorted(found.values(), key=_in_time)

    def _tables(self) -> Iterator[Table]:
        names = self.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (name,) in names.fetchall():
            rows = self.connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
            columns = frozenset(column.lower() for (column,) in rows)
            if columns >= {"id", "callid", "micro_ts"}:
                yield Table(name, columns, "date" in columns and self._is_text(name))

    def _is_text(self, table: str) -> bool:
        """Whether `date` is text; Kamailio's SQLite driver writes a Julian day."""
        row = self.connection.execute(f"SELECT typeof(date) FROM {_quoted(table)} LIMIT 1")
        return (row.fetchone() or ("text",))[0] == "text"

    def _read(self, table: Table, sql: str, values: Sequence[str | int]) -> Iterator[Message]:
        for row in self.connection.execute(sql, values):
            cells = [
                _number(cell) if name in _NUMBERS else _text(cell)
                for name, cell in zip(_COLUMNS, row[1:], strict=True)
            ]
            yield Message(table.name, row[0], *cells)  # type: ignore[arg-type]  # by _NUMBERS


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """`-f FILE` and `--db PATH`: which database is read."""
    parser.add_argument(
        "-f",
        "--file",
        type=Path,
        default=Path(DEFAULT_SCRIPT),
        help="the script whose sipcapture db_url is read (homer.cfg)",
    )
    parser.add_argument("--db", type=Path, metavar="PATH", help="the SQLite file itself")


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Store]:
    """The store the options name; ConfigError in one line for what is wrong with it."""
    path = options.db or _database_of(options.file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such database; --db PATH names another")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        connection.text_factory = _lenient
        try:
            yield Store(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: {error}") from error


def moment(text: str, now: datetime | None = None) -> int:
    """`90s`, `5m`, `1h`, `2d`, `1w` ago, or an ISO date or time, UTC where it names no zone.

    In microseconds since 1970.  Raises ArgumentTypeError.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            now = now or datetime.now(UTC)
            found = now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        else:
            found = datetime.fromisoformat(text.strip())
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f'expected a time as 1h, 2026-01-31 or 2026-01-31T12:00:00, got "{text}"'
        ) from None


def printable(text: str, encodable: Callable[[str], bool] | None = None) -> str:
    """*text* with `?` for what would move the cursor or what the terminal cannot show."""
    if text.isascii() and text.isprintable():
        return text
    fits = encodable or (lambda _: True)
    return "".join(char if char.isprintable() and fits(char) else "?" for char in text)


def shows(encoding: str | None) -> Callable[[str], bool]:
    """Whether a terminal of *encoding* can show a text."""

    def can(text: str) -> bool:
        try:
            text.encode(encoding or "ascii")
        except (UnicodeError, LookupError):
            return False
        return True

    return can


def _database_of(script: Path) -> Path:
    from homerd.core.program import load  # --db does without the language

    url = load(script).modparam("sipcapture", "store_url")
    scheme, _, path = str(url or "").partition("://")
    if not url:
        raise ConfigError(f"{script}: loads no sipcapture: --db PATH names the database")
    if scheme.lower() != "sqlite" or not path:
        raise ConfigError(
            f"{script}: {scheme} cannot be searched yet: --db PATH names an SQLite file"
        )
    return Path(path)


def _matching(column: str, value: str) -> tuple[str, list[str | int]]:
    name = _quoted(column)
    if value.endswith("*"):
        start = value[:-1]
        return f"{name} >= ? AND {name} < ?", [start, start + "\U0010ffff"]
    # The conditions of the partial indexes, without which SQLite may not use them.
    extra = {
        "callid_aleg": " AND callid_aleg <> ''",
        "correlation_id": " AND correlation_id <> callid",
    }
    return f"{name} = ?" + extra.get(column, ""), [value]


def _date(micros: int) -> str:
    since = timedelta(seconds=micros // MICROS)
    return (datetime(1970, 1, 1) + since).strftime("%Y-%m-%d %H:%M:%S")


def _in_time(message: Message) -> tuple[int, int]:
    return message.micro_ts, message.id


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _text(cell: object) -> str:
    if isinstance(cell, bytes):
        return _lenient(cell)
    return "" if cell is None else str(cell)


def _number(cell: object) -> int:
    return cell if isinstance(cell, int) else 0


def columns_of(rows: Iterable[Sequence[str]], most: Sequence[int]) -> list[int]:
    """The width of each column: its longest cell, at most what *most* says."""
    widths = [0] * len(most)
    for row in rows:
        widths = [
            min(highest, max(width, len(cell)))
            for width, cell, highest in zip(widths, row, most, strict=True)
        ]
    return widths
