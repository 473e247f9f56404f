"""http_client: HTTP requests that the script waits for.

Nothing else is done while one waits, at most `connection_timeout`.  A server that let a request
time out is left alone for `pause` seconds: until then its requests fail at once, so that a dead
server does not stop every packet.  Where nobody needs the answer at once, http_async_client is the
better choice.

Functions return the HTTP status, below 100 curl's number for what went wrong (7 cannot connect, 28
timed out), -1 for an unknown connection.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    Text,
    Worker,
    Writable,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins._http import (
    MAX_BODY,
    HttpClient,
    HttpPlugin,
    Query,
    Tls,
    post_or_get,
    split_headers,
    with_type,
)

RUNNING = 4  # one is asked at a time; more only while given up ones end
_ERRORS = {
    0: "No error",
    3: "URL using bad/illegal format or missing URL",
    7: "Couldn't connect to server",
    27: "Out of memory",
    28: "Timeout was reached",
    35: "SSL connect error",
    56: "Failure when receiving data from the peer",
    63: "Maximum file size exceeded",
}
_OPTIONS = frozenset(
    {"timeout", "useragent", "verify_peer", "verify_host", "maxdatasize", "httpredirect"}
    | {"failover", "client_cert", "client_key", "cacert", "cipher_suites", "tlsversion"}
    | {"httpproxy", "keep_connections", "authmethod"}
)


class Connection:
    """`name=>http[s]://user:password@host/path;timeout=2;…`, a server by name."""

    def __init__(self, name: str, url: str, options: dict[str, str]) -> None:
        parts = urlsplit(url)
        self.name = name
        self.user = (parts.username, parts.password or "") if parts.username else None
        place = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{place}{parts.path}".rstrip("/")
        self.options = options
        self.timeout = float(options["timeout"]) if "timeout" in options else None

    @staticmethod
    def from_script(value: str | int) -> Connection:
        name, arrow, rest = str(value).partition("=>")
        url, *pairs = rest.strip().split(";")
        options = dict(pair.partition("=")[::2] for pair in pairs if pair.strip())
        options = {key.strip(): text.strip() for key, text in options.items()}
        if not (arrow and name.strip() and urlsplit(url).scheme in ("http", "https")):
            raise ValueError(f'expected name=>http://host/path, got "{value}"')
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise ValueError(f"unknown option {', '.join(sorted(unknown))}")
        try:
            return Connection(name.strip(), url.strip(), options)
        except ValueError:
            raise ValueError(f'expected seconds, got "{options["timeout"]}"') from None

    def address(self, path: str) -> str:
        """The URL of *path* below the connection's own."""
        return f"{self.url}/{path.lstrip('/')}" if path else self.url


class HttpClientModule(HttpPlugin):
    """Asks HTTP servers and waits for them; the worker waits too."""

    name = "http_client"

    httpcon = ModParam(Connection, many=True, help="a server: name=>http://host/path;timeout=1")
    connection_timeout = ModParam(
        float, 1.0, reloadable=True, help="seconds that all packets wait at most (Kamailio: 4)"
    )
    pause = ModParam(float, 5.0, help="seconds a server is left alone after a time-out")
    keep_connections = ModParam(int, 0, help="accepted; connections are kept")
    maxdatasize = ModParam(int, 0, help="bytes of an answer that are taken; 0 is 1 MiB")
    query_maxdatasize = ModParam(int, 0, help="as maxdatasize")
    query_result = ModParam(int, 1, help="accepted")
    useragent = ModParam(str, "homerd", help="what requests name as User-Agent")
    verify_peer = ModParam(int, 1, help="whether a server's certificate and name are checked")
    verify_host = ModParam(int, 2, help="accepted; see verify_peer")
    cacert = ModParam(str, "", help="file of the authorities that are trusted")
    client_cert = ModParam(str, "", help="file of the certificate that servers are shown")
    client_key = ModParam(str, "", help="file of its key")
    httpredirect = ModParam(int, 0, help="accepted; redirects are not followed")
    cipher_suites = ModParam(str, "", help="accepted")
    tlsversion = ModParam(int, 0, help="accepted; TLS 1.2 and later are spoken")
    httpproxy = ModParam(str, "", help="accepted")
    httpproxyport = ModParam(int, 0, help="accepted")
    netinterface = ModParam(str, "", help="accepted")
    timeout_mode = ModParam(int, 0, help="accepted")
    config_file = ModParam(str, "", help="accepted")

    @property
    def waits_seconds(self) -> float:
        """How long a packet waits at most, as its parameters say."""
        return max([self.connection_timeout, *(each.timeout or 0.0 for each in self.httpcon)])

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the times."""
        if not self.connection_timeout > 0:
            raise ConfigError(
                f'modparam("http_client", "connection_timeout", {self.connection_timeout:g}):'
                " expected seconds above 0"
            )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start the thread that asks."""
        size = self.maxdatasize or self.query_maxdatasize
        self.client = HttpClient(
            running=RUNNING,
            limit=RUNNING,
            user_agent=self.useragent,
            max_body=size if size > 0 else MAX_BODY,
            pause=self.pause,
        )
        if worker.deliver:
            self.client.start()

    @script_function("http_connect")
    def http_connect(self, packet: Packet, connection: str, path: str, result: Writable) -> int:
        """GET *path* of a connection; *result* gets the body."""
        return self._connect(packet, connection, path, "", None, result)

    @script_function("http_connect")
    def http_connect_with(
        self,
        packet: Packet,
        connection: str,
        path: str,
        content_type: str,
        body: str,
        result: Writable,
    ) -> int:
        """POST *body* to *path* of a connection; *result* gets the answer's body."""
        return self._connect(packet, connection, path, content_type, body, result)

    @script_function("http_client_query")
    def http_client_query(self, packet: Packet, url: str, result: Writable) -> int:
        """GET *url*; *result* gets the body."""
        return self._ask(packet, self._query(url, None, ""), result)

    @script_function("http_client_query")
    def http_client_post(self, packet: Packet, url: str, body: str, result: Writable) -> int:
        """POST *body* to *url*."""
        return self._ask(packet, self._query(url, body, ""), result)

    @script_function("http_client_query")
    def http_client_post_with(
        self, packet: Packet, url: str, body: str, headers: str, result: Writable
    ) -> int:
        """The same with header lines."""
        return self._ask(packet, self._query(url, body or None, headers), result)

    @script_function
    def http_client_get(
        self, packet: Packet, url: str, body: str, headers: str, result: Writable
    ) -> int:
        """GET *url* with header lines; the body is sent when it is not empty."""
        return self._ask(packet, self._query(url, body or None, headers, "GET"), result)

    @pseudo_variable("curlerror")
    def curlerror(self, packet: Packet, number: str) -> str:
        """What a result below 100 means."""
        code = int(number) if number.isdigit() else -1
        return _ERRORS.get(code, "Unknown error")

    @curlerror.bind
    def bind_curlerror(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None:
            raise ValueError("expected a number in parentheses")
        return (argument if argument.constant is None else argument.constant,)

    def _connect(
        self,
        packet: Packet,
        name: str,
        path: str,
        content_type: str,
        body: str | None,
        result: Writable,
    ) -> int:
        connection = next((found for found in self.httpcon if found.name == name), None)
        if connection is None:
            packet.log(-1, f'http_connect: no connection "{name}": add modparam httpcon')
            result.set(packet, "")
            return -1
        options = connection.options
        query = Query(
            connection.address(path),
            connection.timeout or self.connection_timeout,
            post_or_get("", body),
            (("Content-Type", content_type),) if content_type else (),
            body,
            connection.user,
            tls=Tls(
                options.get("verify_peer", str(self.verify_peer)) != "0",
                options.get("cacert", self.cacert),
                options.get("client_cert", self.client_cert),
                options.get("client_key", self.client_key),
            ),
        )
        return self._ask(packet, query, result)

    def _query(self, url: str, body: str | None, headers: str, method: str = "") -> Query:
        return Query(
            url,
            self.connection_timeout,
            post_or_get(method, body),
            with_type(split_headers(headers), body),
            body,
            tls=Tls(bool(self.verify_peer), self.cacert, self.client_cert, self.client_key),
        )

    def _ask(self, packet: Packet, query: Query, result: Writable) -> int:
        assert self.client is not None
        answer = self.client.ask(query)
        result.set(packet, answer.body)
        return answer.status or answer.curl
