"""The words a script may use, as values: functions, pseudo-variables, transformations, parameters.

`lang/` is given a Vocabulary and knows nothing of who made it; a test can pass one of two words.
Script values are `str`, `int` and `None` (null).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Value = str | int | None
T = TypeVar("T")


class Kind(enum.Enum):
    """What is known of a value before the script runs."""

    INT = "int"
    STR = "str"
    ANY = "any"


class ParameterKind(enum.Enum):
    """How an argument becomes what the function is called with.

    TEXT         a literal is expanded for each packet; any other expression is its text
    NUMBER       the int of a number, a numeric literal or any expression
    VALUE        a literal is expanded; any other expression stays what it is (str, int, null)
    FORMAT       a literal only, expanded for each packet (xlog, as Kamailio 5.6 has it)
    PLAIN        a literal is taken as it is written, not expanded; an expression is its text
    TEXT_OR_PV   a literal that begins with a pseudo-variable is that variable alone and the rest
                 is dropped; else expanded; an expression is its text
    CONSTANT     a literal, converted once by `Parameter.convert`
    SUBSTITUTION `/pattern/replacement/flags`, compiled once; pseudo-variables stand in the
                 replacement, or name the whole; passed as what has `apply(text)`
    READABLE     a pseudo-variable, or a literal that names one; passed as a Reference
    WRITABLE     the same, and it can be assigned to
    """

    TEXT = "text"
    NUMBER = "number"
    VALUE = "value"
    FORMAT = "format"
    PLAIN = "plain"
    TEXT_OR_PV = "text or pseudo-variable"
    CONSTANT = "constant"
    SUBSTITUTION = "substitution"
    READABLE = "pseudo-variable"
    WRITABLE = "writable pseudo-variable"


class Const(Generic[T]):
    """Annotation of a constant argument, `Const[str]` or `Const[int]`: converted once."""


class Format(str):
    """Annotation of a FORMAT parameter."""


class Plain(str):
    """Annotation of a PLAIN parameter."""


class TextOrPv(str):
    """Annotation of a TEXT_OR_PV parameter."""


class ConstantText(str):
    """An argument that the script wrote as it is: no pseudo-variable had a part in it."""

    __slots__ = ()


class RouteName(str):
    """Annotation of a constant argument that names a `route[...]`; an unknown one is an error."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A pseudo-variable handed to a function: `get(packet)` gives its value."""

    get: Callable[[Any], Value]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Writable:
    """A pseudo-variable handed to a function: `get(packet)` and `set(packet, value)`."""

    get: Callable[[Any], Value]
    set: Callable[[Any, Value], None]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function or of a transformation.

    convert: for CONSTANT, and a literal without pseudo-variables where others may have them, from
    the literal (str or int) to the argument; its ValueError is the diagnostic, and a `span`
    attribute (start, end) on it underlines a part of the literal.
    choices: what a CONSTANT may be; what may stand behind the variable of a READABLE or WRITABLE.
    """

    name: str
    kind: ParameterKind
    required: bool = True
    convert: Callable[[str | int], object] | None = None
    choices: tuple[str, ...] = ()
    route: bool = False


@dataclass(frozen=True, slots=True)
class ScriptFunction:
    """A function of the script, called as `call(packet, *arguments)`.

    Its result: None or True is 1, False is -1, an int is Kamailio's return code; 0 ends the script.
    returns_bool, returns_none: what is known of the result makes shorter code.
    variadic: the last parameter may be given any number of times.
    placed: called as `call(packet, place, *arguments)`, place being the call's last line.
    unasked: called in place of `call` by a statement whose result nobody can see, if given.
    does_nothing: why, of a word that scripts have and homerd cannot carry out; they are told.
    """

    name: str
    call: Callable[..., bool | int | None]
    parameters: tuple[Parameter, ...] = ()
    returns_bool: bool = False
    returns_none: bool = False
    variadic: bool = False
    module: str = ""
    help: str = ""
    placed: bool = False
    unasked: Callable[..., object] | None = None
    does_nothing: str = ""

    def accepts(self, count: int) -> bool:
        """Whether it can be called with *count* arguments."""
        least = sum(parameter.required for parameter in self.parameters)
        return least <= count and (self.variadic or count <= len(self.parameters))


@dataclass(frozen=True, slots=True)
class PseudoVariable:
    """`$name`, `$name(argument)`, `$(name(argument)[index])`.

    reads: an attribute path on the packet (`sip.method`), compiled as it stands; a last part `[]`
        subscripts by the first bound constant (`variables[]`).
    get: else `get(packet, *bound)`.
    set: `set(packet, value, *bound)`; with `reads="….[]"` and `writes=True` plain item assignment.
    null_becomes: what null is stored as where the variable cannot be null (`$var`: 0).
    bind: `bind(argument, index)` turns the text in the parentheses (a Text, None without
        parentheses) and the index (a Text or None) into the bound values; a Text among them is
        evaluated for each packet, everything else is constant.  Its ValueError is the diagnostic.
        Without bind the variable takes neither.
    kind: of a value that is not null; null: whether it may be null.
    """

    name: str
    kind: Kind = Kind.ANY
    null: bool = True
    reads: str = ""
    writes: bool = False
    null_becomes: Value = None
    get: Callable[..., Value] | None = None
    set: Callable[..., None] | None = None
    bind: Callable[..., tuple[object, ...]] | None = None
    module: str = ""
    help: str = ""

    @property
    def writable(self) -> bool:
        """Whether the script may assign to it."""
        return self.writes or self.set is not None


@dataclass(frozen=True, slots=True)
class Transformation:
    """`{name,arguments}`, called as `call(value, *arguments)`.

    value is text unless takes_any (then int and null come as they are); null gives null unasked.
    The argument text is split at its first commas, the last parameter takes the rest as written.
    """

    name: str
    call: Callable[..., Value]
    parameters: tuple[Parameter, ...] = ()
    kind: Kind = Kind.ANY
    null: bool = True
    takes_any: bool = False
    module: str = ""
    help: str = ""


Word = ScriptFunction | PseudoVariable | Transformation


def answer_of_none(word: Word) -> Value | bool:
    """What a word gives when its module is left out: false, null, or the least it may give."""
    if isinstance(word, ScriptFunction):
        return False
    if word.null:
        return None
    if isinstance(word, PseudoVariable) and word.null_becomes is not None:
        return word.null_becomes
    return 0 if word.kind is Kind.INT else ""


@dataclass(frozen=True, slots=True)
class ModParam:
    """What `modparam("module", "name", value)` may set.

    replaceable: of many lines a reload may change or take away some, not only add.
    """

    name: str
    convert: Callable[[str | int], object]
    kind: str = "str"
    many: bool = False
    required: bool = False
    reloadable: bool = False
    replaceable: bool = False
    default: object = None
    help: str = ""


@dataclass(slots=True)
class Vocabulary:
    """Every word the loaded plugins offer."""

    functions: dict[str, list[ScriptFunction]] = field(default_factory=dict)
    variables: dict[str, PseudoVariable] = field(default_factory=dict)
    transformations: dict[str, Transformation] = field(default_factory=dict)

    def add(self, words: Iterable[Word]) -> None:
        """Take *words*; a function may be added several times for several numbers of arguments.

        Where two modules have one for the same number, that of the later module is taken.
        """
        for word in words:
            if isinstance(word, ScriptFunction):
                variants = self.functions.setdefault(word.name, [])
                variants.insert(sum(item.module == word.module for item in variants), word)
            elif isinstance(word, PseudoVariable):
                self.variables[word.name] = word
            else:
                self.transformations[word.name] = word

    def __iter__(self) -> Iterator[Word]:
        for variants in self.functions.values():
            yield from variants
        yield from self.variables.values()
        yield from self.transformations.values()
