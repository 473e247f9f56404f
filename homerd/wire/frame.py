"""A captured packet with what its envelope said of it, whatever the envelope was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

IPV4, IPV6 = 2, 10
IPV6_NUMBERS = frozenset({10, 23, 24, 26, 28, 30})  # AF_INET6 as the senders' systems number it
SIP = 1  # payload type


class Frame:
    """What a capture envelope says of one packet.

    family: 2 or 10, 0 when unknown.  src, dst: packed addresses, b"" when missing.
    seconds: 0 when the envelope does not tell the time.  micros: may exceed a million.
    payload_type: chunk 0x000b, None when missing.
    warnings: what was odd and let pass.  raw: the datagram as it came, b"" when there was none.
    extra: the rarer chunks by name, with "vendor_chunks", "unknown_chunks" and "compressed".
    """

    __slots__ = (
        "auth_key",
        "capture_id",
        "correlation_id",
        "dst",
        "dst_port",
        "extra",
        "family",
        "micros",
        "payload",
        "payload_type",
        "protocol",
        "raw",
        "seconds",
        "src",
        "src_port",
        "version",
        "warnings",
    )

    def __init__(
        self,
        version: int = 3,
        family: int = 0,
        protocol: int = 0,
        src: bytes = b"",
        dst: bytes = b"",
        src_port: int = 0,
        dst_port: int = 0,
        seconds: int = 0,
        micros: int = 0,
        payload_type: int | None = None,
        capture_id: int | None = None,
        auth_key: str | None = None,
        correlation_id: str | None = None,
        payload: bytes = b"",
        raw: bytes = b"",
        warnings: Sequence[str] = (),
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.version = version
        self.family = family
        self.protocol = protocol
        self.src = src
        self.dst = dst
        self.src_port = src_port
        self.dst_port = dst_port
        self.seconds = seconds
        self.micros = micros
        self.payload_type = payload_type
        self.capture_id = capture_id
        self.auth_key = auth_key
        self.correlation_id = correlation_id
        self.payload = payload
        self.raw = raw
        self.warnings = warnings
        self.extra = extra

    def __repr__(self) -> str:
        return (
            f"<Frame v{self.version} {self.src_ip}:{self.src_port} > {self.dst_ip}:{self.dst_port}"
            f" type {self.payload_type}, {len(self.payload)} bytes>"
        )

    @property
    def src_ip(self) -> str:
        """The source address as text, "" when missing."""
        return address_text(self.src)

    @property
    def dst_ip(self) -> str:
        """The destination address as text, "" when missing."""
        return address_text(self.dst)

    @property
    def wire_family(self) -> int:
        """The family as the sender's system numbers it."""
        family: int = self.extra.get("ip_family", self.family) if self.extra else self.family
        return family

    @property
    def has_time(self) -> bool:
        """Whether the envelope told when the packet was captured."""
        return self.seconds != 0

    @property
    def vendor_chunks(self) -> list[tuple[int, int, bytes]]:
        """(vendor, type, body) of every chunk that is not generic."""
        return self.extra.get("vendor_chunks", []) if self.extra else []

    @property
    def unknown_chunks(self) -> list[tuple[int, bytes]]:
        """(type, body) of the generic chunks homerd has no name for, or that had a wrong size."""
        return self.extra.get("unknown_chunks", []) if self.extra else []

    @property
    def compressed(self) -> str | None:
        """How the payload was packed: "gzip", "zlib", "deflate", or None."""
        return self.extra.get("compressed") if self.extra else None


@lru_cache(maxsize=16384)
def address_text(packed: bytes) -> str:
    """A packed address as text, IPv6 in the form of RFC 5952; "" for anything else."""
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return str(IPv6Address(packed)) if len(packed) == 16 else ""
