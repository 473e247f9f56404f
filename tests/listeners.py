"""A worker's listener on a loop of its own, and what an agent sends to it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from homerd.core import metrics
from homerd.core.settings import parse_listen
from homerd.wire import hep
from homerd.wire.hep import Frame

OPTIONS_REQUEST = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)
KEEP = 'request_route { keep("$si"); }'
DEADLINE_SECONDS = 20.0


def frame(capture_id=7, auth_key=None, **more):
    """A HEP 3 frame with OPTIONS."""
    values = {
        "version": 3,
        "family": hep.IPV4,
        "protocol": 17,
        "src": b"\xc0\0\2\1",
        "dst": b"\xc0\0\2\2",
        "src_port": 5060,
        "dst_port": 5060,
        "seconds": 1500000000,
        "payload_type": 1,
        "capture_id": capture_id,
        "auth_key": auth_key,
        "payload": OPTIONS_REQUEST,
    }
    return hep.encode(Frame(**{**values, **more}))


FRAME = frame()


class Listener:
    """A worker that listens on one loopback port, its loop in a thread."""

    def __init__(self, worker, scheme, port):
        self.worker = worker
        self.port = port
        self.clients = []
        self.worker.open(parse_listen(f"{scheme}:127.0.0.1:{port}"))
        (self.source,) = self.worker.sources
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.call(self.source.attach, self._loop)

    def connect(self):
        """A TCP connection to it."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS)
        self.clients.append(client)
        return client

    def call(self, function, *arguments):
        """Call on the loop, and wait for it."""

        async def run():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_SECONDS)

    def leave_unread(self, connection):
        """Have nobody read what comes over *connection*; called on the loop."""
        self._loop.remove_reader(connection.socket)

    def wait_for(self, condition):
        """Wait until what the loop does makes *condition* true."""
        ends = time.monotonic() + DEADLINE_SECONDS
        while not self.call(condition):
            assert time.monotonic() < ends, "it did not come to that"

    def established(self):
        """Whether there are connections, and all have done their handshake."""
        opened = self.source.connections
        return bool(opened) and all(each.tls.established for each in opened)

    def ledger(self):
        """What came in and where it went."""
        return self.call(metrics.snapshot, self.worker)["ledger"]

    def close(self):
        """End the loop; the worker ends by itself."""
        for client in self.clients:
            client.close()
        self.call(self.worker.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
