"""Module avpops."""

from __future__ import annotations


def test_walking_a_stack(log):
    assert log(
        '$avp(x) = "a"; $avp(x) = "b"; $var(i) = 0;'
        ' while (is_avp_set("$(avp(x)[$var(i)])")) { xlog("$(avp(x)[$var(i)])");'
        " $var(i) = $var(i) + 1; }"
    ) == ["b", "a"]


def test_the_empty_text_is_a_value(log):
    assert log(
        '$avp(e) = ""; if (is_avp_set("$avp(e)")) xlog("set");'
        ' if (is_avp_set("$avp(n)")) xlog("no");'
    ) == ["set"]


def test_delete_and_check(log):
    assert log(
        '$avp(x) = 5; if (avp_check("$avp(x)", "ge/5")) xlog("ge");'
        ' if (avp_check("$avp(x)", "eq/6")) xlog("no");'
        ' if (avp_check("$avp(x)", "re/^5")) xlog("re"); avp_delete("$avp(x)"); xlog("[$avp(x)]");'
    ) == ["ge", "re", "[<null>]"]
