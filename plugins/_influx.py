"""Sinks of line protocol: InfluxDB's v2 API through influxdb-client, and v1 for older servers.

A server that refuses a batch (400) does not say which lines, at best how many; the batch is halved
until they are found, which is harmless because a point that is written twice is one point.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from homerd.api import BatchSink, Rejected, RetryLater

REFUSED = (400, 413, 422)

_DROPPED = re.compile(r"partial write: .* dropped=([0-9]+)")


class Refused(Exception):
    """The server refuses what it was sent, as it is.

    dropped: how many lines, 0 when it does not say.
    """

    def __init__(self, told: str) -> None:
        super().__init__(told[:300])
        found = _DROPPED.search(told)
        self.dropped = int(found[1]) if found else 0


class InfluxSink(BatchSink):
    """Writes lines; a subclass sends one body."""

    params: ClassVar[Mapping[int, str]] = {}  # status -> the parameter that is wrong then

    def __init__(self, url: str, timeout: float, batch_size: int, compress: bool) -> None:
        super().__init__("influxdb", batch_size=batch_size)
        self.where = self.url = url.rstrip("/")
        self.timeout = timeout
        self.compress = compress

    def write(self, batch: list[str]) -> None:
        """All lines in one request; those that are refused are searched for."""
        refused, told = _refused(batch, self.send)
        if refused:
            raise Rejected(sorted(refused), told)

    def send(self, lines: list[str]) -> None:
        """One request; raises Refused or RetryLater."""
        raise NotImplementedError

    def later(self, status: int, text: str) -> RetryLater:
        """The server answers, and not as it should: most likely a parameter is wrong."""
        name = self.params.get(status, "url")
        return RetryLater(f'modparam("influxdb", "{name}"): {self.url}: {status} {text[:200]}')

    def describe(self, record: str) -> dict[str, str]:
        """The line."""
        return {"table": record.partition(",")[0].partition(" ")[0], "record": record}


class InfluxV2Sink(InfluxSink):
    """`POST /api/v2/write` through influxdb-client."""

    params: ClassVar = {401: "token", 403: "token", 404: "bucket"}

    def __init__(self, *arguments: Any, org: str, bucket: str, token: str) -> None:
        super().__init__(*arguments)
        self.org = org
        self.bucket = bucket
        self.token = token
        self._client: Any = None  # influxdb_client.InfluxDBClient

    def connect(self) -> None:
        """Make the client; it connects when it writes."""
        from influxdb_client import InfluxDBClient

        self._client = InfluxDBClient(
            self.url,
            token=self.token or None,
            org=self.org,
            timeout=int(self.timeout * 1000),
            enable_gzip=self.compress,
            retries=False,
        )

    def send(self, lines: list[str]) -> None:
        """The client compresses by itself."""
        from influxdb_client import WritePrecision
        from influxdb_client.client.write_api import SYNCHRONOUS
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        body = "\n".join(lines).encode("utf-8", "replace")
        api = self._client.write_api(write_options=SYNCHRONOUS)
        try:
            api.write(self.bucket, self.org, body, WritePrecision.US)
        except ApiException as error:
            text = str(error.body or error.reason)
            if error.status in REFUSED:
                raise Refused(text) from error
            raise self.later(error.status or 0, text) from error
        except (HTTPError, OSError) as error:
            raise RetryLater(f"{self.url}: {error}") from error

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()
            self._client = None


class InfluxV1Sink(InfluxSink):
    """`POST /write?db=` of InfluxDB 1; the database is made when it is missing."""

    params: ClassVar = {401: "user", 403: "user", 404: "db"}

    def __init__(
        self, *arguments: Any, db: str, rp: str, user: str, password: str, create: bool
    ) -> None:
        super().__init__(*arguments)
        self.query = {"db": db, "precision": "u"} | ({"rp": rp} if rp else {})
        self.user = user
        self.password = password
        self.create = create
        self._client: Any = None  # httpx.Client

    def connect(self) -> None:
        """Make the client, and the database."""
        import httpx

        auth = (self.user, self.password) if self.user else None
        self._client = httpx.Client(base_url=self.url, timeout=self.timeout, auth=auth)
        if self.create:
            name = self.query["db"].replace("\\", "\\\\").replace('"', '\\"')
            self._ask("/query", params={"q": f'CREATE DATABASE "{name}"'})
            # Whether it may be made or not, the write says what is wrong.

    def send(self, lines: list[str]) -> None:
        """One request."""
        body = "\n".join(lines).encode("utf-8", "replace")
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.compress:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        status, text = self._ask("/write", params=self.query, content=body, headers=headers)
        if status in REFUSED:
            raise Refused(text)
        if status >= 300:
            raise self.later(status, text)

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, path: str, **request: Any) -> tuple[int, str]:
        import httpx

        try:
            answer = self._client.post(path, **request)
        except httpx.HTTPError as error:
            raise RetryLater(f"{self.url}: {error or type(error).__name__}") from error
        return answer.status_code, answer.text.strip()


def _refused(lines: list[str], send: Callable[[list[str]], None]) -> tuple[set[int], str]:
    """Send *lines*; the places of those that are refused even alone, and what was said of them."""
    found: set[int] = set()
    told = ""
    parts = [(0, len(lines))]
    while parts:
        start, end = parts.pop()
        try:
            send(lines[start:end])
        except Refused as error:
            told = told or str(error)
            if error.dropped == end - start or end - start == 1:
                found.update(range(start, end))
                continue
            middle = (start + end) // 2
            parts += [(start, middle), (middle, end)]
    return found, told
