"""Module mtree."""

from __future__ import annotations

import sqlite3

import pytest

from homerd.errors import ConfigError

MODULES = ("pv", "xlog", "mtree")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE countries (tprefix TEXT, tvalue TEXT)")
        store.execute("INSERT INTO countries VALUES ('49', 'DE'), ('4930', 'Berlin'), ('1', 'US')")
        store.execute("CREATE TABLE trees (tname TEXT, tprefix TEXT, tvalue TEXT)")
        store.execute("INSERT INTO trees VALUES ('cost', '49', '5'), ('other', '4', '9')")
    store.close()
    return path


def run(script, invite, file, statements: str) -> list[str]:
    runner = script(
        f'modparam("mtree", "db_url", "sqlite://{file}")\nmodparam("mtree", "db_table", "trees")\n'
        'modparam("mtree", "mtree", "name=country;dbtable=countries")\n'
        'modparam("mtree", "mtree", "name=cost;type=2")\n'
        'modparam("mtree", "pv_value", "$var(v)")\n'
        f"request_route {{ {statements} exit; }}",
        MODULES,
    )
    return runner.feed(invite)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("4930123", "1 Berlin"),
        ("+4989", "1 DE"),
        ("49-30", "1 DE"),
        ("12", "1 US"),
        ("999", "-1 0"),
        ("", "-1 0"),
    ],
)
def test_the_longest_prefix_is_found(script, invite, file, number, line):
    statements = f'mt_match("country", "{number}", "1"); xlog("$rc $var(v)");'
    assert run(script, invite, file, statements) == [line]


def test_values_of_all_prefixes_go_to_a_stack(script, invite, file):
    statements = 'mt_match("country", "4930", "0"); xlog("$(avp(tvalues)[0]) $(avp(tvalues)[1])");'
    assert run(script, invite, file, statements) == ["Berlin DE"]


def test_a_tree_of_a_common_table_may_hold_numbers(script, invite, file):
    statements = 'mt_match("cost", "49", "1"); $var(s) = $var(v) + 1; xlog("$var(s)"); mt_match("nosuch", "1", "1"); xlog("$rc");'
    assert run(script, invite, file, statements) == ["6", "-1"]


def test_a_table_that_is_not_there_stops_the_start(script, file):
    with pytest.raises(ConfigError, match="no such table"):
        script(
            f'modparam("mtree", "db_url", "sqlite://{file}")\n'
            'modparam("mtree", "mtree", "name=x;dbtable=nosuch")\nrequest_route { exit; }',
            MODULES,
        )
