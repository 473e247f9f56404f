"""What a capture plan asks of a packet: `msg_check("size", "100")`, `sip_check("method", "BYE")`.

Selectors are told by how they begin and values are compared by how they begin, as captagent does:
`src_port_gt` is `src_port`, and "10.0.0.1" is true of 10.0.0.11.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from homerd.api import Packet, SipMessage

Test = Callable[[Packet, str], bool]

JSON_BEGINS = b"{"
RTCP_TYPE, ISUP_TYPE = 5, 54  # HEP payload types of what plans convert
ISUP_TYPES = (8, 9, 13)
_RTP_VERSION = 2
_RTCP = range(200, 208)
_EXTENDED_REPORT = 207


def _begins(read: Callable[[Packet], str | None]) -> Test:
    def test(packet: Packet, value: str) -> bool:
        return bool(found := read(packet)) and found.startswith(value)

    return test


def _ends(read: Callable[[Packet], str | None]) -> Test:
    def test(packet: Packet, value: str) -> bool:
        return bool(found := read(packet)) and found.endswith(value)

    return test


def _is(read: Callable[[Packet], int | None]) -> Test:
    return lambda packet, value: read(packet) == _number(value)


@functools.lru_cache(maxsize=256)
def _number(value: str) -> int:
    """The number that *value* begins with, 0 when there is none."""
    found = re.match(r"\s*[+-]?[0-9]{1,18}", value)
    return int(found.group()) if found else 0


def _is_larger(packet: Packet, value: str) -> bool:
    return len(packet.frame.payload) > _number(value)


def _either_begins(packet: Packet, value: str) -> bool:
    return packet.src_ip.startswith(value) or packet.dst_ip.startswith(value)


_source = _begins(lambda packet: packet.src_ip)
_target = _begins(lambda packet: packet.dst_ip)

# In the order they are tried.
PACKET = {
    "size": _is_larger,
    "src_ip": _source,
    "source_ip": _source,
    "destination_ip": _target,
    "dst_ip": _target,
    "any_ip": _either_begins,
    "src_port": _is(lambda packet: packet.frame.src_port),
    "dst_port": _is(lambda packet: packet.frame.dst_port),
}
MESSAGE = {
    "method": _begins(lambda packet: packet.sip.method),
    "rmethod": _begins(lambda packet: packet.sip.cseq_method),
    "from_user_suffix": _ends(lambda packet: packet.sip.from_user),
    "to_user_suffix": _ends(lambda packet: packet.sip.to_user),
    "from_user_prefix": _begins(lambda packet: packet.sip.from_user),
    "to_user_prefix": _begins(lambda packet: packet.sip.to_user),
    "user_agent_prefix": _begins(lambda packet: packet.sip.user_agent),
    "user_agent_suffix": _ends(lambda packet: packet.sip.user_agent),
    "response": _is(lambda packet: packet.sip.status),
}


def selector(table: dict[str, Test]) -> Callable[[str | int], Test]:
    """What turns a script's word into the Test of *table*; its ValueError is the diagnostic."""

    def convert(word: str | int) -> Test:
        for name, found in table.items():
            if str(word).startswith(name):
                return found
        raise ValueError(f'unknown selector "{word}", expected one of {", ".join(table)}')

    return convert


def has_sdp(sip: SipMessage) -> bool:
    """Whether the body, or a part of it, describes media."""
    return "application/sdp" in (sip.content_type or "").lower() or "\nm=" in sip.body


def is_rtcp(packet: Packet) -> bool:
    """Whether the payload is RTCP, as it was captured or as JSON."""
    payload = packet.frame.payload
    return packet.frame.payload_type == RTCP_TYPE or (_is_rtp(payload) and payload[1] in _RTCP)


def is_rtcp_or_rtp(packet: Packet) -> bool:
    """Whether the payload is RTCP or RTP."""
    return is_rtcp(packet) or _is_rtp(packet.frame.payload)


def is_extended_report(packet: Packet) -> bool:
    """Whether the payload begins with an extended report of RFC 3611, or is one as JSON."""
    payload = packet.frame.payload
    if payload.startswith(JSON_BEGINS):
        return packet.frame.payload_type == RTCP_TYPE and b"xr" in payload
    return _is_rtp(payload) and payload[1] == _EXTENDED_REPORT


def _is_rtp(payload: bytes) -> bool:
    return len(payload) >= 8 and payload[0] >> 6 == _RTP_VERSION


def messages(payload: bytes) -> tuple[bytes, bytes]:
    """The first SIP message of a payload, and what follows it when that is another one."""
    sip = SipMessage(payload)
    length = sip.content_length
    head, empty_line, body = payload.partition(b"\r\n\r\n")
    if length is None or len(body) <= length:
        return payload, b""
    rest = body[length:].lstrip(b"\r\n\0")
    following = SipMessage(rest)
    if not (following.is_request or following.is_reply):
        return payload, b""
    return head + empty_line + body[:length], rest
