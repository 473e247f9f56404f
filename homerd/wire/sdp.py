"""Where media will flow, as an SDP body tells it.

Only what leads from a media packet back to its call is read: connection, media and RTCP addresses,
and the codecs behind payload types.  Never raises; a line that cannot be read is as if it were not
there.  At most MAX_MEDIA media lines are read.  Sources: RFC 4566, 3605 (a=rtcp), 5576 (a=ssrc),
5761 (rtcp-mux).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

MAX_MEDIA = 32
MAX_PAIRS = 16  # ports that one media line may ask for: `m=audio 4000/2`
MAX_CODECS = 64
MAX_SSRCS = 64

_LONGEST = 64  # an address or a codec that is remembered
_BEGIN = b"v=0"
_NOWHERE = {b"\0" * 4, b"\0" * 16}
_SSRC = re.compile(rb"\na=ssrc:([0-9]{1,10})(?![0-9])")


class Codec(NamedTuple):
    """What a payload type stands for; clock in Hz."""

    name: str
    clock: int


class Media(NamedTuple):
    """One pair of ports: RTP is expected at (address, port), RTCP at (rtcp_address, rtcp_port).

    Addresses are packed.  mux: RTCP may come to the port of RTP as well.  line: which media line
    it is of, 0 for the first.  formats: payload types in the order of that line, as written.
    """

    address: bytes
    port: int
    rtcp_address: bytes
    rtcp_port: int
    mux: bool
    codecs: dict[int, Codec]
    line: int = 0
    formats: Sequence[bytes] = ()


class _Line:
    """A media line as it is being read."""

    __slots__ = (
        "address",
        "codecs",
        "formats",
        "mux",
        "pairs",
        "port",
        "rtcp_address",
        "rtcp_port",
    )

    def __init__(self, port: int, pairs: int, address: bytes, formats: list[bytes]) -> None:
        self.formats = formats
        self.port = port
        self.pairs = pairs
        self.address = address
        self.rtcp_address = b""
        self.rtcp_port = 0
        self.mux = False
        self.codecs: dict[int, Codec] = {}


def find(message: bytes) -> int:
    """Where an SDP body begins in *message*, which may be one part of several; -1 for none."""
    at = message.find(b"\nv=0")
    return at + 1 if at >= 0 else -1


def media(body: bytes) -> list[Media]:
    """The media lines of *body*, which begins with `v=0`; those that take no media are left out."""
    found: list[_Line] = []
    connection = b""
    line: _Line | None = None
    begun = False
    for raw in body.split(b"\n"):
        key, value = raw[:2], raw[2:].strip()
        if key == b"m=":
            if len(found) >= MAX_MEDIA:
                break
            line = _media_line(value, connection)
            found.append(line)
        elif key == b"c=":
            address = _address(value.split())
            if line is None:
                connection = address
            else:
                line.address = address
        elif key == b"a=":
            if line is not None:
                _attribute(line, value)
        elif key == b"--" or (begun and raw.startswith(_BEGIN)):
            break  # the next part of a body of several
        begun = True
    return [each for number, one in enumerate(found) for each in _pairs(one, number)]


def ssrcs(body: bytes) -> dict[int, int]:
    """What sources *body* names (RFC 5576, `a=ssrc:<ssrc> …`), MAX_SSRCS at most: their lines."""
    found: dict[int, int] = {}
    if b"\na=ssrc:" not in body:
        return found
    for line, part in enumerate(body.split(b"\nm=", MAX_MEDIA)[1:]):
        for text in dict.fromkeys(_SSRC.findall(part)):
            number = int(text)
            if number < 1 << 32 and len(found) < MAX_SSRCS:
                found.setdefault(number, line)
    return found


def _pairs(line: _Line, which: int) -> list[Media]:
    if not line.port or not line.address or line.address in _NOWHERE:
        return []
    address, port, mux, codecs = line.address, line.port, line.mux, line.codecs
    rtcp_address, rtcp_port = line.rtcp_address or address, line.rtcp_port or port + 1
    told = []
    for _ in range(line.pairs):
        told.append(
            Media(address, port, rtcp_address, rtcp_port & 0xFFFF, mux, codecs, which, line.formats)
        )
        port, rtcp_port = port + 2, rtcp_port + 2
        if port > 65535:
            break
    return told


def _media_line(value: bytes, connection: bytes) -> _Line:
    """m=<media> <port>["/"<pairs>] <proto> <fmt> …"""
    words = value.split()
    port, _, pairs = words[1].partition(b"/") if len(words) > 1 else (b"", b"", b"")
    many = min(_number(pairs, 65535) or 1, MAX_PAIRS)
    return _Line(_number(port, 65535), many, connection, words[3:])


def _attribute(line: _Line, value: bytes) -> None:
    """a=rtcp-mux, a=rtcp:<port> [IN IP4 <address>], a=rtpmap:<type> <name>/<clock>[/<channels>]"""
    name, _, told = value.partition(b":")
    if name == b"rtcp-mux":
        line.mux = True
    elif name == b"rtcp":
        words = told.split()
        if words:
            line.rtcp_port = _number(words[0], 65535)
            line.rtcp_address = _address(words[1:])
    elif name == b"rtpmap" and len(line.codecs) < MAX_CODECS and len(told) <= _LONGEST:
        found = _rtpmap(told)
        if found is not None:
            line.codecs[found[0]] = found[1]


# Hot path: the same few codecs and addresses come with every call: an offer of seven codecs takes
# 13 µs, 31 without the caches.
@lru_cache(maxsize=1024)
def _rtpmap(told: bytes) -> tuple[int, Codec] | None:
    words = told.split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    kind = _number(words[0], 127)
    if not kind and words[0] != b"0":  # no payload type has a number above 127
        return None
    codec, _, clock = words[1].partition(b"/")
    text = codec[:32].decode("ascii", "replace")
    return kind, Codec(text, _number(clock.partition(b"/")[0], 1 << 31))


def _address(words: list[bytes]) -> bytes:
    """IN IP4 <address>[/<ttl>]; a name is not looked up."""
    return b"" if len(words) < 3 or len(words[2]) > _LONGEST else _packed(words[2])


@lru_cache(maxsize=4096)
def _packed(text: bytes) -> bytes:
    try:
        return ip_address(text.partition(b"/")[0].decode("ascii")).packed
    except ValueError:
        return b""


def _number(text: bytes, most: int) -> int:
    """A decimal number up to *most*, 0 for anything else."""
    if not text.isdigit() or len(text) > 10:
        return 0
    number = int(text)
    return number if number <= most else 0
