"""Where rows go, by the scheme of a URL: SQLite, PostgreSQL, MariaDB or MySQL.

URLs are Kamailio's: `driver://user:password@host:port/database`.  The password stands as it is, or
with `%40` and the like for what is special.  The host may be a socket: `[/run/mysqld/mysqld.sock]`,
or for PostgreSQL the folder it is in.

HOMERD_DB in the environment names other stores than the script does: `URL=STORE;URL=STORE`, or one
STORE for all; `--db` of the commands sets it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from homerd_plugins._homer5 import Column

ENVIRONMENT = "HOMERD_DB"

# To delete rows of a day, or to move them out of a default partition.
KEEP_SECONDS = 900.0

SQLITE, POSTGRES, MYSQL = "sqlite", "postgres", "mysql"
SCHEMES = {
    "sqlite": SQLITE,
    "postgres": POSTGRES,
    "postgresql": POSTGRES,
    "mysql": MYSQL,
    "mariadb": MYSQL,
}
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[^\]]*\]|[^:/@]*)(?::(?P<port>[0-9]{1,5}))?/(?P<database>[^/?]+)(?:\?.*)?",
    re.I,
)
_ITEM = re.compile(r"(?P<url>.+?)=(?P<store>[a-z]+://.+)", re.I)
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@")
_FORM = "driver://user:password@host:port/database"


@dataclass(frozen=True, slots=True)
class Address:
    """A database.

    database: of SQLite the file.  socket: a path, where the host is one.
    source: the store whose SQL the script has for it, which HOMERD_DB does not change.
    """

    store: str
    database: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    socket: str = ""
    source: str = ""

    @classmethod
    def of_script(cls, url: str) -> Address:
        """What a URL of the script means here, for statements of the script; ValueError as `of`."""
        written = url.strip().partition("://")[0].lower()
        return replace(cls.of(store_of_url(url)), source=SCHEMES.get(written, MYSQL))

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL; raises ValueError, without the password in it."""
        scheme, colon, rest = url.strip().partition("://")
        store = SCHEMES.get(scheme.lower())
        if not colon:
            raise ValueError(f"expected sqlite://PATH or {_FORM}")
        if store is None:
            near = difflib.get_close_matches(scheme.lower(), SCHEMES, 1)
            hint = f'did you mean "{near[0]}"?' if near else "use sqlite, postgres or mysql"
            raise ValueError(f"there is no store for {scheme}: {hint}")
        if store == SQLITE:
            if rest in ("", ":memory:"):  # each connection would have a memory of its own
                raise ValueError('expected "sqlite://" and a file\'s path')
            return cls(store, rest)
        found = _URL.fullmatch(url.strip())
        if found is None:
            raise ValueError(f"{_fault(rest)}expected {_FORM}")
        host = unquote(found["host"].strip("[]"))
        return cls(
            store,
            found["database"],
            "" if host.startswith("/") else host,
            int(found["port"] or 0),
            unquote(found["user"] or ""),
            found["password"] or "",
            host if host.startswith("/") else "",
        )

    @property
    def decoded_password(self) -> str:
        """The password, if what is special in it was escaped."""
        return unquote(self.password)

    @property
    def shown(self) -> str:
        """The address without user and password."""
        if self.store == SQLITE:
            return f"sqlite://{self.database}"
        port = f":{self.port}" if self.port else ""
        host = f"[{self.socket}]" if self.socket else self.host
        return f"{self.store}://{host}{port}/{self.database}"


def _fault(rest: str) -> str:
    """What is wrong with all behind `driver://`, where that is plain; nothing of it is shown."""
    place, slash, database = rest.rpartition("@")[2].partition("/")
    if not slash or not database:
        return "no database is named: "
    port = place.rpartition("]")[2].partition(":")[2]
    return "the port is no number: " if port and not port.isdecimal() else ""


def store_of_url(url: str) -> str:
    """The URL of the store that *url* of a script means here."""
    return mapped(url, os.environ.get(ENVIRONMENT, ""))


def mapped(url: str, mapping: str) -> str:
    """What *mapping* (see the module) makes of a URL; its user and password may be left out."""
    everything = ""
    for item in filter(None, map(str.strip, mapping.split(";"))):
        found = _ITEM.fullmatch(item)
        if found is None:
            everything = item
        elif found["url"].strip() in (url, _CREDENTIALS.sub("", url), "*"):
            return found["store"].strip()
    return everything or url


def sink_for(
    address: Address,
    name: str,
    layouts: Sequence[Sequence[Column]],
    *,
    keeps: bool = False,
    **options: Any,
) -> Any:
    """The BatchSink that writes rows of *layouts* to *address*; drivers are imported here.

    keeps: it is for upkeep, whose statements take longer than those of a writer.
    """
    if keeps and address.store != SQLITE:
        options.setdefault("answer_seconds", KEEP_SECONDS)
    if address.store == SQLITE:
        from homerd_plugins._sqlite import SqliteSink

        return SqliteSink(name, address.database, layouts, **options)
    if address.store == POSTGRES:
        from homerd_plugins._postgres import PostgresSink

        return PostgresSink(name, address, layouts, **options)
    from homerd_plugins._mysql import MysqlSink

    return MysqlSink(name, address, layouts, **options)


def without_password(url: str) -> str:
    """*url* as it may be shown."""
    return re.sub(r"://.*@", "://…@", url)
