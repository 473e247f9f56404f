"""Module uuid."""

from __future__ import annotations

import re

MODULES = ("pv", "xlog", "uuid")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_identifiers_are_new_each_time(script, invite):
    runner = script('request_route { xlog("$uuid(g)"); xlog("$uuid(t)"); }', MODULES)
    lines = runner.feed(invite) + runner.feed(invite)
    assert [UUID.fullmatch(line)[1] for line in lines] == ["4", "1", "4", "1"]
    assert len(set(lines)) == 4


def test_an_unknown_kind_is_refused(refusal):
    assert "expected g, r, t, s" in refusal('request_route { xlog("$uuid(x)"); }', MODULES)
