"""Modules prometheus and xhttp_prom."""

from __future__ import annotations

import pytest

from homerd.api import HttpRequest, render_metrics
from homerd.errors import ConfigError

MODULES = ("pv", "xlog", "prometheus")
COUNTER = (
    'modparam("prometheus", "prom_counter", "name=calls_total; label=method:ua; help=Calls.")\n'
)


def page(runner, module="prometheus"):
    """What stands on the page of the script's own metrics."""
    counted = runner.program.registry.plugin(module).counted
    lines = render_metrics(counted.samples()).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def other(runner):
    """homerd_prometheus_… samples that say what could not be counted."""
    plugin = runner.program.registry.plugin("prometheus")
    return {
        (name, *labels.values()): value
        for name, labels, value, *_ in plugin.metrics()
        if name.endswith(("over_budget_total", "refused_total"))
    }


def test_a_counter_counts_by_its_labels(script, invite):
    runner = script(
        COUNTER + 'request_route { prom_counter_inc("calls_total", 2, $rm, "$ua"); xlog("$rc"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["1"]
    assert runner.feed(invite) == ["1"]
    assert page(runner) == ['calls_total{method="INVITE",ua="UA/1.0 (x)"} 4']


def test_a_counter_can_be_set_to_zero(script, invite):
    runner = script(
        'modparam("prometheus", "prom_counter", "name=a_total")\n'
        'request_route { prom_counter_inc("a_total", "5"); prom_counter_reset("a_total"); }',
        MODULES,
    )
    runner.feed(invite)
    assert page(runner) == ["a_total 0"]


def test_a_gauge_holds_the_last_value(script, invite):
    runner = script(
        'modparam("prometheus", "prom_gauge", "name=load;label=host;")\n'
        'request_route { prom_gauge_set("load", "-12.5", "a"); prom_gauge_set("load", 3, "b");'
        ' prom_gauge_reset("load", "b"); }',
        MODULES,
    )
    runner.feed(invite)
    assert page(runner) == ['load{host="a"} -12.5', 'load{host="b"} 0']


def test_a_histogram_counts_what_is_at_most_the_bound(script, invite):
    runner = script(
        'modparam("prometheus", "prom_histogram", "name=d; label=m; buckets=2.3:5.8")\n'
        "request_route { "
        + "".join(f'prom_histogram_observe("d", "{n}", "x");' for n in (2.3, 2.8, -1, 9))
        + " }",
        MODULES,
    )
    runner.feed(invite)
    assert page(runner) == [
        'd_bucket{m="x",le="2.3"} 2',
        'd_bucket{m="x",le="5.8"} 3',
        'd_bucket{m="x",le="+Inf"} 4',
        'd_sum{m="x"} 13.1',
        'd_count{m="x"} 4',
    ]


def test_beyond_the_budget_everything_new_is_other(script, invite):
    runner = script(
        COUNTER + 'modparam("prometheus", "max_series", 2)\n'
        'request_route { prom_counter_inc("calls_total", 1, "$rm", "$ci"); }',
        MODULES,
    )
    for number in (1, 2, 3, 4, 1):
        runner.feed(invite.replace("cid-1@test", f"c{number}"))
    assert page(runner) == [
        'calls_total{method="INVITE",ua="c1"} 2',
        'calls_total{method="INVITE",ua="c2"} 1',
        'calls_total{method="other",ua="other"} 2',
    ]
    assert other(runner) == {
        ("homerd_prometheus_over_budget_total", "prometheus", "calls_total"): 2
    }


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('prom_counter_inc("nothing", 1)', "unknown_metric"),
        ('prom_gauge_set("calls_total", 1, "a", "b")', "unknown_metric"),
        ('prom_counter_inc("calls_total", 1, "a")', "wrong_labels"),
        ('prom_counter_inc("calls_total", 1, "a", "b", "c")', "wrong_labels"),
        ('prom_counter_inc("calls_total", -1, "a", "b")', "negative"),
        ('prom_counter_inc("calls_total", "many", "a", "b")', "not_a_number"),
        ('prom_counter_inc("calls_total", "nan", "a", "b")', "not_a_number"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_false_and_counted(script, invite, call, reason):
    runner = script(COUNTER + f'request_route {{ {call}; xlog("$rc"); }}', MODULES)
    assert runner.feed(invite) == ["-1"]
    assert page(runner) == []
    assert other(runner) == {("homerd_prometheus_refused_total", "prometheus", reason): 1}


def test_bytes_that_are_no_utf_8_make_one_series(script, invite):
    runner = script(
        COUNTER + 'request_route { prom_counter_inc("calls_total", 1, "", "$ua"); }', MODULES
    )
    for byte in (b"\xff", b"\xfe"):
        runner.feed(invite.encode().replace(b"UA/1.0", byte))
    assert page(runner) == ['calls_total{method="",ua="? (x)"} 2']


def test_a_series_that_nothing_changes_is_left_out_after_its_time(script, invite):
    runner = script(
        COUNTER + 'modparam("prometheus", "timeout", 4)\n'
        'request_route { prom_counter_inc("calls_total", 1, "a", "b"); }',
        MODULES,
    )
    runner.feed(invite)
    runner.worker.advance(180)
    runner.feed(invite)
    runner.worker.advance(180)
    assert page(runner) == ['calls_total{method="a",ua="b"} 2']
    runner.worker.advance(180)
    assert page(runner) == []


@pytest.mark.parametrize(
    ("param", "value", "said"),
    [
        ("prom_counter", "calls", "expected name=…"),
        ("prom_counter", "name=a b", 'got "a b"'),
        ("prom_counter", "name=a; label=x:x", '"x" cannot be a label'),
        ("prom_counter", "name=a; label=__x", '"__x" cannot be a label'),
        ("prom_histogram", "name=a; label=le", '"le" cannot be a label'),
        ("prom_histogram", "name=a; buckets=2:1", "numbers that rise"),
        ("prom_histogram", "name=a; buckets=x", "numbers that rise"),
        ("prom_gauge", "name=a; name=b", 'got "name=b"'),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(refusal, param, value, said):
    text = f'modparam("prometheus", "{param}", "{value}")\nrequest_route {{ exit; }}'
    assert said in refusal(text, MODULES)


def test_two_metrics_of_one_name_are_refused(script):
    both = COUNTER + COUNTER.replace("prom_counter", "prom_gauge")
    with pytest.raises(ConfigError, match="a metric of this name is there already"):
        script(both + "request_route { exit; }", MODULES)


def test_a_script_of_kamailios_xhttp_prom_answers_prometheus(script):
    runner = script(
        'modparam("xhttp_prom", "xhttp_prom_stats", "all")\n'
        'modparam("xhttp_prom", "prom_counter", "name=cnt_second; label=method:IP")\n'
        "request_route { drop; }\n"
        "event_route[xhttp:request] { if (prom_check_uri()) {"
        ' prom_counter_inc("cnt_second", "10", "push", "192.168.0.1"); prom_dispatch(); } else'
        ' xhttp_reply("200", "OK", "text/html", "Wrong URL $hu"); }',
        ("pv", "sl", "xhttp", "xhttp_prom"),
    )
    ask = runner.program.registry.plugin("xhttp").answer
    ends = ((), b"", 2, b"\x7f\0\0\1", 4000, b"\x7f\0\0\1", 9060)
    answer = ask(HttpRequest("GET", "/metrics", *ends))
    assert answer.headers == (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),)
    assert answer.body.decode().splitlines() == [
        "# HELP kamailio_cnt_second Counter of the script.",
        "# TYPE kamailio_cnt_second counter",
        'kamailio_cnt_second{method="push",IP="192.168.0.1"} 10',
    ]
    assert ask(HttpRequest("GET", "/x", *ends)).body == b"Wrong URL /x"
