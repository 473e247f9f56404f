"""Looks whether the loop comes round, and interrupts the module that keeps it waiting.

The kernel's interval timer signals the main thread, which runs the loop, and each turn of the loop
puts the timer off: a healthy server gets no signal.  A signal reaches what a thread could not: a
pattern that runs away holds the interpreter, and still looks for signals.  It ends time.sleep, a
socket that waits, a lock, an endless loop of Python.  C code that neither returns to Python nor
looks for signals cannot be interrupted; a thread names it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from types import FrameType
from typing import NamedTuple

from homerd.core.containment import Containment, is_script
from homerd.errors import Blocked

log = logging.getLogger("homerd.watchdog")

TURNS_PER_LIMIT = 8  # how often the timer is put off
LOOKS_PER_LIMIT = 4  # how often it signals, once nobody does


class _Call(NamedTuple):
    """One into a module: where it was entered, and the place in the module where it is now."""

    module: str
    entry: FrameType
    place: str


class Watchdog:
    """Of one loop, in the main thread; limit: seconds one call into a module may take.

    A module that waits for others by its own parameters says how long in `waits_seconds`.
    """

    def __init__(self, limit: float, containment: Containment) -> None:
        self.limit = limit
        self.containment = containment
        self.turned = time.monotonic()
        self._work = 0.0  # the loop thread's own time, when it last came round
        self._seen: tuple[FrameType | None, float] = (None, 0.0)
        self._looked = False
        self._handle: asyncio.TimerHandle | None = None
        self._before: object = None
        self._ended = threading.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; nothing happens without a limit."""
        if not self.limit:
            return
        self._before = signal.signal(signal.SIGALRM, self._look)
        self._turn(loop)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End it; what is called from now on may take its time."""
        self._ended.set()
        if self._handle is None:
            return
        self._handle.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_later(self.limit / TURNS_PER_LIMIT, self._turn, loop)
        interval = self.limit / LOOKS_PER_LIMIT
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        self.turned, self._work = time.monotonic(), time.thread_time()
        self._seen, self._looked = (None, 0.0), False
        self.containment.settle()

    def _look(self, number: int, frame: FrameType | None) -> None:
        """The signal: interrupt the call that is under way for too long."""
        call = self._entered(frame)
        first, self._looked = not self._looked, True
        now = time.monotonic()
        if call is None:
            self._seen = (None, 0.0)
            return
        seen, since = self._seen
        limit = self._limit_of(call.module)
        if seen is not call.entry:
            self._seen = (call.entry, now)
            if first and time.thread_time() - self._work >= limit:
                # C code that looks for no signal has just returned after all.
                self._tell(call, now - self.turned)
            return
        lasted = now - since
        # In homerd's own code, called by the module, a lock may be held: a little later will do.
        if lasted < limit or (_is_ours(frame) and lasted < 2 * limit):
            return
        self._seen = (None, 0.0)
        self._tell(call, now - self.turned)
        raise Blocked(call.module, now - self.turned)

    def _limit_of(self, module: str) -> float:
        plugin = self.containment.worker.program.registry.plugin(module)
        return self.limit + float(getattr(plugin, "waits_seconds", 0.0))

    def _entered(self, frame: FrameType | None) -> _Call | None:
        """The call that is under way; None when no module's code is running."""
        call = None
        while frame is not None and not is_script(frame):
            module = self.containment.of_frame(frame)
            if module and call is None:
                call = _Call(module, frame, f"{frame.f_code.co_filename}:{frame.f_lineno}")
            elif module and call is not None and module == call.module:
                call = call._replace(entry=frame)
            elif module:
                break
            frame = frame.f_back
        return call

    def _tell(self, call: _Call, seconds: float) -> None:
        self.containment.blocks(call.module, f"did not return for {seconds:.1f} s ({call.place})")

    # The thread

    def _watch(self) -> None:
        main = threading.main_thread().ident
        told = 0.0
        while not self._ended.wait(self.limit):
            waited = time.monotonic() - self.turned
            if waited < 2 * self.limit or told == self.turned:
                continue
            call = self._entered(sys._current_frames().get(main or 0))
            if call is not None and waited < 2 * self._limit_of(call.module):
                continue
            told = self.turned
            log.error(
                "the loop waits seconds=%.1f module=%s place=%s: %s",
                waited,
                call.module if call else "-",
                call.place if call else "-",
                "it could not be interrupted, no packet is taken until it returns"
                if call
                else "no module is at fault",
            )


def _is_ours(frame: FrameType | None) -> bool:
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("homerd.")
