import ssl

import pytest
import trustme
from listeners import FRAME
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

HEAD = (
    b"GET /hep HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Agent:
    """A WebSocket client over a socket."""

    def __init__(self, opened, **asked):
        self.socket = opened
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.send(Request(host="h", target="/", **asked))
        self.accepted = self.next()
        assert isinstance(self.accepted, AcceptConnection)

    def send(self, event):
        self.socket.sendall(self.ws.send(event))

    def next(self):
        """The next event; None when the connection is closed."""
        while True:
            for event in self.ws.events():
                return event
            data = self.socket.recv(4096)
            if not data:
                return None
            self.ws.receive_data(data)


@pytest.fixture
def listener(listener_for):
    return listener_for("ws")


@pytest.fixture
def agent(listener):
    return Agent(listener.connect())


def masked(first, payload, length=None):
    """A client's frame, with a mask of zeros."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def received(listener, count):
    listener.wait_for(lambda: listener.worker.engine.received == count)


def closed(listener, reason):
    listener.wait_for(lambda: listener.source.closed)
    assert listener.source.closed == {reason: 1}
    assert listener.source.connections == set()


def test_a_message_is_a_frame_or_several(listener, agent):
    agent.send(BytesMessage(FRAME))
    agent.send(BytesMessage(FRAME + FRAME))
    received(listener, 3)
    assert listener.source.http == {"upgraded": 1}
    assert listener.source.name.startswith("ws:127.0.0.1:")
    assert listener.ledger()["difference"] == 0


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_message_in_fragments_and_segments_is_whole_again(listener, size):
    client = listener.connect()
    parts = [FRAME[start : start + size] for start in range(0, len(FRAME), size)]
    data = HEAD + masked(0x02, parts[0])
    data += b"".join(masked(0x00, part) for part in parts[1:-1]) + masked(0x80, parts[-1])
    for start in range(0, len(data), 11):
        client.sendall(data[start : start + 11])
    received(listener, 1)


def test_the_first_message_may_come_with_the_request(listener):
    listener.connect().sendall(HEAD + masked(0x82, FRAME))
    received(listener, 1)


def test_the_first_protocol_that_is_named_is_chosen(listener):
    agent = Agent(listener.connect(), subprotocols=["hep", "other"])
    assert agent.accepted.subprotocol == "hep"


def test_compression_is_not_agreed_on(listener):
    agent = Agent(listener.connect(), extensions=[PerMessageDeflate()])
    assert agent.accepted.extensions == []


def test_a_ping_is_answered(agent):
    agent.send(Ping(b"there?"))
    assert agent.next() == Pong(b"there?")


def test_a_close_is_answered(listener, agent):
    agent.send(BytesMessage(FRAME))
    agent.send(CloseConnection(1000))
    assert agent.next() == CloseConnection(1000, "")
    closed(listener, "ended")
    received(listener, 1)


@pytest.mark.parametrize(
    ("sent", "reason", "code"),
    [
        (masked(0x82, b"no HEP at all"), "bad_magic", 1007),
        (masked(0x82, b"HEP3\0\1"), "bad_total_length", 1007),
        (masked(0x82, FRAME[:-1]), "ws_cut_frame", 1007),
        (masked(0x02, FRAME[:-1]) + masked(0x88, b""), "cut", 1005),
        (masked(0x81, b"hello"), "ws_text", 1003),
        (masked(0xC2, FRAME), "ws_protocol", 1002),  # compressed, unasked
        (b"\x82\x05HEP3\0", "ws_protocol", 1002),  # without a mask
        (masked(0x80, FRAME), "ws_protocol", 1002),  # goes on, but with what?
        (masked(0x8F, b""), "ws_protocol", 1002),
        (masked(0x89, b"x" * 126), "ws_protocol", 1002),
        (masked(0x82, b"garbage", length=1 << 62), "bad_magic", 1007),
    ],
)
def test_what_cannot_be_ends_the_connection_once(listener, agent, sent, reason, code):
    agent.socket.sendall(sent)
    told = agent.next()
    assert isinstance(told, CloseConnection)
    assert told.code == code
    closed(listener, reason)
    assert agent.socket.recv(1) == b""


def test_a_flood_of_empty_fragments_keeps_nothing(listener, agent):
    agent.socket.sendall(masked(0x02, FRAME) + masked(0x00, b"") * 20_000 + masked(0x80, b""))
    received(listener, 1)
    (connection,) = listener.source.connections
    listener.wait_for(lambda: not connection.pending)


def test_a_message_without_end_keeps_no_more_than_a_frame(listener, agent):
    agent.socket.sendall(
        masked(0x02, FRAME * 1000) + masked(0x00, FRAME * 1000) + masked(0, b"HEP")
    )
    received(listener, 2000)
    (connection,) = listener.source.connections
    listener.wait_for(lambda: connection.pending)
    listener.call(listener.source.tick, connection.whole_at + 61)
    assert listener.source.closed == {"half_sent": 1}


def test_the_end_of_the_stream_within_a_message_is_a_cut(listener, agent):
    agent.socket.sendall(masked(0x02, FRAME[:9]))
    (connection,) = listener.source.connections
    listener.wait_for(lambda: connection.pending)
    agent.socket.close()
    closed(listener, "cut")


@pytest.mark.parametrize(
    "request_head",
    [
        HEAD.replace(b"Version: 13", b"Version: 8"),
        HEAD.replace(b"Sec-WebSocket-Key", b"X-Key"),
        HEAD.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        HEAD.replace(b"GET /hep", b"GET /\xff"),
    ],
)
def test_a_request_that_is_none_is_answered(listener, request_head):
    client = listener.connect()
    client.sendall(request_head)
    assert client.recv(4096).startswith(b"HTTP/1.1 40")
    assert listener.source.http == {"bad_request": 1}


def test_the_port_of_hep_over_tcp_takes_it_as_well(listener_for):
    listener = listener_for("tcp")
    Agent(listener.connect()).send(BytesMessage(FRAME))
    received(listener, 1)


def test_it_goes_over_tls(listener_for, tmp_path):
    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    listener = listener_for("wss", f'tls_certificate = "{file}"\n')
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with context.wrap_socket(listener.connect(), server_hostname="127.0.0.1") as client:
        agent = Agent(client)
        agent.send(BytesMessage(FRAME))
        received(listener, 1)
        agent.send(TextMessage("that was all"))
        assert agent.next() == CloseConnection(1003, "")
    closed(listener, "ws_text")
