"""The pages that are made: modules, words, errors, options, metrics, and where the site has them.

What a declaration cannot say stands in docs/parts/: MODULE.yaml with prose, examples of parameters
and cases, errors/CODE.cfg with a script for each code.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path

import yaml

import homerd
from homerd.cli import COMMANDS
from homerd.core.program import load
from homerd.errors import PluginError, ScriptErrors
from homerd.lang.diagnostics import CODES, Diagnostic, render
from homerd.lang.source import SourceMap
from homerd.lang.vocabulary import PseudoVariable, ScriptFunction, Transformation
from homerd.manual.module import MADE, METRIC, Module, example, module_page
from homerd.manual.words import cell, upper
from homerd.plugin.registry import GROUP, from_entry_point

_SEVERITIES = {
    "E1": "Syntax",
    "E2": "Names",
    "E3": "Arguments and kinds",
    "E4": "Modules, parameters and globals",
    "W9": "Warnings",
}
# A default that depends on who runs the command and where.
_PLACE = re.compile(r" \(/[^)]*\)")


def stale_pages(root: Path) -> list[Path]:
    """The pages that are missing, out of date, or of a module that is no more."""
    made = pages(root)
    stale = [
        path
        for path, text in made.items()
        if not (root / path).is_file() or (root / path).read_text("utf-8") != text
    ]
    there = {path.relative_to(root) for path in root.glob("docs/modules/*.md")}
    return sorted([*stale, *(there - made.keys())])


def pages(root: Path) -> dict[Path, str]:
    """Every page that is made, by its path below *root*."""
    modules = installed(root)
    docs = Path("docs")
    made = {docs / "modules" / f"{item.name}.md": module_page(item) for item in modules}
    made[docs / "modules/index.md"] = _modules_page(modules)
    made[docs / "words.md"] = _words_page(modules)
    made[docs / "errors.md"] = _errors_page(root / docs / "parts/errors")
    made[docs / "options.md"] = _options_page()
    made[docs / "metrics.md"] = _metrics_page(modules, root / docs / "parts/metrics.yaml")
    for file in sorted((root / docs).glob("*.md")):
        cases = root / docs / "parts" / f"{file.stem}.yaml"
        if docs / file.name not in made and cases.is_file():
            made[docs / file.name] = with_cases(file.read_text("utf-8"), cases)
    site = root / "mkdocs.yml"
    made[Path("mkdocs.yml")] = _navigation(site.read_text("utf-8"), modules)
    return made


_CASE = re.compile(r"<!-- case: (.+?) -->\n(?:.*?<!-- end of case -->\n)?", re.DOTALL)


def with_cases(page: str, file: Path) -> str:
    """A page written by hand, with the cases of *file* where it names them."""
    cases = {case["name"]: case for case in yaml.safe_load(file.read_text("utf-8"))["cases"]}

    def shown(mark: re.Match[str]) -> str:
        name = mark[1]
        return f"<!-- case: {name} -->\n\n{example(cases[name])}\n<!-- end of case -->\n"

    return _CASE.sub(shown, page)


def installed(root: Path) -> list[Module]:
    """The modules that come with homerd, by name."""
    points = metadata.entry_points(group=GROUP)
    names = sorted({p.name for p in points if p.dist is None or p.dist.name == "homerd"})
    found = []
    for name in names:
        try:
            plugin = from_entry_point(name)
        except PluginError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        file = root / "docs/parts" / f"{name}.yaml"
        part = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
        found.append(Module(name, plugin, part))
    return found


def _modules_page(modules: Sequence[Module]) -> str:
    text = f"{MADE}# Modules\n\n`homerd plugins NAME` prints what a page says in its tables.\n"
    text += "\n| module | |\n| --- | --- |\n"
    text += "".join(f"| [{m.name}]({m.name}.md) | {cell(m.summary)} |\n" for m in modules)
    cores = [module.plugin for module in modules if module.name == "core"]
    names = [name for core in cores for name in core.accepted_modules()]
    own = {module.name for module in modules}
    listed = ", ".join(f"`{name}`" for name in names if name not in own)
    return text + (
        "\n## Modules without a part in a capture server\n\n"
        "Scripts load them; their functions can be called and do nothing, and their parameters\n"
        f"are passed over. `homerd check` says so once ([W901](../errors.md#w901)).\n\n{listed}.\n"
    )


def _words_page(modules: Sequence[Module]) -> str:
    text = (
        f"{MADE}# Words\n\nEvery word of the language that a module brings, and where it is told.\n"
    )
    for title, kind in (
        ("Functions", ScriptFunction),
        ("Pseudo-variables", PseudoVariable),
        ("Transformations", Transformation),
    ):
        found: dict[str, list[str]] = {}
        for module in modules:
            for word in module.words:
                if isinstance(word, kind):
                    mark = {"Functions": "{}()", "Pseudo-variables": "${}"}.get(title, "{{{}}}")
                    places = found.setdefault(mark.format(word.name), [])
                    if module.name not in places:
                        places.append(module.name)
        text += f"\n## {title}\n\n| | module |\n| --- | --- |\n"
        for name in sorted(found, key=lambda name: (name.lower(), name)):
            places = [f"[{place}](modules/{place}.md)" for place in found[name]]
            text += f"| `{name}` | {', '.join(places)} |\n"
    return text


def _errors_page(folder: Path) -> str:
    text = (
        f"{MADE}# Errors and warnings\n\n"
        "`homerd check` prints every mistake with a code, the place, and where it can what to\n"
        "write instead. A code is never used for something else. Warnings begin with W and keep\n"
        "no script from running.\n"
    )
    group = ""
    for code, meaning in CODES.items():
        if code[:2] != group:
            group = code[:2]
            text += f"\n## {_SEVERITIES.get(group, group)}\n"
        text += f"\n### {code}\n\n{upper(meaning)}.\n"
        file = folder / f"{code}.cfg"
        if not file.is_file():
            alone = file.with_suffix(".md")  # what no script brings about by itself
            text += f"\n{alone.read_text('utf-8').strip()}\n" if alone.is_file() else ""
            continue
        prose, script = error_example(file)
        found, sources = diagnostics_of(script)
        printed = render([item for item in found if item.code == code], sources)
        text += f"{prose and chr(10) + prose + chr(10)}\n```\n{script.strip()}\n```\n"
        text += f"\n```text\n{printed.strip()}\n```\n"
    return text


def error_example(file: Path) -> tuple[str, str]:
    """What docs/parts/errors/CODE.cfg holds: prose in its first comment lines, and a script."""
    lines = file.read_text("utf-8").split("\n")
    count = next((at for at, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    return "\n".join(line[2:] for line in lines[:count]), "\n".join(lines[count:])


def diagnostics_of(script: str) -> tuple[Sequence[Diagnostic], SourceMap]:
    """Everything that is found in a script."""
    try:
        program = load(Path("homer.cfg"), text=script)
    except ScriptErrors as error:
        return error.diagnostics, error.sources
    return program.warnings, program.sources


def _options_page() -> str:
    text = f"{MADE}# Options of the commands\n\n[Commands](commands.md) tells what they are for.\n"
    for name, meaning in COMMANDS.items():
        text += f"\n## homerd {name}\n\n{upper(meaning)}.\n"
        module = f"homerd.commands.{name.replace('-', '_')}"
        if util.find_spec(module) is None:
            continue
        commands = argparse.ArgumentParser(prog="homerd").add_subparsers()
        importlib.import_module(module).add_parser(commands)
        text += _options_of(commands.choices[name])
    return text


def _options_of(parser: argparse.ArgumentParser) -> str:
    """A table of options; of a command with commands of its own, one for each."""
    text = ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {each.dest: each.help for each in action._choices_actions}
            for name, own in action.choices.items():
                text += f"\n### {parser.prog} {name}\n\n{upper(told[name] or '')}.\n"
                text += _options_of(own)
    if text:
        return text
    return f"\n| | |\n| --- | --- |\n{''.join(_option_rows(parser))}"


def _option_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "-h" in action.option_strings:
            continue
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if action.choices is not None:
            value = "|".join(map(str, action.choices))
        if action.option_strings:
            shown = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
        else:
            shown = value
        told = (action.help or "") % {"default": action.default, "prog": parser.prog}
        yield f"| `{cell(shown)}` | {cell(_PLACE.sub('', told))} |\n"


def _metrics_page(modules: Sequence[Module], meanings: Path) -> str:
    told = yaml.safe_load(meanings.read_text("utf-8")) if meanings.is_file() else {}
    text = f"{MADE}# Metrics\n\n{told.get('overview', '').strip()}\n"
    text += "\n## What status tells\n\n| key of `homerd status --json` | |\n| --- | --- |\n"
    text += "".join(f"| `{key}` | {cell(told['status'][key])} |\n" for key in told["status"])
    names = core_metrics()
    if names:
        text += "\n## The server\n\n| metric | |\n| --- | --- |\n"
        text += "".join(f"| `{n}` | {cell(told.get('metrics', {}).get(n, ''))} |\n" for n in names)
    text += "\n## Modules\n\n| metric | module |\n| --- | --- |\n"
    for module in modules:
        for name in module.metrics:
            text += f"| `{name}` | [{module.name}](modules/{module.name}.md#metrics) |\n"
    return text


def core_metrics() -> list[str]:
    """Names of the metrics that the server itself has."""
    found: set[str] = set()
    for file in (Path(homerd.__file__).parent / "core").glob("*.py"):
        found |= set(METRIC.findall(file.read_text("utf-8")))
    return sorted(found)


def _navigation(site: str, modules: Sequence[Module]) -> str:
    """mkdocs.yml with the modules' pages between its two marks."""
    head, _, rest = site.partition("      # modules\n")
    tail = rest.partition("      # end of modules\n")[2]
    lines = "".join(f"      - modules/{module.name}.md\n" for module in modules)
    return f"{head}      # modules\n{lines}      # end of modules\n{tail}"
