"""Expressions to Python, in the three readings Kamailio has: int, text, the value as it is.

Which one is compiled depends on what the operator above asks for; `+` and `==` follow the left
value.
"""

from __future__ import annotations

import ast
import ipaddress
from collections.abc import Callable
from typing import Any

from homerd.lang import nodes, pyast, runtime
from homerd.lang.binding import Argument
from homerd.lang.check import Checked
from homerd.lang.pyast import PACKET
from homerd.lang.source import Span
from homerd.lang.text import Text
from homerd.lang.variables import Place, Variables, may_fail, reference_kind
from homerd.lang.vocabulary import ConstantText, Kind

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


class Expressions(Variables):
    """Compiles what has a value; routes is the Python function of each `route[NAME]`."""

    def __init__(self, checked: Checked, place: Place) -> None:
        super().__init__(place)
        self.checked = checked
        self.routes: dict[str, str] = {
            name: f"route_{number}" for number, name in enumerate(checked.routes)
        }
        self.recursive = _recursive(checked)
        self._loops = 0
        self._top = False

    def body(self, statements: list[nodes.Statement], tail: bool = False) -> list[ast.stmt]:
        """Statements inside an expression; codegen.py's, which knows them."""
        raise NotImplementedError

    # -- what an expression is

    def kind(self, node: nodes.Expression) -> tuple[Kind, bool]:
        """Kind of a value and whether it may be null."""
        match node:
            case nodes.Number():
                return Kind.INT, False
            case nodes.String() | nodes.Name() | nodes.Network():
                return Kind.STR, False
            case nodes.Variable() | nodes.Select():
                return reference_kind(node.text)
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
                return node.text is not None and may_fail(node.text)
            case nodes.Call():
                texts = [item.value for item in node.bound if isinstance(item, Argument)]
                return any(map(self.fallible, node.arguments)) or any(
                    isinstance(item, Text) and may_fail(item) for item in texts
                )
            case nodes.Comparison():
                return node.operator == "=~" and _may_give_up(node.pattern)
            case _:
                return False

    # -- the three readings

    def value(self, node: nodes.Expression) -> tuple[ast.expr, Kind, bool]:
        """The value as it is, with its kind and whether it may be null; a call's raw code."""
        node = simplified(node)
        kind, null = self.kind(node)
        match node:
            case nodes.Number() | nodes.String() | nodes.Name() | nodes.Network():
                return pyast.constant(node.value), kind, null
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
        return pyast.call(add, self.value(node.left)[0], self.operand(node.right))

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
        node = simplified(node)
        value: ast.expr
        if isinstance(node, nodes.Call | nodes.RouteCall):
            value, kind, null = self.integer(node), Kind.INT, False
        else:
            value, kind, null = self.value(node)
        if isinstance(value, ast.Constant):
            return pyast.constant(runtime.to_str(value.value))  # type: ignore[arg-type]
        if kind is Kind.STR:
            return ast.BoolOp(ast.Or(), [value, pyast.constant("")]) if null else value
        if kind is Kind.INT and not null:
            return pyast.call(pyast.name("str"), value)
        return pyast.call(self.helper(runtime.to_str), value)

    def integer(self, node: nodes.Expression) -> ast.expr:
        """The expression's int; operands of + are asked for ints too."""
        node = simplified(node)
        match node:
            case nodes.Number():
                return pyast.constant(node.value)
            case nodes.String():
                return pyast.constant(runtime.to_int(node.value))
            case nodes.Binary() if node.operator in ("+", "-", "*"):
                operators: dict[str, type[ast.operator]] = {
                    "+": ast.Add,
                    "-": ast.Sub,
                    "*": ast.Mult,
                }
                result = ast.BinOp(
                    self.integer(node.left), operators[node.operator](), self.integer(node.right)
                )
                return pyast.call(self.helper(runtime.wrap), result)
            case nodes.Binary() if node.operator in _INT_OPERATORS:
                return ast.BinOp(
                    self.integer(node.left),
                    _INT_OPERATORS[node.operator](),
                    self.integer(node.right),
                )
            case nodes.Binary() if node.operator in _INT_FUNCTIONS:
                function = self.helper(_INT_FUNCTIONS[node.operator])
                return pyast.call(function, self.integer(node.left), self.integer(node.right))
            case nodes.Unary() if node.operator == "-":
                negated = ast.UnaryOp(ast.USub(), self.integer(node.operand))
                return pyast.call(self.helper(runtime.wrap), negated)
            case nodes.Unary() if node.operator == "~":
                return ast.UnaryOp(ast.Invert(), self.integer(node.operand))
            case nodes.Unary() if node.operator == "(int)":
                return self.integer(node.operand)
            case nodes.Unary() if node.operator == "strlen":
                encoded = pyast.call(
                    ast.Attribute(self.text(node.operand), "encode", ast.Load()),
                    pyast.constant("utf-8"),
                    pyast.constant("surrogateescape"),
                )
                return pyast.call(pyast.name("len"), encoded)
            case nodes.Choice():
                return ast.IfExp(
                    self.true(node.condition), self.integer(node.yes), self.integer(node.no)
                )
            case _:
                pass
        if self.is_boolean(node):
            return ast.IfExp(self.nonzero(node), pyast.constant(1), pyast.constant(0))
        value, kind, null = self.value(node)
        if kind is Kind.INT:
            return ast.BoolOp(ast.Or(), [value, pyast.constant(0)]) if null else value
        return pyast.call(self.helper(runtime.to_int), value)

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
        node = simplified(node)
        if isinstance(node, nodes.Unary) and node.operator == "(int)":
            return self.true(node.operand)
        if self.is_boolean(node):
            return self.nonzero(node)
        if isinstance(node, nodes.Number):
            return pyast.constant(node.value > 0)
        if self.checked.opensips and isinstance(node, nodes.Variable):
            return self.nonzero(node)
        return ast.Compare(self.integer(node), [ast.Gt()], [pyast.constant(0)])

    def nonzero(self, node: nodes.Expression) -> ast.expr:
        """What `!`, `&&` and `||` ask."""
        node = simplified(node)
        match node:
            case nodes.Number():
                return pyast.constant(node.value != 0)
            case nodes.Call() if node.function is not None and node.function.returns_bool:
                invoked = self.at(self.invoke(node), node.span)
                if not self.checked.reads_rc:
                    return invoked
                return pyast.call(self.helper(runtime.yes), pyast.name(PACKET), invoked)
            case nodes.Call() | nodes.RouteCall():
                return ast.Compare(self.call_code(node), [ast.Gt()], [pyast.constant(0)])
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
                return pyast.call(pyast.name("bool"), self.value(node)[0])
            case _:
                return ast.Compare(self.integer(node), [ast.NotEq()], [pyast.constant(0)])

    def defined(self, node: nodes.Expression) -> ast.expr:
        """Whether a pseudo-variable is not null; anything more complex counts as defined."""
        if not isinstance(node, nodes.Variable | nodes.Select):
            return pyast.constant(True)
        value, _, null = self.value(node)
        return (
            ast.Compare(value, [ast.IsNot()], [pyast.constant(None)])
            if null
            else pyast.constant(True)
        )

    def compare(self, node: nodes.Binary) -> ast.expr:
        symbol, left, right = node.operator, node.left, node.right
        if symbol in ("<", ">", "<=", ">=", "ieq", "ine"):
            return ast.Compare(self.integer(left), [_COMPARES[symbol]()], [self.integer(right)])
        if symbol in ("eq", "ne"):
            return ast.Compare(self.text(left), [_COMPARES[symbol]()], [self.text(right)])
        if symbol == "=~":
            if node.pattern is None:
                return pyast.call(self.helper(runtime.matches), self.text(left), self.text(right))
            search = ast.Attribute(self.named("pattern", node.pattern), "search", ast.Load())
            return pyast.call(search, self.text(left))
        equal = symbol == "=="
        if self.checked.opensips and isinstance(left, nodes.Variable) and left.is_null_word:
            left, right = right, left
        if isinstance(right, nodes.Variable) and right.is_null_word:
            defined = self.defined(left)
            return ast.UnaryOp(ast.Not(), defined) if equal else defined
        return self.equality(left, simplified(right), equal)

    def equality(self, left: nodes.Expression, right: nodes.Expression, equal: bool) -> ast.expr:
        """`==` and `!=`, as short as the kinds allow."""
        operator: ast.cmpop = ast.Eq() if equal else ast.NotEq()
        if isinstance(right, nodes.String) and not right.value:
            empty = self.text(left)  # x == "" is a test for the empty text, whatever x is
            return ast.UnaryOp(ast.Not(), empty) if equal else pyast.call(pyast.name("bool"), empty)
        kind, null = self.kind(left)
        if isinstance(left, nodes.Call | nodes.RouteCall):
            kind, null = Kind.INT, False
        value = self.operand(left)
        if kind is Kind.INT and not null:
            return ast.Compare(value, [operator], [self.integer(right)])
        if isinstance(right, nodes.String) and kind is Kind.STR:
            return ast.Compare(value, [operator], [pyast.constant(right.value)])
        if isinstance(right, nodes.Number) and right.value:
            if kind is Kind.INT:
                return ast.Compare(value, [operator], [pyast.constant(right.value)])
            if kind is Kind.STR:
                return ast.Compare(value, [operator], [pyast.constant(str(right.value))])
        result = pyast.call(self.helper(runtime.equal), value, self.operand(right))
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
                posonlyargs=[], args=[ast.arg(PACKET)], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            body=statements,
            decorator_list=[],
        )
        self.functions.append(self.at(function, node.span))
        code = pyast.call(
            self.helper(runtime.routed),
            pyast.name(PACKET),
            pyast.call(pyast.name(name), pyast.name(PACKET)),
        )
        return ast.Compare(code, [ast.Gt()], [pyast.constant(0)])

    # -- core keywords

    def keyword(self, node: nodes.Comparison) -> ast.expr:
        """`method == "BYE"`: the value by the keyword, the operand by the value's kind."""
        operand = node.operand
        if isinstance(operand, nodes.Name) and operand.value == "myself":
            return pyast.constant(node.operator == "!=")  # a capture server is nobody's peer
        if node.keyword in ("uri", "status"):
            value: ast.expr = pyast.call(
                self.helper(runtime.uri_or_status), pyast.path(f"{PACKET}.sip")
            )
            kind = Kind.STR
        elif node.keyword in ("msg:len", "max_len"):
            value, kind = pyast.call(pyast.name("len"), pyast.path(f"{PACKET}.sip.raw")), Kind.INT
        else:
            path, kind = _KEYWORDS[node.keyword]
            value = pyast.path(f"{PACKET}.{path}")
        if node.keyword in ("src_ip", "dst_ip", "snd_ip", "to_ip") and isinstance(
            operand, nodes.Network | nodes.String
        ):
            return self.in_network(value, operand.value, node)
        if isinstance(operand, nodes.Name) and node.keyword in ("proto", "af"):
            table = _PROTOCOLS if node.keyword == "proto" else _FAMILIES
            operand = nodes.Number(operand.span, table.get(operand.value.lower(), -1))
        if kind is Kind.INT:
            return ast.Compare(value, [_COMPARES[node.operator]()], [self.integer(operand)])
        text = ast.BoolOp(ast.Or(), [value, pyast.constant("")])
        if node.operator == "=~":
            if node.pattern is not None:
                search = ast.Attribute(self.named("pattern", node.pattern), "search", ast.Load())
                return pyast.call(search, text)
            return pyast.call(self.helper(runtime.matches), text, self.text(operand))
        if node.operator in ("<", ">", "<=", ">="):
            number = pyast.call(self.helper(runtime.to_int), value)
            return ast.Compare(number, [_COMPARES[node.operator]()], [self.integer(operand)])
        return ast.Compare(text, [_COMPARES[node.operator]()], [self.text(operand)])

    def in_network(self, value: ast.expr, text: str, node: nodes.Comparison) -> ast.expr:
        try:
            network = ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            compared: ast.expr = ast.Compare(value, [ast.Eq()], [pyast.constant(text)])
        else:
            compared = pyast.call(
                self.helper(runtime.in_network), value, self.named("network", network)
            )
        return ast.UnaryOp(ast.Not(), compared) if node.operator in ("!=", "ne") else compared

    # -- calls

    def call_code(self, node: nodes.Call | nodes.RouteCall) -> ast.expr:
        """The return code of a call inside an expression."""
        if isinstance(node, nodes.RouteCall):
            return pyast.call(
                self.helper(runtime.routed), pyast.name(PACKET), self.route_result(node)
            )
        invoked = self.at(self.invoke(node), node.span)
        end = self.end("exit", node.span)
        return pyast.call(self.helper(runtime.called), pyast.name(PACKET), invoked, end)

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
        function = self.word(f"f_{node.name}", called, node.function)
        return pyast.call(function, pyast.name(PACKET), *arguments)

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
                return pyast.call(self.helper(runtime.to_int), self.expanded(value))
            case "int":
                return self.integer(node)
            case "str":
                return self.text(node)
            case "value":
                return self.operand(node)
            case _:
                assert isinstance(value, Text)
                return self.named("pv", self.handed(value, writable=bound.how == "writable"))

    def route_result(self, node: nodes.RouteCall) -> ast.expr:
        """What the called route's function gives."""
        target = node.target
        if isinstance(target, nodes.Name | nodes.String | nodes.Number):
            name = str(target.value)
            function = pyast.name("main" if name == "0" else self.routes[name])
            if name in self.recursive:
                return pyast.call(
                    pyast.name("deeper"),
                    pyast.name(PACKET),
                    function,
                    self.named("place", self.place(node.span, self.route)),
                )
            return pyast.call(function, pyast.name(PACKET))
        place = self.named("place", self.place(node.span, self.route))
        return pyast.call(pyast.name("by_name"), pyast.name(PACKET), self.value(target)[0], place)


def _may_give_up(pattern: object) -> bool:
    """Whether a search may end without an answer: a pattern not known yet, or one with limits."""
    return pattern is None or getattr(pattern, "bounded", False)


def simplified(node: nodes.Expression) -> nodes.Expression:
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
