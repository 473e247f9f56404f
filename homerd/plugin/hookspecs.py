"""The whole contract between homerd and its plugins (pluggy project name "homerd").

A plugin is any object with some of these hooks; `homerd.api.Plugin` implements the declaring ones
from its decorators.  Hooks serve the cold path only: what they give is bound into the compiled
script as plain Python callables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pluggy

from homerd.lang.vocabulary import ModParam, PseudoVariable, ScriptFunction, Transformation

if TYPE_CHECKING:
    from homerd.packet import Packet, RunState, Statistics

hookspec = pluggy.HookspecMarker("homerd")
hookimpl = pluggy.HookimplMarker("homerd")


@dataclass(frozen=True, slots=True)
class Outline:
    """What a plugin may know of the script before it starts.

    routes: names of `route[...]`; events: of `event_route[...]`; ends: events that always `drop`.
    timers: (route, seconds) of each `timer_route`.  opensips: whether it speaks that dialect.
    functions: names of those of modules that it calls.
    """

    routes: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    dropping_events: frozenset[str] = frozenset()
    timers: tuple[tuple[str, int], ...] = ()
    opensips: bool = False
    functions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a plugin finds wrong with the script as a whole.

    parameter or event: where to point, a modparam's name or an event route's.
    value: of several lines of the parameter, what the one to point to sets it to.
    """

    message: str
    parameter: str = ""
    event: str = ""
    help: str = ""
    warning: bool = False
    value: str | int = ""


class Sample(NamedTuple):
    """One value of a metric; a plugin may give its first three parts alone.

    type: "counter", "gauge" or "histogram" (whose samples are name_bucket, _sum and _count);
    "" is told by the name: what ends in _total is a counter, else a gauge.
    """

    name: str
    labels: dict[str, str]
    value: float
    help: str = ""
    type: str = ""


AnySample = Sample | tuple[str, dict[str, str], float]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request that came over a TCP listener.

    target: as in the request line, `/path?query`.  headers: names as they were spelled.
    src, dst: packed addresses; family as in Frame.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    family: int
    src: bytes
    src_port: int
    dst: bytes
    dst_port: int


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What answers it; the length is added."""

    status: int
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class PacketPolicy:
    """What happens to a HEP packet before the script's main routes see it.

    accept_hep: False refuses every HEP packet (counted as `hep_off`).
    entry_event: an event route that sees each HEP packet first; only its result 1 goes on.
    entry_route: in its place a `route[...]`; what it marks as "hep_resumed" in scratch goes on.
    handlers: HEP payload type -> what takes such a packet in place of the script; one that returns
        False leaves it to the script.
    http: what answers HTTP requests on the TCP listeners; None from it is answered with 500.
        Without one in any module a request gets 404.
    """

    accept_hep: bool = True
    entry_event: str = ""
    entry_route: str = ""
    handlers: dict[int, Callable[[Packet], bool | None]] = field(default_factory=dict)
    http: Callable[[HttpRequest], HttpAnswer | None] | None = None


RAW, IPIP = "raw", "ipip"  # schemes of a Capture
ANY = "any"  # every interface


@dataclass(frozen=True, slots=True)
class Capture:
    """Something to capture from live.

    scheme: RAW or IPIP.  where: an interface or ANY; the address that tunnelled copies come to.
    text: as the operator wrote it.  filter: in tcpdump's syntax, for the kernel.
    ports: the lowest and the highest; a packet must come from or go to one of them.
    capture_id: told of what is captured.  interface: of an address, the only one it is taken from.
    """

    scheme: str
    where: str
    text: str
    filter: str = ""
    promiscuous: bool = False
    ports: tuple[int, int] | None = None
    capture_id: int | None = None
    interface: str = ""


class SinkCounts(NamedTuple):
    """Of a sink: records that were lost, by then, and how much of its spool is used."""

    lost: int
    spool_percent: float


class Worker(Protocol):
    """What a plugin is given at start: one process with its loop, its sinks and its clock.

    deliver: False where nothing may leave the process: trace, and a script that is tried out.
    """

    deliver: bool

    def add_sink(self, sink: Any) -> Any:
        """Start *sink* and return it; it is flushed and closed when the worker ends."""

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* each *seconds* of the script's clock; never overlapping itself."""

    def run_route(self, name: str, state: RunState | None = None, timer: str = "") -> str:
        """Run `route[name]` on a faked OPTIONS; gives "drop", "exit", "return" or "end".

        timer: the name of what runs it, shown by replay and trace.
        """

    def run_event(self, name: str, packet: Packet | None = None) -> str:
        """The same for `event_route[name]`, on *packet* when given; "" when there is none."""

    def later(self) -> Callable[[Callable[[], None]], None]:
        """Promise one call from another thread: what is returned takes it, once, in any thread.

        The call then runs on the loop, between two packets; a replay waits for what is promised.
        """

    def call_route(self, name: str, packet: Packet) -> int | None:
        """Run `route[name]` on a packet under way; what it returned, 0 when it ended the script.

        None when there is no such route.
        """

    def new_state(self) -> RunState:
        """A RunState with `$var` of its own, for a timer."""

    def preset(self, name: str, value: str | int) -> None:
        """Let `$var(name)` begin as *value*, in every run of the script."""

    def now(self) -> float:
        """Seconds since 1970 by the script's clock."""

    def sink_counts(self) -> dict[str, SinkCounts]:
        """What each sink has lost so far and how full its spool is, by the sink's name."""

    @property
    def statistics(self) -> Statistics:
        """What `$stat` reads, by name; all runs of the script share it."""


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
    def captures(self) -> Iterable[Capture]:  # type: ignore[empty-body]
        """After configure, when the daemon opens its sockets: what to capture from live."""

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
    def notices(self) -> Iterable[str]:  # type: ignore[empty-body]
        """For `homerd status`: what an operator should know now, a line each."""

    @hookspec
    def metrics(self) -> Iterable[AnySample]:  # type: ignore[empty-body]
        """For `/metrics`: (name, labels, value), or a Sample which says its help and type too."""
