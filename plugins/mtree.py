"""mtree: the longest prefix of a number, looked up in trees from a database.

Trees are read at the start, and again by mt_reload(): off the packet path, the old tree answering
until the new one is whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    ScriptFunction,
    Value,
    Worker,
    hookimpl,
)
from homerd_plugins._sql import read_all
from homerd_plugins._stores import Address
from homerd_plugins._targets import Target, target

log = logging.getLogger("homerd.mtree")

TEXT, NUMBERS = 0, 2
MOST_ROWS = 5_000_000
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Definition:
    """`name=T;dbtable=TABLE;type=0`."""

    name: str
    table: str
    numbers: bool = False

    @staticmethod
    def from_script(value: str | int) -> Definition:
        found: dict[str, str] = {}
        for piece in filter(str.strip, str(value).split(";")):
            key, _, text = (part.strip() for part in piece.partition("="))
            if key not in ("name", "dbtable", "type", "multi"):
                raise ValueError(f'unknown attribute "{key}", expected name, dbtable, type')
            found[key] = text
        if not found.get("name"):
            raise ValueError(f'name missing in "{value}"')
        kind = found.get("type", "0")
        if kind not in ("0", "1", "2"):
            raise ValueError(f'type is 0 (text) or 2 (numbers), not "{kind}"')
        return Definition(found["name"], found.get("dbtable", ""), kind == str(NUMBERS))


class Destination:
    """A variable, `$avp(name)` or `$var(name)`."""

    @staticmethod
    def from_script(value: str | int) -> Target:
        return target(str(value))


class Url:
    """The database's address."""

    @staticmethod
    def from_script(value: str | int) -> Address:
        return Address.of_script(str(value))


class Mtree(Plugin):
    """Longest prefixes from a database."""

    name = "mtree"

    db_url = ModParam(Url, None, help="the database: driver://user:password@host/database")
    db_table = ModParam(str, "", help="table of trees whose definition names none")
    tname_column = ModParam(str, "tname", help="column of the tree's name, in db_table")
    tprefix_column = ModParam(str, "tprefix", help="column of the prefix")
    tvalue_column = ModParam(str, "tvalue", help="column of the value")
    mtree = ModParam(
        Definition,
        many=True,
        help="a tree: name=T;dbtable=TABLE;type=0; type 2 has numbers as values",
    )
    pv_value = ModParam(
        Destination,
        target("$avp(s:tvalue)"),
        help="variable that the longest prefix's value goes to",
    )
    pv_values = ModParam(
        Destination,
        target("$avp(s:tvalues)"),
        help="AVP that the values of all prefixes go to, the longest's on top",
    )
    char_list = ModParam(str, "0123456789", help="characters of prefixes; others are left out")
    fetch_rows = ModParam(int, 1000, help="accepted")
    mt_tree_type = ModParam(int, 0, help="type of trees whose definition has none")
    mt_ignore_duplicates = ModParam(int, 0, help="accepted: the last value of a prefix counts")
    mt_allow_duplicates = ModParam(int, 0, help="accepted: the last value of a prefix counts")
    pv_dstid = ModParam(str, "", help="accepted")
    pv_weight = ModParam(str, "", help="accepted")

    def __init__(self) -> None:
        self.trees: dict[str, dict[str, Value]] = {}
        self.reloads_failed = 0
        self._reading = threading.Lock()
        tree = Parameter("tree", ParameterKind.TEXT)
        self.words = (
            ScriptFunction(
                "mt_match",
                self._match,
                (
                    tree,
                    Parameter("number", ParameterKind.TEXT),
                    Parameter("mode", ParameterKind.NUMBER),
                ),
                module=self.name,
                help="Look *number* up: the value of its longest prefix goes to pv_value, with mode"
                " 0 or 2 those of all its prefixes to pv_values too. -1 when there is none.",
            ),
            ScriptFunction(
                "mt_reload",
                self._reload,
                (tree,),
                module=self.name,
                help="Read a tree again; 1 at once, the new tree answers when it is there.",
            ),
        )

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check that each tree has a table."""
        for item in self.mtree:
            if not (item.table or self.db_table):
                raise ConfigError(
                    f'modparam("mtree", "mtree", "name={item.name}"): dbtable missing'
                )
        if self.mtree and self.db_url is None:
            raise ConfigError('modparam("mtree", "db_url", …) is missing')

    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Read the trees."""
        for item in self.mtree:
            try:
                self.trees[item.name] = self._read(item)
            except ConnectionError as error:
                raise ConfigError(f'tree "{item.name}": {error}') from error

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Prefixes of each tree."""
        for name, tree in self.trees.items():
            yield "homerd_mtree_prefixes", {"tree": name}, len(tree)
        yield "homerd_mtree_reloads_failed_total", {}, self.reloads_failed

    def _match(self, packet: Packet, name: str, number: str, mode: int) -> int:
        tree = self.trees.get(name)
        if tree is None:
            return -1
        digits = self._significant(number)
        found = [tree[digits[:end]] for end in range(1, len(digits) + 1) if digits[:end] in tree]
        if not found:
            return -1
        self.pv_value.set(packet, found[-1])
        if mode in (0, 2):
            for value in found:
                self.pv_values.set(packet, value)
        return 1

    def _reload(self, packet: Packet, name: str) -> int:
        item = next((item for item in self.mtree if item.name == name), None)
        if item is None:
            return -1
        threading.Thread(target=self._read_again, args=(item,), daemon=True).start()
        return 1

    def _read_again(self, item: Definition) -> None:
        if not self._reading.acquire(blocking=False):
            return
        try:
            self.trees[item.name] = self._read(item)
        except ConnectionError as error:
            self.reloads_failed += 1
            log.warning('tree not read tree=%s error="%s"', item.name, error)
        finally:
            self._reading.release()

    def _read(self, item: Definition) -> dict[str, Value]:
        """All prefixes of a tree; raises ConnectionError when the database does not give them."""
        text = (
            f"SELECT {self.tprefix_column}, {self.tvalue_column} FROM {item.table or self.db_table}"
        )
        if not item.table:
            text += f" WHERE {self.tname_column} = '{item.name}'"
        numbers = item.numbers or self.mt_tree_type == NUMBERS
        tree: dict[str, Value] = {}
        for prefix, value in read_all(self.db_url, text, CONNECT_SECONDS, MOST_ROWS):
            tree[str(prefix)] = _number(value) if numbers else value
        return tree

    def _significant(self, number: str) -> str:
        """The number, without a `+`, up to the first character that is in no prefix."""
        number = number.removeprefix("+") if "+" not in self.char_list else number
        for index, char in enumerate(number):
            if char not in self.char_list:
                return number[:index]
        return number


def _number(value: Value) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0
