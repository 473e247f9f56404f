"""Scripts of the usual kind of which nothing is to be said."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "text",
    [
        "request_route { $var(n) = 1; if ($var(n) == 1) exit; }",
        # set on one way only: what came before may have set it
        'request_route { if ($rm == "BYE") $var(n) = 1; say("$var(n)"); }',
        # counted from packet to packet
        "request_route { $var(n) = $var(n) + 1; say($var(n)); }",
        "request_route { if ($var(n) != $null) exit; }",
        'request_route { fetch("$var(n)"); say("$var(n)"); }',
        'request_route { route(SET); say("$var(n)"); }\nroute[SET] { $var(n) = 1; }',
        'request_route { route(S); route(S); route(U); }\nroute[S] { $var(n) = 1; }\nroute[U] { say("$var(n)"); }',
        'event_route[core:worker-one-init] { $var(n) = 1; }\nrequest_route { say("$var(n)"); }',
        # a route that calls itself
        "request_route { $var(n) = 3; route(A); }\nroute[A] { $var(n) = $var(n) - 1; if ($var(n)) route(A); }",
        "event_route[a:b] { return 0; }\nrequest_route { return 0; }",
        'request_route { if ($rm == "INVITE" || $rc == "5" || $rc == "") exit; }',
        "request_route { if (code(5) == 1 || route(A) > 0) exit; }\nroute[A] { return; }",
        "request_route { sql_query(\"insert '$rm' '$(ua{s.escape.common})'\"); }",
        "#!ifdef NOWHERE\n# !ifdef X\n  #!ifdef Y\n  #!endif\n#!endif\nrequest_route { exit; }",
    ],
)
def test_nothing_is_said_of(compiled, text):
    script = compiled(text + "\n")
    assert [item.message for item in script.diagnostics.found] == []


def test_a_variable_is_told_of_once(compiled):
    script = compiled(
        'request_route { say("$var(n)"); say("$var(n)"); route(A); }\nroute[A] { say("$var(n)"); }\n'
    )
    assert [item.code for item in script.diagnostics.found] == ["W910"]
