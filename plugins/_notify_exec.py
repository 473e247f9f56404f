"""Alarms to a program: the event as JSON on standard input, its fields in ALARM_… variables.

The program is run itself, by no shell, one at a time, in a group of its own which is killed when
time is up.  Exit status 0: told.  75 (EX_TEMPFAIL of sysexits.h): told again later.  Any other: the
event is rejected, with the first line of standard error.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from homerd.api import ConfigError
from homerd_plugins._alarm_event import AlarmEvent
from homerd_plugins._notify_parts import Options, Url, no_more
from homerd_plugins._notify_sink import NotifySink, text_of

MOST_KEPT = 4096  # bytes of standard error
MOST_VARIABLE = 1024  # the key and the like come from the network
_FORM = "exec:/path/to/program"


@dataclass(frozen=True, slots=True)
class Program:
    """The settings of a program."""

    path: str
    rate: int
    timeout: int

    @staticmethod
    def of(url: Url, options: Options) -> Program:
        """Read them."""
        no_more(url, _FORM, user=True, query=True)
        if url.host or not url.path.startswith("/"):
            raise ValueError(f"expected {_FORM}, from the root and without arguments")
        return Program(
            url.path,
            options.number("rate", 60, 0, 100_000),
            options.number("timeout", 10, 1, 600),
        )

    @property
    def where(self) -> str:
        """The program."""
        return f"exec:{self.path}"

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What runs it."""
        return ProgramSink(name, self, **options)


class ProgramSink(NotifySink):
    """Runs the program for each event."""

    def __init__(self, name: str, settings: Program, **options: Any) -> None:
        super().__init__(name, settings.where, key=settings.where, rate=settings.rate, **options)
        self.settings = settings

    def connect(self) -> None:
        """See that there is a program."""
        path = self.settings.path
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            raise ConfigError(f'target "{self.target}": {path} is no file that may be executed')

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """One run."""
        event, settings = events[0], self.settings
        try:
            status, said = run(
                settings.path, settings.timeout, input_of(event), variables_of(event)
            )
        except OSError as error:
            raise self.later(f"{error.strerror}; does it begin with #!/… ?") from error
        if status is None:
            raise self.refused(f"killed, it took longer than timeout={settings.timeout}")
        if status == os.EX_TEMPFAIL:
            raise self.later(f"exit status {status}: {said}")
        if status:
            ended = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise self.refused(f"{ended}: {said}")


def run(
    path: str, timeout: float, stdin: bytes, variables: dict[str, str]
) -> tuple[int | None, str]:
    """Exit status, None when time was up, and the first line of standard error."""
    end = time.monotonic() + timeout
    # A file in memory, so that a program which does not read it blocks nobody.
    told = os.memfd_create("homerd-alarm")
    try:
        os.write(told, stdin)
        os.lseek(told, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [path],
            stdin=told,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    finally:
        os.close(told)
    assert process.stderr is not None
    with process.stderr as errors:
        try:
            said, ended = _listen(process, errors.fileno(), end)
        finally:
            _end(process)
    status = process.returncode if ended else None
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return status, lines[0] if lines else "nothing on standard error"


def _listen(process: subprocess.Popen[bytes], errors: int, end: float) -> tuple[bytes, bool]:
    """What *process* says first until it ends or time is up; whether it has ended."""
    said = bytearray()
    ended = os.pidfd_open(process.pid)
    watched = select.poll()  # select() takes no descriptor above 1023
    watched.register(ended, select.POLLIN)
    watched.register(errors, select.POLLIN)
    try:
        while (left := end - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in watched.poll(left * 1000)]
            if errors in ready:
                data = os.read(errors, MOST_KEPT)
                said += data[: MOST_KEPT - len(said)]
                if not data:
                    watched.unregister(errors)
            elif ended in ready:
                return bytes(said), True
    finally:
        os.close(ended)
    return bytes(said), False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind of the program, its children neither.

    It has not been waited for yet, so that its number is nobody else's.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def input_of(event: AlarmEvent) -> bytes:
    """The event by field name, and its line."""
    return (json.dumps({**event.as_record(), "text": text_of(event)}) + "\n").encode()


def variables_of(event: AlarmEvent) -> dict[str, str]:
    """ALARM_NAME, ALARM_KEY and so on, without the evidence."""
    record = event.as_record()
    del record["evidence"]
    record["name"] = record.pop("alarm")
    record["repeated"] = int(event.repeated)
    record["text"] = text_of(event)
    return {
        f"ALARM_{name.upper()}": str(value).replace("\0", "")[:MOST_VARIABLE]
        for name, value in record.items()
    }
