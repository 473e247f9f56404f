"""The request URI, its parts, and what a script makes of them.

Assignments hold as long as the packet is handled.  Nothing is sent, so that they only change what
is read afterwards; what is stored keeps the URI that was received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from homerd.api import (
    Kind,
    NameAddr,
    Packet,
    Parameter,
    ParameterKind,
    PseudoVariable,
    ScriptFunction,
    Uri,
    Value,
    parse_uri,
)

# Letter in `$ru`, `$oU`, `$nh(d)` … -> that part of a URI; u is the whole.
_PARTS: dict[str, Callable[[Uri], str | None]] = {
    "U": lambda uri: uri.user or None,
    "d": lambda uri: uri.host,
    "p": lambda uri: uri.port or "5060",
    "P": lambda uri: transport(uri),
}


def transport(uri: Uri) -> str:
    """The transport a URI names, as it names it; UDP when it names none."""
    return NameAddr("", "", f";{uri.params}").parameter("transport") or "UDP"


def rewrite(packet: Packet, **parts: str) -> None:
    """Put *parts* (fields of a Uri) into the request URI; one without a host stays as it is."""
    uri = parse_uri(packet.sip.ruri or "")
    if uri is not None and uri.host:
        packet.sip.rewrite_ruri(_text(uri._replace(**parts)))


def set_ruri(packet: Packet, value: Value) -> None:
    """`$ru = …`: text only, as in Kamailio."""
    if isinstance(value, str):
        packet.sip.rewrite_ruri(value)


def set_user(packet: Packet, value: Value) -> None:
    """`$rU = …`: text, or null to have none."""
    if not value:
        rewrite(packet, user="", password="")
    elif isinstance(value, str):
        rewrite(packet, user=value)


def set_host(packet: Packet, value: Value) -> None:
    """`$rd = …`."""
    if value and isinstance(value, str):
        rewrite(packet, host=value)


def set_port(packet: Packet, value: Value) -> None:
    """`$rp = …`: a number, text of one, or null to have none."""
    rewrite(packet, port="" if value is None else str(value))


def _text(uri: Uri) -> str:
    user = f"{uri.user}:{uri.password}@" if uri.password else f"{uri.user}@" if uri.user else ""
    port = f":{uri.port}" if uri.port else ""
    params = f";{uri.params}" if uri.params else ""
    headers = f"?{uri.headers}" if uri.headers else ""
    return f"{uri.scheme}:{user}{uri.host}{port}{params}{headers}"


def _set_user_and_password(packet: Packet, text: str) -> None:
    user, _, password = text.partition(":")
    rewrite(packet, user=user, password=password)


def _set_host_and_port(packet: Packet, text: str) -> None:
    uri = parse_uri(f"sip:{text}")
    if uri is not None:
        rewrite(packet, host=uri.host, port=uri.port)


def _user(packet: Packet) -> str:
    return packet.sip.ruri_user or ""


def _prefix(packet: Packet, text: str) -> None:
    rewrite(packet, user=text + _user(packet))


def _strip(packet: Packet, count: int) -> None:
    rewrite(packet, user=_user(packet)[max(0, count) :])


def _strip_tail(packet: Packet, count: int) -> None:
    user = _user(packet)
    rewrite(packet, user=user[: len(user) - max(0, count)] if count < len(user) else "")


def _userphone(packet: Packet) -> None:
    uri = parse_uri(packet.sip.ruri or "")
    if uri is not None and "user=phone" not in uri.params.split(";"):
        rewrite(packet, params=f"{uri.params};user=phone" if uri.params else "user=phone")


def _revert(packet: Packet) -> None:
    received = packet.sip.received_ruri
    if received is not None:
        packet.sip.rewrite_ruri(received)


def _destination(packet: Packet) -> str | None:
    uri: str | None = packet.scratch.get("du")
    return uri


def _set_destination(packet: Packet, value: Value) -> None:
    packet.scratch["du"] = value if isinstance(value, str) and value else None


def _next_hop(packet: Packet) -> str | None:
    return _destination(packet) or packet.sip.ruri


def _part(letter: str, of: Callable[[Packet], str | None]) -> Callable[[Packet], str | None]:
    if letter == "u":
        return of
    part = _PARTS[letter]

    def read(packet: Packet) -> str | None:
        uri = parse_uri(of(packet) or "")
        return None if uri is None else part(uri)

    return read


def _variable(
    name: str,
    help: str,
    get: Callable[[Packet], str | None] | None = None,
    set: Callable[[Packet, Value], None] | None = None,
    reads: str = "",
) -> PseudoVariable:
    return PseudoVariable(
        name, kind=Kind.STR, get=get, set=set, reads=reads, module="pv", help=help
    )


def _next_hop_variable() -> PseudoVariable:
    def bind(argument: object, index: object) -> tuple[object, ...]:
        letter = getattr(argument, "source", "").strip()
        if letter not in ("u", *_PARTS) or index is not None:
            raise ValueError(f'expected u, U, d, p or P, got "{letter}"')
        return (_part(letter, _next_hop),)

    return PseudoVariable(
        "nh",
        kind=Kind.STR,
        get=lambda packet, read: read(packet),
        bind=bind,
        module="pv",
        help="Where Kamailio would send the request: $du, else the R-URI; its u(ri), U(ser), "
        "d(omain), p(ort), P (transport).",
    )


def functions() -> Iterator[ScriptFunction]:
    """`seturi()`, `sethost()` … and their long names; text is taken as it is written."""
    text = Parameter("text", ParameterKind.PLAIN)
    count = Parameter("count", ParameterKind.NUMBER)
    changes: list[tuple[str, Callable[..., None], tuple[Parameter, ...], str]] = [
        ("uri", set_ruri, (text,), "Put *text* in the place of the R-URI."),
        ("user", set_user, (text,), "Put *text* in the place of the R-URI's user."),
        ("userpass", _set_user_and_password, (text,), "The same for `user:password`."),
        ("host", set_host, (text,), "Put *text* in the place of the R-URI's host."),
        ("port", set_port, (text,), "Put *text* in the place of the R-URI's port."),
        ("hostport", _set_host_and_port, (text,), "The same for `host:port`."),
        ("hostporttrans", _set_host_and_port, (text,), "The same for `host:port`."),
    ]
    named = [(prefix + name, *rest) for name, *rest in changes for prefix in ("set", "rewrite")]
    named += [
        ("prefix", _prefix, (text,), "Put *text* before the R-URI's user."),
        ("strip", _strip, (count,), "Take characters from the begin of the R-URI's user."),
        ("strip_tail", _strip_tail, (count,), "Take characters from the end of its user."),
        ("userphone", _userphone, (), "Add user=phone to the R-URI."),
        ("revert_uri", _revert, (), "Go back to the R-URI that was received."),
    ]
    for name, call, parameters, help in named:
        yield ScriptFunction(name, call, parameters, returns_none=True, module="core", help=help)


def words() -> tuple[PseudoVariable, ...]:
    """The variables of the R-URI, the received one, and the destination."""
    received = (
        _variable(
            f"o{letter}",
            f"As $r{letter}, of the R-URI that was received.",
            _part(letter, lambda packet: packet.sip.received_ruri),
        )
        for letter in ("u", *_PARTS)
    )
    return (
        _variable("ru", "R-URI; null in a reply.", set=set_ruri, reads="sip.ruri"),
        _variable(
            "rU", "User of the R-URI; null when it has none.", set=set_user, reads="sip.ruri_user"
        ),
        _variable("rd", "Host of the R-URI.", set=set_host, reads="sip.ruri_host"),
        _variable(
            "rp",
            "Port of the R-URI, 5060 when it has none; null in a reply.",
            lambda packet: (packet.sip.ruri_port or "5060") if packet.sip.ruri else None,
            set_port,
        ),
        _variable(
            "rP",
            "Transport of the R-URI as it is named, UDP when it is not; null in a reply.",
            _part("P", lambda packet: packet.sip.ruri),
        ),
        *received,
        _variable(
            "du",
            "Null until the script assigns a URI: nothing is sent.",
            _destination,
            _set_destination,
        ),
        _variable("dd", "Domain of $du.", _part("d", _destination)),
        _variable("dp", "Port of $du.", _part("p", _destination)),
        _variable("dP", "Transport of $du.", _part("P", _destination)),
        _next_hop_variable(),
    )
