"""The page of one module, in the shape that every module's page has."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from homerd.lang.vocabulary import ModParam, PseudoVariable, ScriptFunction, Transformation
from homerd.manual.words import (
    Word,
    cell,
    first_line,
    has_no_effect,
    kind_of,
    param_line,
    parameters_text,
    prose,
    signature,
    simple,
    upper,
)
from homerd.plugin.registry import vocabulary_of

MADE = "<!-- made by `python -m homerd.manual`; edit the docstrings or docs/parts -->\n"
METRIC = re.compile(r"[\"'](homerd_[a-z0-9_]+)")


@dataclass(slots=True)
class Module:
    """One installed module with what the manual says of it.

    part: what stands in docs/parts/NAME.yaml.
    """

    name: str
    plugin: Any  # any object with hooks
    part: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[Word]:
        """Everything it adds to the language."""
        return list(vocabulary_of([self.plugin]))

    @property
    def params(self) -> list[ModParam]:
        """What modparam may set."""
        return list(self.plugin.mod_params()) if hasattr(self.plugin, "mod_params") else []

    @property
    def summary(self) -> str:
        """One line."""
        return first_line(type(self.plugin).__doc__ or "")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that its source, or that of its private siblings, names."""
        source = inspect.getmodule(type(self.plugin))
        if source is None or not hasattr(self.plugin, "metrics"):
            return []
        text = inspect.getsource(source)
        siblings = {name for name in sys.modules if f"{name} import" in text and "._" in name}
        texts = [text, *(inspect.getsource(sys.modules[name]) for name in siblings)]
        return sorted({name for each in texts for name in METRIC.findall(each)})


def module_page(module: Module) -> str:
    """The page of one module; every page has the same sections."""
    sections = [f"{MADE}# {module.name}\n", f"## Overview\n\n{_overview(module)}"]
    sections.append(f"## Requirements\n\n{_requirements(module)}\n")
    sections.append(f"## Parameters\n\n{_param_section(module) or 'None.'}\n")
    for title, text in (
        ("Functions", _functions(module)),
        ("Pseudo-variables", _variables(module)),
        ("Transformations", _transformations(module)),
        ("Metrics", _module_metrics(module)),
    ):
        sections.append(f"## {title}\n\n{text or 'None.'}\n")
    cases = module.part.get("cases")
    if cases:
        sections.append("## Examples\n\n" + "\n".join(map(case_text, cases)))
    return "\n".join(sections)


def _overview(module: Module) -> str:
    source = inspect.getmodule(type(module.plugin))
    text = inspect.cleandoc(source.__doc__ or "") if source else ""
    head = re.sub(rf'^(the module )?"?{re.escape(module.name)}"?: ', "", text, flags=re.IGNORECASE)
    told = [head[:1].upper() + head[1:], str(module.part.get("overview", "")).strip()]
    return "\n\n".join(filter(None, told)) + "\n"


def _requirements(module: Module) -> str:
    load_line = f'`loadmodule "{module.name}"`'
    if module.name == "core":
        load_line = "None: it is always loaded"
    needed = [f"`{param.name}`" for param in module.params if param.required]
    told = [f"{load_line}.", str(module.part.get("requirements", "")).strip()]
    if needed:
        told.append(f"Must be set: {', '.join(needed)}.")
    return " ".join(filter(None, told))


def _param_section(module: Module) -> str:
    used = [param for param in module.params if not has_no_effect(param.help)]
    idle = [param for param in module.params if has_no_effect(param.help)]
    examples = module.part.get("parameters", {})
    text = ""
    if used:
        text += "| parameter | kind | default | reload | |\n| --- | --- | --- | --- | --- |\n"
        for param in used:
            default = "" if param.default is None else f"`{cell(simple(param.default))}`"
            if param.required:
                default = "must be set"
            reload = "yes" if param.reloadable else "restart"
            text += (
                f"| `{param.name}` | {kind_of(param)} | {'' if default == '``' else default} |"
                f" {reload} | {cell(param.help)} |\n"
            )
        lines = [param_line(module.name, param, examples.get(param.name)) for param in used]
        text += "\n```\n" + "\n".join(lines) + "\n```\n"
    if idle:
        names = ", ".join(f"`{param.name}`" for param in idle)
        text += f"\nAccepted, without effect: {names}.\n"
    return text.strip()


def _functions(module: Module) -> str:
    words = [word for word in module.words if isinstance(word, ScriptFunction)]
    used = [word for word in words if not has_no_effect(word.help)]
    idle = [word for word in words if has_no_effect(word.help)]
    text = ""
    for word in used:
        text += f"### {word.name}\n\n`{signature(word)}`\n\n{prose(word.help)}\n\n"
        if word.parameters:
            text += f"{parameters_text(word)}\n\n"
    if idle:
        text += "Accepted, without effect: " + ", ".join(f"`{signature(w)}`" for w in idle) + "."
    return text.strip()


def _variables(module: Module) -> str:
    words = [word for word in module.words if isinstance(word, PseudoVariable)]
    if not words:
        return ""
    text = "| variable | kind | |\n| --- | --- | --- |\n"
    for word in words:
        kind = {"int": "number", "str": "text"}.get(word.kind.value, "either")
        null = " or null" if word.null else ""
        assigned = " Can be assigned to." if word.writable else ""
        text += f"| `{signature(word)}` | {kind}{null} | {cell(word.help)}{assigned} |\n"
    return text.strip()


def _transformations(module: Module) -> str:
    words = [word for word in module.words if isinstance(word, Transformation)]
    if not words:
        return ""
    text = "| transformation | |\n| --- | --- |\n"
    return (text + "".join(f"| `{cell(signature(w))}` | {cell(w.help)} |\n" for w in words)).strip()


def _module_metrics(module: Module) -> str:
    names = module.metrics
    if not names:
        return ""
    meanings = module.part.get("metrics", {})
    hook = first_line(getattr(module.plugin.metrics, "__doc__", "") or "")
    text = "| metric | |\n| --- | --- |\n"
    return (text + "".join(f"| `{n}` | {cell(meanings.get(n, hook))} |\n" for n in names)).strip()


def case_text(case: Mapping[str, Any]) -> str:
    """A case with its heading and what comes in."""
    text = f"### {upper(str(case.get('name', 'Example')))}\n\n"
    note = str(case.get("note", "")).strip()
    if note:
        text += f"{note}\n\n"
    comes = "".join(f"- {line}\n" for line in map(_packet_line, case.get("packets") or []))
    return text + example(case) + (f"\nThe packets:\n\n{comes}" if comes else "")


def example(case: Mapping[str, Any]) -> str:
    """A case's script and what must come of it."""
    text = f"```\n{str(case.get('script', '')).strip()}\n```\n"
    expect = dict(case.get("expect", {}))
    lines = expect.get("log")
    if lines and all(isinstance(line, str) for line in lines):
        del expect["log"]
        text += "\nIt prints:\n\n```text\n{}\n```\n".format("\n".join(lines))
    if not expect:
        return text
    told = yaml.safe_dump(
        expect, sort_keys=False, allow_unicode=True, width=96, default_flow_style=None
    )
    also = " also" if lines and "log" not in expect else ""
    return f"{text}\nWhat{also} comes of it:\n\n```yaml\n{told.strip()}\n```\n"


def _packet_line(packet: Any) -> str:  # as YAML holds it
    if not isinstance(packet, Mapping):
        return f"`{first_line(str(packet))}`"
    told = {key: value for key, value in packet.items() if key not in ("sip", "expect")}
    parts = [f"`{first_line(packet['sip'])}`"] if "sip" in packet else []
    if told:
        parts.append(f"`{yaml.safe_dump(told, default_flow_style=True, width=1000).strip()}`")
    return " with ".join(parts)
