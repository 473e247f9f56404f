"""What scripts print and store, case by case, as Kamailio 5.6.3 did it (tests/data/language-cases.json).

A case is a script, packets, and what must come out: log lines, rows, datagrams, or a refusal to load.
Integers are of 64 bits, as in Kamailio from 5.8 on.
"""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path

import pytest

from homerd.cli import main

CASES = json.loads((Path(__file__).parents[1] / "data" / "language-cases.json").read_text("utf-8"))


@pytest.fixture
def udp_port():
    """A local UDP port, and a function that gives what was sent to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        taker.setblocking(False)

        def received():
            found = []
            while True:
                try:
                    found.append(taker.recv(65535).decode())
                except BlockingIOError:
                    return found

        yield taker.getsockname()[1], received


@pytest.mark.parametrize("case", CASES, ids=[f"{c['section']}:{c['name']}" for c in CASES])
def test_a_script_does_what_kamailio_does(case, tmp_path, monkeypatch, capsys, udp_port):
    port, received = udp_port
    monkeypatch.chdir(tmp_path)

    def filled(text):
        return text.replace("@DIR@", str(tmp_path)).replace("@UDP@", str(port))

    (tmp_path / "case.cfg").write_bytes(filled(case["script"]).encode())
    for name, text in case.get("files", {}).items():
        (tmp_path / name).write_bytes(filled(text).encode())
    expect = case["expect"]
    if expect["load"] == "error":
        assert main(["check", "-f", "case.cfg"]) == 1
        assert "error" in capsys.readouterr().err
        return
    packets = "".join(json.dumps(packet) + "\n" for packet in case["packets"])
    (tmp_path / "packets.jsonl").write_text(packets)
    status = main(["replay", "--json", "-f", "case.cfg", "packets.jsonl"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    told = [json.loads(line) for line in printed.out.splitlines()]
    lines = "".join(entry["text"] for item in told for entry in item.get("log", ())).splitlines()
    if "xlog" in expect:
        assert lines == [filled(line) for line in expect["xlog"]]
    if "udp" in expect:
        assert sorted(received()) == sorted(expect["udp"])
    for table, rows in expect.get("rows", {}).items():
        columns = ", ".join(rows["columns"])
        with sqlite3.connect(tmp_path / "x.db") as database:
            stored = database.execute(f'SELECT {columns} FROM "{table}" ORDER BY id').fetchall()
        shown = [["" if cell is None else str(cell) for cell in row] for row in stored]
        assert shown == [["" if cell is None else cell for cell in row] for row in rows["values"]]
