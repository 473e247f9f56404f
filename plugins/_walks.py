"""Walks over the items of a table: `sht_iterator_…()`, `$shtitkey`, `$shtitval`."""

from __future__ import annotations

from homerd.api import Packet, Text, Value, pseudo_variable, script_function
from homerd_plugins import _bindings
from homerd_plugins._hashtable import HashTable, Walk


class Walks:
    """Mixed into the module htable.

    tables: those that are defined.
    """

    tables: dict[str, HashTable]

    def __init__(self) -> None:
        self._walks: dict[str, Walk] = {}

    @pseudo_variable("shtitkey")
    def shtitkey(self, packet: Packet, name: str) -> str | None:
        """Key of the item an iterator is at."""
        walk = self._walks.get(name)
        return None if walk is None or walk.current is None else walk.current[0]

    @shtitkey.bind
    def bind_shtitkey(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.text(argument)

    @pseudo_variable("shtitval")
    def shtitval(self, packet: Packet, name: str) -> Value:
        """Value of the item an iterator is at."""
        walk = self._walks.get(name)
        return None if walk is None or walk.current is None else walk.current[1]

    @shtitval.bind
    def bind_shtitval(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.text(argument)

    @script_function
    def sht_iterator_start(self, packet: Packet, name: str, table: str) -> bool:
        """Begin a walk over a table; false when there is no such table."""
        found = self.tables.get(table)
        if found is None:
            return False
        self._walks[name] = Walk(found)
        return True

    @script_function
    def sht_iterator_next(self, packet: Packet, name: str) -> bool:
        """Go to the next item; false at the end, and for a walk that was not begun."""
        walk = self._walks.get(name)
        return walk is not None and walk.advance()

    @script_function
    def sht_iterator_end(self, packet: Packet, name: str) -> None:
        """Forget the walk."""
        self._walks.pop(name, None)

    @script_function
    def sht_iterator_rm(self, packet: Packet, name: str) -> bool:
        """Remove the item the walk is at."""
        walk = self._walks.get(name)
        if walk is None or walk.current is None:
            return False
        walk.table.remove(walk.current[0])
        return True

    @script_function
    def sht_iterator_sets(self, packet: Packet, name: str, value: str) -> bool:
        """Set the item the walk is at to a text."""
        return self._set_current(name, value)

    @script_function
    def sht_iterator_seti(self, packet: Packet, name: str, value: int) -> bool:
        """Set the item the walk is at to a number."""
        return self._set_current(name, value)

    @script_function
    def sht_iterator_setex(self, packet: Packet, name: str, seconds: int) -> bool:
        """Let the item the walk is at live *seconds* from now."""
        walk = self._walks.get(name)
        if walk is None or walk.current is None:
            return False
        return walk.table.expire(walk.current[0], seconds)

    def _set_current(self, name: str, value: str | int) -> bool:
        walk = self._walks.get(name)
        if walk is None or walk.current is None:
            return False
        key = walk.current[0]
        walk.table.put(key, value)
        walk.current = (key, value)
        return True
