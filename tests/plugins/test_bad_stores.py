"""Stores that refuse: one line that names the parameter, then the spool, and all rows in the end."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from servers import DATABASE, PASSWORD, USER

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError
from homerd.wire.hep import Frame

DEADLINE_SECONDS = 30.0


class Node:
    """A worker that stores each packet in the table calls."""

    def __init__(self, url: str) -> None:
        text = (
            'loadmodule "sipcapture"\nmodparam("sipcapture", "capture_on", 1)\n'
            'modparam("sipcapture", "hep_capture_on", 1)\n'
            f'modparam("sipcapture", "db_url", "{url}")\n'
            'request_route { sip_capture("calls"); drop; }\n'
        )
        self.worker = Worker(load(Path("test.cfg"), text=text))
        self.worker.start()
        (self.sink,) = self.worker.sinks
        self.sink.first_delay = self.sink.last_delay = 0.1
        self.fed = 0

    def feed(self, count: int, size: int = 0) -> None:
        for _ in range(count):
            self.fed += 1
            self.message(f"call-{self.fed}", b"x" * size)
        self.sink.flush(0.0)

    def message(self, call_id: str, body: bytes = b"", more: bytes = b"") -> None:
        head = (
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z\r\n"
            f"From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n"
        )
        payload = head.encode() + more + b"\r\n" + body
        address, other = b"\x0a\0\0\1", b"\x0a\0\0\2"
        _, failure = self.worker.engine.feed(
            Frame(3, 2, 17, address, other, 5060, 5061, 1, 0, 1, payload=payload)
        )
        assert not isinstance(failure, Exception), failure

    def is_refused(self) -> None:
        """Wait until rows lie in the spool."""
        self.until(lambda: self.sink.spooled > 0)

    def is_stored(self) -> None:
        """Wait until the store has them all."""
        self.until(lambda: self.sink.written == self.fed)
        assert (self.sink.dropped, self.sink.rejected) == (0, 0)

    def until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not is_so():
            assert time.monotonic() < end, self.sink.counts()
            time.sleep(0.01)


@pytest.fixture
def node() -> Iterator[Callable[[str], Node]]:
    made: list[Node] = []

    def make(url: str) -> Node:
        made.append(Node(url))
        return made[-1]

    yield make
    for one in made:
        one.worker.stop()


def lines_of(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    for record in list(caplog.records):
        if record.name == "homerd.sink" and "away" in record.getMessage():
            yield record.getMessage()


def told(caplog: pytest.LogCaptureFixture, what: str, count: int) -> None:
    """Of *count* packets there is a line or a few, which name the parameter and no password."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not (found := list(lines_of(caplog))):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert len(found) < count
    for line in found:
        assert re.search(r'error="modparam\("sipcapture", "db_url", "\w+://', line), line
        assert re.search(what, line), line
        assert "\n" not in line
        assert PASSWORD not in line
    assert "Traceback" not in caplog.text


@contextlib.contextmanager
def refusing(server: Any, kind: str, fault: str) -> Iterator[str]:
    """The server refuses meanwhile, for one reason; gives the words that tell it."""
    postgres, mariadb = kind == "postgres", kind == "mariadb"
    faults = {
        "password": (
            f"ALTER ROLE {USER} PASSWORD 'other'"
            if postgres
            else f"SET PASSWORD FOR '{USER}'@'%' = PASSWORD('other');"
            f"SET PASSWORD FOR '{USER}'@'localhost' = PASSWORD('other')",
            f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'"
            if postgres
            else f"SET PASSWORD FOR '{USER}'@'%' = PASSWORD('{PASSWORD}');"
            f"SET PASSWORD FOR '{USER}'@'localhost' = PASSWORD('{PASSWORD}')",
            "password authentication failed|Access denied",
        ),
        "database": (
            f"DROP DATABASE {DATABASE}",
            f"CREATE DATABASE {DATABASE}" + (f" OWNER {USER}" if postgres else ""),
            "does not exist|Unknown database",
        ),
        "read-only": (
            f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on"
            if postgres
            else "SET GLOBAL read_only = ON",
            f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only"
            if postgres
            else "SET GLOBAL read_only = OFF",
            "read-only",
        ),
    }
    before, after, words = faults[fault]
    assert postgres or mariadb
    ask(server, before)
    try:
        yield words
    finally:
        ask(server, after)
        if postgres and fault == "read-only":
            cut(server)


def ask(server: Any, script: str) -> None:
    connection = server.root()
    try:
        cursor = connection.cursor()
        for statement in script.split(";"):
            cursor.execute(statement)
    finally:
        connection.close()


def cut(server: Any) -> None:
    ask(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'homer'")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize("fault", ["password", "database", "read-only"])
def test_a_server_that_refuses_is_told_and_loses_nothing(node, request, kind, fault, caplog):
    server = request.getfixturevalue(kind)
    with refusing(server, kind, fault) as words:
        one = node(server.url("postgres" if kind == "postgres" else "mysql"))
        one.feed(300)
        one.is_refused()
        told(caplog, words, 300)
    one.is_stored()
    assert server.rows("SELECT count(DISTINCT callid), count(*) FROM calls") == [(300, 300)]


def test_a_full_disk_of_postgres_is_told_and_loses_nothing(node, postgres, caplog):
    one = node(postgres.url("postgres"))
    one.feed(10)
    one.is_stored()
    postgres.rows("TRUNCATE calls")  # which makes it a file that nobody has open
    ((name,),) = postgres.rows("SELECT pg_relation_filepath('calls')")
    cut(postgres)
    file = postgres.data / name
    file.unlink()
    file.symlink_to("/dev/full")
    one.feed(300)
    one.is_refused()
    told(caplog, "No space left on device|terminating connection", 300)
    file.unlink()
    file.touch()
    shutil.chown(file, postgres.data.owner(), postgres.data.group())
    cut(postgres)
    one.is_stored()
    assert postgres.rows("SELECT count(DISTINCT callid), count(*) FROM calls") == [(300, 300)]


def test_a_full_table_of_mariadb_is_told_and_loses_nothing(node, mariadb, caplog):
    # As on a full disk the server answers 1114; this engine keeps what a transaction takes back.
    ask(mariadb, "SET GLOBAL max_heap_table_size = 200000")
    try:
        mariadb.rows(
            "CREATE TABLE calls (callid varchar(64), msg varchar(1000)) ENGINE=MEMORY CHARSET ascii"
        )
        one = node(mariadb.url("mysql"))
        one.feed(300)
        one.is_refused()
        told(caplog, "The table 'calls' is full", 300)
    finally:
        ask(mariadb, "SET GLOBAL max_heap_table_size = DEFAULT")
    mariadb.rows("ALTER TABLE calls ENGINE=InnoDB")
    one.is_stored()
    assert mariadb.rows("SELECT count(DISTINCT callid) FROM calls") == [(300,)]


def test_a_full_disk_under_sqlite_is_told_and_loses_nothing(node, tmp_path, caplog):
    one = node(f"sqlite://{tmp_path}/x.db")
    one.feed(10)
    one.is_stored()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
    try:
        while not one.sink.spooled:
            one.feed(50, 2_000)
            one.until(lambda: one.sink.spooled > 0 or one.sink.written == one.fed)
        told(caplog, "full|disk I/O error", 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    one.is_stored()
    with closing(sqlite3.connect(tmp_path / "x.db")) as store:
        found = store.execute("SELECT count(DISTINCT callid), count(*) FROM calls").fetchone()
    assert found == (one.fed, one.fed)


def test_a_file_that_is_no_database_stops_the_start(node, tmp_path):
    (tmp_path / "x.db").write_text("notes, and not a database at all\n" * 100)
    with pytest.raises(ConfigError, match=r'^modparam\("sipcapture", "db_url".* not a database$'):
        node(f"sqlite://{tmp_path}/x.db")


def test_a_file_that_another_holds_is_waited_for(node, tmp_path, caplog):
    path = tmp_path / "x.db"
    one = node(f"sqlite://{path}")
    one.sink.busy_seconds = 0.1
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        one.feed(100)
        one.is_refused()
        told(caplog, "database is locked", 100)
        other.execute("ROLLBACK")
    one.is_stored()


ODD_BODIES = (
    b"",
    b"nul \0 in it",
    b"\xff\xfe no text \x80",
    b"'quotes' \"of\" `all` \\kinds\\ ); DROP TABLE calls; -- %s ? :a $1",
    "Ü 😀 \u2028".encode(),
    b"0123456789" * 6_000,
    b"\x1e\x1f\x1d\r\n\r\n\t",
)


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_odd_bodies_are_stored_one_row_each(node, request, kind, tmp_path):
    if kind == "sqlite":
        one = node(f"sqlite://{tmp_path}/x.db")
    else:
        server = request.getfixturevalue(kind)
        one = node(server.url("postgres" if kind == "postgres" else "mysql"))
    for number, body in enumerate(ODD_BODIES):
        one.message(f"odd-{number}", body, b"User-Agent: \xff\0 'x' " + b"\xc3\x9c" * 300 + b"\r\n")
    one.fed = len(ODD_BODIES)
    one.worker.flush(20)
    one.is_stored()
    query = "SELECT callid, msg, user_agent FROM calls ORDER BY callid"
    if kind == "sqlite":
        with closing(sqlite3.connect(tmp_path / "x.db")) as store:
            found = store.execute(query).fetchall()
    else:
        found = server.rows(query)
        assert one.sink.truncated == {"user_agent": len(ODD_BODIES)}
    assert [row[0] for row in found] == [f"odd-{number}" for number in range(len(ODD_BODIES))]
    for (_, stored, agent), body in zip(found, ODD_BODIES, strict=True):
        data = stored if isinstance(stored, bytes) else stored.encode("latin-1", "replace")
        assert data.endswith(body[-9:]) or stored.endswith(body.decode("utf-8", "replace")[-3:])
        assert agent.startswith("\ufffd\ufffd 'x' ÜÜ")
        assert len(agent) == (307 if kind == "sqlite" else 256)
