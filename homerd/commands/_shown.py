"""Text from the network as a terminal may have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def known_text(text: str) -> str:
    """What was typed, with U+FFFD for what is no character of UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(text: str, encodable: Callable[[str], bool] | None = None) -> str:
    """*text* with `?` for what would move the cursor or what the terminal cannot show."""
    if text.isascii() and text.isprintable():
        return text
    fits = encodable or (lambda _: True)
    return "".join(char if char.isprintable() and fits(char) else "?" for char in text)


def shows(encoding: str | None) -> Callable[[str], bool]:
    """Whether a terminal of *encoding* can show a text."""

    def can(text: str) -> bool:
        try:
            text.encode(encoding or "ascii")
        except (UnicodeError, LookupError):
            return False
        return True

    return can


def columns_of(rows: Iterable[Sequence[str]], most: Sequence[int]) -> list[int]:
    """The width of each column: its longest cell, at most what *most* says."""
    widths = [0] * len(most)
    for row in rows:
        widths = [
            min(highest, max(width, len(cell)))
            for width, cell, highest in zip(widths, row, most, strict=True)
        ]
    return widths
