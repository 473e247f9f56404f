"""`--db`: other stores than those the script names."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from homerd.cli import main

SCRIPT = """\
loadmodule "sipcapture"
loadmodule "sqlops"
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "db_url", "mysql://homer:secret@192.0.2.1/homer_data")
modparam("sipcapture", "capture_mode", "two=>db_url=postgres://192.0.2.1/b;table_name=t;mt_mode=rand")
modparam("sqlops", "sqlcon", "cb=>mysql://homer:secret@192.0.2.1/homer_statistic")
request_route {
    sip_capture("calls");
    sip_capture("calls", "two");
    sql_query("cb", "INSERT INTO seen (n) VALUES (1)");
    drop;
}
"""
MESSAGE = (
    "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z\r\n"
    "From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMERD_DB", "")
    (tmp_path / "homer.cfg").write_text(SCRIPT)
    (tmp_path / "one.sip").write_text(MESSAGE)
    return tmp_path


def count(folder: Path, file: str, table: str) -> int:
    with closing(sqlite3.connect(folder / file)) as store:
        return int(store.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_one_store_stands_for_all_that_the_script_names(folder):
    with closing(sqlite3.connect(folder / "all.db")) as store:
        store.execute("CREATE TABLE seen (n INTEGER)")
    files = ["-f", str(folder / "homer.cfg"), str(folder / "one.sip")]
    assert main(["replay", "--db", f"sqlite://{folder}/all.db", *files]) == 0
    assert (count(folder, "all.db", "calls"), count(folder, "all.db", "seen")) == (2, 1)


def test_each_store_has_one_of_its_own(folder):
    with closing(sqlite3.connect(folder / "c.db")) as store:
        store.execute("CREATE TABLE seen (n INTEGER)")
    stores = [
        f"mysql://192.0.2.1/homer_data=sqlite://{folder}/a.db",
        f"postgres://192.0.2.1/b=sqlite://{folder}/b.db",
        f"mysql://192.0.2.1/homer_statistic=sqlite://{folder}/c.db",
    ]
    options = [part for store in stores for part in ("--db", store)]
    files = ["-f", str(folder / "homer.cfg"), str(folder / "one.sip")]
    assert main(["replay", *options, *files]) == 0
    assert os.environ["HOMERD_DB"] == ";".join(stores)
    found = [
        count(folder, *each) for each in (("a.db", "calls"), ("b.db", "calls"), ("c.db", "seen"))
    ]
    assert found == [1, 1, 1]


def test_alarms_too_go_to_the_store_that_stands_for_all(folder):
    (folder / "alarms.cfg").write_text(
        'loadmodule "alarm"\nmodparam("alarm", "db_url", "mysql://homer:secret@192.0.2.1/alarms")\n'
        'modparam("alarm", "alarm", "calls=>raise=1")\n'
        'request_route { alarm_count("calls", "all"); drop; }\n'
    )
    files = ["-f", str(folder / "alarms.cfg"), str(folder / "one.sip")]
    assert main(["replay", "--db", f"sqlite://{folder}/all.db", *files]) == 0
    assert count(folder, "all.db", "alarm_data") == 1


def test_search_reads_the_store_that_the_environment_names(folder, monkeypatch, capsys):
    monkeypatch.setenv("HOMERD_DB", f"sqlite://{folder}/all.db")
    files = ["-f", str(folder / "homer.cfg")]
    assert main(["replay", *files, str(folder / "one.sip")]) == 0
    capsys.readouterr()
    assert main(["search", *files, "--call-id", "1"]) == 0
    assert "OPTIONS" in capsys.readouterr().out


def test_a_store_that_cannot_be_is_told_by_check(folder, capsys):
    arguments = ["check", "-f", str(folder / "homer.cfg"), "--db", "oracle://h/d"]
    assert main(arguments) == 1
    assert "there is no store for oracle" in capsys.readouterr().err
