"""Samples as Prometheus reads them: the text exposition format, version 0.0.4.

    # HELP name text
    # TYPE name counter
    name{label="value",…} 1

One broken line makes Prometheus refuse the whole page: names that are none and samples that would
come twice are left out.  Source: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from homerd.plugin.hookspecs import AnySample, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.A)
LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.A)
_OF_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


class _Family:
    """The lines of one metric."""

    def __init__(self, kind: str, help: str) -> None:
        self.kind = kind
        self.help = help
        self.lines: dict[str, str] = {}


def render(samples: Iterable[AnySample]) -> bytes:
    """The page that holds *samples*, the lines of one metric together."""
    families: dict[str, _Family] = {}
    for sample in samples:
        name, labels, value, help, kind = Sample(*sample)
        if METRIC_NAME.fullmatch(name) is None:
            continue
        kind = kind or ("counter" if name.endswith("_total") else "gauge")
        of = _OF_HISTOGRAM.sub("", name) if kind == "histogram" else name
        family = families.get(of)
        if family is None:
            family = families[of] = _Family(kind, help)
        series = f"{name}{_labels(labels)}"
        family.lines.setdefault(series, f"{series} {number(value)}\n")
    text = "".join(
        (f"# HELP {name} {_help(family.help)}\n" if family.help else "")
        + f"# TYPE {name} {family.kind}\n"
        + "".join(family.lines.values())
        for name, family in families.items()
    )
    return text.encode("utf-8", "replace")


def number(value: float) -> str:
    """A value as Go's ParseFloat reads it."""
    if isinstance(value, int):
        return str(int(value))
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join(
        f'{name}="{_escaped(value)}"'
        for name, value in labels.items()
        if LABEL_NAME.fullmatch(name) is not None
    )
    return f"{{{pairs}}}"


def _escaped(value: str) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    # Here, not at the end: two values that look alike then must not become one series twice.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
