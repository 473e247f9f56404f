"""The text of one file while it is read, with the values of defines spliced into it."""

from __future__ import annotations

from homerd.lang.source import SourceFile


class Buffer:
    """The text of one file while it is read, with define values spliced into it."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.text = file.text
        self.position = 0
        self._shift = 0  # characters that splices added before self._value_end
        self._value_end = 0
        self._used_at = (0, 0)
        self.expansions = 0

    def origin(self, position: int) -> int:
        """Offset in the file of a character; of a define's value, where it is used."""
        return position - self._shift if position >= self._value_end else self._used_at[0]

    def end_origin(self, position: int) -> int:
        """The same for the last character of something."""
        return position - self._shift if position >= self._value_end else self._used_at[1]

    def splice(self, start: int, end: int, value: str) -> None:
        """Put *value* where the word from *start* to *end* stands, to be read next."""
        if start >= self._value_end:
            self._used_at = (self.origin(start), self.origin(end - 1))
            self.expansions = 0
            self._value_end = start + len(value)
        else:
            self._value_end = max(self._value_end, end) + len(value) - (end - start)
        self.expansions += 1
        self._shift += len(value) - (end - start)
        self.text = self.text[:start] + value + self.text[end:]
        self.position = start
