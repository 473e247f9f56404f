"""Who is calling, by credentials and by the headers that assert, prefer or divert."""

from __future__ import annotations

import re

from homerd.api import NameAddr, Packet, parse_name_addr, parse_uri, pseudo_variable

# Digest credentials: name "=" ( quoted / token ), separated by commas.
_CREDENTIAL = re.compile(r"""([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*)""", re.DOTALL)
_WITHOUT_CREDENTIALS = frozenset({"ACK", "CANCEL"})


class Identities:
    """Mixed into the module pv."""

    # Credentials

    @pseudo_variable("aU")
    def auth_username(self, packet: Packet) -> str | None:
        """Username of the credentials, as sent; Proxy-Authorization before Authorization."""
        return _credentials(packet).get("username")

    @pseudo_variable("au")
    def auth_user(self, packet: Packet) -> str | None:
        """Username of the credentials, without `@domain`."""
        username = _credentials(packet).get("username")
        return None if username is None else username.partition("@")[0]

    @pseudo_variable("ad")
    def auth_domain(self, packet: Packet) -> str | None:
        """Domain of the credentials' username, empty when it has none."""
        username = _credentials(packet).get("username")
        return None if username is None else username.partition("@")[2]

    @pseudo_variable("ar")
    def auth_realm(self, packet: Packet) -> str | None:
        """Realm of the credentials."""
        return _credentials(packet).get("realm")

    @pseudo_variable("adu")
    def auth_uri(self, packet: Packet) -> str | None:
        """Digest URI of the credentials."""
        return _credentials(packet).get("uri")

    @pseudo_variable("aa")
    def auth_algorithm(self, packet: Packet) -> str | None:
        """Algorithm of the credentials, empty when they name none."""
        found = _credentials(packet)
        return found.get("algorithm", "") if found else None

    # Identities

    @pseudo_variable("re")
    def remote_party(self, packet: Packet) -> str | None:
        """URI of Remote-Party-ID."""
        return _header_uri(packet, "Remote-Party-ID")

    @pseudo_variable("ai")
    def asserted(self, packet: Packet) -> str | None:
        """URI of P-Asserted-Identity."""
        return _header_uri(packet, "P-Asserted-Identity")

    @pseudo_variable("pu")
    def preferred(self, packet: Packet) -> str | None:
        """URI of P-Preferred-Identity."""
        return _header_uri(packet, "P-Preferred-Identity")

    @pseudo_variable("pU")
    def preferred_user(self, packet: Packet) -> str | None:
        """User in P-Preferred-Identity."""
        uri = parse_uri(_header_uri(packet, "P-Preferred-Identity") or "")
        return (uri.user or None) if uri else None

    @pseudo_variable("pd")
    def preferred_domain(self, packet: Packet) -> str | None:
        """Domain in P-Preferred-Identity."""
        uri = parse_uri(_header_uri(packet, "P-Preferred-Identity") or "")
        return uri.host if uri else None

    @pseudo_variable("pn")
    def preferred_name(self, packet: Packet) -> str | None:
        """Display name in P-Preferred-Identity, with its quotes."""
        found = _header_address(packet, "P-Preferred-Identity")
        return (found.display or None) if found else None

    @pseudo_variable("rt")
    def refer_to(self, packet: Packet) -> str | None:
        """URI of Refer-To."""
        return _header_uri(packet, "Refer-To")

    @pseudo_variable("di")
    def diversion(self, packet: Packet) -> str | None:
        """URI of Diversion."""
        return _header_uri(packet, "Diversion")

    @pseudo_variable("dir")
    def diversion_reason(self, packet: Packet) -> str | None:
        """The reason in Diversion."""
        found = _header_address(packet, "Diversion")
        return found.parameter("reason") if found else None

    @pseudo_variable("dic")
    def diversion_counter(self, packet: Packet) -> str | None:
        """The counter in Diversion."""
        found = _header_address(packet, "Diversion")
        return found.parameter("counter") if found else None


def _credentials(packet: Packet) -> dict[str, str]:
    """Digest parameters by lower-case name; empty when there are no digest credentials."""
    sip = packet.sip
    body = sip.header("Proxy-Authorization") or sip.header("Authorization")
    if not body or sip.method in _WITHOUT_CREDENTIALS:
        return {}
    scheme, _, rest = body.partition(" ")
    if scheme.lower() != "digest":
        return {}
    return {
        name.lower(): value[1:-1] if value[:1] == '"' else value
        for name, value in _CREDENTIAL.findall(rest)
    }


def _header_address(packet: Packet, name: str) -> NameAddr | None:
    body = packet.sip.header(name)
    return parse_name_addr(body) if body else None


def _header_uri(packet: Packet, name: str) -> str | None:
    found = _header_address(packet, name)
    return (found.uri or None) if found else None
