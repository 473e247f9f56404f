"""The pseudo-variables of addresses, ports and transports."""

from __future__ import annotations

from homerd.api import Packet, pseudo_variable


class Endpoints:
    """Mixed into the module pv."""

    @pseudo_variable("Ri")
    def received_ip(self, packet: Packet) -> str:
        """Address the packet came to; for HEP the captured source, as Kamailio 5.6 has it."""
        return packet.src_ip if packet.frame.version else packet.dst_ip

    @pseudo_variable("Rp")
    def received_port(self, packet: Packet) -> int:
        """Port the packet came to; for HEP the captured source's."""
        return packet.frame.src_port if packet.frame.version else packet.frame.dst_port

    @pseudo_variable("RAi")
    def advertised_ip(self, packet: Packet) -> str:
        """As $Ri."""
        return packet.src_ip if packet.frame.version else packet.dst_ip

    @pseudo_variable("RAp")
    def advertised_port(self, packet: Packet) -> int:
        """As $Rp."""
        return packet.frame.src_port if packet.frame.version else packet.frame.dst_port

    @pseudo_variable("siz")
    def siz(self, packet: Packet) -> str:
        """Source address, in brackets for IPv6."""
        return _bracketed(packet.src_ip)

    @pseudo_variable("sas")
    def sas(self, packet: Packet) -> str:
        """Source as `proto:address:port`."""
        return f"{_protocol(packet)}:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"

    @pseudo_variable("su")
    def su(self, packet: Packet) -> str:
        """Source as a URI."""
        return f"sip:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"

    @pseudo_variable("sut")
    def sut(self, packet: Packet) -> str:
        """Source as a URI with its transport."""
        return f"{_source_uri(packet)};transport={_protocol(packet)}"

    @pseudo_variable("Ru")
    def received_uri(self, packet: Packet) -> str:
        """$Ri and $Rp as a URI."""
        return _received_uri(packet)

    @pseudo_variable("Rut")
    def received_uri_with_transport(self, packet: Packet) -> str:
        """$Ri and $Rp as a URI with the transport."""
        return f"{_received_uri(packet)};transport={_protocol(packet)}"

    @pseudo_variable("RAu")
    def advertised_uri(self, packet: Packet) -> str:
        """As $Ru."""
        return _received_uri(packet)

    @pseudo_variable("RAut")
    def advertised_uri_with_transport(self, packet: Packet) -> str:
        """As $Rut."""
        return f"{_received_uri(packet)};transport={_protocol(packet)}"

    @pseudo_variable("pr")
    def pr(self, packet: Packet) -> str:
        """Transport: udp, or tcp for IP protocol 6."""
        return _protocol(packet)

    @pseudo_variable("proto")
    def proto(self, packet: Packet) -> str:
        """As $pr."""
        return _protocol(packet)

    @pseudo_variable("prid")
    def prid(self, packet: Packet) -> int:
        """Number of the transport: 1 udp, 2 tcp."""
        return 2 if packet.frame.protocol == 6 else 1


def _source_uri(packet: Packet) -> str:
    return f"sip:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"


def _received_uri(packet: Packet) -> str:
    frame = packet.frame
    if frame.version:
        return _source_uri(packet)
    return f"sip:{_bracketed(packet.dst_ip)}:{frame.dst_port}"


def _protocol(packet: Packet) -> str:
    return "tcp" if packet.frame.protocol == 6 else "udp"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
