"""What stands in the parentheses of a pseudo-variable, as its bound values."""

from __future__ import annotations

from collections.abc import Mapping

from homerd.api import Text
from homerd_plugins import _avps


def name_only(argument: Text | None, index: Text | None) -> str:
    """A constant name; its ValueError is the diagnostic."""
    if argument is None:
        raise ValueError("expected a name in parentheses")
    if index is not None:
        raise ValueError("it takes no index")
    return argument.source


def text(argument: Text | None) -> tuple[object, ...]:
    """Text, constant or with pseudo-variables."""
    if argument is None:
        raise ValueError("expected text in parentheses")
    return (argument if argument.constant is None else argument.constant,)


def header(argument: Text | None, index: Text | None) -> tuple[object, ...]:
    """A header's name and which of them."""
    if argument is None:
        raise ValueError("expected a header's name in parentheses")
    name = argument.constant
    return (argument if name is None else name.strip(), _avps.bind_index(index))


def one_of(
    known: Mapping[str, object], argument: Text | None, index: Text | None
) -> tuple[object, ...]:
    """What a word of a fixed list stands for."""
    word = name_only(argument, index).strip()
    if word not in known:
        raise ValueError(f'expected {", ".join(known)}, got "{word}"')
    return (known[word],)
