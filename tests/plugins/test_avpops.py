"""Module avpops."""

from __future__ import annotations

import sqlite3


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


def test_flags_behind_a_variable(log):
    assert log(
        '$avp(s) = "x"; $avp(n) = 5; $avp(e) = ""; if (is_avp_set("$avp(s)/s")) xlog("text");'
        ' if (is_avp_set("$avp(n)/n")) xlog("number"); if (is_avp_set("$avp(n)/s")) xlog("no");'
        ' if (is_avp_set("$avp(e)/e")) xlog("empty"); if (is_avp_set("$avp(s)/e")) xlog("no");'
        ' $avp(d) = 1; $avp(d) = 2; avp_delete("$avp(d)"); xlog("$avp(d)");'
        ' $avp(d) = 2; avp_delete("$avp(d)/g"); xlog("$avp(d)");'
    ) == ["text", "number", "empty", "1", "<null>"]


def test_checks(log):
    tests = (
        "eq/bob",
        "eq/BOB/i",
        "eq/$rU",
        "ne/x",
        "re/^b",
        "fm/b*",
        "gt/ann",
        "eq/alice",
        "fm/x*",
        "zz/x",
    )
    lines = log(
        '$avp(c) = "bob";'
        + "".join(f' avp_check("$avp(c)", "{test}"); xlog("$rc");' for test in tests)
    )
    assert lines == ["1", "1", "1", "1", "1", "1", "1", "-1", "-1", "-1"]
    assert log(
        '$avp(i) = 1; $avp(i) = 4; avp_check("$avp(i)", "lt/i:5"); xlog("$rc"); avp_check("$avp(i)", "and/i:4"); xlog("$rc");'
        ' avp_check("$avp(i)", "eq/i:1"); xlog("$rc"); avp_check("$avp(i)", "eq/i:1/g"); xlog("$rc");'
        ' avp_check("$avp(nosuch)", "eq/x"); xlog("$rc");'
    ) == ["1", "1", "-1", "1", "-1"]


def test_calculating(log):
    assert log(
        '$avp(n) = 5; avp_op("$avp(n)", "add/i:5"); xlog("$rc $avp(n) $(avp(n)[1])");'
        ' avp_op("$avp(n)/$avp(r)", "mul/3"); xlog("$rc $avp(n) $avp(r)");'
        ' $avp(z) = 7; avp_op("$avp(z)/d", "div/0"); xlog("$rc $(avp(z)[*])");'
        ' $avp(m) = -7; avp_op("$avp(m)/$avp(q)", "div/2"); avp_op("$avp(m)", "mod/2"); xlog("$avp(q) $avp(m)");'
        ' avp_op("$avp(nosuch)", "add/1"); xlog("$rc");'
    ) == ["1 10 5", "1 10 15", "1 0", "-3 -1", "-1"]


def test_substituting(log):
    assert log(
        '$avp(x) = "abc"; $avp(x) = "def"; avp_subst("$avp(x)", "/d(.)f/Z\\1/"); xlog("$rc $(avp(x)[*])");'
        ' avp_subst("$avp(x)/$avp(y)", "/a/b/"); xlog("$rc $(avp(x)[*]) $avp(y)");'
        ' avp_subst("$avp(x)", "/nomatch/b/"); xlog("$rc"); avp_subst("$avp(none)", "/a/b/"); xlog("$rc");'
    ) == ["1 Ze, abc", "1 Ze, abc bbc", "-1", "-1"]


def test_copying(log):
    assert log(
        '$avp(x) = "a"; $avp(x) = "b"; avp_copy("$avp(x)", "$avp(y)"); xlog("$rc $avp(y) $(avp(x)[*])");'
        ' avp_copy("$avp(x)", "$avp(w)/gd"); xlog("$rc $(avp(w)[*]) [$avp(x)]");'
        ' avp_copy("$avp(x)", "$avp(w)"); xlog("$rc");'
    ) == ["1 b b, a", "1 a, b [<null>]", "-1"]


def test_a_name_that_is_no_avps_is_refused(refusal):
    text = 'request_route { avp_op("$var(x)", "add/1"); }'
    assert "expected $avp(name) or $avp(name)/$avp(target)" in refusal(text)


def test_sql_into_avps(script, invite, tmp_path):
    file = tmp_path / "x.db"
    with sqlite3.connect(file) as store:
        store.execute("CREATE TABLE kv (k, n)")
        store.execute("INSERT INTO kv VALUES ('a', 1), ('b', 2)")
    store.close()
    runner = script(
        f'modparam("avpops", "db_url", "sqlite://{file}")\nmodparam("avpops", "timeout", 10)\n'
        'request_route { avp_db_query("select k, n from kv order by n", "$avp(k);$avp(n)");'
        ' xlog("$rc $(avp(k)[*]) $(avp(n)[*])"); avp_db_query("select n from kv where k = \'b\'"); xlog("$rc $avp(1)");'
        ' avp_db_query("select n from kv where k = \'z\'", "$avp(z)"); xlog("$rc");'
        ' avp_db_query("select nosuch from kv", "$avp(z)"); xlog("$rc"); avp_db_query("delete from kv"); xlog("$rc"); exit; }'
    )
    assert runner.feed(invite) == ["1 a, b 1, 2", "1 2", "-2", "-1", "1"]
    assert [record.text for record in runner.effects] == ["delete from kv"]
