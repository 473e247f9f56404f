"""What a row costs, from the message to the database: `python tests/bench/bench_store.py`.

Prints µs of processor time a row: making the row (loop thread), and writing it (the sink's thread),
the latter for each slice of the rows, so that it shows whether cost grows with the table, and how
long a busy loop thread beside it is held up.  `--rows N`, `--batch N`, `--keep PATH`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from homerd.packet import Packet, RunState
from homerd.wire.hep import Frame
from homerd_plugins._homer5 import REPORT_COLUMNS, SIP_COLUMNS, Row, Settings, sip_row
from homerd_plugins._sqlite import BATCH_SIZE, SqliteSink

OPEN_CALLS = 2000  # that interleave, as on a real tap
BEGIN = 1767225600  # 2026-01-01 00:00:00 UTC
PER_SECOND = 20_000


def message(call: int, step: int) -> bytes:
    """Message *step* of a call of seven: requests and replies in turn, 1.1 KB."""
    user, peer = 1_000_000 + call * 7919 % 9_000_000, 1_000_000 + call * 104_729 % 9_000_000
    phone = f"10.1{call % 97:02}.1{call // 97 % 97:02}.1{call // 9409 % 97:02}"
    first = f"INVITE sip:{peer}@example.org SIP/2.0" if step % 2 == 0 else "SIP/2.0 200 OK"
    tag = ";tag=8f2c11aa" if step else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP {phone}:5060;branch=z9hG4bK{call:08x}{step:04x};rport\r\n"
        f'Max-Forwards: 70\r\nFrom: "User {user}" <sip:{user}@example.org>;tag={call:08x}\r\n'
        f"To: <sip:{peer}@example.org>{tag}\r\nCall-ID: {hash(call) * 2654435761 % 2**64:016x}@{phone}\r\n"
        f"CSeq: {step + 1} INVITE\r\nContact: <sip:{user}@{phone}:5060>\r\nUser-Agent: Phone 1.2.3\r\n"
        "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE\r\n"
        "Content-Type: application/sdp\r\nContent-Length: 600\r\n\r\nv=0\r\n"
        + "a=rtpmap:101 telephone-event/8000\r\n"
        * 17
    ).encode()


def packets(count: int, state: RunState) -> Iterator[Packet]:
    """*count* packets of interleaved calls."""
    chooser = random.Random(1)
    started = OPEN_CALLS
    calls = [[call, 0] for call in range(OPEN_CALLS)]
    for number in range(count):
        slot = calls[chooser.randrange(OPEN_CALLS)]
        call, step = slot
        slot[1] += 1
        if step == 6:
            slot[:] = [started, 0]
            started += 1
        phone = bytes([10, 100 + call % 97, 100 + call // 97 % 97, 100 + call // 9409 % 97])
        ends = (phone, b"\x0a\x00\x00\x01") if step % 2 == 0 else (b"\x0a\x00\x00\x01", phone)
        yield Packet(
            Frame(
                family=2,
                protocol=17,
                src=ends[0],
                dst=ends[1],
                src_port=5060,
                dst_port=5060,
                seconds=BEGIN + number // PER_SECOND,
                micros=number % PER_SECOND * 50,
                payload_type=1,
                capture_id=241,
                payload=message(call, step),
            ),
            state,
        )


def rows(of: list[Packet], settings: Settings) -> tuple[list[Row], float]:
    """The rows and the µs each took; first line and headers are read before, as a script does."""
    for packet in of:
        packet.sip.method  # noqa: B018  read for its effect
        packet.sip.header("call-id")
    made: list[Row] = []
    started = time.thread_time()
    for packet in of:
        row = sip_row(packet, settings)
        assert row is not None
        made.append(row)
    return made, (time.thread_time() - started) / len(of) * 1e6


class BusyLoop(threading.Thread):
    """Runs Python all the time, as a loaded loop thread does, and notes its longest pause."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = False
        self.longest = 0.0

    def run(self) -> None:
        last = time.perf_counter()
        while not self.stop:
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=BATCH_SIZE)
    parser.add_argument("--keep", metavar="PATH", help="the database stays there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        measure(options.keep or str(Path(folder, "x.db")), options.rows, options.batch)


def measure(path: str, count: int, batch: int) -> None:
    settings, state = Settings(), RunState(lambda level, text: None)
    sink = SqliteSink("bench", path, [SIP_COLUMNS, REPORT_COLUMNS])
    sink.connect()
    source = packets(count, state)
    written, spent, slices = 0, 0.0, max(count // 10, batch)
    while chunk := list(itertools.islice(source, batch)):
        made, row_cost = rows(chunk, settings)
        started = time.thread_time()
        sink.write([("sip_capture_call_20260101", 0, row) for row in made])
        spent += time.thread_time() - started
        if written // slices != (written + len(chunk)) // slices:
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(
                f"{written + len(chunk):>9,} rows  making {row_cost:4.1f} µs"
                f"  writing {spent / (written % slices + len(chunk)) * 1e6:4.1f} µs"
                f"  resident {resident} MiB",
                flush=True,
            )
            spent = 0.0
        written += len(chunk)
    beside_a_busy_loop(sink, made)
    sink.close()
    lookups(path)


def beside_a_busy_loop(sink: SqliteSink, made: list[Row]) -> None:
    """What writing takes when another thread wants the interpreter all the time."""
    busy = BusyLoop()
    busy.start()
    started = time.perf_counter()
    sink.write([("busy", 0, row) for row in made])
    seconds = time.perf_counter() - started
    busy.stop = True
    busy.join()
    print(
        f"beside a busy thread: {len(made) / seconds:,.0f} rows/s,"
        f" its longest pause {busy.longest * 1000:.1f} ms"
    )


def lookups(path: str) -> None:
    """How long a search by each index takes."""
    connection = sqlite3.connect(path)
    table = "sip_capture_call_20260101"
    for column in ("callid", "from_user", "source_ip"):
        query = f"SELECT * FROM {table} WHERE {column} = ?"
        (value,) = connection.execute(f"SELECT {column} FROM {table} WHERE id = 1").fetchone()
        started = time.perf_counter()
        found = len(connection.execute(query, (value,)).fetchall())
        print(
            f"search by {column}: {found} rows in {(time.perf_counter() - started) * 1000:.2f} ms"
        )
    connection.close()


if __name__ == "__main__":
    main()
