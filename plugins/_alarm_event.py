"""What an alarm says when it is raised or cleared, with the packets that are its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RAISED, CLEARED = "raised", "cleared"
SEVERITIES = ("info", "warning", "minor", "major", "critical")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A packet that counted towards an alarm.

    source, destination: "ip:port", an IPv6 address in brackets.  method: of a reply its code.
    payload: "" when only the identifiers are kept.
    """

    seconds: int
    micros: int
    source: str
    destination: str
    capture_id: int
    method: str
    call_id: str
    correlation_id: str
    payload: str = ""


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One change of an alarm's state for one key.

    id: the same from the moment it is raised until it has cleared; another never has it, not even
    after a restart.  value: what the window held.  threshold: what it was compared with.
    total: counted since the window that raised it began.  started_at, at: epoch seconds of its
    being raised and of this event.  source_ip: the key where that is an address, else that of the
    packet that raised it, "" when none did.
    repeated: raised before and still so; told again because its definition says so.
    """

    id: str
    alarm: str
    key: str
    state: str
    severity: str
    value: int | float
    threshold: int | float
    window_seconds: int
    total: int
    started_at: float
    at: float
    source_ip: str
    description: str
    node: str
    evidence: tuple[Evidence, ...] = ()
    repeated: bool = False

    def as_record(self) -> dict[str, Any]:  # whatever a spool can hold, by field name
        """Plain values, which JSON and a spool take."""
        record = asdict(self)
        record["evidence"] = list(record["evidence"])
        return record

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> AlarmEvent:
        """The event that `as_record` was called on."""
        evidence = tuple(Evidence(**found) for found in record["evidence"])
        return AlarmEvent(**{**record, "evidence": evidence})

    def line(self) -> str:
        """One line of text for people."""
        state = f"still {self.state}" if self.repeated else self.state
        window = f" in {self.window_seconds} s" if self.window_seconds else ""
        said = f": {self.description}" if self.description else ""
        return (
            f"{self.severity}: {self.alarm} {state} for {self.key or 'all'}:"
            f" {self.value:g}{window}, threshold {self.threshold:g}, node {self.node}{said}"
        )
