"""What can go wrong, and whose fault it is.

HomerdError
├── DecodeError(reason, offset)      the sender's fault; counted, never logged per packet
├── ScriptErrors(diagnostics)        the operator's; printed with carets, exit status 1
├── ConfigError                      the operator's, outside the script's text (files, addresses)
├── PluginError(plugin)              a plugin broke the contract at load
├── Flood                            a plugin gave more than anybody takes from one packet
└── SinkError ── RetryLater, Rejected(indices)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from homerd.lang.diagnostics import Diagnostic
    from homerd.lang.source import SourceMap


class Place(NamedTuple):
    """Where in the script a fault is, as the operator sees it; line and column from 1."""

    file: str
    line: int
    column: int = 0
    route: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class HomerdError(Exception):
    """Anything homerd itself raises on purpose."""


class DecodeError(HomerdError):
    """Bytes that are not what they should be.

    reason: one of a short fixed list, so that it can label a counter.
    offset: where in the bytes the fault was found.
    """

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset


class ScriptErrors(HomerdError):
    """The script does not compile; every diagnostic that was found, and its text for printing."""

    def __init__(self, diagnostics: Sequence[Diagnostic], sources: SourceMap) -> None:
        super().__init__(f"{len(diagnostics)} diagnostics")
        self.diagnostics = diagnostics
        self.sources = sources


class ConfigError(HomerdError):
    """Something outside the script's text: a file, an address, a parameter's value."""


class PluginError(HomerdError):
    """A plugin broke the contract while it was loaded."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f'module "{plugin}": {message}')
        self.plugin = plugin


class Flood(HomerdError):
    """A plugin gave more records or log lines for one packet than are taken."""


class Blocked(BaseException):
    """Interrupts a plugin that keeps the loop waiting; no fault that a plugin may catch.

    module: whose call it is.  seconds: for how long, when it was interrupted.
    """

    def __init__(self, module: str, seconds: float) -> None:
        super().__init__(f'module "{module}" did not return for {seconds:.1f} s')
        self.module = module
        self.seconds = seconds


# What may come out of a plugin's code and must not end the server.
FAULTS = (Exception, SystemExit, Blocked)


class SinkError(HomerdError):
    """A batch could not be written as it is."""


class RetryLater(SinkError):
    """The store is away or busy: the batch is kept and tried again."""


class Rejected(SinkError):
    """The store refuses some records for good.

    indices: their places in the batch; the others are tried again without them.
    """

    def __init__(self, indices: Sequence[int], message: str) -> None:
        super().__init__(message)
        self.indices = indices
