"""Cases of `homerd test`: packets for a script, and what must come of them.

    - name: a call is stored
      packets:
        - sip: |
            INVITE sip:bob@example.net SIP/2.0
            Call-ID: 1@example.net
            …
      expect:
        log: ["INVITE from alice"]
        rows: {"sip_capture_call_*": [{method: INVITE, from_user: alice}]}
        result: drop

A file is a list of cases, or a mapping whose `cases` is one; YAML, or JSON by its ending.  Each
case begins with a freshly loaded script.  docs/testing.md has every key.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from homerd.commands.check import STORES
from homerd.commands.judge import Mismatch, compare
from homerd.commands.replay import Replay, Report
from homerd.core.inputs import Item, item_of
from homerd.core.program import Program, load
from homerd.errors import ConfigError, HomerdError, ScriptErrors
from homerd.lang.diagnostics import render

ENDINGS = (".yaml", ".yml", ".json")
DEFAULT_DATABASE = "x.db"
DEFAULT_PORT = "8125"  # stands for @UDP@; nothing is sent to it

_KEYS = frozenset(
    {"name", "script", "files", "define", "clock", "packets", "expect", "database", "sql"}
)
_FOR_THE_READER = frozenset({"section", "note"})


@dataclass(frozen=True, slots=True)
class Case:
    """One case as it was written; place is where, for messages."""

    name: str
    place: str
    told: Mapping[str, Any]

    @property
    def expect(self) -> Mapping[str, Any]:
        """What must come of the case as a whole."""
        return self.told.get("expect") or {}


@dataclass(slots=True)
class Outcome:
    """What came of a case; it passed when nothing was wrong.

    events: what Replay told, in its order.
    """

    case: Case
    wrong: list[Mismatch] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.wrong


def files_of(script: Path) -> list[Path]:
    """The case files that belong to *script*: NAME.test.yaml beside it or in tests/ beside it."""
    folders = (script.parent, script.parent / "tests")
    found = [folder / f"{script.stem}.test{end}" for folder in folders for end in ENDINGS]
    return [path for path in found if path.is_file()]


def read_cases(path: Path) -> list[Case]:
    """The cases in *path*; ConfigError says what is wrong with the file."""
    try:
        text = path.read_text("utf-8")
        told = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if isinstance(told, Mapping):
        told = told.get("cases")
    if not isinstance(told, Sequence) or isinstance(told, str):
        raise ConfigError(f"{path}: expected a list of cases")
    return [_case(path, number, item) for number, item in enumerate(told, 1)]


def _case(path: Path, number: int, told: object) -> Case:
    place = f"{path}: case {number}"
    if not isinstance(told, Mapping):
        raise ConfigError(f"{place}: expected a mapping with packets and expect")
    unknown = sorted(set(map(str, told)) - _KEYS - _FOR_THE_READER)
    if unknown:
        raise ConfigError(
            f'{place}: unknown key "{unknown[0]}", expected one of {", ".join(sorted(_KEYS))}'
        )
    if not isinstance(told.get("expect") or {}, Mapping):
        raise ConfigError(f"{place}: expect: expected a mapping")
    name = str(told.get("name", f"case {number}"))
    return Case(name, f'{place} "{name}"', told)


def run_case(
    case: Case, script: Path | None, defines: Sequence[str] = (), stores: str = ""
) -> Outcome:
    """Load the script, feed it the packets, judge what came.

    script: None for a case that must bring its own.  stores: what answers the SELECTs of a case
    without a database of its own.  Raises ConfigError for a case that cannot run.
    """
    started = time.perf_counter()
    outcome = Outcome(case)
    with tempfile.TemporaryDirectory(prefix="homerd-test-") as name:
        folder = Path(name)
        with _stores_in(folder, case, stores):
            _run(case, script, [*defines, *_listed(case, "define")], folder, outcome)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _run(
    case: Case, script: Path | None, defines: Sequence[str], folder: Path, outcome: Outcome
) -> None:
    expect = case.expect
    own = case.told.get("script")
    if own is None and script is None:
        raise ConfigError(f"{case.place}: no script: homerd test FILE.cfg CASES, or a key script")
    try:
        program = _loaded(case, script, defines, folder)
    except ScriptErrors as error:
        codes = sorted({item.code for item in error.diagnostics})
        if expect.get("load", "ok") == "error":
            outcome.wrong += compare(expect, {"diagnostics": codes})
        else:
            told = render(error.diagnostics, error.sources)
            outcome.wrong.append(Mismatch("load", [], ["the script does not compile:"], told))
        return
    except HomerdError as error:
        if expect.get("load", "ok") != "error":
            outcome.wrong.append(Mismatch("load", [], [str(error)]))
        return
    if expect.get("load", "ok") == "error":
        outcome.wrong.append(Mismatch("load", ["error"], ["ok"]))
        return
    program = replace(program, settings=replace(program.settings, spool_limit=0))
    deliver = _delivers(case)
    items = [
        (_item(case, number, told), told.get("expect") if isinstance(told, Mapping) else None)
        for number, told in enumerate(_listed(case, "packets"), 1)
    ]
    metrics = _fed(case, program, items, outcome, deliver=deliver)
    got = _told(outcome.events)
    got["metrics"] = metrics
    got["diagnostics"] = sorted({item.code for item in program.warnings})
    if deliver:
        got["rows"] = _stored(folder / str(case.told.get("database", DEFAULT_DATABASE)), expect)
    outcome.wrong += compare(_filled(expect, folder), got)


def _delivers(case: Case) -> bool:
    """A script of the case's own may say where its rows go; one in use is never delivered from."""
    script = case.told.get("script")
    return isinstance(script, str) and "@DIR@" in script


@contextlib.contextmanager
def _stores_in(folder: Path, case: Case, stores: str) -> Iterator[None]:
    """What the script asks of its databases is answered by one of the case's, made by its `sql`."""
    if _delivers(case):
        stores = ""  # its rows go where it says itself, and nowhere else
    elif not stores or "sql" in case.told:
        store = folder / "store.db"
        try:
            with closing(sqlite3.connect(store)) as connection:
                connection.executescript(";\n".join(_listed(case, "sql")))
        except (sqlite3.Error, TypeError) as error:
            raise ConfigError(f"{case.place}: sql: {error}") from None
        stores = f"sqlite://{store}"
    before = os.environ.pop(STORES, None)
    if stores:
        os.environ[STORES] = stores
    try:
        yield
    finally:
        os.environ.pop(STORES, None)
        if before is not None:
            os.environ[STORES] = before


def _loaded(case: Case, script: Path | None, defines: Sequence[str], folder: Path) -> Program:
    own = case.told.get("script")
    for name, text in (case.told.get("files") or {}).items():
        (folder / name).write_bytes(_filled(text, folder).encode("utf-8", "surrogateescape"))
    if own is None:
        assert script is not None
        return load(script, defines=defines)
    path = folder / "case.cfg"
    # A file of its own: what it includes is looked for beside it.
    path.write_bytes(_filled(own, folder).encode("utf-8", "surrogateescape"))
    return load(path, defines=defines)


def _fed(
    case: Case,
    program: Program,
    items: Sequence[tuple[Item, Any]],
    outcome: Outcome,
    *,
    deliver: bool,
) -> dict[str, float]:
    """Run *items* through the script, judge those with an expectation; gives the metrics."""
    kept = _Kept(outcome.events)
    replay = Replay(program, kept, deliver=deliver)
    clock = case.told.get("clock")
    if clock is not None:
        replay.engine.state.clock_offset = _seconds(clock, case.place) - time.time()
    replay.start()
    try:
        for number, (item, expected) in enumerate(items, 1):
            before = len(outcome.events)
            replay.feed(iter([item]))
            if expected:
                told = _told(outcome.events[before:])
                for mismatch in compare(expected, told):
                    mismatch.what = f"packet {number}, {mismatch.what}"
                    outcome.wrong.append(mismatch)
        metrics = _metrics(program)
    finally:
        replay.stop()
    return metrics


class _Kept(Report):
    """Keeps what Replay tells."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events

    def event(self, described: dict[str, Any]) -> None:
        """Keep one."""
        self.events.append(described)


def _told(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What expectations are held against."""
    packets = [event for event in events if "n" in event]
    effects = [effect for event in events for effect in event["effects"]]
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for effect in effects:
        if isinstance(effect.get("record"), Mapping) and effect.get("table"):
            rows.setdefault(effect["table"], []).append(effect["record"])
    return {
        "log": [line for event in events for line in _lines(event["log"])],
        "xlog": "".join(entry["text"] for event in events for entry in event["log"]).splitlines(),
        "rows": rows,
        "udp": [effect["record"] for effect in effects if effect["sink"] == "statsd"],
        "sent": _sent(effects),
        "effects": effects,
        "result": [event["result"] for event in packets],
        "route": [event["route"] for event in packets],
        "errors": [event["error"]["message"] for event in events if event["error"]],
    }


def _sent(effects: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By sink, what is no row of a table: datagrams, statements, requests."""
    found: dict[str, list[str]] = {}
    for effect in effects:
        if isinstance(effect.get("record"), str):
            found.setdefault(effect["sink"], []).append(effect["record"].rstrip("\n"))
    return found


def _lines(log: Sequence[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """Lines as the running server logs them, each call's text a record of its own."""
    for entry in log:
        for line in entry["text"].splitlines() or [""]:
            yield {"level": entry["level"], "text": line}


def _metrics(program: Program) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in program.registry.names:
        hook = getattr(program.registry.plugin(name), "metrics", None)
        for metric, labels, value, *_ in hook() if hook is not None else ():
            shown = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
            found[f"{metric}{{{shown}}}" if shown else metric] = value
    return found


def _stored(database: Path, expect: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the tables that are asked for, in the order they were written."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not expect.get("rows") or not database.is_file():
        return found
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'homerd_batches'"
        )
        for (name,) in names.fetchall():
            quoted = name.replace('"', '""')
            cursor = connection.execute(f'SELECT * FROM "{quoted}" ORDER BY rowid')
            columns = [item[0] for item in cursor.description]
            found[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
    return found


def _listed(case: Case, key: str) -> list[Any]:
    told = case.told.get(key) or []
    if isinstance(told, str) and key in ("define", "sql"):
        return [told]
    if not isinstance(told, list):
        raise ConfigError(f"{case.place}: {key}: expected a list")
    return told


def _filled(told: Any, folder: Path) -> Any:
    """@DIR@ and @UDP@ in every text."""
    if isinstance(told, str):
        return told.replace("@DIR@", str(folder)).replace("@UDP@", DEFAULT_PORT)
    if isinstance(told, Mapping):
        return {_filled(key, folder): _filled(value, folder) for key, value in told.items()}
    if isinstance(told, list):
        return [_filled(item, folder) for item in told]
    return told


def _item(case: Case, number: int, told: object) -> Item:
    """A packet; text whose lines end in bare LF, as block text does, gets CRLF."""
    place = f"{case.place}: packet {number}"
    if isinstance(told, str):
        told = {"sip": told}
    if not isinstance(told, Mapping):
        raise ConfigError(f"{place}: expected a mapping")
    packet = {key: value for key, value in told.items() if key != "expect"}
    sip, hep = packet.get("sip"), packet.get("hep")
    if isinstance(sip, str):
        packet["sip"] = _with_crlf(sip)
    if isinstance(hep, Mapping):
        envelope = dict(hep)
        if isinstance(sip, str):
            envelope.setdefault("payload", packet.pop("sip"))
        for key, default in _ENVELOPE:
            envelope.setdefault(key, default)
        payload = envelope.get("payload")
        if envelope["proto_type"] == 1 and isinstance(payload, str):
            envelope["payload"] = _with_crlf(payload)
        elif isinstance(payload, Mapping | list):
            envelope["payload"] = json.dumps(payload)
        packet["hep"] = envelope
    return item_of(packet, place)


# What an agent always says and a case may leave out.
_ENVELOPE = (
    ("family", 2),
    ("proto", 17),
    ("src_ip", "192.0.2.1"),
    ("dst_ip", "192.0.2.2"),
    ("src_port", 5060),
    ("dst_port", 5060),
    ("proto_type", 1),
)


def _with_crlf(text: str) -> str:
    """A message as on the wire, with the empty line that ends its head."""
    if "\r\n" in text:
        return text
    head, _, body = text.partition("\n\n")
    return head.rstrip("\n").replace("\n", "\r\n") + "\r\n\r\n" + body.replace("\n", "\r\n")


def _seconds(clock: object, place: str) -> float:
    """Seconds since 1970 of a number, a date with time or their text; UTC unless it says more."""
    if isinstance(clock, int | float) and not isinstance(clock, bool):
        return float(clock)
    try:
        when = clock if isinstance(clock, datetime) else datetime.fromisoformat(str(clock))
    except ValueError:
        raise ConfigError(f'{place}: clock: expected a date and time, got "{clock}"') from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def chosen(cases: Sequence[Case], word: str) -> list[Case]:
    """The cases whose name holds *word*, upper and lower case alike."""
    return [case for case in cases if re.search(re.escape(word), case.name, re.IGNORECASE)]
