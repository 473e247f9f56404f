"""`homerd export CALL-ID…`: stored calls as a capture file or as text.

Each message becomes one UDP datagram, whatever carried it: of TCP and TLS nothing but the message
is stored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import BinaryIO

from homerd.commands._choice import add_store_options, add_time_options, opened
from homerd.commands._message import Message
from homerd.commands._shown import known_text, printable
from homerd.commands._stored import Found
from homerd.commands.show import head_of
from homerd.errors import ConfigError

LINKTYPE_RAW = 101  # a packet begins with its IP header
SNAP_LENGTH = 262_144
MOST_BYTES = 65_507  # in a UDP datagram over IPv4
UDP, HOP_LIMIT = 17, 64

_LAST = (1 << 32) * 1_000_000 - 1  # a capture file's last microsecond, in 2106

_Addresses = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("export", help="writes stored calls to a capture file or as text")
    parser.add_argument(
        "call_ids", metavar="CALL-ID", nargs="+", type=known_text, help="of any leg of a call"
    )
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--pcap", metavar="FILE", help="for Wireshark and its like; - is standard output"
    )
    form.add_argument("--text", action="store_true", help="the messages, on standard output")
    add_store_options(parser)
    add_time_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write what is found of the calls; 1 when one of them is not there."""
    found = Found()
    with opened(options) as stores:
        for call_id in options.call_ids:
            call = stores.call(call_id, options.since, options.until)
            found.add(call.messages)
            for line in call.remarks():
                print(f"homerd: {line}", file=sys.stderr)
            if not call.messages:
                stores.status = 1
        status = stores.status
    if not found.messages:
        return status
    if options.text:
        _write_text(found.messages)
        return status
    if options.pcap == "-":
        _write(sys.stdout.buffer, found.messages)
        return status
    try:
        with Path(options.pcap).open("wb") as file:
            _write(file, found.messages)
    except OSError as error:
        raise ConfigError(f"{options.pcap}: {error.strerror}") from error
    count = len(found.messages)
    print(f"{printable(options.pcap)}: {count} message{'' if count == 1 else 's'}")
    return status


def write_pcap(out: BinaryIO, messages: Iterable[Message]) -> list[str]:
    """Write a capture file of *messages*; gives what of them is not as it was."""
    import dpkt  # type: ignore[import-untyped]

    writer = dpkt.pcap.Writer(out, snaplen=SNAP_LENGTH, linktype=LINKTYPE_RAW)
    unknown = cut = 0
    for message in messages:
        ends = _addresses(message)
        unknown += ends is None
        cut += len(message.data) > MOST_BYTES
        packet = _datagram(message, ends or (IPv4Address(0), IPv4Address(0)))
        writer.writepkt(packet, ts=max(0, min(message.micro_ts, _LAST)) / 1_000_000)
    told = []
    if unknown:
        told.append(f"{unknown} without an address: written from 0.0.0.0 to 0.0.0.0")
    if cut:
        told.append(f"{cut} longer than a datagram: written to {MOST_BYTES} bytes")
    return told


def _write(out: BinaryIO, messages: Iterable[Message]) -> None:
    for line in write_pcap(out, messages):
        print(f"homerd: {line}", file=sys.stderr)
    out.flush()


def _write_text(messages: Iterable[Message]) -> None:
    out = sys.stdout.buffer
    for message in messages:
        out.write(f"{printable(head_of(message))}\n\n".encode())
        out.write(message.data.rstrip(b"\r\n") + b"\n\n")
    out.flush()


def _addresses(message: Message) -> _Addresses | None:
    """Its ends in one family; None when one of them is no address."""
    try:
        source, destination = ip_address(message.source_ip), ip_address(message.destination_ip)
    except ValueError:
        return None
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        return source, destination
    return _wide(source), _wide(destination)


def _wide(address: IPv4Address | IPv6Address) -> IPv6Address:
    return IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address


def _datagram(message: Message, ends: _Addresses) -> bytes:
    """IP header, UDP header, message, with their checksums."""
    import dpkt

    source, destination = ends
    udp = dpkt.udp.UDP(
        sport=message.source_port & 0xFFFF,
        dport=message.destination_port & 0xFFFF,
        data=message.data[:MOST_BYTES],
    )
    udp.ulen = len(udp)
    told = {"src": source.packed, "dst": destination.packed, "data": udp}
    if source.version == 4:
        return bytes(dpkt.ip.IP(p=UDP, ttl=HOP_LIMIT, len=20 + len(udp), **told))
    return bytes(dpkt.ip6.IP6(nxt=UDP, hlim=HOP_LIMIT, plen=len(udp), **told))
