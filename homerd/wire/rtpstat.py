"""What phones and gateways tell of their media in a header of BYE or of its 200.

    X-RTP-Stat: CS=0;PS=1433;PR=1522;PL=0,0;JI=23,2;DL=20,20,21        AVM, and many after them
    X-RTP-Stat: PS=1433,OS=229280,PR=1522,OR=243520,PL=0,JI=2,LA=20    AudioCodes, Poly
    P-RTP-Stat: PS=1433,OS=229280,PR=1522,OR=243520,PL=0,JI=2,LA=20,DU=28
    X-Siemens-RTP-stats: PS=1433;PR=1522;PL=0;JI=2;LA=20
    RTP-RxStat: Dur=28,Pkt=1522,Oct=243520,LatePkt=0,LostPkt=0,AvgJit=16     and RTP-TxStat

What follows a comma and has no name belongs to the value before it.  X-NG-RTP-STATS is text that
nobody has described: it is kept as it is.  X-RTP-Stat-T38 has counters of a fax, kept as text.  Any
bytes give Statistics or a DecodeError with one of REASONS.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from homerd.errors import DecodeError
from homerd.wire.measured import Fault, number

REASONS = ("rtpstat_header", "rtpstat_empty")

X_RTP_STAT, X_RTP_STAT_ADD, P_RTP_STAT = "X-RTP-Stat", "X-RTP-Stat-Add", "P-RTP-Stat"
SIEMENS, RX_STAT, TX_STAT = "X-Siemens-RTP-stats", "RTP-RxStat", "RTP-TxStat"
T38, NG = "X-RTP-Stat-T38", "X-NG-RTP-STATS"
HEADERS = (X_RTP_STAT, P_RTP_STAT, SIEMENS, RX_STAT, TX_STAT, X_RTP_STAT_ADD, T38, NG)

_BY_NAME = {name.lower(): name for name in HEADERS}
_MAX_VALUES = 64
_MAX_COUNT = (1 << 32) - 1
_MAX_MS = 3_600_000
_UNITS_OF_MS = 8  # AvgJit is in units of the RTP clock, which these gateways have at 8 kHz
_WORST, _ALL = 1.0, 5.0

_PART = re.compile(r"[;,]\s*(?=[A-Za-z][A-Za-z0-9_]*\s*=)|;")
_SEPARATORS = re.compile(r"[,/]")

_NUMBERS = {
    *("CS", "CD", "PS", "PR", "ES", "ER", "OS", "OR", "SP", "SO", "QS", "QR", "CR", "SR", "PL"),
    *("PD", "BL", "LS", "RB", "SB", "JI", "DL", "LA", "DU", "DQ", "DSS", "DS", "PLCS", "JS", "MOS"),
    *("DUR", "PKT", "OCT", "LATEPKT", "LOSTPKT", "AVGJIT"),
}


class Side(NamedTuple):
    """One direction; jitter in milliseconds."""

    packets: int | None = None
    octets: int | None = None
    lost: int | None = None
    jitter_ms: float | None = None
    codec: str | None = None


class Statistics(NamedTuple):
    """A header read.

    text: every value as it was written, by its name in capitals.  numbers: of those that hold
    numbers, None where one is "-" or cannot be read.  round_trip_ms: the mean.
    """

    header: str
    text: dict[str, str]
    numbers: dict[str, tuple[float | None, ...]]
    received: Side
    sent: Side
    round_trip_ms: float | None
    quality: float | None
    faults: list[Fault]


def decode(header: str, body: bytes) -> Statistics:
    """Read the body of a header named *header*; raises DecodeError with one of REASONS."""
    name = _BY_NAME.get(header.lower())
    if name is None:
        raise DecodeError("rtpstat_header")
    written = body.decode("utf-8", "replace").strip()
    if not written:
        raise DecodeError("rtpstat_empty")
    faults: list[Fault] = []
    text = {"": written} if name == NG else _split(written, faults)
    if not text:
        raise DecodeError("rtpstat_empty")
    numbers = {
        key: tuple(_number(each, key, faults) for each in _SEPARATORS.split(value, 7))
        for key, value in text.items()
        if key in _NUMBERS and value and name != T38
    }
    received, sent = _sides(name, text, numbers, faults)
    quality = _first(numbers, "DQ", faults, 0, 50)
    return Statistics(
        name,
        text,
        numbers,
        received,
        sent,
        _first(numbers, "DL", faults, 0, _MAX_MS)
        if "DL" in numbers
        else _first(numbers, "LA", faults, 0, _MAX_MS),
        quality / 10 if quality is not None else _first(numbers, "MOS", faults, 0, 5),
        faults,
    )


def r_factor(stat: Statistics, *, whole_percent: bool = False) -> float | None:
    """R as heplify-server reckons it; None where packets or jitter are not told.

    el = 2 jitter + delay + 10; R = 93.2 - el / 40 below 160, above it 93.2 - (el - 120) / 10; less
    2.5 for each percent of lost packets.  whole_percent: as heplify-server, which cuts them off.
    """
    received, sent = stat.received, stat.sent
    packets = (received.packets or 0) + (sent.packets or 0)
    if packets <= 0 or received.jitter_ms is None:
        return None
    loss = ((received.lost or 0) + (sent.lost or 0)) * 100 / packets
    if whole_percent:
        loss = float(int(loss))
    late = received.jitter_ms * 2 + (stat.round_trip_ms or 0) + 10
    r = 93.2 - late / 40 if late < 160 else 93.2 - (late - 120) / 10
    return r - loss * 2.5


def mos(r: float) -> float:
    """The score of r_factor(): what is below 1 or above 5 is 1."""
    score = 1 + 0.035 * r + 0.000007 * r * (r - 60) * (100 - r)
    return score if _WORST <= score <= _ALL else _WORST


def _split(written: str, faults: list[Fault]) -> dict[str, str]:
    text: dict[str, str] = {}
    for part in _PART.split(written)[:_MAX_VALUES]:
        key, equals, value = part.partition("=")
        key, value = key.strip().upper(), value.strip()
        if not equals or not key:
            continue
        if text.setdefault(key, value) != value:
            text[key] = ""
            if key in _NUMBERS:
                faults.append((key, "doubled"))
    return text


def _number(text: str, key: str, faults: list[Fault]) -> float | None:
    return None if text.strip() == "-" else number(text, key, -_MAX_COUNT, _MAX_COUNT, faults)


def _first(
    numbers: dict[str, tuple[float | None, ...]],
    key: str,
    faults: list[Fault],
    low: float,
    high: float,
    place: int = 0,
) -> float | None:
    values = numbers.get(key, ())
    if len(values) <= place:
        return None
    return number(values[place], key, low, high, faults)


def _sides(
    header: str,
    text: dict[str, str],
    numbers: dict[str, tuple[float | None, ...]],
    faults: list[Fault],
) -> tuple[Side, Side]:
    def count(key: str, place: int = 0) -> int | None:
        found = _first(numbers, key, faults, 0, _MAX_COUNT, place)
        return None if found is None else int(found)

    if header in (RX_STAT, TX_STAT):
        units = _first(numbers, "AVGJIT", faults, 0, _MAX_MS)
        side = Side(
            count("PKT"),
            count("OCT"),
            count("LOSTPKT"),
            None if units is None else units / _UNITS_OF_MS,
        )
        return (side, Side()) if header == RX_STAT else (Side(), side)
    received = Side(
        count("PR"),
        count("OR"),
        count("PL"),
        _first(numbers, "JI", faults, 0, _MAX_MS),
        _codec(text.get("DE")),
    )
    sent = Side(
        count("PS"),
        count("OS"),
        count("PL", 1),
        _first(numbers, "JI", faults, 0, _MAX_MS, 1),
        _codec(text.get("EN")),
    )
    return received, sent


def _codec(text: str | None) -> str | None:
    """The first of those that were used, without its clock."""
    return (text or "").partition(",")[0].partition("/")[0].strip() or None
