"""`homerd capture`: packets of a file, and of an interface, arrive at a HEP receiver."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys

import pytest
from interfaces import FAR, NEAR, cable, ethernet, namespace, udp

from homerd import cli
from homerd.wire import hep

__all__ = ["FAR", "cable", "namespace"]

SECONDS = 60.0  # a deadline nobody should meet
A, B = "192.0.2.1", "192.0.2.2"


def sip(call):
    return (
        "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
        f"To: <sip:b@b>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


@pytest.fixture
def pcap(tmp_path):
    """A file with a message from port 5060 and one from port 5062."""
    file = tmp_path / "some.pcap"
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for port in (5060, 5062):
        frame = ethernet(udp(sip(f"from{port}"), A, B, sport=port))
        data += struct.pack("<IIII", 1500000000, 42, len(frame), len(frame)) + frame
    file.write_bytes(data)
    return str(file)


@pytest.fixture
def receiver():
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(SECONDS)
        yield opened


def target(receiver):
    return f"hep:udp:127.0.0.1:{receiver.getsockname()[1]}"


def test_packets_of_a_file_are_sent_as_hep(pcap, receiver, capsys):
    status = cli.main(["capture", pcap, "--to", target(receiver), "--id", "7", "--key", "k"])
    frames = [hep.decode(receiver.recv(65535)) for _ in range(2)]
    assert status == 0
    assert [(f.src_ip, f.src_port, f.dst_port, f.seconds, f.micros) for f in frames] == [
        (A, 5060, 5080, 1500000000, 42),
        (A, 5062, 5080, 1500000000, 42),
    ]
    assert {(frame.capture_id, frame.auth_key) for frame in frames} == {(7, "k")}
    assert "2 packets, sent 2, not sent 0" in capsys.readouterr().err


def test_a_filter_is_obeyed_in_files_too(pcap, capsys):
    assert cli.main(["capture", pcap, "udp", "port", "5062", "--print"]) == 0
    shown = capsys.readouterr().out
    assert ("from5062" in shown, "from5060" in shown) == (True, False)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["PCAP"], 2, "expected --to, --print or --json"),
        (["--print", "no.pcap"], 2, 'there is no file "no.pcap"; expected capture files, or -i'),
        (["--print", "PCAP", "udp", "prot"], 1, "syntax error"),
        (["--to", "tap:1:2", "PCAP"], 1, '--to: target "tap:1:2": unknown transport "tap"'),
        (["-i", "nosuch0", "--print"], 1, 'no interface "nosuch0"'),
    ],
)
def test_what_cannot_be_is_told(pcap, capsys, words, status, told):
    assert cli.main(["capture", *(pcap if word == "PCAP" else word for word in words)]) == status
    assert told in capsys.readouterr().err


def test_what_an_interface_sees_is_shown_until_it_is_stopped(cable):
    process = subprocess.Popen(
        [sys.executable, "-m", "homerd", "capture", "-i", NEAR, "--print", "udp", "port", "5062"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while "started script=" not in (line := process.stderr.readline()):
            assert line
        cable.send(ethernet(udp(sip("other"), A, B, sport=5060)))
        cable.send(ethernet(udp(sip("mine"), A, B, sport=5062)))
        while "Call-ID" not in (line := process.stdout.readline()):
            assert line
        assert line.split() == ["Call-ID:", "mine"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        assert "captured 1 frames, 1 packets" in log
    finally:
        process.kill()
        process.communicate()
