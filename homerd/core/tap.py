"""The datagrams a running engine takes, copied to who compares scripts with them.

Each is a number of 4 bytes and so many bytes of marshal: the datagram, and the peer or None.  The
loop never waits for the reader: what it does not take in time is left out and counted.
"""

from __future__ import annotations

import asyncio
import marshal
import struct
from collections.abc import Iterator
from typing import BinaryIO

from homerd.core.engine import Engine, Peer
from homerd.errors import ConfigError

_HEAD = struct.Struct("!I")
_MOST_WAITING = 16 << 20
_FLUSH_SECONDS = 0.05
_END = -1


class Tap:
    """Copies for *seconds*; one at a time."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        if engine.copied:
            raise ConfigError("somebody else compares scripts just now: try again when it is done")
        if not seconds > 0:
            raise ConfigError(f"expected a number of seconds above 0, got {seconds}")
        self.engine = engine
        self.seconds = seconds
        self.left_out = 0
        self._waiting = bytearray()

    async def send(self, writer: asyncio.StreamWriter) -> None:
        """Write what comes in that time, and at the end how many were left out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.seconds
        self.engine.copy_to(self._copy)
        try:
            while (left := until - loop.time()) > 0:
                await asyncio.sleep(min(_FLUSH_SECONDS, left))
                writer.write(bytes(self._waiting))
                self._waiting.clear()
                await writer.drain()
        finally:
            self.engine.copy_to(None)
        writer.write(bytes(self._waiting) + _packed(_END, self.left_out))
        await writer.drain()

    def _copy(self, data: bytes, peer: Peer | None) -> None:
        if len(self._waiting) > _MOST_WAITING:
            self.left_out += 1
            return
        self._waiting += _packed(data, None if peer is None else tuple(peer))


def read(reader: BinaryIO) -> Iterator[tuple[bytes, Peer | None] | int]:
    """What a Tap wrote; the last item is the number of those it left out."""
    while len(head := reader.read(_HEAD.size)) == _HEAD.size:
        data, peer = marshal.loads(reader.read(_HEAD.unpack(head)[0]))
        if data == _END:
            yield int(peer)
            return
        yield data, None if peer is None else Peer(*peer)


def _packed(first: bytes | int, second: tuple[bytes | int, ...] | int | None) -> bytes:
    body = marshal.dumps((first, second))
    return _HEAD.pack(len(body)) + body
