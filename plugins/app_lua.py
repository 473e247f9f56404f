"""app_lua: functions in another language.  Lua itself is not run; Python takes its place.

`modparam("app_lua", "load", "file.py")` loads a Python file, and `lua_run("name", …)` calls its
function `name(packet, …)` with texts; the result is a return code as of any function (None and
True are 1, False is -1).  For a Lua file functions return -1, and are counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from homerd.api import (
    ConfigError,
    ModParam,
    Outline,
    Packet,
    Plugin,
    Problem,
    hookimpl,
    script_function,
)


class AppLua(Plugin):
    """Calls functions of Python files."""

    name = "app_lua"

    load = ModParam(str, many=True, help="a file with functions: .py is loaded, .lua accepted")
    reload = ModParam(int, 0, help="accepted")
    register = ModParam(str, many=True, help="accepted")
    log_mode = ModParam(int, 0, help="accepted")

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., bool | int | None]] = {}
        self.not_run = 0

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """A Lua file is not run."""
        if any(not path.endswith(".py") for path in self.load):
            yield Problem(
                "Lua is not run here: its functions return -1",
                parameter="load",
                help="write them in Python: def name(packet, text): …, and load the .py file",
                warning=True,
            )

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Load the Python files; raises ConfigError when one fails."""
        self.functions = {}
        for path in self.load:
            if path.endswith(".py"):
                self.functions.update(_functions(Path(path)))

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Calls of functions that are not there."""
        yield "homerd_app_lua_not_run_total", {}, self.not_run

    @script_function
    def lua_run(self, packet: Packet, function: str, *arguments: str) -> int:
        """Call a function of a loaded Python file; -1 when there is none of that name."""
        found = self.functions.get(function)
        if found is None:
            self.not_run += 1
            return -1
        result = found(packet, *arguments)
        if result is None or result is True:
            return 1
        return -1 if result is False else int(result)

    @script_function
    def lua_dofile(self, packet: Packet, path: str) -> int:
        """-1: Lua is not run."""
        self.not_run += 1
        return -1

    @script_function
    def lua_dostring(self, packet: Packet, text: str) -> int:
        """-1: Lua is not run."""
        self.not_run += 1
        return -1

    @script_function
    def lua_runstring(self, packet: Packet, text: str) -> int:
        """-1: Lua is not run."""
        self.not_run += 1
        return -1


def _functions(path: Path) -> dict[str, Any]:
    """The public functions that a file defines."""
    names: dict[str, Any] = {"__name__": f"homerd_app_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), names)
    except OSError as error:
        raise ConfigError(
            f'modparam("app_lua", "load", "{path}"): {error.strerror or error}'
        ) from error
    except Exception as error:  # somebody else's code: whatever it raises is its fault, by name
        raise ConfigError(
            f'modparam("app_lua", "load", "{path}"): {type(error).__name__}: {error}'
        ) from error
    return {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
