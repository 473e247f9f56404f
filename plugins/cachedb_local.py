"""cachedb_local: keys and values in memory, of scripts written for OpenSIPS.

The store is named `local`, a collection of it `local:NAME`; every other cachedb URL means the same
memory, so that a script with a Redis of its own runs too.  Values are text, counters numbers.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import time

from homerd.api import (
    ModParam,
    Packet,
    Plugin,
    Table,
    Value,
    Worker,
    Writable,
    hookimpl,
    script_function,
)

MISSING = -2  # what cache_fetch returns for a key that is not there
MOST_COLLECTIONS = 64


@dataclass(frozen=True, slots=True)
class Collections:
    """`NAME[=SIZE]; NAME2[=SIZE]`."""

    names: tuple[str, ...]

    @staticmethod
    def from_script(value: str | int) -> Collections:
        """Read modparam's `cache_collections`."""
        pieces = (piece.partition("=")[0].strip() for piece in str(value).split(";"))
        return Collections(tuple(name for name in pieces if name))


class CachedbLocal(Plugin):
    """A store of keys and values that may expire."""

    name = "cachedb_local"

    cache_table_size = ModParam(int, 9, reloadable=True, help="accepted; tables grow")
    cache_clean_period = ModParam(int, 600, help="seconds between looks for expired keys")
    cache_collections = ModParam(
        Collections, many=True, reloadable=True, help="accepted; a collection is made on first use"
    )
    cachedb_url = ModParam(str, many=True, reloadable=True, help="accepted; all is in memory")
    exec_threshold = ModParam(int, 0, reloadable=True, help="accepted")
    cache_replication_cluster = ModParam(int, 0, help="accepted; nothing is replicated")
    rest_persistency = ModParam(str, "", help="accepted; nothing outlives the process")

    def __init__(self) -> None:
        self.tables: dict[str, Table[str | int]] = {}
        self.refused = 0
        self._clock: Callable[[], float] = time

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Look for expired keys from time to time."""
        self._clock = worker.now
        worker.every(max(1, self.cache_clean_period), self.purge)

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Keys of each collection."""
        for name, table in self.tables.items():
            yield "homerd_cache_items", {"collection": name}, len(table)
        yield "homerd_cache_refused_total", {}, self.refused

    def purge(self) -> None:
        """Free expired keys."""
        for table in self.tables.values():
            table.purge()

    @script_function
    def cache_store(
        self, packet: Packet, store: str, key: str, value: Value, seconds: int = 0
    ) -> bool:
        """Keep *value* under *key*, for so many *seconds* or, with 0, for ever."""
        table = self._table(store)
        if table is None:
            return False
        return table.put(key, "" if value is None else str(value), max(0, seconds))

    @script_function
    def cache_fetch(self, packet: Packet, store: str, key: str, result: Writable) -> int:
        """Put the value of *key* into *result*; -2 when there is none."""
        table = self._table(store)
        value = None if table is None else table.get(key)
        if value is None:
            return MISSING
        result.set(packet, str(value))
        return 1

    @script_function
    def cache_counter_fetch(self, packet: Packet, store: str, key: str, result: Writable) -> int:
        """The same as a number."""
        table = self._table(store)
        value = None if table is None else table.get(key)
        if value is None:
            return MISSING
        result.set(packet, _number(value))
        return 1

    @script_function
    def cache_remove(self, packet: Packet, store: str, key: str) -> bool:
        """Forget *key*; one that is not there is no failure."""
        table = self._table(store)
        if table is not None:
            table.remove(key)
        return table is not None

    @script_function
    def cache_remove_chunk(self, packet: Packet, store: str, pattern: str) -> bool:
        """Forget the keys that match *pattern*, with * and ? as in file names."""
        table = self._table(store)
        for key in table.keys() if table is not None else ():
            if table is not None and fnmatch.fnmatchcase(key, pattern):
                table.remove(key)
        return table is not None

    @script_function
    def cache_add(
        self,
        packet: Packet,
        store: str,
        key: str,
        amount: int,
        seconds: int,
        result: Writable | None = None,
    ) -> bool:
        """Add to a counter, made at *amount* when it is not there; *result* gets the sum.

        seconds: how long it lives from now, 0 for ever.
        """
        return self._add(packet, store, key, amount, seconds, result)

    @script_function
    def cache_sub(
        self,
        packet: Packet,
        store: str,
        key: str,
        amount: int,
        seconds: int,
        result: Writable | None = None,
    ) -> bool:
        """Subtract from a counter."""
        return self._add(packet, store, key, -amount, seconds, result)

    def _add(
        self,
        packet: Packet,
        store: str,
        key: str,
        amount: int,
        seconds: int,
        result: Writable | None,
    ) -> bool:
        table = self._table(store)
        if table is None:
            return False
        total = _number(table.get(key, 0) or 0) + amount
        if result is not None:
            result.set(packet, total)
        return table.put(key, total, max(0, seconds))

    def _table(self, store: str) -> Table[str | int] | None:
        """The table of `system[:collection]`; None when there are too many."""
        name = store.partition(":")[2] or "default"
        table = self.tables.get(name)
        if table is None:
            if len(self.tables) >= MOST_COLLECTIONS:
                self.refused += 1
                return None
            table = self.tables[name] = Table(lambda: self._clock())
        return table


def _number(value: str | int) -> int:
    try:
        return int(value)
    except ValueError:
        return 0
