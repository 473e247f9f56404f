"""Files to one list of tokens: `#!` directives, includes, defines, substitutions.

The preprocessor works inside the lexer, as in Kamailio: skipped blocks are never tokenised, a
define is pushed back into the text and read again (so `#!define V 5 # five` comments out the rest
of the line it is used in), substitutions touch strings, pseudo-variables and include names only.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lark import Token

from homerd.lang import lexer
from homerd.lang.buffer import Buffer
from homerd.lang.diagnostics import Diagnostics, did_you_mean
from homerd.lang.dialect import Dialect, Told, dialect_of
from homerd.lang.posix import Substitution
from homerd.lang.source import SourceMap, Span
from homerd.lang.tokens import Tokens, module_name, unsubstituted, with_globals

MAX_DEPTH_OF_INCLUDES = 10
MAX_DEPTH_OF_CONDITIONS = 512
MAX_EXPANSIONS_AT_ONE_PLACE = 100
# Shipped scripts ask KAMAILIO_4_3 to choose an old code path, so only 5.6 is claimed.
PREDEFINED = {"KAMAILIO_5": "", "KAMAILIO_5_6": "", "KAMAILIO_5_6_3": "", "HOMERD": ""}

_DIRECTIVE = re.compile(r"[#!]!([A-Za-z_]+)")
_CONDITION_IN_SKIPPED = re.compile(r"[#!]!(ifdef|ifndef|ifexp|else|endif)\b")
_REST_OF_LINE = re.compile(r"(?:\\\r?\n|[^\n])*")
_DEFINE_NAME = re.compile(r"[ \t]+([A-Za-z_][A-Za-z0-9_]*)")
_CONTINUATION = re.compile(r"\\\r?\n")
_PV_NAME = re.compile(r"[A-Za-z0-9_]+|\?")
_INCLUDES = ("include_file", "import_file")
_FIRST_LINES = ("KAMAILIO", "OPENSER", "SER", "MAXCOMPAT", "ALL", "OPENSIPS", "CAPTAGENT")


def preprocess(
    path: Path,
    diagnostics: Diagnostics,
    *,
    defines: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
    texts: Mapping[str, str] | None = None,
) -> Tokens:
    """Read *path* and all that it includes.

    defines: names set from outside (`-A WITH_X` or `-A NAME=VALUE`).
    text: the script itself when it is not to be read from *path*.
    texts: path -> text of every file, when none is to be read.
    """
    reader = _Reader(diagnostics, environment if environment is not None else os.environ, texts)
    for item in defines:
        name, _, value = item.partition("=")
        reader.defines[name] = value
    reader.read_file(path, Span(0, 0, 0, 0), text=text)
    return reader.finish()


class _Reader:
    def __init__(
        self,
        diagnostics: Diagnostics,
        environment: Mapping[str, str],
        texts: Mapping[str, str] | None,
    ) -> None:
        self.diagnostics = diagnostics
        self.texts = texts
        self.sources: SourceMap = diagnostics.sources
        self.environment = environment
        self.defines: dict[str, str] = {
            **PREDEFINED,
            "OS_NAME": f'"{platform.system().lower()}"',
        }
        self.rules: list[Substitution] = []
        self.conditions: list[Span] = []
        self.out = Tokens()
        self.words = lexer.WORDS[Dialect.KAMAILIO]
        self.opensips = False
        self.depth = 0
        self.after_blank = False
        self.spaced: set[int] = set()  # places of tokens with a blank before them

    # -- files

    def read_file(self, path: Path, used_at: Span, *, text: str | None = None) -> None:
        if text is None:
            try:
                text = self._text(path)
            except OSError as error:
                self.diagnostics.add(
                    "E104", f"{path}: {(error.strerror or str(error)).lower()}", used_at
                )
                return
        if "\0" in text:  # else each of its bytes would be an error of its own
            self.diagnostics.add("E104", f"{path}: not a text file", used_at)
            return
        if not self.out.files:
            self._speak(dialect_of(text))
        self.out.files.append(path)
        buffer = Buffer(self.sources.add(_shown(path), str(path), text))
        self.depth += 1
        while self._token(buffer):
            pass
        self.depth -= 1

    def _speak(self, told: Told) -> None:
        """Read on in the dialect of the script's own file."""
        self.out.told = told
        self.words = lexer.WORDS[told.dialect]
        self.opensips = told.dialect is Dialect.OPENSIPS

    def _is_there(self, path: Path) -> bool:
        return path.is_file() if self.texts is None else str(path) in self.texts

    def _text(self, path: Path) -> str:
        if self.texts is None:
            return path.read_text("utf-8", errors="surrogateescape")
        if str(path) not in self.texts:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.texts[str(path)]

    def finish(self) -> Tokens:
        for span in self.conditions:
            self.diagnostics.add(
                "E103",
                "this block is never closed",
                span,
                "end it with #!endif alone on its line: text after #!endif makes it a comment",
            )
        self.out.defines = self.defines
        self.out = with_globals(self.out, self.spaced)
        for index, token in enumerate(self.out.tokens):
            token.start_pos = index
            token.end_pos = index + 1
        return self.out

    # -- one token

    def _token(self, buffer: Buffer) -> bool:
        """Read the next token of *buffer*; False at its end."""
        text, position = buffer.text, buffer.position
        blank = lexer.BLANK.match(text, position)
        if blank:
            buffer.position = position = blank.end()
            self.after_blank = True
        if position >= len(text):
            return False
        char = text[position]
        if (
            (char == "#" or char == "!")
            and text.startswith("!", position + 1)
            and self._directive(buffer)
        ):
            return True
        if char == "#" or text.startswith("//", position):
            comment = lexer.LINE_COMMENT.match(text, position)
            assert comment is not None
            buffer.position = comment.end()
            return True
        if text.startswith("/*", position):
            self._block_comment(buffer)
            return True
        for read in (self._string, self._variable, self._word, self._number, self._symbol):
            if read(buffer, char):
                return True
        span = self._span(buffer, position, position + 1)
        self.diagnostics.add("E105", f"the character {char!r} means nothing here", span)
        buffer.position += 1
        return True

    def _block_comment(self, buffer: Buffer) -> None:
        start, depth = buffer.position, 0
        for edge in lexer.COMMENT_EDGE.finditer(buffer.text, start):
            depth += 1 if edge.group() == "/*" else -1
            if depth == 0:
                buffer.position = edge.end()
                return
        self.diagnostics.add(
            "E102",
            "this comment is never closed",
            self._span(buffer, start, start + 2),
            "/* … */ comments nest: each /* needs its own */",
        )
        buffer.position = len(buffer.text)

    def _string(self, buffer: Buffer, char: str) -> bool:
        if char not in "\"'":
            return False
        start = buffer.position
        pattern = lexer.DOUBLE_QUOTED if char == '"' else lexer.SINGLE_QUOTED
        found = pattern.match(buffer.text, start)
        if found is None:
            self.diagnostics.add(
                "E102", "this string is never closed", self._span(buffer, start, start + 1)
            )
            buffer.position = len(buffer.text)
            return True
        raw = found.group(1)
        value = lexer.unescape(raw) if char == '"' else raw
        buffer.position = found.end()
        piece = (buffer.file, buffer.origin(start) + 1, raw, char == '"')
        tokens = self.out.tokens
        # Adjacent double-quoted strings are one; only blanks may stand between them.
        if char == '"' and tokens and tokens[-1].type == "STRING" and self._double_before():
            index = len(tokens) - 1
            self.out.strings[index].append(piece)
            joined = unsubstituted(self.out.strings[index])
            span = self.out.spans[index].to(self._span(buffer, start, found.end()))
            self._replace_last("STRING", self._substituted(joined), span)
            return True
        self._emit("STRING", self._substituted(value), self._span(buffer, start, found.end()))
        self.out.strings[len(tokens) - 1] = [piece]
        self._after_string()
        return True

    def _double_before(self) -> bool:
        return self.out.strings[len(self.out.tokens) - 1][-1][3]

    def _after_string(self) -> None:
        """`loadmodule "x"` defines MOD_x from here on."""
        tokens = self.out.tokens
        before = [token.type for token in tokens[-3:-1]]
        if before[-1:] == ["LOADMODULE"] or before == ["LOADMODULE", "LPAR"]:
            self.defines.setdefault(f"MOD_{module_name(tokens[-1])}", "")

    def _variable(self, buffer: Buffer, char: str) -> bool:
        text, start = buffer.text, buffer.position
        if char == "@":
            found = lexer.SELECT.match(text, start)
            if found is None:
                return False
            buffer.position = found.end()
            self._emit("SELECT", found.group(), self._span(buffer, start, found.end()))
            return True
        if char != "$":
            return False
        name = _PV_NAME.match(text, start + 1)
        end = name.end() if name else start + 1
        if end < len(text) and text[end] == "(":
            line_end = text.find("\n", end)
            closing = lexer.matching(text, end, line_end if line_end >= 0 else None)
            if closing < 0:
                self.diagnostics.add(
                    "E102",
                    "this pseudo-variable is never closed",
                    self._span(buffer, start, line_end if line_end >= 0 else len(text)),
                    "parentheses in it must balance on one line; quotes and \\ mean nothing there",
                )
                buffer.position = line_end if line_end >= 0 else len(text)
                return True
            end = closing + 1
        elif name is None:
            return False
        buffer.position = end
        self._emit("PV", self._substituted(text[start:end]), self._span(buffer, start, end))
        return True

    def _word(self, buffer: Buffer, char: str) -> bool:
        text, start = buffer.text, buffer.position
        if self._after_event_bracket():
            event = lexer.EVENT_NAME.match(text, start)
            if event:
                buffer.position = event.end()
                self._emit("EVENT_NAME", event.group(), self._span(buffer, start, event.end()))
                return True
        tokens = self.out.tokens
        may_be_address = char in "[:0123456789abcdefABCDEF" and not (
            tokens and tokens[-1].type == "EVENT_ROUTE"  # [a:b] is the event's name there
        )
        address = lexer.IPV6.match(text, start) if may_be_address else None
        if address:
            buffer.position = address.end()
            self._emit("IPV6", address.group(), self._span(buffer, start, address.end()))
            return True
        length = lexer.MESSAGE_LENGTH.match(text, start)
        found = length or lexer.WORD.match(text, start)
        if found is None:
            return False
        word, end = found.group(), found.end()
        span = self._span(buffer, start, end)
        buffer.position = end
        if word in _INCLUDES:
            self._include(buffer, word, span)
        elif word in self.words.keywords:
            self._emit(self.words.keywords[word], word, span)
        elif self.opensips and word in lexer.NULL_WORDS:
            self._emit("PV", "$null", span)
        elif word in lexer.SWITCH_WORDS:
            self._emit("NUMBER", str(lexer.SWITCH_WORDS[word]), span)
        elif length:
            self._emit("KEYWORD", word, span)
        elif word in self.defines and self._expand(buffer, start, end, word, span):
            pass
        else:
            self._emit("WORD", word, span)
        return True

    def _after_event_bracket(self) -> bool:
        tokens = self.out.tokens
        return len(tokens) > 1 and tokens[-1].type == "LSQB" and tokens[-2].type == "EVENT_ROUTE"

    def _expand(self, buffer: Buffer, start: int, end: int, word: str, span: Span) -> bool:
        if buffer.expansions > MAX_EXPANSIONS_AT_ONE_PLACE:
            self.diagnostics.add("E103", f"the definition of {word} contains itself", span)
            return False
        buffer.splice(start, end, self.defines[word])
        return True

    def _number(self, buffer: Buffer, char: str) -> bool:
        if not char.isdigit():
            return False
        text, start = buffer.text, buffer.position
        address = lexer.IPV4.match(text, start)
        word = lexer.DIGIT_WORD.match(text, start)
        assert word is not None
        if address and address.end() >= word.end():
            kind, found = "IPV4", address
        elif lexer.NUMBER.fullmatch(word.group()):
            kind, found = "NUMBER", word
        else:
            kind, found = "DIGIT_WORD", word
        buffer.position = found.end()
        value = str(lexer.number(found.group())) if kind == "NUMBER" else found.group()
        self._emit(kind, value, self._span(buffer, start, found.end()))
        return True

    def _symbol(self, buffer: Buffer, char: str) -> bool:
        text, start = buffer.text, buffer.position
        cast = lexer.CAST.match(text, start)
        found = cast or self.words.symbol.match(text, start)
        if found is None:
            return False
        buffer.position = found.end()
        kind = "CAST" if cast else self.words.symbols[found.group()]
        if self.opensips and kind in ("COMMA", "RPAR") and self._leaves_out(kind):
            self._emit("LEFT_OUT", "", self._span(buffer, start, found.end()))
        value = cast.group(1) if cast else found.group()
        self._emit(kind, value, self._span(buffer, start, found.end()))
        return True

    def _leaves_out(self, kind: str) -> bool:
        """Whether an argument is missing before the comma or parenthesis: `f("a",,"b")`."""
        before = [token.type for token in self.out.tokens[-2:]]
        return before[-1:] == ["COMMA"] or (kind == "COMMA" and before == ["WORD", "LPAR"])

    # -- directives

    def _directive(self, buffer: Buffer) -> bool:
        """Act on a directive at the buffer's place; False when it is an ordinary comment."""
        found = _DIRECTIVE.match(buffer.text, buffer.position)
        if found is None or self.out.told.dialect is Dialect.PLAN:
            return False
        word = found.group(1)
        span = self._span(buffer, found.start(), found.end())
        if word in _FIRST_LINES:
            buffer.position = found.end()
            return True
        if word in _INCLUDES:
            buffer.position = found.end()
            self._include(buffer, word, span)
            return True
        act: Callable[[Buffer, str, str, Span], None] | None = {
            "ifdef": self._if, "ifndef": self._if, "ifexp": self._if,
            "define": self._define, "trydef": self._define, "trydefine": self._define,
            "redef": self._define, "redefine": self._define,
            "undef": self._undefine, "tryundef": self._undefine,
            "subst": self._subst, "substdef": self._subst, "substdefs": self._subst,
            "defenv": self._environment, "defenvs": self._environment,
            "trydefenv": self._environment, "trydefenvs": self._environment,
            "defexp": self._expression, "defexps": self._expression,
        }.get(word)  # fmt: skip
        if word in ("else", "endif"):
            return self._else_or_endif(buffer, found, word, span)
        if act is None:
            return False
        rest = _REST_OF_LINE.match(buffer.text, found.end())
        assert rest is not None
        buffer.position = rest.end()
        act(buffer, word, _CONTINUATION.sub("", rest.group()), span)
        return True

    def _if(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        if len(self.conditions) >= MAX_DEPTH_OF_CONDITIONS:
            self.diagnostics.add("E103", "conditional blocks are nested too deep", span)
            return
        if word == "ifexp":
            true = _expression_true(self._evaluated(rest, span))
        else:
            name = _DEFINE_NAME.match(rest)
            if name is None:
                self.diagnostics.add("E103", f"#!{word} needs a name after a blank", span)
                return
            if rest[name.end() : name.end() + 1] == "-":
                self.diagnostics.add("E103", f'"-" cannot be part of a name in #!{word}', span)
            true = (name.group(1) in self.defines) == (word == "ifdef")
        self.conditions.append(span)
        if not true:
            self._skip(buffer)

    def _skip(self, buffer: Buffer) -> None:
        """Pass over a block; directives count wherever they stand, also behind a `#`."""
        depth = 0
        for found in _CONDITION_IN_SKIPPED.finditer(buffer.text, buffer.position):
            word = found.group(1)
            if word in ("else", "endif") and not _ends_line(buffer.text, found.end()):
                continue
            self._warn_of_comment(buffer, found)
            if word in ("ifdef", "ifndef", "ifexp"):
                depth += 1
            elif depth and word == "endif":
                depth -= 1
            elif not depth:
                buffer.position = found.end()
                if word == "endif":
                    self.conditions.pop()
                return
        buffer.position = len(buffer.text)

    def _warn_of_comment(self, buffer: Buffer, found: re.Match[str]) -> None:
        """Say that a directive behind a `#` or other text counts in a block that is left out."""
        line = buffer.text.rfind("\n", 0, found.start()) + 1
        if buffer.text[line : found.start()].strip():
            self.diagnostics.add(
                "W911",
                f"in a block that is left out {found.group()} counts even here",
                self._span(buffer, found.start(), found.end()),
                f"to leave it out write # !{found.group(1)}",
            )

    def _else_or_endif(self, buffer: Buffer, found: re.Match[str], word: str, span: Span) -> bool:
        if not _ends_line(buffer.text, found.end()):
            return False
        buffer.position = found.end()
        if not self.conditions:
            self.diagnostics.add("E103", f"#!{word} without #!ifdef before it", span)
        elif word == "endif":
            self.conditions.pop()
        else:
            self._skip(buffer)
        return True

    def _define(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        name = _DEFINE_NAME.match(rest)
        if name is None:
            self.diagnostics.add("E103", f"#!{word} needs a name after a blank", span)
            return
        value = rest[name.end() :].lstrip(" \t").rstrip("\r")
        self._set(name.group(1), value, word, span)

    def _set(self, name: str, value: str, word: str, span: Span) -> None:
        if name in lexer.KEYWORDS or name in lexer.SWITCH_WORDS:
            self.diagnostics.add("E206", f'"{name}" is a word of the language', span)
        elif name not in self.defines or word.startswith("redef"):
            self.defines[name] = value
        elif not word.startswith("try"):
            self.diagnostics.add(
                "E103",
                f"{name} is defined already",
                span,
                f"#!redef {name} replaces it, #!trydef {name} keeps the first",
            )

    def _undefine(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        name = rest.strip()
        if self.defines.pop(name, None) is None and word == "undef":
            self.diagnostics.add("E103", f"{name} is not defined", span)

    def _subst(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        quoted = lexer.DOUBLE_QUOTED.match(rest.strip()) or lexer.SINGLE_QUOTED.match(rest.strip())
        if quoted is None:
            self.diagnostics.add("E103", f'#!{word} needs "/pattern/replacement/flags"', span)
            return
        text = quoted.group(1)
        text = self._substituted(lexer.unescape(text) if rest.strip()[0] == '"' else text)
        if word != "subst":
            separator = text[:1]
            parts = text.split(separator) if separator else []
            if len(parts) < 4:
                self.diagnostics.add("E103", f'#!{word} needs "!NAME!replacement!flags"', span)
                return
            value = f'"{parts[2]}"' if word == "substdefs" else parts[2]
            self._set(parts[1], value, word, span)
        try:
            self.rules.append(Substitution(text))
        except ValueError as error:
            self.diagnostics.add("E103", f"#!{word}: {error}", span)

    def _environment(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        name, _, variable = rest.strip().partition("=")
        value = self.environment.get(variable or name)
        if value is not None:
            self._set(name, f'"{value}"' if word.endswith("s") else value, "define", span)
        elif not word.startswith("try"):
            self.diagnostics.add(
                "E103",
                f"the environment has no {variable or name}",
                span,
                f"#!try{word} goes on without it",
            )

    def _expression(self, buffer: Buffer, word: str, rest: str, span: Span) -> None:
        name = _DEFINE_NAME.match(rest)
        if name is None:
            self.diagnostics.add("E103", f"#!{word} needs a name after a blank", span)
            return
        value = str(self._evaluated(rest[name.end() :], span))
        self._set(name.group(1), f'"{value}"' if word == "defexps" else value, "define", span)

    def _evaluated(self, text: str, span: Span) -> int | str:
        from homerd.lang.ifexp import evaluate

        try:
            return evaluate(text, self.defines)
        except ValueError as error:
            self.diagnostics.add("E103", str(error), span)
            return 0

    # -- includes

    def _include(self, buffer: Buffer, word: str, span: Span) -> None:
        blank = lexer.BLANK.match(buffer.text, buffer.position)
        start = blank.end() if blank else buffer.position
        found = lexer.DOUBLE_QUOTED.match(buffer.text, start)
        if found is None:
            self.diagnostics.add("E104", f'{word} needs a file name in "…"', span)
            return
        buffer.position = found.end()
        name_span = self._span(buffer, start, found.end())
        name = self._substituted(lexer.unescape(found.group(1)))
        path = Path(name)
        if not self._is_there(path) and not path.is_absolute():
            path = Path(buffer.file.path).parent / name
        if self.depth >= MAX_DEPTH_OF_INCLUDES:
            self.diagnostics.add("E104", "files include each other too deep", name_span)
        elif self._is_there(path):
            self.read_file(path, name_span)
        elif word == "include_file":
            here = Path(buffer.file.path).parent
            near = [item.name for item in here.glob("*.cfg")] if here.is_dir() else []
            self.diagnostics.add(
                "E104", f'no file "{name}" to include', name_span, did_you_mean(name, near)
            )

    # -- the list of tokens

    def _substituted(self, text: str) -> str:
        for rule in self.rules:
            text = rule.apply(text)
        return text

    def _span(self, buffer: Buffer, start: int, end: int) -> Span:
        first, last = buffer.origin(start), buffer.end_origin(max(start, end - 1)) + 1
        line, column = buffer.file.locate(first)
        end_line, end_column = buffer.file.locate(max(first, last - 1))
        return Span(line, column, end_line, end_column + 1)

    def _emit(self, kind: str, value: str, span: Span) -> None:
        self.out.tokens.append(
            Token(
                kind,
                value,
                line=span.line,
                column=span.column,
                end_line=span.end_line,
                end_column=span.end_column,
            )
        )
        self.out.spans.append(span)
        if self.after_blank:
            self.spaced.add(len(self.out.tokens) - 1)
            self.after_blank = False

    def _replace_last(self, kind: str, value: str, span: Span) -> None:
        del self.out.tokens[-1], self.out.spans[-1]
        self._emit(kind, value, span)


def _ends_line(text: str, position: int) -> bool:
    return re.compile(r"[ \t\r]*\n").match(text, position) is not None


def _shown(path: Path) -> str:
    """A file's name as the operator would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _expression_true(value: int | str) -> bool:
    return value > 0 if isinstance(value, int) else bool(value)
