"""Link layers: from the first byte of a captured frame to that of its IP packet.

Numbers of link types are those of tcpdump.org/linktypes.html.  Nothing is kept between frames.
Any bytes give an offset within the frame or its end, or a DecodeError with one of REASONS.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from homerd.errors import DecodeError

REASONS = ("link_type", "truncated", "not_ip", "encrypted")

NULL, ETHERNET, TOKEN_RING, SLIP, PPP, FDDI = 0, 1, 6, 8, 9, 10
PPP_HDLC, PPPOE, C_HDLC, RAW, WIFI, LOOP = 50, 51, 104, 101, 105, 108
ENC, LINUX_SLL, PFLOG, RADIOTAP = 109, 113, 117, 127
IPNET, IPV4, IPV6, NFLOG, LINUX_SLL2 = 226, 228, 229, 239, 276
RAW_IN_MEMORY = (12, 14)  # what some systems wrote in place of the file's value

Found = tuple[int, int | None]  # where IP begins, and the outermost VLAN if there is one

_IP = frozenset({0x0800, 0x86DD})
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_MAX_TAGS = 4
_PPPOE_SESSION = 0x8864
_MPLS_TYPES = frozenset({0x8847, 0x8848})
_MAX_LABELS = 16
_LENGTHS = range(0x0600)  # below are lengths of 802.3, or Linux' own numbers for LLC

_PPP_IP = frozenset({0x0021, 0x0057})
_PPP_MPLS = frozenset({0x0281, 0x0283})
_CISCO = (0x0F, 0x8F)

# Numbers of AF_INET and AF_INET6 on the systems that write them.
_FAMILIES = frozenset({2, 10, 24, 28, 30})

_NFLOG_PAYLOAD = 9

_u16 = Struct(">H").unpack_from
_native16 = Struct("<HH").unpack_from


def ip_at(linktype: int, data: bytes, start: int = 0) -> Found:
    """Where IP begins in the frame at *start*, and its outermost VLAN."""
    if linktype == ETHERNET:
        # destination(6) source(6) type(u16)
        at = start + 14
        if len(data) < at:
            raise DecodeError("truncated", len(data))
        kind = data[at - 2] << 8 | data[at - 1]
        return (at, None) if kind in _IP else _typed(data, kind, at)
    reader = _READERS.get(linktype)
    if reader is None:
        raise DecodeError("link_type", start)
    return reader(data, start)


def _typed(data: bytes, kind: int, at: int, *, in_llc: bool = False) -> Found:
    """What stands at *at* is told by an EtherType: IP, or a header before it.

    in_llc: it stands in an LLC header, which holds no second one.
    """
    vlan = None
    for _ in range(_MAX_TAGS + 1):
        if kind in _IP:
            return at, vlan
        if kind not in _VLAN_TAGS:
            break
        if vlan is None:
            vlan = _number(data, at) & 0x0FFF
        kind = _number(data, at + 2)
        at += 4
    if kind == _PPPOE_SESSION:
        return _ppp(data, at + 6)[0], vlan
    if kind in _MPLS_TYPES:
        return _mpls(data, at), vlan
    if kind in _LENGTHS and not in_llc:
        found, tag = _llc(data, at)
        return found, tag if vlan is None else vlan
    raise DecodeError("not_ip", at)


def _number(data: bytes, at: int) -> int:
    if len(data) < at + 2:
        raise DecodeError("truncated", len(data))
    number: int = _u16(data, at)[0]
    return number


def _behind(data: bytes, at: int) -> Found:
    if len(data) <= at:
        raise DecodeError("truncated", len(data))
    return at, None


def _llc(data: bytes, at: int) -> Found:
    """dsap(u8) ssap(u8) control(u8), for SNAP aa aa 03 and then oui(3) type(u16)."""
    head = data[at : at + 8]
    if len(head) < 8:
        raise DecodeError("truncated", len(data))
    if head[:3] == b"\x06\x06\x03":
        return at + 3, None
    # 00-00-f8 is how 802.1H bridges what was Ethernet.
    if head[:3] == b"\xaa\xaa\x03" and head[3:6] in (b"\0\0\0", b"\0\0\xf8"):
        kind = _number(data, at + 6)
        if kind not in _LENGTHS:
            return _typed(data, kind, at + 8, in_llc=True)
    raise DecodeError("not_ip", at)


def _mpls(data: bytes, at: int) -> int:
    """label(20 bits) class(3) bottom(1) ttl(8), until the label at the bottom of the stack."""
    for _ in range(_MAX_LABELS):
        _behind(data, at + 3)
        at += 4
        if data[at - 2] & 1:
            return at
    raise DecodeError("not_ip", at)


def _ppp(data: bytes, at: int) -> Found:
    """[ff 03] protocol(u16), its first byte left out where both sides agreed to (RFC 1661 6.5)."""
    if data[at : at + 2] == b"\xff\x03":
        at += 2
    _behind(data, at)
    size = 1 if data[at] & 1 else 2
    kind = data[at] if size == 1 else _number(data, at)
    if kind in _PPP_IP:
        return _behind(data, at + size)
    if kind in _PPP_MPLS:
        return _mpls(data, at + size), None
    raise DecodeError("not_ip", at)


def _hdlc(data: bytes, at: int) -> Found:
    """PPP in HDLC-like framing; Cisco's is address(u8) control(u8) type(u16)."""
    _behind(data, at)
    if data[at] in _CISCO:
        return _typed(data, _number(data, at + 2), at + 4)
    return _ppp(data, at)


def _family(size: int) -> Callable[[bytes, int], Found]:
    """A header of *size* bytes that begins with an AF number in the byte order of its writer."""

    def read(data: bytes, at: int) -> Found:
        head = data[at : at + 4]
        if len(head) < 4:
            raise DecodeError("truncated", len(data))
        numbers = int.from_bytes(head, "little"), int.from_bytes(head, "big")
        if _FAMILIES.isdisjoint(numbers):
            raise DecodeError("not_ip", at)
        return _behind(data, at + size)

    return read


def _after(size: int) -> Callable[[bytes, int], Found]:
    """A header of *size* bytes that says nothing needed here."""
    return lambda data, at: _behind(data, at + size)


def _ether_type(type_at: int, size: int) -> Callable[[bytes, int], Found]:
    """A header of *size* bytes with an EtherType at *type_at*."""

    def read(data: bytes, at: int) -> Found:
        _behind(data, at + size - 1)
        return _typed(data, _number(data, at + type_at), at + size)

    return read


def _token_ring(data: bytes, at: int) -> Found:
    """access(u8) frame(u8) destination(6) source(6), the route if the source says so, LLC."""
    _behind(data, at + 14)
    routing = data[at + 14] & 0x1F if data[at + 8] & 0x80 else 0
    return _llc(data, at + 14 + routing)


def _wifi(data: bytes, at: int) -> Found:
    """IEEE 802.11 9.2.3: frame control(u16, little endian), then 22 bytes and more by its bits."""
    _behind(data, at + 1)
    kind, flags = data[at], data[at + 1]
    if kind & 0x0C != 0x08 or kind & 0x40:  # only data frames that carry data
        raise DecodeError("not_ip", at)
    if flags & 0x40:
        raise DecodeError("encrypted", at)
    size = 30 if flags & 0x03 == 0x03 else 24
    if kind & 0x80:  # QoS data
        _behind(data, at + size)
        if data[at + size] & 0x80:  # several frames in one
            raise DecodeError("not_ip", at + size)
        size += 6 if flags & 0x80 else 2
    return _llc(data, at + size)


def _radiotap(data: bytes, at: int) -> Found:
    """version(u8) pad(u8) length(u16, little endian), fields up to that length, then 802.11."""
    _behind(data, at + 3)
    return _wifi(data, at + (data[at + 2] | data[at + 3] << 8))


def _pflog(data: bytes, at: int) -> Found:
    """length(u8) of this header without what pads it to four bytes."""
    _behind(data, at)
    return _behind(data, at + (data[at] + 3 & ~3))


def _nflog(data: bytes, at: int) -> Found:
    """family(u8) version(u8) id(u16), then length(u16) type(u16) value, each padded to four."""
    at += 4
    while len(data) >= at + 4:
        # In the byte order of the host that captured; lengths above 255 tell which it was.
        length, kind = _native16(data, at)
        if kind & 0xFF == 0 and kind:
            length, kind = length >> 8 | (length & 0xFF) << 8, kind >> 8
        if kind == _NFLOG_PAYLOAD:
            return _behind(data, at + 4)
        if length < 4:
            break
        at += length + 3 & ~3
    raise DecodeError("truncated" if len(data) < at + 4 else "not_ip", min(at, len(data)))


_READERS: dict[int, Callable[[bytes, int], Found]] = {
    NULL: _family(4),
    LOOP: _family(4),
    ENC: _family(12),
    TOKEN_RING: _token_ring,
    SLIP: _after(16),
    PPP: _hdlc,
    PPP_HDLC: _hdlc,
    C_HDLC: _hdlc,
    PPPOE: lambda data, at: _ppp(data, at + 6),
    FDDI: lambda data, at: _llc(data, at + 13),
    RAW: _behind,
    IPV4: _behind,
    IPV6: _behind,
    **dict.fromkeys(RAW_IN_MEMORY, _behind),
    WIFI: _wifi,
    RADIOTAP: _radiotap,
    LINUX_SLL: _ether_type(14, 16),
    LINUX_SLL2: _ether_type(0, 20),
    PFLOG: _pflog,
    IPNET: _after(24),
    NFLOG: _nflog,
}
