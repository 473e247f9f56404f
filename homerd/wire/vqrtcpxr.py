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
_MAX_SIZE = 8192  # nor is one half as long; 60 KB of values took 110 ms
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

# RFC 6035 4.6.2: line -> name -> what it holds, in the order of Metrics.
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
_FIELDS = {name: kind for line in _METRICS.values() for name, kind in line.items()}
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
    faults: list[Fault] = []
    if len(data) > _MAX_SIZE:
        data = data[: data.rfind(b"\n", 0, _MAX_SIZE) + 1]
        faults.append(("report", "range"))
    lines = data.decode("utf-8", "replace").strip().splitlines()
    first = _split(lines[0]) if lines else None
    kind = _KINDS.get(first[0]) if first else None
    if first is None or kind is None:
        raise DecodeError("vq_kind", 0)
    info: dict[str, str] = {}
    local: dict[str, str] = {}
    remote: dict[str, str] = {}
    sides: set[str] = set()
    values = local
    for line in lines[1:_MAX_LINES]:
        written, _, text = line.partition(":")
        name = _AS_WRITTEN.get(written, "")
        if not name:
            split = _split(line)
            if split is None:
                continue
            name, text = split
        text = text.strip()
        if name in _METRICS:
            values[name] = f"{values[name]} {text}" if name in values else text
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
    if kind != ALERT and not local.get("timestamps"):
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
    line = line.strip()
    found = _LINE.match(line)
    return (found[1].lower(), line[found.end() :].strip()) if found else None


def _metrics(lines: dict[str, str], faults: list[Fault]) -> Metrics:
    """Metrics of the texts of its lines."""
    read: list[float | str | None] = []
    for line, names in _METRICS.items():
        text = lines.get(line)
        if text:
            found, wrong = (_line_as_before if len(text) < _MAX_KEPT else _line)(line, text)
            read += found
            faults += wrong
        else:
            read += (None,) * len(names)
    return Metrics._make(read)


class _Value(NamedTuple):
    """NAME=VALUE, as written and as Metrics has it."""

    name: str
    text: str
    read: float | str | None
    faults: tuple[Fault, ...]


def _line(line: str, text: str) -> tuple[list[float | str | None], list[Fault]]:
    """Each value of one line, in its order; one that comes again with another value is unknown."""
    found: dict[str, _Value] = {}
    for value in _words(text) if len(text) < _MAX_KEPT else _searched(text):
        name = value.name
        if found.setdefault(name, value).text != value.text:
            found[name] = _Value(name, "", None, ((name, "doubled"),))
    values = {name: found[name] for name in _METRICS[line] if name in found}
    read = [values[name].read if name in values else None for name in _METRICS[line]]
    return read, [fault for value in values.values() for fault in value.faults]


# Hot path: of the reports of many phones most lines are the same, and of the others most words:
# 0.3 µs a line that was read before, 0.3 µs a word, 1.5 one that is new, 5 by the pattern.
_line_as_before = lru_cache(maxsize=1024)(_line)


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
    faults: list[Fault] = [(name, "joined")] if joined else []
    read = _read(name, text, *_FIELDS.get(name, _ANY), faults)
    return _Value(name, text, read, tuple(faults))


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
                ssrc += 1 << 32
                faults.append((line, "sign"))
            if not 0 <= ssrc <= 0xFFFFFFFF:
                ssrc = None
                faults.append((line, "range"))
    port = whole(found.get("port"), line, 0, 65535, faults)
    return Address(found.get("ip") or None, port, ssrc)


def _alert(text: str) -> Alert:
    said = {name.lower(): value for name, value, _ in _pairs(text)}
    return Alert(said.get("type"), said.get("severity"), said.get("dir"))
