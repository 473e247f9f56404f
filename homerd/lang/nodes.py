"""What a script is made of, as read: plain values with the span they were read from.

check.py fills what is `bound`: names resolved to words of the vocabulary, constants converted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homerd.lang.source import Span
from homerd.lang.text import Text
from homerd.lang.vocabulary import ScriptFunction

# -- expressions


@dataclass(slots=True)
class Number:
    """An integer literal."""

    span: Span
    value: int


@dataclass(slots=True)
class String:
    """A string literal; token is its place in the list of tokens, for spans inside it."""

    span: Span
    value: str
    token: int = -1


@dataclass(slots=True)
class Variable:
    """A pseudo-variable outside of strings: a Text of exactly one Reference."""

    span: Span
    source: str
    text: Text | None = None  # bound

    @property
    def is_null_word(self) -> bool:
        """Whether it is the literal `$null`."""
        return self.source in ("$null", "$(null)")


@dataclass(slots=True)
class Select:
    """`@via[1].host`, without the @."""

    span: Span
    source: str
    text: Text | None = None  # bound, as the pseudo-variable $sel(…)


@dataclass(slots=True)
class Name:
    """A bare word where a value stands."""

    span: Span
    value: str


@dataclass(slots=True)
class LeftOut:
    """An argument that is not given: `f("a",,"b")`."""

    span: Span


@dataclass(slots=True)
class Network:
    """`10.0.0.0/8`, or one address."""

    span: Span
    value: str


@dataclass(slots=True)
class Call:
    """A function called."""

    span: Span
    name: str
    name_span: Span
    arguments: list[Expression]
    function: ScriptFunction | None = None  # bound
    bound: list[object] = field(default_factory=list)  # bound: one per argument


@dataclass(slots=True)
class RouteCall:
    """`route(X)`; target is a Name, a String or any expression."""

    span: Span
    target: Expression


@dataclass(slots=True)
class Unary:
    """`!x`, `-x`, `~x`, `defined x`, `strlen(x)`, `strempty(x)`, `(int)x`, `(str)x`."""

    span: Span
    operator: str
    operand: Expression


@dataclass(slots=True)
class Binary:
    """An operator between two operands; operators are spelled as Kamailio's symbols."""

    span: Span
    operator: str
    left: Expression
    right: Expression
    pattern: object = None  # bound: the compiled pattern of a constant =~


@dataclass(slots=True)
class Choice:
    """`selval(condition, yes, no)`."""

    span: Span
    condition: Expression
    yes: Expression
    no: Expression


@dataclass(slots=True)
class Comparison:
    """A core keyword compared: `method == "BYE"`, `src_ip == 10.0.0.0/8`."""

    span: Span
    keyword: str
    operator: str
    operand: Expression
    pattern: object = None  # bound


@dataclass(slots=True)
class BlockValue:
    """Actions inside an expression, also `(x = y)`: worth 1 or 0 by the last action's code."""

    span: Span
    body: list[Statement]


Expression = (
    Number | String | Variable | Select | Name | LeftOut | Network | Call | RouteCall | Unary
    | Binary | Choice | Comparison | BlockValue
)  # fmt: skip

# -- statements


@dataclass(slots=True)
class CallStatement:
    """A call on its own."""

    span: Span
    call: Call | RouteCall


@dataclass(slots=True)
class Assignment:
    """`target = value`."""

    span: Span
    target: Variable
    value: Expression


@dataclass(slots=True)
class If:
    """`if … else …`."""

    span: Span
    condition: Expression
    then: list[Statement]
    otherwise: list[Statement]


@dataclass(slots=True)
class While:
    """`while …`."""

    span: Span
    condition: Expression
    body: list[Statement]


@dataclass(slots=True)
class Case:
    """One label of a switch; label None is default, regex a `case /"…"`."""

    span: Span
    label: Expression | None
    body: list[Statement]
    regex: bool = False
    pattern: object = None  # bound


@dataclass(slots=True)
class Switch:
    """`switch … { case …: }`."""

    span: Span
    subject: Expression
    cases: list[Case]


@dataclass(slots=True)
class Leave:
    """`return`, `exit` or `drop`."""

    span: Span
    kind: str
    value: Expression | None


@dataclass(slots=True)
class Break:
    """`break`."""

    span: Span


Statement = CallStatement | Assignment | If | While | Switch | Leave | Break

# -- file level


@dataclass(slots=True)
class Global:
    """`name = value` outside of blocks; a value of several words is its text."""

    name: str
    value: str | int
    span: Span
    value_span: Span


@dataclass(slots=True)
class CustomGlobal:
    """`group.field = value desc "…"`."""

    name: str
    value: str | int
    span: Span


@dataclass(slots=True)
class LoadModule:
    """`loadmodule "x.so"`; name is the module's."""

    name: str
    path: str
    span: Span


@dataclass(slots=True)
class SearchPath:
    """`mpath "…"`."""

    value: str
    span: Span


@dataclass(slots=True)
class ModParamLine:
    """`modparam("module", "name", value)`; module is a regular expression over names."""

    module: str
    name: str
    value: str | int
    span: Span
    module_span: Span
    name_span: Span
    value_span: Span
    value_token: int = -1


@dataclass(slots=True)
class Block:
    """A route block.

    kind: "request", "reply", "route", "event", "timer", "startup", "plan" (an agent's), or "other"
    (kept, never run).
    name: of a named block, "" else.  seconds: of a timer, how often it runs.
    """

    kind: str
    name: str
    body: list[Statement]
    span: Span
    name_span: Span
    seconds: int = 0

    @property
    def is_named(self) -> bool:
        """Whether it is a route that something else runs by its name."""
        return self.kind in ("route", "timer", "startup")


Item = Global | CustomGlobal | LoadModule | SearchPath | ModParamLine | Block


@dataclass(slots=True)
class Script:
    """A whole script, items in file order; flags are the names given to flag numbers."""

    items: list[Item]
    flags: dict[str, int] = field(default_factory=dict)
