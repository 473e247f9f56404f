"""Alarms by mail: one message for all that come within a second, packets attached as text.

A password is sent over TLS only, unless `tls=none` says otherwise; a server without STARTTLS is a
fault that the log names, not a reason to go on without.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

from homerd_plugins._alarm_event import AlarmEvent, Evidence
from homerd_plugins._notify_parts import Options, TlsOptions, Url, need_host
from homerd_plugins._notify_sink import SUMMARISED, NotifySink, one_line, text_of

STARTTLS, NONE, SMTPS = "starttls", "none", "smtps"
PORTS = {STARTTLS: 587, NONE: 25, SMTPS: 465}
MOST_ATTACHED = 1 << 20  # characters of all packets
MOST_SUBJECT = 200
_FORM = "smtp://mail.example.org/?from=homer@example.org&to=noc@example.org"


@dataclass(frozen=True, slots=True)
class Mail:
    """The settings of a mail server."""

    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)
    sender: str
    recipients: tuple[str, ...]
    security: str
    rate: int
    timeout: int
    tls: TlsOptions

    @staticmethod
    def of(url: Url, options: Options) -> Mail:
        """Read them."""
        need_host(url, _FORM)
        if url.path.strip("/"):
            raise ValueError(f"expected {_FORM}")
        if not (url.user + url.password).isascii():
            raise ValueError("user and password of a mail server are ASCII")
        options.add(Options.of_query(url.query))
        security = SMTPS
        if url.scheme != SMTPS:
            security = options.choice("tls", (STARTTLS, NONE), STARTTLS)
        sender, recipients = options.text("from"), options.text("to")
        if not sender or not recipients:
            raise ValueError(f"expected from=…&to=…, as in {_FORM}")
        return Mail(
            url.host,
            url.port or PORTS[security],
            url.user,
            url.password,
            _address(sender),
            tuple(map(_address, recipients.split(","))),
            security,
            options.number("rate", 60, 0, 100_000),
            options.number("timeout", 10, 1, 120),
            TlsOptions() if security == NONE else TlsOptions.of(options),
        )

    @property
    def where(self) -> str:
        """The server and who is told."""
        scheme = "smtps" if self.security == SMTPS else "smtp"
        place = Url("", self.host, self.port).place
        return f"{scheme}://{place}/?to={','.join(self.recipients)}"

    def sink(self, name: str, **options: Any) -> NotifySink:
        """What sends through it."""
        return MailSink(name, self, **options)


class MailSink(NotifySink):
    """Sends a message a batch, each over a connection of its own.

    refused_recipients: addresses the server did not take in messages that others got.
    """

    together = True

    def __init__(self, name: str, settings: Mail, **options: Any) -> None:
        super().__init__(
            name,
            settings.where,
            key=f"{settings.where} {settings.sender} {settings.user}",
            rate=settings.rate,
            hidden=(settings.password,),
            **options,
        )
        self.settings = settings
        self.refused_recipients = 0

    def connect(self) -> None:
        """See that the certificates can be read."""
        if self.settings.security != NONE:
            self.settings.tls.context(self.target)

    def tell(self, events: Sequence[AlarmEvent]) -> None:
        """One message."""
        message = message_of(events, self.settings, self.batch_id)
        try:
            refused = self._send(message)
        except smtplib.SMTPAuthenticationError as error:
            raise self.later(f"the user is refused: {_said(error)}") from error
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            text = ", ".join(f"{to}: {_text(*said)}" for to, said in error.recipients.items())
            if all(code >= 500 for code in codes):
                raise self.refused(text) from error
            raise self.later(text) from error
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            if error.smtp_code >= 500:
                raise self.refused(_said(error)) from error
            raise self.later(_said(error)) from error
        except smtplib.SMTPNotSupportedError as error:
            hint = ": tls=none does without" if "STARTTLS" in str(error) else ""
            raise self.later(f"{error}{hint}") from error
        except smtplib.SMTPResponseException as error:
            raise self.later(_said(error)) from error
        except (smtplib.SMTPException, OSError) as error:
            raise self.later(error or type(error).__name__) from error
        if refused:
            self.refused_recipients += len(refused)
            text = ", ".join(f"{to}: {_text(*said)}" for to, said in refused.items())
            self._say('recipients refused sink=%s error="%s"', (self.name, one_line(text)))

    def _send(self, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """Recipients who were refused while others were not."""
        server = self._server()
        try:
            return server.send_message(message, self.settings.sender, self.settings.recipients)
        finally:
            try:
                server.quit()
            except (smtplib.SMTPException, OSError):  # the message is sent or not, whatever it says
                server.close()

    def _server(self) -> smtplib.SMTP:
        """A connection, secured and with the user known."""
        settings = self.settings
        options: dict[str, Any] = {"timeout": settings.timeout}  # of two classes
        server: smtplib.SMTP
        if settings.security == SMTPS:
            context = settings.tls.context(self.target)
            server = smtplib.SMTP_SSL(settings.host, settings.port, context=context, **options)
        else:
            server = smtplib.SMTP(settings.host, settings.port, **options)
        try:
            if settings.security == STARTTLS:
                server.starttls(context=settings.tls.context(self.target))
            if settings.user:
                server.login(settings.user, settings.password)
        except BaseException:
            server.close()
            raise
        return server


def message_of(events: Sequence[AlarmEvent], settings: Mail, batch_id: str) -> EmailMessage:
    """The message; batch_id: the same whenever it is sent again, "" for none."""
    message = EmailMessage()
    message["Subject"] = f"[homerd] {subject_of(events)}"[:MOST_SUBJECT]
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.recipients)
    message["Date"] = format_datetime(datetime.now(UTC))
    domain = settings.sender.rpartition("@")[2]
    message["Message-ID"] = f"<{batch_id}@{domain}>" if batch_id else make_msgid(domain=domain)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers of people who are away
    message.set_content("\n".join(line for event in events for line in _lines(event)))
    packets = "".join(_packets(events))
    if packets:
        cut = len(packets) > MOST_ATTACHED
        text = packets[:MOST_ATTACHED] + ("\n… the rest is left out\n" if cut else "")
        message.add_attachment(text, cte="base64", filename="packets.txt")
    return message


def subject_of(events: Sequence[AlarmEvent]) -> str:
    """What is read on a telephone."""
    first = events[0]
    if first.state == SUMMARISED:
        name = f"{first.severity}: {first.description}"
    else:
        name = f"{first.severity}: {first.alarm} {first.state} for {first.key or 'all'}"
    more = f" and {len(events) - 1} more" if len(events) > 1 else ""
    return one_line(name)[: MOST_SUBJECT // 2] + more


def _lines(event: AlarmEvent) -> Iterator[str]:
    yield text_of(event)
    yield ""
    if event.state == SUMMARISED:
        return
    facts = {
        "alarm": event.alarm,
        "key": event.key or "all",
        "state": f"{event.state}, {event.severity}",
        "value": f"{event.value:g}, threshold {event.threshold:g}",
        "counted": f"{event.total} since {_time(event.started_at)}",
        "time": _time(event.at),
        "source": event.source_ip,
        "description": event.description,
        "node": event.node,
        "id": event.id,
    }
    for name, value in facts.items():
        if value:
            yield f"  {name:<12} {one_line(value)}"
    yield ""
    if event.evidence:
        yield from _table(event.evidence)
        yield ""


def _table(evidence: Sequence[Evidence]) -> Iterator[str]:
    """Packets in columns as wide as they need."""
    rows: list[tuple[str, ...]] = [("time (UTC)", "from", "to", "what", "Call-ID", "agent")]
    for each in evidence:
        time = _time(each.seconds + each.micros / 1_000_000)
        found = (each.source, each.destination, each.method, each.call_id, str(each.capture_id))
        rows.append((time, *map(one_line, found)))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()


def _packets(events: Sequence[AlarmEvent]) -> Iterator[str]:
    for event in events:
        for each in event.evidence:
            if each.payload:
                time = _time(each.seconds + each.micros / 1_000_000)
                yield f"--- {one_line(f'{event.alarm} {event.key}')} {time}"
                yield f" {each.source} -> {each.destination}\n{each.payload.rstrip()}\n\n"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _address(text: str) -> str:
    """An address of mail, checked."""
    text = text.strip()
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError):
        address = None
    if address is None or not address.domain or not text.isascii():
        raise ValueError(f'"{text}" is no address: expected name@example.org')
    return text


def _said(error: smtplib.SMTPResponseException) -> str:
    return _text(error.smtp_code, error.smtp_error)


def _text(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"{code} {text}"
