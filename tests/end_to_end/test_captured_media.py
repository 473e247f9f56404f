"""A captured call with its RTCP and RTP, from the file to the tables."""

from __future__ import annotations

import json
import sqlite3
from struct import pack

import pytest
from frames import ethernet, ipv4, udp

from homerd.cli import main

ALICE, BOB = bytes([192, 0, 2, 10]), bytes([192, 0, 2, 20])
SECOND = 1_700_000_000  # 2023-11-14 22:13:20


def sip(first: str, cseq: str, host: str = "", port: int = 0) -> bytes:
    body = f"v=0\r\nc=IN IP4 {host}\r\nm=audio {port} RTP/AVP 8\r\n" if host else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n"
        f"To: <sip:b@x>;tag=2\r\nCall-ID: call-1@x\r\nCSeq: {cseq}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def rtp(number: int) -> bytes:
    return pack(">BBHII", 0x80, 8, number, number * 160, 7) + bytes(160)


SR = pack(">BBHIIIIII", 0x81, 200, 12, 7, 3_909_000_000, 1 << 31, 4800, 30, 4800)
BLOCK = pack(">IIIIII", 9, 0x05000003, 1024, 14, 0, 0)
INVITE = sip("INVITE sip:b@x SIP/2.0", "1 INVITE", "192.0.2.10", 40000)
OK = sip("SIP/2.0 200 OK", "1 INVITE", "192.0.2.20", 50000)
BYE = sip("BYE sip:b@x SIP/2.0", "2 BYE")

# milliseconds, whether Alice sends, her port, Bob's port, payload
CALL = [
    (0, True, 5060, 5060, INVITE),
    (1000, False, 5060, 5060, OK),
    *((1000 + 20 * n, True, 40000, 50000, rtp(n)) for n in range(30) if n != 5),
    (1700, True, 40001, 50001, SR + BLOCK),
    (1800, True, 40001, 50001, SR + BLOCK[:-4]),
    (1900, True, 6001, 6002, SR + BLOCK),
    (2000, True, 5060, 5060, BYE),
]


@pytest.fixture
def capture(tmp_path):
    data = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for millis, from_alice, here, there, payload in CALL:
        ends = (ALICE, BOB) if from_alice else (BOB, ALICE)
        packet = ipv4(udp(payload, here, there), src=ends[0], dst=ends[1])
        seconds, millis = divmod(millis, 1000)
        frame = ethernet(packet)
        data += pack("<IIII", SECOND + seconds, millis * 1000, len(frame), len(frame)) + frame
    path = tmp_path / "call.pcap"
    path.write_bytes(data)
    return path


STORE = """
modparam("sipcapture", "db_url", "sqlite://store.db")
modparam("sipcapture", "capture_on", 1)
"""
CAPTURE = """
request_route { sip_capture("sip_capture"); }
onreply_route { sip_capture("sip_capture"); }
"""


@pytest.fixture
def replay(capture, tmp_path, monkeypatch, capsys):
    """Runs a script over the capture; gives the rows of a table and the replay's summary."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, table: str):
        (tmp_path / "script.cfg").write_text(f'loadmodule "sipcapture"\n{script}')
        status = main(["replay", "--json", "-f", "script.cfg", str(capture)])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        summary = json.loads(printed.out.splitlines()[-1])["summary"]
        with sqlite3.connect("store.db") as database:
            rows = database.execute(
                "SELECT correlation_id, source_ip, source_port, destination_ip, destination_port,"
                f" type, date, msg FROM {table}"
            ).fetchall()
        return rows, summary

    return run


def test_rtcp_lies_with_its_call_id_where_agents_rtcp_lies(replay):
    ((*columns, message),), summary = replay(STORE + CAPTURE, "rtcp_capture")
    assert columns == [
        "call-1@x", "192.0.2.10", 40001, "192.0.2.20", 50001, 3, "2023-11-14 22:13:21",
    ]  # fmt: skip
    assert json.loads(message)["report_blocks"] == [
        {
            "source_ssrc": 9,
            "fraction_lost": 5,
            "packets_lost": 3,
            "highest_seq_no": 1024,
            "ia_jitter": 14,
            "lsr": 0,
            "dlsr": 0,
        }
    ]
    assert summary["undecoded"] == {"media": 29, "rtcp_truncated": 1}
    assert summary["not_stored"]["hep_type_5"] == 1  # that of no known call


def test_the_entry_event_sees_rtcp_as_it_sees_that_of_agents(replay):
    event = """
    modparam("sipcapture", "nonsip_hook", 1)
    event_route[sipcapture:request] {
        if ($hep(0x00b) == 5 && $hep(0x011) == "call-1@x") { report_capture("kept"); }
        return $hep(0x00b) == 1;
    }
    """
    rows, _ = replay(STORE + event + CAPTURE, "kept")
    assert [row[:3] for row in rows] == [("call-1@x", "192.0.2.10", 40001)]


def test_rtp_is_measured_when_asked_for(replay):
    event = """
    rtp_reports=yes
    modparam("sipcapture", "nonsip_hook", 1)
    event_route[sipcapture:request] {
        if ($hep(0x00b) == 34) { report_capture("measured"); }
        return $hep(0x00b) == 1;
    }
    """
    ((*columns, message),), summary = replay(event + STORE + CAPTURE, "measured")
    assert columns[:5] == ["call-1@x", "192.0.2.10", 40000, "192.0.2.20", 50000]
    report = json.loads(message)
    wanted = {
        "TYPE": "FINAL",
        "CODEC_NAME": "PCMA",
        "TOTAL_PK": 29,
        "EXPECTED_PK": 30,
        "PACKET_LOSS": 1,
        "JITTER": 0.0,
        "MAX_DELTA": 40.0,
        "MOS": 4.1,
    }
    assert {key: report[key] for key in wanted} == wanted
    assert summary["undecoded"]["media"] == 29
