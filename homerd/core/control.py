"""The control socket: a Unix socket, one JSON line asked, one JSON line answered.

{"ask": "status"}   ->   {"ok": {…}}   or   {"error": "…"}

What else the question holds are arguments.  An answer may take its time, or be a Stream: bytes
that follow the line until the daemon has said everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from homerd.errors import ConfigError

Answer = Callable[..., Any]  # a JSON value, something to await for one, or a Stream

_TIMEOUT_SECONDS = 5.0
_LONGEST_REQUEST = 1 << 16


def default_path() -> Path:
    """Where the socket is when nobody says: for this user, in the runtime directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for folder in (runtime, "/run/homerd"):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            return Path(folder) / "homerd.sock"
    return Path(tempfile.gettempdir()) / f"homerd-{os.getuid()}.sock"


class Stream(Protocol):
    """An answer that goes on: `send` writes until it has said everything."""

    async def send(self, writer: asyncio.StreamWriter) -> None:
        """Write all of it."""


def ask(
    path: Path, question: str, *, timeout: float = _TIMEOUT_SECONDS, **arguments: object
) -> Any:
    """What the daemon behind *path* answers; ConfigError when none is there."""
    with asking(path, question, timeout=timeout, **arguments) as (answer, _):
        return answer


@contextlib.contextmanager
def asking(
    path: Path, question: str, *, timeout: float = _TIMEOUT_SECONDS, **arguments: object
) -> Iterator[tuple[Any, BinaryIO]]:
    """The same, with the bytes that follow it.  timeout: of each wait."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(path))
            link.sendall(json.dumps({"ask": question, **arguments}).encode() + b"\n")
            reader = link.makefile("rb")
            line = reader.readline()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConfigError(f"no homerd is running at {path}") from error
        except OSError as error:
            raise ConfigError(f"no answer at {path}: {error.strerror or error}") from error
        with reader:
            yield _answered(path, line), reader


def _answered(path: Path, line: bytes) -> Any:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"no answer at {path}: the connection was closed") from error
    if "error" in answer:
        raise ConfigError(str(answer["error"]))
    return answer["ok"]


class ControlSocket:
    """Answers what `answers` knows, as long as it is open."""

    def __init__(self, path: Path, answers: Mapping[str, Answer]) -> None:
        self.path = path
        self.answers = answers
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def bind(self) -> None:
        """Take the path; a socket nobody answers on any more is replaced, a live one is not."""
        _remove_stale(self.path)
        opened = socket.socket(socket.AF_UNIX)
        try:
            opened.bind(str(self.path))
            os.chmod(self.path, stat.S_IRUSR | stat.S_IWUSR)
        except OSError as error:
            opened.close()
            raise ConfigError(f"control socket {self.path}: {error.strerror or error}") from error
        opened.setblocking(False)
        self._socket = opened

    async def serve(self) -> None:
        """Begin to answer."""
        assert self._socket is not None
        self._server = await asyncio.start_unix_server(
            self._answer, sock=self._socket, limit=_LONGEST_REQUEST
        )

    def close(self) -> None:
        """Stop answering and give the path back."""
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            # Where only root may: the next start replaces what nobody answers on.
            with contextlib.suppress(PermissionError):
                self.path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _TIMEOUT_SECONDS)
            reply, stream = await self._say(line)
            writer.write(json.dumps(reply).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), _TIMEOUT_SECONDS)
            if stream is not None:
                await stream.send(writer)
        except (OSError, ValueError, TimeoutError):
            pass  # who asked has gone, or asked without end
        finally:
            writer.close()

    async def _say(self, line: bytes) -> tuple[dict[str, Any], Stream | None]:
        try:
            arguments = json.loads(line)
            answer = self.answers[arguments.pop("ask")]
            inspect.signature(answer).bind(**arguments)
        except (ValueError, TypeError, KeyError, AttributeError):
            return {"error": f"expected one of {', '.join(self.answers)} in {{'ask': …}}"}, None
        try:
            said = answer(**arguments)
            if inspect.isawaitable(said):
                said = await said
        except ConfigError as error:
            return {"error": str(error)}, None
        return ({"ok": True}, said) if hasattr(said, "send") else ({"ok": said}, None)


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"control socket {path}: something else is there; use --socket PATH")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_TIMEOUT_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    raise ConfigError(f"another homerd answers at {path}; use --socket PATH for a second one")
