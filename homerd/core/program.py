"""A script from its file to what a worker runs: compiled, its modules loaded and configured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homerd.core import settings
from homerd.core.settings import Settings
from homerd.errors import ConfigError, PluginError, ScriptErrors
from homerd.lang import nodes
from homerd.lang.check import Checked, always_ends, check
from homerd.lang.diagnostics import Diagnostic, Diagnostics
from homerd.lang.dialect import Dialect, Told
from homerd.lang.parse import parse
from homerd.lang.preprocess import preprocess
from homerd.lang.script import CompiledPlan, CompiledScript, Entry
from homerd.lang.source import SourceMap
from homerd.packet import envelope
from homerd.plugin.hookspecs import Capture, Outline, PacketPolicy
from homerd.plugin.loader import Assigned, Loader
from homerd.plugin.registry import Registry, words_elsewhere

# What a script has without loadmodule.
IMPLIED = {
    Dialect.KAMAILIO: ("core",),
    Dialect.OPENSIPS: ("core", "pv", "xlog", "opensips"),
    Dialect.PLAN: ("core", "captagent"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A script that compiled, and everything it needs.

    globals: the script's own (`group.field`).  warnings: diagnostics that did not stop it.
    params: (module, name) -> the modparam lines that count.  defines: names set from outside.
    told: the dialect it was read in.
    """

    path: Path
    script: CompiledScript
    registry: Registry
    settings: Settings
    globals: dict[str, str | int]
    warnings: list[Diagnostic]
    sources: SourceMap
    outline: Outline = field(default_factory=Outline)
    params: Mapping[tuple[str, str], list[Assigned]] = field(default_factory=dict)
    defines: tuple[str, ...] = ()
    told: Told = field(default_factory=lambda: Told(Dialect.KAMAILIO))

    @property
    def texts(self) -> dict[str, str]:
        """Path -> text of each file as it was read."""
        return {file.path: file.text for file in self.sources.files}

    @property
    def captures(self) -> list[Capture]:
        """What to capture from live: the script's own, and what modules ask for."""
        found = [*self.settings.live]
        for name in self.registry.names:
            found += self.registry.ask(name, "captures") or ()
        return found

    def modparam(self, module: str, name: str) -> object:
        """The value of a module's parameter; None when the module is not loaded."""
        plugin = self.registry.plugin(module)
        return None if plugin is None else getattr(plugin, name, None)


def load(
    path: Path,
    *,
    defines: Iterable[str] = (),
    text: str | None = None,
    texts: Mapping[str, str] | None = None,
    given: Mapping[str, Callable[[], Any]] | None = None,
) -> Program:
    """Compile the script at *path* and configure its modules; nothing is opened or started.

    defines: names set from outside, as `NAME` or `NAME=VALUE`.  text: the script itself, texts: it
    and all it includes, when they are not to be read.  given: modules that are not installed.
    Raises ScriptErrors with everything that was found, ConfigError when the file cannot be read.
    """
    draft = Draft(path, tuple(defines), text, texts, given=given)
    draft.refuse_errors()
    return draft.program()


def load_beside(running: Program, refusals: Callable[[Draft], Iterable[Diagnostic]]) -> Program:
    """Compile the running program's files as they are now, for its own plugin objects.

    No running plugin is told anything: Program.outline and Program.params are what they have to
    hear when the program takes over.  Modules that do not run yet are configured.
    refusals: what cannot change while it runs.  Raises as `load`.
    """
    given = running.registry.given
    trial = Draft(running.path, running.defines, None, None, given=given)
    trial.refuse_errors()
    trial.configure()
    trial.diagnostics.found += refusals(trial)
    trial.refuse_errors()
    # Words are bound to plugin objects while the script is checked: once more, with those that run.
    texts = {file.path: file.text for file in trial.sources.files}
    draft = Draft(running.path, running.defines, None, texts, running.registry, given)
    draft.refuse_errors()
    return draft.program(trial.diagnostics.warnings)


class Draft:
    """A script on its way to a Program: read, its modules loaded, its names bound."""

    def __init__(
        self,
        path: Path,
        defines: tuple[str, ...],
        text: str | None,
        texts: Mapping[str, str] | None,
        running: Registry | None = None,
        given: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        if text is None and texts is None and not path.is_file():
            fault = "a folder, not a script" if path.is_dir() else "no such file"
            raise ConfigError(f"{path}: {fault}")
        self.path = path
        self.defines = defines
        self.sources = SourceMap()
        self.diagnostics = diagnostics = Diagnostics(self.sources)
        self.tokens = preprocess(path, diagnostics, defines=defines, text=text, texts=texts)
        self.registry = Registry(running, given)
        self.loader = Loader(self.registry, diagnostics, IMPLIED[self.tokens.told.dialect])
        self.globals: list[nodes.Global] = []
        self.custom_globals: dict[str, str | int] = {}
        tree = parse(self.tokens, diagnostics)
        self._carry_out(tree)
        self.settings, wrong = settings.parse(self.globals)
        for line, message in wrong:
            code = "E405" if message.startswith("unknown") else "E406"
            message, _, hint = message.partition("\n")
            diagnostics.add(code, message, line.span, hint)
        words = self.registry.vocabulary()
        elsewhere = functools.partial(words_elsewhere, self.tokens.told.dialect is Dialect.OPENSIPS)
        self.checked = check(tree, self.tokens, words, diagnostics, elsewhere)
        self.outline = _outline(self.checked)
        self.loader.check(self.outline, self.checked.events)

    def refuse_errors(self) -> None:
        """ScriptErrors when there are any."""
        if self.diagnostics.errors:
            raise ScriptErrors(self.diagnostics.found, self.sources)

    def configure(self) -> None:
        """Have the modules that do not run yet look at their parameters."""
        for name in self.registry.names:
            if name not in self.registry.reused:
                self.registry.ask(name, "configure", changed=frozenset())

    def program(self, warnings: list[Diagnostic] | None = None) -> Program:
        """The compiled script with its modules."""
        plan = self.tokens.told.dialect is Dialect.PLAN
        script = (CompiledPlan if plan else CompiledScript)(
            self.checked,
            self.sources,
            self.tokens.files,
            max_while_loops=self.settings.max_while_loops,
            max_recursive_level=self.settings.max_recursive_level,
        )
        self.configure()
        self.registry.running = None
        if not self.registry.reused:
            script.entry = entry_of(self.registry)
        return Program(
            self.path,
            script,
            self.registry,
            self.settings,
            self.custom_globals,
            self.diagnostics.warnings if warnings is None else warnings,
            self.sources,
            self.outline,
            self.loader.params,
            self.defines,
            self.tokens.told,
        )

    def _carry_out(self, tree: nodes.Script) -> None:
        for item in tree.items:
            match item:
                case nodes.LoadModule():
                    self.loader.load_module(item)
                case nodes.SearchPath():
                    self.loader.search_path(item)
                case nodes.ModParamLine():
                    self.loader.set_param(item)
                case nodes.Global():
                    self.globals.append(item)
                case nodes.CustomGlobal():
                    self.custom_globals[item.name] = item.value
                case _:
                    pass


def _outline(checked: Checked) -> Outline:
    events = checked.events
    return Outline(
        frozenset(checked.routes),
        frozenset(events),
        frozenset(name for name, block in events.items() if always_ends(block, "drop")),
        tuple(checked.timers),
        checked.opensips,
        frozenset(checked.functions),
    )


def entry_of(
    registry: Registry, failed: Callable[[str, str, BaseException], None] | None = None
) -> Entry:
    """What the modules want done with a packet before its route, put together.

    failed: told which module did not say, in place of a PluginError.
    """
    accept, event, route, handlers, http = True, "", "", {}, None
    for name in registry.names:
        try:
            policy: PacketPolicy | None = registry.ask(name, "packet_policy")
        except PluginError as error:
            if failed is None:
                raise
            failed(name, "packet_policy", error)
            continue
        if policy is not None:
            accept = accept and policy.accept_hep
            event = event or policy.entry_event
            route = route or policy.entry_route
            handlers.update(policy.handlers)
            http = http or policy.http
    return Entry(accept, event, handlers, envelope, http, route)
