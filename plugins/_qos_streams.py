"""How one side of a call received, over the whole call and since its last report.

What cumulates is told by differences: loss is what was lost of what was expected between two
reports, never a mean of what each of them says.  Jitter and delay are means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from homerd.api import qos

_LATE = 1000  # packets that a report may be behind the one before it; a source further back is new


class Mean:
    """Of what was told so far."""

    __slots__ = ("number", "total")

    def __init__(self) -> None:
        self.number = 0
        self.total = 0.0

    def add(self, value: float | None) -> None:
        """One more, if it is known."""
        if value is not None:
            self.number += 1
            self.total += value


class Span:
    """What was counted and told in some time.  reports: how many told it."""

    __slots__ = ("expected", "jitter", "lost", "reports", "rtt")

    def __init__(self) -> None:
        self.reports = 0
        self.lost = self.expected = 0
        self.jitter = Mean()
        self.rtt = Mean()


class Stream:
    """One source as one side receives it: as RTCP tells it, or as its RTP was measured.

    sent: packets, as the source's own RTCP told last.  last: the latest record.
    """

    __slots__ = (
        "_apart",
        "_before",
        "_begun",
        "_counted_at",
        "_first",
        "_now",
        "_sent_at",
        "interval",
        "last",
        "measured",
        "sent",
        "whole",
    )

    def __init__(self, *, measured: bool) -> None:
        self.measured = measured
        self.last: qos.QosRecord | None = None
        self.sent: int | None = None
        self.whole = Span()
        self.interval = Span()
        self._begun = True  # the interval that the first report lies in
        self._first: tuple[int, int] | None = None  # lost, and how far it came
        self._now: tuple[int, int] | None = None
        # The sequence number before the first, which RTCP does not tell: how far its packets came,
        # less what the source had sent, of the two reports that were the least time apart.
        self._before: int | None = None
        self._apart = math.inf
        self._counted_at = self._sent_at = -math.inf

    def take(self, record: qos.QosRecord, at: float) -> None:
        """One more report; at: its second."""
        self.last = record
        for span in (self.whole, self.interval):
            span.reports += 1
            span.jitter.add(record.jitter)
            span.rtt.add(record.rtt)
        reach = record.highest
        if self.measured:
            reach = None if record.packets is None else record.packets + (record.lost or 0)
        if reach is None or record.lost is None:
            return
        self._count(record.lost, reach, at)

    def hear_sent(self, packets: int, at: float) -> None:
        """What the source says it had sent by second *at*."""
        self.sent = packets
        self._sent_at = at
        self._compare()

    def end(self) -> None:
        """Its counts are final: if it goes on, they begin anew."""
        self._now = None

    def begin_interval(self) -> None:
        """What comes now is of the next interval."""
        self.interval = Span()
        self._begun = False

    def lost_of(self, whole: bool) -> tuple[int, int]:
        """Packets lost, and expected."""
        span = self.whole if whole else self.interval
        lost, expected = span.lost, span.expected
        first, before = self._first, self._before
        if first is None or before is None or first[1] <= before:
            return lost, expected
        if whole or self._begun:
            lost += first[0]
            expected += first[1] - before
        return lost, expected

    def _count(self, lost: int, reach: int, at: float) -> None:
        known = self._now
        if not self.measured and known is not None and known[1] - _LATE < reach < known[1]:
            return  # RTCP that another has overtaken
        if known is not None and reach >= known[1]:
            self._add(lost - known[0], reach - known[1])
        elif self.measured:
            self._add(lost, reach)
        elif known is None:
            self._first = lost, reach
        self._now = lost, reach
        self._counted_at = at
        self._compare()

    def _add(self, lost: int, expected: int) -> None:
        for span in (self.whole, self.interval):
            span.lost += lost
            span.expected += expected

    def _compare(self) -> None:
        if self._now is None or self.sent is None:
            return
        apart = abs(self._counted_at - self._sent_at)
        if apart < self._apart:
            self._apart = apart
            self._before = self._now[1] - self.sent


def received(streams: Iterable[Stream], *, whole: bool) -> qos.QosRecord | None:
    """How *streams* arrived at one side; None when nothing was told.

    What the side itself tells by RTCP goes before what was measured on the way.  Of an interval
    what RFC 3611 tells of the whole call alone is left out.
    """
    told = [each for each in streams if each.last is not None and (whole or each.interval.reports)]
    told.reverse()  # the newest source first
    told.sort(key=lambda each: each.measured)
    if not told:
        return None
    record = qos.QosRecord(
        "local",
        qos.RECEIVED,
        codec=_known(told, "codec"),
        clock=_known(told, "clock"),
        loss=_loss(told, whole),
        jitter=_mean(told, whole, lambda span: span.jitter),
        rtt=_mean(told, whole, lambda span: span.rtt),
        one_way=_known(told, "one_way"),
        end_system=_known(told, "end_system"),
        signal=_known(told, "signal"),
        noise=_known(told, "noise"),
    )
    if whole:
        names = ("discard", "burst_loss", "burst_duration", "gap_loss", "gap_duration")
        record = record._replace(**{name: _known(told, name) for name in names})
        record = _reported(record, [each for each in told if not each.measured])
    rated = qos.rated(record)
    if whole and rated.mos is None:
        rated = qos.rated(_reported(record, told))
    return rated


def _reported(record: qos.QosRecord, streams: Sequence[Stream]) -> qos.QosRecord:
    """With the quality that the latest report itself told."""
    for stream in streams:
        last = stream.last
        assert last is not None  # of those that told nothing there is none here
        found: dict[str, Any] = {}
        for value, source in (
            ("r", "r_source"),
            ("mos_lq", "mos_lq_source"),
            ("mos_cq", "mos_cq_source"),
        ):
            if getattr(last, source) == qos.REPORTED:
                found[value] = getattr(last, value)
        if found:
            return record._replace(**found)
    return record


def _known(streams: Sequence[Stream], name: str) -> Any:  # of the field's own type
    for stream in streams:
        value = getattr(stream.last, name)
        if value is not None:
            return value
    return None


def _mean(streams: Sequence[Stream], whole: bool, mean_of: Callable[[Span], Mean]) -> float | None:
    for measured in (False, True):
        means = [
            mean_of(each.whole if whole else each.interval)
            for each in streams
            if each.measured == measured
        ]
        number = sum(mean.number for mean in means)
        if number:
            return sum(mean.total for mean in means) / number
    return None


def _loss(streams: Sequence[Stream], whole: bool) -> float | None:
    """Percent."""
    for measured in (False, True):
        counted = [each.lost_of(whole) for each in streams if each.measured == measured]
        expected = sum(each for _, each in counted)
        if expected > 0:
            return _percent(sum(lost for lost, _ in counted), expected)
    for stream in streams if whole else ():
        last = stream.last
        if stream.sent and last is not None and last.lost is not None:
            return _percent(last.lost, stream.sent)
    found: float | None = _known(streams, "loss")
    return found


def _percent(lost: int, expected: int) -> float:
    return min(100.0, max(0.0, lost * 100 / expected))
