"""Phones as sipp plays them publish to a homerd that runs, and what is then stored."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing

import pytest
from outages import Daemon
from servers import free_port, needed

HEAD = """
listen=collector:127.0.0.1:{port}
spool_dir="{folder}/spool"
loadmodule "pv"
loadmodule "qos"
loadmodule "sipcapture"
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
"""
FORWARD = """
request_route {
    if (!report_capture("report_capture", "$qos(call_id)")) {
        exit;
    }
    drop;
}
"""
PUBLISH = """<?xml version="1.0" encoding="us-ascii"?>
<scenario name="publish">
  <send retrans="500"><![CDATA[
PUBLISH sip:collector@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: <sip:alice@example.org>;tag=[call_number]
To: <sip:collector@[remote_ip]>
Call-ID: [call_id]
CSeq: 1 PUBLISH
Event: {event}
Expires: 60
Max-Forwards: 70
Content-Type: application/vq-rtcpxr
Content-Length: [len]

VQSessionReport: CallTerm
CallID: call-[call_number]@192.0.2.1
LocalID: <sip:alice@example.org>
LocalMetrics:
Timestamps: START=2026-01-01T00:00:00Z STOP=2026-01-01T00:01:00Z
PacketLoss: NLR=1.0 JDR=0.5
QualityEst: MOSLQ=4.1 MOSCQ=4.0
  ]]></send>
  <recv response="{status}">
    <action>
      <ereg regexp=".+" search_in="hdr" header="{header}" check_it="true" assign_to="1"/>
      <ereg regexp=";tag=" search_in="hdr" header="To:" check_it="true" assign_to="2"/>
      <ereg regexp=";rport=[0-9]+" search_in="hdr" header="Via:" check_it="true" assign_to="3"/>
    </action>
  </recv>
  <Reference variables="1,2,3"/>
</scenario>
"""


class Homerd(Daemon):
    """A homerd that collects reports."""

    def __init__(self, folder, script):
        super().__init__(folder, "")
        self.script.write_text(HEAD.format(port=self.port, folder=folder) + script)

    def reports(self):
        """What was stored: the call, the column type, the ends and the payload's first word."""
        self.drained()
        with closing(sqlite3.connect(self.folder / "homer.db")) as database:
            return database.execute(
                "SELECT correlation_id, type, source_ip, source_port, destination_ip,"
                " destination_port, substr(msg, 1, 7) FROM report_capture ORDER BY correlation_id"
            ).fetchall()


@pytest.fixture
def homerd(tmp_path):
    made = []

    def make(script):
        made.append(Homerd(tmp_path, script))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def publish(tmp_path):
    """Has sipp publish *count* reports, each from *port*, and expect *status* for each."""
    sipp = needed("sipp", "sip-tester")

    def make(homerd, transport, count, status=200, header="SIP-ETag:", event="vq-rtcpxr"):
        port = free_port()
        scenario = tmp_path / "publish.xml"
        text = PUBLISH.replace("{status}", str(status)).replace("{header}", header)
        scenario.write_text(text.replace("{event}", event))
        command = (
            sipp, f"127.0.0.1:{homerd.port}", "-sf", scenario, "-t", transport,
            "-i", "127.0.0.1", "-p", str(port), "-m", str(count), "-r", "200",
            "-nostdin", "-timeout", "20", "-timeout_error",
        )  # fmt: skip
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return port

    return make


@pytest.mark.parametrize(
    ("transport", "script", "type"),
    [("u1", FORWARD, 1), ("t1", "collector_mode=store\nrequest_route { exit; }", 4)],
    ids=["udp-forward", "tcp-store"],
)
def test_reports_of_phones_are_answered_and_stored_with_their_call(
    homerd, publish, transport, script, type
):
    running = homerd(script)
    client = publish(running, transport, 30)
    rows = running.reports()
    calls = sorted(f"call-{number}@192.0.2.1" for number in range(1, 31))
    assert [row[:2] for row in rows] == [(call, type) for call in calls]
    assert {row[6] for row in rows} == {"PUBLISH"}
    # Over TCP sipp chooses a port.
    ends = {row[2:6] for row in rows}
    if transport == "u1":
        assert ends == {("127.0.0.1", client, "127.0.0.1", running.port)}
    status = running.status()
    assert sum(each["answers"].get("200", 0) for each in status["sources"]) >= 30
    assert status["ledger"]["difference"] == 0


def test_another_event_is_answered_with_those_that_are_taken(homerd, publish):
    running = homerd(FORWARD)
    publish(running, "u1", 3, status=489, header="Allow-Events:", event="presence")
    status = running.status()
    assert status["refused"] == {"sip_event": 3}
    assert status["stored"] == {}
