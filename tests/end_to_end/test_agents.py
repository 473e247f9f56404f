"""Agents as their packages are: what they send is found in homerd's tables.

Their known faults are kept as they come: sngrep and sipgrep write a capture id of 16 bits into the
upper half of the chunk, HEP version 1 has neither a time nor a capture id.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from struct import pack

import frames
import pytest
from outages import Daemon
from servers import free_port, needed

SCRIPT = """
listen=udp:127.0.0.1:{port}
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "capture_node", "test")
request_route {{ sip_capture("calls"); }}
onreply_route {{ sip_capture("calls"); }}
"""
KAMAILIO = """#!KAMAILIO
listen=udp:127.0.0.1:{port}
auto_aliases=no
disable_tcp=yes
children=1
log_stderror=yes
debug=1
loadmodule "tm.so"
loadmodule "siptrace.so"
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:{homerd}")
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", {version})
modparam("siptrace", "hep_capture_id", 77)
modparam("siptrace", "auth_key", "secret")
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
request_route {{
    if (method == "ACK") {{
        sip_trace();
        exit;
    }}
    sip_trace_mode("t");
    t_newtran();
    t_reply("200", "OK");
}}
"""
SECONDS, MICROS = 1700000000, 123456
ALICE, BOB = ("192.0.2.1", 5060), ("192.0.2.2", 5062)
HEADERS = (
    "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\nFrom: <sip:alice@example.org>;tag=a\r\n"
    "To: <sip:bob@example.org>{tag}\r\nCall-ID: call-1@192.0.2.1\r\nCSeq: {cseq}\r\n"
    "Contact: <sip:alice@192.0.2.1>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)
CALL = [  # who sends it, its first line
    (ALICE, BOB, "INVITE sip:bob@example.org SIP/2.0", "1 INVITE", ""),
    (BOB, ALICE, "SIP/2.0 200 OK", "1 INVITE", ";tag=b"),
    (ALICE, BOB, "ACK sip:bob@example.org SIP/2.0", "1 ACK", ";tag=b"),
    (ALICE, BOB, "BYE sip:bob@example.org SIP/2.0", "2 BYE", ";tag=b"),
    (BOB, ALICE, "SIP/2.0 200 OK", "2 BYE", ";tag=b"),
]
COLUMNS = "method, source_ip, source_port, destination_ip, destination_port"


class Homerd(Daemon):
    """A homerd that stores every message, and what it stored."""

    def __init__(self, folder):
        super().__init__(folder, "")
        self.script.write_text(SCRIPT.format(port=self.port, folder=folder))

    def rows(self, columns, wanted):
        """The rows in the order of capture, once there are so many."""
        self.until(lambda status: status["received"] >= wanted, 20.0)
        self.until(lambda status: sum(s["written"] for s in status["sinks"].values()) >= wanted)
        with closing(sqlite3.connect(self.folder / "homer.db")) as database:
            return database.execute(f"SELECT {columns} FROM calls ORDER BY micro_ts, id").fetchall()

    @property
    def url(self):
        return f"udp:127.0.0.1:{self.port}"


@pytest.fixture
def homerd(tmp_path):
    running = Homerd(tmp_path)
    running.start()
    yield running
    running.close()


@pytest.fixture
def call_file(tmp_path):
    """A capture file with CALL, a message each millisecond."""
    path = tmp_path / "call.pcap"
    with path.open("wb") as file:
        file.write(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, (source, target, line, cseq, tag) in enumerate(CALL):
            message = f"{line}\r\n{HEADERS.format(cseq=cseq, tag=tag)}".encode()
            packet = frames.ipv4(
                frames.udp(message, source[1], target[1]),
                src=socket.inet_aton(source[0]),
                dst=socket.inet_aton(target[0]),
            )
            frame = frames.ethernet(packet)
            when = MICROS + number * 1000
            file.write(pack("<IIII", SECONDS, when, len(frame), len(frame)) + frame)
    return path


def as_stored():
    """What homerd stores of CALL."""
    words = ("INVITE", "200", "ACK", "BYE", "200")
    return [
        (word, *source, *target) for word, (source, target, *_) in zip(words, CALL, strict=True)
    ]


def run(*command):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("program", "options", "capture_id"),
    [
        ("sngrep", ("-F", "-N", "-q"), 2002 << 16),
        ("sipgrep", ("-R", "-C"), 101 << 16),
    ],
)
def test_a_capture_file_sent_by(homerd, call_file, program, options, capture_id):
    run(needed(program, program), *options, "-I", call_file, "-H", homerd.url)
    assert homerd.rows(COLUMNS, len(CALL)) == as_stored()
    assert homerd.rows("micro_ts", len(CALL)) == [
        (SECONDS * 1_000_000 + MICROS + number * 1000,) for number in range(len(CALL))
    ]
    about = set(homerd.rows("callid, family, proto, node", len(CALL)))
    assert about == {("call-1@192.0.2.1", 2, 1, f"test:{capture_id}")}
    status = homerd.status()
    assert (status["undecoded"], status["ledger"]["difference"]) == ({}, 0)


@pytest.fixture
def call():
    """Makes a call with sipp, from one loopback port to another."""
    sipp = needed("sipp", "sip-tester")

    def make(port, client):
        run(
            sipp, "-sn", "uac", f"127.0.0.1:{port}", "-i", "127.0.0.1", "-p", str(client),
            "-m", "1", "-d", "0", "-nostdin", "-timeout", "10", "-timeout_error",
        )  # fmt: skip

    return make


def between(client, port):
    """The ends of requests, and of replies."""
    loopback = "127.0.0.1"
    return (loopback, client, loopback, port), (loopback, port, loopback, client)


@pytest.mark.parametrize(("version", "node"), [(1, "test"), (2, "test:77"), (3, "test:77")])
def test_a_call_traced_by_kamailio(homerd, call, tmp_path, version, node):
    kamailio = needed("kamailio", "kamailio")
    port, client = free_port(), free_port()
    script = tmp_path / "kamailio.cfg"
    script.write_text(KAMAILIO.format(port=port, homerd=homerd.port, version=version))
    begun = int(time.time())
    with (tmp_path / "kamailio.log").open("wb") as log:
        command = (kamailio, "-f", script, "-DD", "-E", "-Y", tmp_path, "-m", "16", "-M", "2")
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            answered(port)
            homerd.until(lambda status: status["received"] >= 2)
            call(port, client)
            rows = homerd.rows(f"{COLUMNS}, micro_ts, node, callid", 7)[2:]
        finally:
            server.terminate()
            server.wait(10)
    asked, answer = between(client, port)
    assert [row[:5] for row in rows] == [
        ("INVITE", *asked), ("200", *answer), ("ACK", *asked), ("BYE", *asked), ("200", *answer),
    ]  # fmt: skip
    assert all(begun <= row[5] // 1_000_000 <= time.time() for row in rows)
    assert {row[6] for row in rows} == {node}
    assert len({row[7] for row in rows}) == 1


def answered(port):
    """Ask with OPTIONS until there is an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("127.0.0.1", 0))
        asking.settimeout(0.2)
        here = f"127.0.0.1:{asking.getsockname()[1]}"
        message = (
            f"OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK9\r\n"
            f"From: <sip:{here}>;tag=1\r\nTo: <sip:127.0.0.1>\r\nCall-ID: ready\r\n"
            "CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        end = time.monotonic() + 20.0
        while time.monotonic() < end:
            try:
                asking.sendto(message, ("127.0.0.1", port))
                if asking.recv(2048).startswith(b"SIP/2.0 200"):
                    return
            except OSError:  # nobody there yet
                continue
    pytest.fail("kamailio did not answer")


@pytest.mark.parametrize(
    ("program", "options", "capture_id"),
    [
        ("sngrep", ("-F", "-N", "-q", "-d", "lo"), 2002 << 16),
        ("sipgrep", ("-R", "-C", "-d", "lo", "-P", "1-65535"), 101 << 16),
    ],
)
def test_calls_captured_by(homerd, call, program, options, capture_id):
    if os.geteuid() != 0:
        pytest.skip("privilege: capturing from an interface needs root")
    agent, sipp = needed(program, program), needed("sipp", "sip-tester")
    port, client = free_port(), free_port()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    callee = (sipp, "-sn", "uas", "-i", "127.0.0.1", "-p", str(port), "-nostdin")
    with (
        subprocess.Popen(callee, **quiet) as server,
        subprocess.Popen((agent, *options, "-H", homerd.url), **quiet) as capturing,
    ):
        try:
            # Calls are made until the agent, which does not say when it is ready, has seen one.
            found = first_whole_call(homerd, lambda: call(port, client), client)
        finally:
            capturing.terminate()
            server.kill()
    asked, answer = between(client, port)
    assert [row[:5] for row in found] == [
        ("INVITE", *asked), ("180", *answer), ("200", *answer), ("ACK", *asked),
        ("BYE", *asked), ("200", *answer),
    ]  # fmt: skip
    assert {row[6] for row in found} == {f"test:{capture_id}"}


def first_whole_call(homerd, call, client):
    """Rows of the first call from *client*'s port of which all six messages were stored."""
    begun, end = int(time.time()), time.monotonic() + 20.0
    query = (
        f"SELECT {COLUMNS}, callid, node, micro_ts FROM calls"
        " WHERE ? IN (source_port, destination_port) ORDER BY micro_ts, id"
    )
    calls = {}
    while time.monotonic() < end:
        call()
        homerd.drained()
        with closing(sqlite3.connect(homerd.folder / "homer.db")) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchall():
                continue
            calls.clear()
            for row in database.execute(query, (client,)):
                calls.setdefault(row[5], []).append(row)
        for rows in calls.values():
            if len(rows) == 6:
                assert begun <= rows[0][7] // 1_000_000 <= time.time()
                return rows
    pytest.fail(f"no whole call in {calls}")
