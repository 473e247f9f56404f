"""Selects: `via[1].host`, `contact.uri.host`, `cfg_get.stats.min`, each as a function of a packet.

A select gives text or null.  Several contacts in one header: the last one counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from homerd.api import NameAddr, Packet, parse_name_addr, parse_uri

Select = Callable[[Packet], str | None]

# part = name [ "[" number "]" ]
_PART = re.compile(r"([A-Za-z0-9_-]+)(?:\[(-?[0-9]+)\])?")
_LONG = {"v": "via", "f": "from", "t": "to", "m": "contact", "rr": "record_route", "i": "call_id"}

_HEADERS = frozenset(
    {
        "call_id",
        "content_length",
        "content_type",
        "date",
        "event",
        "expires",
        "identity",
        "max_forwards",
        "proxy_require",
        "refer_to",
        "require",
        "subject",
        "supported",
        "user_agent",
    }
)
_ADDRESSES = frozenset({"from", "to", "contact", "record_route", "rpid"})
_URI_PARTS = frozenset({"type", "user", "pwd", "host", "port", "hostport", "params"})
_ADDRESS_PARTS = frozenset({"uri", "name", "params", "tag", "q", "expires", "instance", "received"})
_VIA_PARTS = frozenset({"name", "version", "transport", "host", "port", "comment"})
_VIA_PARAMETERS = frozenset({"branch", "received", "rport", "i", "alias", "maddr", "ttl"})

_MESSAGE: dict[str, Select] = {
    "": lambda packet: packet.sip.text,
    "header": lambda packet: packet.sip.text.removesuffix(packet.sip.body),
    "body": lambda packet: packet.sip.body or None,
    "first_line": lambda packet: packet.sip.text.lstrip("\r\n").partition("\n")[0].rstrip("\r"),
    "type": lambda packet: "2" if packet.sip.is_reply else "1",
    "len": lambda packet: str(len(packet.sip.raw)),
    "request": lambda packet: packet.sip.text if packet.sip.is_request else None,
    "request.method": lambda packet: packet.sip.method if packet.sip.is_request else None,
    "request.uri": lambda packet: packet.sip.received_ruri,
    "request.version": lambda packet: "SIP/2.0" if packet.sip.is_request else None,
    "response.status": lambda packet: str(packet.sip.status) if packet.sip.is_reply else None,
    "response.reason": lambda packet: packet.sip.reason,
}
_SIMPLE: dict[str, Select] = {
    "method": lambda packet: packet.sip.method,
    "version": lambda packet: "SIP/2.0",
    "cseq": lambda packet: packet.sip.cseq,
    "cseq.num": lambda packet: packet.sip.cseq_number,
    "cseq.method": lambda packet: packet.sip.cseq_method,
    "src.ip": lambda packet: packet.src_ip,
    "src.port": lambda packet: str(packet.frame.src_port),
    "src.ip_port": lambda packet: f"{packet.src_ip}:{packet.frame.src_port}",
    "dst.ip": lambda packet: packet.dst_ip,
    "dst.port": lambda packet: str(packet.frame.dst_port),
    "dst.ip_port": lambda packet: f"{packet.dst_ip}:{packet.frame.dst_port}",
    "sys.pid": lambda packet: str(os.getpid()),
    "sys.now": lambda packet: str(int(packet.state.now())),
    "sys.server_id": lambda packet: "0",
    "dst_uri": lambda packet: packet.scratch.get("du"),
}


def compile_select(text: str) -> Select:
    """Read a select, with or without its `@`; raises ValueError for one that does not exist."""
    parts = []
    for piece in text.strip().removeprefix("@").split("."):
        match = _PART.fullmatch(piece)
        if match is None:
            raise ValueError(f'cannot read "{piece}" in the select "{text}"')
        parts.append((match[1], int(match[2]) if match[2] else None))
    first, number = parts[0]
    first = _LONG.get(first, first)
    names = [name for name, _ in parts[1:]]
    path = ".".join([first, *names])
    if first == "via":
        return _via(1 if number is None else number, names, text)
    if first == "cfg_get" and len(names) == 2:
        return _global(".".join(names))
    if number is not None or any(place is not None for _, place in parts[1:]):
        raise ValueError(f'"{text}": only via takes a number')
    if path in _SIMPLE:
        return _SIMPLE[path]
    if first in ("msg", "message"):
        return _message(names, text)
    if first == "ruri":
        return _uri(lambda packet: packet.sip.ruri, names, text)
    if first == "next_hop":
        return _uri(lambda packet: packet.scratch.get("du") or packet.sip.ruri, names, text)
    if first in _ADDRESSES:
        return _address(first, names, text)
    if first in _HEADERS and not names:
        return _header(first)
    raise ValueError(f'unknown select "{text}"')


def _header(name: str) -> Select:
    wanted = name.replace("_", "-")
    return lambda packet: packet.sip.header(wanted)


def _global(name: str) -> Select:
    def read(packet: Packet) -> str | None:
        if name == "core.debug":
            return str(packet.state.debug)
        value = packet.state.globals.get(name)
        return None if value is None else str(value)

    return read


def _message(names: list[str], text: str) -> Select:
    if len(names) == 2 and names[0] == "header":
        return _header(names[1])
    found = _MESSAGE.get(".".join(names))
    if found is None:
        raise ValueError(f'unknown select "{text}"')
    return found


def _via(number: int, names: list[str], text: str) -> Select:
    name = names[0] if names else ""
    if len(names) > 1 or name not in _VIA_PARTS | _VIA_PARAMETERS | {""}:
        raise ValueError(f'unknown select "{text}"')

    def read(packet: Packet) -> str | None:
        via = packet.sip.via(number)
        if via is None:
            return None
        if name == "":
            place = f"{via.host}:{via.port}" if via.port else via.host
            return f"{via.protocol}/{via.transport} {place}{via.params}"
        if name in _VIA_PARAMETERS:
            return via.parameter(name) or None
        if name in ("name", "version"):
            return via.protocol.partition("/")[0 if name == "name" else 2]
        return None if name == "comment" else getattr(via, name) or None

    return read


def _address(header: str, names: list[str], text: str) -> Select:
    wanted = "remote-party-id" if header == "rpid" else header.replace("_", "-")
    if not names:
        return _header(wanted)
    if names[0] not in _ADDRESS_PARTS:
        raise ValueError(f'unknown select "{text}"')

    def read(packet: Packet) -> NameAddr | None:
        if header == "contact":
            contacts = packet.sip.contacts()
            return contacts[-1] if contacts else None
        body = packet.sip.header(wanted)
        return parse_name_addr(body) if body else None

    match names:
        case ["uri", *rest]:
            return _uri(lambda packet: (found := read(packet)) and found.uri, rest, text)
        case ["name"]:
            return lambda packet: (found := read(packet)) and (found.display or None)
        case ["params", name] | [name]:
            return lambda packet: (found := read(packet)) and (found.parameter(name) or None)
    raise ValueError(f'unknown select "{text}"')


def _uri(read: Select, names: list[str], text: str) -> Select:
    if not names or names == ["uri"]:
        return read
    name = names[0]
    if name not in _URI_PARTS or len(names) > (2 if name == "params" else 1):
        raise ValueError(f'unknown select "{text}"')

    def part(packet: Packet) -> str | None:
        uri = parse_uri(read(packet) or "")
        if uri is None:
            return None
        match names:
            case ["type"]:
                return uri.scheme
            case ["pwd"]:
                return uri.password or None
            case ["hostport"]:
                return f"{uri.host}:{uri.port or 5060}"
            case ["params", parameter]:
                return NameAddr("", "", ";" + uri.params).parameter(parameter)
        return getattr(uri, name) or None

    return part
