"""The larger examples, run whole: packets in, and what lies in their tables or reaches their servers."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from homerd.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def sip(first, cseq, call_id="c1", *, src="192.0.2.10", headers="", body=""):
    text = (
        f"{first}\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{call_id}\r\n"
        f"From: <sip:alice@example.com>;tag=f1\r\nTo: <sip:bob@example.com>\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}"
    )
    return {
        "hep": {
            "family": 2, "proto": 17, "src_ip": src, "dst_ip": "198.51.100.7", "src_port": 5060,
            "dst_port": 5060, "time_sec": 1_700_000_000, "time_usec": 5, "proto_type": 1,
            "capture_id": 2001, "payload": text,
        }
    }  # fmt: skip


def replay(tmp_path, capsys, script, packets):
    (tmp_path / "script.cfg").write_text(script)
    (tmp_path / "packets.jsonl").write_text("".join(json.dumps(item) + "\n" for item in packets))
    status = main(
        ["replay", "--json", "-f", str(tmp_path / "script.cfg"), str(tmp_path / "packets.jsonl")]
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return [json.loads(line) for line in printed.out.splitlines()]


@pytest.fixture
def homer5(tmp_path):
    script = (EXAMPLES / "homer5.cfg").read_text()
    script = script.replace("/var/lib/homer/", f"{tmp_path}/")
    with sqlite3.connect(tmp_path / "statistic.db") as database:
        database.executescript((EXAMPLES / "homer5.sql").read_text())
        database.execute(
            "INSERT INTO alarm_config (name, startdate, stopdate, type, value) VALUES"
            " ('no authority', '2000-01-01 00:00:00', '2100-01-01 00:00:00', '403', 3),"
            " ('injection', '2000-01-01 00:00:00', '2100-01-01 00:00:00', 'sqlinjection', 0)"
        )
    return script


HOMER5_PACKETS = [
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", headers="User-Agent: Phone 1\r\n"),
    # seen again at a second capture point: stored, not counted
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", headers="User-Agent: Phone 1\r\n"),
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "c2", headers="User-Agent: Phone 1\r\n"),
    sip("SIP/2.0 200 OK", "1 INVITE"),
    sip("SIP/2.0 486 Busy Here", "1 INVITE", "c2"),
    sip("BYE sip:bob@example.com SIP/2.0", "2 BYE", headers="Reason: Q.850;cause=38\r\n"),
    sip("BYE sip:bob@example.com SIP/2.0", "2 BYE", "c3", headers="Reason: Q.850;cause=16\r\n"),
    sip(
        "REGISTER sip:example.com SIP/2.0", "1 REGISTER", "r1", src="203.0.113.5",
        headers="User-Agent: friendly-scanner\r\n"
        'Authorization: Digest username="x\' or 1=1 --", realm="r", nonce="n", uri="u", response="0"\r\n',
    ),
    *(sip("SIP/2.0 403 Forbidden", f"{n} REGISTER", f"f{n}", src="203.0.113.5") for n in range(5)),
    sip(
        "PUBLISH sip:collector@example.com SIP/2.0", "1 PUBLISH", "p1",
        headers="Content-Type: application/vq-rtcpxr\r\n",
        body="VQSessionReport: CallTerm\r\nCallID: c1\r\nLocalMetrics:\r\nQualityEst:MOSCQ=4.2\r\n",
    ),
    {"wait": 301},
]  # fmt: skip


def rows(path, query):
    with sqlite3.connect(path) as database:
        return sorted(database.execute(query).fetchall())


def test_a_homer_5_node_stores_counts_and_raises_alarms(homer5, tmp_path, capsys):
    told = replay(tmp_path, capsys, homer5, HOMER5_PACKETS)
    summary = told[-1]["summary"]
    data, statistic = tmp_path / "data.db", tmp_path / "statistic.db"

    assert summary["errors"] == 0, summary
    assert rows(data, "SELECT method, count(*) FROM sip_capture_call_20231114 GROUP BY method") == [
        ("200", 1), ("486", 1), ("BYE", 2), ("INVITE", 3),
    ]  # fmt: skip
    assert rows(
        data, "SELECT method, count(*) FROM sip_capture_registration_20231114 GROUP BY method"
    ) == [("403", 5), ("REGISTER", 1)]
    assert rows(data, "SELECT correlation_id FROM report_capture") == [("c1",)]

    assert rows(statistic, "SELECT type, total FROM stats_data") == [
        ("asr", 50), ("isa", 0), ("ner", 100), ("packet_count", 14),
        ("packet_size", sum(len(p["hep"]["payload"]) for p in HOMER5_PACKETS[:-1])),
        ("sd", 0), ("sdf", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT method, auth, totag, total FROM stats_method") == [
        ("ALL", 0, 0, 6), ("BYE", 0, 0, 2), ("INVITE", 0, 0, 2), ("REGISTER", 1, 0, 1),
        ("TOTAL", 0, 0, 14), ("UNKNOWN", 0, 0, 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT method, source_ip, total FROM stats_ip") == [
        ("INVITE", "192.0.2.10", 2), ("REGISTER", "203.0.113.5", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT useragent, total FROM stats_useragent") == [
        ("Phone 1", 2), ("friendly-scanner", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT type, total FROM alarm_data") == [
        ("403", 5), ("sqlinjection", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT type, source_ip, total FROM alarm_data_mem") == [
        ("scanner", "203.0.113.5", 1)
    ]


@pytest.fixture
def server():
    """An HTTP server that keeps what is posted to it: (path, content type, body)."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length).decode()
            posted.append((self.path, self.headers.get("Content-Type"), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_address[1], posted
        httpd.shutdown()


def test_a_metrics_node_posts_lines_and_documents(tmp_path, capsys, server):
    port, posted = server
    script = (EXAMPLES / "metrics.cfg").read_text()
    script = re.sub(r"http://127\.0\.0\.1:(8086|9200)", f"http://127.0.0.1:{port}", script)
    rtcp = sip("x", "1 x")
    rtcp["hep"] |= {
        "proto_type": 5, "correlation_id": "c1",
        "payload": '{"type":200,"sender_information":{"packets":1000},'
        '"report_blocks":[{"packets_lost":3,"ia_jitter":14,"fraction_lost":1}]}',
    }  # fmt: skip
    told = replay(
        tmp_path,
        capsys,
        script,
        [
            sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", headers="User-Agent: Phone, 1\r\n"),
            sip("SIP/2.0 200 OK", "1 INVITE"),
            sip("SIP/2.0 404 Not Found", "1 OPTIONS", "o1"),
            sip("OPTIONS sip:a@b SIP/2.0", "1 OPTIONS", "o2", headers="User-Agent: friendly-scanner\r\n"),
            sip(
                "BYE sip:bob@example.com SIP/2.0", "2 BYE",
                headers="X-RTP-Stat: CS=0;PS=1433;PR=1522;PL=0,0;JI=23,2;DL=20,20,21\r\n",
            ),
            rtcp,
            {"wait": 75},
        ],
    )  # fmt: skip
    assert told[-1]["summary"]["errors"] == 0, told[-1]
    lines = [
        re.sub(r"host=[^, ]+", "host=H", line)
        for path, _, body in posted
        if path.startswith("/write")
        for line in body.splitlines()
    ]
    assert all(re.search(r" \d{16}$", line) for line in lines), lines
    assert sorted(line.rsplit(" ", 1)[0] for line in lines) == [
        "stats_4xx,host=H,response=404 id=\"o1\",from=\"alice\",to=\"bob\",srcIP=\"192.0.2.10\",value=1",
        "stats_kpi,host=H asr=100",
        "stats_malicious,host=H,useragent=friendly-scanner from=\"alice\",to=\"bob\",srcIP=\"192.0.2.10\",value=1",
        "stats_method,host=H,method=BYE value=1",
        "stats_method,host=H,method=INVITE value=1",
        "stats_method,host=H,method=OPTIONS value=1",
        "stats_response_method,host=H,response=200,method=INVITE value=1",
        "stats_response_method,host=H,response=404,method=OPTIONS value=1",
        "stats_rtcp,host=H,type=200 srcIP=\"192.0.2.10\",dstIP=\"198.51.100.7\",id=\"c1\",packets=1000,fractionLost=1,jitter=14,packetsLost=3",
        "stats_useragent,host=H,useragent=Phone\\,\\ 1 value=1",
        "stats_xrtp,host=H from=\"alice\",to=\"bob\",receiveJitter=23,rttMean=20,packetLoss=0,rfactor=91300",
    ]  # fmt: skip
    bulk = [
        body for path, kind, body in posted if path == "/_bulk" and kind == "application/x-ndjson"
    ]
    documents = [json.loads(line) for body in bulk for line in body.splitlines()]
    assert {item["type"] for item in documents if "type" in item} == {
        "stats_4xx", "stats_malicious", "stats_method",
    }  # fmt: skip
    assert all("_index" in item["index"] for item in documents[::2])


@pytest.fixture
def opensips(tmp_path):
    script = (EXAMPLES / "opensips.cfg").read_text()
    # the rows of five minutes are written each minute, so that the test's clock may stand anywhere
    script = script.replace("/var/lib/homer/", f"{tmp_path}/").replace("% 5 != 0", "% 1 != 0")
    with sqlite3.connect(tmp_path / "statistic.db") as database:
        database.executescript((EXAMPLES / "homer5.sql").read_text())
        database.execute(
            "INSERT INTO alarm_config (name, startdate, stopdate, type, value) VALUES"
            " ('answers', '2000-01-01 00:00:00', '2100-01-01 00:00:00', 'answers', 3)"
        )
    return script


def report(kind, body, **chunks):
    packet = sip("", "")
    return {"hep": {**packet["hep"], "proto_type": kind, "payload": body, **chunks}}


OPENSIPS_PACKETS = [
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", headers="User-Agent: Phone 1\r\n"),
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", headers="User-Agent: Phone 1\r\n"),
    sip("SIP/2.0 180 Ringing", "1 INVITE"),
    sip("SIP/2.0 200 OK", "1 INVITE"),
    sip("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", "c2", headers="User-Agent: Phone 2\r\n"),
    sip("SIP/2.0 486 Busy Here", "1 INVITE", "c2"),
    sip("BYE sip:bob@example.com SIP/2.0", "2 BYE", headers="Reason: Q.850;cause=38\r\n"),
    sip(
        "REGISTER sip:example.com SIP/2.0", "1 REGISTER", "r1", src="203.0.113.5",
        headers="User-Agent: friendly-scanner\r\nContact: <sip:x@198.51.100.9>\r\n"
        'Authorization: Digest username="x\' or 1=1 --", realm="r", nonce="n", uri="u", response="0"\r\n',
    ),
    *(sip("SIP/2.0 403 Forbidden", f"{n} REGISTER", f"f{n}", src="203.0.113.5") for n in range(6)),
    sip("OPTIONS sip:example.com SIP/2.0", "1 OPTIONS", "o1"),
    sip(
        "PUBLISH sip:collector@example.com SIP/2.0", "1 PUBLISH", "p1",
        headers="Content-Type: application/vq-rtcpxr\r\n",
        body="VQSessionReport: CallTerm\r\nCallID: c1\r\nLocalMetrics:\r\nQualityEst:MOSCQ=4.2\r\n",
    ),
    report(5, '{"ssrc": 1}', correlation_id="c1"),
    report(100, "a log line", correlation_id="c1"),
    report(5, "{}"),
    {"wait": 61},
]  # fmt: skip


def test_an_opensips_node_stores_counts_and_raises_alarms(opensips, tmp_path, capsys):
    told = replay(tmp_path, capsys, opensips, OPENSIPS_PACKETS)
    data, statistic = tmp_path / "data.db", tmp_path / "statistic.db"

    assert told[-1]["summary"]["errors"] == 0, told[-1]
    day = "20231114"
    assert rows(data, f"SELECT method, count(*) FROM sip_capture_call_{day} GROUP BY method") == [
        ("180", 1), ("200", 1), ("486", 1), ("BYE", 1), ("INVITE", 3),
    ]  # fmt: skip
    assert rows(
        data, f"SELECT method, count(*) FROM sip_capture_registration_{day} GROUP BY method"
    ) == [("403", 6), ("REGISTER", 1)]
    assert rows(data, f"SELECT method FROM sip_capture_rest_{day}") == [("OPTIONS",), ("PUBLISH",)]
    assert rows(data, "SELECT correlation_id, msg FROM rtcp_capture") == [("c1", '{"ssrc": 1}')]
    assert rows(data, "SELECT correlation_id, msg FROM logs_capture") == [("c1", "a log line")]
    assert rows(data, "SELECT correlation_id FROM report_capture") == [("c1",)]

    assert rows(statistic, "SELECT type, total FROM stats_data") == [
        ("asr", 50), ("ner", 100), ("no_call", 1), ("packet_count", 16),
        ("packet_size", sum(len(p["hep"]["payload"]) for p in OPENSIPS_PACKETS[:16])),
        ("srd", 0),
    ]  # fmt: skip
    assert rows(statistic, "SELECT method, auth, totag, total FROM stats_method") == [
        ("BYE", 0, 0, 1), ("INVITE", 0, 0, 2), ("OPTIONS", 0, 0, 1), ("PUBLISH", 0, 0, 1),
        ("REGISTER", 1, 0, 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT method, source_ip, total FROM stats_ip") == [
        ("INVITE", "192.0.2.10", 2), ("REGISTER", "203.0.113.5", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT method, useragent, total FROM stats_useragent") == [
        ("INVITE", "Phone 1", 1), ("INVITE", "Phone 2", 1), ("REGISTER", "friendly-scanner", 1),
    ]  # fmt: skip
    assert rows(statistic, "SELECT type, total, source_ip FROM alarm_data") == [
        ("403", 1, "203.0.113.5"), ("scanner", 1, "203.0.113.5"), ("spoof", 1, "0.0.0.0"),
        ("sqlinjection", 1, "203.0.113.5"),
    ]  # fmt: skip
