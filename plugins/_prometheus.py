"""Counters, gauges and histograms of the script's own, by name and label values.

How many series there are depends on what the network sends: from `max_series` on a new combination
of label values goes into the metric's series whose labels all say "other", and is counted.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    Plugin,
    Sample,
    Worker,
    hookimpl,
    script_function,
)

OTHER = "other"
# Prometheus' own defaults, and Kamailio's.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_SERIES = 10_000
SWEEPS = 4  # looks for unused series within the time after which they go

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.A)
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.A)
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\s*", re.A)


@dataclass(frozen=True, slots=True)
class Declared:
    """`name=calls_total; label=method:from; help=Calls.` of a modparam line."""

    name: str
    labels: tuple[str, ...] = ()
    help: str = ""
    buckets: tuple[float, ...] = ()

    @classmethod
    def from_script(cls, value: str | int) -> Declared:
        """Read a declaration; ValueError says what is wrong with it."""
        found: dict[str, str] = {}
        for part in filter(str.strip, str(value).split(";")):
            key, equals, text = part.partition("=")
            key = key.strip()
            if not equals or key not in ("name", "label", "help", "buckets") or key in found:
                raise ValueError(f'expected name=…; label=…; help=…; got "{part.strip()}"')
            found[key] = text.strip()
        name = found.get("name", "")
        if _NAME.fullmatch(name) is None:
            raise ValueError(f'expected name= and letters, digits and _, got "{name}"')
        labels = tuple(found["label"].split(":")) if found.get("label") else ()
        for label in labels:
            if _LABEL.fullmatch(label) is None or label == "le" or labels.count(label) > 1:
                raise ValueError(f'"{label}" cannot be a label here')
        return cls(name, labels, found.get("help", ""), _buckets(found.get("buckets")))


class Series:
    """A counter's or a gauge's value for one combination of labels."""

    __slots__ = ("idle", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.idle = 0

    def samples(self, metric: Metric, labels: dict[str, str]) -> Iterator[Sample]:
        """What stands on the page."""
        yield Sample(metric.name, labels, self.value, metric.help, metric.kind)


class Histogram(Series):
    """A histogram's buckets, sum and count for one combination of labels."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        super().__init__()
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Put *value* into its bucket."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self, metric: Metric, labels: dict[str, str]) -> Iterator[Sample]:
        """Buckets hold what is at most their bound; then sum and count."""
        name, help, kind = metric.name, metric.help, metric.kind
        total = 0
        for bound, count in zip((*map(_shown, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, total, help, kind)
        yield Sample(f"{name}_sum", labels, self.sum, help, kind)
        yield Sample(f"{name}_count", labels, total, help, kind)


class Metric:
    """A declared metric and its series, by label values."""

    def __init__(self, kind: str, declared: Declared, prefix: str) -> None:
        self.kind = kind
        self.name = prefix + declared.name
        self.labels = declared.labels
        self.help = declared.help or f"{kind.capitalize()} of the script."
        self.buckets = declared.buckets or BUCKETS
        self.series: dict[tuple[str, ...], Series] = {}

    def new(self) -> Series:
        """An empty series."""
        return Histogram(self.buckets) if self.kind == "histogram" else Series()

    def samples(self) -> Iterator[Sample]:
        """Those of all its series."""
        for values, series in list(self.series.items()):
            yield from series.samples(self, dict(zip(self.labels, values, strict=True)))


class Metrics:
    """Every metric of the script.

    size: series in all.  over_budget: additions that went to "other", by metric.  refused: calls
    that could not be carried out, by reason.
    """

    def __init__(self, max_series: int) -> None:
        self.max_series = max_series
        self.metrics: dict[str, Metric] = {}
        self.size = 0
        self.over_budget: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def series(self, kind: str, name: str, values: tuple[str, ...]) -> Series | None:
        """The series to change; None, counted, when there can be none."""
        metric = self.metrics.get(name)
        if metric is None or metric.kind != kind:
            self.refused["unknown_metric"] += 1
            return None
        series = metric.series.get(values)
        if series is None:
            series = self._new(metric, values)
        if series is not None:
            series.idle = 0
        return series

    def sweep(self) -> None:
        """Forget series that nobody changed in the last SWEEPS rounds."""
        for metric in self.metrics.values():
            for values, series in list(metric.series.items()):
                series.idle += 1
                if series.idle > SWEEPS:
                    del metric.series[values]
                    self.size -= 1

    def samples(self) -> Iterator[Sample]:
        """Those of all metrics."""
        for metric in self.metrics.values():
            yield from metric.samples()

    def _new(self, metric: Metric, values: tuple[str, ...]) -> Series | None:
        if len(values) != len(metric.labels):
            self.refused["wrong_labels"] += 1
            return None
        other = (OTHER,) * len(values)
        # Of bytes that are no UTF-8 nothing better than "?" can be shown: one series for all.
        values = tuple(text.encode("utf-8", "replace").decode() for text in values)
        if values not in metric.series and values != other and self.size >= self.max_series:
            self.over_budget[metric.name] += 1
            values = other
        series = metric.series.get(values)
        if series is None:
            series = metric.series[values] = metric.new()
            self.size += 1
        return series


class MetricWords(Plugin):
    """The words that count, and the parameters that say what; two modules have them."""

    name = "_prometheus"

    prom_counter = ModParam(
        Declared, many=True, help="a counter: name=calls_total; label=method:from; help=Calls."
    )
    prom_gauge = ModParam(Declared, many=True, help="a gauge, said as a counter is")
    prom_histogram = ModParam(
        Declared, many=True, help="a histogram; also buckets=0.1:0.5:1, upper bounds that rise"
    )
    max_series = ModParam(
        int,
        MAX_SERIES,
        reloadable=True,
        help='most combinations of label values; what comes then is counted under "other"',
    )

    def __init__(self) -> None:
        self.counted = Metrics(MAX_SERIES)

    def naming(self) -> tuple[str, int]:
        """What all names begin with, and the minutes an unused series is kept (0: for good)."""
        raise NotImplementedError

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Put the declared metrics in place; two of one name are refused."""
        prefix, minutes = self.naming()
        for name, value, least in (("max_series", self.max_series, 1), ("timeout", minutes, 0)):
            if value < least:
                raise ConfigError(
                    f'modparam("{self.name}", "{name}", {value}): expected {least} or more'
                )
        self.counted.max_series = self.max_series
        if changed:
            return
        if prefix and _NAME.fullmatch(prefix) is None:
            raise ConfigError(f'module {self.name}: no metric can begin with "{prefix}"')
        for kind in ("counter", "gauge", "histogram"):
            for declared in getattr(self, f"prom_{kind}"):
                if declared.name in self.counted.metrics:
                    raise ConfigError(
                        f'modparam("{self.name}", "prom_{kind}", "name={declared.name}"):'
                        " a metric of this name is there already"
                    )
                self.counted.metrics[declared.name] = Metric(kind, declared, prefix)

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Look for series that are not used any more."""
        _, minutes = self.naming()
        if minutes:
            worker.every(minutes * 60 / SWEEPS, self.counted.sweep)

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """The script's metrics, and what became of the calls that could not be counted."""
        yield from self.counted.samples()
        of = {"module": self.name}
        yield Sample("homerd_prometheus_series", of, self.counted.size, "Series of the script.")
        for metric, count in self.counted.over_budget.items():
            labels = {**of, "metric": metric}
            yield Sample(
                "homerd_prometheus_over_budget_total", labels, count, 'Counted under "other".'
            )
        for reason, count in self.counted.refused.items():
            labels = {**of, "reason": reason}
            yield Sample("homerd_prometheus_refused_total", labels, count, "Calls not counted.")

    @script_function
    def prom_counter_inc(self, packet: Packet, name: str, number: str, *labels: str) -> bool:
        """Add *number* to a counter; the labels' values follow in the order they were declared.

        False, and counted, when there is no such counter, the labels are too many or too few, or
        *number* is none or negative.
        """
        amount = self._number(number)
        if amount is not None and amount < 0:
            self.counted.refused["negative"] += 1
            return False
        series = None if amount is None else self.counted.series("counter", name, labels)
        if series is None or amount is None:
            return False
        series.value += amount
        return True

    @script_function
    def prom_counter_reset(self, packet: Packet, name: str, *labels: str) -> bool:
        """Set a counter to 0."""
        return self._set("counter", name, "0", labels)

    @script_function
    def prom_gauge_set(self, packet: Packet, name: str, number: str, *labels: str) -> bool:
        """Set a gauge to *number*, which may have a fraction."""
        return self._set("gauge", name, number, labels)

    @script_function
    def prom_gauge_reset(self, packet: Packet, name: str, *labels: str) -> bool:
        """Set a gauge to 0."""
        return self._set("gauge", name, "0", labels)

    @script_function
    def prom_histogram_observe(self, packet: Packet, name: str, number: str, *labels: str) -> bool:
        """Put *number* into the buckets of a histogram."""
        value = self._number(number)
        series = None if value is None else self.counted.series("histogram", name, labels)
        if not isinstance(series, Histogram) or value is None:
            return False
        series.observe(value)
        return True

    def _set(self, kind: str, name: str, number: str, labels: tuple[str, ...]) -> bool:
        value = self._number(number)
        series = None if value is None else self.counted.series(kind, name, labels)
        if series is None or value is None:
            return False
        series.value = value
        return True

    def _number(self, text: str) -> float | None:
        if text.isdecimal() and text.isascii() and len(text) < 16:
            return int(text)
        if _NUMBER.fullmatch(text) is None:
            self.counted.refused["not_a_number"] += 1
            return None
        return float(text)


def _buckets(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        bounds = tuple(float(item) for item in text.split(":"))
    except ValueError:
        bounds = ()
    if not bounds or list(bounds) != sorted(set(bounds)) or bounds[-1] == float("inf"):
        raise ValueError(f'buckets: expected numbers that rise, as 0.1:0.5:1, got "{text}"')
    return bounds


def _shown(bound: float) -> str:
    return str(int(bound)) if bound.is_integer() else repr(bound)
