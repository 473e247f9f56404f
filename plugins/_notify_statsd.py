"""Alarms as counters and gauges of a statsd server, over UDP.

    PREFIX.alarm.NAME.raised:1|c   PREFIX.alarm.NAME.cleared:1|c   PREFIX.alarm.NAME.value:20|g

The value is that of the key which changed last.  An alarm that is told of again only sets it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from homerd_plugins._alarm_event import AlarmEvent
from homerd_plugins._notify_parts import Options, Url, need_host, no_more
from homerd_plugins._notify_sink import NotifySink, connected

_FORM = "statsd://host:8125/prefix"


@dataclass(frozen=True, slots=True)
class Statsd:
    """The settings of a statsd server."""

    host: str
    port: int
    prefix: str

    @staticmethod
    def of(url: Url, options: Options) -> Statsd:
        """Read them."""
        need_host(url, _FORM)
        no_more(url, _FORM, user=True, query=True)
        prefix = url.path.strip("/") or "homerd"
        if re.fullmatch(r"[A-Za-z0-9_.-]+", prefix) is None:
            raise ValueError(f"expected {_FORM}, the prefix of letters, digits and _ . -")
        return Statsd(url.host, url.port or 8125, prefix)

    @property
    def where(self) -> str:
        """The server."""
        return f"statsd://{Url('', self.host, self.port).place}/{self.prefix}"

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What sends there."""
        return StatsdSink(name, self, **options)


class StatsdSink(NotifySink):
    """Sends each event in a datagram; nobody answers, so nothing is tried again."""

    spools = False  # a counter of an hour ago would be counted now

    def __init__(self, name: str, settings: Statsd, **options: Any) -> None:
        super().__init__(name, settings.where, key=settings.where, **options)
        self.settings = settings
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Resolve the address."""
        try:
            self._socket = connected(self.settings.host, self.settings.port, socket.SOCK_DGRAM)
        except OSError as error:
            raise self.later(error) from error

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """One datagram."""
        assert self._socket is not None
        datagram = lines_of(self.settings.prefix, events[0])
        for _ in range(2):
            try:
                self._socket.send(datagram)
            except ConnectionRefusedError:
                continue  # of the datagram before: the port was closed; this one was not sent
            except OSError as error:
                raise self.refused(error) from error
            return


def lines_of(prefix: str, event: AlarmEvent) -> bytes:
    """A count of the change, and the value."""
    name = f"{prefix}.alarm.{re.sub(r'[^A-Za-z0-9_-]', '_', event.alarm)}"
    lines = [] if event.repeated else [f"{name}.{event.state}:1|c"]
    if event.value < 0:  # a sign means a change, so that it has to start from 0
        lines.append(f"{name}.value:0|g")
    lines.append(f"{name}.value:{event.value}|g")
    return "".join(f"{line}\n" for line in lines).encode()
