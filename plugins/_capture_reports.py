"""Reports that are stored without the script, and the numbers a script takes out of them."""

from __future__ import annotations

import re

from homerd.api import Packet
from homerd_plugins._capture_stores import REPORT, SEVEN
from homerd_plugins._homer5 import (
    REPORT_TABLES,
    SIP_OR_REPORT,
    Settings,
    report_row,
    told_correlation_id,
)
from homerd_plugins._homer7 import homer7_report_row, table_of_type
from homerd_plugins._tables import Mode

# (int)(atof(value) * atoi(factor)): as much of the text as is a number
_FLOAT = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,4})?)", re.I | re.A)
_INT = re.compile(r"\s*([+-]?[0-9]{1,18})", re.A)


def is_message(packet: Packet) -> bool:
    """Whether a packet of a report's type is SIP, as Kamailio takes it to be."""
    sip = packet.sip
    return packet.hep.payload_type in SIP_OR_REPORT and (sip.is_request or sip.is_reply)


def store_report(packet: Packet, mode: Mode, settings: Settings, uncorrelated: bool) -> str:
    """Give the report to its table; the reason when it is refused, else "".

    uncorrelated: whether what names no call is stored, too, with an empty correlation id.
    """
    number = packet.hep.payload_type or 0
    if mode.is_homer7:
        seven = homer7_report_row(packet, settings)
        if not seven[0] and not uncorrelated:
            return "no_correlation_id"
        packet.emit(mode.sink, (table_of_type(number), SEVEN, seven))
        return ""
    known = told_correlation_id(packet.hep)
    if not known and not uncorrelated:
        return "no_correlation_id"
    table, kind = REPORT_TABLES[number]
    packet.emit(mode.sink, (table, REPORT, report_row(packet, settings, kind, known)))
    return ""


def product(value: str, factor: str) -> int:
    """*value* times *factor* as C's conversion to a whole number gives it."""
    number, times = _FLOAT.match(value), _INT.match(factor)
    found = float(number[1]) * int(times[1]) if number and times else 0.0
    return int(found) if -(1 << 31) <= found < 1 << 31 else -(1 << 31)
