"""statistics: counters of the script, read and set as `$stat(name)`.

A counter is declared, or named `group:name` and made when it is first counted (the OpenSIPS way);
of the latter, whose names may come from the network, there are MOST_NAMES at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from homerd.api import (
    ModParam,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    ScriptFunction,
    Worker,
    Writable,
    hookimpl,
    script_function,
)

MOST_NAMES = 10_000

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Variable:
    """`name` or `name/no_reset`."""

    name: str
    keeps: bool = False

    @staticmethod
    def from_script(value: str | int) -> Variable:
        name, slash, flag = (part.strip() for part in str(value).partition("/"))
        if not name or (slash and flag != "no_reset"):
            raise ValueError(f'expected name or name/no_reset, got "{value}"')
        return Variable(name, flag == "no_reset")


class Statistics(Plugin):
    """Counters of the script."""

    name = "statistics"

    variable = ModParam(
        Variable,
        many=True,
        help="a counter: its name, and /no_reset when reset_stat() must not touch it",
    )
    stat_groups = ModParam(str, "", help="accepted: groups need no declaration")

    def __init__(self) -> None:
        self.refused = 0
        self._statistics: dict[str, int] = {}
        self._walks: dict[str, Iterator[tuple[str, int]]] = {}
        name = Parameter("name", ParameterKind.TEXT, convert=self._declared)
        amount = Parameter("amount", ParameterKind.TEXT, convert=_amount)
        self.words = (
            ScriptFunction(
                "update_stat",
                self._update,
                (name, amount),
                module=self.name,
                help='Add *amount* ("+1", "-1", "5") to a counter; -1 when it is not declared.'
                " `group:name` is made when it is first counted.",
            ),
            ScriptFunction(
                "reset_stat",
                self._reset,
                (name,),
                module=self.name,
                help="Set a counter to 0; -1 when it is not declared.",
            ),
        )

    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Begin the declared counters at 0."""
        self._statistics = worker.statistics
        for variable in self.variable:
            self._statistics.setdefault(variable.name, 0)

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Each counter, and how often a name came that there was no place for."""
        for name, value in list(self._statistics.items()):
            yield "homerd_statistic", {"name": name}, value
        yield "homerd_statistics_refused_total", {}, self.refused

    @script_function
    def stat_iter_init(self, packet: Packet, group: str, walk: str) -> None:
        """Begin a walk over the counters of a group."""
        prefix = f"{group}:"
        found = [item for item in packet.state.statistics.items() if item[0].startswith(prefix)]
        self._walks[walk] = iter([(name.removeprefix(prefix), value) for name, value in found])

    @script_function
    def stat_iter_next(self, packet: Packet, key: Writable, value: Writable, walk: str) -> bool:
        """Put the next counter's name, without its group, and value into variables."""
        item = next(self._walks.get(walk, iter(())), None)
        if item is None:
            self._walks.pop(walk, None)
            return False
        key.set(packet, item[0])
        value.set(packet, item[1])
        return True

    def _update(self, packet: Packet, name: str, amount: str | int) -> int:
        statistics = packet.state.statistics
        if name not in statistics and not self._may_make(name, len(statistics)):
            return -1
        number = amount if isinstance(amount, int) else _number(amount)
        statistics[name] = statistics.get(name, 0) + number
        return 1

    def _reset(self, packet: Packet, name: str) -> int:
        if name not in packet.state.statistics:
            return -1
        if not any(item.name == name and item.keeps for item in self.variable):
            packet.state.statistics[name] = 0
        return 1

    def _may_make(self, name: str, there: int) -> bool:
        if ":" not in name and all(item.name != name for item in self.variable):
            return False
        if there >= MOST_NAMES:
            self.refused += 1
            return False
        return True

    def _declared(self, value: str | int) -> str:
        name = str(value)
        if ":" not in name and all(item.name != name for item in self.variable):
            raise ValueError(
                f'unknown counter "{name}": declare it with'
                f' modparam("statistics", "variable", "{name}")'
            )
        return name


def _amount(value: str | int) -> int:
    if not isinstance(value, int) and _NUMBER.fullmatch(value.strip()) is None:
        raise ValueError(f'expected a number such as "+1", got "{value}"')
    return int(value)


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text.strip()) is not None else 0
