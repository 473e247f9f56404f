"""SIP addresses: URIs, name-addr values and their parameters.

Nothing raises: what cannot be read is None or empty.  Source: RFC 3261 25.1, RFC 3966, RFC 5031.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SIP_SCHEMES = frozenset({"sip", "sips"})
_NUMBER_SCHEMES = frozenset({"tel", "tels"})

# parameter = ";" name [ "=" ( quoted-string / value ) ], blanks allowed around each
_PARAMETER = re.compile(
    r""";[ \t]*([^\s=;"]+)[ \t]*(?:=[ \t]*("(?:[^"\\]|\\.)*"?|[^;]*))?""", re.DOTALL
)
_PIECE = re.compile(r"""(?:"(?:[^"\\]|\\.)*"?|<[^>]*>?|[^,"<])+""", re.DOTALL)
_QUOTED_NAME = re.compile(r"""[^"<]*"(?:[^"\\]|\\.)*\"""", re.DOTALL)


class Uri(NamedTuple):
    """One URI in its parts; "" for a part it does not have.

    host keeps the brackets of an IPv6 address.  tel: has the number as user and no host.
    params, headers: the text after the first ";" and after "?", without these marks.
    """

    scheme: str
    user: str
    password: str
    host: str
    port: str
    params: str
    headers: str


class NameAddr(NamedTuple):
    """`"Display" <uri>;params`, or `uri;params` without the brackets.

    display: as it was sent, with its quotes; "" when there is none.
    params: the header's parameters with their first ";", "" when there are none.
    """

    display: str
    uri: str
    params: str

    def parameter(self, name: str) -> str | None:
        """The value of header parameter *name* without quotes; "" when it has no value."""
        return parameter(self.params, name)


def parse_uri(text: str) -> Uri | None:
    """Read a sip, sips, tel or urn URI; None for another scheme or a host or port that is none."""
    scheme, colon, rest = text.partition(":")
    if scheme != "sip":
        scheme = scheme.lower()
        if scheme not in _SIP_SCHEMES:
            return _parse_other(scheme, rest) if colon else None
    userinfo, at, place = rest.partition("@")
    if at:
        user, _, password = userinfo.partition(":")
    else:
        place = userinfo
        user = password = ""
    headers = params = ""
    if "?" in place:
        place, _, headers = place.partition("?")
    if ";" in place:
        place, _, params = place.partition(";")
    port = ""
    if place[:1] == "[":
        host, bracket, port = place.partition("]")
        host += bracket
        if not bracket or (port and port[0] != ":"):
            return None
        port = port[1:]
    elif ":" in place:
        host, _, port = place.partition(":")
    else:
        host = place
    if (
        not host
        or "@" in place
        or " " in host
        or (port and not (port.isdecimal() and port.isascii()))
    ):
        return None
    return Uri(scheme, user, password, host, port, params, headers)


def parse_name_addr(text: str) -> NameAddr:
    """Read the first address of a From, To, Contact or similar body; lenient throughout."""
    quoted = _QUOTED_NAME.match(text)
    start = quoted.end() if quoted else 0
    left = text.find("<", start)
    if left < 0:
        uri, semicolon, params = text.strip(" \t").partition(";")
        return NameAddr("", uri.rstrip(" \t"), semicolon + params)
    right = text.find(">", left)
    if right < 0:
        right = len(text)
    return NameAddr(
        text[:left].strip(" \t"),
        text[left + 1 : right].strip(" \t"),
        text[right + 1 :].strip(" \t"),
    )


def split_list(text: str) -> list[str]:
    """The elements of a comma-separated body; commas in quotes or in <> do not count."""
    if "," not in text:
        return [text.strip(" \t")]
    return [piece.strip(" \t") for piece in _PIECE.findall(text) if piece.strip(" \t")]


def parameters(text: str) -> dict[str, str]:
    """Parameters of `;a=1;b="x;y";c` by lower-case name, the first of each; quotes removed."""
    found: dict[str, str] = {}
    for name, value in _PARAMETER.findall(text if text[:1] == ";" else ";" + text):
        found.setdefault(name.lower(), unquote(value.strip(" \t")))
    return found


def parameter(text: str, name: str) -> str | None:
    """One of `parameters`; None when it is absent."""
    return parameters(text).get(name.lower()) if text else None


def unquote(text: str) -> str:
    """*text* without the double quotes around it, if it has them."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _parse_other(scheme: str, rest: str) -> Uri | None:
    """tel:number;params and urn:space:name, as Kamailio reads them."""
    rest, _, headers = rest.partition("?")
    rest, _, params = rest.partition(";")
    if scheme in _NUMBER_SCHEMES and rest:
        return Uri(scheme, rest, "", "", "", params, headers)
    if scheme == "urn":
        user, _, host = rest.partition(":")
        return Uri(scheme, user, "", host, "", params, headers) if host else None
    return None
