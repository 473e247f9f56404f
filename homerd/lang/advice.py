"""What a script may do and most likely does not mean to: warnings about bound nodes.

Nothing here stops a script, and scripts of the usual kind pass without a word: a `$var` is told
of once, and only where nothing before it in the packet's way can have set it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from homerd.lang import nodes
from homerd.lang.binding import Argument
from homerd.lang.diagnostics import Diagnostics
from homerd.lang.text import Reference, Text
from homerd.lang.vocabulary import Kind

_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*|0[xX][0-9a-fA-F]+|")
_METHOD = re.compile(r"[A-Za-z]+")
_NAMED_VAR = re.compile(r"\$(?:var\(|\(var\()([^()]+)\)")

_QUERIES = frozenset(
    ("sql_query", "sql_xquery", "sql_pvquery", "sql_query_async", "avp_db_query")
)  # fmt: skip
_COMMANDS = frozenset(("exec_msg", "exec_avp", "exec_cmd", "exec_dset", "exec"))
# Text that whoever sends a message chooses; of an address or a method there is little choice.
_FROM_OUTSIDE = frozenset(
    ("hdr", "hfl", "rU", "fU", "tU", "ru", "fu", "tu", "ou", "oU", "fn", "tn", "ua", "ci", "ct",
     "cT", "rb", "mb", "mbu", "au", "aU", "ad", "ar", "adu", "rd", "fd", "td", "ft", "tt", "rr",
     "ai", "pu", "pU", "re", "di", "sel", "cs", "csb", "hep")
)  # fmt: skip
_HARMLESS = frozenset(
    ("s.escape.common", "sql.val", "sql.val.str", "sql.val.int", "s.int", "s.len", "s.md5",
     "s.sha256", "s.sha384", "s.sha512", "s.encode.hexa", "s.encode.base64", "s.escape.param",
     "s.escape.user", "s.escape.csv", "param.count", "param.in", "s.count")
)  # fmt: skip


class Adviser:
    """Looks through the blocks of a script that was checked.

    routes: `route[...]` by name.  called: those that route() names.  computed: whether a route's
    name is computed somewhere, so that nobody knows what ran before.
    """

    def __init__(
        self,
        diagnostics: Diagnostics,
        routes: dict[str, nodes.Block],
        called: set[str],
        computed: bool,
    ) -> None:
        self.diagnostics = diagnostics
        self.routes = routes
        self.called = called
        self.computed = computed
        self._preset: set[str] = set()
        self._told: set[str] = set()
        self._seen: set[tuple[str, frozenset[str]]] = set()

    def advise(self, script: nodes.Script) -> None:
        """Add what there is to say of the whole script."""
        blocks = [item for item in script.items if isinstance(item, nodes.Block)]
        for block in blocks:
            for node in _walk(block.body):
                self._node(node, block)
        if self.computed:
            return
        for line in script.items:
            if isinstance(line, nodes.ModParamLine) and line.name == "varset":
                self._preset.add(str(line.value).partition("=")[0])
        earlier: set[str] = set()
        for block in blocks:  # what comes before the message itself, in this packet or at the start
            if block.kind in ("event", "startup") or self._begins(block):
                self._run(block.body, earlier, ())
        for kind in ("request", "reply"):
            known = set(earlier)
            for block in blocks:
                if block.kind == kind:
                    self._run(block.body, known, ())
        for block in blocks:
            if block.kind == "timer":
                self._run(block.body, set(), ())

    def _begins(self, block: nodes.Block) -> bool:
        return block.kind == "route" and block.name not in self.called

    # -- single nodes

    def _node(self, node: object, block: nodes.Block) -> None:
        match node:
            case nodes.Leave(kind="return", value=nodes.Number(value=0)):
                if block.kind == "route" and block.name in self.called:
                    self.diagnostics.add(
                        "W908",
                        "return 0 ends the whole script, not only this route",
                        node.span,
                        "return -1 says no to the caller, exit ends the script in so many words",
                    )
            case nodes.Binary():
                self._comparison(node)
            case nodes.Comparison(keyword="method", operand=nodes.String()):
                assert isinstance(node.operand, nodes.String)
                self._method(node.operand, node.operator)
            case nodes.Call() if node.name in _QUERIES | _COMMANDS:
                self._pasted(node)
            case _:
                pass

    def _comparison(self, node: nodes.Binary) -> None:
        left, right, symbol = node.left, node.right, node.operator
        if isinstance(left, nodes.Variable) and isinstance(right, nodes.String):
            reference = _reference(left)
            if reference is None or symbol not in ("==", "!="):
                return
            if reference.name == "rm" and not reference.transformations:
                self._method(right, symbol)
            elif _is_number(reference) and not _NUMBER.fullmatch(right.value):
                self.diagnostics.add(
                    "W903",
                    f'${reference.name} is a number: "{right.value}" counts as 0 here',
                    node.span,
                    f'as text: (str)${reference.name} == "{right.value}"',
                )
        elif isinstance(left, nodes.Call | nodes.RouteCall) and isinstance(right, nodes.Number):
            value = right.value
            never = (
                (symbol in ("==", "!=") and value not in (0, 1))
                or (symbol == "<" and value <= 0)
                or (symbol == "<=" and value < 0)
                or (symbol == ">" and value >= 1)
                or (symbol == ">=" and value > 1)
            )
            if never:
                always = "true" if symbol == "!=" else "false"
                self.diagnostics.add(
                    "W903",
                    f"a call in an expression is worth 1 or 0: this is always {always}",
                    node.span,
                    "its code: $var(code) = the call; then compare $var(code)",
                )

    def _method(self, text: nodes.String, symbol: str) -> None:
        if symbol not in ("==", "!=", "eq", "ne") or not _METHOD.fullmatch(text.value):
            return
        if text.value != text.value.upper():
            self.diagnostics.add(
                "W903",
                f'a method is never "{text.value}": == minds capitals',
                text.span,
                f'write "{text.value.upper()}"',
            )

    def _pasted(self, node: nodes.Call) -> None:
        shell = node.name in _COMMANDS
        for bound in node.bound:
            if not isinstance(bound, Argument) or not isinstance(bound.value, Text):
                continue
            for reference in bound.value.references:
                names = {applied.name for applied in reference.transformations}
                if reference.name in _FROM_OUTSIDE and (shell or not names & _HARMLESS):
                    if shell and names & {"s.int", "s.len", "s.md5", "s.encode.hexa"}:
                        continue
                    self._warn_of_pasted(node, reference, shell)

    def _warn_of_pasted(self, node: nodes.Call, reference: Reference, shell: bool) -> None:
        name = f"${reference.name}"
        if shell:
            message = f"{name} comes from the network and becomes part of a shell command"
            hint = (
                "a command reads the message's fields from its environment: SIP_RURI, SIP_HF_FROM …"
            )
        else:
            message = f"{name} comes from the network and becomes part of an SQL statement"
            hint = f"escape it: '$({reference.name}{{s.escape.common}})'"
        self.diagnostics.add("W909", message, node.span, hint)

    # -- what ran before

    def _run(self, body: list[nodes.Statement], known: set[str], stack: tuple[str, ...]) -> None:
        """Go through *body* in its order; *known*: variables that may have been set so far."""
        for statement in body:
            match statement:
                case nodes.Assignment():
                    name = _var(_reference(statement.target))
                    # `$var(n) = $var(n) + 1` counts from packet to packet, and means to.
                    kept = {name} - known
                    self._told |= kept
                    self._read(statement.value, known, stack)
                    self._told -= kept
                    known |= {name} if name else set()
                case nodes.CallStatement():
                    self._read(statement.call, known, stack)
                case nodes.If():
                    self._read(statement.condition, known, stack)
                    self._run(statement.then, known, stack)
                    self._run(statement.otherwise, known, stack)
                case nodes.While():
                    self._read(statement.condition, known, stack)
                    self._run(statement.body, known, stack)
                case nodes.Switch():
                    self._read(statement.subject, known, stack)
                    for case in statement.cases:
                        self._run(case.body, known, stack)
                case nodes.Leave() if statement.value is not None:
                    self._read(statement.value, known, stack)
                case _:
                    pass

    def _read(self, node: nodes.Expression, known: set[str], stack: tuple[str, ...]) -> None:
        match node:
            case nodes.Variable():
                for reference in _all_references(node.text):
                    self._look_up(reference, node, known)
            case nodes.Unary():
                if node.operator != "defined":
                    self._read(node.operand, known, stack)
            case nodes.Binary():
                if not (isinstance(node.right, nodes.Variable) and node.right.is_null_word):
                    self._read(node.left, known, stack)
                self._read(node.right, known, stack)
            case nodes.Choice():
                for part in (node.condition, node.yes, node.no):
                    self._read(part, known, stack)
            case nodes.Comparison():
                self._read(node.operand, known, stack)
            case nodes.BlockValue():
                self._run(node.body, known, stack)
            case nodes.Call():
                self._call(node, known, stack)
            case nodes.RouteCall() if isinstance(node.target, nodes.Name | nodes.String):
                self._route(str(node.target.value), known, stack)
            case _:
                pass

    def _call(self, node: nodes.Call, known: set[str], stack: tuple[str, ...]) -> None:
        written: set[str] = set()
        for argument, bound in zip(node.arguments, node.bound, strict=False):
            if not isinstance(bound, Argument):
                continue
            if bound.how == "writable":
                name = _var(_all_references(bound.value)[0])
                written |= {name} if name else set()
            elif isinstance(bound.value, Text):
                for reference in _all_references(bound.value):
                    self._look_up(reference, argument, known)
            elif bound.how == "constant" and isinstance(argument, nodes.String):
                written |= set(_NAMED_VAR.findall(argument.value))  # "$var(a);$var(b)"
            elif not isinstance(argument, nodes.String):
                self._read(argument, known, stack)
        known |= written

    def _route(self, name: str, known: set[str], stack: tuple[str, ...]) -> None:
        block = self.routes.get(name)
        if block is None or name in stack:
            return
        key = (name, frozenset(known))
        if key in self._seen:
            known |= _written(block, self.routes)
            return
        self._seen.add(key)
        self._run(block.body, known, (*stack, name))

    def _look_up(self, reference: Reference, node: nodes.Expression, known: set[str]) -> None:
        name = _var(reference)
        if not name or name in known or name in self._told or name in self._preset:
            return
        self._told.add(name)
        self.diagnostics.add(
            "W910",
            f"$var({name}) is read before this packet sets it: it holds what an earlier one left",
            node.span,
            f"set it first: $var({name}) = 0;",
        )


def _walk(node: object) -> Iterator[object]:
    """Every node below a list of statements, itself included."""
    if isinstance(node, list):
        for item in node:
            yield from _walk(item)
        return
    if not hasattr(node, "__dataclass_fields__") or isinstance(node, Text):
        return
    yield node
    for field in _FIELDS.get(type(node), ()):
        yield from _walk(getattr(node, field))


_FIELDS: dict[type, tuple[str, ...]] = {
    nodes.CallStatement: ("call",),
    nodes.Assignment: ("value",),
    nodes.If: ("condition", "then", "otherwise"),
    nodes.While: ("condition", "body"),
    nodes.Switch: ("subject", "cases"),
    nodes.Case: ("body",),
    nodes.Leave: ("value",),
    nodes.Call: ("arguments",),
    nodes.RouteCall: ("target",),
    nodes.Unary: ("operand",),
    nodes.Binary: ("left", "right"),
    nodes.Choice: ("condition", "yes", "no"),
    nodes.Comparison: ("operand",),
    nodes.BlockValue: ("body",),
}


def _written(block: nodes.Block, routes: dict[str, nodes.Block]) -> set[str]:
    """Variables that a route and those it calls may set."""
    found: set[str] = set()
    waiting, seen = [block], set()
    while waiting:
        current = waiting.pop()
        if current.name in seen:
            continue
        seen.add(current.name)
        for node in _walk(current.body):
            if isinstance(node, nodes.Assignment):
                found |= {_var(_reference(node.target))} - {""}
            elif isinstance(node, nodes.RouteCall):
                target = routes.get(str(getattr(node.target, "value", "")))
                waiting += [target] if target is not None else []
            elif isinstance(node, nodes.Call):
                for argument in node.arguments:
                    source = getattr(argument, "value", None) or getattr(argument, "source", "")
                    found |= set(_NAMED_VAR.findall(str(source)))
    return found


def _reference(node: nodes.Variable) -> Reference | None:
    return node.text.references[0] if node.text is not None and node.text.references else None


def _all_references(text: object) -> list[Reference]:
    """The pseudo-variables of a text, those inside their arguments too."""
    if not isinstance(text, Text):
        return []
    found: list[Reference] = []
    for reference in text.references:
        found.append(reference)
        found += _all_references(reference.argument) if reference.name != "var" else []
        found += _all_references(reference.index)
    return found


def _var(reference: Reference | None) -> str:
    """The name of a `$var`, "" of anything else."""
    if reference is None or reference.name != "var" or reference.argument is None:
        return ""
    return reference.argument.source


def _is_number(reference: Reference) -> bool:
    if reference.transformations:
        word = reference.transformations[-1].transformation
        return word is not None and word.kind is Kind.INT
    return reference.variable is not None and reference.variable.kind is Kind.INT
