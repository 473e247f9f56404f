"""A script as a list of tokens: what preprocess.py makes and parse.py reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lark import Token

from homerd.lang import lexer
from homerd.lang.dialect import Dialect, Told
from homerd.lang.source import SourceFile, Span

# The pieces of a string: its file, the offset of its text, the text, whether in double quotes.
Pieces = list[tuple[SourceFile, int, str, bool]]


@dataclass(slots=True)
class Tokens:
    """What a script is made of after preprocessing.

    tokens: lark tokens; start_pos is a token's place in this list.
    spans: of each token.  strings: for a STRING token, its pieces (raw text, its file and offset).
    globals: for a GLOBAL token, the tokens of its value and the value as text.
    defines: name -> value when the last file ended.
    told: the dialect they were read in.
    """

    tokens: list[Token] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    strings: dict[int, Pieces] = field(default_factory=dict)
    globals: dict[int, tuple[list[Token], str]] = field(default_factory=dict)
    defines: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    told: Told = field(default_factory=lambda: Told(Dialect.KAMAILIO))


def module_name(text: str) -> str:
    """The module that `loadmodule` means: the base name without `.so`."""
    return text.rsplit("/", 1)[-1].removesuffix(".so")


def string_places(
    pieces: Pieces,
) -> Iterator[tuple[SourceFile, int]]:
    """File and offset of each character of a string's value, as typed, and of its end."""
    for file, offset, raw, double in pieces:
        places = lexer.unescape_offsets(raw) if double else list(range(len(raw) + 1))
        for place in places[:-1]:
            yield file, offset + place
    file, offset, raw, _ = pieces[-1]
    yield file, offset + len(raw)


def unsubstituted(pieces: Pieces) -> str:
    """The value of a string before any `#!subst` changed it."""
    return "".join(lexer.unescape(raw) if double else raw for _, _, raw, double in pieces)


def with_globals(old: Tokens, spaced: set[int]) -> Tokens:
    """Fold each `name = value…` outside of blocks into one GLOBAL token.

    spaced: places of tokens with a blank before them.

    The value ends with its line: what it may look like (addresses, lists, words) differs from
    name to name, and a capture router ignores most of them.
    """
    out = Tokens(defines=old.defines, files=old.files, told=old.told)
    depth = 0
    index = 0
    while index < len(old.tokens):
        token = old.tokens[index]
        if token.type == "LBRACE":
            depth += 1
        elif token.type == "RBRACE":
            depth -= 1
        if depth == 0 and _begins_global(old.tokens, index):
            end = _end_of_global(old, index + 2)
            span = old.spans[index].to(old.spans[end - 1])
            folded = Token("GLOBAL", str(token), line=span.line, column=span.column,
                           end_line=span.end_line, end_column=span.end_column)  # fmt: skip
            value = old.tokens[index + 2 : end]
            text = "".join(
                f" {item}" if offset and index + 2 + offset in spaced else item
                for offset, item in enumerate(value)
            )
            out.globals[len(out.tokens)] = (value, text)
            out.tokens.append(folded)
            out.spans.append(span)
            index = end
            continue
        if index in old.strings:
            out.strings[len(out.tokens)] = old.strings[index]
        out.tokens.append(token)
        out.spans.append(old.spans[index])
        index += 1
    return out


def _begins_global(tokens: list[Token], index: int) -> bool:
    if tokens[index].type not in ("WORD", "KEYWORD") or index + 1 >= len(tokens):
        return False
    if tokens[index + 1].type != "ASSIGN":
        return False
    return index == 0 or tokens[index - 1].type != "DOT"


def _end_of_global(old: Tokens, index: int) -> int:
    tokens, line = old.tokens, old.spans[index - 1].end_line
    while index < len(tokens):
        if old.spans[index].line != line or tokens[index].type == "SEMICOLON":
            break
        if _begins_global(tokens, index):
            break
        line = old.spans[index].end_line
        index += 1
    return index
