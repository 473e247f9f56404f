"""Lines of the log: one an event, its values in quotes whole."""

from __future__ import annotations

import logging

import pytest

from homerd.core.log import Formatter


@pytest.mark.parametrize(
    ("text", "values", "line"),
    [
        ('away error="%s"', ("no",), 'away error="no"'),
        ('away error="%s"', ('say "no"',), 'away error="say \\"no\\""'),
        ('n=%d error="%s" to=%s', (5, "a\\b\nc", 'x"'), 'n=5 error="a\\\\b\\nc" to=x"'),
        ('100%% of "%s"', (ValueError('"'),), '100% of "\\""'),
        ('all of "a"', (), 'all of "a"'),
        ('"%(a)s"', ({"a": '"'},), '"""'),
        ('%*d "%s"', (3, 5, '"'), '  5 """'),
    ],
)
def test_a_value_in_quotes_is_whole(text, values, line):
    record = logging.LogRecord("homerd.x", logging.INFO, "", 1, text, values, None)
    assert Formatter().format(record).partition(" INFO ")[2] == line
    assert record.args == (values[0] if values and isinstance(values[0], dict) else values)
