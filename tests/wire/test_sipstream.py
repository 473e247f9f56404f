"""SIP on a stream: messages by Content-Length, whatever lies between them and however it is cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire.sipstream import MESSAGE_LIMIT, SipFramer

INVITE = b"INVITE sip:b@h SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 4\r\n\r\nv=0\n"
RINGING = b"SIP/2.0 180 Ringing\r\nCall-ID: 1\r\nl: 0\r\n\r\n"
STUN = bytes.fromhex("0001 0008 2112a442 000102030405060708090a0b 8022000461626364")
FRAMED_STUN = len(STUN).to_bytes(2, "big") + STUN


def framed(*pieces: bytes, limit: int = MESSAGE_LIMIT) -> tuple[list[bytes], dict[str, int]]:
    framer = SipFramer(limit=limit)
    messages = [message for piece in pieces for message in framer.feed(piece)]
    return messages, dict(framer.counts)


def with_length(*headers: bytes) -> bytes:
    return b"BYE sip:b@h SIP/2.0\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\nbody"


def test_messages_one_behind_the_other_are_cut_by_their_content_length():
    assert framed(INVITE + RINGING + INVITE) == ([INVITE, RINGING, INVITE], {})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_pieces_of_any_size_give_the_same_messages(size):
    stream = INVITE + RINGING + INVITE
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert framed(*pieces) == ([INVITE, RINGING, INVITE], {})


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 4"],
        [b"content-length:4"],
        [b"CONTENT-LENGTH \t:  4  "],
        [b"l: 4"],
        [b"L : 0004"],
        [b"Content-Length:\r\n 4"],
        [b"Content-Length: \r\n\t\r\n 4"],
        [b"Content-Length: 4", b"l: 4"],
        [b"Subject: one\r\n l: 9", b"l: 4"],
        [b"Subject: Content-Length: 9", b"l: 4"],
        [b"X-Content-Length: 9", b"l: 4"],
    ],
)
def test_a_content_length_is_found_however_it_is_written(headers):
    message = with_length(*headers)
    assert framed(message + RINGING) == ([message, RINGING], {})


def test_line_ends_without_carriage_return_are_read():
    message = b"INVITE sip:b@h SIP/2.0\nl: 2\n\nab"
    assert framed(message + message) == ([message, message], {})


def test_the_first_of_content_lengths_that_differ_is_taken_and_told():
    message = with_length(b"Content-Length: 4", b"Content-Length: 9")
    assert framed(message + RINGING) == ([message, RINGING], {"content_length_differs": 1})


def test_a_missing_content_length_is_0_and_the_body_is_passed_over():
    message = with_length(b"Call-ID: 1")
    wanted = message.removesuffix(b"body")
    assert framed(message + b"\r\n" + RINGING) == ([wanted, RINGING], {"missing_content_length": 1})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"-1", "bad_content_length"),
        (b"+4", "bad_content_length"),
        (b"four", "bad_content_length"),
        (b"", "bad_content_length"),
        (b"4, 4", "bad_content_length"),
        (b"4\0", "bad_content_length"),
        (b"\xb2", "bad_content_length"),
        (b"0x4", "bad_content_length"),
        (b"9" * 5000, "bad_content_length"),
        (b"9999999999", "sip_too_large"),
        (b"65536", "sip_too_large"),
    ],
)
def test_a_content_length_that_cannot_be_loses_its_message_and_not_the_next(value, reason):
    message = with_length(b"Content-Length: " + value) + b"\r\n"
    assert framed(message + RINGING) == ([RINGING], {reason: 1})


@pytest.mark.parametrize(
    ("between", "note"),
    [
        (b"\r\n\r\n", "keep_alive"),
        (b"\r\n", "keep_alive"),
        (b"\n\n\n", "keep_alive"),
        (b"\0\0\0\0", "keep_alive"),
        (b"\0" * 50, "keep_alive"),
        (b"jaK", "keep_alive"),
        (STUN, "stun"),
        (FRAMED_STUN, "stun"),
    ],
)
def test_what_keeps_a_connection_open_is_no_message_and_no_loss(between, note):
    assert framed(between + INVITE + between + RINGING) == ([INVITE, RINGING], {note: 2})


def test_stun_may_be_cut_anywhere():
    pieces = [bytes([byte]) for byte in STUN + INVITE + FRAMED_STUN + RINGING]
    assert framed(*pieces) == ([INVITE, RINGING], {"stun": 2})


def test_nuls_before_stun_are_told_from_it_however_they_are_cut():
    stream = b"\0" * 9 + STUN + b"\0" * 3 + FRAMED_STUN + b"\0" * 12 + INVITE
    for size in range(1, 60):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        messages, counts = framed(*pieces)
        assert (messages, counts["stun"]) == ([INVITE], 2)


def test_a_stun_length_that_cannot_be_swallows_nothing():
    forged = STUN[:2] + b"\xff\xff" + STUN[4:]
    assert framed(forged + b"\r\n" + INVITE)[0] == [INVITE]


@pytest.mark.parametrize(
    "junk",
    [
        b"this is no SIP\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n",
        b"\x80\x00\xff" * 100 + b"\n",
        b"INVITE\r\n",
        b"Via: SIP/2.0/TCP h\r\nl: 0\r\n\r\n",
    ],
)
def test_what_is_no_message_is_passed_over_and_counted_once(junk):
    assert framed(INVITE + junk + RINGING) == ([INVITE, RINGING], {"no_start_line": 1})


@pytest.mark.parametrize(
    ("start", "messages"),
    [
        (b"itle: x\r\nl: 0\r\n\r\n" + INVITE, [INVITE]),
        (b"\r\n\r\n" + INVITE, [INVITE]),
        (INVITE, [INVITE]),
        (b"E" + INVITE.removeprefix(b"INVITE") + RINGING, [RINGING]),  # the end of "INVITE …"
    ],
)
def test_a_stream_that_begins_in_the_middle_is_read_from_its_next_message(start, messages):
    framer = SipFramer(mid_stream=True)
    assert (framer.feed(start), dict(framer.counts)) == (messages, {})


def test_behind_lost_bytes_the_next_message_is_looked_for():
    framer = SipFramer()
    assert framer.feed(INVITE + INVITE[:40]) == [INVITE]
    assert framer.unfinished
    framer.lose()
    assert not framer.unfinished
    assert framer.feed(b"t-Length: 4\r\n\r\nv=0\n" + RINGING) == [RINGING]


def test_a_head_that_never_ends_is_given_up_at_the_limit():
    framer = SipFramer(limit=1000)
    assert framer.feed(b"INVITE sip:b@h SIP/2.0\r\n") == []
    for _ in range(1000):
        assert framer.feed(b"X: y\r\n") == []
        assert framer.pending <= 1000
    assert framer.feed(b"\r\n" + INVITE) == [INVITE]
    assert framer.counts["sip_too_large"] == 1


def test_a_line_that_never_ends_is_given_up_at_the_limit():
    framer = SipFramer(limit=1000)
    for _ in range(1000):
        assert framer.feed(b"INVITE sip:") == []
        assert framer.pending <= 1000
    assert framer.feed(b"\r\n" + INVITE) == [INVITE]
    assert framer.counts == {"no_start_line": 1}


def test_many_start_lines_without_a_head_end_cost_no_more_than_other_lines():
    framer = SipFramer()
    for _ in range(100):
        assert framer.feed(b"A b SIP/2.0\r\n" * 1000) == []
        assert framer.pending <= framer.limit
    assert framer.feed(b"\r\n" + INVITE)[-1:] == [INVITE]


def test_a_message_as_large_as_the_limit_is_taken():
    head = b"MESSAGE sip:b@h SIP/2.0\r\nl: 900\r\n\r\n"
    message = head + b"x" * 900
    assert framed(message + RINGING, limit=len(message)) == ([message, RINGING], {})
    assert framed(message + b"\r\n" + RINGING, limit=len(message) - 1) == (
        [RINGING],
        {"sip_too_large": 1},
    )


PIECES = st.sampled_from(
    [
        INVITE,
        RINGING,
        STUN,
        FRAMED_STUN,
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"jaK",
        b"no SIP\r\n",
        with_length(b"l: 4"),
        with_length(b"l: -4") + b"\r\n",
        with_length(b"l: 700") + b"\r\n",
        with_length(b"Call-ID: 1") + b"\r\n",
        with_length(b"l: 4", b"l: 5"),
        b"INVITE sip:b@h SIP/2.0\r\n",
        b"x" * 300,
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=30), max_size=12).map(b"".join)


@given(st.data(), STREAMS, st.booleans())
def test_a_stream_gives_the_same_however_it_is_cut(data, stream, mid_stream):
    whole = SipFramer(limit=600, mid_stream=mid_stream)
    wanted = whole.feed(stream)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    framer = SipFramer(limit=600, mid_stream=mid_stream)
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += framer.feed(stream[start:end])
        assert framer.pending <= 600
    assert got == wanted
    assert all(len(message) <= 600 for message in got)


@given(STREAMS)
def test_no_byte_of_a_message_is_made_up(stream):
    framer = SipFramer(Counter(), limit=600)
    at = 0
    for message in framer.feed(stream):
        at = stream.index(message, at) + len(message)
