"""examples/alarms, run as its first lines say."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from homerd.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples/alarms"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the example, with its program where the script looks for it."""
    shutil.copytree(EXAMPLE, tmp_path / "alarms")
    script = tmp_path / "alarms/alarms.cfg"
    script.write_text(script.read_text().replace("/usr/local/bin", str(tmp_path / "alarms")))
    monkeypatch.chdir(tmp_path / "alarms")
    monkeypatch.setenv("ALARM_LOG", str(tmp_path / "alarms.log"))
    return tmp_path


def test_it_compiles_without_a_warning(capsys):
    for options in ([], ["-A", "DO_NOTIFY"]):
        assert main(["check", "-f", str(EXAMPLE / "alarms.cfg"), *options]) == 0
        assert capsys.readouterr().err == ""


def test_its_cases_hold(capsys):
    assert main(["test", str(EXAMPLE / "alarms.cfg")]) == 0, capsys.readouterr().out


def test_a_scan_is_stored_with_its_evidence_and_told(folder, capsys):
    assert main(["replay", "-f", "alarms.cfg", "-A", "DO_NOTIFY", "scan.jsonl"]) == 0
    with sqlite3.connect("homerd.db") as store:
        query = "SELECT type, source_ip, total, status FROM alarm_data WHERE type = 'scanner'"
        assert store.execute(query).fetchall() == [
            ("scanner", "203.0.113.5", 10, 1),
            ("scanner", "203.0.113.5", 12, 0),
        ]
        query = (
            "SELECT call_id, method, source FROM alarm_evidence WHERE type = 'scanner' ORDER BY id"
        )
        rows = store.execute(query).fetchall()
        assert rows == [(f"scan-{n}", "OPTIONS", "203.0.113.5:5061") for n in range(10)]
    told = (folder / "alarms.log").read_text().splitlines()
    assert [line.split(" for ")[0] for line in told if "scanner" in line] == [
        "critical: scanner raised",
        "critical: scanner cleared",
    ]
