"""Captured frames made of bytes: from 192.0.2.1:5060 to 192.0.2.2:5062 unless told otherwise."""

from __future__ import annotations

from struct import pack

SRC4, DST4 = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
SRC6 = bytes.fromhex("20010db8000000000000000000000001")
DST6 = bytes.fromhex("20010db8000000000000000000000002")
DST_MAC, SRC_MAC = b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x01"
BEGIN, END = 2, 1  # flags of SCTP


def udp(
    payload: bytes, src_port: int = 5060, dst_port: int = 5062, length: int | None = None
) -> bytes:
    return (
        pack(">HHHH", src_port, dst_port, 8 + len(payload) if length is None else length, 0)
        + payload
    )


def tcp(
    payload: bytes, sequence: int = 1, flags: int = 0x18, src_port: int = 5060, dst_port: int = 5062
) -> bytes:
    return pack(">HHIIBBHHH", src_port, dst_port, sequence, 0, 0x50, flags, 1000, 0, 0) + payload


def sctp(*chunks: bytes, tag: int = 7) -> bytes:
    return pack(">HHII", 5060, 5062, tag, 0) + b"".join(
        chunk + bytes(-len(chunk) % 4) for chunk in chunks
    )


def data_chunk(
    data: bytes, number: int = 1, flags: int = BEGIN | END, protocol: int = 0, stream: int = 0
) -> bytes:
    return pack(">BBHIHHI", 0, flags, 16 + len(data), number, stream, 0, protocol) + data


def i_data_chunk(data: bytes, number: int, flags: int, message: int, told: int) -> bytes:
    return pack(">BBHIHHII", 64, flags, 20 + len(data), number, 0, 0, message, told) + data


def ipv4(
    body: bytes,
    protocol: int = 17,
    *,
    fragment: int = 0,
    options: bytes = b"",
    total: int | None = None,
    identification: int = 7,
    tos: int = 0,
    src: bytes = SRC4,
    dst: bytes = DST4,
) -> bytes:
    head = 20 + len(options)
    total = head + len(body) if total is None else total
    first = 0x40 | head // 4
    return (
        pack(">BBHHHBBH", first, tos, total, identification, fragment, 64, protocol, 0)
        + src
        + dst
        + options
        + body
    )


def ipv6(body: bytes, protocol: int = 17, *, tos: int = 0) -> bytes:
    return pack(">IHBB", 6 << 28 | tos << 20, len(body), protocol, 64) + SRC6 + DST6 + body


def ethernet(body: bytes, kind: int | None = None) -> bytes:
    if kind is None:
        kind = 0x86DD if body[0] >> 4 == 6 else 0x0800
    return DST_MAC + SRC_MAC + pack(">H", kind) + body


def piece4(
    datagram: bytes, start: int, stop: int, identification: int = 7, more: bool | None = None
) -> bytes:
    """Bytes start…stop of what an IPv4 packet carries, as a fragment."""
    if more is None:
        more = stop < len(datagram)
    return ipv4(
        datagram[start:stop],
        fragment=(0x2000 if more else 0) | start // 8,
        identification=identification,
    )


def piece6(
    datagram: bytes, start: int, stop: int, identification: int = 9, kind: int = 17
) -> bytes:
    more = stop < len(datagram)
    return ipv6(pack(">BxHI", kind, start | more, identification) + datagram[start:stop], 44)
