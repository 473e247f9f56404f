"""Words of the language as text for people: how they are written and what they do, in Markdown.

For the manual's pages and for editors alike.
"""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from typing import Any

from homerd.lang.vocabulary import (
    ModParam,
    ParameterKind,
    PseudoVariable,
    ScriptFunction,
    Transformation,
)

NO_EFFECT = "accepted"  # how the help of a word begins that is there for the scripts' sake alone

_KINDS = {
    ParameterKind.TEXT: "text",
    ParameterKind.NUMBER: "number",
    ParameterKind.VALUE: "any value",
    ParameterKind.FORMAT: "text in quotes",
    ParameterKind.PLAIN: "text as it is written, or an expression",
    ParameterKind.TEXT_OR_PV: "text, or a variable alone",
    ParameterKind.CONSTANT: "constant",
    ParameterKind.SUBSTITUTION: "substitution",
    ParameterKind.READABLE: "variable",
    ParameterKind.WRITABLE: "variable that can be assigned to",
}

Word = ScriptFunction | PseudoVariable | Transformation


def signature(word: Word) -> str:
    """How a word is written: `f(a, [b])`, `$pv(…)`, `{name,a}`."""
    if isinstance(word, ScriptFunction):
        parts = [item.name if item.required else f"[{item.name}]" for item in word.parameters]
        return f"{word.name}({', '.join(parts)}{', …' if word.variadic else ''})"
    if isinstance(word, PseudoVariable):
        return f"${word.name}" + ("(…)" if word.bind else "")
    return "{" + ",".join([word.name, *(item.name for item in word.parameters)]) + "}"


def word_text(word: Word) -> str:
    """A word's manual text in Markdown."""
    text = f"`{signature(word)}`\n\n{inspect.cleandoc(word.help)}\n"
    if isinstance(word, ScriptFunction) and word.parameters:
        text += f"\n{parameters_text(word)}\n"
    if isinstance(word, PseudoVariable) and word.writable:
        text += "\nCan be assigned to.\n"
    return text + (f"\nModule `{word.module}`.\n" if word.module else "")


def param_text(module: str, param: ModParam, example: object = None) -> str:
    """A module parameter's manual text in Markdown."""
    return f"`{param_line(module, param, example)}`\n\n{param.help}\n\n{kind_of(param)}\n"


def param_line(module: str, param: ModParam, example: object = None) -> str:
    """A modparam line as it could stand in a script."""
    value = example if example is not None else simple(param.default)
    if value is None or value == "":
        value = 1 if param.kind in ("int", "float", "bool") else "…"
    if isinstance(value, float) or not isinstance(value, int | str):
        value = str(value)
    shown = int(value) if isinstance(value, int) else '"{}"'.format(value.replace('"', '\\"'))
    return f'modparam("{module}", "{param.name}", {shown})'


def first_line(text: str) -> str:
    """The first line of a docstring."""
    return text.strip().split("\n")[0]


def parameters_text(word: ScriptFunction | Transformation) -> str:
    """What may stand for each parameter."""
    kinds = []
    for item in word.parameters:
        kind = "a route's name" if item.route else _KINDS[item.kind]
        if item.choices:
            kind = " or ".join(f'"{choice}"' for choice in item.choices)
        kinds.append(f"`{item.name}` {kind}{'' if item.required else ', may be left out'}")
    return "; ".join(kinds) + "."


def kind_of(param: ModParam) -> str:
    """What a modparam line gives it."""
    kind = {"int": "number", "float": "number", "bool": "0 or 1"}.get(param.kind, "text")
    return kind + (", several lines" if param.many else "")


def simple(value: object) -> Any:  # str, int, float or None
    """A default as a script would write it; None when it has none."""
    if isinstance(value, bool):
        return int(value)
    if is_dataclass(value) and not isinstance(value, type):
        values = [getattr(value, name) for name in value.__dataclass_fields__]
        return simple(values[0]) if len(values) == 1 else str(value)
    if isinstance(value, tuple | list):
        return "|".join(map(str, value))
    return value if isinstance(value, str | int | float) or value is None else str(value)


def has_no_effect(help: str) -> bool:
    """Whether a word is there for the scripts' sake alone, by its help."""
    return help.lower().startswith(NO_EFFECT)


def cell(text: object) -> str:
    """Text for a cell of a table."""
    return " ".join(prose(str(text)).split()).replace("|", "\\|")


def prose(text: str) -> str:
    """A docstring as Markdown: angle brackets outside of code are no tags."""
    pieces = inspect.cleandoc(text).split("`")
    return "`".join(
        piece if at % 2 else piece.replace("<", "&lt;") for at, piece in enumerate(pieces)
    )


def upper(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
