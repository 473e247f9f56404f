"""homerd replay: captures through a script, and what is told of them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from struct import pack

import pytest
from frames import ethernet, ipv4, piece4, tcp, udp
from listeners import frame

from homerd.cli import main

SIP = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 7\r\nContent-Length: 0\r\n\r\n"
MEDIA = b"\x80\x08" + bytes(170)
SCRIPT = """#!KAMAILIO
loadmodule "sipcapture.so"
modparam("sipcapture", "db_url", "sqlite:///calls.db")
modparam("sipcapture", "capture_on", 1)
request_route { sip_capture("calls"); drop; }
"""


@pytest.fixture
def replay(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("homer.cfg").write_text(SCRIPT)

    def run(*arguments: str) -> str:
        assert main(["replay", *arguments]) == 0
        return capsys.readouterr().out

    return run


def write(name: str, *frames: bytes) -> str:
    """A capture of *frames*, a second apart."""
    head = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    records = (
        pack("<IIII", at, 0, len(frame), len(frame)) + frame
        for at, frame in enumerate(frames, 1000)
    )
    Path(name).write_bytes(head + b"".join(records))
    return name


def summary(out: str) -> dict:
    return json.loads(out.splitlines()[-1])["summary"]


def test_what_was_sent_is_told_apart_from_what_was_stored(replay):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        Path("homer.cfg").write_text(
            'loadmodule "sipcapture"\nloadmodule "hep"\nloadmodule "alarm"\n'
            'modparam("sipcapture", "db_url", "sqlite://x.db")\n'
            'modparam("sipcapture", "capture_on", 1)\n'
            f'modparam("hep", "profile", "east=>target=udp:127.0.0.1:{opened.getsockname()[1]}")\n'
            'modparam("alarm", "alarm", "any=>raise=1")\n'
            'modparam("alarm", "target", "ops=>exec:/bin/true")\n'
            'request_route { sip_capture("calls"); send_hep("east"); alarm_count("any"); }\n'
        )
        out = replay("--json", write("mirror.pcap", ethernet(ipv4(udp(SIP)))))
    assert summary(out)["stored"] == {"calls": 1}
    assert summary(out)["sent"] == {"hep:east: east": 1, "alarm_ops: any": 1}


def test_every_frame_of_a_capture_is_accounted_for(replay):
    path = write(
        "mirror.pcap",
        ethernet(ipv4(udp(SIP))),
        ethernet(ipv4(udp(MEDIA))),
        ethernet(ipv4(tcp(SIP + SIP), 6)),
        ethernet(piece4(udp(bytes(2000)), 0, 800)),
        ethernet(bytes(28), 0x0806),
    )
    told = summary(replay("--json", path))
    assert (told["received"], told["routed"], told["stored"]) == (6, 3, {"calls": 3})
    assert told["undecoded"] == {"media": 1, "fragment": 1, "not_ip": 1}
    assert told["notes"] == {"fragments_expired": 1}
    assert told["ledger"]["difference"] == 0


def test_what_was_seen_on_the_way_is_told_to_people(replay):
    out = replay(write("mirror.pcap", ethernet(piece4(udp(SIP), 0, 8))))
    assert "seen in captures: 1\n           1  fragments_expired\n" in out
    assert "not decoded: 1\n           1  fragment\n" in out


def test_a_stream_goes_on_in_the_next_file(replay):
    first = write("1.pcap", ethernet(ipv4(tcp(SIP[:20], 1), 6)))
    second = write("2.pcap", ethernet(ipv4(tcp(SIP[20:], 21), 6)))
    assert summary(replay("--json", first, second))["stored"] == {"calls": 1}


def test_a_message_that_waits_for_a_lost_segment_is_stored_in_the_end(replay):
    path = write("gap.pcap", ethernet(ipv4(tcp(b"", 1, 0x02), 6)), ethernet(ipv4(tcp(SIP, 900), 6)))
    told = summary(replay("--json", path))
    assert (told["stored"], told["notes"]["tcp_gap"]) == ({"calls": 1}, 1)


def test_the_time_of_the_capture_does_not_change_what_is_stored(replay):
    path = write("paced.pcap", *[ethernet(ipv4(udp(SIP)))] * 5)
    assert summary(replay("--json", "--speed", "1000", path))["stored"] == {"calls": 5}


@pytest.mark.parametrize(("agents", "shown"), [("", True), ('agent = "a=>id=7;key=x"\n', False)])
@pytest.mark.parametrize("command", [["replay", "--json"], ["trace", "--json"], ["trace"]])
def test_a_key_is_shown_only_where_no_agents_are_named(tmp_path, capsys, command, agents, shown):
    script, stream = tmp_path / "keys.cfg", tmp_path / "one.hep"
    script.write_text(
        'loadmodule "sipcapture"\nloadmodule "xlog"\n'
        'modparam("sipcapture", "hep_capture_on", 1)\n'
        f'{agents}request_route {{ xlog("L_ERR", "key $hep(0x00e)"); drop; }}\n'
    )
    stream.write_bytes(frame(7, "s3cret"))
    assert main([*command, "-f", str(script), str(stream)]) == 0
    told = capsys.readouterr()
    assert ("s3cret" in told.out) is shown
    assert "s3cret" not in told.err
