"""homerd export: capture files of messages, ordinary and odd."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from homerd.cli import main
from homerd.commands._message import Message
from homerd.commands.export import MOST_BYTES, write_pcap
from homerd.core.inputs import read_input
from homerd.wire.hep import Frame

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
TEXTS = (
    "table method reply_reason cseq from_user to_user ruri_user callid callid_aleg correlation_id"
)


def message(**cells: Any) -> Message:
    told: dict[str, Any] = dict.fromkeys(TEXTS.split(), "")
    told |= dict.fromkeys(("via_1_branch", "content_type", "user_agent", "node"), "")
    told |= {
        "id": 1,
        "micro_ts": NEW_YEAR * 1_000_000 + 123_457,
        "msg": "BYE sip:a SIP/2.0\r\n\r\n",
    }
    told |= {"source_ip": "192.0.2.1", "source_port": 5060}
    told |= {"destination_ip": "192.0.2.2", "destination_port": 5070}
    return Message(**(told | cells))


def written(path: Path, *messages: Message) -> tuple[list[str], list[Frame]]:
    """What is said of them, and the frames that a reader finds."""
    with path.open("wb") as file:
        remarks = write_pcap(file, messages)
    frames = list(read_input(str(path)))
    assert all(isinstance(frame, Frame) for frame in frames)
    return remarks, frames  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        (("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "192.0.2.2")),
        (("2001:db8::1", "2001:db8::2"), ("2001:db8::1", "2001:db8::2")),
        (("192.0.2.1", "2001:db8::2"), ("::ffff:c000:201", "2001:db8::2")),
    ],
)
def test_addresses_of_either_family(tmp_path, ends, found):
    one = message(source_ip=ends[0], destination_ip=ends[1])
    remarks, (frame,) = written(tmp_path / "x.pcap", one)
    assert (remarks, frame.src_ip, frame.dst_ip) == ([], *found)
    assert (frame.src_port, frame.dst_port) == (5060, 5070)
    assert (frame.seconds, frame.micros) == (NEW_YEAR, 123_457)


def test_a_message_that_is_no_text_keeps_its_bytes(tmp_path):
    raw = b"MESSAGE sip:a SIP/2.0\r\n\r\n\xff\x00\xfe"
    one = message(msg=raw.decode("utf-8", "replace"), raw=raw)
    assert written(tmp_path / "x.pcap", one)[1][0].payload == raw


def test_what_is_not_as_it_was_is_said(tmp_path):
    long = message(msg="MESSAGE sip:a SIP/2.0\r\n\r\n" + "x" * 70_000)
    remarks, frames = written(tmp_path / "x.pcap", message(source_ip="host"), long, message())
    assert remarks == [
        "1 without an address: written from 0.0.0.0 to 0.0.0.0",
        f"1 longer than a datagram: written to {MOST_BYTES} bytes",
    ]
    assert [frame.src_ip for frame in frames] == ["0.0.0.0", "192.0.2.1", "192.0.2.1"]
    assert len(frames[1].payload) == MOST_BYTES


@pytest.mark.parametrize("micros", [-5, 1 << 62])
def test_a_time_that_no_capture_file_holds(micros):
    out = io.BytesIO()
    write_pcap(out, [message(micro_ts=micros, source_port=-1, destination_port=1 << 20)])
    assert len(out.getvalue()) == 24 + 16 + 20 + 8 + len(message().msg)


def test_others_read_the_file(tmp_path):
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("no tshark: apt-get install tshark")
    ends = {"source_ip": "2001:db8::1", "destination_ip": "2001:db8::2"}
    written(tmp_path / "x.pcap", message(), message(**ends, micro_ts=NEW_YEAR * 1_000_000))
    fields = ["frame.time_epoch", "ip.src", "ipv6.dst", "udp.srcport", "sip.Method"]
    options = [f"-e{field}" for field in fields]
    checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    command = [tshark, "-r", str(tmp_path / "x.pcap"), "-Tfields", *options, *checks]
    told = subprocess.run(
        [*command, "-eudp.checksum.status", "-eip.checksum.status"], capture_output=True, text=True
    )
    lines = [line.split("\t") for line in told.stdout.splitlines()]
    assert [[line[0][:17], *line[1:]] for line in lines] == [
        ["1767225600.123457", "192.0.2.1", "", "5060", "BYE", "1", "1"],
        ["1767225600.000000", "", "2001:db8::2", "5060", "BYE", "1", ""],
    ]


@pytest.mark.parametrize("arguments", [["x"], ["--text"], ["x", "--text", "--pcap", "y"]])
def test_faults_of_the_arguments(arguments, capsys):
    assert main(["export", *arguments]) == 2
    assert "usage: homerd export" in capsys.readouterr().err
