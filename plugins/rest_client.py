"""rest_client: HTTP requests of scripts written for OpenSIPS.

As with http_client nothing else is done while one waits, at most `curl_timeout`, and a server that
let a request time out is left alone for `pause` seconds.  Functions return
1 when a server answered, whatever the status; -1 when it cannot be reached, -3 when it did not
answer in time, -10 for everything else.
"""

from __future__ import annotations

from homerd.api import ModParam, Packet, Worker, Writable, hookimpl, script_function
from homerd_plugins._http import (
    NOT_CONNECTED,
    TIMED_OUT,
    Headers,
    HttpClient,
    HttpPlugin,
    Query,
    Tls,
    split_headers,
)

RUNNING = 4
_RESULTS = {NOT_CONNECTED: -1, TIMED_OUT: -3}
_OTHER = -10


class RestClient(HttpPlugin):
    """Asks HTTP servers and waits for them; the worker waits too."""

    name = "rest_client"

    curl_timeout = ModParam(
        float, 1.0, reloadable=True, help="seconds that all packets wait at most (OpenSIPS: 20)"
    )
    pause = ModParam(float, 5.0, help="seconds a server is left alone after a time-out")
    connection_timeout = ModParam(float, 0.0, help="the same, when it is shorter; 0 for none")
    ssl_verifypeer = ModParam(int, 1, help="whether a server's certificate and name are checked")
    ssl_verifyhost = ModParam(int, 1, help="accepted; see ssl_verifypeer")
    ssl_capath = ModParam(str, "", help="file of the authorities that are trusted")
    curl_http_version = ModParam(int, 0, help="accepted; HTTP/1.1 is spoken")
    max_async_transfers = ModParam(int, 100, help="accepted")
    connect_poll_interval = ModParam(int, 20, help="accepted")
    max_transfer_size = ModParam(int, 1024, help="KiB of an answer that are taken")
    enable_expect_100 = ModParam(int, 0, help="accepted")
    no_concurrent_connects = ModParam(int, 0, help="accepted")

    @property
    def waits_seconds(self) -> float:
        """How long a packet waits at most, as its parameters say."""
        return self.curl_timeout

    def __init__(self) -> None:
        super().__init__()
        self._headers: Headers = ()

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the thread that asks."""
        size = max(1, self.max_transfer_size) << 10
        self.client = HttpClient(running=RUNNING, limit=RUNNING, max_body=size, pause=self.pause)
        if worker.deliver:
            self.client.start()

    @script_function
    def rest_append_hf(self, packet: Packet, line: str) -> bool:
        """Add a header line to the next request."""
        self._headers += split_headers(line)
        return True

    @script_function
    def rest_init_client_tls(self, packet: Packet, domain: str) -> bool:
        """Accepted."""
        return True

    @script_function("rest_get")
    def rest_get(self, packet: Packet, url: str, body: Writable) -> int:
        """GET *url*; *body* gets what is answered."""
        return self._ask(packet, "GET", url, None, "", body)

    @script_function("rest_get")
    def rest_get_type(self, packet: Packet, url: str, body: Writable, kind: Writable) -> int:
        """The same; *kind* gets the answer's Content-Type."""
        return self._ask(packet, "GET", url, None, "", body, kind)

    @script_function("rest_get")
    def rest_get_status(
        self, packet: Packet, url: str, body: Writable, kind: Writable, status: Writable
    ) -> int:
        """The same; *status* gets the answer's status."""
        return self._ask(packet, "GET", url, None, "", body, kind, status)

    @script_function("rest_post")
    def rest_post(self, packet: Packet, url: str, sent: str, sent_kind: str, body: Writable) -> int:
        """POST *sent* of the Content-Type *sent_kind*; *body* gets what is answered."""
        return self._ask(packet, "POST", url, sent, sent_kind, body)

    @script_function("rest_post")
    def rest_post_type(
        self, packet: Packet, url: str, sent: str, sent_kind: str, body: Writable, kind: Writable
    ) -> int:
        """The same; *kind* gets the answer's Content-Type."""
        return self._ask(packet, "POST", url, sent, sent_kind, body, kind)

    @script_function("rest_post")
    def rest_post_status(
        self,
        packet: Packet,
        url: str,
        sent: str,
        sent_kind: str,
        body: Writable,
        kind: Writable,
        status: Writable,
    ) -> int:
        """The same; *status* gets the answer's status."""
        return self._ask(packet, "POST", url, sent, sent_kind, body, kind, status)

    @script_function("rest_put")
    def rest_put(self, packet: Packet, url: str, sent: str, sent_kind: str, body: Writable) -> int:
        """As rest_post, with PUT."""
        return self._ask(packet, "PUT", url, sent, sent_kind, body)

    @script_function("rest_put")
    def rest_put_status(
        self,
        packet: Packet,
        url: str,
        sent: str,
        sent_kind: str,
        body: Writable,
        kind: Writable,
        status: Writable,
    ) -> int:
        """As rest_post, with PUT."""
        return self._ask(packet, "PUT", url, sent, sent_kind, body, kind, status)

    def _ask(
        self,
        packet: Packet,
        method: str,
        url: str,
        sent: str | None,
        sent_kind: str,
        body: Writable,
        kind: Writable | None = None,
        status: Writable | None = None,
    ) -> int:
        assert self.client is not None
        headers, self._headers = self._headers, ()
        if sent_kind:
            headers += (("Content-Type", sent_kind),)
        timeout = min(self.curl_timeout, self.connection_timeout or self.curl_timeout)
        tls = Tls(bool(self.ssl_verifypeer), self.ssl_capath)
        answer = self.client.ask(Query(url, timeout, method, headers, sent, tls=tls))
        if answer.error:
            return _RESULTS.get(answer.curl, _OTHER)
        body.set(packet, answer.body)
        if kind is not None:
            kind.set(packet, next(iter(answer.header("Content-Type")), None))
        if status is not None:
            status.set(packet, answer.status)
        return 1
