"""Who may send: agents by capture id, key, network and certificate, and how much each may send.

Nothing of this is in the way of packets while the script names no agent.  What is kept of others is
bounded: MOST_UNKNOWN capture ids are counted by number, the rest together.
"""

from __future__ import annotations

import hmac
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from struct import pack
from typing import TYPE_CHECKING, Any

from homerd.errors import DecodeError
from homerd.wire.hep import GZIP, INFLATE_LIMIT, decode, is_hep3

if TYPE_CHECKING:
    from homerd.core.engine import Address, Arrival
    from homerd.wire.hep import Frame

MOST_UNKNOWN = 1000
_ID_CHUNK = b"\0\0\0\x0c\0\x0a"
_KEY_CHUNK = b"\0\0\0\x0e"
_NAMES = ("id", "key", "network", "certificate", "rate", "burst")
_SYNTAX = 'expected "NAME=>id=2001;key=…;network=10.0.0.0/8;certificate=NAME;rate=5000"'


@dataclass(frozen=True, slots=True)
class Agent:
    """What one line `agent = "…"` says; what it leaves out is not asked for.

    rate: packets a second, 0 for any number.  burst: how many may come at once.
    """

    name: str
    ids: frozenset[int] = frozenset()
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    certificates: frozenset[str] = frozenset()
    rate: int = 0
    burst: int = 0


def parse_agent(value: str | int) -> Agent:
    """An agent as a script names it; ValueError says what is wrong, and never shows a key."""
    name, arrow, rest = str(value).partition("=>")
    name = name.strip()
    if not arrow or not re.fullmatch(r"[\w.:-]+", name):
        raise ValueError(f"agent: {_SYNTAX}")
    said: dict[str, list[str]] = {key: [] for key in _NAMES}
    for part in filter(None, map(str.strip, rest.split(";"))):
        key, equals, text = part.partition("=")
        if key.strip() not in said or not equals or not text.strip():
            raise ValueError(f'agent "{name}": {_SYNTAX}')
        found = [text] if key.strip() == "key" else [item.strip() for item in text.split(",")]
        said[key.strip()] += found
    if not any(said[key] for key in ("id", "key", "network", "certificate")):
        raise ValueError(f'agent "{name}": expected at least one of id, key, network, certificate')
    rate = _number(name, "rate", said["rate"])
    return Agent(
        name,
        frozenset(_number(name, "id", [item], 0xFFFFFFFF) for item in said["id"]),
        tuple(key.encode() for key in said["key"]),
        tuple(_network(name, item) for item in said["network"]),
        frozenset(said["certificate"]),
        rate,
        _number(name, "burst", said["burst"]) or rate,
    )


def check_agents(agents: Iterable[Agent], last: Agent) -> None:
    """ValueError when *last* claims what another agent has."""
    for each in agents:
        if each.name == last.name:
            raise ValueError(f'agent "{last.name}" is there already')
        for number in sorted(each.ids & last.ids):
            raise ValueError(f'agent "{last.name}": id {number} belongs to "{each.name}"')


class Agents:
    """What was let in, and what was not and why.

    counts: agent -> "admitted" and the reasons of its refusals.  unknown: capture id -> packets of
    nobody who is named; "none" without an id, "other" beyond MOST_UNKNOWN.
    """

    def __init__(
        self, agents: Sequence[Agent], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self.counts: dict[str, Counter[str]] = {}
        self.unknown: Counter[str] = Counter()
        self._by_id: dict[int, _Admission] = {}
        self._without_id: list[_Admission] = []
        self.change(agents)

    def change(self, agents: Sequence[Agent]) -> None:
        """Go on with these; counters stay, and what an unchanged agent may still send."""
        before = {each.agent: each for each in (*self._by_id.values(), *self._without_id)}
        self._by_id.clear()
        self._without_id.clear()
        for agent in agents:
            counts = self.counts.setdefault(agent.name, Counter())
            each = before.get(agent) or _Admission(agent, counts, self._clock)
            self._by_id.update(dict.fromkeys(agent.ids, each))
            if not agent.ids:
                self._without_id.append(each)

    def refusal(self, frame: Frame, address: Address | None, source: Arrival | None) -> str:
        """Why *frame* is not routed, "" when it is; afterwards it has no key."""
        host = "" if address is None else address[0]
        names: Sequence[str] = getattr(source, "certificate_names", ())
        found = None if frame.capture_id is None else self._by_id.get(frame.capture_id)
        if found is not None:
            reason = found.mismatch(frame, host, names)
        else:
            found, reason = self._by_the_rest(frame, host, names)
        if frame.auth_key is not None:
            forget_key(frame)
        if found is None:
            self._count_unknown(frame.capture_id)
            return reason
        reason = reason or found.too_much()
        found.counts[reason or "admitted"] += 1
        return reason

    def owner(self, data: bytes, address: Address | None) -> str:
        """Whose a datagram seems to be by its id and its sender alone, "" for nobody's."""
        host = "" if address is None else address[0]
        number = _claimed_id(data)
        found = None if number is None else self._by_id.get(number)
        for each in self._without_id if found is None else (found,):
            if each.comes_from(host):
                return each.agent.name
        return ""

    def crowded(self, name: str, data: bytes) -> None:
        """Count a datagram that `owner` gave *name* for, and that found no room."""
        if name:
            self.counts[name]["crowded"] += 1
        else:
            self._count_unknown(_claimed_id(data))

    def described(self) -> dict[str, Any]:
        """The counters as JSON values."""
        return {
            "named": {name: dict(counts) for name, counts in self.counts.items()},
            "unknown": dict(self.unknown),
        }

    def _by_the_rest(
        self, frame: Frame, host: str, names: Sequence[str]
    ) -> tuple[_Admission | None, str]:
        for each in self._without_id:
            if not each.mismatch(frame, host, names):
                return each, ""
        return None, "unknown_agent"

    def _count_unknown(self, capture_id: int | None) -> None:
        told = "none" if capture_id is None else str(capture_id)
        if told not in self.unknown and len(self.unknown) >= MOST_UNKNOWN:
            told = "other"
        self.unknown[told] += 1


class _Admission:
    """One agent, and what it may still send: a token bucket."""

    def __init__(self, agent: Agent, counts: Counter[str], clock: Callable[[], float]) -> None:
        self.agent = agent
        self.counts = counts
        self._clock = clock
        self._left = float(agent.burst)
        self._at = clock()
        self._is_near = lru_cache(maxsize=1024)(self._lies_within)

    def mismatch(self, frame: Frame, host: str, names: Sequence[str]) -> str:
        """Why *frame* is not this agent's."""
        agent = self.agent
        if not self.comes_from(host):
            return "wrong_network"
        if agent.certificates and agent.certificates.isdisjoint(names):
            return "wrong_certificate"
        if agent.keys:
            given = (frame.auth_key or "").encode("utf-8", "surrogateescape")
            # Each is compared, so that the time tells nothing.
            if not sum(hmac.compare_digest(given, key) for key in agent.keys):
                return "wrong_key"
        return ""

    def comes_from(self, host: str) -> bool:
        """Whether the agent may send from *host*."""
        return not self.agent.networks or self._is_near(host)

    def too_much(self) -> str:
        """Take one from what may be sent; "rate" when nothing is left."""
        agent = self.agent
        if not agent.rate:
            return ""
        if self._left < 1.0:
            now = self._clock()
            self._left = min(agent.burst, self._left + (now - self._at) * agent.rate)
            self._at = now
            if self._left < 1.0:
                return "rate"
        self._left -= 1.0
        return ""

    def _lies_within(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self.agent.networks)


def _claimed_id(data: bytes) -> int | None:
    """The capture id in a datagram; HEP 3 is not decoded for it, which would cost 2 µs."""
    at = data.find(_ID_CHUNK) if data.startswith(b"HEP3") else -1
    if at >= 0:
        return int.from_bytes(data[at + 6 : at + 10], "big")
    try:
        return decode(data).capture_id
    except DecodeError:
        return None


def forget_key(frame: Frame) -> None:
    """Take every key out of *frame*, so that no store, log or next receiver gets one."""
    frame.auth_key = None
    raw = frame.raw
    if raw[:2] == GZIP:  # then without its envelope: what is within need not fit when unpacked
        raw = zlib.decompressobj(31).decompress(raw, INFLATE_LIMIT)
    if is_hep3(raw):
        kept = b"".join(_without_keys(raw, int.from_bytes(raw[4:6], "big")))
        frame.raw = raw[:4] + pack(">H", len(kept) + 6) + kept


def _without_keys(raw: bytes, total: int) -> list[bytes]:
    if raw.count(_KEY_CHUNK) == 1:  # most often, and to walk through all chunks takes 3 µs
        start = raw.find(_KEY_CHUNK)
        return [
            raw[6:start],
            raw[start + int.from_bytes(raw[start + 4 : start + 6], "big") : total],
        ]
    kept = []
    offset = 6
    while offset + 6 <= total:
        end = offset + int.from_bytes(raw[offset + 4 : offset + 6], "big")
        if raw[offset : offset + 4] != _KEY_CHUNK:
            kept.append(raw[offset:end])
        offset = end
    return kept


def _number(name: str, key: str, texts: list[str], most: int = 1 << 31) -> int:
    if not texts:
        return 0
    text = texts[-1]
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f'agent "{name}": expected {key} as a number, got "{text}"')
    return int(text)


def _network(name: str, text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f'agent "{name}": expected a network, such as 10.0.0.0/8: {error}'
        ) from None
