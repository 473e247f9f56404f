"""The control socket: a Unix socket, one JSON line asked, one JSON line answered.

{"ask": "status"}   ->   {"ok": {…}}   or   {"error": "…"}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from homerd.errors import ConfigError

Answer = Callable[[], Any]  # a JSON value

_TIMEOUT_SECONDS = 5.0
_LONGEST_REQUEST = 1 << 16


def default_path() -> Path:
    """Where the socket is when nobody says: for this user, in the runtime directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for folder in (runtime, "/run/homerd"):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            return Path(folder) / "homerd.sock"
    return Path(tempfile.gettempdir()) / f"homerd-{os.getuid()}.sock"


def ask(path: Path, question: str) -> Any:
    """What the daemon behind *path* answers; ConfigError when none is there."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_TIMEOUT_SECONDS)
        try:
            link.connect(str(path))
            link.sendall(json.dumps({"ask": question}).encode() + b"\n")
            with link.makefile("rb") as reader:
                line = reader.readline()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConfigError(f"no homerd is running at {path}") from error
        except OSError as error:
            raise ConfigError(f"no answer at {path}: {error.strerror or error}") from error
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
            self.path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _TIMEOUT_SECONDS)
            writer.write(json.dumps(self._say(line)).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), _TIMEOUT_SECONDS)
        except (OSError, ValueError, TimeoutError):
            pass  # who asked has gone, or asked without end
        finally:
            writer.close()

    def _say(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)["ask"]
            answer = self.answers[question]
        except (ValueError, TypeError, KeyError):
            return {"error": f"expected one of {', '.join(self.answers)} in {{'ask': …}}"}
        try:
            return {"ok": answer()}
        except ConfigError as error:
            return {"error": str(error)}


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
