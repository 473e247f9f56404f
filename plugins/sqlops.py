"""sqlops: SQL from the script.

A statement whose result nobody asks for is queued and carried out in order by a thread of its own:
the packet never waits for it.  A statement with a result is carried out after those that wait, and
the packet, with all behind it, waits for the answer: `timeout` seconds at most.  When a wait was in
vain, questions fail at once for ten times as long.

Text written for MySQL works on every store: it is translated, once for each shape of statement.
Literals are escaped anew for the store; what a value from the network may do to the text is up to
the script: put it in as `$(var(x){sql.val})`.
"""

from __future__ import annotations

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
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
    transformation,
)
from homerd_plugins import _avps
from homerd_plugins._sql import Database, literal
from homerd_plugins._sqlstores import Answer
from homerd_plugins._stores import Address
from homerd_plugins._targets import Targets, store_rows

ROWS, NO_ROWS, FAILED = 1, 2, -1
_EMPTY = Answer()


@dataclass(frozen=True, slots=True)
class Connection:
    """`NAME=>driver://user:password@host/database`."""

    name: str
    address: Address

    @staticmethod
    def from_script(value: str | int) -> Connection:
        name, arrow, url = str(value).partition("=>")
        if not arrow or not name.strip():
            raise ValueError(f'expected NAME=>driver://user:password@host/database, got "{value}"')
        return Connection(name.strip(), Address.of_script(url))


class SqlOps(Plugin):
    """SQL from the script."""

    name = "sqlops"

    sqlcon = ModParam(
        Connection,
        many=True,
        help="a database: NAME=>driver://user:password@host[:port]/database, driver mysql,"
        " postgres or sqlite (sqlite:///path); HOMERD_DB in the environment may name another store",
    )
    timeout = ModParam(
        float, 0.5, help="longest time, in seconds, that a packet waits for a result"
    )
    sqlres = ModParam(str, "", many=True, help="accepted: results need no declaration")
    tr_buf_size = ModParam(int, 2048, help="accepted: text has no limit")
    log_buf_size = ModParam(int, 128, help="accepted")
    connect_mode = ModParam(
        int, 0, help="accepted: a database that is away does not stop the start"
    )
    results_maxsize = ModParam(int, 32, help="accepted: results have no limit")

    @property
    def waits_seconds(self) -> float:
        """How long a packet waits at most, as its parameters say."""
        return self.timeout

    def __init__(self) -> None:
        self.databases: dict[str, Database] = {}
        self.results: dict[str, Answer] = {}
        self._affected: dict[str, int] = {}
        self._addresses: dict[str, Address] = {}
        self.words = tuple(self._functions())

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; a connection defined twice is a ValueError."""
        super().set_mod_param(name, value)
        if isinstance(value, Connection):
            if value.name in self._addresses:
                raise ValueError(f'the connection "{value.name}" is defined already')
            self._addresses[value.name] = value.address

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the time a packet may wait; know the databases."""
        if not self.timeout > 0:
            raise ConfigError(
                f'modparam("sqlops", "timeout", "{self.timeout}"): expected seconds above 0'
            )
        for name, address in self._addresses.items():
            if name not in self.databases:
                self.databases[name] = Database(f"sqlops:{name}", address, self.timeout)

    # Before the modules whose event routes may want a result at start.
    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Start the writers."""
        for database in self.databases.values():
            database.start(worker)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Let go of the connections for questions."""
        for database in self.databases.values():
            database.stop()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Questions of each connection, what failed and how long they took."""
        for database in self.databases.values():
            yield from database.metrics()

    # $dbr, $sqlrows, {sql.…}

    @pseudo_variable("dbr")
    def dbr(self, packet: Packet, name: str, what: str, row: object, column: object) -> Value:
        """Part of a result: `result=>rows`, `=>cols`, `=>[row,column]`, `=>colname[column]`.

        Rows and columns count from 0.  Null for what is null in the database or out of range, 0
        rows and columns for a result that failed, was freed or never was.
        """
        answer = self.results.get(name, _EMPTY)
        if what == "rows":
            return len(answer.rows)
        if what == "cols":
            return len(answer.columns)
        at_column = _number(column)
        if at_column is None or at_column >= len(answer.columns):
            return None
        if what == "colname":
            return answer.columns[at_column]
        at_row = _number(row)
        if at_row is None or at_row >= len(answer.rows):
            return None
        return answer.rows[at_row][at_column]

    @dbr.bind
    def bind_dbr(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None:
            raise ValueError("expected result=>rows, =>cols, =>[row,column] or =>colname[column]")
        head, arrow, key = argument.partition("=>")
        name = head.strip().constant
        if not arrow or not name:
            raise ValueError(f'expected result=>[row,column], got "{argument.source}"')
        key = key.strip()
        if key.constant in ("rows", "cols"):
            return (name, key.constant, 0, 0)
        what, opened, inside = key.partition("[")
        inside, closed, rest = inside.partition("]")
        kind = what.strip().constant
        if not opened or not closed or rest.strip().source or kind not in ("", "colname"):
            raise ValueError(
                f'expected rows, cols, [row,column] or colname[column], got "{key.source}"'
            )
        if kind == "colname":
            return (name, "colname", 0, _place(inside))
        row, comma, column = inside.partition(",")
        if not comma:
            raise ValueError(f'expected [row,column], got "{key.source}"')
        return (name, "cell", _place(row), _place(column))

    @pseudo_variable("sqlrows")
    def sqlrows(self, packet: Packet, name: str) -> int | None:
        """Rows that the last statement of a connection changed; of those with a result only."""
        return self._affected.get(name)

    @sqlrows.bind
    def bind_sqlrows(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None or argument.constant is None:
            raise ValueError("expected a connection's name in parentheses")
        return (self._connection(argument.constant.strip()),)

    @transformation("sql.val", takes_any=True)
    def sql_val(self, value: Value) -> str:
        """A literal of SQL: text escaped and in quotes, a number as it is, NULL for null."""
        return literal(value)

    @transformation("sql.val.int", takes_any=True)
    def sql_val_int(self, value: Value) -> str:
        """As sql.val, 0 for null."""
        return "0" if value is None else literal(value)

    @transformation("sql.val.str", takes_any=True)
    def sql_val_str(self, value: Value) -> str:
        """As sql.val, '' for null."""
        return "''" if value is None else literal(value)

    # Functions

    def sql_query(self, packet: Packet, name: str, text: str, result: str = "") -> int:
        """See _functions."""
        if not result:
            return NO_ROWS if self.databases[name].queue(packet, text) else FAILED
        answer = self._ask(packet, name, text)
        self.results[result] = answer or _EMPTY
        return _code(answer)

    def sql_query_async(self, packet: Packet, name: str, text: str) -> int:
        """See _functions."""
        return 1 if self.databases[name].queue(packet, text) else FAILED

    def sql_xquery(self, packet: Packet, name: str, text: str, root: str) -> int:
        """See _functions."""
        answer = self._ask(packet, name, text)
        roots = _avps.roots_of(packet, "xavp")
        roots.pop(root, None)
        if answer is not None and answer.rows:
            roots[root] = [
                {
                    column: [value]
                    for column, value in zip(answer.columns, row, strict=True)
                    if value is not None
                }
                for row in reversed(answer.rows)
            ]
        return _code(answer)

    def sql_pvquery(self, packet: Packet, name: str, text: str, targets: Targets) -> int:
        """See _functions."""
        answer = self._ask(packet, name, text)
        if answer is not None and answer.rows:
            store_rows(packet, answer, targets)
        return _code(answer)

    def sql_result_free(self, packet: Packet, result: str) -> None:
        """See _functions."""
        self.results.pop(result, None)

    def _ask(self, packet: Packet, name: str, text: str) -> Answer | None:
        answer = self.databases[name].ask(packet, text)
        if answer is not None:
            self._affected[name] = answer.affected
        return answer

    def _functions(self) -> Iterable[ScriptFunction]:
        connection = Parameter("connection", ParameterKind.CONSTANT, convert=self._connection)
        query = Parameter("query", ParameterKind.TEXT)
        result = Parameter("result", ParameterKind.CONSTANT, convert=str)
        asks = (
            " The packet waits for it, `timeout` seconds at most; 1 with rows, 2 without, -1 when"
            " it failed."
        )
        yield ScriptFunction(
            "sql_query",
            self.sql_query,
            (connection, query),
            module=self.name,
            help="Queue a statement; nothing waits for it. 2.",
        )
        yield ScriptFunction(
            "sql_query",
            self.sql_query,
            (connection, query, result),
            module=self.name,
            help="Carry out a statement and keep its rows as `$dbr(result=>…)`." + asks,
        )
        yield ScriptFunction(
            "sql_query_async",
            self.sql_query_async,
            (connection, query),
            module=self.name,
            help="Queue a statement; nothing waits for it. 1.",
        )
        yield ScriptFunction(
            "sql_xquery",
            self.sql_xquery,
            (connection, query, result),
            module=self.name,
            help="Carry out a statement and keep its rows as `$xavp(result[i]=>column)`." + asks,
        )
        yield ScriptFunction(
            "sql_pvquery",
            self.sql_pvquery,
            (
                connection,
                query,
                Parameter("targets", ParameterKind.CONSTANT, convert=Targets.from_script),
            ),
            module=self.name,
            help='Carry out a statement and put the columns of its first row into `"$var(a),'
            '$avp(b)"`; AVPs get those of all rows, the first on top.' + asks,
        )
        yield ScriptFunction(
            "sql_result_free",
            self.sql_result_free,
            (result,),
            returns_none=True,
            module=self.name,
            help="Forget a result.",
        )

    def _connection(self, value: str | int) -> str:
        name = str(value)
        if name not in self._addresses:
            known = ", ".join(self._addresses)
            raise ValueError(
                f'unknown connection "{name}"'
                + (
                    f", expected {known}"
                    if known
                    else ': modparam("sqlops", "sqlcon", …) is missing'
                )
            )
        return name


def _code(answer: Answer | None) -> int:
    if answer is None:
        return FAILED
    return ROWS if answer.rows else NO_ROWS


def _place(text: Text) -> object:
    """A row or column: a number, or a Text that gives one for each packet."""
    constant = text.strip().constant
    if constant is None:
        return text.strip()
    if not constant.isdecimal():
        raise ValueError(f'expected a number, got "{constant}"')
    return int(constant)


def _number(place: object) -> int | None:
    if isinstance(place, int):
        return place
    text = str(place).strip()
    return int(text) if text.isdecimal() else None
