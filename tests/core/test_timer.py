import pytest

from homerd.core.timer import Timers


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def now(self):
        return self.seconds

    def move(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timers(clock):
    return Timers(clock.now, clock.move)


def test_a_timer_first_runs_after_one_interval(clock, timers):
    ran = []
    timers.every(2, lambda: ran.append(clock.seconds))
    timers.run_due()
    assert ran == []
    clock.seconds += 2
    timers.run_due()
    timers.run_due()
    assert ran == [102]


def test_advance_runs_what_is_due_in_order_of_time_at_its_own_time(clock, timers):
    ran = []
    timers.every(2, lambda: ran.append(("two", clock.seconds)))
    timers.every(3, lambda: ran.append(("three", clock.seconds)))
    timers.advance(6.5)
    assert ran == [
        ("two", 102),
        ("three", 103),
        ("two", 104),
        ("two", 106),
        ("three", 106),
    ]
    assert clock.seconds == 106.5


def test_advance_without_timers_moves_the_clock(clock, timers):
    timers.advance(2.5)
    assert clock.seconds == 102.5
    assert timers.seconds_to_next() is None


def test_runs_that_a_slow_one_left_out_are_counted_and_not_made_up_for(clock, timers):
    ran = []

    def slow():
        ran.append(clock.seconds)
        clock.seconds += 3.5

    timer = timers.every(1, slow)
    clock.seconds = 101
    timers.run_due()
    assert ran == [101]
    assert timer.missed == timers.missed == 3
    assert timers.seconds_to_next() == 0.5


def test_a_timer_that_fails_comes_again(clock, timers):
    def fail():
        raise ValueError("broken")

    timer = timers.every(1, fail)
    for _ in range(2):
        clock.seconds += 1
        with pytest.raises(ValueError, match="broken"):
            timers.run_due()
    assert timer.runs == 2


def test_an_interval_must_be_above_zero(timers):
    with pytest.raises(ValueError, match="above 0"):
        timers.every(0, print)
