"""homerd flow: the ladder of a call, its legs and what is repeated."""

from __future__ import annotations

import json

import pytest

from homerd.cli import main
from homerd.commands._message import Message
from homerd.commands.flow import FANCY, PLAIN, Ladder, steps_of
from homerd_plugins._homer5 import SIP_COLUMNS
from homerd_plugins._sqlite import SqliteSink

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
ALICE, PROXY, BOB = ("10.0.0.1", 5060), ("10.0.0.2", 5060), ("10.0.0.3", 5070)


def sent(at: float, source: tuple[str, int], target: tuple[str, int], title: str, **more: object):
    """A message, *at* seconds after new year; title is `INVITE` or `200 OK`."""
    method, _, reason = title.partition(" ")
    told = {
        "table": "t",
        "id": round(at * 1000),
        "micro_ts": round((NEW_YEAR + at) * 1_000_000),
        "method": method,
        "reply_reason": reason,
        "cseq": f"7 {method}" if method.isalpha() else "7 INVITE",
        "from_user": "alice",
        "to_user": "bob",
        "ruri_user": "",
        "source_ip": source[0],
        "source_port": source[1],
        "destination_ip": target[0],
        "destination_port": target[1],
        "callid": "c1",
        "callid_aleg": "",
        "correlation_id": "",
        "via_1_branch": "",
        "content_type": "",
        "user_agent": "",
        "node": "homer01:1",
        "msg": title,
    }
    return Message(**(told | more))  # type: ignore[arg-type]


def ladder(*messages: Message, width: int = 80, signs=FANCY) -> list[str]:
    return Ladder(steps_of(messages, "c1"), width, signs).lines()


CALL = (
    sent(0, ALICE, BOB, "INVITE", content_type="application/sdp"),
    sent(0.5, ALICE, BOB, "INVITE", content_type="application/sdp"),
    sent(0.625, BOB, ALICE, "180 Ringing"),
    sent(2, BOB, ALICE, "200 OK", content_type="multipart/mixed", msg="application/sdp"),
    sent(2.1, ALICE, BOB, "ACK"),
    sent(1234.1, BOB, ALICE, "BYE"),
)


def test_a_call_of_two_hosts():
    assert ladder(*CALL) == [
        "2026-01-01 UTC, 6 messages",
        "Call-ID c1",
        "",
        "                              10.0.0.1:5060               10.0.0.3:5070",
        "                                    │                           │",
        "00:00:00.000   +0.000s              │───── INVITE (7) SDP ─────▶│",
        "00:00:00.500   +0.500s              │── INVITE (7) SDP again ──▶│",
        "00:00:00.625   +0.125s              │◀─ 180 Ringing (7 INVITE) ─│",
        "00:00:02.000   +1.375s              │◀─ 200 OK (7 INVITE) SDP ──│",
        "00:00:02.100   +0.100s              │──────── ACK (7) ─────────▶│",
        "00:20:34.100    +1232s              │◀──────── BYE (7) ─────────│",
    ]


def test_a_terminal_of_ascii():
    assert ladder(*CALL[:1], signs=PLAIN)[4:] == [
        "                                    |                           |",
        "00:00:00.000   +0.000s              |----- INVITE (7) SDP ----->|",
    ]


def test_a_long_reason_gives_way_to_what_follows_it():
    reply = sent(0, BOB, ALICE, "480 Temporarily not available", content_type="application/sdp")
    assert ladder(reply)[-1].endswith("│ 480 Tem… (7 INVITE) SDP ─▶│")


def test_a_message_over_a_host_between():
    lines = ladder(sent(0, ALICE, PROXY, "INVITE"), sent(1, PROXY, BOB, "INVITE"), CALL[4])
    assert lines[3:] == [
        "                          10.0.0.1:5060      10.0.0.2:5060      10.0.0.3:5070",
        "                                │                  │                  │",
        "00:00:00.000   +0.000s          │─── INVITE (7) ──▶│                  │",
        "00:00:01.000   +1.000s          │                  │─── INVITE (7) ──▶│",
        "00:00:02.100   +1.100s          │───────────── ACK (7) ──────────────▶│",
    ]


def test_names_that_do_not_fit_become_letters():
    alice, bob = ("2001:db8:1111:2222:3333:4444:5555:6666", 5060), ("2001:db8::2", 5061)
    assert ladder(sent(0, alice, bob, "INVITE"))[2:6] == [
        "A = [2001:db8:1111:2222:3333:4444:5555:6666]:5060",
        "B = [2001:db8::2]:5061",
        "",
        "                                    A                           B",
    ]


def test_an_address_with_several_ports_is_one_host():
    lines = ladder(CALL[0], sent(1, ("10.0.0.1", 40000), BOB, "INFO"))
    assert lines[3] == "                                 10.0.0.1                 10.0.0.3:5070"


def test_an_address_that_sends_to_itself_is_a_host_for_each_port():
    here, there = ("127.0.0.1", 5060), ("127.0.0.1", 5080)
    lines = ladder(sent(0, here, there, "INVITE"), sent(1, there, here, "100 Trying"))
    assert lines[3].split() == ["127.0.0.1:5060", "127.0.0.1:5080"]
    assert lines[6].endswith("│◀─ 100 Trying (7 INVITE) ──│")


def test_a_message_to_the_port_it_comes_from():
    assert ladder(sent(0, ALICE, ALICE, "OPTIONS"))[-1].endswith("│◀▶ OPTIONS (7)")


def test_the_copy_of_another_agent_is_no_retransmission():
    steps = steps_of([CALL[4], sent(2.1, ALICE, BOB, "ACK", node="homer01:2")], "c1")
    assert [step.repeats for step in steps] == ["", "copy"]


def test_legs_are_numbered():
    lines = ladder(CALL[0], sent(1, PROXY, BOB, "INVITE", callid="b2", callid_aleg="c1"))
    assert lines[:4] == ["2026-01-01 UTC, 2 messages", "leg 1: Call-ID c1", "leg 2: Call-ID b2", ""]
    assert lines[-2].endswith("│─ [1] INVITE SDP ▶│                  │")
    assert lines[-1].endswith("│◀─ [2] INVITE (7) │")


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 5])
def test_no_line_is_wider_than_the_terminal(width, hosts):
    ends = [(f"192.168.100.{200 + number}", 50600) for number in range(hosts)]
    messages = [
        sent(at, ends[at % hosts], ends[(at + 1) % hosts], "183 Session in progress for so long")
        for at in range(2 * hosts)
    ]
    assert max(map(len, ladder(*messages, width=width))) <= width


def row(**cells: object):
    """A stored row of a call; NULL in all other cells."""
    return tuple(cells.get(column.key) for column in SIP_COLUMNS)


@pytest.fixture
def flow(tmp_path, capsys):
    """Runs the command over a call of three legs; gives exit status, output and errors."""
    sink = SqliteSink("sipcapture", str(tmp_path / "x.db"), [SIP_COLUMNS])
    sink.connect()
    a = {"callid": "a", "correlation_id": "a"}
    b = {"callid": "b", "callid_aleg": "a", "correlation_id": "b"}
    c = {"callid": "c", "callid_aleg": "", "correlation_id": "b"}
    other = {"callid": "d", "callid_aleg": "", "correlation_id": "d"}
    for at, cells in enumerate((a, b, c, other)):
        told = {"micro_ts": (NEW_YEAR + at) * 1_000_000, "method": "INVITE", "msg": b"\xff"}
        sink.write([(f"sip_capture_call_2026010{at % 2}", 0, row(**told, **cells))])
    sink.close()

    def run(*arguments: str):
        status = main(["flow", "--db", str(tmp_path / "x.db"), *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("asked", "legs"),
    [("a", ["a", "b", "c"]), ("b", ["a", "b", "c"]), ("c", ["a", "b", "c"]), ("d", ["d"])],
)
def test_related_legs_belong_to_the_call(flow, asked, legs):
    status, out, _ = flow(asked, "--json")
    assert status == 0
    assert [json.loads(line)["callid"] for line in out.splitlines()] == legs


def test_json_lines_tell_what_the_ladder_shows(flow):
    told = json.loads(flow("a", "--json")[1].splitlines()[1])
    assert told["time"] == "2026-01-01T00:00:01Z"
    assert (told["leg"], told["delta_micros"], told["msg"]) == (2, 1_000_000, "\ufffd")
    assert (told["sdp"], told["retransmission"], told["copy"]) == (False, False, False)


def test_the_ladder_is_printed(flow):
    status, out, _ = flow("d")
    assert (status, out.splitlines()[:2]) == (0, ["2026-01-01 UTC, 1 message", "Call-ID d"])


def test_a_call_that_is_not_there_is_no_fault(flow):
    status, out, errors = flow("no\x1bne")
    assert (status, out.split(" in ")[0], errors) == (0, "no message of no?ne", "")


def test_a_database_that_is_not_there(capsys, tmp_path):
    assert main(["flow", "x", "--db", str(tmp_path / "no.db")]) == 1
    assert "no such database" in capsys.readouterr().err
