"""Modules http_async_client, http_client and rest_client, against a server on loopback."""

from __future__ import annotations

import http.server
import json
import socket
import threading

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError
from homerd.wire.hep import Frame
from homerd_plugins._http import Answer, HttpClient, Query

# A busy machine may be slow to answer.
PATIENT = (
    'modparam("http_async_client", "connection_timeout", 20000)\n'
    'modparam("http_client", "connection_timeout", 20)\n'
    'modparam("rest_client", "curl_timeout", 20)\n'
)
MODULES = ("pv", "xlog", "avpops", "http_async_client", "http_client", "rest_client")


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked; /status/N with that status, /big with too much."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        told = {
            "method": self.command,
            "path": self.path,
            "body": self.rfile.read(length).decode(),
            **{name.lower(): value for name, value in self.headers.items()},
        }
        body = b"x" * 3_000_000 if self.path == "/big" else json.dumps(told).encode()
        status = int(self.path.removeprefix("/status/")) if self.path.startswith("/status") else 200
        self.send_response(status, "As asked")
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Two", "one")
        self.send_header("X-Two", "two")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *arguments):
        """Say nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of clients that leave early."""

    def handle_error(self, request, client_address):
        """Nothing."""


@pytest.fixture
def server():
    """The URL of a server that answers."""
    served = Quiet(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def silent():
    """The URL of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody():
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def run(tmp_path):
    """Routes one packet through statements; gives what is logged, answers awaited."""
    workers = []

    def make(statements, routes="", params="", packets=1):
        head = "".join(f'loadmodule "{name}.so"\n' for name in MODULES)
        text = f"debug=2\n{head}{PATIENT}{params}\nrequest_route {{ {statements} }}\n{routes}"
        lines = []
        worker = Worker(
            load(tmp_path / "test.cfg", text=text), log=lambda level, line: lines.append(line)
        )
        workers.append(worker)
        worker.start()
        for _ in range(packets):
            worker.engine.feed(Frame(0, payload=OPTIONS))
        assert worker.settle(20)
        assert worker.engine.route_errors == {}
        make.worker = worker
        return lines

    yield make
    for worker in workers:
        worker.stop()


OPTIONS = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)
ANSWER = 'route[ANSWER] { xlog("$http_ok|$http_err|$http_rs|$http_rr|$rm"); }'


def counts(worker, module):
    return dict(worker.program.registry.plugin(module).client.counts)


# http_async_client


def test_an_answer_runs_its_route_after_the_packet(run, server):
    lines = run(f'http_async_query("{server}/a", "ANSWER"); xlog("$rc $http_ok"); exit;', ANSWER)
    assert lines == ["1 <null>", "1|<null>|200|As asked|OPTIONS"]
    assert counts(run.worker, "http_async_client") == {"answered": 1}


def test_stat_tells_what_became_of_the_requests(run, server, nobody):
    lines = run(
        f'http_async_query("{nobody}/", "TOLD"); http_async_query("{server}/", "TOLD");',
        "route[TOLD] { $var(told) = $var(told) + 1; if ($var(told) == 2)"
        ' xlog("$stat(requests) $stat(http_async_client:replies) $stat(errors) $stat(timeouts)"); }',
    )
    assert lines == ["2 1 1 0"]


def test_what_is_asked_is_said_with_http_req_and_used_up(run, server):
    lines = run(
        '$http_req(method) = "PUT"; $http_req(hdr) = "X-A: b"; $http_req(hdr) = "X-C: " + $rm;'
        ' $http_req(body) = "b" + $rm; $http_req(timeout) = 5000; $http_req(suspend) = 0;'
        ' $http_req(username) = "u"; $http_req(password) = "p";'
        f' http_async_query("{server}/p?$rm", "BODY"); http_async_query("{server}/q", "BODY");',
        'route[BODY] { xlog("$http_rb"); }',
    )
    first, second = sorted(map(json.loads, lines), key=lambda told: told["path"])
    assert (first["method"], first["path"], first["body"]) == ("PUT", "/p?OPTIONS", "bOPTIONS")
    assert (first["x-a"], first["x-c"], first["authorization"]) == ("b", "OPTIONS", "Basic dTpw")
    assert first["content-type"] == "application/x-www-form-urlencoded"
    assert (second["method"], second["path"], second["body"]) == ("GET", "/q", "")
    assert "x-a" not in second


@pytest.mark.parametrize(
    ("before", "method"),
    [
        ('$http_req(body) = "x";', "POST"), ('$http_req(body) = "x"; $http_req(body) = $null;', "GET"),
        ('$http_req(body) = "x"; $http_req(all) = $null;', "GET"), ('$http_req(method) = "post";', "POST"),
    ],
)  # fmt: skip
def test_the_method(run, server, before, method):
    lines = run(
        f'{before} http_async_query("{server}/", "BODY");', 'route[BODY] { xlog("$http_rb"); }'
    )
    assert json.loads(lines[0])["method"] == method


def test_the_parts_of_an_answer(run, server):
    lines = run(
        f'http_async_query("{server}/status/404", "PARTS"); $var(i) = $http_req_id;',
        'route[PARTS] { xlog("$http_rs $http_hdr(content-type) $http_hdr(X-Two) $(http_hdr(X-Two)[-1])'
        ' $http_hdr(None)"); if ($http_ml == $(http_mb{s.len}) && $http_bs == $(http_rb{s.len}))'
        ' xlog("lengths $http_req_id"); }',
    )
    assert lines == ["404 application/json one two <null>", "lengths homerd-1"]


def test_a_route_of_answers_keeps_variables_of_its_own(run, server):
    lines = run(
        f'$var(n) = 7; http_async_query("{server}/", "COUNT");',
        'route[COUNT] { $var(n) = $var(n) + 1; xlog("$var(n)"); }',
        packets=2,
    )
    assert lines == ["1", "2"]


def test_a_server_that_never_answers_is_given_up(run, silent):
    lines = run(f'$http_req(timeout) = 50; http_async_query("{silent}/", "ANSWER");', ANSWER)
    assert lines == ["0|timed out|<null>|<null>|OPTIONS"]
    assert counts(run.worker, "http_async_client") == {"timed_out": 1}


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/", "http://[::1/", "http://a b/"])
def test_a_url_that_is_none_is_an_error_in_the_route(run, url):
    (line,) = run(f'http_async_query("{url}", "ANSWER");', ANSWER)
    assert line.startswith("0|")
    assert line.endswith("|<null>|<null>|OPTIONS")


def test_nobody_there_is_an_error_in_the_route(run, nobody):
    (line,) = run(f'http_async_query("{nobody}/", "ANSWER");', ANSWER)
    assert line.startswith("0|")
    assert counts(run.worker, "http_async_client") == {"failed": 1}


def test_an_answer_that_is_too_large_is_an_error(run, server):
    lines = run(f'http_async_query("{server}/big", "ANSWER");', ANSWER)
    assert lines == ["0|more than 1048576 bytes|<null>|<null>|OPTIONS"]


def test_a_header_cannot_carry_another_one(run, server):
    (line,) = run(
        '$var(x) = "a\r\nX-Evil: 1"; $http_req(hdr) = "X-A: " + $var(x);'
        f' http_async_query("{server}/", "ANSWER");',
        ANSWER,
    )
    assert line.startswith("0|")


def test_beyond_the_limit_requests_are_refused_and_counted(run, silent):
    lines = run(
        f'$http_req(timeout) = 50; http_async_query("{silent}/", "ANSWER"); xlog("$rc");',
        ANSWER,
        'modparam("http_async_client", "max_queries", 2)\n',
        packets=3,
    )
    assert lines[:3] == ["1", "1", "-1"]
    assert counts(run.worker, "http_async_client") == {"refused": 1, "timed_out": 2}


def test_a_route_may_ask_again(run, server):
    lines = run(
        f'http_async_query("{server}/1", "FIRST");',
        f'route[FIRST] {{ http_async_query("{server}/status/201", "ANSWER"); }} {ANSWER}',
    )
    assert lines == ["1|<null>|201|As asked|OPTIONS"]


def test_an_unknown_route_and_an_unknown_setting_are_diagnostics(refusal):
    head = ("pv", "http_async_client")
    assert 'unknown route "NONE"' in refusal(
        'request_route { http_async_query("http://h/", "NONE"); }', head
    )
    assert "expected one of all, hdr, method" in refusal(
        'request_route { $http_req(metod) = "GET"; }', head
    )


def test_trace_shows_the_request_and_sends_none(script, invite):
    runner = script(
        'request_route { $http_req(body) = "b"; http_async_query("http://192.0.2.1/x", "R"); xlog("$rc"); } route[R] { drop; }',
        ("pv", "xlog", "http_async_client"),
    )
    assert runner.feed(invite) == ["1"]
    (asked,) = runner.effects
    plugin = runner.program.registry.plugin("http_async_client")
    assert plugin.requests.describe(asked) == {"table": "POST http://192.0.2.1/x", "record": "b"}
    assert runner.worker.promised == 0


def test_a_limit_must_be_a_number_above_0(script):
    with pytest.raises(ConfigError, match="expected a number above 0"):
        script('modparam("http_async_client", "workers", 0)\nrequest_route { exit; }', MODULES)


# http_client


def test_http_connect_gives_the_status_and_the_body(run, server):
    lines = run(
        'http_connect("main", "path", "$var(r)"); xlog("$rc $var(r)");'
        ' http_connect("main", "/path", "text/plain", "b$rm", "$avp(r)"); xlog("$rc $avp(r)");',
        params=f'modparam("http_client", "httpcon", "main=>{server.replace("//", "//u:p@")}/base;timeout=5")\n',
    )
    assert [line[:4] for line in lines] == ["200 ", "200 "]
    got, posted = (json.loads(line[4:]) for line in lines)
    assert (got["method"], got["path"], got["authorization"]) == ("GET", "/base/path", "Basic dTpw")
    assert (posted["method"], posted["body"], posted["content-type"]) == (
        "POST",
        "bOPTIONS",
        "text/plain",
    )


def test_http_client_query(run, server):
    lines = run(
        f'http_client_query("{server}/status/404", "$var(r)"); xlog("$rc");'
        f' http_client_query("{server}/", "bo=dy", "X-A: b\r\nX-C: d", "$var(r)"); xlog("$var(r)");'
    )
    told = json.loads(lines[1])
    assert lines[0] == "404"
    assert (told["method"], told["x-a"], told["x-c"]) == ("POST", "b", "d")
    assert told["content-type"] == "application/x-www-form-urlencoded"


def test_what_goes_wrong_is_curls_number_and_an_empty_result(run, nobody):
    lines = run(
        f'$var(r) = "old"; http_client_query("{nobody}/", "$var(r)");'
        ' xlog("$rc [$var(r)] $curlerror(7)"); http_connect("none", "/", "$var(r)"); xlog("$rc");'
    )
    assert lines[0] == "7 [] Couldn't connect to server"
    assert lines[-1] == "-1"


def test_a_server_that_timed_out_is_left_alone_for_a_while(run, silent):
    lines = run(
        f'http_client_query("{silent}/", "$var(r)"); xlog("$rc [$var(r)]");',
        params='modparam("http_client", "connection_timeout", "0.05")\n',
        packets=3,
    )
    assert lines == ["28 []"] * 3
    assert counts(run.worker, "http_client") == {"timed_out": 1, "paused": 2}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("http://h/", "expected name=>http://host/path"), ("a=>ftp://h/", "expected name=>http://host/path"),
        ("a=>http://h/;timeout=x", "expected seconds"), ("a=>http://h/;colour=1", "unknown option colour"),
    ],
)  # fmt: skip
def test_a_connection_that_is_none_is_a_diagnostic(refusal, value, message):
    text = f'modparam("http_client", "httpcon", "{value}")\nrequest_route {{ exit; }}'
    assert message in refusal(text, ("pv", "http_client"))


# rest_client


def test_rest_get_and_rest_post(run, server):
    lines = run(
        'rest_append_hf("X-A: b");'
        f' rest_get("{server}/g", "$var(b)", "$var(t)", "$var(s)"); xlog("$rc $var(t) $var(s) $var(b)");'
        f' rest_post("{server}/p", "b$rm", "text/plain", $var(b)); xlog("$var(b)");'
    )
    assert lines[0].startswith("1 application/json 200 {")
    got, posted = json.loads(lines[0].partition("200 ")[2]), json.loads(lines[1])
    assert (got["path"], got["x-a"]) == ("/g", "b")
    assert (posted["method"], posted["body"], posted["content-type"]) == (
        "POST",
        "bOPTIONS",
        "text/plain",
    )
    assert "x-a" not in posted


def test_rest_errors(run, nobody, silent):
    lines = run(
        f'rest_get("{nobody}/", "$var(b)"); xlog("$rc"); rest_get("{silent}/", "$var(b)"); xlog("$rc");'
        ' rest_get("nonsense", "$var(b)"); xlog("$rc");',
        params='modparam("rest_client", "curl_timeout", "1")\n',
    )
    assert lines == ["-1", "-3", "-10"]


# the client itself


def test_stop_gives_up_what_is_not_answered(silent):
    client = HttpClient(running=1, limit=3)
    client.start()
    answers: list[Answer] = []
    given_up = threading.Semaphore(0)
    for _ in range(3):
        client.submit(
            Query(silent, 60.0), lambda answer: (answers.append(answer), given_up.release())
        )
    client.stop()
    assert all(given_up.acquire(timeout=10) for _ in range(3))
    assert {answer.error for answer in answers} == {"given up"}
    assert not client.submit(Query(silent, 60.0), answers.append)
