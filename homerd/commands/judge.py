"""What a case expected against what came of it.

An expected value is held against the text of the value that came, so that 486 and "486" are one;
null stands for NULL, and for an empty text.  `{matches: "…"}` is a regular expression for the whole
value (Python's), and the name of a table may have `*` in it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from homerd.errors import ConfigError


@dataclass(slots=True)
class Mismatch:
    """One expectation that did not come true, as lines to be shown against each other."""

    what: str
    expected: list[str]
    got: list[str]
    note: str = ""

    def lines(self) -> list[str]:
        """The two, line by line: "- " only expected, "+ " only got, "  " in both."""
        shown = [
            line for line in difflib.ndiff(self.expected, self.got) if not line.startswith("?")
        ]
        return shown + self.note.rstrip("\n").split("\n") if self.note else shown


def compare(expect: Mapping[str, Any], got: Mapping[str, Any]) -> list[Mismatch]:
    """Everything that is not as expected; what is not expected is not looked at.

    But for errors of the script: those are wrong unless they are expected.
    """
    unknown = sorted(set(map(str, expect)) - set(_JUDGES) - {"load"})
    if unknown:
        raise ConfigError(
            f'expect: unknown key "{unknown[0]}", expected one of {", ".join(sorted(_JUDGES))}'
        )
    if "errors" not in expect and "xlog" not in expect and "errors" in got:
        expect = {**expect, "errors": []}
    found: list[Mismatch] = []
    for key, judge in _JUDGES.items():
        if key in expect and key in got:
            found += judge(key, expect[key], got[key])
    return found


def _log(key: str, expected: Any, got: Sequence[Mapping[str, str]]) -> list[Mismatch]:
    """Lines; an expected one may name its level: {level: WARNING, text: "…"}."""
    wanted = expected if isinstance(expected, list) else str(expected).splitlines()
    levelled = any(isinstance(item, Mapping) and "level" in item for item in wanted)

    def shown(line: Mapping[str, str]) -> str:
        return f"{line['level']}: {line['text']}" if levelled else line["text"]

    def fits(item: Any, line: Mapping[str, str]) -> bool:
        if isinstance(item, Mapping):
            if item.get("level", line["level"]) != line["level"]:
                return False
            item = item.get("text", {"matches": item["matches"]} if "matches" in item else "")
        return _fits(item, line["text"])

    def told(item: Any) -> str:
        if not isinstance(item, Mapping):
            return f"*: {item}" if levelled else str(item)
        text = item.get("text", item.get("matches", ""))
        return f"{item.get('level', '*')}: {text}" if levelled else str(text)

    if len(wanted) == len(got) and all(map(fits, wanted, got)):
        return []
    # A line that fits is shown as it came, so that the difference is only what is wrong.
    left = [
        shown(got[at]) if at < len(got) and fits(item, got[at]) else told(item)
        for at, item in enumerate(wanted)
    ]
    return [Mismatch(key, left, [shown(line) for line in got])]


def _texts(key: str, expected: Any, got: Sequence[Any]) -> list[Mismatch]:
    wanted = expected if isinstance(expected, list) else [expected]
    if key == "udp":
        wanted, got = sorted(wanted, key=str), sorted(got)
        got = [text.rstrip("\n") for text in got]
        wanted = [text.rstrip("\n") if isinstance(text, str) else text for text in wanted]
    if key in ("result", "route") and not isinstance(expected, list):
        wanted = [expected] * max(1, len(got))
    if len(wanted) == len(got) and all(map(_fits, wanted, got)):
        return []
    left = [
        str(got[at]) if at < len(got) and _fits(item, got[at]) else _told(item)
        for at, item in enumerate(wanted)
    ]
    return [Mismatch(key, left, [str(item) for item in got])]


def _rows(
    key: str, expected: Any, got: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Mismatch]:
    """By table: rows in their order, each with the columns that matter; or how many there are."""
    found: list[Mismatch] = []
    for table, told in expected.items():
        rows = [row for name in sorted(got) if fnmatchcase(name, table) for row in got[name]]
        what = f"{key} of {table}"
        if isinstance(told, int):
            if len(rows) != told:
                found.append(Mismatch(what, [f"{told} rows"], [f"{len(rows)} rows", *sorted(got)]))
            continue
        wanted = _wanted_rows(told)
        columns = list(dict.fromkeys(name for row in wanted for name in row))
        if len(rows) == len(wanted) and all(map(_holds, wanted, rows)):
            continue
        left, right = [], []
        for at in range(max(len(wanted), len(rows))):
            want = wanted[at] if at < len(wanted) else None
            have = rows[at] if at < len(rows) else None
            left += _row_lines(at, want, have, list(want or ()))
            right += _row_lines(at, have, None, list(want) if want is not None else columns)
        note = "" if rows else f"rows came into: {', '.join(sorted(got)) or 'no table'}"
        found.append(Mismatch(what, left, right, note))
    return found


def _wanted_rows(told: Any) -> list[Mapping[str, Any]]:
    """Rows as mappings, also from {columns: […], values: [[…], …]}."""
    if isinstance(told, Mapping) and set(told) == {"columns", "values"}:
        return [dict(zip(told["columns"], row, strict=True)) for row in told["values"]]
    rows = told if isinstance(told, list) else [told]
    if not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError("expect: rows: expected mappings of columns, or a number of rows")
    return rows


def _row_lines(
    at: int, row: Mapping[str, Any] | None, came: Mapping[str, Any] | None, columns: Sequence[str]
) -> list[str]:
    """One line a column; where *came* fits, what came is shown."""
    if row is None:
        return []
    lines = [f"row {at + 1}"]
    for name in columns:
        value = row.get(name, "(no such column)")
        if came is not None and name in came and _fits(value, came[name]):
            value = came[name]
        lines.append(f"  {name}: {_told(value)}")
    return lines


def _sent(key: str, expected: Any, got: Mapping[str, Sequence[str]]) -> list[Mismatch]:
    """By sink: texts in their order."""
    found: list[Mismatch] = []
    for sink, told in expected.items():
        texts = [text for name in sorted(got) if fnmatchcase(name, sink) for text in got[name]]
        for mismatch in _texts(key, told, texts):
            note = "" if texts else f"sent by: {', '.join(sorted(got)) or 'nothing'}"
            found.append(Mismatch(f"{key} of {sink}", mismatch.expected, mismatch.got, note))
    return found


def _effects(key: str, expected: Any, got: Sequence[Mapping[str, Any]]) -> list[Mismatch]:
    wanted = expected if isinstance(expected, list) else [expected]
    if len(wanted) == len(got) and all(map(_holds, wanted, got)):
        return []
    return [Mismatch(key, [_told(item) for item in wanted], [_told(item) for item in got])]


def _metrics(key: str, expected: Any, got: Mapping[str, float]) -> list[Mismatch]:
    found = []
    for name, value in expected.items():
        if name not in got or float(got[name]) != float(value):
            came = f"{name} {got[name]:g}" if name in got else "(no such metric)"
            found.append(Mismatch(key, [f"{name} {float(value):g}"], [came]))
    return found


def _codes(key: str, expected: Any, got: Sequence[str]) -> list[Mismatch]:
    wanted = sorted(map(str, expected if isinstance(expected, list) else [expected]))
    return [] if wanted == list(got) else [Mismatch(key, wanted, list(got))]


_JUDGES: dict[str, Callable[[str, Any, Any], list[Mismatch]]] = {
    "diagnostics": _codes,
    "log": _log,
    "xlog": _texts,
    "rows": _rows,
    "udp": _texts,
    "sent": _sent,
    "effects": _effects,
    "metrics": _metrics,
    "result": _texts,
    "route": _texts,
    "errors": _texts,
}


def _holds(wanted: Any, got: Any) -> bool:
    """Whether *got* has everything that *wanted* names, in depth."""
    if isinstance(wanted, Mapping) and not _is_pattern(wanted):
        if not isinstance(got, Mapping):
            return False
        return all(key in got and _holds(value, got[key]) for key, value in wanted.items())
    return _fits(wanted, got)


def _fits(wanted: Any, got: Any) -> bool:
    if _is_pattern(wanted):
        return re.fullmatch(str(wanted["matches"]), _text(got), re.DOTALL) is not None
    return _text(wanted) == _text(got)


def _is_pattern(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"matches"}


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def _told(value: Any) -> str:
    if _is_pattern(value):
        return f"matches {value['matches']}"
    return _text(value) if not isinstance(value, Mapping) else str(dict(value))
