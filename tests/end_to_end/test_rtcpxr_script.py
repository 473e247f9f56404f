"""A script that reads voice quality reports by regular expressions, as many sites have it.

What comes of each packet is what Kamailio 5.6.3 made of the same packet with the same script.
"""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest
from listeners import Listener
from quality_reports import RFC_REPORT, SNOM_REPORT, publish
from servers import free_port

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame, encode

HEAD = """
loadmodule "kex.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
loadmodule "statsd.so"
loadmodule "db_sqlite.so"
loadmodule "sipcapture.so"
modparam("statsd", "ip", "127.0.0.1")
modparam("statsd", "port", "%d")
modparam("sipcapture", "db_url", "sqlite://%s")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
"""
ROUTE = r"""
request_route {
	if (is_method("PUBLISH") && has_body("application/vq-rtcpxr")) {
		$var(table) = "report_capture";
		$var(customer) = $(fd{s.select,0,.});
		%s
		if (float2int("$var(mos)", "10")) $var(mos) = $rc;
		statsd_set($var(customer)+"Mos", $var(mos));
		statsd_set($var(customer)+"JBN", $var(jbn));
		report_capture("$var(table)", "$var(callid)");
		drop;
	}
	sip_capture("sip_capture");
	drop;
}
"""
DIRECT = r"""
		$var(callid) = $(rb{re.subst,/^(.*)CallID:[ ]*([0-9A-Za-z@._-]{5,120})(.*)$/\2/s});
		$var(jbn) = $(rb{re.subst,/^(.*)JitterBuffer:(.*)JBN=([0-9]{1,5})(.*)$/\3/s});
		$var(mos) = $(rb{re.subst,/^(.*)QualityEst:(.*)MOSCQ=([0-9]{1,2}\.[0-9]{1,2})(.*)$/\3/s});
"""
KEPT_FIRST = r"""
		$var(rtcp) = $rb;
		$var(reg) = "/.*CallID:[ ]*((\d|\-|\w|\@|\.){5,120}).*$/\1/s";
		$var(callid) = $(var(rtcp){re.subst,$var(reg)});
		$var(jbn) = 0;
		$var(mos) = "0";
		if ($var(rtcp) =~ ".*JBN=[0-9]") $var(jbn) = $(var(rtcp){re.subst,/.*JBN=([0-9]+).*$/\1/s});
		if ($var(rtcp) =~ ".*MOSCQ=[0-9]") $var(mos) = $(var(rtcp){re.subst,/.*MOSCQ=([0-9]+\.[0-9]+).*$/\1/s});
"""
# A text that is assigned is not looked into.
QUOTED = r"""
		$var(rtcp) = $rb;
		$var(callid) = "$(var(rtcp){re.subst,/^(.*)CallID:[ ]*([0-9A-Za-z@._-]{5,120})(.*)$/\2/s})";
		$var(jbn) = "$(var(rtcp){re.subst,/^(.*)JitterBuffer:(.*)JBN=([0-9]{1,5})(.*)$/\3/s})";
		$var(mos) = "$(var(rtcp){re.subst,/^(.*)QualityEst:(.*)MOSCQ=([0-9]{1,2}\.[0-9]{1,2})(.*)$/\3/s})";
"""
OTHER_REQUEST = publish(RFC_REPORT).replace(b"application/vq-rtcpxr", b"application/pidf+xml")


class Site:
    """homerd with a script, and the statsd it tells."""

    def __init__(self, folder, spelling):
        self.database = folder / "x.db"
        self.statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.statsd.bind(("127.0.0.1", 0))
        self.statsd.settimeout(20)
        text = HEAD % (self.statsd.getsockname()[1], self.database) + ROUTE % spelling
        self.worker = Worker(load(Path("site.cfg"), text=text))
        self.worker.start()
        self.listener = Listener(self.worker, "udp", free_port())

    def send(self, datagram):
        """One datagram, and what comes of it is written; gives the port it is sent from."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
            agent.sendto(datagram, ("127.0.0.1", self.listener.port))
            self.listener.wait_for(lambda: any(self.worker.engine.routed.values()))
            assert self.worker.flush(20)
            return agent.getsockname()[1]

    def told(self, count):
        """So many datagrams of statsd's, and that there are no more."""
        found = [self.statsd.recv(2000) for _ in range(count)]
        self.statsd.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.statsd.recv(2000)
        return found

    def rows(self, table, columns="*"):
        """What is in a table; nothing when there is none."""
        with sqlite3.connect(self.database) as store:
            try:
                return store.execute(f"SELECT {columns} FROM {table}").fetchall()
            except sqlite3.OperationalError:
                return []


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(spelling):
        made.append(Site(tmp_path, spelling))
        return made[-1]

    yield make
    for each in made:
        each.listener.close()
        each.worker.stop()
        each.statsd.close()


def hep(payload):
    """In HEP 3 of type 1, captured on 14 July 2017 by agent 2001."""
    ends = (bytes([192, 0, 2, 100]), bytes([192, 0, 2, 1]), 5060, 5060)
    return encode(Frame(3, 2, 17, *ends, 1500000000, 42, 1, 2001, payload=payload))


@pytest.mark.parametrize("spelling", [DIRECT, KEPT_FIRST], ids=["direct", "kept first"])
@pytest.mark.parametrize(
    ("report", "call_id", "datagrams"),
    [
        # the last values of a report count: those of the remote side, where it has one
        (RFC_REPORT, "6dg37f1890463", [b"acmeMos:42|s\n", b"acmeJBN:40|s\n"]),
        (SNOM_REPORT, "825962570309-8ds5sl3mca99", [b"acmeMos:41|s\n", b"acmeJBN:20|s\n"]),
    ],
    ids=["rfc", "snom"],
)
def test_a_report_in_hep(site, spelling, report, call_id, datagrams):
    one = site(spelling)
    one.send(hep(publish(report)))
    assert one.told(2) == datagrams
    assert one.rows("report_capture", "date, micro_ts, correlation_id") == [
        ("2017-07-14 02:40:00", 1500000000000042, call_id)
    ]
    others = "source_ip, source_port, destination_ip, destination_port, proto, family, type, node"
    assert one.rows("report_capture", others) == [
        ("192.0.2.100", 5060, "192.0.2.1", 5060, 1, 2, 1, "homer01:2001")
    ]
    assert one.rows("report_capture", "msg") == [(publish(report).decode(),)]
    assert one.rows("sip_capture") == []


@pytest.mark.parametrize("spelling", [DIRECT, KEPT_FIRST], ids=["direct", "kept first"])
@pytest.mark.parametrize(
    ("report", "call_id", "datagrams"),
    [
        (RFC_REPORT, "6dg37f1890463", [b"acmeMos:42|s\n", b"acmeJBN:40|s\n"]),
        (SNOM_REPORT, "825962570309-8ds5sl3mca99", [b"acmeMos:41|s\n", b"acmeJBN:20|s\n"]),
    ],
    ids=["rfc", "snom"],
)
def test_a_report_that_a_phone_sends_here_itself(site, spelling, report, call_id, datagrams):
    one = site(spelling)
    port = one.send(publish(report))
    assert one.told(2) == datagrams
    columns = "correlation_id, source_ip, source_port, destination_ip, destination_port"
    assert one.rows("report_capture", columns) == [
        (call_id, "127.0.0.1", port, "127.0.0.1", one.listener.port)
    ]
    assert one.rows("report_capture", "proto, family, type, node, msg") == [
        (1, 2, 1, "homer01", publish(report).decode())
    ]
    assert one.rows("sip_capture") == []


def test_a_report_without_a_score_has_the_value_it_began_with(site):
    one = site(KEPT_FIRST)
    one.send(hep(publish(SNOM_REPORT.partition("QualityEst")[0])))
    assert one.told(2) == [b"acmeMos:0|s\n", b"acmeJBN:20|s\n"]
    assert one.rows("report_capture", "correlation_id") == [("825962570309-8ds5sl3mca99",)]


@pytest.mark.parametrize(
    ("spelling", "report"),
    [(DIRECT, SNOM_REPORT.partition("QualityEst")[0]), (QUOTED, SNOM_REPORT)],
    ids=["without a score", "quoted"],
)
def test_a_set_of_what_is_no_number_ends_the_script(site, spelling, report):
    one = site(spelling)
    one.send(hep(publish(report)))
    assert one.told(0) == []
    assert one.rows("report_capture") == one.rows("sip_capture") == []


def test_what_is_no_report_is_stored_as_other_messages_are(site):
    one = site(DIRECT)
    one.send(hep(OTHER_REQUEST))
    assert one.told(0) == []
    assert one.rows("report_capture") == []
    assert one.rows("sip_capture", "method, msg") == [("PUBLISH", OTHER_REQUEST.decode())]
