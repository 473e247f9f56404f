"""Which call a quality report belongs to: the part of module qos that knows calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from homerd.api import (
    Frame,
    Packet,
    Sample,
    calls,
    qos,
    roundtrip,
    rtcpjson,
    script_function,
    sdp,
)

_SIP = 1  # payload type of HEP
_REPORTS = frozenset({5, 32, 33, 34, 35, 36, 37, 38, 99})  # those that tell of quality
_SWEEP = 2  # seconds
_MAX_SSRCS = 32  # of one report

BY_REPORT, BY_CORRELATION, BY_SDP, BY_SSRC = "report", "correlation_id", "sdp", "ssrc"

# What comes from the addresses of the media themselves.
_OF_MEDIA = (qos.RTCP, qos.RTCP_JSON, qos.RTP_AGENT)


class Tie(NamedTuple):
    """The call of a report.

    call_id: "" when no call is known.  by: what told it, BY_REPORT and its like; "" without.
    user_agent: of the side that reports.  codec, clock: of the media; None and 0 where not known.
    """

    call_id: str = ""
    by: str = ""
    user_agent: str | None = None
    codec: str | None = None
    clock: int = 0


class Told(NamedTuple):
    """What a packet told of quality, and of which call."""

    report: qos.Report
    tie: Tie


class QosCalls:
    """Mixed into the module qos, which says what a packet tells."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = calls.Calls(details=True)
        self.trips = roundtrip.RoundTrips()
        self.ties: Counter[str] = Counter()
        self._swept = 0

    def told(self, packet: Packet) -> Told | None:
        """What the packet told of quality."""
        raise NotImplementedError

    @script_function
    def qos_learn(self, packet: Packet) -> bool:
        """Remember where the call has its media, or that it ends; true when that was told.

        Of SIP: the addresses in SDP, `a=ssrc`, the codec and the user agent; BYE, refusal and
        CANCEL.  Of a report: when it came and whose it is, by which later ones find their call and
        round trip; `qos_capture()` and `$qos` do the same.
        """
        frame = packet.hep
        if frame.payload_type in _REPORTS:
            return self.told(packet) is not None
        now = self.sweep(packet)
        message = packet.sip if packet.frame is frame else None
        return self.calls.learn(frame, frame.seconds or packet.seconds, now, message) is not None

    def sweep(self, packet: Packet) -> int:
        """The second by the script's clock; what is over by then is forgotten."""
        now = int(packet.state.now())
        if not -_SWEEP < now - self._swept < _SWEEP:
            self._swept = now
            self.calls.expire(now)
        return now

    def call_samples(self) -> Iterator[Sample]:
        """For /metrics."""
        if known := len(self.calls):
            yield Sample("homerd_qos_calls", {}, known, "Calls that are known.")
        for by, count in self.ties.items():
            yield Sample("homerd_qos_ties_total", {"by": by}, count)
        for reason, count in self.calls.counts.items():
            yield Sample("homerd_qos_unlearnt_total", {"reason": reason}, count)


class Search:
    """One report's way to its call; `media` is asked while it is read, `tie` after that."""

    __slots__ = (
        "_codec",
        "_frame",
        "_known",
        "_micros",
        "_now",
        "_place",
        "_seconds",
        "_sent",
        "_ssrcs",
    )

    def __init__(self, known: QosCalls, packet: Packet, frame: Frame) -> None:
        self._known = known
        self._frame = frame
        self._now = known.sweep(packet)
        self._seconds = frame.seconds or packet.seconds
        self._micros = frame.micros if frame.seconds else packet.micros
        self._place: calls.Place | None = None
        self._sent = True  # whether it came from that place
        self._ssrcs: list[int] = []
        self._codec: sdp.Codec | None = None

    def media(self, reports: list[rtcpjson.Report]) -> qos.Media:
        """What is known of the media of RTCP, or with no *reports* of those of an RTP agent."""
        frame, seconds = self._frame, self._seconds
        known = self._known.calls
        place = known.place(frame.src, frame.src_port, seconds)
        if place is None:
            place = known.place(frame.dst, frame.dst_port, seconds)
            self._sent = False
        self._place = place
        trips = {}
        if reports:
            trips = self._trips(reports)
        codec = None
        if place is not None and place.call.sides is not None:
            codec = place.call.sides.codec(place.line, self._ssrcs)
        elif (call := self._call_beside()) is not None and call.sides is not None:
            codec = call.sides.codec(None, self._ssrcs)
        self._codec = codec
        if codec is None:
            return qos.Media(trips=trips)
        return qos.Media(codec.name, codec.clock, trips)

    def tie(self, report: qos.Report) -> Tie:
        """The call that the report names, else the one its sender says it is of, else by media.

        What agents say of a PUBLISH is its own Call-ID, not that of the call it tells of.
        """
        frame, place = self._frame, self._place
        of_media = report.form in _OF_MEDIA
        if report.form == qos.RTP_AGENT and place is None:
            self.media([])
            place = self._place
        if not self._ssrcs:  # those of RTCP are noted
            for record in report.records:
                self._note(record.ssrc)
        call_id, by = "", ""
        if report.call_id:
            call_id, by = report.call_id, BY_REPORT
        elif frame.correlation_id and not (
            report.form == qos.VQ_RTCPXR and frame.payload_type == _SIP
        ):
            call_id, by = frame.correlation_id, BY_CORRELATION
        elif place is not None:
            call_id, by = place.call.call_id, BY_SDP
        elif (call := self._call_by_ssrc()) is not None:
            call_id, by = call.call_id, BY_SSRC
        self._known.ties[by or "none"] += 1
        if not call_id:
            return Tie()
        if self._ssrcs and of_media and by != BY_SSRC:
            self._known.calls.hear(call_id, self._ssrcs, self._seconds, self._now)
        codec = self._codec
        if codec is None:
            return Tie(call_id, by, self._user_agent())
        return Tie(call_id, by, self._user_agent(), codec.name, codec.clock)

    def _note(self, ssrc: int | None) -> None:
        if ssrc and ssrc not in self._ssrcs and len(self._ssrcs) < _MAX_SSRCS:
            self._ssrcs.append(ssrc)

    def _trips(self, reports: list[rtcpjson.Report]) -> dict[tuple[int | None, int | None], float]:
        """Remember what was sent; how long ago what is answered was."""
        frame, trips = self._frame, self._known.trips
        where, micros = frame.capture_id, self._seconds * 1_000_000 + self._micros
        found = {}
        for told in reports:
            self._note(told.ssrc)
            for block in told.blocks:
                self._note(block.source_ssrc)
                trip = trips.back(where, block.source_ssrc, block.lsr, block.dlsr, micros)
                if trip is not None:
                    found[told.ssrc, block.source_ssrc] = trip
            if told.sender is not None and told.ssrc is not None:
                for middle in told.sender.middles:
                    trips.sent(where, told.ssrc, middle, micros, self._now)
        return found

    def _call_beside(self) -> calls.Call | None:
        """The call that is known without an address."""
        named = self._frame.correlation_id
        if named:
            return self._known.calls.by_id(named, self._seconds)
        return self._call_by_ssrc()

    def _call_by_ssrc(self) -> calls.Call | None:
        """The one call that sends by these SSRCs; none when it is not one."""
        found = None
        for ssrc in self._ssrcs:
            call = self._known.calls.of_ssrc(ssrc, self._seconds)
            if call is not None and call is not found:
                if found is not None:
                    return None
                found = call
        return found

    def _user_agent(self) -> str | None:
        place = self._place
        if place is None or place.call.sides is None:
            return None
        sides = place.call.sides
        return sides.agents.get(place.side) if self._sent else sides.agent_beside(place.side)
