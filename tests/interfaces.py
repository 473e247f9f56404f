"""Interfaces to capture from: a network namespace of the test's own, with a pair of cables' ends.

All of it needs root; without, the tests are skipped for want of privileges.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import time

import pytest

SECONDS = 30.0  # a deadline nobody should meet
CLONE_NEWNET = 0x40000000
NEAR, FAR = "near0", "far0"  # we capture on the near end of the cable

_libc = ctypes.CDLL(None, use_errno=True)
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def ip_command(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespace():
    """This thread in a network namespace with nothing but lo, near0 and far0, all of them up."""
    with open("/proc/thread-self/ns/net") as before:
        if _libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"privilege: no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            ip_command("link", "add", NEAR, "type", "veth", "peer", "name", FAR)
            for name in (NEAR, FAR):
                ip_command("link", "set", name, "addrgenmode", "none")  # or IPv6 would chatter
            for name in ("lo", NEAR, FAR):
                ip_command("link", "set", name, "up")
            yield
        finally:
            assert _libc.setns(before.fileno(), CLONE_NEWNET) == 0


class Cable:
    """The far end, to send frames from."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.socket.bind((FAR, 0))

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)


@pytest.fixture
def cable(namespace):
    """The far end of the cable."""
    made = Cable()
    yield made
    made.socket.close()


def wait_for(source, captured: int) -> None:
    """Drain *source* until it has seen so many frames."""
    until = time.monotonic() + SECONDS
    source.drain()
    while source.captured < captured:
        assert time.monotonic() < until, f"{source.captured} frames, {source.undecoded}"
        select.select([source.socket], [], [], until - time.monotonic())
        source.drain()
    assert source.captured == captured


def udp(payload: bytes, src: str, dst: str, sport: int = 5060, dport: int = 5080) -> bytes:
    """An IPv4 or IPv6 packet with a UDP datagram; checksums are left at 0."""
    return packet(struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload, src, dst, 17)


def packet(payload: bytes, src: str, dst: str, protocol: int) -> bytes:
    """An IPv4 or IPv6 packet."""
    if ":" in src:
        ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ends
    return head + payload


def ethernet(inner: bytes, tags: tuple[tuple[int, int], ...] = (), target: bytes = b"") -> bytes:
    """A frame to *target*, by default to somebody else; tags: (EtherType, VLAN)."""
    frame = (target or b"\x02\0\0\0\0\x77") + b"\x02\0\0\0\0\x01"
    frame += b"".join(struct.pack(">HH", *tag) for tag in tags)
    return frame + struct.pack(">H", _ETHERTYPES[inner[0] >> 4]) + inner
