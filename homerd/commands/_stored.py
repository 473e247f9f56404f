"""Stored SIP messages, read back from every store that the script names.

The module sipcapture knows where the stores are and how they are read.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from homerd.commands._message import Message
from homerd.commands._shown import printable
from homerd.errors import ConfigError

MICROS = 1_000_000
MOST_LEGS = 64
MOST_OF_A_CALL = 10_000
# Legs of a call begin and end this near to one another.
NEAR = 600 * MICROS

# A part of a message, values of which it has one, whether they are beginnings.
Key = tuple[str, Sequence[str], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for; None or empty for what does not matter.

    keys: of which all must hold.  since, until: microseconds since 1970; the second is not part of
    it.
    """

    keys: tuple[Key, ...] = ()
    since: int | None = None
    until: int | None = None
    limit: int = MOST_OF_A_CALL


class Reader(Protocol):
    """What sipcapture gives for each database."""

    where: str
    source: str
    tables: Sequence[object]

    def open(self) -> None:
        """Connect; raises ConfigError."""

    def close(self) -> None:
        """Let go of the connection."""

    def search(
        self,
        keys: Sequence[Key],
        since: int | None,
        until: int | None,
        limit: int,
        *,
        by_index: bool = False,
    ) -> list[dict[str, Any]]:
        """The newest messages that fit, in the order of time; raises ConfigError."""


class Stores:
    """The stores that answer; one that does not is told of and left out.

    status: the command's exit status.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = list(readers)
        self.status = 0

    @property
    def places(self) -> str:
        """The stores, for messages."""
        return ", ".join(printable(reader.where) for reader in self.readers)

    def search(self, wanted: Wanted, *, by_index: bool = False) -> list[Message]:
        """The newest messages that fit, in the order of time; one in several stores comes once."""
        found = Found()
        for reader in list(self.readers):
            found.add(self._ask(reader, wanted, by_index))
        return found.messages[-wanted.limit :]

    def call(self, call_id: str, since: int | None = None, until: int | None = None) -> Call:
        """The call's messages and those of its related legs, in the order of time.

        Legs are related when one names the other's Call-ID in callid_aleg or correlation_id.
        """
        call = Call(call_id)
        call.add(self.search(Wanted((("callid", [call_id], False),), since, until)))
        if not call.messages:
            for part in ("callid_aleg", "correlation_id"):
                wanted = Wanted(((part, [call_id], False),), since, until)
                call.add(self.search(wanted, by_index=True))
        asked: set[str] = set()
        while not call.is_cut and (names := call.names - asked) and len(asked) < MOST_LEGS:
            chosen = sorted(names)[: MOST_LEGS - len(asked)]
            asked.update(chosen)
            near = call.near(since, until)
            for part in ("callid", "callid_aleg", "correlation_id"):
                call.add(self.search(Wanted(((part, chosen, False),), *near)))
        call.places, call.status = self.places, self.status
        return call

    def open(self) -> None:
        """Connect to all; raises ConfigError when there is nothing to read in any."""
        for reader in list(self.readers):
            try:
                reader.open()
            except ConfigError as error:
                self._leave_out(reader, error)
        if self.readers and not any(reader.tables for reader in self.readers):
            raise ConfigError(f"{self.places}: no table of SIP messages that may be read")

    def _ask(self, reader: Reader, wanted: Wanted, by_index: bool) -> list[Message]:
        times = wanted.since, wanted.until
        try:
            found = reader.search(wanted.keys, *times, wanted.limit, by_index=by_index)
        except ConfigError as error:
            self._leave_out(reader, error)
            return []
        return [Message.of(cells, reader.where) for cells in found]

    def _leave_out(self, reader: Reader, error: ConfigError) -> None:
        print(f"homerd: {printable(str(error))}", file=sys.stderr)
        self.status = 1
        self.readers.remove(reader)
        reader.close()


class Found:
    """Messages, each once: neither twice from one row, nor from two stores that both have it."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int], Message] = {}
        self._stores: dict[tuple[object, ...], str] = {}

    @property
    def messages(self) -> list[Message]:
        """All, in the order of time."""
        return sorted(self._rows.values(), key=lambda each: (each.micro_ts, each.id))

    def add(self, messages: Iterable[Message]) -> None:
        """Take what was found."""
        for each in messages:
            if self._stores.setdefault(each.identity, each.store) == each.store:
                self._rows[each.store, each.table, each.id] = each


class Call(Found):
    """Messages of one call.

    is_cut: whether there are more of them.  has_quality: whether there are reports of its quality.
    places: the stores that answered.  status: the command's exit status.
    """

    def __init__(self, call_id: str) -> None:
        super().__init__()
        self.call_id = call_id
        self.is_cut = self.has_quality = False
        self.places = ""
        self.status = 0

    @property
    def messages(self) -> list[Message]:
        """The newest when there are too many, in the order of time."""
        return super().messages[-MOST_OF_A_CALL:]

    @property
    def names(self) -> set[str]:
        """The Call-IDs of its legs, and what may be one; none where there are no messages."""
        parts = ((each.callid, each.callid_aleg, each.correlation_id) for each in self.messages)
        return set().union(*parts) - {""}

    def near(self, since: int | None, until: int | None) -> tuple[int, int]:
        """The times between which its other legs are, within those that are asked for."""
        messages = self.messages
        first, last = messages[0].micro_ts - NEAR, messages[-1].micro_ts + NEAR
        return max(first, since or first), min(last, until or last)

    def remarks(self) -> Iterator[str]:
        """What is to be said beside the messages."""
        if not self.messages and self.places:
            yield f"no message of {printable(self.call_id)} in {self.places}"
        if self.is_cut:
            yield f"the newest {MOST_OF_A_CALL} messages; --since and --until choose others"
        if self.has_quality:
            yield f"quality: homerd qos {printable(shlex.quote(self.call_id))}"

    def add(self, messages: Iterable[Message]) -> None:
        """Take what was found."""
        found = list(messages)
        super().add(found)
        self.is_cut |= len(found) >= MOST_OF_A_CALL or len(self._rows) > MOST_OF_A_CALL
