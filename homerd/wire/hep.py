"""HEP versions 1, 2 and 3: capture envelopes to and from bytes.

Nothing here reads a socket, a clock or a setting.  Lengths are checked before they are used, so
any bytes give a Frame or a DecodeError whose reason is one of REASONS.
Source: HEP3 Network Protocol Specification, rev. 37, and what agents send in its name.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from struct import Struct, pack
from struct import error as OutOfRange  # noqa: N812  the standard library has it in small letters
from typing import Any

from homerd.errors import DecodeError
from homerd.wire import hep_old
from homerd.wire.frame import IPV4, IPV6, IPV6_NUMBERS, SIP, Frame, address_text

__all__ = (
    "GZIP",
    "INFLATE_LIMIT",
    "IPV4",
    "IPV6",
    "NAMED_CHUNKS",
    "REASONS",
    "SIP",
    "Frame",
    "Framer",
    "address_text",
    "assemble",
    "chunk",
    "decode",
    "encode",
    "is_hep3",
    "pack_named",
    "to_dict",
)

REASONS = (
    "truncated",
    "bad_total_length",
    "truncated_chunk_header",
    "bad_chunk_length",
    "chunk_overrun",
    "bad_chunk_size",
    "decompress_failed",
    "decompress_too_large",
    "bad_family",
    "not_hep",
    "bad_magic",
)

INFLATE_LIMIT = 1 << 20
GZIP = b"\x1f\x8b"

_MAGICS = (b"HEP3", b"EEP3", b"EEP1")

# The generic chunks beyond the core: type -> (name, bytes), 0 bytes for text.
_NAMED = {
    0x0D: ("keepalive", 2),
    0x12: ("vlan", 2),
    0x13: ("node_name", 0),
    0x14: ("src_mac", 8),
    0x15: ("dst_mac", 8),
    0x16: ("ether_type", 2),
    0x17: ("tcp_flags", 1),
    0x18: ("ip_tos", 1),
    0x20: ("mos", 2),
    0x21: ("r_factor", 2),
    0x22: ("geo", 0),
    0x23: ("jitter", 4),
    0x24: ("transaction_type", 0),
    0x25: ("payload_json_keys", 0),
    0x26: ("tags", 0),
    0x27: ("tag_type", 2),
    0x28: ("event_type", 2),
    0x29: ("group_id", 0),
}
NAMED_CHUNKS = {name: (kind, size) for kind, (name, size) in _NAMED.items()}
_CORE_SIZES = {1: 1, 2: 1, 3: 4, 4: 4, 5: 16, 6: 16, 7: 2, 8: 2, 9: 4, 10: 4, 11: 1, 12: 4}

_chunk_header = Struct(">IH").unpack_from  # vendor and type in one number, length
_u16 = Struct(">H").unpack_from
_u32 = Struct(">I").unpack_from

# Hot path: agents send the core chunks in one of two orders, and their headers never differ.  One
# pattern checks all headers, one unpack skips them: 0.5 µs in place of 2.5 for ten chunks.
# Group n of the pattern is the layout that _CORES[n] unpacks; _CORES[0] is never asked.
_AS_NUMBERED = ((1, 2, 3, 4, 7, 8, 9, 10, 11, 12), (1, 2, 5, 6, 7, 8, 9, 10, 11, 12))
_ADDRESSES_LAST = ((1, 2, 7, 8, 9, 10, 11, 12, 3, 4), (1, 2, 7, 8, 9, 10, 11, 12, 5, 6))
_LAYOUTS = (*_AS_NUMBERED, *_ADDRESSES_LAST)
_CODES = {1: "B", 2: "H", 4: "I", 16: "16s"}


def _layout_pattern(layout: Sequence[int]) -> bytes:
    chunks = [(pack(">HHH", 0, kind, 6 + _CORE_SIZES[kind]), _CORE_SIZES[kind]) for kind in layout]
    return b"(" + b"".join(re.escape(head) + b"." * size for head, size in chunks) + b")"


def _layout_struct(layout: Sequence[int]) -> Struct:
    codes = ["4s" if kind in (3, 4) else _CODES[_CORE_SIZES[kind]] for kind in layout]
    return Struct(">6x" + "".join("6x" + code for code in codes))


_usual_core = re.compile(b".{6}(?:" + b"|".join(map(_layout_pattern, _LAYOUTS)) + b")", re.S).match
_CORES = [_layout_struct(layout).unpack_from for layout in (_LAYOUTS[0], *_LAYOUTS)]


class Framer:
    """Cuts a TCP stream into HEP3 frames.

    fault: set once the stream can no longer be followed; the connection is to be closed.
    """

    __slots__ = ("_buffer", "fault")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.fault: DecodeError | None = None

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; give the frames that are now whole, also those before a fault."""
        frames: list[bytes] = []
        if self.fault is not None:
            return frames
        buffer = self._buffer
        buffer += data
        start, size = 0, len(buffer)
        while start < size:
            if buffer[start] in b"\r\n":  # keep-alives between frames
                start += 1
                continue
            magic = bytes(buffer[start : start + 4])
            if magic not in _MAGICS:
                if not _starts_magic(magic):
                    self.fault = DecodeError("bad_magic", start)
                break
            if size - start < 6:
                break
            total: int = _u16(buffer, start + 4)[0]
            if total < 6:
                self.fault = DecodeError("bad_total_length", start + 4)
                break
            if size - start < total:
                break
            frames.append(bytes(buffer[start : start + total]))
            start += total
        if self.fault is not None:
            buffer.clear()
        else:
            del buffer[:start]
        return frames


def is_hep3(data: bytes) -> bool:
    """Whether *data* begins like a frame of version 3, as only such frames may on a stream."""
    return data[:4] in _MAGICS


def decode(data: bytes) -> Frame:
    """Read one datagram of any version, or such a datagram in a gzip envelope.

    Raises DecodeError with the offset of the fault.
    """
    if data[:4] in _MAGICS:
        return _decode3(data, data)
    if data[:2] != GZIP:
        return _decode_other(data, data)
    inner, _ = _inflate(data, 0)
    frame = _decode3(inner, data) if inner[:4] in _MAGICS else _decode_other(inner, data)
    frame.warnings = [*frame.warnings, "gzip_envelope"]
    return frame


def encode(frame: Frame, version: int = 3, *, compress: bool = False) -> bytes:
    """Write *frame*; versions 1 and 2 carry SIP only and fewer fields, and are never compressed.

    Raises ValueError for what does not fit into the 65535 bytes of a frame.
    """
    if version != 3:
        return hep_old.encode(frame, version)
    try:
        return assemble(_chunks(frame, compress))
    except OutOfRange as error:
        raise ValueError(f"does not fit into a HEP3 frame of 65535 bytes: {frame!r}") from error


def assemble(chunks: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Make one HEP3 frame of (vendor, type, body) chunks, in their order."""
    body = b"".join(
        pack(">HHH", vendor, kind, len(data) + 6) + data for vendor, kind, data in chunks
    )
    return b"HEP3" + pack(">H", len(body) + 6) + body


def to_dict(frame: Frame) -> dict[str, Any]:
    """Everything the envelope said, as plain values; None for what it did not say."""
    told: dict[str, Any] = {
        "version": frame.version,
        "warnings": list(frame.warnings),
        "ip_family": chunk(frame, 1),
        "ip_proto": chunk(frame, 2),
        "src_ip": frame.src_ip or None,
        "dst_ip": frame.dst_ip or None,
        "src_port": chunk(frame, 7),
        "dst_port": chunk(frame, 8),
        "ts_sec": chunk(frame, 9),
        "ts_usec": chunk(frame, 10),
        "ts_us": frame.seconds * 1_000_000 + frame.micros if frame.seconds else None,
        "proto_type": frame.payload_type,
        "capture_id": frame.capture_id,
    }
    if frame.auth_key is not None:
        told["auth_key"] = frame.auth_key
    if frame.correlation_id is not None:
        told["correlation_id"] = frame.correlation_id
    told["payload_hex"] = None if "missing_payload" in frame.warnings else frame.payload.hex()
    for name, value in (frame.extra or {}).items():
        if name == "vendor_chunks":
            told[name] = [{"vendor": v, "type": t, "hex": body.hex()} for v, t, body in value]
        elif name == "unknown_chunks":
            told[name] = [{"type": t, "hex": body.hex()} for t, body in value]
        elif name != "ip_family":
            told[name] = value
    return told


def chunk(frame: Frame, kind: int) -> int | str | None:
    """The value of generic chunk *kind* as `$hep(0x…)` gives it, None when it was not sent.

    Addresses are text and belong to one family's chunks only; the payload is the inflated one.
    """
    value: int | str | None
    if kind in (1, 2, 7, 8, 9, 10):
        value = _number(frame, kind)
        return value if value or _sent(frame, kind) else None
    if kind in (3, 4, 5, 6):
        packed = frame.src if kind in (3, 5) else frame.dst
        return address_text(packed) if len(packed) == (4 if kind < 5 else 16) else None
    if kind == 11:
        return frame.payload_type
    if kind == 12:
        return frame.capture_id
    if kind == 14:
        return frame.auth_key
    if kind == 15:
        if "missing_payload" in frame.warnings:
            return None
        return frame.payload.decode("utf-8", "surrogateescape")
    if kind == 17:
        return frame.correlation_id
    if kind in _NAMED and frame.extra:
        value = frame.extra.get(_NAMED[kind][0])
        return value
    return None


def pack_named(name: str, value: int | str) -> tuple[int, int, bytes]:
    """The chunk that carries one of `Frame.extra`'s named values."""
    kind, size = NAMED_CHUNKS[name]
    body = int(value).to_bytes(size, "big") if size else str(value).encode("utf-8")
    return 0, kind, body


def _decode3(data: bytes, raw: bytes) -> Frame:
    """magic(4) total(u16), then chunks: vendor(u16) type(u16) length(u16) body(length - 6)."""
    if len(data) < 6:
        raise DecodeError("truncated", len(data))
    total: int = _u16(data, 4)[0]
    if total < 6:
        raise DecodeError("bad_total_length", 4)
    if total > len(data):
        raise DecodeError("truncated", len(data))
    src4 = dst4 = src6 = dst6 = b""
    auth_key = correlation_id = payload = None
    payload_type: int | None
    capture_id: int | None
    extra: dict[str, Any] | None = None
    packed = False
    warnings: list[str] = []
    usual = _usual_core(data)
    if usual is not None and usual.end() <= total:
        offset = usual.end()
        layout = usual.lastindex or 0
        if layout < 3:
            (
                family, protocol, src4, dst4, src_port, dst_port,
                seconds, micros, payload_type, capture_id,
            ) = _CORES[layout](data)  # fmt: skip
        else:
            (
                family, protocol, src_port, dst_port,
                seconds, micros, payload_type, capture_id, src4, dst4,
            ) = _CORES[layout](data)  # fmt: skip
        if len(src4) == 16:
            src6, dst6, src4, dst4 = src4, dst4, b"", b""
    else:
        offset = 6
        family = protocol = src_port = dst_port = seconds = micros = 0
        payload_type = capture_id = None
    last = total - 6
    while offset <= last:
        kind, length = _chunk_header(data, offset)
        body = offset + 6
        end = offset + length
        if length < 6:
            raise DecodeError("bad_chunk_length", offset + 4)
        if end > total:
            raise DecodeError("chunk_overrun", offset + 4)
        if kind == 15:
            payload, packed = data[body:end], False
        elif kind == 17:
            correlation_id = _string(data[body:end])
        elif kind == 14:
            auth_key = _string(data[body:end])
        elif 0 < kind < 13:
            if length - 6 != _CORE_SIZES[kind]:
                raise DecodeError("bad_chunk_size", offset + 4)
            if kind == 1:
                family = data[body]
            elif kind == 2:
                protocol = data[body]
            elif kind == 3:
                src4 = data[body:end]
            elif kind == 4:
                dst4 = data[body:end]
            elif kind == 5:
                src6 = data[body:end]
            elif kind == 6:
                dst6 = data[body:end]
            elif kind == 7:
                (src_port,) = _u16(data, body)
            elif kind == 8:
                (dst_port,) = _u16(data, body)
            elif kind == 9:
                (seconds,) = _u32(data, body)
            elif kind == 10:
                (micros,) = _u32(data, body)
            elif kind == 11:
                payload_type = data[body]
            else:
                (capture_id,) = _u32(data, body)
        elif kind == 16:
            payload, packed = data[body:end], True
        else:
            if extra is None:
                extra = {}
            _keep(extra, warnings, kind, data[body:end])
        offset = end
    if offset != total:
        raise DecodeError("truncated_chunk_header", offset)
    if packed and payload is not None:
        extra = extra or {}
        payload, extra["compressed"] = _inflate(payload, 0)
    frame = Frame(
        3,
        family,
        protocol,
        src4,
        dst4,
        src_port,
        dst_port,
        seconds,
        micros,
        payload_type,
        capture_id,
        auth_key,
        correlation_id,
        payload or b"",
        raw,
        warnings,
        extra,
    )
    if family != IPV4 or not src4 or not dst4:
        _choose_addresses(frame, warnings, src6, dst6)
    if not seconds:
        warnings.append("no_timestamp")
    if payload_type is None:
        warnings.append("missing_proto_type")
    if not payload:
        warnings.append("missing_payload" if payload is None else "empty_payload")
    if total < len(data):
        warnings.append("trailing_data")
    return frame


def _choose_addresses(frame: Frame, warnings: list[str], src6: bytes, dst6: bytes) -> None:
    """The family chunk chooses the pair; a pair that is absent gives way to the other one."""
    wire_family = frame.family
    have4, have6 = bool(frame.src or frame.dst), bool(src6 or dst6)
    if have6 and (wire_family in IPV6_NUMBERS or not have4):
        frame.src, frame.dst, frame.family = src6, dst6, IPV6
    elif have4:
        frame.family = IPV4
    if not wire_family:
        warnings.append("missing_family")
    elif wire_family != frame.family:
        frame.extra = {**(frame.extra or {}), "ip_family": wire_family}
    if not frame.src or not frame.dst:
        warnings.append("missing_address")


def _keep(extra: dict[str, Any], warnings: list[str], kind: int, body: bytes) -> None:
    """Keep a chunk that is rare: by its name, else as it came."""
    vendor, kind = kind >> 16, kind & 0xFFFF
    if vendor:
        extra.setdefault("vendor_chunks", []).append((vendor, kind, body))
        return
    name, size = _NAMED.get(kind, ("", 0))
    if name and not size:
        extra[name] = _string(body)
    elif name and size == len(body):
        extra[name] = int.from_bytes(body, "big")
    else:
        if name:
            warnings.append(f"bad_chunk_size:0x{kind:04x}")
        extra.setdefault("unknown_chunks", []).append((kind, body))


def _string(body: bytes) -> str:
    """Text without its trailing NULs; Latin-1 when it is no UTF-8."""
    body = body.rstrip(b"\0")
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _inflate(body: bytes, offset: int) -> tuple[bytes, str]:
    """The unpacked bytes and how they were packed; only complete streams count."""
    attempts = [("gzip", 31)] if body[:2] == GZIP else [("zlib", 15), ("deflate", -15)]
    for name, window in attempts:
        stream = zlib.decompressobj(window)
        try:
            data = stream.decompress(body, INFLATE_LIMIT + 1)
        except zlib.error:
            continue
        if len(data) > INFLATE_LIMIT:
            raise DecodeError("decompress_too_large", offset)
        if stream.eof:
            return data, name
    raise DecodeError("decompress_failed", offset)


def _decode_other(data: bytes, raw: bytes) -> Frame:
    if hep_old.is_old(data):
        return hep_old.decode(data, raw)
    raise DecodeError("truncated" if _starts_magic(data) else "not_hep", 0)


def _starts_magic(data: bytes) -> bool:
    return len(data) < 4 and any(magic.startswith(data) for magic in _MAGICS)


def _number(frame: Frame, kind: int) -> int:
    if kind == 1:
        return frame.wire_family
    if kind == 2:
        return frame.protocol
    if kind == 7:
        return frame.src_port
    if kind == 8:
        return frame.dst_port
    return frame.seconds if kind == 9 else frame.micros


def _sent(frame: Frame, kind: int) -> bool:
    """Whether a value that reads 0 was told as 0.  Walks the datagram again, as it is rare."""
    if frame.version != 3:
        return frame.version == 2 or kind < 9
    data = frame.raw
    if data[:2] == GZIP:
        data, _ = _inflate(data, 0)
    offset, size = 6, len(data)
    while offset + 6 <= size:
        found, length = _chunk_header(data, offset)
        if found == kind:
            return True
        offset += max(length, 6)
    return False


def _chunks(frame: Frame, compress: bool = False) -> Iterable[tuple[int, int, bytes]]:
    """The chunks of *frame* in the order most agents send them.

    compress: as chunk 0x0010 by zlib, the packing every receiver of that chunk knows, unless the
    payload grows by it.
    """
    if wire_family := frame.wire_family:
        yield 0, 1, bytes([wire_family])
    yield 0, 2, bytes([frame.protocol])
    if frame.src:
        yield 0, 3 if len(frame.src) == 4 else 5, frame.src
    if frame.dst:
        yield 0, 4 if len(frame.dst) == 4 else 6, frame.dst
    yield 0, 7, pack(">H", frame.src_port)
    yield 0, 8, pack(">H", frame.dst_port)
    yield 0, 9, pack(">I", frame.seconds)
    yield 0, 10, pack(">I", frame.micros)
    if frame.payload_type is not None:
        yield 0, 11, bytes([frame.payload_type])
    if frame.capture_id is not None:
        yield 0, 12, pack(">I", frame.capture_id)
    if frame.correlation_id is not None:
        yield 0, 17, frame.correlation_id.encode("utf-8", "surrogateescape")
    if frame.auth_key is not None:
        yield 0, 14, frame.auth_key.encode("utf-8", "surrogateescape")
    for name, value in (frame.extra or {}).items():
        if name in NAMED_CHUNKS:
            yield pack_named(name, value)
    yield from frame.vendor_chunks
    for kind, body in frame.unknown_chunks:
        yield 0, kind, body
    if "missing_payload" in frame.warnings:
        return
    packed = zlib.compress(frame.payload, 6) if compress else b""
    if packed and len(packed) < len(frame.payload):
        yield 0, 16, packed
    else:
        yield 0, 15, frame.payload
