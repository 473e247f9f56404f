"""Module rtimer."""

from __future__ import annotations

import pytest

MODULES = ("pv", "xlog", "rtimer")
MAIN = "request_route { exit; }\n"


def timer(line: str, *routes: str) -> str:
    runs = "".join(f'modparam("rtimer", "exec", "timer=t;route={name}")\n' for name in routes)
    return f'modparam("rtimer", "timer", "name=t;{line}")\n{runs}'


def test_a_route_runs_after_each_interval_on_a_faked_options_with_variables_of_its_own(script):
    runner = script(
        timer("interval=10;mode=1;", "T")
        + "request_route { $var(n) = 7; exit; }\n"
        + 'route[T] { $var(n) = $var(n) + 1; xlog("$rm $var(n)"); }',
        MODULES,
    )
    runner.worker.advance(9.9)
    assert runner.lines == []
    runner.worker.advance(10.2)
    assert runner.lines == ["OPTIONS 1", "OPTIONS 2"]


def test_routes_of_a_timer_run_in_reverse_order_and_end_only_themselves(script):
    runner = script(
        timer("interval=1", "A", "B")
        + MAIN
        + 'route[A] { xlog("A"); }\nroute[B] { xlog("B"); drop; }',
        MODULES,
    )
    runner.worker.advance(1)
    assert runner.lines == ["B", "A"]


def test_mode_says_how_many_runners_there_are(script):
    runner = script(
        timer("interval=1;mode=2", "A")
        + MAIN
        + 'route[A] { $var(n) = $var(n) + 1; xlog("$var(n)"); }',
        MODULES,
    )
    runner.worker.advance(2)
    assert runner.lines == ["1", "1", "2", "2"]


def test_timers_of_mode_0_share_their_variables(script):
    runner = script(
        'modparam("rtimer", "timer", "name=a;interval=1;mode=0")\n'
        'modparam("rtimer", "timer", "name=b;interval=1;mode=0")\n'
        'modparam("rtimer", "exec", "timer=a;route=R")\n'
        'modparam("rtimer", "exec", "timer=b;route=R")\n'
        + MAIN
        + 'route[R] { $var(n) = $var(n) + 1; xlog("$var(n)"); }',
        MODULES,
    )
    runner.worker.advance(1)
    assert runner.lines == ["1", "2"]


def test_an_interval_may_be_in_microseconds(script):
    runner = script(timer("interval=500000u", "A") + MAIN + 'route[A] { xlog("A"); }', MODULES)
    runner.worker.advance(1)
    assert runner.lines == ["A", "A"]


def test_a_timer_without_an_interval_takes_the_default(script):
    runner = script(
        'modparam("rtimer", "default_interval", 5)\n'
        + timer("mode=1", "A")
        + MAIN
        + 'route[A] { xlog("A"); }',
        MODULES,
    )
    runner.worker.advance(5)
    assert runner.lines == ["A"]


def test_a_run_carries_its_timers_name(script):
    runner = script(timer("interval=1", "A") + MAIN + "route[A] { exit; }", MODULES)
    seen = []
    runner.worker.route_seen = lambda route, packet, end: seen.append(
        (route, packet.scratch["timer"])
    )
    runner.worker.advance(1)
    assert seen == [("A", "t")]


def test_a_route_that_is_not_there_is_a_warning(script):
    runner = script(timer("interval=1", "NOPE") + MAIN, MODULES)
    runner.worker.advance(1)
    assert [found.message for found in runner.program.warnings] == [
        'the timer "t" runs route[NOPE], which is not there'
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("interval=1", 'name missing in "interval=1"'),
        ("name=t;interval=x", 'interval takes seconds, or microseconds as in 500u, got "x"'),
        ("name=t;mode=x", 'mode takes a number, got "x"'),
        ("name=t;every=1", 'unknown attribute "every", expected name, interval, mode'),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(refusal, line, message):
    assert message in refusal(f'modparam("rtimer", "timer", "{line}")\n{MAIN}', MODULES)


def test_a_timer_that_is_not_defined_is_refused(refusal):
    text = 'modparam("rtimer", "exec", "timer=x;route=A")\nroute[A] { exit; }\n' + MAIN
    assert 'the timer "x" is not defined' in refusal(text, MODULES)
