"""The OpenSIPS dialect: how it is told, and what its tokens and statements mean."""

from __future__ import annotations

import pytest

from homerd.lang.diagnostics import render
from homerd.lang.dialect import Dialect, dialect_of

FIRST = "#!OPENSIPS\n"


@pytest.mark.parametrize(
    ("text", "by", "line"),
    [
        ("#!OPENSIPS\nroute { exit; }", "#!OPENSIPS", 1),
        ('# a\nloadmodule "proto_hep.so"\n', 'loadmodule "proto_hep.so"', 2),
        ('loadmodule "/usr/lib/sipmsgops.so"\n', 'loadmodule "/usr/lib/sipmsgops.so"', 1),
        ('loadmodule "cachedb_local"\n', 'loadmodule "cachedb_local"', 1),
        ("listen=hep_udp:*:9060\n", "listen=hep_udp", 1),
        ("\ntimer_route[a, 60] { exit; }", "timer_route[", 2),
        ("startup_route { exit; }", "startup_route {", 1),
        ('modparam("statistics", "stat_groups", "a")', 'modparam("statistics", "stat_groups"', 1),
        ("route { if ($rs != NULL) exit; }", "!= NULL", 1),
    ],
)
def test_opensips_is_told_by(text, by, line):
    told = dialect_of(text)
    assert (told.dialect, told.by, told.line) == (Dialect.OPENSIPS, by, line)


@pytest.mark.parametrize(
    "text",
    [
        "route { exit; }",
        "#!KAMAILIO\ntimer_route[a, 60] { exit; }",
        "#!define NULL $null\nroute { if ($rs == NULL) exit; }",
        "#!ifdef WITH_X\n#!endif\nlisten=hep_udp:*:9060\n",
        "# timer_route[a, 60]\nroute { exit; }",
        "/* loadmodule \"proto_hep.so\" */ route { xlog('startup_route {'); }",
        'route { xlog("x == NULL"); }',
        "route { $var(a) += 1; }",
        "route { $var(a) = 5 % 2; }",
        'loadmodule "mi_fifo.so"',
    ],
)
def test_kamailio_is_all_else(text):
    assert dialect_of(text).dialect is Dialect.KAMAILIO


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("$var(a) = 7 % 4;", "3"),
        ("$var(a) = 2; $var(a) += 3;", "5"),
        ("$var(a) = 7; $var(a) -= 3;", "4"),
        ("$var(a) = 7; $var(a) *= 3;", "21"),
        ("$var(a) = 7; $var(a) /= 2;", "3"),
        ("$var(a) = 7; $var(a) %= 4;", "3"),
        ("$var(a) = 6; $var(a) &= 3;", "2"),
        ("$var(a) = 6; $var(a) |= 1;", "7"),
        ("$var(a) = 6; $var(a) ^= 3;", "5"),
        ("$var(a) := 6;", "6"),
        ('$var(a) = "x"; $var(a) += "y";', "xy"),
        ('$var(a) = "x" . $rm . 3;', "xINVITE3"),
        ('$var(a) = 1 . 2 . "3";', "123"),
        ("$var(a) = 1; if ($rm !~ \"^BYE\") $var(a) = 2;", "2"),
        ('$var(a) = 1; if ($rm !~ "^INV") $var(a) = 2;', "1"),
        ('$var(a) = 1; if ($rm == NULL) $var(a) = 2;', "1"),
        ('$var(a) = 1; if ($rm != null) $var(a) = 2;', "2"),
        ('$var(a) = 1; if (NULL != $rm) $var(a) = 2;', "2"),
        ('$var(a) = 1; if ($rm) $var(a) = 2;', "2"),
        ('$var(a) = 1; if (!$rm) $var(a) = 2;', "1"),
        ('$var(a) = 0; $var(b) = 1; if ($var(a) || $var(b)) $var(a) = 2;', "2"),
        ("$var(a) = 0666;", "438"),
    ],
)  # fmt: skip
def test_what_a_statement_leaves_in_a_variable(compiled, statements, said):
    script = compiled(FIRST + f'route {{ {statements} say("$var(a)"); }}')
    assert script.said() == [said]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('plain("m $rm");', ["m INVITE"]),
        ("plain($rm);", ["INVITE"]),
        ('maybe("a",, "c");', ["a--c"]),
        ('maybe("a", "b",);', ["a-b-"]),
        ('maybe(, "b");', None),
    ],
)
def test_arguments_are_expanded_by_kind_and_may_be_left_out(compiled, call, said):
    script = compiled(FIRST + f"route {{ {call} }}")
    if said is None:
        assert "needs this argument: first" in script.diagnostics.errors[0].message
    else:
        assert script.said() == said


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("$var(a) += 1;", '"+=" does not assign'),
        ("$var(a) = 5 % 2;", "the character '%' means nothing here"),
        ('if ($rm !~ "x") exit;', '"!~" is no operator'),
        ('plain("a",,"b");', 'unexpected ","'),
    ],
)
def test_kamailio_has_none_of_it(compiled, statements, message):
    script = compiled(f"request_route {{ {statements} exit; }}")
    printed = render(script.diagnostics.found, script.sources)
    assert message in printed


def test_routes_that_run_by_time_and_at_start_are_routes_by_their_full_name(compiled):
    script = compiled(
        FIRST
        + 'timer_route[tick, 60] { say("tick"); }\nstartup_route { say("up"); }\n'
        + 'error_route { say("never"); }\nlocal_route { say("never"); }\n'
        + "event_route[E_CORE_THRESHOLD] { exit; }\nroute { exit; }\n"
    )
    assert script.diagnostics.found == []
    assert script.script.has_route("timer_route[tick]")
    assert script.script.has_route("startup_route")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timer_route[a, 0] { exit; }", "takes seconds from 1 on, got 0"),
        ("timer_route[a] { exit; }", 'unexpected "]"'),
        (
            "timer_route[a, 5] { exit; }\ntimer_route[a, 6] { exit; }",
            "timer_route[a] is defined twice",
        ),
    ],
)
def test_mistakes_in_timer_routes(compiled, text, expected):
    script = compiled(FIRST + text + "\nroute { exit; }\n")
    assert expected in script.diagnostics.errors[0].message
