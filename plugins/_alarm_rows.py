"""Alarms as rows: `alarm_data` as Homer 5 has it, and the packets behind them in another table.

    alarm_data       create_date, type, total, source_ip, description, status
    alarm_evidence   create_date, micro_ts, alarm_id, type, alarm_key, source, destination, …

type is the alarm's name, status 1 of one that was raised and 0 of one that has cleared.  The rows
of alarm_evidence have the create_date and type of the row they belong to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from homerd_plugins._alarm_event import RAISED, AlarmEvent, Evidence
from homerd_plugins._homer5 import INTEGER, TEXT, Column, Row, storable

ALARM, EVIDENCE = 0, 1  # the sink's layouts

ALARM_COLUMNS = (
    Column("date", TEXT, 19, renamed="create_date"),
    Column("type", TEXT, 50),
    Column("total", INTEGER),
    Column("source_ip", TEXT, 150),
    Column("description", TEXT, 256),
    Column("status", INTEGER),
)
EVIDENCE_COLUMNS = (
    Column("date", TEXT, 19, renamed="create_date"),
    Column("micro_ts", INTEGER),
    Column("alarm_id", TEXT, 64),
    Column("type", TEXT, 50),
    Column("alarm_key", TEXT, 128),
    Column("source", TEXT, 60),
    Column("destination", TEXT, 60),
    Column("capture_id", TEXT, 10),
    Column("method", TEXT, 50),
    Column("call_id", TEXT, 120),
    Column("correlation_id", TEXT, 256),
    Column("msg", TEXT, 3000, renamed="payload"),
)
LAYOUTS = (ALARM_COLUMNS, EVIDENCE_COLUMNS)
NO_ADDRESS = "0.0.0.0"

Record = tuple[str, int, Row]


def records(event: AlarmEvent, table: str, evidence_table: str) -> Iterator[Record]:
    """The rows of an event; no evidence where *evidence_table* is ""."""
    raised = event.state == RAISED
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.at))
    said = f"{event.key}: {event.description}" if event.description else event.key
    address = event.source_ip or NO_ADDRESS
    row: Row = (date, event.alarm, event.total, address, storable(said), int(raised))
    yield table, ALARM, row
    for seen in event.evidence if evidence_table else ():
        yield evidence_table, EVIDENCE, _evidence_row(date, event, seen)


def _evidence_row(date: str, event: AlarmEvent, seen: Evidence) -> Row:
    return (
        date,
        seen.seconds * 1_000_000 + seen.micros,
        event.id,
        event.alarm,
        storable(event.key),
        seen.source,
        seen.destination,
        str(seen.capture_id),
        storable(seen.method),
        storable(seen.call_id),
        storable(seen.correlation_id),
        storable(seen.payload),
    )
