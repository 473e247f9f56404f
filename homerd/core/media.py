"""Media of calls: which call an RTCP or RTP packet belongs to, and what is told of it.

SDP says where media will flow; RTCP from or to there becomes the JSON that agents send (payload
type 5), with the Call-ID as its correlation id.  RTP is measured only when asked for: a report
(payload type 34) each interval, and one when the stream ends.

Time is that of the capture.  At most MAX_STREAMS are measured; what goes beyond is counted in
`counts`, by NOTES.
"""

from __future__ import annotations

from collections import Counter
from json import JSONEncoder
from typing import Any

from homerd.core import calls
from homerd.core.calls import Calls
from homerd.errors import DecodeError
from homerd.wire import emodel, rtcp, rtp
from homerd.wire.frame import IPV4, IPV6, Frame, address_text
from homerd.wire.ip import Datagram
from homerd.wire.rtp import Header, Reception
from homerd.wire.sdp import Codec

REASONS = (*rtcp.REASONS, "rtcp_no_report", *rtp.REASONS)
NOTES = (*calls.NOTES, "rtcp_no_call", "rtp_no_call", "rtp_streams")

RTCP_JSON, RTP_REPORT = 5, 34  # payload types of HEP
MAX_STREAMS = 16_384

_SILENCE = 10  # after which a stream has ended
_SWEEP = 2

_text = JSONEncoder(separators=(",", ":")).encode


class MediaTable:
    """The addresses where calls have their media, and the streams that are measured.

    report_seconds: how often RTP is reported; 0: it is not looked at.
    counts: by NOTES.
    """

    def __init__(self, report_seconds: int = 0) -> None:
        self.report_seconds = report_seconds
        self._calls = Calls()
        self.counts: Counter[str] = self._calls.counts
        self._streams: dict[tuple[Any, ...], _Stream] = {}
        self._late: list[Frame] = []
        self._swept = 0

    def learn(self, frame: Frame) -> None:
        """A SIP message: with SDP it tells where media will flow, else whether a call ends."""
        self._calls.learn(frame, frame.seconds, frame.seconds)

    def take(self, packet: Datagram) -> Frame | None:
        """What is to be said of a datagram of version 2; None when nothing is.

        Raises DecodeError with one of REASONS.
        """
        seconds = packet.seconds
        if not -_SWEEP < seconds - self._swept < _SWEEP:
            self._sweep(seconds)
        payload = packet.payload
        if len(payload) > 1 and rtcp.SR <= payload[1] <= rtcp.XR:
            return self._take_rtcp(packet)
        return self._measure(packet) if self.report_seconds else None

    def take_late(self) -> list[Frame]:
        """What was to be said besides, since the last call."""
        late = self._late
        if late:
            self._late = []
        return late

    def expire(self, seconds: int) -> None:
        """End what has ended by *seconds*; reports of it are given by take_late."""
        self._sweep(seconds)

    def finish(self) -> None:
        """Nothing more will come: every stream has ended."""
        for stream in self._streams.values():
            self._late.append(stream.report("FINAL"))
        self._streams.clear()

    def _sweep(self, seconds: int) -> None:
        self._swept = seconds
        self._calls.expire(seconds)
        silent = [key for key, each in self._streams.items() if each.last + _SILENCE <= seconds]
        for key in silent:
            self._late.append(self._streams.pop(key).report("FINAL"))

    def _take_rtcp(self, packet: Datagram) -> Frame:
        told = rtcp.as_json(rtcp.decode(packet.payload))
        if not told:
            raise DecodeError("rtcp_no_report")
        place_at, seconds = self._calls.place, packet.seconds
        place = place_at(packet.src, packet.src_port, seconds) or place_at(
            packet.dst, packet.dst_port, seconds
        )
        call_id = None
        if place is None:
            self.counts["rtcp_no_call"] += 1
        else:
            call_id = place.call.call_id
        frames = [_frame(packet, RTCP_JSON, call_id, each) for each in told]
        self._late += frames[1:]
        return frames[0]

    def _measure(self, packet: Datagram) -> Frame | None:
        header = rtp.decode(packet.payload)
        key = (packet.src, packet.src_port, packet.dst, packet.dst_port, header.ssrc)
        stream = self._streams.get(key)
        if stream is None:
            sender = self._calls.place(packet.src, packet.src_port, packet.seconds)
            receiver = self._calls.place(packet.dst, packet.dst_port, packet.seconds)
            place = sender or receiver
            if place is None:
                self.counts["rtp_no_call"] += 1
                return None
            if len(self._streams) >= MAX_STREAMS:
                self.counts["rtp_streams"] += 1
                return None
            # Payload types mean what the receiver's SDP says.
            codecs = {**(sender.codecs if sender else {}), **(receiver.codecs if receiver else {})}
            stream = self._streams[key] = _Stream(place.call.call_id, header.ssrc, codecs, packet)
        stream.add(header, packet)
        if packet.seconds < stream.due(self.report_seconds):
            return None
        return stream.report("PERIODIC")


class _Stream:
    """A stream that is measured.  last: second of its latest packet."""

    __slots__ = (
        "_call_id",
        "_codec",
        "_codecs",
        "_expected",
        "_latest",
        "_packets",
        "_payload_type",
        "_reported",
        "_scores",
        "_shown",
        "_ssrc",
        "last",
        "reception",
    )

    def __init__(self, call_id: str, ssrc: int, codecs: dict[int, Codec], packet: Datagram) -> None:
        self.reception = Reception()
        self.last = self._reported = packet.seconds
        self._call_id = call_id
        self._ssrc = ssrc
        self._codecs = {**rtp.CODECS, **codecs}
        self._codec: Codec | None = None
        self._payload_type = -1
        self._shown: tuple[int, Codec | None] | None = None  # of the speech, not of its events
        self._latest = packet
        self._packets = self._expected = 0  # as told by the last report
        self._scores: list[float] = []  # least, sum and number of R in the reports

    def add(self, header: Header, packet: Datagram) -> None:
        """One packet."""
        kind = header.payload_type
        if kind != self._payload_type:
            self._payload_type = kind
            self._codec = self._codecs.get(kind)
            if self._shown is None or not rtp.is_beside(self._codec):
                self._shown = kind, self._codec
        self.reception.add(header, packet.seconds * 1_000_000 + packet.micros, self._codec)
        self.last = packet.seconds
        self._latest = packet

    def due(self, report_seconds: int) -> int:
        """The second when the next report is due."""
        return self._reported + report_seconds

    def report(self, kind: str) -> Frame:
        """The whole stream so far; quality is that since the last report, at the end of all."""
        told, packet = self.reception, self._latest
        codec_type, codec = self._shown or (self._payload_type, None)
        packets, expected = told.packets, told.expected
        final = kind == "FINAL"
        score = self._r_factor(0, 0) if final else self._r_factor(self._packets, self._expected)
        self._packets, self._expected, self._reported = packets, expected, packet.seconds
        report: dict[str, Any] = {
            "CORRELATION_ID": self._call_id,
            "RTP_SIP_CALL_ID": self._call_id,
            "REPORT_TS": packet.seconds,
            "TYPE": kind,
            "SSRC": self._ssrc,
            "SRC_IP": address_text(packet.src),
            "SRC_PORT": packet.src_port,
            "DST_IP": address_text(packet.dst),
            "DST_PORT": packet.dst_port,
            "CODEC_PT": codec_type,
            "CODEC_NAME": codec.name if codec else "",
            "CLOCK": codec.clock if codec else 0,
            "TOTAL_PK": packets,
            "EXPECTED_PK": expected,
            "PACKET_LOSS": told.lost,
            "TL_BYTE": told.octets,
            "SEQ": told.highest & 0xFFFF,
            "OUT_ORDER": told.out_of_order,
            "DELTA": round(told.delta, 3),
            "MAX_DELTA": round(told.max_delta, 3),
            "SKEW": round(told.skew, 3),
            "MAX_SKEW": round(told.max_skew, 3),
        }
        if told.jitter is not None:
            report["JITTER"] = round(told.jitter, 3)
            report["MAX_JITTER"] = round(told.max_jitter, 3)
            report["MEAN_JITTER"] = round(told.mean_jitter or told.jitter, 3)
        if score is not None:
            self._quality(report, score)
        return _frame(packet, RTP_REPORT, self._call_id, report)

    def _r_factor(self, packets: int, expected: int) -> float | None:
        """R of what came after *packets* of *expected*."""
        codec = (self._shown or (0, None))[1]
        wanted = self.reception.expected - expected
        lost = wanted - (self.reception.packets - packets)
        share = 100 * max(lost, 0) / wanted if wanted > 0 else 0.0
        return emodel.r_factor(codec.name, share) if codec else None

    def _quality(self, report: dict[str, Any], score: float) -> None:
        least, total, number = self._scores or (score, 0.0, 0)
        least, total, number = min(least, score), total + score, number + 1
        self._scores = [least, total, number]
        mean = total / number
        for name, value in (("", score), ("MIN_", least), ("MEAN_", mean)):
            report[f"{name}RFACTOR"] = round(value, 1)
            report[f"{name}MOS"] = round(emodel.mos(value), 2)


def _frame(packet: Datagram, kind: int, call_id: str | None, told: dict[str, Any]) -> Frame:
    return Frame(
        0,
        IPV4 if len(packet.src) == 4 else IPV6,
        packet.protocol,
        packet.src,
        packet.dst,
        packet.src_port,
        packet.dst_port,
        packet.seconds,
        packet.micros,
        kind,
        correlation_id=call_id,
        payload=_text(told).encode(),
    )
