"""What an editor asks of a script: what is wrong with it, what may stand here, what a word means.

Lines and columns count from 0, columns in characters.  Nothing here knows the editor's protocol.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from homerd.core.program import load
from homerd.errors import ConfigError, PluginError, ScriptErrors
from homerd.lang.diagnostics import Diagnostic
from homerd.lang.source import SourceMap
from homerd.lang.vocabulary import ModParam, PseudoVariable, ScriptFunction
from homerd.manual.words import Word, first_line, param_text, signature, word_text
from homerd.plugin.registry import available, from_entry_point, vocabulary_of

FUNCTION, VARIABLE, TRANSFORMATION, PARAMETER, MODULE, ROUTE = (
    "function", "variable", "transformation", "parameter", "module", "route",
)  # fmt: skip
MAIN_SCRIPT = "homer.cfg"
_FOLDERS_UP = 3  # how far above an included file its script is looked for


@dataclass(frozen=True, slots=True)
class Fault:
    """A diagnostic with its place in one file."""

    diagnostic: Diagnostic
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A word that may stand at a place."""

    label: str
    kind: str
    detail: str
    text: str = ""


def faults(path: Path, text: str | None = None) -> dict[Path, list[Fault]]:
    """What is wrong, by file; every file of the script is named, also one without a fault.

    text: what the editor has, None for what is on the disk.
    """
    try:
        program = load(path, text=text)
    except ScriptErrors as error:
        return _by_file(error.diagnostics, error.sources)
    except (ConfigError, PluginError) as error:
        return {path: [Fault(Diagnostic("E407", str(error)), 0, 0, 0, 1)]}
    return _by_file(program.warnings, program.sources)


def script_of(path: Path) -> Path:
    """The script that *path* belongs to: itself, or a homer.cfg above it that includes it."""
    for folder in list(path.parents)[:_FOLDERS_UP]:
        script = folder / MAIN_SCRIPT
        if script.is_file() and script != path and path.resolve() in faults(script):
            return script
    return path


def _by_file(diagnostics: Sequence[Diagnostic], sources: SourceMap) -> dict[Path, list[Fault]]:
    found: dict[Path, list[Fault]] = {Path(file.path).resolve(): [] for file in sources.files}
    for item in diagnostics:
        place = sources.find(item.span.line)
        file, line = place if place is not None else (sources.files[0], 1)
        span = item.span
        end_line = line + max(0, span.end_line - span.line)
        least = span.column + 1 if span.end_line == span.line else 1
        end = max(span.end_column, least)
        found[Path(file.path).resolve()].append(
            Fault(item, line - 1, max(0, span.column - 1), end_line - 1, max(1, end - 1))
        )
    return found


@functools.cache
def _words() -> dict[str, list[Word]]:
    """Every word of the installed modules: `f`, `$pv`, `{t`."""
    found: dict[str, list[Word]] = {}
    for name in available():
        try:
            words = list(vocabulary_of([from_entry_point(name)]))
        except PluginError:
            continue  # it has no words to offer
        for word in words:
            found.setdefault(_key(word), []).append(word)
    return found


@functools.cache
def _params() -> dict[str, dict[str, ModParam]]:
    """The parameters of the installed modules."""
    found: dict[str, dict[str, ModParam]] = {}
    for name in available():
        try:
            plugin = from_entry_point(name)
        except PluginError:
            continue
        declared = plugin.mod_params() if hasattr(plugin, "mod_params") else ()
        found[name] = {param.name: param for param in declared}
    return found


def _key(word: Word) -> str:
    if isinstance(word, ScriptFunction):
        return word.name
    return ("$" if isinstance(word, PseudoVariable) else "{") + word.name


_MODPARAM = re.compile(r'modparam\(\s*"(\w*)(?:"\s*,\s*"(\w*))?$')
_LOADMODULE = re.compile(r'loadmodule\s*\(?\s*"([\w.]*)$')
_ROUTE = re.compile(r'\broute\(\s*"?(\w*)$')
_TRANSFORMATION = re.compile(r"\$\([^\s\"]*\{([\w.]*)$")
_VARIABLE = re.compile(r"\$\(?([\w]*)$")
_NAME = re.compile(r"(?<![\w\"'.])([A-Za-z_]\w*)$")
_ROUTES = re.compile(r'^[ \t]*route\[\s*"?([\w.-]+)"?\s*\]', re.MULTILINE)


def proposals(before: str, text: str) -> list[Proposal]:
    """What may stand after *before*, the line up to the cursor; *text* is all of the script."""
    if match := _MODPARAM.search(before):
        if match[2] is None:
            return [Proposal(name, MODULE, "module") for name in _params()]
        return [
            Proposal(param.name, PARAMETER, first_line(param.help), param_text(match[1], param))
            for param in _params().get(match[1], {}).values()
        ]
    if _LOADMODULE.search(before):
        return [Proposal(name, MODULE, "module") for name in available()]
    if _ROUTE.search(before):
        names = dict.fromkeys(_ROUTES.findall(text))
        return [Proposal(name, ROUTE, f"route[{name}]") for name in names]
    if _TRANSFORMATION.search(before):
        return list(_proposed("{", TRANSFORMATION))
    if _VARIABLE.search(before):
        return list(_proposed("$", VARIABLE))
    if _NAME.search(before) and before.count('"') % 2 == 0 and "#" not in before:
        return list(_proposed("", FUNCTION))
    return []


def _proposed(mark: str, kind: str) -> Iterator[Proposal]:
    for key, words in _words().items():
        if (key[0] if key[0] in "${" else "") == mark:
            word = words[0]
            detail = f"{signature(word)} ({word.module})"
            yield Proposal(word.name, kind, detail, "\n\n".join(map(word_text, words)))


_IN_LINE = re.compile(
    r"\$\(?(?P<variable>[\w?]+)|\{(?P<transformation>[\w.]+)|(?P<name>\w+)(?=\s*\()"
)
_PARAM_LINE = re.compile(r'modparam\(\s*"(\w+)"\s*,\s*"(\w+)"')


def meaning(line: str, column: int) -> str | None:
    """The manual's text of the word at *column* of *line*, None when there is no such word."""
    if (match := _PARAM_LINE.search(line)) and match.start(2) <= column <= match.end(2):
        param = _params().get(match[1], {}).get(match[2])
        return param_text(match[1], param) if param is not None else None
    for match in _IN_LINE.finditer(line):
        if match.start() <= column <= match.end():
            mark = {"variable": "$", "transformation": "{"}.get(str(match.lastgroup), "")
            words = _words().get(mark + match[str(match.lastgroup)])
            return "\n\n".join(map(word_text, words)) if words else None
    return None
