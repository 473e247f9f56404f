"""RTCP: compound packets to values, and to the JSON that capture agents send of them.

Nothing is kept between packets.  Any bytes give values or a DecodeError with one of REASONS; a part
whose inside is shorter than it says is one too.  Sources: RFC 3550 6, RFC 3611 4 (extended
reports), RFC 4585 6.1 (feedback).
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from homerd.errors import DecodeError

REASONS = ("rtcp_version", "rtcp_truncated", "rtcp_padding", "rtcp_content")

SR, RR, SDES, BYE, APP, RTPFB, PSFB, XR = range(200, 208)
KINDS = range(192, 224)  # what no RTP has in the second byte, RFC 5761 4
(
    LOSS_RLE,
    DUPLICATE_RLE,
    RECEIPT_TIMES,
    REFERENCE_TIME,
    DLRR,
    STATISTICS_SUMMARY,
    VOIP_METRICS,
) = range(1, 8)

_MAX_PARTS = 64

_head = Struct(">BBH").unpack_from
_word = Struct(">I").unpack_from
_sender = Struct(">IIIIII").unpack_from
_block = Struct(">IBBHIIII").unpack_from
_runs = Struct(">IHH").unpack_from
_pair = Struct(">II").unpack_from
_delay = Struct(">III").unpack_from
_summary = Struct(">IHHIIIIIIBBBB").unpack_from
_voip = Struct(">IBBBBHHHHbbBBBBBBBxHHH").unpack_from


class Block(NamedTuple):
    """A report block: how *source_ssrc* was received.

    fraction_lost of 256; packets_lost may be negative; ia_jitter in units of the RTP clock; lsr the
    middle of an NTP time; dlsr in 1/65536 s.
    """

    source_ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_seq_no: int
    ia_jitter: int
    lsr: int
    dlsr: int


class SenderReport(NamedTuple):
    """SR; the time is NTP's, seconds since 1900 and a fraction of 2^32."""

    ssrc: int
    ntp_seconds: int
    ntp_fraction: int
    rtp_timestamp: int
    packets: int
    octets: int
    blocks: list[Block]


class ReceiverReport(NamedTuple):
    """RR."""

    ssrc: int
    blocks: list[Block]


class Description(NamedTuple):
    """One chunk of SDES: (type, text) of each item; type 1 is the CNAME."""

    ssrc: int
    items: list[tuple[int, bytes]]


class SourceDescription(NamedTuple):
    """SDES."""

    chunks: list[Description]


class Goodbye(NamedTuple):
    """BYE."""

    sources: list[int]
    reason: bytes


class Application(NamedTuple):
    """APP."""

    subtype: int
    ssrc: int
    name: bytes
    data: bytes


class Feedback(NamedTuple):
    """RTPFB and PSFB."""

    kind: int
    format: int
    ssrc: int
    media_ssrc: int
    data: bytes


class Other(NamedTuple):
    """A part of a kind without fields here."""

    kind: int
    data: bytes


class Runs(NamedTuple):
    """XR blocks 1, 2 and 3: runs of loss or of duplicates, receipt times; begin ≤ n < end."""

    kind: int
    thinning: int
    ssrc: int
    begin_seq: int
    end_seq: int
    data: bytes


class ReferenceTime(NamedTuple):
    """XR block 4."""

    ntp_seconds: int
    ntp_fraction: int


class Delay(NamedTuple):
    """An item of XR block 5: last receiver report and the delay since, as lsr and dlsr are."""

    ssrc: int
    lrr: int
    dlrr: int


class Delays(NamedTuple):
    """XR block 5."""

    items: list[Delay]


class StatisticsSummary(NamedTuple):
    """XR block 6.  flags: which fields were measured; jitter in units of the RTP clock."""

    flags: int
    id: int
    begin_seq: int
    end_seq: int
    lost_packets: int
    dup_packets: int
    min_jitter: int
    max_jitter: int
    mean_jitter: int
    dev_jitter: int
    min_ttl: int
    max_ttl: int
    mean_ttl: int
    dev_ttl: int


class VoipMetrics(NamedTuple):
    """XR block 7; rates of 256, durations in ms, levels in dBm0, MOS times 10, 127: unknown."""

    id: int
    fraction_lost: int
    fraction_discard: int
    burst_density: int
    gap_density: int
    burst_duration: int
    gap_duration: int
    round_trip_delay: int
    end_system_delay: int
    signal_level: int
    noise_level: int
    rerl: int
    gmin: int
    r_factor: int
    ext_r_factor: int
    mos_lq: int
    mos_cq: int
    rx_config: int
    jb_nominal: int
    jb_maximum: int
    jb_abs_max: int


XrBlock = Runs | ReferenceTime | Delays | StatisticsSummary | VoipMetrics | Other


class ExtendedReport(NamedTuple):
    """XR."""

    ssrc: int
    blocks: list[XrBlock]


Part = (
    SenderReport
    | ReceiverReport
    | SourceDescription
    | Goodbye
    | Application
    | Feedback
    | ExtendedReport
    | Other
)


def looks_like_rtcp(data: bytes) -> bool:
    """Whether *data* is parts of version 2 from its first byte to its last."""
    at, size = 0, len(data)
    while at + 4 <= size:
        first, kind, words = _head(data, at)
        if first & 0xC0 != 0x80 or kind not in KINDS:
            return False
        at += 4 + 4 * words
    return at == size > 0


def decode(data: bytes) -> list[Part]:
    """The parts of a compound packet.

    version(2 bits) padding(1) count(5) kind(u8) length(u16, words that follow)
    """
    parts: list[Part] = []
    at, size = 0, len(data)
    while at < size:
        if size < at + 4:
            raise DecodeError("rtcp_truncated", at)
        first, kind, words = _head(data, at)
        if first & 0xC0 != 0x80 or kind not in KINDS or len(parts) >= _MAX_PARTS:
            raise DecodeError("rtcp_version", at)
        end = at + 4 + 4 * words
        if end > size:
            raise DecodeError("rtcp_truncated", at + 2)
        stop = end
        if first & 0x20:
            # The last byte counts the padding, itself included.
            stop = end - data[end - 1]
            if stop == end or stop < at + 4:
                raise DecodeError("rtcp_padding", end - 1)
        parts.append(_part(kind, first & 0x1F, data, at + 4, stop))
        at = end
    if not parts:
        raise DecodeError("rtcp_truncated", 0)
    return parts


def _part(kind: int, count: int, data: bytes, at: int, end: int) -> Part:
    if kind == SR:
        _need(end, at, 24)
        ssrc, seconds, fraction, timestamp, packets, octets = _sender(data, at)
        blocks = _blocks(count, data, at + 24, end)
        return SenderReport(ssrc, seconds, fraction, timestamp, packets, octets, blocks)
    if kind == RR:
        _need(end, at, 4)
        return ReceiverReport(_word(data, at)[0], _blocks(count, data, at + 4, end))
    if kind == SDES:
        return _description(count, data, at, end)
    if kind == XR:
        return _extended(data, at, end)
    if kind == BYE:
        _need(end, at, 4 * count)
        rest = at + 4 * count
        sources = [_word(data, place)[0] for place in range(at, rest, 4)]
        length = data[rest] if rest < end else 0
        _need(end, rest, 1 + length if rest < end else 0)
        return Goodbye(sources, data[rest + 1 : rest + 1 + length])
    if kind == APP:
        _need(end, at, 8)
        return Application(count, _word(data, at)[0], data[at + 4 : at + 8], data[at + 8 : end])
    if kind in (RTPFB, PSFB):
        _need(end, at, 8)
        ssrc, media_ssrc = _pair(data, at)
        return Feedback(kind, count, ssrc, media_ssrc, data[at + 8 : end])
    return Other(kind, data[at:end])


def _need(end: int, at: int, size: int) -> None:
    if end < at + size:
        raise DecodeError("rtcp_content", at)


def _blocks(count: int, data: bytes, at: int, end: int) -> list[Block]:
    """source(u32) fraction(u8) lost(i24) highest(u32) jitter(u32) lsr(u32) dlsr(u32), each.

    What stands behind them are extensions of a profile.
    """
    _need(end, at, 24 * count)
    blocks = []
    for place in range(at, at + 24 * count, 24):
        source, fraction, high, low, highest, jitter, lsr, dlsr = _block(data, place)
        lost = high << 16 | low
        if lost > 0x7FFFFF:
            lost -= 0x1000000
        blocks.append(Block(source, fraction, lost, highest, jitter, lsr, dlsr))
    return blocks


def _description(count: int, data: bytes, at: int, end: int) -> SourceDescription:
    """ssrc(u32) { type(u8) length(u8) text } 0, filled up with zeros to the next word."""
    chunks = []
    for _ in range(count):
        _need(end, at, 4)
        ssrc = _word(data, at)[0]
        place = at + 4
        items = []
        while place < end and data[place]:
            _need(end, place, 2)
            length = data[place + 1]
            _need(end, place + 2, length)
            items.append((data[place], data[place + 2 : place + 2 + length]))
            place += 2 + length
        chunks.append(Description(ssrc, items))
        # Words are counted from the chunk; the zero that ends it fills up at least one byte.
        at += (place - at) // 4 * 4 + 4
    return SourceDescription(chunks)


def _extended(data: bytes, at: int, end: int) -> ExtendedReport:
    """ssrc(u32) { kind(u8) specific(u8) length(u16, words that follow) content }"""
    _need(end, at, 4)
    ssrc = _word(data, at)[0]
    at += 4
    blocks = []
    while at < end:
        _need(end, at, 4)
        kind, specific, words = _head(data, at)
        _need(end, at, 4 + 4 * words)
        blocks.append(_extended_block(kind, specific, data, at + 4, at + 4 + 4 * words))
        at += 4 + 4 * words
    return ExtendedReport(ssrc, blocks)


def _extended_block(kind: int, specific: int, data: bytes, at: int, end: int) -> XrBlock:
    if kind == VOIP_METRICS:
        _need(end, at, 32)
        return VoipMetrics(*_voip(data, at))
    if kind == STATISTICS_SUMMARY:
        _need(end, at, 36)
        return StatisticsSummary(specific, *_summary(data, at))
    if kind in (LOSS_RLE, DUPLICATE_RLE, RECEIPT_TIMES):
        _need(end, at, 8)
        ssrc, begin, stop = _runs(data, at)
        return Runs(kind, specific & 0x0F, ssrc, begin, stop, data[at + 8 : end])
    if kind == REFERENCE_TIME:
        _need(end, at, 8)
        return ReferenceTime(*_pair(data, at))
    if kind == DLRR:
        items = [Delay(*_delay(data, place)) for place in range(at, end - 11, 12)]
        return Delays(items)
    return Other(kind, data[at:end])


def as_json(parts: list[Part]) -> list[dict[str, Any]]:
    """What agents send of these parts as JSON: an object for each SSRC that reports.

    Keys are captagent's; the extended report's are those of heplify.  Numbers are as on the wire.
    Of parts that report nothing (BYE, APP, feedback) alone there is none.
    """
    told: dict[int, dict[str, Any]] = {}
    for part in parts:
        if isinstance(part, SenderReport):
            sender = {
                "ntp_timestamp_sec": part.ntp_seconds,
                "ntp_timestamp_usec": part.ntp_fraction,
                "octets": part.octets,
                "rtp_timestamp": part.rtp_timestamp,
                "packets": part.packets,
            }
            _report(told, part.ssrc, SR, part.blocks, {"sender_information": sender})
        elif isinstance(part, ReceiverReport):
            _report(told, part.ssrc, RR, part.blocks)
    more: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, SourceDescription):
            _describe(told, part.chunks)
        elif isinstance(part, ExtendedReport):
            more += _extend(told, part)
    return [*told.values(), *more]


def _report(
    told: dict[int, dict[str, Any]],
    ssrc: int,
    kind: int,
    blocks: list[Block],
    first: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of *ssrc*, with *blocks* added: more than 31 come in a second part."""
    report = told.get(ssrc)
    if report is None:
        report = first or {}
        report.update(ssrc=ssrc, type=kind, report_count=0, report_blocks=[])
        told[ssrc] = report
    elif first:
        report.update(first, type=kind)
    if blocks:
        report["report_count"] += len(blocks)
        report["report_blocks"] += [each._asdict() for each in blocks]
    return report


def _empty(ssrc: int, kind: int) -> dict[str, Any]:
    return {"ssrc": ssrc, "type": kind, "report_count": 0, "report_blocks": []}


def _describe(told: dict[int, dict[str, Any]], chunks: list[Description]) -> None:
    """Each chunk to the report of its SSRC; those of others (a mixer's) to the first."""
    for chunk in chunks:
        report = told.get(chunk.ssrc) or next(iter(told.values()), None)
        if report is None:
            report = _report(told, chunk.ssrc, SDES, [])
        report.setdefault("sdes_ssrc", chunk.ssrc)
        report["sdes_report_count"] = report.get("sdes_report_count", 0) + 1
        items = report.setdefault("sdes_information", [])
        for kind, text in chunk.items:
            item: dict[str, Any] = {"type": kind, "text": text.decode("utf-8", "replace")}
            if chunk.ssrc != report["sdes_ssrc"]:
                item["sdes_chunk_ssrc"] = chunk.ssrc
            items.append(item)


def _extend(told: dict[int, dict[str, Any]], part: ExtendedReport) -> list[dict[str, Any]]:
    """The blocks to the report of their SSRC; voice metrics of more sources stand in their own."""
    report = told.get(part.ssrc) or _report(told, part.ssrc, XR, [])
    more = []
    for block in part.blocks:
        if isinstance(block, VoipMetrics):
            target = report
            if "report_blocks_xr" in report:
                target = _empty(part.ssrc, XR)
                more.append(target)
            fields = list(block._asdict().items())
            target["report_blocks_xr"] = {"type": VOIP_METRICS, **dict(fields[:9])}
            target["voip_metrics"] = dict(fields[9:])
        elif isinstance(block, StatisticsSummary):
            report.setdefault("statistics_summary", []).append(block._asdict())
        elif isinstance(block, ReferenceTime):
            report["receiver_reference_time"] = {
                "ntp_timestamp_sec": block.ntp_seconds,
                "ntp_timestamp_usec": block.ntp_fraction,
            }
        elif isinstance(block, Delays):
            report.setdefault("dlrr", []).extend(each._asdict() for each in block.items)
        elif isinstance(block, Runs):
            report.setdefault("runs", []).append(
                {
                    "type": block.kind,
                    "id": block.ssrc,
                    "begin_seq": block.begin_seq,
                    "end_seq": block.end_seq,
                }
            )
    return more
