"""Captured TCP segments to the messages their streams carry.

Each direction of a connection is a stream of its own.  Segments may come late, twice, overlapping
or not at all; the clock is that of the capture.  Memory is bounded: `ahead_limit` bytes of a stream
wait for a segment that is missing, `message_limit` bytes for the rest of a message, and `memory`
bytes in all; the streams that were quiet longest are forgotten first.  What is given up is counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from homerd.wire import content, hepstream, sipstream, websocket
from homerd.wire.content import Content

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

REASONS = (
    "tcp_gap",
    "tcp_unfinished",
    "tcp_forgotten",
    *content.REASONS,
    *hepstream.REASONS,
    *sipstream.REASONS,
    *websocket.REASONS,
)
NOTES = ("tcp_retransmission", *sipstream.NOTES, "ws_control")

_SEQUENCES = 1 << 32
_FAR = 1 << 20  # a segment so far off belongs to another connection with the same ports
_MOST_AHEAD = 1024  # segments
# What a stream and a waiting segment take besides their bytes: 790 to 1140 and 160 were measured.
_STREAM_COST, _SEGMENT_COST = 1200, 200


class Late(NamedTuple):
    """A message that was whole before, but behind a segment that was waited for in vain."""

    src: bytes
    src_port: int
    dst: bytes
    dst_port: int
    seconds: int
    micros: int
    message: bytes


class _Ahead(NamedTuple):
    """A segment that came before its turn."""

    position: int
    data: bytes
    seconds: int
    micros: int


_Key = tuple[bytes, int, bytes, int]


class _Stream:
    """One direction of a connection.

    Positions are sequence numbers that do not wrap.  next: of the byte that is due.
    start: of the first byte.  end: behind the last one, once FIN told it.
    since: when the first of the segments ahead came.
    """

    __slots__ = ("ahead", "ahead_size", "content", "cost", "end", "next", "seen", "since", "start")

    def __init__(self, content: Content, start: int, seconds: int) -> None:
        self.content = content
        self.start = self.next = start
        self.end: int | None = None
        self.ahead: list[_Ahead] = []
        self.ahead_size = 0
        self.since = seconds
        self.seen = seconds
        self.cost = 0


class TcpStreams:
    """Puts segments in order and gives the messages that become whole.

    counts: by REASONS what was lost, by NOTES what was met.
    """

    def __init__(
        self,
        *,
        message_limit: int = sipstream.MESSAGE_LIMIT,
        ahead_limit: int = 65536,
        streams: int = 50_000,
        memory: int = 64 << 20,
        patience_seconds: int = 3,
        idle_seconds: int = 3600,
        take_hep: bool = True,
    ) -> None:
        self.message_limit = message_limit
        self.ahead_limit = ahead_limit
        self.streams = streams
        self.memory = memory
        self.patience_seconds = patience_seconds
        self.idle_seconds = idle_seconds
        self.take_hep = take_hep
        self.counts: Counter[str] = Counter()
        self.kept = 0  # bytes of memory, about
        self._streams: OrderedDict[_Key, _Stream] = OrderedDict()  # the quietest first
        self._waiting: dict[_Key, _Stream] = {}  # for a segment that is missing, longest first
        self._late: list[Late] = []

    def __len__(self) -> int:
        return len(self._streams)

    def feed(
        self,
        src: bytes,
        src_port: int,
        dst: bytes,
        dst_port: int,
        sequence: int,
        flags: int,
        data: bytes,
        seconds: int,
        micros: int = 0,
    ) -> list[bytes]:
        """Take a segment; give what it completes: SIP messages, and whole HEP3 frames.

        What was waiting too long, of this stream or others, is for take_late().
        """
        self.expire(seconds)
        key = (src, src_port, dst, dst_port)
        stream = self._streams.get(key)
        if flags & SYN:
            sequence += 1
            if stream is None or (sequence - stream.start) % _SEQUENCES:
                self._drop(key)
                if not flags & ACK:  # the answer will begin a stream of its own
                    self._drop((dst, dst_port, src, src_port))
                stream = self._open(key, sequence, seconds, mid_stream=False)
        elif stream is None:
            if not data:
                return []
            stream = self._open(key, sequence, seconds, mid_stream=True)
        self._streams.move_to_end(key)
        stream.seen = seconds
        messages = self._take(key, stream, sequence, flags, data, seconds, micros)
        if not stream.ahead:
            self._waiting.pop(key, None)
        self._weigh(stream)
        while self.kept > self.memory or len(self._streams) > self.streams:
            # A flood of openings pushes nobody out.  Who is refused is read from the next message.
            opening = flags & SYN and not data and key in self._streams
            self._drop(key if opening else next(iter(self._streams)))
            self.counts["tcp_forgotten"] += 1
        return messages

    def expire(self, seconds: int) -> None:
        """Let go of what has waited too long at *seconds* of the capture's clock."""
        while self._waiting:
            key, stream = next(iter(self._waiting.items()))
            if stream.since + self.patience_seconds >= seconds:
                break
            self._skip_gap(key, stream)
            self._weigh(stream)
        while self._streams:
            key, stream = next(iter(self._streams.items()))
            if stream.seen + self.idle_seconds >= seconds:
                break
            self._drop(key)

    def finish(self) -> None:
        """Nothing more will come."""
        while self._streams:
            self._drop(next(iter(self._streams)))

    def take_late(self) -> list[Late]:
        """The messages behind segments that were given up, since the last call."""
        late, self._late = self._late, []
        return late

    def _open(self, key: _Key, sequence: int, seconds: int, mid_stream: bool) -> _Stream:
        stream = _Stream(self._content(mid_stream), sequence % _SEQUENCES, seconds)
        self._streams[key] = stream
        return stream

    def _take(
        self,
        key: _Key,
        stream: _Stream,
        sequence: int,
        flags: int,
        data: bytes,
        seconds: int,
        micros: int,
    ) -> list[bytes]:
        distance = (sequence - stream.next) % _SEQUENCES
        if distance >= _SEQUENCES // 2:
            distance -= _SEQUENCES
        if not -_FAR < distance < _FAR:
            if not data:
                return []
            self._give_up_ahead(key, stream)
            self._lose(stream)
            stream.next += distance
            stream.end = None
            distance = 0
        position = stream.next + distance
        end = position + len(data)
        messages: list[bytes] = []
        if data:
            if distance < 0:
                data = data[-distance:]
                position = stream.next
                self.counts["tcp_retransmission"] += 1
            if distance > 0:
                self._put_ahead(key, stream, _Ahead(position, data, seconds, micros))
            elif data:
                messages = stream.content.feed(data)
                stream.next += len(data)
                for _, completed in self._due(stream):
                    messages += completed
        if flags & RST:
            self._give_up_ahead(key, stream)
            self._close(stream)
        elif flags & FIN:
            stream.end = end
        if stream.end is not None and stream.next >= stream.end:
            self._close(stream)
        return messages

    def _put_ahead(self, key: _Key, stream: _Stream, segment: _Ahead) -> None:
        """Keep a segment until its turn; give up the one that is missing when it is too much."""
        ahead = stream.ahead
        at = bisect_right(ahead, segment.position, key=lambda other: other.position)
        if at:
            before = ahead[at - 1]
            if before.position + len(before.data) >= segment.position + len(segment.data):
                self.counts["tcp_retransmission"] += 1
                return
        if not ahead:
            stream.since = segment.seconds
            self._waiting[key] = stream
        ahead.insert(at, segment)
        stream.ahead_size += len(segment.data)
        if stream.ahead_size > self.ahead_limit or len(ahead) > _MOST_AHEAD:
            self._skip_gap(key, stream)

    def _skip_gap(self, key: _Key, stream: _Stream) -> None:
        """Go on behind bytes that were never captured."""
        ahead = stream.ahead
        self._lose(stream)
        stream.next = ahead[0].position
        for segment, messages in self._due(stream):
            place = (*key, segment.seconds, segment.micros)
            self._late += [Late(*place, message) for message in messages]
        self._waiting.pop(key, None)
        if ahead:
            stream.since = ahead[0].seconds
            self._waiting[key] = stream

    def _give_up_ahead(self, key: _Key, stream: _Stream) -> None:
        while stream.ahead:
            self._skip_gap(key, stream)

    def _due(self, stream: _Stream) -> Iterator[tuple[_Ahead, list[bytes]]]:
        """The segments whose turn has come, each with the messages it completes."""
        ahead = stream.ahead
        while ahead and ahead[0].position <= stream.next:
            segment = ahead.pop(0)
            stream.ahead_size -= len(segment.data)
            data = segment.data[stream.next - segment.position :]
            if data:
                stream.next += len(data)
                yield segment, stream.content.feed(data)

    def _lose(self, stream: _Stream) -> None:
        self.counts["tcp_gap"] += 1
        stream.content.lose()

    def _close(self, stream: _Stream) -> None:
        """The connection ended.  Its place is kept, as what it sent may be captured again."""
        self._count_unfinished(stream)
        if stream.end is not None:
            stream.next = max(stream.next, stream.end + 1)
            stream.end = None
        stream.content = self._content(mid_stream=True)

    def _drop(self, key: _Key) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self._give_up_ahead(key, stream)
            self._count_unfinished(stream)
            self.kept -= stream.cost
            del self._streams[key]

    def _count_unfinished(self, stream: _Stream) -> None:
        if stream.content.unfinished:
            self.counts["tcp_unfinished"] += 1

    def _content(self, mid_stream: bool) -> Content:
        return Content(self.counts, self.message_limit, mid_stream, self.take_hep)

    def _weigh(self, stream: _Stream) -> None:
        """Count what the stream takes now."""
        cost = _STREAM_COST + stream.content.pending
        if stream.ahead:
            cost += stream.ahead_size + _SEGMENT_COST * len(stream.ahead)
        self.kept += cost - stream.cost
        stream.cost = cost
