"""statsd: counters, gauges and timers to a statsd server over UDP.

Arguments are plain: a literal is sent as it is written, an expression is evaluated. In names and
values the characters that mean something to a server (`:` `|` `@` and line ends) become `_`. The
last argument, labels, is what newer Kamailio has: `method:INVITE,node:1`, sent behind `|#`.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable

from homerd.api import (
    BatchSink,
    ConfigError,
    ModParam,
    Packet,
    Plain,
    Plugin,
    Worker,
    hookimpl,
    script_function,
)

_SPECIAL = re.compile(r"[:|@\x00-\x1f\x7f]")
_SPECIAL_IN_LABELS = re.compile(r"[|@\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class StatsdSink(BatchSink):
    """Sends records, several in a datagram; nobody answers, so nothing is tried again.

    datagram_size: most bytes in one; 0 sends each record by itself.
    """

    spools = False  # a counter of an hour ago would be counted now

    def __init__(self, address: str, port: int, datagram_size: int = 0) -> None:
        super().__init__(name="statsd")
        self.where = f"{address}:{port}"
        self.address = address
        self.port = port
        self.datagram_size = datagram_size
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Resolve the server's address; raises ConfigError when it has none."""
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                self.address, self.port, type=socket.SOCK_DGRAM
            )[0]
        except socket.gaierror as error:
            raise ConfigError(f'statsd: "{self.address}": {error.strerror}') from error
        self._socket = socket.socket(family, kind, protocol)
        self._socket.connect(place)

    def write(self, batch: list[str]) -> None:
        """As few datagrams as the size allows."""
        waiting = b""
        for record in batch:
            encoded = record.encode("utf-8", "surrogateescape")
            if waiting and len(waiting) + len(encoded) > self.datagram_size:
                self._send(waiting)
                waiting = b""
            waiting += encoded
        if waiting:
            self._send(waiting)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def describe(self, record: str) -> dict[str, str]:
        """The record as it is sent."""
        return {"table": "statsd", "record": record}

    def _send(self, datagram: bytes) -> None:
        assert self._socket is not None
        for _ in range(2):
            try:
                self._socket.send(datagram)
            except ConnectionRefusedError:
                continue  # of the datagram before: the port was closed; this one was not sent
            return


class Statsd(Plugin):
    """Sends metrics to a statsd server."""

    name = "statsd"

    ip = ModParam(str, "127.0.0.1", help="address of the server")
    port = ModParam(str, "8125", help="UDP port of the server")
    datagram_size = ModParam(
        int,
        0,
        help="most bytes in a datagram, 1432 fit Ethernet; 0: one a call, as Kamailio has it",
    )

    def __init__(self) -> None:
        self.not_numbers = 0

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Values of statsd_set that were no numbers."""
        yield "homerd_statsd_not_numbers_total", {}, self.not_numbers

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the port."""
        if not self.port.isdigit() or not 0 < int(self.port) < 65536:
            raise ConfigError(
                f'modparam("statsd", "port", "{self.port}"): expected a number from 1 to 65535'
            )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the sink."""
        self.sink = worker.add_sink(StatsdSink(self.ip, int(self.port), self.datagram_size))

    @script_function
    def statsd_set(
        self, packet: Packet, key: Plain, value: Plain, labels: Plain | None = None
    ) -> int:
        """Count distinct values; 0, which ends the script, when *value* is no number."""
        if _NUMBER.fullmatch(value) is None:
            self.not_numbers += 1
            return 0
        return self._send(packet, key, value, "s", labels)

    @script_function
    def statsd_gauge(
        self, packet: Packet, key: Plain, value: Plain, labels: Plain | None = None
    ) -> int:
        """Set a gauge, or change it when *value* has a sign."""
        return self._send(packet, key, value, "g", labels)

    @script_function
    def statsd_histogram(
        self, packet: Packet, key: Plain, value: Plain, labels: Plain | None = None
    ) -> int:
        """Add a value to a histogram."""
        return self._send(packet, key, value, "h", labels)

    @script_function
    def statsd_incr(self, packet: Packet, key: Plain, labels: Plain | None = None) -> int:
        """Add one to a counter."""
        return self._send(packet, key, "1", "c", labels)

    @script_function
    def statsd_decr(self, packet: Packet, key: Plain, labels: Plain | None = None) -> int:
        """Take one from a counter."""
        return self._send(packet, key, "-1", "c", labels)

    @script_function
    def statsd_start(self, packet: Packet, key: Plain) -> None:
        """Start a timer of the packet's."""
        packet.scratch.setdefault("statsd", {})[key] = time.monotonic()

    @script_function
    def statsd_stop(self, packet: Packet, key: Plain, labels: Plain | None = None) -> int:
        """Send the milliseconds since statsd_start; -1 without it."""
        started = packet.scratch.get("statsd", {}).pop(key, None)
        if started is None:
            return -1
        milliseconds = int((time.monotonic() - started) * 1000)
        return self._send(packet, key, str(milliseconds), "ms", labels)

    def _send(self, packet: Packet, key: str, value: str, kind: str, labels: str | None) -> int:
        record = f"{_SPECIAL.sub('_', key)}:{_SPECIAL.sub('_', value)}|{kind}"
        if labels:
            record += f"|#{_SPECIAL_IN_LABELS.sub('_', labels)}"
        packet.emit(self.sink, f"{record}\n")
        return 1
