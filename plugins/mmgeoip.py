"""mmgeoip: places of addresses, of scripts written for OpenSIPS, from a MaxMind database (MMDB)."""

from __future__ import annotations

import re
from collections.abc import Callable

from homerd.api import (
    ModParam,
    Packet,
    Value,
    Writable,
    script_function,
)
from homerd_plugins._geoip import GEOIP2_KEYS, Lookups, Match

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


class MmGeoip(Lookups):
    """Looks addresses up."""

    name = "mmgeoip"

    mmgeoip_city_db_path = ModParam(str, "", help="the database, an .mmdb file")
    cache_type = ModParam(str, "", help="accepted")

    def database(self) -> tuple[str, str]:
        """As the parameter says."""
        return "mmgeoip_city_db_path", self.mmgeoip_city_db_path

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
