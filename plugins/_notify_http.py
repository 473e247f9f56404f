"""Alarms to a webhook: a POST for each, in the shape the receiver knows.

json    the event by field name, and `text`, one line for people
slack   {"text": …}, which Mattermost, Rocket.Chat and others read too
teams   a card, for the workflows of Microsoft Teams
text    the line alone
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from homerd_plugins._alarm_event import AlarmEvent
from homerd_plugins._http import (
    BAD_URL,
    TOO_LARGE,
    Answer,
    Headers,
    HttpClient,
    Query,
    Tls,
    split_header,
)
from homerd_plugins._notify_parts import Options, TlsOptions, Url, need_host
from homerd_plugins._notify_sink import SUMMARISED, NotifySink, text_of

BUSY = (408, 425, 429)
SHORT = 6  # what is shorter is no secret, and would be found in any text
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_FORM = "https://host/path"


class HttpSink(NotifySink):
    """Posts bodies; one request at a time, each with a deadline."""

    def __init__(self, *arguments: Any, timeout: int, tls: TlsOptions, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timeout = timeout
        self.tls = tls
        self._client: HttpClient | None = None

    def connect(self) -> None:
        """Start the client; it connects when it posts."""
        self.tls.context(self.target)  # ConfigError for a file that cannot be read
        self._client = HttpClient(running=1, limit=2)
        self._client.start()

    def close(self) -> None:
        """End it."""
        if self._client is not None:
            self._client.stop()
            self._client = None

    def post(self, url: str, headers: Headers, body: str, user: tuple[str, str] | None) -> Answer:
        """Post *body*; an answer that is too long is an answer."""
        assert self._client is not None
        tls = Tls(self.tls.verify, self.tls.authorities)
        query = Query(url, self.timeout, "POST", headers, body, user, tls=tls)
        answer = self._client.ask(query)
        if answer.curl == BAD_URL:
            raise self.refused(answer.error)
        if answer.error and answer.curl != TOO_LARGE:
            raise self.later(answer.error)
        if answer.status in BUSY or answer.status >= 500:
            raise self.later(_told(answer))
        if not 200 <= answer.status < 300 and not answer.error:
            raise self.refused(_told(answer))
        return answer


@dataclass(frozen=True, slots=True)
class Webhook:
    """The settings of a webhook; the path of its address is most often the secret."""

    url: str = field(repr=False)
    where: str
    user: tuple[str, str] | None = field(repr=False)
    headers: Headers = field(repr=False)
    format: str
    rate: int
    timeout: int
    tls: TlsOptions

    @staticmethod
    def of(url: Url, options: Options) -> Webhook:
        """Read them."""
        need_host(url, _FORM)
        path = url.path + (f"?{url.query}" if url.query else "")
        base = f"{url.scheme}://{url.place}"
        return Webhook(
            base + (path or "/"),
            base + ("/…" if path.strip("/") else ""),
            (url.user, url.password) if url.user else None,
            tuple(map(_header, options.all("header"))),
            options.choice("format", tuple(BODIES), "json"),
            options.number("rate", 60, 0, 100_000),
            options.number("timeout", 5, 1, 60),
            TlsOptions.of(options),
        )

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What posts there."""
        return WebhookSink(name, self, **options)


class WebhookSink(HttpSink):
    """Posts events one by one."""

    def __init__(self, name: str, settings: Webhook, **options: Any) -> None:
        parts = urlsplit(settings.url)
        secrets = [settings.url, parts.path, parts.query, *(settings.user or ())]
        secrets += [word for _, value in settings.headers for word in (value, value.split()[-1])]
        super().__init__(
            name,
            settings.where,
            key=settings.url,
            rate=settings.rate,
            hidden=[secret for secret in secrets if len(secret) >= SHORT],
            timeout=settings.timeout,
            tls=settings.tls,
            **options,
        )
        self.settings = settings
        kind, self._body = BODIES[settings.format]
        given = {header.lower() for header, _ in settings.headers}
        own = () if "content-type" in given else (("Content-Type", kind),)
        self._headers = (*own, *settings.headers)

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """One POST."""
        settings = self.settings
        self.post(settings.url, self._headers, self._body(events[0]), settings.user)


def json_of(event: AlarmEvent) -> str:
    """All of *event*, and its line."""
    return json.dumps({**event.as_record(), "text": text_of(event)})


def slack_of(event: AlarmEvent) -> str:
    """A line in a code span, where names that came from the network call nobody."""
    line = text_of(event).replace("`", "'")
    # https://api.slack.com/reference/surfaces/formatting#escaping
    for special, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(special, escaped)
    return json.dumps({"text": f"`{line}`"})


def teams_of(event: AlarmEvent) -> str:
    """An adaptive card in a message."""
    facts = {
        "Key": event.key,
        "Value": f"{event.value:g}",
        "Threshold": f"{event.threshold:g}",
        "Source": event.source_ip,
        "Node": event.node,
        "Call-IDs": ", ".join(dict.fromkeys(each.call_id for each in event.evidence[:5])),
    }
    title = "more alarms" if event.state == SUMMARISED else f"{event.alarm} {event.state}"
    text = {"type": "TextBlock", "wrap": True}
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {**text, "size": "Medium", "weight": "Bolder", "text": f"{event.severity}: {title}"},
            {**text, "text": _unmarked(text_of(event))},
            {
                "type": "FactSet",
                "facts": [
                    {"title": name, "value": _unmarked(value)}
                    for name, value in facts.items()
                    if value
                ],
            },
        ],
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return json.dumps({"type": "message", "attachments": [content]})


BODIES: dict[str, tuple[str, Callable[[AlarmEvent], str]]] = {
    "json": (_JSON, json_of),
    "slack": (_JSON, slack_of),
    "teams": (_JSON, teams_of),
    "text": (_TEXT, lambda event: text_of(event) + "\n"),
}


def _unmarked(text: str) -> str:
    """*text* for a card, whose Markdown would make links of what the network sent."""
    return re.sub(r"([\\`*_\[\]()])", r"\\\1", text)


def _header(text: str) -> tuple[str, str]:
    name, value = split_header(text)
    if not value or re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is None:
        raise ValueError("expected header=Name: value")
    return name, value


def _told(answer: Answer) -> str:
    """Status and the start of what the server says."""
    place = urlsplit(next(iter(answer.header("location")), ""))
    if 300 <= answer.status < 400 and place.netloc:
        moved = f"{place.scheme}://{place.netloc.rpartition('@')[2]}/…"
        return f"{answer.status} moved to {moved}: write that address"
    return f"{answer.status} {answer.reason} {answer.body}"
