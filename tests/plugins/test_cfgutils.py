"""Module cfgutils."""

from __future__ import annotations

MODULES = ("pv", "xlog", "cfgutils")


def test_routes_by_name(script, invite):
    runner = script(
        'request_route { if (check_route_exists("X")) xlog("there"); if (!check_route_exists("Y"))'
        ' xlog("not there"); route_if_exists("X"); xlog("$rc $var(q)"); route_if_exists("Y"); xlog("$rc");'
        ' route_if_exists("E"); xlog("not reached"); }\n'
        'route[X] { $var(q) = 1; return 5; }\nroute[E] { xlog("E"); exit; }',
        MODULES,
    )
    assert runner.feed(invite) == ["there", "not there", "5 1", "-1", "E"]


def test_a_route_that_runs_itself_by_name_ends(script, invite):
    runner = script(
        'request_route { route_if_exists("X"); xlog("on"); }\nroute[X] { route_if_exists("X"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["on"]


def test_hashes_are_kamailios(script, invite):
    runner = script(
        'request_route { $var(h) = core_hash("abc", "", 8); xlog("$var(h)");'
        ' $var(h) = core_hash("abc", "def", 8); xlog("$var(h)"); $var(h) = core_hash("a", "", 1); xlog("$var(h)"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["67", "114", "2"]


def test_chance(script, invite):
    runner = script(
        'modparam("cfgutils", "initial_probability", 0)\n'
        'request_route { if (!rand_event()) xlog("never"); rand_set_prob("100"); if (rand_event()) xlog("always");'
        ' $var(p) = rand_get_prob(); xlog("$var(p)"); rand_reset_prob(); if (!rand_event()) xlog("never");'
        ' rand_set_prob("101"); xlog("$rc"); if ($RANDOM >= 0) xlog("number"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["never", "always", "100", "never", "-1", "number"]


def test_nothing_waits_and_locks_are_free(script, invite):
    runner = script(
        'request_route { sleep("600"); lock("k"); trylock("k"); xlog("$rc"); unlock("k"); abort(); xlog("no"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["1"]
