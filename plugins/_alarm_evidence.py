"""The packets that an alarm is about: references until it is raised, then what they say.

All alarms share one budget.  When it is used up a key goes on with as many packets as it has, and
one that has none keeps the packet that raised it alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from homerd.api import Frame, SipMessage
from homerd_plugins._alarm_event import Evidence

Seen = deque[tuple[float, Frame]]  # when it was counted, and the packet


class Budget:
    """Bytes of packets that are kept.  refused: packets there was no room for."""

    __slots__ = ("held", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0

    def keep(self, seen: Seen, now: float, frame: Frame, most: int) -> None:
        """Put *frame* behind those of a key, in the place of its oldest where there is no room."""
        size = len(frame.payload) + len(frame.raw)
        if len(seen) >= most or self.held + size > self.limit:
            if not seen:
                self.refused += 1
                return
            self._drop(seen)
        seen.append((now, frame))
        self.held += size

    def keep_alone(self, seen: Seen, now: float, frame: Frame) -> None:
        """Keep what may raise an alarm that has no other packet, with room or without."""
        seen.append((now, frame))
        self.held += len(frame.payload) + len(frame.raw)

    def free(self, seen: Seen) -> None:
        """Let go of all packets of a key."""
        while seen:
            self._drop(seen)

    def _drop(self, seen: Seen) -> None:
        frame = seen.popleft()[1]
        self.held -= len(frame.payload) + len(frame.raw)


def evidence_of(seen: Iterable[tuple[float, Frame]], whole: int) -> tuple[Evidence, ...]:
    """What the packets say, the first *whole* of them with their payload."""
    return tuple(_evidence(at, frame, number < whole) for number, (at, frame) in enumerate(seen))


def _evidence(at: float, frame: Frame, whole: bool) -> Evidence:
    sip = SipMessage(frame.payload)
    seconds, micros = divmod(frame.seconds * 1_000_000 + frame.micros, 1_000_000)
    if not frame.seconds:
        seconds, micros = divmod(int(at * 1_000_000), 1_000_000)
    method = str(sip.status) if sip.is_reply else (sip.method or "") if sip.is_request else ""
    return Evidence(
        seconds,
        micros,
        _end(frame.src_ip, frame.src_port),
        _end(frame.dst_ip, frame.dst_port),
        frame.capture_id or 0,
        mended(method),
        mended(sip.call_id or ""),
        mended(frame.correlation_id or ""),
        frame.payload.decode("utf-8", "replace") if whole else "",
    )


def mended(text: str) -> str:
    """*text* with U+FFFD where bytes were no UTF-8: JSON and databases take nothing else."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
