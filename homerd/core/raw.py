"""Live capture: what an interface sees (AF_PACKET), and tunnelled copies sent to us (IP in IP).

Captured frames are no packets yet: captured = gave packets + undecoded, by reason.  What the kernel
had no room for is counted apart.  HEP that is seen is not opened, for it may be what we send.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from struct import Struct, pack
from typing import Protocol

from homerd.core import bpf, source
from homerd.core.dissect import Dissector
from homerd.core.media import MediaTable
from homerd.errors import ConfigError
from homerd.plugin.hookspecs import ANY, RAW, Capture
from homerd.wire.frame import Frame

log = logging.getLogger("homerd.source")

DRAIN_LIMIT = 64
_READ_SIZE = (1 << 16) + 256  # what offloading makes of one stream, and its link header
_BESIDE_SIZE = 128

ETHERNET, RAW_IP, COOKED, RADIOTAP = 1, 101, 113, 127  # link types, as capture files number them
_ARPHRD_ETHERNET, _ARPHRD_LOOPBACK, _ARPHRD_RADIOTAP = 1, 772, 803
_LINKTYPES = {
    _ARPHRD_ETHERNET: ETHERNET,
    _ARPHRD_LOOPBACK: ETHERNET,
    _ARPHRD_RADIOTAP: RADIOTAP,
}
_TUNNELS = (4, 41)  # IP protocols: IPv4 and IPv6 within another packet

# linux/if_packet.h, linux/if_ether.h, linux/socket.h, linux/sockios.h
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _STATISTICS, _AUXDATA = 1, 6, 8
_PROMISCUOUS = 1
_ALL = 3
_SO_TIMESTAMPNS = 35
_SIOCGIFHWADDR = 0x8927
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
_VLAN = 0x8100

_time = Struct("=qq").unpack_from
_word = Struct("=I").unpack_from
_family = Struct("=H").unpack_from
_aux = Struct("=IIIHHHH").unpack_from
_statistics = Struct("=II").unpack_from
_link_address = Struct("=HHiHBB8s").pack
_tag = Struct(">HH").pack
_sll = Struct(">HHH8sH").pack

_NO_RIGHT = (
    'listen "{}": no right to capture: start homerd as root, which user=NAME then makes that user,'
    " or give it CAP_NET_RAW: AmbientCapabilities=CAP_NET_RAW in its unit of systemd, or setcap"
    " cap_net_raw+ep on the Python it runs with"
)


class Router(Protocol):
    """Who takes the packets: the engine."""

    def take(self, frames: list[Frame]) -> None:
        """Packets in the order they were captured."""


class Opened:
    """A socket that captures.  linktype: of what it gives, COOKED when that is yet to be made."""

    def __init__(self, opened: socket.socket, linktype: int, name: str) -> None:
        self.socket = opened
        self.linktype = linktype
        self.name = name
        self.index = 0  # of the interface it is bound to


class LiveSource:
    """One socket that captures.

    captured: frames the kernel gave.  gave: those of them that gave packets.  received: packets.
    undecoded: by reason, frames that gave none.  kernel_drops: those it had no room for.
    errors: reads that failed for another reason than that nothing was there.
    """

    def __init__(
        self,
        capture: Capture,
        opened: Opened,
        engine: Router,
        receive_buffer: int,
        media: MediaTable | None = None,
    ) -> None:
        self.capture = capture
        self.engine = engine
        self.socket = opened.socket
        self.name = opened.name
        self.receive_buffer = source.set_receive_buffer(self.socket, receive_buffer, self.name)
        self.dissector = Dissector(take_hep=False, capture_id=capture.capture_id, media=media)
        self.captured = self.gave = self.received = 0
        self.undecoded: Counter[str] = Counter()
        self.kernel_drops = 0
        self.errors = 0
        self._opened = opened
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call `drain` while frames wait."""
        self._loop = loop
        loop.add_reader(self.socket, self.drain)

    def drain(self) -> bool:
        """Take up to DRAIN_LIMIT frames; the loop calls again while more are waiting.

        True when there may be more.
        """
        # Hot path: a mirrored link carries much that is nothing for us.
        receive, feed, linktype = self.socket.recvmsg, self.dissector.feed, self._opened.linktype
        undecoded = self.undecoded
        packets: list[Frame] = []
        more = True
        captured = gave = 0
        try:
            for _ in range(DRAIN_LIMIT):
                data, beside, _, address = receive(_READ_SIZE, _BESIDE_SIZE)
                captured += 1
                seconds = nanos = 0
                tag = b""
                for _, kind, value in beside:
                    if kind == _SO_TIMESTAMPNS:
                        seconds, nanos = _time(value)
                    elif kind == _AUXDATA and _word(value)[0] & _VLAN_VALID:
                        tag = value
                if linktype == COOKED:
                    data = _cooked(data, address)
                if tag:
                    data = _tagged(data, linktype, tag)
                if not seconds:
                    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
                found = feed(linktype, seconds, nanos // 1000, data)
                if found and self.capture.ports is not None:
                    found = self._of_ports(found)
                    if not found:
                        undecoded["port"] += 1
                        continue
                if found:
                    gave += 1
                    packets += found
                else:
                    undecoded[self.dissector.reason] += 1
        except BlockingIOError:
            more = False
        except OSError as error:
            self._failed(error)
        self.captured += captured
        self.gave += gave
        self.received += len(packets)
        self.engine.take(packets)
        return more

    def tick(self, now: float) -> None:
        """Ask the kernel what it lost; follow an interface that was made anew."""
        self._route(self.dissector.expire(int(time.time())))
        if self.capture.scheme == RAW:
            # Reading the numbers sets them back.
            self.kernel_drops += _statistics(self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
            self._follow()
        else:
            self.kernel_drops += (source.kernel_drops(self.socket) - self.kernel_drops) % (1 << 32)

    def finish(self) -> None:
        """Take what lies in the socket's buffer, and nothing that comes later."""
        self._detach()
        try:
            bpf.attach(self.socket, bpf.NOTHING)
        except OSError:
            self.errors += 1
        before = self.errors
        while self.drain() and self.errors - before < DRAIN_LIMIT:
            pass
        self._route(self.dissector.finish())
        self.close()

    def _route(self, late: list[Frame]) -> None:
        """What comes without a frame: what need not be waited for any longer."""
        if late:
            self.received += len(late)
            self.engine.take(late)

    def close(self) -> None:
        """Close the socket."""
        self._detach()
        if self.socket.fileno() >= 0:
            self.tick(0.0)
            self.socket.close()

    def _detach(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self.socket)
            self._loop = None

    def _of_ports(self, frames: list[Frame]) -> list[Frame]:
        low, high = self.capture.ports or (0, 65535)
        return [
            each for each in frames if low <= each.src_port <= high or low <= each.dst_port <= high
        ]

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        if error.errno == errno.ENETDOWN:
            log.warning("interface is down, capture goes on when it is up listen=%s", self.name)

    def _follow(self) -> None:
        """An interface that went away and came back has another number: bind to that."""
        if self.capture.where == ANY or self.socket.fileno() < 0:
            return
        try:
            index = socket.if_nametoindex(self.capture.where)
        except OSError:
            return
        if index == self._opened.index:
            return
        try:
            _bind(self._opened, self.capture)
            log.warning("interface was made anew, capture goes on listen=%s", self.name)
        except OSError:
            self.errors += 1


def open_capture(
    capture: Capture, engine: Router, receive_buffer: int, media: MediaTable | None = None
) -> list[LiveSource]:
    """The sources that *capture* asks for; ConfigError when one cannot be opened.

    media: shared by all that capture, as a call and its media may be seen on different interfaces.
    """
    sources: list[LiveSource] = []
    try:
        for opened in _open(capture):
            sources.append(LiveSource(capture, opened, engine, receive_buffer, media))
    except BaseException as error:
        for each in sources:
            each.close()
        if isinstance(error, PermissionError):
            raise ConfigError(_NO_RIGHT.format(capture.text)) from error
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise ConfigError(f'listen "{capture.text}": cannot capture: {reason}') from error
        raise
    return sources


def _open(capture: Capture) -> Iterator[Opened]:
    if capture.scheme == RAW:
        yield _open_interface(capture)
        return
    family = socket.AF_INET6 if ":" in capture.where else socket.AF_INET
    for protocol in _TUNNELS:
        opened = socket.socket(family, socket.SOCK_RAW, protocol)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if capture.interface:
                name = capture.interface.encode()
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            opened.bind((capture.where, 0))
        except OSError:
            opened.close()
            raise
        shown = source.shown((capture.where, protocol)).rpartition(":")[0]
        yield Opened(opened, RAW_IP, f"ipip:{shown}/{protocol}")


def _open_interface(capture: Capture) -> Opened:
    """An AF_PACKET socket; it receives nothing before its filter is in place."""
    name = "" if capture.where == ANY else capture.where
    kind = _hardware(capture) if name else None
    linktype = COOKED if kind is None else _LINKTYPES.get(kind, COOKED)
    # Cooked sockets give packets from the IP header on: filters are made for that.
    program = (
        bpf.compiled(capture.filter, RAW_IP if linktype == COOKED else linktype, name)
        if capture.filter
        else bpf.EVERYTHING
    )
    if not name or kind == _ARPHRD_LOOPBACK:
        program = bpf.without_own_echo(program, _loopback(name or "lo"))
    style = socket.SOCK_DGRAM if linktype == COOKED else socket.SOCK_RAW
    opened = Opened(socket.socket(socket.AF_PACKET, style, 0), linktype, f"raw:{capture.where}")
    try:
        opened.socket.setblocking(False)
        opened.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        bpf.attach(opened.socket, program)
        _bind(opened, capture)
    except BaseException:
        opened.socket.close()
        raise
    return opened


def _bind(opened: Opened, capture: Capture) -> None:
    name = "" if capture.where == ANY else capture.where
    opened.index = socket.if_nametoindex(name) if name else 0
    if name:
        opened.socket.bind((name, _ALL))
    else:
        _bind_everywhere(opened.socket)
    if capture.promiscuous:
        asked = pack("=IHH8s", opened.index, _PROMISCUOUS, 0, b"")
        opened.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, asked)


def _bind_everywhere(opened: socket.socket) -> None:
    """Python's bind wants the name of an interface."""
    address = _link_address(socket.AF_PACKET, socket.htons(_ALL), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(opened.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _hardware(capture: Capture) -> int:
    """What kind of interface it is, as linux/if_arp.h numbers them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            asked = pack("16s16x8x", capture.where.encode())
            answer = fcntl.ioctl(probe, _SIOCGIFHWADDR, asked)
        except OSError as error:
            known = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError(
                f'listen "{capture.text}": no interface "{capture.where}", expected {ANY} or one of'
                f" {known}"
            ) from error
    kind: int = _family(answer, 16)[0]
    return kind


def _loopback(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0  # no interface has that number


def _cooked(data: bytes, address: tuple[str, int, int, int, bytes]) -> bytes:
    """A frame with the header that Linux' cooked captures have (LINUX_SLL)."""
    _, protocol, kind, hardware, sender = address
    return _sll(kind, hardware, len(sender), sender[:8], protocol) + data


def _tagged(data: bytes, linktype: int, beside: bytes) -> bytes:
    """*data* with the VLAN tag that the kernel took off."""
    status, _, _, _, _, tag, protocol = _aux(beside)
    if not status & _TPID_VALID:
        protocol = _VLAN
    if linktype == COOKED:
        return data[:14] + _tag(protocol, tag) + data[14:]
    return data[:12] + _tag(protocol, tag) + data[12:]
