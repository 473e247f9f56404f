"""Capture plans of captagent, `capture[NAME] { … }`: which plan sees which packet.

NAME is the kind of source the plan is for.  A kind without a plan of its own is seen by the first
plan of another name, then by the first plan there is, so that no packet is without one.
"""

from __future__ import annotations

from collections.abc import Iterable

CAPTURED, SOCKET, HEP = range(3)
SOURCES = {
    "pcap": CAPTURED, "raw": CAPTURED, "tzsp": CAPTURED, "diameter": CAPTURED,
    "collector": SOCKET, "rtcpxr": SOCKET,
    "hep": HEP,
}  # fmt: skip


def chosen(names: Iterable[str]) -> tuple[str | None, str | None, str | None]:
    """Of the plans of a file the one for each of CAPTURED, SOCKET and HEP; None without any."""
    plans = list(names)
    spare = next((name for name in plans if name not in SOURCES), plans[0] if plans else None)

    def of(source: int) -> str | None:
        return next((name for name in plans if SOURCES.get(name) == source), spare)

    return of(CAPTURED), of(SOCKET), of(HEP)


def capture_name(plan: str) -> str:
    """A plan as it is written, without its body."""
    return f"capture[{plan}]" if plan else "capture"
