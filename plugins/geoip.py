"""geoip: as geoip2, under the names of the older module.

The older format (GeoLiteCity.dat) is read no more: where a script names such a file, the database
of today is looked for beside it, GeoLite2-City.mmdb or GeoLite2-Country.mmdb.
"""

from __future__ import annotations

from collections.abc import Callable

from homerd.api import (
    ModParam,
    Packet,
    Text,
    Value,
    pseudo_variable,
    script_function,
)
from homerd_plugins._geoip import GEOIP_KEYS, Lookups, Match, bind_key


class Geoip(Lookups):
    """Looks addresses up."""

    name = "geoip"

    path = ModParam(str, "", help="the database, an .mmdb file")

    def database(self) -> tuple[str, str]:
        """As the parameter says."""
        return "path", self.path

    @script_function
    def geoip_match(self, packet: Packet, address: str, name: str) -> bool:
        """Look *address* up for `$gip(name=>key)`; whether the database knows it."""
        return self.places is not None and self.places.match(address, name) == 1

    @pseudo_variable("gip")
    def gip(self, packet: Packet, name: str, key: Callable[[Match], Value]) -> Value:
        """What the last geoip_match found under a name; null when nothing.

        Keys: cc country, tz time zone, zip, lat, lon, city, regc and regn region, metro and dma,
        ips and ipe first and last address of the network, contc continent; area is always null.
        """
        return None if self.places is None else self.places.value(name, key)

    @gip.bind
    def bind_gip(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return bind_key(GEOIP_KEYS, argument)
