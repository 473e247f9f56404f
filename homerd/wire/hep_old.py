"""HEP versions 1 and 2: a fixed header, then the payload to the end of the datagram.

Senders disagree on the header's length byte, the order of the time's bytes and the padding behind
it, so these are worked out from what makes sense.
"""

from __future__ import annotations

import re
from struct import Struct, pack

from homerd.errors import DecodeError
from homerd.wire.frame import IPV4, IPV6, IPV6_NUMBERS, SIP, Frame

_u16 = Struct(">H").unpack_from
_time_le = Struct("<IIH").unpack_from
_time_be = Struct(">IIH").unpack_from

# A packed time header is followed at once by the first line of the payload.
_FIRST_LINE = re.compile(
    rb"(?:INVITE|ACK|BYE|CANCEL|OPTIONS|REGISTER|PRACK|SUBSCRIBE|NOTIFY|PUBLISH|INFO|REFER"
    rb"|MESSAGE|UPDATE|SIP/2\.0) "
)


def is_old(data: bytes) -> bool:
    """Whether *data* begins with the number of one of these versions."""
    return data[:1] in (b"\x01", b"\x02")


def decode(data: bytes, raw: bytes) -> Frame:
    """version length family protocol(u8) ports(u16) addresses, in version 2 a time, payload.

    data: begins as is_old asks.  raw: the datagram it came in.
    """
    version, size = data[0], len(data)
    if size < 3:
        raise DecodeError("truncated", size)
    wire_family = data[2]
    if wire_family != IPV4 and wire_family not in IPV6_NUMBERS:
        raise DecodeError("bad_family", 2)
    width = 4 if wire_family == IPV4 else 16
    body = 8 + 2 * width
    if size < body:
        raise DecodeError("truncated", size)
    warnings: list[str] = []
    frame = Frame(version, IPV4 if width == 4 else IPV6, raw=raw, warnings=warnings)
    frame.protocol = data[3]
    frame.src_port, frame.dst_port = _u16(data, 4)[0], _u16(data, 6)[0]
    frame.src, frame.dst = data[8 : 8 + width], data[8 + width : body]
    frame.payload_type = SIP
    if wire_family != frame.family:
        frame.extra = {"ip_family": wire_family}
    if data[1] != body:
        warnings.append("header_length")
    if version == 2:
        body = _read_time(frame, warnings, data, body)
    payload = data[body:]
    if payload.endswith(b"\0"):
        payload = payload.rstrip(b"\0")
        warnings.append("trailing_nul")
    if not payload:
        warnings.append("empty_payload")
    frame.payload = payload
    return frame


def encode(frame: Frame, version: int) -> bytes:
    """Write *frame* as these versions can: SIP only, no texts, a capture id of 16 bits."""
    width = 16 if frame.family == IPV6 else 4
    src, dst = frame.src or bytes(width), frame.dst or bytes(width)
    ports = pack(">HH", frame.src_port, frame.dst_port)
    head = bytes([version, 8 + 2 * width, frame.wire_family or IPV4, frame.protocol]) + ports
    if version == 1:
        return head + src + dst + frame.payload
    capture_id = (frame.capture_id or 0) & 0xFFFF
    time = pack("<IIHH", frame.seconds, frame.micros, capture_id, 0)
    return head + src + dst + time + frame.payload


def _read_time(frame: Frame, warnings: list[str], data: bytes, offset: int) -> int:
    """seconds micros(u32) capture_id(u16) padding(u16); gives where the payload begins.

    Numbers are in the sender's order: little endian unless only big endian makes sense.
    """
    rest = len(data) - offset
    if rest < 10:
        raise DecodeError("truncated", len(data))
    frame.seconds, frame.micros, frame.capture_id = _time_le(data, offset)
    if not _plausible(frame.seconds, frame.micros):
        seconds, micros, capture_id = _time_be(data, offset)
        if _plausible(seconds, micros):
            frame.seconds, frame.micros, frame.capture_id = seconds, micros, capture_id
            warnings.append("big_endian_time")
        else:
            warnings.append("implausible_timestamp")
    if rest < 12 or _FIRST_LINE.match(data, offset + 10):
        warnings.append("packed_timehdr")
        return offset + 10
    return offset + 12


def _plausible(seconds: int, micros: int) -> bool:
    return 946684800 <= seconds < 4102444800 and micros < 1_000_000  # the years 2000 to 2099
