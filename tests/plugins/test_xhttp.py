"""Modules xhttp and jsonrpcs, over a real connection."""

from __future__ import annotations

import http.client
import json
import select

import pytest

from homerd.core.program import load
from homerd.core.settings import parse_listen
from homerd.core.worker import Worker

MODULES = ("pv", "xlog", "textops", "htable", "xhttp", "jsonrpcs")


@pytest.fixture
def ask(tmp_path, free_port):
    """Sends a request to a worker with an event route; gives status, reason, headers, body."""
    workers = []

    def make(statements, method="GET", url="/", body=None, headers=None, params=""):
        head = "".join(f'loadmodule "{name}.so"\n' for name in MODULES)
        text = f"debug=2\n{head}{params}\nrequest_route {{ drop; }}\nevent_route[xhttp:request] {{ {statements} }}"
        make.lines = []
        worker = Worker(
            load(tmp_path / "test.cfg", text=text), log=lambda level, line: make.lines.append(line)
        )
        workers.append(worker)
        worker.start()
        worker.open(parse_listen(f"tcp:127.0.0.1:{free_port}"))
        (source,) = worker.sources
        make.source = source
        client = http.client.HTTPConnection("127.0.0.1", free_port, timeout=10)
        client.request(method, url, body, headers or {})
        wait([source.socket])
        source.accept()
        (connection,) = source.connections
        while not source.http:
            wait([connection.socket])
            connection.read()
        answer = client.getresponse()
        got = answer.status, answer.reason, dict(answer.getheaders()), answer.read().decode()
        client.close()
        assert worker.engine.route_errors == {}
        return got

    yield make
    for worker in workers:
        worker.close()
        worker.stop()


def wait(sockets):
    assert select.select(sockets, [], [], 10)[0]


def test_the_script_answers(ask):
    status, reason, headers, body = ask(
        'xhttp_reply("201", "Made it", "text/html", "<b>$hu</b>");', url="/a/b?c=1"
    )
    assert (status, reason, body) == (201, "Made it", "<b>/a/b?c=1</b>")
    assert (headers["Content-Type"], headers["Content-Length"]) == ("text/html", "15")
    assert ask.source.http == {"answered": 1}


def test_what_the_route_sees_of_a_request(ask):
    ask(
        'xlog("$rm $hu [$rb] $cT $cl $hdr(X-A) $(hdr(X-A)[1]) $si $proto $ua");'
        ' xhttp_reply("200", "OK", "", "");',
        "POST", "/p", "bo dy", {"X-A": "b", "Content-Type": "text/plain", "User-Agent": "me"},
    )  # fmt: skip
    assert ask.lines == ["POST /p [bo dy] text/plain 5 b <null> 127.0.0.1 tcp me"]


def test_a_route_that_does_not_answer_gets_500(ask):
    assert ask('xlog("seen");')[:2] == (500, "Internal Server Error")
    assert ask.source.http == {"unanswered": 1}


@pytest.mark.parametrize(
    ("url", "status"), [("/api/x", 200), ("/api/private", 404), ("/other", 404)]
)
def test_url_match_and_url_skip(ask, url, status):
    params = 'modparam("xhttp", "url_match", "^/api")\nmodparam("xhttp", "url_skip", "private")\n'
    got = ask('xhttp_reply("200", "OK", "text/plain", "x");', url=url, params=params)
    assert got[0] == status


def test_counters_of_a_table_as_json(ask):
    params = 'modparam("htable", "htable", "a=>size=4;")\n'
    got = ask(
        '$sht(a=>n) = 5; xhttp_reply("200", "OK", "application/json", "{\\"n\\": $sht(a=>n)}");',
        params=params,
    )
    assert json.loads(got[3]) == {"n": 5}


@pytest.mark.parametrize("code", ["abc", "7", "100"])
def test_a_code_that_is_none_becomes_500(ask, code):
    assert ask(f'xhttp_reply("{code}", "OK", "text/plain", "x");')[0] == 500


def test_a_content_type_cannot_carry_headers(ask):
    got = ask('xhttp_reply("200", "OK", "$hdr(X-A)\r\nX-Evil: 1", "x");', headers={"X-A": "b"})
    assert got[0] == 500
    assert "X-Evil" not in got[2]


def test_outside_of_the_event_route_nothing_is_answered(script, invite):
    runner = script(
        'request_route { xhttp_reply("200", "OK", "", ""); xlog("$rc $hu"); jsonrpc_dispatch(); xlog("$rc"); }'
        " event_route[xhttp:request] { exit; }",
        MODULES,
    )
    assert runner.feed(invite) == ["-1 <null>", "-1"]


def test_without_the_event_route_the_script_does_not_load(refusal):
    message = refusal("request_route { exit; }", ("pv", "xhttp"))
    assert "event_route[xhttp:request] is missing" in message


# jsonrpcs


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ('{"jsonrpc": "2.0", "method": "core.echo", "params": ["a"], "id": 7}', 200, {"jsonrpc": "2.0", "result": ["a"], "id": 7}),
        ('{"method": "core.none", "id": 1}', 500, {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method Not Found"}, "id": 1}),
        ("{", 500, {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse Error"}, "id": None}),
        ("[1]", 500, {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None}),
        ("[" * 100_000, 500, {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse Error"}, "id": None}),
    ],
    ids=["echo", "unknown", "no json", "no request", "deep"],
)  # fmt: skip
def test_jsonrpc_dispatch(ask, body, status, told):
    got = ask("jsonrpc_dispatch();", "POST", "/rpc", body)
    assert (got[0], json.loads(got[3])) == (status, told)


def test_jsonrpc_answers_can_be_indented(ask):
    params = 'modparam("jsonrpcs", "pretty_format", 1)\n'
    body = '{"method": "core.uptime", "id": 1}'
    assert "\n    " in ask("jsonrpc_dispatch();", "POST", "/", body, params=params)[3]
