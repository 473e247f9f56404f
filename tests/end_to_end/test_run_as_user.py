"""`user` and `group`: homerd starts as root, opens what needs root, and is root no longer."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SECONDS = 60.0  # a deadline nobody should meet
USER = 65534

SCRIPT = """
listen=raw:lo
raw_filter="udp port {port}"
{settings}
spool_dir="{folder}/spool"
loadmodule "sipcapture"
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
request_route {{ sip_capture("sip_capture"); }}
"""
OPTIONS = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)


@pytest.fixture
def folder():
    """A folder that other users reach, unlike pytest's own."""
    if os.geteuid() != 0:
        pytest.skip("privilege: only root becomes somebody else")
    made = Path(tempfile.mkdtemp(prefix="homerd-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def port():
    """A loopback port that somebody has, so that what is sent to it is not refused."""
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened.getsockname()[1]


def command(folder, *words):
    return [sys.executable, "-m", "homerd", *words, "--socket", str(folder / "sock")]


def start(folder, port, settings, **more):
    script = folder / "homer.cfg"
    script.write_text(SCRIPT.format(folder=folder, port=port, settings=settings))
    return subprocess.Popen(
        command(folder, "run", "--no-watch", "-f", str(script)),
        stderr=subprocess.PIPE,
        bufsize=0,
        **more,
    )


def log_until(process, text):
    log = ""
    until = time.monotonic() + SECONDS
    while text not in log:
        ready, _, _ = select.select([process.stderr], [], [], until - time.monotonic())
        piece = process.stderr.read(65536) if ready else b""
        assert piece, f"no {text!r} in:\n{log}"
        log += piece.decode()
    return log


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def test_the_daemon_captures_and_stores_without_being_root(folder, port):
    os.chown(folder, USER, USER)
    process = start(folder, port, f"user={USER}\ngroup={USER}")
    try:
        log_until(process, "started script=")
        told = status(process.pid)
        assert told["Uid"] == told["Gid"] == [str(USER)] * 4
        assert "0" not in told["Groups"]
        assert {int(told[kind][0], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(OPTIONS, ("127.0.0.1", port))
        until = time.monotonic() + SECONDS
        asked = command(folder, "status", "--json")
        while not json.loads(subprocess.check_output(asked))["received"]:
            assert time.monotonic() < until
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()
    assert not (folder / "sock").exists()
    assert (folder / "homer.db").stat().st_uid == USER
    with sqlite3.connect(folder / "homer.db") as database:
        assert database.execute("SELECT callid FROM sip_capture").fetchall() == [("1",)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("user=nosuchuser", 'user "nosuchuser": this machine has no such user'),
        ("group=nosuchgroup", 'group "nosuchgroup": this machine has no such group'),
        (f"user={USER}", "spool_dir {folder}/spool: the user nobody may not write in {folder}"),
        (f"user={USER}\nspool_limit=0", "cannot open the database"),
    ],
)
def test_what_keeps_it_from_becoming_the_user_is_told_in_a_line(folder, port, settings, told):
    process = start(folder, port, settings)
    _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert told.format(folder=folder) in log.decode()
    assert len(log.decode().splitlines()) == 1


def test_root_that_stays_root_is_said(folder, port):
    process = start(folder, port, "user=root")
    try:
        assert "privileges are kept user=root" in log_until(process, "started script=")
    finally:
        process.kill()
        process.communicate()
