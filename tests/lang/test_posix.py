"""POSIX patterns: Kamailio's meaning, and no text that stalls the loop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homerd.lang import linear
from homerd.lang.posix import (
    LONG,
    PosixPattern,
    SearchLimit,
    Substitution,
    compile_posix,
)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^(\d{1,3}\.){3}\d{1,3}$", "192.168.1.10", False),
        (r"^([0-9]{1,3}\.){3}[0-9]{1,3}$", "192.168.1.10", True),
        # with any case asked for, the C library never finds an escaped small letter
        (r"\d", "d", False),
        (r"\D", "d", True),
        (r"\sbar\w?\b", "foo bar", True),
        (r"(a)\1", "aa", True),
        (r"^y", "x\ny", False),
        (r"x.y", "x\ny", True),
        (r"a\.b", "axb", False),
        (r"ABC", "abc", True),
        (r"\<bar\>", "foo bar baz", True),
        (r"\<ar", "bar", False),
        (r"(\=)|(\-\-)|(\')|(\#)", "", True),
        (r"[^\r\n]+$", "cr", False),
        (r"[]a]", "]", True),
        (r"[^]a]", "]a", False),
        (r"[[:alpha:]-]+", "--", True),
        (r"ä|ö", "xöx", True),
        (r"a{2}", "aa", True),
    ],
)
def test_a_pattern_means_what_it_means_in_kamailio_for_short_and_long_texts(pattern, text, found):
    compiled = compile_posix(pattern)
    assert compiled.search(text) is found
    # Blanks behind the text change nothing for a pattern that is not tied to its end.
    if not pattern.endswith("$") and "\\'" not in pattern and "[^" not in pattern:
        assert compiled.search(text + " " * LONG) is found


@pytest.mark.parametrize("pattern", ["^inv(", "(?i)x", "a{2,1}", "[z-a]", "*)"])
def test_a_bad_pattern_says_so(pattern):
    with pytest.raises(ValueError, match="bad regular expression"):
        compile_posix(pattern)


# Anchors stand at the ends: in the middle of a pattern the C library finds more than POSIX allows.
_ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\.", r"\d", r"\w", r"\s", "(a|b)", "(ab|a)", "-"]
)
_REPEATED = st.tuples(_ATOMS, st.sampled_from(["", "*", "+", "?", "{1,2}"])).map("".join)
_PATTERNS = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(_REPEATED, min_size=1, max_size=6).map("".join),
    st.sampled_from(["", "$"]),
).map("".join)


@settings(max_examples=300, deadline=None)
@given(_PATTERNS, st.text("ab.d- \nA", max_size=30), st.booleans(), st.booleans())
def test_the_engine_for_long_texts_finds_what_the_c_library_finds(
    pattern, text, ignore_case, newline
):
    flags = (2 if ignore_case else 0) | (4 if newline else 0)
    short = PosixPattern(pattern, flags).groups(text.encode())
    long = linear.engine(pattern, ignore_case=ignore_case, newline=newline).groups(
        text.encode(), True
    )
    assert (short and short[0]) == (long and long[0])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a|aa)+$", "a" * 60_000 + "b"),
        ("(x+x+)+y", "x" * 60_000),
        (".*PS=([0-9]+).*$", "PS=" * 20_000),
        ("(a*)*b", "a" * 60_000),
        ("([a-z]+)*@([a-z]+)*$", "a" * 60_000),
        (r"(a*)*\1b", "a" * 60_000),
        (r"(x+x+)+\1y", "x" * 60_000),
        (r"(.+)(.+)(.+)\1\2\3z", "ab" * 30_000),
    ],
)
def test_no_text_stalls_a_search(pattern, text):
    # Each of these takes the C library seconds, or longer than anybody has waited.
    compiled = compile_posix(pattern)
    try:
        compiled.search(text)
    except SearchLimit:
        assert compiled.bounded


def test_a_search_that_is_given_up_is_reported_and_the_script_goes_on(compiled):
    script = compiled(
        'request_route { $var(x) = "' + "x" * 200 + '";\n'
        'if ($var(x) =~ "(x+x+)+\\1y") say("found"); else say("not found");\nsay("on"); }'
    )
    assert script.said() == ["not found", "on"]
    assert "given up" in script.reported[0]


@pytest.mark.parametrize(
    ("expression", "text", "result"),
    [
        (r"/.*PS=([0-9]+).*$/\1/s", "PS=207;OS=9\r\nPL=3,4", "207"),
        (r"/.*ZZ=([0-9]+).*$/\1/s", "PS=207;OS=9", "PS=207;OS=9"),
        ("/b/X/g", "bob", "XoX"),
        ("/B/X/", "bob", "bob"),
        ("/B/X/i", "bob", "Xob"),
        (r"/^(.)(.*)$/\2\1/", "bob", "obb"),
        ("#/#-#g", "a/b/c", "a-b-c"),
        (r"/\//-/", "a/b", "a-b"),
        ("/x*/-/g", "abc", "-a-b-c-"),
        (r"/^(.*)JBN=([0-9]{1,5})(.*)$/\2/s", "x" * 700 + "\nJBN=40 JBM=80", "40"),
    ],
)
def test_a_substitution_replaces_what_it_matches(expression, text, result):
    assert Substitution(expression).apply(text) == result


@pytest.mark.parametrize("expression", ["", "/", "/a/b", "/a/b/x", "/(/b/"])
def test_a_substitution_that_is_none_says_so(expression):
    with pytest.raises(ValueError, match=r"expected|flag|regular expression"):
        Substitution(expression)
