"""Captured TCP segments: what comes late, twice, overlapping, or never."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire import hep
from homerd.wire.streams import ACK, FIN, NOTES, REASONS, RST, SYN, Late, TcpStreams

PHONE, PROXY = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02"
TLS_RECORD = bytes.fromhex("1603010005") + b"hello"
HEP_FRAME = hep.assemble([(0, 1, b"\x02"), (0, 15, b"OPTIONS sip:a@b SIP/2.0\r\n\r\n")])


def invite(number: int, body: bytes = b"v=0\n") -> bytes:
    head = f"INVITE sip:b@h SIP/2.0\r\nCall-ID: {number}\r\nl: {len(body)}\r\n\r\n"
    return head.encode() + body


class Segment(NamedTuple):
    """Its place in the stream and what it holds."""

    at: int
    data: bytes = b""
    flags: int = ACK


class Connection:
    """One direction; sends segments of a stream whose first byte has the sequence `first`."""

    def __init__(self, streams: TcpStreams, first: int = 1000, port: int = 40000) -> None:
        self.streams = streams
        self.first = first
        self.port = port

    def open(self, seconds: int = 1) -> None:
        assert self.send(Segment(-1, b"", SYN), seconds) == []

    def send(self, segment: Segment, seconds: int = 1, micros: int = 0) -> list[bytes]:
        sequence = (self.first + segment.at) % (1 << 32)
        place = (PHONE, self.port, PROXY, 5060)
        return self.streams.feed(*place, sequence, segment.flags, segment.data, seconds, micros)

    def send_all(self, segments: Iterable[Segment]) -> list[bytes]:
        return [message for segment in segments for message in self.send(segment)]


def cut(stream: bytes, *cuts: int) -> list[Segment]:
    places = [0, *sorted(cuts), len(stream)]
    return [Segment(a, stream[a:b]) for a, b in pairwise(places) if a < b]


THREE = [invite(1), invite(2), invite(3)]
STREAM = b"".join(THREE)


def test_segments_in_their_order_give_the_messages_they_complete():
    connection = Connection(TcpStreams())
    connection.open()
    first, second = cut(STREAM, len(THREE[0]) + 5)
    assert connection.send(first) == THREE[:1]
    assert connection.send(second) == THREE[1:]
    assert connection.streams.counts == {}


@pytest.mark.parametrize("first", [0, 1, 2**31, 2**32 - 1, 2**32 - 30, 2**32 - len(STREAM)])
def test_sequence_numbers_wrap(first):
    connection = Connection(TcpStreams(), first)
    connection.open()
    one, two, three = cut(STREAM, 20, 100)
    assert connection.send_all([three, two, one]) == THREE


def test_a_segment_that_comes_twice_gives_its_message_once():
    connection = Connection(TcpStreams())
    connection.open()
    segments = cut(STREAM, 20, 100)
    assert connection.send_all([*segments[:2], *segments]) == THREE
    assert connection.streams.counts == {"tcp_retransmission": 2}


def test_segments_that_wait_are_kept_once():
    connection = Connection(TcpStreams())
    connection.open()
    one, two, three = cut(STREAM, 20, 100)
    assert connection.send_all([three, three, two, three, two]) == []
    assert connection.send(one) == THREE
    assert connection.streams.counts == {"tcp_retransmission": 3}


def test_a_message_has_the_time_of_the_segment_that_completes_it():
    connection = Connection(TcpStreams())
    connection.open()
    one, two = cut(THREE[0], 30)
    assert connection.send(two, seconds=5) == []
    assert connection.send(one, seconds=6) == [THREE[0]]
    assert connection.streams.take_late() == []


def test_directions_and_ports_are_streams_of_their_own():
    streams = TcpStreams()
    a, b = Connection(streams, port=1), Connection(streams, port=2)
    one, two = cut(THREE[0], 30)
    a.open()
    b.open()
    assert (a.send(one), b.send(one), len(streams)) == ([], [], 2)
    assert (a.send(two), b.send(two)) == ([THREE[0]], [THREE[0]])


def test_a_segment_that_is_missing_is_given_up_after_3_seconds_and_what_waited_keeps_its_time():
    connection = Connection(TcpStreams())
    connection.open()
    one, _, three = cut(STREAM, 20, len(THREE[0] + THREE[1]))
    connection.send(one, 10)
    assert connection.send(three, 11, 500) == []
    connection.streams.expire(14)
    assert connection.streams.take_late() == []
    connection.streams.expire(15)
    wanted = Late(PHONE, 40000, PROXY, 5060, 11, 500, THREE[2])
    assert connection.streams.take_late() == [wanted]
    assert connection.streams.counts == {"tcp_gap": 1}
    assert connection.send(Segment(len(STREAM), invite(4)), 16) == [invite(4)]


def test_any_segment_brings_the_time_that_gives_up_another_streams_gap():
    streams = TcpStreams()
    a, b = Connection(streams, port=1), Connection(streams, port=2)
    a.open()
    a.send(Segment(10, THREE[0]), 2)
    b.send(Segment(0, THREE[1]), 6)
    assert [late.message for late in streams.take_late()] == [THREE[0]]


def test_two_gaps_are_given_up_one_after_the_other():
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(100, invite(1)), 2)
    connection.send(Segment(500, invite(2)), 4)
    connection.streams.expire(6)
    assert [late.message for late in connection.streams.take_late()] == [invite(1)]
    connection.streams.expire(8)
    assert [late.message for late in connection.streams.take_late()] == [invite(2)]


def test_no_more_than_the_limit_waits_for_a_segment():
    streams = TcpStreams(ahead_limit=500)
    connection = Connection(streams)
    connection.open()
    at, late = 100, []
    for number in range(50):
        message = invite(number)
        assert connection.send(Segment(at, message)) == [] or late
        at += len(message)
        late += streams.take_late()
    assert [found.message for found in late] == [invite(number) for number in range(len(late))]
    assert len(late) < 50
    assert streams.kept < 500 + 1200
    assert streams.counts == {"tcp_gap": 1}


def test_no_more_than_1024_segments_wait():
    streams = TcpStreams()
    connection = Connection(streams)
    connection.open()
    for at in range(2, 2100, 2):
        connection.send(Segment(at, b"\n"))
    assert streams.kept <= 1024 * 201 + 1200
    assert streams.counts["tcp_gap"] > 0


def test_a_stream_whose_beginning_was_not_captured_is_read_from_its_next_message():
    connection = Connection(TcpStreams())
    rest = cut(STREAM, 30)[1:]
    assert connection.send_all(rest) == THREE[1:]
    assert connection.streams.counts == {}


def test_a_syn_begins_anew_also_the_other_way():
    streams = TcpStreams()
    connection = Connection(streams)
    answers = (PROXY, 5060, PHONE, 40000)
    connection.open()
    connection.send(Segment(0, THREE[0][:20]))
    streams.feed(*answers, 500, ACK, THREE[1][:30], 1)
    connection.first = 700
    connection.open()
    assert connection.send(Segment(0, THREE[2])) == [THREE[2]]
    assert streams.feed(*answers, 400, ACK, THREE[1], 1) == [THREE[1]]
    assert streams.counts == {"tcp_unfinished": 2}


def test_the_answer_to_a_syn_changes_nothing_of_what_was_sent():
    connection = Connection(TcpStreams())
    connection.open()
    connection.streams.feed(PROXY, 5060, PHONE, 40000, 500, SYN | ACK, b"", 1)
    assert connection.send_all(reversed(cut(STREAM, 20, 100))) == THREE


def test_a_syn_that_comes_again_changes_nothing():
    connection = Connection(TcpStreams())
    one, two = cut(THREE[0], 30)
    connection.open()
    connection.send(one)
    connection.open()
    assert connection.send(two) == [THREE[0]]


def test_a_syn_may_bring_data():
    connection = Connection(TcpStreams())
    assert connection.send(Segment(-1, THREE[0], SYN)) == [THREE[0]]
    assert connection.send(Segment(len(THREE[0]), THREE[1])) == [THREE[1]]


def test_after_the_end_what_was_sent_before_is_not_taken_again():
    connection = Connection(TcpStreams())
    connection.open()
    last = Segment(0, THREE[0], ACK | FIN)
    assert connection.send(last) == [THREE[0]]
    assert connection.send(last) == []
    assert connection.send(Segment(len(THREE[0]), b"", ACK | FIN)) == []
    assert connection.streams.counts == {"tcp_retransmission": 1}


def test_an_end_that_comes_early_waits_for_what_is_before_it():
    connection = Connection(TcpStreams())
    connection.open()
    one, two = cut(THREE[0], 30)
    assert connection.send(Segment(two.at, two.data, ACK | FIN)) == []
    assert connection.send(one) == [THREE[0]]


@pytest.mark.parametrize("flag", [FIN, RST])
def test_a_stream_that_ends_in_the_middle_of_a_message_is_counted(flag):
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(0, THREE[0][:30]))
    assert connection.send(Segment(30, b"", flag)) == []
    assert connection.streams.counts == {"tcp_unfinished": 1}


def test_a_reset_gives_what_waited_behind_a_gap():
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(50, THREE[0]))
    connection.send(Segment(50 + len(THREE[0]), b"", RST))
    assert [late.message for late in connection.streams.take_late()] == [THREE[0]]


def test_the_end_of_the_capture_gives_what_waited_and_counts_what_is_unfinished():
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(50, THREE[0] + THREE[1][:20]))
    connection.streams.finish()
    assert [late.message for late in connection.streams.take_late()] == [THREE[0]]
    assert connection.streams.counts == {"tcp_gap": 1, "tcp_unfinished": 1}
    assert (len(connection.streams), connection.streams.kept) == (0, 0)


@pytest.mark.parametrize("far", [2**21, 2**31 - 1, 2**31, 2**32 - 2**21])
def test_ports_used_again_without_a_syn_are_told_by_their_sequence(far):
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(0, THREE[0]))
    assert connection.send(Segment(far, THREE[1])) == [THREE[1]]
    assert connection.streams.counts == {"tcp_gap": 1}


@pytest.mark.parametrize("flags", [ACK, FIN, RST, SYN | ACK])
def test_segments_without_data_give_nothing(flags):
    streams = TcpStreams()
    assert Connection(streams).send(Segment(0, b"", flags)) == []
    assert streams.counts == {}


def test_a_probe_of_an_idle_connection_changes_nothing():
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(0, THREE[0]))
    connection.send(Segment(len(THREE[0]) - 1, b"\0"))
    assert connection.send(Segment(len(THREE[0]), THREE[1])) == [THREE[1]]


def test_tls_is_counted_by_segment_and_not_read():
    connection = Connection(TcpStreams())
    connection.open()
    for part in cut(TLS_RECORD * 3, 1, 10, 20):
        assert connection.send(part) == []
    assert connection.streams.counts == {"tls": 3}


def test_frames_of_hep_are_given_whole():
    connection = Connection(TcpStreams())
    connection.open()
    stream = HEP_FRAME * 3
    assert connection.send_all(cut(stream, 1, 3, 5, 60)) == [HEP_FRAME] * 3


def test_hep_is_counted_where_it_is_not_to_be_opened():
    connection = Connection(TcpStreams(take_hep=False))
    connection.open()
    assert connection.send_all(cut(HEP_FRAME, 20)) == []
    assert connection.streams.counts == {"hep": 2}


def test_hep_goes_on_behind_a_gap_at_the_next_frame():
    connection = Connection(TcpStreams())
    connection.open()
    connection.send(Segment(0, HEP_FRAME))
    connection.send(Segment(len(HEP_FRAME) + 30, b"rest" + HEP_FRAME * 2))
    connection.streams.finish()
    assert [late.message for late in connection.streams.take_late()] == [HEP_FRAME] * 2
    assert connection.streams.counts == {"tcp_gap": 1}


def test_hep_frames_that_cannot_be_are_counted_and_the_next_is_taken():
    connection = Connection(TcpStreams())
    connection.open()
    assert connection.send(Segment(0, HEP_FRAME + b"HEP3\0\0")) == [HEP_FRAME]
    assert connection.send(Segment(len(HEP_FRAME) + 6, HEP_FRAME)) == [HEP_FRAME]
    assert connection.streams.counts == {"hep_frame": 1}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_hep_gives_the_same_however_it_is_cut(size):
    connection = Connection(TcpStreams())
    connection.open()
    stream = HEP_FRAME + b"\r\nHEP3\0\5HE" + HEP_FRAME + b"\n" + HEP_FRAME + b"HEP"
    segments = cut(stream, *range(0, len(stream), size))
    assert connection.send_all(segments) == [HEP_FRAME] * 3
    assert connection.streams.counts == {"hep_frame": 1}


def test_a_connection_that_never_gives_a_message_is_not_read_for_ever():
    connection = Connection(TcpStreams(message_limit=500))
    connection.open()
    lines = b"220 mail.example.com ESMTP\r\n"
    for number in range(100):
        assert connection.send(Segment(number * len(lines), lines)) == []
    assert connection.streams.counts["no_start_line"] == 1
    assert connection.streams.counts["not_sip"] == 100 - 1001 // len(lines) - 1


def test_the_streams_that_were_quiet_longest_are_forgotten_first():
    streams = TcpStreams(streams=3)
    connections = [Connection(streams, port=port) for port in range(4)]
    one, two = cut(THREE[0], 30)
    for connection in connections:
        assert connection.send(Segment(-1, one.data, SYN)) == []
    assert (len(streams), streams.counts) == (3, {"tcp_forgotten": 1, "tcp_unfinished": 1})
    assert [connection.send(two) for connection in connections[1:]] == [[THREE[0]]] * 3


def test_a_flood_of_openings_pushes_out_nobody_who_is_sending():
    streams = TcpStreams(streams=10)
    sender = Connection(streams, port=1)
    one, two = cut(THREE[0], 30)
    sender.open()
    sender.send(one)
    for port in range(2, 1000):
        Connection(streams, port=port).open()
    assert (len(streams), streams.counts) == (10, {"tcp_forgotten": 989})
    assert sender.send(two) == [THREE[0]]
    assert Connection(streams, port=999).send(Segment(0, THREE[1])) == [THREE[1]]


def test_memory_in_all_is_bounded():
    streams = TcpStreams(memory=100_000)
    for port in range(100):
        connection = Connection(streams, port=port)
        connection.open()
        connection.send(Segment(0, b"INVITE sip:b@h SIP/2.0\r\n" + b"X: y\r\n" * 2000))
        connection.send(Segment(20000, b"x" * 20000))
        assert streams.kept <= 100_000
    assert streams.counts["tcp_forgotten"] > 90
    streams.finish()
    assert streams.kept == 0


def test_a_stream_that_is_idle_for_an_hour_is_forgotten():
    streams = TcpStreams()
    Connection(streams, port=1).open(1)
    Connection(streams, port=2).open(3601)
    assert len(streams) == 2
    Connection(streams, port=3).open(3602)
    assert len(streams) == 2


PIECES = st.sampled_from([*THREE, b"\r\n\r\n", b"no SIP\r\n", invite(9, b"x" * 900)])
FIRST = st.sampled_from([0, 1000, 2**31 - 50, 2**32 - 1, 2**32 - 100])


def in_order(stream: bytes) -> list[bytes]:
    connection = Connection(TcpStreams())
    connection.open()
    return connection.send(Segment(0, stream)) if stream else []


@given(st.data(), st.lists(PIECES, max_size=6).map(b"".join), FIRST)
def test_any_order_overlap_and_repetition_gives_the_same_messages(data, stream, first):
    cuts = st.lists(st.integers(0, len(stream)), max_size=12)
    segments = cut(stream, *data.draw(cuts)) + cut(stream, *data.draw(cuts))
    segments += data.draw(st.lists(st.sampled_from(segments), max_size=6)) if segments else []
    segments.append(Segment(len(stream), b"", ACK | FIN))
    connection = Connection(TcpStreams(), first)
    connection.open()
    assert connection.send_all(data.draw(st.permutations(segments))) == in_order(stream)
    assert connection.streams.counts["tcp_gap"] == 0


SEGMENTS = st.tuples(
    st.integers(0, 3),
    st.sampled_from([0, 1, 50, 2**21, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1),
    st.sampled_from([ACK, ACK, ACK, SYN, FIN, RST, SYN | ACK, 0xFF]),
    PIECES
    | st.binary(max_size=40)
    | st.sampled_from([TLS_RECORD, HEP_FRAME, b"GET ", b"\x81\xfe"]),
    st.integers(0, 10_000),
)


@given(st.lists(SEGMENTS, max_size=30))
def test_whatever_comes_stays_within_the_bounds_and_is_counted_by_a_known_reason(segments):
    streams = TcpStreams(streams=2, memory=8000, ahead_limit=200, message_limit=1000)
    for port, sequence, flags, data, seconds in segments:
        streams.feed(PHONE, port, PROXY, 5060, sequence, flags, data, seconds)
        assert len(streams) <= 2
        assert streams.kept <= 8000
    streams.finish()
    assert (len(streams), streams.kept) == (0, 0)
    assert set(streams.counts) <= {*REASONS, *NOTES}
