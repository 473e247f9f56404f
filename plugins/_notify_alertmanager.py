"""Alarms to Alertmanager, by POST /api/v2/alerts.

Alertmanager forgets an alert whose end has passed, and all of them when it is restarted.  So what
is raised is posted again each `resend` seconds, with an end KEEP times as far ahead: it outlives
some lost posts, and does not outlive homerd for long.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from homerd.api import Rejected
from homerd_plugins._alarm_event import RAISED, AlarmEvent
from homerd_plugins._notify_http import HttpSink
from homerd_plugins._notify_parts import Options, TlsOptions, Url, need_host, no_more
from homerd_plugins._notify_sink import NotifySink, Record, mended, text_of

KEEP = 4
RESEND: Record = {"alarm": "resent"}  # a record that asks for all that is raised
MOST_ALERTS = 1000  # of one request
_CALL_IDS = 5
_FORM = "alertmanager://host:9093"
_HEADERS = (("Content-Type", "application/json"),)


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """The settings of an Alertmanager.  labels: what each alert has besides its own."""

    base: str
    user: tuple[str, str] | None = field(repr=False)
    labels: tuple[tuple[str, str], ...]
    resend: int
    timeout: int
    tls: TlsOptions

    @staticmethod
    def of(url: Url, options: Options) -> Alertmanager:
        """Read them."""
        need_host(url, _FORM)
        no_more(url, _FORM, query=True)
        scheme = "https" if url.scheme.endswith("https") else "http"
        place = url.place if url.port else f"{url.place}:9093"
        return Alertmanager(
            f"{scheme}://{place}{url.path.rstrip('/')}",
            (url.user, url.password) if url.user else None,
            tuple(map(_label, options.all("label"))),
            options.number("resend", 60, 1, 3600),
            options.number("timeout", 5, 1, 60),
            TlsOptions.of(options),
        )

    @property
    def where(self) -> str:
        """The server."""
        return self.base

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What posts there."""
        return AlertmanagerSink(name, self, **options)


class AlertmanagerSink(HttpSink):
    """Posts what changed at once, and what is raised again and again."""

    def __init__(self, name: str, settings: Alertmanager, **options: Any) -> None:
        super().__init__(
            name,
            settings.where,
            key=settings.base,
            hidden=settings.user or (),
            timeout=settings.timeout,
            tls=settings.tls,
            **options,
        )
        self.settings = settings
        # Of this run alone: what waited on disk for another run's raised alarms is posted once.
        self._raised: dict[tuple[str, str, str], Record] = {}
        self._raised_lock = threading.Lock()
        self._resent_at = 0.0

    def add(self, record: Record) -> None:
        """Take an event, and note what it says of its alarm."""
        key = (record["alarm"], record["key"], record["node"])
        with self._raised_lock:
            if record["state"] == RAISED:
                self._raised[key] = record
            else:
                self._raised.pop(key, None)
        super().add(record)

    def tick(self, now: float) -> None:
        """Post what is raised again when it is time, unless something waits anyway."""
        super().tick(now)
        if not self._raised:
            self._resent_at = now
        elif now - self._resent_at >= self.settings.resend and not self.pending + self.spooled:
            self._resent_at = now
            super().add(RESEND)

    def label(self, record: Record) -> str:
        """The alarm's name, or "resent"."""
        return str(record["alarm"])

    def write(self, batch: list[Record]) -> None:
        """Post all events of *batch*; one that is refused does not keep the others out."""
        with self._raised_lock:
            raised = list(self._raised.values())
        changed = [place for place, record in enumerate(batch) if record != RESEND]
        again = [place for place, record in enumerate(batch) if record == RESEND]
        faults = self._post_each([batch[place] for place in changed], raised)
        refused = [changed[place] for place in faults]
        reasons = list(faults.values())
        for start in range(0, len(raised) if again else 0, MOST_ALERTS):
            part = raised[start : start + MOST_ALERTS]
            if faults := self._post_each(part, raised):
                refused += [place for place in again if place not in refused]
                reasons += faults.values()
                self._forget(part[place] for place in faults)
        if refused:
            raise Rejected(sorted(refused), reasons[-1])

    def _post_each(self, records: Sequence[Record], raised: Sequence[Record]) -> dict[int, str]:
        """Post *records* together, or those that are not refused; why the others are, by place."""
        try:
            self._post(records, raised)
        except Rejected as error:
            if len(records) == 1:
                return {0: str(error)}
        else:
            return {}
        faults = {}
        for place, record in enumerate(records):
            try:
                self._post([record], raised)
            except Rejected as error:
                faults[place] = str(error)
        return faults

    def _forget(self, records: Iterable[Record]) -> None:
        """What is refused when it is posted again is not tried once more."""
        with self._raised_lock:
            for record in records:
                key = (record["alarm"], record["key"], record["node"])
                if self._raised.get(key) is record:
                    del self._raised[key]

    def _post(self, records: Sequence[Record], raised: Sequence[Record]) -> None:
        if not records:
            return
        until = time.time() + self.settings.resend * KEEP
        ids = {record["id"] for record in raised}
        alerts = [
            alert_of(event, dict(self.settings.labels), until if event.id in ids else event.at)
            for event in map(mended, records)
        ]
        url = f"{self.settings.base}/api/v2/alerts"
        self.post(url, _HEADERS, json.dumps(alerts), self.settings.user)
        self.notifications += 1


def alert_of(event: AlarmEvent, labels: Mapping[str, str], until: float) -> dict[str, Any]:
    """An alert; until: when one that is raised ends, unless it is told of again."""
    end = max(until, event.at) if event.state == RAISED else event.at
    annotations = {
        "summary": text_of(event),
        "description": event.description,
        "value": str(event.value),
        "threshold": str(event.threshold),
        "total": str(event.total),
        "source_ip": event.source_ip,
        "call_ids": " ".join(dict.fromkeys(each.call_id for each in event.evidence[:_CALL_IDS])),
    }
    return {
        "labels": {
            **labels,
            "alertname": event.alarm,
            "key": event.key,
            "severity": event.severity,
            "node": event.node,
        },
        "annotations": annotations,
        "startsAt": _time(min(event.started_at, end)),
        "endsAt": _time(end),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("expected label=NAME=VALUE, the name of letters, digits and _")
    if name in ("alertname", "key", "severity", "node"):
        raise ValueError(f"label={name}=…: each alert has its own {name}")
    return name, value
