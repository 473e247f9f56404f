"""The sockets of a collector: SIP over UDP, TCP and TLS, and the answers to it."""

from __future__ import annotations

import socket
import time
from collections import Counter
from typing import Any

from homerd.core.agents import Agents
from homerd.core.collector import Collector
from homerd.core.engine import Engine
from homerd.core.settings import Listen
from homerd.core.source import Address, shown
from homerd.core.tcp import Connection, TcpSource
from homerd.core.udp import UdpSource
from homerd.wire.sipstream import SipFramer

# Who names another's address has it answered there, so an answer may not be worth the trouble.
MOST_TIMES = 2
FINISH_SECONDS = 2.0
_LOST = ("no_start_line", "sip_too_large", "bad_content_length")
_PING, _PONG = b"\r\n\r\n", b"\r\n"  # RFC 5626 4.4.1


class UdpCollector(UdpSource):
    """One UDP socket.

    answers: by status, and those that were not sent: "too_long" for what they answer (MOST_TIMES),
    "not_sent" when the kernel did not take them.
    """

    def __init__(
        self,
        collector: Collector,
        listen: Listen,
        family: socket.AddressFamily,
        address: Address,
        engine: Engine,
        receive_buffer: int,
    ) -> None:
        super().__init__(listen, family, address, engine, receive_buffer)
        self.name = f"{listen.scheme}:{shown(self.local)}"
        self.collector = collector
        self.answers: Counter[str] = Counter()

    def drain(self) -> bool:
        """Take up to DRAIN_LIMIT datagrams and answer each; True when there may be more."""
        datagrams, more = self._read()
        for data, address in datagrams:
            if address is not None:
                self._take(data, address[0], address)
        return more

    def take_turns(self, agents: Agents) -> None:
        """Nothing waits here: what is answered late is sent again and adds to the load."""

    def finish(self) -> None:
        """Take what lies in the socket's buffer, for FINISH_SECONDS at most."""
        # A socket connected to itself, as for HEP, could not answer any more.
        self._detach()
        ends = time.monotonic() + FINISH_SECONDS
        while self.drain() and time.monotonic() < ends:
            pass
        self.close()

    def _take(self, data: bytes, host: str, address: tuple[object, ...]) -> None:
        answer = self.collector.take(data, address, self)
        if answer is None:
            return
        if len(answer.data) > MOST_TIMES * len(data):
            self.answers["too_long"] += 1
            return
        try:
            self.socket.sendto(answer.data, (host, answer.port, *address[2:]))
        except OSError:
            self.answers["not_sent"] += 1
            return
        self.answers[str(answer.status)] += 1


class SipConnection(Connection):
    """One connection, on which requests come and are answered."""

    owner: TcpCollector

    def __init__(self, owner: TcpCollector, opened: socket.socket, address: Address) -> None:
        super().__init__(owner, opened, address)
        self._known = True  # nothing but SIP is spoken here
        self.sip = SipFramer()

    @property
    def pending(self) -> bool:
        """Whether a request has begun and is not whole, or an answer is not taken."""
        if self.tls is not None and self.tls.pending:
            return True
        return self.sip.unfinished or bool(self._out)

    def _take(self, data: bytes) -> None:
        if data.startswith(_PING) and not data.strip(b"\r\n") and not self.sip.unfinished:
            self._answer(_PONG, last=False)
        messages = self.sip.feed(data)
        if messages:
            self.whole_at = self.read_at
        self.owner.received += len(messages)
        for message in messages:
            answer = self.owner.collector.take(message, self.address, self)
            if answer is None:
                continue
            if self not in self.owner.connections:
                self.owner.answers["not_sent"] += 1
                continue
            self.owner.answers[str(answer.status)] += 1
            self._answer(answer.data, last=False)
        lost = next((reason for reason in _LOST if self.sip.counts[reason]), "")
        if lost:
            self.owner.drop(self, lost)


class TcpCollector(TcpSource):
    """One listening socket and its connections.

    answers: by status; "not_sent" where the connection had ended.  closed has besides the reasons
    of TcpSource those of SipFramer for a stream that cannot be followed.
    """

    def __init__(
        self,
        collector: Collector,
        *arguments: Any,  # those of TcpSource
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.collector = collector
        self.answers: Counter[str] = Counter()

    def connection(self, opened: socket.socket, address: Address) -> SipConnection:
        """What speaks with who has connected."""
        return SipConnection(self, opened, address)
