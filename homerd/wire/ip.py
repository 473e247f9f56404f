"""Captured frames down to UDP payloads: Ethernet, Linux cooked and raw IP.

Only whole UDP datagrams are taken.  Checksums are not verified, as captures on the sending host
hold wrong ones.  Every failure is a DecodeError with one of REASONS.
"""

from __future__ import annotations

from struct import Struct

from homerd.errors import DecodeError

REASONS = ("link_type", "not_ip", "not_udp", "fragment", "truncated")

ETHERNET = 1
RAW = frozenset({12, 14, 101})  # the file's value, and what some systems wrote in its place
LINUX_SLL, LINUX_SLL2 = 113, 276
IPV4_ONLY, IPV6_ONLY = 228, 229

UDP = 17

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_MAX_TAGS = 4
_PPPOE = 0x8864
_PPP = {0x0021: _IPV4, 0x0057: _IPV6}

# Extension headers of IPv6 that are walked over: hop-by-hop, routing, destination, AH, mobility.
_OPTIONS, _FRAGMENT, _AUTHENTICATION = frozenset({0, 43, 60, 135}), 44, 51
_MAX_EXTENSIONS = 16

_u16 = Struct(">H").unpack_from
_udp = Struct(">HHH").unpack_from
_ipv4 = Struct(">BxHxxHxBxx4s4s").unpack_from
_ipv6 = Struct(">xxxxHBx16s16s").unpack_from


class IpPacket:
    """One UDP datagram: packed addresses, ports and payload; vlan is the outermost tag or None."""

    __slots__ = ("dst", "dst_port", "payload", "protocol", "src", "src_port", "vlan")

    def __init__(
        self,
        src: bytes,
        dst: bytes,
        protocol: int,
        src_port: int,
        dst_port: int,
        payload: bytes,
        vlan: int | None = None,
    ) -> None:
        self.src = src
        self.dst = dst
        self.protocol = protocol
        self.src_port = src_port
        self.dst_port = dst_port
        self.payload = payload
        self.vlan = vlan


def decode_linktype(linktype: int, data: bytes) -> IpPacket:
    """Read one captured frame of a pcap link type."""
    if linktype == ETHERNET:
        return decode_ethernet(data)
    if linktype == LINUX_SLL:
        return decode_cooked(data)
    if linktype == LINUX_SLL2:
        return decode_cooked2(data)
    if linktype in RAW or linktype in (IPV4_ONLY, IPV6_ONLY):
        return decode_ip(data)
    raise DecodeError("link_type", 0)


def decode_ethernet(data: bytes) -> IpPacket:
    """destination(6) source(6) type(u16); VLAN tags, up to four, and PPPoE are walked over."""
    return _decode_link(data, 12, 14)


def decode_cooked(data: bytes) -> IpPacket:
    """packet_type(u16) hardware(u16) address_length(u16) address(8) protocol(u16)."""
    return _decode_link(data, 14, 16)


def decode_cooked2(data: bytes) -> IpPacket:
    """protocol(u16), then what `-i any` of newer systems says of interface and address(18)."""
    return _decode_link(data, 0, 20)


def decode_ip(data: bytes, offset: int = 0) -> IpPacket:
    """Read an IPv4 or IPv6 packet that begins at *offset*, told by its version."""
    if offset >= len(data):
        raise DecodeError("truncated", len(data))
    version = data[offset] >> 4
    if version == 4:
        return _decode_ipv4(data, offset)
    if version == 6:
        return _decode_ipv6(data, offset)
    raise DecodeError("not_ip", offset)


def _decode_link(data: bytes, kind_at: int, offset: int) -> IpPacket:
    """Read on behind a link header that ends at *offset* and has its EtherType at *kind_at*."""
    if len(data) < offset:
        raise DecodeError("truncated", len(data))
    (kind,) = _u16(data, kind_at)
    vlan = None
    for _ in range(_MAX_TAGS):
        if kind not in _VLAN_TAGS:
            break
        if len(data) < offset + 4:
            raise DecodeError("truncated", len(data))
        if vlan is None:
            vlan = _u16(data, offset)[0] & 0x0FFF
        (kind,) = _u16(data, offset + 2)
        offset += 4
    if kind == _PPPOE:
        # version_type(u8) code(u8) session(u16) length(u16), then the PPP protocol(u16)
        if len(data) < offset + 8:
            raise DecodeError("truncated", len(data))
        kind = _PPP.get(_u16(data, offset + 6)[0], 0)
        offset += 8
    if kind not in (_IPV4, _IPV6):
        raise DecodeError("not_ip", offset)
    packet = decode_ip(data, offset)
    packet.vlan = vlan
    return packet


def _decode_ipv4(data: bytes, offset: int) -> IpPacket:
    if len(data) < offset + 20:
        raise DecodeError("truncated", len(data))
    first, total, fragment, protocol, src, dst = _ipv4(data, offset)
    head = (first & 0x0F) * 4
    if head < 20 or (total and total < head):
        raise DecodeError("not_ip", offset)
    if fragment & 0x3FFF:  # more to come, or not the first piece
        raise DecodeError("fragment", offset + 6)
    # Bytes past the total length are padding of a short frame; 0 is left by segmentation offload.
    end = min(offset + total, len(data)) if total else len(data)
    return _decode_udp(data, offset + head, end, protocol, src, dst)


def _decode_ipv6(data: bytes, offset: int) -> IpPacket:
    if len(data) < offset + 40:
        raise DecodeError("truncated", len(data))
    length, kind, src, dst = _ipv6(data, offset)
    start = offset + 40
    end = min(start + length, len(data)) if length else len(data)
    for _ in range(_MAX_EXTENSIONS):
        if kind == _FRAGMENT:
            return _decode_atomic_fragment(data, start, end, src, dst)
        if kind not in _OPTIONS and kind != _AUTHENTICATION:
            break
        if end < start + 8:
            raise DecodeError("truncated", end)
        size = (data[start + 1] + 2) * 4 if kind == _AUTHENTICATION else (data[start + 1] + 1) * 8
        kind = data[start]
        start += size
    return _decode_udp(data, start, end, kind, src, dst)


def _decode_atomic_fragment(data: bytes, start: int, end: int, src: bytes, dst: bytes) -> IpPacket:
    """next(u8) reserved(u8) offset and M bit(u16) identification(u32); whole if both are 0."""
    if end < start + 8:
        raise DecodeError("truncated", end)
    if _u16(data, start + 2)[0] & 0xFFF9:
        raise DecodeError("fragment", start)
    return _decode_udp(data, start + 8, end, data[start], src, dst)


def _decode_udp(
    data: bytes, start: int, end: int, protocol: int, src: bytes, dst: bytes
) -> IpPacket:
    if protocol != UDP:
        raise DecodeError("not_udp", start)
    if end < start + 8:
        raise DecodeError("truncated", min(end, len(data)))
    src_port, dst_port, length = _udp(data, start)
    # A length that cannot be is not believed; what the IP packet holds is taken.
    stop = start + length if 8 <= length <= end - start else end
    return IpPacket(src, dst, protocol, src_port, dst_port, data[start + 8 : stop])
