"""Module statistics."""

from __future__ import annotations

from homerd_plugins import statistics

MODULES = ("pv", "xlog", "statistics")
DECLARED = (
    'modparam("statistics", "variable", "a")\nmodparam("statistics", "variable", "b/no_reset")\n'
)


def run(script, invite, statements: str) -> list[str]:
    return script(f"{DECLARED}request_route {{ {statements} exit; }}", MODULES).feed(invite)


def test_declared_counters_begin_at_0_and_take_amounts_with_and_without_a_sign(script, invite):
    statements = (
        'update_stat("a", "+1"); update_stat("a", "5"); update_stat("a", "-2");'
        ' xlog("$rc $stat(a) $stat(b) $stat(nosuch)");'
        ' $var(x) = "a"; update_stat("$var(x)", "$var(n)"); xlog("$rc $stat(a)");'
    )
    assert run(script, invite, statements) == ["1 4 0 <null>", "1 4"]


def test_reset_leaves_those_that_are_not_to_be_reset(script, invite):
    statements = (
        'update_stat("a", "3"); update_stat("b", "3"); reset_stat("a"); reset_stat("b");'
        ' xlog("$stat(a) $stat(b)");'
    )
    assert run(script, invite, statements) == ["0 3"]


def test_a_name_made_at_run_time_that_is_not_declared_is_an_error_of_the_call(script, invite):
    statements = '$var(x) = "nosuch"; update_stat("$var(x)", "1"); xlog("$rc"); reset_stat("$var(x)"); xlog("$rc");'
    assert run(script, invite, statements) == ["-1", "-1"]


def test_constants_are_checked_at_load(refusal):
    assert 'unknown counter "c"' in refusal('request_route { update_stat("c", "1"); }', MODULES)
    text = DECLARED + 'request_route { update_stat("a", "x"); }'
    assert 'expected a number such as "+1", got "x"' in refusal(text, MODULES)


def test_counters_of_a_group_are_made_on_first_use_can_be_set_and_walked_over(script, invite):
    statements = (
        'update_stat("method:$rm", "+1"); update_stat("method:$rm", "+1"); update_stat("method:BYE", "1");'
        ' update_stat("other:x", "9"); xlog("$stat(method:INVITE)"); stat_iter_init("method", "i");'
        ' while (stat_iter_next("$var(k)", "$var(v)", "i")) { xlog("$var(k)=$var(v)"); }'
        ' $stat(method:INVITE) = 0; xlog("$stat(method:INVITE)");'
    )
    assert run(script, invite, statements) == ["2", "INVITE=2", "BYE=1", "0"]


def test_names_from_the_network_are_bounded(script, invite, monkeypatch):
    monkeypatch.setattr(statistics, "MOST_NAMES", 10)
    runner = script(
        "max_while_loops=100\nrequest_route { $var(i) = 0; while ($var(i) < 50) {"
        ' update_stat("g:$var(i)", "1"); $var(i) = $var(i) + 1; } exit; }',
        MODULES,
    )
    runner.feed(invite)
    samples = list(runner.program.registry.plugin("statistics").metrics())
    assert samples[-1] == ("homerd_statistics_refused_total", {}, 40)
    assert ("homerd_statistic", {"name": "g:9"}, 1) in samples


def test_timers_see_what_packets_counted(script, invite):
    runner = script(
        'modparam("rtimer", "timer", "name=t;interval=1;mode=1")\n'
        'modparam("rtimer", "exec", "timer=t;route=T")\n'
        + DECLARED
        + 'request_route { update_stat("a", "1"); exit; }\nroute[T] { xlog("$stat(a)"); }',
        (*MODULES, "rtimer"),
    )
    runner.feed(invite)
    runner.worker.advance(1)
    assert runner.lines == ["1"]
