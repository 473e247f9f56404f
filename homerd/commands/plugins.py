"""`homerd plugins`: the modules there are, and what each adds to the language."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import textwrap
from importlib import metadata
from typing import Any

from homerd.errors import ConfigError, PluginError
from homerd.lang.diagnostics import did_you_mean
from homerd.lang.vocabulary import PseudoVariable, ScriptFunction, Transformation
from homerd.manual.words import Word, first_line, kind_of, signature, simple
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
        summary = first_line(type(plugin).__doc__ or "")
        print(f"{name:{width}}  {summary}  [{versions[name]}]")
    return 0


def _described(name: str, plugin: Any) -> dict[str, Any]:  # any object with hooks
    words = list(vocabulary_of([plugin]))
    params = plugin.mod_params() if hasattr(plugin, "mod_params") else ()
    return {
        "name": name,
        "help": inspect.getdoc(type(plugin)) or "",
        "parameters": [
            {
                "name": param.name,
                "kind": kind_of(param),
                "default": simple(param.default),
                "required": param.required,
                "help": param.help,
            }
            for param in params
        ],
        "functions": [_word(word) for word in words if isinstance(word, ScriptFunction)],
        "pseudo_variables": [_word(word) for word in words if isinstance(word, PseudoVariable)],
        "transformations": [_word(word) for word in words if isinstance(word, Transformation)],
    }


def _word(word: Word) -> dict[str, str]:
    return {"name": signature(word), "help": inspect.cleandoc(word.help)}


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
            print(f"  {item['name']}{_kind(item)}")
            print(textwrap.indent(item["help"], "      "))


def _kind(item: dict[str, Any]) -> str:  # of a parameter: text, number, true or false
    """Of a parameter what it takes; nothing of a word."""
    if "kind" not in item:
        return ""
    if item["required"]:
        return f" ({item['kind']}, must be set)"
    default = item["default"]
    return (
        f" ({item['kind']})" if default in (None, "") else f" ({item['kind']}, default {default})"
    )
