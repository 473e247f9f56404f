"""Answers to SIP requests, without any state: bytes from the request and who sent it.

What identifies the request is copied as it came; Via tells the way back.  Source: RFC 3261 8.2.6,
8.2.7 and 18.2, RFC 3581.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from ipaddress import ip_address
from typing import NamedTuple

from homerd.wire.sip import SipMessage, Via
from homerd.wire.uri import split_list

DEFAULT_PORT = 5060
MOST_VIAS = 70  # RFC 3261 8.1.1.6 lets a request go so far
REASONS = {
    200: "OK",
    400: "Bad Request",
    405: "Method Not Allowed",
    415: "Unsupported Media Type",
    489: "Bad Event",
    503: "Service Unavailable",
}

_COPIED = (("from", "From"), ("to", "To"), ("call-id", "Call-ID"), ("cseq", "CSeq"))
# What the sender says of these two is not what we see.
_OURS = re.compile(r";[ \t]*(?:received|rport)[ \t]*(?:=[^;]*)?(?=;|\Z)", re.IGNORECASE)
_NO_TEXT = re.compile(r"[\r\0]")


class WayBack(NamedTuple):
    """The Vias of a request as they stand there, and the topmost one read."""

    vias: tuple[str, ...]
    top: Via


def way_back(request: SipMessage) -> WayBack | None:
    """How an answer finds back; None unless every Via can be read."""
    vias = tuple(each for body in request.headers("via") for each in split_list(body))
    if not 0 < len(vias) <= MOST_VIAS:
        return None
    known = request.vias()
    return WayBack(vias, known[0]) if len(known) == len(vias) else None


def answer(
    request: SipMessage,
    way: WayBack,
    status: int,
    sender: tuple[str, int],
    more: Iterable[tuple[str, str]] = (),
    reason: str = "",
) -> bytes:
    """The answer's bytes.

    sender: address and port that the request came from.  more: further headers.
    """
    lines = [f"SIP/2.0 {status} {reason or REASONS[status]}"]
    lines.append(f"Via: {_with_sender(way, sender)}")
    lines += [f"Via: {each}" for each in way.vias[1:]]
    for key, name in _COPIED:
        body = request.header(key)
        if body is None:
            continue
        if key == "to" and not request.to_tag:
            body += f";tag={token(request, 'to')}"
        lines.append(f"{name}: {body}")
    lines += [f"{name}: {body}" for name, body in more]
    lines.append("Content-Length: 0\n\n")
    text = _NO_TEXT.sub(" ", "\n".join(lines)).replace("\n", "\r\n")
    return text.encode("utf-8", "surrogateescape")


def port_of(via: Via, sender: tuple[str, int]) -> int:
    """The port of the sender's address that an answer over UDP goes to.

    Who says another address than it is seen with is behind NAT, and only hears what comes back to
    the port it sent from, also where it does not ask for that (rport).
    """
    if via.parameter("rport") is not None or not _is_sender(via, sender, True):
        return sender[1]
    port = int(via.port or DEFAULT_PORT)
    return port if 0 < port < 65536 else sender[1]


def transaction(request: SipMessage, via: Via, host: str) -> bytes:
    """The same for a request and its retransmissions, another for every other request.

    The body counts: some devices give all their requests one branch and one Call-ID.
    """
    parts = (
        host,
        f"{via.host}:{via.port}",
        request.via_branch or "",
        request.call_id or "",
        request.cseq or "",
        request.body,
    )
    return _digest(parts, 16)


def token(request: SipMessage, purpose: str) -> str:
    """Text that no other request gets, the same for its retransmissions: a tag, an entity tag."""
    parts = (purpose, request.via_branch or "", request.call_id or "", request.cseq or "")
    return _digest((*parts, request.from_tag or ""), 8).hex()


def _with_sender(way: WayBack, sender: tuple[str, int]) -> str:
    """The topmost Via, with where the request came from."""
    asked = way.top.parameter("rport") is not None
    text = _OURS.sub("", way.vias[0]).rstrip(" \t\r")
    if asked or not _is_sender(way.top, sender, False):
        text += f";received={sender[0]}"
    return f"{text};rport={sender[1]}" if asked else text


def _is_sender(via: Via, sender: tuple[str, int], name: bool) -> bool:
    """Whether Via has the sender's address; *name*: what a host's name stands for."""
    try:
        return ip_address(via.host.strip("[]")) == ip_address(sender[0])
    except ValueError:
        return name


def _digest(parts: Iterable[str], size: int) -> bytes:
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=size).digest()
