"""Module alarm in a worker that delivers: rows in the stores, targets, spools, reload."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from homerd.core.program import load
from homerd.core.reload import Reloader
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

HEAD = 'loadmodule "pv"\nloadmodule "alarm"\n'
COUNT = 'request_route { alarm_count("a", "$si"); drop; }\n'
SCAN = "OPTIONS sip:100@x SIP/2.0\r\nCall-ID: {}\r\nUser-Agent: friendly-scanner\r\n\r\n"


class Daemon:
    """A worker on a script file that may be reloaded."""

    def __init__(self, path, text):
        self.path = path
        self.path.write_text(HEAD + text)
        self.worker = Worker(load(path), log=lambda level, line: None)
        self.worker.start()
        self.reloader = Reloader(self.worker)

    def send(self, number=1, source=b"\xc0\0\2\1"):
        for each in range(number):
            payload = SCAN.format(f"call-{each}").encode()
            frame = Frame(3, 2, 17, source, b"\xc0\0\2\2", 5060, 5061, 1_700_000_000, 7, 1, 42)
            frame.payload = frame.raw = payload
            _, failure = self.worker.engine.feed(frame)
            assert not isinstance(failure, Exception), failure

    def wait(self, seconds):
        self.worker.advance(seconds)
        assert self.worker.flush(20)

    def reload(self, text):
        self.path.write_text(HEAD + text)
        return asyncio.run(self.reloader.reload("asked"))

    @property
    def plugin(self):
        return self.worker.program.registry.plugin("alarm")

    def raised(self, name="a"):
        return sorted(self.plugin.alarms[name].open) if name in self.plugin.alarms else None


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(text):
        made.append(Daemon(tmp_path / "script.cfg", text))
        return made[-1]

    yield make
    for each in made:
        each.worker.stop(1)


# Rows


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def store(request, tmp_path):
    """A database: its URL, and what a query gives."""
    if request.param == "sqlite":

        def query(text):
            with sqlite3.connect(tmp_path / "alarms.db") as connection:
                return connection.execute(text).fetchall()

        return "sqlite://alarms.db", query
    server = request.getfixturevalue(request.param)
    return server.url("postgres" if request.param == "postgres" else "mysql"), server.rows


DEFINED = 'modparam("alarm", "alarm", "a=>window=60;raise=3;clear=1;description=scanner")\n'


def test_alarms_and_their_evidence_are_rows_of_every_store(daemon, store):
    url, query = store
    run = daemon(f'modparam("alarm", "db_url", "{url}")\n' + DEFINED + COUNT)
    run.send(5)
    run.wait(70)
    assert [
        tuple(row)
        for row in query(
            "SELECT type, total, source_ip, description, status FROM alarm_data ORDER BY id"
        )
    ] == [
        ("a", 3, "192.0.2.1", "192.0.2.1: scanner", 1),
        ("a", 5, "192.0.2.1", "192.0.2.1: scanner", 0),
    ]
    evidence = "e.source, e.destination, e.method, e.call_id, e.alarm_key, e.capture_id, e.micro_ts"
    joined = query(
        f"SELECT {evidence}, e.payload FROM alarm_evidence e JOIN alarm_data a"
        " ON e.type = a.type AND e.create_date = a.create_date ORDER BY e.id"
    )
    ends = ("192.0.2.1:5060", "192.0.2.2:5061", "OPTIONS")
    assert [tuple(row[:7]) for row in joined] == [
        (*ends, f"call-{number}", "192.0.2.1", "42", 1_700_000_000_000_007) for number in range(3)
    ]
    assert joined[0][7] == SCAN.format("call-0")
    assert len(query("SELECT DISTINCT alarm_id FROM alarm_evidence")) == 1


def test_rows_wait_while_the_store_is_away_and_come_once(daemon, mariadb_server, mariadb):
    run = daemon(f'modparam("alarm", "db_url", "{mariadb.url("mysql")}")\n' + DEFINED + COUNT)
    mariadb_server.stop()
    try:
        run.send(3)
    finally:
        mariadb_server.start()
    run.wait(2)
    assert mariadb.rows("SELECT type, status FROM alarm_data") == (("a", 1),) or mariadb.rows(
        "SELECT type, status FROM alarm_data"
    ) == [("a", 1)]


def test_a_table_that_homer_made_is_taken_as_it_is(daemon, tmp_path):
    with sqlite3.connect(tmp_path / "alarms.db") as connection:
        connection.execute(
            "CREATE TABLE alarm_data (id INTEGER PRIMARY KEY, create_date TEXT, type TEXT, total"
            " INTEGER, source_ip TEXT DEFAULT '0.0.0.0', description TEXT, status INTEGER DEFAULT 1)"
        )
    run = daemon(
        'modparam("alarm", "db_url", "sqlite://alarms.db")\nmodparam("alarm", "evidence_table", "")\n'
        + DEFINED
        + COUNT
    )
    run.send(3)
    run.wait(2)
    with sqlite3.connect(tmp_path / "alarms.db") as connection:
        assert connection.execute("SELECT type, total FROM alarm_data").fetchall() == [("a", 3)]
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'alarm%'")
        assert ("alarm_evidence",) not in tables.fetchall()


def test_what_was_raised_in_the_last_second_is_stored_too(daemon, tmp_path):
    run = daemon('modparam("alarm", "db_url", "sqlite://alarms.db")\n' + DEFINED + COUNT)
    run.send(3)
    run.worker.stop(5)
    with sqlite3.connect(tmp_path / "alarms.db") as connection:
        assert connection.execute("SELECT count(*) FROM alarm_data").fetchone() == (1,)


# Targets


@pytest.fixture
def hook():
    """A server that keeps what is posted to it."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/alarms", posted
    server.shutdown()
    server.server_close()


def test_a_target_is_told_of_raised_and_cleared(daemon, hook):
    url, posted = hook
    run = daemon(f'modparam("alarm", "target", "ops=>{url}")\n' + DEFINED + COUNT)
    run.send(3)
    run.wait(70)
    assert [(told["state"], told["key"], told["total"]) for told in posted] == [
        ("raised", "192.0.2.1", 3),
        ("cleared", "192.0.2.1", 3),
    ]
    assert [seen["call_id"] for seen in posted[0]["evidence"]] == ["call-0", "call-1", "call-2"]


# Spools and losses


def test_a_spool_that_fills_and_what_it_loses_raise_alarms(daemon, tmp_path, hook):
    url, posted = hook
    script = (
        f'spool_dir="{tmp_path / "spools"}"\nspool_limit=40000\n'
        f'modparam("alarm", "target", "ops=>{url}")\nloadmodule "influxdb"\n'
        'modparam("influxdb", "url", "http://127.0.0.1:1")\nmodparam("influxdb", "batch_size", 20)\n'
        'request_route { influxdb_write("packets", "value=1"); drop; }\n'
    )
    run = daemon(script)
    influx = next(sink for sink in run.worker.sinks if sink.name == "influxdb")
    spools_full(run, influx)
    run.worker.advance(2)
    told = next(sink for sink in run.worker.sinks if sink.name == "alarm_ops")
    assert told.flush(10)
    assert {(each["alarm"], each["key"], each["state"]) for each in posted} == {
        ("spool", "influxdb", "raised"),
        ("loss", "influxdb", "raised"),
    }


def spools_full(run, sink):
    until = time.monotonic() + 20
    while not sink.dropped and time.monotonic() < until:
        run.send(200)
        run.worker.tick()
    assert sink.dropped


def test_the_built_in_alarms_can_be_defined_otherwise_or_left_out(daemon):
    run = daemon(
        'modparam("alarm", "alarm", "spool=>of=last;raise=50;clear=10")\nrequest_route { drop; }\n'
    )
    assert run.plugin.alarms["spool"].definition.raise_at == 50
    assert run.plugin.alarms["loss"].definition is not None
    run.reload('modparam("alarm", "watch_sinks", 0)\nrequest_route { drop; }\n')
    assert run.plugin.alarms["loss"].definition is None


# Reload


def test_a_definition_changes_by_reload_and_what_is_raised_stays(daemon):
    run = daemon(DEFINED + COUNT)
    run.send(3)
    assert run.raised() == ["192.0.2.1"]
    outcome = run.reload(DEFINED.replace("raise=3;clear=1", "raise=9;clear=2") + COUNT)
    assert (outcome.result, outcome.diagnostics) == ("reloaded", [])
    assert run.plugin.alarms["a"].definition.raise_at == 9
    assert run.raised() == ["192.0.2.1"]
    run.send(8, b"\xc0\0\2\7")
    assert run.raised() == ["192.0.2.1"]
    run.send(1, b"\xc0\0\2\7")
    assert run.raised() == ["192.0.2.1", "192.0.2.7"]


def test_counts_stay_over_a_reload_that_leaves_the_window(daemon):
    run = daemon(DEFINED + COUNT)
    run.send(2)
    run.reload(DEFINED.replace("description=scanner", "hold=60") + COUNT)
    run.send(1)
    assert run.raised() == ["192.0.2.1"]


def test_an_alarm_comes_and_goes_by_reload(daemon, hook):
    url, posted = hook
    target = f'modparam("alarm", "target", "ops=>{url}")\n'
    run = daemon(target + DEFINED + COUNT)
    run.send(3)
    other = 'modparam("alarm", "alarm", "b=>raise=1")\nrequest_route { alarm_count("b"); drop; }\n'
    assert run.reload(target + other).result == "reloaded"
    run.send(1)
    run.wait(2)
    assert [(told["alarm"], told["state"], told["description"]) for told in posted] == [
        ("a", "raised", "scanner"),
        ("b", "raised", ""),
        ("a", "cleared", "no longer defined"),
    ]
    assert run.reload(target + DEFINED + COUNT).result == "reloaded"
    run.send(3)
    assert run.raised() == ["192.0.2.1"]


def test_a_reload_with_a_mistake_changes_nothing(daemon):
    run = daemon(DEFINED + COUNT)
    outcome = run.reload('modparam("alarm", "alarm", "b=>raise=1")\n' + COUNT)
    assert outcome.result == "refused"
    assert 'unknown alarm "a"' in outcome.diagnostics[0].message
    run.send(3)
    assert run.raised() == ["192.0.2.1"]


def test_another_target_needs_a_restart(daemon):
    run = daemon(DEFINED + COUNT)
    outcome = run.reload(
        'modparam("alarm", "target", "x=>http://127.0.0.1:1/")\n' + DEFINED + COUNT
    )
    assert (outcome.result, outcome.diagnostics[0].code) == ("refused", "E408")


def test_rows_go_when_their_days_are_over(daemon, store):
    url, query = store
    lines = f'modparam("alarm", "db_url", "{url}")\n' + DEFINED + COUNT
    run = daemon(lines)
    run.send(3)
    run.wait(2)
    run.worker.stop(5)
    query("UPDATE alarm_evidence SET create_date = '2020-01-01 00:00:00'")
    run = daemon('modparam("alarm", "keep_days", 10)\n' + lines)
    until = time.monotonic() + 20
    while rows_of(query, "alarm_evidence") and time.monotonic() < until:
        pass
    assert (rows_of(query, "alarm_data"), rows_of(query, "alarm_evidence")) == (1, 0)


def rows_of(query, table):
    return query(f"SELECT count(*) FROM {table}")[0][0]
