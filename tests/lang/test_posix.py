"""POSIX patterns: Kamailio's meaning, and no text that stalls the loop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homerd.lang import chain, linear
from homerd.lang.posix import (
    LONG,
    NEWLINE,
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


_STARS = st.sampled_from([".*", "(.*)"])
_LETTERS = st.sampled_from(["a", "b", "ab", "ba", "aab", r"\.", "1", "a1", "="])
_BETWEEN = st.sampled_from(
    ["[ab]", "a?", "[^a]?", ".", "(a)", "([ab])", "(a?)", "[a1]{2}", "(b[ab]?)", ".?"]
)
_LAST = st.sampled_from(
    ["", "[ab]*", "([ab]+)", "([a1]{1,3})", r"([^b\r]*)", "(.)", ".{0,2}", "(a*)", "((b){2})"]
)
_CHAIN_PIECES = st.tuples(_LETTERS, st.lists(_BETWEEN, max_size=2).map("".join), _LAST).map("".join)
_CHAINS = st.tuples(
    st.sampled_from(["", "^"]),
    _STARS,
    st.lists(st.tuples(_CHAIN_PIECES, _STARS).map("".join), min_size=1, max_size=3).map("".join),
    st.sampled_from(["", "$"]),
).map("".join)


@settings(max_examples=300, deadline=None)
@given(_CHAINS, st.text("aaab1.= \r", max_size=30))
def test_a_chain_has_the_groups_that_the_c_library_finds(pattern, text):
    found = PosixPattern(pattern, 0).groups(text.encode())
    # Without a line end in the text, the flag that keeps a pattern from the chain changes nothing.
    assert found == PosixPattern(pattern, NEWLINE).groups(text.encode())


@pytest.mark.parametrize(
    ("pattern", "is_chain"),
    [
        (r"^(.*)CallID:[ ]?([^\r\n]*)(.*)$", True),
        (r"^(.*)QualityEst:(.*)MOSCQ=([0-9.]{1,5})(.*)$", True),
        (r".*PS=([0-9]+).*$", True),
        (r".*a(b(c)).*", True),
        (r".*PS=([0-9]+)", False),  # is tied to its end
        (r"PS=([0-9]+).*", False),
        (r".*[0-9]+.*", False),  # begins with no letter
        (r".*a[0-9]*b.*", False),  # repeated, and not at its end
        (r".*(a|b)c.*", False),
        (r".*(ab)+.*", False),
        (r".*(ab.*)", False),
        (r".*ab**.*", False),
        (r".*aä+.*", False),  # the last byte is repeated, not the letter
        (r".*(a)(.*)\1.*", False),
        (r".*a[[:digit:]].*", False),
        (r".*a^b.*", False),
        ("(.*)a" * 9 + "(.*)", False),  # ten groups
        (".*", False),
        ("", False),
    ],
)
def test_a_chain_is_letters_and_sets_between_stars(pattern, is_chain):
    assert (linear.chain_of(pattern) is not None) is is_chain


def test_a_chain_is_left_to_others_when_a_text_begins_its_piece_too_often():
    found = linear.chain_of(".*PS=([0-9]+).*")
    text = b"PS=1" + b"PS=" * chain.TRIES
    assert found is not None
    with pytest.raises(chain.TooMany):
        found.groups(text, True)
    assert PosixPattern(".*PS=([0-9]+).*", 0).groups(text)[1] == (3, 4)


def test_a_chain_from_the_beginning_of_a_line_is_not_found_behind_it():
    pattern = PosixPattern("^.*a.*", 0)
    assert pattern.groups(b"bab") is not None
    assert pattern.groups(b"bab", at_line_start=False) is None


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
        (r"/^(.*)JBN=([0-9]{1,5})(.*)$/\2/s", "JBN=1 JBN=40 JBN=", "40"),
        (r"/^(.*)JBN=([0-9]{1,5})(.*)$/<\3>/s", "JBN=4\0JBN=5", "<>"),
        (r"/^(.*)CallID:[ ]?([^\r\n]*)(.*)$/\2/s", "CallID: 7@a\nb", "7@a\nb"),
        (r"/^(.*)ä=([0-9]+)(.*)$/\1\2/s", "äö ä=40", "äö 40"),
    ],
)
def test_a_substitution_replaces_what_it_matches(expression, text, result):
    assert Substitution(expression).apply(text) == result


@pytest.mark.parametrize("expression", ["", "/", "/a/b", "/a/b/x", "/(/b/"])
def test_a_substitution_that_is_none_says_so(expression):
    with pytest.raises(ValueError, match=r"expected|flag|regular expression"):
        Substitution(expression)
