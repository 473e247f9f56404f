"""What generated code calls, and how a run ends.

A value is a str, an int or None (null).  Each operator asks its operands for what it needs: an int,
a text or the value as it is; these are the conversions of Kamailio's rvalues (core/rvalue.c).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from homerd.lang.posix import PosixPattern, Substitution, compile_posix

Value = str | int | None

_MOST = 2**63 - 1
_LEAST = -(2**63)
_DECIMAL = re.compile(r"[+-]?[0-9]+\Z")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+\Z")
_MAX_DYNAMIC_PATTERNS = 1000


class End:
    """How a packet's run through the script ended.

    kind: drop, exit, return, end (routed); handled (a module took it before the script);
    refused (reason says why).  place: the statement, as "homer.cfg:41".
    """

    __slots__ = ("kind", "place", "reason")

    def __init__(self, kind: str, place: str = "", reason: str = "") -> None:
        self.kind = kind
        self.place = place
        self.reason = reason

    def __repr__(self) -> str:
        return f"End({self.kind!r}, {self.place!r}, {self.reason!r})"


class ScriptEnd(Exception):
    """Carries an End out of an expression."""

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end = end


class EvalError(Exception):
    """An expression that has no value: the statement it is in is not carried out."""


def to_int(value: Value) -> int:
    """The int of a value: a whole decimal or 0x number of 64 bits, else 0."""
    if value.__class__ is int:
        return value
    if not value:
        return 0
    text: str = value  # type: ignore[assignment]
    if _DECIMAL.match(text):
        number = int(text) if len(text) <= 20 else _MOST + 1
    elif _HEXADECIMAL.match(text) and len(text) <= 18:
        number = int(text, 16)
    else:
        return 0
    return number if _LEAST <= number <= _MOST else 0


def to_str(value: Value) -> str:
    """The text of a value, "" for null."""
    if value.__class__ is str:
        return value
    return "" if value is None else str(value)


def show(value: Value) -> str:
    """The text of a value inside a string that is expanded: null prints as `<null>`."""
    return "<null>" if value is None else str(value)


def add(left: Value, right: Value) -> str | int:
    """`+` where nothing else is asked for: the left value decides."""
    if left.__class__ is int:
        return wrap(left + to_int(right))
    return to_str(left) + to_str(right)


def add_to_null(left: Value, right: Value) -> Value:
    """`+` in OpenSIPS, where a variable that was never set is null and may be counted up."""
    if left is None:
        return "" if right is None else right
    return add(left, right)


def equal(left: Value, right: Value) -> bool:
    """`==`: the left value decides how the right one is read."""
    if left.__class__ is right.__class__:
        return left == right
    if left is None:
        return right == 0 if right.__class__ is int else right == ""
    if left.__class__ is int:
        return left == to_int(right)
    return left == to_str(right)


def wrap(number: int) -> int:
    """A signed integer of 64 bits."""
    if _LEAST <= number <= _MOST:
        return number
    return (number - _LEAST) % (_MOST - _LEAST + 1) + _LEAST


def divide(left: int, right: int) -> int:
    """Division that truncates toward zero."""
    if not right:
        raise EvalError("division by zero")
    quotient = abs(left) // abs(right)
    return wrap(quotient if (left < 0) == (right < 0) else -quotient)


def modulo(left: int, right: int) -> int:
    """The remainder, with the sign of the dividend."""
    if not right:
        raise EvalError("division by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def shift_left(left: int, right: int) -> int:
    """`<<`; as the processor does, only the low six bits of the count count."""
    return wrap(left << (right & 63))


def shift_right(left: int, right: int) -> int:
    """`>>`, with the same count."""
    return left >> (right & 63)


_patterns: dict[str, PosixPattern | str] = {}


def matches(text: str, pattern: str) -> bool:
    """`=~` with a pattern that is only known now; EvalError when it is bad."""
    compiled = _patterns.get(pattern)
    if compiled is None:
        if len(_patterns) >= _MAX_DYNAMIC_PATTERNS:
            _patterns.clear()
        try:
            compiled = compile_posix(pattern)
        except ValueError as error:
            compiled = str(error)
        _patterns[pattern] = compiled
    if isinstance(compiled, str):
        raise EvalError(f"{compiled}: {pattern!r}")
    return compiled.search(text)


_substitutions: dict[str, Substitution | str] = {}


def substitution(text: str) -> Substitution:
    """`/pattern/replacement/flags` that is only known now; EvalError when it is bad."""
    compiled = _substitutions.get(text)
    if compiled is None:
        if len(_substitutions) >= _MAX_DYNAMIC_PATTERNS:
            _substitutions.clear()
        try:
            compiled = Substitution(text)
        except ValueError as error:
            compiled = str(error)
        _substitutions[text] = compiled
    if isinstance(compiled, str):
        raise EvalError(f"{compiled}: {text!r}")
    return compiled


def code(result: bool | int | None) -> int:
    """Kamailio's return code for what a function gave: None and True are 1, False is -1."""
    if result is None or result is True:
        return 1
    return -1 if result is False else int(result)


def yes(packet: Any, result: object) -> bool:  # packet: whatever runs, here and below
    """Keep `$rc` for a function that gives a bool, and hand the bool on."""
    packet.rc = 1 if result else -1
    return bool(result)


def called(packet: Any, result: bool | int | None, end: End) -> int:
    """Keep `$rc` for a function called inside an expression; 0 ends the script."""
    number = code(result)
    packet.rc = number
    if not number:
        raise ScriptEnd(end)
    return number


def routed(packet: Any, result: int | End) -> int:
    """Keep `$rc` for a route called inside an expression, and end the script where it did."""
    if result.__class__ is not int:
        raise ScriptEnd(result)  # type: ignore[arg-type]
    packet.rc = result
    return result


def uri_or_status(sip: Any) -> str | None:  # the packet's SIP message
    """The keywords `uri` and `status` are one: a request's URI, a reply's code."""
    if sip.is_request:
        uri: str | None = sip.ruri
        return uri
    return None if sip.status is None else str(sip.status)


def in_network(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether an address in text lies in a network."""
    try:
        return ipaddress.ip_address(address.strip("[]")) in network
    except ValueError:
        return False
