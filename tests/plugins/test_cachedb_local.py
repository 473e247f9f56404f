"""cachedb_local: what is kept, counted, forgotten and expires."""

from __future__ import annotations

import pytest

HEAD = '#!OPENSIPS\nloadmodule "cachedb_local.so"\n'
MESSAGE = (
    b"OPTIONS sip:b@e SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1\r\n"
    b"From: <sip:a@e>;tag=1\r\nTo: <sip:b@e>\r\nCall-ID: c1\r\nCSeq: 7 OPTIONS\r\n\r\n"
)


@pytest.fixture
def cache(script):
    """A runner of a main route's statements."""
    return lambda statements: script(HEAD + f"route {{ {statements} exit; }}", modules=())


@pytest.mark.parametrize(
    ("statements", "lines"),
    [
        (
            'if (!cache_fetch("local", "k", $var(v))) xlog("miss $rc"); cache_store("local", "k", "yes", 320);'
            ' if (cache_fetch("local", "k", $var(v))) xlog("hit $var(v)");',
            ["miss -2", "hit yes"],
        ),
        (
            'cache_store("local:a", "k", "1"); if (!cache_fetch("local:b", "k", "$avp(v)")) xlog("apart");',
            ["apart"],
        ),
        (
            'cache_store("local", "k:$ci", $rm); cache_remove("local", "k:$ci"); if (!cache_fetch("local", "k:$ci", $var(v))) xlog("gone");',
            ["gone"],
        ),
        (
            'cache_add("local", "n", 5, 0); cache_add("local", "n", "2", 0, $var(n)); xlog("$var(n)");',
            ["7"],
        ),
        (
            'cache_sub("local", "n", 5, 0,); cache_counter_fetch("local", "n", $var(n)); $var(n) += 1; xlog("$var(n)");',
            ["-4"],
        ),
        (
            'cache_store("local", "a.1", "x"); cache_store("local", "b", "y"); cache_remove_chunk("local", "a*");'
            ' cache_fetch("local", "b", $var(b)); cache_fetch("local", "a.1", $var(a)); xlog("$var(a) $var(b)");',
            ["<null> y"],
        ),
    ],
)
def test_what_is_found(cache, statements, lines):
    assert cache(statements).feed(MESSAGE) == lines


def test_a_value_expires_by_the_scripts_clock(cache):
    runner = cache(
        'if (cache_fetch("local", "k", $var(v))) xlog("hit"); else xlog("miss");'
        ' cache_store("local", "k", "1", 60);'
    )
    assert runner.feed(MESSAGE) == ["miss"]
    assert runner.feed(MESSAGE) == ["hit"]
    runner.worker.timers.advance(61)
    assert runner.feed(MESSAGE) == ["miss"]


def test_parameters_of_opensips_are_known(script):
    runner = script(
        HEAD + 'modparam("cachedb_local", "cache_table_size", 10)\n'
        'modparam("cachedb_local", "cache_clean_period", 120)\n'
        'modparam("cachedb_local", "cache_collections", "calls/r; regs=5")\n'
        'modparam("cachedb_local", "cachedb_url", "local:calls:///calls")\nroute { exit; }\n',
        modules=(),
    )
    assert runner.program.modparam("cachedb_local", "cache_clean_period") == 120
