"""Module htable; what a case does was read off Kamailio 5.6.3."""

from __future__ import annotations

import pytest

from homerd.errors import ConfigError, ScriptErrors

TABLES = (
    'modparam("htable", "htable", "a=>size=8;autoexpire=60")\n'
    'modparam("htable", "htable", "b=>size=8")\n'
    'modparam("htable", "htable", "n=>size=4;autoexpire=60;updateexpire=0;initval=5")\n'
)
ITEMS = '$sht(b=>k1) = "one"; $sht(b=>k2) = 2; $sht(b=>K1) = "ONE"; $sht(b=>xk) = "tone";'


@pytest.fixture
def htable(log):
    return lambda statements: log(statements, extra=TABLES)


def test_values_are_kept_counted_and_deleted(htable):
    assert htable(
        'if ($sht(a=>k) == $null) $sht(a=>k) = 0; $sht(a=>k) = $sht(a=>k) + 1; xlog("$sht(a=>k)");'
        ' $sht(b=>$ci::$rm) = "v"; xlog("$sht(b=>cid-1@test::INVITE)");'
        ' $sht(b=>n) = $sht(b=>nope) + 1; xlog("$sht(b=>n)");'
        ' $sht(b=>s) = ""; if ($sht(b=>s) != $null) xlog("empty is a value");'
        ' $sht(b=>s) = $null; xlog("$sht(b=>s)");'
    ) == ["1", "v", "1", "empty is a value", "<null>"]


def test_keys_are_taken_as_they_are_and_table_names_without_blanks(htable):
    assert htable('$sht(b=> k ) = "v"; xlog("[$sht(b=>k)] [$sht(b=> k )] [$sht(b =>K)]");') == [
        "[<null>] [v] [<null>]"
    ]


def test_a_table_outlives_the_packet(script, invite):
    runner = script(TABLES + 'request_route { $sht(b=>n) = $sht(b=>n) + 1; xlog("$sht(b=>n)"); }')
    assert [runner.feed(invite), runner.feed(invite)] == [["1"], ["11"]]  # text and 1 is joined


def test_counting_on_read(htable):
    assert htable(
        "$sht(b=>n) = 1;"
        ' xlog("[$shtinc(b=>n)] [$shtinc(b=>n)] [$shtdec(b=>n)] [$shtinc(b=>none)]");'
        ' $sht(b=>s) = "5"; xlog("[$shtinc(b=>s)] [$shtinc(zz=>s)]");'
        ' xlog("[$sht(n=>x)] [$shtinc(n=>x)] [$sht(n=>x)] [$shtdec(n=>y)] [$sht(n=>y)]");'
    ) == ["[2] [3] [2] [<null>]", "[<null>] [<null>]", "[5] [6] [6] [4] [4]"]


def test_expiry_follows_the_scripts_clock(script, invite):
    runner = script(
        TABLES + 'request_route { if ($sht(a=>k) == $null) xlog("fresh"); else xlog("seen");'
        " $sht(a=>k) = 1; }"
    )
    seen = [runner.feed(invite), runner.feed(invite)]
    runner.worker.advance(59)
    seen.append(runner.feed(invite))
    runner.worker.advance(61)
    seen.append(runner.feed(invite))
    assert seen == [["fresh"], ["seen"], ["seen"], ["fresh"]]


def test_without_updateexpire_a_write_does_not_renew(script, invite):
    runner = script(
        TABLES
        + 'request_route { if ($sht(n=>k) == 5) xlog("fresh"); else xlog("seen"); $sht(n=>k) = 1; }'
    )
    seen = [runner.feed(invite)]
    runner.worker.advance(40)
    seen.append(runner.feed(invite))
    runner.worker.advance(40)
    seen.append(runner.feed(invite))
    assert seen == [["fresh"], ["seen"], ["fresh"]]


def test_seconds_to_live_can_be_read_and_set(htable):
    assert htable(
        'xlog("[$shtex(a=>k)]"); $sht(a=>k) = 1; xlog("[$shtex(a=>k)]"); $shtex(a=>k) = 10;'
        ' xlog("[$shtex(a=>k)]"); $sht(a=>k) = 2; xlog("[$shtex(a=>k)]");'
        ' $sht(b=>k) = 1; $shtex(b=>k) = 7; xlog("[$shtex(b=>k)] [$sht(b=>k)]");'
    ) == ["[0]", "[60]", "[10]", "[60]", "[0] [1]"]


def test_an_event_route_sees_what_has_expired(script, invite):
    runner = script(
        'modparam("htable", "timer_interval", 5)\n'
        + TABLES
        + 'request_route { $sht(a=>k) = "v"; }\n'
        "event_route[htable:expired:a] {"
        ' xlog("$shtrecord(key)=$shtrecord(value) [$sht(a=>k)] $rm"); }'
    )
    runner.feed(invite)
    runner.worker.advance(59)
    assert runner.lines == []
    runner.worker.advance(10)
    assert runner.lines == ["k=v [<null>] OPTIONS"]


@pytest.mark.parametrize(
    ("call", "code", "left"),
    [
        ('sht_rm_name_re("b=>^k")', 1, "[<null>] [<null>] [<null>] [tone]"),
        ('sht_rm_name_re("b=>2$$")', 1, "[one] [<null>] [ONE] [tone]"),
        ('sht_rm_name_re("b=>nomatch")', 1, "[one] [2] [ONE] [tone]"),
        ('sht_rm_name_re("zz=>x")', 1, "[one] [2] [ONE] [tone]"),
        ('sht_rm_name_re("b=>(")', -1, "[one] [2] [ONE] [tone]"),
        ('sht_rm_value_re("b=>^one$$|2")', 1, "[<null>] [2] [<null>] [tone]"),
        ('sht_rm("b", "k1")', 1, "[<null>] [2] [ONE] [tone]"),
        ('sht_rm("b", "zz")', 1, "[one] [2] [ONE] [tone]"),
        ('sht_rm("zz", "k1")', -1, "[one] [2] [ONE] [tone]"),
        ('sht_rm_name("b", "sw", "k")', 1, "[<null>] [<null>] [ONE] [tone]"),
        ('sht_rm_name("b", "ew", "k")', 1, "[one] [2] [ONE] [<null>]"),
        ('sht_rm_name("b", "??", "k")', -1, "[one] [2] [ONE] [tone]"),
        ('sht_rm_value("b", "in", "on")', 1, "[<null>] [2] [ONE] [<null>]"),
        ('sht_reset("b")', 1, "[<null>] [<null>] [<null>] [<null>]"),
        ('sht_reset("zz")', -1, "[one] [2] [ONE] [tone]"),
    ],
)
def test_removing(htable, call, code, left):
    shown = "$rc [$sht(b=>k1)] [$sht(b=>k2)] [$sht(b=>K1)] [$sht(b=>xk)]"
    assert htable(f'{ITEMS} {call}; xlog("{shown}");') == [f"{code} {left}"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('sht_match_name("b", "eq", "k1")', 1),
        ('sht_match_name("b", "ne", "k1")', 1),
        ('sht_match_name("b", "re", "^X")', 1),
        ('sht_match_name("b", "sw", "z")', -1),
        ('sht_has_name("zz", "eq", "k1")', -1),
        ('sht_match_str_value("b", "eq", "one")', 1),
        ('sht_match_str_value("b", "eq", "2")', -1),
        ('sht_has_str_value("b", "sw", "to")', 1),
        ('sht_is_null("b", "k1")', -1),
        ('sht_is_null("b", "zz")', 1),
        ('sht_lock("b=>k1")', 1),
        ('sht_setxs("b", "k1", "new", "10")', 1),
    ],
)
def test_asking(htable, call, code):
    assert htable(f'{ITEMS} {call}; xlog("$rc");') == [str(code)]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$shtcn(b=>~~^k) $shtcn(b=>k1) $shtcn(b=>nope) $shtcn(zz=>k)", "3 2 0 0"),
        ("$shtcn(b=>~%k) $shtcn(b=>~%1) $shtcn(b=>~%K)", "1 2 0"),
        ("$shtcn(b=>%~k) $shtcn(b=>%~K)", "2 1"),
        ("$shtcv(b=>~~^one$$) $shtcv(b=>one) $shtcv(b=>2) $shtcv(b=>%~one)", "2 3 0 1"),
    ],
)
def test_counting_matches(htable, text, printed):
    assert htable(f'{ITEMS} xlog("{text}");') == [printed]


def test_walking_over_a_table(htable):
    assert htable(
        '$sht(b=>k1) = "one"; $sht(b=>k2) = 2; sht_iterator_start("i", "b");'
        ' xlog("[$shtitkey(i)]");'
        ' while (sht_iterator_next("i")) { xlog("$shtitkey(i)=$shtitval(i)"); }'
        ' xlog("$rc [$shtitkey(i)]"); sht_iterator_end("i"); xlog("$rc");'
        ' sht_iterator_next("nope"); xlog("$rc"); sht_iterator_start("j", "zz"); xlog("$rc");'
    ) == ["[<null>]", "k1=one", "k2=2", "-1 [<null>]", "1", "-1", "-1"]


def test_changing_a_table_on_the_way(htable):
    assert htable(
        '$sht(b=>k1) = 1; $sht(b=>k2) = 2; $sht(b=>k3) = 3; sht_iterator_start("i", "b");'
        ' sht_iterator_next("i"); sht_iterator_rm("i"); $sht(b=>k2) = $null;'
        ' sht_iterator_next("i"); sht_iterator_seti("i", 7); sht_iterator_end("i");'
        ' xlog("[$sht(b=>k1)] [$sht(b=>k2)] [$sht(b=>k3)]");'
    ) == ["[<null>] [<null>] [7]"]


def test_a_table_nobody_defined_reads_null_loses_writes_and_warns(script, invite):
    runner = script('request_route { $sht(zz=>k) = 1; xlog("[$sht(zz=>k)]"); }')
    assert runner.feed(invite) == ["[<null>]"]
    warnings = [found.message for found in runner.program.warnings]
    assert 'the table "zz" is not defined: what is written to it is lost' in warnings
    assert ("homerd_htable_failed_writes_total", {}, 1) in list(
        runner.program.registry.plugin("htable").metrics()
    )


def test_a_table_may_be_defined_after_its_use(script, invite):
    runner = script(
        'request_route { $sht(late=>k) = 1; xlog("$sht(late=>k)"); }\n'
        'modparam("htable", "htable", "late=>size=4")\n'
    )
    assert runner.feed(invite) == ["1"]


def test_mod_init_runs_once_before_the_first_packet(script, invite):
    runner = script(
        TABLES
        + 'event_route[htable:mod-init] { $sht(b=>k) = "$rm"; $sht(b=>r) = $rm; xlog("init"); }\n'
        'request_route { xlog("$sht(b=>k) $sht(b=>r)"); }'
    )
    assert runner.lines == ["init"]
    assert runner.feed(invite) == ["$rm OPTIONS"]


def test_drop_at_the_end_of_mod_init_is_an_error(refusal):
    text = TABLES + "event_route[htable:mod-init] { drop; }\nrequest_route { exit; }"
    assert "would not start" in refusal(text)


def test_drop_in_mod_init_stops_the_start(script):
    with pytest.raises(ConfigError, match="not starting"):
        script(
            TABLES + "event_route[htable:mod-init] { if ($TS > 5) drop; }\nrequest_route { exit; }"
        )


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("a=>size=4", 'the table "a" is defined already'),
        ("size=4", "expected NAME=>"),
        ("c=>size=x", 'size takes a number, got "x"'),
        ("c=>colour=4", 'unknown attribute "colour"'),
    ],
)
def test_a_wrong_definition_is_an_error(refusal, definition, message):
    text = f'modparam("htable", "htable", "{definition}")\nrequest_route {{ exit; }}'
    assert message in refusal(TABLES + text)


@pytest.mark.parametrize(
    "text", ["$sht(a)", "$sht(=>k)", "$sht(a=>)", "$sht", "$shtrecord(x)", "$sht($rm=>k)"]
)
def test_a_wrong_name_is_an_error(htable, text):
    with pytest.raises(ScriptErrors):
        htable(f'xlog("{text}");')


def test_a_write_to_a_table_that_is_not_defined_is_counted_and_told_once(script, invite, caplog):
    runner = script(
        "request_route { $sht(nope=>a) = 1; $sht(nope=>b) = 2; $shtex(none=>a) = 3;"
        ' sht_setxi("none", "a", 1, 5); }'
    )
    runner.feed(invite)
    assert runner.program.registry.plugin("htable").failed_writes == 4
    assert [record.getMessage() for record in caplog.records] == [
        "htable write lost table='nope' count=1"
        """ remedy='modparam("htable", "htable", "nope=>size=8")'"""
    ]


def test_a_table_of_few_slots_is_told_of_at_its_line(script):
    runner = script(
        'modparam("htable", "htable", "small=>size=1;")\n'
        'modparam("htable", "htable", "usual=>size=8;")\nrequest_route { exit; }\n'
    )
    (found,) = [item for item in runner.program.warnings if item.code == "W906"]
    assert 'the table "small" has size=1: in Kamailio that is 2 slots' in found.message
    file, line = runner.program.sources.find(found.span.line)
    assert "small=>" in file.line(line)
