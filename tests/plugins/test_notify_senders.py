"""Alarms to syslog, statsd and a program."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time

import pytest
from alarm_peers import CERTIFICATE, event, events, opened, records, server_tls, wait_for
from servers import free_port

from homerd.errors import ConfigError, Rejected, RetryLater
from homerd_plugins._notify import Target

LONG = 20.0
TEXT = "scanner raised for 192.0.2.66: 20 in 60 s, threshold 20, node capture1: known user agents"
BYTES = b"\xff\xfe".decode("utf-8", "surrogateescape")


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LONG)
        yield server


# -- syslog


def test_a_line_of_rfc_5424_over_udp(udp):
    with opened(f"s=>syslog://127.0.0.1:{udp.getsockname()[1]};facility=local0") as sink:
        sink.write(records(event()))
    assert udp.recv(4096).decode() == (
        f"<130>1 2023-11-14T22:13:21.500000Z capture1 homerd {os.getpid()} raised - critical: {TEXT}"
    )


@pytest.mark.parametrize(
    ("changes", "priority"),
    [
        ({"severity": "critical"}, 26),
        ({"severity": "major"}, 27),
        ({"severity": "minor"}, 28),
        ({"severity": "warning"}, 28),
        ({"severity": "info"}, 30),
        ({"severity": "critical", "state": "cleared"}, 29),
    ],
)
def test_severities_of_alarms_are_those_of_syslog(udp, changes, priority):
    with opened(f"s=>syslog://127.0.0.1:{udp.getsockname()[1]}") as sink:
        sink.write(records(event(**changes)))
    assert udp.recv(4096).startswith(b"<%d>1 " % priority)


def test_what_the_network_sent_stays_in_its_line(udp):
    with opened(f"s=>syslog://127.0.0.1:{udp.getsockname()[1]}") as sink:
        sink.write(records(event(key="a\n<0>1 - \x00" + BYTES, node="capture 1", description="")))
        sink.write(records(event(id="a2", key="é" * 5000), event(id="a3", key="x" + "é" * 5000)))
    assert re.fullmatch(
        r"<26>1 \S+Z capture_1 homerd \d+ raised - critical: scanner raised for a <0>1 - \ufffd\ufffd:"
        r" 20 in 60 s, threshold 20, node capture 1",
        udp.recv(4096).decode(),
    )
    long, longer = udp.recv(4096), udp.recv(4096)
    assert sorted((len(long), len(longer))) == [2047, 2048]
    assert long.decode()[-1] == longer.decode()[-1] == "é"


def frames(data):
    """Messages of a stream, by RFC 6587."""
    found = []
    while data:
        length, _, data = data.partition(b" ")
        found.append(data[: int(length)])
        data = data[int(length) :]
    return found


def read_to_end(connection):
    data = b""
    try:
        while more := connection.recv(4096):
            data += more
    except ssl.SSLEOFError:  # closed without a word of TLS
        pass
    return data


def test_lines_over_tcp_are_counted_in_octets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with opened(f"s=>syslog+tcp://127.0.0.1:{server.getsockname()[1]}") as sink:
            sink.write(records(event(description="é"), event(id="a2", key="b")))
        connection, _ = server.accept()
        with connection:
            first, second = frames(read_to_end(connection))
    assert first.decode().endswith("node capture1: é")
    assert b"raised for b:" in second


def test_a_tcp_server_that_has_gone_is_noticed_before_the_next_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = Target.from_script(f"s=>syslog+tcp://127.0.0.1:{server.getsockname()[1]}").sink()
        sink.connect()
        connection, _ = server.accept()
        sink.write(records(event()))
        assert connection.recv(4096)
        connection.close()
        with pytest.raises(RetryLater, match="closed the connection"):
            sink.write(records(event(id="a2")))
        sink.close()
        sink.connect()
        sink.write(records(event(id="a2")))
        sink.close()
        connection, _ = server.accept()
        with connection:
            assert len(frames(read_to_end(connection))) == 1


def test_lines_over_tls():
    got = []

    def serve(server):
        connection, _ = server.accept()
        with connection:
            got.append(read_to_end(connection))

    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        server_tls().wrap_socket(plain, server_side=True) as server,
    ):
        port = server.getsockname()[1]
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with opened(f"s=>syslog+tls://localhost:{port};ca={CERTIFICATE}") as sink:
            sink.write(records(event()))
            sink.write(records(event(id="a2")))
        thread.join(LONG)
    assert [frame[:6] for frame in frames(got[0])] == [b"<26>1 "] * 2


def test_the_local_socket_gets_the_form_of_syslog_3(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(LONG)
        with opened(f"s=>syslog://{tmp_path}/log") as sink:
            sink.write(records(event()))
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(1700000001))
        assert server.recv(4096).decode() == f"<26>{stamp} homerd[{os.getpid()}]: critical: {TEXT}"


@pytest.mark.parametrize("scheme", ["syslog+tcp", "syslog"])
def test_a_syslog_server_that_is_away_is_waited_for(scheme, tmp_path):
    place = f"//127.0.0.1:{free_port()}" if scheme == "syslog+tcp" else f"//{tmp_path}/log"
    sink = Target.from_script(f"s=>{scheme}:{place}").sink()
    with pytest.raises(RetryLater, match=re.escape(place)):
        sink.connect()


def test_a_udp_port_that_is_closed_is_noticed_with_the_second_line():
    with opened(f"s=>syslog://127.0.0.1:{free_port()}") as sink:
        sink.write(records(event()))
        with pytest.raises(RetryLater, match="nobody listens on the port"):
            sink.write(records(event(id="a2")))


# -- statsd


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, "homer.alarm.scanner.raised:1|c\nhomer.alarm.scanner.value:20|g\n"),
        (
            {"state": "cleared", "value": 2.5},
            "homer.alarm.scanner.cleared:1|c\nhomer.alarm.scanner.value:2.5|g\n",
        ),
        ({"repeated": True}, "homer.alarm.scanner.value:20|g\n"),
        (
            {"alarm": "a.b:1|c\n", "value": -3},
            "homer.alarm.a_b_1_c_.raised:1|c\n"
            "homer.alarm.a_b_1_c_.value:0|g\nhomer.alarm.a_b_1_c_.value:-3|g\n",
        ),
    ],
)
def test_an_event_is_counted_and_its_value_kept(udp, changes, lines):
    with opened(f"d=>statsd://127.0.0.1:{udp.getsockname()[1]}/homer") as sink:
        sink.write(records(event(**changes)))
    assert udp.recv(4096).decode() == lines


def test_a_statsd_that_is_away_stops_nothing():
    with opened(f"d=>statsd://127.0.0.1:{free_port()}") as sink:
        for each in events(3):
            sink.write(records(each))
    assert sink.notifications == 3


# -- a program


@pytest.fixture
def program(tmp_path):
    """Makes a program of shell lines; gives its target."""

    def make(lines, options=""):
        path = tmp_path / "page"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{lines}\n")
        path.chmod(0o755)
        return f"p=>exec:{path}{options}"

    return make


def test_a_program_gets_the_event_on_its_input_and_in_its_environment(program, tmp_path):
    with opened(program("cat > event; env | grep ^ALARM_ | sort > variables")) as sink:
        sink.write(records(event(key="$(touch x); `id`\0")))
    told = json.loads((tmp_path / "event").read_text())
    assert told["evidence"][0]["call_id"] == "call-1"
    variables = (tmp_path / "variables").read_text().splitlines()
    assert [line.partition("=")[0] for line in variables] == [
        f"ALARM_{name}"
        for name in (
            *("AT", "DESCRIPTION", "ID", "KEY", "NAME", "NODE", "REPEATED", "SEVERITY"),
            *("SOURCE_IP", "STARTED_AT", "STATE", "TEXT", "THRESHOLD", "TOTAL", "VALUE"),
            "WINDOW_SECONDS",
        )
    ]
    assert {"ALARM_KEY=$(touch x); `id`", "ALARM_NAME=scanner", "ALARM_STATE=raised"} <= set(
        variables
    )


def test_a_program_that_fails_is_rejected_with_what_it_said_first(program):
    target = program(
        'read event\ncase "$ALARM_ID" in a1) echo "no pager" >&2; echo more >&2; exit 3;; esac'
    )
    with (
        opened(target) as sink,
        pytest.raises(Rejected, match=r"exit status 3: no pager$") as raised,
    ):
        sink.write(records(*events(3)))
    assert raised.value.indices == [1]
    assert sink.notifications == 2


def test_a_program_may_ask_for_another_try(program):
    with opened(program("exit 75")) as sink, pytest.raises(RetryLater, match="exit status 75"):
        sink.write(records(event()))


def test_a_program_that_takes_too_long_is_killed_with_its_children(program, tmp_path):
    target = program("sleep 600 &\necho $! > child\necho $$ > parent\nsleep 600", ";timeout=1")
    with (
        opened(target) as sink,
        pytest.raises(Rejected, match="killed, it took longer than timeout=1"),
    ):
        sink.write(records(event()))
    for name in ("child", "parent"):
        wait_for(lambda name=name: ended(int((tmp_path / name).read_text())))


def ended(pid):
    """Whether it has; whose parent is gone may still be waiting for a new one to ask."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_program_that_talks_without_end_is_not_listened_to_without_end(program):
    with (
        opened(program("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1")) as sink,
        pytest.raises(Rejected, match="exit status 1: xxx") as raised,
    ):
        sink.write(records(event()))
    assert len(str(raised.value)) < 400


def test_a_program_that_leaves_a_child_behind_is_not_waited_for(program):
    with opened(program("sleep 600 &")) as sink:
        sink.write(records(event()))
    assert sink.notifications == 1


def test_a_program_that_is_not_there_stops_the_start(tmp_path):
    sink = Target.from_script(f"p=>exec:{tmp_path}/page").sink()
    with pytest.raises(ConfigError, match=r'target "p": .*/page is no file that may be executed'):
        sink.start()


def test_a_file_that_is_no_program_is_said_so(program, tmp_path):
    target = program("")
    (tmp_path / "page").write_bytes(b"\0\1\2")
    with opened(target) as sink, pytest.raises(RetryLater, match="does it begin with #!"):
        sink.write(records(event()))
