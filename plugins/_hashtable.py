"""A table of htable: its definition, its items, walks over them, searches in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from homerd.api import PosixPattern, Table, compile_posix

_MOST_PATTERNS = 256

_NUMBERS = frozenset({"size", "autoexpire", "initval", "updateexpire", "dbmode", "dmqreplicate"})
_TEXTS = frozenset({"dbtable", "cols", "coldelim", "colnull", "initstr"})


@dataclass(frozen=True, slots=True)
class Definition:
    """`NAME=>size=8;autoexpire=60;initval=0`.

    initial: what a missing key reads as; None for null.  renew: whether writing starts a new life.
    bits: size as written, 0 when it is not: 2 to that power are Kamailio's slots.  text: all of it.
    """

    name: str
    expire_seconds: int = 0
    initial: str | int | None = None
    renew: bool = True
    # What a table holds does not depend on these: changing them alone is no change.
    bits: int = field(default=0, compare=False)
    text: str = field(default="", compare=False)

    @staticmethod
    def from_script(value: str | int) -> Definition:
        name, arrow, rest = str(value).partition("=>")
        name = name.strip()
        if not name or "=" in name or ";" in name:
            raise ValueError(f'expected NAME=>size=N;autoexpire=SECONDS, got "{value}"')
        found: dict[str, str] = {}
        for piece in filter(str.strip, rest.split(";") if arrow else ()):
            key, equals, text = piece.partition("=")
            key, text = key.strip(), text.strip()
            if key not in _NUMBERS | _TEXTS or not equals:
                known = ", ".join(sorted(_NUMBERS | _TEXTS))
                raise ValueError(f'table "{name}": unknown attribute "{key}", expected {known}')
            if key in _NUMBERS and not text.removeprefix("-").isdigit():
                raise ValueError(f'table "{name}": {key} takes a number, got "{text}"')
            found[key] = text
        initial = found.get("initstr") or (int(found["initval"]) if "initval" in found else None)
        return Definition(
            name,
            max(0, int(found.get("autoexpire", "0"))),
            initial,
            found.get("updateexpire", "1") != "0",
            int(found.get("size", "0")),
            str(value),
        )


class HashTable(Table[str | int]):
    """A table with what it was defined as."""

    __slots__ = ("initial", "name")

    def __init__(self, definition: Definition, clock: Callable[[], float]) -> None:
        super().__init__(clock, expire_seconds=definition.expire_seconds, renew=definition.renew)
        self.name = definition.name
        self.initial = definition.initial


class Walk:
    """A walk over the items a table had when it began."""

    __slots__ = ("current", "items", "table")

    def __init__(self, table: HashTable) -> None:
        self.table = table
        self.items: Iterator[tuple[str, str | int]] = iter(table.items())
        self.current: tuple[str, str | int] | None = None

    def advance(self) -> bool:
        """Go to the next item that is still there."""
        for key, _ in self.items:
            value = self.table.get(key)
            if value is not None:
                self.current = (key, value)
                return True
        self.current = None
        return False


class Matcher:
    """Tests of keys and values; regular expressions are remembered."""

    def __init__(self) -> None:
        self._patterns: dict[str, PosixPattern | None] = {}

    def pattern(self, expression: str) -> PosixPattern | None:
        """A compiled expression, remembered; None for a bad one."""
        known = self._patterns
        if expression not in known:
            if len(known) >= _MOST_PATTERNS:
                known.clear()
            try:
                known[expression] = compile_posix(expression)
            except ValueError:
                known[expression] = None
        return known[expression]

    def test(self, operator: str, text: str) -> Callable[[str], bool] | None:
        """What an operator asks of a text; None for an unknown operator or a bad expression."""
        match operator:
            case "eq":
                return lambda value: value == text
            case "ne":
                return lambda value: value != text
            case "sw":
                return lambda value: value.startswith(text)
            case "ew":
                return lambda value: value.endswith(text)
            case "in":
                return lambda value: text in value
            case "re":
                pattern = self.pattern(text)
                return None if pattern is None else pattern.search
        return None

    def count(self, texts: Iterable[str], wanted: str) -> int:
        """How many texts match: `~%` and an end, `%~` and a beginning, else an expression."""
        if wanted.startswith("~%"):
            return sum(text.endswith(wanted[2:]) for text in texts)
        if wanted.startswith("%~"):
            return sum(text.startswith(wanted[2:]) for text in texts)
        pattern = self.pattern(wanted.removeprefix("~~"))
        return 0 if pattern is None else sum(map(pattern.search, texts))
