"""From checked nodes to a CompiledScript: what the engine runs for each packet."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from homerd.errors import Place
from homerd.lang.check import Checked
from homerd.lang.codegen import Generator
from homerd.lang.plan import capture_name, chosen
from homerd.lang.pyast import placed
from homerd.lang.runtime import End, ScriptEnd, to_str
from homerd.lang.source import SourceMap, Span
from homerd.lang.vocabulary import Value, answer_of_none

Run = Callable[[Any], int | End]
Handler = Callable[[Any], bool | None]

MAX_WHILE_LOOPS = 100
MAX_RECURSIVE_LEVEL = 256

HANDLED = End("handled")
_SIP = 1  # payload type of HEP
NOT_SIP = End("refused", reason="not_sip")
HEP_OFF = End("refused", reason="hep_off")
NOT_ACCEPTED = End("refused", reason="not_accepted")
NO_ROUTE = End("refused", reason="no_route")
RESUMED = "hep_resumed"  # set in the packet's scratch


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens to a packet before its route, as the loaded modules want it.

    accept_hep: whether HEP is taken at all.
    event: an event route that sees every HEP packet first.
    handlers: HEP payload type -> what takes the packet in place of the script, if not False.
    envelope: makes the packet that the event route sees.
    http: what answers HTTP requests on the TCP listeners.
    route: in the event's place, a `route[...]`; only what it marks RESUMED goes on.
    """

    accept_hep: bool = True
    event: str = ""
    handlers: Mapping[int, Handler] = field(default_factory=dict)
    envelope: Callable[[Any], Any] | None = None
    http: Callable[[Any], Any] | None = None
    route: str = ""


class CompiledScript:
    """One script, ready to run; immutable, swapped as a whole."""

    def __init__(
        self,
        checked: Checked,
        sources: SourceMap,
        files: list[Path],
        *,
        max_while_loops: int = MAX_WHILE_LOOPS,
        max_recursive_level: int = MAX_RECURSIVE_LEVEL,
    ) -> None:
        self.sources = sources
        self.files = files
        self.digest = hashlib.sha256(
            "\0".join(file.text for file in sources.files).encode("utf-8", "surrogateescape")
        ).hexdigest()[:16]
        self.max_depth = max_recursive_level
        generator = Generator(checked, self.place, max_while_loops, max_recursive_level)
        self._namespace = generator.namespace
        self._words = generator.words
        self._namespace["deeper"] = self._deeper
        self._namespace["by_name"] = self._by_name
        self._names: dict[str, str] = {}
        requests, replies = checked.requests, checked.replies
        if requests:
            generator.block("main", "request_route", requests, top=True)
        if replies:
            generator.block("reply", "onreply_route", replies, top=True)
        if checked.log_prefix is not None:
            generator.text_function("log_prefix", checked.log_prefix)
        generator.named_routes()
        for index, (name, block) in enumerate(checked.events.items()):
            generator.block(f"event_{index}", f"event_route[{name}]", [block], top=True)
        for index, (name, block) in enumerate(checked.plans.items()):
            generator.block(f"plan_{index}", capture_name(name), [block], top=True)
        self._tree = placed(ast.Module(generator.functions, []))
        filename = sources.files[0].name if sources.files else "script"
        exec(compile(self._tree, filename, "exec"), self._namespace)
        self.log_prefix: Callable[[Any], str] | None = self._namespace.get("log_prefix")
        self._request: Run | None = self._namespace.get("main") if requests else None
        self._reply: Run | None = self._namespace.get("reply") if replies else None
        self._routes: dict[str, Run] = {
            name: self._namespace[generator.function_name(name)] for name in checked.routes
        }
        self._events: dict[str, Run] = {
            name: self._namespace[f"event_{index}"] for index, name in enumerate(checked.events)
        }
        self._plans: dict[str, Run] = {
            name: self._namespace[f"plan_{index}"] for index, name in enumerate(checked.plans)
        }
        self._end_of = {
            "request_route": self._last_place(requests[-1].span, "request_route")
            if requests
            else "",
            "onreply_route": self._last_place(replies[-1].span, "onreply_route") if replies else "",
            **{f"event_route[{n}]": self._last_place(b.span, n) for n, b in checked.events.items()},
            **{n: self._last_place(b.span, n) for n, b in checked.routes.items()},
            **{
                route: self._last_place(block.span, route)
                for route, block in ((capture_name(n), b) for n, b in checked.plans.items())
            },
        }
        self._ends: dict[tuple[str, str], End] = {}
        self._depth = 0
        self.entry = Entry()

    # -- places

    def place(self, span: Span, route: str) -> Place:
        """Where a span is, as the operator sees it."""
        found = self.sources.find(span.line)
        if found is None:
            return Place("", 0, 0, route)
        return Place(found[0].name, found[1], span.column, route)

    def _last_place(self, span: Span, route: str) -> str:
        return str(self.place(Span(span.end_line, span.end_column, 0, 0), route))

    def locate(self, error: BaseException) -> Place | None:
        """The statement of the script in which *error* was raised; None when it was elsewhere."""
        found: Place | None = None
        for trace in _traces(error.__traceback__):
            if trace.tb_frame.f_globals is self._namespace:
                line, column = _position(trace.tb_frame.f_code, trace.tb_lasti)
                span = Span(line or trace.tb_lineno, column + 1, 0, 0)
                found = self.place(span, self._route_of(trace.tb_frame.f_code.co_name))
        return found

    def leave_out(
        self, owns: Callable[[Any, str], bool], skipped: Callable[[], None]
    ) -> Callable[[], None]:
        """Have the words that *owns* says answer false, null or nothing.

        owns: asked with what a word calls and the name of its module.  skipped: told of each use.
         What is returned undoes it.  Generated code looks its names up
        at each call, so a script that leaves nothing out pays nothing.
        """
        kept: dict[str, Any] = {}
        for name, word in self._words.items():
            call = self._namespace[name]
            if owns(call, word.module):
                kept[name] = call
                self._namespace[name] = _left_out(answer_of_none(word), skipped)

        def undo() -> None:
            self._namespace.update(kept)

        return undo

    def _route_of(self, function: str) -> str:
        if function == "main":
            return "request_route"
        if function == "reply":
            return "onreply_route"
        for name, run in itertools.chain(self._routes.items(), self._events.items()):
            if run.__name__ == function:
                return name
        for name, run in self._plans.items():
            if run.__name__ == function:
                return capture_name(name)
        return ""

    def listing(self) -> str:
        """The Python that the script became."""
        return ast.unparse(self._tree)

    @property
    def needs_peer(self) -> bool:
        """Whether the script sees who sent the datagram, not only what is inside it."""
        return bool(self.entry.event or self.entry.route)

    def has_route(self, name: str) -> bool:
        """Whether there is a `route[name]`."""
        return name in self._routes

    def has_event(self, name: str) -> bool:
        """Whether there is an `event_route[name]`."""
        return name in self._events

    # -- running

    def run(self, packet: Any) -> End:
        """Route one packet; runtime errors of the script come out as they are."""
        frame = packet.frame
        # What was captured and is no SIP, as RTCP, goes the way it goes when an agent sends it.
        if frame.version or frame.payload_type != _SIP:
            entry = self.entry
            if frame.version and not entry.accept_hep:
                return HEP_OFF
            if entry.event or entry.route:
                end = self._see(packet, entry)
                if end is not None:
                    return end
            elif (
                frame.payload_type in entry.handlers
                and entry.handlers[frame.payload_type](packet) is not False
            ):
                return HANDLED
        sip = packet.sip
        if sip.is_request:
            run, route = self._request, "request_route"
        elif sip.is_reply:
            run, route = self._reply, "onreply_route"
        else:
            return NOT_SIP
        if run is None:
            return NO_ROUTE
        packet.route = route
        try:
            result = run(packet)
        except ScriptEnd as end:
            return end.end
        if result.__class__ is int:
            return self._ended(route, packet)
        return result  # type: ignore[return-value]  # an End, when it is no int

    def _see(self, packet: Any, entry: Entry) -> End | None:
        """Show the datagram to the entry event; None when the message inside goes on."""
        if entry.route:
            run, route = self._routes.get(entry.route), entry.route
        else:
            run, route = self._events.get(entry.event), f"event_route[{entry.event}]"
        if run is None or entry.envelope is None:
            return NO_ROUTE
        packet.route = route
        seen = entry.envelope(packet)
        seen.route = route
        try:
            result = run(seen)
        except ScriptEnd as end:
            result = end.end
        if entry.route:
            if RESUMED in seen.scratch:
                return None
            return self._ended(route, seen) if result.__class__ is int else result  # type: ignore[return-value]
        if result == 1:
            return None
        return NOT_ACCEPTED if result.__class__ is int else result  # type: ignore[return-value]

    def _ended(self, route: str, packet: Any) -> End:
        kind = "return" if packet.returned else "end"
        found = self._ends.get((kind, route))
        if found is None:
            found = self._ends[(kind, route)] = End(kind, self._end_of.get(route, ""))
        return found

    def run_route(self, name: str, packet: Any) -> End | None:
        """Run `route[name]`; None when there is none."""
        return self._run_named(self._routes.get(name), name, packet)

    def run_event(self, name: str, packet: Any) -> End | None:
        """Run `event_route[name]`; None when there is none."""
        return self._run_named(self._events.get(name), f"event_route[{name}]", packet)

    def _run_named(self, run: Run | None, route: str, packet: Any) -> End | None:
        if run is None:
            return None
        packet.route = route
        try:
            result = run(packet)
        except ScriptEnd as end:
            return end.end
        return self._ended(route, packet) if isinstance(result, int) else result

    def call_route(self, name: str, packet: Any) -> int | None:
        """Run `route[name]` on a packet under way; what it returned, 0 when it ended the script.

        None when there is no such route.
        """
        run = self._routes.get(name)
        if run is None:
            return None
        # A plugin stands between: such a level takes as much of Python's stack as three others.
        self._depth += 2
        try:
            result = self._deeper(packet, run, Place(str(self.files[0]) if self.files else "", 0))
        finally:
            self._depth -= 2
        return result if isinstance(result, int) else 0

    def _deeper(self, packet: Any, run: Run, place: Place) -> int | End:
        """Call a route that may come back to itself: bounded, as max_recursive_level says."""
        if self._depth >= self.max_depth:
            packet.state.report(f"routes call each other more than {self.max_depth} deep", place)
            return -1
        self._depth += 1
        try:
            return run(packet)
        finally:
            self._depth -= 1

    def _by_name(self, packet: Any, target: str | int | None, place: Place) -> int | End:
        """Call the route that a value names; one that does not exist is reported, $rc stays."""
        name = to_str(target)
        run = self._request if name == "0" else self._routes.get(name)
        if run is None:
            packet.state.report(f'no route "{name}"', place)
            code: int = packet.rc
            return code
        return self._deeper(packet, run, place)


class CompiledPlan(CompiledScript):
    """The plans of one file, ready to run: every packet, SIP or not, is seen by one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # CompiledScript's own
        super().__init__(*arguments, **options)
        self._plan_of_source = [
            None if name is None else (capture_name(name), self._plans[name])
            for name in chosen(self._plans)
        ]

    def run(self, packet: Any) -> End:
        """Run the plan for the packet's source."""
        captured, socket, hep = self._plan_of_source
        frame = packet.frame
        # What was captured has a time, what came to a socket gets that of its arrival.
        plan = hep if frame.version else captured if frame.seconds else socket
        if plan is None:
            return NO_ROUTE
        packet.route, run = plan
        try:
            result = run(packet)
        except ScriptEnd as end:
            return end.end
        return self._ended(packet.route, packet) if isinstance(result, int) else result


def _left_out(answer: Value | bool, skipped: Callable[[], None]) -> Callable[..., Value | bool]:
    def word(*arguments: object) -> Value | bool:
        skipped()
        return answer

    return word


def _traces(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _position(code: CodeType, instruction: int) -> tuple[int, int]:
    """Line and column (from 0) of the instruction that was running."""
    positions = list(itertools.islice(code.co_positions(), instruction // 2, instruction // 2 + 1))
    if not positions:
        return 0, 0
    line, _, column, _ = positions[0]
    return line or 0, column or 0
