"""`homerd replay`: packets from files through the script, with everything delivered.

`trace` is the same without delivery, and shows each packet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from homerd.commands.check import add_script_options
from homerd.core import log, metrics
from homerd.core.agents import forget_key
from homerd.core.dissect import Dissector
from homerd.core.engine import Engine
from homerd.core.inputs import Undecoded, Wait, input_size, read_input
from homerd.core.ledger import ledger, unbalanced
from homerd.core.media import MediaTable
from homerd.core.program import Program, load
from homerd.core.sink import BatchSink
from homerd.core.worker import Worker
from homerd.lang.runtime import End
from homerd.packet import Packet
from homerd.wire import hep
from homerd.wire.hep import Frame

LOG_LEVEL = 2  # L_INFO, when the script sets no debug
# A file is read faster than a store writes: wait for the store rather than drop.
WAIT_ABOVE_PENDING = 20_000
# The same for what the script asked of others, an HTTP server for one.
WAIT_ABOVE_PROMISED = 500
SETTLE_SECONDS = 60.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "replay", help="feeds INPUT through the script, delivers effects, prints a summary"
    )
    add_script_options(parser)
    add_input_options(parser)
    parser.add_argument(
        "--speed",
        type=_speed,
        metavar="N",
        help="replay in the time of the capture, N times as fast (default: as fast as possible)",
    )
    parser.set_defaults(run=run)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """`--json` and INPUT…, the same for replay and trace."""
    parser.add_argument("--json", action="store_true", help="JSON lines, one object a packet")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help='pcap, pcapng, HEP stream, SIP text or JSON lines; "-" is standard input',
    )


def run(options: argparse.Namespace) -> int:
    """Replay and deliver."""
    return feed(options, deliver=True, speed=options.speed)


def feed(options: argparse.Namespace, *, deliver: bool, speed: float | None = None) -> int:
    """Run every INPUT through the script; prints as the options say."""
    program = load(options.file, defines=options.define)
    log.start()
    report: Report = JsonReport() if options.json else TextReport(each=not deliver)
    replay = Replay(program, report, deliver=deliver)
    started = time.monotonic()
    replay.start()
    try:
        size = sum(map(input_size, options.inputs))
        with _progress(size, options.json or not deliver) as progress:
            for path in options.inputs:
                items = read_input(path, progress, replay.dissector)
                replay.feed(_paced(items, speed, replay.worker.tick))
        replay.feed(iter(replay.dissector.finish()))
    finally:
        replay.stop()
    report.summary(replay.summary(time.monotonic() - started))
    return 0


class Report:
    """Where a replay tells what happened; each: also of packets that went without a word."""

    each = True

    def event(self, described: dict[str, Any]) -> None:
        """A packet, a timer's run or what ran at start."""

    def summary(self, described: dict[str, Any]) -> None:
        """The end."""


class JsonReport(Report):
    """JSON lines on standard output."""

    def event(self, described: dict[str, Any]) -> None:
        """One object a line."""
        print(json.dumps(described, default=_as_json))

    def summary(self, described: dict[str, Any]) -> None:
        """The last object."""
        print(json.dumps({"summary": described}, default=_as_json))


class TextReport(Report):
    """For people; each: also what happened to each packet."""

    def __init__(self, each: bool, out: TextIO | None = None) -> None:
        self.each = each
        self.out = out or sys.stdout
        self.colour = self.out.isatty()

    def event(self, described: dict[str, Any]) -> None:
        """A packet in a few lines; only its log lines when they are all that is wanted."""
        if not self.each:
            for line in described["log"]:
                print(f"{line['level']}: {line['text']}", end=_line_end(line), file=sys.stderr)
            return
        if "n" in described:
            print(self._bold(f"#{described['n']} {_headline(described['frame'])}"), file=self.out)
        else:
            print(self._bold(f"{described.get('timer') or described['route']}"), file=self.out)
        for line in described["log"]:
            print(f"   log    {line['level']}: {line['text']}", end=_line_end(line), file=self.out)
        for effect in described["effects"]:
            record = effect.get("record")
            shown = _columns(record) if isinstance(record, dict) else record
            print(f"   to     {effect['sink']} {effect.get('table', '')} {shown}", file=self.out)
        error = described["error"]
        if error:
            where = f"{error['file']}:{error['line']}:{error['column']}" if error["file"] else "?"
            print(self._red(f"   error  {where}: {error['message']}"), file=self.out)
        if "result" in described:
            route = described["route"] or "no route"
            print(
                f"   end    {described['result']} in {route}{_ended_at(described)}", file=self.out
            )

    def summary(self, described: dict[str, Any]) -> None:
        """Counts that add up, and every reason for a packet that was not stored."""

        def say(text: str) -> None:
            print(text, file=self.out)

        seconds = described["seconds"]
        rate = f", {described['received'] / seconds:,.0f}/s" if seconds > 0.1 else ""
        say(f"received {described['received']:,} packets in {seconds:.2f} s{rate}")
        for title, key in (
            ("routed", "routes"), ("taken by a module", "handled"), ("not decoded", "undecoded"),
            ("refused", "refused"), ("stored", "stored"), ("sent", "sent"), ("lost", "lost"),
            ("on disk, for the next start", "spooled"), ("seen in captures", "notes"),
        ):  # fmt: skip
            counts = {name: count for name, count in described[key].items() if count}
            if counts:
                say(f"{title}: {sum(counts.values()):,}")
                for name, count in sorted(counts.items(), key=lambda item: -item[1]):
                    say(f"   {count:>9,}  {name}")
        if described["not_stored"]:
            say("packets that left nothing in a store:")
            for reason, count in sorted(described["not_stored"].items(), key=lambda item: -item[1]):
                say(f"   {count:>9,}  {_told(reason)}")
        if described["ledger"]["difference"]:
            for line in unbalanced(described["ledger"]):
                say(self._red(line))
        if described["errors"]:
            say(self._red(f"errors of the script: {described['errors']:,}"))
            for place, count in described["error_places"].items():
                say(f"   {count:>9,}  {place}")

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text

    def _red(self, text: str) -> str:
        return f"\x1b[31m{text}\x1b[0m" if self.colour else text


class Replay:
    """A worker that is fed from files."""

    def __init__(self, program: Program, report: Report, *, deliver: bool) -> None:
        self._log: list[dict[str, str]] = []
        self.report = report
        self.worker = Worker(program, deliver=deliver, log=self._keep, debug=LOG_LEVEL)
        self.engine: Engine = self.worker.engine
        self.worker.route_seen = self._route_seen
        self.undecoded: Counter[str] = Counter()
        # As of a listener: nobody behind it sees a key.
        self._forgets_keys = bool(program.settings.agents)
        # Captures given together are of one network, cut into files.
        self.dissector = Dissector(media=MediaTable(program.settings.rtp_reports))
        self.number = 0

    def start(self) -> None:
        """Start the plugins; what their event routes print is reported."""
        self.worker.start()

    def feed(self, items: Iterator[Frame | Wait | Undecoded]) -> None:
        """Run packets through the script, waits on its clock."""
        for item in items:
            if isinstance(item, Wait):
                self.worker.settle(SETTLE_SECONDS)
                self.worker.advance(item.seconds)
                continue
            self.number += 1
            if isinstance(item, Undecoded):
                self.undecoded[item.reason] += 1
                self._tell_undecoded(item)
                continue
            if self._forgets_keys and item.auth_key is not None:
                forget_key(item)
            self.engine.last_failure = None
            packet, end = self.engine.feed(item)
            self._tell(packet, end)
            if self.worker.promised > WAIT_ABOVE_PROMISED:
                self.worker.settle(SETTLE_SECONDS)
            if self.number % 1000 == 0:
                self.worker.tick()
                if any(_left(sink) > WAIT_ABOVE_PENDING for sink in self.worker.sinks):
                    self.worker.flush()

    def stop(self) -> None:
        """Wait until what was asked is answered and every sink has written; end the plugins."""
        self.worker.settle(SETTLE_SECONDS)
        self.worker.flush(60.0)
        self.worker.stop()
        if self._log:
            self.report.event({"route": "", "log": self._taken(), "effects": [], "error": None})

    def summary(self, seconds: float) -> dict[str, Any]:
        """What came in and where it went; the sums add up."""
        engine = self.engine
        lost: Counter[str] = Counter()
        for sink in self.worker.sinks:
            lost.update({f"{sink.name}: {reason}": n for reason, n in sink.lost.items()})
        undecoded = self.undecoded + engine.undecoded
        received = engine.received + sum(self.undecoded.values())
        counters = metrics.snapshot(self.worker)
        counters |= {"received": received, "undecoded": dict(undecoded)}
        sinks = counters["sinks"]
        return {
            "received": received,
            "undecoded": dict(undecoded),
            "notes": dict(self.dissector.notes),
            "refused": dict(engine.refused),
            "handled": dict(engine.handled),
            "routed": sum(engine.routed.values()),
            "routes": dict(engine.routed),
            "effects": dict(engine.effects),
            "stored": counters["stored"],
            "sent": counters["sent"],
            "not_stored": dict(engine.not_stored + undecoded),
            "lost": dict(lost),
            "spooled": {name: sink["spooled"] for name, sink in sinks.items()},
            "ledger": ledger(counters),
            "errors": sum(engine.route_errors.values()),
            "error_places": dict(engine.route_errors),
            "seconds": round(seconds, 3),
        }

    # -- what is told of one packet

    def _keep(self, level: int, text: str) -> None:
        self._log.append({"level": log.name(level), "text": text})

    def _taken(self) -> list[dict[str, str]]:
        taken, self._log = self._log, []
        return taken

    def _tell(self, packet: Packet, end: End | Exception | None) -> None:
        # To describe a packet takes as long as to route it.
        if not self.report.each and not self._log:
            return
        described: dict[str, Any] = {
            "n": self.number,
            "route": packet.route,
            "log": self._taken(),
            "effects": _effects(packet),
            "result": _result(end),
            "error": self._failure(),
            "frame": hep.to_dict(packet.frame),
        }
        if isinstance(end, End) and end.place:
            described["place"] = end.place
        self.report.event(described)

    def _tell_undecoded(self, item: Undecoded) -> None:
        if not self.report.each:
            return
        self.report.event(
            {
                "n": self.number,
                "route": "",
                "log": [],
                "effects": [],
                "result": "undecoded",
                "reason": item.reason,
                "error": None,
                "frame": {"error": item.reason, "offset": item.offset},
            }
        )

    def _route_seen(self, route: str, packet: Packet, end: End | Exception) -> None:
        timer = "" if route.startswith("event_route[") else packet.scratch.get("timer", route)
        described: dict[str, Any] = {"timer": timer} if timer else {}
        described |= {
            "route": route,
            "log": self._taken(),
            "effects": _effects(packet),
            "error": self._failure(),
        }
        self.report.event(described)

    def _failure(self) -> dict[str, Any] | None:
        failure, self.engine.last_failure = self.engine.last_failure, None
        if failure is None:
            return None
        place = failure.place
        return {
            "message": failure.message,
            "file": place.file if place else None,
            "line": place.line if place else None,
            "column": place.column if place else None,
        }


def _left(sink: BatchSink) -> int:
    return sink.pending + sink.spooled


def _effects(packet: Packet) -> list[dict[str, Any]]:
    return [
        {"sink": sink.name, **sink.describe(record)}  # type: ignore[attr-defined]
        for sink, record in packet.effects
    ]


def _result(end: End | Exception | None) -> str:
    if end is None:
        return "keep_alive"
    if isinstance(end, Exception):
        return "error"
    return f"refused:{end.reason}" if end.kind == "refused" else end.kind


def _as_json(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _headline(frame: dict[str, Any]) -> str:
    if "error" in frame:
        return f"not decoded: {frame['error']}"
    payload = bytes.fromhex(frame.get("payload_hex") or "")
    first = payload.lstrip(b"\r\n").split(b"\n", 1)[0].strip().decode("utf-8", "replace")
    kind = "" if frame.get("proto_type") in (1, None) else f" type {frame['proto_type']}"
    return (
        f"{frame.get('src_ip')}:{frame.get('src_port')} > {frame.get('dst_ip')}:"
        f"{frame.get('dst_port')}{kind} {first[:100]}"
    )


def _columns(record: dict[str, Any]) -> str:
    shown = {key: value for key, value in record.items() if value not in ("", None, 0)}
    return ", ".join(f"{key}={str(value)[:40]!r}" for key, value in shown.items() if key != "msg")


def _line_end(line: dict[str, str]) -> str:
    return "" if line["text"].endswith("\n") else "\n"


def _ended_at(described: dict[str, Any]) -> str:
    place = described.get("place")
    return f" at {place}" if place else ""


_REASONS = {
    "not_sip": "no SIP message (not_sip)",
    "not_hep": "neither HEP nor SIP (not_hep)",
    "hep_off": 'HEP is not taken: modparam("sipcapture", "hep_capture_on", 1) (hep_off)',
    "not_accepted": "event_route[sipcapture:request] did not return 1 (not_accepted)",
    "no_route": "the script has no route for it (no_route)",
    "keep_alive": "keep-alives (keep_alive)",
}


def _told(reason: str) -> str:
    if reason.startswith("script:"):
        return f"the script ended at {reason.removeprefix('script:')} and stored nothing"
    if reason.startswith("error:"):
        return f"the script failed at {reason.removeprefix('error:')}"
    return _REASONS.get(reason, reason)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if speed <= 0:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got "{text}"')
    return speed


def _paced(
    items: Iterator[Frame | Wait | Undecoded], speed: float | None, tick: Callable[[], None]
) -> Iterator[Frame | Wait | Undecoded]:
    """The same items, each at its time; those without a time at once.

    tick: called each second, so that what waits to be written is not kept until the end.
    """
    if speed is None:
        yield from items
        return
    first: tuple[float, float] | None = None
    ticked = time.monotonic()
    for item in items:
        if isinstance(item, Frame) and item.seconds:
            captured = item.seconds + item.micros / 1e6
            if first is None:
                first = (captured, time.monotonic())
            due = first[1] + (captured - first[0]) / speed
            while (left := due - (now := time.monotonic())) > 0:
                if now - ticked >= 1:
                    ticked = now
                    tick()
                time.sleep(min(left, 1))
        yield item


@contextlib.contextmanager
def _progress(size: int, quiet: bool) -> Iterator[Callable[[int], object] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with tqdm(total=size or None, unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar:
        yield bar.update
