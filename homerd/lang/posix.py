"""POSIX extended regular expressions, as Kamailio has them: those of the C library.

`\\d` is the letter d, alternation is leftmost-longest, `(?…)` is an error, `\\w \\s \\b` are GNU's.
The engine is regcomp/regexec itself through ctypes: the same meaning to the letter, and faster than
translating to `re` (0.9 against 2.0 µs for three words in a user agent).  It is called with the
interpreter lock held, because giving it up costs more than the search.
A pattern that takes one value out of a whole body is searched for by pieces (chain.py).
Patterns are compiled in the C locale, where a character is a byte.  Source: regcomp(3), regex(7).

What comes from the network must not stall the loop: regexec is quadratic in the text (6 s for 30 kB
of `a` against `(a|aa)+$`) and exponential with back-references.  So a text above LONG bytes is left
to RE2, which is linear, and a pattern with back-references to `regex`, which gives up in time;
both get the pattern translated by linear.py.
"""

from __future__ import annotations

import ctypes
import functools
import re

from homerd.lang import linear
from homerd.lang.chain import TooMany
from homerd.lang.linear import SearchLimit as SearchLimit

EXTENDED = 1
IGNORE_CASE = 2
NEWLINE = 4
NO_SUBMATCHES = 8
GROUPS = 10

LONG = 512  # bytes above which the worst text would cost regexec more than 2 ms

_LC_ALL_MASK = 0x1FBF
_REGEX_T_BYTES = 256  # regex_t is 64 bytes in glibc

_libc = ctypes.PyDLL(None)
_regcomp = _libc.regcomp
_regcomp.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
_regexec = _libc.regexec
_regexec.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_int,
]
_regfree = _libc.regfree
_regfree.argtypes = [ctypes.c_void_p]
_regerror = _libc.regerror
_regerror.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
_newlocale = _libc.newlocale
_newlocale.restype = ctypes.c_void_p
_newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
_uselocale = _libc.uselocale
_uselocale.restype = ctypes.c_void_p
_uselocale.argtypes = [ctypes.c_void_p]

_Groups = ctypes.c_int * (2 * GROUPS)


class PosixPattern:
    """A compiled pattern; text goes in as str (UTF-8, surrogateescape) and is cut at a NUL."""

    __slots__ = ("_address", "_chain", "_flags", "_memory", "bounded", "pattern")

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern = pattern
        self._flags = flags
        self.bounded = linear.has_back_reference(pattern)
        self._chain = None if flags & (IGNORE_CASE | NEWLINE) else linear.chain_of(pattern)
        self._memory = ctypes.create_string_buffer(_REGEX_T_BYTES)
        self._address = ctypes.addressof(self._memory)
        c_locale = _newlocale(_LC_ALL_MASK, b"C", None)
        before = _uselocale(c_locale)
        code = _regcomp(self._address, pattern.encode("utf-8", "surrogateescape"), flags | EXTENDED)
        _uselocale(before)
        if code:
            text = ctypes.create_string_buffer(128)
            _regerror(code, self._address, text, len(text))
            self._address = 0
            raise ValueError(f"bad regular expression: {text.value.decode().lower()}")

    def __del__(self) -> None:
        if getattr(self, "_address", 0):
            _regfree(self._address)

    def __repr__(self) -> str:
        return f"PosixPattern({self.pattern!r})"

    def search(self, text: str) -> bool:
        """Whether the pattern is found anywhere in *text*.

        Raises SearchLimit, only if `bounded`, when that takes too long to tell.
        """
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > LONG or self.bounded:
            return self._long(data, True) is not None
        return not _regexec(self._address, data, 0, None, 0)

    def groups(self, text: bytes, at_line_start: bool = True) -> list[tuple[int, int]] | None:
        """Byte ranges of the match and its nine groups, (-1, -1) for one that took no part.

        Raises SearchLimit as `search` does.
        """
        if self._chain is not None:
            # Hot path: 2 µs for 1 KB, where RE2 takes 23, and regexec 52 for half of it.
            try:
                return self._chain.groups(text.split(b"\0", 1)[0], at_line_start)
            except TooMany:
                pass
        if len(text) > LONG or self.bounded:
            return self._long(text, at_line_start)
        found = _Groups()
        if _regexec(
            self._address, text, GROUPS, ctypes.addressof(found), 0 if at_line_start else 1
        ):
            return None
        return [(found[i], found[i + 1]) for i in range(0, 2 * GROUPS, 2)]

    def _long(self, data: bytes, at_line_start: bool) -> list[tuple[int, int]] | None:
        engine = _engine(self.pattern, self._flags)
        return engine.groups(data.split(b"\0", 1)[0], at_line_start)


@functools.lru_cache(maxsize=1024)
def _engine(pattern: str, flags: int) -> linear.Engine:
    return linear.engine(
        pattern, ignore_case=bool(flags & IGNORE_CASE), newline=bool(flags & NEWLINE)
    )


# A bracket expression, or what is escaped outside of one.
_BRACKETS = re.compile(r"\\.|(\[\^?\]?(?:\[:[a-z]+:\]|[^\]])*\])", re.DOTALL)


def doubt(pattern: str) -> tuple[str, str] | None:
    """What of *pattern* means something else in POSIX than elsewhere, and what would be right."""
    if "\\d" in pattern or "\\D" in pattern:
        return "\\d is the letter d in a POSIX pattern", "digits are [0-9]"
    for found in _BRACKETS.finditer(pattern):
        letter = re.search(r"\\([nrtsSwW])", found[1] or "")
        if letter:
            return (
                f"within {found[1]} of a POSIX pattern a backslash is a character of its own, and"
                f" so is the {letter[1]} behind it",
                "blanks and line ends are [:space:] within brackets, letters and digits [:alnum:]",
            )
    return None


class Substitution:
    """`/pattern/replacement/flags`, the form of `{re.subst}` and `#!subst`.

    flags: g all matches, i any case, s `.` takes newlines too (else REG_NEWLINE).
    replacement: pieces of text and group numbers, so that the caller may expand the text.
    """

    __slots__ = ("everywhere", "pattern", "replacement")

    def __init__(self, text: str) -> None:
        """Raises ValueError when *text* is not of that form or the pattern is bad."""
        if len(text) < 3:
            raise ValueError("expected /pattern/replacement/flags")
        separator = text[0]
        parts = _split(text[1:], separator)
        if len(parts) != 3:
            raise ValueError(f"expected {separator}pattern{separator}replacement{separator}flags")
        pattern, replacement, flags = parts
        unknown = flags.strip().strip("gis")
        if unknown:
            raise ValueError(f'unknown flag "{unknown[0]}": g, i and s are known')
        self.everywhere = "g" in flags
        self.pattern = PosixPattern(
            pattern, (IGNORE_CASE if "i" in flags else 0) | (0 if "s" in flags else NEWLINE)
        )
        self.replacement = _replacement(replacement)

    def apply(self, text: str, replacement: list[str | int] | None = None) -> str:
        """*text* with the first match (every match with `g`) replaced; unchanged without one."""
        data = text.encode("utf-8", "surrogateescape").split(b"\0", 1)[0]
        pieces = self.replacement if replacement is None else replacement
        out: list[bytes] = []
        start = 0
        while start <= len(data):
            found = self.pattern.groups(data[start:], at_line_start=start == 0)
            if found is None:
                break
            begin, end = found[0]
            out.append(data[start : start + begin])
            for piece in pieces:
                if isinstance(piece, int):
                    low, high = found[piece]
                    out.append(data[start + low : start + high] if low >= 0 else b"")
                else:
                    out.append(piece.encode("utf-8", "surrogateescape"))
            if end == begin:
                out.append(data[start + end : start + end + 1])
                end += 1
            start += end
            if not self.everywhere:
                break
        if not out and start == 0:
            return text
        out.append(data[start:])
        return b"".join(out).decode("utf-8", "surrogateescape")


class Filled:
    """A Substitution whose replacement is known only now."""

    __slots__ = ("_pieces", "_substitution")

    def __init__(self, substitution: Substitution, pieces: list[str | int]) -> None:
        self._substitution = substitution
        self._pieces = pieces

    def apply(self, text: str) -> str:
        """As Substitution.apply."""
        return self._substitution.apply(text, self._pieces)


def compile_posix(pattern: str, *, ignore_case: bool = True, newline: bool = False) -> PosixPattern:
    """Compile for searching, as `=~` does; raises ValueError for a bad pattern."""
    flags = NO_SUBMATCHES | (IGNORE_CASE if ignore_case else 0) | (NEWLINE if newline else 0)
    return PosixPattern(pattern, flags)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that no backslash precedes; `\\/` in the pattern becomes `/`."""
    parts = [""]
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            following = text[position + 1]
            parts[-1] += following if following == separator else char + following
            position += 2
            continue
        if char == separator and len(parts) < 3:
            parts.append("")
        else:
            parts[-1] += char
        position += 1
    return parts


def _replacement(text: str) -> list[str | int]:
    """Text and group numbers: `\\1` a group, `\\n \\r \\t` themselves, `\\x` any other letter x."""
    pieces: list[str | int] = [""]
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            following = text[position + 1]
            position += 2
            if following.isdigit():
                pieces += [int(following), ""]
                continue
            char = {"n": "\n", "r": "\r", "t": "\t"}.get(following, following)
        else:
            position += 1
        last = pieces[-1]
        assert isinstance(last, str)
        pieces[-1] = last + char
    return [piece for piece in pieces if piece != ""]
