"""Module mqueue."""

from __future__ import annotations

import pytest

MODULES = ("pv", "xlog", "mqueue")


def run(script, invite, definition: str, statements: str) -> list[str]:
    text = f'modparam("mqueue", "mqueue", "{definition}")\nrequest_route {{ {statements} exit; }}'
    return script(text, MODULES).feed(invite)


FETCH = 'while (mq_fetch("q")) { xlog("$mqk(q)=$mqv(q)"); }'


def test_a_queue_is_first_in_first_out_and_drops_its_oldest_when_full(script, invite):
    added = 'mq_add("q", "k1", "v $rm"); mq_add("q", "k2", "v2"); mq_add("q", "k3", "v3");'
    lines = run(
        script, invite, "name=q;size=2", f'{added} {FETCH} xlog("$rc [$mqk(q)] [$mqv(q)]");'
    )
    assert lines == ["k2=v2", "k3=v3", "-2 [<null>] [<null>]"]


@pytest.mark.parametrize(
    ("mode", "left"),
    [(0, ["k=1", "j=2", "k=3"]), (1, ["k=1", "j=2"]), (2, ["j=2", "k=3"])],
)
def test_addmode_says_what_happens_to_a_key_that_waits(script, invite, mode, left):
    added = 'mq_add("q", "k", "1"); mq_add("q", "j", "2"); mq_add("q", "k", "3");'
    assert run(script, invite, f"name=q;addmode={mode}", f"{added} {FETCH}") == left


def test_sizes(script, invite):
    statements = (
        '$var(s) = mq_size("q"); xlog("$var(s) $mq_size(q)"); mq_add("q", "k", "v");'
        ' $var(s) = mq_size("q"); xlog("$var(s) $mq_size(q)");'
    )
    assert run(script, invite, "name=q", statements) == ["-1 0", "1 1"]


def test_a_fetched_item_can_be_forgotten(script, invite):
    statements = 'mq_add("q", "k", "v"); mq_fetch("q"); mq_pv_free("q"); xlog("$mqk(q)");'
    assert run(script, invite, "name=q", statements) == ["<null>"]


def test_a_queue_that_is_not_defined_is_a_warning_and_takes_nothing(script, invite):
    runner = script(
        'request_route { mq_add("x", "k", "v"); xlog("$rc"); mq_fetch("x"); xlog("$rc");'
        ' $var(s) = mq_size("x"); xlog("$var(s)"); exit; }',
        MODULES,
    )
    assert runner.feed(invite) == ["-1", "-1", "-2"]
    assert [found.message for found in runner.program.warnings] == [
        'the queue "x" is not defined: what is added to it is lost'
    ]


def test_what_a_full_queue_drops_is_counted(script, invite):
    runner = script(
        'modparam("mqueue", "mqueue", "name=q;size=1")\n'
        'request_route { mq_add("q", "a", "1"); mq_add("q", "b", "2"); exit; }',
        MODULES,
    )
    runner.feed(invite)
    assert list(runner.program.registry.plugin("mqueue").metrics()) == [
        ("homerd_mqueue_items", {"queue": "q"}, 1),
        ("homerd_mqueue_dropped_total", {"queue": "q"}, 1),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("size=1", 'name missing in "size=1"'),
        ("name=q;size=x", 'size takes a number, got "x"'),
        ("name=q;addmode=3", "addmode is 0, 1 or 2, not 3"),
        ("name=q;colour=red", 'unknown attribute "colour"'),
    ],
)
def test_a_definition_that_cannot_be_read_is_refused(refusal, line, message):
    text = f'modparam("mqueue", "mqueue", "{line}")\nrequest_route {{ exit; }}'
    assert message in refusal(text, MODULES)
