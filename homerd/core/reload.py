"""Another script in the place of the one that runs, without losing a packet.

It is compiled in a thread beside the packets and swapped between two of them.  A script that does
not compile, or changes what needs a restart, changes nothing.  One that fails too often soon after
it was swapped gives way to the one before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from homerd.core.containment import started
from homerd.core.log import NOTICE
from homerd.core.params import Change
from homerd.core.program import Program, load_beside
from homerd.errors import FAULTS, ConfigError, PluginError, ScriptErrors
from homerd.lang.diagnostics import Diagnostic, headline, render
from homerd.lang.source import SourceMap
from homerd.packet import Packet, RunState

if TYPE_CHECKING:
    from homerd.core.sink import BatchSink
    from homerd.core.worker import Worker

log = logging.getLogger("homerd.reload")

T = TypeVar("T")

RELOADED, UNCHANGED, REFUSED, ROLLED_BACK = "reloaded", "unchanged", "refused", "rolled_back"
RESULTS = (RELOADED, REFUSED, ROLLED_BACK)

# While a thread compiles, the loop gets the interpreter back after so many seconds.  With Python's
# own 0.005 its longest pause at 20,000 packets/s is about 30 ms, with this about 10 (bench_reload).
SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Limits:
    """When a script that was just swapped has to go: more than *share* failures a packet, above
    those of the script before it, within *seconds*; looked at from *packets* packets on.

    share: 0 turns it off.
    """

    share: float = 0.05
    seconds: float = 60.0
    packets: int = 20


DEFAULT = Limits()


@dataclass(slots=True)
class Outcome:
    """How a reload ended.

    diagnostics: to be printed with *sources*.  notes: what an operator should know besides.
    """

    result: str
    why: str
    digest: str = ""
    was: str = ""
    seconds: float = 0.0
    message: str = ""
    notes: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    sources: SourceMap = field(default_factory=SourceMap)
    at: float = field(default_factory=time.time)

    def described(self, *, colour: bool = False) -> dict[str, Any]:
        """It as JSON values, the diagnostics as they are printed."""
        return {
            "result": self.result,
            "why": self.why,
            "digest": self.digest,
            "was": self.was,
            "seconds": round(self.seconds, 3),
            "message": self.message,
            "notes": self.notes,
            "diagnostics": render(self.diagnostics, self.sources, colour=colour),
            "at": round(self.at, 3),
        }


class Reloads:
    """What became of all reloads: counts by result, and the last one."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.loaded_at = time.time()
        self.last: Outcome | None = None

    def add(self, outcome: Outcome) -> None:
        """Count and log one."""
        self.counts[outcome.result] += 1
        self.last = outcome
        if outcome.result != REFUSED:
            self.loaded_at = outcome.at
        log.log(
            NOTICE if outcome.result == RELOADED else logging.ERROR,
            "reload result=%s why=%s digest=%s was=%s seconds=%.3f%s",
            outcome.result,
            outcome.why,
            outcome.digest or "-",
            outcome.was or "-",
            outcome.seconds,
            f' message="{outcome.message}"' if outcome.message else "",
        )
        for item in outcome.diagnostics:
            level = logging.WARNING if item.severity == "warning" else logging.ERROR
            log.log(level, "%s", headline(item, outcome.sources))
        for note in outcome.notes:
            log.warning("%s", note)


class Reloader:
    """Reloads a running worker's script when asked, hung up on, or its files are saved."""

    def __init__(self, worker: Worker, limits: Limits = DEFAULT, *, watching: bool = True) -> None:
        self.worker = worker
        self.limits = limits
        self.watching = watching
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._tried = worker.program.sources
        self._seen = self._texts()
        self._proven = worker.program
        self._trial: _Trial | None = None
        worker.every(1.0, self.look)

    @property
    def stale(self) -> bool:
        """Whether a file is another than at the last reload, refused or not."""
        return any(_text(file) != self._seen.get(file) for file in self.files)

    @property
    def files(self) -> frozenset[Path]:
        """What to watch: the running script's files and those of one that was refused."""
        names = [file.path for file in self._tried.files]
        return frozenset([*map(Path, names), *self.worker.program.script.files])

    def hang_up(self) -> None:
        """SIGHUP."""
        self._begin(self.reload("SIGHUP"))

    def start(self) -> None:
        """Watch the files, if that is wanted."""
        if self.watching:
            self._begin(self._watch())

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def reload(self, why: str, digest: str = "") -> Outcome:
        """Compile the files as they are and swap; never raises for what is in them.

        digest: of the script that is meant; another one is refused.
        """
        async with self._lock:
            started = time.monotonic()
            was = self.worker.program.script.digest
            try:
                outcome = await self._reload(why, digest)
            except ScriptErrors as error:
                self._tried = error.sources
                outcome = Outcome(REFUSED, why, diagnostics=list(error.diagnostics))
                outcome.sources = error.sources
                count = sum(item.severity == "error" for item in error.diagnostics)
                outcome.message = f"{count} error{'s' if count != 1 else ''}, the old script stays"
            except (ConfigError, PluginError) as error:
                outcome = Outcome(REFUSED, why, message=f"{error}; the old script stays")
            except FAULTS as error:  # a plugin's own fault; counted, and the old script goes on
                log.exception("reload failed")
                told = f"{type(error).__name__}: {error}; the old script stays"
                outcome = Outcome(REFUSED, why, message=told)
            self._seen = self._texts()
            outcome.was, outcome.seconds = was, time.monotonic() - started
            outcome.digest = outcome.digest or was
            if outcome.result != UNCHANGED:
                self.worker.reloads.add(outcome)
            return outcome

    async def _reload(self, why: str, digest: str) -> Outcome:
        worker, running = self.worker, self.worker.program
        program, new, changes = await _in_thread(self._prepare)
        self._tried = program.sources
        if digest and program.script.digest != digest:
            raise ConfigError("the script was saved again after it was compared")
        if why == "saved" and program.script.digest == running.script.digest:
            return Outcome(UNCHANGED, why)
        fresh = _Starting(worker, program, new)
        try:
            await _in_thread(fresh.start)
            worker.swap(program, changes)
        except BaseException:
            await _in_thread(fresh.abandon)
            raise
        fresh.join()
        again = worker.containment.let_in()
        if self._trial is None:
            self._proven = running
        self._trial = _Trial(worker, self.limits) if self.limits.share else None
        return Outcome(
            RELOADED,
            why,
            program.script.digest,
            notes=[
                *_notes(running, program, new, changes),
                *(f'module "{name}" is let in again, after it failed' for name in again),
            ],
            diagnostics=program.warnings,
            sources=program.sources,
        )

    def _prepare(self) -> tuple[Program, list[str], list[Change]]:
        """In the thread: the program, its modules that do not run yet, what to tell the rest."""
        running, params = self.worker.program, self.worker.params
        program = load_beside(running, partial(params.refusals, running))
        new = [name for name in program.registry.names if name not in program.registry.reused]
        return program, new, params.changes(program, new)

    # Going back

    def look(self) -> None:
        """Each second: go back when the script that was just swapped fails too often."""
        trial = self._trial
        if trial is None or self._lock.locked():
            return
        told = trial.failing()
        if told:
            self._go_back(told)
        elif trial.over():
            self._trial = None

    def _go_back(self, told: str) -> None:
        worker, failed, back = self.worker, self.worker.program, self._proven
        self._trial = None
        worker.swap(back, worker.params.changes(back))
        worker.reloads.add(
            Outcome(
                ROLLED_BACK,
                "errors",
                back.script.digest,
                failed.script.digest,
                message=f"{told}: the script before it runs again",
            )
        )

    # Watching

    async def _watch(self) -> None:
        from homerd.core.watch import saved  # what it needs is loaded only where files are watched

        async for _ in saved(lambda: self.files):
            if self.stale:
                await self.reload("saved")

    def _texts(self) -> dict[Path, str | None]:
        """Each watched file as it was read; one that the last script did without, as it is."""
        read = {Path(file.path): file.text for file in self._tried.files}
        return {file: read[file] if file in read else _text(file) for file in self.files}

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("watching the script ended", exc_info=error)


class _Trial:
    """A script's first packets, held against those of the one before it."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self.limits = limits
        self.worker = worker
        self.until = time.monotonic() + limits.seconds
        self.packets, self.failures = self._counts()
        self.usual = self.failures / self.packets if self.packets else 0.0

    def failing(self) -> str:
        """What is too much, "" while nothing is."""
        packets, failures = self._counts()
        packets, failures = packets - self.packets, failures - self.failures
        if packets < self.limits.packets or not failures:
            return ""
        if failures / packets <= self.usual + self.limits.share:
            return ""
        where = self.worker.engine.route_errors.most_common(1)[0][0]
        return f"{failures} errors in {packets} packets, most at {where}"

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.until

    def _counts(self) -> tuple[int, int]:
        engine = self.worker.engine
        return engine.received, sum(engine.route_errors.values())


class _Starting:
    """The worker that modules see which a reload loads: sinks start in a thread, not on the loop.

    Routes run on the loop, as they must; timers begin with the swap.  Afterwards it hands
    everything on to the worker.
    """

    def __init__(self, worker: Worker, program: Program, new: list[str]) -> None:
        self.deliver = worker.deliver
        self._worker = worker
        self._program = program
        self._new = new
        self._loop = asyncio.get_running_loop()
        self._sinks: list[BatchSink] = []
        self._timers: list[tuple[str, float, Callable[[], None]]] = []
        self._name = ""
        self._joined = False

    # Who starts it

    def start(self) -> None:
        """In a thread: the startup hooks of the new modules."""
        for name in self._new:
            hook = getattr(self._program.registry.plugin(name), "startup", None)
            self._name = name
            if hook is not None:
                started(name, partial(hook, worker=self))

    def join(self) -> None:
        """On the loop: the script runs, and what was started belongs to the worker."""
        self._joined = True
        self._worker.sinks += self._sinks
        for name, seconds, call in self._timers:
            with self._worker.containment.inside_of(name):
                self._worker.every(seconds, call)

    def abandon(self) -> None:
        """In a thread: the script is refused after all."""
        for name in self._new:
            hook = getattr(self._program.registry.plugin(name), "shutdown", None)
            if hook is not None:
                with contextlib.suppress(*FAULTS):  # of what its startup did not come to
                    hook(worker=self)
        for sink in self._sinks:
            sink.stop(0.0)

    # What plugins use

    def add_sink(self, sink: BatchSink) -> BatchSink:
        if self._joined:
            return self._worker.add_sink(sink)
        self._worker.give_spool(sink)
        if self.deliver:
            sink.start()
        self._sinks.append(sink)
        return sink

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        if self._joined:
            self._worker.every(seconds, call)
        else:
            self._timers.append((self._name, seconds, call))

    def run_route(self, name: str, state: RunState | None = None, timer: str = "") -> str:
        if self._joined:
            return self._worker.run_route(name, state, timer)
        return self._on_loop(partial(self._worker.run_route, name, state, timer))

    def run_event(self, name: str, packet: Packet | None = None) -> str:
        if self._joined:
            return self._worker.run_event(name, packet)
        return self._on_loop(partial(self._worker.run_event, name, packet))

    def __getattr__(self, name: str) -> Any:  # whatever else the worker offers
        return getattr(self._worker, name)

    def _on_loop(self, call: Callable[[], str]) -> str:
        """Run a route of the new script between two packets, and wait for it."""

        async def run() -> str:
            with self._worker.trying(self._program.script):
                return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


def _text(file: Path) -> str | None:
    try:
        return file.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return None


def _notes(running: Program, program: Program, new: list[str], changes: list[Change]) -> list[str]:
    gone = [name for name in running.registry.names if name not in program.registry.names]
    return [
        *(f'module "{name}" was loaded and started' for name in new),
        *(f'module "{name}" is no longer loaded: it goes on until a restart' for name in gone),
        *(f'modparam("{each.module}", "{each.name}") has its new value' for each in changes),
    ]


async def _in_thread(call: Callable[[], T]) -> T:
    with _short_turns():
        return await asyncio.to_thread(call)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
