"""Post a line about chosen packets to an HTTP endpoint."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from homerd.api import (
    BatchSink,
    ModParam,
    Packet,
    Plugin,
    Rejected,
    RetryLater,
    Worker,
    hookimpl,
    script_function,
)

BUSY = (408, 425, 429)  # an answer that another time would be another one, as those from 500 on

Record = dict[str, str]


class WebhookSink(BatchSink):
    """One POST a batch, the records as JSON lines."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__("webhook")
        self.where = url
        self.timeout = timeout

    def write(self, batch: list[Record]) -> None:
        """On the sink's own thread: here it may wait."""
        body = "".join(json.dumps(record) + "\n" for record in batch).encode()
        request = urllib.request.Request(self.where, body, {"Content-Type": "application/x-ndjson"})
        try:
            urllib.request.urlopen(request, timeout=self.timeout).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500 or error.code in BUSY:
                raise RetryLater(f"{self.where}: {error}") from error
            raise Rejected(range(len(batch)), f"{self.where}: {error}") from error
        except OSError as error:
            raise RetryLater(f"{self.where}: {error}") from error

    def describe(self, record: Record) -> dict[str, object]:
        """What trace and the quarantine show."""
        return {"record": record}


class Webhook(Plugin):
    """Adds webhook(text) to the routing language."""

    name = "webhook"
    url = ModParam(str, required=True, help="where batches are posted")
    timeout = ModParam(float, 5.0, help="seconds to wait for an answer")

    def __init__(self) -> None:
        self.queued = 0

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Before the first packet."""
        self.sink = worker.add_sink(WebhookSink(self.url, self.timeout))

    @hookimpl
    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """For /metrics."""
        return [("homerd_webhook_queued_total", {}, self.queued)]

    @script_function
    def webhook(self, packet: Packet, text: str) -> bool:
        """Queue *text* with the packet's source address and Call-ID."""
        self.queued += 1
        return packet.emit(
            self.sink, {"text": text, "source": packet.src_ip, "call_id": packet.call_id}
        )
