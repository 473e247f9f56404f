"""Module xlog, and log() of the core."""

from __future__ import annotations

import pytest

from homerd.errors import ScriptErrors


def test_levels_up_to_debug_are_printed(log):
    assert log(
        'xlog("L_INFO", "1 $rm"); xlog("L_DBG", "hidden"); xlog("L_ALERT", "2");'
        ' xlog("3 $$ 100% %s");'
        ' xerr("4"); xinfo("5"); xdbg("hidden"); xalert("6"); xlogm("L_CRIT", "7"); xlogl("8");'
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
