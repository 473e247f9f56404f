"""http_async_client: HTTP requests whose answer comes to a route of its own, later.

The packet goes on at once.  The route runs between two packets, on a faked OPTIONS as Kamailio has
it when there is no transaction, with `$var` of its own.  Requests leave when the script is done
with the packet; `homerd trace` shows them and sends none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    RouteName,
    RunState,
    Statistics,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins._http import (
    Answer,
    HttpClient,
    HttpPlugin,
    Query,
    Tls,
    post_or_get,
    split_header,
    with_type,
)

# Connections for each of Kamailio's worker processes, which ask any number of servers at once.
RUNNING_PER_WORKER = 32
DIGEST = 2  # CURLAUTH_DIGEST

_TEXTS = ("method", "body", "username", "password")
_FILES = ("tls_client_cert", "tls_client_key", "tls_ca_path")
_NUMBERS = ("timeout", "suspend", "authmethod", "tls_verify_peer", "tls_verify_host")
_ACCEPTED = ("tcp_keepalive", "tcp_ka_idle", "tcp_ka_interval")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, its number and the route that gets the answer."""

    query: Query
    route: str
    number: str


class Requests:
    """Where packets put their requests."""

    name = "http_async_client"

    def __init__(self, owner: HttpAsyncClient) -> None:
        self.owner = owner

    def add(self, asked: Asked) -> None:
        """Send one request."""
        self.owner.send(asked)

    def describe(self, asked: Asked) -> dict[str, str]:
        """Method and URL, and what is sent."""
        query = asked.query
        return {"table": f"{query.method} {query.url}", "record": query.body or ""}


class HttpAsyncClient(HttpPlugin):
    """Asks HTTP servers without waiting for them."""

    name = "http_async_client"

    workers = ModParam(int, 1, help=f"each keeps {RUNNING_PER_WORKER} requests running")
    connection_timeout = ModParam(int, 500, reloadable=True, help="ms until a request is given up")
    max_queries = ModParam(
        int, 1000, reloadable=True, help="requests without an answer; more are refused"
    )
    hash_size = ModParam(int, 2048, help="accepted")
    authmethod = ModParam(int, 3, help="how a user is proven: 1 basic, 2 digest, 3 basic")
    tls_version = ModParam(int, 0, help="accepted; TLS 1.2 and later are spoken")
    tls_verify_host = ModParam(int, 1, help="accepted; see tls_verify_peer")
    tls_verify_peer = ModParam(int, 1, help="whether a server's certificate and name are checked")
    tls_client_cert = ModParam(str, "", help="file of the certificate that servers are shown")
    tls_client_key = ModParam(str, "", help="file of its key")
    tls_ca_path = ModParam(str, "", help="file of the authorities that are trusted")
    curl_verbose = ModParam(int, 0, help="accepted")
    curl_follow_redirect = ModParam(int, 0, help="accepted; redirects are not followed")
    memory_manager = ModParam(str, "shm", help="accepted")
    tcp_keepalive = ModParam(int, 0, help="accepted")
    tcp_ka_idle = ModParam(int, 0, help="accepted")
    tcp_ka_interval = ModParam(int, 0, help="accepted")

    def __init__(self) -> None:
        super().__init__()
        self.requests = Requests(self)
        self.answer: Answer | None = None
        self.without_route = 0
        self._request: dict[str, str | int] = {}
        self._headers: list[tuple[str, str]] = []
        self._number = 0
        self._shown = ""
        self._worker: Worker | None = None
        self._state: RunState | None = None

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the numbers; a new limit holds at once."""
        for name in ("workers", "connection_timeout", "max_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f'modparam("http_async_client", "{name}", {getattr(self, name)}):'
                    " expected a number above 0"
                )
        if self.client is not None:
            self.client.limit = self.max_queries

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the thread that asks."""
        self._worker = worker
        self._state = worker.new_state()
        self.client = HttpClient(running=self.workers * RUNNING_PER_WORKER, limit=self.max_queries)
        _tell(self.client, worker.statistics)
        if worker.deliver:
            self.client.start()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Requests by how they ended, and those without an answer yet."""
        yield from super().metrics()
        if self.client is not None:
            yield "homerd_http_requests_open", {"module": self.name}, self.client.open

    @script_function
    def http_async_query(self, packet: Packet, url: str, route: RouteName) -> bool:
        """Ask *url* as $http_req says, and run *route* when the answer is there.

        True when the request is queued; the script goes on, also with $http_req(suspend), as there
        is no transaction to suspend.  False when too many wait, or *url* is empty.
        """
        settings, headers = self._request, tuple(self._headers)
        self._request, self._headers = {}, []
        if not url or self.client is None:
            return False
        if self.client.full:
            self.client.refuse()
            return False
        self._number += 1
        asked = Asked(self._query(url, settings, headers), route, f"homerd-{self._number}")
        self._shown = asked.number
        return packet.emit(self.requests, asked)

    def send(self, asked: Asked) -> None:
        """Hand a request to the thread; its answer comes back to the loop."""
        assert self._worker is not None
        assert self.client is not None
        if self.client.full:
            self.client.refuse()
            return
        deliver = self._worker.later()
        self.client.submit(
            asked.query, lambda answer: deliver(lambda: self._answered(asked, answer))
        )

    def _answered(self, asked: Asked, answer: Answer) -> None:
        assert self._worker is not None
        assert self.client is not None
        self.client.finish(answer)
        self.answer, self._shown = answer, asked.number
        try:
            if not self._worker.run_route(asked.route, self._state):
                self.without_route += 1  # a reload took it away
        finally:
            self.answer = None

    def _query(
        self, url: str, settings: dict[str, str | int], headers: tuple[tuple[str, str], ...]
    ) -> Query:
        body = settings.get("body")
        body = None if body is None else str(body)
        user = str(settings.get("username", ""))
        return Query(
            url,
            int(settings.get("timeout") or self.connection_timeout) / 1000,
            post_or_get(str(settings.get("method", "")).upper(), body),
            with_type(headers, body),
            body,
            (user, str(settings.get("password", ""))) if user else None,
            int(settings.get("authmethod", self.authmethod)) == DIGEST,
            Tls(
                bool(settings.get("tls_verify_peer", self.tls_verify_peer)),
                str(settings.get("tls_ca_path", self.tls_ca_path)),
                str(settings.get("tls_client_cert", self.tls_client_cert)),
                str(settings.get("tls_client_key", self.tls_client_key)),
            ),
        )

    # What is asked

    @pseudo_variable("http_req")
    def http_req(self, packet: Packet, key: str) -> str | None:
        """What the next http_async_query asks; only assigned to, and used up by one query.

        `method`, `hdr` (a header line, adds one), `body`, `timeout` (ms), `username`, `password`,
        `authmethod`, `tls_…`; `all`, set to $null, forgets everything.
        """
        return None

    @http_req.setter
    def set_http_req(self, packet: Packet, value: Value, key: str) -> None:
        if key == "all":
            if value is None:
                self._request, self._headers = {}, []
        elif key == "hdr":
            if value is not None:
                self._headers.append(split_header(str(value)))
        elif value is None:
            self._request.pop(key, None)
        elif key in _NUMBERS:
            self._request[key] = value if isinstance(value, int) else _number(value)
        else:
            self._request[key] = str(value)

    @http_req.bind
    def bind_http_req(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        key = None if argument is None else argument.strip().constant
        known = ("all", "hdr", *_TEXTS, *_FILES, *_NUMBERS, *_ACCEPTED)
        if key not in known:
            raise ValueError(f"expected one of {', '.join(known)} in parentheses")
        return (key,)

    @pseudo_variable("http_req_id")
    def http_req_id(self, packet: Packet) -> str | None:
        """The number of the last query; in the route of an answer that of the query it is to."""
        return self._shown or None

    # What was answered

    @pseudo_variable("http_ok")
    def http_ok(self, packet: Packet) -> int | None:
        """1 when a server answered, whatever the status; 0 when none did."""
        return None if self.answer is None else int(not self.answer.error)

    @pseudo_variable("http_err")
    def http_err(self, packet: Packet) -> str | None:
        """Why there is no answer; null when there is one."""
        return (self.answer.error or None) if self.answer is not None else None

    @pseudo_variable("http_rs")
    def http_rs(self, packet: Packet) -> int | None:
        """The status of the answer."""
        return self.answer.status if self._is_answered() else None

    @pseudo_variable("http_rr")
    def http_rr(self, packet: Packet) -> str | None:
        """The reason of the answer."""
        return self.answer.reason if self._is_answered() else None

    @pseudo_variable("http_rb")
    def http_rb(self, packet: Packet) -> str | None:
        """The body of the answer."""
        return self.answer.body if self._is_answered() else None

    @pseudo_variable("http_bs")
    def http_bs(self, packet: Packet) -> int | None:
        """The length of the body in bytes."""
        if not self._is_answered():
            return None
        return len(self.answer.body.encode("utf-8", "surrogateescape"))

    @pseudo_variable("http_mb")
    def http_mb(self, packet: Packet) -> str | None:
        """The whole answer."""
        return self.answer.text if self._is_answered() else None

    @pseudo_variable("http_ml")
    def http_ml(self, packet: Packet) -> int | None:
        """Its length in bytes."""
        if not self._is_answered():
            return None
        return len(self.answer.text.encode("utf-8", "surrogateescape"))

    @pseudo_variable("http_hdr")
    def http_hdr(self, packet: Packet, name: str, index: int) -> str | None:
        """A header of the answer; `[i]` the i-th of that name, negative from the end."""
        found = self.answer.header(name) if self._is_answered() else []
        return found[index] if -len(found) <= index < len(found) else None

    @http_hdr.bind
    def bind_http_hdr(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None:
            raise ValueError("expected a header's name in parentheses")
        try:
            place = 0 if index is None else int(index.source)
        except ValueError:
            raise ValueError(f"an index is a number, not {index.source}") from None
        constant = argument.strip().constant
        return (argument if constant is None else constant, place)

    def _is_answered(self) -> bool:
        return self.answer is not None and not self.answer.error


def _tell(client: HttpClient, statistics: Statistics) -> None:
    """Let `$stat` read what became of the requests, under Kamailio's names."""
    counts = client.counts
    for name, read in (
        ("requests", lambda packet: counts.total() + client.open),
        ("replies", lambda packet: counts["answered"]),
        ("timeouts", lambda packet: counts["timed_out"]),
        ("errors", lambda packet: counts.total() - counts["answered"] - counts["timed_out"]),
    ):
        statistics.watch("http_async_client", name, read)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
