"""Where packets are passed on to, and how: `central=>target=tcp:10.0.0.2:9060;capture_id=2001`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

DEFAULT_PORTS = {"udp": 9060, "tcp": 9060, "tls": 9061}
_TARGET = re.compile(r"(?:(\w+):(?://)?)?(\[[^][]+\]|[^:\[\]/@;\s]+)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Target:
    """One receiver: scheme "udp", "tcp" or "tls", host as it is resolved, port."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def read(text: str) -> Target:
        """`udp:HOST:PORT`; scheme and port may be left out.  Raises ValueError."""
        found = _TARGET.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                f'expected udp:HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT, got "{text}"'
            )
        scheme = (found[1] or "udp").lower()
        if scheme not in DEFAULT_PORTS:
            known = ", ".join(DEFAULT_PORTS)
            raise ValueError(f'target "{text}": unknown transport "{scheme}", expected {known}')
        port = int(found[3]) if found[3] else DEFAULT_PORTS[scheme]
        if not 0 < port < 65536:
            raise ValueError(f'target "{text}": expected a port from 1 to 65535')
        return Target(scheme, found[2].strip("[]"), port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Profile:
    """A name for a way out.

    targets: as they are preferred.  balance: "failover", or "callid" which shares them out.
    capture_id, key, node: what is written in place of the packet's own; None leaves that.
    acknowledge: "yes", "no" or "auto", see _hep_lines.  format: "hep", or "json" for lines of it.
    tls_name: the name that the certificate must have, the target's host when empty.
    """

    name: str
    targets: tuple[Target, ...]
    version: int = 3
    capture_id: int | None = None
    key: str | None = field(default=None, repr=False)
    node: str | None = None
    compress: bool = False
    balance: str = "failover"
    acknowledge: str = "auto"
    format: str = "hep"
    timeout: float = 10.0
    batch_size: int = 1000
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_verify: bool = True
    tls_name: str = ""

    @staticmethod
    def from_script(value: str | int) -> Profile:
        """`NAME=>target=…;version=3;…`; ValueError says what is wrong."""
        name, arrow, rest = str(value).partition("=>")
        name = name.strip()
        if not re.fullmatch(r"[\w.-]+", name) or not arrow:
            raise ValueError("expected NAME=>target=udp:HOST:PORT;version=3")
        found = _pieces(name, rest)
        return _made(name, found)

    @property
    def as_received(self) -> bool:
        """Whether packets that came in its version leave as they came, byte for byte."""
        return (self.capture_id, self.key, self.node, self.compress) == (None, None, None, False)

    @property
    def streams(self) -> bool:
        """Whether packets leave over a stream."""
        return any(target.scheme != "udp" for target in self.targets)


def _pieces(name: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in filter(str.strip, text.split(";")):
        key, equals, value = piece.partition("=")
        key = key.strip()
        if key not in _READERS or not equals:
            known = ", ".join(sorted(_READERS))
            raise ValueError(f'profile "{name}": unknown attribute "{key}", expected {known}')
        found[key] = value.strip()
    return found


def _made(name: str, found: Mapping[str, str]) -> Profile:
    values: dict[str, object] = {}
    for key, text in found.items():
        try:
            values["targets" if key == "target" else key] = _READERS[key](text)
        except ValueError as error:
            raise ValueError(f'profile "{name}": {key}: {error}') from None
    if "targets" not in values:
        raise ValueError(f'profile "{name}": target=udp:HOST:PORT is missing')
    if values.get("format") == "json":
        hep_only = sorted({"version", "compress", "key"} & found.keys())
        if hep_only or values.setdefault("acknowledge", "no") != "no":
            raise ValueError(
                f'profile "{name}": format=json knows no {", ".join(hep_only) or "acknowledge"}'
            )
    profile = Profile(name, **values)  # type: ignore[arg-type]  each is what its reader gives
    if profile.version < 3 and profile.streams:
        raise ValueError(
            f'profile "{name}": HEP {profile.version} has no length and cannot be sent over a'
            " stream; version=3, or a target of udp:"
        )
    if profile.version < 3 and profile.compress:
        raise ValueError(f'profile "{name}": HEP {profile.version} has no compressed payload')
    if profile.acknowledge == "yes" and not all(each.scheme != "udp" for each in profile.targets):
        raise ValueError(f'profile "{name}": nothing is acknowledged over udp:, use tcp: or tls:')
    return profile


def _targets(text: str) -> tuple[Target, ...]:
    targets = tuple(Target.read(each) for each in text.split(",") if each.strip())
    if not targets:
        raise ValueError("expected udp:HOST:PORT")
    return targets


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f'expected a number from {least} to {most}, got "{text}"')
        return int(text)

    return read


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 0 < float(text) <= 3600:
        raise ValueError(f'expected seconds, got "{text}"')
    return float(text)


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "no", "1", "0", "on", "off", "true", "false"):
        raise ValueError(f'expected yes or no, got "{text}"')
    return text.lower() in ("yes", "1", "on", "true")


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f'expected {", ".join(words)}, got "{text}"')
        return text.lower()

    return read


_READERS: dict[str, Callable[[str], object]] = {
    "target": _targets,
    "version": _number(1, 3),
    "capture_id": _number(0, (1 << 32) - 1),
    "key": str,
    "node": str,
    "compress": _yes,
    "balance": _one_of("failover", "callid"),
    "acknowledge": _one_of("auto", "yes", "no"),
    "format": _one_of("hep", "json"),
    "timeout": _seconds,
    "batch_size": _number(1, 100_000),
    "tls_ca": str,
    "tls_certificate": str,
    "tls_key": str,
    "tls_verify": _yes,
    "tls_name": str,
}
