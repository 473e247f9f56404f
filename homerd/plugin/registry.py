"""Modules by name: found by entry point or in a folder, read as a Vocabulary."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from homerd.errors import FAULTS, ConfigError, PluginError
from homerd.lang.vocabulary import ModParam, PseudoVariable, ScriptFunction, Vocabulary
from homerd.plugin.declare import Plugin
from homerd.plugin.hookspecs import HookSpecs

GROUP = "homerd"
OPENSIPS_MODULES = frozenset({"cachedb_local", "mmgeoip", "opensips", "rest_client", "sipmsgops"})


class Registry:
    """The modules one script has loaded, in the order it loaded them.

    running: whose plugin objects are taken again; `reused` tells which were.
    given: modules that need not be installed: name -> what makes the plugin.
    """

    def __init__(
        self,
        running: Registry | None = None,
        given: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        self.manager = pluggy.PluginManager("homerd")
        self.manager.add_hookspecs(HookSpecs)
        self.running = running
        self.given = dict(given or {})
        self.names: list[str] = []
        self.reused: set[str] = set()
        self.paths: list[Path] = []  # mpath folders, searched before the entry points

    def load(self, name: str) -> Any:  # any object with hooks
        """Load module *name* and give its plugin; None when there is none of that name.

        Raises PluginError when the module cannot be imported or breaks the contract.
        """
        if name in self.names:
            return self.manager.get_plugin(name)
        plugin = None if self.running is None else self.running.plugin(name)
        if plugin is not None:
            self.reused.add(name)
        else:
            make_given = self.given.get(name)
            if make_given is not None:
                plugin = make_given()
            else:
                plugin = self._from_paths(name) or from_entry_point(name)
        if plugin is None:
            core = self.manager.get_plugin("core")
            make = getattr(core, "accepted_module", None)
            plugin = make(name) if make is not None else None
        if plugin is not None:
            self.manager.register(plugin, name)
            self.names.append(name)
        return plugin

    def plugin(self, name: str) -> Any:  # any object with hooks
        """The loaded plugin *name*."""
        return self.manager.get_plugin(name)

    def keep(self, other: Registry) -> list[str]:
        """Go on calling the hooks of *other*'s modules that this script does not load.

        Gives their names; their words are no words of this script.
        """
        kept = []
        for name, plugin in other.manager.list_name_plugin():
            if plugin is not None and not self.manager.has_plugin(name):
                self.manager.register(plugin, name)
                kept.append(name)
        return kept

    def vocabulary(self) -> Vocabulary:
        """Every word of the loaded modules; a later module's word replaces an earlier one's."""
        vocabulary = Vocabulary()
        for name in self.names:
            _add_words(vocabulary, name, self.plugin(name))
        return vocabulary

    def ask(self, name: str, hook: str, **given: object) -> Any:  # what the hook gives
        """What a hook of module *name* gives, see `ask`."""
        return ask(name, self.plugin(name), hook, **given)

    def mod_params(self, name: str) -> dict[str, ModParam]:
        """The parameters module *name* declares."""
        return {param.name: param for param in self.ask(name, "mod_params") or ()}

    def _from_paths(self, name: str) -> Any:  # any object with hooks
        for folder in self.paths:
            file = folder / f"{name}.py"
            if file.is_file():
                return _from_file(name, file)
        return None


def available() -> list[str]:
    """Names of the modules that are installed."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def from_entry_point(name: str) -> Any:  # any object with hooks
    """A new plugin of the installed module *name*; None when none is installed."""
    points = [point for point in metadata.entry_points(group=GROUP) if point.name == name]
    if not points:
        return None
    try:
        made = points[0].load()
        return made() if inspect.isclass(made) else made
    except ImportError as error:
        raise PluginError(name, f"cannot be imported: {error}") from error
    except FAULTS as error:  # somebody else's code: whatever it raises is its fault, by name
        raise PluginError(name, f"cannot be loaded: {type(error).__name__}: {error}") from error


def vocabulary_of(plugins: Iterable[Any]) -> Vocabulary:  # any objects with hooks
    """The words of *plugins*."""
    vocabulary = Vocabulary()
    for plugin in plugins:
        _add_words(vocabulary, getattr(plugin, "name", "?"), plugin)
    return vocabulary


def _add_words(vocabulary: Vocabulary, name: str, plugin: Any) -> None:  # any object with hooks
    for hook in ("script_functions", "pseudo_variables", "transformations"):
        vocabulary.add(ask(name, plugin, hook) or ())


def ask(name: str, plugin: Any, hook: str, **given: object) -> Any:  # any object with hooks
    """What *hook* of a plugin gives, None when it has no such hook.

    Raises PluginError, which names it, for whatever but ConfigError comes out of it.
    """
    call = getattr(plugin, hook, None)
    if call is None:
        return None
    try:
        answer = call(**given)
        return list(answer) if isinstance(answer, Iterator) else answer
    except (ConfigError, PluginError):
        raise
    except FAULTS as error:
        raise PluginError(name, f"{hook}: {type(error).__name__}: {error}") from error


@functools.cache
def words_elsewhere(opensips: bool = False) -> dict[str, str]:
    """`name()`, `$name` and `{name}` of every installed module -> the module, for help lines.

    A word of several modules is told of one that scripts of the dialect load.
    """
    found: dict[str, str] = {}
    for name in sorted(available(), key=lambda name: (name in OPENSIPS_MODULES) != opensips):
        if name in ("opensips", "captagent"):
            continue  # no script loads it
        try:
            vocabulary = vocabulary_of([from_entry_point(name)])
        except PluginError:
            continue  # a module that cannot be loaded has no words to offer
        for word in vocabulary:
            if isinstance(word, ScriptFunction):
                found.setdefault(f"{word.name}()", name)
            elif isinstance(word, PseudoVariable):
                found.setdefault(f"${word.name}", name)
            else:
                found.setdefault(f"{{{word.name}}}", name)
    return found


def _from_file(name: str, file: Path) -> Any:  # any object with hooks
    spec = importlib.util.spec_from_file_location(f"homerd_mpath_{name}", file)
    if spec is None or spec.loader is None:
        raise PluginError(name, f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
        for member in vars(module).values():
            if inspect.isclass(member) and issubclass(member, Plugin) and member is not Plugin:
                return member()
    except FAULTS as error:  # somebody else's code: whatever it raises is its fault, by name
        raise PluginError(name, f"{file}: {type(error).__name__}: {error}") from error
    raise PluginError(name, f"{file} has no class derived from Plugin")
