"""textopsx: walks over headers and body lines, shell patterns.

Functions that change the message Kamailio would send on are accepted; here nothing is sent on.
"""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache

from homerd.api import Packet, Plugin, Text, pseudo_variable, script_function
from homerd_plugins import _accepted

_CHANGES = (
    "msg_apply_changes/0 change_reply_status/2 change_reply_status_code/1 remove_body/0"
    " keep_hf/0-1 insert_hf_value/2 append_hf_value/2 remove_hf_value/1 remove_hf_value2/1"
    " assign_hf_value/2 assign_hf_value2/2 exclude_hf_value/2 include_hf_value/2"
    " hf_iterator_append/2 hf_iterator_insert/2 hf_iterator_rm/1 hf_iterator_prev/1=-1"
    " bl_iterator_append/2 bl_iterator_insert/2 bl_iterator_rm/1"
)


class _Walk:
    """A walk over items; current is None before the first and behind the last."""

    __slots__ = ("_left", "current")

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self._left = iter(items)
        self.current: tuple[str, str] | None = None

    def advance(self) -> bool:
        self.current = next(self._left, None)
        return self.current is not None


class TextOpsX(Plugin):
    """Walks over a message, shell patterns."""

    name = "textopsx"

    def __init__(self) -> None:
        self.words = _accepted.functions(_CHANGES, self.name)

    @script_function
    def fnmatch(self, packet: Packet, text: str, pattern: str, flags: str = "") -> bool:
        """Whether *text* is as the shell's *pattern* (`*`, `?`, `[a-z]`) says; flag i: any case."""
        return _pattern(pattern, "i" in flags).match(text) is not None

    @script_function
    def hf_value_exists(self, packet: Packet, name: str, value: str) -> bool:
        """Whether a header lists *value* among its values, in any case."""
        wanted = value.strip().lower()
        return any(
            item.strip().lower() == wanted
            for body in packet.sip.headers(name)
            for item in body.split(",")
        )

    @script_function
    def hf_iterator_start(self, packet: Packet, name: str) -> None:
        """Begin a walk over the headers."""
        sip = packet.sip
        names = sip.header_names()
        bodies = {key: iter(sip.headers(key)) for key in {name.lower() for name in names}}
        items = [(key, next(bodies[key.lower()], "")) for key in names]
        _walks(packet)["hf", name] = _Walk(items)

    @script_function
    def hf_iterator_next(self, packet: Packet, name: str) -> bool:
        """Go to the next header; false behind the last, and for a walk that was not begun."""
        walk = _walks(packet).get(("hf", name))
        return walk is not None and walk.advance()

    @script_function
    def hf_iterator_end(self, packet: Packet, name: str) -> None:
        """Forget the walk."""
        _walks(packet).pop(("hf", name), None)

    @script_function
    def bl_iterator_start(self, packet: Packet, name: str) -> None:
        """Begin a walk over the lines of the body; what follows the last line end is none."""
        lines = [line for line in packet.sip.body.splitlines(keepends=True) if line[-1] == "\n"]
        _walks(packet)["bl", name] = _Walk([("", line) for line in lines])

    @script_function
    def bl_iterator_next(self, packet: Packet, name: str) -> bool:
        """Go to the next line; false behind the last, and for a walk that was not begun."""
        walk = _walks(packet).get(("bl", name))
        return walk is not None and walk.advance()

    @script_function
    def bl_iterator_end(self, packet: Packet, name: str) -> None:
        """Forget the walk."""
        _walks(packet).pop(("bl", name), None)

    @pseudo_variable("hfitname")
    def hfitname(self, packet: Packet, name: str) -> str | None:
        """Name of the header a walk is at."""
        return _at(packet, "hf", name, 0)

    @hfitname.bind
    def bind_hfitname(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind(argument)

    @pseudo_variable("hfitbody")
    def hfitbody(self, packet: Packet, name: str) -> str | None:
        """Body of the header a walk is at."""
        return _at(packet, "hf", name, 1)

    @hfitbody.bind
    def bind_hfitbody(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind(argument)

    @pseudo_variable("blitval")
    def blitval(self, packet: Packet, name: str) -> str | None:
        """The line a walk is at, with its end."""
        return _at(packet, "bl", name, 1)

    @blitval.bind
    def bind_blitval(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind(argument)


def _walks(packet: Packet) -> dict[tuple[str, str], _Walk]:
    walks: dict[tuple[str, str], _Walk] = packet.scratch.setdefault("textopsx", {})
    return walks


def _at(packet: Packet, kind: str, name: str, part: int) -> str | None:
    walk = _walks(packet).get((kind, name))
    return None if walk is None or walk.current is None else walk.current[part]


def _bind(argument: Text | None) -> tuple[object, ...]:
    if argument is None:
        raise ValueError("expected the name of a walk in parentheses")
    return (argument if argument.constant is None else argument.constant,)


@lru_cache(maxsize=256)
def _pattern(pattern: str, any_case: bool) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern), re.IGNORECASE if any_case else 0)
