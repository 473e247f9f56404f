"""HEP over WebSocket (RFC 6455): binary messages of whole HEP 3 frames, one or several in each.

wsproto knows the protocol; nothing here reads a socket.  A message goes to the framer as it comes,
so that no more is kept than a frame's 64 KiB, however long the message or its fragments are.  No
extension is agreed on, compression least of all: what is small on the wire stays small.
"""

from __future__ import annotations

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from homerd.wire.hep import Framer


def asks_for_websocket(request: h11.Request) -> bool:
    """Whether *request* wants to go on as WebSocket."""
    return request.method == b"GET" and any(
        name == b"upgrade" and value.strip().lower() == b"websocket"
        for name, value in request.headers
    )


class WebSocketStream:
    """One connection behind its request; ValueError when the request is not one of RFC 6455.

    ended: why nothing more is to be read: "ended", "cut" (within a message), "ws_text" (a text
    message), "ws_cut_frame" (a message that ends within a frame), "ws_protocol", or the framer's
    reason; "" while it goes on.
    """

    def __init__(self, request: h11.Request) -> None:
        self._connection = WSConnection(ConnectionType.SERVER)
        self._framer = Framer()
        self._within = False
        self._out: list[bytes] = []
        self.ended = ""
        try:
            self._connection.initiate_upgrade_connection(list(request.headers), request.target)
            asked = next(iter(self._connection.events()))
            assert isinstance(asked, Request)
            # A browser that names protocols gives up when none of them is chosen.
            chosen = asked.subprotocols[0] if asked.subprotocols else None
            self._out.append(self._connection.send(AcceptConnection(subprotocol=chosen)))
        except (RemoteProtocolError, LocalProtocolError, h11.ProtocolError) as error:
            raise ValueError(str(error)) from error

    @property
    def pending(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self._within or bool(self._framer.pending)

    def outgoing(self) -> bytes:
        """What is to be sent; each byte is given once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was received; gives the frames that are whole."""
        frames: list[bytes] = []
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                self._take(event, frames)
                if self.ended:
                    break
        except RemoteProtocolError:
            self._close(CloseReason.PROTOCOL_ERROR, "ws_protocol")
        return frames

    def _take(self, event: object, frames: list[bytes]) -> None:
        if isinstance(event, BytesMessage):
            frames += self._framer.feed(bytes(event.data))
            self._within = not event.message_finished
            if self._framer.fault is not None:
                self._close(CloseReason.INVALID_FRAME_PAYLOAD_DATA, self._framer.fault.reason)
            elif event.message_finished and self._framer.pending:
                self._close(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "ws_cut_frame")
        elif isinstance(event, Ping):
            self._out.append(self._connection.send(event.response()))
        elif isinstance(event, CloseConnection):
            if self._connection.state is not ConnectionState.REMOTE_CLOSING:  # wsproto's own word
                self._close(CloseReason.PROTOCOL_ERROR, "ws_protocol")
                return
            self._out.append(self._connection.send(event.response()))
            self.ended = "cut" if self.pending else "ended"
        elif isinstance(event, TextMessage):
            self._close(CloseReason.UNSUPPORTED_DATA, "ws_text")

    def _close(self, code: CloseReason, reason: str) -> None:
        self.ended = reason
        try:
            self._out.append(self._connection.send(CloseConnection(code)))
        except LocalProtocolError:  # both sides have said so before
            pass
