"""UDP: one datagram, one packet."""

from __future__ import annotations

import asyncio
import socket

from homerd.core import source
from homerd.core.agents import Agents
from homerd.core.engine import Datagram, Engine, Peer
from homerd.core.fair import Turns
from homerd.core.settings import Listen
from homerd.core.source import Address

DRAIN_LIMIT = 64
# Where agents take turns: reads of DRAIN_LIMIT for each that is routed.  To read one and have it
# wait costs 4 µs where routing costs 40: ten times too much is read, and half the time is left.
READS_A_TURN = 10
MAX_DATAGRAM = 65535
_UDP = 17


class UdpSource:
    """One UDP socket.

    received: datagrams taken.
    turns: those of them that wait, where agents are named.
    kernel_drops: datagrams lost in the kernel because nobody read fast enough.
    errors: reads that failed for another reason than that nothing was there.
    """

    def __init__(
        self,
        listen: Listen,
        family: socket.AddressFamily,
        address: Address,
        engine: Engine,
        receive_buffer: int,
    ) -> None:
        self.engine = engine
        self.socket = source.bind(listen, family, address, socket.SOCK_DGRAM)
        self.local: Address = self.socket.getsockname()
        self.name = f"udp:{source.shown(self.local)}"
        self.receive_buffer = source.set_receive_buffer(self.socket, receive_buffer, self.name)
        self.received = 0
        self.kernel_drops = 0
        self.errors = 0
        self.turns: Turns | None = None
        self._queue_limit = receive_buffer
        self._next: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call `drain` while datagrams wait."""
        self._loop = loop
        loop.add_reader(self.socket, self.drain)

    def peer(self, address: Address) -> Peer:
        """Who sent, and to which address of ours."""
        return source.peer(_UDP, address, self.local)

    def drain(self) -> bool:
        """Take up to DRAIN_LIMIT datagrams; the loop calls again while more are waiting.

        Where agents are named and more than that lies there, they take turns.  True when there may
        be more.
        """
        datagrams, more = self._read()
        if self.turns is not None and (more or self.turns):
            return self._drain_in_turn(self.turns, datagrams, more)
        self.engine.handle(datagrams, self)
        return more

    def take_turns(self, agents: Agents) -> None:
        """Have these agents take turns from now on; who they are may change."""
        if self.turns is None:
            self.turns = Turns(agents, self.engine, self._queue_limit)

    def _read(self) -> tuple[list[Datagram], bool]:
        """Up to DRAIN_LIMIT datagrams, and whether there may be more."""
        # Hot path: recvfrom costs 1.2 µs where recv costs 0.8, but only the sender's address can
        # stand for the one that a bare SIP message does not carry.
        receive = self.socket.recvfrom
        datagrams: list[Datagram] = []
        more = True
        try:
            for _ in range(DRAIN_LIMIT):
                datagrams.append(receive(MAX_DATAGRAM))
        except BlockingIOError:
            more = False
        except OSError:
            self.errors += 1
        self.received += len(datagrams)
        return datagrams, more

    def _drain_in_turn(self, turns: Turns, datagrams: list[Datagram], more: bool) -> bool:
        """Empty the kernel's buffer into the queues, for the kernel drops without looking whose."""
        turns.put(datagrams)
        for _ in range(READS_A_TURN - 1):
            if not more:
                break
            datagrams, more = self._read()
            turns.put(datagrams)
        if self._next is None:
            self._serve()
        return more or bool(turns)

    def _serve(self) -> None:
        """Route up to DRAIN_LIMIT of what waits, and have the loop call again for the rest."""
        self._next = None
        if self.turns:
            self.engine.handle(self.turns.take(DRAIN_LIMIT), self)
        if self.turns and self._loop is not None:
            self._next = self._loop.call_soon(self._serve)

    def tick(self, now: float) -> None:
        """Ask the kernel what it lost."""
        # The kernel's number has 32 bits; ours goes on.
        self.kernel_drops += (source.kernel_drops(self.socket) - self.kernel_drops) % (1 << 32)

    def finish(self) -> None:
        """Take what lies in the socket's buffer, and nothing that comes later."""
        self._detach()
        try:
            # Connected to itself, the socket takes nothing from others any more; what it already
            # has stays readable.  Otherwise a sender faster than us would never let us end.
            own = self.local[0]
            wildcard = {"0.0.0.0": "127.0.0.1", "::": "::1"}
            self.socket.connect((wildcard.get(own, own), *self.local[1:]))
        except OSError:
            self.errors += 1
        # Nobody sends any more, so nobody has to be refused for another's sake.
        turns, self.turns = self.turns, None
        while turns:
            self.engine.handle(turns.take(DRAIN_LIMIT), self)
        before = self.errors
        while self.drain() and self.errors - before < DRAIN_LIMIT:
            pass
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._detach()
        if self.socket.fileno() >= 0:
            self.tick(0.0)
            self.socket.close()

    def _detach(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._loop is not None:
            self._loop.remove_reader(self.socket)
            self._loop = None
