"""sipcapture's parameters of live capture, as Kamailio means them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from homerd.api import ANY, IPIP, RAW, Capture, Problem

if TYPE_CHECKING:
    from homerd_plugins.sipcapture import SipCapture

EVERY_ADDRESS = "0.0.0.0"


def captures(plugin: SipCapture) -> Iterator[Capture]:
    """What the parameters ask for; they have been looked through by `problems`."""
    host, ports = ports_of(plugin.raw_socket_listen)
    interface = plugin.raw_interface
    if plugin.raw_moni_capture_on:
        # Kamailio takes UDP alone in this mode; so does the filter that it puts into the kernel.
        kept = f"udp and portrange {ports[0]}-{ports[1]}" if ports else "udp"
        where = interface or ANY
        yield Capture(
            RAW,
            where,
            f"raw:{where}",
            filter=kept if plugin.raw_moni_bpf_on else "",
            promiscuous=bool(plugin.promiscuous_on),
            ports=ports,
        )
    elif plugin.raw_ipip_capture_on:
        where = host or EVERY_ADDRESS
        yield Capture(IPIP, where, f"ipip:{where}", ports=ports, interface=interface)


def problems(plugin: SipCapture) -> Iterator[Problem]:
    """What does not go together."""
    if not plugin.raw_moni_capture_on and not plugin.raw_ipip_capture_on:
        return
    if plugin.raw_moni_capture_on and plugin.raw_ipip_capture_on:
        yield Problem(
            "raw_ipip_capture_on and raw_moni_capture_on exclude each other",
            parameter="raw_moni_capture_on",
        )
    try:
        _, ports = ports_of(plugin.raw_socket_listen)
        if plugin.raw_moni_capture_on and ports is None:
            yield Problem(
                "raw_moni_capture_on needs the ports to look for",
                parameter="raw_moni_capture_on",
                help='modparam("sipcapture", "raw_socket_listen", "0.0.0.0:5060-5090")',
            )
    except ValueError as error:
        yield Problem(f"raw_socket_listen: {error}", parameter="raw_socket_listen")
    if plugin.raw_moni_capture_on and plugin.promiscuous_on and not plugin.raw_interface:
        yield Problem(
            "promiscuous_on needs an interface",
            parameter="promiscuous_on",
            help='modparam("sipcapture", "raw_interface", "eth0")',
        )


def ports_of(text: str) -> tuple[str, tuple[int, int] | None]:
    """The address and the ports of `address:first-last`, `address:port` or `address`."""
    host, colon, ports = text.strip().partition(":")
    if not colon:
        return host, None
    first, _, last = ports.partition("-")
    numbers = [first.strip(), (last or first).strip()]
    if not all(each.isdecimal() and 0 < int(each) < 65536 for each in numbers):
        raise ValueError(f'expected "address:port-port", got "{text}"')
    low, high = map(int, numbers)
    if low > high:
        raise ValueError(f'expected the lower port first, got "{text}"')
    return host, (low, high)
