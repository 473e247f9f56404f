"""Send SIP dialogs in HEP3 at a steady rate, and say what was sent.

    python tests/bench/hepgen.py --rate 20000 --count 1200000 127.0.0.1:9060

The datagrams of 1000 dialogs are made before the first is sent.  When more are asked for the
dialogs come again under other Call-IDs, tags and branches, so that a store's indexes have work to
do.  A dialog is a call of seven messages, a registration of four or a keep-alive of two, mixed so
that about six messages in ten belong to calls.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Iterator
from itertools import count as integers
from itertools import islice

DIALOGS = 1000
BURST = 64  # datagrams between two looks at the clock
ROUND = "@@@@@@@@"  # becomes the number of the round, in hexadecimal
HEADERS = (
    "Max-Forwards: 70\r\nUser-Agent: hepgen\r\nContact: <sip:{user}@{client}:5060>\r\n"
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, REFER, NOTIFY, PRACK\r\n"
    "Supported: replaces, timer, 100rel, path\r\n"
)
SDP = (
    "v=0\r\no=- {n} 1 IN IP4 {client}\r\ns=-\r\nc=IN IP4 {client}\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)
# first line, CSeq, from the client?, with SDP?
CALL = [
    ("INVITE sip:{peer}@example.org SIP/2.0", "1 INVITE", True, True),
    ("SIP/2.0 100 Trying", "1 INVITE", False, False),
    ("SIP/2.0 180 Ringing", "1 INVITE", False, False),
    ("SIP/2.0 200 OK", "1 INVITE", False, True),
    ("ACK sip:{peer}@example.org SIP/2.0", "1 ACK", True, False),
    ("BYE sip:{peer}@example.org SIP/2.0", "2 BYE", True, False),
    ("SIP/2.0 200 OK", "2 BYE", False, False),
]
REGISTRATION = [
    ("REGISTER sip:example.org SIP/2.0", "1 REGISTER", True, False),
    ("SIP/2.0 401 Unauthorized", "1 REGISTER", False, False),
    ("REGISTER sip:example.org SIP/2.0", "2 REGISTER", True, False),
    ("SIP/2.0 200 OK", "2 REGISTER", False, False),
]
KEEP_ALIVE = [
    ("OPTIONS sip:example.org SIP/2.0", "1 OPTIONS", True, False),
    ("SIP/2.0 200 OK", "1 OPTIONS", False, False),
]
MIX = [CALL, REGISTRATION, CALL, KEEP_ALIVE, REGISTRATION, CALL, KEEP_ALIVE, REGISTRATION, CALL]
SERVER = "192.0.2.1"


def chunk(kind: int, body: bytes) -> bytes:
    return struct.pack("!HHH", 0, kind, 6 + len(body)) + body


def hep3(payload: bytes, src: str, dst: str, seconds: int, micros: int) -> bytes:
    """One HEP3 packet, chunks in the order Kamailio sends them."""
    body = b"".join(
        [
            chunk(1, b"\x02"),
            chunk(2, b"\x11"),
            chunk(3, ipaddress.ip_address(src).packed),
            chunk(4, ipaddress.ip_address(dst).packed),
            chunk(7, struct.pack("!H", 5060)),
            chunk(8, struct.pack("!H", 5060)),
            chunk(9, struct.pack("!I", seconds)),
            chunk(10, struct.pack("!I", micros)),
            chunk(11, b"\x01"),
            chunk(12, struct.pack("!I", 2001)),
            chunk(15, payload),
        ]
    )
    return b"HEP3" + struct.pack("!H", 6 + len(body)) + body


def dialog(n: int, now: int) -> list[bytes]:
    """The datagrams of dialog *n*."""
    client = f"10.1.{n // 250}.{n % 250 + 1}"
    words = {"user": f"{1000 + n}", "peer": f"{2000 + n}", "client": client, "n": n}
    datagrams = []
    for step, (first_line, cseq, from_client, with_sdp) in enumerate(MIX[n % len(MIX)]):
        body = SDP.format(**words) if with_sdp else ""
        to_tag = "" if step == 0 else f";tag=t{ROUND}{n:08x}"
        message = (
            f"{first_line.format(**words)}\r\n"
            f"Via: SIP/2.0/UDP {client}:5060;branch=z9hG4bK{ROUND}{n:08x}{cseq[0]}\r\n"
            f"From: <sip:{words['user']}@example.org>;tag=f{ROUND}{n:08x}\r\n"
            f"To: <sip:{words['peer']}@example.org>{to_tag}\r\n"
            f"Call-ID: {ROUND}{n:08x}-{now:08x}@{client}\r\n"
            f"CSeq: {cseq}\r\n"
            f"{HEADERS.format(**words)}"
            + ("Content-Type: application/sdp\r\n" if with_sdp else "")
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        ends = (client, SERVER) if from_client else (SERVER, client)
        datagrams.append(hep3(message.encode(), *ends, now, step * 1000))
    return datagrams


def endless(datagrams: list[bytes]) -> Iterator[bytes]:
    """The dialogs, round after round, no two rounds alike."""
    mark = ROUND.encode()
    for number in integers():
        stamp = b"%08x" % number
        for datagram in datagrams:
            yield datagram.replace(mark, stamp)


def send(datagrams: list[bytes], count: int, rate: int, host: str, port: int) -> tuple[int, float]:
    """Send *count* datagrams; gives how many the kernel took, and the seconds it lasted."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    source = endless(datagrams)
    sent = 0
    with socket.socket(family, kind) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.connect(address)
        take = sender.send
        begin = time.perf_counter()
        for first in range(0, count, BURST):
            wait = begin + first / rate - time.perf_counter() if rate else 0
            if wait > 0:
                time.sleep(wait)
            for datagram in islice(source, min(BURST, count - first)):
                try:
                    take(datagram)
                    sent += 1
                except ConnectionRefusedError:  # told of an earlier datagram: nobody listens yet
                    pass
        return sent, time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description="Send SIP dialogs in HEP3 at a steady rate.")
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("--rate", type=int, default=1000, help="packets a second, 0: all at once")
    parser.add_argument("--count", type=int, default=10_000, help="packets in all")
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    now = int(time.time())
    datagrams = [datagram for n in range(DIALOGS) for datagram in dialog(n, now)]
    sent, seconds = send(datagrams, options.count, options.rate, host.strip("[]"), int(port))
    size = sum(map(len, datagrams)) // len(datagrams)
    print(f"sent={sent} seconds={seconds:.2f} pps={sent / seconds:.0f} mean_bytes={size}", end=" ")
    print(f"cpu={time.process_time():.2f} errors={options.count - sent}")
    return 0 if sent == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
