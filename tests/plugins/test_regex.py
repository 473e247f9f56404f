"""Module regex."""

from __future__ import annotations

import pytest

from homerd.errors import ConfigError

MODULES = ("pv", "xlog", "regex")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('pcre_match("hello", "^h(e|a)l+o$$")', "1"),
        ('pcre_match("hello", "^H")', "-1"),
        ('pcre_match("hello", "(?i)^H")', "1"),
        ('pcre_match("h3", "\\d(?=$$)")', "1"),
        ('pcre_match("$rU", "^bob$$")', "1"),
        ('pcre_match("h", "(")', "-4"),
        ('pcre_match("h", "$var(zero)(")', "-4"),
        ('pcre_match_group("h", "3")', "-4"),
    ],
)
def test_matches(script, invite, call, code):
    assert script(f'request_route {{ {call}; xlog("$rc"); exit; }}', MODULES).feed(invite) == [code]


def test_a_pattern_that_cannot_be_read_is_a_warning(script):
    runner = script('request_route { pcre_match("a", "("); exit; }', MODULES)
    (found,) = runner.program.warnings
    assert found.message.startswith('pcre_match(): "(" never matches: bad regular expression')


def test_groups_come_from_a_file(script, invite, tmp_path):
    file = tmp_path / "groups"
    file.write_text("# fraud\n[0]\n^900\n^901\n[1]\n^abc$\n")
    runner = script(
        f'modparam("regex", "file", "{file}")\nmodparam("regex", "pcre_caseless", 1)\n'
        'request_route { pcre_match_group("9015"); xlog("$rc"); pcre_match_group("8015", "0"); xlog("$rc");'
        ' pcre_match_group("ABC", "1"); xlog("$rc"); pcre_match_group("x", "2"); xlog("$rc"); exit; }',
        MODULES,
    )
    assert runner.feed(invite) == ["1", "-1", "1", "-4"]


def test_a_file_that_is_not_there_is_refused(script):
    with pytest.raises(ConfigError, match="No such file"):
        script('modparam("regex", "file", "/nowhere/x")\nrequest_route { exit; }', MODULES)


def test_hostile_text_cannot_hold_up_the_packet(script, invite):
    runner = script(
        'request_route { pcre_match("$ua", "^(\\w+|a)+!$$|(a|aa)+$$"); xlog("$rc"); exit; }',
        MODULES,
    )
    assert runner.feed(invite.replace("UA/1.0 (x)", "a" * 80 + "?")) == ["-1"]
    samples = list(runner.program.registry.plugin("regex").metrics())
    assert samples == [("homerd_regex_given_up_total", {}, 1)]
