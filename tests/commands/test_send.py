"""homerd send: lines in, HEP out, over real sockets."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from homerd.cli import main
from homerd.wire import hep

LINE = "1700000000;5;c1;10.0.0.1;5060;10.0.0.2;5061;{}"


@pytest.fixture
def server():
    """A HEP server on UDP; call it for the packets it got."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(10)

        def take(count):
            return [hep.decode(opened.recv(65535)) for _ in range(count)]

        take.to = f"udp:127.0.0.1:{opened.getsockname()[1]}"
        yield take


@pytest.fixture
def send(capsys, tmp_path, server):
    """Sends a text as a file; gives status and standard error."""

    def run(text, *options):
        path = tmp_path / "lines"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        status = main(["send", "--to", server.to, *options, str(path)])
        return status, capsys.readouterr().err

    return run


def test_a_line_of_hepipe_is_a_packet(send, server):
    assert send(LINE.format("hello; you"), "--id", "7", "--key", "k", "--node", "east")[0] == 0
    (packet,) = server(1)
    told = hep.to_dict(packet)
    del told["warnings"], told["version"], told["ts_us"]
    assert told == {
        "ip_family": 2,
        "ip_proto": 17,
        "src_ip": "10.0.0.1",
        "dst_ip": "10.0.0.2",
        "src_port": 5060,
        "dst_port": 5061,
        "ts_sec": 1700000000,
        "ts_usec": 5,
        "proto_type": 100,
        "capture_id": 7,
        "auth_key": "k",
        "correlation_id": "c1",
        "node_name": "east",
        "payload_hex": b"hello; you".hex(),
    }


def test_json_lines_of_both_forms_are_packets(send, server):
    text = (
        '{"sip": "OPTIONS sip:a@b SIP/2.0\\r\\nCall-ID: 1\\r\\n\\r\\n", "src_ip": "192.0.2.1"}\n'
        '{"src_ip": "192.0.2.2", "dst_ip": "192.0.2.3", "proto_type": 5, "payload": "{}"}\n'
    )
    assert send(text)[0] == 0
    first, second = server(2)
    assert (first.payload_type, first.src_ip) == (1, "192.0.2.1")
    assert (second.payload_type, second.src_ip, second.payload) == (5, "192.0.2.2", b"{}")


def test_lines_of_a_log_get_their_correlation_id(send, server):
    options = ("--format", "log", "--find-id", r"call=(\S+)", "--src", "[2001:db8::1]:5060")
    status, told = send("a call=c7 up\nno call here\n", *options, "--dst", "[2001:db8::2]:5061")
    assert status == 1
    assert "lines:2: --find-id finds nothing in it" in told
    (packet,) = server(1)
    assert (packet.correlation_id, packet.src_ip) == ("c7", "2001:db8::1")
    assert packet.payload == b"a call=c7 up"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "expected sec;usec;id;"),
        ("1;2;c;10.0.0.300;1;10.0.0.2;2;x", "10.0.0.300"),
        ("1;2;c;10.0.0.1;99999;10.0.0.2;2;x", "expected ADDRESS:PORT"),
        ("1;2;c;10.0.0.1;1;::2;2;x", "different families"),
        ("99999999999;2;c;10.0.0.1;1;10.0.0.2;2;x", "no time"),
        ("1;2;c;10.0.0.1;1;10.0.0.2;2;", "no payload"),
        ("{", "not JSON"),
        ("[" * 100000, "expected sec"),
        ('{"a": ' + "[" * 100000, "not JSON"),
        ('{"src_ip": "x"}', "does not appear to be an IPv4 or IPv6 address"),
        ('{"colour": 1}', 'unknown key "colour"'),
        (LINE.format("x" * 70000), "does not fit into a HEP3 frame"),
        (LINE.format("x" * 600000), "longer than any packet"),
    ],
)
def test_a_line_that_is_no_packet_is_told_and_the_next_is_sent(send, server, line, told):
    status, error = send(f"{line}\n{LINE.format('good')}\n")
    assert status == 1
    assert f"lines:1: {told}" in error or told in error.splitlines()[-2]
    assert "1 sent, 1 refused, 0 not taken" in error
    assert server(1)[0].payload == b"good"


def test_versions_and_packing(send, server):
    text = LINE.format("OPTIONS " + "x" * 1000)
    assert send(text, "--hep", "2", "--type", "1", "--id", "9")[0] == 0
    assert send(text, "--compress")[0] == 0
    old, packed = server(2)
    assert (old.version, old.capture_id, old.seconds) == (2, 9, 1700000000)
    assert (packed.compressed, packed.payload[:8]) == ("zlib", b"OPTIONS ")


def test_a_capture_is_sent(send, server):
    frames = [hep.encode(hep.Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, n, 1,
                                   payload=b"OPTIONS sip:a SIP/2.0\r\n\r\n")) for n in range(3)]  # fmt: skip
    for options in (["--format", "capture"], []):
        assert send(b"".join(frames), *options)[0] == 0
        assert [packet.micros for packet in server(3)] == [0, 1, 2]
    assert send(gzip.compress(b"".join(frames)))[0] == 0
    assert [packet.micros for packet in server(3)] == [0, 1, 2]


@pytest.mark.parametrize(("options", "told"), [
    ([], (7, "k", "old", "c1", 1)),
    (["--id", "0"], (0, "k", "old", "c1", 1)),
    (["--key", "new", "--node", "east"], (7, "new", "east", "c1", 1)),
    (["--type", "100", "--correlation-id", "x"], (7, "k", "old", "c1", 100)),
])  # fmt: skip
@pytest.mark.parametrize("form", ["capture", "json"])
def test_options_go_before_what_a_packet_says(send, server, form, options, told):
    frame = hep.Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 0, 1,
                      payload=b"OPTIONS sip:a SIP/2.0\r\n\r\n")  # fmt: skip
    frame.capture_id, frame.auth_key, frame.correlation_id = 7, "k", "c1"
    frame.extra = {"node_name": "old"}
    data = hep.encode(frame)
    text = data if form == "capture" else json.dumps({"hex": data.hex()})
    assert send(text, "--format", form, *options)[0] == 0
    (packet,) = server(1)
    node = hep.to_dict(packet)["node_name"]
    seen = packet.capture_id, packet.auth_key, node, packet.correlation_id
    assert (*seen, packet.payload_type) == told


def test_a_packet_of_a_capture_without_a_correlation_id_gets_the_given_one(send, server):
    frame = hep.Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 0, 1,
                      payload=b"OPTIONS sip:a SIP/2.0\r\n\r\n")  # fmt: skip
    assert send(hep.encode(frame), "--format", "capture", "--correlation-id", "x")[0] == 0
    assert server(1)[0].correlation_id == "x"


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--to", "sctp:h:1"], 1, 'unknown transport "sctp"'),
        (["--to", "udp:h:99999"], 1, "expected a port from 1 to 65535"),
        (["--to", "tcp:h", "--hep", "2"], 1, "cannot be sent over a stream"),
        (["--to", "h", "--type", "300"], 2, "expected a number from 0 to 255"),
        (["--to", "h", "--find-id", "("], 2, "missing )"),
        (["--to", "h", "--src", "here"], 2, "expected ADDRESS:PORT"),
        (["--to", "h", "--follow", "a", "b"], 1, "takes one file"),
        (["--to", "127.0.0.1", "/nowhere"], 1, "/nowhere: No such file"),
    ],
)
def test_options_that_cannot_be(options, status, told, capsys):
    assert main(["send", *options]) == status
    assert told in capsys.readouterr().err


def test_who_is_not_there_is_told(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (tmp_path / "lines").write_text(LINE.format("x"))
    status = main(
        ["send", "--to", f"tcp:127.0.0.1:{port}", "--wait", "0.1", str(tmp_path / "lines")]
    )
    error = capsys.readouterr().err
    assert status == 1
    assert "Connection refused" in error
    assert f"0 sent, 0 refused, 1 not taken by tcp:127.0.0.1:{port}" in error


def test_a_file_is_followed_through_rotation_and_truncation(server, tmp_path):
    path = tmp_path / "log"
    path.write_text("one\n")
    command = [sys.executable, "-m", "homerd", "send", "--to", server.to, "--format", "log"]
    with subprocess.Popen([*command, "--follow", path], stderr=subprocess.PIPE) as process:
        assert server(1)[0].payload == b"one"
        with open(path, "a") as file:
            file.write("two\nhal")
            file.flush()
            assert server(1)[0].payload == b"two"
            file.write("f\n")
        assert server(1)[0].payload == b"half"
        os.rename(path, tmp_path / "log.1")
        path.write_text("after the rotation\n")
        assert server(1)[0].payload == b"after the rotation"
        path.write_text("short\n")
        assert server(1)[0].payload == b"short"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert b"5 sent, 0 refused, 0 not taken" in process.stderr.read()


def test_what_comes_through_a_pipe_is_sent_before_it_ends(server):
    command = [sys.executable, "-m", "homerd", "send", "--to", server.to]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        process.stdin.write(LINE.format("now").encode() + b"\n")
        process.stdin.flush()
        assert server(1)[0].payload == b"now"
        process.stdin.close()
        assert process.wait(20) == 0
