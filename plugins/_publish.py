"""PublishSink: reports as SIP PUBLISH (RFC 3903, 6035), over UDP or TCP.

A report is written when the collector has answered with 2xx.  Over UDP it is sent again as RFC 3261
17.1.2 has it, until timer F.  No answer, 408, 480, 503 and 504 leave it to a later try, every other
answer refuses it; so does a collector that answers others, or OPTIONS, and never this one, or that
puts it off again and again.  Of the target's addresses the first that DNS gives is taken; SRV is
not asked.
"""

from __future__ import annotations

import math
import secrets
import select
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from homerd.api import BatchSink, Rejected, RetryLater, SipFramer, SipMessage, parse_uri

DEFAULT_PORT = 5060
T1, T2 = 0.5, 4.0
LARGEST_DATAGRAM = 65507

_TIMER_F = 64  # times T1
_WINDOW = 32  # requests that wait for an answer at a time
_BATCH_SIZE = 100
_MOST_SETTLED = 1000  # that are remembered, more than a batch has
_MOST_TRIES = 3  # of what alone is not answered
# Of what the collector puts off, two minutes while it took others, else some 50: who is overloaded
# says so of all, who cannot take one report may say so of that one for ever.
_MOST_PUT_OFF, _MOST_PUT_OFF_ALONE = 10, 100
_LOOK_SECONDS = 0.25  # how often it is seen that the sink is to stop
_TRANSPORTS = ("udp", "tcp")
_LATER = (408, 480, 503, 504)
_PIECE = 1 << 16


class Publication(NamedTuple):
    """One report.  id: what tells it from all others, the same in each try."""

    id: str
    call_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Collector:
    """Where PUBLISH goes; host as it is resolved."""

    user: str
    host: str
    port: int
    transport: str = "udp"

    @staticmethod
    def read(text: str) -> Collector:
        """`sip:[USER@]HOST[:PORT][;transport=udp|tcp]`; raises ValueError."""
        uri = parse_uri(text)
        if uri is None or uri.scheme != "sip" or not uri.host or uri.headers:
            raise ValueError(f'expected sip:HOST:PORT;transport=udp or tcp, got "{text}"')
        if uri.password:
            raise ValueError("a password in a SIP URI is not used: PUBLISH is not authenticated")
        transport = "udp"
        for piece in filter(None, uri.params.split(";")):
            name, _, value = piece.partition("=")
            if name.strip().lower() != "transport":
                raise ValueError(f'"{text}": unknown parameter "{name}", expected transport')
            transport = value.strip().lower()
        if transport not in _TRANSPORTS:
            known = ", ".join(_TRANSPORTS)
            raise ValueError(f'"{text}": unknown transport "{transport}", expected {known}')
        port = int(uri.port or DEFAULT_PORT)
        if not 0 < port < 65536:
            raise ValueError(f'"{text}": expected a port from 1 to 65535')
        return Collector(uri.user, uri.host.strip("[]"), port, transport)

    @property
    def uri(self) -> str:
        """As a request has it."""
        user = f"{self.user}@" if self.user else ""
        return f"sip:{user}{_bracketed(self.host)}:{self.port};transport={self.transport}"

    def __str__(self) -> str:
        return self.uri


class PublishSink(BatchSink):
    """Sends Publications to one collector.

    source: the SIP URI of who publishes.  answers: final answers, by status.  sent_again: requests
    that were repeated because no answer had come.  t1: seconds, see RFC 3261 17.1.1.1.
    """

    is_store = False

    def __init__(self, target: Collector, source: str, *, t1: float = T1, **options: Any) -> None:
        super().__init__(f"qos:{target}", **{"batch_size": _BATCH_SIZE, **options})
        self.target = target
        self.where = str(target)
        self.source = source
        self.t1 = t1
        self.answers: Counter[int] = Counter()
        self.sent_again = 0
        self._line: _Line | None = None
        self._settled: dict[str, str] = {}  # id -> why it was refused, "" when it was taken
        self._tries: Counter[str] = Counter()
        self._taken = 0
        self._put_off: dict[str, _PutOff] = {}  # by id
        self._later: dict[str, str] = {}  # id -> what the collector said, in this exchange
        self._give_up_at: float | None = None

    # What BatchSink asks for

    def connect(self) -> None:
        """Open a socket; RetryLater when the target has no address or takes no connection."""
        try:
            self._line = _Line(self.target, self.t1 * _TIMER_F)
        except OSError as error:
            raise RetryLater(f"{self.target}: {_said(error)}") from error

    def close(self) -> None:
        """Close it."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def stop(self, timeout: float = 10.0) -> None:
        """Wait for no answer longer than *timeout*."""
        self._give_up_at = time.monotonic() + timeout
        super().stop(timeout)

    def write(self, batch: list[Publication]) -> None:
        """Send what has no answer yet; what was answered is not sent again."""
        if self._line is None:  # `write` by hand
            self.connect()
        try:
            self._exchange([each for each in batch if each.id not in self._settled])
        except OSError as error:
            raise RetryLater(f"{self.target}: {_said(error)}") from error
        refused = {
            index: reason
            for index, each in enumerate(batch)
            if (reason := self._settled.get(each.id, ""))
        }
        if refused:
            told = ", ".join(sorted(set(refused.values())))
            raise Rejected(list(refused), f"{self.target}: {told}")

    def label(self, record: Publication) -> str:
        """All are of one kind."""
        return "vq-rtcpxr"

    def describe(self, record: Publication) -> dict[str, Any]:
        """The report as text."""
        text = record.body.decode("utf-8", "replace")
        return {"record": {"call_id": record.call_id, "body": text}}

    def pack(self, record: Publication) -> Any:  # plain values
        """A tuple."""
        return tuple(record)

    def unpack(self, packed: Any) -> Publication:  # whatever a spool gave
        """A list or a tuple, by then."""
        return Publication(*packed)

    # Transactions

    def _exchange(self, records: list[Publication]) -> None:
        line = self._line
        assert line is not None  # opened before
        waiting = deque(records)
        open: dict[str, _Transaction] = {}
        unanswered = ""
        answered = False
        taken = self._taken
        self._later.clear()
        if any(each.id in self._tries for each in records):
            # What alone was not answered is at fault only if the collector is there.
            self._begin(line, "OPTIONS", Publication("", "", b""), open)
        while open or (waiting and not self._later):
            while waiting and not self._later and len(open) < _WINDOW:
                self._begin(line, "PUBLISH", waiting.popleft(), open)
            now = time.monotonic()
            if self._give_up_at is not None and now >= self._give_up_at:
                raise RetryLater(f"{self.target}: no answer until the stop")
            wait = min((each.resend_at for each in open.values()), default=now) - now
            for message in line.receive(min(max(wait, 0.0), _LOOK_SECONDS)):
                answered = self._hear(message, open) or answered
            now = time.monotonic()
            for branch, each in list(open.items()):
                if now >= each.give_up_at:
                    del open[branch]
                    if not each.id:
                        continue
                    unanswered = f"{self.target}: no answer within {now - each.begun_at:.0f} s"
                    if not answered:
                        raise RetryLater(unanswered)
                    self._count_try(each.id)
                elif now >= each.resend_at:
                    line.send(each.data)
                    self.sent_again += 1
                    each.resend_later(now, self.t1)
        if self._later:
            # The first alone is counted: in an outage the others wait like those behind them.
            id, said = next(iter(self._later.items()))
            self._count_put_off(id, said, taken)
            unanswered = f"{self.target}: {said}"
        if unanswered and any(each.id not in self._settled for each in records):
            raise RetryLater(unanswered)

    def _begin(
        self, line: _Line, method: str, record: Publication, open: dict[str, _Transaction]
    ) -> None:
        branch = f"z9hG4bK{secrets.token_hex(12)}"
        data = self._request(line, method, record, branch)
        if not line.streams and len(data) > LARGEST_DATAGRAM:
            self._conclude(record.id, f"larger than a datagram of {LARGEST_DATAGRAM} bytes")
            return
        made = open[branch] = _Transaction(record.id, data, time.monotonic(), self.t1)
        if line.streams:
            made.resend_at = made.give_up_at
        line.send(data)

    def _request(self, line: _Line, method: str, record: Publication, branch: str) -> bytes:
        uri, id = self.target.uri, record.id or secrets.token_hex(16)
        head = (
            f"{method} {uri} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.target.transport.upper()} {line.own};branch={branch};rport\r\n"
            "Max-Forwards: 70\r\n"
            f"From: <{self.source}>;tag={id[:16]}\r\n"
            f"To: <{uri}>\r\n"
            f"Call-ID: {id}\r\n"
            f"CSeq: 1 {method}\r\n"
            f"Contact: <{self.source}>\r\n"
            "User-Agent: homerd\r\n"
        )
        if record.body:
            head += "Event: vq-rtcpxr\r\nContent-Type: application/vq-rtcpxr\r\n"
        head += f"Content-Length: {len(record.body)}\r\n\r\n"
        return head.encode("utf-8", "surrogateescape") + record.body

    def _hear(self, message: bytes, open: dict[str, _Transaction]) -> bool:
        """An answer; whether one to a request that is open says that the collector works."""
        told = SipMessage(message)
        branch, status = told.via_branch, told.status
        if not told.is_reply or branch not in open or status is None:
            return False
        if status < 200:
            open[branch].wait_longer(time.monotonic(), self.t1)
            return False
        id = open.pop(branch).id
        if not id:
            return True
        self.answers[status] += 1
        said = f"{status} {told.reason or ''}".strip()
        if status in _LATER:
            self._later[id] = said
            return False
        self._taken += status < 300
        self._conclude(id, "" if status < 300 else said)
        return True

    def _count_try(self, id: str) -> None:
        """Of a report that was not answered while others were."""
        self._tries[id] += 1
        if self._tries[id] >= _MOST_TRIES:
            self._conclude(id, f"no answer to {_MOST_TRIES} tries, while others had one")

    def _count_put_off(self, id: str, said: str, taken: int) -> None:
        told = self._put_off.setdefault(id, _PutOff(taken))
        told.times += 1
        told.times_beside += self._taken > told.taken
        if told.times_beside >= _MOST_PUT_OFF or told.times >= _MOST_PUT_OFF_ALONE:
            self._conclude(id, f"put off {told.times} times: {said}")
        while len(self._put_off) > _MOST_SETTLED:
            del self._put_off[next(iter(self._put_off))]

    def _conclude(self, id: str, refused: str) -> None:
        self._settled[id] = refused
        self._tries.pop(id, None)
        self._put_off.pop(id, None)
        while len(self._settled) > _MOST_SETTLED:
            del self._settled[next(iter(self._settled))]


@dataclass(slots=True)
class _PutOff:
    """A report that the collector puts off.

    taken: how many it had taken before.  times_beside: of its times, since it has taken others.
    """

    taken: int
    times: int = 0
    times_beside: int = 0


class _Transaction:
    """A request that has no final answer yet; RFC 3261 17.1.2.2.  id: of the report, "" without."""

    __slots__ = ("_interval", "begun_at", "data", "give_up_at", "id", "resend_at")

    def __init__(self, id: str, data: bytes, now: float, t1: float) -> None:
        self.id = id
        self.data = data
        self.begun_at = now
        self._interval = t1
        self.resend_at = now + t1
        self.give_up_at = now + t1 * _TIMER_F

    def resend_later(self, now: float, t1: float) -> None:
        """It was sent again."""
        self._interval = min(self._interval * 2, T2 * t1 / T1)
        self.resend_at = min(now + self._interval, self.give_up_at)

    def wait_longer(self, now: float, t1: float) -> None:
        """A provisional answer came."""
        self._interval = T2 * t1 / T1
        self.resend_at = min(now + self._interval, self.give_up_at)


class _Line:
    """A socket to the collector.  own: its address as Via has it.  streams: whether over TCP."""

    def __init__(self, target: Collector, seconds: float) -> None:
        self.streams = target.transport == "tcp"
        if self.streams:
            self._socket = socket.create_connection((target.host, target.port), min(10.0, seconds))
            self._socket.settimeout(min(10.0, seconds))
        else:
            family, kind, protocol, _, place = socket.getaddrinfo(
                target.host, target.port, type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.connect(place)
            except OSError:
                self._socket.close()
                raise
        self._framer = SipFramer()
        self._watched = select.poll()  # select() takes no descriptor above 1023
        self._watched.register(self._socket, select.POLLIN)
        host, port = self._socket.getsockname()[:2]
        self.own = f"{_bracketed(host)}:{port}"

    def send(self, data: bytes) -> None:
        """All of it; OSError."""
        if self.streams:
            self._socket.sendall(data)
        else:
            self._socket.send(data)

    def receive(self, seconds: float) -> list[bytes]:
        """What comes within *seconds*, [] when nothing does; OSError when it is closed."""
        if not self._watched.poll(math.ceil(seconds * 1000)):
            return []
        data = self._socket.recv(_PIECE)
        if not self.streams:
            return [data]
        if not data:
            raise ConnectionError("it closed the connection")
        return self._framer.feed(data)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _said(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens on the port"
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error) or type(error).__name__
