"""A script from its file to what a worker runs: compiled, its modules loaded and configured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from homerd.core import settings
from homerd.core.settings import Settings
from homerd.errors import ConfigError, ScriptErrors
from homerd.lang import nodes
from homerd.lang.check import always_ends, check
from homerd.lang.diagnostics import Diagnostic, Diagnostics
from homerd.lang.parse import parse
from homerd.lang.preprocess import preprocess
from homerd.lang.script import CompiledScript, Entry
from homerd.lang.source import SourceMap
from homerd.packet import envelope
from homerd.plugin.hookspecs import Outline, PacketPolicy
from homerd.plugin.loader import Loader
from homerd.plugin.registry import Registry, words_elsewhere


@dataclass(frozen=True, slots=True)
class Program:
    """A script that compiled, and everything it needs.

    globals: the script's own (`group.field`).  warnings: diagnostics that did not stop it.
    """

    path: Path
    script: CompiledScript
    registry: Registry
    settings: Settings
    globals: dict[str, str | int]
    warnings: list[Diagnostic]
    sources: SourceMap

    def modparam(self, module: str, name: str) -> object:
        """The value of a module's parameter; None when the module is not loaded."""
        plugin = self.registry.plugin(module)
        return None if plugin is None else getattr(plugin, name, None)


def load(path: Path, *, defines: Iterable[str] = (), text: str | None = None) -> Program:
    """Compile the script at *path* and configure its modules; nothing is opened or started.

    defines: names set from outside, as `NAME` or `NAME=VALUE`.
    Raises ScriptErrors with everything that was found, ConfigError when the file cannot be read.
    """
    if text is None and not path.is_file():
        raise ConfigError(f"{path}: no such file")
    sources = SourceMap()
    diagnostics = Diagnostics(sources)
    tokens = preprocess(path, diagnostics, defines=defines, text=text)
    tree = parse(tokens, diagnostics)
    registry = Registry()
    loader = Loader(registry, diagnostics)
    assigned: list[nodes.Global] = []
    own: dict[str, str | int] = {}
    for item in tree.items:
        match item:
            case nodes.LoadModule():
                loader.load_module(item)
            case nodes.SearchPath():
                loader.search_path(item)
            case nodes.ModParamLine():
                loader.set_param(item)
            case nodes.Global():
                assigned.append(item)
            case nodes.CustomGlobal():
                own[item.name] = item.value
            case _:
                pass
    chosen, wrong = settings.parse(assigned)
    for line, message in wrong:
        code = "E405" if message.startswith("unknown") else "E406"
        message, _, hint = message.partition("\n")
        diagnostics.add(code, message, line.span, hint)
    checked = check(tree, tokens, registry.vocabulary(), diagnostics, words_elsewhere)
    loader.check(_outline(checked.routes, checked.events), checked.events)
    if diagnostics.errors:
        raise ScriptErrors(diagnostics.found, sources)
    script = CompiledScript(
        checked,
        sources,
        tokens.files,
        max_while_loops=chosen.max_while_loops,
        max_recursive_level=chosen.max_recursive_level,
    )
    for name in registry.names:
        hook = getattr(registry.plugin(name), "configure", None)
        if hook is not None:
            hook(changed=frozenset())
    script.entry = _entry(registry)
    return Program(path, script, registry, chosen, own, diagnostics.warnings, sources)


def _outline(routes: dict[str, nodes.Block], events: dict[str, nodes.Block]) -> Outline:
    dropping = frozenset(name for name, block in events.items() if always_ends(block, "drop"))
    return Outline(frozenset(routes), frozenset(events), dropping)


def _entry(registry: Registry) -> Entry:
    """What the modules want done with a packet before its route, put together."""
    accept, event, handlers, http = True, "", {}, None
    for name in registry.names:
        hook = getattr(registry.plugin(name), "packet_policy", None)
        policy: PacketPolicy | None = hook() if hook is not None else None
        if policy is not None:
            accept = accept and policy.accept_hep
            event = event or policy.entry_event
            handlers.update(policy.handlers)
            http = http or policy.http
    return Entry(accept, event, handlers, envelope, http)
