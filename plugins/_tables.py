"""The tables a script names: strftime codes in their names, capture modes, choice among several."""

from __future__ import annotations

import itertools
import random
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from homerd.api import Packet
from homerd_plugins._homer5 import is_table_name

HASH_SOURCES = ("call_id", "from_user", "to_user")
MT_MODES = ("rand", "hash", "round_robin")
SCHEMAS = HOMER5, HOMER7 = "homer5", "homer7"

# strftime code -> for how many seconds what it gives stays the same
_CODES = {"Y": 86400, "m": 86400, "d": 86400, "j": 86400, "U": 86400, "H": 3600, "M": 60, "S": 1}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several tables a message goes to: `rand`, `round_robin`, `hash`."""

    how: str

    @classmethod
    def from_script(cls, text: str | int) -> Choice:
        """Read modparam's `mt_mode`."""
        if text not in MT_MODES:
            raise ValueError(f'expected one of {listed(MT_MODES)}, got "{text}"')
        return cls(str(text))


@dataclass(frozen=True, slots=True)
class HashSource:
    """What `hash` is taken of: `call_id`, `from_user`, `to_user`."""

    what: str

    @classmethod
    def from_script(cls, text: str | int) -> HashSource:
        """Read modparam's `hash_source`."""
        if text not in HASH_SOURCES:
            raise ValueError(f'expected one of {listed(HASH_SOURCES)}, got "{text}"')
        return cls(str(text))


class Schema:
    """`schema`: the layout of tables, `homer5` or `homer7`."""

    @classmethod
    def from_script(cls, text: str | int) -> str:
        """Read modparam's `schema`."""
        if text not in SCHEMAS:
            raise ValueError(f'expected one of {listed(SCHEMAS)}, got "{text}"')
        return str(text)


@dataclass(frozen=True, slots=True)
class CaptureMode:
    """A store and its tables under a name that sip_capture() may choose.

    schema: of its rows; "" for that of the module.
    hash_source: None when the mode says `hash` and not of what.  written: its line, for messages.
    """

    name: str
    db_url: str
    tables: tuple[str, ...]
    choice: Choice
    hash_source: HashSource | None
    schema: str = ""
    written: str = ""

    @classmethod
    def from_script(cls, text: str | int) -> CaptureMode:
        """Read `NAME=>db_url=…;table_name=a|b;mt_mode=…;hash_source=…;schema=…`."""
        name, arrow, rest = str(text).partition("=>")
        if not arrow or not name.strip():
            raise ValueError('expected "NAME=>db_url=…;table_name=…;mt_mode=…"')
        settings: dict[str, str] = {}
        for item in rest.split(";"):
            key, _, value = item.strip().partition("=")
            if key not in ("db_url", "table_name", "mt_mode", "hash_source", "schema", ""):
                raise ValueError(f'capture mode "{name.strip()}" has no setting "{key}"')
            settings[key] = value.strip()
        schema = settings.get("schema", "")
        if schema:
            Schema.from_script(schema)
        if schema == HOMER7:  # tables follow from the packets
            settings = {"table_name": "sip_capture", "mt_mode": "rand"} | settings
        missing = [key for key in ("db_url", "table_name", "mt_mode") if not settings.get(key)]
        if missing:
            raise ValueError(f'capture mode "{name.strip()}" lacks {listed(missing)}')
        source = settings.get("hash_source")
        return cls(
            name.strip(),
            settings["db_url"],
            table_names(settings["table_name"]),
            Choice.from_script(settings["mt_mode"]),
            HashSource.from_script(source) if source else None,
            schema,
            str(text),
        )


class Tables:
    """`table_name`: one name, or several by `|`, each with strftime codes."""

    @classmethod
    def from_script(cls, text: str | int) -> tuple[str, ...]:
        """Read and check the names."""
        return table_names(str(text))


class TableName:
    """A table's name with strftime codes, given the time of a message."""

    __slots__ = ("_name", "_period", "_step", "template")

    def __init__(self, template: str) -> None:
        """Raises ValueError for a code or a name that cannot be a table's."""
        self.template = template
        self._step = _step(template)
        self._period = -1
        self._name = ""
        if not is_table_name(self.at(0)):
            raise ValueError(
                f'"{template}" cannot be a table: expected at most 64 of A-Z a-z 0-9 and _'
            )

    @property
    def seconds(self) -> int:
        """For how long a name stays the same."""
        return self._step

    def at(self, seconds: int) -> str:
        """The name for a message of *seconds* since 1970, UTC."""
        period = seconds // self._step
        if period != self._period:
            # Hot path: strftime is 1.5 µs, and the name changes with the smallest code it has.
            self._name = time.strftime(self.template, time.gmtime(seconds))
            self._period = period
        return self._name


class CaptureSink(Protocol):
    """A store for rows.

    tables: lower-case names of the tables that are there.
    """

    name: str
    tables: frozenset[str]

    def add(self, record: Any) -> None:  # (table, layout, row)
        """Take one record; never waits."""


class Mode:
    """A capture mode at work: its sink, its tables, how one is chosen, what it captured."""

    __slots__ = ("choose", "is_homer7", "name", "replies", "requests", "sink")

    def __init__(self, mode: CaptureMode, sink: CaptureSink) -> None:
        self.name = mode.name
        self.is_homer7 = mode.schema == HOMER7
        self.sink = sink
        self.requests = 0
        self.replies = 0
        self.choose = _chooser(mode)


def table_names(text: str) -> tuple[str, ...]:
    """Read and check names parted by |; ValueError for one that cannot be a table's."""
    names = tuple(name.strip() for name in text.split("|") if name.strip())
    if not names:
        raise ValueError("expected the name of a table")
    for name in names:
        TableName(name)
    return names


def _step(template: str) -> int:
    """For how many seconds *template* gives the same name."""
    step = 1 << 62
    codes = iter(template)
    for sign in codes:
        if sign == "%":
            code = next(codes, "")
            if code not in _CODES and code != "%":
                known = " ".join(f"%{code}" for code in _CODES)
                raise ValueError(f'"%{code}" in "{template}" is no code for a table: {known}')
            step = min(step, _CODES.get(code, step))
    return step


def _chooser(mode: CaptureMode) -> Callable[[Packet], str]:
    """How a message's table is found among the mode's own."""
    tables = [TableName(name) for name in mode.tables]
    if len(tables) == 1:
        return lambda packet: tables[0].at(packet.seconds)
    if mode.choice.how == "rand":
        return lambda packet: random.choice(tables).at(packet.seconds)
    if mode.choice.how == "round_robin":
        turn = itertools.cycle(tables)
        return lambda packet: next(turn).at(packet.seconds)
    what = mode.hash_source.what if mode.hash_source else HASH_SOURCES[0]

    def hashed(packet: Packet) -> str:
        sip = packet.sip
        if what == "call_id":
            source = (sip.call_id or "").partition(" ")[0]
        else:
            source = (sip.from_user if what == "from_user" else sip.to_user) or ""
        number = zlib.crc32(source.encode("utf-8", "surrogateescape"))
        return tables[number % len(tables)].at(packet.seconds)

    return hashed


def listed(words: Iterable[str]) -> str:
    """*words* as one text."""
    return ", ".join(words)
