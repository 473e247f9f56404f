"""geoip2: where an address is, from a MaxMind database (GeoLite2-City.mmdb and its like)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from homerd.api import (
    ModParam,
    Packet,
    Plugin,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins._geoip import GEOIP2_KEYS, Match, Places, bind_key, open_database


class Geoip2(Plugin):
    """Looks addresses up."""

    name = "geoip2"

    path = ModParam(str, "", help="the database, an .mmdb file")
    resid = ModParam(str, many=True, help="accepted; names of results need no declaration")

    def __init__(self) -> None:
        self.places: Places | None = None

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open the database; raises ConfigError when it cannot be read."""
        self.places = open_database(self.name, self.path)

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
