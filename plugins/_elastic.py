"""The sink of the module elasticsearch: documents by `_bulk`, each with an id of its own.

A bulk request is answered item by item: what the node was too busy for (429) is sent again, alone,
and what it refuses is reported; the id makes a document that is sent twice one document.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from homerd.api import BatchSink, Rejected, RetryLater

MOST_BYTES = 5 << 20  # of one request; a node takes 100 MiB and does best with a few
BUSY = (429, 502, 503, 504)
TEMPLATE = "homerd"


class Document(NamedTuple):
    """What is sent: the index, the document's id, its JSON text."""

    index: str
    id: str
    text: str


class Malformed(Exception):
    """The node does not even look at the items of a request."""


class ElasticSink(BatchSink):
    """Sends documents; pattern: the indices the template is for, "" for no template."""

    def __init__(
        self,
        urls: list[str],
        *,
        user: str,
        password: str,
        api_key: str,
        ca_file: str,
        verify: bool,
        timeout: float,
        batch_size: int,
        pattern: str,
    ) -> None:
        super().__init__("elasticsearch", batch_size=batch_size)
        self.where = ",".join(urls)
        self.urls = urls
        self.options: dict[str, Any] = {"request_timeout": timeout, "max_retries": 0}
        if api_key:
            self.options["api_key"] = api_key
        elif user:
            self.options["basic_auth"] = (user, password)
        if ca_file:
            self.options["ca_certs"] = ca_file
        if not verify and any(url.startswith("https:") for url in urls):
            self.options |= {"verify_certs": False, "ssl_show_warn": False}
        self.pattern = pattern
        self.busy = 0
        self._client: Any = None  # elasticsearch.Elasticsearch
        self._stored: set[str] = set()  # ids of the batch that is sent again

    def connect(self) -> None:
        """Make the client, and put the template in place."""
        from elasticsearch import Elasticsearch

        self._client = Elasticsearch(self.urls, **self.options)
        if self.pattern:
            self._ask(
                self._client.indices.put_index_template,
                name=TEMPLATE,
                index_patterns=[self.pattern],
                priority=200,
                template={"mappings": MAPPINGS},
            )

    def write(self, batch: list[Document]) -> None:
        """Send what is not stored yet; Rejected names what is refused for good."""
        refused: list[int] = []
        reason, busy, room = "", 0, MOST_BYTES
        todo = [(at, item) for at, item in enumerate(batch) if item[1] not in self._stored]
        part: list[tuple[int, Document]] = []
        for at, (index, id, text) in todo:
            if part and len(text) > room:
                reason, busy = self._send(part, refused, reason, busy)
                part, room = [], MOST_BYTES
            part.append((at, Document(index, id, text)))
            room -= len(text) + 100
        if part:
            reason, busy = self._send(part, refused, reason, busy)
        if refused:
            raise Rejected(refused, reason)
        if busy:
            self.busy += busy
            raise RetryLater(f"{self.where}: busy, {busy} of {len(todo)} documents wait")
        self._stored.clear()

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def label(self, record: Document) -> str:
        """The index."""
        return record[0]

    def describe(self, record: Document) -> dict[str, str]:
        """Index and document."""
        return {"table": record[0], "record": record[2]}

    def _send(
        self, part: list[tuple[int, Document]], refused: list[int], reason: str, busy: int
    ) -> tuple[str, int]:
        """One request; adds to *refused*, gives the last reason and how many are to come again."""
        operations: list[Any] = []  # actions and documents by turns
        for _, item in part:
            operations += ({"index": {"_index": item.index, "_id": item.id}}, item.text)
        try:
            answer = self._ask(self._client.bulk, operations=operations)
        except Malformed as error:
            refused += (at for at, _ in part)
            return str(error), busy
        for (at, item), told in zip(part, answer["items"], strict=True):
            status = told["index"]["status"]
            if status < 300:
                self._stored.add(item.id)
            elif status in BUSY:
                busy += 1
            else:
                refused.append(at)
                error = told["index"].get("error", {})
                reason = f"{status} {error.get('type', '')}: {error.get('reason', '')}"[:300]
        return reason, busy

    def _ask(self, call: Any, **request: Any) -> Any:
        from elasticsearch import ApiError, TransportError, UnsupportedProductError

        try:
            return call(**request)
        except UnsupportedProductError as error:
            raise RetryLater(
                f'modparam("elasticsearch", "url"): {self.where}: what answers there is not'
                " Elasticsearch 8 (OpenSearch is refused by Elasticsearch's client)"
            ) from error
        except ApiError as error:
            status = error.meta.status
            if status in (400, 413) and "operations" in request:
                raise Malformed(f"{status} {error.message}") from error
            name = "api_key" if "api_key" in self.options else "user"
            name = (
                name if status in (401, 403) else "url" if "operations" in request else "template"
            )
            raise RetryLater(
                f'modparam("elasticsearch", "{name}"): {self.where}: {status} {error.message}'
            ) from error
        except TransportError as error:  # away, or not Elasticsearch at all
            raise RetryLater(f"{self.where}: {error.message}") from error


# Identifiers are looked for as they are; addresses can be looked for by network.
_KEYWORD = {"type": "keyword", "ignore_above": 1024}
_ADDRESS = {"type": "ip", "ignore_malformed": True}
MAPPINGS = {
    "dynamic_templates": [
        {"addresses": {"match": "*_ip", "mapping": _ADDRESS}},
        {"addresses_of_homer_5": {"match": "*IP", "mapping": _ADDRESS}},
        {"texts": {"match_mapping_type": "string", "mapping": _KEYWORD}},
        # A count that once has a fraction must not be refused because the first had none.
        {"numbers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
    ],
    "properties": {"@timestamp": {"type": "date"}, "host": _KEYWORD},
}
