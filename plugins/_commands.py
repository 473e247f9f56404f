"""Shell commands: run with a deadline, their output bounded, a group of processes each.

The message on standard input is a file in memory, so that a command which does not read it blocks
nobody; what is left of a command at its deadline is killed with all its children.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

MAX_OUTPUT = 64 << 10
_READ = 1 << 14


@dataclass(frozen=True, slots=True)
class Command:
    """What to run; environment is added to the worker's own."""

    text: str
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: "ok", "failed" (another status than 0), "timed_out", "too_much", "not_run"."""

    result: str
    output: bytes = b""


def run(command: Command, timeout: float, *, output: bool = False) -> Outcome:
    """Run *command* with /bin/sh for at most *timeout* seconds."""
    end = time.monotonic() + timeout
    stdin = os.memfd_create("homerd-exec")
    try:
        os.write(stdin, command.stdin)
        os.lseek(stdin, 0, os.SEEK_SET)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command.text],
            stdin=stdin,
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
            env={**os.environ, **command.environment},
            start_new_session=True,
        )
    except (OSError, ValueError):  # no process to be had, or a NUL in the command
        return Outcome("not_run")
    finally:
        os.close(stdin)
    try:
        taken = _read(process, end)
        if taken is None:
            return Outcome("too_much")
        status = _wait(process, end)
        if status is None:
            return Outcome("timed_out", taken)
        return Outcome("failed" if status else "ok", taken)
    finally:
        _end(process)


def _read(process: subprocess.Popen[bytes], end: float) -> bytes | None:
    """What the command prints until it closes its output or time is up; None when too much."""
    if process.stdout is None:
        return b""
    taken = bytearray()
    while _is_readable(process.stdout.fileno(), end):
        data = os.read(process.stdout.fileno(), _READ)
        if not data:
            break
        taken += data
        if len(taken) > MAX_OUTPUT:
            return None
    return bytes(taken)


def _wait(process: subprocess.Popen[bytes], end: float) -> int | None:
    """The exit status; None when there is none in time."""
    descriptor = os.pidfd_open(process.pid)
    try:
        _is_readable(descriptor, end)
    finally:
        os.close(descriptor)
    return process.poll()


def _is_readable(descriptor: int, end: float) -> bool:
    """Whether there is something to read, or the other side has ended, before *end*."""
    # select() refuses descriptors above 1023, and a busy server has more connections than that.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind of a command that has not ended."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Commands:
    """Runs commands nobody waits for, some at a time, in the order they came.

    name, add, describe: where packets put them (`packet.emit`).  counts: by how they ended.
    """

    name = "exec"

    def __init__(self, *, running: int, waiting: int, timeout: float) -> None:
        self.running = running
        self.timeout = timeout
        self.counts: Counter[str] = Counter()
        self._queue: queue.Queue[Command | None] = queue.Queue(waiting)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def add(self, command: Command) -> None:
        """Queue one command; refused and counted when too many wait."""
        if len(self._threads) < self.running:
            thread = threading.Thread(target=self._work, daemon=True, name="exec")
            self._threads.append(thread)
            thread.start()
        try:
            self._queue.put_nowait(command)
        except queue.Full:
            self.count("refused")

    def describe(self, command: Command) -> dict[str, str]:
        """The command."""
        return {"table": "exec", "record": command.text}

    def count(self, result: str) -> None:
        """Count one command."""
        with self._lock:
            self.counts[result] += 1

    def stop(self, timeout: float) -> None:
        """Run what waits, for at most *timeout* seconds; then what is left is not run."""
        end = time.monotonic() + timeout
        for _ in self._threads:
            try:
                self._queue.put(None, timeout=max(0.0, end - time.monotonic()))
            except queue.Full:
                break
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads.clear()
        self.timeout = 0.0

    def _work(self) -> None:
        while (command := self._queue.get()) is not None:
            if self.timeout > 0:
                self.count(run(command, self.timeout).result)
            else:
                self.count("refused")
