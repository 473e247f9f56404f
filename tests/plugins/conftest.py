"""Scripts of a few lines, run over packets: what they log, and what they emit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homerd import testing
from homerd.errors import ScriptErrors
from homerd.wire.hep import Frame

INVITE = (
    "INVITE sip:bob@example.com;transport=udp SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1;rport\r\n"
    "Via: SIP/2.0/TCP 10.2.2.2:5080;branch=z9hG4bKbbb2;received=192.0.2.9\r\n"
    'From: "Alice A." <sip:alice@atlanta.example>;tag=ft1\r\n'
    "To: <sip:bob@biloxi.example>\r\n"
    "Call-ID: cid-1@test\r\n"
    "CSeq: 7 INVITE\r\n"
    "Contact: <sip:one@10.1.1.1>;q=0.5, <sip:alice@10.1.1.1:5070>\r\n"
    "User-Agent: UA/1.0 (x)\r\n"
    "Subject: hello\r\n"
    "X-Num: 42\r\n"
    "X-List: a, b, c\r\n"
    "X-Multi: one\r\n"
    "X-Multi: two\r\n"
    "Record-Route: <sip:10.9.9.1;lr>\r\n"
    "Record-Route: <sip:10.9.9.2;lr;ftag=ft1>\r\n"
    'Reason: Q.850;cause=16;text="Normal"\r\n'
    "Content-Type: application/sdp\r\n"
    "Content-Length: 5\r\n"
    "\r\n"
    "v=0\r\n"
)
REPLY = (
    "SIP/2.0 200 OK\r\n"
    "Via: SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1\r\n"
    "From: <sip:alice@atlanta.example>;tag=ft1\r\n"
    "To: <sip:bob@biloxi.example>;tag=tt1\r\n"
    "Call-ID: cid-1@test\r\n"
    "CSeq: 7 INVITE\r\n"
    "\r\n"
)
MODULES = ("kex", "pv", "xlog", "sl", "textops", "siputils", "avpops", "htable")


class Runner:
    """A script that runs; `lines` is what it logged last, `effects` what it emitted."""

    def __init__(self, text: str, modules: tuple[str, ...]) -> None:
        head = "".join(f'loadmodule "{name}.so"\n' for name in modules)
        self.run = testing.Script(head + "debug=2\n" + text, clock=None)
        self.worker = self.run.worker
        self.program = self.worker.program
        self.lines = self.run.lines
        self.effects: list[object] = []

    def feed(self, message: str | bytes, version: int = 0) -> list[str]:
        """Route one message; gives the lines this one logged."""
        payload = message if isinstance(message, bytes) else message.encode()
        self.lines.clear()
        frame = Frame(
            version, 2, 17, b"\x0a\0\0\1", b"\x0a\0\0\2", 5060, 5061, 0, 0, 1, payload=payload
        )
        outcome = self.run.feed(frame)
        assert outcome.ended != "error", outcome.error
        self.effects += outcome.records
        return outcome.lines


@pytest.fixture
def invite() -> str:
    """The message that `log` and `show` take when they are given none."""
    return INVITE


@pytest.fixture
def reply() -> str:
    """A 200 OK to it."""
    return REPLY


@pytest.fixture
def script() -> Callable[..., Runner]:
    """Makes a Runner of a script's text."""
    return lambda text, modules=MODULES: Runner(text, modules)


@pytest.fixture
def refusal(script: Callable[..., Runner]) -> Callable[..., str]:
    """The messages of a script that does not load."""

    def run(text: str, modules: tuple[str, ...] = MODULES) -> str:
        with pytest.raises(ScriptErrors) as raised:
            script(text, modules)
        return "\n".join(found.message for found in raised.value.diagnostics)

    return run


@pytest.fixture
def log(script: Callable[..., Runner]) -> Callable[..., list[str]]:
    """What the statements of a request_route log for an INVITE, or for another message."""

    def run(statements: str, message: str | bytes = INVITE, extra: str = "") -> list[str]:
        both = f"request_route {{ {statements} exit; }}\nonreply_route {{ {statements} exit; }}\n"
        return script(extra + both).feed(message)

    return run


@pytest.fixture
def show(log: Callable[..., list[str]]) -> Callable[..., str]:
    """What a text with pseudo-variables prints as."""

    def run(text: str, message: str | bytes = INVITE, before: str = "", extra: str = "") -> str:
        return log(f"{before} xlog('{text}');", message, extra)[0]

    return run
