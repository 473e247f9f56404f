"""What is wrong with a script, as values, and how it is printed.

    homer.cfg:41:9: error[E201]: unknown function "sip_captur"
       41 |         sip_captur("sip_capture_call");
          |         ^^^^^^^^^^
       help: did you mean "sip_capture"?

Codes are never reused: E1xx syntax, E2xx names, E3xx arguments and kinds, E4xx modules, parameters
and globals, W9xx warnings.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from homerd.lang.source import NOWHERE, SourceMap, Span

CODES: dict[str, str] = {
    "E101": "the text cannot be read as a statement of the language",
    "E102": "a string, a comment or a pseudo-variable is not closed",
    "E103": "a preprocessor directive is wrong or not closed",
    "E104": "an include cannot be read",
    "E105": "a character that means nothing here",
    "E201": "unknown function",
    "E202": "unknown pseudo-variable",
    "E203": "unknown transformation",
    "E204": "unknown route",
    "E205": "the same route is defined twice",
    "E206": "a name is reserved",
    "E301": "wrong number of arguments",
    "E302": "an argument is of the wrong kind",
    "E303": "operands of kinds that cannot meet",
    "E304": "this cannot be assigned to",
    "E305": "a pseudo-variable's argument is wrong",
    "E306": "a regular expression is wrong",
    "E307": "a switch mixes kinds, or its default stands where it must not",
    "E308": "a call inside the arguments of another call",
    "E401": "unknown module",
    "E402": "a module was not loaded before its parameter was set",
    "E403": "unknown module parameter",
    "E404": "a module parameter has a wrong value",
    "E405": "unknown global parameter",
    "E406": "a global parameter has a wrong value",
    "E407": "a module refuses the script",
    "E408": "a change that needs a restart",
    "W901": "a module has no part in a capture router",
    "W902": "a route is never called",
    "W903": "a comparison can never be true",
    "W904": "a statement can never be reached",
    "W905": "a pattern that may not mean what it says",
    "W906": "a module has something to say of the script",
    "W907": "an empty block, which Kamailio refuses",
    "W908": "return 0 where the caller goes on otherwise",
    "W909": "a value from the network in SQL or a shell command",
    "W910": "a variable that still holds what an earlier packet left",
    "W911": "a directive in a comment that counts all the same",
    "W912": "a function that homerd cannot carry out",
}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong, or only strange, in a script."""

    code: str
    message: str
    span: Span = NOWHERE
    help: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """error or warning, by the code."""
        return "warning" if self.code.startswith("W") else "error"


class Diagnostics:
    """The diagnostics of one script as they are found."""

    def __init__(self, sources: SourceMap) -> None:
        self.sources = sources
        self.found: list[Diagnostic] = []

    def add(self, code: str, message: str, span: Span, *help: str) -> None:
        """Keep one; a second with the same code at the same place is not kept."""
        new = Diagnostic(code, message, span, tuple(text for text in help if text))
        if not any(old.code == code and old.span[:2] == span[:2] for old in self.found):
            self.found.append(new)

    @property
    def errors(self) -> list[Diagnostic]:
        """Those that keep the script from running."""
        return [item for item in self.found if item.severity == "error"]

    @property
    def warnings(self) -> list[Diagnostic]:
        """Those that do not."""
        return [item for item in self.found if item.severity == "warning"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like *name*, None when none is near."""
    lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.65)
    return lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A help line with the nearest name, "" when none is near."""
    near = nearest(name, known)
    return f'did you mean "{near}"?' if near else ""


_PASSWORD = re.compile(r"(?<=://)([^:/@\s\"]*:)([^\s\"]*)(?=@)")
# agent = "sbc1=>id=1;key=s3cret" and the profiles of hep.  "key=…" stands so in our own messages.
_KEY = re.compile(r"""(\bkey\s*=\s*)(?![=>…])((?:\\.|[^;"\\])+)""")


def without_passwords(text: str) -> str:
    """*text* with the passwords of its URLs and its keys starred out, as wide as before."""
    for pattern in (_PASSWORD, _KEY):
        text = pattern.sub(lambda found: found[1] + "*" * len(found[2]), text)
    return text


_BOLD, _RED, _YELLOW, _BLUE, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


def render(diagnostics: Iterable[Diagnostic], sources: SourceMap, *, colour: bool = False) -> str:
    """Everything as text, in the order of the files."""
    ordered = sorted(diagnostics, key=lambda item: (item.span.line, item.span.column))
    return "".join(_render(item, sources, colour) for item in ordered)


def headline(item: Diagnostic, sources: SourceMap) -> str:
    """Its first line alone, which shows nothing of the script's text."""
    found = sources.find(item.span.line)
    where = f"{found[0].name}:{found[1]}:{item.span.column}: " if found else ""
    return f"{where}{item.severity}[{item.code}]: {without_passwords(item.message)}"


def _render(item: Diagnostic, sources: SourceMap, colour: bool) -> str:
    def painted(text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if colour else text

    tone = _RED if item.severity == "error" else _YELLOW
    label = painted(f"{item.severity}[{item.code}]", _BOLD + tone)
    message = without_passwords(item.message)
    helps = "".join(
        f"   {painted('help:', _BLUE)} {without_passwords(text)}\n" for text in item.help
    )
    found = sources.find(item.span.line)
    if found is None:
        return f"{label}: {message}\n{helps}"
    file, number = found
    head = f"{file.name}:{number}:{item.span.column}: {label}: {painted(message, _BOLD)}\n"
    text = without_passwords(file.line(number))
    start = item.span.column - 1
    end = item.span.end_column - 1 if item.span.end_line == item.span.line else len(text)
    width = max(1, min(end, len(text)) - start)
    # A tab is kept in front of the caret too, so that both lines shift alike.
    lead = "".join("\t" if char == "\t" else " " for char in text[:start])
    caret = painted("^" * width, tone)
    return f"{head}{number:5} | {text}\n{'':5} | {lead}{caret}\n{helps}"
