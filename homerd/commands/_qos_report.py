"""One stored quality report, and what its score means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from homerd.commands._message import EPOCH

# From which MOS on users are so content, ITU-T G.107 annex B: R of 90, 80, 70, 60 and 50.
CLASSES = (
    (4.34, "very satisfied"),
    (4.03, "satisfied"),
    (3.60, "some dissatisfied"),
    (3.10, "many dissatisfied"),
    (2.58, "nearly all dissatisfied"),
    (1.00, "not recommended"),
)

_LAST = 2**57  # microseconds, in the year 6536: of a clock that is out of its mind


@dataclass(frozen=True, slots=True)
class Report:
    """A row of qos_capture(), None for what it does not say.

    reports: how many there are of the call where this is the worst of them, else 0.
    """

    micro_ts: int
    call_id: str | None = None
    tied_by: str | None = None
    correlation_id: str | None = None
    source_ip: str | None = None
    source_port: int | None = None
    destination_ip: str | None = None
    destination_port: int | None = None
    node: str | None = None
    trunk: str | None = None
    user_agent: str | None = None
    form: str | None = None
    kind: str | None = None
    alert: str | None = None
    severity: str | None = None
    leg: str | None = None
    direction: str | None = None
    ssrc: int | None = None
    codec: str | None = None
    clock: int | None = None
    packets: int | None = None
    octets: int | None = None
    lost: int | None = None
    loss: float | None = None
    discard: float | None = None
    jitter: float | None = None
    max_jitter: float | None = None
    rtt: float | None = None
    one_way: float | None = None
    end_system: float | None = None
    burst_loss: float | None = None
    burst_duration: float | None = None
    gap_loss: float | None = None
    gap_duration: float | None = None
    signal_level: float | None = None
    noise_level: float | None = None
    r: float | None = None
    r_source: str | None = None
    mos_lq: float | None = None
    mos_lq_source: str | None = None
    mos_cq: float | None = None
    mos_cq_source: str | None = None
    mos: float | None = None
    mos_source: str | None = None
    reports: int = 0

    @classmethod
    def of(cls, cells: Mapping[str, Any]) -> Report:
        """A report as the module gives it; columns that only a newer homerd has are left out."""
        known = {key: cells[key] for key in _NAMES if key in cells}
        return cls(**{**known, "micro_ts": cells["micro_ts"] or 0})

    @property
    def time(self) -> datetime:
        """When the report was captured, UTC, as near to it as can be drawn."""
        return EPOCH + timedelta(microseconds=max(0, min(self.micro_ts, _LAST)))

    @property
    def quality(self) -> str:
        """What the score means, "" without one."""
        return quality_of(self.mos)

    def as_dict(self) -> dict[str, object]:
        """The report as JSON values, with its time as text."""
        described = {name: getattr(self, name) for name in _NAMES if name != "reports"}
        time = self.time.isoformat().replace("+00:00", "Z")
        counted = {"reports": self.reports} if self.reports else {}
        return {"time": time, **described, "quality": self.quality or None, **counted}


_NAMES = tuple(field.name for field in fields(Report))


def quality_of(mos: float | None) -> str:
    """How content users are with a score, in G.107's words."""
    if mos is None:
        return ""
    shown = round(mos, 2)
    return next((words for least, words in CLASSES if shown >= least), CLASSES[-1][1])


def colour_of(mos: float | None) -> int:
    """The terminal's colour of a score: green, yellow, red; 0 for none."""
    if mos is None:
        return 0
    return 32 if mos >= 4.03 else 33 if mos >= 3.6 else 31
