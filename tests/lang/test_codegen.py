"""What statements and expressions do, input and outcome side by side."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 mod 3", "-1"),
        ("7 mod -3", "1"),
        ("2 + 3 * 4 - 8 / 2", "10"),
        ("6 ^ 3", "5"),
        ("1 << 4", "16"),
        ("~0", "-1"),
        ("1 & 2 == 2", "1"),
        ("(1 & 2) == 2", "0"),
        ("9223372036854775807 + 1", "-9223372036854775808"),
        ("$var(five) + \"1\"", "6"),
        ("$var(text5) + 1", "51"),
        ("$var(five) + \"abc\"", "5"),
        ("\"x\" + 1 + 2", "x12"),
        ("$var(five) + 1 + \"x\"", "6"),
        ("($var(text5) + $var(text5)) * 100", "1000"),
        ("\"\" + $var(five) + \"-\" + $var(text5)", "5-5"),
        ("$null + 1", "1"),
        ("(int)\"0x10\" + 1", "17"),
        ("(str)5 + 1", "51"),
        ("strlen(\"häh\")", "4"),
        ("strempty(\"\")", "1"),
        ("selval($rm == \"INVITE\", \"yes\", \"no\")", "yes"),
        ("$rm{up}", None),
        ("code(5)", "5"),
        ("code(5) + 10", "11"),
        ("code(-3) + 10", "10"),
        ("code(-3) == -3", "0"),
        ("!code(-3)", "1"),
        ("$var(never) == $null", "0"),
        ("$null == $null", "1"),
        ("$var(never) == \"\"", "0"),
        ("$null == \"\"", "1"),
        ("$null == 0", "1"),
        ("$null != \"x\"", "1"),
        ("$var(zero) == \"abc\"", "1"),
        ("\"abc\" == $var(zero)", "0"),
        ("$var(text010) == 10", "0"),
        ("$var(ten) == \"010\"", "1"),
        ("$var(b) > $var(a)", "0"),
        ("\"ABC\" =~ \"abc\"", "1"),
        ("\"x\\ny\" =~ \"^y\"", "0"),
        ("\"x\\ny\" =~ \"x.y\"", "1"),
        ("\"5\" =~ \"\\d\"", "0"),
        ("$rm eq \"INVITE\"", "1"),
        ("\"10\" ieq \"010\"", "1"),
        ("defined $null", "0"),
        ("!defined $null", "1"),
        ("$rm == \"INVITE\" && $var(five) > 4 || 0", "1"),
    ],
)  # fmt: skip
def test_an_expression_has_the_value_kamailio_gives_it(compiled, expression, value):
    script = compiled(
        'request_route { $var(five) = 5; $var(text5) = "5"; $var(zero) = 0; $var(ten) = 10;\n'
        '$var(text010) = "010"; $var(b) = "b"; $var(a) = "a";\n'
        f'$var(x) = {expression}; say("$var(x)"); }}'
    )
    if value is None:
        assert script.diagnostics.errors
    else:
        assert script.said() == [value]


@pytest.mark.parametrize(
    ("condition", "branch"),
    [
        ("-1", "else"),
        ('$var(yes)', "else"),
        ('$var(digits)', "then"),
        ("$null", "else"),
        ("!(-1)", "else"),
        ("$var(m1) && $var(m5)", "then"),
        ("$var(m1) && 1", "else"),
        ("code(2)", "then"),
        ("code(-2)", "else"),
        ('method == "INVITE"', "then"),
        ("method == INVITE", "then"),
        ('!method == "BYE"', "then"),
        ('uri =~ "^sip:bob@"', "then"),
        ("5 / $var(zero) == 0", "else"),
        ("!($rm =~ $var(bad))", "else"),
        ('$rm =~ $var(good)', "then"),
        ("msg:len > 10", "then"),
    ],
)  # fmt: skip
def test_if_takes_the_branch_of_a_number_above_zero(compiled, condition, branch):
    script = compiled(
        'request_route { $var(yes) = "yes"; $var(digits) = "5"; $var(m1) = -1; $var(m5) = -5;\n'
        '$var(zero) = 0; $var(bad) = "^inv("; $var(good) = "^inv";\n'
        f'if ({condition}) say("then"); else say("else"); }}'
    )
    assert script.said() == [branch]


@pytest.mark.parametrize(
    ("body", "said", "kind"),
    [
        ('say("a"); exit; say("b");', ["a"], "exit"),
        ('say("a"); drop;', ["a"], "drop"),
        ('if ($rm == "INVITE") { return; } say("b");', [], "return"),
        ('say("a");', ["a"], "end"),
        ('route(ZERO); say("b");', ["zero"], "return"),
        ('if (code(0)) say("a"); else say("b"); say("c");', [], "exit"),
        ('if (route(DROP)) say("a");', [], "drop"),
        ('route(BREAK); say("after $rc");', ["after 0"], "end"),
        ('route(MINUS); say("$rc");', ["-3"], "end"),
        ('$var(r) = route(MINUS); say("$var(r)");', ["-3"], "end"),
        ('route(TAIL); say("$rc");', ["-7"], "end"),
        ('route(PLAIN); say("$rc");', ["1"], "end"),
        ('code(-1); $var(x) = 5; say("$rc"); say("$rc");', ["-1", "1"], "end"),
        ('if (route(SE) && 0) say("no"); else say("yes");', ["yes"], "end"),
        ('if (route(SE) || 1) say("yes");', ["yes"], "end"),
        ('if (route(SE) && 1) say("yes");', ["side", "yes"], "end"),
        ('if (($var(a) = 0)) say("true");', ["true"], "end"),
        ('if { code(-1); } say("no"); else say("negative");', ["negative"], "end"),
        ('$var(n) = "DROP"; route($var(n)); say("no");', [], "drop"),
        ('$var(n) = "NOPE"; route($var(n)); say("on");', ["on"], "end"),
        ('$var(i) = 0; while ($var(i) < 1000) $var(i) = $var(i) + 1; say("$var(i)");', ["100"], "end"),
        ('$var(i) = 0; while (1) { $var(i) = $var(i) + 1; if ($var(i) == 3) break; } say("$var(i)");', ["3"], "end"),
        ('$var(a) = 99; $var(a) = 5 / $var(zero); say("$var(a)");', ["99"], "end"),
        ('$var(x) = "m $rm"; say("$var(x)");', ["m $rm"], "end"),
        ('say("[$null] $$ 100%");', ["[<null>] $ 100%"], "end"),
        ('say("$(rm{up}{up})");', ["INVITE"], "end"),
        ('plain("k$rm"); plain("k" + $rm);', ["k$rm", "kINVITE"], "end"),
    ],
)  # fmt: skip
def test_a_route_does_and_ends_as_in_kamailio(compiled, body, said, kind):
    script = compiled(
        f"request_route {{ $var(zero) = 0; {body} }}\n"
        'route[ZERO] { say("zero"); return 0; }\n'
        "route[DROP] { drop; }\n"
        "route[BREAK] { break; }\n"
        "route[MINUS] { return -3; }\n"
        "route[TAIL] { code(-7); }\n"
        "route[PLAIN] { return; }\n"
        'route[SE] { say("side"); return 1; }\n'
    )
    end = script.run()
    assert (script.words.said, end.kind) == (said, kind)


def test_switch_falls_through_until_break_and_labels_may_be_patterns(compiled):
    script = compiled(
        'request_route { switch ($rm) { case "BYE": say("bye"); case "INVITE": say("inv");'
        ' case "ACK": say("ack"); break; default: say("default"); }\n'
        '$var(i) = "0002"; switch ($var(i)) { case 1: say("1"); break; default: say("d"); break; case 2: say("2"); }\n'
        'switch ($rm) { case /"^inv": say("small"); break; case /"^INV": say("pattern"); } }'
    )
    assert script.said() == ["inv", "ack", "2", "pattern"]


def test_break_in_a_called_route_leaves_that_route_only(compiled):
    script = compiled(
        "request_route { $var(i) = 0; while ($var(i) < 2) { $var(i) = $var(i) + 1; route(B);"
        ' say("$var(i)"); } }\n'
        'route[B] { if ($var(i) == 1) break; say("in B"); }'
    )
    assert script.said() == ["1", "in B", "2"]


def test_two_main_routes_are_one(compiled):
    script = compiled('request_route { say("first"); }\nroute { say("second"); }')
    assert script.said() == ["first", "second"]


def test_a_route_that_calls_itself_is_stopped_and_reported(compiled):
    script = compiled('request_route { route(A); say("on $rc"); }\nroute[A] { route(A); }')
    assert script.said() == ["on -1"]
    assert script.reported == ["test.cfg:2 routes call each other more than 256 deep"] or (
        "more than 256 deep" in script.reported[0]
    )


def test_a_fault_in_a_function_is_found_at_its_statement(compiled):
    script = compiled('request_route {\n\tsay("a");\n\tfail();\n}')
    with pytest.raises(RuntimeError) as caught:
        script.run()
    place = script.script.locate(caught.value)
    assert (place.line, place.column, place.route) == (3, 2, "request_route")


def test_a_fault_in_an_included_file_names_that_file(compiled, tmp_path):
    (tmp_path / "inner.cfg").write_text('say("x");\nfail();\n')
    script = compiled('request_route {\n\tinclude_file "inner.cfg"\n}')
    with pytest.raises(RuntimeError) as caught:
        script.run()
    place = script.script.locate(caught.value)
    assert (place.file.endswith("inner.cfg"), place.line) == (True, 2)


def test_variables_outlive_the_packet(compiled):
    script = compiled('request_route { $var(n) = $var(n) + 1; say("$var(n)"); }')
    assert script.said() + script.said() == ["1", "2"]


def test_what_is_no_sip_is_refused_with_a_reason(compiled):
    end = compiled("request_route { exit; }").run(b"{}")
    assert (end.kind, end.reason) == ("refused", "not_sip")
