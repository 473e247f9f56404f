"""Lists of variables that a function's results go to: `"$avp(a);$avp(b)"`, `"$var(x),$var(y)"`."""

from __future__ import annotations

import re
from collections.abc import Callable

from homerd.api import Packet, Value
from homerd_plugins import _avps
from homerd_plugins._sqlstores import Answer

_VARIABLE = re.compile(r"\$(?:\((?=.*\)\s*$))?(avp|var|xavp)\(\s*([^()$]+?)\s*\)\)?")


class Target:
    """A variable that can be written to; is_stack: it keeps older values below.

    text: as it was written.
    """

    __slots__ = ("is_stack", "set", "text")

    def __init__(self, text: str, set: Callable[[Packet, Value], None], is_stack: bool) -> None:
        self.text = text
        self.set = set
        self.is_stack = is_stack

    def __repr__(self) -> str:
        return self.text


class Targets(tuple[Target, ...]):
    """Variables in a constant text, parted by `;` or `,`."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> Targets:
        items = [item for item in re.split(r"[;,]", str(value)) if item.strip()]
        if not items:
            raise ValueError("expected variables such as $avp(a);$avp(b)")
        return Targets(map(target, items))


def target(text: str) -> Target:
    """`$avp(name)`, `$xavp(root=>key)` or `$var(name)`; raises ValueError for anything else."""
    found = _VARIABLE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'expected $avp(name), $xavp(root=>key) or $var(name), got "{text}"')
    kind, name = found[1], found[2]
    if kind == "var":
        return Target(text, lambda packet, value: _set_var(packet, name, value), False)
    if kind == "avp":
        plain = name.removeprefix("s:")
        return Target(
            text,
            lambda packet, value: _avps.write(_avps.stacks_of(packet), value, plain, None),
            True,
        )
    root, arrow, key = name.partition("=>")
    if not arrow:
        raise ValueError(f'expected $xavp(root=>key), got "{text}"')
    return Target(
        text,
        lambda packet, value: _avps.write_xavp(
            _avps.roots_of(packet, "xavp"), value, root, None, key, None
        ),
        True,
    )


def store_rows(packet: Packet, answer: Answer, targets: Targets) -> None:
    """The first row into variables; stacks get every row, the first on top."""
    for index, target in enumerate(targets[: len(answer.columns)]):
        for row in reversed(answer.rows) if target.is_stack else answer.rows[:1]:
            target.set(packet, row[index])


def _set_var(packet: Packet, name: str, value: Value) -> None:
    packet.variables[name] = 0 if value is None else value
