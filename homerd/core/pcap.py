"""Capture files record by record: pcap and pcapng, read through dpkt.

dpkt takes what a file says at its word; here lengths are checked before they are believed.
A file whose last record is cut off ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any, NamedTuple, Protocol

from homerd.errors import ConfigError

PCAP_MAGICS = frozenset(
    bytes.fromhex(magic)
    for magic in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "a1b2cd34", "34cdb2a1")
)
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"

_MAX_RECORD = 262_144  # libpcap's own limit
_MAX_BLOCK = 16 << 20
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_IF_TSRESOL, _IF_TSOFFSET = 9, 14


class Stream(Protocol):
    """What is read from."""

    def read(self, size: int) -> bytes:
        """Up to *size* bytes, fewer only at the end."""


class Record(NamedTuple):
    """One captured frame; micros below a million, nanoseconds cut."""

    linktype: int
    seconds: int
    micros: int
    data: bytes


class CutOff(Exception):
    """The file ends in the middle of a record."""


class _Interface(NamedTuple):
    linktype: int
    ticks_per_second: int
    offset: int


def read_pcap(stream: Stream, name: str) -> Iterator[Record]:
    """Records of a pcap file of either byte order.  Raises CutOff after the last whole one."""
    import dpkt  # type: ignore[import-untyped]  # only who reads captures pays for it

    guarded = _Guarded(stream, _MAX_RECORD)
    count = 0
    try:
        reader = dpkt.pcap.Reader(guarded)
        linktype = reader.datalink() & 0xFFFF  # the upper bits tell of a frame check sequence
        for time, data in reader:
            if not data and guarded.at_end:
                raise CutOff
            count += 1
            yield Record(linktype, *_split(time), data)
    except (dpkt.Error, StructError, ValueError) as error:
        raise ConfigError(f"{name}: record {count + 1}: {error or 'not a pcap record'}") from None


def read_pcapng(stream: Stream, name: str) -> Iterator[Record]:
    """Packets of a pcapng file, of all its sections and interfaces.  Raises CutOff like read_pcap.

    The blocks are dpkt's; its own reader knows only the first interface of the first section.
    """
    import dpkt

    interfaces: list[_Interface] = []
    last = (0, 0)
    count = 0
    try:
        for kind, order, block in _blocks(_Guarded(stream, _MAX_BLOCK)):
            count += 1
            suffix = "LE" if order == "<" else ""
            if kind == _SECTION:
                interfaces = []
            elif kind == _INTERFACE:
                described = getattr(dpkt.pcapng, "InterfaceDescriptionBlock" + suffix)(block)
                interfaces.append(_interface(described, order))
            elif kind in (_PACKET, _OLD_PACKET):
                made = "EnhancedPacketBlock" if kind == _PACKET else "PacketBlock"
                packet = getattr(dpkt.pcapng, made + suffix)(block)
                if packet.iface_id >= len(interfaces) or packet.caplen > len(packet.pkt_data):
                    continue  # an error of this block alone
                interface = interfaces[packet.iface_id]
                last = _ticks(packet.ts_high << 32 | packet.ts_low, interface)
                yield Record(interface.linktype, *last, packet.pkt_data)
            elif kind == _SIMPLE_PACKET and interfaces:
                (size,) = Struct(order + "I").unpack_from(block, 8)
                yield Record(
                    interfaces[0].linktype, *last, block[12 : 12 + min(size, len(block) - 16)]
                )
    except (dpkt.Error, StructError, ValueError) as error:
        raise ConfigError(f"{name}: after block {count}: {error or 'not a pcapng block'}") from None


class _Guarded:
    """A file that refuses to read what a damaged length asks for."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self.read_on = stream.read
        self.limit = limit
        self.at_end = False

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.limit:
            raise ValueError(f"a length of {size} bytes")
        data = self.read_on(size)
        if len(data) < size:
            self.at_end = True
            if data:
                raise CutOff
        return data


def _blocks(stream: _Guarded) -> Iterator[tuple[int, str, bytes]]:
    """type(u32) length(u32) body length(u32), in the byte order of the section they are in."""
    order = ""
    while head := stream.read(8):
        magic = b""
        if head[:4] == PCAPNG_MAGIC:
            magic = stream.read(4)
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic, "")
        if not order:
            raise ValueError("no byte order")
        kind, length = Struct(order + "II").unpack(head)
        if length < 12 or length % 4:
            raise ValueError(f"a block length of {length}")
        rest = stream.read(length - 8 - len(magic))
        if not rest:
            raise CutOff
        yield kind, order, head + magic + rest


def _interface(described: Any, order: str) -> _Interface:  # a block of dpkt, which has no types
    ticks, offset = 1_000_000, 0
    for option in described.opts:
        if option.code == _IF_TSRESOL and option.data:
            exponent = option.data[0]
            ticks = 2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent
        elif option.code == _IF_TSOFFSET and len(option.data) == 8:
            (offset,) = Struct(order + "q").unpack(option.data)
    return _Interface(described.linktype, ticks, offset)


def _ticks(count: int, interface: _Interface) -> tuple[int, int]:
    seconds, ticks = divmod(count, interface.ticks_per_second)
    return seconds + interface.offset, ticks * 1_000_000 // interface.ticks_per_second


def _split(time: Any) -> tuple[int, int]:  # float for micros, Decimal for nanoseconds
    seconds = int(time)
    rest = time - seconds
    micros = round(rest * 1_000_000) if isinstance(time, float) else int(rest * 1_000_000)
    return (seconds, micros) if micros < 1_000_000 else (seconds + 1, 0)
