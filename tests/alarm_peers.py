"""Who is told of alarms in tests: an HTTP receiver, a mail server, and a real Alertmanager."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from metric_servers import MetricServer
from servers import START_SECONDS, free_port

from homerd_plugins._alarm_event import AlarmEvent, Evidence
from homerd_plugins._notify import Target

INVITE = (
    "INVITE sip:1@example.org SIP/2.0\r\nCall-ID: call-1\r\nUser-Agent: friendly-scanner\r\n\r\n"
)
EVIDENCE = (
    Evidence(
        1700000000,
        250000,
        "192.0.2.66:5060",
        "198.51.100.1:5060",
        2001,
        "INVITE",
        "call-1",
        "",
        INVITE,
    ),
    Evidence(1700000001, 0, "[2001:db8::1]:5060", "198.51.100.1:5060", 2001, "404", "call-2", ""),
)


def event(**changes: Any) -> AlarmEvent:
    """An alarm that was raised, but for what is changed."""
    known: dict[str, Any] = {
        "id": "a1",
        "alarm": "scanner",
        "key": "192.0.2.66",
        "state": "raised",
        "severity": "critical",
        "value": 20,
        "threshold": 20,
        "window_seconds": 60,
        "total": 20,
        "started_at": 1700000001.0,
        "at": 1700000001.5,
        "source_ip": "192.0.2.66",
        "description": "known user agents",
        "node": "capture1",
        "evidence": EVIDENCE,
    }
    return AlarmEvent(**{**known, **changes})


def events(count: int) -> list[AlarmEvent]:
    """So many, each of a key of its own."""
    return [event(id=f"a{number}", key=f"192.0.2.{number}") for number in range(count)]


def records(*given: AlarmEvent) -> list[dict[str, Any]]:
    return [each.as_record() for each in given]


@contextlib.contextmanager
def opened(target: str, **options: Any) -> Iterator[Any]:
    """The sink of a target, connected and not started: `write` is called by hand."""
    sink = Target.from_script(target).sink(**options)
    sink.connect()
    try:
        yield sink
    finally:
        sink.close()


def wait_for(happened: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """What *happened* gives once it is true."""
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
    return found


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted; `answers` are its next statuses, then 200.

    body, location: what it answers with.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Posted)
        self.posts: list[tuple[str, dict[str, str], str]] = []
        self.answers: list[int] = []
        self.body = "as asked"
        self.location = ""
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def told(self) -> list[Any]:
        """The bodies, read as JSON."""
        return [json.loads(body) for _, _, body in self.posts]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are nothing to report."""


class _Posted(http.server.BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status < 300:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.posts.append((self.path, headers, body))
        answer = self.server.body.encode()
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver that is gone afterwards."""
    server = Receiver(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Mailbox:
    """An aiosmtpd handler: keeps messages; refused: address -> answer; data: answer to a message."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.recipients: list[list[str]] = []
        self.logins: list[tuple[str, str, bool]] = []
        self.refused: dict[str, str] = {}
        self.data = ""
        self.port = 0

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.data:
            return self.data
        self.recipients.append(envelope.rcpt_tos)
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def login(
        self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        user, password = data.login.decode(), data.password.decode()
        self.logins.append((user, password, session.ssl is not None))
        return AuthResult(success=password == "right", handled=False)


TLS = Path(__file__).parent / "data" / "tls"
CERTIFICATE = TLS / "certificate.pem"


def server_tls() -> ssl.SSLContext:
    """What a server on loopback shows; CERTIFICATE is its authority too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, TLS / "key.pem")
    return context


@contextlib.contextmanager
def mail_server(port: int = 0, **options: Any) -> Iterator[Mailbox]:
    """An SMTP server, on a free port unless it is named."""
    box = Mailbox()
    box.port = port or free_port()
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=box.port,
        authenticator=box.login,
        server_hostname="mail",
        **options,
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Alertmanager(MetricServer):
    """Alertmanager, alone and without a receiver that would tell anybody."""

    package = program = "prometheus-alertmanager"
    ping = "/-/ready"

    def command(self) -> list[str]:
        settings = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
        # YAML is a superset of JSON
        Path(self.folder / "alertmanager.yml").write_text(json.dumps(settings))
        return [
            self.program,
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Alerts of this name which are active."""
        return list(self.get("/api/v2/alerts", filter=f'alertname="{name}"'))
