"""Module textopsx."""

from __future__ import annotations

import pytest

MODULES = ("pv", "xlog", "textopsx")
MESSAGE = (
    "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1\r\n"
    "From: <sip:a@a>;tag=f\r\nTo: <sip:b@b>\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\nX-Multi: one\r\n"
    "x-multi: two\r\nX-List: a, b\r\nContent-Length: 10\r\n\r\nl1\r\nl2\r\nl3"
)


def run(script, statements: str) -> list[str]:
    return script(f"request_route {{ {statements} exit; }}", MODULES).feed(MESSAGE)


def test_a_walk_over_the_headers(script):
    lines = run(
        script,
        'hf_iterator_start("i"); while (hf_iterator_next("i")) { xlog("$hfitname(i)=$hfitbody(i)"); }'
        ' xlog("[$hfitname(i)]"); hf_iterator_end("i"); hf_iterator_next("i"); xlog("$rc");',
    )
    assert lines == [
        "Via=SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1",
        "From=<sip:a@a>;tag=f",
        "To=<sip:b@b>",
        "Call-ID=c1",
        "CSeq=7 INVITE",
        "X-Multi=one",
        "x-multi=two",
        "X-List=a, b",
        "Content-Length=10",
        "[<null>]",
        "-1",
    ]


def test_a_walk_over_the_lines_of_the_body(script):
    lines = run(
        script,
        'bl_iterator_start("i"); while (bl_iterator_next("i")) { xlog("[$blitval(i)]"); } bl_iterator_end("i");',
    )
    assert lines == ["[l1\r\n]", "[l2\r\n]"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('hf_value_exists("X-List", "b")', "1"),
        ('hf_value_exists("X-List", "B")', "1"),
        ('hf_value_exists("X-List", "c")', "-1"),
        ('hf_value_exists("X-Multi", "two")', "1"),
        ('fnmatch("hello", "he*")', "1"),
        ('fnmatch("hello", "HE*")', "-1"),
        ('fnmatch("hello", "HE*", "i")', "1"),
        ('fnmatch("a/b", "a*")', "1"),
        ('fnmatch("ab", "a[!c]")', "1"),
        ("remove_body()", "1"),
    ],
)
def test_tests(script, call, code):
    assert run(script, f'{call}; xlog("$rc");') == [code]
