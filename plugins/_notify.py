"""Targets of alarms: where people and programs are told, by the scheme of an address.

NAME=>https://user:password@host/path;format=slack
NAME=>smtp://user:password@host:587/?from=homer@example.org&to=noc@example.org
NAME=>syslog+tcp://host:514;facility=local0
NAME=>statsd://host:8125/prefix
NAME=>alertmanager://host:9093
NAME=>exec:/path/to/program
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from homerd_plugins._notify_parts import Options, Url
from homerd_plugins._notify_sink import NotifySink

# scheme -> the module of its sink and the class of its settings there; imported when used.
SCHEMES = {
    "http": ("_notify_http", "Webhook"),
    "https": ("_notify_http", "Webhook"),
    "smtp": ("_notify_mail", "Mail"),
    "smtps": ("_notify_mail", "Mail"),
    "syslog": ("_notify_syslog", "Syslog"),
    "syslog+tcp": ("_notify_syslog", "Syslog"),
    "syslog+tls": ("_notify_syslog", "Syslog"),
    "statsd": ("_notify_statsd", "Statsd"),
    "alertmanager": ("_notify_alertmanager", "Alertmanager"),
    "alertmanager+https": ("_notify_alertmanager", "Alertmanager"),
    "exec": ("_notify_exec", "Program"),
}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class Settings(Protocol):
    """What a scheme's address and options say."""

    @property
    def where(self) -> str:
        """The target as it may be shown."""

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What tells it."""


@dataclass(frozen=True, slots=True)
class Target:
    """`NAME=>URL;option=value`; two that say the same are equal."""

    name: str
    settings: Settings

    @staticmethod
    def from_script(value: str | int) -> Target:
        """Read a target; a ValueError is what the operator is told."""
        name, arrow, rest = str(value).partition("=>")
        name, rest = name.strip(), rest.strip()
        if not arrow or _NAME.fullmatch(name) is None:
            raise ValueError(
                "expected NAME=>URL;option=value, the name of letters, digits and _ . -"
            )
        try:
            return Target(name, _settings(rest))
        except ValueError as error:
            raise ValueError(f'target "{name}": {error}') from None

    @property
    def where(self) -> str:
        """The target as it may be shown."""
        return self.settings.where

    def sink(self, **options: Any) -> NotifySink:
        """A BatchSink which takes AlarmEvent.as_record(); options: those of BatchSink."""
        return self.settings.sink(self.name, **options)


def _settings(text: str) -> Settings:
    address, _, rest = text.partition(";")
    scheme, colon, _ = address.partition(":")
    if not colon or scheme.lower() not in SCHEMES:
        close = difflib.get_close_matches(scheme.lower(), SCHEMES, 1)
        hint = f', did you mean "{close[0]}:"' if close else ""
        raise ValueError(f"expected an address{hint}; there are {', '.join(SCHEMES)}")
    module, kind = SCHEMES[scheme.lower()]
    options = Options(Options.written(rest))
    made: Settings = getattr(import_module(f"homerd_plugins.{module}"), kind).of(
        Url.of(address.strip()), options
    )
    options.end()
    return made
