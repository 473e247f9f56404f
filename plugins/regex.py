"""regex: Perl's regular expressions.

A search that takes longer than MOST_SECONDS, as hostile text may make it with careless patterns, is
given up, counted, and no match.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from homerd.api import (
    ConfigError,
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    ScriptFunction,
    hookimpl,
)

MOST_SECONDS = 0.005
MOST_PATTERNS = 500
NO_MATCH, FAILED = -1, -4

Pattern = Any  # of the package regex, which is imported when a pattern is compiled


class Regex(Plugin):
    """Perl's regular expressions."""

    name = "regex"

    file = ModParam(str, "", help="a file of groups of patterns: [0], a pattern a line, [1], …")
    max_groups = ModParam(int, 20, help="most groups of the file")
    group_max_size = ModParam(int, 8192, help="most bytes of a group")
    pcre_caseless = ModParam(bool, False, help="letters of any case match, in groups")
    pcre_multiline = ModParam(bool, False, help="^ and $ match at lines' ends, in groups")
    pcre_dotall = ModParam(bool, False, help="a dot matches line ends too, in groups")
    pcre_extended = ModParam(bool, False, help="blanks in patterns are left out, in groups")

    def __init__(self) -> None:
        self.given_up = 0
        self._groups: list[Pattern] = []
        self._patterns: dict[str, Pattern] = {}
        self._bad: dict[str, str] = {}
        self.words = (
            ScriptFunction(
                "pcre_match",
                self._match,
                (
                    Parameter("text", ParameterKind.TEXT),
                    Parameter("pattern", ParameterKind.TEXT, convert=self._constant),
                ),
                module=self.name,
                help="Whether *pattern* is found in *text*; a dollar in it is written `$$`. -4 for"
                " a pattern that cannot be read.",
            ),
            *(
                ScriptFunction(
                    "pcre_match_group",
                    self._match_group,
                    (Parameter("text", ParameterKind.TEXT), *group),
                    module=self.name,
                    help="Whether a pattern of a group of the file, 0 unless it is said, is found"
                    " in *text*. -4 without such a group.",
                )
                for group in ((), (Parameter("group", ParameterKind.NUMBER),))
            ),
        )

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Read the file."""
        if not self.file:
            return
        try:
            text = Path(self.file).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ConfigError(
                f'modparam("regex", "file", "{self.file}"): {error.strerror}'
            ) from error
        self._groups = [self._group(lines) for lines in _groups(text)[: self.max_groups]]

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Patterns that cannot be read."""
        for pattern, reason in self._bad.items():
            yield Problem(f'pcre_match(): "{pattern}" never matches: {reason}', warning=True)

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Searches that were given up."""
        yield "homerd_regex_given_up_total", {}, self.given_up

    def _group(self, lines: list[str]) -> Pattern:
        together = "|".join(f"(?:{line})" for line in lines)
        flags = "".join(
            letter
            for letter, wanted in (
                ("i", self.pcre_caseless),
                ("m", self.pcre_multiline),
                ("s", self.pcre_dotall),
                ("x", self.pcre_extended),
            )
            if wanted
        )
        if len(together) > self.group_max_size:
            raise ConfigError(f"{self.file}: a group of more than {self.group_max_size} bytes")
        try:
            return _compile(f"(?{flags}){together}" if flags else together)
        except ValueError as error:
            raise ConfigError(f"{self.file}: {error}") from error

    def _constant(self, value: str | int) -> Pattern:
        """A pattern compiled at load, None for one that cannot be read."""
        try:
            return _compile(value)
        except ValueError as error:
            self._bad[str(value)] = str(error)
            return None

    def _match(self, packet: Packet, text: str, pattern: str | Pattern) -> int:
        if not isinstance(pattern, str):
            return FAILED if pattern is None else self._search(pattern, text)
        known = self._patterns
        if pattern not in known:
            if len(known) >= MOST_PATTERNS:
                known.clear()
            try:
                known[pattern] = _compile(pattern)
            except ValueError:
                known[pattern] = None
        compiled = known[pattern]
        return FAILED if compiled is None else self._search(compiled, text)

    def _match_group(self, packet: Packet, text: str, group: int = 0) -> int:
        if not 0 <= group < len(self._groups):
            return FAILED
        return self._search(self._groups[group], text)

    def _search(self, pattern: Pattern, text: str) -> int:
        try:
            return 1 if pattern.search(text, timeout=MOST_SECONDS) else NO_MATCH
        except TimeoutError:
            self.given_up += 1
            return NO_MATCH


def _compile(value: str | int) -> Pattern:
    import regex

    try:
        return regex.compile(str(value))
    except regex.error as error:
        raise ValueError(f"bad regular expression: {error}") from None


def _groups(text: str) -> list[list[str]]:
    """`[0]` and a pattern on each line behind it; `#` begins a comment."""
    groups: list[list[str]] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line == f"[{len(groups)}]":
            groups.append([])
        elif groups:
            groups[-1].append(line)
    return groups
