"""Voice quality reports written, application/vq-rtcpxr: values to text.

Only what is known is written.  A number outside what RFC 6035 4.6 allows becomes the nearest it
does; times are whole milliseconds, levels and R whole, percents and MOS have two decimals.  Text
of others ends no line: what cannot be printed becomes a blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from homerd.wire import qos
from homerd.wire.vqrtcpxr import ALERT, INTERVAL, SESSION, Address, Metrics, Report

MEDIA_TYPE = "application/vq-rtcpxr"

_NAMES = {SESSION: "VQSessionReport", INTERVAL: "VQIntervalReport", ALERT: "VQAlertReport"}
_MOST_TEXT = 512  # of one value
_LAST_SECOND = 253_402_300_799  # of the year 9999

# RFC 6035 4.6.1, in its order; the addresses stand behind OrigID.
_SESSION = (("localid", "LocalID"), ("remoteid", "RemoteID"), ("origid", "OrigID"))
_GROUPS = (
    ("localgroup", "LocalGroup"),
    ("remotegroup", "RemoteGroup"),
    ("localmac", "LocalMAC"),
    ("remotemac", "RemoteMAC"),
)
_PLAIN = re.compile(r"[A-Za-z0-9.+_/-]+")

_Write = Callable[[float], str]
_Name = tuple[str, str]  # as the reader has it, as it is written


def encode(report: Report) -> bytes:
    """The body that vqrtcpxr.decode() reads as *report*, with CRLF."""
    return "".join(f"{line}\r\n" for line in _lines(report)).encode("utf-8", "replace")


def metrics_of(record: qos.QosRecord, start: float | None, stop: float | None) -> Metrics:
    """What one side received from *start* to *stop*, seconds since 1970, by the RFC's names."""
    with_delay = record.one_way is not None or record.rtt is not None
    conversing = record.r_source == qos.REPORTED or with_delay
    r = None if record.r is None else round(record.r)
    alg = _algorithm(record.r_source)
    return Metrics(
        start=start,
        stop=stop,
        pd=record.codec,
        sr=record.clock,
        nlr=record.loss,
        jdr=record.discard,
        bld=record.burst_loss,
        bd=record.burst_duration,
        gld=record.gap_loss,
        gd=record.gap_duration,
        rtd=record.rtt,
        esd=record.end_system,
        owd=record.one_way,
        iaj=record.jitter,
        sl=record.signal,
        nl=record.noise,
        rlq=None if conversing else r,
        rlqestalg=None if conversing else alg,
        rcq=r if conversing else None,
        rcqestalg=alg if conversing else None,
        moslq=record.mos_lq,
        moslqestalg=_algorithm(record.mos_lq_source),
        moscq=record.mos_cq,
        moscqestalg=_algorithm(record.mos_cq_source),
    )


def _algorithm(source: str | None) -> str | None:
    return "G.107" if source in (qos.G107, qos.FROM_R) else None


def _lines(report: Report) -> Iterator[str]:
    head = _NAMES[report.kind]
    if report.alert is not None:
        told = zip(("Type", "Severity", "Dir"), report.alert, strict=True)
        head += ": " + " ".join(f"{name}={_bare(value)}" for name, value in told if value)
    elif report.call_term:
        head += ": CallTerm"
    yield head
    if report.call_id:
        yield f"CallID:{_one_line(report.call_id)}"
    yield from _told(report.info, _SESSION)
    yield from _address("LocalAddr", report.local_address)
    yield from _address("RemoteAddr", report.remote_address)
    yield from _told(report.info, _GROUPS)
    for name, metrics in (("LocalMetrics", report.local), ("RemoteMetrics", report.remote)):
        if metrics is not None:
            yield f"{name}:"
            yield from _metrics(metrics)
    yield from _told(report.info, (("dialogid", "DialogID"),))


def _told(info: dict[str, str], names: tuple[_Name, ...]) -> Iterator[str]:
    for key, name in names:
        text = _one_line(info.get(key, ""))
        if text:
            yield f"{name}:{text}"


def _address(name: str, where: Address) -> Iterator[str]:
    parts = []
    if where.ip:
        parts.append(f"IP={_bare(where.ip)}")
    if where.port is not None:
        parts.append(f"PORT={_whole(0, 65535)(where.port)}")
    if where.ssrc is not None:
        parts.append(f"SSRC=0x{where.ssrc & 0xFFFFFFFF:08x}")
    if parts:
        yield f"{name}:{' '.join(parts)}"


def _metrics(metrics: Metrics) -> Iterator[str]:
    for line, names in _METRICS.items():
        values = []
        for name, write in names.items():
            value = getattr(metrics, name.lower())
            if value is not None and value != "" and value == value:  # NaN is unknown too
                values.append(f"{name}={write(value)}")
        if values:
            yield f"{line}:{' '.join(values)}"


def _one_line(text: str) -> str:
    printed = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printed.split())[:_MOST_TEXT].rstrip()


def _bare(text: str) -> str:
    return _one_line(text).replace(" ", "")


def _word(text: str) -> str:
    """*text*, in quotes where it is more than a word."""
    return text if len(text) <= _MOST_TEXT and _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + _one_line(text).replace('"', "'") + '"'


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _whole(low: int, high: int) -> _Write:
    return lambda value: str(round(_clamped(value, low, high)))


def _decimal(high: float) -> _Write:
    def write(value: float) -> str:
        text = f"{_clamped(value, 0, high):.2f}"
        return text[:-1] if text.endswith("0") else text

    return write


def _time(value: float) -> str:
    value = _clamped(value, 0, _LAST_SECOND)
    when = datetime.fromtimestamp(value, UTC)
    precision = "milliseconds" if value % 1 else "seconds"
    return when.isoformat(timespec=precision).removesuffix("+00:00") + "Z"


_MS = _whole(0, 65535)
_PERCENT = _decimal(100)
_R, _MOS = _whole(0, 120), _decimal(4.9)
_LEVEL = _whole(-126, 126)  # 127 says that it is unknown

# RFC 6035 4.6.2: line -> name -> how its value is written.
_METRICS: dict[str, dict[str, Callable[..., str]]] = {
    "Timestamps": {"START": _time, "STOP": _time},
    "SessionDesc": {
        "PT": _whole(0, 127),
        "PD": _word,
        "SR": _whole(0, 1_000_000),
        "FD": _MS,
        "FO": _MS,
        "FPP": _MS,
        "PPS": _MS,
        "FMTP": _quoted,
        "PLC": _whole(0, 3),
        "SSUP": _word,
    },
    "JitterBuffer": {
        "JBA": _whole(0, 3),
        "JBR": _whole(0, 15),
        "JBN": _MS,
        "JBM": _MS,
        "JBX": _MS,
    },
    "PacketLoss": {"NLR": _PERCENT, "JDR": _PERCENT},
    "BurstGapLoss": {
        "BLD": _PERCENT,
        "BD": _whole(0, 3_600_000),
        "GLD": _PERCENT,
        "GD": _whole(0, 3_600_000),
        "GMIN": _whole(0, 255),
    },
    "Delay": dict.fromkeys(("RTD", "ESD", "OWD", "SOWD", "IAJ", "MAJ"), _MS),
    "Signal": dict.fromkeys(("SL", "NL", "RERL"), _LEVEL),
    "QualityEst": {
        "RLQ": _R,
        "RLQEstAlg": _word,
        "RCQ": _R,
        "RCQEstAlg": _word,
        "EXTRI": _R,
        "ExtRIEstAlg": _word,
        "EXTRO": _R,
        "ExtROEstAlg": _word,
        "MOSLQ": _MOS,
        "MOSLQEstAlg": _word,
        "MOSCQ": _MOS,
        "MOSCQEstAlg": _word,
        "QoEEstAlg": _word,
    },
}
