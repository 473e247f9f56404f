"""One stored SIP message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Message:
    """One stored SIP message; the names are those of Homer 5.

    method: of a reply, the status code.  protocol: "udp", "tcp", …, "" when it is not known.
    msg: as text, U+FFFD for what is none; raw: the bytes of a message that is no text, else empty.
    store: where it is stored.
    """

    table: str
    id: int
    micro_ts: int
    method: str
    reply_reason: str
    cseq: str
    from_user: str
    to_user: str
    ruri_user: str
    source_ip: str
    source_port: int
    destination_ip: str
    destination_port: int
    callid: str
    callid_aleg: str
    correlation_id: str
    via_1_branch: str
    content_type: str
    user_agent: str
    node: str
    msg: str
    protocol: str = ""
    store: str = ""
    raw: bytes = b""

    @classmethod
    def of(cls, cells: Mapping[str, Any], store: str) -> Message:
        """A message as the module gives it."""
        raw = cells["msg"]
        if isinstance(raw, bytes):
            cells = {**cells, "msg": raw.decode("utf-8", "replace"), "raw": raw}
        return cls(**cells, store=store)

    @property
    def status(self) -> int | None:
        """A reply's code."""
        return int(self.method) if self.method.isdecimal() else None

    @property
    def title(self) -> str:
        """`INVITE`, or `200 OK` for a reply."""
        return f"{self.method} {self.reply_reason}".rstrip()

    @property
    def transaction(self) -> str:
        """The method in CSeq, for a reply what it answers."""
        return (self.cseq.split() or [""])[-1]

    @property
    def time(self) -> datetime:
        """When it was captured, UTC."""
        try:
            return EPOCH + timedelta(microseconds=self.micro_ts)
        except OverflowError:  # a clock that is out of its mind
            return datetime.max.replace(tzinfo=UTC)

    @property
    def source(self) -> str:
        """Address and port it came from."""
        return joined(self.source_ip, self.source_port)

    @property
    def destination(self) -> str:
        """Address and port it went to."""
        return joined(self.destination_ip, self.destination_port)

    @property
    def data(self) -> bytes:
        """The message's bytes."""
        return self.raw or self.msg.encode("utf-8", "replace")

    def as_dict(self) -> dict[str, str | int]:
        """The message as JSON values, with its time as text."""
        names = (field.name for field in fields(self) if field.name != "raw")
        described = {name: getattr(self, name) for name in names}
        return {"time": self.time.isoformat().replace("+00:00", "Z"), **described}

    @property
    def identity(self) -> tuple[object, ...]:
        """What is the same in every store the message is in."""
        return self.micro_ts, self.source, self.destination, self.callid, self.method, self.cseq


def joined(address: str, port: int) -> str:
    """`192.0.2.1:5060` or `[2001:db8::1]:5060`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
