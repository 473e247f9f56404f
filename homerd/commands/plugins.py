"""`homerd plugins`: the modules there are, and what each adds to the language."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata
from typing import Any

from homerd.errors import ConfigError, PluginError
from homerd.lang.diagnostics import did_you_mean
from homerd.lang.vocabulary import PseudoVariable, ScriptFunction, Transformation
from homerd.plugin.registry import GROUP, available, from_entry_point, vocabulary_of


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "plugins", help="loaded and available modules, with their manual text"
    )
    parser.add_argument("name", nargs="?", help="one module, with everything it offers")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print all modules, or one whole."""
    if options.name is None:
        return _list(options.json)
    name = options.name.removesuffix(".so")
    if name not in available():
        hint = did_you_mean(name, available())
        raise ConfigError(f'no module "{name}" is installed' + (f": {hint}" if hint else ""))
    plugin = from_entry_point(name)
    described = _described(name, plugin)
    if options.json:
        print(json.dumps(described))
    else:
        _print(described)
    return 0


def _list(as_json: bool) -> int:
    versions = {
        point.name: f"{point.dist.name} {point.dist.version}" if point.dist else ""
        for point in metadata.entry_points(group=GROUP)
    }
    width = max(map(len, versions), default=0)
    for name in available():
        try:
            plugin = from_entry_point(name)
        except PluginError as error:
            print(f"homerd: {error}", file=sys.stderr)
            continue
        if as_json:
            print(json.dumps({**_described(name, plugin), "from": versions[name]}))
            continue
        summary = (type(plugin).__doc__ or "").strip().split("\n")[0]
        print(f"{name:{width}}  {summary}  [{versions[name]}]")
    return 0


def _described(name: str, plugin: Any) -> dict[str, Any]:  # any object with hooks
    words = list(vocabulary_of([plugin]))
    params = plugin.mod_params() if hasattr(plugin, "mod_params") else ()
    return {
        "name": name,
        "help": (type(plugin).__doc__ or "").strip(),
        "parameters": [
            {"name": p.name, "kind": p.kind, "default": _shown(p.default), "help": p.help}
            for p in params
        ],
        "functions": [
            {"name": _signature(w), "help": w.help} for w in words if isinstance(w, ScriptFunction)
        ],
        "pseudo_variables": [
            {"name": f"${w.name}" + ("(…)" if w.bind else ""), "help": w.help}
            for w in words
            if isinstance(w, PseudoVariable)
        ],
        "transformations": [
            {
                "name": "{" + ",".join([w.name, *(p.name for p in w.parameters)]) + "}",
                "help": w.help,
            }
            for w in words
            if isinstance(w, Transformation)
        ],
    }


def _signature(word: ScriptFunction) -> str:
    parts = [item.name if item.required else f"[{item.name}]" for item in word.parameters]
    return f"{word.name}({', '.join(parts)}{', …' if word.variadic else ''})"


def _shown(value: object) -> str | int | float | None:
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _print(described: dict[str, Any]) -> None:
    print(f"{described['name']}\n\n{described['help']}")
    for title, key in (
        ("Parameters", "parameters"),
        ("Functions", "functions"),
        ("Pseudo-variables", "pseudo_variables"),
        ("Transformations", "transformations"),
    ):
        if not described[key]:
            continue
        print(f"\n{title}")
        for item in described[key]:
            extra = f" ({item['kind']}, default {item['default']!r})" if "kind" in item else ""
            print(f"  {item['name']}{extra}")
            for line in item["help"].splitlines():
                print(f"      {line}")
