"""Two scripts on the same packets: what is told of those that would go elsewhere."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from homerd.core import tap
from homerd.core.engine import Engine, Peer
from homerd.core.program import load
from homerd.core.shadow import Shadow, report
from homerd.errors import ConfigError
from homerd.packet import RunState
from homerd.wire import hep

HEAD = f'mpath "{Path(__file__).parent / "modules"}"\nloadmodule "pv"\nloadmodule "probe"\n'


def program(text):
    return load(Path("homer.cfg"), text=HEAD + text)


def frame(method: str, agent: int | None = 7) -> hep.Frame:
    payload = (
        f"{method} sip:b@example.org SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\n\r\n".encode()
    )
    return hep.Frame(3, hep.IPV4, 17, payload_type=1, capture_id=agent, payload=payload)


def test_packets_that_would_go_elsewhere_are_counted_by_method_agent_and_table():
    before = program('request_route { keep("all"); }')
    after = program('request_route { if ($rm == "OPTIONS") drop; keep("all"); }')
    with Shadow(before, after) as shadow:
        for method, agent in (("INVITE", 7), ("OPTIONS", 7), ("OPTIONS", 8), ("OPTIONS", None)):
            shadow.feed(frame(method, agent))
    found = shadow.found
    assert (found.packets, found.elsewhere, found.altered) == (4, 3, 0)
    assert found.by_method == {"OPTIONS": 3}
    assert found.by_agent == {"7": 1, "8": 1, "without a capture id": 1}
    assert found.by_table == {("kept", "nothing"): 3}
    assert list(report(found))[-3:] == [
        "   OPTIONS sip:b@example.org SIP/2.0, Call-ID c1, agent 7",
        "      before  kept (end homer.cfg:4)",
        "      after   nothing (drop homer.cfg:4)",
    ]


def test_the_same_place_with_other_contents_is_told_apart():
    before, after = program('request_route { keep("a"); }'), program('request_route { keep("b"); }')
    with Shadow(before, after) as shadow:
        shadow.feed(frame("INVITE"))
    assert (shadow.found.elsewhere, shadow.found.altered) == (0, 1)


def test_nothing_is_delivered_and_failures_are_counted():
    before, after = program('request_route { keep("a"); }'), program("request_route { fail(); }")
    with Shadow(before, after) as shadow:
        shadow.feed(frame("INVITE"))
    assert shadow.found.failures == (0, 1)
    for each in (before, after):
        assert each.registry.plugin("probe").sink.rows == []


def test_both_begin_with_empty_tables_of_their_own():
    text = 'loadmodule "htable"\nmodparam("htable", "htable", "t=>size=4")\nrequest_route {{ if ($sht(t=>k) == $null) {{ keep("{}"); $sht(t=>k) = 1; }} }}'
    with Shadow(program(text.format("x")), program(text.format("x"))) as shadow:
        shadow.feed(frame("INVITE"))
        shadow.feed(frame("INVITE"))
    assert (shadow.found.packets, shadow.found.elsewhere, shadow.found.altered) == (2, 0, 0)


# Copies of what a running engine takes


class Writer:
    """What a Tap writes to, in memory."""

    def __init__(self):
        self.file = io.BytesIO()

    def write(self, data):
        self.file.write(data)

    async def drain(self):
        await asyncio.sleep(0)


class Source:
    """Where datagrams come from, with one peer for all."""

    def peer(self, address):
        return Peer(2, 17, b"\x01\x02\x03\x04", address[1], b"\x05\x06\x07\x08", 9060)


def test_a_tap_shows_the_datagrams_and_their_peers_and_the_engine_takes_them_all_the_same():
    engine = Engine(program("request_route { drop; }").script, RunState(lambda level, text: None))
    writer = Writer()

    async def both():
        copying = asyncio.create_task(tap.Tap(engine, 0.01).send(writer))
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="somebody else compares"):
            tap.Tap(engine, 1)
        engine.handle([(b"one", ("1.2.3.4", 5060)), (b"two", ("1.2.3.4", 5061))], Source())
        await copying
        engine.handle([(b"three", ("1.2.3.4", 5062))], Source())

    asyncio.run(both())
    writer.file.seek(0)
    one, two, left_out = tap.read(writer.file)
    assert (one[0], one[1].src_port, two[0], two[1].src_port, left_out) == (
        b"one",
        5060,
        b"two",
        5061,
        0,
    )
    assert engine.received == 3
