"""xhttp: HTTP requests on the TCP listeners, answered by `event_route[xhttp:request]`.

There `$hu` is the URL, and $rm, $rb, $hdr(…), $cT, $si and the like tell of the request.
Whoever gets no xhttp_reply gets 500.  Heads are read up to 16 KiB, bodies up to 1 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homerd.api import (
    Frame,
    HttpAnswer,
    HttpRequest,
    ModParam,
    Outline,
    Packet,
    PacketPolicy,
    Plugin,
    PosixPattern,
    Problem,
    RunState,
    Worker,
    compile_posix,
    hookimpl,
    pseudo_variable,
    script_function,
)

EVENT = "xhttp:request"
TCP = 6


@dataclass(slots=True)
class Exchange:
    """A request and what the script answered."""

    request: HttpRequest
    answer: HttpAnswer | None = None


class UrlPattern(PosixPattern):
    """A regular expression that URLs are held against; an empty one is none."""

    @staticmethod
    def from_script(value: str | int) -> PosixPattern | None:
        return compile_posix(str(value)) if value != "" else None


class Xhttp(Plugin):
    """Answers HTTP requests from the script."""

    name = "xhttp"

    url_match = ModParam(
        UrlPattern, reloadable=True, help="only URLs with a match are routed; others get 404"
    )
    url_skip = ModParam(UrlPattern, reloadable=True, help="URLs with a match get 404")

    def __init__(self) -> None:
        self.skipped = 0
        self._worker: Worker | None = None
        self._state: RunState | None = None

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Kamailio does not start without the event route either."""
        if EVENT not in outline.events:
            yield Problem(
                f"event_route[{EVENT}] is missing: xhttp has nothing to run",
                help=f'event_route[{EVENT}] {{ xhttp_reply("200", "OK", "text/plain", "hello"); }}',
            )

    @hookimpl
    def packet_policy(self) -> PacketPolicy:
        """Take HTTP requests."""
        return PacketPolicy(http=self.answer)

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Requests keep variables of their own."""
        self._worker = worker
        self._state = worker.new_state()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Requests that url_match and url_skip kept from the script."""
        yield "homerd_xhttp_skipped_total", {}, self.skipped

    def answer(self, request: HttpRequest) -> HttpAnswer | None:
        """Run the event route; None when it did not answer."""
        match, skip = self.url_match, self.url_skip
        if (match is not None and not match.search(request.target)) or (
            skip is not None and skip.search(request.target)
        ):
            self.skipped += 1
            return HttpAnswer(404, "Not Found")
        assert self._worker is not None
        assert self._state is not None
        exchange = Exchange(request)
        packet = Packet(_as_message(request), self._state)
        packet.scratch["xhttp"] = exchange
        self._worker.run_event(EVENT, packet)
        return exchange.answer

    @pseudo_variable("hu")
    def hu(self, packet: Packet) -> str | None:
        """The URL of the HTTP request; null elsewhere."""
        exchange = packet.scratch.get("xhttp")
        return None if exchange is None else exchange.request.target

    @script_function
    def xhttp_reply(
        self, packet: Packet, code: int, reason: str, content_type: str, body: str
    ) -> bool:
        """Answer the request with a status, its reason, a Content-Type ("" for none) and a body.

        False outside of event_route[xhttp:request]; the last answer counts.
        """
        exchange = packet.scratch.get("xhttp")
        if exchange is None:
            return False
        headers = (("Content-Type", content_type),) if content_type else ()
        exchange.answer = HttpAnswer(
            code, reason, (*headers, ("Server", "homerd")), body.encode("utf-8", "surrogateescape")
        )
        return True


def _as_message(request: HttpRequest) -> Frame:
    """The request as scripts read messages: HTTP has SIP's form, but for the start line's end."""
    lines = [f"{request.method} {request.target} SIP/2.0"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    head = "\r\n".join(lines) + "\r\n\r\n"
    payload = head.encode("utf-8", "surrogateescape") + request.body
    return Frame(
        0,
        request.family,
        TCP,
        request.src,
        request.dst,
        request.src_port,
        request.dst_port,
        payload=payload,
        raw=payload,
    )
