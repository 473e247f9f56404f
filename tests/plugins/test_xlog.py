"""Module xlog, and log() of the core."""

from __future__ import annotations

import pytest

from homerd.errors import ScriptErrors


def test_levels_up_to_debug_are_printed(log):
    assert log(
        'xlog("L_INFO", "1 $rm"); xlog("L_DBG", "hidden"); xlog("L_ALERT", "2");'
        ' xlog("3 $$ 100% %s");'
        ' xerr("4"); xinfo("5"); xdbg("hidden"); xalert("6"); xnotice("7"); xcrit("8");'
    ) == ["1 INVITE", "2", "3 $ 100% %s", "4", "5", "6", "7", "8"]


def test_only_the_third_character_of_a_level_counts(log):
    assert log('xlog("xxN", "1"); xlog("L_ERROR", "2"); xlog("LOG_LOCAL1", "L_WARN", "3");') == [
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize("level", ["1", "L_", "L_XYZ", ""])
def test_another_level_is_an_error(log, level):
    with pytest.raises(ScriptErrors):
        log(f'xlog("{level}", "text");')


def test_the_text_must_be_a_constant(log):
    with pytest.raises(ScriptErrors):
        log('xlog("a " + $rm);')


def test_the_text_is_handed_on_with_its_line_end(script, invite):
    runner = script('request_route { xlog("a\\n"); }')
    got = []
    runner.worker.engine.state.log = lambda level, text: got.append((level, text))
    runner.feed(invite)
    assert got == [(-1, "a\n")]


def test_log_takes_its_text_as_it_is_written(log):
    assert log('log(1, "$rm"); log("hidden");') == ["$rm"]


def test_a_level_may_be_a_variable_that_holds_a_number(log):
    assert log(
        '$var(l) = 2; xlog("$var(l)", "info"); $var(l) = 3; xlog("$var(l)", "hidden");'
        ' $var(l) = -20; xlog("$var(l)", "alert"); xlog($var(l), "bare");'
        ' $var(l) = "1"; xlog("$(var(l){s.int})", "computed"); xlog("$mt x", "rest dropped");'
    ) == ["info", "alert", "bare", "computed", "rest dropped"]


@pytest.mark.parametrize("value", ['"2"', '"L_INFO"', '"x"', "$null"])
def test_a_variable_that_holds_no_number_is_no_level(log, value):
    statement = f'$avp(l) = {value}; xlog("$avp(l)", "not printed"); xlog("$rc");'
    assert log(statement) == ["-1"]


def test_xlogl_gives_the_last_line_of_the_call(script, invite):
    text = 'request_route {\n xlogl("L_INFO",\n  "a $rm"); xlogl("b"); }'
    first = 11  # the lines of loadmodule, and debug, stand before
    assert script(text).feed(invite) == [f"{first + 1}:a INVITE", f"{first + 1}:b"]


def test_long_format_gives_the_file_too(script, invite):
    text = 'modparam("xlog", "long_format", 1) request_route { xlogl("a"); }'
    assert script(text).feed(invite) == ["homer.cfg:10:a"]


@pytest.mark.parametrize(
    ("parameter", "lines"), [("-1", []), ("0", ["a"]), ("1", []), ("2", ["a"]), ("12", ["a"])]
)
def test_xlogm_is_silent_for_the_methods_of_its_filter(script, invite, parameter, lines):
    text = f'modparam("xlog", "methods_filter", {parameter})'
    assert script(text + ' request_route { xlogm("L_INFO", "a"); }').feed(invite) == lines


def test_a_prefix_stands_before_each_line(script, invite):
    text = 'modparam("xlog", "prefix", "PP ") request_route { xerr("a"); xlogl("b"); log(1, "c"); }'
    assert script(text).feed(invite) == ["PP a", "PP 10:b", "c"]


def test_log_prefix_is_one_text_for_all_lines_of_a_packet(script, invite):
    runner = script(
        'log_prefix="{$ci $var(n)} "\n'
        'request_route { xerr("a"); $var(n) = $var(n) + 1; xerr("b"); log(1, "c"); xdbg("no"); }'
    )
    assert runner.feed(invite) == ["{cid-1@test 0} a", "{cid-1@test 0} b", "{cid-1@test 0} c"]
    assert runner.feed(invite) == ["{cid-1@test 1} a", "{cid-1@test 1} b", "{cid-1@test 1} c"]


def test_log_prefix_mode_1_has_it_made_for_each_line(script, invite):
    runner = script(
        'log_prefix="$var(n) "\nlog_prefix_mode=1\n'
        'request_route { xerr("a"); $var(n) = $var(n) + 1; xerr("b"); }'
    )
    assert runner.feed(invite) == ["0 a", "1 b"]


def test_a_mistake_in_log_prefix_is_told(refusal):
    said = refusal('log_prefix="$nope "\nrequest_route { exit; }')
    assert 'unknown pseudo-variable "$nope"' in said
