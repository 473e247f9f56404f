"""Text with pseudo-variables in it: `"call $ci from $(fu{uri.user})"` as pieces.

    reference = "$" name [ "(" argument ")" ]
              | "$(" name [ "(" argument ")" ] [ "[" index "]" ] { "{" transformation "}" } ")"

`$$` is a dollar.  In a string a name may hold `.` and `?` (`$err.class`), so `"$rU."` names `rU.`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from homerd.lang.lexer import matching
from homerd.lang.vocabulary import PseudoVariable, Transformation

_NAME = re.compile(r"[A-Za-z0-9_.?]+")


class TextError(ValueError):
    """Text that cannot be read; start and end are offsets in it."""

    def __init__(self, message: str, start: int, end: int, help: str = "") -> None:
        super().__init__(message)
        self.start = start
        self.end = end
        self.help = help


@dataclass(slots=True)
class Applied:
    """One `{name,argument}` behind a pseudo-variable; offsets are in the whole text."""

    name: str
    argument: str
    start: int
    argument_start: int
    transformation: Transformation | None = None  # bound
    bound: tuple[object, ...] = ()  # bound: constants and Texts


@dataclass(slots=True)
class Reference:
    """One pseudo-variable as used; start and end are offsets in the whole text."""

    name: str
    argument: Text | None
    index: Text | None
    transformations: list[Applied]
    start: int
    end: int
    variable: PseudoVariable | None = None  # bound
    bound: tuple[object, ...] = ()  # bound: constants and Texts


@dataclass(slots=True)
class Text:
    """Constant pieces and References in turn; source is the text as written."""

    source: str
    parts: list[str | Reference] = field(default_factory=list)
    offset: int = 0

    @property
    def constant(self) -> str | None:
        """The text when no pseudo-variable is in it, else None."""
        if not self.parts:
            return ""
        if len(self.parts) == 1 and isinstance(self.parts[0], str):
            return self.parts[0]
        return None

    @property
    def references(self) -> list[Reference]:
        """The pseudo-variables in it, not those inside their arguments."""
        return [part for part in self.parts if isinstance(part, Reference)]

    def partition(self, separator: str) -> tuple[Text, bool, Text]:
        """What stands before and behind the first *separator* in a constant piece."""
        for index, part in enumerate(self.parts):
            if isinstance(part, str) and separator in part:
                before, _, behind = part.partition(separator)
                left = [*self.parts[:index], *([before] if before else [])]
                right = [*([behind] if behind else []), *self.parts[index + 1 :]]
                cut = self.source.find(separator)
                head, tail = self.source[:cut], self.source[cut + len(separator) :]
                start = self.offset + cut + len(separator)
                return Text(head, left, self.offset), True, Text(tail, right, start)
        return self, False, Text("")

    def strip(self) -> Text:
        """Without blanks at its ends."""
        parts = list(self.parts)
        if parts and isinstance(parts[0], str):
            parts[0] = parts[0].lstrip()
        if parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
        return Text(self.source.strip(), [part for part in parts if part != ""], self.offset)


def parse_text(source: str, offset: int = 0) -> Text:
    """Read a string as functions expand it; raises TextError with offsets in the whole text."""
    text = Text(source, offset=offset)
    position = 0
    constant = ""
    while True:
        dollar = source.find("$", position)
        if dollar < 0:
            constant += source[position:]
            break
        constant += source[position:dollar]
        if source.startswith("$$", dollar):
            constant += "$"
            position = dollar + 2
            continue
        reference, position = _reference(source, dollar, offset)
        if constant:
            text.parts.append(constant)
            constant = ""
        text.parts.append(reference)
    if constant:
        text.parts.append(constant)
    return text


def parse_reference(source: str) -> Reference:
    """Read exactly one pseudo-variable, as it stands outside of strings."""
    reference, end = _reference(source, 0, 0)
    if end != len(source):
        raise TextError("more than one pseudo-variable", end, len(source))
    return reference


def first_reference(source: str) -> Text:
    """The pseudo-variable a string begins with, alone; the whole text when it begins otherwise."""
    if source.startswith("$") and not source.startswith("$$"):
        reference, end = _reference(source, 0, 0)
        return Text(source[:end], [reference])
    return parse_text(source)


def _reference(source: str, start: int, offset: int) -> tuple[Reference, int]:
    """The reference whose dollar is at *start*, and where it ends."""
    if source.startswith("$(", start):
        end = matching(source, start + 1)
        if end < 0:
            raise TextError("a parenthesis is never closed", offset + start, offset + len(source))
        return _parenthesised(source, start, end, offset), end + 1
    found = _NAME.match(source, start + 1)
    if found is None:
        raise TextError(
            "a lone $", offset + start, offset + start + 1, "write $$ for the character itself"
        )
    end = found.end()
    argument = None
    if end < len(source) and source[end] == "(":
        closing = matching(source, end)
        if closing < 0:
            raise TextError("a parenthesis is never closed", offset + end, offset + len(source))
        argument = parse_text(source[end + 1 : closing], offset + end + 1)
        end = closing + 1
    return Reference(found.group(), argument, None, [], offset + start, offset + end), end


def _parenthesised(source: str, start: int, end: int, offset: int) -> Reference:
    """`$(…)` whose parentheses stand at start + 1 and end."""
    found = _NAME.match(source, start + 2)
    if found is None:
        raise TextError("expected a name after $(", offset + start, offset + start + 2)
    position = found.end()
    argument = index = None
    if source[position] == "(":
        closing = matching(source, position, end)
        if closing < 0:
            raise TextError("a parenthesis is never closed", offset + position, offset + end)
        argument = parse_text(source[position + 1 : closing], offset + position + 1)
        position = closing + 1
    if source[position] == "[":
        closing = matching(source, position, end)
        if closing < 0:
            raise TextError("a bracket is never closed", offset + position, offset + end)
        index = parse_text(source[position + 1 : closing], offset + position + 1)
        position = closing + 1
    transformations: list[Applied] = []
    while source[position] == "{":
        closing = matching(source, position, end)
        if closing < 0:
            raise TextError("a brace is never closed", offset + position, offset + end)
        inner = source[position + 1 : closing]
        name, _, rest = inner.partition(",")
        behind = offset + position + 1 + len(name) + 1
        transformations.append(Applied(name.strip(), rest, offset + position + 1, behind))
        position = closing + 1
    if position != end:
        raise TextError(
            f"cannot read {source[position:end]!r} in a pseudo-variable",
            offset + position,
            offset + end,
        )
    return Reference(
        found.group(), argument, index, transformations, offset + start, offset + end + 1
    )
