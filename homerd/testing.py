"""What the tests of a module need: scripts that run with it, packets, a clock, sinks.

    from homerd import testing
    from homerd_webhook import Webhook

    def test_a_call_is_told():
        script = '''
            loadmodule "webhook"
            modparam("webhook", "url", "http://192.0.2.1/")
            request_route { webhook("call"); }
        '''
        with testing.Script(script, Webhook) as run:
            outcome = run.feed(testing.request("INVITE", call_id="c1"))
        assert outcome.effects == [("webhook", {"text": "call", "call_id": "c1"})]

The module need not be installed, nothing is stored, sent or listened on, and no time passes but
what the test lets pass.  Any test runner will do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

from homerd.core import metrics
from homerd.core.engine import KEEP_ALIVE
from homerd.core.log import NAMES
from homerd.core.program import Program, load
from homerd.core.sink import BatchSink
from homerd.core.worker import Worker
from homerd.errors import ScriptErrors
from homerd.lang.diagnostics import render
from homerd.lang.runtime import End
from homerd.packet import Packet
from homerd.plugin.hookspecs import Sample
from homerd.wire import hep
from homerd.wire.hep import Frame

SECONDS = 10.0  # a deadline that no test should meet
START = "2026-01-02 12:00:00"
DEBUG = 3

Made = type | Callable[[], Any] | object  # a plugin's class, what makes one, or a plugin


# -- packets


def request(
    method: str = "INVITE",
    uri: str = "sip:bob@example.net",
    *,
    user: str = "alice",
    to: str = "bob",
    call_id: str = "call-1@192.0.2.10",
    headers: Mapping[str, str] | None = None,
    body: str = "",
) -> bytes:
    """A SIP request as on the wire; *headers* come to the usual ones or take their place."""
    first = f"{method} {uri} SIP/2.0"
    return _message(first, method, user, to, call_id, headers, body)


def reply(
    status: int = 200,
    reason: str = "OK",
    *,
    method: str = "INVITE",
    user: str = "alice",
    to: str = "bob",
    call_id: str = "call-1@192.0.2.10",
    headers: Mapping[str, str] | None = None,
    body: str = "",
) -> bytes:
    """A SIP reply as on the wire."""
    return _message(f"SIP/2.0 {status} {reason}", method, user, to, call_id, headers, body)


def frame(
    payload: bytes | str = b"",
    *,
    src: str = "192.0.2.1:5060",
    dst: str = "192.0.2.2:5060",
    type: int = hep.SIP,
    capture_id: int = 101,
    protocol: int = 17,
    at: str | float | None = None,
    correlation_id: str | None = None,
) -> Frame:
    """A HEP3 packet around *payload*.

    src, dst: `address:port`, `[v6]:port`.  type: what the payload is, 1 for SIP, 5 for RTCP.
    at: when it was captured, "2026-01-02 12:00:00" (UTC) or seconds; None: when it is fed.
    """
    (source, source_port), (target, target_port) = _end(src), _end(dst)
    seconds, micros = (
        divmod(round(_seconds(at) * 1_000_000), 1_000_000) if at is not None else (0, 0)
    )
    made = Frame(
        3,
        hep.IPV6 if len(source) == 16 else hep.IPV4,
        protocol,
        source,
        target,
        source_port,
        target_port,
        seconds,
        micros,
        type,
        capture_id,
        correlation_id=correlation_id,
        payload=payload.encode() if isinstance(payload, str) else payload,
    )
    return hep.decode(hep.encode(made))


# -- scripts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one packet.

    effects: (name of the sink, record) in order.  log: (level, text), the level as "INFO".
    ended: "drop", "exit", "return", "end", "handled", "refused:REASON", "keep_alive" or "error".
    error: what the script or a module failed with, "" when nothing did.
    """

    packet: Packet
    effects: list[tuple[str, Any]]
    log: list[tuple[str, str]]
    ended: str
    error: str

    @property
    def records(self) -> list[Any]:
        """The effects without their sinks."""
        return [record for _, record in self.effects]

    @property
    def lines(self) -> list[str]:
        """The log without its levels."""
        return [text for _, text in self.log]


class Script:
    """A script that runs, with modules under test; end it with `stop`, or use it in a `with`.

    text: the script, or the path of one.  plugins: classes (or functions that make a plugin, or
    plugins) for its `loadmodule` lines; others are found as always.  clock: what time it is when
    it starts, UTC; None for the time of day, which then goes on by itself.
    log, lines: what was logged so far, start and timers included, with and without levels.
    deliver: sinks are started, and records written to their stores.  spool: a folder for what they
    keep meanwhile; None for no spool.  define: switches, as `homerd check -A` takes them.

    A script with mistakes raises ScriptErrors with what `homerd check` prints as a note.
    """

    def __init__(
        self,
        text: str | Path,
        *plugins: Made,
        clock: str | float | None = START,
        deliver: bool = False,
        spool: Path | None = None,
        define: Sequence[str] = (),
    ) -> None:
        self.log: list[tuple[str, str]] = []
        self.lines: list[str] = []
        program = _load(text, plugins, define)
        start = None if clock is None else _seconds(clock)
        self.worker: Worker = _Worker(
            program,
            spool,
            deliver=deliver,
            log=self._keep,
            debug=DEBUG,
            wall=time.time if start is None else lambda: start,
        )
        self.worker.route_seen = self._seen
        self.ran: list[Outcome] = []
        self.worker.start()

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the modules and the sinks."""
        self.worker.stop(SECONDS)

    # What comes in

    def feed(self, message: bytes | str | Frame, **envelope: Any) -> Outcome:  # see `frame`
        """Route one packet: SIP in an envelope (what `frame` takes may be given), or a Frame."""
        item = message if isinstance(message, Frame) else frame(_wire(message), **envelope)
        return self._fed(item)

    def datagram(self, data: bytes) -> Outcome | None:
        """Take a datagram as from a socket; None, and counted, when it is no packet."""
        item = self.worker.engine.decode(data)
        return None if item is None else self._fed(item)

    def wait(self, seconds: float) -> list[Outcome]:
        """Let time pass: timers that come due run; what came of the routes they ran."""
        self.worker.settle(SECONDS)
        before = len(self.ran)
        self.worker.advance(seconds)
        self.worker.tick()
        return self.ran[before:]

    def route(self, name: str) -> Outcome | None:
        """Run `route[name]` as a timer does; None when there is none."""
        before = len(self.ran)
        self.worker.run_route(name)
        return self.ran[before] if len(self.ran) > before else None

    # What came of it

    @property
    def now(self) -> float:
        """Seconds since 1970 by the script's clock."""
        return self.worker.now()

    def var(self, name: str) -> str | int:
        """`$var(name)`, 0 when it was never set."""
        return self.worker.engine.state.variables[name]

    def plugin(self, name: str) -> Any:  # whatever the module's class is
        """The plugin of a module."""
        return self.worker.program.registry.plugin(name)

    def metrics(self) -> dict[str, float]:
        """What the modules count: `name` or `name{label="value"}` -> value."""
        found = {}
        for name in self.worker.program.registry.names:
            for given in self.worker.program.registry.ask(name, "metrics") or ():
                sample = Sample(*given)
                labels = ",".join(f'{key}="{sample.labels[key]}"' for key in sorted(sample.labels))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def counters(self) -> dict[str, Any]:
        """What `homerd status --json` shows: received, routed, sinks, plugins, ledger…"""
        return metrics.snapshot(self.worker)

    def flush(self, seconds: float = SECONDS) -> bool:
        """Wait until every sink has written what it was given; False when it has not."""
        return self.worker.settle(seconds) and self.worker.flush(seconds)

    def _fed(self, item: Frame) -> Outcome:
        before = len(self.log)
        self.worker.engine.last_failure = None
        packet, end = self.worker.engine.feed(item)
        return self._outcome(packet, end, self.log[before:])

    def _seen(self, route: str, packet: Packet, end: End | Exception) -> None:
        self.ran.append(self._outcome(packet, end, []))

    def _outcome(
        self, packet: Packet, end: End | Exception | None, log: list[tuple[str, str]]
    ) -> Outcome:
        failure, self.worker.engine.last_failure = self.worker.engine.last_failure, None
        effects = [(sink.name, record) for sink, record in packet.effects]
        return Outcome(packet, effects, log, _ended(end), failure.message if failure else "")

    def _keep(self, level: int, text: str) -> None:
        text = text.removesuffix("\n")
        self.log.append((NAMES[min(max(level, -5), 3)], text))
        self.lines.append(text)


def diagnostics(text: str | Path, *plugins: Made, define: Sequence[str] = ()) -> list[str]:
    """What `homerd check` finds, each as `E404 message` without its place; [] when nothing."""
    try:
        found = _load(text, plugins, define).warnings
    except ScriptErrors as error:
        found = list(error.diagnostics)
    return [f"{item.code} {item.message}" for item in found]


class _Worker(Worker):
    """One whose sinks have their spool in a folder of the test's, or none."""

    def __init__(self, program: Program, spool: Path | None, **options: Any) -> None:
        super().__init__(program, **options)
        self.spool = spool

    def give_spool(self, sink: BatchSink) -> None:
        if self.spool is not None:
            sink.spool_into(self.spool, self.program.settings.spool_limit)


# -- sinks


@dataclass(slots=True)
class SinkRun:
    """A sink on its own threads, without a script; end it with `stop`, or use it in a `with`.

    sink: not started yet; what it raises in `write` is answered as in the server, but tried again
    at once.  spool: a folder for what its store does not take, None for none.
    """

    sink: BatchSink
    spool: Path | None = None
    limit: int = 1 << 20
    _clock: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.sink.first_delay = self.sink.last_delay = 0.001
        if self.spool is not None:
            self.sink.spool_into(self.spool, self.limit)
        self.sink.start(SECONDS)

    def __enter__(self) -> SinkRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def feed(self, *records: Any) -> None:  # whatever the sink takes
        """Add records, as packets do."""
        for record in records:
            self.sink.add(record)

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass for the age of batches and for slow writes."""
        self._clock += seconds
        self.sink.tick(self._clock)

    def flush(self, seconds: float = SECONDS) -> bool:
        """Wait until every record is written or lost; False when that does not come."""
        return self.sink.flush(seconds)

    def stop(self, seconds: float = 0.0) -> None:
        """End it; what is left goes to the spool, or is lost."""
        self.sink.stop(seconds)

    @property
    def counts(self) -> dict[str, int]:
        """What became of the records: added, written, rejected, dropped, pending, spooled."""
        return self.sink.counts()

    @property
    def retries(self) -> int:
        """How often a batch was kept because of RetryLater."""
        return self.sink.retries

    @property
    def quarantined(self) -> list[dict[str, Any]]:
        """The refused records as `describe` shows them, with the reason; needs a spool."""
        if self.sink.quarantine is None:
            return []
        with suppress(FileNotFoundError):
            lines = self.sink.quarantine.path.read_text("utf-8").splitlines()
            return [json.loads(line) for line in lines]
        return []


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for what another thread does; AssertionError when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not come within {seconds:g} s")
        time.sleep(0.005)


# -- below


def _load(text: str | Path, plugins: Sequence[Made], define: Sequence[str]) -> Program:
    given = {_name(plugin): _maker(plugin) for plugin in plugins}
    try:
        if isinstance(text, Path):
            return load(text, defines=define, given=given)
        return load(Path("homer.cfg"), text=text, defines=define, given=given)
    except ScriptErrors as error:
        error.add_note(render(error.diagnostics, error.sources))
        raise


def _name(plugin: Made) -> str:
    name = getattr(plugin, "name", None) or getattr(plugin, "__name__", "")
    return str(name)


def _maker(plugin: Made) -> Callable[[], Any]:
    return plugin if callable(plugin) else lambda: plugin


def _message(
    first: str,
    method: str,
    user: str,
    to: str,
    call_id: str,
    headers: Mapping[str, str] | None,
    body: str,
) -> bytes:
    fields = {
        "Via": "SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK1",
        "From": f"<sip:{user}@example.org>;tag=a1",
        "To": f"<sip:{to}@example.net>",
        "Call-ID": call_id,
        "CSeq": f"1 {method}",
        **(headers or {}),
        "Content-Length": str(len(body.encode())),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{first}\r\n{head}\r\n{body}".encode()


def _wire(message: bytes | str) -> bytes:
    """A message as on the wire, of one written in a test with bare line feeds."""
    if isinstance(message, bytes):
        return message
    if "\r\n" in message:
        return message.encode()
    head, _, body = message.lstrip("\n").partition("\n\n")
    lines = [line.strip() for line in head.strip("\n").split("\n")]
    return ("\r\n".join(lines) + "\r\n\r\n" + body.replace("\n", "\r\n")).encode()


def _end(text: str) -> tuple[bytes, int]:
    host, _, port = text.rpartition(":")
    return ip_address(host.strip("[]")).packed, int(port)


def _seconds(clock: str | float) -> float:
    if not isinstance(clock, str):
        return float(clock)
    when = datetime.fromisoformat(clock)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _ended(end: End | Exception | None) -> str:
    if end is None:
        return KEEP_ALIVE
    if isinstance(end, Exception):
        return "error"
    return f"refused:{end.reason}" if end.kind == "refused" else end.kind
