"""The alarm blocks of scripts/, from packets to what is raised and cleared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

ROOT = Path(__file__).parent.parent.parent
HOMER = ROOT / "homer.cfg"
BLOCKS = tuple(re.findall(r"^##!define (DO_ALARM_\w+)", HOMER.read_text(), re.MULTILINE))
PUBLIC, SERVER = "203.0.113.5", "198.51.100.7"


class Shipped:
    """A worker of homer.cfg with switches on; nothing leaves it.

    rows: of alarm_data, as (type, source_ip, status).  lines: what it logs.
    """

    def __init__(self, *switches):
        self.rows = []
        self.evidence = []
        self.lines = []
        self.worker = Worker(
            load(HOMER, defines=switches),
            deliver=False,
            log=lambda level, line: self.lines.append(line.strip()),
        )
        self.worker.route_seen = lambda route, packet, end: self._keep(packet)
        self.worker.start()

    def send(self, text, source=PUBLIC, destination=SERVER, *, agent=7):
        frame = Frame(3, 2, 17, packed(source), packed(destination), 5060, 5060, 0, 0, 1, agent)
        frame.payload = frame.raw = text.encode("utf-8", "surrogateescape")
        packet, failure = self.worker.engine.feed(frame)
        assert not isinstance(failure, Exception), failure
        assert sum(self.worker.engine.route_errors.values()) == 0
        self._keep(packet)

    def wait(self, seconds):
        self.worker.advance(seconds)
        assert sum(self.worker.engine.route_errors.values()) == 0

    def _keep(self, packet):
        for _, (table, _, row) in packet.effects:
            if table == "alarm_data":
                self.rows.append((row[1], row[3], row[5]))
            elif table == "alarm_evidence":
                self.evidence.append(row)


def packed(address):
    return bytes(map(int, address.split(".")))


def request(method="REGISTER", *headers, user="100", ruri="sip:example.org", via=1, call="c1"):
    vias = ["Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1"] * via
    lines = [f"{method} {ruri} SIP/2.0", *vias, f'From: "{user}" <sip:{user}@example.org>;tag=1']
    lines += [f"To: <sip:{user}@example.org>", f"Call-ID: {call}", f"CSeq: 1 {method}", *headers]
    return "\r\n".join(lines) + "\r\n\r\n"


def reply(status, method="REGISTER", user="100"):
    lines = [f"SIP/2.0 {status} X", f"From: <sip:{user}@example.org>;tag=1"]
    lines += [f"To: <sip:{user}@example.org>;tag=2", "Call-ID: c1", f"CSeq: 1 {method}"]
    return "\r\n".join(lines) + "\r\n\r\n"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(*switches):
        made.append(Shipped(*switches))
        return made[-1]

    yield make
    for each in made:
        each.worker.stop()


def test_there_are_blocks():
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("blocks", [*((name,) for name in BLOCKS), BLOCKS], ids="+".join)
def test_a_block_compiles_without_a_warning(blocks):
    assert load(HOMER, defines=blocks).warnings == []


# Scanners

# as svmap sends them
SVMAP = (
    "OPTIONS sip:100@198.51.100.7 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 203.0.113.5:5061;branch=z9hG4bK-3355;rport\r\n"
    "Content-Length: 0\r\n"
    'From: "sipvicious"<sip:100@1.1.1.1>; tag=3137633938\r\n'
    "Accept: application/sdp\r\n"
    "User-Agent: friendly-scanner\r\n"
    'To: "sipvicious"<sip:100@1.1.1.1>\r\n'
    "Contact: sip:100@203.0.113.5:5061\r\n"
    "CSeq: 1 OPTIONS\r\n"
    "Call-ID: 337766554433221100\r\n"
    "Max-Forwards: 70\r\n\r\n"
)


def test_a_scan_raises_one_alarm_with_its_packets_and_clears_when_it_is_over(shipped):
    run = shipped("DO_ALARM_SCANNER")
    for _ in range(30):
        run.send(SVMAP)
    run.send(request("OPTIONS", "User-Agent: Phone/1"), "203.0.113.6")
    run.wait(5)
    assert run.rows == [("scanner", PUBLIC, 1)]
    assert run.evidence[0][11] == SVMAP
    run.wait(600)
    assert run.rows[1:] == [("scanner", PUBLIC, 0)]
    assert run.lines == [
        f"alarm scanner raised for {PUBLIC}: 1 in 60 s, OPTIONS with User-Agent friendly-scanner",
        f"alarm scanner cleared for {PUBLIC}: 30 in all",
    ]


@pytest.mark.parametrize(
    "agent", ["sipcli/v1.8", "VaxSIPUserAgent/3.5", "sundayddr", "pplsip", "sip-scan", "iWar/0.08"]
)
def test_other_scanners_are_known_too(shipped, agent):
    run = shipped("DO_ALARM_SCANNER")
    run.send(request("INVITE", f"User-Agent: {agent}"))
    assert run.rows == [("scanner", PUBLIC, 1)]


def test_scanners_are_noticed_when_they_are_not_stored(shipped):
    run = shipped("DO_ALARM_SCANNER", "DO_DROP_SCANNERS")
    run.send(SVMAP)
    assert run.rows == [("scanner", PUBLIC, 1)]


# Brute force


def test_guesses_of_a_password_add_up(shipped):
    run = shipped("DO_ALARM_BRUTE_FORCE")
    for number in range(19):
        run.send(reply(401 + 2 * (number % 2)), SERVER, PUBLIC)
    assert run.rows == []
    run.send(reply(403), SERVER, PUBLIC)
    assert run.rows == [("brute_force", PUBLIC, 1)]
    assert {row[8] for row in run.evidence} == {"401", "403"}


def test_phones_that_log_in_are_no_attack(shipped):
    run = shipped("DO_ALARM_BRUTE_FORCE")
    for number in range(200):
        run.send(reply(401, user=str(number)), SERVER, PUBLIC)
        run.send(reply(200, user=str(number)), SERVER, PUBLIC)
    for _ in range(50):
        run.send(reply(407, "INVITE"), SERVER, PUBLIC)
        run.send(reply(486, "INVITE"), SERVER, PUBLIC)
    assert run.rows == []


def test_an_attack_from_behind_the_address_of_an_office_is_seen(shipped):
    run = shipped("DO_ALARM_BRUTE_FORCE")
    for number in range(30):
        run.send(reply(401), SERVER, PUBLIC)
        if number % 3 == 0:
            run.send(reply(200), SERVER, PUBLIC)
    assert run.rows == [("brute_force", PUBLIC, 1)]


def test_answers_to_other_methods_are_no_logins(shipped):
    run = shipped("DO_ALARM_BRUTE_FORCE")
    for _ in range(50):
        run.send(reply(403, "SUBSCRIBE"), SERVER, PUBLIC)
        run.send(reply(404, "REGISTER"), SERVER, PUBLIC)
    assert run.rows == []


# Spoofing


@pytest.mark.parametrize("contact", ["192.168.1.7", "198.51.100.99", "[2001:db8::1]"])
def test_contacts_that_are_elsewhere_raise_an_alarm(shipped, contact):
    run = shipped("DO_ALARM_SPOOFING")
    for number in range(10):
        run.send(request("REGISTER", f"Contact: <sip:100@{contact}:5060>", call=f"c{number}"))
    assert run.rows == [("spoofing", PUBLIC, 1)]


@pytest.mark.parametrize(
    ("headers", "options", "source"),
    [
        (["Contact: <sip:100@203.0.113.5:5060>"], {}, PUBLIC),
        (["Contact: <sip:100@pbx.example.org>"], {}, PUBLIC),
        (["Contact: <sip:100@192.168.1.7>"], {}, "10.0.0.5"),
        (["Contact: <sip:100@192.168.1.7>"], {"via": 2}, PUBLIC),
        (["Contact: *"], {}, PUBLIC),
        ([], {}, PUBLIC),
        (["Contact: <sip:"], {}, PUBLIC),
    ],
)
def test_contacts_that_are_as_they_should_be_do_not(shipped, headers, options, source):
    run = shipped("DO_ALARM_SPOOFING")
    for _ in range(30):
        run.send(request("REGISTER", *headers, **options), source)
    assert run.rows == []


# SQL


@pytest.mark.parametrize(
    "text",
    [
        request(user="100' or 1=1 --"),
        request(user="100%27%20OR%20%271%27=%271"),
        request(user="a'; DROP TABLE subscriber;"),
        request("REGISTER", "Authorization: Digest username=\"x' or '1'='1\", realm=\"r\""),
        request("INVITE", "User-Agent: x' UNION SELECT password FROM subscriber"),
        request("INVITE", ruri="sip:1'--@example.org"),
    ],
)
def test_sql_in_a_header_raises_an_alarm(shipped, text):
    run = shipped("DO_ALARM_SQL_INJECTION")
    run.send(text)
    assert run.rows == [("sql_injection", PUBLIC, 1)]


@pytest.mark.parametrize(
    "text",
    [
        request(user="o'brien"),
        request(user="d'or"),
        request(user="+49-30-1234;phone-context=+49"),
        request("INVITE", "User-Agent: Andreas' Orchestra's phone (v1; update 2)"),
        request("INVITE", 'User-Agent: Phone "d\'or"; v2'),
        request("INVITE", ruri="sip:*21*+4930%23@example.org"),
        request("REGISTER", 'Authorization: Digest username="alice", realm="o\'hara"'),
    ],
)
def test_an_apostrophe_is_no_sql(shipped, text):
    run = shipped("DO_ALARM_SQL_INJECTION")
    run.send(text)
    assert run.rows == []


# Traffic


def minutes(run, number, packets, agent=7):
    for _ in range(number):
        for _ in range(packets):
            run.send(request("OPTIONS"), agent=agent)
        run.wait(60)


def test_an_agent_that_goes_silent_raises_an_alarm_and_clears_it_when_it_is_back(shipped):
    run = shipped("DO_ALARM_TRAFFIC")
    minutes(run, 3, 100)
    minutes(run, 3, 0)
    assert {row[0] for row in run.rows} == {"traffic"}
    assert sum(status == 1 for _, _, status in run.rows) == 2  # the agent, and all of them
    assert sum(status == 0 for _, _, status in run.rows) == 0
    minutes(run, 3, 100)
    assert sum(status == 0 for _, _, status in run.rows) == 2
    assert run.lines[0] in (
        "alarm traffic raised for 7: 0 in 180 s, 0 packets in the last minute",
        "alarm traffic raised for all: 0 in 180 s, 0 packets in the last minute",
    )


def test_traffic_that_goes_up_and_down_is_no_alarm(shipped):
    run = shipped("DO_ALARM_TRAFFIC")
    for packets in (100, 150, 90, 60, 40, 30, 25, 20):
        minutes(run, 1, packets)
    assert run.rows == []


def test_one_agent_of_several_is_missed(shipped):
    run = shipped("DO_ALARM_TRAFFIC")
    for _ in range(3):
        for _ in range(80):
            run.send(request("OPTIONS"), agent=8)
        minutes(run, 1, 80, agent=7)
    minutes(run, 2, 80, agent=7)
    run.wait(2)
    assert [line.partition(":")[0] for line in run.lines] == ["alarm traffic raised for 8"]


def test_an_agent_that_never_sent_much_is_not_judged(shipped):
    run = shipped("DO_ALARM_TRAFFIC")
    minutes(run, 5, 20)
    minutes(run, 5, 0)
    assert run.rows == []


def test_an_agent_taken_out_of_service_is_given_up_on(shipped):
    run = shipped("DO_ALARM_TRAFFIC")
    minutes(run, 3, 100)
    run.wait(8 * 3600)
    assert sum(status == 1 for _, _, status in run.rows) == 2
    assert sum(status == 0 for _, _, status in run.rows) == 2
    assert len(run.worker.program.registry.plugin("htable").tables["traffic"]) == 0
