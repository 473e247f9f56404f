"""homer.cfg with switches on, over packets: what its metric stores are given."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

from homerd.api import render_metrics
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

HOMER = Path(__file__).parent.parent / "homer.cfg"


def sip(first_line, cseq, *headers, call="c1", number=1):
    """A message without a body; *cseq* is the method of its CSeq, *number* the number."""
    lines = [
        first_line,
        f"Call-ID: {call}",
        f"CSeq: {number} {cseq}",
        "From: <sip:a@b>;tag=1",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


INVITE = sip("INVITE sip:b@b SIP/2.0", "INVITE", "To: <sip:b@b>", "User-Agent: Phone, 1")
REINVITE = sip("INVITE sip:b@b SIP/2.0", "INVITE", "To: <sip:b@b>;tag=2", call="c0")
RINGING = sip("SIP/2.0 180 Ringing", "INVITE", "To: <sip:b@b>;tag=2")
OK = sip("SIP/2.0 200 OK", "INVITE", "To: <sip:b@b>;tag=2")
STAT = "CS=0;PS=1433;ES=1525;PR=1522;PL=0,0;EN=PCMA,FAX;JI=23,2;DL=20,20,21;IP=192.0.2.4:7082,1.1.1.1:1"
BYE = sip("BYE sip:b@b SIP/2.0", "BYE", "To: <sip:b@b>;tag=2", f"X-RTP-Stat: {STAT}")


class Shipped:
    """A worker of homer.cfg with switches on; nothing leaves it unless it delivers.

    values: what the #!substdef lines of homer.cfg are to say, by name.
    more: lines behind those of homer.cfg.
    lines: what the stores were given, by sink, in the order of the packets.
    """

    def __init__(self, *switches, deliver=False, more="", **values):
        text = HOMER.read_text()
        for name, value in values.items():
            text, count = re.subn(f"!{name}!.*!g", f"!{name}!{value}!g", text)
            assert count == 1, name
        self.worker = Worker(load(HOMER, text=text + more, defines=switches), deliver=deliver)
        self.lines = {}
        self.worker.route_seen = lambda route, packet, end: self._keep(packet)
        self.worker.start()

    def feed(
        self,
        *payloads,
        at=1700000000.0,
        capture_id=7,
        type=1,
        src="10.0.0.1",
        dst="10.0.0.2",
        dst_port=5060,
        node="",
        correlation="",
    ):
        """Route packets; at: when they were captured, seconds since 1970."""
        for payload in payloads:
            frame = Frame(
                version=3,
                family=2 if "." in src else 10,
                protocol=17,
                src=ip_address(src).packed,
                dst=ip_address(dst).packed,
                src_port=5060,
                dst_port=dst_port,
                seconds=int(at),
                micros=round(at % 1 * 1_000_000),
                payload_type=type,
                payload=payload,
            )
            frame.capture_id = capture_id
            if node:
                frame.extra = {"node_name": node}
            frame.correlation_id = correlation or None
            packet, failure = self.worker.engine.feed(frame)
            assert not isinstance(failure, Exception), failure
            self._keep(packet)

    def page(self, prefix="homer_"):
        """The lines of the script's metrics that begin with *prefix*."""
        samples = self.worker.program.registry.plugin("prometheus").metrics()
        lines = render_metrics(samples).decode().splitlines()
        return [line for line in lines if line.startswith(prefix)]

    def counts(self, module):
        """What is counted and not written yet."""
        return self.worker.program.registry.plugin(module).counts.drain()

    def _keep(self, packet):
        for sink, record in packet.effects:
            self.lines.setdefault(sink.name, []).append(record)
