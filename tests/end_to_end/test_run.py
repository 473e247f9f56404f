"""`homerd run` as a process: real sockets, a real store, signals."""

from __future__ import annotations

import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from homerd.core.control import ask
from homerd.wire import hep
from homerd.wire.hep import Frame

SECONDS = 30.0  # a deadline nobody should meet

SCRIPT = """
{listen}
debug=1
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "sipcapture.so"
modparam("sipcapture", "db_url", "sqlite:///{database}")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
request_route {{
    if ($rm == "OPTIONS") {{
        xlog("L_NOTICE", "dropped $rm of $si\\n");
        drop;
    }}
    sip_capture("sip_capture");
}}
"""


def sip(method: str = "INVITE", call: str = "c1") -> bytes:
    return (
        f"{method} sip:bob@example.org SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n"
        "From: <sip:alice@example.org>;tag=1\r\n"
        "To: <sip:bob@example.org>\r\n"
        f"Call-ID: {call}\r\n"
        f"CSeq: 1 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def frame(payload: bytes) -> Frame:
    source, target = b"\xc0\0\2\1", b"\xc0\0\2\2"
    return Frame(3, hep.IPV4, 17, source, target, 5060, 5070, 1500000000, 42, 1, 7, payload=payload)


class Daemon:
    """A homerd that listens on *port*, and what can be asked of it."""

    def __init__(self, folder, listen, port):
        self.port = port
        self.folder = folder
        self.database = folder / "homer.db"
        self.control = folder / "homerd.sock"
        self.script = folder / "homer.cfg"
        self.script.write_text(SCRIPT.format(listen=listen, database=self.database))
        self.log = ""
        self.process = subprocess.Popen(
            self.command("run", "-f", str(self.script)), stderr=subprocess.PIPE, bufsize=0
        )
        try:
            self.wait_for("started script=")
        except BaseException:
            self.process.kill()
            raise

    def command(self, *arguments):
        return [sys.executable, "-m", "homerd", *arguments, "--socket", str(self.control)]

    def wait_for(self, text):
        """Read the log until *text* is in it."""
        until = time.monotonic() + SECONDS
        while text not in self.log:
            ready, _, _ = select.select([self.process.stderr], [], [], until - time.monotonic())
            piece = self.process.stderr.read(65536) if ready else b""
            assert piece, f"no {text!r} in:\n{self.log}"
            self.log += piece.decode()

    def status(self):
        return ask(self.control, "status", timeout=SECONDS)

    def wait_until(self, received):
        """Wait until so many datagrams were received."""
        until = time.monotonic() + SECONDS
        while (status := self.status())["received"] < received:
            assert time.monotonic() < until, status
            time.sleep(0.02)
        return status

    def stop(self, number=signal.SIGTERM):
        """End it, and give its exit status."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=SECONDS)
        self.log += rest.decode()
        return self.process.returncode

    def rows(self, columns="callid"):
        with sqlite3.connect(self.database) as database:
            return database.execute(f"SELECT {columns} FROM sip_capture ORDER BY callid").fetchall()


@pytest.fixture
def run(tmp_path, free_port):
    daemons = []

    def start(listen="listen=udp:127.0.0.1:{port} tcp:127.0.0.1:{port}"):
        daemon = Daemon(tmp_path, listen.format(port=free_port), free_port)
        daemons.append(daemon)
        return daemon

    yield start
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.communicate()


def udp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.connect((host, port))
    return opened


def test_whatever_comes_over_udp_tcp_and_ipv6_lies_in_the_database(run):
    daemon = run("listen=127.0.0.1:{port}\nlisten=[::1]:{port}")
    with udp("127.0.0.1", daemon.port) as sender:
        for version in (1, 2, 3):
            sender.send(hep.encode(frame(sip(call=f"hep{version}")), version))
        sender.send(sip(call="bare"))
        sender.send(b"no packet at all")
        bare_port = sender.getsockname()[1]
    with udp("::1", daemon.port) as sender:
        sender.send(hep.encode(frame(sip(call="over-ipv6"))))
    with socket.create_connection(("::1", daemon.port)) as stream:
        stream.sendall(b"".join(hep.encode(frame(sip(call=f"tcp{n}"))) for n in range(3)))
        status = daemon.wait_until(9)
    assert status["undecoded"] == {"not_hep": 1}
    assert daemon.stop() == 0
    sources = {
        call: (host, port) for call, host, port in daemon.rows("callid, source_ip, source_port")
    }
    enveloped = ("hep1", "hep2", "hep3", "over-ipv6", "tcp0", "tcp1", "tcp2")
    assert sources == {
        **dict.fromkeys(enveloped, ("192.0.2.1", 5060)),
        "bare": ("127.0.0.1", bare_port),
    }


def test_status_tells_where_everything_went(run):
    daemon = run()
    with udp("127.0.0.1", daemon.port) as sender:
        sender.send(hep.encode(frame(sip("INVITE"))))
        sender.send(hep.encode(frame(sip("OPTIONS"))))
        sender.send(b"HEP3")
    daemon.wait_until(3)
    daemon.wait_for("<script>: dropped OPTIONS of 192.0.2.1")
    shown = subprocess.run(daemon.command("status"), capture_output=True, text=True).stdout
    words = {tuple(line.split()) for line in shown.splitlines()}
    assert {
        ("received", "3"),
        ("undecoded", "1"),
        ("truncated", "1"),
        ("request_route", "2"),
        ("listens", f"udp:127.0.0.1:{daemon.port}"),
    } <= words
    line = daemon.script.read_text().partition("drop;")[0].count("\n") + 1
    assert f"script:{daemon.script}:{line}" in shown
    assert "Traceback" not in daemon.log


def test_sigterm_under_load_loses_nothing_that_was_received(run):
    daemon = run()
    data = hep.encode(frame(sip()))
    sent = 0
    with udp("127.0.0.1", daemon.port) as sender:
        for _ in range(3000):
            sender.send(data)
            sent += 1
        daemon.process.send_signal(signal.SIGTERM)
        try:
            for _ in range(200_000):
                sender.send(data)
                sent += 1
        except ConnectionRefusedError:
            pass  # it no longer listens
    assert daemon.stop(0) == 0
    told = dict(word.split("=") for word in daemon.log.splitlines()[-1].split() if "=" in word)
    received = int(told["received"])
    assert 3000 <= received <= sent
    assert told["stored"] == str(received)
    assert len(daemon.rows()) == received


def test_sigint_ends_it_as_sigterm_does(run):
    daemon = run()
    assert daemon.stop(signal.SIGINT) == 0
    assert not daemon.control.exists()


def test_a_port_in_use_is_one_clear_line(run):
    daemon = run()
    again = [*daemon.command("run", "-f", str(daemon.script))[:-1], str(daemon.folder / "other")]
    done = subprocess.run(again, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert done.stderr == (
        f'homerd: listen "udp:127.0.0.1:{daemon.port}": cannot listen on 127.0.0.1:{daemon.port}: '
        "the address is in use; is another homerd running?\n"
    )


def test_a_database_that_cannot_be_opened_is_one_clear_line(tmp_path, free_port):
    script = tmp_path / "homer.cfg"
    listen = f"listen=udp:127.0.0.1:{free_port}"
    text = SCRIPT.format(listen=listen, database=tmp_path / "none/homer.db")
    script.write_text(text.replace(f"{tmp_path}/none/homer.db.spool", f"{tmp_path}/spool"))
    command = [sys.executable, "-m", "homerd", "run", "-f", str(script)]
    done = subprocess.run(
        [*command, "--socket", str(tmp_path / "sock")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("homerd: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_hang_up_does_not_end_it(run):
    daemon = run()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("reload")
    assert daemon.status()["received"] == 0
    assert daemon.stop() == 0
