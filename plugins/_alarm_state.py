"""An alarm at work: its keys, their windows, which of them is raised.

             value reaches raise                    value reaches clear,
             and `pause` is over                    and `hold` is over
quiet ───────────────────────────────▶ raised ───────────────────────────▶ quiet
                                        │  ▲
                                        └──┘ told again each `repeat` seconds
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from homerd.api import Frame
from homerd_plugins._alarm_definition import COUNT, Definition
from homerd_plugins._alarm_event import CLEARED, RAISED, AlarmEvent
from homerd_plugins._alarm_evidence import Budget, Seen, evidence_of, mended
from homerd_plugins._alarm_window import Window

OTHER = "other"  # what the keys are counted under that are one too many
_KEY_LENGTH = 128
_SWEPT_AT_ONCE = 1000  # 3 ms of the loop; 10,000 at once are 15
_DESCRIPTION_LENGTH = 256


class Change(NamedTuple):
    """An event, whom it is for (None: all targets), and the packet that brought it about.

    told: whether the store and the targets have it already.
    """

    event: AlarmEvent
    notify: tuple[str, ...] | None
    frame: Frame | None = None
    told: bool = False


class Subject:
    """What an alarm knows of one key.

    raised: the id of the alarm while it is raised, else "".  total: counted since the window that
    raised it began.  silent_at: since when a window is empty that should not be.
    """

    __slots__ = (
        "cleared_at", "description", "first_at", "key", "raised", "raised_at", "seen", "silent_at",
        "source_ip", "told_at", "total", "window", "withheld",
    )  # fmt: skip

    def __init__(self, key: str, window: Window, now: float) -> None:
        self.key = key
        self.window = window
        self.seen: Seen = deque()
        self.first_at = now
        self.raised = ""
        self.raised_at = 0.0
        self.cleared_at: float | None = None
        self.told_at = 0.0
        self.silent_at: float | None = None
        self.total = 0
        self.source_ip = ""
        self.description = ""
        self.withheld = False


class Alarm:
    """A definition and its keys.

    raised_total, cleared_total: changes of state.  suppressed: raises that `pause` put off.
    over_budget: counts that went to another key than their own.  node: who raises it.
    """

    def __init__(self, name: str, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.node = ""
        self.subjects: dict[str, Subject] = {}
        self.open: dict[str, Subject] = {}  # those a look each second is for
        self.raised_total = 0
        self.cleared_total = 0
        self.suppressed = 0
        self.over_budget = 0
        self._swept_at = 0.0
        self._unswept: list[Subject] = []
        self.definition: Definition | None = None

    # The definition

    def define(self, definition: Definition, now: float) -> None:
        """Go by *definition*; what is raised stays so, windows stay unless they are others."""
        old, self.definition = self.definition, definition
        if old is not None and (old.window, old.of) != (definition.window, definition.of):
            for subject in self.subjects.values():
                subject.window = Window(definition.window)
                subject.first_at = now
        for key in definition.expect:
            self.subject(key, now)

    def retire(self, now: float) -> Iterator[Change]:
        """The script has it no more: what is raised is cleared."""
        for subject in list(self.subjects.values()):
            if subject.raised:
                yield self._clear(subject, now, "no longer defined")
            self._forget(subject)
        self.definition = None

    @property
    def raised(self) -> int:
        """How many keys it is raised for."""
        return sum(bool(subject.raised) for subject in self.open.values())

    # Packets

    def subject(self, key: str, now: float) -> Subject:
        """What is known of *key*; of one too many what is known of all those."""
        subject = self.subjects.get(key)
        return subject if subject is not None else self._new(key, now)

    def find(self, key: str) -> Subject | None:
        """What is known of *key*, None when it was never counted under its name."""
        return self.subjects.get(key) or self.subjects.get(_short(key))

    def counted(self, key: str) -> Subject | None:
        """Where *key* is counted or would be: a full table counts all others as one."""
        subject = self.find(key)
        if subject is None and self._is_full(_short(key)):
            return self.subjects.get(OTHER)
        return subject

    def judge(
        self, subject: Subject, now: float, frame: Frame | None = None, description: str = ""
    ) -> Change | None:
        """Raise the alarm for a key if it is due; called when it is not raised."""
        value = self.value(subject, now)
        if value is None or not self._is_due(subject, value, now):
            if subject.withheld:
                subject.withheld = False
                self.open.pop(subject.key, None)
            return None
        definition = self.definition
        assert definition is not None
        if subject.cleared_at is not None and now - subject.cleared_at < definition.pause:
            if not subject.withheld:
                subject.withheld = True
                self.suppressed += 1
                self.open[subject.key] = subject
            return None
        subject.withheld = False
        subject.raised = f"{int(now):x}-{secrets.token_hex(6)}"
        subject.raised_at = subject.told_at = now
        subject.silent_at = None
        subject.total = subject.window.samples
        if definition.of == COUNT:
            subject.total = int(max(0, subject.window.sum))
        subject.source_ip = subject.key if _is_address(subject.key) else ""
        if frame is not None and not subject.source_ip:
            subject.source_ip = frame.src_ip
        subject.description = mended(description[:_DESCRIPTION_LENGTH])
        self.open[subject.key] = subject
        self.raised_total += 1
        event = self._event(subject, RAISED, value, now, whole=definition.whole)
        return Change(event, definition.notify, frame)

    def value(self, subject: Subject, now: float) -> int | float | None:
        """What is held against the thresholds; None when there is too little to say."""
        definition = self.definition
        if definition is None:
            return None
        value = subject.window.value(now, definition.of)
        few = definition.of != COUNT and subject.window.samples < definition.samples
        return None if few else value

    def clear(self, subject: Subject, now: float) -> Change | None:
        """Begin anew with a key, at somebody's word."""
        change = self._clear(subject, now, "cleared by the script") if subject.raised else None
        self._forget(subject)
        return change

    # Each second

    def look(self, now: float) -> Iterator[Change]:
        """What time alone changes."""
        definition = self.definition
        if definition is None:
            return
        watched = self.subjects if definition.falls and definition.of == COUNT else self.open
        for subject in list(watched.values()):
            change = self._look_at(subject, definition, now)
            if change is not None:
                yield change
        full = len(self.subjects) >= definition.keys
        due = not 0 <= now - self._swept_at < (1 if full else definition.window)
        if due and not self._unswept:
            self._swept_at = now
            self._unswept = list(self.subjects.values())
        self._sweep(definition, now)

    def _look_at(self, subject: Subject, definition: Definition, now: float) -> Change | None:
        if not subject.raised:
            return self.judge(subject, now)
        subject.window.move(now)
        value = self.value(subject, now)
        if self._has_cleared(subject, value, definition):
            if now - subject.raised_at >= definition.hold:
                return self._clear(subject, now)
        elif self._is_forgotten(subject, definition, now):
            change = self._clear(subject, now, f"silent for {definition.forget} s, forgotten")
            self._forget(subject)
            return change
        if definition.repeat and now - subject.told_at >= definition.repeat:
            subject.told_at = now
            event = self._event(subject, RAISED, value, now, whole=definition.whole, repeated=True)
            return Change(event, definition.notify)
        return None

    def _is_due(self, subject: Subject, value: int | float, now: float) -> bool:
        definition = self.definition
        assert definition is not None
        if not definition.falls:
            return value >= definition.raise_at
        # A count is low when it begins: nobody knows before a whole window is over.
        known = definition.of != COUNT or now - subject.first_at >= definition.window
        return known and value <= definition.raise_at

    @staticmethod
    def _has_cleared(subject: Subject, value: int | float | None, definition: Definition) -> bool:
        if value is None:
            return subject.window.samples == 0
        if definition.falls:
            return value >= definition.clear_at
        return value <= definition.clear_at

    @staticmethod
    def _is_forgotten(subject: Subject, definition: Definition, now: float) -> bool:
        if not definition.forget or subject.window.samples or subject.key in definition.expect:
            subject.silent_at = None
            return False
        if subject.silent_at is None:
            subject.silent_at = now
        return now - subject.silent_at >= definition.forget

    def _clear(self, subject: Subject, now: float, why: str = "") -> Change:
        assert self.definition is not None
        self.cleared_total += 1
        if why:
            subject.description = f"{subject.description}, {why}" if subject.description else why
        event = self._event(subject, CLEARED, self.value(subject, now), now)
        subject.raised = ""
        subject.total = 0
        subject.cleared_at = now
        self.open.pop(subject.key, None)
        return Change(event, self.definition.notify)

    def _event(
        self,
        subject: Subject,
        state: str,
        value: int | float | None,
        now: float,
        *,
        whole: int = 0,
        repeated: bool = False,
    ) -> AlarmEvent:
        definition = self.definition
        assert definition is not None
        seen = subject.seen if state == RAISED else ()
        if not definition.falls:
            seen = [(at, frame) for at, frame in seen if now - at <= definition.window]
        return AlarmEvent(
            subject.raised,
            self.name,
            mended(subject.key),
            state,
            definition.severity,
            round(value, 3) if value is not None else 0,
            definition.raise_at if state == RAISED else definition.clear_at,
            definition.window,
            subject.total,
            round(subject.raised_at, 3),
            round(now, 3),
            subject.source_ip,
            subject.description or definition.description,
            self.node,
            evidence_of(seen, whole),
            repeated,
        )

    # Keys

    def _new(self, key: str, now: float) -> Subject:
        definition = self.definition
        assert definition is not None
        key = _short(key)
        subject = self.subjects.get(key)
        if subject is None and self._is_full(key):
            self.over_budget += 1
            key = OTHER
            subject = self.subjects.get(key)
        if subject is None:
            subject = self.subjects[key] = Subject(key, Window(definition.window), now)
        return subject

    def _is_full(self, key: str) -> bool:
        """Whether there is no room for *key*, which is not known."""
        definition = self.definition
        if definition is None or key in definition.expect:
            return False
        return len(self.subjects) >= definition.keys

    def _forget(self, subject: Subject) -> None:
        self.subjects.pop(subject.key, None)
        self.open.pop(subject.key, None)
        self.budget.free(subject.seen)

    def _sweep(self, definition: Definition, now: float) -> None:
        """Let go of keys that nothing is known of any more, so many a second."""
        part = self._unswept[-_SWEPT_AT_ONCE:]
        del self._unswept[-_SWEPT_AT_ONCE:]
        for subject in part:
            if self.subjects.get(subject.key) is not subject:
                continue
            if subject.raised or subject.withheld or subject.key in definition.expect:
                continue
            subject.window.move(now)
            paused = subject.cleared_at is not None and now - subject.cleared_at < definition.pause
            if not subject.window.samples and not paused:
                self._forget(subject)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _short(key: str) -> str:
    return key if len(key) <= _KEY_LENGTH else key[:_KEY_LENGTH]
