"""NotifySink: tells people and programs of alarms, at most so many times a minute.

What is beyond the limit is told in one notification when the minute is over: "37 more alarms".
Notifications keep their order, also behind what waits on disk.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from homerd.api import BatchSink, Rejected, RetryLater
from homerd_plugins._alarm_event import SEVERITIES, AlarmEvent

SUMMARISED = "summarised"  # the state of the one that stands for many
WINDOW_SECONDS = 60
BATCH_SIZE = 100
MOST_TOLD = 1000  # ids that are remembered, more than a batch has
MOST_TEXT = 300  # of what a server says

Record = dict[str, Any]  # AlarmEvent.as_record()
Token = tuple[str, str, float, bool]


class NotifySink(BatchSink):
    """Takes AlarmEvent.as_record(); a subclass sends one notification.

    rate: most notifications a minute, 0 for any number.  key: what tells the target from others.
    hidden: texts that no message may show.
    together: whether the events of a batch are one notification.
    notifications: how many were taken.  summarised: events that were told of in a summary, or will
    be; a kill loses the summary of a minute, a stop does not.
    """

    is_store = False
    in_order = True
    together = False

    def __init__(
        self,
        name: str,
        where: str,
        *,
        key: str,
        rate: int = 0,
        hidden: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        super().__init__(f"alarm_{name}", **{"batch_size": BATCH_SIZE, **options})
        self.target = name
        self.where = where
        self.rate = rate
        self.notifications = 0
        self.summarised = 0
        self._key = key
        self._hidden = sorted(filter(None, hidden), key=len, reverse=True)
        self._clock = clock
        self._told: dict[Token, bool] = {}  # whether in a summary
        self._window_end = clock()
        self._used = 0
        self._lock = threading.Lock()  # the loop thread has the summary sent
        self._held: _Held | None = None
        self._due = 0.0
        self._ending = False

    # What a subclass gives

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """Send one notification; raises what `later` and `refused` give."""
        raise NotImplementedError

    def later(self, text: object) -> RetryLater:
        """What to raise when the target is away or busy."""
        return RetryLater(self._shown(text))

    def refused(self, text: object) -> Rejected:
        """What to raise when the target will never take this."""
        return Rejected((), self._shown(text))

    # What BatchSink asks for

    def write(self, batch: list[Record]) -> None:
        """Tell of *batch*; what was told before another event failed is not told again."""
        refused: list[int] = []
        beyond: list[tuple[int, AlarmEvent]] = []
        reason = ""
        for group in self._groups(batch):
            if self._over() and not any(event.state == SUMMARISED for _, event in group):
                beyond += group
                continue
            try:
                self._tell([event for _, event in group])
            except Rejected as error:
                refused += (place for place, _ in group)
                reason = str(error)
        events = [event for _, event in beyond]
        if events:
            try:
                if not self._hold(events):
                    self._tell([_Held(events).event(self.rate)])
            except Rejected as error:
                refused += (place for place, _ in beyond)
                reason = str(error)
            else:
                self.summarised += len(events)
                self._remember(events, held=True)
        if refused:
            raise Rejected(sorted(refused), reason)

    def tick(self, now: float) -> None:
        """Have the summary sent when its minute is over."""
        super().tick(now)
        if self._held is not None and self._clock() >= self._due:
            self._add_summary()

    def stop(self, timeout: float = 10.0) -> None:
        """Send what was held back, then end."""
        with self._lock:
            self._ending = True
        self._add_summary()
        super().stop(timeout)

    def label(self, record: Record) -> str:
        """The alarm's name, or "summarised"."""
        return SUMMARISED if self._told.get(_token(record)) else str(record["alarm"])

    def describe(self, record: Record) -> dict[str, Any]:
        """The event."""
        return {"table": self.name, "record": record}

    def store_key(self) -> str:
        """The whole address; `where` leaves out what is secret."""
        return self._key

    # The limit

    def _over(self) -> bool:
        """Whether this minute has had all its notifications."""
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + WINDOW_SECONDS
            self._used = 0
        return 0 < self.rate <= self._used

    def _hold(self, events: Sequence[AlarmEvent]) -> bool:
        """Keep *events* for the summary; False at stop, when no tick will have it sent."""
        with self._lock:
            if self._ending:
                return False
            if self._held is None:
                self._held = _Held()
                self._due = self._window_end
            self._held.take(events)
        return True

    def _add_summary(self) -> None:
        """Add what was held back as an event of its own."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            self.add(held.event(self.rate).as_record())

    # A batch

    def _groups(self, batch: list[Record]) -> Iterator[list[tuple[int, AlarmEvent]]]:
        """Events of one notification each, with their places."""
        new = [
            (place, event)
            for place, event in enumerate(map(mended, batch))
            if _token(batch[place]) not in self._told
        ]
        if self.together and new:
            yield new
            return
        for item in new:
            yield [item]

    def _tell(self, events: Sequence[AlarmEvent]) -> None:
        """Send one notification, and note that it was."""
        try:
            self.tell(events)
        except Rejected:
            self._used += 1
            raise
        self._used += 1
        self.notifications += 1
        self._remember(events)

    def _remember(self, events: Sequence[AlarmEvent], *, held: bool = False) -> None:
        for event in events:
            self._told[event.id, event.state, event.at, event.repeated] = held
        while len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    def _shown(self, text: object) -> str:
        shown = one_line(str(text)) or type(text).__name__
        for secret in self._hidden:
            shown = shown.replace(secret, "…")
        return f"{self.where}: {shown[:MOST_TEXT]}"


class _Held:
    """Events that wait for their summary, as numbers."""

    def __init__(self, events: Sequence[AlarmEvent] = ()) -> None:
        self.kinds: Counter[str] = Counter()
        self.worst = 0
        self.first: AlarmEvent | None = None
        self.last: AlarmEvent | None = None
        self.take(events)

    def take(self, events: Sequence[AlarmEvent]) -> None:
        """Count them."""
        for event in events:
            self.first = self.first or event
            self.last = event
            self.kinds[f"{event.alarm} {event.state}"] += 1
            if event.severity in SEVERITIES:
                self.worst = max(self.worst, SEVERITIES.index(event.severity))

    def event(self, rate: int) -> AlarmEvent:
        """The one that stands for them."""
        assert self.first is not None  # nothing held is nothing to tell
        assert self.last is not None
        count = self.kinds.total()
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common())
        more = "1 more alarm" if count == 1 else f"{count} more alarms"
        return AlarmEvent(
            id=secrets.token_hex(8),
            alarm="more",
            key="",
            state=SUMMARISED,
            severity=SEVERITIES[self.worst],
            value=count,
            threshold=rate,
            window_seconds=WINDOW_SECONDS,
            total=count,
            started_at=self.first.at,
            at=self.last.at,
            source_ip="",
            description=f"{more}: {kinds}",
            node=self.last.node,
        )


def connected(
    host: str, port: int, kind: socket.SocketKind, timeout: float | None = None
) -> socket.socket:
    """A socket that sends to *host*, at the first of its addresses that takes it; OSError."""
    problem = OSError(f"{host} has no address")
    for family, type, protocol, _, place in socket.getaddrinfo(host, port, type=kind):
        made = socket.socket(family, type, protocol)
        made.settimeout(timeout)
        try:
            made.connect(place)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem


def text_of(event: AlarmEvent) -> str:
    """One line for people."""
    if event.state == SUMMARISED:
        return one_line(f"{event.severity}: {event.description}, node {event.node}")
    return one_line(event.line())


def one_line(text: str) -> str:
    """*text* without line ends and control characters, which end headers and records."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _token(record: Record) -> Token:
    """What tells an event from all others."""
    return record["id"], record["state"], record["at"], record["repeated"]


def mended(record: Mapping[str, Any]) -> AlarmEvent:
    """The event of a record; bytes of the network that are no text become U+FFFD."""
    evidence = [_texts_mended(found) for found in record["evidence"]]
    return AlarmEvent.from_record(_texts_mended({**record, "evidence": evidence}))


def _texts_mended(values: Mapping[str, Any]) -> dict[str, Any]:
    # By way of UTF-16, where each such byte is one unit and becomes one U+FFFD.
    return {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if isinstance(value, str)
        else value
        for name, value in values.items()
    }
