"""Any bytes on a stream listener, as HEP, HTTP, WebSocket and TLS: nothing is lost or left.

Run: python tests/fuzz/fuzz_stream.py [-max_total_time=600] [FOLDER of inputs]; needs atheris.  The
first byte of an input chooses what the bytes behind it are, the second where they are cut.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import trustme

with atheris.instrument_imports():
    from homerd.core import metrics
    from homerd.core.program import load
    from homerd.core.settings import parse_listen
    from homerd.core.tcp import Connection, TcpSource
    from homerd.core.worker import Worker

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LARGEST_FRAME = 65535


class Front:
    """Stream listeners without a loop, and connections that nobody connected."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        file = folder / "server.pem"
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        text = f'tls_certificate = "{file}"\nrequest_route {{ drop; }}\n'
        self.worker = Worker(load(folder / "homer.cfg", text=text), log=lambda level, line: None)
        tcp, tls = ports
        self.worker.open(
            [*parse_listen(f"tcp:127.0.0.1:{tcp}"), *parse_listen(f"tls:127.0.0.1:{tls}")]
        )
        self.tcp, self.tls = self.worker.sources

    def check(self, data: bytes) -> None:
        """Feed *data*; AssertionError when something is lost, kept, or left open."""
        if len(data) < 3:
            return
        kind, size, data = data[0] % 4, data[1] + 1, data[2:]
        if kind == 1:
            data = UPGRADE + data
        if kind == 3:
            self._feed_inside_tls(data, size)
        else:
            self._feed(self.tls if kind == 2 else self.tcp, data, size)
        counters = metrics.snapshot(self.worker)
        assert counters["ledger"]["difference"] == 0

    def close(self) -> None:
        """Close the listeners."""
        self.worker.close()

    def _feed(self, listener: TcpSource, data: bytes, size: int) -> None:
        connection, client = _opened(listener)
        _send(connection, client, data, size)
        _end(connection, client)

    def _feed_inside_tls(self, data: bytes, size: int) -> None:
        connection, client = _opened(self.tls)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        for _ in range(4):
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            _send(connection, client, outgoing.read(), 1 << 14, incoming.write)
        for start in range(0, len(data), size):
            tls.write(data[start : start + size])
        _send(connection, client, outgoing.read(), 1 << 14)
        _end(connection, client)


def _opened(listener: TcpSource) -> tuple[Connection, socket.socket]:
    client, server = socket.socketpair()
    client.setblocking(False)
    server.setblocking(False)
    connection = Connection(listener, server, ("127.0.0.1", 9))
    connection.local = ("127.0.0.1", 9060)
    listener.connections.add(connection)
    return connection, client


def _send(
    connection: Connection,
    client: socket.socket,
    data: bytes,
    size: int,
    answered: Callable[[bytes], object] = len,
) -> None:
    for start in range(0, len(data), size):
        if connection not in connection.owner.connections:
            return
        client.send(data[start : start + size])
        connection.read()
        assert connection.framer.pending <= LARGEST_FRAME
        if connection in connection.owner.connections:
            connection.flush()
        with contextlib.suppress(BlockingIOError, ConnectionError):
            answered(client.recv(1 << 16))


def _end(connection: Connection, client: socket.socket) -> None:
    client.close()
    for _ in range(3):
        if connection in connection.owner.connections:
            connection.read()
    assert connection not in connection.owner.connections


def main() -> None:
    """Run libFuzzer on `Front.check`."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
        one.close()
        two.close()
        front = Front(Path(folder), ports)
        atheris.Setup(sys.argv, front.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
