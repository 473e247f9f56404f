"""cfgutils: chance, hashes, routes by name.

One packet is routed at a time, so that locks are always free; and none may wait, so that sleep()
does nothing.
"""

from __future__ import annotations

import random

from homerd.api import (
    ConfigError,
    ModParam,
    Outline,
    Packet,
    Plugin,
    Problem,
    Worker,
    hookimpl,
    pseudo_variable,
    script_function,
)

MANY_BITS = 31


class CfgUtils(Plugin):
    """Chance, hashes, routes by name."""

    name = "cfgutils"

    initial_probability = ModParam(int, 10, help="how often in a hundred rand_event() is true")
    lock_set_size = ModParam(int, 0, help="accepted: locks are always free")
    lock_set_name = ModParam(str, "", help="accepted")
    hash_file = ModParam(str, "", help="accepted")

    def __init__(self) -> None:
        self._probability: int | None = None
        self._routes: frozenset[str] = frozenset()
        self._worker: Worker | None = None

    @hookimpl
    def check_script(self, outline: Outline) -> list[Problem]:
        """Learn the names of the routes."""
        self._routes = outline.routes
        return []

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the probability."""
        if not 0 <= self.initial_probability <= 100:
            raise ConfigError(
                f'modparam("cfgutils", "initial_probability", {self.initial_probability}):'
                " expected a number from 0 to 100"
            )

    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Know who can run routes."""
        self._worker = worker

    @pseudo_variable("RANDOM")
    def random(self, packet: Packet) -> int:
        """A random number from 0 to 2147483647."""
        return random.getrandbits(MANY_BITS)

    # Chance

    @script_function
    def rand_event(self, packet: Packet) -> bool:
        """True as often in a hundred as the probability says."""
        return random.randrange(100) < self._chance()

    @script_function
    def rand_set_prob(self, packet: Packet, percent: int) -> bool:
        """Set the probability; false when it is not from 0 to 100."""
        if not 0 <= percent <= 100:
            return False
        self._probability = percent
        return True

    @script_function
    def rand_reset_prob(self, packet: Packet) -> None:
        """Set the probability to initial_probability."""
        self._probability = None

    @script_function
    def rand_get_prob(self, packet: Packet) -> int:
        """The probability."""
        return self._chance()

    def _chance(self) -> int:
        return self.initial_probability if self._probability is None else self._probability

    # Routes

    @script_function
    def check_route_exists(self, packet: Packet, route: str) -> bool:
        """Whether there is a `route[…]` of that name."""
        return route in self._routes

    @script_function
    def route_if_exists(self, packet: Packet, route: str) -> int:
        """Run a route and give what it returns; -1 when there is none of that name."""
        result = None if self._worker is None else self._worker.call_route(route, packet)
        return -1 if result is None else result

    # Hashes

    @script_function
    def core_hash(self, packet: Packet, first: str, second: str, size: int) -> int:
        """Kamailio's hash of two texts, from 1 to 2 to the power of *size*."""
        total = _fold(_fold(0, first), second)
        total = (total + (total >> 11) + (total >> 13) + (total >> 23)) & 0xFFFFFFFF
        slots = 1 << size if 0 < size < MANY_BITS else 2
        return (total & slots - 1) + 1

    # What needs more than one packet at a time

    @script_function
    def lock(self, packet: Packet, key: str) -> None:
        """Accepted: a packet runs through the script alone."""

    @script_function
    def unlock(self, packet: Packet, key: str) -> None:
        """Accepted."""

    @script_function
    def trylock(self, packet: Packet, key: str) -> None:
        """Accepted: it is always free."""

    @script_function
    def sleep(self, packet: Packet, seconds: int) -> None:
        """Accepted: does not wait, because every packet behind would."""

    @script_function
    def usleep(self, packet: Packet, micros: int) -> None:
        """Accepted: does not wait."""

    @script_function
    def abort(self, packet: Packet) -> int:
        """End the script for this packet; homerd goes on."""
        return 0

    @script_function
    def pkg_status(self, packet: Packet) -> None:
        """Accepted."""

    @script_function
    def shm_status(self, packet: Packet) -> None:
        """Accepted."""

    @script_function
    def pkg_summary(self, packet: Packet) -> None:
        """Accepted."""

    @script_function
    def shm_summary(self, packet: Packet) -> None:
        """Accepted."""


def _fold(total: int, text: str) -> int:
    """hashes.h of Kamailio: words of four bytes, each folded by three bits, added up."""
    data = text.encode("utf-8", "surrogateescape")
    cut = len(data) & ~3
    words = [int.from_bytes(data[start : start + 4]) for start in range(0, cut, 4)]
    words.append(int.from_bytes(data[cut:]))
    return (total + sum(word ^ word >> 3 for word in words)) & 0xFFFFFFFF
