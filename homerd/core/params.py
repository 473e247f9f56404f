"""What may change while it runs: module parameters and globals of a second script, held against
those in use.

A parameter declared reloadable takes its new value when the scripts are swapped; one of several
lines (`many`) may get more of them.  Everything else needs a restart, and is refused by name.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from homerd.core import live
from homerd.core.containment import described
from homerd.errors import FAULTS, ConfigError, PluginError
from homerd.lang.diagnostics import Diagnostic
from homerd.lang.source import NOWHERE
from homerd.plugin.loader import Assigned

if TYPE_CHECKING:
    from homerd.core.program import Draft, Program
    from homerd.core.settings import Settings
    from homerd.plugin.registry import Registry

Lines = Mapping[tuple[str, str], list[Assigned]]

RESTART = "E408"
# Settings that sockets are opened with -> the globals that say them.
_OPENED_WITH = {
    "listen": ("listen", "socket", "port", "disable_tcp"),
    "live": ("listen", "socket", *live.SETTINGS),
    "user": ("user", "uid"),
    "group": ("group", "gid"),
    "receive_buffer": ("receive_buffer",),
    "tcp_connections": ("tcp_max_connections",),
    "tcp_idle_seconds": ("tcp_connection_lifetime",),
    "tls": (
        "tls_certificate",
        "tls_private_key",
        "tls_ca_list",
        "tls_verify_certificate",
        "tls_require_certificate",
        "tls_method",
        "tls_handshake_timeout",
    ),
    "workers": ("workers",),
    "metrics": ("metrics",),
    "spool_dir": ("spool_dir",),
    "spool_limit": ("spool_limit",),
    "rtp_reports": ("rtp_reports",),
    "plugin_block_seconds": ("plugin_block_seconds",),
}


class Change(NamedTuple):
    """New values of one parameter; of one that takes many, those that come to the others."""

    module: str
    name: str
    values: tuple[object, ...]
    many: bool


class ParamsInUse:
    """The parameters of the plugin objects that run."""

    def __init__(self, lines: Lines) -> None:
        self._lines = dict(lines)

    def refusals(self, running: Program, draft: Draft) -> Iterator[Diagnostic]:
        """What *draft* changes that needs a restart."""
        yield from _settings_refused(running.settings, draft)
        for module in draft.registry.names:
            if running.registry.plugin(module) is None:
                continue
            for param in draft.registry.mod_params(module).values():
                key = (module, param.name)
                old, new = self._old(running, key), draft.loader.params.get(key, [])
                if _same(old, new):
                    continue
                gone = [line for line in old if not _among(line, new)]
                if param.reloadable and not (param.many and gone and not param.replaceable):
                    continue
                where = [line for line in new if not _among(line, old)] or new
                load_line = draft.loader.load_lines.get(module)
                span = where[-1].span if where else load_line.span if load_line else NOWHERE
                what = "lines may be added, other changes need" if param.reloadable else "it needs"
                yield Diagnostic(
                    RESTART,
                    f'modparam("{module}", "{param.name}") cannot change while homerd runs: '
                    f"{what} a restart",
                    span,
                )

    def changes(self, program: Program, new: Container[str] = ()) -> list[Change]:
        """What running plugin objects have to be told when *program* takes over.

        new: modules that do not run yet, and have heard it.
        """
        found = []
        for module in program.registry.names:
            if module in new:
                continue
            for param in program.registry.mod_params(module).values():
                used = self._lines.get((module, param.name), [])
                wanted = program.params.get((module, param.name), [])
                if _same(used, wanted):
                    continue
                if param.replaceable:
                    values = [line.value for line in wanted]
                    found.append(Change(module, param.name, (values,), many=False))
                elif param.many:
                    more = tuple(line.value for line in wanted if not _among(line, used))
                    if more:
                        found.append(Change(module, param.name, more, many=True))
                else:
                    value = wanted[0].value if wanted else param.default
                    found.append(Change(module, param.name, (value,), many=False))
        return found

    def apply(self, program: Program, changes: list[Change]) -> None:
        """Tell the plugin objects; ConfigError, and the old values again, when one refuses."""
        registry = program.registry
        before: list[tuple[Any, str, object]] = []
        touched: defaultdict[str, set[str]] = defaultdict(set)
        try:
            for change in changes:
                plugin = registry.plugin(change.module)
                touched[change.module].add(change.name)
                if not change.many:
                    before.append((plugin, change.name, getattr(plugin, change.name, None)))
                for value in change.values:
                    _set(plugin, change.name, value)
            _configure(registry, touched)
        except FAULTS as error:
            for plugin, name, value in reversed(before):
                _set(plugin, name, value)
            with contextlib.suppress(*FAULTS):  # it ran with these
                _configure(registry, touched)
            plain = isinstance(error, ValueError | ConfigError | PluginError)
            told = str(error) if plain else described(error)
            raise ConfigError(f"{told}: it needs a restart") from error
        for module, names in touched.items():
            for name in names:
                self._keep((module, name), program)
        for key, lines in program.params.items():
            self._lines.setdefault(key, lines)

    def _keep(self, key: tuple[str, str], program: Program) -> None:
        lines = program.params.get(key, [])
        old = [line for line in self._lines.get(key, []) if not _among(line, lines)]
        param = program.registry.mod_params(key[0])[key[1]]
        self._lines[key] = [*old, *lines] if param.many and not param.replaceable else lines

    def _old(self, running: Program, key: tuple[str, str]) -> list[Assigned]:
        """A line that only the plugin still has, after a roll-back, is nobody's loss."""
        if key[0] in running.registry.names:
            return running.params.get(key, [])
        return self._lines.get(key, [])


def tell_outline(program: Program, failed: Callable[[str, str, BaseException], None]) -> None:
    """Show the running plugin objects what the script has; what is wrong with it was said."""
    for module in program.registry.names:
        try:
            program.registry.ask(module, "check_script", outline=program.outline)
        except PluginError as error:
            failed(module, "check_script", error)


def _set(plugin: Any, name: str, value: object) -> None:  # any object with hooks
    """Give a plugin a value, or all lines of one that takes many."""
    if isinstance(value, list):
        setattr(plugin, name, list(value))
    else:
        plugin.set_mod_param(name, value)


def _configure(registry: Registry, touched: Mapping[str, set[str]]) -> None:
    for module, names in touched.items():
        registry.ask(module, "configure", changed=frozenset(names))


def _settings_refused(old: Settings, draft: Draft) -> Iterator[Diagnostic]:
    for field, names in _OPENED_WITH.items():
        if _opened(old, field) == _opened(draft.settings, field):
            continue
        lines = [line for line in draft.globals if line.name.lower() in names]
        yield Diagnostic(
            RESTART,
            f"{lines[-1].name if lines else names[0]} cannot change while homerd runs: "
            "it needs a restart",
            lines[-1].span if lines else NOWHERE,
        )


def _opened(settings: Settings, field: str) -> object:
    """A setting's value; of listen, not how it was written."""
    if field == "listen":
        return {(item.scheme, item.host, item.port) for item in settings.listen}
    value: object = getattr(settings, field)
    return value


def _same(old: list[Assigned], new: list[Assigned]) -> bool:
    return len(old) == len(new) and all(map(_equal, old, new))


def _among(line: Assigned, lines: list[Assigned]) -> bool:
    return any(_equal(line, other) for other in lines)


def _equal(one: Assigned, other: Assigned) -> bool:
    return one.raw == other.raw or bool(one.value == other.value)
