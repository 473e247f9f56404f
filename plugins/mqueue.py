"""mqueue: queues of keys and values, first in first out, between routes.

A queue is in memory and belongs to the worker.  What Kamailio keeps of it in a database is accepted
in its definition and has no effect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from homerd.api import (
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    ScriptFunction,
    Text,
    hookimpl,
    pseudo_variable,
)

KEEP_ALL, KEEP_OLDEST, KEEP_NEWEST = 0, 1, 2
NOT_DEFINED, EMPTY = -1, -2
_ATTRIBUTES = ("name", "size", "dbmode", "addmode")


@dataclass(frozen=True, slots=True)
class Definition:
    """`name=Q;size=N;addmode=0`."""

    name: str
    size: int = 0
    mode: int = KEEP_ALL

    @staticmethod
    def from_script(value: str | int) -> Definition:
        found: dict[str, str] = {}
        for piece in filter(str.strip, str(value).split(";")):
            key, _, text = (part.strip() for part in piece.partition("="))
            if key not in _ATTRIBUTES:
                raise ValueError(f'unknown attribute "{key}", expected {", ".join(_ATTRIBUTES)}')
            if key != "name" and not text.isdecimal():
                raise ValueError(f'{key} takes a number, got "{text}"')
            found[key] = text
        if not found.get("name"):
            raise ValueError(f'name missing in "{value}"')
        mode = int(found.get("addmode", "0"))
        if mode not in (KEEP_ALL, KEEP_OLDEST, KEEP_NEWEST):
            raise ValueError(f"addmode is 0, 1 or 2, not {mode}")
        return Definition(found["name"], int(found.get("size", "0")), mode)


class Queue:
    """A queue and the item that was fetched last.

    dropped: items that a full queue let go.
    """

    __slots__ = ("_items", "_keys", "definition", "dropped", "fetched")

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.fetched: tuple[str, str] | None = None
        self.dropped = 0
        self._items: deque[tuple[str, str]] = deque()
        self._keys: dict[str, str] = {}  # in place of _items where a key stands once

    def __len__(self) -> int:
        return len(self._items) + len(self._keys)

    def add(self, key: str, value: str) -> None:
        """Put an item at the end; a full queue drops its oldest."""
        mode = self.definition.mode
        if mode == KEEP_OLDEST and key in self._keys:
            return
        if mode == KEEP_ALL:
            self._items.append((key, value))
        else:
            self._keys.pop(key, None)
            self._keys[key] = value
        if 0 < self.definition.size < len(self):
            self._take()
            self.dropped += 1

    def fetch(self) -> bool:
        """Take the oldest item."""
        self.fetched = self._take() if len(self) else None
        return self.fetched is not None

    def _take(self) -> tuple[str, str]:
        if self._items:
            return self._items.popleft()
        key = next(iter(self._keys))
        return key, self._keys.pop(key)


class Mqueue(Plugin):
    """Queues between routes."""

    name = "mqueue"

    mqueue = ModParam(
        Definition,
        many=True,
        reloadable=True,
        help="a queue: name=Q;size=N;addmode=M; size 0 has no limit, else the oldest item is"
        " dropped; addmode 1 keeps the oldest item of a key, 2 the newest",
    )
    db_url = ModParam(str, "", help="accepted")
    mqueue_name = ModParam(str, "", help="accepted")

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self._undefined: dict[str, Queue] = {}
        name = Parameter("queue", ParameterKind.CONSTANT, convert=self._queue)
        text = ParameterKind.TEXT
        self.words = (
            ScriptFunction(
                "mq_add",
                self._add,
                (name, Parameter("key", text), Parameter("value", text)),
                module="mqueue",
                help="Put a key and a value at the end of *queue*; -1 when it is not defined.",
            ),
            ScriptFunction(
                "mq_fetch",
                self._fetch,
                (name,),
                module="mqueue",
                help="Take the oldest item of *queue* into `$mqk(queue)` and `$mqv(queue)`;"
                " -2, and both null, when it is empty, -1 when it is not defined.",
            ),
            ScriptFunction(
                "mq_pv_free",
                _free,
                (name,),
                returns_none=True,
                module="mqueue",
                help="Forget the item that was fetched last.",
            ),
            ScriptFunction(
                "mq_size",
                self._size,
                (name,),
                module="mqueue",
                help="How many items wait; -1 when it is empty, -2 when it is not defined.",
            ),
        )

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; a queue defined twice is a ValueError."""
        super().set_mod_param(name, value)
        if isinstance(value, Definition):
            if value.name in self.queues:
                raise ValueError(f'the queue "{value.name}" is defined already')
            # A script that replaces the running one is compiled before its parameters are set.
            queue = self._undefined.pop(value.name, None) or Queue(value)
            queue.definition = value
            self.queues[value.name] = queue

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Queues that are used but not defined."""
        for name in sorted(self._undefined):
            yield Problem(
                f'the queue "{name}" is not defined: what is added to it is lost',
                help=f'modparam("mqueue", "mqueue", "name={name};size=1000")',
                warning=True,
            )

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Items that wait in each queue, and those a full one dropped."""
        for name, queue in self.queues.items():
            yield "homerd_mqueue_items", {"queue": name}, len(queue)
            yield "homerd_mqueue_dropped_total", {"queue": name}, queue.dropped

    @pseudo_variable("mqk")
    def mqk(self, packet: Packet, queue: Queue) -> str | None:
        """Key of the item that was fetched last."""
        return queue.fetched[0] if queue.fetched is not None else None

    @mqk.bind
    def bind_mqk(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("mqv")
    def mqv(self, packet: Packet, queue: Queue) -> str | None:
        """Value of the item that was fetched last."""
        return queue.fetched[1] if queue.fetched is not None else None

    @mqv.bind
    def bind_mqv(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    @pseudo_variable("mq_size")
    def mq_size(self, packet: Packet, queue: Queue) -> int:
        """How many items wait."""
        return len(queue)

    @mq_size.bind
    def bind_mq_size(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return self._bind(argument)

    def _bind(self, argument: Text | None) -> tuple[object, ...]:
        if argument is None or argument.constant is None:
            raise ValueError("expected a queue's name in parentheses")
        return (self._queue(argument.constant.strip()),)

    def _queue(self, name: str | int) -> Queue:
        """The queue of that name; one that nothing is put into when it is not defined."""
        queue = self.queues.get(str(name))
        if queue is None:
            queue = self._undefined.setdefault(str(name), Queue(Definition(str(name))))
        return queue

    def _add(self, packet: Packet, queue: Queue, key: str, value: str) -> int:
        if queue.definition.name not in self.queues:
            return NOT_DEFINED
        queue.add(key, value)
        return 1

    def _fetch(self, packet: Packet, queue: Queue) -> int:
        if queue.fetch():
            return 1
        return EMPTY if queue.definition.name in self.queues else NOT_DEFINED

    def _size(self, packet: Packet, queue: Queue) -> int:
        if queue.definition.name not in self.queues:
            return -2
        return len(queue) or -1


def _free(packet: Packet, queue: Queue) -> None:
    queue.fetched = None
