"""`loadmodule` and `modparam`: the lines of a script that load modules and set their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from homerd.errors import PluginError
from homerd.lang import nodes
from homerd.lang.diagnostics import Diagnostics, did_you_mean
from homerd.lang.posix import compile_posix
from homerd.lang.source import Span
from homerd.plugin.hookspecs import Outline, Problem
from homerd.plugin.registry import Registry, available

Inside = Callable[[int, int, int], Span]  # token, start, end of a string's value -> span


class Assigned(NamedTuple):
    """One modparam line: its value as written, converted, and where."""

    raw: str | int
    value: object
    span: Span


class Loader:
    """Carries out a script's loadmodule and modparam lines in their order.

    A plugin that runs already (Registry.reused) is left alone; `params` tells what it would be
    given: (module, name) -> the lines that count, one unless the parameter takes many.
    implied: modules that are there without loadmodule.
    """

    def __init__(
        self, registry: Registry, diagnostics: Diagnostics, implied: Iterable[str] = ("core",)
    ) -> None:
        self.registry = registry
        self.diagnostics = diagnostics
        self.set_lines: dict[tuple[str, str], nodes.ModParamLine] = {}
        self.load_lines: dict[str, nodes.LoadModule] = {}
        self.params: dict[tuple[str, str], list[Assigned]] = {}
        for name in implied:
            registry.load(name)

    def search_path(self, line: nodes.SearchPath) -> None:
        """`mpath "a:b"`: folders whose x.py is module x; folders of another server are ignored."""
        self.registry.paths = [Path(item) for item in line.value.split(":") if item]

    def load_module(self, line: nodes.LoadModule) -> None:
        """Load a module; one that has no part in a capture router gets a warning."""
        self.load_lines.setdefault(line.name, line)
        try:
            plugin = self.registry.load(line.name)
        except PluginError as error:
            self.diagnostics.add("E401", str(error), line.span)
            return
        if plugin is None:
            self.diagnostics.add(
                "E401",
                f'unknown module "{line.name}"',
                line.span,
                did_you_mean(line.name, available()),
            )
        elif getattr(plugin, "accepted", False) and not plugin.usual:
            self.diagnostics.add(
                "W901",
                f'module "{line.name}" has no part in a capture router: loaded, does nothing',
                line.span,
            )

    def set_param(self, line: nodes.ModParamLine) -> None:
        """Set a parameter of every loaded module that the line's expression matches."""
        try:
            pattern = compile_posix(f"^({line.module})$")
        except ValueError as error:
            self.diagnostics.add("E306", str(error), line.module_span)
            return
        modules = [name for name in self.registry.names if pattern.search(name) and name != "core"]
        if not modules:
            self.diagnostics.add(
                "E402",
                f'no module "{line.module}" is loaded at this point',
                line.module_span,
                f'put loadmodule "{line.module}.so" before it'
                if line.module in available()
                else did_you_mean(line.module, self.registry.names),
            )
        for module in modules:
            self._set(module, line)

    def _set(self, module: str, line: nodes.ModParamLine) -> None:
        plugin = self.registry.plugin(module)
        if getattr(plugin, "accepted", False):
            return
        declared = self.registry.mod_params(module)
        param = declared.get(line.name)
        if param is None:
            self.diagnostics.add(
                "E403",
                f'module "{module}" has no parameter "{line.name}"',
                line.name_span,
                did_you_mean(line.name, declared),
            )
            return
        try:
            value = param.convert(line.value)
            if module not in self.registry.reused:
                plugin.set_mod_param(line.name, value)
        except ValueError as error:
            self.diagnostics.add(
                "E404", f'modparam("{module}", "{line.name}"): {error}', line.value_span
            )
            return
        self.set_lines[(module, line.name)] = line
        given = Assigned(line.value, value, line.value_span)
        lines = self.params.setdefault((module, line.name), [])
        lines[:] = [*lines, given] if param.many else [given]

    def check(self, outline: Outline, events: dict[str, nodes.Block]) -> None:
        """Ask for required parameters, and every module what it thinks of the script."""
        for name in self.registry.names:
            span = self.load_lines[name].span if name in self.load_lines else Span(0, 0, 0, 0)
            for param in self.registry.mod_params(name).values():
                if param.required and (name, param.name) not in self.set_lines:
                    self.diagnostics.add(
                        "E404", f'module "{name}" needs modparam("{name}", "{param.name}", …)', span
                    )
            if name in self.registry.reused:
                continue
            for problem in self.registry.ask(name, "check_script", outline=outline) or ():
                self._report(name, problem, span, events)

    def _report(
        self, name: str, problem: Problem, span: Span, events: dict[str, nodes.Block]
    ) -> None:
        line = self.set_lines.get((name, problem.parameter))
        given = self.params.get((name, problem.parameter), ())
        meant = next((item.span for item in given if item.raw == problem.value), None)
        if meant is not None:
            span = meant
        elif line is not None:
            span = line.span
        elif problem.event in events:
            span = events[problem.event].name_span
        code = "W906" if problem.warning else "E407"
        self.diagnostics.add(code, problem.message, span, problem.help)

    def plugins(self) -> list[Any]:  # any objects with hooks
        """The loaded plugins, in the order they were loaded."""
        return [self.registry.plugin(name) for name in self.registry.names]
