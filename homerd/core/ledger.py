"""The ledger: what came in and where it went, as sums that must be equal.

    captured   frames captured live                     = those that gave packets + undecoded
    sources    what each listener read + kernel drops   = received + waiting + kernel drops
    packets    received = routed + handled + refused + undecoded
    fates      received = gave records + gave none (by the line that ended them) + undecoded
    each sink  added + recovered = written + queued + spooled + rejected + lost

Nothing here counts: it is a function of the counters that `homerd status --json` shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Balance(NamedTuple):
    """One equation: both sides by name."""

    came: dict[str, int]
    went: dict[str, int]

    @property
    def difference(self) -> int:
        """What is unaccounted for; below 0 what is counted twice."""
        return sum(self.came.values()) - sum(self.went.values())

    def described(self) -> dict[str, Any]:
        """It as JSON values."""
        return {"in": self.came, "out": self.went, "difference": self.difference}


def captured(counters: Mapping[str, Any]) -> Balance:
    """Frames captured live; nothing where nothing is."""
    live = [item for item in counters["sources"] if "captured" in item]
    if not live:
        return Balance({}, {})
    return Balance(
        {item["listen"]: item["captured"] for item in live},
        {
            "gave_packets": sum(item["gave_packets"] for item in live),
            "undecoded": sum(_sum(item["undecoded"]) for item in live),
        },
    )


def sources(counters: Mapping[str, Any]) -> Balance:
    """What the listeners read; nothing where packets come from files."""
    drops = counters["kernel_drops"]
    read = {item["listen"]: item["received"] for item in counters["sources"] if "received" in item}
    if not read:
        return Balance({}, {})
    lost = {"kernel_drops": drops} if drops else {}
    waiting = sum(_sum(item.get("waiting", {})) for item in counters["sources"])
    waits = {"waiting": waiting} if waiting else {}
    return Balance({**read, **lost}, {"received": counters["received"], **waits, **lost})


def packets(counters: Mapping[str, Any]) -> Balance:
    """How the packets were taken."""
    kinds = ("routed", "handled", "refused", "undecoded")
    return Balance(_received(counters), {kind: _sum(counters[kind]) for kind in kinds})


def fates(counters: Mapping[str, Any]) -> Balance:
    """What became of the packets: records, or none and why."""
    return Balance(
        _received(counters),
        {
            "gave_records": counters["gave_records"],
            "gave_none": _sum(counters["not_stored"]),
            "undecoded": _sum(counters["undecoded"]),
        },
    )


def records(sink: Mapping[str, Any]) -> Balance:
    """What became of a sink's records."""
    return Balance(
        {key: sink[key] for key in ("added", "recovered")},
        {
            **{key: sink[key] for key in ("written", "queued", "spooled", "rejected")},
            "lost": sink["dropped"],
        },
    )


def ledger(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Every equation as JSON values; difference: 0 when all of them hold."""
    of_sinks = {name: records(sink) for name, sink in counters["sinks"].items()}
    parts = {"sources": sources(counters), "packets": packets(counters), "fates": fates(counters)}
    if (live := captured(counters)).came:
        parts = {"captured": live, **parts}
    return {
        "difference": sum(abs(each.difference) for each in (*parts.values(), *of_sinks.values())),
        **{name: each.described() for name, each in parts.items()},
        "sinks": {name: each.described() for name, each in of_sinks.items()},
    }


def unbalanced(told: Mapping[str, Any]) -> Iterator[str]:
    """What does not add up in a ledger, a line each."""
    names = ("captured", "sources", "packets", "fates")
    parts = {name: told[name] for name in names if name in told}
    parts |= {f"sink {name}": part for name, part in told["sinks"].items()}
    for name, part in parts.items():
        if part["difference"]:
            came, went = _shown(part["in"]), _shown(part["out"])
            yield f"{name}: {part['difference']:+,} unaccounted for: {came} = {went}"


def _shown(side: Mapping[str, int]) -> str:
    return " + ".join(f"{name} {count:,}" for name, count in side.items())


def _received(counters: Mapping[str, Any]) -> dict[str, int]:
    return {"received": counters["received"]}


def _sum(counts: Mapping[str, int]) -> int:
    return sum(counts.values())
