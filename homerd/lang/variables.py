"""Pseudo-variables and text to Python: reads, writes, f-strings, names of the namespace."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeVar

from homerd.lang import nodes, pyast, runtime
from homerd.lang.binding import Argument
from homerd.lang.posix import Filled, SearchLimit, Substitution
from homerd.lang.pyast import PACKET
from homerd.lang.runtime import End
from homerd.lang.source import NOWHERE, Span
from homerd.lang.text import Reference, Text
from homerd.lang.vocabulary import Kind, Readable, Word, Writable

N = TypeVar("N", bound=ast.AST)
Place = Callable[[Span, str], Any]  # makes the place object of a span in a route


class Variables:
    """Compiles pseudo-variables and what is made of them.

    namespace: what the generated module's names stand for.  functions: its definitions so far.
    words: name of the namespace -> the word of a module that it stands for.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.namespace: dict[str, Any] = {
            "ScriptEnd": runtime.ScriptEnd,
            "EvalError": (runtime.EvalError, SearchLimit),
        }
        self.functions: list[ast.stmt] = []
        self.words: dict[str, Word] = {}
        self.route = ""
        self._counter = 0
        self._span = NOWHERE

    # -- names of the namespace

    def named(self, stem: str, value: object) -> ast.expr:
        """A name of the script's namespace for *value*; a str, an int or null stands itself."""
        if value is None or value.__class__ in (str, int):
            return pyast.constant(value)
        self._counter += 1
        name = f"{stem}_{self._counter}"
        self.namespace[name] = value
        return pyast.name(name)

    def word(self, stem: str, call: object, word: Word) -> ast.expr:
        """A name for what a module has a word do."""
        node = self.named(stem, call)
        if isinstance(node, ast.Name):
            self.words[node.id] = word
        return node

    def helper(self, function: Callable[..., Any]) -> ast.expr:
        """A function of runtime.py under its own name."""
        self.namespace[function.__name__] = function
        return pyast.name(function.__name__)

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
            getter = self.word(f"pv_{pyast.identifier(variable.name)}", variable.get, variable)
            value = pyast.call(getter, pyast.name(PACKET), *self.bound(reference.bound))
        for applied in reference.transformations:
            word = applied.transformation
            assert word is not None
            function = self.word(f"tr_{pyast.identifier(word.name)}", word.call, word)
            arguments = self.bound(applied.bound)
            if word.takes_any:
                value = pyast.call(function, value, *arguments)
                kind, null = word.kind, word.null
                continue
            name = self.local("t")
            taken: ast.expr = pyast.name(name) if null else value
            if kind is not Kind.STR:
                taken = pyast.call(self.helper(runtime.to_str), taken)
            changed: ast.expr = pyast.call(function, taken, *arguments)
            if null:
                kept = ast.NamedExpr(ast.Name(name, ast.Store()), value)
                missing = ast.Compare(kept, [ast.Is()], [pyast.constant(None)])
                changed = ast.IfExp(missing, pyast.constant(None), changed)
            value = changed
            kind, null = word.kind, word.null or null
        return value

    def read_path(self, reference: Reference) -> ast.expr:
        """`sip.method` on the packet; a last `[]` subscripts by the first bound value."""
        assert reference.variable is not None
        path = reference.variable.reads
        node = pyast.path(f"{PACKET}.{path.removesuffix('[]')}")
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
                self.expanded(piece) if isinstance(piece, Text) else pyast.constant(piece)
                for piece in pieces
            ]
            listed = ast.List(parts, ast.Load())
            return pyast.call(self.helper(Filled), self.named("substitution", substitution), listed)
        assert isinstance(value, Text)
        function = runtime.substitution if argument.how == "substitution text" else runtime.to_int
        return pyast.call(self.helper(function), self.expanded(value))

    def expanded(self, text: Text) -> ast.expr:
        """A Text as an f-string; null prints as `<null>`."""
        constant = text.constant
        if constant is not None:
            return pyast.constant(constant)
        parts: list[ast.expr] = []
        for part in text.parts:
            if isinstance(part, str):
                parts.append(pyast.constant(part))
                continue
            value = self.reference(part)
            kind, null = reference_kind(Text("", [part]))
            if null and part.transformations:
                value = pyast.call(
                    self.helper(runtime.to_str), value
                )  # prints as nothing, not <null>
            elif null or kind is Kind.ANY:
                value = pyast.call(self.helper(runtime.show), value)
            parts.append(ast.FormattedValue(value, -1, None))
        return ast.JoinedStr(parts)

    # -- assigning, and pseudo-variables handed to functions

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
        setter = self.word("set", variable.set, variable)
        return [
            ast.Expr(pyast.call(setter, pyast.name(PACKET), value, *self.bound(reference.bound)))
        ]

    def unless_null(self, value: ast.expr, otherwise: object) -> ast.expr:
        """*value*, or a constant in place of null."""
        if isinstance(value, ast.Constant):
            return pyast.constant(otherwise) if value.value is None else value
        name = self.local("v")
        test = ast.Compare(
            ast.NamedExpr(ast.Name(name, ast.Store()), value), [ast.Is()], [pyast.constant(None)]
        )
        return ast.IfExp(test, pyast.constant(otherwise), pyast.name(name))

    def handed(self, text: Text, writable: bool) -> Readable | Writable:
        """A pseudo-variable as a value with get and set, made of functions of the script."""
        reference = text.references[0]
        getter, setter = self.local("get_"), self.local("set_")
        packet = ast.arg(PACKET)
        read = ast.Lambda(
            ast.arguments(
                posonlyargs=[], args=[packet], kwonlyargs=[], kw_defaults=[], defaults=[]
            ),
            self.reference(reference),
        )
        self.functions.append(self.at(pyast.assign(getter, read), self._span))
        get = _Late(self.namespace, getter)
        if not writable:
            return Readable(get, text.source)
        body = self.assign(
            nodes.Variable(self._span, text.source, text), pyast.name("value"), Kind.ANY, True
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


class _Late:
    """A function of the script's namespace that exists only once the script is compiled."""

    __slots__ = ("_name", "_namespace")

    def __init__(self, namespace: dict[str, Any], name: str) -> None:
        self._namespace = namespace
        self._name = name

    def __call__(self, *arguments: Any) -> Any:  # what the compiled function takes
        return self._namespace[self._name](*arguments)


def reference_kind(text: Text | None) -> tuple[Kind, bool]:
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


def may_fail(text: Text) -> bool:
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
        if any(part is not None and may_fail(part) for part in inner):
            return True
    return False
