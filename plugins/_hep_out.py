"""HepSink: batches of frames to the targets of a profile."""

from __future__ import annotations

import logging
import ssl
import time
import zlib
from collections import defaultdict
from typing import Any

from homerd.api import BatchSink, Rejected, RetryLater
from homerd_plugins._hep_lines import LARGEST_DATAGRAM, Line, Progress, open_line, tls_context
from homerd_plugins._hep_profile import Profile

log = logging.getLogger("homerd.hep")

# Before a target that was away is tried again, while another serves; and so many times as long as
# it took to find out: one that drops what it is sent would hold up all batches for timeout= each.
AWAY_SECONDS, AWAY_TIMES = 15.0, 20

# What is sent, and the Call-ID or correlation id that shares packets out.
Record = tuple[bytes, str]


class HepSink(BatchSink):
    """One profile's way out.

    failovers: batches that another target took than the one they were for.
    refused: datagrams a closed port sent back.  acknowledged: frames that a receiver told it has.
    """

    is_store = False

    def __init__(self, profile: Profile, name: str = "") -> None:
        super().__init__(name or f"hep:{profile.name}", batch_size=profile.batch_size)
        self.profile = profile
        self.where = ",".join(map(str, profile.targets))
        self.failovers = 0
        self.refused = 0
        self.acknowledged = 0
        self._context: ssl.SSLContext | None = None
        self._lines: dict[int, Line] = {}
        self._away: dict[int, float] = {}
        self._told: set[int] = set()  # targets that acknowledge, once known
        self._progress: tuple[str, dict[int, Progress]] = ("", {})

    def connect(self) -> None:
        """Open the line to a target; ConfigError for certificates that cannot be read."""
        self._context = self._context or tls_context(self.profile)
        self._away.clear()
        self._any(0)

    def close(self) -> None:
        """Close every line."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def write(self, batch: list[Record]) -> None:
        """To the target each is for, or to another when that is away.

        What one target has taken is not sent again because of another.
        """
        if any(each.scheme == "udp" for each in self.profile.targets):
            self._refuse_large(batch)
        known, parts = self._progress
        if known != self.batch_id or not known:
            parts = defaultdict(Progress)
            self._progress = (self.batch_id, parts)
        shares = self._shared_out(batch)
        for first, frames in shares.items():
            id = f"{self.batch_id}/{first}" if len(shares) > 1 else self.batch_id
            self._send(first, id, frames, parts[first])
        self._progress = ("", {})

    def label(self, record: Record) -> str:
        """The profile."""
        return self.profile.name

    def describe(self, record: Record) -> dict[str, Any]:
        """The line of JSON; a frame in hexadecimal, as `{"hex": …}` of INPUT takes it."""
        is_line = self.profile.format == "json"
        return {"record": record[0].decode() if is_line else record[0].hex()}

    def unpack(self, packed: Any) -> Record:  # whatever a spool gave
        """A list or a tuple, by then."""
        return packed[0], packed[1]

    def _shared_out(self, batch: list[Record]) -> dict[int, list[bytes]]:
        if self.profile.balance != "callid" or len(self.profile.targets) == 1:
            return {0: [frame for frame, _ in batch]}
        shares: defaultdict[int, list[bytes]] = defaultdict(list)
        for frame, call_id in batch:
            key = zlib.crc32(call_id.encode("utf-8", "surrogateescape"))
            shares[key % len(self.profile.targets)].append(frame)
        return shares

    def _send(self, first: int, id: str, frames: list[bytes], progress: Progress) -> None:
        while progress.sent < len(frames):
            index, line = self._any(first)
            refused = progress.refused
            started = time.monotonic()
            try:
                line.send(id, frames, progress)
            except RetryLater as error:
                self._give_up(index, error, started)
                if len(self._away) == len(self.profile.targets):
                    raise
                continue
            finally:
                self.refused += progress.refused - refused
            if line.acknowledges:
                self.acknowledged += len(frames)
            if index != first:
                self.failovers += 1
            progress.sent = len(frames)

    def _any(self, first: int) -> tuple[int, Line]:
        """The line to target *first*, or to the next that is there; RetryLater when none is."""
        now = time.monotonic()
        failed: list[str] = []
        number = len(self.profile.targets)
        for index in [(first + step) % number for step in range(number)]:
            if self._away.get(index, 0.0) > now:
                failed.append(f"{self.profile.targets[index]} was away a moment ago")
                continue
            started = time.monotonic()
            try:
                return index, self._line(index)
            except RetryLater as error:
                self._give_up(index, error, started)
                failed.append(str(error))
        raise RetryLater("; ".join(failed))

    def _line(self, index: int) -> Line:
        line = self._lines.get(index)
        if line is None:
            target = self.profile.targets[index]
            line = open_line(target, self.profile, self._context, index in self._told)
            if line.acknowledges:
                self._told.add(index)
            self._lines[index] = line
            log.info(
                "connected sink=%s target=%s acknowledges=%s",
                self.name,
                target,
                "yes" if line.acknowledges else "no",
            )
        self._away.pop(index, None)
        return line

    def _give_up(self, index: int, error: RetryLater, started: float) -> None:
        line = self._lines.pop(index, None)
        if line is not None:
            line.close()
        now = time.monotonic()
        self._away[index] = now + max(AWAY_SECONDS, AWAY_TIMES * (now - started))
        if len(self.profile.targets) > 1:
            log.info('target is away sink=%s error="%s"', self.name, error)

    def _refuse_large(self, batch: list[Record]) -> None:
        large = [index for index, (frame, _) in enumerate(batch) if len(frame) > LARGEST_DATAGRAM]
        if large:
            raise Rejected(large, f"larger than a datagram of {LARGEST_DATAGRAM} bytes")
