"""Round trips out of plain RTCP: a sender report, and the report block that answers it.

A block repeats the time stamp of the last sender report (LSR) and how long it lay there (DLSR).
What passes between the two where they are captured, less DLSR, is the time from that point to the
reporter and back: tshark's "round trip delay".  RFC 3550 6.4.1 has the sender reckon A - LSR - DLSR
by its own clock; that is the same where the capture is made at the sender.

At most MAX_SENT sender reports are remembered, for an hour; the oldest make room.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_SENT = 65_536
MAX_SECONDS = 3600  # of a round trip, and of the wait for it
# By less a trip that took no time may come out below 0: DLSR is not measured on the wire.
_EVEN_MS = 1.0

_Key = tuple[object, int, int]


class RoundTrips:
    """Sender reports that may still be answered.

    where: who captured, any value; times of two capturers are not compared.  micros: when it was
    captured.
    """

    def __init__(self) -> None:
        # The oldest first.  A dict would look for it behind all that left: 57 µs in a full table.
        self._sent: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sent)

    def sent(self, where: object, ssrc: int, middle: int, micros: int, now: float) -> None:
        """A sender report of *ssrc*.

        middle: the middle 32 bits of its NTP time.  now: by a clock that frees memory, in seconds.
        """
        if not middle:
            return  # a sender without a clock; 0 answers nothing
        sent, key = self._sent, (where, ssrc, middle)
        sent.pop(key, None)
        sent[key] = micros, now
        # Two at most, that no packet waits for many: the table shrinks faster than it grows.
        for _ in range(2):
            oldest = next(iter(sent))
            if len(sent) <= MAX_SENT and sent[oldest][1] + MAX_SECONDS > now:
                break
            del sent[oldest]

    def back(
        self, where: object, ssrc: int | None, lsr: int | None, dlsr: int | None, micros: int
    ) -> float | None:
        """Milliseconds there and back, by a report block about *ssrc*.

        None when its sender report was not seen, and when the times make no sense.
        """
        if not lsr or dlsr is None or ssrc is None:
            return None
        sent = self._sent
        # Time stamps that were told in microseconds come back with a rounded last bit.
        found = (
            sent.get((where, ssrc, lsr))
            or sent.get((where, ssrc, lsr + 1))
            or sent.get((where, ssrc, lsr - 1))
        )
        if found is None:
            return None
        trip = (micros - found[0]) / 1000 - dlsr * 1000 / 65536
        return max(0.0, trip) if -_EVEN_MS < trip <= MAX_SECONDS * 1000 else None
