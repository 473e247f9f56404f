"""What quality reports cost on the loop thread: `python tests/bench/bench_qos.py`, µs a packet.

The unit is `sum(range(1000))` on the same machine, for machines differ; the reports differ as well.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

sys.path.insert(0, str(Path(__file__).parent.parent))

from frames import ethernet, ipv4, udp

from homerd.core.dissect import Dissector
from homerd.core.program import load
from homerd.core.worker import Worker, settle_collector
from homerd.wire import hep, qos, rtcp, vqrtcpxr

REPORTS, PART, ROUNDS = 500, 10, 600

VQ = """VQSessionReport: CallTerm\r
CallID: {n:08x}@192.0.2.10\r
LocalID: <sip:alice@customer.example>\r
RemoteID: <sip:bob@example.net>\r
OrigID: <sip:alice@customer.example>\r
LocalAddr: IP=192.0.2.10 PORT=40000 SSRC=0x2468ACE0\r
RemoteAddr: IP=192.0.2.20 PORT=41000 SSRC=0x13579BDF\r
LocalMetrics:\r
Timestamps: START=2026-01-01T00:{m:02}:00Z STOP=2026-01-01T00:59:{m:02}Z\r
SessionDesc: PT=8 PD=PCMA SR=8000 FD=20 FO=160 FPP=1 PPS=50 PLC=3 SSUP=off\r
JitterBuffer: JBA=3 JBR=2 JBN={m} JBM=80 JBX=120\r
PacketLoss: NLR=0.{m} JDR=2.0\r
BurstGapLoss: BLD=0.0 BD=0 GLD=2.0 GD=500 GMIN=16\r
Delay: RTD={n} ESD=140 SOWD=200 IAJ={m} MAJ=10\r
Signal: SL=-21 NL=-50 RERL=55\r
QualityEst: RLQ=90 RCQ=85 EXTRI=90 MOSLQ=4.2 MOSCQ=4.{k} QoEEstAlg=P.564\r
RemoteMetrics:\r
Timestamps: START=2026-01-01T00:{m:02}:00Z STOP=2026-01-01T00:59:{m:02}Z\r
SessionDesc: PT=8 PD=PCMA SR=8000 FD=20 FO=160 FPP=1 PPS=50 PLC=3 SSUP=off\r
JitterBuffer: JBA=3 JBR=2 JBN=40 JBM=80 JBX=120\r
PacketLoss: NLR=1.{m} JDR=1.1\r
Delay: RTD={n} ESD=140 SOWD=200 IAJ=2 MAJ=10\r
QualityEst: RLQ=88 RCQ=84 MOSLQ=3.9 MOSCQ=3.8 QoEEstAlg=P.564\r
DialogID: {n:08x}@192.0.2.10;to-tag=8472761;from-tag=9123dh311\r
"""
PUBLISH = """PUBLISH sip:collector@example.net SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{n:08x}\r
Max-Forwards: 70\r
From: <sip:alice@customer.example>;tag=p{n:08x}\r
To: <sip:collector@example.net>\r
Call-ID: p{n:08x}@192.0.2.10\r
CSeq: 1 PUBLISH\r
User-Agent: Example Phone 2.1.7\r
Event: vq-rtcpxr\r
Content-Type: application/vq-rtcpxr\r
Content-Length: {size}\r
\r
{body}"""
INVITE = """INVITE sip:bob@example.net SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK{n:08x}\r
From: <sip:alice@customer.example>;tag=a{n:08x}\r
To: <sip:bob@example.net>\r
Call-ID: {n:08x}@192.0.2.10\r
CSeq: 1 INVITE\r
Content-Type: application/sdp\r
Content-Length: {size}\r
\r
{body}"""
SDP = """v=0\r
o=- 1 1 IN IP4 192.0.2.10\r
s=-\r
c=IN IP4 192.0.2.10\r
t=0 0\r
m=audio {port} RTP/AVP 8\r
"""
RTCP_JSON = (
    '{{"sender_information":{{"ntp_timestamp_sec":3909988800,"ntp_timestamp_usec":{n},'
    '"octets":160000,"rtp_timestamp":{n},"packets":{n}}},"ssrc":{n},"type":200,"report_count":1,'
    '"report_blocks":[{{"source_ssrc":2271560481,"fraction_lost":{m},"packets_lost":3,'
    '"highest_seq_no":1024,"ia_jitter":{n},"lsr":0,"dlsr":0}}]}}'
)

HEAD = """
loadmodule "pv"
loadmodule "siputils"
loadmodule "textops"
loadmodule "xlog"
loadmodule "statsd"
loadmodule "sipcapture"
loadmodule "qos"
modparam("statsd", "ip", "127.0.0.1")
modparam("sipcapture", "db_url", "sqlite://bench.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
"""
BY_PATTERNS = (
    HEAD
    + r"""
request_route {
    if (is_method("PUBLISH") && has_body("application/vq-rtcpxr")) {
        $var(table) = "report_capture";
        $var(customer) = $fd;
        $var(callid) = $(rb{re.subst,/^(.*)CallID:[ ]?([^\r\n]*)(.*)$/\2/s});
        $var(jbn) = $(rb{re.subst,/^(.*)JitterBuffer:(.*)JBN=([0-9]{1,5})(.*)$/\3/s});
        $var(moscq) = $(rb{re.subst,/^(.*)QualityEst:(.*)MOSCQ=([0-9.]{1,5})(.*)$/\3/s});
        float2int("$var(moscq)", "10");
        $var(mos) = $rc;
        statsd_set($var(customer)+"Mos", $var(mos));
        statsd_set($var(customer)+"JBN", $var(jbn));
        report_capture("$var(table)", "$var(callid)");
        drop;
    }
}
"""
)
BY_NAME = (
    HEAD
    + r"""
request_route {
    if (is_method("PUBLISH") && has_body("application/vq-rtcpxr")) {
        $var(customer) = $fd;
        float2int("$qos(mos_cq)", "10");
        $var(mos) = $rc;
        statsd_set($var(customer)+"Mos", $var(mos));
        statsd_set($var(customer)+"Jitter", $qos(jitter));
        report_capture("report_capture", "$qos(call_id)");
        drop;
    }
}
"""
)
RTCP_BY_NAME = (
    HEAD
    + r"""
modparam("sipcapture", "nonsip_hook", 1)
event_route[sipcapture:request] {
    statsd_gauge("jitter", $qos(jitter));
    report_capture("rtcp_capture");
    drop;
}
request_route { drop; }
"""
)
STORED = HEAD + "request_route { drop; }\n"


def vq(number: int) -> bytes:
    """A report."""
    return VQ.format(n=number, m=number % 60, k=number % 10).encode()


def publish(number: int) -> bytes:
    """The PUBLISH it comes in."""
    body = vq(number).decode()
    return PUBLISH.format(n=number, size=len(body), body=body).encode()


def rtcp_json(number: int) -> bytes:
    """RTCP as agents send it."""
    return RTCP_JSON.format(n=number, m=number % 256).encode()


def rtcp_voice(number: int) -> bytes:
    """RTCP as it is on the wire: SR, SDES, and XR with voice metrics."""
    return (
        pack(">BBHIIIIII", 0x81, 200, 12, number, 3_909_000_000, 0, number, 250, 40000)
        + pack(">IIIIII", 9, 0x05000003, 1024, number, 0, 0)
        + bytes.fromhex("81ca000313579bdf010561406c616200")
        + pack(">BBHI", 0x80, 207, 10, number)
        + bytes.fromhex("070000080000000905020003000001f400b4008cebce3710537f26253c00002800500078")
    )


def rtcp_plain(number: int) -> bytes:
    """The same as most send it: SR and SDES."""
    return rtcp_voice(number)[:68]


def captured(number: int, payload: bytes) -> bytes:
    """RTCP of call *number* on the wire."""
    port = 10001 + 2 * number
    return ethernet(ipv4(udp(payload, port, 4001), src=bytes([192, 0, 2, 10])))


def invite(number: int) -> bytes:
    """The INVITE of that call, whose SDP says where its media are."""
    body = SDP.format(port=10000 + 2 * number)
    message = INVITE.format(n=number, size=len(body), body=body).encode()
    return ethernet(ipv4(udp(message), src=bytes([192, 0, 2, 10])))


def frame(payload: bytes, kind: int) -> hep.Frame:
    """As an agent sends *payload*."""
    return hep.Frame(
        family=2, protocol=17, src=bytes([192, 0, 2, 10]), dst=bytes([198, 51, 100, 7]),
        src_port=5060, dst_port=5060, seconds=1_700_000_000, capture_id=2001, payload_type=kind,
        correlation_id="c1", payload=payload,
    )  # fmt: skip


def least(call: Callable[[], object], times: int = 1) -> float:
    """The least µs of processor time of *call*, which does its work *times*: of many short rounds,
    for whatever else the machine does slows down most of them.
    """
    seconds = min(timeit.repeat(call, number=1, repeat=ROUNDS, timer=time.thread_time))
    return seconds / times * 1e6


def each(call: Callable[[bytes], object], inputs: list[bytes]) -> float:
    """Of one call."""
    parts = itertools.cycle(inputs[at : at + PART] for at in range(0, len(inputs), PART))
    return least(lambda: [call(data) for data in next(parts)], PART)


def routed(script: str, payloads: list[bytes], kind: int) -> float:
    """From a HEP frame to its records in the sinks, which are not started."""
    with running(script) as worker:
        datagrams = [(hep.encode(frame(data, kind)), None) for data in payloads]
        parts = itertools.cycle(datagrams[at : at + PART] for at in range(0, REPORTS, PART))
        return least(lambda: worker.engine.handle(next(parts)), PART)


@contextlib.contextmanager
def running(script: str) -> Iterator[Worker]:
    """A worker whose sinks are not started."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("script.cfg").write_text(script)
        worker = Worker(load(Path("script.cfg")), deliver=False, log=lambda level, text: None)
        worker.start()
        settle_collector()
        yield worker
        worker.stop()


def live(script: str, payloads: list[bytes]) -> float:
    """From a captured frame to its records; each is of a call that SDP told of."""
    with running(script) as worker:
        dissector = Dissector()
        for number in range(REPORTS):
            dissector.feed(1, 1_700_000_000, 0, invite(number))
        frames = [captured(number, data) for number, data in enumerate(payloads)]
        parts = itertools.cycle(frames[at : at + PART] for at in range(0, REPORTS, PART))

        def take() -> None:
            for data in next(parts):
                worker.engine.take(dissector.feed(1, 1_700_000_001, 0, data))

        return least(take, PART)


def main() -> None:
    """Print a line for each path."""
    numbers = range(REPORTS)
    texts, raw = [vq(n) for n in numbers], [rtcp_voice(n) for n in numbers]
    published = [publish(n) for n in numbers]
    jsons, plain = [rtcp_json(n) for n in numbers], [rtcp_plain(n) for n in numbers]
    paths: list[tuple[str, Callable[[], float]]] = [
        (f"vq-rtcpxr, {len(texts[0])} bytes: decode", lambda: each(vqrtcpxr.decode, texts)),
        ("    as a record", lambda: each(qos.decode, texts)),
        ("    FORWARD by patterns: statsd, SQL", lambda: routed(BY_PATTERNS, published, 1)),
        ("    FORWARD by $qos: statsd, SQL", lambda: routed(BY_NAME, published, 1)),
        ("    stored (type 99)", lambda: routed(STORED, texts, 99)),
        ("RTCP as JSON: as a record", lambda: each(qos.decode, jsons)),
        ("    FORWARD by $qos: statsd, SQL", lambda: routed(RTCP_BY_NAME, jsons, 5)),
        ("    stored (type 5)", lambda: routed(STORED, jsons, 5)),
        ("    captured: SDP's call, JSON, statsd, SQL", lambda: live(RTCP_BY_NAME, plain)),
        ("    captured and stored", lambda: live(STORED, plain)),
        ("RTCP with voice metrics: as a record", lambda: each(qos.decode, raw)),
        (
            "    captured: made JSON",
            lambda: each(lambda data: rtcp.as_json(rtcp.decode(data)), raw),
        ),
        ("    captured: SDP's call, JSON, statsd, SQL", lambda: live(RTCP_BY_NAME, raw)),
    ]
    unit = least(lambda: sum(range(1000)))
    print(f"{'µs':>49} {f'of {unit:.1f} for sum(range(1000))':>28}")
    for name, measure in paths:
        cost = measure()
        print(f"{name:42}{cost:7.1f} {cost / unit:28.2f}")


if __name__ == "__main__":
    main()
