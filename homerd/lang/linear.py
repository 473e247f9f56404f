"""POSIX patterns for engines that a hostile text cannot stall: RE2, and `regex` with a time limit.

    ERE            here
    \\w \\W \\s \\S \\b   the same
    \\` \\'          \\A \\z (RE2: the same by one_line)
    \\< \\>          word boundaries with the word behind or before them
    \\d, \\n, …      the letter itself; glibc never finds an escaped small letter in any case
    [^a\\]          a backslash is a character of the set
    \\1             a back-reference: regex only

RE2 has no look-around, so a pattern with \\< or \\> is left to `regex` as well.
Source: regex(7); RE2's syntax; the documentation of the `regex` package.
"""

from __future__ import annotations

import re
from typing import Any

from homerd.lang import chain

SECONDS = 0.02  # that one search may take, where the engine is not linear by itself
_MEMORY = 8 << 20  # bytes RE2 may use for one pattern
_NUMBERS = range(10)
_ABSENT = [(-1, -1)] * 10
_SAME = frozenset("wWsSbB")
_CLASS = re.compile(r"\[:[a-z]+:\]")


class SearchLimit(Exception):
    """A search was given up because it took too long."""


def has_back_reference(pattern: str) -> bool:
    """Whether *pattern* refers back to a group."""
    return any(kind == "reference" for kind, _ in _pieces(pattern))


def chain_of(pattern: str) -> chain.Chain | None:
    """The chain that *pattern* is, where `.` is any letter and case counts; None for another."""
    return chain.chain_of(_pieces(pattern), lambda text: _set(text, newline=False))


class Engine:
    """Searches for one pattern; groups() gives byte ranges as PosixPattern.groups does."""

    def groups(self, data: bytes, at_line_start: bool) -> list[tuple[int, int]] | None:
        """The match and nine groups, (-1, -1) for one that took no part; None without a match."""
        raise NotImplementedError


class _Linear(Engine):
    def __init__(self, compiled: Any) -> None:  # re2 has no types
        self._search = compiled.search
        # Asking for it at each match costs as much as a group.
        self._groups = compiled.groups

    def groups(self, data: bytes, at_line_start: bool) -> list[tuple[int, int]] | None:
        found = self._search(data)
        return None if found is None else _ranges(found, self._groups)


class _Timed(Engine):
    def __init__(self, compiled: Any) -> None:  # regex has no types
        self._search = compiled.search

    def groups(self, data: bytes, at_line_start: bool) -> list[tuple[int, int]] | None:
        try:
            found = self._search(data, timeout=SECONDS)
        except TimeoutError:
            raise SearchLimit(
                f"a search was given up after {SECONDS} s: a pattern with back-references"
            ) from None
        return None if found is None else _ranges(found, found.re.groups)


def engine(pattern: str, *, ignore_case: bool, newline: bool) -> Engine:
    """An engine for a pattern that regcomp took."""
    pieces = _pieces(pattern)
    if not any(kind in ("reference", "word_edge") for kind, _ in pieces):
        import re2  # only scripts that meet long texts need it

        options = re2.Options()
        options.posix_syntax = options.longest_match = True
        options.perl_classes = options.word_boundary = True
        options.case_sensitive = not ignore_case
        options.one_line = options.dot_nl = not newline
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _MEMORY
        try:
            return _Linear(re2.compile(_written(pieces, newline, ignore_case, "re2"), options))
        except re2.error:
            pass  # what RE2 refuses (a repetition above 1000) is left to the other
    import regex

    flags = regex.POSIX | regex.VERSION0
    flags |= regex.IGNORECASE if ignore_case else 0
    flags |= regex.MULTILINE if newline else regex.DOTALL
    return _Timed(regex.compile(_written(pieces, newline, ignore_case, "regex"), flags))


def _ranges(found: Any, groups: int) -> list[tuple[int, int]]:  # a match of either library
    spans = [*map(found.span, _NUMBERS[: groups + 1])]
    return spans + _ABSENT[len(spans) :]


def _written(
    pieces: list[tuple[str, str]], newline: bool, ignore_case: bool, library: str
) -> bytes:
    """The pattern as the library reads it, non-ASCII characters as their bytes."""
    out = ""
    for kind, text in pieces:
        if kind == "set":
            out += _set(text, newline)
        elif kind == "literal":
            out += "".join(_escaped(byte) for byte in text.encode("utf-8", "surrogateescape"))
        elif kind == "escaped" and ignore_case and text.islower():
            out += "(?!)" if library == "regex" else r"[^\x00-\xff]"
        elif kind == "escaped":
            out += _escaped(ord(text))
        elif kind == "begin":
            out += "\\A" if library == "regex" else "^"
        elif kind == "end":
            out += r"\Z" if library == "regex" else "$"
        elif kind == "word_edge":
            out += r"\b(?=\w)" if text == "<" else r"\b(?<=\w)"
        elif text == "$" and not newline and library == "regex":
            out += r"\Z"  # regex's $ would also stand before a last newline
        else:
            out += text
    return out.encode("latin-1")


def _escaped(byte: int) -> str:
    char = chr(byte)
    return char if char.isascii() and char.isalnum() else f"\\x{byte:02x}"


def _set(text: str, newline: bool) -> str:
    """`[…]` with every character but ranges and classes escaped."""
    negated = text.startswith("[^")
    inner = text[2 if negated else 1 : -1]
    out = ""
    position = 0
    while position < len(inner):
        named = _CLASS.match(inner, position)
        if named:
            out += named.group()
            position = named.end()
            continue
        char = inner[position]
        between = 0 < position < len(inner) - 1
        if char == "-" and between:
            out += "-"
        else:
            out += "".join(_escaped(byte) for byte in char.encode("utf-8", "surrogateescape"))
        position += 1
    if negated and newline:
        out += "\\n"
    return f"[{'^' if negated else ''}{out}]"


def _pieces(pattern: str) -> list[tuple[str, str]]:
    """(kind, text): set, literal, escaped, reference, begin, end, word_edge, or syntax."""
    pieces: list[tuple[str, str]] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "[":
            end = _set_end(pattern, position)
            pieces.append(("set", pattern[position:end]))
            position = end
            continue
        if char == "\\" and position + 1 < len(pattern):
            pieces.append(_escape(pattern[position + 1]))
            position += 2
            continue
        pieces.append(("syntax", char) if char in "^$.|()*+?{},0123456789" else ("literal", char))
        position += 1
    return pieces


def _escape(char: str) -> tuple[str, str]:
    if char in _SAME:
        return "syntax", f"\\{char}"
    if char in "123456789":
        return "reference", f"\\{char}"
    if char in "<>":
        return "word_edge", char
    if char == "`":
        return "begin", char
    if char == "'":
        return "end", char
    return ("escaped" if char.isascii() else "literal"), char


def _set_end(pattern: str, start: int) -> int:
    """Just behind the `]` that closes the set at *start*; a first `]` is a character of it."""
    position = start + 1
    if pattern[position : position + 1] == "^":
        position += 1
    if pattern[position : position + 1] == "]":
        position += 1
    while position < len(pattern):
        if pattern[position] == "[" and pattern[position + 1 : position + 2] in (":", ".", "="):
            close = pattern.find(pattern[position + 1] + "]", position + 2)
            position = close + 2 if close >= 0 else len(pattern)
            continue
        if pattern[position] == "]":
            return position + 1
        position += 1
    return len(pattern)
