"""RTCP as JSON to values: what captagent, heplify, Asterisk and rtpengine send of it.

They spell numbers as integers, decimals or text, print unsigned ones with a sign or the other way
round, and count blocks that are not there: what is given out is as RFC 3550 has it.  Any bytes give
a Report or a DecodeError with one of REASONS; a field that cannot be read is None and a fault.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from homerd.wire.measured import Fault, json_object, number, whole

REASONS = ("rtcp_json",)

NTP_1970 = 2_208_988_800  # seconds from 1900 to 1970
_MAX_BLOCKS = 64
_WORD = 1 << 32
_XR = 7  # the block of voice metrics
_HAS_JITTER = 0x20  # of the flags of a statistics summary


class Sender(NamedTuple):
    """What the reporter has sent; seconds since 1970.

    middles: what others' lsr may say of it, the middle 32 bits of its NTP time.
    """

    seconds: int | None
    rtp_timestamp: int | None
    packets: int | None
    octets: int | None
    middles: tuple[int, ...] = ()


class Block(NamedTuple):
    """How a source was received, as in rtcp.Block."""

    source_ssrc: int | None
    fraction_lost: int | None
    packets_lost: int | None
    highest_seq_no: int | None
    ia_jitter: float | None
    lsr: int | None
    dlsr: int | None


class Voice(NamedTuple):
    """RFC 3611 4.7 in the units of people: percent, ms, dBm0, R and MOS; None where unavailable."""

    source_ssrc: int | None = None
    loss: float | None = None
    discard: float | None = None
    burst_density: float | None = None
    gap_density: float | None = None
    burst_duration: float | None = None
    gap_duration: float | None = None
    round_trip: float | None = None
    end_system: float | None = None
    signal: float | None = None
    noise: float | None = None
    rerl: float | None = None
    gmin: int | None = None
    r: float | None = None
    external_r: float | None = None
    mos_lq: float | None = None
    mos_cq: float | None = None
    jb_nominal: float | None = None
    jb_maximum: float | None = None
    jb_abs_max: float | None = None


class Report(NamedTuple):
    """What one packet told.

    mos: heplify's own, where it gives one.  most_jitter: SSRC -> the highest since the report
    before, in units of the RTP clock, of RFC 3611 4.6.
    """

    ssrc: int | None
    kind: int | None
    sender: Sender | None
    blocks: list[Block]
    voice: Voice | None
    mos: float | None
    cname: str | None
    faults: list[Fault]
    most_jitter: dict[int | None, float]


def decode(data: bytes) -> Report:
    """Read one JSON object."""
    return read(json_object(data, "rtcp_json"))


def is_report(found: dict[str, Any]) -> bool:
    """Whether the object *found* is of RTCP."""
    return not _KEYS.isdisjoint(found)


_OF_VOICE = frozenset({"report_blocks_xr", "voip_metrics", "Extended_report_information"})
_KEYS = _OF_VOICE | {"report_blocks", "sender_information", "sdes_information"}


def read(found: dict[str, Any]) -> Report:
    """The same of an object that was read already, by rtcp.as_json() too."""
    faults: list[Fault] = []
    get = found.get
    blocks = get("report_blocks")
    if isinstance(blocks, dict):
        blocks = [blocks]
    objects = _objects(blocks, "report_blocks", faults)
    count = whole(get("report_count"), "report_count", 0, _WORD, faults)
    if count is not None and count != len(objects):
        faults.append(("report_count", "count"))
    # Hot path: what most packets do not have is not looked into, 1.5 µs.
    return Report(
        _unsigned(get("ssrc"), "ssrc", faults),
        whole(get("type"), "type", 0, 255, faults),
        _sender(get("sender_information"), faults),
        [_block(each, faults) for each in objects],
        None if _OF_VOICE.isdisjoint(found) else _voice(found, faults),
        _mos(found["mos"], "mos", 1, faults) if "mos" in found else None,
        _cname(found["sdes_information"]) if "sdes_information" in found else None,
        faults,
        _most_jitter(found, faults) if "statistics_summary" in found else {},
    )


def _most_jitter(found: dict[str, Any], faults: list[Fault]) -> dict[int | None, float]:
    """Of the statistics summaries, as rtcp.as_json() writes them, that measured it."""
    most: dict[int | None, float] = {}
    for each in _objects(found.get("statistics_summary"), "statistics_summary", faults):
        flags = whole(each.get("flags"), "flags", 0, 255, faults)
        jitter = number(each.get("max_jitter"), "max_jitter", 0, _WORD - 1, faults)
        if flags is not None and flags & _HAS_JITTER and jitter is not None:
            most[_unsigned(each.get("id"), "id", faults)] = jitter
    return most


def _objects(found: object, field: str, faults: list[Fault]) -> list[dict[str, Any]]:
    if found is None:
        return []
    if not isinstance(found, list):
        faults.append((field, "number"))
        return []
    objects = [each for each in found[:_MAX_BLOCKS] if isinstance(each, dict)]
    if len(objects) < len(found):
        faults.append((field, "range" if len(found) > _MAX_BLOCKS else "number"))
    return objects


def _sender(found: object, faults: list[Fault]) -> Sender | None:
    # heplify writes zeros where there is none.
    if not isinstance(found, dict) or not any(found.values()):
        return None
    get = found.get
    seconds = _unsigned(get("ntp_timestamp_sec"), "ntp_timestamp_sec", faults)
    # Some print there what is no fraction (13217348104192): that is no fault of what is told.
    middles = _middles(seconds, _unsigned(get("ntp_timestamp_usec"), "", []))
    # Asterisk tells Unix time, all others NTP's.
    if seconds is not None and seconds >= NTP_1970:
        seconds -= NTP_1970
    elif seconds:
        faults.append(("ntp_timestamp_sec", "epoch"))
    return Sender(
        seconds,
        _unsigned(get("rtp_timestamp"), "rtp_timestamp", faults),
        _unsigned(get("packets"), "packets", faults),
        _unsigned(get("octets"), "octets", faults),
        middles,
    )


def _middles(seconds: int | None, fraction: int | None) -> tuple[int, ...]:
    """NTP's seconds and fraction; where it may be Asterisk's time and microseconds, these too."""
    if seconds is None or fraction is None:
        return ()
    middle = (seconds & 0xFFFF) << 16 | fraction >> 16
    if seconds >= NTP_1970 or fraction >= 1_000_000:
        return (middle,)
    unix = (seconds + NTP_1970 & 0xFFFF) << 16 | (fraction << 16) // 1_000_000
    return middle, unix


def _block(found: dict[str, Any], faults: list[Fault]) -> Block:
    get = found.get
    lost = whole(get("packets_lost"), "packets_lost", -0x800000, 0xFFFFFF, faults)
    if lost is not None and lost > 0x7FFFFF:
        lost -= 0x1000000
        faults.append(("packets_lost", "sign"))
    return Block(
        _unsigned(get("source_ssrc"), "source_ssrc", faults),
        whole(get("fraction_lost"), "fraction_lost", 0, 255, faults),
        lost,
        _unsigned(get("highest_seq_no"), "highest_seq_no", faults),
        number(get("ia_jitter"), "ia_jitter", 0, _WORD - 1, faults),
        _unsigned(get("lsr"), "lsr", faults),
        _unsigned(get("dlsr"), "dlsr", faults),
    )


def _unsigned(value: object, field: str, faults: list[Fault]) -> int | None:
    if type(value) is int and 0 <= value < _WORD:  # Hot path: 0.2 µs, all below 0.7
        return value
    value = whole(value, field, -(1 << 31), _WORD - 1, faults)
    if value is not None and value < 0:
        faults.append((field, "sign"))
        return value + _WORD
    return value


# Field of Voice -> its names in report_blocks_xr and voip_metrics, in Extended_report_information.
_VOICE = {
    "loss": ("fraction_lost", "loss_rate"),
    "discard": ("fraction_discard", "discard_rate"),
    "burst_density": ("burst_density", "burst_rate"),
    "gap_density": ("gap_density", "gap_rate"),
    "burst_duration": ("burst_duration", "burst_duration"),
    "gap_duration": ("gap_duration", "gap_duration"),
    "round_trip": ("round_trip_delay", "round_trip_delay"),
    "end_system": ("end_system_delay", "end_sys_delay"),
    "signal": ("signal_level", "signal_lev"),
    "noise": ("noise_level", "noise_lev"),
    "rerl": ("rerl", "RERL"),
    "gmin": ("gmin", "Gmin"),
    "r": ("r_factor", "R_fact"),
    "external_r": ("ext_r_factor", "ext_R_fact"),
    "jb_nominal": ("jb_nominal", "JB_nom"),
    "jb_maximum": ("jb_maximum", "JB_max"),
    "jb_abs_max": ("jb_abs_max", "JB_abs_max"),
}
_SHARES = {"loss", "discard", "burst_density", "gap_density"}  # of 256
_LEVELS = {"signal", "noise", "rerl"}


def _voice(found: dict[str, Any], faults: list[Fault]) -> Voice | None:
    own, captagent = 0, 1
    spelling = own
    values: dict[str, Any] = {}
    for key in ("report_blocks_xr", "voip_metrics"):
        each = found.get(key)
        if isinstance(each, dict):
            values.update(each)
    if not values and isinstance(found.get("Extended_report_information"), dict):
        spelling, values = captagent, found["Extended_report_information"]
    # heplify writes the object with zeros where the packet has no block of voice metrics.
    kind = values.get("type", _XR)
    if not any(values.values()) or kind not in (_XR, str(_XR)):
        return None
    name = ("id", "identifier")[spelling]
    read: dict[str, Any] = {"source_ssrc": _unsigned(values.get(name), name, faults)}
    for field, names in _VOICE.items():
        name = names[spelling]
        read[field] = _measure(field, values.get(name), name, faults)
    lq, cq = (("mos_lq", "mos_cq"), ("MOS_LQ", "MOS_CQ"))[spelling]
    read["mos_lq"] = _mos(values.get(lq), lq, 10, faults)
    read["mos_cq"] = _mos(values.get(cq), cq, 10, faults)
    if read["gmin"] is not None:
        read["gmin"] = int(read["gmin"])
    return Voice(**read)


def _measure(field: str, value: object, name: str, faults: list[Fault]) -> float | None:
    if field in _SHARES:
        share = number(value, name, 0, 255, faults)
        return None if share is None else share * 100 / 256
    if field in _LEVELS:
        level = number(value, name, -128, 255, faults)
        if level is not None and level > 127:
            level -= 256
            faults.append((name, "sign"))
        return None if level == 127 else level
    if field in ("r", "external_r"):
        if value in (127, "127"):
            return None
        return number(value, name, 0, 100, faults)
    found = number(value, name, 0, 255 if field == "gmin" else 65535, faults)
    if (field == "round_trip" and found == 0) or (field == "jb_abs_max" and found == 65535):
        return None
    return found


def _mos(value: object, name: str, times: int, faults: list[Fault]) -> float | None:
    """Of 1 to 5; 127 and 0 are unknown."""
    if value in (127, "127", 0, "0"):
        return None
    found = number(value, name, times, 5 * times, faults)
    return None if found is None else found / times


def _cname(items: object) -> str | None:
    for each in items if isinstance(items, list) else ():
        if isinstance(each, dict) and each.get("type") in (1, "1"):
            text = each.get("text")
            return text if isinstance(text, str) else None
    return None
