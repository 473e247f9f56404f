"""/metrics and /healthz: a small HTTP server on the worker's loop.

Reads GET and HEAD, keeps few connections, and gives up on silent ones; the pages are made when
they are asked for, between two packets.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping

from homerd.core import source
from homerd.core.http import HttpStream
from homerd.core.settings import Listen
from homerd.core.source import Address
from homerd.plugin.hookspecs import HttpAnswer, HttpRequest

log = logging.getLogger("homerd.metrics")

MAX_CONNECTIONS = 32
IDLE_SECONDS = 75.0  # longer than Prometheus' usual minute, so that it keeps its connection
READ_SIZE = 1 << 14
_TCP = 6
_PLAIN = ("Content-Type", "text/plain; charset=utf-8")

Page = Callable[[], HttpAnswer]


class Endpoint:
    """A listening socket and the pages behind it, by path.

    http: requests by how they ended, as in TcpSource.  name: `http://127.0.0.1:9096`.
    """

    def __init__(self, listen: Listen, pages: Mapping[str, Page]) -> None:
        self.pages = pages
        self.http: Counter[str] = Counter()
        family, address = source.addresses(listen)[0]
        self.socket = source.bind(listen, family, address, socket.SOCK_STREAM)
        self.socket.listen(MAX_CONNECTIONS)
        self.address: Address = self.socket.getsockname()[:2]
        self.name = f"http://{source.shown(self.address)}"
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self) -> None:
        """Answer from now on."""
        self._server = await asyncio.start_server(self._connected, sock=self.socket)

    def close(self) -> None:
        """Close the socket and what is connected to it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._open:
            task.cancel()
        self.socket.close()

    def answer(self, request: HttpRequest) -> tuple[HttpAnswer, str]:
        """A page, and how the request is counted."""
        path = request.target.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            headers = (("Allow", "GET, HEAD"),)
            return HttpAnswer(405, "Method Not Allowed", headers), "refused"
        page = self.pages.get(path)
        if page is None:
            listed = "".join(f"{name}\n" for name in self.pages)
            return HttpAnswer(404, "Not Found", (_PLAIN,), listed.encode()), "not_found"
        return page(), "answered"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MAX_CONNECTIONS:
            self.http["too_many"] += 1
            writer.close()
            return
        self._open.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # gone, silent, or we stop
        finally:
            self._open.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = source.peer(_TCP, writer.get_extra_info("peername"), self.address)
        ends = (peer.family, peer.src, peer.src_port, peer.dst, peer.dst_port)
        stream = HttpStream(ends, self.answer, self.http)
        while not stream.closing:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await reader.read(READ_SIZE)
                if not data:
                    return
                writer.write(stream.feed(data))
                await writer.drain()


def health() -> HttpAnswer:
    """The loop runs: that is all it says.  A store that is away makes no difference."""
    return HttpAnswer(200, "OK", (_PLAIN,), b"ok\n")
