"""ipops: tests on IP addresses.

What asks a name server is accepted and false: a packet never waits for one.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

from homerd.api import (
    Packet,
    Plugin,
    Text,
    Worker,
    Writable,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins import _accepted

IPV4, IPV6, IPV6_REFERENCE, NONE = 1, 2, 3, -1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ASKS_NAMES = (
    "dns_sys_match_ip/2=-1 dns_int_match_ip/2=-1 dns_query/2=-1 dns_set_local_ttl/1"
    " srv_query/2=-1 naptr_query/2=-1"
)


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_RFC1918 = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")

# Kamailio 5.6, ip_parser/rfc1918 tables of ipops; the first that holds an address names it.
_DETAILS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), name)
    for name, networks in (
        ("BROADCAST", "255.255.255.255/32"),
        ("PRIVATE", "0.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"),
        ("SHARED", "100.64.0.0/10"),
        ("LOOPBACK", "127.0.0.0/8 ::1/128"),
        ("LINK-LOCAL", "169.254.0.0/16"),
        ("TEST-NET", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24"),
        ("6TO4-RELAY", "192.88.99.0/24"),
        ("RESERVED", "192.0.0.0/24 198.18.0.0/15 240.0.0.0/4 64:ff9b::/96"),
        ("MULTICAST", "224.0.0.0/4 ff00::/8"),
        ("UNSPECIFIED", "::/128"),
        ("DOCUMENTATION", "2001:db8::/32"),
        ("TEREDO", "2001::/32"),
        ("6TO4", "2002::/16"),
        ("UNIQUE-LOCAL-UNICAST", "fc00::/7"),
        ("LINK-LOCAL-UNICAST", "fe80::/10"),
        ("GLOBAL-UNICAST", "2000::/3"),
        ("RESERVED", "::/0"),
    )
    for network in networks.split()
)


class IpOps(Plugin):
    """Tests on IP addresses."""

    name = "ipops"

    def __init__(self) -> None:
        self.words = _accepted.functions(_ASKS_NAMES, "ipops")
        self._wanted: set[str] = set()
        self._host: dict[str, str | None] = {}

    @hookimpl(tryfirst=True)
    def startup(self, worker: Worker) -> None:
        """Learn the host's name, and its address when the script wants it."""
        if self._wanted:
            self._host = _host(with_address=not self._wanted <= {"n"})

    @script_function
    def is_ip(self, packet: Packet, text: str) -> bool:
        """Whether it is an IPv4 or IPv6 address, the latter in brackets or not."""
        return _kind(text) != NONE

    @script_function
    def is_pure_ip(self, packet: Packet, text: str) -> bool:
        """Whether it is an address without brackets."""
        return _kind(text) in (IPV4, IPV6)

    @script_function
    def is_ipv4(self, packet: Packet, text: str) -> bool:
        """Whether it is an IPv4 address."""
        return _kind(text) == IPV4

    @script_function
    def is_ipv6(self, packet: Packet, text: str) -> bool:
        """Whether it is an IPv6 address without brackets."""
        return _kind(text) == IPV6

    @script_function
    def is_ipv6_reference(self, packet: Packet, text: str) -> bool:
        """Whether it is an IPv6 address in brackets."""
        return _kind(text) == IPV6_REFERENCE

    @script_function
    def ip_type(self, packet: Packet, text: str) -> int:
        """1 for IPv4, 2 for IPv6, 3 for IPv6 in brackets, -1 for none of them."""
        return _kind(text)

    @script_function
    def detailed_ip_type(self, packet: Packet, text: str, target: Writable) -> bool:
        """Put the use of an address (PUBLIC, PRIVATE, LOOPBACK, …) into *target*."""
        return _detail(packet, text, target, (IPV4, IPV6, IPV6_REFERENCE))

    @script_function
    def detailed_ipv4_type(self, packet: Packet, text: str, target: Writable) -> bool:
        """As detailed_ip_type, false for anything but IPv4."""
        return _detail(packet, text, target, (IPV4,))

    @script_function
    def detailed_ipv6_type(self, packet: Packet, text: str, target: Writable) -> bool:
        """As detailed_ip_type, false for anything but IPv6."""
        return _detail(packet, text, target, (IPV6, IPV6_REFERENCE))

    @script_function
    def compare_ips(self, packet: Packet, first: str, second: str) -> bool:
        """Whether both are the same address, however written, in brackets or not."""
        packed = _packed(first)
        return packed is not None and packed == _packed(second)

    @script_function
    def compare_pure_ips(self, packet: Packet, first: str, second: str) -> bool:
        """As compare_ips, false for addresses in brackets."""
        bracketed = first.startswith("[") or second.startswith("[")
        return not bracketed and self.compare_ips(packet, first, second)

    @script_function
    def is_in_subnet(self, packet: Packet, address: str, subnets: str) -> bool:
        """Whether an address lies in one of several subnets: `10.0.0.0/8,192.168.0.0/16`."""
        found = None if address.startswith("[") else _address(address)
        return found is not None and any(found in network for network in _subnets(subnets))

    @script_function
    def is_ip_rfc1918(self, packet: Packet, address: str) -> bool:
        """Whether it is a private IPv4 address."""
        found = _address(address)
        return found is not None and any(found in network for network in _RFC1918)

    @pseudo_variable("HN")
    def hn(self, packet: Packet, part: str) -> str | None:
        """This host: `n` name, `f` full name, `d` domain, `i` address; null when it has none."""
        return self._host.get(part)

    @hn.bind
    def bind_hn(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        part = "" if argument is None else argument.source.strip()
        if part not in ("n", "f", "d", "i"):
            raise ValueError(f'expected n, f, d or i, got "{part}"')
        self._wanted.add(part)
        return (part,)


def _packed(text: str) -> bytes | None:
    """The bytes of an address; None when it is none."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            return None
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _kind(text: str) -> int:
    packed = _packed(text)
    if packed is None:
        return NONE
    if len(packed) == 4:
        return IPV4
    return IPV6_REFERENCE if text.startswith("[") else IPV6


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    packed = _packed(text)
    return None if packed is None else ipaddress.ip_address(packed)


@lru_cache(maxsize=256)
def _subnets(text: str) -> tuple[Network, ...]:
    """Subnets parted by commas; what cannot be read is left out."""
    found: list[Network] = []
    for item in text.split(","):
        address, slash, length = item.strip().partition("/")
        if slash and not length.isdecimal():
            continue
        try:
            found.append(ipaddress.ip_network(f"{address}/{length}" if slash else address, False))
        except ValueError:
            continue
    return tuple(found)


def _detail(packet: Packet, text: str, target: Writable, kinds: tuple[int, ...]) -> bool:
    if _kind(text) not in kinds:
        return False
    address = _address(text)
    names = (name for network, name in _DETAILS if address in network)
    target.set(packet, next(names, "PUBLIC"))
    return True


def _host(*, with_address: bool) -> dict[str, str | None]:
    full = socket.gethostname()
    name, _, domain = full.partition(".")
    found: dict[str, str | None] = {"n": name, "f": full, "d": domain or None, "i": None}
    if with_address:
        try:
            canonical = socket.getaddrinfo(full, None, flags=socket.AI_CANONNAME)
        except OSError:
            return found  # the host's own name may stand in no table
        found["i"] = str(canonical[0][4][0])
        known = canonical[0][3]
        if "." in known and not domain:
            found["f"], found["d"] = known, known.partition(".")[2]
    return found
