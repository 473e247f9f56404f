"""Where an address is: records of a MaxMind database (MMDB), by the keys of geoip and geoip2."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homerd.api import ConfigError, Plugin, Text, Value, Worker, hookimpl

if TYPE_CHECKING:
    import maxminddb

NOT_FOUND, TOO_LONG = -2, -3  # as geoip2_match returns them
MAX_TARGET = 255
# Names of the old format's files -> the database that has the same today.
_TODAY = {"city": "GeoLite2-City.mmdb", "country": "GeoLite2-Country.mmdb"}

Record = dict[str, Any]  # as the database has it: maps, lists, texts and numbers


class Match:
    """What was found for an address: its record and the network that has it."""

    __slots__ = ("address", "prefix", "record")

    def __init__(self, address: str, record: Record, prefix: int) -> None:
        self.address = address
        self.record = record
        self.prefix = prefix

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The network of the database that the address is in."""
        return ipaddress.ip_network(f"{self.address}/{self.prefix}", strict=False)


class Places:
    """An open database, and the last match by container name."""

    def __init__(self, reader: maxminddb.Reader) -> None:
        self.reader = reader
        self.matches: dict[str, Match] = {}
        self.asked = 0
        self.found = 0

    def match(self, address: str, name: str) -> int:
        """Look *address* up and keep what is found under *name*; 1, or below 0 when nothing is."""
        self.asked += 1
        self.matches.pop(name, None)
        if len(address) > MAX_TARGET:
            return TOO_LONG
        address = address.strip("[]")
        try:
            record, prefix = self.reader.get_with_prefix_len(address)
        except ValueError:  # no address, or IPv6 where the database has IPv4 only
            return NOT_FOUND
        if not isinstance(record, dict):
            return NOT_FOUND
        self.found += 1
        self.matches[name] = Match(address, record, prefix)
        return 1

    def value(self, name: str, key: Callable[[Match], Value]) -> Value:
        """A value of the last match under *name*; null without one."""
        match = self.matches.get(name)
        return None if match is None else key(match)

    def close(self) -> None:
        """Close the database."""
        self.reader.close()


class Lookups(Plugin):
    """What the modules have in common: a database that is open while the worker runs."""

    name = "_geoip"

    def __init__(self) -> None:
        self.places: Places | None = None

    def database(self) -> tuple[str, str]:
        """The parameter that names the database, and what it says."""
        raise NotImplementedError

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open the database; raises ConfigError when it cannot be read."""
        self.places = _opened(self.name, *self.database())

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Close it."""
        if self.places is not None:
            self.places.close()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Addresses asked for, and those the database knows."""
        if self.places is not None:
            yield "homerd_geoip_asked_total", {"module": self.name}, self.places.asked
            yield "homerd_geoip_found_total", {"module": self.name}, self.places.found


def bind_key(
    keys: dict[str, Callable[[Match], Value]], argument: Text | None
) -> tuple[object, ...]:
    """`name=>key` as (name, what reads the key)."""
    name, arrow, key = (argument or Text("")).partition("=>")
    name, key = name.strip(), key.strip()
    if not arrow or not name.constant:
        raise ValueError("expected name=>key in parentheses")
    if key.constant not in keys:
        raise ValueError(f'unknown key "{key.source}": there are {", ".join(keys)}')
    return name.constant, keys[key.constant]


def _at(*path: str | int) -> Callable[[Match], Value]:
    """A reader of what stands at *path* in the record."""

    def read(match: Match) -> Value:
        found: Any = match.record
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        if isinstance(found, float):
            return f"{found:f}"
        return found if isinstance(found, str | int) else None

    return read


def _text(read: Callable[[Match], Value]) -> Callable[[Match], Value]:
    def as_text(match: Match) -> Value:
        value = read(match)
        return None if value is None else str(value)

    return as_text


def _country(match: Match) -> Value:
    if _at("traits", "is_anonymous_proxy")(match):
        return "A1"
    return _at("country", "iso_code")(match) or _at("registered_country", "iso_code")(match)


_METRO = _at("location", "metro_code")

GEOIP2_KEYS: dict[str, Callable[[Match], Value]] = {
    "cc": _country,
    "tz": _at("location", "time_zone"),
    "zip": _at("postal", "code"),
    "lat": _at("location", "latitude"),
    "lon": _at("location", "longitude"),
    "city": _at("city", "names", "en"),
    "regc": _at("subdivisions", 0, "iso_code"),
    "regn": _at("subdivisions", 0, "names", "en"),
    "metro": _text(_METRO),
    "nmask": lambda match: str(match.prefix),
    "cidr": lambda match: str(match.network),
    "contc": _at("continent", "code"),
}
GEOIP_KEYS: dict[str, Callable[[Match], Value]] = {
    **{key: read for key, read in GEOIP2_KEYS.items() if key not in ("nmask", "cidr", "metro")},
    "metro": _METRO,
    "dma": _METRO,
    "area": lambda match: None,  # telephone area codes are in no database any more
    "ips": lambda match: str(match.network[0]),
    "ipe": lambda match: str(match.network[-1]),
}


def _opened(module: str, param: str, path: str) -> Places:
    """Open the file that modparam names; raises ConfigError with what would be right."""
    import maxminddb

    if not path:
        raise ConfigError(f'{module}: no database: modparam("{module}", "{param}", "….mmdb")')
    file = Path(path)
    if file.suffix == ".dat":
        today = _TODAY["country" if "country" in file.name.lower() else "city"]
        file = file.with_name(today)
        if not file.is_file():
            raise ConfigError(
                f'modparam("{module}", "{param}", "{path}"): this format is read no more;'
                f" put {today} beside it or name an .mmdb file"
            )
    try:
        return Places(maxminddb.open_database(str(file)))
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        raise ConfigError(f'modparam("{module}", "{param}", "{path}"): {error}') from error
