"""Declaring words: Plugin, its decorators, ModParam.

A function's signature is its declaration: after `self, packet` each annotation is a parameter's
kind (the table in docs/plugins.md).  Nothing here runs per packet.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, get_args, get_origin

from homerd.errors import Place, PluginError
from homerd.lang import vocabulary
from homerd.lang.posix import Substitution, compile_posix
from homerd.lang.vocabulary import (
    Const,
    Format,
    Kind,
    Parameter,
    ParameterKind,
    Plain,
    PseudoVariable,
    Readable,
    RouteName,
    ScriptFunction,
    TextOrPv,
    Transformation,
    Value,
    Writable,
)
from homerd.plugin.hookspecs import hookimpl

F = TypeVar("F", bound=Callable[..., Any])


def script_function(name: str | F, /) -> Any:  # a decorator with or without its argument
    """Make a method a function of the script, under its own name or the one given.

    Several methods may carry one name: the number of arguments chooses.  A first parameter of kind
    Place is given the place of the call.  A class with `from_script` takes a constant, and what is
    no constant as its `otherwise` says, another annotation.
    """
    if isinstance(name, str):
        return lambda method: _marked(method, "_script_function", name)
    return _marked(name, "_script_function", name.__name__)


def transformation(name: str, *, takes_any: bool = False) -> Callable[[F], F]:
    """Make a method the transformation `{name,…}`: `(self, value, *parameters) -> Value`.

    takes_any: int and null are passed as they are; otherwise value is text, and null gives null.
    """
    return lambda method: _marked(method, "_transformation", (name, takes_any))


class pseudo_variable:  # noqa: N801  a decorator, used as property is
    """Make a method the getter of `$name`: `(self, packet, *bound) -> Value`.

    The result's annotation tells kind and null (`-> int`, `-> str | None`).  `.bind` marks the
    method `(self, argument, index)` that turns the parentheses' text into the bound values,
    `.setter` the method `(self, packet, value, *bound)` that assigns.
    """

    def __init__(self, name: str, *, null_becomes: Value = None) -> None:
        self.name = name
        self.null_becomes = null_becomes
        self.getter: Callable[..., Value] | None = None
        self._setter: Callable[..., None] | None = None
        self._bind: Callable[..., tuple[object, ...]] | None = None

    def __call__(self, getter: Callable[..., Value]) -> pseudo_variable:
        self.getter = getter
        return self

    def setter(self, method: Callable[..., None]) -> Callable[..., None]:
        """Mark the method that assigns to the variable."""
        self._setter = method
        return method

    def bind(self, method: Callable[..., tuple[object, ...]]) -> Callable[..., tuple[object, ...]]:
        """Mark the method that binds the text in parentheses."""
        self._bind = method
        return method

    def declared(self, plugin: object, module: str) -> PseudoVariable:
        """The variable as a value, its methods bound to *plugin*."""
        assert self.getter is not None
        kind, null = _result(self.getter)
        return PseudoVariable(
            self.name,
            kind=kind,
            null=null,
            null_becomes=self.null_becomes,
            get=self.getter.__get__(plugin),
            set=None if self._setter is None else self._setter.__get__(plugin),
            bind=None if self._bind is None else self._bind.__get__(plugin),
            module=module,
            help=inspect.getdoc(self.getter) or "",
        )


class ModParam:
    """A parameter that `modparam` may set, read as an attribute of the plugin.

    kind: str, int, float, bool, or a class with `from_script(text)`, whose ValueError is the
    diagnostic.  many: each modparam line adds to a list.  replaceable: of many lines a reload may
    change and take away some: the plugin is given the new list, then `configure`.
    """

    def __init__(
        self,
        kind: Any,  # a type, or a class with from_script
        default: object = None,
        *,
        required: bool = False,
        many: bool = False,
        reloadable: bool = False,
        replaceable: bool = False,
        help: str = "",
    ) -> None:
        self.kind = kind
        self.default = default
        self.required = required
        self.many = many
        self.reloadable = reloadable
        self.replaceable = replaceable
        self.help = help
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, plugin: object | None, owner: type | None = None) -> Any:  # its own kind
        if plugin is None:
            return self
        if self.many:
            return plugin.__dict__.setdefault(self.name, [])
        return plugin.__dict__.get(self.name, self.default)

    def __set__(self, plugin: object, value: object) -> None:
        plugin.__dict__[self.name] = value

    def declared(self) -> vocabulary.ModParam:
        """The parameter as a value."""
        return vocabulary.ModParam(
            self.name,
            convert=_param_converter(self.kind),
            kind=getattr(self.kind, "__name__", str(self.kind)),
            many=self.many,
            required=self.required,
            reloadable=self.reloadable,
            replaceable=self.replaceable,
            default=self.default,
            help=self.help,
        )


class Plugin:
    """A module of the script: its decorated methods are words, its ModParams parameters.

    name: as in loadmodule; the class's name in lower case when not given.
    words: declarations that need no method (a pseudo-variable that only reads an attribute).
    waits_seconds: for how long a word waits for somebody else, by the module's own parameters; one
    that takes longer than this and plugin_block_seconds is interrupted.
    """

    name: str = ""
    words: Iterable[ScriptFunction | PseudoVariable | Transformation] = ()
    waits_seconds: float = 0.0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # Generic, wherever it stands in the class line
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()

    @hookimpl
    def script_functions(self) -> list[ScriptFunction]:
        """The decorated methods that are functions of the script."""
        found = [word for word in self.words if isinstance(word, ScriptFunction)]
        for attribute, member in self._members():
            name = getattr(member, "_script_function", None)
            if name is not None:
                found.append(_function(self.name, name, getattr(self, attribute)))
        return found

    @hookimpl
    def pseudo_variables(self) -> list[PseudoVariable]:
        """The decorated methods that are pseudo-variables."""
        found = [word for word in self.words if isinstance(word, PseudoVariable)]
        for _, member in self._members():
            if isinstance(member, pseudo_variable):
                found.append(member.declared(self, self.name))
        return found

    @hookimpl
    def transformations(self) -> list[Transformation]:
        """The decorated methods that are transformations."""
        found = [word for word in self.words if isinstance(word, Transformation)]
        for attribute, member in self._members():
            mark = getattr(member, "_transformation", None)
            if mark is not None:
                found.append(_transformation(self.name, mark, getattr(self, attribute)))
        return found

    @hookimpl
    def mod_params(self) -> list[vocabulary.ModParam]:
        """The ModParams of the class."""
        return [member.declared() for _, member in self._members() if isinstance(member, ModParam)]

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; one more line of a `many` parameter is appended."""
        declared = inspect.getattr_static(self, name)
        if declared.many:
            getattr(self, name).append(value)
        else:
            setattr(self, name, value)

    def _members(self) -> list[tuple[str, Any]]:  # whatever a class may hold
        seen: dict[str, Any] = {}
        for owner in reversed(type(self).__mro__):
            seen.update(vars(owner))
        return list(seen.items())


def _marked(method: F, mark: str, value: object) -> F:
    setattr(method, mark, value)
    return method


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(call)
    except NameError as error:
        raise PluginError(call.__module__, f"{call.__qualname__}: {error}") from error


def _result(call: Callable[..., Any]) -> tuple[Kind, bool]:
    """Kind of a result and whether it may be null, from the annotation."""
    hint = _hints(call).get("return", Value)
    kinds = set(get_args(hint)) or {hint}
    null = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {int}:
        return Kind.INT, null
    if kinds == {str}:
        return Kind.STR, null
    return Kind.ANY, null


def _function(module: str, name: str, call: Callable[..., Any]) -> ScriptFunction:
    signature = list(inspect.signature(call).parameters.values())[1:]
    hints = _hints(call)
    placed = bool(signature) and hints.get(signature[0].name) is Place
    if placed:
        del signature[0]
    variadic = bool(signature) and signature[-1].kind is inspect.Parameter.VAR_POSITIONAL
    return ScriptFunction(
        name,
        call,
        tuple(_parameter(module, item, hints) for item in signature),
        returns_bool=hints.get("return") is bool,
        returns_none=hints.get("return") is type(None),
        variadic=variadic,
        module=module,
        help=inspect.getdoc(call) or "",
        placed=placed,
    )


def _transformation(
    module: str, mark: tuple[str, bool], call: Callable[..., Any]
) -> Transformation:
    name, takes_any = mark
    signature = list(inspect.signature(call).parameters.values())[1:]
    hints = _hints(call)
    kind, null = _result(call)
    parameters = tuple(_parameter(module, item, hints) for item in signature)
    return Transformation(
        name, call, parameters, kind, null, takes_any, module, inspect.getdoc(call) or ""
    )


_KINDS: dict[Any, ParameterKind] = {  # annotations are types and typing forms alike
    str: ParameterKind.TEXT,
    int: ParameterKind.NUMBER,
    Value: ParameterKind.VALUE,
    Format: ParameterKind.FORMAT,
    Plain: ParameterKind.PLAIN,
    TextOrPv: ParameterKind.TEXT_OR_PV,
    Substitution: ParameterKind.SUBSTITUTION,
    Readable: ParameterKind.READABLE,
    Writable: ParameterKind.WRITABLE,
}


def _parameter(module: str, item: inspect.Parameter, hints: dict[str, Any]) -> Parameter:
    hint = hints.get(item.name)
    required = (
        item.default is inspect.Parameter.empty
        and item.kind is not inspect.Parameter.VAR_POSITIONAL
    )
    if hint not in _KINDS and type(None) in get_args(hint):  # one that may be left out
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if hint in _KINDS:
        return Parameter(item.name, _KINDS[hint], required)
    constant = ParameterKind.CONSTANT
    if hint is RouteName:
        return Parameter(item.name, constant, required, convert=str, route=True)
    if get_origin(hint) is Const:
        return Parameter(item.name, constant, required, convert=_param_converter(get_args(hint)[0]))
    if get_origin(hint) is Literal:
        return Parameter(item.name, constant, required, convert=str, choices=get_args(hint))
    if hint is re.Pattern or get_origin(hint) is re.Pattern:
        return Parameter(
            item.name, constant, required, convert=lambda text: compile_posix(str(text))
        )
    if hint is not None and hasattr(hint, "from_script"):
        kind = _KINDS[hint.otherwise] if hasattr(hint, "otherwise") else constant
        return Parameter(item.name, kind, required, convert=hint.from_script)
    raise PluginError(module, f"parameter {item.name}: {hint!r} is no kind of parameter")


def _param_converter(kind: Any) -> Callable[[str | int], object]:  # a type, or has from_script
    if hasattr(kind, "from_script"):
        converter: Callable[[str | int], object] = kind.from_script
        return converter
    return {str: _as_str, int: _as_int, float: _as_float, bool: _as_bool}[kind]


def _as_str(value: str | int) -> str:
    if isinstance(value, int):
        raise ValueError(f'expected a string, got the number {value}: write "{value}"')
    return value


def _as_int(value: str | int) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value, 0)
    except ValueError:
        raise ValueError(f'expected a number, got "{value}"') from None


def _as_float(value: str | int) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f'expected a number, got "{value}"') from None


def _as_bool(value: str | int) -> bool:
    return _as_int(value) != 0
