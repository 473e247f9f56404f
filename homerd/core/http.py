"""HTTP on a TCP listener: requests out of a stream, answers into it.

h11 knows the grammar; nothing here reads a socket.  Head and body are bounded, and whatever cannot
be read is answered with 4xx and ends the connection.  What answers is a module's (PacketPolicy).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import h11

from homerd.core.websocket import WebSocketStream, asks_for_websocket
from homerd.plugin.hookspecs import HttpAnswer, HttpRequest

MAX_HEAD = 16 << 10
MAX_BODY = 1 << 20
METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"TRACE ")
_LONGEST = max(map(len, METHODS))

_NOT_IN_REASON = re.compile(r"[^\t\x20-\x7e]")
_WITHOUT_BODY = frozenset({204, 304})

# An answer to what came, and how it is counted.
Answer = Callable[[HttpRequest], tuple[HttpAnswer, str]]


def looks_like_http(data: bytes) -> bool | None:
    """Whether a stream that begins with *data* is HTTP; None when that is too little to tell."""
    if data.startswith(METHODS):
        return True
    if len(data) < _LONGEST and any(method.startswith(data) for method in METHODS):
        return None
    return False


class HttpStream:
    """One connection's requests, answered in order.

    ends: local and remote end, as HttpRequest has them.  answer: called for each whole request.
    counts: requests by how they ended.  closing: nothing more is read once this is set.
    websocket: what reads from then on, with *upgrades* and once a request asked for it.
    """

    def __init__(
        self,
        ends: tuple[int, bytes, int, bytes, int],
        answer: Answer,
        counts: Counter[str],
        *,
        upgrades: bool = False,
    ) -> None:
        self._upgrades = upgrades
        self.websocket: WebSocketStream | None = None
        self._ends = ends
        self._answer = answer
        self._counts = counts
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self.closing = False

    @property
    def pending(self) -> bool:
        """Whether a request has begun and is not whole."""
        return self._request is not None or bool(self._connection.trailing_data[0])

    def feed(self, data: bytes) -> bytes:
        """Take what was received; gives what is to be sent."""
        out: list[bytes] = []
        self._connection.receive_data(data)
        try:
            while not self.closing and self.websocket is None:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    if self._connection.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        out.append(self._connection.send(go_on) or b"")
                    break
                self._take(event, out)
        except h11.RemoteProtocolError as error:
            self._counts["bad_request"] += 1
            self._refuse(HttpAnswer(error.error_status_hint), out)
        return b"".join(out)

    def _take(self, event: object, out: list[bytes]) -> None:
        if isinstance(event, h11.Request):
            self._request = event
            self._body.clear()
        elif isinstance(event, h11.Data):
            if len(self._body) + len(event.data) > MAX_BODY:
                self._counts["too_large"] += 1
                self._refuse(HttpAnswer(413, "Content Too Large"), out)
                return
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            request = self._request
            if self._upgrades and request is not None and asks_for_websocket(request):
                self._upgrade(request, out)
                return
            answer, counted = self._answer(self._whole())
            self._counts[counted] += 1
            self._send(answer, out)
            self._request = None
            if self._connection.our_state is h11.DONE is self._connection.their_state:
                self._connection.start_next_cycle()
            else:
                self.closing = True
        else:  # closed, or paused behind a request that asked for another protocol
            self.closing = True

    def _upgrade(self, request: h11.Request, out: list[bytes]) -> None:
        try:
            self.websocket = WebSocketStream(request)
        except ValueError:
            self._counts["bad_request"] += 1
            self._refuse(HttpAnswer(400, "Bad Request"), out)
            return
        self._counts["upgraded"] += 1

    @property
    def behind(self) -> bytes:
        """What came behind the request that asked for WebSocket."""
        return self._connection.trailing_data[0]

    def _whole(self) -> HttpRequest:
        request = self._request
        assert request is not None
        return HttpRequest(
            request.method.decode("ascii"),
            request.target.decode("utf-8", "surrogateescape"),
            tuple(
                (name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
                for name, value in request.headers.raw_items()
            ),
            bytes(self._body),
            *self._ends,
        )

    def _send(self, answer: HttpAnswer, out: list[bytes]) -> None:
        try:
            head = self._connection.send(self._head(answer))
        except h11.LocalProtocolError:  # a status or a header that HTTP has no place for
            self._counts["bad_answer"] += 1
            answer = HttpAnswer(500, "Internal Server Error")
            head = self._connection.send(self._head(answer))
        out.append(head or b"")
        method = b"" if self._request is None else self._request.method
        if answer.body and method != b"HEAD" and answer.status not in _WITHOUT_BODY:
            out.append(self._connection.send(h11.Data(data=answer.body)) or b"")
        out.append(self._connection.send(h11.EndOfMessage()) or b"")

    def _head(self, answer: HttpAnswer) -> h11.Response:
        headers = [
            (name.encode("utf-8", "replace"), value.encode("utf-8", "replace"))
            for name, value in answer.headers
        ]
        if answer.status not in _WITHOUT_BODY:
            headers.append((b"Content-Length", str(len(answer.body)).encode()))
        if self.closing:
            headers.append((b"Connection", b"close"))
        reason = _NOT_IN_REASON.sub(" ", answer.reason).encode()
        return h11.Response(status_code=answer.status, headers=headers, reason=reason)

    def _refuse(self, answer: HttpAnswer, out: list[bytes]) -> None:
        """Answer what was not understood, if an answer can still be given, and end."""
        self.closing = True
        if self._connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(answer, out)
