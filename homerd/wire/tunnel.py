"""Tunnels that mirrors use: IP in IP, GRE and ERSPAN, VXLAN, TZSP; and those that are left alone.

Nothing is kept between packets.  A packet that is no tunnel gives None, a tunnel whose header
does not fit or that carries something else a DecodeError with one of REASONS.
"""

from __future__ import annotations

from struct import Struct

from homerd.errors import DecodeError
from homerd.wire import ip, link
from homerd.wire.ip import IpPacket

REASONS = ("truncated", "tunnel", "gtp")

Inner = tuple[int, int]  # link type, and where the frame inside begins

_VXLAN, _TZSP, _GTP = 4789, 37008, 2152
PORTS = frozenset({_VXLAN, _TZSP, _GTP})  # to which tunnels in UDP are sent
_VXLAN_FLAGS = (0x08, 0x88)  # the second with a group policy

_GRE_TYPES = {0x0800: link.RAW, 0x86DD: link.RAW, 0x6558: link.ETHERNET}
_ERSPAN, _ERSPAN3 = 0x88BE, 0x22EB
_TZSP_TYPES = {1: link.ETHERNET, 18: link.WIFI, 127: link.RADIOTAP}

_ports = Struct(">HH").unpack_from
_u16 = Struct(">H").unpack_from


def inner(packet: IpPacket) -> Inner | None:
    """What is inside of a tunnel, as a frame of a link type; None when *packet* is none."""
    protocol = packet.protocol
    if protocol == ip.UDP:
        if packet.end >= packet.start + 8:
            src_port, dst_port = _ports(packet.data, packet.start)
            if dst_port in PORTS or src_port == _GTP:
                return _in_udp(packet, src_port, dst_port)
        return None
    if protocol in (ip.IP_IN_IP, ip.IPV6_IN_IP):
        return link.RAW, packet.start
    return _gre(packet) if protocol == ip.GRE else None


def _gre(packet: IpPacket) -> Inner:
    """flags(u16) type(u16), four bytes each if the bits C, K, S say so (RFC 2784, 2890)."""
    data, start, end = packet.data, packet.start, packet.end
    if end < start + 4:
        raise DecodeError("truncated", end)
    (flags,) = _u16(data, start)
    (kind,) = _u16(data, start + 2)
    if flags & 7:  # version 1 carries PPP of PPTP
        raise DecodeError("tunnel", start)
    at = start + 4 + 4 * (flags >> 15) + 4 * (flags >> 13 & 1) + 4 * (flags >> 12 & 1)
    if kind == _ERSPAN:
        # Type I has no sequence number and no header of its own; that of type II is 8 bytes.
        return link.ETHERNET, at + 8 * (flags >> 12 & 1)
    if kind == _ERSPAN3:
        if end < at + 12:
            raise DecodeError("truncated", end)
        return link.ETHERNET, at + (20 if data[at + 11] & 1 else 12)
    if kind not in _GRE_TYPES:
        raise DecodeError("tunnel", start)
    return _GRE_TYPES[kind], at


def _in_udp(packet: IpPacket, src_port: int, dst_port: int) -> Inner | None:
    """The port alone proves little: what does not look like the tunnel is an ordinary datagram."""
    data, at = packet.data, packet.start + 8
    size = packet.end - at
    if dst_port == _VXLAN:
        # flags(u8) reserved(3) network(3) reserved(u8)  RFC 7348 5
        if size >= 22 and data[at] in _VXLAN_FLAGS and data[at + 7] == 0:
            return link.ETHERNET, at + 8
        return None
    if dst_port == _TZSP:
        return _tzsp(data, at, packet.end)
    # GTP-U: version 1, protocol type 1, message 255 of user data  3GPP TS 29.281 5.1
    if size >= 8 and data[at] & 0xF0 == 0x30 and data[at + 1] == 255:
        raise DecodeError("gtp", at)
    return None


def _tzsp(data: bytes, at: int, end: int) -> Inner | None:
    """version(u8) type(u8) encapsulated(u16), tags: type(u8) length(u8) value, the last type 1."""
    if end < at + 5 or data[at] != 1 or data[at + 1] > 1:
        return None
    (kind,) = _u16(data, at + 2)
    linktype = _TZSP_TYPES.get(kind)
    if linktype is None:
        raise DecodeError("tunnel", at)
    at += 4
    while at < end:
        tag = data[at]
        if tag == 1:
            return linktype, at + 1
        at += 1 if tag == 0 or at + 1 >= end else 2 + data[at + 1]
    raise DecodeError("truncated", end)
