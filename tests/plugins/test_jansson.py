"""Modules jansson and json; every outcome is Kamailio 5.6.3's with jansson 2.14."""

from __future__ import annotations

import pytest

from homerd_plugins import _json

MODULES = ("pv", "xlog", "jansson", "json")
DOCUMENT = (
    '{"a":12345678901,"b":1.0,"c":0.1,"d":1e10,"e":[1,{"q":2}],"f":true,"g":1e20,"n":null,'
    '"k":2147483647,"o":{"x":{"y":"deep"}}}'
)


def run(script, invite, statements: str) -> list[str]:
    return script(f"request_route {{ {statements} exit; }}", MODULES).feed(invite)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", "1 12345678901"),
        ("b", "1 1"),
        ("c", "1 0.1"),
        ("d", "1 10000000000"),
        ("e", '1 [1,{"q":2}]'),
        ("e[1]", '1 {"q":2}'),
        ("e[1].q", "1 2"),
        ("f", "1 1"),
        ("g", "1 1e+20"),
        ("k", "1 2147483647"),
        ("n", "1 0"),
        ("o.x.y", "1 deep"),
        ("o.", '1 {"x":{"y":"deep"}}'),
        ("e[]", "1 1"),
        ("zz", "-1 keep"),
        ("e[-1]", "-1 keep"),
        ("e[9]", "-1 keep"),
        ("e[1", "-1 keep"),
        ("e.q", "-1 keep"),
        ("a.b", "-1 keep"),
        ("o..x", "-1 keep"),
        ("$$.a", "-1 keep"),
    ],
)
def test_a_path_gives_a_value_or_leaves_the_target(script, invite, path, value):
    statements = (
        f"$var(j) = '{DOCUMENT}'; $var(o) = \"keep\"; "
        f'jansson_get("{path}", $var(j), "$var(o)"); xlog("$rc $var(o)");'
    )
    assert run(script, invite, statements) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "5",
        '"text"',
        '{"a":1,"a":2}',
        "[3] x",
        "[NaN]",
        "[Infinity]",
        "[99999999999999999999]",
        "[1e999]",
        '["\\ud800"]',
        '["a\udc80"]',
        "[" * 100_000,
        "[" * 300 + "]" * 300,
        '["\t"]',
        "",
    ],
)
def test_what_is_no_json_to_jansson_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        _json.loads(text)


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("0", '"string", "h", \'x"y\'', '1 {"h":"x\\"y"}'),
        ("0", '"integer", "n", "42"', '1 {"n":42}'),
        ("0", '"integer", "n", " 7"', '1 {"n":7}'),
        ("0", '"integer", "n", ""', '1 {"n":0}'),
        ("0", '"integer", "n", "abc"', "-1 0"),
        ("0", '"integer", "n", "12abc"', "-1 0"),
        ("0", '"integer", "n", "0x10"', "-1 0"),
        ("0", '"integer", "n", "99999999999"', '1 {"n":99999999999}'),
        ("0", '"real", "r", "1.25"', '1 {"r":1.25}'),
        ("0", '"real", "r", "0.1"', '1 {"r":0.10000000000000001}'),
        ("0", '"real", "r", "3"', '1 {"r":3.0}'),
        ("0", '"real", "r", ""', '1 {"r":0.0}'),
        ("0", '"real", "r", "1e300"', '1 {"r":1.0000000000000001e300}'),
        ("0", '"real", "r", "0.00001"', '1 {"r":1.0000000000000001e-5}'),
        ("0", '"real", "r", "1.5abc"', "-1 0"),
        ("0", '"true", "t", ""', '1 {"t":true}'),
        ("0", '"null", "t", ""', '1 {"t":null}'),
        ("0", '"object", "o", \'{"x":1}\'', '1 {"o":{"x":1}}'),
        ("0", '"object", "o", "[1]"', "-1 0"),
        ("0", '"array", "l", "[1, 2]"', '1 {"l":[1,2]}'),
        ("0", '"bogus", "l", "1"', "-1 0"),
        ("0", '"string", "a.b.c", "x"', '1 {"a":{"b":{"c":"x"}}}'),
        ("0", '"string", "a[0]", "x"', "-1 0"),
        ("0", '"string", "n", "$hdr(Nope)"', '1 {"n":"<null>"}'),
        ("0", '"string", "n", $hdr(Nope)', '1 {"n":""}'),
        ('""', '"string", "a", "x"', "-1 "),
        ('"bad"', '"string", "a", "x"', "-1 bad"),
        ("'[1]'", '"string", "a", "x"', "-1 [1]"),
        ("'[1]'", '"string", "[0]", "x"', '1 ["x"]'),
        ("'[1]'", '"string", "[1]", "x"', "-1 [1]"),
        ('\'{"a":{"b":1}}\'', '"string", "a", "x"', '1 {"a":"x"}'),
        ('\'{"a":"x"}\'', '"string", "a.c", "x"', '-1 {"a":"x"}'),
        ('\'{"a":"s","b":1}\'', '"integer", "a", "2"', '1 {"a":2,"b":1}'),
        ("'{\"o\":1}'", '"integer", "o.", "2"', '-1 {"o":1}'),
        ("'{\"o\":1}'", '"integer", "", "2"', '-1 {"o":1}'),
    ],
)
def test_setting_changes_the_text_or_leaves_it(script, invite, before, change, after):
    statements = f'$var(t) = {before}; jansson_set({change}, "$var(t)"); xlog("$rc $var(t)");'
    assert run(script, invite, statements) == [after]


def test_a_text_is_built_step_by_step_and_a_step_that_fails_leaves_no_trace(script, invite):
    statements = (
        '$var(t) = 0; jansson_set("integer", "a", "1", "$var(t)");'
        ' jansson_set("integer", "x.y[0]", "1", "$var(t)");'
        ' jansson_set("integer", "b.c", "2", "$var(t)"); jansson_set("integer", "a", "3", "$var(t)");'
        ' xlog("$var(t)");'
    )
    assert run(script, invite, statements) == ['{"a":3,"b":{"c":2}}']


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ('{"l":[1]}', '"integer", "l", "5"', '1 {"l":[1,5]}'),
        ('{"l":[1]}', '"integer", "l[0]", "5"', '1 {"l":[5]}'),
        ('{"o":{"a":1}}', '"object", "o", \'{"b":2}\'', '1 {"o":{"a":1,"b":2}}'),
        ('{"o":{"a":1}}', '"integer", "o", "2"', '-1 {"o":{"a":1}}'),
        ('{"s":"x"}', '"integer", "s", "2"', '-1 {"s":"x"}'),
        ("{}", '"integer", "l", "2"', "-1 {}"),
    ],
)
def test_appending(script, invite, before, change, after):
    statements = (
        f'$var(t) = \'{before}\'; jansson_append({change}, "$var(t)"); xlog("$rc $var(t)");'
    )
    assert run(script, invite, statements) == [after]


def test_sizes_of_arrays(script, invite):
    statements = (
        f"$var(j) = '{DOCUMENT}';"
        ' jansson_array_size("e", $var(j), "$var(n)"); xlog("$rc $var(n)");'
        ' jansson_array_size("a", $var(j), "$var(n)"); xlog("$rc $var(n)");'
        ' jansson_array_size("", \'[1,2,3]\', "$var(n)"); xlog("$rc $var(n)");'
    )
    assert run(script, invite, statements) == ["1 2", "-1 2", "1 3"]


def test_null_takes_a_value_away(script, invite):
    statements = 'jansson_get("n", \'{"n":null}\', "$avp(o)"); xlog("$rc $avp(o)");'
    assert run(script, invite, statements) == ["1 <null>"]


def test_records_go_to_json_and_back(script, invite):
    statements = (
        'jansson_xdecode(\'{"a":1,"b":"x","c":[1]}\', "r"); xlog("$xavp(r=>a) $xavp(r=>b) $xavp(r=>c)");'
        ' jansson_xencode("r", "$var(t)"); xlog("$var(t)"); jansson_xencode("nope", "$var(t)"); xlog("$rc");'
    )
    assert run(script, invite, statements) == ["1 x [1]", '{"a":1,"b":"x","c":"[1]"}', "-1"]


def test_the_older_module_gives_fields_with_their_quotes_or_without(script, invite):
    statements = (
        '$var(j) = \'{"a":"x","n":5}\'; json_get_field($var(j), "a", "$var(o)"); xlog("$var(o)");'
        ' json_get_string($var(j), "a", "$var(o)"); xlog("$var(o)");'
        ' json_get_string($var(j), "z", "$var(o)"); xlog("$rc");'
    )
    assert run(script, invite, statements) == ['"x"', "x", "-1"]


def test_control_characters_and_utf8_are_written_as_jansson_does():
    assert _json.dumps({"k\x01": "é\n\x1f/\\"}) == '{"k\\u0001":"é\\n\\u001F/\\\\"}'
