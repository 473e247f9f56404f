"""Nodes and a Vocabulary to bound nodes: names resolved, arguments counted, constants converted.

Does what Kamailio's fixups do at load, and reports everything it finds.
"""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from homerd.lang import nodes
from homerd.lang.advice import Adviser
from homerd.lang.binding import Argument, Binder, takes
from homerd.lang.diagnostics import Diagnostics, did_you_mean
from homerd.lang.dialect import Dialect
from homerd.lang.plan import capture_name, chosen
from homerd.lang.posix import compile_posix, doubt
from homerd.lang.source import Span
from homerd.lang.text import (
    Reference,
    Text,
    first_reference,
    parse_text,
)
from homerd.lang.tokens import Tokens
from homerd.lang.vocabulary import Kind, Parameter, ParameterKind, ScriptFunction, Vocabulary

_ARITHMETIC = frozenset(("-", "*", "/", "mod", "&", "|", "^", "<<", ">>"))
_RELATIONAL = frozenset(("<", ">", "<=", ">="))
_LOGICAL = frozenset(("&&", "||"))
_NUMERIC_KEYWORDS = frozenset(
    ("src_port", "dst_port", "proto", "af", "msg:len", "snd_port", "to_port", "max_len")
)


@dataclass(slots=True)
class Checked:
    """What check.py learnt of a whole script.

    routes: name -> block; events, requests, replies and plans likewise.
    calls: a route's name ("0" the main route) -> the routes it calls by name.
    asks_routes: whether an expression looks at what a route returned.
    opensips: whether the script speaks that dialect.
    functions: names of those of modules that it calls.
    timers: (route, seconds) of each `timer_route`.
    log_prefix: what stands before each line of the script's, with its pseudo-variables.
    """

    routes: dict[str, nodes.Block] = field(default_factory=dict)
    events: dict[str, nodes.Block] = field(default_factory=dict)
    plans: dict[str, nodes.Block] = field(default_factory=dict)
    requests: list[nodes.Block] = field(default_factory=list)
    replies: list[nodes.Block] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    calls: dict[str, set[str]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    calls_by_value: bool = False
    reads_rc: bool = False
    asks_routes: bool = False
    opensips: bool = False
    timers: list[tuple[str, int]] = field(default_factory=list)
    log_prefix: Text | None = None


def check(
    script: nodes.Script,
    tokens: Tokens,
    vocabulary: Vocabulary,
    diagnostics: Diagnostics,
    elsewhere: Callable[[], Mapping[str, str]] | None = None,
) -> Checked:
    """Bind every name of *script*; what is wrong goes to *diagnostics*.

    elsewhere: words of modules that are not loaded -> the module, for help; called on a fault only.
    """
    checker = _Checker(script, tokens, vocabulary, diagnostics, elsewhere or dict)
    return checker.run()


class _Checker(Binder):
    def __init__(
        self,
        script: nodes.Script,
        tokens: Tokens,
        vocabulary: Vocabulary,
        diagnostics: Diagnostics,
        elsewhere: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__(tokens, vocabulary, diagnostics, elsewhere)
        self.script = script
        self.opensips = tokens.told.dialect is Dialect.OPENSIPS
        self.checked = Checked(opensips=self.opensips)
        self.inside_route = "0"

    def run(self) -> Checked:
        blocks = [item for item in self.script.items if isinstance(item, nodes.Block)]
        for item in self.script.items:
            if isinstance(item, nodes.Global) and item.name == "log_prefix":
                self.checked.log_prefix = self.text(nodes.String(item.value_span, str(item.value)))
        for block in blocks:
            self.declare(block)
        for block in blocks:
            self.inside_route = block.name if block.is_named else "0"
            self.body(block.body)
        self.warn_of_uncalled()
        if not self.diagnostics.errors:
            named = set().union(*self.checked.calls.values())
            by_value = self.checked.calls_by_value
            Adviser(self.diagnostics, self.checked.routes, named, by_value).advise(self.script)
        self.checked.reads_rc = self.reads_rc
        return self.checked

    def declare(self, block: nodes.Block) -> None:
        if block.kind == "request":
            self.checked.requests.append(block)
        elif block.kind == "reply":
            self.checked.replies.append(block)
        elif block.kind in ("event", "plan") or block.is_named:
            if block.kind != "route":
                self.checked.called.add(block.name)
            if block.kind == "timer":
                self.timer(block)
            table = self.checked.routes if block.is_named else self.checked.events
            table = self.checked.plans if block.kind == "plan" else table
            if block.name in table:
                first = self.diagnostics.sources.find(table[block.name].name_span.line)
                where = f"the first is at {first[0].name}:{first[1]}" if first else ""
                words = {"route": "route", "event": "event_route", "plan": "capture"}
                word = words.get(block.kind)
                name = f"{word}[{block.name}]" if word else block.name
                self.diagnostics.add("E205", f"{name} is defined twice", block.name_span, where)
            else:
                table[block.name] = block

    def timer(self, block: nodes.Block) -> None:
        """Keep how often a `timer_route` runs."""
        if block.seconds < 1:
            self.diagnostics.add(
                "E302",
                f"a timer_route takes seconds from 1 on, got {block.seconds}",
                block.name_span,
            )
            return
        self.checked.timers.append((block.name, block.seconds))

    def warn_of_uncalled(self) -> None:
        if self.checked.calls_by_value:
            return
        mentioned = "\n".join(
            str(item.value) for item in self.script.items if isinstance(item, nodes.ModParamLine)
        )
        for name, block in self.checked.routes.items():
            if name not in self.checked.called and name not in mentioned:
                self.diagnostics.add("W902", f"route[{name}] is never called", block.name_span)
        for name in self.checked.plans.keys() - {*chosen(self.checked.plans)}:
            message = f"no packet is seen by {capture_name(name)}: other plans come before it"
            self.diagnostics.add("W902", message, self.checked.plans[name].name_span)

    # -- statements

    def body(self, statements: list[nodes.Statement]) -> None:
        for index, statement in enumerate(statements):
            self.statement(statement)
            if isinstance(statement, nodes.Leave | nodes.Break) and index + 1 < len(statements):
                self.diagnostics.add("W904", "this is never reached", statements[index + 1].span)
                for rest in statements[index + 1 :]:
                    self.statement(rest)
                return

    def statement(self, node: nodes.Statement) -> None:
        match node:
            case nodes.CallStatement():
                if isinstance(node.call, nodes.RouteCall):
                    self.route_call(node.call)
                else:
                    self.call(node.call)
            case nodes.Assignment():
                self.assignment(node)
            case nodes.If():
                self.expression(node.condition)
                self.body(node.then)
                self.body(node.otherwise)
            case nodes.While():
                self.expression(node.condition)
                self.body(node.body)
            case nodes.Switch():
                self.switch(node)
            case nodes.Leave() if node.value is not None:
                self.expression(node.value)
                if self.known(node.value) is Kind.STR:
                    self.diagnostics.add(
                        "E303", f"{node.kind} takes a number, got text", node.value.span
                    )
            case _:
                pass

    def assignment(self, node: nodes.Assignment) -> None:
        self.expression(node.target)
        self.expression(node.value)
        text = node.target.text
        if text is None:
            return
        reference = text.references[0]
        if reference.transformations:
            self.diagnostics.add(
                "E304",
                "a pseudo-variable with a transformation cannot be assigned to",
                node.target.span,
            )
        elif reference.variable is not None and not reference.variable.writable:
            self.diagnostics.add("E304", f"${reference.name} can only be read", node.target.span)

    def switch(self, node: nodes.Switch) -> None:
        self.expression(node.subject)
        kinds: set[Kind] = set()
        defaults = 0
        for index, case in enumerate(node.cases):
            if case.label is None:
                defaults += 1
                if defaults > 1:
                    self.diagnostics.add("E307", "a second default", case.span)
            elif case.regex:
                kinds.add(Kind.STR)
                assert isinstance(case.label, nodes.String)
                case.pattern = self.pattern(case.label, ignore_case=False)
            elif isinstance(case.label, nodes.Number | nodes.String):
                kinds.add(Kind.INT if isinstance(case.label, nodes.Number) else Kind.STR)
            else:
                self.diagnostics.add("E307", "a case takes a constant", case.span)
            if len(kinds) > 1:
                self.diagnostics.add(
                    "E307", "cases of numbers and of text in one switch", case.span
                )
                kinds = {Kind.STR}
            self.body(case.body)
            if index == 0 and case.label is None and self._has_text_cases(node):
                self.diagnostics.add(
                    "E307", "default comes first in a switch over text", case.span, "put it last"
                )

    @staticmethod
    def _has_text_cases(node: nodes.Switch) -> bool:
        return any(isinstance(case.label, nodes.String) for case in node.cases)

    # -- expressions

    def expression(self, node: nodes.Expression) -> None:
        match node:
            case nodes.Variable():
                self.variable(node)
            case nodes.Select():
                node.text = self.reference_text(f"$sel({node.source})", node.span)
            case nodes.Call():
                self.call(node)
            case nodes.RouteCall():
                self.checked.asks_routes = True
                self.route_call(node)
            case nodes.Unary():
                self.unary(node)
            case nodes.Binary():
                self.binary(node)
            case nodes.Choice():
                for part in (node.condition, node.yes, node.no):
                    self.expression(part)
            case nodes.Comparison():
                self.comparison(node)
            case nodes.BlockValue():
                self.body(node.body)
            case nodes.Name():
                self.diagnostics.add(
                    "E101",
                    f'"{node.value}" is no value',
                    node.span,
                    f'as text it is "{node.value}" in quotes',
                )
            case _:
                pass

    def variable(self, node: nodes.Variable) -> None:
        node.text = self.reference_text(node.source, node.span)

    def unary(self, node: nodes.Unary) -> None:
        self.expression(node.operand)
        known = self.known(node.operand)
        if node.operator in ("!", "-", "~") and known is Kind.STR:
            self.diagnostics.add(
                "E303", f'"{node.operator}" takes a number, got text', node.operand.span
            )
        if node.operator in ("strlen", "strempty", "defined") and known is Kind.INT:
            self.diagnostics.add(
                "E303", f"{node.operator} takes text, got a number", node.operand.span
            )

    def binary(self, node: nodes.Binary) -> None:
        self.expression(node.left)
        self.expression(node.right)
        left, right, symbol = self.known(node.left), self.known(node.right), node.operator
        if symbol in _ARITHMETIC | _RELATIONAL | _LOGICAL:
            for side, known in ((node.left, left), (node.right, right)):
                if known is Kind.STR:
                    self.diagnostics.add("E303", f'"{symbol}" takes numbers, got text', side.span)
        elif symbol in ("==", "!=", "+"):
            if left is Kind.INT and right is Kind.STR:
                help_text = (
                    "! binds tighter than ==: write !(a == b), or a != b"
                    if isinstance(node.left, nodes.Unary) and node.left.operator == "!"
                    else ""
                )
                self.diagnostics.add(
                    "E303", f'"{symbol}" cannot join a number and text', node.span, help_text
                )
        elif symbol in ("=~", "eq", "ne") and left is Kind.INT:
            self.diagnostics.add("E303", f'"{symbol}" takes text, got a number', node.left.span)
        if symbol == "=~" and isinstance(node.right, nodes.String):
            node.pattern = self.pattern(node.right)

    def pattern(self, node: nodes.String, *, ignore_case: bool = True) -> object:
        if found := doubt(node.value):
            self.diagnostics.add("W905", found[0], node.span, found[1])
        try:
            return compile_posix(node.value, ignore_case=ignore_case)
        except ValueError as error:
            self.diagnostics.add("E306", str(error), node.span)
            return None

    def comparison(self, node: nodes.Comparison) -> None:
        operand = node.operand
        if isinstance(operand, nodes.Name):
            return
        if isinstance(operand, nodes.Network):
            if not _is_network(operand.value):
                self.diagnostics.add("E302", f"{operand.value} is no network", operand.span)
            return
        self.expression(operand)
        if node.operator == "=~" and isinstance(operand, nodes.String):
            node.pattern = self.pattern(operand)
        if node.keyword in _NUMERIC_KEYWORDS and node.operator == "=~":
            self.diagnostics.add("E303", f"{node.keyword} is a number: =~ takes text", node.span)

    def known(self, node: nodes.Expression) -> Kind:
        """The kind Kamailio knows at load: of literals, operators, selects and calls."""
        match node:
            case nodes.String() | nodes.Select():
                return Kind.STR
            case nodes.Variable() | nodes.Choice() | nodes.Name() | nodes.Network():
                return Kind.ANY
            case nodes.Unary():
                return Kind.STR if node.operator == "(str)" else Kind.INT
            case nodes.Binary() if node.operator == "+":
                return self.known(node.left)
            case _:
                return Kind.INT

    # -- calls

    def route_call(self, node: nodes.RouteCall) -> None:
        target = node.target
        if isinstance(target, nodes.Name | nodes.String | nodes.Number):
            name = str(target.value)
            self.checked.called.add(name)
            self.checked.calls.setdefault(self.inside_route, set()).add(name)
            if name != "0" and name not in self.checked.routes:
                literal = isinstance(target, nodes.String) and "$" in name
                self.diagnostics.add(
                    "E204",
                    f'unknown route "{name}"',
                    target.span,
                    'text is not expanded here: write route("R" + $var(x))'
                    if literal
                    else did_you_mean(name, self.checked.routes),
                )
            return
        self.checked.calls_by_value = True
        self.expression(target)

    def call(self, node: nodes.Call) -> None:
        variants = self.vocabulary.functions.get(node.name)
        if not variants:
            self.unknown_function(node)
            return
        self.checked.functions.add(node.name)
        count = len(node.arguments)
        node.function = next((item for item in variants if item.accepts(count)), None)
        if node.function is None:
            self.diagnostics.add("E301", f"{node.name}() {takes(variants)}, got {count}", node.span)
            return
        if node.function.does_nothing:
            message = f"{node.name}() does nothing here: {node.function.does_nothing}"
            self.diagnostics.add("W912", message, node.span)
        parameters = node.function.parameters
        node.bound = []
        for index, argument in enumerate(node.arguments):
            parameter = parameters[min(index, len(parameters) - 1)]
            if isinstance(argument, nodes.LeftOut):
                node.bound.append(self.left_out(node.function, index, argument.span))
            else:
                node.bound.append(self.argument(node.name, parameter, argument))

    def left_out(self, function: ScriptFunction, index: int, span: Span) -> Argument | None:
        """What the function takes when this argument is not given."""
        given = list(inspect.signature(function.call).parameters.values())[1:]
        default = given[index].default if index < len(given) else inspect.Parameter.empty
        if default is inspect.Parameter.empty:
            self.diagnostics.add(
                "E301", f"{function.name}() needs this argument: {given[index].name}", span
            )
            return None
        return Argument("constant", default)

    def unknown_function(self, node: nodes.Call) -> None:
        for argument in node.arguments:
            if not isinstance(argument, nodes.Name):
                self.expression(argument)
        module = self.elsewhere().get(f"{node.name}()")
        if module:
            hint = f'it comes with loadmodule "{module}.so"'
        elif node.name in ("elseif", "elif", "elsif"):
            hint = 'write "else if"'
        else:
            hint = did_you_mean(node.name, self.vocabulary.functions)
            if not hint:
                others = [word[:-2] for word in self.elsewhere() if word.endswith("()")]
                hint = did_you_mean(node.name, others)
                near = hint.split('"')[1] if hint else ""
                if near:
                    hint += f' It comes with loadmodule "{self.elsewhere()[near + "()"]}.so"'
        self.diagnostics.add("E201", f'unknown function "{node.name}"', node.name_span, hint)

    def argument(
        self, function: str, parameter: Parameter, node: nodes.Expression
    ) -> Argument | None:
        if isinstance(node, nodes.Call | nodes.RouteCall) or _contains_call(node):
            self.diagnostics.add(
                "E308",
                f"a call cannot stand in the arguments of {function}()",
                node.span,
                "keep its result in a $var first",
            )
            return None
        if isinstance(node, nodes.Name):
            flag = self.script.flags.get(node.value)
            node = (
                nodes.String(node.span, node.value)
                if flag is None
                else nodes.Number(node.span, flag)
            )
        kind = parameter.kind
        if kind is ParameterKind.CONSTANT:
            return self.constant(function, parameter, node)
        if kind in (ParameterKind.READABLE, ParameterKind.WRITABLE):
            if parameter.convert is not None and not _names_variable(node):
                return self.constant(function, parameter, node)
            return self.named_variable(function, parameter, node)
        if isinstance(node, nodes.Number):
            return Argument(
                "constant",
                node.value
                if kind in (ParameterKind.NUMBER, ParameterKind.VALUE)
                else str(node.value),
            )
        if isinstance(node, nodes.String):
            return self.literal(function, parameter, node)
        if kind is ParameterKind.FORMAT and not self.opensips:
            self.diagnostics.add(
                "E302",
                f"{function}() takes a constant here, got an expression",
                node.span,
                'write pseudo-variables into the text: "a $rm"',
            )
            return None
        self.expression(node)
        if kind is ParameterKind.NUMBER:
            return Argument("int", node)
        return Argument("value" if kind is ParameterKind.VALUE else "str", node)

    def literal(self, function: str, parameter: Parameter, node: nodes.String) -> Argument | None:
        """A string literal: kept as written, or read as text with pseudo-variables."""
        if parameter.kind is ParameterKind.PLAIN and not self.opensips:
            return Argument("constant", node.value)
        one = parameter.kind is ParameterKind.TEXT_OR_PV and not self.opensips
        read = first_reference if one else parse_text
        text = self.text(node, read)
        if text is None:
            return None
        if parameter.convert is not None and text.constant is not None:
            return self.constant(function, parameter, node)
        return Argument("text" if parameter.kind is not ParameterKind.NUMBER else "int text", text)

    def constant(
        self, function: str, parameter: Parameter, node: nodes.Expression
    ) -> Argument | None:
        if not isinstance(node, nodes.String | nodes.Number):
            self.diagnostics.add(
                "E302", f"{function}() takes a constant here, got an expression", node.span
            )
            return None
        value = node.value
        if parameter.choices and value not in parameter.choices:
            known = ", ".join(f'"{choice}"' for choice in parameter.choices)
            self.diagnostics.add("E302", f"{function}() takes {known}, got {value!r}", node.span)
            return None
        if parameter.route:
            self.checked.called.add(str(value))
            if str(value) not in self.checked.routes:
                self.diagnostics.add(
                    "E204",
                    f'unknown route "{value}"',
                    node.span,
                    did_you_mean(str(value), self.checked.routes),
                )
        assert parameter.convert is not None
        try:
            return Argument("constant", parameter.convert(value))
        except ValueError as error:
            place: tuple[int, int] | None = getattr(error, "span", None)
            span = node.span
            if isinstance(node, nodes.String) and place is not None:
                span = self.inside(node, *place)
            self.diagnostics.add("E302", f"{function}(): {error}", span)
            return None

    def named_variable(
        self, function: str, parameter: Parameter, node: nodes.Expression
    ) -> Argument | None:
        how = "writable" if parameter.kind is ParameterKind.WRITABLE else "readable"
        if isinstance(node, nodes.Variable):
            self.variable(node)
            text = node.text
        elif isinstance(node, nodes.String) and _names_variable(node):
            read = parse_text if parameter.convert is None else first_reference
            text = self.text(nodes.String(node.span, node.value.strip(), node.token), read)
        else:
            self.diagnostics.add(
                "E302", f'{function}() takes a pseudo-variable here, as "$var(x)"', node.span
            )
            return None
        if text is None:
            return None
        reference, behind = text.parts[0], text.parts[1:]
        if not isinstance(reference, Reference) or (behind and behind[0] not in parameter.choices):
            self.diagnostics.add("E302", f"{function}() takes one pseudo-variable here", node.span)
            return None
        if behind:
            text = Text(text.source, [reference], text.offset)
        variable = reference.variable
        if how == "writable" and variable is not None and not variable.writable:
            self.diagnostics.add("E304", f"${reference.name} can only be read", node.span)
        return Argument(how, text)


def always_ends(block: nodes.Block, kind: str) -> bool:
    """Whether every way through *block* ends with a statement of that kind on its top level."""
    return any(isinstance(item, nodes.Leave) and item.kind == kind for item in block.body)


def _names_variable(node: nodes.Expression) -> bool:
    if isinstance(node, nodes.String):
        return node.value.strip().startswith("$")
    return isinstance(node, nodes.Variable)


def _contains_call(node: nodes.Expression) -> bool:
    match node:
        case nodes.Call() | nodes.RouteCall():
            return True
        case nodes.Unary():
            return _contains_call(node.operand)
        case nodes.Binary():
            return _contains_call(node.left) or _contains_call(node.right)
        case _:
            return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
    return True
