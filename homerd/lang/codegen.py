"""Bound nodes to a Python module as `ast`, at the script's own lines.

A route block becomes a function of the packet that gives its return code, or an End when the
script is over.
"""

from __future__ import annotations

import ast

from homerd.lang import nodes, pyast, runtime
from homerd.lang.check import Checked
from homerd.lang.expressions import Expressions
from homerd.lang.pyast import PACKET
from homerd.lang.source import Span
from homerd.lang.text import Text
from homerd.lang.variables import Place


class Generator(Expressions):
    """Compiles the blocks of one script into one namespace."""

    def __init__(
        self, checked: Checked, place: Place, max_while_loops: int, max_depth: int
    ) -> None:
        super().__init__(checked, place)
        self.max_while_loops = max_while_loops
        self.max_depth = max_depth

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
            statements.append(self.at(ast.Return(pyast.constant(1)), bodies[-1].span))
        function = ast.FunctionDef(
            name=python_name,
            args=ast.arguments(
                posonlyargs=[], args=[ast.arg(PACKET)], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            body=statements,
            decorator_list=[],
        )
        self.functions.append(self.at(function, span))

    def text_function(self, python_name: str, text: Text) -> None:
        """One function that gives a text of *packet*."""
        arguments = ast.arguments(
            posonlyargs=[], args=[ast.arg(PACKET)], kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        made = pyast.assign(python_name, ast.Lambda(arguments, self.expanded(text)))
        self.functions.append(self.at(made, Span(1, 1, 1, 1)))

    def named_routes(self) -> None:
        """Every `route[NAME]`."""
        for name, item in self.checked.routes.items():
            self.block(self.routes[name], name, [item], top=False)

    def function_name(self, route: str) -> str:
        """The Python function of `route[NAME]`."""
        return self.routes[route]

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
            out.append(ast.Return(pyast.constant(1)))
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
                return [ast.Return(pyast.constant(0))]

    def guarded(
        self, body: list[ast.stmt], span: Span, otherwise: list[ast.stmt] | None = None
    ) -> list[ast.stmt]:
        """*body*, not carried out when an expression in it has no value; that is reported."""
        report = pyast.call(
            pyast.path(f"{PACKET}.state.report"),
            pyast.call(pyast.name("str"), pyast.name("error")),
            self.named("place", self.place(span, self.route)),
        )
        handler = ast.ExceptHandler(
            type=pyast.name("EvalError"), name="error", body=[ast.Expr(report), *(otherwise or [])]
        )
        return [ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[])]

    def call_statement(self, call: nodes.Call | nodes.RouteCall, tail: bool) -> list[ast.stmt]:
        result = self.local("r")
        if isinstance(call, nodes.RouteCall):
            out: list[ast.stmt] = [pyast.assign(result, self.route_result(call))]
            ended = ast.Compare(
                ast.Attribute(pyast.name(result), "__class__", ast.Load()),
                [ast.IsNot()],
                [pyast.name("int")],
            )
            out.append(ast.If(ended, [ast.Return(pyast.name(result))], []))
            return (
                out
                + self.keep_code(pyast.name(result))
                + ([ast.Return(pyast.name(result))] if tail else [])
            )
        assert call.function is not None
        if call.function.unasked is not None and not self._asked(tail):
            out = [ast.Expr(self.at(self.invoke(call, call.function.unasked), call.span))]
            return [*out, ast.Return(pyast.constant(1))] if tail else out
        invoked = self.at(self.invoke(call), call.span)
        if call.function.returns_none:
            out = [ast.Expr(invoked), *self.keep_code(pyast.constant(1))]
            return [*out, ast.Return(pyast.constant(1))] if tail else out
        if call.function.returns_bool:
            number = ast.IfExp(invoked, pyast.constant(1), pyast.constant(-1))
            if tail:
                return [
                    pyast.assign(result, number),
                    *self.keep_code(pyast.name(result)),
                    ast.Return(pyast.name(result)),
                ]
            return self.keep_code(number) if self.checked.reads_rc else [ast.Expr(invoked)]
        out = [
            pyast.assign(result, pyast.call(self.helper(runtime.code), invoked)),
            ast.If(
                ast.UnaryOp(ast.Not(), pyast.name(result)),
                [ast.Return(self.end("exit", call.span))],
                [],
            ),
        ]
        return (
            out
            + self.keep_code(pyast.name(result))
            + ([ast.Return(pyast.name(result))] if tail else [])
        )

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
        return [ast.Assign([ast.Attribute(pyast.name(PACKET), "rc", ast.Store())], value)]

    def if_(self, node: nodes.If, tail: bool) -> list[ast.stmt]:
        then = self.body(node.then, tail)
        otherwise = self.body(node.otherwise, tail) if node.otherwise else []
        if tail and not otherwise:
            otherwise = [ast.Return(pyast.constant(1))]
        if not self.fallible(node.condition):
            return [ast.If(self.true(node.condition), then, otherwise)]
        flag = self.local("c")
        tested = self.guarded(
            [pyast.assign(flag, self.true(node.condition))],
            node.condition.span,
            [pyast.assign(flag, pyast.constant(False))],
        )
        return [*tested, ast.If(pyast.name(flag), then, otherwise)]

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
                [pyast.assign(flag, test)],
                node.condition.span,
                [pyast.assign(flag, pyast.constant(False))],
            )
            head.append(ast.If(ast.UnaryOp(ast.Not(), pyast.name(flag)), [ast.Break()], []))
            test = pyast.constant(True)
        if self.max_while_loops:
            report = pyast.call(
                pyast.path(f"{PACKET}.state.report"),
                pyast.constant(f"while went round {self.max_while_loops} times (max_while_loops)"),
                self.named("place", self.place(node.span, self.route)),
            )
            limit = ast.Compare(
                pyast.name(count), [ast.Eq()], [pyast.constant(self.max_while_loops)]
            )
            head.append(ast.If(limit, [ast.Expr(report), ast.Break()], []))
            head.append(ast.AugAssign(ast.Name(count, ast.Store()), ast.Add(), pyast.constant(1)))
        return [pyast.assign(count, pyast.constant(0)), ast.While(test, [*head, *inner], [])]

    def switch(self, node: nodes.Switch) -> list[ast.stmt]:
        """A chain that finds the label, then the bodies in order, each run from its label on."""
        subject, chosen = self.local("s"), self.local("k")
        labels = [case for case in node.cases if case.label is not None]
        numeric = bool(labels) and isinstance(labels[0].label, nodes.Number)
        text = self.integer(node.subject) if numeric else self.text(node.subject)
        default = next(
            (i for i, case in enumerate(node.cases) if case.label is None), len(node.cases)
        )
        choice: list[ast.stmt] = [pyast.assign(chosen, pyast.constant(default))]
        for index in range(len(node.cases) - 1, -1, -1):
            case = node.cases[index]
            if case.label is None:
                continue
            if case.regex:
                search = ast.Attribute(self.named("pattern", case.pattern), "search", ast.Load())
                test: ast.expr = pyast.call(search, pyast.name(subject))
            else:
                assert isinstance(case.label, nodes.Number | nodes.String)
                test = ast.Compare(
                    pyast.name(subject), [ast.Eq()], [pyast.constant(case.label.value)]
                )
            choice = [
                self.at(
                    ast.If(test, [pyast.assign(chosen, pyast.constant(index))], choice), case.span
                )
            ]
        self._loops += 1
        bodies: list[ast.stmt] = []
        for index, case in enumerate(node.cases):
            inner = self.body(case.body) if case.body else []
            if inner:
                reached = ast.Compare(pyast.name(chosen), [ast.LtE()], [pyast.constant(index)])
                bodies.append(self.at(ast.If(reached, inner, []), case.span))
        self._loops -= 1
        bodies.append(ast.Break())
        out = [pyast.assign(subject, text), *choice, ast.While(pyast.constant(True), bodies, [])]
        return self.guarded(out, node.span) if self.fallible(node.subject) else out

    def leave(self, node: nodes.Leave) -> list[ast.stmt]:
        if node.kind != "return":
            out: list[ast.stmt] = []
            if node.value is not None and not isinstance(node.value, nodes.Number):
                out.append(ast.Expr(self.integer(node.value)))
            return [*out, ast.Return(self.end(node.kind, node.span))]
        returned: list[ast.stmt] = []
        if self._top:
            flag = ast.Attribute(pyast.name(PACKET), "returned", ast.Store())
            returned = [ast.Assign([flag], pyast.constant(True))]
        if node.value is None:
            return [*returned, ast.Return(pyast.constant(1))]
        if isinstance(node.value, nodes.Number):
            number = node.value.value
            value = pyast.constant(number) if number else self.end("return", node.span)
            return [*returned, ast.Return(value)]
        code = self.raw_code(node.value)
        result = ast.BoolOp(ast.Or(), [code, self.end("return", node.span)])
        out = [*returned, ast.Return(result)]
        if self.fallible(node.value):
            return self.guarded(out, node.span, [ast.Return(pyast.constant(-1))])
        return out

    def raw_code(self, node: nodes.Expression) -> ast.expr:
        """A number, for a call its return code itself."""
        if isinstance(node, nodes.Call | nodes.RouteCall):
            return self.call_code(node)
        return self.integer(node)
