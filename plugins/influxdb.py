"""influxdb: points into InfluxDB, or into what takes its line protocol.

A point's parts are arguments of their own, split at their first "=", so that nothing in a value
can become another part: "#name=value" is a tag, "name=value" a field. A field is a number (which
InfluxDB keeps as a float), `5i`, `true`, `false`, or text in quotes: 'from="$fu"'. What has no
value is left out. "@…" is the time in microseconds; without it a point has the packet's.
Every point has the tag `host`.
"""

from __future__ import annotations

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    hookimpl,
    script_function,
)
from homerd_plugins._counts import CountingStore
from homerd_plugins._influx import InfluxSink, InfluxV1Sink, InfluxV2Sink
from homerd_plugins._lines import OTHER, BadPart, Named, key_of, line, named


class Influxdb(CountingStore[str]):
    """Writes points in line protocol."""

    name = "influxdb"
    refused_metric = "homerd_influxdb_refused_total"
    over_budget_metric = "homerd_influxdb_over_budget_total"

    url = ModParam(str, "http://127.0.0.1:8086", help="the server's address")
    version = ModParam(
        int, 2, help="2: the API of InfluxDB 2 and VictoriaMetrics, 1: older servers"
    )
    org = ModParam(str, "homer", help="version 2: the organisation")
    bucket = ModParam(str, "homer", help="version 2: the bucket")
    token = ModParam(str, "", help="version 2: the access token")
    db = ModParam(str, "homer", help="version 1: the database; it is made when it is missing")
    create_db = ModParam(int, 1, help="version 1, 0: a missing database is not made")
    rp = ModParam(str, "", help="version 1: the retention policy")
    user = ModParam(str, "", help="version 1: the user's name")
    password = ModParam(str, "", help="version 1: the user's password")
    batch_size = ModParam(int, 5000, help="most points in one request")
    compress = ModParam(int, 1, help="0: requests are not compressed")

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the parameters."""
        if self.version not in (1, 2):
            raise ConfigError(f'modparam("influxdb", "version", {self.version}): expected 1 or 2')
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f'modparam("influxdb", "url", "{self.url}"): expected http://…')
        super().configure(changed)

    def make_sink(self) -> InfluxSink:
        """One that speaks the server's version of the API."""
        common = (self.url, self.timeout, self.batch_size, bool(self.compress))
        if self.version == 1:
            return InfluxV1Sink(
                *common,
                db=self.db,
                rp=self.rp,
                user=self.user,
                password=self.password,
                create=bool(self.create_db),
            )
        return InfluxV2Sink(*common, org=self.org, bucket=self.bucket, token=self.token)

    def record_of(self, key: str, count: int, micros: int) -> str:
        """A point with the field `value`."""
        return line(key, {"value": float(count)}, micros)

    @script_function
    def influxdb_write(self, packet: Packet, measurement: str, *parts: str) -> bool:
        """Write a point: influxdb_write("stats_response", "#response=$rs", "value=1").

        False, and counted, when it has no field, or a part that cannot be read.
        """
        point = self._read(measurement, parts)
        if point is not None and not point.fields:
            point = self._refuse("no_field")
        if point is None:
            return False
        micros = point.micros
        if micros is None:
            # In the entry event the packet is the datagram, without the time of capture.
            at = packet.hep if packet.hep.seconds else packet
            micros = at.seconds * 1_000_000 + at.micros
        key = key_of(measurement, self._tags(point.tags))
        return packet.emit(self.sink, line(key, point.fields, micros))

    @script_function
    def influxdb_count(self, packet: Packet, measurement: str, *tags: str) -> bool:
        """Count one; each interval a point says how many came: influxdb_count("a", "#method=$rm").

        The point's field is `value`, its time the end of the interval.
        """
        point = self._read(measurement, tags)
        if point is not None and point.fields:
            point = self._refuse("fields_in_a_count")
        if point is None:
            return False
        others = [(name, OTHER) for name, _ in point.tags]
        self.counts.add(
            key_of(measurement, self._tags(point.tags)),
            key_of(measurement, self._tags(others)),
        )
        return True

    def _tags(self, tags: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [("host", self.host_name), *tags]

    def _read(self, measurement: str, parts: tuple[str, ...]) -> Named | None:
        if not measurement:
            return self._refuse("no_measurement")
        try:
            return named(parts)
        except BadPart as error:
            return self._refuse(str(error))

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
