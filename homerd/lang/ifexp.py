"""The small expression language of `#!ifexp` and `#!defexp`, over the names that are defined.

Numbers compare, a non-empty string is true, an undefined name is 0, one defined without value is 1.
Operators, loosest first: `||`, `&&`, comparisons, `+ -`, `* / %`, unary `! -`, parentheses.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

Value = int | str

_TOKEN = re.compile(
    r"\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)'|([A-Za-z_]\w*)|(\|\||&&|[=!<>]=|[-+*/%!<>()]))"
)
_LEVELS: list[dict[str, Callable[[Value, Value], Value]]] = [
    {"||": lambda a, b: int(_true(a) or _true(b))},
    {"&&": lambda a, b: int(_true(a) and _true(b))},
    {
        "==": lambda a, b: int(str(a) == str(b)),
        "!=": lambda a, b: int(str(a) != str(b)),
        "<": lambda a, b: int(_number(a) < _number(b)),
        ">": lambda a, b: int(_number(a) > _number(b)),
        "<=": lambda a, b: int(_number(a) <= _number(b)),
        ">=": lambda a, b: int(_number(a) >= _number(b)),
    },
    {"+": lambda a, b: _plus(a, b), "-": lambda a, b: _number(a) - _number(b)},
    {
        "*": lambda a, b: operator.mul(_number(a), _number(b)),
        "/": lambda a, b: _divide(_number(a), _number(b)),
        "%": lambda a, b: _number(a) - _number(b) * _divide(_number(a), _number(b)),
    },
]


def evaluate(text: str, defines: Mapping[str, str]) -> Value:
    """The value of *text*; ValueError says what cannot be read."""
    tokens: list[tuple[str, Value]] = []
    text = text.strip()
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"cannot read the expression at {text[position:]!r}")
        position = found.end()
        digits, double, single, name, symbol = found.groups()
        if digits is not None:
            tokens.append(("value", int(digits)))
        elif double is not None or single is not None:
            tokens.append(("value", double if double is not None else single))
        elif name is not None:
            tokens.append(("value", _defined(name, defines)))
        else:
            tokens.append((symbol, 0))
    reader = _Parser(tokens)
    value = reader.level(0)
    if reader.index != len(tokens):
        raise ValueError(f"the expression {text!r} goes on where it should end")
    return value


class _Parser:
    def __init__(self, tokens: list[tuple[str, Value]]) -> None:
        self.tokens = tokens
        self.index = 0

    def level(self, depth: int) -> Value:
        if depth == len(_LEVELS):
            return self.unary()
        value = self.level(depth + 1)
        while self.index < len(self.tokens) and self.tokens[self.index][0] in _LEVELS[depth]:
            apply = _LEVELS[depth][self.tokens[self.index][0]]
            self.index += 1
            value = apply(value, self.level(depth + 1))
        return value

    def unary(self) -> Value:
        if self.index >= len(self.tokens):
            raise ValueError("the expression ends too early")
        kind, value = self.tokens[self.index]
        self.index += 1
        if kind == "value":
            return value
        if kind == "!":
            return int(not _true(self.unary()))
        if kind == "-":
            return -_number(self.unary())
        if kind == "(":
            value = self.level(0)
            if self.index >= len(self.tokens) or self.tokens[self.index][0] != ")":
                raise ValueError("a parenthesis is not closed")
            self.index += 1
            return value
        raise ValueError(f'"{kind}" cannot stand here')


def _defined(name: str, defines: Mapping[str, str]) -> Value:
    value = defines.get(name)
    if value is None:
        return 0
    value = value.strip()
    if not value:
        return 1
    if value.isdigit():
        return int(value)
    return value.strip("\"'")


def _true(value: Value) -> bool:
    return value > 0 if isinstance(value, int) else bool(value)


def _number(value: Value) -> int:
    if isinstance(value, int):
        return value
    return int(value) if value.isdigit() else 0


def _plus(left: Value, right: Value) -> Value:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return f"{left}{right}"


def _divide(left: int, right: int) -> int:
    if not right:
        raise ValueError("division by zero")
    return int(left / right)
