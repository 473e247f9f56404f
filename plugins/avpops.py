"""avpops: tests and changes of AVPs, and SQL into them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from homerd.api import (
    ModParam,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    PosixPattern,
    Readable,
    ScriptFunction,
    Substitution,
    Value,
    Worker,
    Writable,
    compile_posix,
    hookimpl,
    script_function,
)
from homerd_plugins import _accepted, _avps
from homerd_plugins._sql import Database, is_query
from homerd_plugins._stores import Address
from homerd_plugins._targets import Targets, store_rows

DEBUG = 3
FOUND, FAILED, EMPTY = 1, -1, -2
MOST_PATTERNS = 256

_AVP = re.compile(r"\$(?:\((?=.*\))avp\(([^()$]+)\)(?:\[\*\])?\)|avp\(([^()$]+)\))")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_NO_OPERATIONS = (
    "avp_db_load/2=-1 avp_db_store/2=-1 avp_db_delete/2=-1 avp_pushto/2 avp_insert/3=-1"
    " avp_subst_pv/2=-1"
)

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: _divided(a, b)[0],
    "mod": lambda a, b: _divided(a, b)[1],
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a, b: ~a,
    "neg": lambda a, b: -a,
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda a, b: bool(a & b),
    "or": lambda a, b: bool(a | b),
    "xor": lambda a, b: bool(a ^ b),
}
_TESTS = frozenset({*_COMPARISONS, "re", "fm"})


@dataclass(frozen=True, slots=True)
class Pair:
    """`$avp(source)[/$avp(target)][/flags]`: names of AVPs; the target is the source by default."""

    source: str
    target: str
    flags: frozenset[str] = frozenset()

    @staticmethod
    def from_script(value: str | int) -> Pair:
        names: list[str] = []
        flags = ""
        for piece in str(value).split("/"):
            found = _AVP.fullmatch(piece.strip())
            if found is not None and not flags and len(names) < 2:
                names.append((found[1] or found[2]).strip().removeprefix("s:"))
            elif names and piece.strip().isalpha():
                flags = piece.strip()
            else:
                raise ValueError(f'expected $avp(name) or $avp(name)/$avp(target), got "{value}"')
        return Pair(names[0], names[-1], frozenset(flags))


class Url:
    """A database's address."""

    @staticmethod
    def from_script(value: str | int) -> Address:
        return Address.of_script(str(value))


class AvpOps(Plugin):
    """Tests and changes of AVPs."""

    name = "avpops"

    db_url = ModParam(Url, None, help="database of avp_db_query: driver://user:password@host/name")
    timeout = ModParam(
        float, 0.5, help="longest time, in seconds, that a packet waits for a result"
    )
    avp_table = ModParam(str, "", help="accepted")
    use_domain = ModParam(int, 0, help="accepted")
    uuid_column = ModParam(str, "", help="accepted")
    attribute_column = ModParam(str, "", help="accepted")
    value_column = ModParam(str, "", help="accepted")
    type_column = ModParam(str, "", help="accepted")
    username_column = ModParam(str, "", help="accepted")
    domain_column = ModParam(str, "", help="accepted")
    db_scheme = ModParam(str, "", many=True, help="accepted")

    @property
    def waits_seconds(self) -> float:
        """How long a packet waits at most, as its parameters say."""
        return self.timeout

    def __init__(self) -> None:
        self.database: Database | None = None
        self._patterns: dict[str, PosixPattern | None] = {}
        self.words = (*self._functions(), *_accepted.functions(_NO_OPERATIONS, self.name))

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Know the database."""
        if self.db_url is not None and self.database is None:
            self.database = Database(self.name, self.db_url, self.timeout)

    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Start its writer."""
        if self.database is not None:
            self.database.start(worker)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Let go of its connection for questions."""
        if self.database is not None:
            self.database.stop()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Questions to the database."""
        return self.database.metrics() if self.database is not None else []

    @script_function
    def avp_print(self, packet: Packet) -> None:
        """Log all AVPs at level debug."""
        for name, values in packet.scratch.get("avp", {}).items():
            packet.log(DEBUG, f"avp {name}: {', '.join(map(str, reversed(values)))}\n")

    def _is_set(self, packet: Packet, variable: Readable) -> bool:
        value = variable.get(packet)
        match variable.text[-2:]:
            case "/s":
                return isinstance(value, str)
            case "/n":
                return isinstance(value, int)
            case "/e":
                return value == ""
        return value is not None

    def _delete(self, packet: Packet, variable: Writable) -> None:
        if not variable.text.endswith("/g"):
            variable.set(packet, None)
            return
        while variable.get(packet) is not None:
            before = variable.get(packet)
            variable.set(packet, None)
            if variable.get(packet) == before == 0:
                return  # $var, which is never null

    def _check(self, packet: Packet, variable: Readable, test: str) -> bool:
        operator, _, rest = test.partition("/")
        wanted, any_case, every = _flags(rest)
        found: list[str | int] = []
        name = _AVP.match(variable.text) if every else None
        if name is not None:
            key = (name[1] or name[2]).strip().removeprefix("s:")
            found = list(reversed(_avps.stacks_of(packet).get(key, [])))
        else:
            value = variable.get(packet)
            found = [] if value is None else [value]
        return any(self._holds(operator, value, wanted, any_case) for value in found)

    def _holds(self, operator: str, value: str | int, wanted: str, any_case: bool) -> bool:
        kind, colon, rest = wanted.partition(":")
        if colon and kind in ("i", "s"):
            wanted = rest
        if operator == "re":
            pattern = self._pattern(wanted)
            return pattern is not None and pattern.search(str(value))
        text = str(value)
        if any_case:
            text, wanted = text.lower(), wanted.lower()
        if operator == "fm":
            return fnmatch.fnmatchcase(text, wanted)
        compare = _COMPARISONS.get(operator)
        if compare is None:
            return False
        if isinstance(value, int) or operator in ("and", "or", "xor"):
            return compare(_int(value), _int(wanted))
        if operator in ("eq", "ne"):
            return (text == wanted) is (operator == "eq")
        if _NUMBER.fullmatch(text) and _NUMBER.fullmatch(wanted):
            return compare(int(text), int(wanted))
        return compare((text > wanted) - (text < wanted), 0)

    def _copy(self, packet: Packet, source: Pair, target: Pair) -> int:
        stacks = _avps.stacks_of(packet)
        stack = stacks.get(source.source)
        if not stack:
            return FAILED
        values = stack[::-1] if "g" in target.flags else [stack[-1]]
        if "d" in target.flags:
            del stack[-len(values) :]
        for value in values:
            _avps.write(stacks, _as_kind(value, target.flags), target.source, None)
        return FOUND

    def _subst(self, packet: Packet, pair: Pair, change: Substitution) -> int:
        stacks = _avps.stacks_of(packet)
        stack = stacks.get(pair.source, [])
        done = FAILED
        for place in range(len(stack) - 1, -1, -1):
            before = str(stack[place])
            after = change.apply(before)
            if after == before:
                continue
            done = FOUND
            if pair.target != pair.source:
                _avps.write(stacks, after, pair.target, None)
                if "d" in pair.flags:
                    del stack[place]
            else:
                stack[place] = after
            if "g" not in pair.flags:
                break
        return done

    def _operate(self, packet: Packet, pair: Pair, operation: str) -> int:
        operator, _, rest = operation.partition("/")
        operand, _, _ = _flags(rest)
        operand = operand.removeprefix("i:")
        stacks = _avps.stacks_of(packet)
        call = _OPERATIONS.get(operator)
        numbers = [value for value in stacks.get(pair.source, []) if isinstance(value, int)]
        if call is None or not numbers:
            return FAILED
        if _NUMBER.fullmatch(operand) is None and operator not in ("not", "neg"):
            return FAILED
        if "d" in pair.flags:
            stacks[pair.source] = [v for v in stacks[pair.source] if not isinstance(v, int)]
        # Kamailio goes through all numbers from the newest on, and pushes each result.
        for number in reversed(numbers):
            _avps.write(stacks, call(number, _int(operand)), pair.target, None)
        return FOUND

    def _query(self, packet: Packet, text: str, targets: Targets | None = None) -> int:
        if self.database is None:
            return FAILED
        if targets is None and not is_query(text):
            return FOUND if self.database.queue(packet, text) else FAILED
        answer = self.database.ask(packet, text)
        if answer is None:
            return FAILED
        if not answer.rows:
            return EMPTY
        if targets is None:
            stacks = _avps.stacks_of(packet)
            for row in reversed(answer.rows):
                for number, value in enumerate(row, 1):
                    _avps.write(stacks, value, str(number), None)
        else:
            store_rows(packet, answer, targets)
        return FOUND

    def _functions(self) -> Iterable[ScriptFunction]:
        constant, text = ParameterKind.CONSTANT, ParameterKind.TEXT
        pair = Parameter("avp", constant, convert=Pair.from_script)
        query = Parameter("query", text)

        def function(
            name: str, call: Callable[..., object], help: str, *items: Parameter
        ) -> ScriptFunction:
            return ScriptFunction(name, call, items, module="avpops", help=help)  # type: ignore[arg-type]

        yield function(
            "is_avp_set",
            self._is_set,
            "Whether the variable has a value; the empty text is one. Behind it `/s` asks for text,"
            " `/n` for a number, `/e` for the empty text.",
            Parameter("variable", ParameterKind.READABLE, choices=("/s", "/n", "/e")),
        )
        yield function(
            "avp_delete",
            self._delete,
            "Take the newest value away, with `/g` behind the variable all.",
            Parameter("variable", ParameterKind.WRITABLE, choices=("/g",)),
        )
        yield function(
            "avp_check",
            self._check,
            "Compare with `eq/…`, `ne/…`, `lt/…`, `le/…`, `gt/…`, `ge/…`, `re/…` (a regular"
            " expression), `fm/…` (a shell pattern), `and/…`, `or/…`, `xor/…` (bits); `i:5` is a"
            " number, `/i` at the end is any case, `/g` any value of an AVP.",
            Parameter("variable", ParameterKind.READABLE),
            Parameter("test", text),
        )
        yield function(
            "avp_copy",
            self._copy,
            "Copy the newest value; flags behind the target: g all values, d moves them, n makes"
            " them numbers, s text. -1 without a value.",
            pair,
            Parameter("target", constant, convert=Pair.from_script),
        )
        yield function(
            "avp_subst",
            self._subst,
            "Substitute in the newest value that matches, or put the result into another:"
            " `$avp(a)[/$avp(b)][/g]`, g all values. -1 when none matches.",
            pair,
            Parameter("substitution", constant, convert=_substitution),
        )
        yield function(
            "avp_op",
            self._operate,
            "Calculate with each number and push the results, that of the oldest last: `add/5`,"
            " `sub`, `mul`, `div`, `mod`, `and`, `or`, `xor`, `not`, `neg`;"
            " `$avp(a)[/$avp(b)][/d]`, d takes the old numbers away. -1 without a number.",
            pair,
            Parameter("operation", text),
        )
        yield function(
            "avp_db_query",
            self._query,
            "Carry out a statement in db_url; nothing waits for one that is no SELECT. The columns"
            " of a SELECT go to `$avp(1)`, `$avp(2)` …: the packet waits for it, `timeout` seconds"
            " at most. 1, -1 when it failed, -2 without rows.",
            query,
        )
        yield function(
            "avp_db_query",
            self._query,
            'Carry out a statement and put its columns into `"$avp(a);$avp(b)"`, the first row on'
            " top. The packet waits for it, `timeout` seconds at most. 1, -1 when it failed, -2"
            " without rows.",
            query,
            Parameter("targets", constant, convert=Targets.from_script),
        )

    def _pattern(self, expression: str) -> PosixPattern | None:
        """A compiled expression, remembered; None for a bad one."""
        known = self._patterns
        if expression not in known:
            if len(known) >= MOST_PATTERNS:
                known.clear()
            try:
                known[expression] = compile_posix(expression)
            except ValueError:
                known[expression] = None
        return known[expression]


def _substitution(value: str | int) -> Substitution:
    return Substitution(str(value))


def _flags(text: str) -> tuple[str, bool, bool]:
    """A value without the `/g` and `/i` at its end, and whether they stood there."""
    value, slash, flags = text.rpartition("/")
    if slash and flags and not set(flags) - {"g", "i", "G", "I"}:
        return value, "i" in flags.lower(), "g" in flags.lower()
    return text, False, False


def _as_kind(value: str | int, flags: frozenset[str]) -> str | int:
    if "n" in flags:
        return _int(value)
    return str(value) if "s" in flags else value


def _int(value: Value) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _divided(a: int, b: int) -> tuple[int, int]:
    """Quotient towards zero and its rest; 0 by 0."""
    if b == 0:
        return 0, 0
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient, a - quotient * b
