"""Round trips out of sender reports and what answers them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire import roundtrip
from homerd.wire.roundtrip import RoundTrips

T0 = 1_700_000_000_000_000  # µs
SENT = 0xB7052000
UNIT = 1_000_000 / 65536  # µs


def trips(middle: int = SENT, at: int = T0) -> RoundTrips:
    known = RoundTrips()
    known.sent(2001, 7, middle, at, 0)
    return known


def test_the_example_of_rfc_3550_where_the_capture_is_made_at_the_sender():
    # A 0xb7108000, LSR 0xb7052000, DLSR 0x00054000: 6.125 s
    answered = T0 + round((0xB7108000 - SENT) * UNIT)
    assert trips().back(2001, 7, SENT, 0x00054000, answered) == 6125.0


@pytest.mark.parametrize(
    ("where", "ssrc", "lsr", "dlsr", "after", "trip"),
    [
        (2001, 7, SENT, 0, 0, 0.0),
        (2001, 7, SENT, 65536, 1_040_000, 40.0),
        (2001, 7, SENT + 1, 65536, 1_040_000, 40.0),  # Asterisk's microseconds, rounded
        (2001, 7, SENT - 1, 65536, 1_040_000, 40.0),
        (2001, 7, SENT + 2, 65536, 1_040_000, None),
        (2001, 7, SENT, 65536, 900_000, None),  # below nothing
        (2001, 7, SENT, 65536, 999_001, 0.0),
        (2001, 7, SENT, 65536, 999_000, None),
        (2001, 7, SENT, 0, 3_600_000_000, 3_600_000.0),
        (2001, 7, SENT, 0, 3_600_000_001, None),
        (2001, 7, SENT, 0xFFFFFFFF, 10_000_000, None),
        (2001, 8, SENT, 65536, 1_040_000, None),
        (2002, 7, SENT, 65536, 1_040_000, None),  # the clocks of two capturers
        (2001, 7, 0, 0, 40_000, None),  # nothing was heard of the sender
        (2001, 7, None, 0, 40_000, None),
        (2001, 7, SENT, None, 40_000, None),
        (2001, None, SENT, 0, 40_000, None),
    ],
)
def test_the_time_between_less_what_it_lay_there(where, ssrc, lsr, dlsr, after, trip):
    assert trips().back(where, ssrc, lsr, dlsr, T0 + after) == trip


def test_a_sender_without_a_clock_is_not_remembered():
    known = trips(middle=0)
    assert (len(known), known.back(2001, 7, 0, 0, T0)) == (0, None)
    # one whose clock stands still is answered by its latest
    known = trips()
    known.sent(2001, 7, SENT, T0 + 5_000_000, 5)
    assert known.back(2001, 7, SENT, 0, T0 + 5_030_000) == 30.0


def test_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(roundtrip, "MAX_SENT", 2)
    known = RoundTrips()
    for ssrc in (7, 8, 7, 9):
        known.sent(None, ssrc, SENT, T0, 0)
    found = [known.back(None, ssrc, SENT, 0, T0) for ssrc in (7, 8, 9)]
    assert (found, len(known)) == ([0.0, None, 0.0], 2)


def test_what_nobody_answered_for_an_hour_is_forgotten():
    known = RoundTrips()
    for ssrc in range(10):
        known.sent(None, ssrc, SENT, T0, 0)
    for ssrc in range(10):
        known.sent(None, 100 + ssrc, SENT, T0, 3600)
    assert len(known) == 10
    assert known.back(None, 9, SENT, 0, T0) is None


WORD = st.integers(0, 0xFFFFFFFF)


@given(WORD, WORD, WORD, WORD, st.integers(0, 1 << 62))
def test_any_numbers_give_a_time_that_makes_sense_or_none(middle, lsr, dlsr, ssrc, micros):
    known = trips(middle)
    for about in (7, ssrc):
        trip = known.back(2001, about, lsr, dlsr, micros)
        assert trip is None or 0 <= trip <= 3_600_000
