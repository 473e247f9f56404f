"""What reading captures costs: `python tests/bench/bench_pcap.py [GIGABYTES]`.

µs of processor time a captured frame, of each kind: the reader alone, with the Dissector, and
`homerd replay` with the configuration it ships (stored in SQLite).  With GIGABYTES also the peak
memory of a replay of a file so big, one SIP message in a hundred frames.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from struct import pack

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_wire import INVITE
from frames import ethernet, ipv4, ipv6, piece4, tcp, udp

from homerd.core import inputs, pcap
from homerd.core.dissect import Dissector

FRAMES = 100_000
REPEATS = 3
SHIPPED = Path(__file__).parent.parent.parent / "homer.cfg"

HTTPS = [
    ethernet(ipv4(tcp(b"\x17\x03\x03\x05\x00" + bytes(1275), 1 + n * 1280, 0x18, 443, 50000), 6))
    for n in range(1000)
]
KINDS: dict[str, list[bytes]] = {
    "RTP": [ethernet(ipv4(udp(b"\x80\x08" + bytes(170), 10000, 20000)))],
    "RTP in a VLAN": [ethernet(b"\0\5\x08\0" + ipv4(udp(b"\x80\x08" + bytes(170), 10000, 20000)), 0x8100)],
    "RTP over IPv6": [ethernet(ipv6(udp(b"\x80\x08" + bytes(170), 10000, 20000)))],
    "DNS": [ethernet(ipv4(udp(b"\x12\x34\x01\x00" + bytes(40), 40000, 53)))],
    "ARP": [ethernet(bytes(28), 0x0806)],
    "TCP, no data": [ethernet(ipv4(tcp(b"", flags=0x10), 6))],
    "TCP, HTTPS": HTTPS,
    "fragments": [ethernet(piece4(udp(bytes(2000)), *part)) for part in ((0, 1480), (1480, 2008))],
    "SIP": [ethernet(ipv4(udp(INVITE.replace(b"9fxced76sl", b"%010d" % n)))) for n in range(1000)],
}  # fmt: skip


def write(path: str, frames: Iterable[bytes]) -> None:
    """A capture of *frames*, one a millisecond."""
    with open(path, "wb") as file:
        file.write(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        for at, frame in enumerate(frames):
            seconds, millis = divmod(at, 1000)
            size = len(frame)
            file.write(pack("<IIII", 1_700_000_000 + seconds, millis * 1000, size, size) + frame)


def read(path: str) -> None:
    """The reader alone."""
    with open(path, "rb") as file:
        for _ in pcap.read_pcap(inputs._Stream(file, None), path):
            pass


def dissect(path: str) -> None:
    """The reader and the Dissector."""
    feed = Dissector().feed
    with open(path, "rb") as file:
        for record in pcap.read_pcap(inputs._Stream(file, None), path):
            feed(*record)


def microseconds(call: Iterator[None] | object, path: str) -> float:
    """The least processor time of one frame."""
    least = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        call(path)  # type: ignore[operator]
        least = min(least, time.process_time() - started)
    return least / FRAMES * 1e6


def replay(path: str, folder: str) -> tuple[float, int]:
    """Seconds of processor time and MiB of memory that `homerd replay` takes in all."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "homerd", "replay", "-f", str(SHIPPED), path],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, after.ru_maxrss // 1024


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = os.path.join(folder, "frames.pcap")
        write(path, [])
        idle, _ = replay(path, folder)
        print(f"{'':16}{'read':>8}{'dissect':>10}{'replay':>10}   µs a frame")
        for kind, frames in KINDS.items():
            write(path, islice(cycle(frames), FRAMES))
            spent, _ = replay(path, folder)
            print(
                f"{kind:16}{microseconds(read, path):8.2f}{microseconds(dissect, path):10.2f}"
                f"{(spent - idle) / FRAMES * 1e6:10.2f}",
                flush=True,
            )
        if len(sys.argv) > 1:
            mixed = (KINDS["RTP"] * 70 + HTTPS[:29] + KINDS["SIP"][:1]) * 10
            size = sum(len(frame) + 16 for frame in mixed)
            write(path, islice(cycle(mixed), int(float(sys.argv[1]) * 1e9 / size * len(mixed))))
            spent, memory = replay(path, folder)
            print(f"{os.stat(path).st_size / 1e9:.2f} GB: {spent:.0f} s, peak {memory} MiB")


if __name__ == "__main__":
    main()
