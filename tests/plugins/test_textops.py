"""Module textops."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('is_method("INVITE|BYE")', 1),
        ('is_method("bye|invite")', 1),
        ('is_method("BYE")', -1),
        ("has_body()", 1),
        ('has_body("application/sdp")', 1),
        ('has_body("APPLICATION/SDP")', 1),
        ('has_body("application/*")', -1),
        ('has_body("text/plain")', -1),
        ('is_present_hf("subject")', 1),
        ('is_present_hf("s")', 1),
        ('is_present_hf("Nope")', -1),
        ('is_present_hf_pv("$var(name)")', 1),
        ('search("HELLO")', 1),
        ('search("^Subject: h")', 1),
        ('search("nope")', -1),
        ('search_body("v=.")', 1),
        ('search_body("Subject")', -1),
        ('search_hf("Subject", "^HEL", "a")', 1),
        ('search_hf("X-Multi", "two", "a")', 1),
        ('search_hf("X-Multi", "two", "f")', -1),
        ('search_hf("X-Multi", "two", "l")', 1),
        ('starts_with("$rU", "bo")', 1),
        ('starts_with("$rU", "BO")', -1),
        ('starts_with("bo", "bob")', -1),
        ('starts_with("", "x")', -1),
        ('starts_with("x", "")', 1),
        ('ends_with("$rU", "ob")', 1),
        ('str_find("$rU", "o")', 2),
        ('str_find("$rU", "x")', -1),
        ('str_ifind("$rU", "O")', 2),
        ('cmp_str("$rU", "bob")', 1),
        ('cmp_str("a", "b")', -2),
        ('cmp_str("b", "a")', -1),
        ('cmp_istr("$rU", "BOB")', 1),
        ('in_list("b", " a , b ,c", ",")', 1),
        ('in_list("z", "a,b,c", ",")', -1),
        ('append_hf("X: y\\r\\n")', 1),
        ('remove_hf("Subject")', 1),
        ("is_audio_on_hold()", -1),
    ],
)
def test_functions(log, call, code):
    assert log(f'$var(name) = "Subject"; {call}; xlog("$rc");') == [str(code)]


def test_the_method_of_a_reply_is_that_of_cseq(log, reply):
    assert log('if (is_method("INVITE")) xlog("yes");', reply) == ["yes"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('is_method("FOO|INVITE")', 'unknown method "FOO"'),
        ('has_body("application")', "expected type/subtype"),
        ('search("(")', "bad regular expression"),
        ('is_present_hf("$var(x)")', "expected a header's name"),
        ('search_hf("Subject", "x", "q")', 'expected "a"'),
    ],
)
def test_a_wrong_argument_is_an_error(refusal, call, message):
    assert message in refusal(f"request_route {{ {call}; }}")


def test_headers_added_are_not_seen(log):
    assert log('append_hf("X-New: y\\r\\n"); xlog("[$hdr(X-New)]");') == ["[<null>]"]


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        (r"/B/X/", "bob"),
        (r"/B/X/i", "Xob"),
        (r"/b/X/g", "XoX"),
        (r"/^(.)(.*)\2\1/x/", "bob"),
        (r"/^(.)(.)/\2\1/", "obb"),
        (r"#b#/#g", "/o/"),
        (r"/o{1,5}/-/", "b-b"),
        (r"/nope/x/", "bob"),
    ],
)
def test_substitution(show, expression, printed):
    assert show(f"$(rU{{re.subst,{expression}}})") == printed


def test_a_substitution_may_hold_pseudo_variables(show):
    assert show("$(rU{re.subst,/o/$rm/})") == "bINVITEb"
    assert show("$(rU{re.subst,$var(e)})", before='$var(e) = "/o/0/";') == "b0b"
