"""A collector of voice quality reports: takes what phones PUBLISH, and answers.

A report is answered once the script was run for it.  Nothing is kept of a publication but for
REMEMBERED_SECONDS how it was answered, so that what comes again is answered again and routed once.
Source: RFC 3903, RFC 6035, RFC 3261 8.2 and 17.2.2.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from homerd.core.engine import KEEP_ALIVE, Address, Arrival, Engine, Peer
from homerd.packet import SIP
from homerd.wire import sipanswer, vqrtcpxr
from homerd.wire.hep import Frame
from homerd.wire.sip import SipMessage, looks_like_sip

REMEMBERED_SECONDS = 32.0  # RFC 3261 17.1.2.2: 64 T1, as long as a request comes again
MOST_REMEMBERED = 65_536  # 14 MB
REPORT = 99  # HEP payload type of a whole PUBLISH
# Longer heads are not looked at: no phone's is half as long, and 64 KiB of parameters took 134 ms.
MOST_HEAD = 8192
RETRY_SECONDS = 60
EXPIRES_SECONDS = 3600

# What was not routed is in the engine's counters under one of these: `handled`, then `refused`.
OPTIONS, REPEATED, NO_REPORT = "sip_options", "sip_repeated", "sip_no_report"
HANDLED = (OPTIONS, REPEATED, NO_REPORT)
REASONS = (
    "sip_reply",
    "sip_ack",
    "sip_head_too_large",
    "sip_no_via",
    "sip_headers",
    "sip_method",
    "sip_event",
    "sip_content",
    "sip_empty",
)

_EVENT = "vq-rtcpxr"
_CONTENT = "application/vq-rtcpxr"
_METHODS = "PUBLISH, NOTIFY, OPTIONS"
_ALLOW = ("Allow", _METHODS)
_ALLOW_EVENTS = ("Allow-Events", _EVENT)
_ACCEPT = ("Accept", _CONTENT)

_BLANK = b"\r\n\0 "

Headers = tuple[tuple[str, str], ...]


class Verdict(NamedTuple):
    """How a request is answered, and how one that is not routed is counted."""

    status: int
    counted: str
    headers: Headers = ()
    reason: str = ""


BUSY = Verdict(503, "", (("Retry-After", str(RETRY_SECONDS)),))


class Answer(NamedTuple):
    """What is sent back, over UDP to *port*."""

    status: int
    data: bytes
    port: int


def judged(request: SipMessage) -> Verdict | None:
    """What a request is worth that is to be answered; None for a report."""
    method = request.method
    if not request.complete or not request.cseq_number or request.cseq_method != method:
        return Verdict(400, "sip_headers", reason="Missing Header")
    if method == "OPTIONS":
        return Verdict(200, OPTIONS, (_ALLOW, _ALLOW_EVENTS, _ACCEPT))
    if method not in ("PUBLISH", "NOTIFY"):
        return Verdict(405, "sip_method", (_ALLOW,))
    content, event = _word(request.content_type), _word(request.header("event"))
    # A body that says what it is needs no Event to say it again.
    if event != _EVENT and (event or content != _CONTENT):
        return Verdict(489, "sip_event", (_ALLOW_EVENTS,))
    body = request.body
    if not body.strip():
        # A publication may be renewed without a body, and a subscription's state has none.
        if method == "NOTIFY" or request.header("sip-if-match"):
            return Verdict(200, NO_REPORT, _publication(request))
        return Verdict(400, "sip_empty", reason="No Report")
    if content != _CONTENT or _word(request.header("content-encoding")) not in ("", "identity"):
        return Verdict(415, "sip_content", (_ACCEPT, ("Accept-Encoding", "identity")))
    if not vqrtcpxr.is_report(_bytes(body)):
        return Verdict(400, "sip_content", reason="No Report")
    return None


class Collector:
    """What one worker's collectors share.

    stores: reports go to the stores as HEP type 99, in place of through the script as SIP.
    """

    def __init__(
        self, engine: Engine, stores: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.engine = engine
        self.stores = stores
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def take(self, data: bytes, address: Address, source: Arrival) -> Answer | None:
        """Take one message; None where nothing is to be answered.  Never raises."""
        engine = self.engine
        if not data.strip(_BLANK):
            self._handled(KEEP_ALIVE)
            return None
        if not looks_like_sip(data):
            engine.received += 1
            engine.undecoded["not_sip"] += 1
            return None
        request = SipMessage(data)
        if silent := _kept_silent(request):
            engine.refuse(silent)
            return None
        way = sipanswer.way_back(request)
        if way is None:
            engine.refuse("sip_no_via")
            return None
        host = str(address[0]).partition("%")[0]  # without the link it came over
        key = sipanswer.transaction(request, way.top, host)
        peer = source.peer(address)
        given = self._given(key, self._frame(data, request, peer), request, address, source)
        if given is None:
            return None
        status, _, headers, reason = given
        sender = host, peer.src_port
        return Answer(
            status,
            sipanswer.answer(request, way, status, sender, headers, reason),
            sipanswer.port_of(way.top, sender),
        )

    def _given(
        self, key: bytes, frame: Frame, request: SipMessage, address: Address, source: Arrival
    ) -> Verdict | None:
        """Route a report that is new; how the request is answered."""
        engine = self.engine
        before = self._answered(key)
        if before:
            self._handled(REPEATED)
            return _routed(request, before)
        refused = "" if engine.admit is None else engine.admit(frame, address, source)
        if refused:
            engine.refuse(refused)
            # Nobody who may not send is told that somebody is here.
            return BUSY if refused == "rate" else None
        verdict = judged(request)
        if verdict is None:
            verdict = _routed(request, 200 if self._route(frame) else 503)
            self._remember(key, verdict.status)
        elif verdict.counted in HANDLED:
            self._handled(verdict.counted)
        else:
            engine.refuse(verdict.counted)
        return verdict

    def _frame(self, data: bytes, request: SipMessage, peer: Peer) -> Frame:
        return Frame(
            0,
            peer.family,
            peer.protocol,
            peer.src,
            peer.dst,
            peer.src_port,
            peer.dst_port,
            payload_type=REPORT if self.stores else SIP,
            correlation_id=vqrtcpxr.named_call(_bytes(request.body)) or None,
            payload=data,
            # Without the datagram, which says SIP, a copy of the packet says what it is taken for.
            raw=b"" if self.stores else data,
        )

    def _route(self, frame: Frame) -> bool:
        """Run the script; whether it took the report."""
        engine = self.engine
        engine.last_failure = None
        refused = engine.refused.total()
        engine.take([frame])
        return engine.last_failure is None and engine.refused.total() == refused

    def _handled(self, how: str) -> None:
        engine = self.engine
        engine.received += 1
        engine.handled[how] += 1
        engine.not_stored[how] += 1

    def _answered(self, key: bytes) -> int:
        """How the same report was answered before, 0 when it is new."""
        ends, status = self._known.get(key, (0.0, 0))
        return status if ends > self._clock() else 0

    def _remember(self, key: bytes, status: int) -> None:
        known, now = self._known, self._clock()
        known.pop(key, None)
        known[key] = now + REMEMBERED_SECONDS, status
        for first in list(itertools.islice(known, 2)):  # two for each that comes: it shrinks again
            if len(known) > MOST_REMEMBERED or known[first][0] <= now:
                del known[first]


def _kept_silent(request: SipMessage) -> str:
    """Why a message is never answered, "" when it is."""
    if not request.is_request:
        return "sip_reply"
    if request.method == "ACK":
        return "sip_ack"
    if len(request.text) - len(request.body) > MOST_HEAD:
        return "sip_head_too_large"
    return ""


def _routed(request: SipMessage, status: int) -> Verdict:
    return Verdict(200, "", _publication(request)) if status == 200 else BUSY


def _publication(request: SipMessage) -> Headers:
    """RFC 3903 6: what the publication is called, and how long it lasts, no longer than asked."""
    if request.method != "PUBLISH":
        return ()
    asked = (request.header("expires") or "").strip()
    expires = EXPIRES_SECONDS
    if asked.isascii() and asked.isdecimal():
        expires = min(expires, int(asked[:10]))
    return ("SIP-ETag", sipanswer.token(request, "etag")), ("Expires", str(expires))


def _word(body: str | None) -> str:
    """A header's value without its parameters, in small letters."""
    return (body or "").partition(";")[0].strip().lower()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
