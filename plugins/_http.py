"""HTTP requests off the packet path: one thread with a loop of its own, bounded in every way.

A request that could not be made or was not answered in time is an Answer with an error and curl's
number for it, as scripts written for Kamailio expect.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homerd.api import Plugin, Worker, hookimpl

if TYPE_CHECKING:
    import httpx

MAX_BODY = 1 << 20
STOP_SECONDS = 5.0
_CLIENTS = 16  # one for each set of TLS settings that a script uses
_SERVERS = 1000
_FORM = "application/x-www-form-urlencoded"

# curl/curl.h, CURLcode
BAD_URL, NOT_CONNECTED, BAD_TLS, TIMED_OUT, NO_ANSWER, TOO_LARGE, REFUSED = 3, 7, 35, 28, 56, 63, 27

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server's certificate is checked, and what we show it; paths, "" for none."""

    verify: bool = True
    authorities: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """One request.

    body: None for none.  timeout: seconds until it is given up.  digest: how *user* is proven.
    """

    url: str
    timeout: float
    method: str = "GET"
    headers: Headers = ()
    body: str | None = None
    user: tuple[str, str] | None = None
    digest: bool = False
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it; status 0, error and curl's number when nothing did."""

    status: int = 0
    reason: str = ""
    headers: Headers = ()
    body: str = ""
    error: str = ""
    curl: int = 0

    def header(self, name: str) -> list[str]:
        """The bodies of the headers *name*, in any case."""
        wanted = name.lower()
        return [value for spelled, value in self.headers if spelled.lower() == wanted]

    @property
    def text(self) -> str:
        """The whole answer: status line, headers, body."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return f"HTTP/1.1 {self.status} {self.reason}\r\n{head}\r\n{self.body}"


class HttpClient:
    """Asks servers; at most *running* requests at once, *limit* with those that wait.

    pause: seconds for which `ask` leaves a server alone that let it time out.
    open: requests without an answer.  counts: all there were, by how they ended.  Whatever is
    beyond the limit is refused, and counted.
    """

    def __init__(
        self,
        *,
        running: int,
        limit: int,
        user_agent: str = "homerd",
        max_body: int = MAX_BODY,
        pause: float = 0.0,
    ) -> None:
        self.running = running
        self.limit = limit
        self.max_body = max_body
        self.user_agent = user_agent
        self.pause = pause
        self.open = 0
        self._left_alone: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._clients: dict[Tls, httpx.AsyncClient] = {}
        self._places: asyncio.Semaphore | None = None

    def start(self) -> None:
        """Start the thread."""
        for name in ("httpx", "httpcore"):  # they log every request
            logging.getLogger(name).setLevel(logging.WARNING)
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True, name="http")
        self._thread.start()
        started.wait()

    def stop(self) -> None:
        """End the thread; requests without an answer are given up."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)
            self._loop = None

    @property
    def full(self) -> bool:
        """Whether one more request would be refused."""
        return self.open >= self.limit

    def refuse(self) -> None:
        """Count a request for which there was no place."""
        self.counts["refused"] += 1

    def submit(self, query: Query, done: Callable[[Answer], None]) -> bool:
        """Ask, and have *done* called in the client's thread; False when there is no place.

        Whoever handles the answer calls `finish` with it, in the thread that submitted.
        """
        if self.full or self._loop is None:
            self.refuse()
            return False
        self.open += 1
        asyncio.run_coroutine_threadsafe(self._ask(query), self._loop).add_done_callback(
            lambda future: done(_result(future))
        )
        return True

    def finish(self, answer: Answer) -> None:
        """Count the end of a request."""
        self.open -= 1
        self.counts["answered" if not answer.error else _NAMES.get(answer.curl, "failed")] += 1

    def ask(self, query: Query) -> Answer:
        """Ask and wait, at most the request's own timeout."""
        server = query.url.partition("://")[2].partition("/")[0]
        if self._left_alone.get(server, 0.0) > time.monotonic():
            self.counts["paused"] += 1
            return Answer(error="left alone after a time-out", curl=TIMED_OUT)
        if self.full or self._loop is None:
            self.refuse()
            return Answer(error="too many requests", curl=REFUSED)
        self.open += 1
        future = asyncio.run_coroutine_threadsafe(self._ask(query), self._loop)
        concurrent.futures.wait([future], query.timeout)
        if future.done():
            answer = _result(future)
        else:
            future.cancel()
            answer = Answer(error="timed out", curl=TIMED_OUT)
        if answer.curl == TIMED_OUT and self.pause > 0:
            if len(self._left_alone) >= _SERVERS:
                self._left_alone.clear()
            self._left_alone[server] = time.monotonic() + self.pause
        self.finish(answer)
        return answer

    def _run(self, started: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._places = asyncio.Semaphore(self.running)
        started.set()
        loop.run_forever()
        waiting = asyncio.all_tasks(loop)
        for task in waiting:
            task.cancel()
        loop.run_until_complete(self._close(waiting))
        loop.close()

    async def _close(self, waiting: set[asyncio.Task[object]]) -> None:
        clients = [client.aclose() for client in self._clients.values()]
        await asyncio.gather(*waiting, *clients, return_exceptions=True)

    async def _ask(self, query: Query) -> Answer:
        import httpx

        assert self._places is not None
        async with self._places:
            try:
                async with asyncio.timeout(query.timeout):
                    return await self._exchange(query)
            except TimeoutError:
                return Answer(error="timed out", curl=TIMED_OUT)
            except httpx.ConnectError as error:
                code = BAD_TLS if "SSL" in str(error) else NOT_CONNECTED
                return Answer(error=str(error) or "cannot connect", curl=code)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
                return Answer(error=str(error), curl=BAD_URL)
            except (httpx.HTTPError, OSError) as error:
                return Answer(error=str(error) or type(error).__name__, curl=NO_ANSWER)

    async def _exchange(self, query: Query) -> Answer:
        import httpx

        auth: httpx.Auth | None = None
        if query.user is not None:
            auth = (httpx.DigestAuth if query.digest else httpx.BasicAuth)(*query.user)
        async with self._client(query.tls).stream(
            query.method,
            query.url,
            headers=[(_bytes(name), _bytes(value)) for name, value in query.headers],
            content=None if query.body is None else _bytes(query.body),
            auth=auth,
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self.max_body:
                    return Answer(error=f"more than {self.max_body} bytes", curl=TOO_LARGE)
        return Answer(
            response.status_code,
            response.reason_phrase,
            tuple((_text(name), _text(value)) for name, value in response.headers.raw),
            _text(bytes(body)),
        )

    def _client(self, tls: Tls) -> httpx.AsyncClient:
        """The client for these TLS settings; a context takes 20 ms to make, so it is kept."""
        found = self._clients.get(tls)
        if found is None:
            if len(self._clients) >= _CLIENTS:
                raise ValueError(f"more than {_CLIENTS} sets of TLS settings")
            found = self._clients[tls] = _new_client(tls, self.user_agent, self.running)
        return found


class HttpPlugin(Plugin):
    """What the modules that ask servers have in common; startup makes their client."""

    name = "_http"

    def __init__(self) -> None:
        self.client: HttpClient | None = None

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """End the thread, and give up what is not answered."""
        if self.client is not None:
            self.client.stop()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Requests by how they ended."""
        for result, count in ({} if self.client is None else self.client.counts).items():
            yield "homerd_http_requests_total", {"module": self.name, "result": result}, count


_NAMES = {TIMED_OUT: "timed_out", TOO_LARGE: "too_large", BAD_URL: "bad_url"}


def _new_client(tls: Tls, user_agent: str, connections: int) -> httpx.AsyncClient:
    import ssl

    import httpx

    context: ssl.SSLContext | bool = tls.verify
    if tls.authorities or tls.certificate:
        context = ssl.create_default_context()
        if tls.authorities:
            context.load_verify_locations(tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    return httpx.AsyncClient(
        verify=context,
        timeout=None,  # one deadline for the whole request, see _ask
        limits=httpx.Limits(max_connections=connections),
        # What the answer is packed with is not undone, so that a small one cannot become a big one.
        headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
        trust_env=False,
    )


def _result(future: concurrent.futures.Future[Answer]) -> Answer:
    if future.cancelled():
        return Answer(error="given up", curl=NO_ANSWER)
    error = future.exception()
    return future.result() if error is None else Answer(error=repr(error), curl=NO_ANSWER)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def post_or_get(method: str, body: str | None) -> str:
    """The method, when the script named none."""
    return method or ("GET" if body is None else "POST")


def with_type(headers: Headers, body: str | None) -> Headers:
    """The headers; those of a body of no named type call it a form, as curl does."""
    if body is None or any(name.lower() == "content-type" for name, _ in headers):
        return headers
    return (*headers, ("Content-Type", _FORM))


def split_header(line: str) -> tuple[str, str]:
    """`Name: value` as a pair; a line without a colon is a name with an empty value."""
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def split_headers(text: str) -> Headers:
    """Header lines as pairs; empty lines are left out."""
    return tuple(split_header(line) for line in text.splitlines() if line.strip())
