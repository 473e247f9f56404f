"""siputils: tests on requests, URIs and numbers."""

from __future__ import annotations

import re

from homerd.api import ModParam, Packet, Plugin, Uri, parse_uri, script_function
from homerd_plugins import _accepted

NO = -2  # what these tests of a text return when it is not so

_NUMERIC = re.compile(r"[0-9]+")
_TEL_NUMBER = re.compile(r"\+?[0-9]+")
_E164 = re.compile(r"\+[0-9]{2,15}")

_CHANGES = (
    "ring_insert_callid/0 options_reply/0 add_uri_param/1 tel2sip/3 uri_param_rm/1"
    " encode_contact/2 decode_contact/0 decode_contact_header/0 contact_param_encode/2"
    " contact_param_decode/1 contact_param_decode_ruri/1 contact_param_rm/1"
    " sip_p_charging_vector/1 append_rpid_hf/0-2 is_rpid_user_e164/0=-1 set_uri_user/2"
    " set_uri_host/2 check_route_exists/1=-1 route_if_exists/1"
)


class SipUtils(Plugin):
    """Tests on requests, URIs and numbers."""

    name = "siputils"

    options_accept = ModParam(str, "", reloadable=True, help="accepted")
    options_accept_encoding = ModParam(str, "", reloadable=True, help="accepted")
    options_accept_language = ModParam(str, "", reloadable=True, help="accepted")
    options_support = ModParam(str, "", reloadable=True, help="accepted")
    contact_flds_separator = ModParam(str, "", reloadable=True, help="accepted")
    ring_timeout = ModParam(int, 30, reloadable=True, help="accepted")
    rpid_prefix = ModParam(str, "", reloadable=True, help="accepted")
    rpid_suffix = ModParam(str, "", reloadable=True, help="accepted")
    rpid_avp = ModParam(str, "", reloadable=True, help="accepted")

    def __init__(self) -> None:
        self.words = _accepted.functions(_CHANGES, "siputils")

    @script_function
    def has_totag(self, packet: Packet) -> bool:
        """Whether To has a tag."""
        return packet.sip.to_tag is not None

    @script_function
    def is_request(self, packet: Packet) -> bool:
        """Whether the message is a request."""
        return packet.sip.is_request

    @script_function
    def is_reply(self, packet: Packet) -> bool:
        """Whether the message is a reply."""
        return packet.sip.is_reply

    @script_function
    def is_first_hop(self, packet: Packet) -> bool:
        """Whether the request passed no proxy: one Via and no Record-Route."""
        sip = packet.sip
        return len(sip.vias()) == 1 and sip.header("Record-Route") is None

    @script_function
    def is_uri(self, packet: Packet, text: str) -> bool:
        """Whether *text* is a URI."""
        return parse_uri(text) is not None

    @script_function
    def is_numeric(self, packet: Packet, text: str) -> int:
        """1 when *text* is digits only, else -2."""
        return 1 if _NUMERIC.fullmatch(text) else NO

    @script_function
    def is_tel_number(self, packet: Packet, text: str) -> int:
        """1 when *text* is digits with or without a leading +, else -2."""
        return 1 if _TEL_NUMBER.fullmatch(text) else NO

    @script_function
    def is_e164(self, packet: Packet, text: str) -> bool:
        """Whether *text* is + and 2 to 15 digits."""
        return _E164.fullmatch(text) is not None

    @script_function
    def is_uri_user_e164(self, packet: Packet, text: str) -> bool:
        """Whether the user of the URI *text* is + and 2 to 15 digits."""
        uri = parse_uri(text)
        return uri is not None and _E164.fullmatch(uri.user) is not None

    @script_function
    def is_user(self, packet: Packet, user: str) -> bool:
        """Whether the credentials' username is *user*."""
        body = packet.sip.header("Authorization") or packet.sip.header("Proxy-Authorization") or ""
        found = re.search(r'username\s*=\s*"?([^",\s]*)', body, re.IGNORECASE)
        return found is not None and found[1].partition("@")[0] == user

    @script_function
    def cmp_uri(self, packet: Packet, left: str, right: str) -> bool:
        """Whether two URIs name the same (RFC 3261 19.1.4)."""
        one, other = parse_uri(left), parse_uri(right)
        if one is None or other is None:
            return False
        return (
            _place(one) == _place(other) and one.password == other.password and _agree(one, other)
        )

    @script_function
    def cmp_aor(self, packet: Packet, left: str, right: str) -> bool:
        """Whether user, host and port of two URIs are the same."""
        one, other = parse_uri(left), parse_uri(right)
        return one is not None and other is not None and _place(one) == _place(other)

    @script_function("uri_param")
    def uri_param(self, packet: Packet, name: str) -> bool:
        """Whether the R-URI has the parameter *name*, without a value."""
        return _parameters(packet.sip.ruri).get(name.lower()) == ""

    @script_function("uri_param")
    def uri_param_is(self, packet: Packet, name: str, value: str) -> bool:
        """Whether the R-URI's parameter *name* has the value *value*, in any case."""
        found = _parameters(packet.sip.ruri).get(name.lower())
        return found is not None and found.lower() == value.lower()


def _place(uri: Uri) -> tuple[str, str, str, str]:
    return uri.scheme, uri.user, uri.host.lower(), uri.port


def _agree(one: Uri, other: Uri) -> bool:
    """Whether parameters that both have are the same, and those that count are in both or none."""
    left, right = _split(one.params), _split(other.params)
    if any(left.get(name) != right.get(name) for name in ("user", "ttl", "method", "maddr")):
        return False
    return all(left[name].lower() == right[name].lower() for name in left.keys() & right.keys())


def _parameters(text: str | None) -> dict[str, str]:
    uri = parse_uri(text) if text else None
    return {} if uri is None else _split(uri.params)


def _split(text: str) -> dict[str, str]:
    pairs = (piece.partition("=") for piece in text.split(";") if piece)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
