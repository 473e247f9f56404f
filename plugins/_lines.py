"""InfluxDB's line protocol, and arguments that name what they hold.

    line = measurement { "," tag "=" value } " " field "=" value { "," … } " " time

A measurement escapes comma and blank, tags and field keys also "=", a string field the quote and
the backslash.  No two parsers agree on what a backslash before one of those is, so that a tag has
"/" in its place; and none takes a line end, which becomes a blank.
Source: docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NULL = "<null>"  # what a pseudo-variable without a value prints as
OTHER = "other"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SPECIAL = re.compile(r"[,= ]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.A)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}i", re.A)
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")

FieldValue = str | int | float | bool


class BadPart(ValueError):
    """An argument that says nothing that could be written; the reason labels a counter."""


@dataclass(slots=True)
class Named:
    """What `"#method=$rm", "value=1", "from=\\"$fu\\"", "@$var(micros)"` say.

    tags: `#name=value`.  fields: `name=value`, the value a number, `5i`, true, false or `"text"`.
    micros: `@…`, None without.  What has no value is left out.
    """

    tags: list[tuple[str, str]] = field(default_factory=list)
    fields: dict[str, FieldValue] = field(default_factory=dict)
    micros: int | None = None


def named(parts: tuple[str, ...]) -> Named:
    """Read arguments, each split at its first "="; raises BadPart."""
    found = Named()
    for part in parts:
        if part.startswith("@"):
            if not part[1:].isdecimal() or len(part) > 17:
                raise BadPart("bad_time")
            found.micros = int(part[1:])
            continue
        name, equals, value = part.partition("=")
        is_tag = name.startswith("#")
        name = name[1:] if is_tag else name
        if not equals or not name.strip():
            raise BadPart("no_name")
        if is_tag:
            if value and value != NULL:
                found.tags.append((name, value))
        elif value and value not in (NULL, f'"{NULL}"'):
            found.fields[name] = _field(value)
    return found


def _field(value: str) -> FieldValue:
    if value[0] == '"' and value[-1] == '"' and len(value) > 1:
        return value[1:-1]
    if _INTEGER.fullmatch(value):
        whole = int(value[:-1])
        if -(1 << 63) <= whole < 1 << 63:
            return whole
    elif _NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
        return number
    elif value in _TRUE:
        return True
    elif value in _FALSE:
        return False
    raise BadPart("bad_field")


def key_of(measurement: str, tags: list[tuple[str, str]]) -> str:
    """The part of a line before its fields; a tag that comes twice counts once."""
    text = _plain(measurement)
    if text.startswith("#"):  # would make the line a comment
        text = f"_{text[1:]}"
    text = text.replace(",", "\\,").replace(" ", "\\ ")
    return text + "".join(f",{_tag(name)}={_tag(value)}" for name, value in dict(tags).items())


def line(key: str, fields: dict[str, FieldValue], micros: int) -> str:
    """A point; numbers without i are floats."""
    shown = ",".join(f"{_tag(name)}={_shown(value)}" for name, value in fields.items())
    return f"{key} {shown} {micros}"


def _tag(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", _plain(text))


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", text).replace("\\", "/")


def _shown(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    text = _CONTROL.sub(" ", value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
