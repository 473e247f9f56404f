"""homerd archive: out of every store, into every store, and what a damaged file does."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homerd.cli import main
from homerd_plugins._homer5 import INTEGER, REPORT_COLUMNS, SIP_COLUMNS
from homerd_plugins._homer7 import COLUMNS
from homerd_plugins._stores import Address, sink_for

LAYOUTS = (SIP_COLUMNS, REPORT_COLUMNS, COLUMNS)
CALL, OLD = "sip_capture_call_20260102", "sip_capture_call_20260101"
ODD = 'INVITE sip:bo\'b|\\@b SIP/2.0\r\nX: grün \U0001f600 \x1e\x1f "q"\r\n\r\n' + "x" * 60_000


def sip(table: str, at: int, **cells: object):
    """A row of Homer 5, *at* seconds after the second day of 2026 began."""
    moment = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=at)
    usual = {column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS}
    told = {
        "date": f"{moment:%Y-%m-%d %H:%M:%S}",
        "micro_ts": round(moment.timestamp()) * 1_000_000,
        "method": "INVITE",
        "callid": f"c{at}",
        "correlation_id": f"c{at}",
        "family": 2,
        "node": "homer01:1",
        "msg": "INVITE sip:bob@b SIP/2.0\r\n\r\n",
    }
    return table, 0, tuple((usual | told | cells).values())


def report(table: str, date: str, message: str = "{}"):
    return table, 1, (date, 1, "c", "10.0.0.1", 1, "10.0.0.2", 2, 1, None, 3, "homer01", message)


def fill(url: str, records) -> None:
    sink = sink_for(Address.of(url), "test", LAYOUTS)
    sink.connect()
    sink.write(list(records))
    sink.close()


def contents(url: str, table: str, columns: str = "date, micro_ts, callid, family, msg") -> list:
    """Rows as the store has them, in the order of their ids."""
    address = Address.of(url)
    query = f"SELECT {columns} FROM {table} ORDER BY id"
    if address.store == "sqlite":
        connection = sqlite3.connect(address.database)
    elif address.store == "postgres":
        from homerd_plugins import _postgres

        connection = _postgres.connected(address)
    else:
        from homerd_plugins import _mysql

        connection = _mysql.connected(address, 10.0)
    cursor = connection.cursor()
    cursor.execute(query)
    rows = [tuple(map(str_of_time, row)) for row in cursor.fetchall()]
    connection.close()
    return rows


def str_of_time(cell):
    return str(cell).removesuffix("+00:00") if isinstance(cell, datetime) else cell


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request, tmp_path):
    """A store of each kind, empty."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/here.db"
    scheme = "postgres" if request.param == "postgres" else "mysql"
    return request.getfixturevalue(request.param).url(scheme)


@pytest.fixture
def script(tmp_path):
    """Makes a script whose rows go to a store."""

    def make(url: str, more: str = "") -> str:
        path = tmp_path / f"homer{len(list(tmp_path.glob('*.cfg')))}.cfg"
        path.write_text(
            f'loadmodule "sipcapture"\nmodparam("sipcapture", "db_url", "{url}")\n{more}\n'
            "request_route { exit; }\n"
        )
        return str(path)

    return make


@pytest.fixture
def homerd(capsys):
    """Runs a command; gives its status, what it printed and what it complained of."""

    def run(*arguments: object):
        status = main(["archive", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def archived(homerd, script, tmp_path):
    """An archive of a SQLite file with two rows."""
    url = f"sqlite://{tmp_path}/there.db"
    fill(url, [sip(CALL, 1), sip(CALL, 2)])
    assert homerd("export", "-f", script(url), "--to", tmp_path / "archive")[0] == 0
    return tmp_path / "archive"


def dropped(url: str, table: str) -> None:
    address = Address.of(url)
    if address.store == "sqlite":
        connection = sqlite3.connect(address.database)
        connection.execute(f"DROP TABLE {table}")
        connection.close()
        return
    sink = sink_for(address, "test", LAYOUTS)
    sink.connect()
    sink.remove(table, "", whole=True)
    sink.close()


def test_rows_come_back_as_they_were_and_a_second_import_adds_none(url, homerd, script, tmp_path):
    folder = tmp_path / "archive"
    fill(url, [sip(CALL, 1, msg=ODD, family=None), sip(CALL, 2), sip(CALL, 2), sip(OLD, -9)])
    before = contents(url, CALL)
    assert before[0][-1] == ODD
    assert homerd("export", "-f", script(url), "--to", folder)[0] == 0
    dropped(url, CALL)
    status, said, _ = homerd("import", "-f", script(url), folder)
    assert (status, said.splitlines()[-1]) == (
        0,
        "2 files, 4 rows: 3 stored, 1 there already, 0 refused",
    )
    assert contents(url, CALL) == before
    _, said, _ = homerd("import", "-f", script(url), folder)
    assert said.splitlines()[-1] == "2 files, 4 rows: 0 stored, 4 there already, 0 refused"
    assert contents(url, CALL) == before


def test_bytes_that_are_no_text_survive(homerd, script, tmp_path):
    url, other = f"sqlite://{tmp_path}/a.db", f"sqlite://{tmp_path}/b.db"
    fill(url, [sip(CALL, 1, msg=b"\xff\0\xfe"), sip(CALL, 2, msg="nul \0 in text")])
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute(
        f"INSERT INTO {CALL} (date, msg) VALUES ('2026-01-02', CAST(x'ff41' AS TEXT))"
    )
    connection.commit()
    connection.close()
    assert homerd("export", "-f", script(url), "--to", tmp_path / "archive")[0] == 0
    for _ in range(2):
        assert homerd("import", "-f", script(other), tmp_path / "archive")[0] == 0
    assert [row[0] for row in contents(other, CALL, "msg")] == [
        b"\xff\0\xfe",
        "nul \0 in text",
        b"\xffA",
    ]


def test_bytes_of_a_binary_column_survive(homerd, script, mariadb, postgres, tmp_path):
    for server, scheme, kind in ((mariadb, "mysql", "blob"), (postgres, "postgres", "bytea")):
        url = server.url(scheme)
        auto = "serial" if scheme == "postgres" else "int auto_increment primary key"
        make = f"CREATE TABLE rest (id {auto}, date timestamp, callid varchar(9), msg {kind})"
        server.rows(make)
        fill(url, [sip("rest", 1, msg=b"\xff\0|\xfe' \\ \x1f")])
        folder = tmp_path / scheme
        assert homerd("export", "-f", script(url), "--to", folder, "--table", "rest")[0] == 0
        server.rows("DROP TABLE rest")
        server.rows(make)
        for _ in range(2):
            assert homerd("import", "-f", script(url), folder)[0] == 0
        assert [bytes(each) for (each,) in contents(url, "rest", "msg")] == [
            b"\xff\0|\xfe' \\ \x1f"
        ]


def test_what_one_store_had_another_takes(url, homerd, script, tmp_path):
    there = f"sqlite://{tmp_path}/there.db"
    records = [
        sip(CALL, 1),
        sip(CALL, 2, msg=b"\xe9\0", family=None),
        report("rtcp_capture_20260102", "2026-01-02 00:00:00"),
    ]
    fill(there, records)
    assert homerd("export", "-f", script(there), "--to", tmp_path / "archive")[0] == 0
    for _ in range(2):
        assert homerd("import", "-f", script(url), tmp_path / "archive")[0] == 0
    fill(url, [sip("same", 1), sip("same", 2, msg=b"\xe9\0", family=None)])
    assert contents(url, CALL) == contents(url, "same")
    assert contents(url, "rtcp_capture_20260102", "correlation_id, msg") == [("c", "{}")]


def test_partitions_of_homer_7_go_and_come_back(postgres, homerd, script, tmp_path):
    url = postgres.url("postgres")
    row = ("s", "2026-01-02 03:04:05.120000+00:00", '{"a":1}', "{}", "raw")
    sink = sink_for(Address.of(url), "test", LAYOUTS)
    sink.connect()
    sink.make_ahead("hep_proto_1_call", 2)
    sink.make_partition("hep_proto_1_call", 1767322800)  # 03:00
    sink.write([("hep_proto_1_call", 2, row)])
    sink.close()
    query = "SELECT sid, create_date, protocol_header, raw, tableoid::regclass::text FROM hep_proto_1_call"
    before = postgres.rows(query)
    partition = before[0][-1]
    assert partition.startswith("hep_proto_1_call_20260102_")
    cfg = script(url, 'modparam("sipcapture", "schema", "homer7")')
    status, said, _ = homerd("export", "-f", cfg, "--to", tmp_path / "archive", "--drop")
    assert status == 0
    assert f"{partition}: 1 rows, written, removed" in said
    assert postgres.rows("SELECT count(*) FROM hep_proto_1_call") == [(0,)]
    for _ in range(2):
        assert homerd("import", "-f", cfg, tmp_path / "archive")[0] == 0
    assert postgres.rows(query) == before
    into_sqlite = script(f"sqlite://{tmp_path}/x.db")
    assert (
        "is of Homer 7, which is for PostgreSQL"
        in homerd("import", "-f", into_sqlite, tmp_path / "archive")[2]
    )


def test_only_tables_of_past_days_are_dropped_and_of_others_the_older_rows(
    url, homerd, script, tmp_path
):
    today = f"sip_capture_call_{datetime.now(UTC):%Y%m%d}"
    fill(
        url,
        [
            sip(CALL, 1),
            sip(today, 1),
            report("rtcp_capture", "2026-01-01 12:00:00"),
            report("rtcp_capture", "2026-01-02 12:00:00"),
        ],
    )
    cfg, folder = script(url), tmp_path / "archive"
    status, said, _ = homerd(
        "export", "-f", cfg, "--to", folder, "--drop", "--before", "2026-01-02"
    )
    assert status == 0
    assert "rtcp_capture before 2026-01-02: 1 rows, written, removed" in said
    assert contents(url, "rtcp_capture", "date") == [("2026-01-02 12:00:00",)]
    status, said, _ = homerd("export", "-f", cfg, "--to", folder, "--drop")
    assert status == 0
    assert f"{CALL}: 1 rows, written, removed" in said
    assert f"{today}: 1 rows, written, not removed: its day is not over" in said
    assert "rtcp_capture: 1 rows, written, not removed: its name has no date" in said
    assert homerd("import", "-f", cfg, folder)[0] == 0
    assert sorted(contents(url, "rtcp_capture", "date")) == [
        ("2026-01-01 12:00:00",),
        ("2026-01-02 12:00:00",),
    ]
    assert len(contents(url, CALL)) == 1


def test_a_table_that_gains_a_row_meanwhile_is_not_dropped(
    url, monkeypatch, homerd, script, tmp_path
):
    from homerd_plugins import _archiving

    fill(url, [sip(CALL, 1)])
    archived = _archiving._archived

    def and_another(*arguments):
        done = archived(*arguments)
        arguments[0].run("ROLLBACK")  # SQLite lets no two write
        fill(url, [sip(CALL, 2)])
        return done

    monkeypatch.setattr(_archiving, "_archived", and_another)
    status, said, _ = homerd("export", "-f", script(url), "--to", tmp_path / "archive", "--drop")
    assert status == 1
    assert "not removed: it has changed since" in said
    assert len(contents(url, CALL)) == 2


def test_what_is_unchanged_is_not_written_again_and_what_grew_takes_its_place(
    archived, homerd, script, tmp_path
):
    url = f"sqlite://{tmp_path}/there.db"
    written = (archived / f"{CALL}.jsonl.gz").stat().st_ino
    assert "there already" in homerd("export", "-f", script(url), "--to", archived)[1]
    assert (archived / f"{CALL}.jsonl.gz").stat().st_ino == written
    fill(url, [sip(CALL, 3)])
    homerd("export", "-f", script(url), "--to", archived)
    assert [path.name for path in sorted(archived.iterdir())] == [
        "manifest.json",
        f"{CALL}.jsonl.gz",
    ]
    dropped(url, CALL)
    fill(url, [sip(CALL, 4)])  # another table of the same name: what is archived stays
    homerd("export", "-f", script(url), "--to", archived)
    homerd("import", "-f", script(url), archived)
    assert sorted(contents(url, CALL, "callid")) == [("c1",), ("c2",), ("c3",), ("c4",)]


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    text = gzip.decompress(data).decode()
    changed = {
        "cut": lambda: data[:-20],
        "flipped": lambda: data[:400] + bytes([data[400] ^ 1]) + data[401:],
        "tail": lambda: data + b"x",
        "rows": lambda: gzip.compress(text.rsplit("\n", 2)[0].encode() + b"\n"),
        "cell": lambda: gzip.compress(text.replace('"c2"', "[]").encode()),
        "other": lambda: gzip.compress(text.replace('"c2"', '"cX"').encode()),
        "none": lambda: b"",
        "text": lambda: b"hello",
    }[how]()
    path.write_bytes(changed)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "manifest.json says"),
        ("flipped", "damaged: line "),
        ("tail", "line 4, near byte"),
        ("rows", "its head says 2 rows, there are 1"),
        ("cell", "line 3: cell "),
        ("other", "its SHA-256 is not that of manifest.json"),
        ("none", "line 1: "),
        ("text", "line 1, near byte"),
    ],
)
def test_a_damaged_file_is_refused_before_its_first_row(
    how, said, archived, homerd, script, tmp_path
):
    path = archived / f"{CALL}.jsonl.gz"
    damage(path, how)
    status, _, complaint = homerd("verify", archived)
    assert (status, complaint.count("\n")) == (1, 1)
    assert f"homerd: {path}: damaged: " in complaint
    assert said in complaint
    status, _, complaint = homerd("import", "-f", script(f"sqlite://{tmp_path}/new.db"), archived)
    assert (status, said in complaint) == (1, True)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_damaged_file_does_not_keep_the_others_out(form, homerd, script, tmp_path):
    there, new = f"sqlite://{tmp_path}/there.db", f"sqlite://{tmp_path}/new.db"
    fill(there, [sip(OLD, 1), sip(CALL, 1)])
    assert homerd("export", "-f", script(there), "--to", tmp_path / "archive")[0] == 0
    damage(tmp_path / "archive" / f"{OLD}.jsonl.gz", "rows")
    status, told, complaint = homerd("import", "-f", script(new), tmp_path / "archive", *form)
    assert (status, "damaged" in (told if form else complaint)) == (1, True)
    if form:
        last = json.loads(told.splitlines()[-1])["summary"]
        assert (last["files"], last["damaged"], last["stored"]) == (1, 1, 1)
    else:
        assert told.splitlines()[-1].endswith("0 refused, 1 files damaged")
    assert len(contents(new, CALL)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged, no manifest of an archive"),
        ('{"files": [{}]}', "an entry lacks"),
        (
            '{"files": [{"file": "../x", "bytes": 1, "sha256": "", "store": "", "table": "", "before": "", "rows": 1, "first": 1, "last": 1}]}',
            "an entry lacks",
        ),
        ('{"files": []}', "no archive"),
    ],
)
def test_a_damaged_manifest_is_refused(text, said, archived, homerd):
    (archived / "manifest.json").write_text(text)
    for action in ("list", "verify"):
        status, _, complaint = homerd(action, archived)
        assert (status, said in complaint) == (1, True)


def test_a_file_alone_is_imported_and_verified_by_what_it_says_of_itself(
    archived, homerd, script, tmp_path
):
    alone = tmp_path / "alone.jsonl.gz"
    alone.write_bytes((archived / f"{CALL}.jsonl.gz").read_bytes())
    assert homerd("import", "-f", script(f"sqlite://{tmp_path}/new.db"), alone)[0] == 0
    assert len(contents(f"sqlite://{tmp_path}/new.db", CALL)) == 2
    damage(alone, "rows")
    assert homerd("verify", alone)[0] == 1


def test_json_says_the_same(archived, homerd, script, tmp_path):
    (listed,) = map(json.loads, homerd("list", "--json", archived)[1].splitlines())
    assert (listed["table"], listed["rows"], listed["first"], listed["last"]) == (CALL, 2, 1, 2)
    (verified,) = map(json.loads, homerd("verify", "--json", archived)[1].splitlines())
    assert (verified["ok"], verified["rows"]) == (True, 2)
    url = f"sqlite://{tmp_path}/there.db"
    lines = homerd("export", "-f", script(url), "--to", archived, "--json")[1].splitlines()
    told, last = map(json.loads, lines)
    assert (told["state"], told["sha256"]) == ("there already", listed["sha256"])
    assert last == {"summary": {"tables": 1, "rows": 2, "to": str(archived)}}
    lines = homerd("import", "-f", script(url), archived, "--json")[1].splitlines()
    told, last = map(json.loads, lines)
    assert (told["table"], told["there"], told["stored"]) == (CALL, 2, 0)
    assert last["summary"] == {
        "files": 1,
        "rows": 2,
        "stored": 0,
        "there": 2,
        "refused": 0,
        "damaged": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "nonesuch"], f"no table or family nonesuch; there are: people, {CALL[:-9]}"),
        (["--table", "people"], "people is no table of captured messages"),
        (["--mode", "other"], 'no capture mode "other", known: default'),
    ],
)
def test_what_cannot_be_exported_is_told(arguments, said, archived, homerd, script, tmp_path):
    connection = sqlite3.connect(tmp_path / "there.db")
    connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
    connection.close()
    cfg = script(f"sqlite://{tmp_path}/there.db")
    status, _, complaint = homerd("export", "-f", cfg, "--to", archived, *arguments)
    assert (status, said in complaint) == (1, True)


def test_names_that_the_operator_gave_to_columns_are_translated(homerd, script, tmp_path):
    named = 'modparam("sipcapture", "callid_column", "call_id")'
    one, two = f"sqlite://{tmp_path}/one.db", f"sqlite://{tmp_path}/two.db"
    columns = [
        each._replace(renamed="call_id" if each.key == "callid" else "") for each in SIP_COLUMNS
    ]
    sink = sink_for(Address.of(one), "test", [columns])
    sink.connect()
    sink.write([sip(CALL, 1)])
    sink.close()
    assert homerd("export", "-f", script(one, named), "--to", tmp_path / "a")[0] == 0
    assert homerd("import", "-f", script(two), tmp_path / "a")[0] == 0
    assert contents(two, CALL, "callid") == [("c1",)]


def test_a_table_without_the_column_of_times_takes_no_rows(archived, homerd, script, tmp_path):
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute(f"CREATE TABLE {CALL} (id INTEGER PRIMARY KEY, callid TEXT, msg TEXT)")
    connection.close()
    status, _, told = homerd("import", "-f", script(f"sqlite://{tmp_path}/new.db"), archived)
    assert (status, told.count("\n")) == (1, 1)
    assert f"table {CALL} has no column date, by whose times rows are compared" in told


def test_retention_archives_what_it_drops_and_keeps_what_it_cannot(url, script, tmp_path, capsys):
    kept = f'modparam("sipcapture", "retention", "sip_capture_call=5;rtcp_capture=5")\nmodparam("sipcapture", "archive", "{tmp_path}/archive")'
    cfg = script(url, kept)
    fill(url, [sip(CALL, 1), report("rtcp_capture", "2026-01-01 12:00:00")])
    (tmp_path / "archive").write_text("in the way")
    assert main(["retention", "-f", cfg]) == 1
    assert f"{tmp_path}/archive: File exists" in capsys.readouterr().err
    assert len(contents(url, CALL)) == 1
    (tmp_path / "archive").unlink()
    assert main(["retention", "-f", cfg]) == 0
    assert contents(url, "rtcp_capture", "date") == []
    assert main(["archive", "verify", str(tmp_path / "archive")]) == 0
    assert main(["archive", "import", "-f", script(url), str(tmp_path / "archive")]) == 0
    assert (len(contents(url, CALL)), len(contents(url, "rtcp_capture", "id"))) == (1, 1)


def test_a_killed_export_leaves_nothing_that_looks_whole(homerd, script, tmp_path):
    url = f"sqlite://{tmp_path}/there.db"
    noise = os.urandom(4000).hex()
    fill(url, [sip(CALL, at, msg=noise[at:]) for at in range(4000)])
    folder = tmp_path / "archive"
    command = [
        sys.executable,
        "-m",
        "homerd",
        "archive",
        "export",
        "-f",
        script(url),
        "--to",
        str(folder),
    ]
    process = subprocess.Popen(command)
    partial = folder / f"{CALL}.jsonl.gz.partial"
    until = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < until:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == [partial.name]
    assert homerd("verify", folder)[0] == 1
    assert homerd("export", "-f", script(url), "--to", folder)[0] == 0
    assert homerd("verify", folder)[0] == 0
    assert not partial.exists()


def test_a_killed_import_goes_on_where_it_was(url, homerd, script, tmp_path):
    there = f"sqlite://{tmp_path}/there.db"
    fill(there, [sip(CALL, at // 2) for at in range(6000)])
    assert homerd("export", "-f", script(there), "--to", tmp_path / "archive")[0] == 0
    cfg = script(url)
    process = subprocess.Popen(
        [sys.executable, "-m", "homerd", "archive", "import", "-f", cfg, str(tmp_path / "archive")],
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 30
    while process.poll() is None and not count(url) and time.monotonic() < until:
        pass
    process.kill()
    process.wait()
    assert homerd("import", "-f", cfg, tmp_path / "archive")[0] == 0
    assert contents(url, CALL, "callid") == [(f"c{at // 2}",) for at in range(6000)]


def count(url: str) -> int:
    try:
        return len(contents(url, CALL, "id"))
    except Exception:  # any driver's: the table is not there yet
        return 0
