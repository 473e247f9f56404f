"""What a target of alarms is written with: `NAME=>URL;option=value;…`, read when the script loads.

What is wrong is a ValueError which says what would be right, and never shows a password.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from homerd.api import ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an address; user and password decoded.

    port: 0 when there is none.  query: behind the `?`, as it stands.
    """

    scheme: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    path: str = field(default="", repr=False)
    query: str = field(default="", repr=False)

    @staticmethod
    def of(text: str) -> Url:
        """Read an address."""
        if _CONTROL.search(text) or " " in text:
            raise ValueError("the address holds a blank or a control character: write it as %20")
        try:
            parts = urlsplit(text)
            port = parts.port or 0
        except ValueError:  # its text may quote a part of the password
            raise ValueError(
                "the address cannot be read: expected scheme://user:password@host:port/…"
                " with a port from 1 to 65535, and %40 and the like for what is special"
            ) from None
        if "@" in parts.path and not parts.username:
            raise ValueError('there is an "@" behind a "/": write both as %40 and %2F')
        if parts.fragment:
            raise ValueError('the address holds a "#": write it as %23')
        host = parts.hostname or ""
        if not _is_host(host):
            raise ValueError(f'"{host}" is no name of a host')
        return Url(
            parts.scheme,
            host,
            port,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            parts.path,
            parts.query,
        )

    @property
    def place(self) -> str:
        """Host and, where it was written, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


class Options:
    """The options of one target; what nobody asked for when they were read is a mistake."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._given: dict[str, list[str]] = {}
        self._known: set[str] = set()
        self.add(pairs)

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take options that stood elsewhere."""
        for name, value in pairs:
            if _CONTROL.search(value):
                raise ValueError(f"option {name} holds a control character")
            self._given.setdefault(name, []).append(value)

    @staticmethod
    def written(text: str) -> list[tuple[str, str]]:
        """`a=1;b=2` as pairs."""
        pairs = []
        for piece in filter(str.strip, text.split(";")):
            name, equals, value = piece.partition("=")
            if not equals:
                raise ValueError(f'expected option=value behind ";", got "{_start(piece)}"')
            pairs.append((name.strip(), value.strip()))
        return pairs

    @staticmethod
    def of_query(text: str) -> list[tuple[str, str]]:
        """`a=1&b=2` as pairs; a "+" is a "+", as it may stand in an address of mail."""
        pieces = [piece.partition("=") for piece in text.split("&") if piece]
        return [(unquote(name), unquote(value)) for name, _, value in pieces]

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of an option that may come several times."""
        self._known.add(name)
        return tuple(self._given.get(name, ()))

    def text(self, name: str, default: str = "") -> str:
        """An option that is written once."""
        values = self.all(name)
        if len(values) > 1:
            raise ValueError(f"option {name} is written {len(values)} times")
        return values[0] if values else default

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within limits."""
        text = self.text(name, str(default))
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else least - 1
        if not least <= number <= most:
            raise ValueError(f"{name}={text}: expected a number from {least} to {most}")
        return number

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of some words."""
        text = self.text(name, default)
        if text not in choices:
            raise ValueError(f"{name}={text}: expected {' or '.join(choices)}")
        return text

    def flag(self, name: str, default: bool) -> bool:
        """0 or 1."""
        return self.number(name, int(default), 0, 1) == 1

    def end(self) -> None:
        """Refuse what was not asked for."""
        for name in self._given:
            if name not in self._known:
                known = sorted(self._known)
                close = difflib.get_close_matches(name, known, 1)
                hint = f', did you mean "{close[0]}"' if close else ""
                raise ValueError(
                    f'unknown option "{_start(name)}"{hint}; there are {", ".join(known)}'
                )


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """`ca=FILE;verify=0`: how a server's certificate is checked."""

    authorities: str = ""
    verify: bool = True

    @staticmethod
    def of(options: Options) -> TlsOptions:
        """Read them."""
        return TlsOptions(options.text("ca"), options.flag("verify", True))

    def context(self, name: str) -> ssl.SSLContext:
        """What a connection of the target *name* is made with; ConfigError for a bad file."""
        try:
            context = ssl.create_default_context(cafile=self.authorities or None)
        except OSError as error:  # ssl.SSLError is one too
            raise ConfigError(f'target "{name}": ca={self.authorities}: {error}') from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def need_host(url: Url, form: str) -> None:
    """Refuse an address without a host; *form*: what was expected."""
    if not url.host:
        raise ValueError(f"expected {form}")


def no_more(url: Url, form: str, *, user: bool = False, query: bool = False) -> None:
    """Refuse parts of an address that would mean nothing."""
    if user and (url.user or url.password):
        raise ValueError(f"expected {form}, without a user and a password")
    if query and url.query:
        raise ValueError(f'expected {form}: options stand behind ";"')


def _is_host(text: str) -> bool:
    """Whether it can be looked up; "" is for whoever needs one to refuse."""
    try:
        text.encode("idna")
    except UnicodeError:  # a label that is empty or too long
        return False
    return re.fullmatch(r"[\w.:%-]*", text) is not None


def _start(text: str) -> str:
    """The start of what is no option, most likely a piece of an address that was split."""
    return text if len(text) <= 12 else text[:8] + "…"
