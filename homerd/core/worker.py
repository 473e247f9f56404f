"""One process's share of the work: its engine, sources, sinks, timers and the loop they run on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homerd.core import metrics, privileges, source, telemetry
from homerd.core.agents import Agent, Agents
from homerd.core.collector import Collector
from homerd.core.collector_sockets import TcpCollector, UdpCollector
from homerd.core.containment import TIMER, Containment
from homerd.core.control import ControlSocket
from homerd.core.endpoint import Endpoint, health
from homerd.core.engine import Engine
from homerd.core.inflation import Inflation
from homerd.core.intake import Intake
from homerd.core.log import NOTICE, limit_others, script_line
from homerd.core.media import MediaTable
from homerd.core.params import Change, ParamsInUse, tell_outline
from homerd.core.program import entry_of
from homerd.core.raw import open_capture
from homerd.core.reload import Reloads
from homerd.core.settings import COLLECTOR_PORTS, OVER_TLS, Listen
from homerd.core.sink import BatchSink
from homerd.core.source import Source
from homerd.core.spool import default_folder, left_behind
from homerd.core.tcp import TcpSource
from homerd.core.timer import Timers
from homerd.core.tls import Certificates
from homerd.core.udp import UdpSource
from homerd.core.watchdog import Watchdog
from homerd.errors import FAULTS
from homerd.packet import SIP, Packet, RunState, Statistics
from homerd.plugin.hookspecs import SinkCounts
from homerd.wire.hep import IPV4, Frame

if TYPE_CHECKING:
    from homerd.core.program import Program
    from homerd.core.reload import Reloader
    from homerd.lang.runtime import End
    from homerd.lang.script import CompiledScript

log = logging.getLogger("homerd.worker")

TICK_SECONDS = 1.0
STOP_SECONDS = 10.0
SETTLE_SECONDS = 2.0  # at the end, for what other threads still owe the loop
# Batches hold many young objects for a second: the default of 700 would scan them all the time.
_GC_THRESHOLDS = (100_000, 20, 100)

# What routes see that no packet began: timers, start.  Kamailio 5.6, core/fmsg.c.
FAKED_OPTIONS = (
    b"OPTIONS sip:you@kamailio.org SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.1\r\n"
    b"From: <you@kamailio.org>;tag=123\r\n"
    b"To: <you@kamailio.org>\r\n"
    b"Call-ID: 123\r\n"
    b"CSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_LOOPBACK = b"\x7f\x00\x00\x01"


class Worker:
    """Runs a program; what plugins are given at start (hookspecs.Worker).

    deliver: False for trace: sinks are known but never started, effects only looked at.
    log: where script lines go, `(level, text)`.  debug: the log level when the script sets none.
    wall: the clock that the script's is set by.
    route_seen: told of each run that no packet began: route, packet, how it ended.
    """

    def __init__(
        self,
        program: Program,
        *,
        deliver: bool = True,
        log: Callable[[int, str], None] | None = None,
        debug: int = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self.program = program
        self.deliver = deliver
        self._least = debug
        self._debug = debug if program.settings.debug is None else program.settings.debug
        self.sinks: list[BatchSink] = []
        self.sources: list[Source] = []
        self.endpoint: Endpoint | None = None
        self.loop_lag_seconds = 0.0
        self.route_seen: Callable[[str, Packet, End | Exception], None] | None = None
        self._log = log or script_line
        self._states: list[RunState] = []
        self._presets: dict[str, str | int] = {}
        self._state = self.new_state()
        self.engine = Engine(program.script, self._state, deliver=deliver)
        self._state.report = self.engine.report
        self.engine.tell(self._state.statistics)
        self.engine.after = self._note
        self.engine.intake = Intake(self.engine, self.sinks)
        self.collector = Collector(self.engine, program.settings.collector_stores)
        self.containment = Containment(self)
        self._media = MediaTable(program.settings.rtp_reports)
        self.engine.fault = self.containment.fault
        self.agents: Agents | None = None
        self._spools = Path(program.settings.spool_dir or default_folder())
        self.timers = Timers(self.now, self._move)
        self._started_at: float | None = None
        self._stopped = False
        self.params = ParamsInUse(program.params)
        self.reloads = Reloads()
        self._ends: asyncio.Event | None = None
        self.promised = 0
        self._handed: deque[Callable[[], None]] = deque()
        self._handed_over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # What plugins use

    def add_sink(self, sink: BatchSink) -> BatchSink:
        """Start *sink* and return it; it is flushed and closed when the worker ends."""
        self.give_spool(sink)
        if self.deliver:
            sink.start()
        self.sinks.append(sink)
        return sink

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call *call* each *seconds* of the script's clock; never overlapping itself."""
        owner = self.containment.owner(call, self.containment.inside)
        self.timers.every(seconds, lambda: self._guarded(call, owner, TIMER))

    def run_route(self, name: str, state: RunState | None = None, timer: str = "") -> str:
        """Run `route[name]` on a faked OPTIONS; *timer*: the name of what runs it.

        Gives "drop", "exit", "return", "end", "error" when it failed, "" without such a route.
        """
        packet = faked_options(state or self._state)
        if timer:
            packet.scratch["timer"] = timer
        return self._seen(name, packet, self.engine.run_route(name, packet))

    def run_event(self, name: str, packet: Packet | None = None) -> str:
        """The same for `event_route[name]`, on *packet* when given."""
        packet = packet or faked_options(self._state)
        return self._seen(f"event_route[{name}]", packet, self.engine.run_event(name, packet))

    def later(self) -> Callable[[Callable[[], None]], None]:
        """Promise one call from another thread; what is returned takes it."""
        self.promised += 1
        return self._hand_over

    def call_route(self, name: str, packet: Packet) -> int | None:
        """Run `route[name]` on a packet under way; what it returned, None without such a route."""
        return self.engine.script.call_route(name, packet)

    def new_state(self) -> RunState:
        """A RunState with `$var` of its own, on the same clock."""
        program = self.program
        state = RunState(self._log, self._debug, wall=self._wall)
        state.prefix = _log_prefix(program)
        if self._states:
            first = self._states[0]
            state.report = first.report
            state.clock_offset = first.clock_offset
            state.globals = first.globals
            state.statistics = first.statistics
        else:
            state.globals = dict(program.globals)
        state.variables.update(self._presets)
        self._states.append(state)
        return state

    def preset(self, name: str, value: str | int) -> None:
        """Let `$var(name)` begin as *value*, in every run of the script."""
        self._presets[name] = value
        for state in self._states:
            state.variables.setdefault(name, value)

    def now(self) -> float:
        """Seconds since 1970 by the script's clock."""
        return self._state.now()

    def sink_counts(self) -> dict[str, SinkCounts]:
        """What each sink has lost, and how full its spool is."""
        return {sink.name: _sink_counts(sink) for sink in self.sinks}

    @property
    def statistics(self) -> Statistics:
        """What `$stat` reads, by name."""
        return self._state.statistics

    # Who runs the worker

    def give_spool(self, sink: BatchSink) -> None:
        """Let *sink* put on disk what its store does not take; before it is started."""
        settings = self.program.settings
        sink.spool_into(self._spools, settings.spool_limit)

    @property
    def uptime_seconds(self) -> float:
        """Since `start`."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    @property
    def script_name(self) -> str:
        """The script's main file."""
        files = self.program.script.files
        return str(files[0]) if files else ""

    def start(self) -> None:
        """Have the plugins add their sinks and timers; an error by name when one cannot start."""
        self._started_at = time.monotonic()
        try:
            self.containment.startup(self)
        except BaseException:
            self._stopped = True
            self._stop_sinks(0.0)
            raise
        self._tell_left_behind()

    def swap(self, program: Program, changes: list[Change]) -> None:
        """Put *program* in the place of the one that runs; on the loop, between two packets.

        Plugin objects, sinks, timers and counters stay.  ConfigError, and nothing has changed, when
        a plugin refuses its part of *changes*.
        """
        old = self.program
        self.params.apply(program, changes)
        program.registry.keep(old.registry)
        tell_outline(program, self.containment.failed)
        program.script.entry = entry_of(program.registry, self.containment.failed)
        self.program = program
        self.engine.swap(program.script)
        self.collector.stores = program.settings.collector_stores
        if self.sources:
            self._admit(program.settings.agents)
        self._debug = self._least if program.settings.debug is None else program.settings.debug
        for state in self._states:
            state.debug = self._debug
            state.prefix = _log_prefix(program)
        _follow(self._state.globals, old.globals, program.globals)
        self.containment.swapped()
        self.containment.hooks("script_swapped", worker=self)

    @contextlib.contextmanager
    def trying(self, script: CompiledScript) -> Iterator[None]:
        """Run routes of a script that is not in place yet; on the loop."""
        before = self.engine.script
        self.engine.swap(script)
        try:
            yield
        finally:
            self.engine.swap(before)

    def tick(self) -> None:
        """Once a second: let waiting records go, look after the sources."""
        now = time.monotonic()
        for sink in self.sinks:
            sink.tick(now)
            sink.note()
        for each in self.sources:
            each.tick(now)
        if self.engine.inflation is not None:
            self.engine.inflation.tick()

    def advance(self, seconds: float) -> None:
        """Move the script's clock on; timers that come due in that time run, nothing sleeps."""
        self.timers.advance(seconds)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every sink has written what it was given; False when time ran out."""
        end = None if timeout is None else time.monotonic() + timeout
        done = True
        for sink in self.sinks if self.deliver else ():
            left = None if end is None else max(0.0, end - time.monotonic())
            done = sink.flush(left) and done
        return done

    def settle(self, timeout: float) -> bool:
        """Wait for what is promised and run it; False when time ran out."""
        end = time.monotonic() + timeout
        while self.promised:
            self._handed_over.clear()
            while self._handed:
                self._run_handed()
            left = end - time.monotonic()
            if self.promised and (left <= 0 or not self._handed_over.wait(left)):
                return False
        return True

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """After the last packet: the plugins, then the sinks, for at most *timeout* seconds."""
        if self._stopped:
            return
        self._stopped = True
        self.settle(min(timeout, SETTLE_SECONDS))
        self.containment.hooks("shutdown", worker=self)
        self._stop_sinks(timeout)

    # The daemon

    def open(self, listen: Sequence[Listen]) -> None:
        """Open a socket for each *listen*, and what the script captures from.

        ConfigError, and none is open, when one cannot be.
        """
        settings = self.program.settings
        self.engine.inflation = Inflation(self.sinks)
        certificates: Certificates | None = None
        try:
            for item in listen:
                if item.scheme in OVER_TLS and certificates is None:
                    certificates = Certificates(settings.tls)
                for family, address in source.addresses(item):
                    collects = item.scheme in COLLECTOR_PORTS
                    if item.scheme in ("udp", "collector_udp"):
                        udp = partial(UdpCollector, self.collector) if collects else UdpSource
                        opened: Source = udp(
                            item, family, address, self.engine, settings.receive_buffer
                        )
                    else:
                        tcp = partial(TcpCollector, self.collector) if collects else TcpSource
                        opened = tcp(
                            item,
                            family,
                            address,
                            self.engine,
                            max_connections=settings.tcp_connections,
                            idle_seconds=settings.tcp_idle_seconds,
                            certificates=certificates if item.scheme in OVER_TLS else None,
                            handshake_seconds=settings.tls.handshake_seconds,
                        )
                    self.sources.append(opened)
            self._admit(settings.agents)
            for each in self.program.captures:
                self.sources += open_capture(
                    each, self.engine, settings.receive_buffer, self._media
                )
            if settings.metrics is not None:
                pages = {"/metrics": lambda: telemetry.page(self), "/healthz": health}
                self.endpoint = Endpoint(settings.metrics, pages)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets without reading what is left in them."""
        for each in self.sources:
            each.close()
        self.sources.clear()
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None

    def run_forever(
        self,
        listen: Sequence[Listen],
        control: ControlSocket | None = None,
        reloader: Reloader | None = None,
    ) -> None:
        """Receive until SIGTERM or SIGINT; what was received until then is written."""
        self.open(listen)
        limit_others(self.containment.line_left_out)
        try:
            if control is not None:
                control.bind()
            self._become_user([] if control is None else [control.path])
            self.start()
            settle_collector()
            try:
                asyncio.run(self._serve(control, reloader))
            finally:
                self.stop()
                self._say_goodbye()
        finally:
            if control is not None:
                control.close()
            self.close()

    def _admit(self, agents: Sequence[Agent]) -> None:
        """Let in what these agents send, or everything when there is none."""
        if self.agents is not None:
            self.agents.change(agents)
        elif agents:
            self.agents = Agents(agents)
        self.engine.admit = self.agents.refusal if agents and self.agents is not None else None
        for each in self.sources:
            if isinstance(each, UdpSource) and self.agents is not None:
                each.take_turns(self.agents)

    def _become_user(self, own: Iterable[Path]) -> None:
        """What needs root is open: go on as `user` and `group` say."""
        settings = self.program.settings
        if settings.user or settings.group:
            privileges.drop(settings.user, settings.group, own)
            if settings.spool_limit:
                privileges.check_folder(self._spools, "spool_dir")

    async def _serve(self, control: ControlSocket | None, reloader: Reloader | None) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._ends = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ends.set)
        loop.add_signal_handler(signal.SIGHUP, reloader.hang_up if reloader else _no_reload)
        watchdog = Watchdog(self.program.settings.plugin_block_seconds, self.containment)
        if control is not None:
            await control.serve()
        if self.endpoint is not None:
            await self.endpoint.serve()
        for each in self.sources:
            each.attach(loop)
        log.log(
            NOTICE,
            "started script=%s digest=%s listen=%s stores=%s",
            self.script_name,
            self.engine.script.digest,
            ",".join(each.name for each in self.sources),
            ",".join(map(_shown, self.sinks)) or "none",
        )
        watchdog.start(loop)
        beats = asyncio.create_task(self._beat())
        if reloader is not None:
            reloader.start()
        await self._ends.wait()
        beats.cancel()
        if reloader is not None:
            await reloader.stop()
        log.log(NOTICE, "stopping received=%d", self.engine.received)
        for each in self.sources:
            each.finish()
        watchdog.stop()
        if self.endpoint is not None:
            self.endpoint.close()
        self._loop = None

    async def _beat(self) -> None:
        """Run timers when they are due, and `tick` each second."""
        next_tick = time.monotonic() + TICK_SECONDS
        while True:
            to_timer = self.timers.seconds_to_next()
            to_tick = max(0.0, next_tick - time.monotonic())
            wait = to_tick if to_timer is None else min(to_tick, to_timer)
            wanted = time.monotonic() + wait
            await asyncio.sleep(wait)
            now = time.monotonic()
            self.loop_lag_seconds = max(now - wanted, self.loop_lag_seconds * 0.9)
            self.timers.run_due()
            if now >= next_tick:
                self._guarded(self.tick, "", "tick")
                next_tick = max(next_tick + TICK_SECONDS, now)

    def _say_goodbye(self) -> None:
        counters = metrics.snapshot(self)
        sinks = counters["sinks"].values()
        log.log(
            NOTICE,
            "stopped received=%d stored=%d rejected=%d dropped=%d spooled=%d kernel_drops=%d",
            counters["received"],
            sum(sink["written"] for sink in sinks),
            sum(sink["rejected"] for sink in sinks),
            sum(sink["dropped"] for sink in sinks),
            sum(sink["spooled"] for sink in sinks),
            counters["kernel_drops"],
        )

    def _note(self) -> None:
        """After some packets: what a kill would cost now."""
        for sink in self.sinks:
            sink.note()

    def _tell_left_behind(self) -> None:
        """Spools that nobody empties: of stores that the script no longer names."""
        known = [sink.spool.folder for sink in self.sinks if sink.spool is not None]
        for folder, size in left_behind(self._spools, known) if self.deliver and known else ():
            log.warning(
                "spool of a store that the script does not name folder=%s bytes=%d", folder, size
            )

    def _stop_sinks(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for sink in self.sinks:
            sink.stop(max(0.0, end - time.monotonic()))

    def _guarded(self, call: Callable[[], Any], owner: str, what: str) -> None:
        """A plugin's call must not end the loop; its fault is counted like a script's."""
        if owner and self.containment.is_out(owner):
            return
        try:
            call()
        except FAULTS as error:  # counted
            self.containment.failed(owner, what, error)

    def _hand_over(self, call: Callable[[], None]) -> None:
        """In whatever thread has it: keep *call* for the loop."""
        self._handed.append(call)
        self._handed_over.set()
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._run_handed)
            except RuntimeError:  # the loop has just ended; `settle` runs it
                pass

    def _run_handed(self) -> None:
        """Run one call, so that packets get their turn before the next."""
        if self._handed:
            self.promised -= 1
            call = self._handed.popleft()
            self._guarded(call, self.containment.owner(call), "later")

    def _move(self, seconds: float) -> None:
        for state in self._states:
            state.clock_offset += seconds

    def _seen(self, route: str, packet: Packet, outcome: End | Exception | None) -> str:
        if outcome is None:
            return ""
        if self.route_seen is not None:
            self.route_seen(route, packet, outcome)
        return "error" if isinstance(outcome, Exception) else outcome.kind


def settle_collector() -> None:
    """Leave what is there now to itself, and look at young objects rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def faked_options(state: RunState) -> Packet:
    """The packet that a route sees when no packet began it."""
    frame = Frame(
        0,
        IPV4,
        17,
        _LOOPBACK,
        _LOOPBACK,
        5060,
        5060,
        payload_type=SIP,
        payload=FAKED_OPTIONS,
        raw=FAKED_OPTIONS,
    )
    return Packet(frame, state)


def _sink_counts(sink: BatchSink) -> SinkCounts:
    spool = sink.spool
    percent = 100 * spool.size / spool.limit if spool is not None else 0.0
    return SinkCounts(sink.dropped + sink.rejected, round(percent, 1))


def _no_reload() -> None:
    log.warning("reload asked for, and this worker cannot")


def _follow(
    kept: dict[str, str | int], old: Mapping[str, str | int], new: Mapping[str, str | int]
) -> None:
    """Take over the globals the script changed; what was set since it was loaded stays."""
    for name in old.keys() - new.keys():
        kept.pop(name, None)
    kept.update({name: value for name, value in new.items() if old.get(name) != value})


def _log_prefix(program: Program) -> Callable[[Packet], str] | None:
    """`log_prefix`: one text for all lines of a packet, unless log_prefix_mode is 1."""
    read = program.script.log_prefix
    if read is None or program.settings.log_prefix_mode:
        return read

    def once(packet: Packet) -> str:
        scratch = packet.scratch
        if "log_prefix" not in scratch:
            scratch["log_prefix"] = read(packet)
        text: str = scratch["log_prefix"]
        return text

    return once


def _shown(sink: BatchSink) -> str:
    """A sink and its store, which some have in their names."""
    if sink.where and sink.name.endswith(sink.where):
        return sink.name
    return f"{sink.name}:{sink.where or '-'}"
