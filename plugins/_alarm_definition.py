"""What an alarm is defined as: `NAME=>window=60;raise=20;clear=5;…;description=…`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from homerd_plugins._alarm_event import SEVERITIES

COUNT, MEAN, LAST = "count", "mean", "last"
_OF = (COUNT, MEAN, LAST)
HIGH, LOW = "high", "low"
_FORM = 'expected "NAME=>window=60;raise=20;clear=5;description=…"'
_DAY = 86_400

# attribute -> least and most of a whole number
_NUMBERS = {
    "window": (1, _DAY),
    "hold": (0, 30 * _DAY),
    "pause": (0, 30 * _DAY),
    "repeat": (0, 30 * _DAY),
    "forget": (0, 365 * _DAY),
    "samples": (1, 1_000_000),
    "keys": (1, 1_000_000),
    "evidence": (0, 1000),
    "whole": (0, 1000),
}
_WORDS = ("of", "when", "raise", "clear", "severity", "notify", "expect", "description")


@dataclass(frozen=True, slots=True)
class Definition:
    """An alarm as the script defines it.

    of: what is held against the thresholds: the count, or the mean or the last of values.
    raise_at, clear_at: where it is raised and where it has cleared; it falls, raised from below,
    when clear_at is the higher one.
    hold: seconds it stays raised at least.  pause: seconds until it may be raised again.
    repeat: seconds after which it is told again while it is raised; 0 never.
    notify: names of targets; None for all of them.
    samples: fewest values in the window that say anything.
    keys: most keys it knows; what comes then is one key of its own.
    expect: keys a falling alarm knows from the start.  forget: seconds after which a falling alarm
    gives up on a key that has gone silent; 0 never.
    evidence, whole: packets kept of each key, and how many of them whole.
    """

    name: str
    raise_at: int | float
    clear_at: int | float
    of: str = COUNT
    window: int = 60
    hold: int = 0
    pause: int = 0
    repeat: int = 0
    severity: str = "warning"
    notify: tuple[str, ...] | None = None
    samples: int = 1
    keys: int = 10_000
    expect: tuple[str, ...] = ()
    forget: int = _DAY
    evidence: int = 20
    whole: int = 3
    description: str = ""

    @property
    def falls(self) -> bool:
        """Whether it is raised when the value is low."""
        return self.clear_at > self.raise_at

    @classmethod
    def from_script(cls, value: str | int) -> Definition:
        """Read modparam's value; ValueError says what is wrong with it."""
        name, arrow, rest = str(value).partition("=>")
        name = name.strip()
        if not arrow or not is_name(name):
            raise ValueError(
                f'{_FORM}, the name of letters, digits, "_", "-" and ".", got "{value}"'
            )
        try:
            return cls._of(name, _attributes(rest))
        except ValueError as error:
            raise ValueError(f'alarm "{name}": {error}') from None

    @classmethod
    def _of(cls, name: str, told: dict[str, str]) -> Definition:
        if "raise" not in told:
            raise ValueError("raise= is missing, the value it is raised at")
        numbers = {key: _whole(key, told[key]) for key in _NUMBERS if key in told}
        raise_at = _number("raise", told["raise"])
        clear_at = _number("clear", told["clear"]) if "clear" in told else raise_at / 2
        of = _one_of("of", told.get("of", COUNT), _OF)
        _check_way(told, raise_at, clear_at)
        made = cls(
            name,
            raise_at,
            clear_at,
            of,
            severity=_one_of("severity", told.get("severity", "warning"), SEVERITIES),
            notify=_names(told["notify"]) if "notify" in told else None,
            expect=_names(told.get("expect", "")),
            description=told.get("description", ""),
            **numbers,  # type: ignore[arg-type]  # all of them whole numbers
        )
        if of == COUNT and not made.falls and raise_at < 1:
            raise ValueError(
                f"raise={told['raise']} would always be so: a count is raised from 1 on"
            )
        if of == COUNT and made.falls and raise_at < 0:
            raise ValueError(f"raise={told['raise']} is never reached: no count is below 0")
        if raise_at == clear_at:
            raise ValueError(f"raise and clear are both {told['raise']}: clear= has to be another")
        if made.expect and not made.falls:
            raise ValueError("expect= is for an alarm that falls, whose clear= is above its raise=")
        if of == COUNT and "samples" in told:
            raise ValueError("samples= is for of=mean and of=last")
        return made


def is_name(text: str) -> bool:
    """Whether an alarm or a target can be called *text*."""
    return (
        text.isascii() and text.replace("-", "").replace(".", "").isidentifier() and len(text) < 51
    )


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """That there is no *name*, what may have been meant, and which there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    meant = f': did you mean "{near[0]}"?' if near else ""
    told = f"defined: {', '.join(names)}" if names else "none is defined"
    return f'unknown {what} "{name}"{meant} ({told})'


def _attributes(rest: str) -> dict[str, str]:
    """The attributes by name; description comes last and may hold anything."""
    found: dict[str, str] = {}
    head, mark, description = rest.partition("description=")
    if mark and head.rstrip()[-1:] in ("", ";"):
        found["description"] = description.strip().rstrip(";").strip()
        rest = head
    for piece in filter(str.strip, rest.split(";")):
        key, equals, text = piece.partition("=")
        key = key.strip()
        if not equals or (key not in _NUMBERS and key not in _WORDS):
            raise ValueError(unknown("attribute", key, [*_NUMBERS, *_WORDS]))
        if key in found:
            raise ValueError(f"{key}= is there twice")
        found[key] = text.strip()
    return found


def _check_way(told: dict[str, str], raise_at: float, clear_at: float) -> None:
    """That an alarm which says when it is raised has its thresholds in that order."""
    if "when" not in told:
        return
    when = _one_of("when", told["when"], (HIGH, LOW))
    if when == LOW and clear_at <= raise_at:
        raise ValueError(f"when=low needs a clear= above raise={told['raise']}")
    if when == HIGH and clear_at >= raise_at:
        raise ValueError(f"when=high needs a clear= below raise={told['raise']}, or none")


def _whole(key: str, text: str) -> int:
    least, most = _NUMBERS[key]
    if not text.isdecimal() or not text.isascii() or not least <= int(text[:12]) <= most:
        raise ValueError(f'{key}= takes a number from {least} to {most}, got "{text}"')
    return int(text)


def _number(key: str, text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{key}= takes a number, got "{text}"')
    return int(number) if number.is_integer() else number


def _one_of(key: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ValueError(f'{key}= takes one of {", ".join(known)}, got "{text}"')
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
