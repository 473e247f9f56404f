"""A vocabulary of a few words, and scripts compiled with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homerd.lang.check import check
from homerd.lang.diagnostics import Diagnostics
from homerd.lang.parse import parse
from homerd.lang.preprocess import preprocess
from homerd.lang.script import CompiledScript
from homerd.lang.source import SourceMap
from homerd.lang.text import Text
from homerd.lang.vocabulary import Plain, Value, Vocabulary, Writable
from homerd.packet import Packet, RunState
from homerd.plugin.declare import Plugin, pseudo_variable, script_function, transformation
from homerd.wire.hep import Frame

INVITE = (
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1\r\n"
    b"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\n"
    b"Call-ID: c1\r\nCSeq: 7 INVITE\r\n\r\n"
)


class Words(Plugin):
    """say(text) keeps what it is given; code(n) returns n; maybe(…); $var(x); $rm; $ua; {up} …"""

    def __init__(self) -> None:
        self.said: list[str] = []

    @script_function
    def say(self, packet: Packet, text: str) -> None:
        """Keep a text."""
        self.said.append(text)

    @script_function
    def plain(self, packet: Packet, text: Plain) -> bool:
        """Keep a text as it was written."""
        self.said.append(text)
        return True

    @script_function
    def sql_query(self, packet: Packet, text: str) -> None:
        """Keep a statement."""
        self.said.append(text)

    @script_function
    def exec_msg(self, packet: Packet, text: str) -> None:
        """Keep a command."""
        self.said.append(text)

    @script_function
    def fetch(self, packet: Packet, result: Writable) -> None:
        """Set a variable."""
        result.set(packet, 1)

    @script_function
    def maybe(self, packet: Packet, first: str, second: str = "", third: str = "") -> None:
        """Keep texts of which two may be left out."""
        self.said.append(f"{first}-{second}-{third}")

    @script_function
    def code(self, packet: Packet, number: int) -> int:
        """Return a code."""
        return number

    @script_function
    def fail(self, packet: Packet) -> bool:
        """Break."""
        raise RuntimeError("broken")

    @pseudo_variable("var", null_becomes=0)
    def var(self, packet: Packet, name: str) -> str | int:
        """A variable."""
        return packet.variables[name]

    @var.setter
    def set_var(self, packet: Packet, value: Value, name: str) -> None:
        packet.variables[name] = value

    @var.bind
    def bind_var(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None or argument.constant is None:
            raise ValueError("needs a name")
        return (argument.constant,)

    @pseudo_variable("null")
    def null(self, packet: Packet) -> None:
        """Null."""

    @pseudo_variable("rc")
    def rc(self, packet: Packet) -> int:
        """The last code."""
        return packet.rc

    @pseudo_variable("rm")
    def rm(self, packet: Packet) -> str | None:
        """The method."""
        return packet.sip.method

    @pseudo_variable("ua")
    def ua(self, packet: Packet) -> str | None:
        """The agent."""
        return packet.sip.user_agent

    @transformation("s.escape.common")
    def escape(self, value: str) -> str:
        """Quotes with a backslash."""
        return value.replace("'", "\\'")

    @transformation("up")
    def up(self, value: str) -> str:
        """In capitals."""
        return value.upper()


class Compiled:
    """A script with what it said and reported."""

    def __init__(self, text: str, path: Path, **options: Any) -> None:
        self.words = Words()
        vocabulary = Vocabulary()
        for declared in (
            self.words.script_functions(),
            self.words.pseudo_variables(),
            self.words.transformations(),
        ):
            vocabulary.add(declared)
        self.sources = SourceMap()
        self.diagnostics = Diagnostics(self.sources)
        tokens = preprocess(path, self.diagnostics, text=text, **options)
        tree = parse(tokens, self.diagnostics)
        checked = check(tree, tokens, vocabulary, self.diagnostics)
        self.tree, self.tokens = tree, tokens
        self.script = None
        if not self.diagnostics.errors:
            self.script = CompiledScript(checked, self.sources, tokens.files)
        self.reported: list[str] = []
        self.state = RunState(
            lambda level, text: None,
            3,
            lambda message, place: self.reported.append(f"{place} {message}"),
        )

    def run(self, payload: bytes = INVITE) -> Any:
        """Run one bare SIP message; gives how it ended."""
        assert self.script is not None, [item.message for item in self.diagnostics.errors]
        self.packet = Packet(Frame(0, payload_type=1, payload=payload), self.state)
        return self.script.run(self.packet)

    def said(self, payload: bytes = INVITE) -> list[str]:
        """What one message made it say."""
        self.words.said.clear()
        self.run(payload)
        return list(self.words.said)


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Compiled]:
    """Compile a text as the script test.cfg."""

    def make(text: str, **options: Any) -> Compiled:
        return Compiled(text, tmp_path / "test.cfg", **options)

    return make
