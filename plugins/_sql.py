"""Databases of scripts: SQLite, PostgreSQL, MySQL and MariaDB behind one address.

What gives no result is queued and written in order by a thread of its own; what gives one is asked
on another connection by another thread, and the packet waits for it, a short time at most.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from homerd.api import BatchSink, ConfigError, Packet, Rejected, RetryLater, Value, Worker
from homerd_plugins._sqlstores import BATCH_DAYS, Answer, store_of
from homerd_plugins._sqltext import TextError, Translator
from homerd_plugins._stores import Address

log = logging.getLogger("homerd.sql")

CONNECT_SECONDS = 5.0
# After a wait that was in vain the store is left alone this many times as long.
PAUSE = 10

_TABLE = re.compile(r"\b(?:into|update|from|table|truncate)\s+[`\"]?([\w.]+)", re.I)
_QUERY = re.compile(r"\s*\(?\s*select\b", re.I)


class Statement:
    """A text on its way to the writer; taken: it is there.

    done: it was carried out in a batch that holds others which were refused.
    """

    __slots__ = ("done", "taken", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.taken = False
        self.done = False


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
            ("homerd_sql_replayed_total", labels, self._sink.replayed),
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

    A statement that fails is rejected alone.  The batch's id is kept in its transaction, so that
    what comes again from the spool is not carried out again.  MySQL ends a transaction at CREATE,
    DROP and TRUNCATE: a batch with one has no id, what of it succeeds stays done when another is
    refused, and what stands before it may be carried out twice if the store goes away.

    replayed: statements of batches that came again.
    """

    in_order = True
    ids_kept_seconds = BATCH_DAYS * 86400

    def __init__(self, name: str, address: Address) -> None:
        super().__init__(name)
        self.where = address.shown
        self.store = store_of(address)
        self.translator = Translator(address.source, address.store, self._unique_keys)
        self.replayed = 0
        self._connection: Any = None  # a driver's
        self._keeps_ids: bool | None = None  # whether the store does; not known yet

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
            batch_id = self._id_of(batch)
            if not self._begin(batch_id):
                self.replayed += len(batch)
                return
            refused, reason = self._each(batch, savepoints=False)
            if refused and store.failure_ends_transaction:
                store.run(connection, "ROLLBACK")
                self._begin(batch_id)
                refused, reason = self._each(batch, savepoints=True)
            stays = bool(refused) and self._ends_transaction(batch)
            store.run(connection, "ROLLBACK" if refused and not stays else "COMMIT")
            if stays:
                for index, statement in enumerate(batch):
                    statement.done = index not in refused
        except store.errors as error:
            self._undo()
            raise RetryLater(f"{self.where}: {error}") from error
        if refused:
            raise Rejected(refused, f"{self.where}: {reason}")

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._keeps_ids = None
        if connection is not None:
            connection.close()

    def pack(self, record: Statement) -> str:
        """The text."""
        return record.text

    def unpack(self, packed: str) -> Statement:
        """The statement again."""
        return Statement(packed)

    def label(self, record: Statement) -> str:
        """The table it is about, when one can be seen."""
        found = _TABLE.search(record.text)
        return found[1] if found is not None else self.name

    def describe(self, record: Statement) -> dict[str, Any]:
        """The text as the script wrote it."""
        return {"table": self.label(record), "record": {"sql": record.text}}

    def _id_of(self, batch: list[Statement]) -> str:
        """The batch's id, "" when it cannot be kept in one transaction with the statements."""
        if not self.batch_id:
            return ""
        if self._keeps_ids is None:
            self._keeps_ids = self._can_keep_ids()
        return self.batch_id if self._keeps_ids and not self._ends_transaction(batch) else ""

    def _ends_transaction(self, batch: list[Statement]) -> bool:
        ends = self.store.ends_transaction
        return any(ends.match(statement.text) for statement in batch)

    def _can_keep_ids(self) -> bool:
        store, connection = self.store, self._connection
        try:
            store.keep_batches(connection)
        except store.errors as error:
            if store.is_away(error):
                raise
            try:  # a user who may make no table may use one that is there
                store.run(connection, "SELECT 1 FROM homerd_batches WHERE 1 = 0")
            except store.errors:
                log.warning(
                    "batches have no ids, after an outage one may be carried out twice"
                    ' database=%s error="%s"',
                    self.where,
                    " ".join(str(error).split()),
                )
                return False
        return True

    def _begin(self, batch_id: str) -> bool:
        """Begin a transaction; False, and none, when the batch was carried out already."""
        self.store.run(self._connection, self.store.begin)
        if not batch_id or self.store.claim(self._connection, batch_id):
            return True
        self.store.run(self._connection, "ROLLBACK")
        return False

    def _each(self, batch: list[Statement], *, savepoints: bool) -> tuple[list[int], str]:
        """Carry out each; the places of those that failed and why the first did."""
        store, connection = self.store, self._connection
        refused: list[int] = []
        reason = ""
        for index, statement in enumerate(batch):
            if statement.done:
                continue
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
        self.store = store_of(address)
        self.translator = Translator(
            address.source,
            address.store,
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
    store = store_of(address)
    try:
        connection = store.connect(seconds, seconds)
        try:
            fitted = Translator(address.source, address.store).fit(text)
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


def is_query(text: str) -> bool:
    """Whether a statement only asks: a SELECT."""
    return _QUERY.match(text) is not None


_SQL_ESCAPES = str.maketrans({"'": "\\'", '"': '\\"', "\\": "\\\\", "\0": "\\0"})


def literal(value: Value) -> str:
    """A value as a literal in the SQL of scripts: text quoted, null as NULL."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else f"'{value.translate(_SQL_ESCAPES)}'"
