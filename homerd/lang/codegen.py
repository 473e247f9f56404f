"""Bound nodes to a Python module as `ast`, at the script's own lines.

A route block becomes a function of the packet that gives its return code, or an End when the
script is over.  Every expression has three readings, as in Kamailio: its int, its text, its value
as it is; which one is compiled depends on what the operator above asks for.
"""

from __future__ import annotations

import ast
import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar

from homerd.lang import nodes, runtime
from homerd.lang.check import Argument, Checked
from homerd.lang.posix import Filled, SearchLimit, Substitution
from homerd.lang.runtime import End
from homerd.lang.source import NOWHERE, Span
from homerd.lang.text import Reference, Text
from homerd.lang.vocabulary import ConstantText, Kind, Readable, Writable

N = TypeVar("N", bound=ast.AST)
Place = Callable[[Span, str], Any]  # makes the place object of a span in a route

_PACKET = "p"
_INT_OPERATORS: dict[str, type[ast.operator]] = {"&": ast.BitAnd, "|": ast.BitOr, "^": ast.BitXor}
_INT_FUNCTIONS = {
    "/": runtime.divide, "mod": runtime.modulo, "<<": runtime.shift_left, ">>": runtime.shift_right,
}  # fmt: skip
_COMPARES: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt, ">": ast.Gt, "<=": ast.LtE, ">=": ast.GtE,
    "==": ast.Eq, "!=": ast.NotEq, "eq": ast.Eq, "ne": ast.NotEq, "ieq": ast.Eq, "ine": ast.NotEq,
}  # fmt: skip
_BOOLEAN = frozenset((*_COMPARES, "=~", "&&", "||"))
_PROTOCOLS = {"udp": 17, "tcp": 6, "tls": 22, "sctp": 132, "ws": 50, "wss": 51}
_FAMILIES = {"inet": 2, "ipv4": 2, "inet6": 10, "ipv6": 10}
_KEYWORDS: dict[str, tuple[str, Kind]] = {  # core keyword -> attribute path on the packet
    "method": ("sip.method", Kind.STR),
    "from_uri": ("sip.from_uri", Kind.STR),
    "to_uri": ("sip.to_uri", Kind.STR),
    "src_ip": ("src_ip", Kind.STR),
    "dst_ip": ("dst_ip", Kind.STR),
    "snd_ip": ("src_ip", Kind.STR),
    "to_ip": ("dst_ip", Kind.STR),
    "src_port": ("frame.src_port", Kind.INT),
    "dst_port": ("frame.dst_port", Kind.INT),
    "snd_port": ("frame.src_port", Kind.INT),
    "to_port": ("frame.dst_port", Kind.INT),
    "proto": ("frame.protocol", Kind.INT),
    "af": ("frame.family", Kind.INT),
}


class Generator:
    """Compiles the blocks of one script into one namespace."""

    def __init__(
        self, checked: Checked, place: Place, max_while_loops: int, max_depth: int
    ) -> None:
        self.checked = checked
        self.place = place
        self.max_while_loops = max_while_loops
        self.max_depth = max_depth
        self.namespace: dict[str, Any] = {
            "ScriptEnd": runtime.ScriptEnd,
            "EvalError": (runtime.EvalError, SearchLimit),
        }
        self.functions: list[ast.stmt] = []
        self.route = ""
        self._names: dict[str, str] = {name: f"route_{i}" for i, name in enumerate(checked.routes)}
        self._counter = 0
        self._span = NOWHERE
        self._loops = 0
        self._recursive = _recursive(checked)

    # -- blocks

    def block(self, python_name: str, route: str, bodies: list[nodes.Block], top: bool) -> None:
        """One function for the bodies of a route block; top: entered from outside the script."""
        self.route = route
        self._top = top
        statements: list[ast.stmt] = []
        for index, item in enumerate(bodies):
            statements += self.body(item.body, tail=index == len(bodies) - 1)
        span = bodies[0].span
        if not statements or not isinstance(statements[-1], ast.Return):
            statements.append(self.at(ast.Return(_constant(1)), bodies[-1].span))
        function = ast.FunctionDef(
            name=python_name,
            args=ast.arguments(
                posonlyargs=[], args=[ast.arg(_PACKET)], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            body=statements,
            decorator_list=[],
        )
        self.functions.append(self.at(function, span))

    def routes(self) -> None:
        """Every `route[NAME]`."""
        for name, item in self.checked.routes.items():
            self.block(self._names[name], name, [item], top=False)

    def function_name(self, route: str) -> str:
        """The Python function of `route[NAME]`."""
        return self._names[route]

    # -- names of the namespace

    def named(self, stem: str, value: object) -> ast.expr:
        """A name of the script's namespace for *value*; a str, an int or null stands itself."""
        if value is None or value.__class__ in (str, int):
            return _constant(value)
        self._counter += 1
        name = f"{stem}_{self._counter}"
        self.namespace[name] = value
        return _name(name)

    def helper(self, function: Callable[..., Any]) -> ast.expr:
        """A function of runtime.py under its own name."""
        self.namespace[function.__name__] = function
        return _name(function.__name__)

    def local(self, stem: str) -> str:
        """A fresh local variable."""
        self._counter += 1
        return f"{stem}{self._counter}"

    def at(self, node: N, span: Span) -> N:
        """Put *node* at a span of the script."""
        if span.line > 0 and isinstance(node, ast.expr | ast.stmt):
            node.lineno, node.col_offset = span.line, max(0, span.column - 1)
            node.end_lineno = max(span.line, span.end_line)
            node.end_col_offset = max(0, span.end_column - 1)
            if node.end_lineno == node.lineno:
                node.end_col_offset = max(node.end_col_offset, node.col_offset)
        return node

    def end(self, kind: str, span: Span) -> ast.expr:
        """A constant End for the statement at *span*."""
        return self.named("end", End(kind, str(self.place(span, self.route))))

    # -- statements

    def body(self, statements: list[nodes.Statement], tail: bool = False) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for index, item in enumerate(statements):
            last = tail and index == len(statements) - 1
            compiled = self.statement(item, last)
            out += [
                self.at(part, item.span) if not hasattr(part, "lineno") else part
                for part in compiled
            ]
            if isinstance(item, nodes.Leave | nodes.Break):
                break
        if tail and not (out and isinstance(out[-1], ast.Return)):
            out.append(ast.Return(_constant(1)))
        return out or [ast.Pass()]

    def statement(self, node: nodes.Statement, tail: bool) -> list[ast.stmt]:
        self._span = node.span
        match node:
            case nodes.CallStatement():
                compiled = self.call_statement(node.call, tail)
                fallible = self.fallible(node.call)
                return self.guarded(compiled, node.span) if fallible else compiled
            case nodes.Assignment():
                value, kind, null = self.value(node.value)
                compiled = self.assign(node.target, value, kind, null)
                return self.guarded(compiled, node.span) if self.fallible(node.value) else compiled
            case nodes.If():
                return self.if_(node, tail)
            case nodes.While():
                return self.while_(node)
            case nodes.Switch():
                return self.switch(node)
            case nodes.Leave():
                return self.leave(node)
            case _:
                if self._loops:
                    return [ast.Break()]
                return [ast.Return(_constant(0))]

    def guarded(
        self, body: list[ast.stmt], span: Span, otherwise: list[ast.stmt] | None = None
    ) -> list[ast.stmt]:
        """*body*, not carried out when an expression in it has no value; that is reported."""
        report = _call(
            _path(f"{_PACKET}.state.report"),
            _call(_name("str"), _name("error")),
            self.named("place", self.place(span, self.route)),
        )
        handler = ast.ExceptHandler(
            type=_name("EvalError"), name="error", body=[ast.Expr(report), *(otherwise or [])]
        )
        return [ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[])]

    def call_statement(self, call: nodes.Call | nodes.RouteCall, tail: bool) -> list[ast.stmt]:
        result = self.local("r")
        if isinstance(call, nodes.RouteCall):
            out: list[ast.stmt] = [_assign(result, self.route_result(call))]
            ended = ast.Compare(
                ast.Attribute(_name(result), "__class__", ast.Load()), [ast.IsNot()], [_name("int")]
            )
            out.append(ast.If(ended, [ast.Return(_name(result))], []))
            return (
                out + self.keep_code(_name(result)) + ([ast.Return(_name(result))] if tail else [])
            )
        assert call.function is not None
        if call.function.unasked is not None and not self._asked(tail):
            out = [ast.Expr(self.at(self.invoke(call, call.function.unasked), call.span))]
            return [*out, ast.Return(_constant(1))] if tail else out
        invoked = self.at(self.invoke(call), call.span)
        if call.function.returns_none:
            out = [ast.Expr(invoked), *self.keep_code(_constant(1))]
            return [*out, ast.Return(_constant(1))] if tail else out
        if call.function.returns_bool:
            number = ast.IfExp(invoked, _constant(1), _constant(-1))
            if tail:
                return [
                    _assign(result, number),
                    *self.keep_code(_name(result)),
                    ast.Return(_name(result)),
                ]
            return self.keep_code(number) if self.checked.reads_rc else [ast.Expr(invoked)]
        out = [
            _assign(result, _call(self.helper(runtime.code), invoked)),
            ast.If(
                ast.UnaryOp(ast.Not(), _name(result)), [ast.Return(self.end("exit", call.span))], []
            ),
        ]
        return out + self.keep_code(_name(result)) + ([ast.Return(_name(result))] if tail else [])

    def _asked(self, tail: bool) -> bool:
        """Whether the script can see the result of a statement; *tail*: it is its route's."""
        checked = self.checked
        if tail and (checked.asks_routes or self.route.startswith("event_route[")):
            return True
        return checked.reads_rc

    def keep_code(self, value: ast.expr) -> list[ast.stmt]:
        """`$rc` for a statement's result; nothing when the script never reads it."""
        if not self.checked.reads_rc:
            return []
        return [ast.Assign([ast.Attribute(_name(_PACKET), "rc", ast.Store())], value)]

    def if_(self, node: nodes.If, tail: bool) -> list[ast.stmt]:
        then = self.body(node.then, tail)
        otherwise = self.body(node.otherwise, tail) if node.otherwise else []
        if tail and not otherwise:
            otherwise = [ast.Return(_constant(1))]
        if not self.fallible(node.condition):
            return [ast.If(self.true(node.condition), then, otherwise)]
        flag = self.local("c")
        tested = self.guarded(
            [_assign(flag, self.true(node.condition))],
            node.condition.span,
            [_assign(flag, _constant(False))],
        )
        return [*tested, ast.If(_name(flag), then, otherwise)]

    def while_(self, node: nodes.While) -> list[ast.stmt]:
        count = self.local("n")
        self._loops += 1
        inner = self.body(node.body)
        self._loops -= 1
        test: ast.expr = self.true(node.condition)
        head: list[ast.stmt] = []
        if self.fallible(node.condition):
            flag = self.local("c")
            head = self.guarded(
                [_assign(flag, test)], node.condition.span, [_assign(flag, _constant(False))]
            )
            head.append(ast.If(ast.UnaryOp(ast.Not(), _name(flag)), [ast.Break()], []))
            test = _constant(True)
        if self.max_while_loops:
            report = _call(
                _path(f"{_PACKET}.state.report"),
                _constant(f"while went round {self.max_while_loops} times (max_while_loops)"),
                self.named("place", self.place(node.span, self.route)),
            )
            limit = ast.Compare(_name(count), [ast.Eq()], [_constant(self.max_while_loops)])
            head.append(ast.If(limit, [ast.Expr(report), ast.Break()], []))
            head.append(ast.AugAssign(ast.Name(count, ast.Store()), ast.Add(), _constant(1)))
        return [_assign(count, _constant(0)), ast.While(test, [*head, *inner], [])]

    def switch(self, node: nodes.Switch) -> list[ast.stmt]:
        """A chain that finds the label, then the bodies in order, each run from its label on."""
        subject, chosen = self.local("s"), self.local("k")
        labels = [case for case in node.cases if case.label is not None]
        numeric = bool(labels) and isinstance(labels[0].label, nodes.Number)
        text = self.integer(node.subject) if numeric else self.text(node.subject)
        default = next(
            (i for i, case in enumerate(node.cases) if case.label is None), len(node.cases)
        )
        choice: list[ast.stmt] = [_assign(chosen, _constant(default))]
        for index in range(len(node.cases) - 1, -1, -1):
            case = node.cases[index]
            if case.label is None:
                continue
            if case.regex:
                search = ast.Attribute(self.named("pattern", case.pattern), "search", ast.Load())
                test: ast.expr = _call(search, _name(subject))
            else:
                assert isinstance(case.label, nodes.Number | nodes.String)
                test = ast.Compare(_name(subject), [ast.Eq()], [_constant(case.label.value)])
            choice = [self.at(ast.If(test, [_assign(chosen, _constant(index))], choice), case.span)]
        self._loops += 1
        bodies: list[ast.stmt] = []
        for index, case in enumerate(node.cases):
            inner = self.body(case.body) if case.body else []
            if inner:
                reached = ast.Compare(_name(chosen), [ast.LtE()], [_constant(index)])
                bodies.append(self.at(ast.If(reached, inner, []), case.span))
        self._loops -= 1
        bodies.append(ast.Break())
        out = [_assign(subject, text), *choice, ast.While(_constant(True), bodies, [])]
        return self.guarded(out, node.span) if self.fallible(node.subject) else out

    def leave(self, node: nodes.Leave) -> list[ast.stmt]:
        if node.kind != "return":
            out: list[ast.stmt] = []
            if node.value is not None and not isinstance(node.value, nodes.Number):
                out.append(ast.Expr(self.integer(node.value)))
            return [*out, ast.Return(self.end(node.kind, node.span))]
        returned: list[ast.stmt] = []
        if self._top:
            flag = ast.Attribute(_name(_PACKET), "returned", ast.Store())
            returned = [ast.Assign([flag], _constant(True))]
        if node.value is None:
            return [*returned, ast.Return(_constant(1))]
        if isinstance(node.value, nodes.Number):
            number = node.value.value
            value = _constant(number) if number else self.end("return", node.span)
            return [*returned, ast.Return(value)]
        code = self.raw_code(node.value)
        result = ast.BoolOp(ast.Or(), [code, self.end("return", node.span)])
        out = [*returned, ast.Return(result)]
        if self.fallible(node.value):
            return self.guarded(out, node.span, [ast.Return(_constant(-1))])
        return out

    def raw_code(self, node: nodes.Expression) -> ast.expr:
        """A number, for a call its return code itself."""
        if isinstance(node, nodes.Call | nodes.RouteCall):
            return self.call_code(node)
        return self.integer(node)

    def assign(
        self, target: nodes.Variable, value: ast.expr, kind: Kind, null: bool
    ) -> list[ast.stmt]:
        assert target.text is not None
        reference = target.text.references[0]
        variable = reference.variable
        assert variable is not None
        if variable.null_becomes is not None and null:
            value = self.unless_null(value, variable.null_becomes)
        if variable.writes:
            place = self.read_path(reference)
            assert isinstance(place, ast.Subscript | ast.Attribute)
            place.ctx = ast.Store()
            return [ast.Assign([place], value)]
        setter = self.named("set", variable.set)
        return [ast.Expr(_call(setter, _name(_PACKET), value, *self.bound(reference.bound)))]

    def unless_null(self, value: ast.expr, otherwise: object) -> ast.expr:
        """*value*, or a constant in place of null."""
        if isinstance(value, ast.Constant):
            return _constant(otherwise) if value.value is None else value
        name = self.local("v")
        test = ast.Compare(
            ast.NamedExpr(ast.Name(name, ast.Store()), value), [ast.Is()], [_constant(None)]
        )
        return ast.IfExp(test, _constant(otherwise), _name(name))

    # -- what an expression is

    def kind(self, node: nodes.Expression) -> tuple[Kind, bool]:
        """Kind of a value and whether it may be null."""
        match node:
            case nodes.Number():
                return Kind.INT, False
            case nodes.String() | nodes.Name() | nodes.Network():
                return Kind.STR, False
            case nodes.Variable() | nodes.Select():
                return _reference_kind(node.text)
            case nodes.Unary():
                return (Kind.STR if node.operator == "(str)" else Kind.INT), False
            case nodes.Binary() if node.operator == "+":
                left, null = self.kind(node.left)
                if left is Kind.STR:
                    return Kind.STR, False
                return (Kind.INT, False) if left is Kind.INT and not null else (Kind.ANY, False)
            case nodes.Choice():
                yes, yes_null = self.kind(node.yes)
                no, no_null = self.kind(node.no)
                return (yes if yes is no else Kind.ANY), yes_null or no_null
            case _:
                return Kind.INT, False

    def fallible(self, node: nodes.Expression) -> bool:
        """Whether the expression may have no value at all."""
        match node:
            case nodes.Binary():
                if node.operator in ("/", "mod"):
                    divisor = node.right
                    if not isinstance(divisor, nodes.Number) or divisor.value == 0:
                        return True
                if node.operator == "=~" and _may_give_up(node.pattern):
                    return True
                return self.fallible(node.left) or self.fallible(node.right)
            case nodes.Unary():
                return self.fallible(node.operand)
            case nodes.Choice():
                return any(map(self.fallible, (node.condition, node.yes, node.no)))
            case nodes.Variable() | nodes.Select():
                return node.text is not None and _may_fail(node.text)
            case nodes.Call():
                texts = [item.value for item in node.bound if isinstance(item, Argument)]
                return any(map(self.fallible, node.arguments)) or any(
                    isinstance(item, Text) and _may_fail(item) for item in texts
                )
            case nodes.Comparison():
                return node.operator == "=~" and _may_give_up(node.pattern)
            case _:
                return False

    # -- the three readings

    def value(self, node: nodes.Expression) -> tuple[ast.expr, Kind, bool]:
        """The value as it is, with its kind and whether it may be null; a call's raw code."""
        node = _simplified(node)
        kind, null = self.kind(node)
        match node:
            case nodes.Number() | nodes.String() | nodes.Name() | nodes.Network():
                return _constant(node.value), kind, null
            case nodes.Variable() | nodes.Select():
                assert node.text is not None
                return self.at(self.reference(node.text.references[0]), node.span), kind, null
            case nodes.Call() | nodes.RouteCall():
                return self.call_code(node), kind, null
            case nodes.Binary() if node.operator == "+":
                return self.sum(node), kind, null
            case nodes.Unary() if node.operator == "(str)":
                return self.text(node.operand), kind, null
            case nodes.Choice():
                yes, no = self.value(node.yes)[0], self.value(node.no)[0]
                return ast.IfExp(self.true(node.condition), yes, no), kind, null
            case _:
                return self.integer(node), kind, null

    def sum(self, node: nodes.Binary) -> ast.expr:
        """`+` with nothing asked of it: the left value decides."""
        left, null = self.kind(node.left)
        if left is Kind.STR:
            return self.joined(node)
        if left is Kind.INT and not null:
            return self.integer(node)
        add = self.helper(runtime.add_to_null if self.checked.opensips else runtime.add)
        return _call(add, self.value(node.left)[0], self.operand(node.right))

    def operand(self, node: nodes.Expression) -> ast.expr:
        """An operand's value; a call in an expression is worth 1 or 0."""
        if isinstance(node, nodes.Call | nodes.RouteCall):
            return self.integer(node)
        return self.value(node)[0]

    def joined(self, node: nodes.Expression) -> ast.expr:
        """A chain of + that begins with text, as one f-string."""
        parts: list[ast.expr] = []

        def collect(item: nodes.Expression) -> None:
            if (
                isinstance(item, nodes.Binary)
                and item.operator == "+"
                and self.kind(item.left)[0] is Kind.STR
            ):
                collect(item.left)
                collect_text(item.right)
            else:
                collect_text(item)

        def collect_text(item: nodes.Expression) -> None:
            text = self.text(item)
            if isinstance(text, ast.Constant):
                parts.append(text)
            else:
                parts.append(ast.FormattedValue(text, -1, None))

        collect(node)
        return ast.JoinedStr(parts)

    def text(self, node: nodes.Expression) -> ast.expr:
        """The expression's text, "" for null."""
        node = _simplified(node)
        value: ast.expr
        if isinstance(node, nodes.Call | nodes.RouteCall):
            value, kind, null = self.integer(node), Kind.INT, False
        else:
            value, kind, null = self.value(node)
        if isinstance(value, ast.Constant):
            return _constant(runtime.to_str(value.value))  # type: ignore[arg-type]
        if kind is Kind.STR:
            return ast.BoolOp(ast.Or(), [value, _constant("")]) if null else value
        if kind is Kind.INT and not null:
            return _call(_name("str"), value)
        return _call(self.helper(runtime.to_str), value)

    def integer(self, node: nodes.Expression) -> ast.expr:
        """The expression's int; operands of + are asked for ints too."""
        node = _simplified(node)
        match node:
            case nodes.Number():
                return _constant(node.value)
            case nodes.String():
                return _constant(runtime.to_int(node.value))
            case nodes.Binary() if node.operator in ("+", "-", "*"):
                operators: dict[str, type[ast.operator]] = {
                    "+": ast.Add,
                    "-": ast.Sub,
                    "*": ast.Mult,
                }
                result = ast.BinOp(
                    self.integer(node.left), operators[node.operator](), self.integer(node.right)
                )
                return _call(self.helper(runtime.wrap), result)
            case nodes.Binary() if node.operator in _INT_OPERATORS:
                return ast.BinOp(
                    self.integer(node.left),
                    _INT_OPERATORS[node.operator](),
                    self.integer(node.right),
                )
            case nodes.Binary() if node.operator in _INT_FUNCTIONS:
                function = self.helper(_INT_FUNCTIONS[node.operator])
                return _call(function, self.integer(node.left), self.integer(node.right))
            case nodes.Unary() if node.operator == "-":
                negated = ast.UnaryOp(ast.USub(), self.integer(node.operand))
                return _call(self.helper(runtime.wrap), negated)
            case nodes.Unary() if node.operator == "~":
                return ast.UnaryOp(ast.Invert(), self.integer(node.operand))
            case nodes.Unary() if node.operator == "(int)":
                return self.integer(node.operand)
            case nodes.Unary() if node.operator == "strlen":
                encoded = _call(
                    ast.Attribute(self.text(node.operand), "encode", ast.Load()),
                    _constant("utf-8"),
                    _constant("surrogateescape"),
                )
                return _call(_name("len"), encoded)
            case nodes.Choice():
                return ast.IfExp(
                    self.true(node.condition), self.integer(node.yes), self.integer(node.no)
                )
            case _:
                pass
        if self.is_boolean(node):
            return ast.IfExp(self.nonzero(node), _constant(1), _constant(0))
        value, kind, null = self.value(node)
        if kind is Kind.INT:
            return ast.BoolOp(ast.Or(), [value, _constant(0)]) if null else value
        return _call(self.helper(runtime.to_int), value)

    def is_boolean(self, node: nodes.Expression) -> bool:
        """Whether the expression is worth 1 or 0 by its form."""
        match node:
            case nodes.Binary():
                return node.operator in _BOOLEAN
            case nodes.Unary():
                return node.operator in ("!", "defined", "strempty")
            case nodes.Call() | nodes.RouteCall() | nodes.Comparison() | nodes.BlockValue():
                return True
            case _:
                return False

    # -- truth

    def true(self, node: nodes.Expression) -> ast.expr:
        """What `if` and `while` ask: the int is greater than 0."""
        node = _simplified(node)
        if isinstance(node, nodes.Unary) and node.operator == "(int)":
            return self.true(node.operand)
        if self.is_boolean(node):
            return self.nonzero(node)
        if isinstance(node, nodes.Number):
            return _constant(node.value > 0)
        if self.checked.opensips and isinstance(node, nodes.Variable):
            return self.nonzero(node)
        return ast.Compare(self.integer(node), [ast.Gt()], [_constant(0)])

    def nonzero(self, node: nodes.Expression) -> ast.expr:
        """What `!`, `&&` and `||` ask."""
        node = _simplified(node)
        match node:
            case nodes.Number():
                return _constant(node.value != 0)
            case nodes.Call() if node.function is not None and node.function.returns_bool:
                invoked = self.at(self.invoke(node), node.span)
                if not self.checked.reads_rc:
                    return invoked
                return _call(self.helper(runtime.yes), _name(_PACKET), invoked)
            case nodes.Call() | nodes.RouteCall():
                return ast.Compare(self.call_code(node), [ast.Gt()], [_constant(0)])
            case nodes.Binary() if node.operator in ("&&", "||"):
                operator = ast.And() if node.operator == "&&" else ast.Or()
                return ast.BoolOp(operator, [self.nonzero(node.left), self.nonzero(node.right)])
            case nodes.Binary() if node.operator in _BOOLEAN:
                return self.at(self.compare(node), node.span)
            case nodes.Unary() if node.operator == "!":
                return ast.UnaryOp(ast.Not(), self.nonzero(node.operand))
            case nodes.Unary() if node.operator == "defined":
                return self.defined(node.operand)
            case nodes.Unary() if node.operator == "strempty":
                return ast.UnaryOp(ast.Not(), self.text(node.operand))
            case nodes.Comparison():
                return self.at(self.keyword(node), node.span)
            case nodes.BlockValue():
                return self.block_value(node)
            case nodes.Variable() if self.checked.opensips:  # any text but the empty one is true
                return _call(_name("bool"), self.value(node)[0])
            case _:
                return ast.Compare(self.integer(node), [ast.NotEq()], [_constant(0)])

    def defined(self, node: nodes.Expression) -> ast.expr:
        """Whether a pseudo-variable is not null; anything more complex counts as defined."""
        if not isinstance(node, nodes.Variable | nodes.Select):
            return _constant(True)
        value, _, null = self.value(node)
        return ast.Compare(value, [ast.IsNot()], [_constant(None)]) if null else _constant(True)

    def compare(self, node: nodes.Binary) -> ast.expr:
        symbol, left, right = node.operator, node.left, node.right
        if symbol in ("<", ">", "<=", ">=", "ieq", "ine"):
            return ast.Compare(self.integer(left), [_COMPARES[symbol]()], [self.integer(right)])
        if symbol in ("eq", "ne"):
            return ast.Compare(self.text(left), [_COMPARES[symbol]()], [self.text(right)])
        if symbol == "=~":
            if node.pattern is None:
                return _call(self.helper(runtime.matches), self.text(left), self.text(right))
            search = ast.Attribute(self.named("pattern", node.pattern), "search", ast.Load())
            return _call(search, self.text(left))
        equal = symbol == "=="
        if self.checked.opensips and isinstance(left, nodes.Variable) and left.is_null_word:
            left, right = right, left
        if isinstance(right, nodes.Variable) and right.is_null_word:
            defined = self.defined(left)
            return ast.UnaryOp(ast.Not(), defined) if equal else defined
        return self.equality(left, _simplified(right), equal)

    def equality(self, left: nodes.Expression, right: nodes.Expression, equal: bool) -> ast.expr:
        """`==` and `!=`, as short as the kinds allow."""
        operator: ast.cmpop = ast.Eq() if equal else ast.NotEq()
        if isinstance(right, nodes.String) and not right.value:
            empty = self.text(left)  # x == "" is a test for the empty text, whatever x is
            return ast.UnaryOp(ast.Not(), empty) if equal else _call(_name("bool"), empty)
        kind, null = self.kind(left)
        if isinstance(left, nodes.Call | nodes.RouteCall):
            kind, null = Kind.INT, False
        value = self.operand(left)
        if kind is Kind.INT and not null:
            return ast.Compare(value, [operator], [self.integer(right)])
        if isinstance(right, nodes.String) and kind is Kind.STR:
            return ast.Compare(value, [operator], [_constant(right.value)])
        if isinstance(right, nodes.Number) and right.value:
            if kind is Kind.INT:
                return ast.Compare(value, [operator], [_constant(right.value)])
            if kind is Kind.STR:
                return ast.Compare(value, [operator], [_constant(str(right.value))])
        result = _call(self.helper(runtime.equal), value, self.operand(right))
        return result if equal else ast.UnaryOp(ast.Not(), result)

    def block_value(self, node: nodes.BlockValue) -> ast.expr:
        """Actions inside an expression: a function of their own, called here."""
        name = self.local("block_")
        loops, self._loops = self._loops, 0
        top, self._top = self._top, False
        statements = self.body(node.body, tail=True)
        self._loops, self._top = loops, top
        function = ast.FunctionDef(
            name=name,
            args=ast.arguments(
                posonlyargs=[], args=[ast.arg(_PACKET)], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            body=statements,
            decorator_list=[],
        )
        self.functions.append(self.at(function, node.span))
        code = _call(
            self.helper(runtime.routed), _name(_PACKET), _call(_name(name), _name(_PACKET))
        )
        return ast.Compare(code, [ast.Gt()], [_constant(0)])

    # -- core keywords

    def keyword(self, node: nodes.Comparison) -> ast.expr:
        """`method == "BYE"`: the value by the keyword, the operand by the value's kind."""
        operand = node.operand
        if isinstance(operand, nodes.Name) and operand.value == "myself":
            return _constant(node.operator == "!=")  # a capture server is nobody's peer
        if node.keyword in ("uri", "status"):
            value: ast.expr = _call(self.helper(runtime.uri_or_status), _path(f"{_PACKET}.sip"))
            kind = Kind.STR
        elif node.keyword in ("msg:len", "max_len"):
            value, kind = _call(_name("len"), _path(f"{_PACKET}.sip.raw")), Kind.INT
        else:
            path, kind = _KEYWORDS[node.keyword]
            value = _path(f"{_PACKET}.{path}")
        if node.keyword in ("src_ip", "dst_ip", "snd_ip", "to_ip") and isinstance(
            operand, nodes.Network | nodes.String
        ):
            return self.in_network(value, operand.value, node)
        if isinstance(operand, nodes.Name) and node.keyword in ("proto", "af"):
            table = _PROTOCOLS if node.keyword == "proto" else _FAMILIES
            operand = nodes.Number(operand.span, table.get(operand.value.lower(), -1))
        if kind is Kind.INT:
            return ast.Compare(value, [_COMPARES[node.operator]()], [self.integer(operand)])
        text = ast.BoolOp(ast.Or(), [value, _constant("")])
        if node.operator == "=~":
            if node.pattern is not None:
                search = ast.Attribute(self.named("pattern", node.pattern), "search", ast.Load())
                return _call(search, text)
            return _call(self.helper(runtime.matches), text, self.text(operand))
        if node.operator in ("<", ">", "<=", ">="):
            number = _call(self.helper(runtime.to_int), value)
            return ast.Compare(number, [_COMPARES[node.operator]()], [self.integer(operand)])
        return ast.Compare(text, [_COMPARES[node.operator]()], [self.text(operand)])

    def in_network(self, value: ast.expr, text: str, node: nodes.Comparison) -> ast.expr:
        try:
            network = ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            compared: ast.expr = ast.Compare(value, [ast.Eq()], [_constant(text)])
        else:
            compared = _call(self.helper(runtime.in_network), value, self.named("network", network))
        return ast.UnaryOp(ast.Not(), compared) if node.operator in ("!=", "ne") else compared

    # -- calls

    def call_code(self, node: nodes.Call | nodes.RouteCall) -> ast.expr:
        """The return code of a call inside an expression."""
        if isinstance(node, nodes.RouteCall):
            return _call(self.helper(runtime.routed), _name(_PACKET), self.route_result(node))
        invoked = self.at(self.invoke(node), node.span)
        end = self.end("exit", node.span)
        return _call(self.helper(runtime.called), _name(_PACKET), invoked, end)

    def invoke(self, node: nodes.Call, called: Callable[..., Any] | None = None) -> ast.expr:
        """The call itself; *called* takes the place of the function's own."""
        assert node.function is not None
        called = called or node.function.call
        arguments = [
            self.argument(bound, node.arguments[index]) for index, bound in enumerate(node.bound)
        ]
        if node.function.placed:
            last = Span(node.span.end_line, node.span.column, node.span.end_line, 0)
            arguments.insert(0, self.named("place", self.place(last, self.route)))
        return _call(self.named(f"f_{node.name}", called), _name(_PACKET), *arguments)

    def argument(self, bound: object, node: nodes.Expression) -> ast.expr:
        assert isinstance(bound, Argument)
        value = bound.value
        match bound.how:
            case "constant":
                return self.named("constant", value)
            case "text":
                assert isinstance(value, Text)
                constant = value.constant
                if constant is not None:
                    return self.named("text", ConstantText(constant))
                return self.expanded(value)
            case "int text":
                assert isinstance(value, Text)
                return _call(self.helper(runtime.to_int), self.expanded(value))
            case "int":
                return self.integer(node)
            case "str":
                return self.text(node)
            case "value":
                return self.operand(node)
            case _:
                assert isinstance(value, Text)
                return self.named("pv", self.handed(value, writable=bound.how == "writable"))

    def handed(self, text: Text, writable: bool) -> Readable | Writable:
        """A pseudo-variable as a value with get and set, made of functions of the script."""
        reference = text.references[0]
        getter, setter = self.local("get_"), self.local("set_")
        packet = ast.arg(_PACKET)
        read = ast.Lambda(
            ast.arguments(
                posonlyargs=[], args=[packet], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            self.reference(reference),
        )
        self.functions.append(self.at(_assign(getter, read), self._span))
        get = _Late(self.namespace, getter)
        if not writable:
            return Readable(get, text.source)
        body = self.assign(
            nodes.Variable(self._span, text.source, text), _name("value"), Kind.ANY, True
        )
        function = ast.FunctionDef(
            name=setter,
            args=ast.arguments(
                posonlyargs=[],
                args=[packet, ast.arg("value")],
                kwonlyargs=[],
                kw_defaults=[],
                defaults=[],
            ),
            body=body,
            decorator_list=[],
        )
        self.functions.append(self.at(function, self._span))
        return Writable(get, _Late(self.namespace, setter), text.source)

    def route_result(self, node: nodes.RouteCall) -> ast.expr:
        """What the called route's function gives."""
        target = node.target
        if isinstance(target, nodes.Name | nodes.String | nodes.Number):
            name = str(target.value)
            function = _name("main" if name == "0" else self._names[name])
            if name in self._recursive:
                return _call(
                    _name("deeper"),
                    _name(_PACKET),
                    function,
                    self.named("place", self.place(node.span, self.route)),
                )
            return _call(function, _name(_PACKET))
        place = self.named("place", self.place(node.span, self.route))
        return _call(_name("by_name"), _name(_PACKET), self.value(target)[0], place)

    # -- pseudo-variables and text

    def reference(self, reference: Reference) -> ast.expr:
        """The value of one pseudo-variable with its transformations."""
        variable = reference.variable
        assert variable is not None
        kind, null = variable.kind, variable.null
        if variable.reads:
            value = self.read_path(reference)
        elif variable.get is None:  # $_s(text): the text itself
            inner = reference.bound[0]
            assert isinstance(inner, Text)
            value = self.expanded(inner)
        else:
            getter = self.named(f"pv_{_identifier(variable.name)}", variable.get)
            value = _call(getter, _name(_PACKET), *self.bound(reference.bound))
        for applied in reference.transformations:
            word = applied.transformation
            assert word is not None
            function = self.named(f"tr_{_identifier(word.name)}", word.call)
            arguments = self.bound(applied.bound)
            if word.takes_any:
                value = _call(function, value, *arguments)
                kind, null = word.kind, word.null
                continue
            name = self.local("t")
            taken: ast.expr = _name(name) if null else value
            if kind is not Kind.STR:
                taken = _call(self.helper(runtime.to_str), taken)
            changed: ast.expr = _call(function, taken, *arguments)
            if null:
                kept = ast.NamedExpr(ast.Name(name, ast.Store()), value)
                missing = ast.Compare(kept, [ast.Is()], [_constant(None)])
                changed = ast.IfExp(missing, _constant(None), changed)
            value = changed
            kind, null = word.kind, word.null or null
        return value

    def read_path(self, reference: Reference) -> ast.expr:
        """`sip.method` on the packet; a last `[]` subscripts by the first bound value."""
        assert reference.variable is not None
        path = reference.variable.reads
        node = _path(f"{_PACKET}.{path.removesuffix('[]')}")
        if not path.endswith("[]"):
            return node
        return ast.Subscript(node, self.bound(reference.bound)[0], ast.Load())

    def bound(self, values: tuple[object, ...]) -> list[ast.expr]:
        """Bound values as arguments: a Text is expanded for each packet."""
        out: list[ast.expr] = []
        for value in values:
            if isinstance(value, Text):
                out.append(self.expanded(value))
            elif isinstance(value, Argument):
                out.append(self.prepared(value))
            else:
                out.append(self.named("constant", value))
        return out

    def prepared(self, argument: Argument) -> ast.expr:
        """A transformation's argument that is more than a constant or a text."""
        value = argument.value
        if argument.how == "constant":
            return self.named("constant", value)
        if argument.how == "filled":
            assert isinstance(value, tuple)
            substitution, pieces = value
            parts = [
                self.expanded(piece) if isinstance(piece, Text) else _constant(piece)
                for piece in pieces
            ]
            listed = ast.List(parts, ast.Load())
            return _call(self.helper(Filled), self.named("substitution", substitution), listed)
        assert isinstance(value, Text)
        function = runtime.substitution if argument.how == "substitution text" else runtime.to_int
        return _call(self.helper(function), self.expanded(value))

    def expanded(self, text: Text) -> ast.expr:
        """A Text as an f-string; null prints as `<null>`."""
        constant = text.constant
        if constant is not None:
            return _constant(constant)
        parts: list[ast.expr] = []
        for part in text.parts:
            if isinstance(part, str):
                parts.append(_constant(part))
                continue
            value = self.reference(part)
            kind, null = _reference_kind(Text("", [part]))
            if null and part.transformations:
                value = _call(self.helper(runtime.to_str), value)  # prints as nothing, not <null>
            elif null or kind is Kind.ANY:
                value = _call(self.helper(runtime.show), value)
            parts.append(ast.FormattedValue(value, -1, None))
        return ast.JoinedStr(parts)


class _Late:
    """A function of the script's namespace that exists only once the script is compiled."""

    __slots__ = ("_name", "_namespace")

    def __init__(self, namespace: dict[str, Any], name: str) -> None:
        self._namespace = namespace
        self._name = name

    def __call__(self, *arguments: Any) -> Any:  # what the compiled function takes
        return self._namespace[self._name](*arguments)


def _reference_kind(text: Text | None) -> tuple[Kind, bool]:
    """Kind of a pseudo-variable with its transformations, and whether it may be null."""
    assert text is not None
    reference = text.references[0]
    assert reference.variable is not None
    kind, null = reference.variable.kind, reference.variable.null
    for applied in reference.transformations:
        assert applied.transformation is not None
        word = applied.transformation
        kind = word.kind
        null = word.null if word.takes_any else word.null or null
    return kind, null


def _may_give_up(pattern: object) -> bool:
    """Whether a search may end without an answer: a pattern not known yet, or one with limits."""
    return pattern is None or getattr(pattern, "bounded", False)


def _may_fail(text: Text) -> bool:
    """Whether a substitution among the transformations in *text* may have no value."""
    for reference in text.references:
        for applied in reference.transformations:
            for item in applied.bound:
                if isinstance(item, Argument) and item.how == "substitution text":
                    return True
                value = item.value if isinstance(item, Argument) else None
                found = value[0] if isinstance(value, tuple) else value
                if isinstance(found, Substitution) and found.pattern.bounded:
                    return True
        inner = (reference.argument, reference.index)
        if any(part is not None and _may_fail(part) for part in inner):
            return True
    return False


def _simplified(node: nodes.Expression) -> nodes.Expression:
    """Kamailio's visible rewrites at load: `x && 0` never evaluates x, `x * 1` is (int)x."""
    if not isinstance(node, nodes.Binary):
        return node
    left, right = node.left, node.right
    if node.operator in ("&&", "||"):
        absorbing = node.operator == "||"
        for constant, other in ((right, left), (left, right)):
            if isinstance(constant, nodes.Number):
                if bool(constant.value) == absorbing:
                    return nodes.Number(node.span, int(absorbing))
                return nodes.Unary(node.span, "(int)", other)
    if node.operator in ("*", "/") and isinstance(right, nodes.Number) and right.value == 1:
        return nodes.Unary(node.span, "(int)", left)
    if node.operator == "*" and isinstance(left, nodes.Number) and left.value == 1:
        return nodes.Unary(node.span, "(int)", right)
    return node


def placed(module: ast.Module) -> ast.Module:
    """*module* with every node placed: where its parent is, when nothing better was said.

    Does what ast.fix_missing_locations does in a third of its time, which counts in a reload.
    """
    for statement in module.body:
        _place(statement, (1, 0, 1, 0))
    return module


def _place(node: ast.AST, at: tuple[int, int, int, int]) -> None:
    if node._attributes:
        if hasattr(node, "lineno"):
            at = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        else:
            node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = at  # type: ignore[attr-defined]
    for name in node._fields:
        value = getattr(node, name, None)
        if value.__class__ is list:
            for item in value:
                if isinstance(item, ast.AST):
                    _place(item, at)
        elif isinstance(value, ast.AST) and (value._attributes or value._fields):
            _place(value, at)


def _recursive(checked: Checked) -> set[str]:
    """Routes that may come back to themselves; every route when names are computed."""
    if checked.calls_by_value:
        return set(checked.routes) | {"0"}
    found = set()
    for name in checked.calls:
        seen: set[str] = set()
        waiting = list(checked.calls[name])
        while waiting:
            target = waiting.pop()
            if target not in seen:
                seen.add(target)
                waiting.extend(checked.calls.get(target, ()))
        if name in seen:
            found.add(name)
    return found


def _identifier(text: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in text)


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _constant(value: Any) -> ast.Constant:  # str, int, bool or None
    return ast.Constant(value)


def _call(function: ast.expr, *arguments: ast.expr) -> ast.Call:
    return ast.Call(function, list(arguments), [])


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _path(path: str) -> ast.expr:
    """`a.b.c` as attributes."""
    first, *rest = path.split(".")
    node: ast.expr = _name(first)
    for name in rest:
        node = ast.Attribute(node, name, ast.Load())
    return node
