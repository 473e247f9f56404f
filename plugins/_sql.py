"""Databases of scripts: SQLite, PostgreSQL, MySQL and MariaDB behind one address.

What gives no result is queued and written in order by a thread of its own; what gives one is asked
on another connection by another thread, and the packet waits for it, a short time at most.
HOMERD_DB in the environment names other stores than the script does: `URL=STORE;URL=STORE`, or one
STORE for all.
"""

from __future__ import annotations

import datetime
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homerd.api import BatchSink, ConfigError, Packet, Rejected, RetryLater, Value, Worker
from homerd_plugins._sqltext import MYSQL, POSTGRES, SQLITE, TextError, Translator

ENVIRONMENT = "HOMERD_DB"
MOST_ROWS = 10_000
CONNECT_SECONDS = 5.0
# After a wait that was in vain the store is left alone this many times as long.
PAUSE = 10

_DIALECTS = {
    "sqlite": SQLITE,
    "mysql": MYSQL,
    "mariadb": MYSQL,
    "postgres": POSTGRES,
    "postgresql": POSTGRES,
}
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[^\]]*\]|[^:/@]*)(?::(?P<port>[0-9]+))?/(?P<database>[^/?]+)(?:\?.*)?",
    re.I,
)
_ITEM = re.compile(r"(?P<url>.+?)=(?P<store>[a-z]+://.+)", re.I)
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@")
_TABLE = re.compile(r"\b(?:into|update|from|table|truncate)\s+[`\"]?([\w.]+)", re.I)
_QUERY = re.compile(r"\s*\(?\s*select\b", re.I)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    source: the SQL that the URL in the script promises.  database: of SQLite, the file.
    """

    dialect: str
    database: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    source: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """The store that *url* of a script means here; raises ValueError when it means none."""
        store = mapped(url, os.environ.get(ENVIRONMENT, ""))
        scheme = url.partition("://")[0].strip().lower()
        found = cls._read(store)
        return cls(
            found.dialect,
            found.database,
            found.host,
            found.port,
            found.user,
            found.password,
            _DIALECTS.get(scheme, MYSQL),
        )

    @classmethod
    def _read(cls, url: str) -> Address:
        scheme, colon, rest = url.strip().partition("://")
        dialect = _DIALECTS.get(scheme.lower())
        if not colon:
            raise ValueError(f'expected driver://user:password@host/database, got "{url}"')
        if dialect is None:
            raise ValueError(
                f'no driver for "{scheme}": sqlite, postgres and mysql are known; '
                f"{ENVIRONMENT} may name another store"
            )
        if dialect == SQLITE:
            if not rest or rest == ":memory:":
                raise ValueError(f'expected "sqlite://" and a file\'s path, got "{url}"')
            return cls(dialect, rest)
        found = _URL.fullmatch(url.strip())
        if found is None:
            raise ValueError(f'expected driver://user:password@host/database, got "{url}"')
        return cls(
            dialect,
            found["database"],
            found["host"].strip("[]"),
            int(found["port"] or 0),
            found["user"] or "",
            found["password"] or "",
        )

    @property
    def shown(self) -> str:
        """The address without its password."""
        if self.dialect == SQLITE:
            return f"sqlite://{self.database}"
        port = f":{self.port}" if self.port else ""
        return f"{self.dialect}://{self.host}{port}/{self.database}"


def mapped(url: str, mapping: str) -> str:
    """What *mapping* (see the module) makes of a URL; its user and password may be left out."""
    everything = ""
    for item in filter(None, map(str.strip, mapping.split(";"))):
        found = _ITEM.fullmatch(item)
        if found is None:
            everything = item
        elif found["url"].strip() in (url, _CREDENTIALS.sub("", url), "*"):
            return found["store"].strip()
    return everything or url


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


class Statement:
    """A text on its way to the writer; taken: it is there."""

    __slots__ = ("taken", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.taken = False


class Database:
    """One database as a module uses it: `queue` and `ask`.

    asked, failed: questions, and those that found no answer; wait_seconds: what they took.
    """

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        self.name = name
        self.address = address
        self.timeout = timeout
        self.asked = 0
        self.failed = 0
        self.wait_seconds = 0.0
        self.delivers = True
        self._sink = SqlSink(name, address)
        self._asker = Asker(name, address, timeout)
        self._alone_until = 0.0

    def start(self, worker: Worker) -> None:
        """Start the writer; the other connection is opened when something is asked."""
        self.delivers = worker.deliver
        worker.add_sink(self._sink)

    def stop(self) -> None:
        """Let go of the connection for questions; the writer is the worker's."""
        self._asker.stop()

    def queue(self, packet: Packet, text: str) -> bool:
        """Have *text* carried out after all that was queued before it."""
        return bool(text.strip()) and packet.emit(self._sink, Statement(text))

    def ask(self, packet: Packet, text: str) -> Answer | None:
        """Carry out *text* after all that was queued, and wait; None when it fails or takes long.

        Where nothing is delivered only a SELECT is carried out.
        """
        if not self.delivers and not is_query(text):
            self.queue(packet, text)
            return Answer()
        started = time.monotonic()
        if started < self._alone_until:
            self.failed += 1
            return None
        self.asked += 1
        answer = self._ask(packet, text, started + self.timeout)
        waited = time.monotonic() - started
        self.wait_seconds += waited
        if answer is None:
            self.failed += 1
            if waited >= self.timeout or self._asker.away:
                self._alone_until = time.monotonic() + PAUSE * max(waited, 0.1)
        return answer

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """Questions, those without an answer, the time they took, shapes of SQL translated."""
        labels = {"database": self.name}
        translators = (self._sink.translator, self._asker.translator)
        return [
            ("homerd_sql_questions_total", labels, self.asked),
            ("homerd_sql_questions_failed_total", labels, self.failed),
            ("homerd_sql_wait_seconds_total", labels, self.wait_seconds),
            ("homerd_sql_translated_total", labels, sum(each.translated for each in translators)),
            (
                "homerd_sql_untranslated_total",
                labels,
                sum(each.untranslated for each in translators),
            ),
        ]

    def _ask(self, packet: Packet, text: str, until: float) -> Answer | None:
        if self.delivers:
            # What this packet queued must be seen by its own question.
            for sink, record in packet.effects:
                if sink is self._sink:
                    self._sink.add(record)
            if not self._sink.flush(max(0.0, until - time.monotonic())):
                return None
        return self._asker.ask(text, max(0.0, until - time.monotonic()))


class SqlSink(BatchSink):
    """Carries out statements in order, a transaction for each batch.

    A statement that fails is rejected alone.  MySQL ends a transaction at CREATE, DROP and
    TRUNCATE; what stands before one in its batch may be carried out twice if the store goes away.
    """

    def __init__(self, name: str, address: Address) -> None:
        super().__init__(name)
        self.where = address.shown
        self.store = _store(address)
        self.translator = Translator(address.source, address.dialect, self._unique_keys)
        self._connection: Any = None  # a driver's

    def add(self, record: Statement) -> None:
        """Take a statement, once."""
        if not record.taken:
            record.taken = True
            super().add(record)

    def connect(self) -> None:
        """Connect; a store that is away is tried again, a folder that is missing is a mistake."""
        if self.store.folder is not None and not self.store.folder.is_dir():
            raise ConfigError(f"{self.where}: no such folder: {self.store.folder}")
        try:
            self._connection = self.store.connect(CONNECT_SECONDS)
        except self.store.errors as error:
            raise RetryLater(f"{self.where}: {error}") from error

    def write(self, batch: list[Statement]) -> None:
        """Carry out *batch*; all of it, or nothing and Rejected with what failed."""
        store, connection = self.store, self._connection
        try:
            store.run(connection, store.begin)
            refused, reason = self._each(batch, savepoints=False)
            if refused and store.failure_ends_transaction:
                store.run(connection, "ROLLBACK")
                store.run(connection, store.begin)
                refused, reason = self._each(batch, savepoints=True)
            store.run(connection, "ROLLBACK" if refused else "COMMIT")
        except store.errors as error:
            self._undo()
            raise RetryLater(f"{self.where}: {error}") from error
        if refused:
            raise Rejected(refused, f"{self.where}: {reason}")

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def label(self, record: Statement) -> str:
        """The table it is about, when one can be seen."""
        found = _TABLE.search(record.text)
        return found[1] if found is not None else self.name

    def describe(self, record: Statement) -> dict[str, Any]:
        """The text as the script wrote it."""
        return {"table": self.label(record), "record": {"sql": record.text}}

    def _each(self, batch: list[Statement], *, savepoints: bool) -> tuple[list[int], str]:
        """Carry out each; the places of those that failed and why the first did."""
        store, connection = self.store, self._connection
        refused: list[int] = []
        reason = ""
        for index, statement in enumerate(batch):
            try:
                text = self.translator.fit(statement.text)
                if not text:
                    continue
                if savepoints:
                    store.run(connection, "SAVEPOINT statement")
                store.run(connection, text)
            except TextError as error:
                refused.append(index)
                reason = reason or str(error)
            except store.errors as error:
                if store.is_away(error):
                    raise
                refused.append(index)
                reason = reason or str(error)
                if savepoints:
                    store.run(connection, "ROLLBACK TO SAVEPOINT statement")
                elif store.failure_ends_transaction:
                    break
        return refused, reason

    def _undo(self) -> None:
        try:
            self.store.run(self._connection, "ROLLBACK")
        except self.store.errors:
            pass  # the connection is closed next, which undoes it as well

    def _unique_keys(self, table: str) -> list[list[str]]:
        return self.store.unique_keys(self._connection, table)


class Asker:
    """Carries out one statement at a time on a thread of its own, while its caller waits.

    away: the store could not be reached the last time.
    """

    def __init__(self, name: str, address: Address, timeout: float) -> None:
        self.name = name
        self.away = False
        self.store = _store(address)
        self.translator = Translator(
            address.source,
            address.dialect,
            lambda table: self.store.unique_keys(self._connection, table),
        )
        self._timeout = timeout
        self._connection: Any = None  # a driver's
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._busy = False
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """End the thread; one that hangs in the store is left to itself."""
        if self._thread is not None:
            self._questions.put(None)
            self._thread.join(1.0)
            self._thread = None

    def ask(self, text: str, seconds: float) -> Answer | None:
        """The answer; None when there is none within *seconds*, or an earlier one is not over."""
        if self._busy:
            return None
        self._busy = True
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name=f"ask-{self.name}", daemon=True
            )
            self._thread.start()
        question = _Question(text)
        self._questions.put(question)
        if question.done.wait(seconds):
            return question.answer
        self.store.interrupt(self._connection)
        return None

    def _serve(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                question.answer = self._carry_out(question.text)
            except (
                Exception
            ):  # a driver's own fault must not end the thread; it is a failed question
                self._close()
            finally:
                self._busy = False
                question.done.set()
        self._close()

    def _carry_out(self, text: str) -> Answer | None:
        store = self.store
        try:
            if self._connection is None:
                self._connection = store.connect(max(1.0, self._timeout), self._timeout)
            self.away = False
            fitted = self.translator.fit(text)
            return store.ask(self._connection, fitted) if fitted else Answer()
        except TextError:
            return None
        except store.errors as error:
            if self._connection is None or store.is_away(error):
                self.away = True
                self._close()
            return None

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except self.store.errors:
                pass  # it is given up either way


def read_all(address: Address, text: str, seconds: float, most: int) -> Sequence[Sequence[Value]]:
    """The rows of a question, asked here and now; for the start, and threads of a module's own.

    Raises ConnectionError when the store does not give them.
    """
    store = _store(address)
    try:
        connection = store.connect(seconds, seconds)
        try:
            fitted = Translator(address.source, address.dialect).fit(text)
            return store.ask(connection, fitted, most).rows
        finally:
            connection.close()
    except (TextError, *store.errors) as error:
        raise ConnectionError(f"{address.shown}: {error}") from error


class _Question:
    __slots__ = ("answer", "done", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.answer: Answer | None = None
        self.done = threading.Event()


class _Store:
    """A driver; connections commit each statement unless BEGIN is run."""

    begin = "BEGIN"
    failure_ends_transaction = False
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


class _Sqlite(_Store):
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


class _Postgres(_Store):
    failure_ends_transaction = True
    # Connections, resources, an operator's interruption, deadlocks; the rest is the statement's.
    _AWAY = ("08", "53", "55P03", "57P", "40001", "40P01")

    def __init__(self, address: Address) -> None:
        import psycopg

        super().__init__(address)
        self.driver = psycopg
        self.errors = (psycopg.Error, UnicodeError)

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        address = self.address
        wanted = {
            "host": address.host,
            "port": str(address.port or ""),
            "user": address.user,
            "password": address.password,
        }
        limit = f" -c statement_timeout={int(answer_seconds * 1000)}" if answer_seconds else ""
        return self.driver.connect(
            dbname=address.database,
            connect_timeout=max(2, round(seconds)),
            options=f"-c standard_conforming_strings=on{limit}",
            client_encoding="utf8",
            application_name="homerd",
            autocommit=True,
            **{key: value for key, value in wanted.items() if value},
        )

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


class _Mysql(_Store):
    # Too many connections, shut down, lost, refused, lock wait, deadlock.
    _AWAY = frozenset({1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013, 2014, 2055})
    _SOCKET = "/run/mysqld/mysqld.sock"

    def __init__(self, address: Address) -> None:
        import pymysql

        super().__init__(address)
        self.driver = pymysql
        self.errors = (pymysql.MySQLError, OSError, UnicodeError)

    def connect(self, seconds: float, answer_seconds: float = 0.0) -> Any:
        address = self.address
        local = address.host in ("", "localhost") and not address.port
        place = (
            {"unix_socket": self._SOCKET}
            if local and os.path.exists(self._SOCKET)
            else {"host": address.host or "127.0.0.1", "port": address.port or 3306}
        )
        return self.driver.connect(
            user=address.user or None,
            password=address.password,
            database=address.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=max(1, round(seconds)),
            read_timeout=max(1, round(answer_seconds)) if answer_seconds else None,
            **place,
        )

    def is_away(self, error: Exception) -> bool:
        if isinstance(error, self.driver.InterfaceError | OSError):
            return True
        code = error.args[0] if error.args else 0
        return isinstance(error, self.driver.MySQLError) and code in self._AWAY


_STORES: dict[str, Callable[[Address], _Store]] = {
    SQLITE: _Sqlite,
    POSTGRES: _Postgres,
    MYSQL: _Mysql,
}


def _store(address: Address) -> _Store:
    return _STORES[address.dialect](address)


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


def is_query(text: str) -> bool:
    """Whether a statement only asks: a SELECT."""
    return _QUERY.match(text) is not None


_SQL_ESCAPES = str.maketrans({"'": "\\'", '"': '\\"', "\\": "\\\\", "\0": "\\0"})


def literal(value: Value) -> str:
    """A value as a literal in the SQL of scripts: text quoted, null as NULL."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else f"'{value.translate(_SQL_ESCAPES)}'"
