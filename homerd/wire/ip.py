"""IPv4 and IPv6 headers, down to what the packet carries.

Checksums are not verified, as captures on the sending host hold wrong ones.  Nothing is kept
between packets.  Any bytes give an IpPacket or a DecodeError with one of REASONS.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from homerd.errors import DecodeError

REASONS = ("truncated", "not_ip", "extension_headers")

IP_IN_IP, TCP, UDP, IPV6_IN_IP, GRE, ESP, SCTP = 4, 6, 17, 41, 47, 50, 132
ICMP = frozenset({1, 58})

# Extension headers of IPv6 that are walked over: hop-by-hop, routing, destination, mobility.
_OPTIONS, _FRAGMENT, _AUTHENTICATION = frozenset({0, 43, 60, 135}), 44, 51
_WALKED = _OPTIONS | {_FRAGMENT, _AUTHENTICATION}
_MAX_EXTENSIONS = 16

_ipv4 = Struct(">BBHHHxBxx4s4s").unpack_from
_ipv6 = Struct(">HxxHBx16s16s").unpack_from
_fragment = Struct(">BxHI").unpack_from


class Fragment(NamedTuple):
    """Which piece of a datagram a packet carries; offset in bytes."""

    identification: int
    offset: int
    more: bool


class IpPacket:
    """One IP packet; data[start:end] is what it carries.

    cut: whether the capture holds less than the packet had.  fragment: None when it is whole;
    the protocol of a piece of IPv6 is right in the first piece only.
    """

    __slots__ = ("cut", "data", "dst", "end", "fragment", "protocol", "src", "start", "tos")

    def __init__(
        self,
        src: bytes,
        dst: bytes,
        protocol: int,
        data: bytes,
        start: int,
        end: int,
        tos: int = 0,
        cut: bool = False,
        fragment: Fragment | None = None,
    ) -> None:
        self.src = src
        self.dst = dst
        self.protocol = protocol
        self.data = data
        self.start = start
        self.end = end
        self.tos = tos
        self.cut = cut
        self.fragment = fragment

    @property
    def payload(self) -> bytes:
        """What the packet carries."""
        return self.data[self.start : self.end]


class Datagram(NamedTuple):
    """What one packet of a transport protocol carried from port to port.

    seconds, micros: when it was captured.  cut: whether the capture holds less than was sent.
    """

    src: bytes
    dst: bytes
    protocol: int
    src_port: int
    dst_port: int
    payload: bytes
    seconds: int = 0
    micros: int = 0
    cut: bool = False


def decode(data: bytes, start: int = 0, end: int | None = None) -> IpPacket:
    """Read an IPv4 or IPv6 packet, told by its version, that ends at *end* or before."""
    if end is None:
        end = len(data)
    if end <= start:
        raise DecodeError("truncated", end)
    version = data[start] >> 4
    if version == 6:
        return _decode_ipv6(data, start, end)
    if version != 4:
        raise DecodeError("not_ip", start)
    if end < start + 20:
        raise DecodeError("truncated", end)
    first, tos, total, identification, piece, protocol, src, dst = _ipv4(data, start)
    at, start = start, start + (first & 0x0F) * 4
    if start < at + 20 or (total and at + total < start):
        raise DecodeError("not_ip", at)
    if end < start:
        raise DecodeError("truncated", end)
    # Bytes past the total length are padding of a short frame; 0 is left by segmentation offload.
    stop = at + total if total else end
    cut = stop > end
    if not cut:
        end = stop
    packet = IpPacket(src, dst, protocol, data, start, end, tos, cut)
    if piece & 0x3FFF:
        packet.fragment = Fragment(identification, (piece & 0x1FFF) * 8, piece & 0x2000 != 0)
        return packet
    return _extended(packet) if protocol == _AUTHENTICATION else packet


def joined(first: IpPacket, data: bytes) -> IpPacket:
    """The packet that *first* is the first piece of, with all of *data*."""
    packet = IpPacket(first.src, first.dst, first.protocol, data, 0, len(data), first.tos)
    return packet if len(first.src) == 4 else _extended(packet)


def _decode_ipv6(data: bytes, at: int, end: int) -> IpPacket:
    start = at + 40
    if end < start:
        raise DecodeError("truncated", end)
    first, length, protocol, src, dst = _ipv6(data, at)
    stop = start + length if length else end
    cut = stop > end
    if not cut:
        end = stop
    packet = IpPacket(src, dst, protocol, data, start, end, first >> 4 & 0xFF, cut)
    return _extended(packet) if protocol in _WALKED else packet


def _extended(packet: IpPacket) -> IpPacket:
    """Walk over extension headers, up to a fragment that is not the whole packet.

    next(u8) length(u8) in units of eight bytes beyond the first, of four beyond two for AH; that
    of a fragment is next(u8) reserved(u8) offset and M bit(u16) identification(u32).
    """
    data, start, end, kind = packet.data, packet.start, packet.end, packet.protocol
    for _ in range(_MAX_EXTENSIONS):
        if kind not in _WALKED:
            break
        if end < start + 8:
            raise DecodeError("truncated", end)
        if kind == _FRAGMENT:
            kind, piece, identification = _fragment(data, start)
            start += 8
            if piece & 0xFFF9:
                packet.fragment = Fragment(identification, piece & 0xFFF8, piece & 1 != 0)
                break
            continue
        size = (data[start + 1] + 2) * 4 if kind == _AUTHENTICATION else (data[start + 1] + 1) * 8
        kind = data[start]
        start += size
        if end < start:
            raise DecodeError("truncated", end)
    else:
        raise DecodeError("extension_headers", start)
    packet.protocol, packet.start = kind, start
    return packet
