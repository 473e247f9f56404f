"""Tokens to nodes: Lark's LALR parser, and the errors it meets.

A statement that cannot be read is reported, taken out, and the rest is read again, so that one look
shows every mistake of a file.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken
from lark.lexer import Lexer

from homerd.lang import lexer, nodes
from homerd.lang.diagnostics import Diagnostics
from homerd.lang.dialect import Dialect
from homerd.lang.source import NOWHERE, Span
from homerd.lang.tokens import Tokens, module_name

MAX_SYNTAX_ERRORS = 25
_NO_ASSIGNMENT = frozenset(("PLUS", "MINUS", "COLON", "DOT", "STAR", "SLASH", "BIT_OR", "BIT_AND"))
_ITEMS = frozenset((
    "GLOBAL", "LOADMODULE", "MODPARAM", "MPATH", "CFGENGINE", "FLAGS", "ROUTE", "REQUEST_ROUTE",
    "REPLY_ROUTE", "OTHER_ROUTE", "EVENT_ROUTE", "TIMER_ROUTE", "STARTUP_ROUTE", "CAPTURE",
))  # fmt: skip
_OPERATORS = {"not": "!", "desc": "desc", "%": "mod"}
_LOGICAL = {"OR": "||", "AND": "&&"}  # by token: in a plan & and | are spelled for them, too
_GRAMMARS = {Dialect.PLAN: "plan.lark"}
_AVP = re.compile(r"\$\(?(avp\([^()]*\))\)?")


class _TokenLexer(Lexer):
    """Hands preprocess.py's tokens to Lark."""

    def __init__(self, lexer_conf: object) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any = None) -> Iterator[Token]:
        """Give back what parse() was given: lark hands a custom lexer the text itself."""
        yield from lexer_state


@functools.cache
def _parser(grammar_file: str) -> Lark:
    grammar = resources.files("homerd.lang").joinpath(grammar_file).read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer=_TokenLexer,
        maybe_placeholders=False,
        cache=_cache(grammar_file) or False,
    )


def _cache(grammar_file: str) -> str:
    """Where Lark keeps the tables it makes of a grammar: 0.28 s to make, 0.02 to read.

    Beside the compiled modules: whoever can write there has homerd in hand already, which the
    temporary folder, Lark's own choice, cannot promise.  "" where nothing can be kept.
    """
    folder = Path(__file__).with_name("__pycache__")
    file = folder / f"{grammar_file}.{sys.implementation.cache_tag}"
    may_write = not sys.dont_write_bytecode and os.access(folder, os.W_OK)
    return str(file) if may_write or file.exists() else ""


def parse(source: Tokens, diagnostics: Diagnostics) -> nodes.Script:
    """Read the whole script; statements with syntax errors are reported and left out."""
    tokens = source.tokens
    parser = _parser(_GRAMMARS.get(source.told.dialect, "grammar.lark"))
    for _ in range(MAX_SYNTAX_ERRORS):
        try:
            # Lark's type says text; a custom lexer may be given anything.
            tree = parser.parse(cast(Any, tokens))
        except UnexpectedInput as error:
            tokens = _without_fault(source, tokens, error, diagnostics)
            continue
        return _Builder(source, diagnostics, whole=tokens is source.tokens).script(tree)
    return nodes.Script([])


def _without_fault(
    source: Tokens, tokens: list[Token], error: UnexpectedInput, diagnostics: Diagnostics
) -> list[Token]:
    """Report *error* and give the tokens without the statement it is in."""
    token = error.token if isinstance(error, UnexpectedToken) else None
    if token is None or token.type == "$END" or token.start_pos is None:
        last = source.spans[tokens[-1].start_pos or 0] if tokens else NOWHERE
        opened = _unclosed(tokens)
        if opened is None:
            diagnostics.add("E101", "the file ends in the middle of a statement", last)
        else:
            diagnostics.add("E101", "this block is never closed", source.spans[opened])
        return _cut_unclosed(tokens)
    place = next(index for index, item in enumerate(tokens) if item is token)
    message, span, helps = _explained(source, tokens, place, error)
    diagnostics.add("E101", message, span, *helps)
    is_item = _depth(tokens[:place]) == 0
    start = place
    while start > 0 and tokens[start - 1].type not in ("SEMICOLON", "LBRACE", "RBRACE"):
        start -= 1
        if is_item and _begins_item(source, tokens, start):
            break
    end, depth = place, 0
    while end < len(tokens):
        kind = tokens[end].type
        if is_item and depth == 0 and end > start and _begins_item(source, tokens, end):
            break
        if kind == "LBRACE":
            depth += 1
        elif kind == "RBRACE":
            if depth == 0:
                break
            depth -= 1
            if depth == 0:
                end += 1
                break
        elif kind == "SEMICOLON" and depth == 0:
            end += 1
            break
        end += 1
    end = max(end, start + 1, place if end > place else place + (start == place))
    return tokens[:start] + tokens[end:]


def _depth(tokens: list[Token]) -> int:
    """How many blocks are open after *tokens*."""
    return sum((token.type == "LBRACE") - (token.type == "RBRACE") for token in tokens)


def _begins_item(source: Tokens, tokens: list[Token], place: int) -> bool:
    """Whether a new item begins here, outside of blocks: no semicolon parts them."""
    token = tokens[place]
    if token.type != "WORD":
        return token.type in _ITEMS
    lines = [source.spans[each.start_pos or 0].line for each in tokens[max(0, place - 1) : place]]
    return lines != [source.spans[token.start_pos or 0].line]


def _explained(
    source: Tokens, tokens: list[Token], place: int, error: UnexpectedInput
) -> tuple[str, Span, list[str]]:
    """Message, place and help for the token that does not fit."""
    token = tokens[place]
    span = source.spans[token.start_pos or 0]
    expected = (error.accepts or error.expected) if isinstance(error, UnexpectedToken) else set()
    before = tokens[place - 1] if place else None
    text = f'"{token}"'
    if (
        "SEMICOLON" in expected
        and before is not None
        and before.type in ("RPAR", "PV", "NUMBER", "STRING")
    ):
        after = source.spans[before.start_pos or 0]
        if source.spans[token.start_pos or 0].line != after.line or token.type in (
            "RBRACE",
            "WORD",
            "IF",
        ):
            gap = Span(after.end_line, after.end_column, after.end_line, after.end_column + 1)
            return "missing ; after this statement", gap, []
    if token.type == "DOT":
        return f"unexpected {text}", span, ['strings are joined with +: "a" + "b"']
    if token.type == "DIGIT_WORD":
        return (
            f"{text} is no name: it begins with a digit",
            span,
            [f'as a route\'s name write it in quotes: route["{token}"]'],
        )
    behind = tokens[place + 1] if place + 1 < len(tokens) else None
    if behind is not None and behind.type == "ASSIGN" and token.type in _NO_ASSIGNMENT:
        return f'"{token}=" does not assign', span, ["only = assigns: $var(x) = $var(x) + 1"]
    if token.type == "NOT" and behind is not None and behind.type == "TILDE":
        return '"!~" is no operator', span, ['write !($x =~ "…")']
    if token.type in ("WORD", "MINUS") and before is not None and before.type == "LSQB":
        return f"unexpected {text}", span, []
    if token.type == "ELSE":
        return '"else" without an if before it', span, ["if takes no ; before else"]
    if token.type == "RBRACE":
        return 'unexpected "}"', span, []
    return f"unexpected {text}", span, _hints(token, before)


def _hints(token: Token, before: Token | None) -> list[str]:
    if token.type == "LSQB" or token.type == "MINUS":
        return ['a name with "-" is written in quotes: route["A-B"]']
    if before is not None and before.type == "DOT" and token in lexer.RESERVED:
        return [f'"{token}" is a word of the language and cannot name a field']
    return []


def _unclosed(tokens: list[Token]) -> int | None:
    """Place of the outermost brace that is never closed."""
    opened: list[int] = []
    for token in tokens:
        if token.type == "LBRACE":
            opened.append(token.start_pos or 0)
        elif token.type == "RBRACE" and opened:
            opened.pop()
    return opened[0] if opened else None


def _cut_unclosed(tokens: list[Token]) -> list[Token]:
    """Tokens up to the item that the end of the file cut off."""
    depth, start = 0, 0
    for index, token in enumerate(tokens):
        if token.type == "LBRACE":
            depth += 1
        elif token.type == "RBRACE":
            depth -= 1
            if depth == 0:
                start = index + 1
        elif token.type == "SEMICOLON" and depth == 0:
            start = index + 1
    return tokens[:start]


class _Builder:
    """A Lark tree to nodes."""

    def __init__(self, source: Tokens, diagnostics: Diagnostics, whole: bool) -> None:
        self.source = source
        self.diagnostics = diagnostics
        self.whole = whole  # nothing was taken out of it
        self.flags: dict[str, int] = {}
        plan = source.told.dialect is Dialect.PLAN
        self.refuses = f"{(Dialect.PLAN if plan else Dialect.KAMAILIO).value} refuses"

    # -- places

    def token_span(self, token: Token) -> Span:
        return self.source.spans[token.start_pos or 0]

    def span(self, tree: Tree[Token]) -> Span:
        """From the tree's first token to its last; no rule drops a token, so both are there."""
        first: Tree[Token] | Token = tree
        while isinstance(first, Tree):
            first = first.children[0]
        last: Tree[Token] | Token = tree
        while isinstance(last, Tree):
            last = last.children[-1]
        spans = self.source.spans
        return spans[first.start_pos or 0].to(spans[last.start_pos or 0])

    # -- file level

    def script(self, tree: Tree[Token]) -> nodes.Script:
        items: list[nodes.Item] = []
        for child in tree.children:
            assert isinstance(child, Tree)
            item = self.item(child)
            if item is not None:
                items.append(item)
        return nodes.Script(items, self.flags)

    def item(self, tree: Tree[Token]) -> nodes.Item | None:
        parts = tree.children
        span = self.span(tree)
        tokens = [part for part in parts if isinstance(part, Token)]
        match tree.data:
            case "global_":
                return self.global_(tokens[0], span)
            case "custom_global":
                return self.custom_global(tokens, span)
            case "loadmodule":
                path = next(token for token in tokens if token.type == "STRING")
                return nodes.LoadModule(module_name(path), str(path), self.token_span(path))
            case "mpath":
                return nodes.SearchPath(str(tokens[-1]), span)
            case "modparam":
                return self.modparam(tree)
            case "flags":
                self.flag_names(tree)
                return None
            case "nothing" | "ignored":
                return None
            case _:
                return self.block(tree)

    def global_(self, token: Token, span: Span) -> nodes.Global:
        value, text = self.source.globals[token.start_pos or 0]
        if len(value) == 1 and value[0].type == "NUMBER":
            return nodes.Global(str(token), int(value[0]), span, span)
        if len(value) == 2 and value[0].type == "MINUS" and value[1].type == "NUMBER":
            return nodes.Global(str(token), -int(value[1]), span, span)
        return nodes.Global(str(token), text, span, span)

    def custom_global(self, tokens: list[Token], span: Span) -> nodes.CustomGlobal:
        name = tokens[2]
        if name in lexer.RESERVED:
            self.diagnostics.add(
                "E206",
                f'"{name}" is a word of the language and cannot name a field',
                self.token_span(name),
            )
        values = [token for token in tokens[4:] if token.type in ("NUMBER", "STRING")]
        value: str | int = str(values[0])
        if values[0].type == "NUMBER":
            value = -int(values[0]) if tokens[4].type == "MINUS" else int(values[0])
        return nodes.CustomGlobal(f"{tokens[0]}.{name}", value, span)

    def modparam(self, tree: Tree[Token]) -> nodes.ModParamLine:
        strings = [
            part for part in tree.children if isinstance(part, Token) and part.type == "STRING"
        ]
        holder = next(part for part in tree.children if isinstance(part, Tree))
        tokens = [part for part in holder.children if isinstance(part, Token)]
        last = tokens[-1]
        value: str | int = str(last)
        if last.type == "NUMBER":
            value = -int(last) if len(tokens) > 1 else int(last)
        return nodes.ModParamLine(
            module=str(strings[0]),
            name=str(strings[1]),
            value=value,
            span=self.span(tree),
            module_span=self.token_span(strings[0]),
            name_span=self.token_span(strings[1]),
            value_span=self.span(holder),
            value_token=(last.start_pos or 0) if last.type == "STRING" else -1,
        )

    def flag_names(self, tree: Tree[Token]) -> None:
        for child in tree.children:
            if isinstance(child, Tree):
                parts = [str(part) for part in child.children]
                used = set(self.flags.values())
                free = next(number for number in range(31, -1, -1) if number not in used)
                self.flags[parts[0]] = int(parts[-1]) if len(parts) > 1 else free

    def block(self, tree: Tree[Token]) -> nodes.Block:
        kinds = {
            "main_route": "request", "reply_route": "reply", "route": "route",
            "named_reply_route": "other", "other_route": "other", "event_route": "event",
            "timer_route": "timer", "startup_route": "startup", "plan": "plan",
        }  # fmt: skip
        names = [
            part
            for part in tree.children[1:]
            if isinstance(part, Token) and part.type not in ("LSQB", "RSQB", "COMMA")
        ]
        word = tree.children[0]
        assert isinstance(word, Token)
        named = names[0] if names else word
        kind = kinds[tree.data]
        name = str(names[0]) if names else ""
        body = self.body(tree.children[-1])
        if kind == "route" and name == "0":
            kind, name = "request", ""
        seconds = 0
        if kind in ("timer", "startup"):
            name = f"timer_route[{name}]" if kind == "timer" else str(word)
            seconds = int(names[1]) if kind == "timer" else 0
        return nodes.Block(kind, name, body, self.span(tree), self.token_span(named), seconds)

    # -- statements

    def body(self, part: Tree[Token] | Token) -> list[nodes.Statement]:
        """The actions of a `{…}`, or the one action that stands for it."""
        assert isinstance(part, Tree)
        if part.data != "body":
            statement = self.statement(part)
            return [] if statement is None else [statement]
        found: list[nodes.Statement] = []
        actions = [child for child in part.children if isinstance(child, Tree)]
        if not actions and self.whole:
            self.diagnostics.add(
                "W907", "an empty block", self.span(part), f"{self.refuses} it: put a ; into it"
            )
        for child in actions:
            statement = self.statement(child)
            if statement is not None:
                found.append(statement)
        return found

    def statements(self, parts: list[Tree[Token] | Token]) -> list[nodes.Statement]:
        found = [self.statement(part) for part in parts if isinstance(part, Tree)]
        return [item for item in found if item is not None]

    def statement(self, tree: Tree[Token]) -> nodes.Statement | None:
        parts = tree.children
        span = self.span(tree)
        first = parts[0] if parts else None
        match tree.data:
            case "call_statement":
                call = self.expression(parts[0])
                assert isinstance(call, nodes.Call | nodes.RouteCall)
                return nodes.CallStatement(span, call)
            case "bare_call":
                assert isinstance(first, Token)
                at = self.token_span(first)
                return nodes.CallStatement(span, nodes.Call(at, str(first), at, []))
            case "assignment_statement":
                return self.assignment(parts[0])
            case "if_":
                otherwise = self.body(parts[4]) if len(parts) > 4 else []
                return nodes.If(span, self.expression(parts[1]), self.body(parts[2]), otherwise)
            case "while_":
                return nodes.While(span, self.expression(parts[1]), self.body(parts[2]))
            case "switch":
                cases = [part for part in parts[2:] if isinstance(part, Tree)]
                return nodes.Switch(span, self.expression(parts[1]), [self.case(c) for c in cases])
            case "leave":
                value = parts[1] if len(parts) > 1 and isinstance(parts[1], Tree) else None
                kind = str(parts[0])
                return nodes.Leave(span, kind, None if value is None else self.expression(value))
            case "break_":
                return nodes.Break(span)
            case _:
                return None

    def assignment(self, part: Tree[Token] | Token) -> nodes.Assignment:
        assert isinstance(part, Tree)
        target, operator, right = part.children
        assert isinstance(target, Token)
        at, span = self.token_span(target), self.span(part)
        name, value = str(target), self.expression(right)
        if operator == ":=":
            # All values of an AVP give way to the new one; [*] says that to the variable itself.
            name = _AVP.sub(r"$(\1[*])", name)
        elif operator != "=":
            symbol = str(operator)[:-1]
            left = nodes.Variable(at, name)
            value = nodes.Binary(span, _OPERATORS.get(symbol, symbol), left, value)
        return nodes.Assignment(span, nodes.Variable(at, name), value)

    def case(self, tree: Tree[Token]) -> nodes.Case:
        parts = tree.children
        span = self.span(tree)
        if tree.data == "default":
            return nodes.Case(span, None, self.statements(parts[2:]))
        if tree.data == "regex_case":
            label = parts[2]
            assert isinstance(label, Token)
            string = nodes.String(self.token_span(label), str(label), label.start_pos or 0)
            return nodes.Case(string.span, string, self.statements(parts[4:]), regex=True)
        label_node = self.expression(parts[1])
        return nodes.Case(label_node.span, label_node, self.statements(parts[3:]))

    # -- expressions

    def expression(self, part: Tree[Token] | Token) -> nodes.Expression:
        assert isinstance(part, Tree)
        build: Callable[[Tree[Token]], nodes.Expression] | None = getattr(
            self, f"_{part.data}", None
        )
        assert build is not None, part.data
        return build(part)

    def _number(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Number(self.span(tree), int(cast(Token, tree.children[0])))

    def _string(self, tree: Tree[Token]) -> nodes.Expression:
        token = cast(Token, tree.children[0])
        return nodes.String(self.token_span(token), str(token), token.start_pos or 0)

    def _variable(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Variable(self.span(tree), str(tree.children[0]))

    def _select(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Select(self.span(tree), str(tree.children[0])[1:])

    def _name(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Name(self.span(tree), str(tree.children[0]))

    def _left_out(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.LeftOut(self.span(tree))

    def _myself(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Name(self.span(tree), "myself")

    def _network(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.Network(self.span(tree), "".join(str(part) for part in tree.children))

    def _call(self, tree: Tree[Token]) -> nodes.Expression:
        name = cast(Token, tree.children[0])
        arguments = [self.expression(part) for part in tree.children if isinstance(part, Tree)]
        return nodes.Call(self.span(tree), str(name), self.token_span(name), arguments)

    def _route_call(self, tree: Tree[Token]) -> nodes.Expression:
        target = tree.children[2]
        if isinstance(target, Token):
            name: nodes.Expression = nodes.Name(self.token_span(target), str(target))
            return nodes.RouteCall(self.span(tree), name)
        return nodes.RouteCall(self.span(tree), self.expression(target))

    def _binary(self, tree: Tree[Token]) -> nodes.Expression:
        left, operator, right = tree.children
        assert isinstance(operator, Token)
        symbol = _LOGICAL.get(operator.type) or _OPERATORS.get(str(operator), str(operator))
        span = self.span(tree)
        first, second = self.expression(left), self.expression(right)
        if symbol == "!~":
            return nodes.Unary(span, "!", nodes.Binary(span, "=~", first, second))
        if symbol == ".":
            return nodes.Binary(span, "+", nodes.Unary(first.span, "(str)", first), second)
        return nodes.Binary(span, symbol, first, second)

    def _unary(self, tree: Tree[Token]) -> nodes.Expression:
        operator, operand = tree.children
        inner = self.expression(operand)
        symbol = _OPERATORS.get(str(operator), str(operator))
        if symbol == "-" and isinstance(inner, nodes.Number):
            return nodes.Number(self.span(tree), -inner.value)
        return nodes.Unary(self.span(tree), symbol, inner)

    def _cast(self, tree: Tree[Token]) -> nodes.Expression:
        kind, operand = tree.children
        return nodes.Unary(self.span(tree), f"({kind})", self.expression(operand))

    def _parenthesis(self, tree: Tree[Token]) -> nodes.Expression:
        return self.expression(tree.children[1])

    def _assigned(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.BlockValue(self.span(tree), [self.assignment(tree.children[1])])

    def _block_value(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.BlockValue(self.span(tree), self.body(tree.children[0]))

    def _body(self, tree: Tree[Token]) -> nodes.Expression:
        return nodes.BlockValue(self.span(tree), self.body(tree))

    def _text_test(self, tree: Tree[Token]) -> nodes.Expression:
        word, _, operand, _ = tree.children
        return nodes.Unary(self.span(tree), str(word), self.expression(operand))

    def _selval(self, tree: Tree[Token]) -> nodes.Expression:
        condition, yes, no = (part for part in tree.children if isinstance(part, Tree))
        return nodes.Choice(
            self.span(tree), self.expression(condition), self.expression(yes), self.expression(no)
        )

    def _comparison(self, tree: Tree[Token]) -> nodes.Expression:
        keyword, operator, operand = tree.children
        assert isinstance(operator, Tree)
        return nodes.Comparison(
            self.span(tree),
            str(keyword),
            str(operator.children[0]),
            self.expression(operand),
        )
