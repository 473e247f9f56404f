"""Where every piece of script text came from.

All files of a script share one numbering of lines: a file's lines stand at its base + 1 and on, so
that one integer names file and line, also in compiled code.  SourceMap turns it back.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of script text: shared lines, columns from 1, the end column just behind it."""

    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, other: Span) -> Span:
        """From the start of this to the end of *other*."""
        return Span(self.line, self.column, other.end_line, other.end_column)


NOWHERE = Span(0, 0, 0, 0)


class SourceFile:
    """One file's name and text."""

    __slots__ = ("base", "name", "path", "starts", "text")

    def __init__(self, name: str, path: str, text: str, base: int) -> None:
        self.name = name
        self.path = path
        self.text = text
        self.base = base
        self.starts = [0]
        position = text.find("\n")
        while position >= 0:
            self.starts.append(position + 1)
            position = text.find("\n", position + 1)

    def locate(self, offset: int) -> tuple[int, int]:
        """Shared line and column (from 1) of a character."""
        index = bisect.bisect_right(self.starts, offset) - 1
        return self.base + index + 1, offset - self.starts[index] + 1

    def line(self, number: int) -> str:
        """The text of the file's own line *number*, without its end."""
        start = self.starts[number - 1]
        end = self.starts[number] - 1 if number < len(self.starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


class SourceMap:
    """The files of a script, in the order they were opened."""

    def __init__(self) -> None:
        self.files: list[SourceFile] = []
        self._bases: list[int] = []

    def add(self, name: str, path: str, text: str) -> SourceFile:
        """Take a file and give its lines their numbers."""
        last = self.files[-1] if self.files else None
        file = SourceFile(name, path, text, last.base + len(last.starts) if last else 0)
        self.files.append(file)
        self._bases.append(file.base)
        return file

    def find(self, line: int) -> tuple[SourceFile, int] | None:
        """File and its own line number for a shared line; None for a line that is nowhere."""
        if line < 1 or not self.files:
            return None
        file = self.files[bisect.bisect_left(self._bases, line) - 1]
        number = line - file.base
        return (file, number) if number <= len(file.starts) else None
