"""homerd decode: text and JSON lines out of captures and hex."""

from __future__ import annotations

import io
import json

import pytest

from homerd.cli import main
from homerd.wire import hep

MESSAGE = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 7\r\nX: \x1b[2J\xff\r\n\r\n"
FRAME = hep.Frame(
    3,
    2,
    17,
    bytes([192, 0, 2, 10]),
    bytes([198, 51, 100, 7]),
    5060,
    5061,
    1_700_000_000,
    123_456,
    1,
    2001,
    correlation_id="c\x1b",
    payload=MESSAGE,
    extra={"vlan": 7},
)
DATAGRAM = hep.encode(FRAME)
TOLD = hep.to_dict(hep.decode(DATAGRAM))


@pytest.fixture
def decode(capsys, monkeypatch):
    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = main(["decode", *arguments])
        return status, *capsys.readouterr()

    return run


def test_a_capture_is_shown_as_text_a_terminal_can_bear(decode, tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(DATAGRAM + b"HEP3\x00\x05")
    assert decode(str(path)) == (
        0,
        "2023-11-14 22:13:20.123456Z  udp 192.0.2.10:5060 > 198.51.100.7:5061  SIP  HEP3\n"
        "capture_id=2001  correlation_id=c\\x1b  vlan=7\n"
        "    OPTIONS sip:a@b SIP/2.0\n"
        "    Call-ID: 7\n"
        "    X: \\x1b[2J\\xff\n"
        "\n"
        f"error: bad_total_length at byte {len(DATAGRAM) + 4}\n"
        "\n",
        "",
    )


def test_several_inputs_come_one_after_another_as_json(decode, tmp_path):
    stream, lines = tmp_path / "stream", tmp_path / "lines"
    stream.write_bytes(DATAGRAM)
    lines.write_text('{"wait": 1}\n{"hex": "00"}\n')
    status, out, _ = decode("--json", str(stream), str(lines))
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        TOLD,
        {"error": "not_hep", "offset": 0},
    ]


def test_hex_is_one_datagram_a_line(decode):
    stdin = f"{DATAGRAM.hex()}\n\n48 45 50\n"
    status, out, _ = decode("--hex", "--json", stdin=stdin)
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        TOLD,
        {"error": "truncated", "offset": 0},
    ]


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        (b"", {"pending_bytes": 0}),
        (b"HEP3\x00", {"pending_bytes": 5}),
        (b"GET", {"error": "bad_magic", "offset": len(DATAGRAM)}),
    ],
)
def test_tcp_hex_is_one_stream_a_line(decode, tail, last):
    status, out, _ = decode("--tcp-hex", "--json", stdin=(DATAGRAM + tail).hex())
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [TOLD, last]


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "message"),
    [
        (["--hex"], "4x", 1, "homerd: standard input:1: non-hexadecimal"),
        (["/nowhere/at all"], "", 1, "homerd: cannot read /nowhere/at all: No such file"),
        (["--hex", "file"], "", 2, "--hex and --tcp-hex read standard input"),
        (["--hex", "--tcp-hex"], "", 2, "not allowed with"),
    ],
)
def test_a_fault_of_the_input_or_the_arguments_has_its_status(
    decode, arguments, stdin, status, message
):
    got, out, errors = decode(*arguments, stdin=stdin)
    assert (got, out) == (status, "")
    assert message in errors
