"""The shipped homer.cfg, from packets in a file to rows in SQLite."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def sip(first_line: str, cseq: str, *headers: str) -> str:
    lines = [
        first_line,
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds",
        "From: Alice <sip:alice@example.org>;tag=1928301774",
        "To: Bob <sip:bob@example.org>",
        "Call-ID: a84b4c76e66710@192.0.2.1",
        f"CSeq: 314159 {cseq}",
        *headers,
        "Content-Length: 0",
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


def hep(payload: str, proto_type: int = 1, **chunks: Any) -> str:
    """One packet of the input: captured on 14 July 2017, two seconds before midnight UTC."""
    frame = {
        "family": 2,
        "proto": 17,
        "src_ip": "192.0.2.1",
        "src_port": 5060,
        "dst_ip": "192.0.2.2",
        "dst_port": 5060,
        "time_sec": 1500076798,
        "time_usec": 42,
        "proto_type": proto_type,
        "capture_id": 2001,
        "payload": payload,
    }
    return json.dumps({"hep": frame | chunks}) + "\n"


INVITE = sip("INVITE sip:bob@example.org SIP/2.0", "INVITE")
REGISTER = sip("REGISTER sip:example.org SIP/2.0", "REGISTER")
OPTIONS = sip("OPTIONS sip:bob@example.org SIP/2.0", "OPTIONS")
SCAN = sip("OPTIONS sip:100@192.0.2.2 SIP/2.0", "OPTIONS", "User-Agent: friendly-scanner")

TABLES = [
    (INVITE, "call"),
    (sip("SIP/2.0 200 OK", "INVITE"), "call"),
    (sip("SIP/2.0 486 Busy Here", "INVITE"), "call"),
    (sip("ACK sip:bob@example.org SIP/2.0", "ACK"), "call"),
    (sip("BYE sip:bob@example.org SIP/2.0", "BYE"), "call"),
    (sip("CANCEL sip:bob@example.org SIP/2.0", "CANCEL"), "call"),
    (sip("UPDATE sip:bob@example.org SIP/2.0", "UPDATE"), "call"),
    (sip("PRACK sip:bob@example.org SIP/2.0", "PRACK"), "call"),
    (sip("INFO sip:bob@example.org SIP/2.0", "INFO"), "call"),
    (sip("REFER sip:bob@example.org SIP/2.0", "REFER"), "call"),
    (sip("NOTIFY sip:bob@example.org SIP/2.0", "NOTIFY", "Event: refer;id=1"), "call"),
    (sip("NOTIFY sip:bob@example.org SIP/2.0", "NOTIFY", "Event: presence"), "rest"),
    (sip("NOTIFY sip:bob@example.org SIP/2.0", "NOTIFY"), "rest"),
    (REGISTER, "registration"),
    (sip("SIP/2.0 401 Unauthorized", "REGISTER"), "registration"),
    (OPTIONS, "rest"),
    (sip("SIP/2.0 200 OK", "OPTIONS"), "rest"),
    (sip("SUBSCRIBE sip:bob@example.org SIP/2.0", "SUBSCRIBE"), "rest"),
    (sip("MESSAGE sip:bob@example.org SIP/2.0", "MESSAGE"), "rest"),
    (sip("JUMP sip:bob@example.org SIP/2.0", "JUMP"), "rest"),
]


def replay(folder: Path, lines: list[str], *switches: str) -> list[dict[str, Any]]:
    """What `homerd replay --json` says of *lines*, homer.cfg having *switches* on."""
    (folder / "packets.jsonl").write_text("".join(lines))
    arguments = ["replay", "--json", "-f", str(ROOT / "homer.cfg"), "packets.jsonl"]
    arguments += [word for name in switches for word in ("-A", name)]
    done = subprocess.run(
        [sys.executable, "-m", "homerd", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def tables_of(packet: dict[str, Any]) -> list[str]:
    return [effect["table"] for effect in packet["effects"]]


def test_a_message_lands_in_the_table_of_its_kind_and_of_its_own_day(tmp_path):
    *packets, _ = replay(tmp_path, [hep(message) for message, _ in TABLES])
    assert [tables_of(packet) for packet in packets] == [
        [f"sip_capture_{kind}_20170714"] for _, kind in TABLES
    ]


def test_rows_lie_in_a_database_of_the_working_directory(tmp_path):
    *_, end = replay(tmp_path, [hep(INVITE), hep(INVITE, time_sec=1500076801), hep(REGISTER)])
    counts = {
        "sip_capture_call_20170714": 1,
        "sip_capture_call_20170715": 1,
        "sip_capture_registration_20170714": 1,
    }
    assert {name: n for name, n in end["summary"]["stored"].items() if n} == counts
    with sqlite3.connect(tmp_path / "homerd.db") as store:
        for table, count in counts.items():
            query = f"SELECT count(*), min(callid), min(node), min(from_user) FROM {table}"
            row = (count, "a84b4c76e66710@192.0.2.1", "homer01:2001", "alice")
            assert store.execute(query).fetchone() == row


@pytest.mark.parametrize(
    ("proto_type", "table"),
    [(5, "rtcp_capture"), (32, "report_capture"), (99, "report_capture"), (100, "logs_capture")],
)
def test_what_is_not_sip_needs_no_script(tmp_path, proto_type, table):
    *_, end = replay(tmp_path, [hep('{"type":200}', proto_type, correlation_id="c1")])
    assert {name: n for name, n in end["summary"]["stored"].items() if n} == {table: 1}
    with sqlite3.connect(tmp_path / "homerd.db") as store:
        query = f"SELECT correlation_id, msg FROM {table}"
        assert store.execute(query).fetchall() == [("c1", '{"type":200}')]


def test_options_are_left_out_on_demand_and_the_drop_is_told(tmp_path):
    lines = [hep(OPTIONS), hep(sip("SIP/2.0 200 OK", "OPTIONS")), hep(INVITE)]
    *packets, end = replay(tmp_path, lines, "DO_DROP_OPTIONS")
    assert [tables_of(packet) for packet in packets] == [[], [], ["sip_capture_call_20170714"]]
    assert sum(end["summary"]["not_stored"].values()) == 2


def test_a_scanner_is_left_out_on_demand_and_logged_once_until_it_is_quiet(tmp_path):
    lines = [hep(SCAN), hep(SCAN), hep(OPTIONS), '{"wait": 61}\n', hep(SCAN)]
    *packets, _ = replay(tmp_path, lines, "DO_DROP_SCANNERS")
    assert [tables_of(packet) for packet in packets] == [
        [],
        [],
        ["sip_capture_rest_20170714"],
        [],
    ]
    warning = {
        "level": "WARNING",
        "text": "scanner 192.0.2.1: OPTIONS with User-Agent friendly-scanner\n",
    }
    assert [packet["log"] for packet in packets] == [[warning], [], [], [warning]]


def test_methods_and_statuses_are_counted_on_demand_and_logged_once_a_minute(tmp_path):
    lines = [hep(INVITE), hep(INVITE), hep(sip("SIP/2.0 200 OK", "INVITE"))]
    *packets, _ = replay(tmp_path, [*lines, '{"wait": 60}\n', hep(REGISTER)], "DO_METHOD_COUNTS")
    counts: Counter[str] = Counter()
    for line in (line for packet in packets for line in packet["log"]):
        _, name, count = line["text"].split()
        counts[name] += int(count)
    assert counts == {"INVITE": 2, "200": 1}


def test_every_switch_may_be_on_at_once(tmp_path):
    switches = ["DO_IPV6", "DO_DROP_OPTIONS", "DO_DROP_SCANNERS", "DO_METHOD_COUNTS"]
    packet, _ = replay(tmp_path, [hep(INVITE)], *switches)
    assert tables_of(packet) == ["sip_capture_call_20170714"]
