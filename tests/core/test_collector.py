import functools
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from listeners import DEADLINE_SECONDS

from homerd.commands.status import lines
from homerd.core import collector, metrics, telemetry
from homerd.core.collector import Collector
from homerd.core.engine import Peer
from homerd.core.program import load
from homerd.core.settings import parse_listen
from homerd.core.worker import Worker
from homerd.wire import hep
from homerd.wire.sip import SipMessage

MODULES = Path(__file__).parent / "modules"

SEEN = 'request_route { keep("$rm $si:$sp $Ri:$Rp $proto $hdr(Call-ID)"); }'
REPORT = "VQSessionReport: CallTerm\r\nCallID: call-1\r\nLocalMetrics:\r\nQualityEst: MOSLQ=4.1\r\n"


def sip(
    method="PUBLISH",
    call="p1",
    via="SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK1",
    event="Event: vq-rtcpxr",
    content="Content-Type: application/vq-rtcpxr",
    more="",
    body=REPORT,
    cseq=None,
    length=None,
):
    """A request as phones send it; a header that is "" is left out."""
    head = [
        f"{method} sip:collector@127.0.0.1 SIP/2.0",
        f"Via: {via}" if via else "",
        "From: <sip:alice@example.org>;tag=1",
        "To: <sip:collector@127.0.0.1>",
        f"Call-ID: {call}",
        f"CSeq: {cseq or '1 ' + method}",
        event,
        content,
        more,
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return ("\r\n".join(filter(None, head)) + "\r\n\r\n" + body).encode()


class Phone:
    """Sends over UDP to a collector and reads its answers."""

    def __init__(self, listener):
        self.listener = listener
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(("127.0.0.1", listener.port))
        self.port = self.socket.getsockname()[1]
        listener.clients.append(self.socket)

    def ask(self, data):
        """The answer to *data*."""
        self.socket.send(data)
        return SipMessage(self.socket.recv(65535))

    def ask_in_vain(self, data):
        """Send *data*, which is taken and not answered: the next answer is that to OPTIONS."""
        self.socket.send(data)
        number = self.listener.worker.engine.received
        assert self.ask(sip("OPTIONS", f"probe-{number}")).call_id == f"probe-{number}"


@pytest.fixture
def udp(listener_for):
    """A collector on UDP."""
    return listener_for("collector_udp", script=SEEN)


def rows(listener):
    return listener.worker.probe.sink.rows if listener.worker.flush(10) else None


def test_a_report_is_routed_with_both_addresses_and_then_answered(udp):
    phone = Phone(udp)
    answer = phone.ask(sip(more="Expires: 60"))
    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.header("expires") == "60"
    assert answer.header("sip-etag")
    assert answer.to_tag
    assert rows(udp) == [f"PUBLISH 127.0.0.1:{phone.port} 127.0.0.1:{udp.port} udp p1"]
    assert udp.worker.engine.routed == {"request_route": 1}


@pytest.mark.parametrize(
    ("asked", "granted"), [("", "3600"), ("7200", "3600"), ("0", "0"), ("soon", "3600")]
)
def test_a_publication_lasts_no_longer_than_was_asked(udp, asked, granted):
    assert Phone(udp).ask(sip(more=f"Expires: {asked}")).header("expires") == granted


@pytest.mark.parametrize(
    ("request_", "status", "header", "counted"),
    [
        (sip("OPTIONS", body=""), 200, ("allow", "PUBLISH, NOTIFY, OPTIONS"), "sip_options"),
        (sip("NOTIFY", body="", content=""), 200, None, "sip_no_report"),
        (sip(body="", content="", more="SIP-If-Match: x"), 200, None, "sip_no_report"),
        (sip(event="Event: presence"), 489, ("allow-events", "vq-rtcpxr"), "sip_event"),
        (sip("NOTIFY", event="Event: keep-alive"), 489, ("allow-events", "vq-rtcpxr"), "sip_event"),
        (sip(event="", content=""), 489, ("allow-events", "vq-rtcpxr"), "sip_event"),
        (sip(content="Content-Type: text/plain"), 415, ("accept", "application/vq-rtcpxr"), "sip_content"),
        (sip(content=""), 415, ("accept", "application/vq-rtcpxr"), "sip_content"),
        (sip(more="Content-Encoding: gzip"), 415, ("accept-encoding", "identity"), "sip_content"),
        (sip(body="MOSLQ=4.1"), 400, None, "sip_content"),
        (sip(body=""), 400, None, "sip_empty"),
        (sip(cseq="1 NOTIFY"), 400, None, "sip_headers"),
        (sip(cseq="PUBLISH"), 400, None, "sip_headers"),
        (sip().replace(b"From:", b"Form:"), 400, None, "sip_headers"),
        (sip("INVITE"), 405, ("allow", "PUBLISH, NOTIFY, OPTIONS"), "sip_method"),
        (sip("REGISTER"), 405, ("allow", "PUBLISH, NOTIFY, OPTIONS"), "sip_method"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_answered_by_its_kind(udp, request_, status, header, counted):
    answer = Phone(udp).ask(request_)
    assert answer.status == status
    if header:
        assert answer.header(header[0]) == header[1]
    engine = udp.worker.engine
    assert {**engine.handled, **engine.refused} == {counted: 1}
    assert counted in (*collector.HANDLED, *collector.REASONS)
    assert rows(udp) == []
    assert udp.ledger()["difference"] == 0


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        (sip("ACK"), "sip_ack"),
        (b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nCSeq: 1 PUBLISH\r\n\r\n", "sip_reply"),
        (sip(via=""), "sip_no_via"),
        (sip(via="UDP 127.0.0.1"), "sip_no_via"),
        (sip(more="X: " + 9000 * "x"), "sip_head_too_large"),
        (b"\r\n\r\n", "keep_alive"),
        (b"HEP3 is for another port", "not_sip"),
        (b"", "keep_alive"),
    ],
)
def test_what_is_never_answered_is_counted(udp, data, counted):
    Phone(udp).ask_in_vain(data)
    engine = udp.worker.engine
    found = {**engine.handled, **engine.refused, **engine.undecoded}
    assert found.pop("sip_options") == 1
    assert found == {counted: 1}
    assert udp.ledger()["difference"] == 0


def test_a_request_that_comes_again_is_answered_again_and_routed_once(udp):
    phone = Phone(udp)
    answers = [phone.ask(sip()).text for _ in range(3)]
    assert len({*answers}) == 1
    assert len(rows(udp)) == 1
    assert udp.worker.engine.handled == {"sip_repeated": 2}
    phone.ask(sip(call="p2"))
    assert len(rows(udp)) == 2


def test_what_comes_again_is_remembered_for_32_seconds_and_in_bounds(worker_for, monkeypatch):
    monkeypatch.setattr(collector, "MOST_REMEMBERED", 3)
    worker = worker_for(SEEN)
    seconds = 0.0
    taking = Collector(worker.engine, False, lambda: seconds)

    def take(call):
        before = worker.engine.routed["request_route"]
        assert taking.take(sip(call=call), ("127.0.0.1", 5060), Sender()).status == 200
        return worker.engine.routed["request_route"] - before

    assert [take("1"), take("1")] == [1, 0]
    seconds = 31.9
    assert take("1") == 0
    seconds = 32.0
    assert take("1") == 1
    assert [take("2"), take("3"), take("4")] == [1, 1, 1]
    assert [take("2"), take("1")] == [0, 1]
    assert len(taking._known) == 3


@pytest.mark.parametrize("header", ["Content-Length: 5", "Content-Length: 99999", "X: 1"])
def test_over_udp_a_body_is_what_lies_in_the_datagram(udp, header):
    name = header.partition(":")[0]
    request = sip().replace(f"Content-Length: {len(REPORT)}".encode(), header.encode())
    assert name.encode() in request
    assert Phone(udp).ask(request).status == 200
    assert len(rows(udp)) == 1


@pytest.mark.parametrize(
    "request_",
    [
        sip().replace(b"\r\n", b"\n"),
        sip(body=REPORT.replace("\r\n", "\n")),
        sip(body="\r\n" + REPORT),
        sip(event="o: vq-rtcpxr;id=3", content="c: Application/VQ-RTCPXR;charset=utf-8"),
        sip(event=""),
        sip(event="Event:\r\n vq-rtcpxr", content="Content-Type:\r\n\tapplication/vq-rtcpxr"),
        sip().replace(b"Call-ID", b"i").replace(b"Via", b"v").replace(b"From", b"f"),
        sip("NOTIFY", more="Subscription-State: active"),
        b"\r\n\r\n" + sip(),
    ],
)
def test_reports_are_known_however_they_are_written(udp, request_):
    phone = Phone(udp)
    assert phone.ask(request_).status == 200
    (row,) = rows(udp)
    assert row.endswith(" p1")


def test_a_script_that_fails_is_told_by_503_and_the_next_report_is_taken(listener_for):
    script = 'request_route { if ($hdr(X) == "1") { fail(); } keep("$ci"); }'
    listener = listener_for("collector_udp", script=script)
    phone = Phone(listener)
    first, again = (phone.ask(sip(more="X: 1")) for _ in range(2))
    assert (first.status, first.header("retry-after")) == (503, "60")
    assert first.text == again.text
    assert phone.ask(sip(call="p2")).status == 200
    assert rows(listener) == ["p2"]


def test_a_script_without_a_route_for_requests_takes_no_report(listener_for):
    listener = listener_for("collector_udp", script='onreply_route { keep("$ci"); }')
    assert Phone(listener).ask(sip()).status == 503
    assert listener.worker.engine.refused == {"no_route": 1}


def test_a_capture_plan_for_a_collector_sees_the_reports():
    plan = """#!CAPTAGENT
    debug=1
    capture[pcap] { clog("NOTICE", "captured"); drop; }
    capture[collector] {
        if (parse_sip() && sip_check("method", "PUBLISH")) {
            clog("NOTICE", "published");
            send_reply("200", "OK");
        }
        drop;
    }
    """
    said = []
    worker = Worker(
        load(Path("plan.cfg"), text=plan), log=lambda level, text: said.append(text.strip())
    )
    answer = worker.collector.take(sip(), ("127.0.0.1", 40000), Sender())
    assert (answer.status, said) == (200, ["published"])


def test_reports_for_the_stores_are_of_type_99_and_name_their_call(worker_for):
    worker = worker_for("collector_mode=store\n" + SEEN)
    seen = []
    worker.engine.copy_to(lambda data, peer: seen.append(hep.decode(data)))
    assert worker.collector.take(sip(), ("127.0.0.1", 40000), Sender()).status == 200
    (frame,) = seen
    assert (frame.payload_type, frame.correlation_id, frame.payload) == (99, "call-1", sip())
    assert (frame.src_ip, frame.src_port, frame.dst_port) == ("127.0.0.1", 40000, 5060)


def test_a_reload_changes_where_reports_go(worker_for):
    worker = worker_for(SEEN)
    assert not worker.collector.stores
    head = "\n".join(
        f'loadmodule "{name}"' for name in worker.program.registry.names if name != "core"
    )
    text = f'mpath "{MODULES}"\n{head}\ncollector_mode=store\n{SEEN}'
    worker.swap(load(Path("homer.cfg"), text=text), [])
    assert worker.collector.stores


def test_agents_by_network_may_publish_and_others_are_not_answered(listener_for):
    agents = 'agent = "phones=>network=127.0.0.0/8;rate=2"\n'
    listener = listener_for("collector_udp", agents, SEEN)
    phone = Phone(listener)
    assert [phone.ask(sip(call=call)).status for call in "123"] == [200, 200, 503]
    assert phone.ask(sip(call="1")).status == 200
    assert listener.worker.engine.refused == {"rate": 1}
    assert len(rows(listener)) == 2


def test_who_may_not_send_is_not_answered(worker_for, free_port):
    worker = worker_for(f'agent = "phones=>network=192.0.2.0/24"\n{SEEN}')
    worker.open(parse_listen(f"collector_udp:127.0.0.1:{free_port}"))
    (source,) = worker.sources
    with socket.socket(type=socket.SOCK_DGRAM) as phone:
        phone.connect(("127.0.0.1", free_port))
        for data in (sip(), sip("OPTIONS"), sip("INVITE")):
            phone.send(data)
        assert not source.drain()
    assert worker.engine.refused == {"unknown_agent": 3}
    assert source.answers == {}


def test_an_answer_much_longer_than_the_request_is_not_sent(udp):
    short = b"OPTIONS a:b SIP/2.0\nv:SIP/2.0/UDP a\nf:a\nt:b\ni:1\nCSeq:1 OPTIONS\n\n"
    Phone(udp).ask_in_vain(short)
    udp.wait_for(lambda: udp.source.answers == {"too_long": 1, "200": 1})


def test_an_answer_goes_to_the_port_that_via_tells(udp):
    with (
        socket.socket(type=socket.SOCK_DGRAM) as hears,
        socket.socket(type=socket.SOCK_DGRAM) as asks,
    ):
        hears.bind(("127.0.0.1", 0))
        hears.settimeout(DEADLINE_SECONDS)
        port = hears.getsockname()[1]
        asks.sendto(sip(via=f"SIP/2.0/UDP 127.0.0.1:{port};branch=z9"), ("127.0.0.1", udp.port))
        assert SipMessage(hears.recv(65535)).status == 200


# TCP and TLS


@pytest.fixture
def tcp(listener_for):
    """A collector on TCP."""
    return listener_for("collector_tcp", "tcp_max_connections=2\n", SEEN)


def answers(client, count):
    """Read *count* answers; none of them has a body."""
    data = b""
    while data.count(b"\r\n\r\n") < count:
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return [SipMessage(part + b"\r\n\r\n") for part in data.split(b"\r\n\r\n")[:-1]]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_requests_of_a_stream_are_answered_in_order(tcp, size):
    data = b"\r\n".join([sip(), sip("OPTIONS", "o1", body=""), sip(event="Event: x", call="p3")])
    client = tcp.connect()
    for start in range(0, len(data), size):
        client.sendall(data[start : start + size])
    assert [(item.call_id, item.status) for item in answers(client, 3)] == [
        ("p1", 200),
        ("o1", 200),
        ("p3", 489),
    ]
    assert len(rows(tcp)) == 1
    assert tcp.ledger()["difference"] == 0


def test_two_line_ends_are_answered_with_one(tcp):
    client = tcp.connect()
    client.sendall(b"\r\n\r\n")
    assert client.recv(100) == b"\r\n"
    assert tcp.worker.engine.received == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no_start_line"),
        (sip(length=100_000), "sip_too_large"),
        (sip(length="many"), "bad_content_length"),
    ],
)
def test_a_stream_that_cannot_be_followed_is_closed_behind_what_was_whole(tcp, data, reason):
    client = tcp.connect()
    client.sendall(sip(call="whole") + data)
    (answer,) = answers(client, 1)
    assert (answer.call_id, answer.status) == ("whole", 200)
    assert client.recv(1) == b""
    assert tcp.source.closed == {reason: 1}


def test_a_stream_without_content_length_has_no_body(tcp):
    client = tcp.connect()
    client.sendall(sip().replace(b"Content-Length", b"X-Length") + sip(call="p2"))
    assert [item.status for item in answers(client, 2)] == [400, 200]
    assert tcp.worker.engine.refused == {"sip_empty": 1}


def test_a_request_half_sent_is_closed(tcp):
    client = tcp.connect()
    client.sendall(sip()[:-1])
    tcp.wait_for(lambda: any(each.pending for each in tcp.source.connections))
    (connection,) = tcp.source.connections
    tcp.call(tcp.source.tick, connection.whole_at + 61)
    assert client.recv(1) == b""
    assert tcp.source.closed == {"half_sent": 1}


def test_reports_come_over_tls_too(tmp_path, listener_for):
    authority = trustme.CA()
    pem = tmp_path / "homerd.pem"
    authority.issue_cert("homer01").private_key_and_cert_chain_pem.write_to_path(str(pem))
    listener = listener_for("collector_tls", f'tls_certificate="{pem}"\n', SEEN)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = context.wrap_socket(listener.connect(), server_hostname="homer01")
    client.sendall(sip())
    assert [item.status for item in answers(client, 1)] == [200]
    assert rows(listener)[0].endswith("tcp p1")
    client.close()


# What is told of it


def test_status_and_metrics_tell_the_answers(udp):
    phone = Phone(udp)
    phone.ask(sip())
    phone.ask(sip("INVITE"))
    counters = udp.call(metrics.snapshot, udp.worker)
    shown = list(lines(counters))
    assert f"listens   collector_udp:127.0.0.1:{udp.port}" in shown
    at = next(number for number, line in enumerate(shown) if line.startswith("  answers"))
    assert [" ".join(line.split()) for line in shown[at : at + 3]] == [
        "answers 2",
        "200 1",
        "405 1",
    ]
    page = udp.call(telemetry.page, udp.worker).body.decode()
    listen = f'listen="collector_udp:127.0.0.1:{udp.port}"'
    assert f'homerd_listen_answers_total{{{listen},status="200"}} 1' in page


def test_at_the_end_what_has_arrived_is_taken_and_answered(worker_for, free_port):
    worker = worker_for(SEEN)
    worker.open(parse_listen(f"collector_udp:0.0.0.0:{free_port}"))
    (source,) = worker.sources
    with socket.socket(type=socket.SOCK_DGRAM) as phone:
        phone.settimeout(DEADLINE_SECONDS)
        phone.connect(("127.0.0.1", free_port))
        for number in range(100):
            phone.send(sip(call=f"p{number}"))
        source.finish()
        assert [SipMessage(phone.recv(65535)).status for _ in range(100)] == 100 * [200]
    assert worker.engine.received == 100


# Whatever comes


class Sender:
    """Where datagrams come from, without a socket."""

    def peer(self, address):
        return Peer(2, 17, b"\x7f\0\0\1", address[1], b"\x7f\0\0\1", 5060)


PIECES = [
    b"PUBLISH sip:a SIP/2.0\r\n", b"NOTIFY sip:a SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n",
    b"Via: SIP/2.0/UDP a", b"v:SIP/2.0/TCP [::1]:5060", b";rport", b";branch=z9hG4bK", b";received",
    b",", b"\r\n", b"\n", b"\r", b" ", b"\t", b'"', b"\\", b"\0", b"\xff", b";", b"=", b"<", b">",
    b"From: <sip:a@b>;tag=1\r\n", b"To: <sip:a@b>\r\n", b"Call-ID: 1\r\n", b"CSeq: 1 PUBLISH\r\n",
    b"CSeq: 99999999999999999999 NOTIFY\r\n", b"Event: vq-rtcpxr\r\n", b"Expires: 9\r\n",
    b"Content-Type: application/vq-rtcpxr\r\n", b"Content-Length: -1\r\n", b"VQSessionReport\r\n",
    b"CallID: x\r\n", b"SIP-If-Match: 1\r\n",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20)).map(b"".join))
def test_any_datagram_is_answered_or_not_and_counted_once(data):
    check_answer(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(sip())), st.integers(0, 40), st.sampled_from(PIECES) | st.binary())
def test_so_is_any_request_that_was_damaged(at, size, put):
    check_answer(sip()[:at] + put + sip()[at + size :])


@functools.cache
def quiet():
    """An engine whose script does nothing."""
    return Worker(load(Path("homer.cfg"), text="request_route { exit; }")).engine


def check_answer(data):
    engine = quiet()
    before = engine.received, counted(engine)
    answer = Collector(engine, False).take(data, ("127.0.0.1", 40000), Sender())
    assert (engine.received, counted(engine)) == (before[0] + 1, before[1] + 1)
    assert engine.refused.keys() <= {*collector.REASONS}
    assert engine.handled.keys() <= {*collector.HANDLED, "keep_alive"}
    if answer is None:
        return
    told = SipMessage(answer.data)
    assert told.is_reply
    assert told.status == answer.status
    assert 0 < answer.port < 65536
    assert told.body == ""
    assert len(answer.data) < len(data) + 300
    assert b"\r" not in answer.data.replace(b"\r\n", b"")


def counted(engine):
    """Packets by what became of them."""
    ends = (engine.routed, engine.handled, engine.refused, engine.undecoded)
    return sum(sum(each.values()) for each in ends)
