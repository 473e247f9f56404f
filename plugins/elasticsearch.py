"""elasticsearch: documents into Elasticsearch, one index a family and UTC day.

A document's parts are arguments of their own, split at their first "=", as influxdb_write() has
them: 'from="$fu"' is text, "value=1" a number, "#method=$rm" text without quotes. One argument that
begins with { is the document as JSON text. Every document has `@timestamp`, the packet's time, and
`host`. An index template makes texts keywords and addresses (`*_ip`, `*IP`) addresses.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

from homerd.api import (
    ConfigError,
    ModParam,
    Packet,
    hookimpl,
    script_function,
)
from homerd_plugins._counts import CountingStore
from homerd_plugins._elastic import Document, ElasticSink
from homerd_plugins._lines import OTHER, BadPart, named

# What an index name may hold: lower case, none of \ / * ? " < > | , # : and blank.
_NOT_IN_INDEX = re.compile(r"[^a-z0-9_.+-]")

Series = tuple[str, tuple[tuple[str, str], ...]]


class Elasticsearch(CountingStore[Series]):
    """Writes documents to Elasticsearch."""

    name = "elasticsearch"
    refused_metric = "homerd_elastic_refused_total"
    over_budget_metric = "homerd_elastic_over_budget_total"

    url = ModParam(str, "http://127.0.0.1:9200", help="the nodes' addresses, several by comma")
    user = ModParam(str, "", help="the user's name")
    password = ModParam(str, "", help="the user's password")
    api_key = ModParam(str, "", help="an API key in place of user and password")
    ca_file = ModParam(str, "", help="file of the authority that signed the nodes' certificate")
    verify = ModParam(int, 1, help="0: the nodes' certificate is not checked")
    index = ModParam(
        str, "homerd-{family}-%Y.%m.%d", help="the index's name; % as in strftime, UTC"
    )
    template = ModParam(int, 1, help="0: no index template is put in place")
    batch_size = ModParam(int, 1000, help="most documents in one request")

    def __init__(self) -> None:
        super().__init__()
        self._days: dict[tuple[str, int], str] = {}

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the parameters."""
        for address in self._urls():
            if not re.match(r"https?://[^/]+:[0-9]+", address):
                raise ConfigError(
                    f'modparam("elasticsearch", "url", "{self.url}"): expected http://host:9200'
                )
        if _NOT_IN_INDEX.search(re.sub(r"\{family\}|%[A-Za-z]", "", self.index)):
            raise ConfigError(
                f'modparam("elasticsearch", "index", "{self.index}"): expected lower case letters,'
                " digits, - _ . and {family}"
            )
        if self.ca_file and not os.path.isfile(self.ca_file):
            raise ConfigError(f'modparam("elasticsearch", "ca_file", "{self.ca_file}"): no file')
        super().configure(changed)

    def make_sink(self) -> ElasticSink:
        """As the parameters say; the template is for the indices that begin as `index` does."""
        fixed = re.split(r"[{%]", self.index, maxsplit=1)[0]
        return ElasticSink(
            self._urls(),
            user=self.user,
            password=self.password,
            api_key=self.api_key,
            ca_file=self.ca_file,
            verify=bool(self.verify),
            timeout=self.timeout,
            batch_size=self.batch_size,
            pattern=f"{fixed}*" if self.template and fixed else "",
        )

    def record_of(self, key: Series, count: int, micros: int) -> tuple[str, str, str]:
        """A document with the field `value`."""
        family, tags = key
        return self._document(family, {**dict(tags), "value": count}, micros)

    @script_function
    def elastic_index(self, packet: Packet, family: str, *parts: str) -> bool:
        """Write a document: elastic_index("calls", 'call_id="$ci"', "src_ip=\\"$si\\"", "value=1").

        False, and counted, when it is empty, or a part cannot be read.
        """
        # In the entry event the packet is the datagram, without the time of capture.
        at = packet.hep if packet.hep.seconds else packet
        micros = at.seconds * 1_000_000 + at.micros
        try:
            if len(parts) == 1 and parts[0].startswith("{"):
                fields = _loaded(parts[0])
            else:
                read = named(parts)
                fields = {**dict(read.tags), **read.fields}
                micros = micros if read.micros is None else read.micros
            if not fields:
                raise BadPart("no_field")
        except BadPart as error:
            self.refused[str(error)] += 1
            return False
        return packet.emit(self.sink, self._document(family, fields, micros))

    @script_function
    def elastic_count(self, packet: Packet, family: str, *fields: str) -> bool:
        """Count one; each interval a document says how many: elastic_count("a", "#method=$rm").

        The number is the field `value`, `@timestamp` the end of the interval.
        """
        try:
            read = named(fields)
            if read.fields:
                raise BadPart("fields_in_a_count")
        except BadPart as error:
            self.refused[str(error)] += 1
            return False
        tags = tuple(read.tags)
        self.counts.add((family, tags), (family, tuple((name, OTHER) for name, _ in tags)))
        return True

    def _document(self, family: str, fields: dict[str, Any], micros: int) -> tuple[str, str, str]:
        seconds, rest = divmod(micros, 1_000_000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        whole = {"@timestamp": f"{stamp}.{rest:06d}Z", "host": self.host_name, **fields}
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():  # bytes that were no UTF-8
            text = text.encode("utf-8", "replace").decode()
        # A plain tuple: what waits on disk is kept as plain values.
        return tuple(Document(self._index(family, seconds), os.urandom(12).hex(), text))

    def _index(self, family: str, seconds: int) -> str:
        key = (family, seconds // 86_400)
        name = self._days.get(key)
        if name is None:
            clean = _NOT_IN_INDEX.sub("_", family.lower())[:100] or "none"
            name = time.strftime(self.index, time.gmtime(seconds)).lower()
            name = name.replace("{family}", clean)
            if len(self._days) > 1000:
                self._days.clear()
            self._days[key] = name
        return name

    def _urls(self) -> list[str]:
        return [item.strip() for item in self.url.split(",") if item.strip()]


def _loaded(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text, parse_constant=_no_number)
        json.dumps(fields, allow_nan=False)  # 1e999 is read as infinity
    except (ValueError, RecursionError):
        raise BadPart("bad_json") from None
    if not isinstance(fields, dict):
        raise BadPart("bad_json")
    return fields


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
