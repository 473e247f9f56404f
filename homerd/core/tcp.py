"""TCP: streams of HEP3 frames, each connection with a framer of its own, and on the same port HTTP
and WebSocket.

All of it over TLS where the listener has certificates.  The first bytes of a connection tell which
it is.  A stream that cannot be followed any more is closed, once, and counted by reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import termios
import time
from collections import Counter
from struct import unpack

from homerd.core import source
from homerd.core.engine import Engine, Peer
from homerd.core.http import HttpStream, looks_like_http
from homerd.core.intake import BatchedStream
from homerd.core.settings import Listen
from homerd.core.source import Address
from homerd.core.tls import Certificates, TlsFailure, TlsStream
from homerd.core.websocket import WebSocketStream
from homerd.errors import FAULTS
from homerd.plugin.hookspecs import HttpAnswer, HttpRequest
from homerd.wire import hep_batch
from homerd.wire.hep import Framer

log = logging.getLogger("homerd.source")

READ_SIZE = 1 << 16  # one read a wakeup, so that no connection keeps the others waiting
# Short, because each request in it is answered at once: 4 KiB hold at most some 150.
HTTP_READ_SIZE = 1 << 12
HALF_SENT_SECONDS = 60.0
_ACCEPT_LIMIT = 64
_TCP = 6
_HELLO = hep_batch.message(hep_batch.HELLO)


class Connection:
    """One agent's stream."""

    def __init__(self, owner: TcpSource, opened: socket.socket, address: Address) -> None:
        self.owner = owner
        self.socket = opened
        self.address = address
        self.local: Address = opened.getsockname()
        self.framer = Framer()
        self.opened_at = self.read_at = self.whole_at = time.monotonic()
        certificates = owner.certificates
        self.tls = None if certificates is None else TlsStream(certificates.context)
        self.http: HttpStream | None = None
        self.websocket: WebSocketStream | None = None
        self.batched: BatchedStream | None = None
        self._names: list[str] | None = None
        self._known = False
        self._first = b""
        self._out = bytearray()
        self._drains = False
        self._peer: Peer | None = None

    @property
    def pending(self) -> bool:
        """Whether a frame or a request has begun and is not whole, or an answer is not taken."""
        if self.websocket is not None:
            return self.websocket.pending or bool(self._out)
        if self.http is not None:
            return self.http.pending or bool(self._out) or self._drains
        if self.tls is not None and self.tls.pending:
            return True
        if self.batched is not None and self.batched.pending:
            return True
        return bool(self._first) or bool(self.framer.pending)

    @property
    def certificate_names(self) -> list[str]:
        """Whose certificate the other side showed: its names."""
        if self._names is None:
            self._names = [] if self.tls is None else self.tls.certificate_names()
        return self._names

    def peer(self, address: Address) -> Peer:
        """Both ends of the connection."""
        if self._peer is None:
            self._peer = source.peer(_TCP, address, self.local)
        return self._peer

    def read(self) -> int:
        """Read once and hand over the frames that are whole; gives how many bytes came."""
        try:
            data = self.socket.recv(HTTP_READ_SIZE if self.http or not self._known else READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            self.owner.drop(self, "reset")
            return 0
        if not data:
            self.owner.drop(self, "cut" if self.pending and not self._drains else "ended")
            return 0
        self.read_at = time.monotonic()
        if not self.pending:
            self.whole_at = self.read_at
        plain = data if self.tls is None else self._decrypted(self.tls, data)
        if plain and self._known:
            self._take(plain)
        elif plain:
            self._look(plain)
        if self.tls is not None and self.tls.ended:
            self.tls.close()
            self._send_last(self.tls)
            self.owner.drop(self, "cut" if self.pending and not self._drains else "ended")
        return len(data)

    def flush(self) -> None:
        """Send what the kernel takes of the answers; nothing more is read until it took all."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            self.owner.wait_to_send(self)
            return
        except OSError:
            self.owner.drop(self, "reset")
            return
        self.owner.wait_to_read(self)
        if self.http is not None and self.http.closing and not self._drains:
            # What still comes is read and thrown away: a close with unread bytes would be a reset,
            # and the other side might lose the answer.
            self._drains = True
            self.socket.shutdown(socket.SHUT_WR)

    def _decrypted(self, tls: TlsStream, data: bytes) -> bytes:
        """The plain bytes in *data*; what TLS itself has to say is sent."""
        if self._drains:
            return b""
        try:
            plain = tls.feed(data)
        except TlsFailure as failure:
            self._send_last(tls)  # most often an alert that tells the other side what was wrong
            self.owner.drop(self, failure.reason)
            return b""
        self._out += tls.outgoing()
        if self._out:
            self.flush()
        return plain

    def _send_last(self, tls: TlsStream) -> None:
        """Send what TLS has left to say, before the connection is closed."""
        with contextlib.suppress(OSError):
            self.socket.send(tls.outgoing())

    def _answer(self, data: bytes, *, last: bool) -> None:
        """Send *data*, and nothing after it when it is the *last*."""
        if self.tls is not None:
            self.tls.send(data)
            if last:
                self.tls.close()
            data = self.tls.outgoing()
        self._out += data
        self.flush()

    def _look(self, data: bytes) -> None:
        """The first bytes: HTTP when a method of it stands there, else HEP."""
        data = self._first + data if self._first else data.lstrip(b"\r\n")
        is_http = looks_like_http(data)
        if is_http is None:
            self._first = data
            return
        self._known = True
        self._first = b""
        if is_http:
            peer = self.peer(self.address)
            ends = (peer.family, peer.src, peer.src_port, peer.dst, peer.dst_port)
            self.http = HttpStream(ends, self.owner.answer, self.owner.http, upgrades=True)
        self._take(data)

    def _take(self, data: bytes) -> None:
        if self.websocket is not None:
            self._take_messages(self.websocket, data)
            return
        if self.http is not None:
            if not self._drains:
                answer = self.http.feed(data)
                if not self.http.pending:
                    self.whole_at = self.read_at
                self._answer(answer, last=self.http.closing)
                if self.http.websocket is not None:
                    self.websocket = self.http.websocket
                    self._take_messages(self.websocket, self.http.behind)
            return
        frames = self.framer.feed(data)
        if frames:
            self.whole_at = self.read_at
        if self.batched is None and frames and frames[0] == _HELLO:
            self.batched = self._acknowledging()
        if self.batched is not None:
            self.owner.received += self.batched.feed(frames)
        else:
            self.owner.received += len(frames)
            self.owner.engine.handle([(frame, self.address) for frame in frames], self)
        if self.framer.fault is not None:
            self.owner.drop(self, self.framer.fault.reason)

    def _acknowledging(self) -> BatchedStream | None:
        intake = self.owner.engine.intake
        if intake is None:
            return None
        return BatchedStream(
            intake, self, self.address, self._acknowledge, lambda why: self.owner.drop(self, why)
        )

    def _acknowledge(self, data: bytes) -> None:
        if self in self.owner.connections:
            self._answer(data, last=False)

    def _take_messages(self, websocket: WebSocketStream, data: bytes) -> None:
        frames = websocket.feed(data)
        if frames or not websocket.pending:
            self.whole_at = self.read_at
        self.owner.received += len(frames)
        self.owner.engine.handle([(frame, self.address) for frame in frames], self)
        self._answer(websocket.outgoing(), last=bool(websocket.ended))
        if websocket.ended:
            self.owner.drop(self, websocket.ended)

    def waiting(self) -> int:
        """Bytes the kernel has received and nobody has read."""
        answer = fcntl.ioctl(self.socket, termios.FIONREAD, b"\0" * 4)
        size: int = unpack("=i", answer)[0]
        return size


class TcpSource:
    """One listening socket and its connections.

    received: frames taken.
    closed: connections that ended, by reason: "ended", "cut" (within a frame), "reset", "idle",
    "half_sent", "limit", "bad_magic", "bad_total_length"; with TLS also "handshake" (not done in
    time) and the reasons of TlsFailure; with acknowledgements (intake.py) "bad_batch",
    "batch_too_large", "no_room" (for what all begun batches hold) and "not_stored", whose batch the
    sender has kept; with WebSocket the reasons of WebSocketStream.
    http: HTTP requests: "answered", "upgraded" (to WebSocket), "unanswered" (500), "no_module"
    (404), "bad_request", "too_large", "bad_answer".
    """

    def __init__(
        self,
        listen: Listen,
        family: socket.AddressFamily,
        address: Address,
        engine: Engine,
        *,
        max_connections: int,
        idle_seconds: float,
        certificates: Certificates | None = None,
        handshake_seconds: float = 30.0,
    ) -> None:
        self.engine = engine
        self.max_connections = max_connections
        self.idle_seconds = idle_seconds
        self.half_sent_seconds = min(HALF_SENT_SECONDS, idle_seconds)
        self.certificates = certificates
        self.handshake_seconds = handshake_seconds
        self.socket = source.bind(listen, family, address, socket.SOCK_STREAM)
        self.socket.listen(512)
        self.name = f"{listen.scheme}:{source.shown(self.socket.getsockname())}"
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.received = 0
        self.closed: Counter[str] = Counter()
        self.http: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call for connections and for what comes over them."""
        self._loop = loop
        self._listen()

    def accept(self) -> bool:
        """Take connections that wait, those beyond the limit only to close them.

        True when there may be more.
        """
        for _ in range(_ACCEPT_LIMIT):
            try:
                opened, address = self.socket.accept()
            except BlockingIOError:
                return False
            except ConnectionError:  # gone before we looked
                continue
            except OSError as error:  # out of file descriptors: look again with the next tick
                log.warning('connections wait listen=%s error="%s"', self.name, error.strerror)
                self._pause()
                return False
            if len(self.connections) >= self.max_connections:
                self.closed["limit"] += 1
                opened.close()
                continue
            opened.setblocking(False)
            connection = self.connection(opened, address)
            self.accepted += 1
            self.connections.add(connection)
            if self._loop is not None:
                self._loop.add_reader(opened, connection.read)
        return True

    def connection(self, opened: socket.socket, address: Address) -> Connection:
        """What speaks with who has connected."""
        return Connection(self, opened, address)

    def answer(self, request: HttpRequest) -> tuple[HttpAnswer, str]:
        """What a module answers, and how it is counted."""
        asked = self.engine.script.entry.http
        if asked is None:
            return HttpAnswer(404, "Not Found"), "no_module"
        try:
            answer: HttpAnswer | None = asked(request)
        except FAULTS as error:  # counted
            told = f"HTTP: {type(error).__name__}: {error}"
            self.engine.report(told, None, self.engine.fault(error, "http"))
            answer = None
        if answer is None:
            return HttpAnswer(500, "Internal Server Error"), "unanswered"
        return answer, "answered"

    def wait_to_send(self, connection: Connection) -> None:
        """Have the loop call when the kernel takes more of what is to be sent."""
        if self._loop is not None:
            self._loop.remove_reader(connection.socket)
            self._loop.add_writer(connection.socket, connection.flush)

    def wait_to_read(self, connection: Connection) -> None:
        """Everything is sent: read on."""
        if self._loop is not None and self._loop.remove_writer(connection.socket):
            self._loop.add_reader(connection.socket, connection.read)

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection, counted by *reason*."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self.closed[reason] += 1
        if self._loop is not None:
            self._loop.remove_reader(connection.socket)
            self._loop.remove_writer(connection.socket)
        if connection.batched is not None:
            connection.batched.end()
        connection.socket.close()

    def tick(self, now: float) -> None:
        """Close what was silent too long, or holds a frame half-sent; look for new certificates."""
        if self.certificates is not None:
            self.certificates.look()
        for connection in list(self.connections):
            tls = connection.tls
            late = now - connection.opened_at > self.handshake_seconds
            if late and tls is not None and not tls.established:
                self.drop(connection, "handshake")
            elif now - connection.read_at > self.idle_seconds:
                self.drop(connection, "idle")
            elif connection.pending and now - connection.whole_at > self.half_sent_seconds:
                self.drop(connection, "half_sent")
        if self._loop is not None:
            self._listen()

    def finish(self) -> None:
        """Take what the kernel has received on every connection, then close them all."""
        self._pause()
        while self.accept():
            pass
        for connection in list(self.connections):
            left = connection.waiting()
            while left > 0 and connection in self.connections:
                read = connection.read()
                if not read:
                    break
                left -= read
        self.close()

    def close(self) -> None:
        """Close every connection and the listening socket."""
        self._pause()
        for connection in list(self.connections):
            self.drop(connection, "stopped")
        self._loop = None
        self.socket.close()

    def _listen(self) -> None:
        if self._loop is not None and not self._listening:
            self._loop.add_reader(self.socket, self.accept)
            self._listening = True

    def _pause(self) -> None:
        if self._loop is not None and self._listening:
            self._loop.remove_reader(self.socket)
            self._listening = False
