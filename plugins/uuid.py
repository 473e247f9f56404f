"""uuid: universally unique identifiers."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from homerd.api import Packet, Plugin, Text, pseudo_variable

_MAKERS: dict[str, Callable[[], uuid.UUID]] = {
    "g": uuid.uuid4,
    "r": uuid.uuid4,
    "t": uuid.uuid1,
    "s": uuid.uuid1,
}


class Uuid(Plugin):
    """Universally unique identifiers."""

    name = "uuid"

    @pseudo_variable("uuid")
    def uuid(self, packet: Packet, make: Callable[[], uuid.UUID]) -> str:
        """A new identifier: `g` or `r` of random bits, `t` or `s` of the time."""
        return str(make())

    @uuid.bind
    def bind_uuid(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        kind = "g" if argument is None else argument.source.strip()
        if kind not in _MAKERS:
            raise ValueError(f'expected {", ".join(_MAKERS)}, got "{kind}"')
        return (_MAKERS[kind],)
