"""Pseudo-variables bound to their words: names resolved, arguments read, transformations chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from homerd.lang import nodes
from homerd.lang.diagnostics import Diagnostics, did_you_mean
from homerd.lang.posix import Substitution, doubt
from homerd.lang.source import Span
from homerd.lang.text import Applied, Reference, Text, TextError, parse_reference, parse_text
from homerd.lang.tokens import Tokens, string_places
from homerd.lang.vocabulary import Parameter, ParameterKind, ScriptFunction, Vocabulary

_RETURN_CODE = frozenset(("rc", "retcode", "?"))


@dataclass(frozen=True, slots=True)
class Argument:
    """A function's argument as codegen.py compiles it.

    how: "constant" (value), "text" (a Text, expanded), "str", "int" or "value" (an expression's
    text, int or value), "readable" or "writable" (a Text of one Reference).
    """

    how: str
    value: object


class Binder:
    """Resolves the pseudo-variables of one script; what is wrong goes to its diagnostics.

    elsewhere: words of modules that are not loaded -> the module, for help; called on a fault only.
    """

    def __init__(
        self,
        tokens: Tokens,
        vocabulary: Vocabulary,
        diagnostics: Diagnostics,
        elsewhere: Callable[[], Mapping[str, str]],
    ) -> None:
        self.tokens = tokens
        self.vocabulary = vocabulary
        self.diagnostics = diagnostics
        self.elsewhere = elsewhere
        self.reads_rc = False

    def text(self, node: nodes.String, read: Callable[[str], Text] = parse_text) -> Text | None:
        try:
            text = read(node.value)
        except TextError as error:
            span = self.inside(node, error.start, error.end)
            self.diagnostics.add("E202", str(error), span, error.help)
            return None
        for reference in text.references:
            self.bind(reference, lambda start, end: self.inside(node, start, end))
        return text

    def reference_text(self, source: str, span: Span) -> Text | None:
        """The Text of one pseudo-variable that stands outside of strings."""
        try:
            reference = parse_reference(source)
        except TextError as error:
            self.diagnostics.add("E202", str(error), span, error.help)
            return None
        self.bind(reference, lambda start, end: _part(span, start, end, len(source)))
        return Text(source, [reference])

    def bind(self, reference: Reference, place: Callable[[int, int], Span]) -> None:
        """Resolve one reference; *place* gives the span of offsets in its text."""
        variable = self.vocabulary.variables.get(reference.name)
        span = place(reference.start, reference.end)
        for inner in (reference.argument, reference.index):
            if inner is not None:
                for item in inner.references:
                    self.bind(item, place)
        self.transformations(reference, place)
        if variable is None:
            self.unknown_variable(reference.name, span)
            return
        reference.variable = variable
        if reference.name in _RETURN_CODE:
            self.reads_rc = True
        if variable.bind is None:
            if reference.argument is not None or reference.index is not None:
                self.diagnostics.add(
                    "E305",
                    f"${reference.name} takes no argument",
                    span,
                    f"write $({reference.name})",
                )
            return
        try:
            reference.bound = tuple(variable.bind(reference.argument, reference.index))
        except ValueError as error:
            self.diagnostics.add("E305", f"${reference.name}: {error}", span)

    def unknown_variable(self, name: str, span: Span) -> None:
        module = self.elsewhere().get(f"${name}")
        bare = name.rstrip(".?")
        if module:
            hint = f'it comes with loadmodule "{module}.so"'
        elif bare != name and bare in self.vocabulary.variables:
            hint = f'"." is part of the name here: write $({bare})'
        else:
            hint = did_you_mean(name, self.vocabulary.variables) if len(name) > 2 else ""
            hint = hint.replace('"', '"$', 1) if hint else "write $$ for the character itself"
        self.diagnostics.add("E202", f'unknown pseudo-variable "${name}"', span, hint)

    def transformations(self, reference: Reference, place: Callable[[int, int], Span]) -> None:
        for applied in reference.transformations:
            span = place(applied.start, applied.start + len(applied.name))
            word = self.vocabulary.transformations.get(applied.name)
            if word is None:
                module = self.elsewhere().get(f"{{{applied.name}}}")
                hint = (
                    f'it comes with loadmodule "{module}.so"'
                    if module
                    else did_you_mean(applied.name, self.vocabulary.transformations)
                )
                self.diagnostics.add("E203", f'unknown transformation "{applied.name}"', span, hint)
                continue
            applied.transformation = word
            applied.bound = self.transformation_arguments(applied, word.parameters, span, place)

    def transformation_arguments(
        self,
        applied: Applied,
        parameters: tuple[Parameter, ...],
        span: Span,
        place: Callable[[int, int], Span],
    ) -> tuple[object, ...]:
        pieces: list[tuple[str, int]] = []
        position = applied.argument_start
        if applied.argument or any(item.required for item in parameters):
            # A separator may itself be the last argument, as in {s.select,1,,}.
            for piece in applied.argument.split(",", max(0, len(parameters) - 1)):
                pieces.append((piece, position))
                position += len(piece) + 1
        if not parameters and applied.argument:
            self.diagnostics.add("E301", f"{{{applied.name}}} takes no argument", span)
            return ()
        required = sum(item.required for item in parameters)
        if len(pieces) < required:
            self.diagnostics.add(
                "E301", f"{{{applied.name}}} takes {required} arguments, got {len(pieces)}", span
            )
            return ()
        bound: list[object] = []
        for parameter, (piece, start) in zip(parameters, pieces, strict=False):
            where = place(start, start + max(1, len(piece)))
            try:
                bound.append(self.transformation_argument(parameter, piece, start, place))
            except TextError as error:
                self.diagnostics.add("E202", str(error), place(error.start, error.end), error.help)
            except ValueError as error:
                self.diagnostics.add("E305", f"{{{applied.name}}}: {error}", where)
        return tuple(bound)

    def transformation_argument(
        self, parameter: Parameter, piece: str, start: int, place: Callable[[int, int], Span]
    ) -> object:
        """A constant, or a Text; an int parameter's Text is marked by an Argument."""
        if parameter.kind is ParameterKind.CONSTANT:
            assert parameter.convert is not None
            return parameter.convert(piece)
        if parameter.kind is ParameterKind.SUBSTITUTION:
            return self.substitution(piece, start, place)
        text = (
            parse_text(piece, start)
            if "$" in piece
            else Text(piece, [piece] if piece else [], start)
        )
        for reference in text.references:
            self.bind(reference, place)
        if parameter.kind is ParameterKind.NUMBER:
            constant = text.constant
            if constant is None:
                return Argument("int text", text)
            try:
                return int(constant.strip(), 0)
            except ValueError:
                raise ValueError(f"expected a number, got {constant!r}") from None
        return text

    def substitution(self, piece: str, start: int, place: Callable[[int, int], Span]) -> Argument:
        """`/pattern/replacement/flags`, or a pseudo-variable that holds it."""
        if piece.startswith("$"):
            text = parse_text(piece, start)
            for reference in text.references:
                self.bind(reference, place)
            return Argument("substitution text", text)
        compiled = Substitution(piece)
        if found := doubt(compiled.pattern.pattern):
            self.diagnostics.add("W905", found[0], place(start, start + len(piece)), found[1])
        pieces: list[object] = []
        for item in compiled.replacement:
            text = parse_text(item, start) if isinstance(item, str) else Text("", [])
            for reference in text.references:
                self.bind(reference, place)
            pieces.append(item if isinstance(item, int) else text)
        if any(isinstance(item, Text) and item.constant is None for item in pieces):
            return Argument("filled", (compiled, pieces))
        return Argument("constant", compiled)

    # -- places

    def inside(self, node: nodes.String, start: int, end: int) -> Span:
        """The span of characters *start* to *end* of a string's value, as they were typed."""
        pieces = self.tokens.strings.get(node.token)
        if not pieces:
            return node.span
        places = list(string_places(pieces))
        if len(places) != len(node.value) + 1:  # a substitution changed the text
            return node.span
        first_file, first = places[min(start, len(places) - 1)]
        last_file, last = places[max(start, min(end, len(places) - 1) - 1)]
        line, column = first_file.locate(first)
        end_line, end_column = last_file.locate(last)
        return Span(line, column, end_line, end_column + 1)


def _part(span: Span, start: int, end: int, length: int) -> Span:
    """Characters of a pseudo-variable that stands on one line; all of it when that is not so."""
    if span.line != span.end_line or span.end_column - span.column != length:
        return span
    return Span(span.line, span.column + start, span.line, span.column + end)


def takes(variants: Iterable[ScriptFunction]) -> str:
    """`takes 1 to 3 arguments`, over all variants of a function."""
    counts = [
        (
            sum(item.required for item in variant.parameters),
            len(variant.parameters),
            variant.variadic,
        )
        for variant in variants
    ]
    least, most = min(low for low, _, _ in counts), max(high for _, high, _ in counts)
    if any(variadic for _, _, variadic in counts):
        return f"takes at least {least} argument{'s' if least != 1 else ''}"
    if most == 0:
        return "takes no arguments"
    amount = str(least) if least == most else f"{least} to {most}"
    return f"takes {amount} argument{'s' if most != 1 else ''}"
