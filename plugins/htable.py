"""htable: tables of keys and values that may expire, kept from packet to packet.

Tables are in memory and belong to the worker.  What Kamailio keeps in a database or shares between
nodes is accepted in their definitions and has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic, time

from homerd.api import (
    ConfigError,
    ModParam,
    Outline,
    Packet,
    Plugin,
    PosixPattern,
    Problem,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins._hashtable import Definition, HashTable, Matcher
from homerd_plugins._walks import Walks

log = logging.getLogger("homerd.htable")

LEAST_BITS, MOST_BITS = 3, 24  # of a table's size: 8 slots are few for anything
_INIT_EVENT = "htable:mod-init"
_EXPIRED_EVENT = "htable:expired:"


class Htable(Plugin, Walks):
    """Tables of keys and values."""

    name = "htable"

    htable = ModParam(
        Definition,
        many=True,
        reloadable=True,
        help="a table: NAME=>size=8;autoexpire=60;initval=0",
    )
    timer_interval = ModParam(int, 20, help="seconds between looks for expired keys")
    db_url = ModParam(str, "", reloadable=True, help="accepted; tables are in memory")
    key_name_column = ModParam(str, "", reloadable=True, help="accepted")
    key_type_column = ModParam(str, "", reloadable=True, help="accepted")
    value_type_column = ModParam(str, "", reloadable=True, help="accepted")
    key_value_column = ModParam(str, "", reloadable=True, help="accepted")
    expires_column = ModParam(str, "", reloadable=True, help="accepted")
    array_size_suffix = ModParam(str, "", reloadable=True, help="accepted")
    fetch_rows = ModParam(int, 0, reloadable=True, help="accepted")
    db_expires = ModParam(int, 0, reloadable=True, help="accepted")
    enable_dmq = ModParam(int, 0, reloadable=True, help="accepted")
    dmq_init_sync = ModParam(int, 0, reloadable=True, help="accepted")
    timer_procs = ModParam(int, 0, reloadable=True, help="accepted")
    event_callback = ModParam(str, "", reloadable=True, help="accepted")
    event_callback_mode = ModParam(int, 0, reloadable=True, help="accepted")

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, HashTable] = {}
        self.failed_writes = 0
        self._said = -1.0
        self._clock: Callable[[], float] = time
        self._worker: Worker | None = None
        self._looking = False
        self._events: frozenset[str] = frozenset()
        self._mentioned: set[str] = set()
        self._record: tuple[str, str | int] | None = None
        self._matcher = Matcher()

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; a table defined twice is a ValueError."""
        if isinstance(value, Definition):
            if value.name in self.tables:
                raise ValueError(f'the table "{value.name}" is defined already')
            self.tables[value.name] = HashTable(value, self._now)
        super().set_mod_param(name, value)

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """What would stop the start, and tables that are used but not defined."""
        self._events = outline.events
        if _INIT_EVENT in outline.dropping_events:
            yield Problem(
                f"event_route[{_INIT_EVENT}] ends with drop: homerd would not start",
                event=_INIT_EVENT,
            )
        for name in sorted(self._mentioned - self.tables.keys()):
            yield Problem(
                f'the table "{name}" is not defined: what is written to it is lost',
                help=f'modparam("htable", "htable", "{name}=>size=8")',
                warning=True,
            )
        for table in self.htable:
            if table.bits and not LEAST_BITS <= table.bits <= MOST_BITS:
                yield Problem(
                    f'the table "{table.name}" has size={table.bits}: in Kamailio that is'
                    f" {1 << min(table.bits, 40)} slots; here it grows as it has to",
                    parameter="htable",
                    value=table.text,
                    help=f"a size from {LEAST_BITS} to {MOST_BITS}; 8 is usual",
                    warning=True,
                )
        for event in sorted(outline.events):
            table = event.removeprefix(_EXPIRED_EVENT)
            if table != event and table not in self.tables:
                yield Problem(f'the table "{table}" is not defined', event=event, warning=True)

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Run htable:mod-init, then look for expired keys from time to time."""
        self._worker = worker
        self._clock = worker.now
        if worker.run_event(_INIT_EVENT) == "drop":
            raise ConfigError(f"event_route[{_INIT_EVENT}] ended with drop: not starting")
        self._look_for_expired()

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Take note of tables that a reload added."""
        if self._worker is not None:
            self._look_for_expired()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Items of each table, and writes to tables that are not defined."""
        for name, table in self.tables.items():
            yield "homerd_htable_items", {"table": name}, len(table)
        yield "homerd_htable_failed_writes_total", {}, self.failed_writes

    def purge(self) -> None:
        """Free expired keys; event_route[htable:expired:NAME] sees each as `$shtrecord`."""
        for name, table in self.tables.items():
            event = _EXPIRED_EVENT + name
            if event not in self._events or self._worker is None:
                table.purge()
                continue
            worker = self._worker

            def on_expired(
                key: str, value: str | int, event: str = event, worker: Worker = worker
            ) -> None:
                self._record = (key, value)
                worker.run_event(event)

            table.purge(on_expired)
            self._record = None

    # $sht and its relatives

    @pseudo_variable("sht")
    def sht(self, packet: Packet, table: str, key: str) -> Value:
        """The value of a key; null, or the table's initval, when it is missing or has expired."""
        found = self.tables.get(table)
        return None if found is None else found.get(key, found.initial)

    @sht.setter
    def set_sht(self, packet: Packet, value: Value, table: str, key: str) -> None:
        found = self.tables.get(table)
        if found is None:
            self._lost(table)
        elif value is None:
            found.remove(key)
        else:
            found.put(key, value)

    @sht.bind
    def bind_sht(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtex", null_becomes=0)
    def shtex(self, packet: Packet, table: str, key: str) -> int | None:
        """Seconds a key still lives, 0 when it is missing or lives for ever; may be set."""
        found = self.tables.get(table)
        if found is None:
            return None
        left = found.seconds_left(key)
        return 0 if left is None else round(left)

    @shtex.setter
    def set_shtex(self, packet: Packet, value: Value, table: str, key: str) -> None:
        found = self.tables.get(table)
        if found is None:
            self._lost(table)
        elif found.expire_seconds:
            seconds = _as_int(value)
            if seconds > 0:
                found.expire(key, seconds)
            else:
                found.remove(key)

    @shtex.bind
    def bind_shtex(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtinc")
    def shtinc(self, packet: Packet, table: str, key: str) -> int | None:
        """Adds 1 each time it is read and gives the sum; null for text and missing keys."""
        return self._add(table, key, 1)

    @shtinc.bind
    def bind_shtinc(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtdec")
    def shtdec(self, packet: Packet, table: str, key: str) -> int | None:
        """Subtracts 1 each time it is read and gives the difference."""
        return self._add(table, key, -1)

    @shtdec.bind
    def bind_shtdec(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtcn")
    def shtcn(self, packet: Packet, table: str, wanted: str) -> int:
        """How many keys match: a regular expression, `~%` and an end, or `%~` and a beginning."""
        found = self.tables.get(table)
        return 0 if found is None else self._matcher.count(found.keys(), wanted)

    @shtcn.bind
    def bind_shtcn(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtcv")
    def shtcv(self, packet: Packet, table: str, wanted: str) -> int:
        """How many text values match, as for $shtcn."""
        found = self.tables.get(table)
        if found is None:
            return 0
        values = [value for _, value in found.items() if isinstance(value, str)]
        return self._matcher.count(values, wanted)

    @shtcv.bind
    def bind_shtcv(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("shtrecord")
    def shtrecord(self, packet: Packet, part: str) -> Value:
        """`key` or `value` of the item that event_route[htable:expired:…] is run for."""
        record = self._record
        if record is None:
            return None
        return record[0] if part == "key" else record[1]

    @shtrecord.bind
    def bind_shtrecord(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        part = "" if argument is None else argument.constant
        if part not in ("key", "value"):
            raise ValueError("expected key or value")
        return (part,)

    # Functions on items

    @script_function
    def sht_rm_name_re(self, packet: Packet, items: str) -> int:
        """Remove the keys that match: `table=>expression`, a dollar written `$$`."""
        table, pattern = self._table_and_pattern(items)
        if pattern is None:
            return -1
        for key in table.keys() if table is not None else ():
            if pattern.search(key):
                table.remove(key)
        return 1

    @script_function
    def sht_rm_value_re(self, packet: Packet, items: str) -> int:
        """Remove the keys whose value is text and matches: `table=>expression`."""
        table, pattern = self._table_and_pattern(items)
        if pattern is None:
            return -1
        for key, value in table.items() if table is not None else ():
            if isinstance(value, str) and pattern.search(value):
                table.remove(key)
        return 1

    @script_function
    def sht_rm(self, packet: Packet, table: str, key: str) -> bool:
        """Remove a key; false when there is no such table."""
        found = self.tables.get(table)
        if found is not None:
            found.remove(key)
        return found is not None

    @script_function
    def sht_rm_name(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """Remove the keys that match: operator re, sw (begins), ew (ends) or in (contains)."""
        return self._remove_matching(table, operator, text, lambda key, value: key)

    @script_function
    def sht_rm_value(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """Remove the keys whose text value matches."""
        return self._remove_matching(table, operator, text, _text_value)

    @script_function
    def sht_match_name(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """Whether a key matches: operator eq, ne, re, sw, ew or in."""
        return self._has_matching(table, operator, text, lambda key, value: key)

    @script_function
    def sht_has_name(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """As sht_match_name."""
        return self._has_matching(table, operator, text, lambda key, value: key)

    @script_function
    def sht_match_str_value(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """Whether a text value matches."""
        return self._has_matching(table, operator, text, _text_value)

    @script_function
    def sht_has_str_value(self, packet: Packet, table: str, operator: str, text: str) -> bool:
        """As sht_match_str_value."""
        return self._has_matching(table, operator, text, _text_value)

    @script_function
    def sht_is_null(self, packet: Packet, table: str, key: str) -> int:
        """1 when the key is missing, -1 when it is there, -2 when there is no such table."""
        found = self.tables.get(table)
        if found is None:
            return -2
        return -1 if key in found else 1

    @script_function
    def sht_setxs(self, packet: Packet, table: str, key: str, value: str, seconds: int) -> bool:
        """Set a key to a text that lives *seconds*, 0 for as long as the table's own rule."""
        return self._set_for(table, key, value, seconds)

    @script_function
    def sht_setxi(self, packet: Packet, table: str, key: str, value: int, seconds: int) -> bool:
        """Set a key to a number that lives *seconds*."""
        return self._set_for(table, key, value, seconds)

    @script_function
    def sht_inc(self, packet: Packet, table: str, key: str) -> int:
        """Add 1; the sum, -1 when there is no number."""
        return self._add(table, key, 1) or -1

    @script_function
    def sht_dec(self, packet: Packet, table: str, key: str) -> int:
        """Subtract 1; the difference, -1 when there is no number."""
        return self._add(table, key, -1) or -1

    @script_function
    def sht_reset(self, packet: Packet, table: str) -> bool:
        """Empty a table; false when there is no such table."""
        found = self.tables.get(table)
        if found is not None:
            found.clear()
        return found is not None

    @script_function
    def sht_lock(self, packet: Packet, item: str) -> None:
        """Accepted: a packet runs through the script alone."""

    @script_function
    def sht_unlock(self, packet: Packet, item: str) -> None:
        """Accepted."""

    @script_function
    def sht_print(self, packet: Packet) -> None:
        """Log every item at level debug."""
        for name, table in self.tables.items():
            for key, value in table.items():
                packet.log(3, f"htable {name}=>{key} = {value}\n")

    def _look_for_expired(self) -> None:
        """Purge from time to time once there is a table whose keys expire."""
        if self._looking or self._worker is None:
            return
        if any(table.expire_seconds for table in self.tables.values()):
            self._looking = True
            self._worker.every(max(1, self.timer_interval), self.purge)

    def _lost(self, table: str) -> None:
        """Count a write to a table that is not defined; say so once a second at most."""
        self.failed_writes += 1
        now = monotonic()
        if now - self._said >= 1.0:
            self._said = now
            log.warning(
                "htable write lost table=%r count=%d remedy=%r",
                table[:80],
                self.failed_writes,
                f'modparam("htable", "htable", "{table[:80]}=>size=8")',
            )

    def _now(self) -> float:
        return self._clock()

    def _bind(self, argument: Text | None) -> tuple[object, ...]:
        """`table=>key`: the table's name is constant, the key may hold pseudo-variables."""
        if argument is None:
            raise ValueError("expected table=>key in parentheses")
        head, found, key = argument.partition("=>")
        table = head.strip().constant
        if not found or not table:
            raise ValueError(f'expected table=>key, got "{argument.source}"')
        if key.source == "":
            raise ValueError(f'expected table=>key, the key of "{argument.source}" is empty')
        self._mentioned.add(table)
        return (table, key if key.constant is None else key.constant)

    def _add(self, table: str, key: str, amount: int) -> int | None:
        found = self.tables.get(table)
        if found is None:
            return None
        value = found.get(key, found.initial)
        if not isinstance(value, int):
            return None
        found.put(key, value + amount)
        return value + amount

    def _set_for(self, table: str, key: str, value: str | int, seconds: int) -> bool:
        found = self.tables.get(table)
        if found is None:
            self._lost(table)
            return False
        found.put(key, value, seconds if seconds > 0 and found.expire_seconds else None)
        return True

    def _table_and_pattern(self, items: str) -> tuple[HashTable | None, PosixPattern | None]:
        name, arrow, expression = items.partition("=>")
        if not arrow:
            return None, None
        return self.tables.get(name.strip()), self._matcher.pattern(expression)

    def _matching(
        self, table: str, operator: str, text: str, part: Callable[[str, str | int], str | None]
    ) -> list[str] | None:
        """The keys of a table whose *part* passes the test; None when there is no such table."""
        found = self.tables.get(table)
        test = self._matcher.test(operator, text)
        if found is None or test is None:
            return None
        pairs = ((key, part(key, value)) for key, value in found.items())
        return [key for key, tested in pairs if tested is not None and test(tested)]

    def _has_matching(
        self, table: str, operator: str, text: str, part: Callable[[str, str | int], str | None]
    ) -> bool:
        return bool(self._matching(table, operator, text, part))

    def _remove_matching(
        self, table: str, operator: str, text: str, part: Callable[[str, str | int], str | None]
    ) -> bool:
        keys = self._matching(table, operator, text, part)
        if keys is None:
            return False
        for key in keys:
            self.tables[table].remove(key)
        return True


def _text_value(key: str, value: str | int) -> str | None:
    return value if isinstance(value, str) else None


def _as_int(value: Value) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0
