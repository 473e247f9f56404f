"""webhook(text): what a packet gives, and what becomes of it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from homerd_webhook import Webhook, WebhookSink

from homerd import testing

SCRIPT = """
loadmodule "pv"
loadmodule "webhook"
modparam("webhook", "url", "http://192.0.2.1/")
request_route { webhook("$rm from $fU"); drop; }
"""


class Endpoint:
    """An HTTP server that keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.answers: list[int] = []
        endpoint = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status = endpoint.answers.pop(0) if endpoint.answers else 200
                if status == 200:
                    endpoint.bodies.append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_packet_gives_a_record():
    with testing.Script(SCRIPT, Webhook) as run:
        outcome = run.feed(testing.request("INVITE", call_id="c1"), src="192.0.2.7:5060")
        record = {"text": "INVITE from alice", "source": "192.0.2.7", "call_id": "c1"}
        assert outcome.effects == [("webhook", record)]
        assert outcome.ended == "drop"
        assert run.metrics() == {"homerd_webhook_queued_total": 1}


def test_a_script_without_the_url_is_refused():
    script = SCRIPT.replace("modparam", "# modparam")
    assert testing.diagnostics(script, Webhook) == [
        'E404 module "webhook" needs modparam("webhook", "url", …)'
    ]


def test_a_batch_is_one_post_of_json_lines(endpoint):
    with testing.SinkRun(WebhookSink(endpoint.url, 5.0)) as run:
        run.feed({"text": "one"}, {"text": "two"})
        assert run.flush()
    assert endpoint.bodies == ['{"text": "one"}\n{"text": "two"}\n']


def test_records_wait_while_the_endpoint_is_busy(endpoint):
    endpoint.answers = [503, 429]
    with testing.SinkRun(WebhookSink(endpoint.url, 5.0)) as run:
        run.feed({"text": "one"})
        assert run.flush()
        assert (run.retries, run.counts["written"]) == (2, 1)


def test_records_that_are_refused_go_into_quarantine(endpoint, tmp_path):
    endpoint.answers = [422]
    with testing.SinkRun(WebhookSink(endpoint.url, 5.0), spool=tmp_path) as run:
        run.feed({"text": "one"})
        assert run.flush()
        assert run.counts["rejected"] == 1
        assert [item["record"] for item in run.quarantined] == [{"text": "one"}]
