"""statsd: counters and gauges to a statsd server, one UDP datagram each.

Arguments are plain: a literal is sent as it is written, an expression is evaluated.
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

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class StatsdSink(BatchSink):
    """Sends each record as a datagram; nobody answers, so nothing is tried again."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(name="statsd")
        self.address = address
        self.port = port
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
        """One datagram a record."""
        assert self._socket is not None
        for record in batch:
            try:
                self._socket.send(record.encode("utf-8", "surrogateescape"))
            except ConnectionRefusedError:
                # The port was closed a moment ago; the datagram itself was not sent.
                self._send_again(record)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def describe(self, record: str) -> dict[str, str]:
        """The datagram's text."""
        return {"table": "statsd", "record": record}

    def _send_again(self, record: str) -> None:
        assert self._socket is not None
        try:
            self._socket.send(record.encode("utf-8", "surrogateescape"))
        except ConnectionRefusedError:
            pass


class Statsd(Plugin):
    """Sends metrics to a statsd server."""

    name = "statsd"

    ip = ModParam(str, "127.0.0.1", help="address of the server")
    port = ModParam(str, "8125", help="UDP port of the server")

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
        self.sink = worker.add_sink(StatsdSink(self.ip, int(self.port)))

    @script_function
    def statsd_set(self, packet: Packet, key: Plain, value: Plain) -> int:
        """Count distinct values; 0, which ends the script, when *value* is no number."""
        if _NUMBER.fullmatch(value) is None:
            self.not_numbers += 1
            return 0
        return self._send(packet, key, value, "s")

    @script_function
    def statsd_gauge(self, packet: Packet, key: Plain, value: Plain) -> int:
        """Set a gauge, or change it when *value* has a sign."""
        return self._send(packet, key, value, "g")

    @script_function
    def statsd_histogram(self, packet: Packet, key: Plain, value: Plain) -> int:
        """Add a value to a histogram."""
        return self._send(packet, key, value, "h")

    @script_function
    def statsd_incr(self, packet: Packet, key: Plain) -> int:
        """Add one to a counter."""
        return self._send(packet, key, "1", "c")

    @script_function
    def statsd_decr(self, packet: Packet, key: Plain) -> int:
        """Take one from a counter."""
        return self._send(packet, key, "-1", "c")

    @script_function
    def statsd_start(self, packet: Packet, key: Plain) -> None:
        """Start a timer of the packet's."""
        packet.scratch.setdefault("statsd", {})[key] = time.monotonic()

    @script_function
    def statsd_stop(self, packet: Packet, key: Plain) -> int:
        """Send the milliseconds since statsd_start; -1 without it."""
        started = packet.scratch.get("statsd", {}).pop(key, None)
        if started is None:
            return -1
        return self._send(packet, key, str(int((time.monotonic() - started) * 1000)), "ms")

    def _send(self, packet: Packet, key: str, value: str, kind: str) -> int:
        packet.emit(self.sink, f"{key}:{value}|{kind}\n")
        return 1
