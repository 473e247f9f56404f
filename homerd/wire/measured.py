"""Measured values out of text that others wrote: numbers within their range, or a fault.

A fault is a pair (field, fault), of which a report keeps a list: what is wrong with one field says
nothing of the others, and what could be put right is one too.  Fields are those of a table, never
what a sender made up.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from homerd.errors import DecodeError

# What makes a field unknown.  number: no number.  range: outside what the field may hold.  doubled:
# twice, with different values.  missing: what every report must have.
# What is put right.  joined: no blank before the next.  sign: printed with a sign that it does not
# have, or without the one it has.  epoch: seconds since 1970 where NTP's are due.  count: not as
# many as there are.
CORRECTED = ("joined", "sign", "epoch", "count")
FAULTS = ("number", "range", "doubled", "missing", *CORRECTED)

Fault = tuple[str, str]

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})")


def number(
    value: object, field: str, low: float, high: float, faults: list[Fault]
) -> float | int | None:
    """*value*, a number or the text of one; None when it is neither, or not within *low*…*high*.

    Null and the empty text are what nobody measured: None, and no fault.
    """
    if type(value) is int and low <= value <= high:  # Hot path: 0.15 µs, all below 0.6
        return value
    if value is None or value == "":
        return None
    found: float | int | None = None
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdecimal() and len(text) < 19:
            found = int(text)
        elif _NUMBER.fullmatch(text):
            found = float(text) if "." in text else int(text)
    elif isinstance(value, float):
        found = value if isfinite(value) else None
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    if found is None:
        faults.append((field, "number"))
        return None
    if not low <= found <= high:
        faults.append((field, "range"))
        return None
    return found


def whole(value: object, field: str, low: int, high: int, faults: list[Fault]) -> int | None:
    """The same as an integer; what stands behind a decimal point is cut off."""
    if type(value) is int and low <= value <= high:
        return value
    found = number(value, field, low, high, faults)
    return None if found is None else int(found)


_raw_decode = json.JSONDecoder().raw_decode


def json_object(data: bytes, reason: str) -> dict[str, Any]:
    """The JSON object that *data* is; raises DecodeError with *reason*."""
    try:
        # Hot path: 3.8 µs, by json.loads 5.4, for it looks for UTF-16 and for blanks.
        if data[:2] == b'{"':
            text = data.decode("utf-8", "surrogatepass")
            found, end = _raw_decode(text)
            if end != len(text) and text[end:].strip(" \t\n\r"):
                raise DecodeError(reason)
        else:
            found = json.loads(data)
    except (ValueError, RecursionError):  # the second: nested without end
        raise DecodeError(reason) from None
    if not isinstance(found, dict):
        raise DecodeError(reason)
    return found
