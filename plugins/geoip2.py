"""geoip2: where an address is, from a MaxMind database (GeoLite2-City.mmdb and its like)."""

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
from homerd_plugins._geoip import GEOIP2_KEYS, Lookups, Match, bind_key


class Geoip2(Lookups):
    """Looks addresses up."""

    name = "geoip2"

    path = ModParam(str, "", help="the database, an .mmdb file")
    resid = ModParam(str, many=True, help="accepted; names of results need no declaration")

    def database(self) -> tuple[str, str]:
        """As the parameter says."""
        return "path", self.path

    @script_function
    def geoip2_match(self, packet: Packet, address: str, name: str) -> int:
        """Look *address* up for `$gip2(name=>key)`; -2 when the database does not know it."""
        return -1 if self.places is None else self.places.match(address, name)

    @pseudo_variable("gip2")
    def gip2(self, packet: Packet, name: str, key: Callable[[Match], Value]) -> Value:
        """What the last geoip2_match found under a name; null when nothing.

        Keys: cc country, tz time zone, zip, lat, lon, city, regc and regn region, metro, nmask and
        cidr of the network, contc continent.
        """
        return None if self.places is None else self.places.value(name, key)

    @gip2.bind
    def bind_gip2(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return bind_key(GEOIP2_KEYS, argument)
