"""Stored SIP messages, read back: where a message's parts are in a table of Homer 5 or 7.

A message is a dictionary of CELLS, whatever the store, the layout and the operator's names.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from homerd.api import SipMessage
from homerd_plugins._homer5 import SIP_COLUMNS, Column, storable
from homerd_plugins._upkeep import date_of

MICROS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TEXTS = (
    "method",
    "reply_reason",
    "cseq",
    "from_user",
    "to_user",
    "ruri_user",
    "source_ip",
    "destination_ip",
    "callid",
    "callid_aleg",
    "correlation_id",
    "via_1_branch",
    "content_type",
    "user_agent",
    "node",
)
NUMBERS = ("micro_ts", "source_port", "destination_port")
CELLS = ("table", "id", *NUMBERS, *TEXTS, "protocol", "msg")

# Kamailio's numbers in the column proto, and those of IP; 6 is tcp, as no HEP packet is Kamailio's.
PROTOCOLS = {
    1: "udp",
    2: "tcp",
    3: "tls",
    4: "sctp",
    5: "ws",
    6: "tcp",
    17: "udp",
    22: "tls",
    50: "ws",
    132: "sctp",
}

Cells = dict[str, Any]  # str or int by key; msg is bytes where it is no text


class Homer5Table:
    """A table with a column for each part of a message.

    columns: as the table has them, by their names in lower case.  layout: SIP_COLUMNS, with the
    operator's names.  times, indexed: which of them hold a time, and which an index begins with.
    time: the column `date` when it can be compared with a time in UTC.
    until: no message is as new, when the name has a day.
    """

    is_exact = False  # `time` has seconds alone

    def __init__(
        self,
        name: str,
        columns: Mapping[str, str],
        layout: Sequence[Column],
        *,
        times: Container[str] = (),
        indexed: Container[str] = (),
    ) -> None:
        self.name = name
        self.until = end_of(name)
        self.column: dict[str, str] = {}
        for column in layout:
            # Tables made before the operator gave a column its name have the usual one.
            for candidate in (column.name.lower(), column.key):
                if candidate in columns:
                    self.column[column.key] = columns[candidate]
                    break
        self.id = columns.get("id", "")
        date = self.column.get("date")
        self.time = date if date is not None and date in times else None
        self.indexed = frozenset(key for key, column in self.column.items() if column in indexed)

    @property
    def is_of_messages(self) -> bool:
        """Whether there are SIP messages in it."""
        return bool(self.id) and {"callid", "micro_ts"} <= self.column.keys()

    def cells(self, row: Sequence[Any]) -> Cells:
        """A message of the columns `id`, then those of READ."""
        found = dict(zip(READ, row[1:], strict=True))
        cells: Cells = {"table": self.name, "id": row[0]}
        cells |= {key: number(found[key]) for key in NUMBERS}
        cells |= {key: text(found[key]) for key in TEXTS}
        cells["protocol"] = PROTOCOLS.get(number(found["proto"]), "")
        cells["msg"] = message(found["msg"])
        return cells


_LAST_DAY = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)
_FIRST, _LAST = 0, 253_402_300_799 * MICROS  # the year 9999
READ = (*NUMBERS, *TEXTS, "proto", "msg")
assert {column.key for column in SIP_COLUMNS} >= set(READ)


class Homer7Table:
    """A table of Homer 7: two JSON columns and the message."""

    is_exact = True
    time = "create_date"
    until = None
    # What heplify-server and homerd make indexes of.
    indexed = frozenset({"callid", "from_user", "to_user", "ruri_user", "correlation_id"})

    def __init__(self, name: str) -> None:
        self.name = name

    def expression(self, key: str) -> str:
        """Where a part is, in SQL."""
        if key == "callid":
            return "sid"
        column = "protocol_header" if key == "correlation_id" else "data_header"
        return f"{column}->>'{key}'"

    def cells(self, row: Sequence[Any]) -> Cells:
        """A message of id, create_date, sid, protocol_header, data_header and raw."""
        at, created, sid, envelope, header, raw = row
        envelope = envelope if isinstance(envelope, dict) else {}
        header = header if isinstance(header, dict) else {}
        raw = message(raw)
        sip = SipMessage(raw if isinstance(raw, bytes) else raw.encode())
        seconds = number(envelope.get("timeSeconds"))
        micros = seconds * MICROS + number(envelope.get("timeUseconds"))
        cells: Cells = {key: text(header.get(key)) for key in TEXTS}
        cells |= {
            "table": self.name,
            "id": at,
            "micro_ts": micros if seconds else micros_of(created),
            "source_ip": text(envelope.get("srcIp")),
            "source_port": number(envelope.get("srcPort")),
            "destination_ip": text(envelope.get("dstIp")),
            "destination_port": number(envelope.get("dstPort")),
            "callid": cells["callid"] or text(sid),
            "correlation_id": text(envelope.get("correlation_id")),
            "node": text(envelope.get("captureId")),
            "protocol": PROTOCOLS.get(number(envelope.get("protocol")), ""),
            "msg": raw,
        }
        # What the two columns have no place for, or only by the writer's settings.
        cells["reply_reason"] = storable(sip.reason or "")
        cells["via_1_branch"] = storable(sip.via_branch or "")
        cells["content_type"] = cells["content_type"] or storable(sip.content_type or "").strip()
        return cells


def end_of(name: str) -> int | None:
    """The time, in microseconds, that no message of a table with a day in its name reaches.

    A day more than the name says, for clocks that differ and days of another zone.
    """
    dated = date_of(name)
    if dated is None or dated[1] > _LAST_DAY:
        return None
    return micros_of(dated[1] + timedelta(days=2))


def micros_of(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def time_of(micros: int) -> datetime:
    """The time, UTC, as near to it as a date can be."""
    return EPOCH + timedelta(microseconds=max(_FIRST, min(micros, _LAST)))


def message(cell: object) -> str | bytes:
    """A message as text, or as bytes where they are none."""
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data
    return text(cell)


def text(cell: object) -> str:
    """A cell as text, with U+FFFD for what is none."""
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell).decode("utf-8", "replace")
    return "" if cell is None else str(cell)


def number(cell: object) -> int:
    """A cell as a number; JSON's may be a float, or text."""
    if isinstance(cell, int):
        return int(cell)
    try:
        return int(float(text(cell)))
    except (ValueError, OverflowError):
        return 0
