"""Patterns that are pieces of text with `.*` between them, such as `^(.*)JBN=([0-9]{1,5})(.*)$`.

They take one value out of a whole body, where other engines are slow.  A match is all of the text,
so POSIX has the first `.*` as long as may be, then the next: each piece stands where it is found
last before the one behind it.  That is a search from the end, a piece at a time.

    chain    "^"? star (piece star)+ "$"?     groups do not stand across a piece's ends
    star     ".*" | "(.*)"
    piece    letters, then sets and letters; a last one may be repeated, others only left out

Source: POSIX.1-2017, XBD 9.1 (which match is taken).
"""

from __future__ import annotations

import re
from collections.abc import Callable

Piece = tuple[str, str]  # kind and text, as linear.py reads a pattern
Spans = list[tuple[int, int]]

TRIES = 64  # of one piece in one text; more are left to an engine that is linear
_MAX_LEFT_OUT = 2  # optional letters of a piece: each doubles the ways to read it
_REPEATS = re.compile(r"[*+?]|\{[0-9]+(?:,[0-9]*)?\}")
_OTHER_SETS = ("[:", "[.", "[=")


class Link:
    """One piece and the star behind it.

    literal: what it begins with.  match: of all of it; None where the literal is all.
    groups: numbers of those in *match*.  star: number of the group around the star, or 0.
    """

    __slots__ = ("groups", "literal", "match", "star")

    def __init__(self) -> None:
        self.literal = b""
        self.match: Callable[[bytes, int, int], re.Match[bytes] | None] | None = None
        self.groups: list[int] = []
        self.star = 0


class Chain:
    """A pattern of that kind."""

    __slots__ = ("_anchored", "_links", "_star")

    def __init__(self, anchored: bool, star: int, links: list[Link]) -> None:
        self._anchored = anchored
        self._star = star
        self._links = links[::-1]

    def groups(self, data: bytes, at_line_start: bool) -> Spans | None:
        """The match and nine groups, None without one; raises TooMany after TRIES."""
        if self._anchored and not at_line_start:
            return None
        limit = len(data)
        found = [(-1, -1)] * 10
        found[0] = (0, limit)
        for link in self._links:
            literal, match = link.literal, link.match
            at = data.rfind(literal, 0, limit)
            if at < 0:
                return None
            end = at + len(literal)
            if match is not None:
                tries = TRIES
                while (read := match(data, at, limit)) is None:
                    tries -= 1
                    if not tries:
                        raise TooMany
                    at = data.rfind(literal, 0, at + len(literal) - 1)
                    if at < 0:
                        return None
                end = read.end()
                for place, number in enumerate(link.groups, 1):
                    found[number] = read.span(place)
            if link.star:
                found[link.star] = (end, limit)
            limit = at
        if self._star:
            found[self._star] = (0, limit)
        return found


class TooMany(Exception):
    """A text with more of the beginnings of a piece than are tried."""


def chain_of(pieces: list[Piece], set_text: Callable[[str], str]) -> Chain | None:
    """The chain that *pieces* are; None when they are another pattern.

    set_text: a set as `re` reads it.
    """
    anchored = pieces[:1] == [("syntax", "^")]
    if anchored:
        pieces = pieces[1:]
    if pieces[-1:] == [("syntax", "$")]:
        pieces = pieces[:-1]
    # Stars first: they part the pieces.
    parts: list[list[Piece]] = [[]]
    stars: list[bool] = []  # whether in a group
    at = 0
    texts = [text if kind == "syntax" else "" for kind, text in pieces]
    while at < len(pieces):
        grouped = texts[at : at + 4] == ["(", ".", "*", ")"]
        if grouped or texts[at : at + 2] == [".", "*"]:
            at += 4 if grouped else 2
            if at < len(pieces) and texts[at] in ("*", "+", "?", "{"):
                return None
            stars.append(grouped)
            parts.append([])
            continue
        parts[-1].append(pieces[at])
        at += 1
    if len(parts) < 3 or parts[0] or parts[-1]:
        return None
    number = int(stars[0])
    first, links = number, []
    for part, grouped in zip(parts[1:-1], stars[1:], strict=True):
        link = _link(part, number + 1, set_text)
        if link is None:
            return None
        number += len(link.groups) + grouped
        link.star = number if grouped else 0
        links.append(link)
    return Chain(anchored, first, links) if number < 10 else None


def _link(part: list[Piece], first_group: int, set_text: Callable[[str], str]) -> Link | None:
    """A piece whose groups are counted from *first_group*; None when it is none."""
    link = Link()
    written = ""
    depth = left_out = 0
    in_literal, is_last = True, False
    at = 0
    while at < len(part):
        kind, text = part[at]
        at += 1
        if kind == "syntax" and text in "()":
            depth += 1 if text == "(" else -1
            if text == "(":
                link.groups.append(first_group + len(link.groups))
            if depth < 0 or (text == ")" and written.endswith("(")):
                return None
            written += text
            if text == ")" and at < len(part) and _repeat(part, at):
                return None
            continue
        if is_last:
            return None
        letters = b""
        if kind == "set":
            atom = "" if any(each in text[1:] for each in _OTHER_SETS) else set_text(text)
            if not atom or "--" in atom:
                return None
        elif kind in ("literal", "escaped") or (kind == "syntax" and text.isdigit()):
            letters = text.encode("utf-8", "surrogateescape")
            atom = "".join(f"\\x{byte:02x}" for byte in letters)
        elif kind == "syntax" and text == ".":
            atom = "."
        else:
            return None
        repeat = _repeat(part, at)
        at += len(repeat)
        if _repeat(part, at) or (repeat and len(letters) > 1):
            return None
        if repeat == "?":
            left_out += 1
        elif repeat and not repeat[1:-1].isdigit():
            is_last = True
        if in_literal and letters and not repeat:
            link.literal += letters
        else:
            in_literal = False
        written += atom + repeat
    if depth or not link.literal or left_out > _MAX_LEFT_OUT:
        return None
    if not in_literal or link.groups:
        link.match = re.compile(written.encode("latin-1"), re.DOTALL).match
    return link


def _repeat(part: list[Piece], at: int) -> str:
    """How often what stands before *at* is repeated, as it is written; "" for once."""
    written = "".join(text if kind == "syntax" else "\0" for kind, text in part[at : at + 12])
    found = _REPEATS.match(written)
    return found.group() if found else ""
