"""Python's `ast` in the few forms that generated code is made of."""

from __future__ import annotations

import ast
from typing import Any

PACKET = "p"  # the one argument of every function of a script


def name(word: str) -> ast.Name:
    """A name that is read."""
    return ast.Name(word, ast.Load())


def constant(value: Any) -> ast.Constant:  # str, int, bool or None
    """A constant of the language."""
    return ast.Constant(value)


def call(function: ast.expr, *arguments: ast.expr) -> ast.Call:
    """A call with positional arguments."""
    return ast.Call(function, list(arguments), [])


def assign(word: str, value: ast.expr) -> ast.Assign:
    """An assignment to a local variable."""
    return ast.Assign([ast.Name(word, ast.Store())], value)


def path(dotted: str) -> ast.expr:
    """`a.b.c` as attributes."""
    first, *rest = dotted.split(".")
    node: ast.expr = name(first)
    for word in rest:
        node = ast.Attribute(node, word, ast.Load())
    return node


def identifier(text: str) -> str:
    """*text* as a part of a Python name."""
    return "".join(char if char.isalnum() else "_" for char in text)


def placed(module: ast.Module) -> ast.Module:
    """*module* with every node placed: where its parent is, when nothing better was said.

    Does what ast.fix_missing_locations does in a third of its time, which counts in a reload.
    """
    for statement in module.body:
        _place(statement, (1, 0, 1, 0))
    return module


def _place(node: ast.AST, at: tuple[int, int, int, int]) -> None:
    if node._attributes:
        if hasattr(node, "lineno"):
            at = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        else:
            node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = at  # type: ignore[attr-defined]
    for name in node._fields:
        value = getattr(node, name, None)
        if value.__class__ is list:
            for item in value:
                if isinstance(item, ast.AST):
                    _place(item, at)
        elif isinstance(value, ast.AST) and (value._attributes or value._fields):
            _place(value, at)
