"""Modules that fail: named, counted, and left out when they fail too often.

A fault is that of the module whose code was entered last.  A module that is left out costs the
others nothing: its names in the compiled script stand for an answer of nothing until a reload that
somebody asked for.  Nothing here runs for a packet without a fault.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from homerd.errors import FAULTS, Blocked, ConfigError, Flood, PluginError
from homerd.plugin.hookspecs import HttpAnswer, HttpRequest
from homerd.plugin.hookspecs import Worker as GivenWorker

if TYPE_CHECKING:
    from homerd.core.worker import Worker
    from homerd.lang.script import Entry

log = logging.getLogger("homerd.containment")

WINDOW_SECONDS = 60.0
# A word that fails on fewer packets than one in so many is left in: a packet that somebody makes up
# to trip a module must not take the module from all others.
FAILS_ONE_IN = 10
BLOCKS, BLOCK_WINDOW_SECONDS = 3, 600.0

MOST_TEXT = 500

WORD, FLOOD, SINK, BLOCKED, TIMER = "word", "flood", "sink", "blocked", "timer"
LOG = "log"
_PER_PACKET = frozenset({WORD, FLOOD, SINK})


@dataclass(slots=True)
class Faults:
    """Those of one module.

    counts: by what failed.  skipped: uses since it was left out.  out: why it is, "" while it is
    not.  recent: when each of the last faults was, and how many packets there were by then.
    """

    counts: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    last: str = ""
    out: str = ""
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    blocks: deque[float] = field(default_factory=deque)
    undo: Callable[[], None] | None = None

    def described(self) -> dict[str, Any]:
        """It as JSON values."""
        return {
            "errors": dict(self.counts),
            "skipped": self.skipped,
            "cut_off": self.out,
            "last_error": self.last,
        }


class Containment:
    """The faults of a worker's modules.

    inside: the module whose hook is being called, "" for none.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.faults: dict[str, Faults] = {}
        self.inside = ""
        self._objects: dict[int, str] = {}
        self._files: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        self._entry: Entry | None = None  # the script's own, while another stands in its place
        self.know()

    def know(self) -> None:
        """Look at which modules there are, after they changed."""
        self._objects.clear()
        for name, plugin in self.worker.program.registry.manager.list_name_plugin():
            if plugin is None:
                continue
            self._objects[id(plugin)] = name
            module = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__module__
            self._files.setdefault(module, name)
            package = module.partition(".")[0]
            if package not in ("homerd", "homerd_plugins"):
                self._packages.setdefault(package, name)

    # Whose it is

    def owner(self, call: object, inside: str = "") -> str:
        """The module that *call* belongs to, "" when none is known; inside: who registers it."""
        while isinstance(call, functools.partial):
            call = call.func
        held = [getattr(call, "__self__", None)]
        for cell in getattr(call, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # a cell that is still empty
                held.append(cell.cell_contents)
        for each in held:
            if id(each) in self._objects:
                return self._objects[id(each)]
        return inside or self._of_module(str(getattr(call, "__module__", "")))

    def blamed(self, trace: TracebackType | None) -> str:
        """The module whose code was entered last before the fault."""
        frames = []
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        for frame in reversed(frames):
            if is_script(frame):
                return ""
            name = self.of_frame(frame)
            if name:
                return name
        return ""

    def of_frame(self, frame: FrameType) -> str:
        """The module that a frame is code of: by the object it is a method of, or by its file."""
        code, local = frame.f_code, frame.f_locals
        for variable in (*code.co_varnames[: min(1, code.co_argcount)], *code.co_freevars):
            name = self._objects.get(id(local.get(variable)))
            if name:
                return name
        return self._of_module(frame.f_globals.get("__name__", ""))

    def _of_module(self, module: str) -> str:
        name = self._files.get(module)
        return name or self._packages.get(module.partition(".")[0], "")

    # What goes wrong

    def fault(self, error: BaseException, what: str = WORD) -> str:
        """Something a packet's run ended with; gives the module whose it is, "" for the script's.

        Python's stack runs out in whatever is called last: that is the script's.
        """
        if isinstance(error, Blocked):
            self.settle()
            return error.module
        name = "" if isinstance(error, RecursionError) else self.blamed(error.__traceback__)
        if name:
            self.count(name, FLOOD if isinstance(error, Flood) else what, described(error))
        return name

    def failed(self, name: str, what: str, error: BaseException) -> None:
        """A module's hook, timer or sink failed with *error*: counted, logged, and that is all."""
        if isinstance(error, Blocked):
            self.settle()
        elif name:
            self.count(name, what, described(error))
        whose = f'{what} of module "{name}": ' if name else ""
        self.worker.engine.report(f"{whose}{described(error)}", None)
        log.debug("%s failed", what, exc_info=error)

    def count(self, name: str, what: str, told: str) -> None:
        """Count one fault, and leave the module out when there are too many."""
        faults = self.faults.setdefault(name, Faults())
        faults.counts[what] += 1
        faults.last = told
        budget = self.worker.program.settings.plugin_error_budget
        if faults.out or not budget:
            return
        now, packets = time.monotonic(), self.worker.engine.received
        recent = faults.recent
        recent.append((now, packets))
        while len(recent) > budget:
            recent.popleft()
        began, before = recent[0]
        if len(recent) < budget or now - began > WINDOW_SECONDS:
            return
        if what in _PER_PACKET and packets - before > (budget - 1) * FAILS_ONE_IN:
            return
        self.cut_off(name, f"{budget} errors in {now - began:.0f} s")

    def line_left_out(self, logger: str) -> None:
        """A module logs more than is printed."""
        name = self._of_module(logger)
        if name:
            faults = self.faults.setdefault(name, Faults())
            faults.counts[LOG] += 1
            faults.last = faults.last or "it logs more lines than are printed"

    def blocks(self, name: str, told: str) -> None:
        """Note that a module kept the loop waiting; safe in a signal handler, see `settle`."""
        faults = self.faults.setdefault(name, Faults())
        faults.counts[BLOCKED] += 1
        faults.last = told
        faults.blocks.append(time.monotonic())

    def settle(self) -> None:
        """Log who kept the loop waiting, and leave it out when it was too often."""
        now = time.monotonic()
        for name, faults in list(self.faults.items()):
            blocks = faults.blocks
            while blocks and now - blocks[0] > BLOCK_WINDOW_SECONDS:
                blocks.popleft()
            if len(blocks) >= BLOCKS and not faults.out:
                self.cut_off(name, f"it kept all packets waiting {len(blocks)} times")

    # Leaving out

    def is_out(self, name: str) -> bool:
        """Whether a module is left out; counted as one use of it."""
        faults = self.faults.get(name)
        if faults is None or not faults.out:
            return False
        faults.skipped += 1
        return True

    def _blocked(self, name: str) -> bool:
        faults = self.faults.get(name)
        return faults is not None and bool(faults.blocks)

    def cut_off(self, name: str, why: str) -> None:
        """Leave a module out until `let_in`."""
        faults = self.faults.setdefault(name, Faults())
        faults.out = why
        self._leave_out(name, faults)
        log.error(
            'module cut off module=%s why="%s" last="%s": its functions answer false, its variables'
            " are null, its timers and hooks are not called; when it is mended homerd reload lets"
            " it in again (new Python code needs a restart)",
            name,
            why,
            faults.last,
        )

    def swapped(self) -> None:
        """Another script runs: who is left out, is left out of it too."""
        self.know()
        self._entry = None
        for name, faults in self.faults.items():
            if faults.out:
                self._leave_out(name, faults)

    def let_in(self) -> list[str]:
        """Give every module another chance; their names."""
        names = [name for name, faults in self.faults.items() if faults.out]
        if self._entry is not None:
            self.worker.program.script.entry = self._entry
            self._entry = None
        for faults in self.faults.values():
            faults.out = ""
            faults.recent.clear()
            faults.blocks.clear()
            if faults.undo is not None:
                faults.undo()
                faults.undo = None
        return names

    def _leave_out(self, name: str, faults: Faults) -> None:
        def skipped() -> None:
            faults.skipped += 1

        script = self.worker.program.script
        entry = script.entry
        if self._entry is None:
            self._entry = entry
        handlers = dict(entry.handlers)
        for kind, handler in entry.handlers.items():
            if self.owner(handler) == name:
                handlers[kind] = lambda packet: skipped()
        http = entry.http
        if http is not None and self.owner(http) == name:
            http = _unavailable
        script.entry = replace(entry, handlers=handlers, http=http)
        faults.undo = script.leave_out(
            lambda call, module: (self.owner(call) or module) == name, skipped
        )

    # Hooks

    def startup(self, worker: GivenWorker) -> None:
        """Start every module; ConfigError or PluginError by the name of one that cannot."""
        for name, call in self._implementations("startup", {"worker": worker}):
            with self.inside_of(name):
                started(name, call)

    def hooks(self, hook: str, **given: object) -> None:
        """Call a hook of every module that is not left out; what fails is counted."""
        for name, call in self._implementations(hook, given):
            # What a module has gathered must not be lost, unless it could keep us from ending.
            ends = hook == "shutdown" and not self._blocked(name)
            if not ends and self.is_out(name):
                continue
            try:
                with self.inside_of(name):
                    call()
            except FAULTS as error:  # counted, and the others get their turn
                self.failed(name, hook, error)

    @contextlib.contextmanager
    def inside_of(self, name: str) -> Iterator[None]:
        """While a module's hook runs: whatever it registers is its own."""
        self.inside = name
        try:
            yield
        finally:
            self.inside = ""

    def _implementations(
        self, hook: str, given: dict[str, object]
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """In pluggy's order.  One call of its own would end with the first that fails."""
        caller = getattr(self.worker.program.registry.manager.hook, hook)
        for each in reversed(caller.get_hookimpls()):
            yield (
                each.plugin_name,
                functools.partial(each.function, *(given[name] for name in each.argnames)),
            )


def started(name: str, call: Callable[[], object]) -> None:
    """Call a module's startup hook; whatever but ConfigError it raises becomes a PluginError."""
    try:
        call()
    except ConfigError:
        raise
    except FAULTS as error:
        log.debug("startup failed module=%s", name, exc_info=True)
        raise PluginError(name, f"cannot start: {described(error)}") from error


def described(error: BaseException) -> str:
    """The error in one short line, with the place in a plugin's code it came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    text = " ".join(f"{type(error).__name__}: {_text(error)}"[:MOST_TEXT].split())
    if trace is None:
        return text
    file = trace.tb_frame.f_code.co_filename
    return f"{text} ({file}:{trace.tb_lineno})" if file.endswith(".py") else text


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception class of somebody else's
        return "(it cannot be printed)"


def is_script(frame: FrameType) -> bool:
    """Whether a frame is code that a script was compiled to: its namespace has no name."""
    return "__name__" not in frame.f_globals


def _unavailable(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(503, "Service Unavailable")
