"""The whole contract between homerd and its plugins (pluggy project name "homerd").

A plugin is any object with some of these hooks; `homerd.api.Plugin` implements the declaring ones
from its decorators.  Hooks serve the cold path only: what they give is bound into the compiled
script as plain Python callables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from homerd.lang.vocabulary import ModParam, PseudoVariable, ScriptFunction, Transformation

if TYPE_CHECKING:
    from homerd.packet import Packet, RunState

hookspec = pluggy.HookspecMarker("homerd")
hookimpl = pluggy.HookimplMarker("homerd")


@dataclass(frozen=True, slots=True)
class Outline:
    """What a plugin may know of the script before it starts.

    routes: names of `route[...]`; events: of `event_route[...]`; ends: events that always `drop`.
    """

    routes: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    dropping_events: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a plugin finds wrong with the script as a whole.

    parameter or event: where to point, a modparam's name or an event route's.
    """

    message: str
    parameter: str = ""
    event: str = ""
    help: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class PacketPolicy:
    """What happens to a HEP packet before the script's main routes see it.

    accept_hep: False refuses every HEP packet (counted as `hep_off`).
    entry_event: an event route that sees each HEP packet first; only its result 1 goes on.
    handlers: HEP payload type -> what takes such a packet in place of the script.
    """

    accept_hep: bool = True
    entry_event: str = ""
    handlers: dict[int, Callable[[Packet], None]] = field(default_factory=dict)


class Worker(Protocol):
    """What a plugin is given at start: one process with its loop, its sinks and its clock."""

    def add_sink(self, sink: Any) -> Any:
        """Start *sink* and return it; it is flushed and closed when the worker ends."""

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* each *seconds* of the script's clock; never overlapping itself."""

    def run_route(self, name: str, state: RunState | None = None) -> str:
        """Run `route[name]` on a faked OPTIONS; gives "drop", "exit", "return" or "end"."""

    def run_event(self, name: str) -> str:
        """The same for `event_route[name]`; "" when the script has none."""

    def new_state(self) -> RunState:
        """A RunState with `$var` of its own, for a timer."""

    def now(self) -> float:
        """Seconds since 1970 by the script's clock."""


class HookSpecs:
    """Every hook, when it is called and what it gives."""

    @hookspec
    def script_functions(self) -> Iterable[ScriptFunction]:  # type: ignore[empty-body]
        """At load: functions of the language."""

    @hookspec
    def pseudo_variables(self) -> Iterable[PseudoVariable]:  # type: ignore[empty-body]
        """At load: pseudo-variables of the language."""

    @hookspec
    def transformations(self) -> Iterable[Transformation]:  # type: ignore[empty-body]
        """At load: transformations of the language."""

    @hookspec
    def mod_params(self) -> Iterable[ModParam]:  # type: ignore[empty-body]
        """At load: parameters that `modparam` may set."""

    @hookspec
    def set_mod_param(self, name: str, value: object) -> None:
        """At load, for each modparam line of this module, in order; *value* is converted."""

    @hookspec
    def check_script(self, outline: Outline) -> Iterable[Problem]:  # type: ignore[empty-body]
        """After the script is compiled: what is wrong with it from this plugin's view."""

    @hookspec
    def configure(self, changed: frozenset[str]) -> None:
        """After all modparams, at start and on reload; raises ConfigError to refuse."""

    @hookspec
    def packet_policy(self) -> PacketPolicy | None:
        """After configure: what happens to HEP packets before the script."""

    @hookspec
    def startup(self, worker: Worker) -> None:
        """Before the first packet: add sinks and timers; raises ConfigError to stop the start."""

    @hookspec
    def shutdown(self, worker: Worker) -> None:
        """After the last packet, before the sinks are flushed."""

    @hookspec
    def script_swapped(self, worker: Worker) -> None:
        """After a reload put a new script in place."""

    @hookspec
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:  # type: ignore[empty-body]
        """Each second and for `/metrics`: (name, labels, value) samples."""
