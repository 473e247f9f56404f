"""mmgeoip: places of addresses, of scripts written for OpenSIPS, from a MaxMind database (MMDB)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    Plugin,
    Value,
    Worker,
    Writable,
    hookimpl,
    script_function,
)
from homerd_plugins._geoip import GEOIP2_KEYS, Match, Places, open_database

_CONTAINER = "mmg_lookup"

# Field of mmg_lookup -> what reads it from a record.
FIELDS: dict[str, Callable[[Match], Value]] = {
    "lat": GEOIP2_KEYS["lat"],
    "lon": GEOIP2_KEYS["lon"],
    "cc": GEOIP2_KEYS["cc"],
    "cont": GEOIP2_KEYS["contc"],
    "reg": GEOIP2_KEYS["regc"],
    "city": GEOIP2_KEYS["city"],
    "pc": GEOIP2_KEYS["zip"],
    "dma": GEOIP2_KEYS["metro"],
    "tz": GEOIP2_KEYS["tz"],
    "rtz": GEOIP2_KEYS["tz"],
}
DEFAULT_FIELDS = "lon:lat:cont:cc"


class Fields(tuple[str, ...]):
    """`lon:lat:cc`, names of what is wanted, in that order."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> tuple[str, ...]:
        names = tuple(name for name in re.split(r"[:,;| ]+", str(value)) if name)
        unknown = [name for name in names if name not in FIELDS]
        if unknown or not names:
            raise ValueError(
                f'unknown field "{"".join(unknown[:1])}": there are {", ".join(FIELDS)}'
            )
        return names


class MmGeoip(Plugin):
    """Looks addresses up."""

    name = "mmgeoip"

    mmgeoip_city_db_path = ModParam(str, "", help="the database, an .mmdb file")
    cache_type = ModParam(str, "", help="accepted")

    def __init__(self) -> None:
        self.places: Places | None = None

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open the database."""
        if not self.mmgeoip_city_db_path:
            raise ConfigError(
                'mmgeoip: no database: modparam("mmgeoip", "mmgeoip_city_db_path", "….mmdb")'
            )
        self.places = open_database(self.name, self.mmgeoip_city_db_path)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Close it."""
        if self.places is not None:
            self.places.close()

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """How often an address was asked for, and found."""
        if self.places is not None:
            yield "homerd_geoip_lookups_total", {"module": self.name}, self.places.asked
            yield "homerd_geoip_found_total", {"module": self.name}, self.places.found

    @script_function("mmg_lookup")
    def mmg_lookup(self, packet: Packet, address: str, result: Writable) -> bool:
        """Look *address* up: longitude, latitude, continent and country go to an AVP.

        The AVP's index 0 is the first.
        """
        return self._look_up(packet, Fields.from_script(DEFAULT_FIELDS), address, result)

    @script_function("mmg_lookup")
    def mmg_lookup_fields(
        self, packet: Packet, fields: Fields, address: str, result: Writable
    ) -> bool:
        """The same for the *fields* that are named, `lon:lat:city`."""
        return self._look_up(packet, fields, address, result)

    def _look_up(
        self, packet: Packet, fields: tuple[str, ...], address: str, result: Writable
    ) -> bool:
        places = self.places
        if places is None or places.match(address, _CONTAINER) != 1:
            return False
        # An AVP is a stack: what is pushed last has the index 0.
        for name in reversed(fields):
            value = places.value(_CONTAINER, FIELDS[name])
            result.set(packet, "" if value is None else value)
        return True
