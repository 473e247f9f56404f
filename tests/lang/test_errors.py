"""Scripts with mistakes: each chunk's `### "…"` is what must be said, codes and help included.

A chunk without the comment on its line is still read whole; the text is looked for in all that is
printed for the chunk, which must not be a traceback.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from homerd.lang.diagnostics import render
from homerd.lang.nodes import LoadModule

ERRORS = Path(__file__).parent / "errors"


def _chunks():
    for file in sorted(ERRORS.glob("*.cfg")):
        for chunk in file.read_text().split("\n---\n"):
            expected = re.findall(r'### "(.*)"\s*$', chunk, re.MULTILINE)
            text = re.sub(r'[ \t]*### ".*"[ \t]*$', "", chunk, flags=re.MULTILINE)
            yield pytest.param(text + "\n", expected[0], id=f"{file.stem}:{expected[0][:40]}")


@pytest.mark.parametrize(("text", "expected"), list(_chunks()))
def test_a_mistake_is_told_with_code_place_and_help(compiled, text, expected):
    script = compiled(text)
    printed = render(script.diagnostics.found, script.sources)
    assert re.search(expected, printed, re.DOTALL), printed


@pytest.mark.parametrize(
    "line",
    [
        'modparam("other", "name" "x")', 'modparam(other, "name", "x")',
        'modparam("other",\n "name" 5)', 'modparam("other", "name", 5',
        "loadmodule other", "loadmodule", "group.field == 5", "my.x = ", "flags 5", "route[A-B] { exit; }",
    ],
)  # fmt: skip
def test_a_mistake_outside_of_routes_takes_no_other_line_with_it(compiled, line):
    script = compiled(
        f'loadmodule "nosuch"\n{line}\nloadmodule "never"\nroute[A] {{ say("a"); }}\n'
        'request_route { route(A); say("x"); }\n'
    )
    printed = render(script.diagnostics.found, script.sources)
    assert [each.code for each in script.diagnostics.found] == ["E101"], printed
    loaded = [item.name for item in script.tree.items if isinstance(item, LoadModule)]
    assert loaded == ["nosuch", "never"]


def test_all_mistakes_of_a_script_are_told_at_once(compiled):
    script = compiled('request_route {\n\tsayy("a");\n\t$x = 1\n\troute(NO);\n\tsay("$nope");\n}\n')
    printed = render(script.diagnostics.found, script.sources)
    assert [line for line in printed.splitlines() if line.startswith(("test.cfg", "/"))] == [
        line for line in printed.splitlines() if re.search(r"cfg:\d+:\d+: error\[E\d+\]", line)
    ]
    assert len(script.diagnostics.errors) >= 3


def test_a_diagnostic_shows_the_line_and_a_caret_under_the_fault(compiled):
    script = compiled('request_route {\n\tsay("from $nope to");\n}\n')
    printed = render(script.diagnostics.found, script.sources)
    name = script.sources.files[0].name
    assert printed == (
        f'{name}:2:12: error[E202]: unknown pseudo-variable "$nope"\n'
        '    2 | \tsay("from $nope to");\n'
        "      | \t          ^^^^^\n"
        "   help: write $$ for the character itself\n"
    )


def test_a_fault_inside_a_string_is_underlined_where_it_is_behind_escapes(compiled):
    script = compiled('request_route { say("\\x41\\t$nope"); }\n')
    assert script.diagnostics.errors[0].span[:2] == (1, 28)
