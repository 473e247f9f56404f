"""Which server or agent a script was written for, told by its first line or by its constructs.

The dialect decides how the text is cut into tokens, which modules are there without loadmodule and
what an unset `$var` is; nothing else asks for it.  Operators tell nothing: `+=` in a script for
Kamailio is a mistake, and stays one.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

# What is no statement: strings, and comments but for the directives that only Kamailio has.
_PASSED_OVER = (
    r"^[ \t]*[#!]!(?P<said>KAMAILIO|OPENSER|SER|MAXCOMPAT|ALL|OPENSIPS|CAPTAGENT)\b"
    r"|^[ \t]*(?P<directive>\#!(?:ifn?def|ifexp|define|trydef|redef|subst|substdefs?|defenvs?)\b)"
    r"|(?P<comment>\#[^\n]*|//[^\n]*|/\*.*?\*/)"
)
_MODULES = (
    r"proto_\w+|cachedb_\w+|sipmsgops|mmgeoip|rest_client|signaling|mi_http|httpd|b2b_\w+"
    r"|clusterer|event_\w+|uac_auth|freeswitch"
)
_CONSTRUCTS = (
    r"(?P<plan>^[ \t]*capture\s*(?:\[[^][\n]*\]\s*)?\{)"
    r'|(?P<module>\bloadmodule\s*\(?\s*"(?:[^"\n]*/)?(?:' + _MODULES + r')(?:\.so)?")'
    r'|(?P<param>\bmodparam\s*\(\s*"(?:statistics"\s*,\s*"stat_groups"|sipcapture"\s*,\s*"hep_route"))'
    r"|(?P<route>\b(?:timer_route\s*\[|(?:startup_route|error_route|local_route)\s*\{))"
    r"|(?P<listen>\b(?:listen|socket)\s*=\s*hep_(?:udp|tcp)\b)"
    r"|(?P<null>[=!]=\s*NULL\b)"
)
_SCAN = re.compile(
    f"{_PASSED_OVER}|{_CONSTRUCTS}" + r"""|"(?:[^"\\]|\\.)*"|'[^']*'""", re.DOTALL | re.MULTILINE
)


class Dialect(enum.Enum):
    """A language of routing scripts, or of an agent's capture plans."""

    KAMAILIO = "Kamailio"
    OPENSIPS = "OpenSIPS"
    PLAN = "captagent"


_SAID = {"OPENSIPS": Dialect.OPENSIPS, "CAPTAGENT": Dialect.PLAN}


@dataclass(frozen=True, slots=True)
class Told:
    """The dialect of a script, and what told it: a piece of its text and its line, or "" and 0."""

    dialect: Dialect
    by: str = ""
    line: int = 0


def dialect_of(text: str) -> Told:
    """Read the signs of a script's own text, includes left aside; Kamailio when there are none."""
    sign: re.Match[str] | None = None
    for found in _SCAN.finditer(text):
        if found["said"]:
            dialect = _SAID.get(found["said"], Dialect.KAMAILIO)
            return Told(dialect, found.group().strip(), _line(text, found))
        if found["plan"]:
            return Told(Dialect.PLAN, " ".join(found.group().split()), _line(text, found))
        if found["directive"]:
            return Told(Dialect.KAMAILIO, found["directive"], _line(text, found))
        if sign is None and found.lastgroup is not None and found["comment"] is None:
            sign = found
    if sign is None:
        return Told(Dialect.KAMAILIO)
    return Told(Dialect.OPENSIPS, " ".join(sign.group().split()), _line(text, sign))


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1
