"""Where packets enter: what a source offers, and how its sockets are opened.

A socket that cannot be opened is a ConfigError that names the `listen` value.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
from functools import lru_cache
from pathlib import Path
from struct import pack, unpack_from
from typing import Protocol

from homerd.core.engine import Peer
from homerd.core.settings import Listen
from homerd.errors import ConfigError
from homerd.wire.hep import IPV4, IPV6

log = logging.getLogger("homerd.source")

SO_RCVBUFFORCE = 33  # linux/socket.h, as are the next three
SO_MEMINFO = 55
SIOCGIFADDR = 0x8915
_DROPS = 8 * 4  # SK_MEMINFO_DROPS, the ninth of nine 32-bit numbers

_REASONS = {
    errno.EADDRINUSE: "the address is in use; is another homerd running?",
    errno.EADDRNOTAVAIL: "no interface of this machine has the address",
    errno.EACCES: "permission denied; ports below 1024 need more rights",
}

Address = tuple[str, int]


class Source(Protocol):
    """Something packets come from, read on the loop thread."""

    @property
    def name(self) -> str:
        """What is listened on, as `udp:127.0.0.1:9060`."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call when there is something to read."""

    def tick(self, now: float) -> None:
        """Once a second, *now* from a clock that only grows."""

    def finish(self) -> None:
        """Take what the kernel has received so far, and nothing after it; then close."""

    def close(self) -> None:
        """Close without reading."""


def addresses(listen: Listen) -> list[tuple[socket.AddressFamily, Address]]:
    """What to bind for *listen*: families and socket addresses."""
    if listen.host == "*":
        return [(socket.AF_INET, ("0.0.0.0", listen.port))]
    hosts = _interface(listen.host) or [listen.host]
    found: list[tuple[socket.AddressFamily, Address]] = []
    for host in hosts:
        try:
            entry = socket.getaddrinfo(host, listen.port, type=socket.SOCK_DGRAM)[0]
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f'listen "{listen.text}": no address, host or interface "{host}": {reason}'
            ) from error
        # Four parts for IPv6: the scope chooses the link of a link-local address.
        found.append((entry[0], entry[4]))  # type: ignore[arg-type]
    return found


def bind(
    listen: Listen, family: socket.AddressFamily, address: Address, kind: socket.SocketKind
) -> socket.socket:
    """A bound, non-blocking socket; IPv6 sockets take IPv6 only, so both can have one port."""
    try:
        opened = socket.socket(family, kind)
        try:
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setblocking(False)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise ConfigError(
            f'listen "{listen.text}": cannot listen on {shown(address)}: {reason}'
        ) from error
    return opened


def set_receive_buffer(opened: socket.socket, size: int, name: str) -> int:
    """Ask for *size* bytes, beyond the system's limit if we may; gives what the kernel granted."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    # The kernel doubles what was asked, for its own bookkeeping.
    granted = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    if granted < size:
        log.warning(
            "receive buffer smaller than wanted listen=%s wanted=%d granted=%d"
            ' help="sysctl -w net.core.rmem_max=%d"',
            name,
            size,
            granted,
            size,
        )
    return granted


def kernel_drops(opened: socket.socket) -> int:
    """Datagrams the kernel threw away because the socket's buffer was full; wraps at 2**32.

    The same number as the column `drops` of /proc/net/udp, without reading the whole table.
    """
    try:
        info = opened.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    except OSError:
        return 0
    drops: int = unpack_from("=I", info, _DROPS)[0] if len(info) >= _DROPS + 4 else 0
    return drops


def shown(address: Address) -> str:
    """`127.0.0.1:9060`, `[::1]:9060`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer(protocol: int, address: Address, local: Address) -> Peer:
    """Both ends of what arrived, packed; *local* may be a wildcard."""
    host = address[0].partition("%")[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Peer(
        IPV6 if family == socket.AF_INET6 else IPV4,
        protocol,
        socket.inet_pton(family, host),
        address[1],
        _local(family, host, local[0].partition("%")[0]),
        local[1],
    )


@lru_cache(maxsize=4096)
def _local(family: int, remote: str, local: str) -> bytes:
    """The address of ours that *remote* talks to; for a wildcard the one we would answer from."""
    if local not in ("0.0.0.0", "::"):
        return socket.inet_pton(family, local)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote, 9))  # sends nothing: it only asks for the route
            local = probe.getsockname()[0].partition("%")[0]
        except OSError:
            pass
    return socket.inet_pton(family, local)


def _interface(name: str) -> list[str]:
    """The addresses of a network interface, [] when there is none of that name."""
    if name not in (item for _, item in socket.if_nameindex()):
        return []
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, pack("256s", os.fsencode(name)[:15]))
            found.append(socket.inet_ntoa(answer[20:24]))
        except OSError:
            pass
    # address, index, prefix, scope, flags, name
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        words = line.split()
        if words[-1] == name:
            text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))
            found.append(f"{text}%{name}" if text.startswith("fe80") else text)
    return found
