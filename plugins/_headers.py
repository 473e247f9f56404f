"""Headers by name, and the message in pieces."""

from __future__ import annotations

import re
from collections.abc import Callable

from homerd.api import Packet, Text, Value, pseudo_variable
from homerd_plugins import _bindings

_LIST_HEADERS = frozenset(
    {"via", "contact", "record-route", "route", "diversion", "p-asserted-identity", "path"}
)
_ELEMENT = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<])+""", re.DOTALL)
_FULL_NAMES = {"v": "via", "m": "contact"}
_PIECES: dict[str, Callable[[Packet], Value]] = {
    "buf": lambda packet: packet.sip.text,
    "body": lambda packet: packet.sip.body,
    "fline": lambda packet: packet.sip.text.lstrip("\r\n").partition("\n")[0].rstrip("\r"),
    "hdrs": lambda packet: _head(packet),
    "len": lambda packet: len(packet.sip.raw),
    "lpart": lambda packet: packet.sip.text.lstrip("\r\n").partition("\n")[2],
}


class Headers:
    """Mixed into the module pv."""

    @pseudo_variable("hdr")
    def hdr(self, packet: Packet, name: str, index: object) -> str | None:
        """Body of a header; `[i]` the i-th, negative from the end, `[*]` all joined by a comma."""
        if index is None:
            return packet.sip.header(name)
        return _pick(packet.sip.headers(name), index)

    @hdr.bind
    def bind_hdr(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.header(argument, index)

    @pseudo_variable("hdrc")
    def hdrc(self, packet: Packet, name: str, index: object) -> int:
        """How many headers of that name there are."""
        return len(packet.sip.headers(name))

    @hdrc.bind
    def bind_hdrc(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.header(argument, index)

    @pseudo_variable("hfl")
    def hfl(self, packet: Packet, name: str, index: object) -> str | None:
        """An element of a header that lists several, over all headers of that name."""
        bodies = packet.sip.headers(name)
        wanted = name.lower()
        if _FULL_NAMES.get(wanted, wanted) not in _LIST_HEADERS:
            return _pick(bodies, 0 if index is None else index)
        elements = [found.strip() for body in bodies for found in _ELEMENT.findall(body)]
        if isinstance(index, int) and index < 0:
            return None
        return _pick([element for element in elements if element], 0 if index is None else index)

    @hfl.bind
    def bind_hfl(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.header(argument, index)

    @pseudo_variable("expires")
    def expires(self, packet: Packet, choose: Callable[[list[int]], int]) -> int | None:
        """`min` or `max` of what the contacts and Expires say; null when nothing does."""
        sip = packet.sip
        texts = [contact.parameter("expires") or "" for contact in sip.contacts()]
        texts = [text for text in texts if text] or [sip.header("Expires") or ""]
        numbers = [int(text) for text in texts if text.isdecimal() and len(text) < 11]
        return choose(numbers) if numbers else None

    @expires.bind
    def bind_expires(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of({"min": min, "max": max}, argument, index)

    @pseudo_variable("msg")
    def msg(self, packet: Packet, piece: Callable[[Packet], Value]) -> Value:
        """A piece of the message: buf, fline, hdrs, body, lpart (without its first line) or len."""
        return piece(packet)

    @msg.bind
    def bind_msg(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_PIECES, argument, index)


def _head(packet: Packet) -> str:
    sip = packet.sip
    lines: str = sip.text.removesuffix(sip.body).lstrip("\r\n").partition("\n")[2]
    return lines


def _pick(bodies: list[str], index: object) -> str | None:
    """Element *index*, negative from the end, or all joined by a comma for `*`."""
    if not bodies:
        return None
    if isinstance(index, str):
        if index.strip() == "*":
            return ",".join(bodies)
        try:
            index = int(index)
        except ValueError:
            return None
    if isinstance(index, int) and -len(bodies) <= index < len(bodies):
        return bodies[index]
    return None
