"""Voice quality reports of phones, application/vq-rtcpxr: text to values.

Any bytes give a Report or a DecodeError with one of REASONS.  A field that cannot be read is None
and named among the report's faults; the text of a session's lines is kept besides.  Source: RFC
6035 4.6, and the habits of phones: a blank before or behind the colon or none, "=" in place of ":",
either line end, lines of the session among the metrics, values without a blank between them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from homerd.errors import DecodeError
from homerd.wire.measured import Fault, number, whole

REASONS = ("vq_kind",)

SESSION, INTERVAL, ALERT = "session", "interval", "alert"
_KINDS = {
    "vqsessionreport": SESSION,
    "vqintervalreport": INTERVAL,
    "vqalertreport": ALERT,
}
_MAX_LINES = 200  # no report has half as many
_MAX_KEPT = 300  # characters of a line whose values may be kept

_LINE = re.compile(r"([A-Za-z][A-Za-z0-9-]*)[ \t]*[:=]?")
# JBM=20JBX=240 is two values: a number ends where the next name begins.
_VALUE = re.compile(
    r"""(?<![A-Za-z])([A-Za-z]{1,20}+) \s?=
    (?: "([^"]*)" | (\S*?) (?: (?=\s|\Z) | (?<=[0-9])(?=([A-Z]{2,8}=)) ) )""",
    re.VERBOSE,
)
_ADDRESS = re.compile(r"(IP|PORT|SSRC)[=:](\S*)", re.IGNORECASE)
_CALL_ID = re.compile(rb"(?:\A|[\r\n])[ \t]*CallID(?![A-Za-z0-9-])[ \t]*[:=]?([^\r\n]*)", re.I)


class Address(NamedTuple):
    """Where a side has its media; ip as it was written."""

    ip: str | None = None
    port: int | None = None
    ssrc: int | None = None


class Metrics(NamedTuple):
    """What one side measured, by the names of RFC 6035.

    start, stop: seconds since 1970.  pt payload type, pd its name, sr Hz, fd ms, fo octets, fpp
    frames a packet, pps packets a second, plc 1 disabled, 2 enhanced, 3 standard.  jba 2 fixed, 3
    adaptive; jbn, jbm, jbx ms.  nlr, jdr, bld, gld percent; bd, gd ms; gmin packets.  rtd, esd,
    owd, sowd, iaj, maj ms.  sl, nl dBm0, rerl dB.  rlq, rcq, extri, extro: R; moslq, moscq: MOS.
    """

    start: float | None = None
    stop: float | None = None
    pt: int | None = None
    pd: str | None = None
    sr: int | None = None
    fd: float | None = None
    fo: int | None = None
    fpp: int | None = None
    pps: float | None = None
    fmtp: str | None = None
    plc: int | None = None
    ssup: str | None = None
    jba: int | None = None
    jbr: int | None = None
    jbn: float | None = None
    jbm: float | None = None
    jbx: float | None = None
    nlr: float | None = None
    jdr: float | None = None
    bld: float | None = None
    bd: float | None = None
    gld: float | None = None
    gd: float | None = None
    gmin: int | None = None
    rtd: float | None = None
    esd: float | None = None
    owd: float | None = None
    sowd: float | None = None
    iaj: float | None = None
    maj: float | None = None
    sl: float | None = None
    nl: float | None = None
    rerl: float | None = None
    rlq: float | None = None
    rlqestalg: str | None = None
    rcq: float | None = None
    rcqestalg: str | None = None
    extri: float | None = None
    extriestalg: str | None = None
    extro: float | None = None
    extroestalg: str | None = None
    moslq: float | None = None
    moslqestalg: str | None = None
    moscq: float | None = None
    moscqestalg: str | None = None
    qoeestalg: str | None = None


class Alert(NamedTuple):
    """Why a VQAlertReport came: which value, how severe, on whose side; as it was written."""

    type: str | None = None
    severity: str | None = None
    dir: str | None = None


class Report(NamedTuple):
    """A report.

    kind: SESSION, INTERVAL or ALERT.  call_term: whether it is the call's last.
    info: lower-case name -> text of the lines about the session (callid, localid, remoteid, origid,
    localgroup, localmac, dialogid, …), those of makers (x-useragent, x-sipmetrics) included.
    local, remote: None where the report has no such part.
    """

    kind: str
    call_term: bool
    call_id: str | None
    info: dict[str, str]
    local_address: Address
    remote_address: Address
    local: Metrics | None
    remote: Metrics | None
    alert: Alert | None
    faults: list[Fault]


_WHOLE, _DECIMAL, _TEXT, _TIME = range(4)
_Kind = tuple[int, float, float]
_MS: _Kind = (_DECIMAL, 0, 65535)
_PERCENT: _Kind = (_DECIMAL, 0, 100)
_LASTING: _Kind = (_DECIMAL, 0, 3_600_000)
_LEVEL: _Kind = (_DECIMAL, -127, 127)
_R: _Kind = (_DECIMAL, 0, 120)
_MOS: _Kind = (_DECIMAL, 0, 5)
_ANY: _Kind = (_TEXT, 0, 0)
_WHEN: _Kind = (_TIME, 0, 0)

# RFC 6035 4.6.2: line -> name -> what it holds.
_METRICS: dict[str, dict[str, _Kind]] = {
    "timestamps": {"start": _WHEN, "stop": _WHEN},
    "sessiondesc": {
        "pt": (_WHOLE, 0, 127),
        "pd": _ANY,
        "sr": (_WHOLE, 0, 1_000_000),
        "fd": _MS,
        "fo": (_WHOLE, 0, 65535),
        "fpp": (_WHOLE, 0, 65535),
        "pps": (_DECIMAL, 0, 65535),
        "fmtp": _ANY,
        "plc": (_WHOLE, 0, 3),
        "ssup": _ANY,
    },
    "jitterbuffer": {
        "jba": (_WHOLE, 0, 3),
        "jbr": (_WHOLE, 0, 15),
        "jbn": _MS,
        "jbm": _MS,
        "jbx": _MS,
    },
    "packetloss": {"nlr": _PERCENT, "jdr": _PERCENT},
    "burstgaploss": {
        "bld": _PERCENT,
        "bd": _LASTING,
        "gld": _PERCENT,
        "gd": _LASTING,
        "gmin": (_WHOLE, 0, 255),
    },
    "delay": dict.fromkeys(("rtd", "esd", "owd", "sowd", "iaj", "maj"), _MS),
    "signal": {"sl": _LEVEL, "nl": _LEVEL, "rerl": _LEVEL},
    "qualityest": {
        "rlq": _R,
        "rlqestalg": _ANY,
        "rcq": _R,
        "rcqestalg": _ANY,
        "extri": _R,
        "extriestalg": _ANY,
        "extro": _R,
        "extroestalg": _ANY,
        "moslq": _MOS,
        "moslqestalg": _ANY,
        "moscq": _MOS,
        "moscqestalg": _ANY,
        "qoeestalg": _ANY,
    },
}
# name -> its line, its place in Metrics, what it holds
_FIELDS = {
    name: (line, Metrics._fields.index(name), kind)
    for line, names in _METRICS.items()
    for name, kind in names.items()
}
_START, _STOP = Metrics._fields.index("start"), Metrics._fields.index("stop")
# RFC 6035 4.6.1; what other lines there are, makers have added.
_INFO = {
    *("callid", "localid", "remoteid", "origid", "localaddr", "remoteaddr", "localgroup"),
    *("remotegroup", "localmac", "remotemac", "dialogid"),
}
# Lines as the RFC spells them, which most phones do: found without a pattern.
_AS_WRITTEN = {
    name: name.lower()
    for name in (
        *("CallID", "LocalID", "RemoteID", "OrigID", "LocalAddr", "RemoteAddr", "LocalGroup"),
        *("RemoteGroup", "LocalMAC", "RemoteMAC", "DialogID", "LocalMetrics", "RemoteMetrics"),
        *("Timestamps", "SessionDesc", "JitterBuffer", "PacketLoss", "BurstGapLoss", "Delay"),
        *("Signal", "QualityEst"),
    )
}
_UNKNOWN_127 = {"rlq", "rcq", "extri", "extro", "moslq", "moscq", "sl", "nl", "rerl"}


def is_report(data: bytes) -> bool:
    """Whether *data* begins as a report does."""
    return data.lstrip()[:2].upper() == b"VQ"


def named_call(data: bytes) -> str:
    """The Call-ID in a report; "" without one, or with two that differ.  Reads nothing else."""
    found = {each.strip() for each in _CALL_ID.findall(data)}
    found.discard(b"")
    return found.pop().decode("utf-8", "surrogateescape") if len(found) == 1 else ""


def decode(data: bytes) -> Report:
    """Read the body of a PUBLISH or NOTIFY, or a payload that is such a body."""
    lines = data.decode("utf-8", "replace").strip().splitlines()
    first = _split(lines[0]) if lines else None
    kind = _KINDS.get(first[0]) if first else None
    if first is None or kind is None:
        raise DecodeError("vq_kind", 0)
    faults: list[Fault] = []
    info: dict[str, str] = {}
    local: dict[int, _Value] = {}
    remote: dict[int, _Value] = {}
    sides: set[str] = set()
    values = local
    for line in lines[1:_MAX_LINES]:
        split = _split(line)
        if split is None:
            continue
        name, text = split
        if name in _METRICS:
            found = (_line_as_before if len(text) < _MAX_KEPT else _line)(name, text)
            if values.keys().isdisjoint(found):
                values.update(found)
            else:
                for value in found.values():
                    _add(values, value)
        elif name in ("localmetrics", "remotemetrics"):
            values = local if name == "localmetrics" else remote
            sides.add(name)
        elif info.setdefault(name, text) != text and name in _INFO:
            faults.append((name, "doubled"))
    local_metrics = _metrics(local, faults) if local or "localmetrics" in sides else None
    remote_metrics = _metrics(remote, faults) if remote or "remotemetrics" in sides else None
    call_id = info.get("callid") or None
    if call_id is None:
        faults.append(("callid", "missing"))
    elif ("callid", "doubled") in faults:
        call_id = None
    if kind != ALERT and _START not in local and _STOP not in local:
        faults.append(("timestamps", "missing"))
    return Report(
        kind,
        first[1].lower() == "callterm",
        call_id,
        info,
        _address(info.get("localaddr"), "localaddr", faults),
        _address(info.get("remoteaddr"), "remoteaddr", faults),
        local_metrics,
        remote_metrics,
        _alert(first[1]) if kind == ALERT else None,
        faults,
    )


def _split(line: str) -> tuple[str, str] | None:
    name, _, text = line.partition(":")
    known = _AS_WRITTEN.get(name)
    if known is not None:
        return known, text.strip()
    line = line.strip()
    found = _LINE.match(line)
    return (found[1].lower(), line[found.end() :].strip()) if found else None


class _Value(NamedTuple):
    """NAME=VALUE: its line, "" for a name that there is not, its place in Metrics, and what it is.

    text: as written; read: as Metrics has it.
    """

    line: str
    at: int
    text: str
    read: float | str | None
    faults: tuple[Fault, ...]


def _line(line: str, text: str) -> dict[int, _Value]:
    """The values of one line by their place in Metrics."""
    found: dict[int, _Value] = {}
    for value in _words(text) if len(text) < _MAX_KEPT else _searched(text):
        if value.line == line:
            _add(found, value)
    return found


# Hot path: of the reports of many phones most lines are the same, and of the others most words:
# 2 µs a line that was read before, 0.3 µs a word, 1.5 one that is new, 5 by the pattern.
_line_as_before = lru_cache(maxsize=1024)(_line)


def _add(values: dict[int, _Value], value: _Value) -> None:
    """One that comes again with another value is unknown."""
    if values.setdefault(value.at, value).text != value.text:
        faults = ((Metrics._fields[value.at], "doubled"),)
        values[value.at] = value._replace(text="", read=None, faults=faults)


def _words(text: str) -> list[_Value]:
    values = []
    for word in text.split():
        value = _word(word)
        if value is None:
            return _searched(text)
        values.append(value)
    return values


@lru_cache(maxsize=4096)
def _word(text: str) -> _Value | None:
    """A value between blanks; None where it takes the pattern to see where it ends."""
    name, equals, value = text.partition("=")
    if not (equals and name.isalpha()) or "=" in value or '"' in value:
        return None
    return _value(name, value)


def _searched(text: str) -> list[_Value]:
    return [_value(*pair) for pair in _pairs(text)]


def _pairs(text: str) -> list[tuple[str, str, bool]]:
    """Name, value, and whether the next name follows without a blank."""
    return [
        (found[1], found[3] if found[2] is None else found[2], bool(found[4]))
        for found in _VALUE.finditer(text)
    ]


def _value(name: str, text: str, joined: bool = False) -> _Value:
    name = name.lower()
    if name not in _FIELDS:
        return _Value("", 0, text, None, ())
    line, at, kind = _FIELDS[name]
    faults: list[Fault] = [(name, "joined")] if joined else []
    read = _read(name, text, *kind, faults)
    return _Value(line, at, text, read, tuple(faults))


def _metrics(values: dict[int, _Value], faults: list[Fault]) -> Metrics:
    read: list[float | str | None] = [None] * len(Metrics._fields)
    for at, value in values.items():
        read[at] = value.read
        faults += value.faults
    return Metrics._make(read)


def _read(
    name: str, text: str, kind: int, low: float, high: float, faults: list[Fault]
) -> float | str | None:
    if not text:
        return None
    if kind == _TEXT:
        return text
    if kind == _TIME:
        return _seconds(text, name, faults)
    if name in _UNKNOWN_127 and text in ("127", "127.0"):
        return None
    if kind == _WHOLE:
        return whole(text, name, int(low), int(high), faults)
    return number(text, name, low, high, faults)


def _seconds(text: str, name: str, faults: list[Fault]) -> float | None:
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        faults.append((name, "number"))
        return None


def _address(text: str | None, line: str, faults: list[Fault]) -> Address:
    if not text:
        return Address()
    found: dict[str, str] = {}
    for name, value in _ADDRESS.findall(text):
        found.setdefault(name.lower(), value)
    ssrc = None
    if found.get("ssrc"):
        # RFC 6035 has 0x and hex digits, Linphone writes a decimal number.
        try:
            ssrc = int(found["ssrc"], 16 if found["ssrc"][:2].lower() == "0x" else 10)
        except ValueError:
            faults.append((line, "number"))
        else:
            if -0x80000000 <= ssrc < 0:
                ssrc += 1 << 32  # printed with its sign
            if not 0 <= ssrc <= 0xFFFFFFFF:
                ssrc = None
                faults.append((line, "range"))
    port = whole(found.get("port"), line, 0, 65535, faults)
    return Address(found.get("ip") or None, port, ssrc)


def _alert(text: str) -> Alert:
    said = {name.lower(): value for name, value, _ in _pairs(text)}
    return Alert(said.get("type"), said.get("severity"), said.get("dir"))
