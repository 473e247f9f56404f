"""alarm: conditions counted or measured by key in a sliding window of time, raised and cleared.

An alarm is raised for a key, such as an address, when its count in the window reaches `raise`, and
has cleared when it is down to `clear`. With a `clear` above its `raise` it is the other way round:
raised when the count or value falls. Each change is an event: a row of `alarm_data`, notifications,
a run of `event_route[alarm:raised]` or `event_route[alarm:cleared]`; `event_route[alarm:repeated]`
runs when it is told again. Time is the script's clock.
"""

from __future__ import annotations

import inspect
import logging
import math
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from homerd.api import (
    BatchSink,
    ConfigError,
    Frame,
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    RunState,
    Sample,
    ScriptFunction,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
)
from homerd_plugins._alarm_definition import COUNT, Definition, unknown
from homerd_plugins._alarm_event import CLEARED, RAISED, AlarmEvent
from homerd_plugins._alarm_evidence import Budget, mended
from homerd_plugins._alarm_rows import LAYOUTS, records
from homerd_plugins._alarm_state import Alarm, Change, Subject
from homerd_plugins._homer5 import is_table_name
from homerd_plugins._notify import Target
from homerd_plugins._stores import Address, sink_for, store_of_url, without_password
from homerd_plugins._upkeep import Kept, Upkeep

log = logging.getLogger("homerd.alarm")

# What homerd itself is watched for; an alarm of the script's with the same name takes the place.
SPOOL, LOSS = "spool", "loss"
BUILT_IN = (
    Definition.from_script(
        "spool=>of=last;window=60;raise=80;clear=50;severity=critical;evidence=0;"
        "description=percent of the spool used: when it is full the oldest records are dropped"
    ),
    Definition.from_script(
        "loss=>window=300;raise=1;clear=0;severity=critical;evidence=0;"
        "description=records lost before their store had them"
    ),
)

MOST_NOTICES = 20  # the newest

_EVENT, REPEATED = "alarm:", "repeated"
_PARTS = (
    "id", "name", "key", "state", "severity", "value", "threshold", "window", "total", "started",
    "at", "source_ip", "description", "node", "repeated",
)  # fmt: skip


class TableName:
    """A table's name."""

    @classmethod
    def from_script(cls, value: str | int) -> str:
        """Check it; "" is none."""
        if value != "" and not is_table_name(str(value)):
            raise ValueError(f'expected a table of at most 64 of A-Z a-z 0-9 and _, got "{value}"')
        return str(value)


class AlarmModule(Plugin):
    """Alarms on what packets tell: counted, with thresholds, evidence and notifications."""

    name = "alarm"

    alarm = ModParam(
        Definition,
        many=True,
        reloadable=True,
        replaceable=True,
        help="an alarm: NAME=>window=60;raise=20;clear=5;hold=300;severity=critical;notify=ops;…",
    )
    target = ModParam(Target, many=True, help="who is told: NAME=>URL;option=value")
    db_url = ModParam(
        str,
        "",
        help="where rows are stored: sqlite://PATH, postgres://…, mysql://…; empty: nowhere",
    )
    table = ModParam(TableName, "alarm_data", help="table of alarms, as Homer 5 has it")
    evidence_table = ModParam(
        TableName, "alarm_evidence", help="table of the packets that raised them; empty: none"
    )
    create_tables = ModParam(int, 1, help="0: missing tables are not made")
    keep_days = ModParam(
        int, 0, help="days that rows are kept, looked at each hour; 0 for good, Homer 5 has 10"
    )
    node = ModParam(str, "", help="this server's name in events; that of the machine when empty")
    evidence_memory = ModParam(
        int, 64, reloadable=True, help="most MiB of packets that are kept for evidence"
    )
    watch_sinks = ModParam(
        int, 1, reloadable=True, help="0: no alarms on full spools and lost records"
    )

    def __init__(self) -> None:
        self.alarms: dict[str, Alarm] = {}
        self.refused: Counter[str] = Counter()
        self.budget = Budget(64 << 20)
        self._worker: Worker | None = None
        self._state: RunState | None = None
        self._store: BatchSink | None = None
        self._upkeep: Upkeep | None = None
        self._targets: dict[str, BatchSink] = {}
        self._events: frozenset[str] = frozenset()
        self._untold: list[Change] = []
        self._event: AlarmEvent | None = None
        self._lost: Counter[str] = Counter()
        name = Parameter("alarm", ParameterKind.CONSTANT, convert=self._named)
        key = Parameter("key", ParameterKind.TEXT, required=False)
        amount = Parameter("amount", ParameterKind.NUMBER, required=False)
        value = Parameter("value", ParameterKind.TEXT)
        said = Parameter("description", ParameterKind.TEXT, required=False)
        known = Parameter("key", ParameterKind.TEXT)
        self.words = (
            self._word("alarm_count", self.alarm_count, name, key, amount, said),
            self._word("alarm_value", self.alarm_value, name, known, value, said),
            self._word("alarm_raised", self.alarm_raised, name, key),
            self._word("alarm_clear", self.alarm_clear, name, key),
        )

    def _word(self, name: str, call: object, *parameters: Parameter) -> ScriptFunction:
        assert callable(call)
        told = inspect.getdoc(call) or ""
        return ScriptFunction(
            name, call, parameters, returns_bool=True, module=self.name, help=told
        )

    # Parameters

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; an alarm or a target of the same name twice is a ValueError."""
        if isinstance(value, Definition | Target):
            taken = [other.name for other in getattr(self, name)]
            if value.name in taken:
                raise ValueError(f'the {name} "{value.name}" is defined already')
        super().set_mod_param(name, value)

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Put the definitions in place."""
        if self.evidence_memory < 0:
            raise ConfigError(
                f'modparam("alarm", "evidence_memory", {self.evidence_memory}):'
                " expected MiB, 0 or more"
            )
        if self.keep_days < 0:
            raise ConfigError(
                f'modparam("alarm", "keep_days", {self.keep_days}): expected days, 0 or more'
            )
        self.budget.limit = self.evidence_memory << 20
        now = self._now()
        wanted = {each.name: each for each in self._definitions()}
        for name, alarm in list(self.alarms.items()):
            if name not in wanted and alarm.definition is not None:
                self._untold += alarm.retire(now)
        for name, definition in wanted.items():
            alarm = self._alarm(name)
            alarm.node = self.node or socket.gethostname()
            if definition != alarm.definition:
                alarm.define(definition, now)

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Targets, stores and event routes that there are not."""
        self._events = outline.events
        if self.db_url:
            try:
                Address.of(store_of_url(self.db_url))
            except ValueError as error:
                yield Problem(f"db_url: {error}", parameter="db_url")
        targets = [each.name for each in self.target]
        for definition in self.alarm:
            for name in definition.notify or ():
                if name not in targets:
                    yield Problem(
                        f'alarm "{definition.name}": {unknown("target", name, targets)}',
                        parameter="alarm",
                        help=f'modparam("alarm", "target", "{name}=>https://…")',
                    )
        for event in sorted(outline.events):
            state = event.removeprefix(_EVENT)
            if state != event and state not in (RAISED, CLEARED, REPEATED):
                yield Problem(
                    f"event_route[{event}] is never run: there are alarm:raised, alarm:cleared and"
                    " alarm:repeated",
                    event=event,
                    warning=True,
                )

    def _definitions(self) -> Iterator[Definition]:
        own = {each.name for each in self.alarm}
        if self.watch_sinks:
            yield from (each for each in BUILT_IN if each.name not in own)
        yield from self.alarm

    def _named(self, name: str | int) -> Alarm:
        """The alarm a word of the script means."""
        # On reload words are bound before the running module hears of new alarms; that they are
        # defined was seen before.
        known = [each.name for each in self._definitions()]
        if self._worker is None and name not in known:
            raise ValueError(unknown("alarm", str(name), known))
        return self._alarm(str(name))

    def _alarm(self, name: str) -> Alarm:
        alarm = self.alarms.get(name)
        if alarm is None:
            alarm = self.alarms[name] = Alarm(name, self.budget)
        return alarm

    # Start and stop

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open the store and the targets; look at all alarms each second."""
        self._worker = worker
        self._state = worker.new_state()
        now = worker.now()
        for alarm in self.alarms.values():
            for subject in alarm.subjects.values():
                subject.first_at = now
        if self.db_url:
            self._store = worker.add_sink(self._made_store())
            if self.keep_days and worker.deliver:
                days = {name: self.keep_days for name in (self.table, self.evidence_table) if name}
                self._upkeep = Upkeep([self._made_keeper], Kept(days), lambda place, times: ())
                self._upkeep.start()
        for target in self.target:
            self._targets[target.name] = worker.add_sink(target.sink())
        worker.every(1.0, self.look)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Tell what was raised since the last look."""
        self._tell_untold()
        if self._upkeep is not None:
            self._upkeep.stop()

    def _made_keeper(self) -> BatchSink:
        return self._made_store(keeps=True)

    def _made_store(self, *, keeps: bool = False) -> BatchSink:
        source = f'modparam("alarm", "db_url", "{without_password(self.db_url)}")'
        try:
            address = Address.of(store_of_url(self.db_url))
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
        made: BatchSink = sink_for(
            address,
            "alarm",
            LAYOUTS,
            create_tables=bool(self.create_tables),
            source=source,
            keeps=keeps,
        )
        return made

    @hookimpl
    def notices(self) -> Iterable[str]:
        """The alarms that are raised."""
        raised = [
            (subject.raised_at, alarm.definition, subject)
            for alarm in self.alarms.values()
            for subject in alarm.open.values()
            if subject.raised and alarm.definition is not None
        ]
        raised.sort(key=lambda each: -each[0])
        for at, definition, subject in raised[:MOST_NOTICES]:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
            said = subject.description or definition.description
            yield (
                f"{definition.severity} alarm {definition.name} for {mended(subject.key) or 'all'}"
                f" since {since}" + (f": {said}" if said else "")
            )
        if len(raised) > MOST_NOTICES:
            yield f"and {len(raised) - MOST_NOTICES} more alarms"

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """What was raised and cleared, by alarm, and what could not be counted."""
        for name, alarm in self.alarms.items():
            if alarm.definition is None:
                continue
            of = {"alarm": name}
            yield Sample("homerd_alarm_raised_total", of, alarm.raised_total, "Alarms raised.")
            yield Sample("homerd_alarm_cleared_total", of, alarm.cleared_total, "Alarms cleared.")
            yield Sample("homerd_alarm_suppressed_total", of, alarm.suppressed, "Raises put off.")
            yield Sample("homerd_alarm_active", of, alarm.raised, "Keys it is raised for.")
            yield Sample("homerd_alarm_keys", of, len(alarm.subjects), "Keys that are known.")
            over = alarm.over_budget
            yield Sample("homerd_alarm_over_budget_total", of, over, 'Counted under "other".')
        for reason, count in self.refused.items():
            yield Sample(
                "homerd_alarm_refused_total", {"reason": reason}, count, "Calls not counted."
            )
        yield Sample("homerd_alarm_evidence_bytes", {}, self.budget.held, "Bytes of packets kept.")
        without = self.budget.refused
        yield Sample("homerd_alarm_evidence_refused_total", {}, without, "Packets not kept.")

    # The script's words

    def alarm_count(
        self, packet: Packet, alarm: Alarm, key: str = "", amount: int = 1, description: str = ""
    ) -> bool:
        """Count *amount* for *key*; true while the alarm is raised for it.

        key: what is counted apart, an address say; "" is a key too.  amount: below 0 it takes back
        what was counted.  description: of what raises the alarm, in place of the definition's.
        """
        now = packet.state.now()
        subject = self._subject(packet, alarm, key, now)
        if subject is None:
            return False
        definition = alarm.definition
        assert definition is not None
        if definition.of != COUNT:
            self.refused["not_a_count"] += 1
            return bool(subject.raised)
        window = subject.window
        counted = amount if amount > 0 or window.sum + amount >= 0 else -int(window.sum)
        count = window.add(now, counted)
        if subject.raised:
            subject.total += counted
            return True
        if definition.falls or count < definition.raise_at:
            return False
        return self._judge(packet, alarm, subject, now, description)

    def alarm_value(
        self, packet: Packet, alarm: Alarm, key: str, value: str, description: str = ""
    ) -> bool:
        """Measure *value*, a number that may have a fraction; true while the alarm is raised.

        For alarms with `of=mean` or `of=last`.
        """
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.refused["not_a_number"] += 1
            return False
        now = packet.state.now()
        subject = self._subject(packet, alarm, key, now)
        if subject is None:
            return False
        assert alarm.definition is not None
        if alarm.definition.of == COUNT:
            self.refused["not_a_value"] += 1
            return bool(subject.raised)
        subject.window.add(now, number)
        if subject.raised:
            subject.total += 1
            return True
        return self._judge(packet, alarm, subject, now, description)

    def alarm_raised(self, packet: Packet, alarm: Alarm, key: str = "") -> bool:
        """Whether the alarm is raised for *key*."""
        subject = alarm.counted(key)
        return subject is not None and bool(subject.raised)

    def alarm_clear(self, packet: Packet, alarm: Alarm, key: str = "") -> bool:
        """Clear the alarm for *key* and forget what was counted; false when it was not raised."""
        subject = alarm.find(key)
        change = None if subject is None else alarm.clear(subject, packet.state.now())
        if change is None:
            return False
        self._changed(packet, change)
        return True

    @pseudo_variable("alarm")
    def alarm_value_of(self, packet: Packet, alarm: Alarm, key: str) -> Value:
        """`$alarm(NAME=>key)`: what is counted or measured for a key; null without a value."""
        subject = alarm.counted(key)
        if subject is None:
            return 0 if alarm.definition is not None and alarm.definition.of == COUNT else None
        return _shown(alarm.value(subject, packet.state.now()))

    @alarm_value_of.bind
    def _bind_alarm(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        head, found, key = (argument or Text("", [])).partition("=>")
        if not found or not head.constant:
            raise ValueError("expected NAME=>key in parentheses")
        return self._named(head.constant.strip()), key if key.constant is None else key.constant

    @pseudo_variable("alarm_event")
    def alarm_event(self, packet: Packet, part: str) -> Value:
        """In event_route[alarm:…]: a part of the event, `name` or `key`; elsewhere null."""
        event = self._event
        if event is None:
            return None
        match part:
            case "name":
                return event.alarm
            case "window":
                return event.window_seconds
            case "started":
                return int(event.started_at)
        found = getattr(event, part)
        return found if isinstance(found, str) else int(found) if part == "at" else _shown(found)

    @alarm_event.bind
    def _bind_event(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        part = "" if argument is None else argument.constant
        if part not in _PARTS:
            raise ValueError(f"expected one of {', '.join(_PARTS)}")
        return (part,)

    # What a packet brings about

    def _subject(self, packet: Packet, alarm: Alarm, key: str, now: float) -> Subject | None:
        """What is known of *key*, with the packet put to its evidence."""
        definition = alarm.definition
        if definition is None:  # between two scripts
            self.refused["no_alarm"] += 1
            return None
        subject = alarm.subject(key, now)
        frame = _frame_of(packet)
        if frame is not None and definition.evidence:
            self.budget.keep(subject.seen, now, frame, definition.evidence)
        return subject

    def _judge(
        self, packet: Packet, alarm: Alarm, subject: Subject, now: float, description: str
    ) -> bool:
        frame = _frame_of(packet)
        wanted = alarm.definition is not None and alarm.definition.evidence > 0
        alone = wanted and frame is not None and not subject.seen  # the budget had no room
        if alone and frame is not None:
            self.budget.keep_alone(subject.seen, now, frame)
        change = alarm.judge(subject, now, frame, description)
        if change is None:
            if alone:
                self.budget.free(subject.seen)
            return False
        self._changed(packet, change)
        return True

    def _now(self) -> float:
        return time.time() if self._worker is None else self._worker.now()

    # Telling

    def look(self) -> None:
        """Each second: what time alone changes, and the event routes of what packets changed."""
        assert self._worker is not None
        now = self._worker.now()
        if self.watch_sinks:
            self._watch_sinks(now)
        for alarm in list(self.alarms.values()):
            for change in alarm.look(now):
                self._untold.append(change)
        self._tell_untold()

    def _watch_sinks(self, now: float) -> None:
        """How full the spools are, and what was lost since the last look."""
        assert self._worker is not None
        spools, losses = self._alarm(SPOOL), self._alarm(LOSS)
        for name, counts in self._worker.sink_counts().items():
            lost = counts.lost - self._lost[name]
            self._lost[name] += lost
            for alarm, value in ((spools, counts.spool_percent), (losses, lost)):
                definition = alarm.definition
                if definition is None or (alarm is losses and not lost):
                    continue
                subject = alarm.subject(name, now)
                subject.window.add(now, value)
                if subject.raised:
                    subject.total += value if alarm is losses else 1
                elif change := alarm.judge(subject, now):
                    self._untold.append(change)

    def _changed(self, packet: Packet, change: Change) -> None:
        """Tell of a change that *packet* brought about; its event route comes after the packet."""
        self._tell(packet, change)
        self._untold.append(change._replace(told=True))

    def _tell(self, packet: Packet, change: Change) -> None:
        """Hand the event to the store and to its targets."""
        event = change.event
        if self._store is not None and not event.repeated:
            for record in records(event, self.table, self.evidence_table):
                packet.emit(self._store, record)
        for name, sink in self._targets.items():
            if change.notify is None or name in change.notify:
                packet.emit(sink, event.as_record())

    def _tell_untold(self) -> None:
        """Run the event routes, on the packet that brought the change about, if one did."""
        untold, self._untold = self._untold, []
        worker = self._worker
        if worker is None or self._state is None:
            return
        for change in untold:
            packet = Packet(change.frame or Frame(0), self._state)
            if not change.told:
                self._tell(packet, change)
            self._event = event = change.event
            try:
                worker.run_event(_EVENT + (REPEATED if event.repeated else event.state), packet)
            finally:
                self._event = None


def _frame_of(packet: Packet) -> Frame | None:
    """What was captured; None on a timer's packet."""
    frame = packet.hep
    if not frame.version and packet.route not in ("request_route", "onreply_route"):
        return None
    return frame


def _shown(value: float | None) -> Value:
    """A number as scripts have it: text where it has a fraction."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else f"{value:.6g}"
