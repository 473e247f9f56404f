"""Reports of calls from one end to the other: from captured media to whoever collects them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from struct import pack

import pytest
from frames import ethernet, ipv4, udp
from outages import Daemon
from sip_collectors import collecting

from homerd.cli import main
from homerd.wire import vqrtcpxr

ALICE, BOB = bytes([192, 0, 2, 10]), bytes([192, 0, 2, 20])
SECOND = 1_700_000_000  # 2023-11-14 22:13:20


def sip(first: str, cseq: str, host: str = "", port: int = 0, tag: str = "") -> bytes:
    body = f"v=0\r\nc=IN IP4 {host}\r\nm=audio {port} RTP/AVP 8\r\n" if host else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK1\r\nFrom: Ann <sip:a@x>;tag=1\r\n"
        f"To: <sip:b@x>{tag}\r\nCall-ID: call-1@x\r\nCSeq: {cseq}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def rtp(number: int) -> bytes:
    return pack(">BBHII", 0x80, 8, number, number * 160, 7) + bytes(160)


def rtcp(ssrc: int, sent: int, source: int, lost: int, highest: int, jitter: int) -> bytes:
    """A sender report with a block."""
    fraction = 256 * lost // highest
    return pack(
        ">BBHIIIIIIIIIIII", 0x81, 200, 12, ssrc, 3_909_000_000, 0, 4800, sent, sent * 160,
        source, fraction << 24 | lost, highest, jitter, 0, 0,
    )  # fmt: skip


# milliseconds, whether Alice sends, her port, Bob's port, payload: what she sends is measured, in
# each 50 packets one lacks; what she receives she tells by RTCP.
CALL = [
    (0, True, 5060, 5060, sip("INVITE sip:b@x SIP/2.0", "1 INVITE", "192.0.2.10", 40000)),
    (1000, False, 5060, 5060, sip("SIP/2.0 200 OK", "1 INVITE", "192.0.2.20", 50000, ";tag=2")),
    *((1000 + 20 * n, True, 40000, 50000, rtp(n)) for n in range(200) if n % 50 != 25),
    (3000, True, 40001, 50001, rtcp(7, 98, 9, 5, 100, 80)),
    (5000, True, 40001, 50001, rtcp(7, 196, 9, 20, 200, 160)),
    (5000, False, 40001, 50001, rtcp(9, 200, 8, 0, 1, 0)),
    (5100, True, 5060, 5060, sip("BYE sip:b@x SIP/2.0", "2 BYE", tag=";tag=2")),
]
SCRIPT = """
rtp_reports=yes
loadmodule "pv"
loadmodule "sipcapture"
loadmodule "qos"
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "nonsip_hook", 1)
modparam("qos", "report_to", "sip:127.0.0.1:{port};transport={transport}")
event_route[sipcapture:request] {{
    if ($hep(0x00b) == 1) return 1;
    qos_report();
    drop;
}}
request_route {{ qos_learn(); qos_report(); exit; }}
onreply_route {{ qos_learn(); qos_report(); exit; }}
"""
COLLECTOR = """
listen=collector_tcp:127.0.0.1:{port}
spool_dir="{folder}/spool"
loadmodule "pv"
loadmodule "sipcapture"
loadmodule "qos"
modparam("sipcapture", "capture_on", 1)
modparam("qos", "db_url", "sqlite:///{folder}/homer.db")
request_route {{ qos_capture(); exit; }}
"""


@pytest.fixture
def capture(tmp_path):
    data = pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for millis, from_alice, here, there, payload in CALL:
        if from_alice:
            packet = ipv4(udp(payload, here, there), src=ALICE, dst=BOB)
        else:
            packet = ipv4(udp(payload, there, here), src=BOB, dst=ALICE)
        seconds, millis = divmod(millis, 1000)
        frame = ethernet(packet)
        data += pack("<IIII", SECOND + seconds, millis * 1000, len(frame), len(frame)) + frame
    path = tmp_path / "call.pcap"
    path.write_bytes(data)
    return path


def replay(script: str, capture, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.cfg").write_text(script)
    assert main(["replay", "-f", "script.cfg", str(capture)]) == 0


def test_a_captured_call_is_published(capture, tmp_path, monkeypatch):
    with collecting() as collector:
        script = SCRIPT.format(port=collector.port, transport="udp")
        replay(script, capture, tmp_path, monkeypatch)
    (request,) = collector.requests
    report = vqrtcpxr.decode(request.body.encode())
    assert (report.kind, report.call_term, report.call_id) == ("session", True, "call-1@x")
    assert report.local_address == ("192.0.2.10", 40000, 7)
    assert report.remote_address == ("192.0.2.20", 50000, 9)
    assert (report.info["localid"], report.info["remoteid"]) == ("Ann <sip:a@x>", "<sip:b@x>")
    assert report.info["dialogid"] == "call-1@x;to-tag=2;from-tag=1"
    assert (report.local.start, report.local.stop) == (SECOND + 1, SECOND + 5)
    # Alice: 20 of 200 packets, 80 and 160 units of 8 kHz.
    assert (report.local.nlr, report.local.iaj, report.local.pd) == (10.0, 15, "PCMA")
    # Bob: what was measured on the way, 4 of 200.
    assert (report.remote.nlr, report.remote.iaj, report.remote.pd) == (2.0, 0, "PCMA")
    assert report.remote.moslq == 4.23  # R 86.2 of 2 % and G.711
    assert report.faults == []


def test_a_homerd_that_collects_has_the_same_numbers(capture, tmp_path, monkeypatch):
    folder = tmp_path / "collector"
    folder.mkdir()
    daemon = Daemon(folder, "")
    daemon.script.write_text(COLLECTOR.format(port=daemon.port, folder=folder))
    daemon.start()
    try:
        script = SCRIPT.format(port=daemon.port, transport="tcp")
        replay(script, capture, tmp_path, monkeypatch)
        daemon.drained()
        with closing(sqlite3.connect(folder / "homer.db")) as database:
            rows = database.execute(
                "SELECT call_id, tied_by, form, kind, leg, ssrc, codec, loss, jitter"
                " FROM qos_capture ORDER BY leg"
            ).fetchall()
    finally:
        daemon.stop()
    same = ("call-1@x", "report", "vq-rtcpxr", "session")
    assert rows == [
        (*same, "local", 9, "PCMA", 10.0, 15.0),
        (*same, "remote", 7, "PCMA", 2.0, 0.0),
    ]
