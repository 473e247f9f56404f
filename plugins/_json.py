"""JSON text as the jansson library reads and writes it, and paths into it.

    path  = [ key ] { "." key | "[" index "]" }

Rejected as there: anything but an object or an array at the top, a key twice in one object,
integers beyond 64 bits, NaN and Infinity, bytes that are no UTF-8.  Source: jansson 2.14 and
Kamailio 5.6.3, each case run there.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from typing import Any

Json = Any  # what json.loads gives
Path = tuple[str | int, ...]

MISSING = object()
DEEPEST = 200

_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]{0,9})\]")
_FIRST = re.compile(r"[^.\[]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip


def loads(text: str) -> Json:
    """Read an object or an array; raises ValueError for everything else."""
    if not text.isascii():
        text.encode()  # UnicodeEncodeError, a ValueError, for bytes that were no UTF-8
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict | list):
        raise ValueError("expected { or [")
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deeply")
    if "\\u" in text and _SURROGATE.search(text):
        _encodable(value)
    return value


def dumps(value: Json) -> str:
    """Compact text, keys in their order."""
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts)


@functools.lru_cache(maxsize=1024)
def parse_path(text: str) -> Path | None:
    """The keys and indexes of a path; None when it cannot be read."""
    first = _FIRST.match(text)
    assert first is not None
    steps: list[str | int] = [first.group()] if first.group() else []
    position = first.end()
    if position and text.endswith("."):
        text = text[:-1]
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            return None
        steps.append(int(found[2] or 0) if found[1] is None else found[1])
        position = found.end()
    return tuple(steps)


def find(value: Json, path: str) -> Json:
    """What is at *path*, the whole for an empty one; MISSING when nothing is there."""
    steps = parse_path(path)
    if steps is None:
        return MISSING
    for step in steps:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
            value = value[step]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return MISSING
    return value


def put(tree: Json, path: str, value: Json, *, append: bool = False) -> bool:
    """Set what is at *path*, missing objects on the way are made; False when it has no such place.

    append: add to the array, or to the object when *value* is one; an array's element is replaced.
    """
    steps = parse_path(path)
    if not steps or path.endswith("."):
        return False
    cursor = tree
    for step, following in itertools.pairwise(steps):
        if isinstance(step, int):
            if not isinstance(cursor, list) or step >= len(cursor):
                return False
            cursor = cursor[step]
        elif not isinstance(cursor, dict):
            return False
        elif step in cursor:
            cursor = cursor[step]
        elif isinstance(following, int):
            return False
        else:
            cursor[step] = cursor = {}
    last = steps[-1]
    if isinstance(last, int):
        if not isinstance(cursor, list) or last >= len(cursor):
            return False
        cursor[last] = value
        return True
    if not isinstance(cursor, dict):
        return False
    if not append:
        cursor[last] = value
        return True
    target = cursor.get(last)
    if isinstance(target, list):
        target.append(value)
    elif isinstance(target, dict) and isinstance(value, dict):
        target.update(value)
    else:
        return False
    return True


def as_script_value(value: Json) -> str | int | None:
    """A value as the script sees it: true is 1, a real is text, an object is compact text."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if _INT32_MIN <= value <= _INT32_MAX else str(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return dumps(value)


def _without_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return made


def _integer(digits: str) -> int:
    if len(digits) > 20 or not _INT_MIN <= (number := int(digits)) <= _INT_MAX:
        raise ValueError("an integer beyond 64 bits")
    return number


def _real(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a real beyond the range of a double")
    return number


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_twins,
    parse_int=_integer,
    parse_float=_real,
    parse_constant=_constant,
)


def _depth(value: Json) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        lists = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in lists for item in items if isinstance(item, dict | list)]
    return depth


def _encodable(value: Json) -> None:
    """Raise UnicodeEncodeError when some text in *value* holds half of a surrogate pair."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            _encodable(item)
    elif isinstance(value, list):
        for item in value:
            _encodable(item)


def _write(value: Json, out: Any) -> None:  # out: the append of a list
    if isinstance(value, str):
        out(f'"{_ESCAPED.sub(_escape, value)}"')
    elif isinstance(value, dict):
        between = "{"
        for key, item in value.items():
            out(f'{between}"{_ESCAPED.sub(_escape, key)}":')
            _write(item, out)
            between = ","
        out("}" if value else "{}")
    elif isinstance(value, list):
        between = "["
        for item in value:
            out(between)
            _write(item, out)
            between = ","
        out("]" if value else "[]")
    elif isinstance(value, bool):
        out("true" if value else "false")
    elif isinstance(value, int):
        out(str(value))
    elif isinstance(value, float):
        out(_shown(value))
    else:
        out("null")


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    return _ESCAPES.get(char) or f"\\u{ord(char):04X}"


def _shown(number: float) -> str:
    """A real with 17 digits: 0.1 is 0.10000000000000001, 3 is 3.0, 1e-05 is 1e-5."""
    digits, e, exponent = f"{number:.17g}".partition("e")
    if e:
        return f"{digits}e{int(exponent)}"
    return digits if "." in digits else f"{digits}.0"
