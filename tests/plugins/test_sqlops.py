"""Module sqlops, over SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from servers import DATABASE, PASSWORD, USER

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import Rejected
from homerd.wire.hep import Frame
from homerd_plugins._sql import SqlSink, Statement
from homerd_plugins._stores import Address, mapped

MODULES = ("pv", "xlog", "sqlops")


class Node:
    """A worker that delivers, over a script with one connection `cb`."""

    def __init__(self, url: str, statements: str, message: str, extra: str = "") -> None:
        head = "".join(f'loadmodule "{name}.so"\n' for name in MODULES)
        text = (
            f'{head}debug=2\nmodparam("sqlops", "sqlcon", "cb=>{url}")\n'
            f'modparam("sqlops", "timeout", 10)\n{extra}'
            f"request_route {{ {statements} exit; }}\n"
        )
        self.message = message
        self.lines: list[str] = []
        self.program = load(Path("test.cfg"), text=text)
        self.worker = Worker(
            self.program, log=lambda level, line: self.lines.append(line.rstrip("\n"))
        )
        self.worker.start()

    def feed(self) -> list[str]:
        self.lines.clear()
        payload = self.message.encode()
        _, end = self.worker.engine.feed(
            Frame(0, 2, 17, b"\x0a\0\0\1", b"\x0a\0\0\2", 5060, 5061, 0, 0, 1, payload=payload)
        )
        assert not isinstance(end, Exception), end
        return list(self.lines)

    def stop(self) -> None:
        self.worker.flush(10)
        self.worker.stop()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT, n INTEGER, r REAL)")
        store.execute("INSERT INTO kv VALUES ('a', 'va', 1, 1.5), ('b', NULL, 2, NULL)")
    store.close()
    return path


@pytest.fixture
def run(file, invite):
    """Lines that the statements log, and the node they ran in, stopped."""

    def run(statements: str, extra: str = "", times: int = 1) -> list[str]:
        node = Node(f"sqlite://{file}", statements, invite, extra)
        try:
            return [line for _ in range(times) for line in node.feed()]
        finally:
            node.stop()

    return run


def rows(file, query: str = "SELECT k, v, n FROM kv ORDER BY k") -> list[tuple[object, ...]]:
    with sqlite3.connect(file) as store:
        found = store.execute(query).fetchall()
    store.close()
    return found


def test_a_result_is_read_cell_by_cell(run):
    assert run(
        'sql_query("cb", "select k, v, n, r from kv order by n;", "ra");'
        ' xlog("$rc $dbr(ra=>rows) $dbr(ra=>cols) $dbr(ra=>[0,0]) $dbr(ra=>[0,2]) $dbr(ra=>[0,3])");'
        ' xlog("[$dbr(ra=>[1,1])] [$dbr(ra=>[9,0])] [$dbr(ra=>[0,9])] $dbr(ra=>colname[1])");'
        ' $var(i) = 1; xlog("$dbr(ra=>[$var(i),0])"); $var(s) = $dbr(ra=>[0,2]) + 1; xlog("$var(s)");'
        ' sql_result_free("ra"); xlog("$dbr(ra=>rows)");'
    ) == ["1 2 4 a 1 1.5", "[<null>] [<null>] [<null>] v", "b", "2", "0"]


def test_codes_tell_rows_no_rows_and_failure(run):
    assert run(
        'sql_query("cb", "select 1", "r"); xlog("$rc $dbr(r=>rows)");'
        ' sql_query("cb", "select k from kv where n=99", "r"); xlog("$rc $dbr(r=>rows)");'
        ' sql_query("cb", "select k from nosuch", "r"); xlog("$rc $dbr(r=>rows)");'
        ' sql_query("cb", "select \'open", "r"); xlog("$rc");'
        ' sql_query("cb", "delete from kv"); xlog("$rc"); sql_query_async("cb", "select 1"); xlog("$rc");'
    ) == ["1 1", "2 0", "-1 0", "-1", "2", "1"]


def test_a_question_sees_what_was_queued_before_it(run, file):
    statements = (
        'sql_query("cb", "insert into kv values (\'$rU\', $(ua{sql.val}), $ml, 0)");'
        ' sql_query("cb", "select count(*) from kv", "r"); xlog("$dbr(r=>[0,0])");'
        ' sql_query("cb", "update kv set n = 7", "r"); xlog("$rc $sqlrows(cb)");'
    )
    assert run(statements) == ["3", "2 3"]
    assert rows(file)[-1] == ("bob", "UA/1.0 (x)", 7)


def test_what_is_queued_is_written_in_order_before_the_end(run, file):
    run('sql_query("cb", "update kv set v = concat(v, n), n = n + 1 where k = \'a\'");', times=30)
    (row,) = rows(file, "SELECT v, n FROM kv WHERE k = 'a'")
    assert row == ("va" + "".join(map(str, range(1, 31))), 31)


def test_a_statement_that_fails_takes_no_other_with_it(file, invite):
    statements = (
        "sql_query(\"cb\", \"insert into kv values ('c', '1', 1, 0)\");"
        ' sql_query("cb", "insert into nosuch values (1)");'
        ' sql_query("cb", "insert into kv values (\'open");'
        " sql_query(\"cb\", \"insert into kv values ('d', '1', 1, 0)\");"
    )
    node = Node(f"sqlite://{file}", statements, invite)
    node.feed()
    node.stop()
    assert [row[0] for row in rows(file)] == ["a", "b", "c", "d"]
    (sink,) = node.worker.sinks
    assert (sink.written, sink.rejected, dict(sink.stored)) == (2, 2, {"kv": 2})


def test_rows_go_to_records(run):
    assert run(
        'sql_xquery("cb", "select k, v, n from kv order by n", "x"); xlog("$rc");'
        ' xlog("$xavp(x[0]=>k) $xavp(x[0]=>v) $xavp(x[1]=>k) [$xavp(x[1]=>v)] $xavp(x[1]=>n)");'
        ' sql_xquery("cb", "select k from kv where n = 9", "x"); xlog("$rc [$xavp(x[0]=>k)]");'
    ) == ["1", "a va b [<null>] 2", "2 [<null>]"]


def test_rows_go_to_variables_and_all_of_them_to_avps(run):
    assert run(
        'sql_pvquery("cb", "select k, n, v from kv order by n", "$avp(k), $var(n), $xavp(r=>v)");'
        ' xlog("$rc $(avp(k)[0]) $(avp(k)[1]) $var(n) $xavp(r=>v)");'
        ' sql_pvquery("cb", "select k from kv where n=9", "$var(n)"); xlog("$rc $var(n)");'
    ) == ["1 a b 1 va", "2 1"]


def test_literals_of_the_language(run):
    assert run(
        '$var(q) = "O\'Neil \\\\ x"; xlog("$(var(q){sql.val}) $(ml{sql.val}) $(hdr(Nope){sql.val})");'
        ' xlog("$(hdr(Nope){sql.val.int}) $(hdr(Nope){sql.val.str}) $(rU{sql.val.str})");'
        ' sql_query("cb", "select $(var(q){sql.val}), \'$(var(q){s.escape.common})\'", "r");'
        ' if ($dbr(r=>[0,0]) == $var(q) && $dbr(r=>[0,1]) == $var(q)) xlog("same");'
    ) == ["'O\\'Neil \\\\ x' 626 NULL", "0 '' 'bob'", "same"]


def test_text_of_mysql_works_over_sqlite(run, file):
    run(
        'sql_query("cb", "INSERT INTO `kv` (k, n) VALUES (\'a\', 5) ON DUPLICATE KEY UPDATE n=n+VALUES(n)");',
        times=3,
    )
    assert rows(file)[0] == ("a", "va", 16)


def test_nothing_is_written_and_only_selects_are_asked_where_nothing_is_delivered(
    script, invite, file
):
    runner = script(
        f'modparam("sqlops", "sqlcon", "cb=>sqlite://{file}")\n'
        'modparam("sqlops", "timeout", 10)\n'
        'request_route { sql_query("cb", "delete from kv"); sql_query("cb", "delete from kv", "r");'
        ' xlog("$rc"); sql_query("cb", "select count(*) from kv", "r"); xlog("$dbr(r=>[0,0])"); exit; }',
        MODULES,
    )
    assert runner.feed(invite) == ["2", "2"]
    assert [record.text for record in runner.effects] == ["delete from kv", "delete from kv"]
    sink = runner.worker.sinks[0]
    assert sink.describe(runner.effects[0]) == {"table": "kv", "record": {"sql": "delete from kv"}}


def test_a_store_that_does_not_answer_is_left_alone_for_a_while(invite, tmp_path):
    node = Node(
        "postgres://u:p@127.0.0.1:1/db",
        'sql_query("cb", "select 1", "r"); xlog("$rc");',
        invite,
        'modparam("sqlops", "timeout", "0.2")\n',
    )
    assert [node.feed() for _ in range(3)] == [["-1"], ["-1"], ["-1"]]
    samples = {name: value for name, _, value in node.program.registry.plugin("sqlops").metrics()}
    assert samples["homerd_sql_questions_total"] == 1
    assert samples["homerd_sql_questions_failed_total"] == 3
    node.worker.stop(0)


def test_a_question_that_takes_too_long_fails(file, invite):
    node = Node(
        f"sqlite://{file}",
        'sql_query("cb", "with recursive c(x) as (select 1 union all select x+1 from c)'
        ' select count(*) from c", "r"); xlog("$rc");',
        invite,
        'modparam("sqlops", "timeout", "0.05")\n',
    )
    assert node.feed() == ["-1"]
    node.stop()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cb", "expected NAME=>driver://"),
        ("cb=>oracle://a/b", "there is no store for oracle: use sqlite, postgres or mysql"),
        ("cb=>mysql://host", "no database is named: expected driver://user:password@host"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused(refusal, line, message):
    text = f'modparam("sqlops", "sqlcon", "{line}")\nrequest_route {{ exit; }}'
    assert message in refusal(text, MODULES)


def test_an_unknown_connection_is_refused(refusal):
    text = (
        'modparam("sqlops", "sqlcon", "cb=>sqlite:///tmp/x.db")\n'
        'request_route { sql_query("ca", "select 1"); }'
    )
    assert 'unknown connection "ca", expected cb' in refusal(text, MODULES)


def test_a_variable_that_cannot_take_a_result_is_refused(refusal):
    text = (
        'modparam("sqlops", "sqlcon", "cb=>sqlite:///tmp/x.db")\n'
        'request_route { sql_pvquery("cb", "select 1", "$sht(a=>b)"); }'
    )
    assert "expected $avp(name), $xavp(root=>key) or $var(name)" in refusal(text, MODULES)


@pytest.mark.parametrize(
    ("mapping", "store"),
    [
        ("", "mysql://u:p@h/b"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("mysql://h/b=sqlite:///x.db", "sqlite:///x.db"),
        ("mysql://u:p@h/b=sqlite:///x.db;sqlite:///y.db", "sqlite:///x.db"),
        ("mysql://h/c=sqlite:///x.db", "mysql://u:p@h/b"),
        ("mysql://h/c=sqlite:///x.db;*=postgres://u:a=b@h/d", "postgres://u:a=b@h/d"),
    ],
)
def test_another_store_can_be_named_from_outside(mapping, store):
    assert mapped("mysql://u:p@h/b", mapping) == store


def test_a_script_for_mysql_runs_over_the_store_that_the_environment_names(
    monkeypatch, file, invite
):
    monkeypatch.setenv("HOMERD_DB", f"mysql://localhost/homer=sqlite://{file}")
    node = Node(
        "mysql://root:secret@localhost/homer",
        'sql_query("cb", "REPLACE INTO kv (k,v,n) VALUES (\\"a\\", NOW(), 1)");',
        invite,
    )
    node.feed()
    node.stop()
    assert len(rows(file)[0][1]) == len("2020-01-01 00:00:00")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://u:p@ss@h:3307/b", "mysql://h:3307/b"),
        ("postgres://u:secret@[::1]/b", "postgres://::1/b"),
        ("mariadb://h/b", "mysql://h/b"),
        ("sqlite:///tmp/x.db", "sqlite:///tmp/x.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url, shown):
    assert Address.of_script(url).shown == shown


@pytest.fixture(params=["postgres", "mariadb"])
def server_url(request):
    """A server's address as a script has it, the password as it is."""
    server = request.getfixturevalue(request.param)
    scheme = {"postgres": "postgres", "mariadb": "mysql"}[request.param]
    return f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{server.port}/{DATABASE}"


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def store(request, tmp_path):
    """An empty database: its address, and what a query gives."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/s.db", lambda query: rows(tmp_path / "s.db", query)
    server = request.getfixturevalue(request.param)
    return server.url("postgres" if request.param == "postgres" else "mysql"), server.rows


def sql_sink(url: str) -> SqlSink:
    sink = SqlSink("sqlops:cb", Address.of_script(url))
    sink.connect()
    return sink


def write(sink: SqlSink, batch_id: str, *texts: str) -> None:
    sink.batch_id = batch_id
    sink.write([Statement(text) for text in texts])


def test_a_batch_that_comes_again_is_not_carried_out_again(store):
    url, ask = store
    one = sql_sink(url)
    write(one, "", "CREATE TABLE seen (n int)")
    write(one, "b1", "INSERT INTO seen VALUES (1)", "INSERT INTO seen VALUES (2)")
    one.close()
    one.connect()
    write(one, "b1", "INSERT INTO seen VALUES (1)", "INSERT INTO seen VALUES (2)")
    write(one, "b2", "INSERT INTO seen VALUES (1)")
    one.close()
    assert (ask("SELECT n FROM seen ORDER BY n"), one.replayed) == ([(1,), (1,), (2,)], 2)


def test_a_batch_without_what_was_refused_of_it_is_carried_out(store):
    url, ask = store
    one = sql_sink(url)
    write(one, "", "CREATE TABLE seen (n int)")
    with pytest.raises(Rejected) as refused:
        write(one, "b1", "INSERT INTO seen VALUES (1)", "INSERT INTO nosuch VALUES (2)")
    assert refused.value.indices == [1]
    write(one, "b1", "INSERT INTO seen VALUES (1)")
    one.close()
    assert (ask("SELECT n FROM seen"), one.replayed) == ([(1,)], 0)


def test_a_batch_that_ends_its_transaction_has_no_id(mariadb):
    one = sql_sink(mariadb.url("mysql"))
    batch = ["CREATE TABLE IF NOT EXISTS seen (n int)", "INSERT INTO seen VALUES (1)"]
    write(one, "b1", *batch)
    write(one, "b1", *batch)
    one.close()
    assert mariadb.rows("SELECT n FROM seen") == [(1,), (1,)]


def test_what_was_done_beside_a_refused_statement_is_not_done_again(mariadb):
    one = sql_sink(mariadb.url("mysql"))
    texts = ["INSERT INTO seen VALUES (1)", "CREATE TABLE IF NOT EXISTS other (n int)",
             "INSERT INTO nosuch VALUES (2)", "INSERT INTO seen VALUES (3)"]  # fmt: skip
    write(one, "", "CREATE TABLE seen (n int)")
    batch = [Statement(text) for text in texts]
    with pytest.raises(Rejected) as refused:
        one.write(batch)
    assert refused.value.indices == [2]
    del batch[2]
    one.write(batch)
    one.close()
    assert mariadb.rows("SELECT n FROM seen ORDER BY n") == [(1,), (3,)]


def test_a_user_who_may_make_no_table_still_writes(postgres, caplog):
    one = sql_sink(postgres.url("postgres"))
    write(one, "", "CREATE TABLE seen (n int)")
    write(one, "", f"REVOKE CREATE ON SCHEMA public FROM {USER}")
    write(one, "b1", "INSERT INTO seen VALUES (1)")
    write(one, "b2", "INSERT INTO seen VALUES (2)")
    one.close()
    assert postgres.rows("SELECT count(*) FROM seen") == [(2,)]
    assert caplog.text.count("batches have no ids") == 1
    postgres.rows(f"GRANT CREATE ON SCHEMA public TO {USER}")
    postgres.rows("CREATE TABLE homerd_batches (batch text PRIMARY KEY, written timestamptz)")
    postgres.rows(f"REVOKE CREATE ON SCHEMA public FROM {USER}")
    one.connect()
    write(one, "b3", "INSERT INTO seen VALUES (3)")
    write(one, "b3", "INSERT INTO seen VALUES (3)")
    one.close()
    assert postgres.rows("SELECT count(*) FROM seen") == [(3,)]


def test_a_homer_5_script_over_a_server(server_url, invite):
    node = Node(
        server_url,
        'sql_query("cb", "DROP TABLE IF EXISTS hsq", "r");'
        ' sql_query("cb", "CREATE TABLE hsq (k varchar(20) PRIMARY KEY, n int, d timestamp NULL)", "r");'
        ' sql_query("cb", "INSERT INTO hsq (k,n,d) VALUES (\'O\\\\\'x\',1,NOW()) ON DUPLICATE KEY UPDATE n=n+1");'
        ' sql_query("cb", "INSERT INTO hsq (k,n,d) VALUES (\'O\\\\\'x\',1,NOW()) ON DUPLICATE KEY UPDATE n=n+1");'
        ' sql_query("cb", "INSERT INTO nosuch VALUES (1)");'
        ' sql_query("cb", "INSERT IGNORE INTO hsq (k,n) VALUES (\'O\\\\\'x\',9)");'
        ' sql_query("cb", "INSERT INTO `hsq` (k,n,d) VALUES (\'old\',2,DATE_SUB(NOW(), INTERVAL 9 DAY))");'
        ' sql_query("cb", "DELETE FROM hsq WHERE d < DATE_SUB(NOW(), INTERVAL 8 DAY)");'
        ' sql_query("cb", "SELECT k, n, UNIX_TIMESTAMP(d) FROM hsq", "r");'
        ' xlog("$rc $dbr(r=>rows) $dbr(r=>[0,0]) $dbr(r=>[0,1])");'
        ' if ($dbr(r=>[0,2]) > $TS - 60) xlog("now");'
        ' sql_query("cb", "SELECT nosuch FROM hsq", "r"); xlog("$rc");'
        ' sql_query("cb", "DROP TABLE hsq");',
        invite,
    )
    assert node.feed() == ["1 1 O'x 2", "now", "-1"]
    node.stop()
    (sink,) = node.worker.sinks
    assert (sink.written, sink.rejected) == (6, 1)
