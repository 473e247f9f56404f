"""Reports of calls, made of their RTCP and of their measured RTP.

A call has a report for each pair of addresses between which its media flow.  Local is the caller's
side, the one whose address SDP of the caller names; without SDP the side whose reception was told
first.  LocalMetrics are what the local side received.

A call is told of TAIL_SECONDS after BYE, as the last reports are still on their way; without its
signalling, after the last of its measured streams; else when nothing came for five minutes.  At
most MAX_CALLS with MAX_STREAMS in all are followed, 100 MB of them: for one more call the one that
ended first is told of at once.  What is not taken is counted in `counts`, by NOTES.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import NamedTuple

from homerd.api import Frame, SipMessage, parse_name_addr, qos, sdp, vqrtcpxr, vqrtcpxr_text
from homerd_plugins._qos_calls import Told
from homerd_plugins._qos_streams import Stream, received

NOTES = ("no_call", "no_address", "no_room", "late")

MAX_CALLS = 32_768
MAX_STREAMS = 131_072
TAIL_SECONDS = 15  # RTP is told of when it was silent for 10 seconds
_AFTER_FINAL = 5
_SILENCE = 300
_UNHEARD = 3600  # of a call whose signalling alone was seen
_REMEMBERED = 120  # for which what comes for a call that was told of is late
_LOOK = 60
_NEAR = 30  # media that begin or end so near to answer and BYE begin or end with them
_MAX_PAIRS, _MAX_STREAMS, _MAX_ADDRESSES, _MAX_TAGS = 8, 16, 32, 8
_MAX_CALL_ID, _MAX_NAME = 1024, 512

FINAL = "FINAL"
_FORMS = (qos.RTCP, qos.RTCP_JSON, qos.RTP_AGENT)

_Address = tuple[bytes, int]


class CallReport(NamedTuple):
    """A report that was made.

    kind: "session" or "interval".  local, remote: packed address and port of RTP.  seconds: of the
    time it tells of, the last.
    """

    kind: str
    call_id: str
    body: bytes
    local: _Address
    remote: _Address
    seconds: int
    capture_id: int | None


class Reporter:
    """The calls that go on.

    interval: seconds between reports of one that does; 0: none.  made: reports that are to go out.
    """

    def __init__(self, interval: int = 0) -> None:
        self.interval = interval
        self.counts: Counter[str] = Counter()
        self.made: list[CallReport] = []
        self._calls: dict[str, _Call] = {}
        self._ended: dict[str, _Call] = {}  # of these, the one that ended first
        self._told: dict[str, float] = {}  # those that ended, and until when they are remembered
        self._due: list[tuple[float, int, _Call]] = []
        self._number = 0
        self._streams = 0

    def __len__(self) -> int:
        return len(self._calls)

    def learn(self, message: SipMessage, frame: Frame, seconds: int, now: float) -> bool:
        """A SIP message: who talks, where they have their media, and that they end."""
        call_id = message.call_id
        if not call_id or len(call_id) > _MAX_CALL_ID:
            return False
        method = message.method if message.is_request else None
        if method == "BYE":
            return self._bye(call_id, seconds, now)
        begins = method == "INVITE" and not message.to_tag
        at = sdp.find(frame.payload)
        if at < 0 and not begins and message.cseq_method != "INVITE":
            return False
        if begins:
            self._told.pop(call_id, None)
        elif call_id in self._told:
            return False
        call = self._calls.get(call_id)
        if call is None:
            if at < 0 and not begins:
                return False
            call = self._new_call(call_id, now)
            if call is None:
                return False
        call.heard = now
        if begins or not call.from_name:
            call.begin(message)
            self._ended.pop(call_id, None)
        if message.is_reply and message.cseq_method == "INVITE":
            self._answered(call, message, seconds, now)
        if at >= 0:
            call.place(frame, at, message)
        self._schedule(call, now)
        return True

    def take(self, told: Told, frame: Frame, at: float, now: float) -> bool:
        """A report of RTCP or of measured RTP; False for others, and for what is not taken.

        at: second of the packet.
        """
        report, call_id = told.report, told.tie.call_id
        if report.form not in _FORMS:
            return False
        if not report.records:
            self.counts["no_figures"] += 1
            return False
        if not call_id or len(call_id) > _MAX_CALL_ID:
            self.counts["no_call"] += 1
            return False
        if not (frame.src and frame.dst and frame.src_port and frame.dst_port):
            self.counts["no_address"] += 1
            return False
        if call_id in self._told:
            self.counts["late"] += 1
            return False
        call = self._calls.get(call_id) or self._new_call(call_id, now)
        if call is None:
            return False
        call.heard = now
        measured = report.form == qos.RTP_AGENT
        source, target = call.ends_of(frame, measured)
        pair = call.pair(*((target, source) if measured else (source, target)), int(at))
        if pair is None:
            self.counts["no_room"] += 1
            return False
        size = pair.size
        is_room = self._streams + len(report.records) <= MAX_STREAMS
        taken = pair.take(report, source, target, at, measured=measured, is_room=is_room)
        self._streams += pair.size - size
        if taken < len(report.records):
            self.counts["no_room"] += 1
        pair.last = max(pair.last, int(at))
        pair.capture_id = frame.capture_id
        if measured:
            call.hear_final(pair, report, now)
        self._schedule(call, now)
        return True

    def take_due(self, now: float) -> list[CallReport]:
        """The reports that are to go out by *now*."""
        while self._due and self._due[0][0] <= now:
            call = heapq.heappop(self._due)[2]
            call.queued = None
            if self._calls.get(call.call_id) is not call:
                continue
            if call.is_over(now):
                self._finish(call, now, is_last=True)
            else:
                if self.interval and call.interval_at is not None and call.interval_at <= now:
                    call.interval_at = max(call.interval_at + self.interval, now + 1)
                    self.made += call.interval_reports()
                self._schedule(call, now)
        while self._told and next(iter(self._told.values())) <= now:
            del self._told[next(iter(self._told))]
        return self.take_made()

    def take_made(self) -> list[CallReport]:
        """The reports that are to go out, since the last call."""
        made, self.made = self.made, []
        return made

    def finish(self, now: float) -> list[CallReport]:
        """Nothing more will come: calls that have not ended are told without CallTerm."""
        for call in list(self._calls.values()):
            self._finish(call, now, is_last=call.end_at is not None)
        return self.take_made()

    def _bye(self, call_id: str, seconds: int, now: float) -> bool:
        call = self._calls.get(call_id)
        if call is None:
            return False
        if not call.bye_at:
            call.bye_at = seconds
            self._end(call, now)
            self._schedule(call, now)
        return True

    def _answered(self, call: _Call, message: SipMessage, seconds: int, now: float) -> None:
        status = message.status or 0
        if 100 < status < 300 and not call.bye_at:
            call.end_at = None  # another telephone has refused it, this one has not
            self._ended.pop(call.call_id, None)
        if 200 <= status < 300:
            call.answered_at = call.answered_at or seconds
            if message.from_tag == call.from_tag:  # else it answers the callee's INVITE
                call.to_tag = call.to_tag or (message.to_tag or "")[:_MAX_NAME]
        elif status >= 300 and not call.answered_at:
            self._end(call, now)  # but for another INVITE, with a password say

    def _end(self, call: _Call, now: float) -> None:
        call.end_at = now + TAIL_SECONDS
        self._ended[call.call_id] = call

    def _new_call(self, call_id: str, now: float) -> _Call | None:
        if len(self._calls) >= MAX_CALLS:
            if not self._ended:
                self.counts["no_room"] += 1
                return None
            self._finish(next(iter(self._ended.values())), now, is_last=True)
        call = self._calls[call_id] = _Call(call_id, now)
        return call

    def _schedule(self, call: _Call, now: float) -> None:
        if call.interval_at is None and self.interval and call.pairs:
            call.interval_at = now + self.interval
        # Each is looked at now and then, so that none is held here long after its end.
        at = min(call.next_at(bool(self.interval)), now + _LOOK)
        if call.queued is None or at < call.queued:
            call.queued = at
            self._number += 1
            heapq.heappush(self._due, (at, self._number, call))

    def _finish(self, call: _Call, now: float, *, is_last: bool) -> None:
        del self._calls[call.call_id]
        self._ended.pop(call.call_id, None)
        self._streams -= sum(pair.size for pair in call.pairs.values())
        if call.pairs:
            while len(self._told) >= MAX_CALLS:
                del self._told[next(iter(self._told))]
            self._told[call.call_id] = now + _REMEMBERED
        self.made += call.session_reports(is_last=is_last)


class _Side:
    """What one end of a pair receives, by SSRC and how it is known; ssrc: what it sends itself."""

    __slots__ = ("end", "ssrc", "streams")

    def __init__(self, end: _Address) -> None:
        self.end = end
        self.ssrc: int | None = None
        self.streams: dict[tuple[int | None, bool], Stream] = {}

    def stream(self, ssrc: int | None, *, measured: bool, is_room: bool) -> Stream | None:
        found = self.streams.get((ssrc, measured))
        if found is None and is_room and len(self.streams) < _MAX_STREAMS:
            found = self.streams[ssrc, measured] = Stream(measured=measured)
        return found


class _Pair:
    """Two addresses between which media flow.  first, last: seconds of what was told of them."""

    __slots__ = ("capture_id", "finals", "first", "last", "sides", "told_until")

    def __init__(self, one: _Address, other: _Address, seconds: int) -> None:
        self.sides = {one: _Side(one), other: _Side(other)}
        self.first = self.last = seconds
        self.told_until: int | None = None
        self.capture_id: int | None = None
        self.finals: set[int | None] = set()  # streams of measured RTP that ended

    @property
    def size(self) -> int:
        """How many streams there are."""
        return sum(len(side.streams) for side in self.sides.values())

    def take(
        self,
        report: qos.Report,
        source: _Address,
        target: _Address,
        at: float,
        *,
        measured: bool,
        is_room: bool,
    ) -> int:
        """How many of the records there was room for; is_room: for new streams."""
        sender, receiver = self.sides[source], self.sides[target]
        taken = 0
        for record in report.records:
            if measured:
                hearing, heard = receiver, sender
            elif record.direction == qos.SENT:
                sender.ssrc = record.ssrc
                hearing, heard = receiver, sender
            else:
                hearing, heard = sender, receiver
            stream = hearing.stream(record.ssrc, measured=measured, is_room=is_room)
            if stream is None:
                continue
            taken += 1
            if record.direction == qos.SENT:
                if record.packets is not None:
                    stream.hear_sent(record.packets, at)
                continue
            if record.ssrc is not None:
                heard.ssrc = record.ssrc
            stream.take(record, at)
            if report.kind == FINAL:
                stream.end()
        return taken

    def streams(self) -> list[Stream]:
        """Of both sides."""
        return [stream for side in self.sides.values() for stream in side.streams.values()]


class _Call:
    """A call that goes on.

    heard: when something was told of it, end_at when it is over, by the script's clock.
    answered_at, bye_at: seconds of the packets.  queued: when it is looked at next.
    """

    __slots__ = (
        "_by_address",
        "_media",
        "_rtcp",
        "_tags",
        "answered_at",
        "bye_at",
        "call_id",
        "end_at",
        "from_name",
        "from_tag",
        "heard",
        "interval_at",
        "pairs",
        "queued",
        "to_name",
        "to_tag",
    )

    def __init__(self, call_id: str, now: float) -> None:
        self.call_id = call_id
        self.heard = now
        self.end_at: float | None = None
        self.interval_at: float | None = None
        self.queued: float | None = None
        self.answered_at = self.bye_at = 0
        self.pairs: dict[frozenset[_Address], _Pair] = {}
        self.from_name = self.to_name = self.from_tag = self.to_tag = ""
        self._tags: set[str] = set()  # of the caller
        self._media: dict[_Address, bool] = {}  # where RTP goes: whether it is the caller's
        self._by_address: dict[bytes, bool | None] = {}  # None: of both
        self._rtcp: dict[_Address, _Address] = {}  # where RTCP goes: the RTP it belongs to

    # Signalling

    def begin(self, message: SipMessage) -> None:
        """An INVITE that begins a call, or begins it again."""
        if not self.bye_at:
            self.end_at = None
        tag = (message.from_tag or "")[:_MAX_NAME]
        if len(self._tags) < _MAX_TAGS:
            self._tags.add(tag)
        if not self.from_name:
            self.from_tag = tag
            self.from_name = _name(message.from_body)
            self.to_name = _name(message.to_body)

    def place(self, frame: Frame, at: int, message: SipMessage) -> None:
        """SDP: where one side has its media."""
        is_caller = ((message.from_tag or "")[:_MAX_NAME] in self._tags) == message.is_request
        for media in sdp.media(frame.payload[at:]):
            for address in {media.address, frame.src} - {b""}:
                # Behind NAT, media come from where the message came from.
                if len(self._media) >= _MAX_ADDRESSES:
                    return
                end = (address, media.port)
                if address == media.address or end not in self._media:
                    self._media[end] = is_caller
                known = self._by_address.get(address, is_caller)
                self._by_address[address] = is_caller if known == is_caller else None
                if media.rtcp_port != media.port:
                    self._rtcp[address, media.rtcp_port] = end
            self._rtcp[media.rtcp_address, media.rtcp_port] = (media.address, media.port)

    # Media

    def ends_of(self, frame: Frame, measured: bool) -> tuple[_Address, _Address]:
        """Where RTP is sent from and received, of what was told of it by *frame*."""
        source, target = (frame.src, frame.src_port), (frame.dst, frame.dst_port)
        return (source, target) if measured else (self._rtp(source), self._rtp(target))

    def pair(self, hearing: _Address, heard: _Address, seconds: int) -> _Pair | None:
        """The media between the two; None when the call has too many."""
        key = frozenset((hearing, heard))
        found = self.pairs.get(key)
        if found is None and len(self.pairs) < _MAX_PAIRS and hearing != heard:
            found = self.pairs[key] = _Pair(hearing, heard, seconds)
        return found

    def hear_final(self, pair: _Pair, report: qos.Report, now: float) -> None:
        """Measured RTP: when the last stream of a call ends that nothing else tells the end of."""
        ssrc = report.records[0].ssrc
        if report.kind == FINAL:
            pair.finals.add(ssrc)
        else:
            pair.finals.discard(ssrc)
        if self.from_name or self.bye_at:
            return
        going_on = any(
            stream.measured and key[0] not in each.finals
            for each in self.pairs.values()
            for side in each.sides.values()
            for key, stream in side.streams.items()
        )
        self.end_at = None if going_on else now + _AFTER_FINAL

    def _rtp(self, where: _Address) -> _Address:
        """The RTP that RTCP from or to *where* tells of; by RFC 3550 RTCP has the next odd port."""
        if where in self._media:
            return where
        known = self._rtcp.get(where)
        if known is not None:
            return known
        return (where[0], where[1] - 1) if where[1] % 2 else where

    # Time

    def next_at(self, intervals: bool) -> float:
        """When something is to be done about it."""
        at = self.heard + (_SILENCE if self.pairs else _UNHEARD)
        if self.end_at is not None:
            at = min(at, self.end_at)
        if intervals and self.interval_at is not None:
            at = min(at, self.interval_at)
        return at

    def is_over(self, now: float) -> bool:
        """Whether it has ended, or nothing has come for too long."""
        return self.next_at(intervals=False) <= now

    # Reports

    def session_reports(self, *, is_last: bool) -> list[CallReport]:
        """One of each pair, of the whole call."""
        made = []
        for pair in self.pairs.values():
            begun, ended = pair.first, pair.last
            if self.answered_at and abs(pair.first - self.answered_at) <= _NEAR:
                begun = min(pair.first, self.answered_at)
            if self.bye_at and 0 <= self.bye_at - pair.last <= _NEAR:
                ended = self.bye_at
            made.append(self._report(pair, begun, ended, whole=True, is_last=is_last))
        return made

    def interval_reports(self) -> list[CallReport]:
        """One of each pair of which something was told since the last."""
        made = []
        for pair in self.pairs.values():
            streams = pair.streams()
            if not any(stream.interval.reports for stream in streams):
                continue
            begun = pair.told_until or pair.first
            made.append(self._report(pair, begun, pair.last, whole=False, is_last=False))
            pair.told_until = pair.last
            for stream in streams:
                stream.begin_interval()
        return made

    def _report(
        self, pair: _Pair, begun: int, ended: int, *, whole: bool, is_last: bool
    ) -> CallReport:
        local, remote, is_sure = self._sides(pair)
        heard = [received(side.streams.values(), whole=whole) for side in (local, remote)]
        empty = qos.QosRecord("local", qos.RECEIVED)
        metrics = [
            None if record is None else vqrtcpxr_text.metrics_of(record, begun, ended)
            for record in heard
        ]
        info = {"origid": self.from_name}
        if is_sure:
            info.update(localid=self.from_name, remoteid=self.to_name)
        if self.from_tag and self.to_tag:
            info["dialogid"] = f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}"
        kind = vqrtcpxr.SESSION if whole else vqrtcpxr.INTERVAL
        body = vqrtcpxr_text.encode(
            vqrtcpxr.Report(
                kind,
                is_last,
                self.call_id,
                info,
                _shown(local),
                _shown(remote),
                metrics[0] or vqrtcpxr_text.metrics_of(empty, begun, ended),
                metrics[1],
                None,
                [],
            )
        )
        return CallReport(kind, self.call_id, body, local.end, remote.end, ended, pair.capture_id)

    def _sides(self, pair: _Pair) -> tuple[_Side, _Side, bool]:
        """Local, remote, and whether SDP told which is which."""
        one, other = pair.sides.values()
        for whose in (self._media.get, lambda end: self._by_address.get(end[0])):
            callers = whose(one.end), whose(other.end)
            if callers[0] == callers[1]:
                continue
            if callers[0] is True or callers[1] is False:
                return one, other, True
            return other, one, True
        return one, other, False


def _shown(side: _Side) -> vqrtcpxr.Address:
    return vqrtcpxr.Address(Frame(src=side.end[0]).src_ip, side.end[1], side.ssrc)


def _name(body: str | None) -> str:
    """From or To without its tag."""
    found = parse_name_addr(body or "")
    return f"{found.display} <{found.uri}>".strip()[:_MAX_NAME] if found.uri else ""
