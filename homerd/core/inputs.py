"""INPUT of the commands: capture files, HEP streams, SIP text, JSON lines, told by content.

Files are read piece by piece, so that their size does not matter.  What no packet can be made of
is an Undecoded item, to be counted; a file that cannot be read is a ConfigError.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from struct import error as StructError  # noqa: N812
from typing import Any, BinaryIO, cast

from homerd.core import pcap
from homerd.core.dissect import Dissector
from homerd.errors import ConfigError, DecodeError
from homerd.wire import hep
from homerd.wire.hep import Frame
from homerd.wire.sip import looks_like_sip

UDP = 17
DEFAULT_IP, DEFAULT_PORT = "127.0.0.1", 5060

# Files may be packed; what only packages outside the standard library unpack is left to others.
_PACKED = (b"BZh", b"\xfd7z", b"\x1f\x8b\x08")
_ELSEWHERE = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_MAX_ENVELOPES = 4

_MAX_TEXT = 1 << 20
_PIECE = 1 << 16

# Keys of {"hep": …} that are core chunks: chunk type and bytes.
_NUMBERS = {
    "family": (1, 1),
    "proto": (2, 1),
    "src_port": (7, 2),
    "dst_port": (8, 2),
    "time_sec": (9, 4),
    "time_usec": (10, 4),
    "proto_type": (11, 1),
    "capture_id": (12, 4),
}
_ADDRESSES = {"src_ip": (3, 5), "dst_ip": (4, 6)}
_TEXTS = {"correlation_id": 17, "auth_key": 14, "payload": 15}


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes by the script's clock."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Something captured that is no packet for the script, and why."""

    reason: str
    offset: int = 0


Item = Frame | Wait | Undecoded

_File = io.BufferedReader | bz2.BZ2File | gzip.GzipFile | lzma.LZMAFile


def read_input(
    path: str,
    progress: Callable[[int], object] | None = None,
    dissector: Dissector | None = None,
) -> Iterator[Item]:
    """The packets in *path*, "-" for standard input.

    progress: called with the number of bytes read since it was last called.
    dissector: of captured frames, for captures of one network that follow one another; whoever
    brings it asks it in the end for what is left.
    Raises ConfigError when the file cannot be read or is none of the known forms.
    """
    name = "standard input" if path == "-" else path
    one = Dissector() if dissector is None else dissector
    try:
        with _opened(path) as file:
            yield from _items(_Stream(file, progress), name, one)
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"cannot read {name}: {reason}") from None
    if dissector is None:
        yield from one.finish()


def input_size(path: str) -> int:
    """How many bytes read_input will report, 0 when that is not known."""
    try:
        return 0 if path == "-" else os.stat(path).st_size
    except OSError:
        return 0


def is_capture(path: str) -> bool:
    """Whether a file begins as a capture, packed or not, or as a HEP stream does.

    False for what cannot be read, and for what can be read only once.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return head in (pcap.PCAPNG_MAGIC, b"HEP3", *pcap.PCAP_MAGICS) or head.startswith(_PACKED)


def decode_datagram(data: bytes) -> Frame | Undecoded:
    """What a datagram is by its first bytes: HEP of any version, or a bare SIP message."""
    try:
        return hep.decode(data)
    except DecodeError as error:
        if error.reason == "not_hep" and looks_like_sip(data):
            return bare_sip(data)
        return Undecoded(error.reason, error.offset)


def bare_sip(
    data: bytes,
    src_ip: str = DEFAULT_IP,
    src_port: int = DEFAULT_PORT,
    dst_ip: str = DEFAULT_IP,
    dst_port: int = DEFAULT_PORT,
) -> Frame:
    """A frame for a message that came without an envelope."""
    src, dst = ip_address(src_ip).packed, ip_address(dst_ip).packed
    family = hep.IPV4 if len(src) == 4 else hep.IPV6
    return _bare(data, family, src, dst, src_port, dst_port)


class _Stream:
    """A file with its first bytes known; looks through a gzip envelope around a capture."""

    def __init__(self, file: _File, progress: Callable[[int], object] | None) -> None:
        self._file = file
        self._progress = progress
        self.head = self._take(4)
        self._unread = self.head

    def read(self, size: int) -> bytes:
        data, self._unread = self._unread[:size], self._unread[size:]
        return data + self._take(size - len(data)) if len(data) < size else data

    def some(self, size: int) -> bytes:
        """What is there to read, so that a pipe is followed as it is written."""
        if self._unread:
            return self.read(len(self._unread))
        data = self._file.read1(size)
        self._tell(len(data))
        return data

    def lines(self) -> Iterator[bytes]:
        """The lines that are left, with their ends; none longer than a message may be."""
        while line := self._line():
            yield line

    def _line(self) -> bytes:
        head, self._unread = self._unread, b""
        if b"\n" in head:
            line, _, self._unread = head.partition(b"\n")
            return line + b"\n"
        line = head + self._file.readline(_MAX_TEXT)
        self._tell(len(line) - len(head))
        return line

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self._file.read(size - len(data))):
            data += piece
        self._tell(len(data))
        return data

    def _tell(self, size: int) -> None:
        if self._progress is not None and size:
            self._progress(size)


def _opened(path: str) -> _File:
    if path == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    return open(path, "rb")


def _items(stream: _Stream, name: str, dissector: Dissector, depth: int = 0) -> Iterator[Item]:
    """Recognise the form and read it."""
    head = stream.head
    if head in pcap.PCAP_MAGICS:
        return _captured(pcap.read_pcap(stream, name), dissector)
    if head == pcap.PCAPNG_MAGIC:
        return _captured(pcap.read_pcapng(stream, name), dissector)
    if head[:3] in _PACKED:
        return _unpacked(stream, name, dissector, depth)
    if head in _ELSEWHERE:
        packer = _ELSEWHERE[head]
        raise ConfigError(f"{name} is packed: unpack it first, as {packer} -dc FILE | homerd … -")
    if head[:1] in (b"\x01", b"\x02"):
        return _whole_datagram(stream)
    if hep.is_hep3(head):
        return _framed(stream)
    return _text(stream, name)


def _captured(records: Iterator[pcap.Record], dissector: Dissector) -> Iterator[Item]:
    """What the frames of a capture hold."""
    undecoded = lru_cache(maxsize=256)(Undecoded)  # 0.2 µs where to make one takes 1.2
    try:
        for record in records:
            frames = dissector.feed(*record)
            if frames:
                yield from frames
            else:
                yield undecoded(dissector.reason, dissector.offset)
    except pcap.CutOff:
        yield Undecoded("truncated_file")


def _bare(data: bytes, family: int, src: bytes, dst: bytes, src_port: int, dst_port: int) -> Frame:
    return Frame(
        0,
        family,
        UDP,
        src,
        dst,
        src_port,
        dst_port,
        payload_type=hep.SIP,
        payload=data,
        raw=data,
    )


def _unpacked(stream: _Stream, name: str, dissector: Dissector, depth: int) -> Iterator[Item]:
    """A packed file; progress is that of the packed one."""
    if depth == _MAX_ENVELOPES:
        raise ConfigError(f"{name}: packed more than {_MAX_ENVELOPES} times")
    try:
        with _unpacker(stream) as file:
            yield from _items(_Stream(file, None), name, dissector, depth + 1)
    except (zlib.error, lzma.LZMAError) as error:
        raise ConfigError(f"cannot read {name}: {error}") from None


def _unpacker(stream: _Stream) -> _File:
    packed = cast(BinaryIO, stream)  # of which they only ever read
    if stream.head[:3] == b"BZh":
        return bz2.BZ2File(packed)
    if stream.head[:3] == b"\xfd7z":
        return lzma.LZMAFile(packed)
    return gzip.GzipFile(fileobj=packed, mode="rb")


def _whole_datagram(stream: _Stream) -> Iterator[Item]:
    """HEP versions 1 and 2 do not tell their length: the file is one datagram."""
    yield decode_datagram(stream.read(_PIECE))


def _framed(stream: _Stream) -> Iterator[Item]:
    """HEP3 frames one after another, as on TCP."""
    framer = hep.Framer()
    while framer.fault is None and (data := stream.read(_PIECE)):
        for frame in framer.feed(data):
            yield decode_datagram(frame)
    if framer.fault is not None:
        yield Undecoded(framer.fault.reason, framer.fault.offset)
    elif framer.pending:
        yield Undecoded("truncated")


def _text(stream: _Stream, name: str) -> Iterator[Item]:
    """JSON lines, or one SIP message; nothing at all is no packet."""
    blank = b""
    lines = enumerate(stream.lines(), 1)
    for number, line in lines:
        if not line.strip():
            blank += line[-_MAX_TEXT:]
            continue
        if line.lstrip()[:1] == b"{":
            yield _from_json(line, f"{name}:{number}")
            yield from (_from_json(more, f"{name}:{at}") for at, more in lines if more.strip())
            return
        data = blank + line
        for _, more in lines:
            data += more
            if len(data) > _MAX_TEXT:
                break
        if not looks_like_sip(data):
            break
        yield bare_sip(data)
        return
    else:
        return
    raise ConfigError(
        f"{name}: neither pcap, pcapng, HEP frames, a SIP message nor JSON lines (line {number})"
    )


def _from_json(line: bytes, place: str) -> Item:
    """One line of the form the command line's manual gives."""
    try:
        told = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place}: not JSON: {error}") from None
    return item_of(told, place)


def item_of(told: object, place: str) -> Item:
    """A packet told as a mapping with "sip", "hep", "hex" or "wait"; ConfigError names *place*."""
    if not isinstance(told, Mapping):
        raise ConfigError(f"{place}: expected an object")
    try:
        if "sip" in told:
            return _told_sip(told)
        if "hep" in told:
            return decode_datagram(_told_hep(told["hep"]))
        if "hex" in told:
            return decode_datagram(bytes.fromhex(told["hex"]))
        if "wait" in told:
            return Wait(float(told["wait"]))
    except (ValueError, TypeError, AttributeError, OverflowError, StructError) as error:
        raise ConfigError(f"{place}: {error}") from None
    raise ConfigError(f'{place}: expected one of the keys "sip", "hep", "hex", "wait"')


def _told_sip(told: Mapping[str, Any]) -> Frame:  # what JSON holds
    source = str(told.get("src_ip", DEFAULT_IP)), _port(told.get("src_port", DEFAULT_PORT))
    target = str(told.get("dst_ip", DEFAULT_IP)), _port(told.get("dst_port", DEFAULT_PORT))
    return bare_sip(_encoded(told["sip"]), *source, *target)


def _told_hep(told: Mapping[str, Any]) -> bytes:  # what JSON holds
    """A HEP3 datagram with just the chunks that were told; null counts as not told."""
    chunks: list[tuple[int, int, bytes]] = []
    for name, value in told.items():
        if value is None:
            continue
        if name in _NUMBERS:
            kind, size = _NUMBERS[name]
            chunks.append((0, kind, int(value).to_bytes(size, "big")))
        elif name in _ADDRESSES:
            packed = ip_address(value).packed
            chunks.append((0, _ADDRESSES[name][len(packed) == 16], packed))
        elif name in _TEXTS:
            chunks.append((0, _TEXTS[name], _encoded(value)))
        elif name in hep.NAMED_CHUNKS:
            chunks.append(hep.pack_named(name, value))
        else:
            raise ValueError(f'unknown key "{name}" in "hep"')
    return hep.assemble(chunks)


def _port(value: Any) -> int:  # what JSON holds
    port = int(value)
    if not 0 <= port < 65536:
        raise ValueError(f"no port: {port}")
    return port


def _encoded(text: Any) -> bytes:  # what JSON holds
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {text!r}")
    return text.encode("utf-8", "surrogateescape")
