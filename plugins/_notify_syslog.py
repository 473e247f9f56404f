"""Alarms to syslog, a line each: RFC 5424 over the network, the traditional form to /dev/log.

logging.handlers.SysLogHandler knows the traditional form only, ends no message on TCP and keeps its
errors to itself; rfc5424-logging-handler has had no release since 2019.  So the line is made here:

    <PRI>1 2026-01-02T03:04:05.678901Z node homerd 4711 raised - critical: scanner raised for …
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import SysLogHandler
from typing import Any

from homerd_plugins._alarm_event import CLEARED, AlarmEvent
from homerd_plugins._notify_parts import Options, TlsOptions, Url, no_more
from homerd_plugins._notify_sink import NotifySink, connected, text_of

UDP, TCP, TLS, LOCAL = "syslog", "syslog+tcp", "syslog+tls", "local"
RFC5424, RFC3164 = "rfc5424", "rfc3164"
# RFC 5424, 6.2.1
SEVERITIES = {"critical": 2, "major": 3, "minor": 4, "warning": 4, "info": 6}
NOTICE, WARNING = 5, 4
# RFC 5426, 3.2: larger ones may be cut by whoever receives them.
DATAGRAM = 2048
_FORM = "syslog://host:514, syslog+tcp://host:514, syslog+tls://host:6514 or syslog:///dev/log"


@dataclass(frozen=True, slots=True)
class Syslog:
    """The settings of a syslog server; host: of the local one the path of its socket."""

    transport: str
    host: str
    port: int
    facility: int
    format: str
    rate: int
    timeout: int
    tls: TlsOptions

    @staticmethod
    def of(url: Url, options: Options) -> Syslog:
        """Read them."""
        local = not url.host and len(url.path) > 1 and url.scheme == UDP
        if not local and (not url.host or url.path.strip("/")):
            raise ValueError(f"expected {_FORM}")
        no_more(url, _FORM, user=True, query=True)
        facilities = {
            name: number
            for name, number in SysLogHandler.facility_names.items()
            if name not in ("security", "ntp", "console", "solaris-cron")
        }
        return Syslog(
            LOCAL if local else url.scheme,
            url.path if local else url.host,
            url.port or (6514 if url.scheme == TLS else 514),
            facilities[options.choice("facility", tuple(facilities), "daemon")],
            options.choice("format", (RFC5424, RFC3164), RFC3164 if local else RFC5424),
            options.number("rate", 60, 0, 100_000),
            options.number("timeout", 5, 1, 60),
            TlsOptions.of(options) if url.scheme == TLS else TlsOptions(),
        )

    @property
    def where(self) -> str:
        """The server."""
        if self.transport == LOCAL:
            return f"syslog://{self.host}"
        return f"{self.transport}://{Url('', self.host, self.port).place}"

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What sends there."""
        return SyslogSink(name, self, **options)


class SyslogSink(NotifySink):
    """Sends a line for each event.

    Nothing answers: over UDP a line may be lost, over TCP those that were on their way when the
    server went.
    """

    def __init__(self, name: str, settings: Syslog, **options: Any) -> None:
        super().__init__(name, settings.where, key=settings.where, rate=settings.rate, **options)
        self.settings = settings
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Open the socket."""
        settings = self.settings
        context = settings.tls.context(self.target) if settings.transport == TLS else None
        try:
            if settings.transport == LOCAL:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(settings.timeout)
                self._socket.connect(settings.host)
                return
            kind = socket.SOCK_DGRAM if settings.transport == UDP else socket.SOCK_STREAM
            self._socket = connected(settings.host, settings.port, kind, settings.timeout)
            if context is not None:
                self._socket = context.wrap_socket(self._socket, server_hostname=settings.host)
        except OSError as error:
            self.close()
            raise self.later(error) from error

    def close(self) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """One line."""
        line = line_of(events[0], self.settings)
        try:
            self._send(line)
        except ConnectionRefusedError as error:
            if self.settings.transport != UDP:
                raise self.later(error) from error
            # The answer to the datagram before: the port was closed then.  This was not sent.
            raise self.later("nobody listens on the port") from error
        except OSError as error:
            raise self.later(error) from error

    def _send(self, line: bytes) -> None:
        assert self._socket is not None
        if self.settings.transport in (UDP, LOCAL):
            self._socket.send(line[:DATAGRAM].decode("utf-8", "ignore").encode())
            return
        if self._is_closed(self._socket):
            raise ConnectionResetError("the server has closed the connection")
        # RFC 6587, 3.4.1: octet counting
        self._socket.sendall(b"%d %s" % (len(line), line))

    def _is_closed(self, connection: socket.socket) -> bool:
        """Whether the server has ended it: what is sent then gets lost without a word."""
        connection.settimeout(0)
        try:
            return not connection.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            connection.settimeout(self.settings.timeout)


def line_of(event: AlarmEvent, settings: Syslog) -> bytes:
    """The line in the form that is wanted."""
    severity = SEVERITIES.get(event.severity, WARNING)
    if event.state == CLEARED:
        severity = NOTICE
    priority = settings.facility * 8 + severity
    text = text_of(event)
    if settings.format == RFC3164:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(event.at))
        host = "" if settings.transport == LOCAL else f"{_word(event.node, 255)} "
        return f"<{priority}>{stamp} {host}homerd[{os.getpid()}]: {text}".encode()
    stamp = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    # Without structured data, for which homerd would need a number of its own, and without the BOM
    # (6.4, MSG-ANY), which most receivers take for a part of the text.
    head = f"<{priority}>1 {stamp} {_word(event.node, 255)} homerd {os.getpid()}"
    return f"{head} {_word(event.state, 32)} - {text}".encode()


def _word(text: str, most: int) -> str:
    """*text* as a field of the header: visible ASCII, "-" for none."""
    return re.sub(r"[^!-~]", "_", text)[:most] or "-"
