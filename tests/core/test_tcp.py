import select
import socket

import pytest

from homerd.core.settings import parse_listen
from homerd.wire import hep
from homerd.wire.hep import Frame

OPTIONS = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)
FRAME = hep.encode(
    Frame(
        3,
        hep.IPV4,
        17,
        b"\xc0\0\2\1",
        b"\xc0\0\2\2",
        5060,
        5060,
        1500000000,
        0,
        1,
        7,
        payload=OPTIONS,
    )
)
KEEP = 'request_route { keep("$si"); }'


@pytest.fixture
def stream(worker_for, free_port):
    """A worker that listens on TCP, its source, and a way to connect to it."""

    class Stream:
        def __init__(self):
            self.worker = worker_for(f"tcp_max_connections=2\n{KEEP}")
            self.worker.open(parse_listen(f"tcp:127.0.0.1:{free_port}"))
            (self.source,) = self.worker.sources
            self.clients = []

        def connect(self):
            client = socket.create_connection(("127.0.0.1", free_port), timeout=10)
            self.clients.append(client)
            ready(self.source.socket)
            self.source.accept()
            return client

        def read(self, bytes_wanted):
            """Have the connections read until they took so many bytes, or are closed."""
            while bytes_wanted > 0 and self.source.connections:
                waiting = [item.socket for item in self.source.connections]
                assert select.select(waiting, [], [], 10)[0]
                for connection in list(self.source.connections):
                    bytes_wanted -= connection.read()

    made = Stream()
    yield made
    for client in made.clients:
        client.close()


def ready(opened):
    assert select.select([opened], [], [], 10)[0]


@pytest.mark.parametrize("size", [1, 3, 5, 100, 100_000])
def test_frames_are_found_wherever_the_stream_is_cut(stream, size):
    data = FRAME + b"\r\n\r\n" + FRAME + FRAME
    client = stream.connect()
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        client.sendall(piece)
        stream.read(len(piece))
    assert stream.worker.engine.routed == {"request_route": 3}
    assert len(stream.source.connections) == 1


def test_bare_hep_2_on_a_stream_is_closed(stream):
    client = stream.connect()
    client.sendall(b"\x02\x10 not on a stream")
    stream.read(1)
    assert stream.source.closed == {"bad_magic": 1}
    assert client.recv(1) == b""


def test_frames_before_a_lost_thread_still_count(stream):
    client = stream.connect()
    client.sendall(FRAME + b"garbage" + FRAME)
    stream.read(1)
    assert stream.worker.engine.received == 1
    assert stream.source.closed == {"bad_magic": 1}


def test_the_end_of_a_stream_tells_whether_a_frame_was_cut(stream):
    for data in (FRAME, FRAME[:-1]):
        client = stream.connect()
        client.sendall(data)
        stream.read(len(data))
        client.close()
        stream.read(1)
    assert stream.source.closed == {"ended": 1, "cut": 1}


def test_connections_beyond_the_limit_are_closed_at_once(stream):
    for _ in range(2):
        stream.connect()
    assert stream.connect().recv(1) == b""
    assert stream.source.closed == {"limit": 1}
    assert stream.source.accepted == 2


def test_a_silent_connection_is_closed(stream):
    stream.connect()
    (connection,) = stream.source.connections
    stream.source.tick(connection.read_at + 599)
    assert stream.source.closed == {}
    stream.source.tick(connection.read_at + 601)
    assert stream.source.closed == {"idle": 1}


def test_a_frame_may_not_stay_half_sent(stream):
    client = stream.connect()
    client.sendall(FRAME[:20])
    stream.read(20)
    (connection,) = stream.source.connections
    stream.source.tick(connection.whole_at + 61)
    assert stream.source.closed == {"half_sent": 1}


def test_finish_takes_what_has_arrived_even_on_connections_nobody_accepted(stream, free_port):
    first = stream.connect()
    first.sendall(FRAME * 100)
    second = socket.create_connection(("127.0.0.1", free_port), timeout=10)
    stream.clients.append(second)
    second.sendall(FRAME * 10)
    ready(stream.source.socket)
    stream.source.finish()
    assert stream.worker.engine.received == 110
    assert stream.source.connections == set()


def test_http_on_the_same_port_gets_404_when_no_module_answers_it(stream):
    client = stream.connect()
    client.sendall(b"\r\nGET /stats HTTP/1.1\r\nHost: h\r\n\r\n")
    stream.read(1)
    assert client.recv(4096) == b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    assert stream.source.http == {"no_module": 1}


def test_http_in_single_bytes_is_still_http(stream):
    client = stream.connect()
    data = b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    for start in range(len(data)):
        client.sendall(data[start : start + 1])
        stream.read(1)
    assert client.recv(4096).startswith(b"HTTP/1.1 404")
    assert client.recv(4096) == b""
    client.close()
    stream.read(1)
    assert stream.source.closed == {"ended": 1}


def test_a_request_may_not_stay_half_sent(stream):
    client = stream.connect()
    client.sendall(b"GET /a HTTP/1.1\r\nHo")
    stream.read(1)
    (connection,) = stream.source.connections
    stream.source.tick(connection.whole_at + 61)
    assert stream.source.closed == {"half_sent": 1}


def test_nobody_must_guess_whose_first_bytes_these_are_for_ever(stream):
    client = stream.connect()
    client.sendall(b"HE")
    stream.read(1)
    (connection,) = stream.source.connections
    stream.source.tick(connection.whole_at + 61)
    assert stream.source.closed == {"half_sent": 1}
