"""What packets cost all the way into a store: processor seconds of homerd and of the server.

    python tests/bench/bench_load.py --store postgres                            # 100,000 packets
    python tests/bench/bench_load.py --store postgres --rate 20000 --seconds 45

The server is a real one, its commits reach the disk, its tables have all their indexes.  Without
--store each of the three is measured.  Exit status 1 when a packet is not in the database.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from outages import TABLE, Daemon, Sender, arrived, sink_of
from servers import DATABASE, DatabaseServer, MariaDbServer, PostgresServer, running
from tqdm import tqdm

STORES = ("sqlite", "postgres", "mariadb")
DRAIN_SECONDS = 600.0


class File:
    """A SQLite file, which has no processor time of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.path}"

    def rows_as_root(self, query: str, database: str) -> list[tuple[int, ...]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def cpu_seconds(self) -> float:
        return 0.0


@contextlib.contextmanager
def server_of(store: str, folder: Path) -> Iterator[File | DatabaseServer]:
    """What *store* writes to."""
    if store == "sqlite":
        yield File(folder / "homer.db")
        return
    with running(PostgresServer if store == "postgres" else MariaDbServer, durable=True) as server:
        yield server


def measure(store: str, rate: int, count: int, folder: Path) -> bool:
    """Print what it cost; whether all was stored."""
    with server_of(store, folder) as server:
        daemon = Daemon(folder, server.url("mysql" if store == "mariadb" else store))
        daemon.start()
        try:
            sender = Sender(daemon.port, count, rate)
            before, server_before = daemon.cpu_seconds, server.cpu_seconds()
            began = time.monotonic()
            sender.start()
            with tqdm(total=count, desc=store, unit="pkt", leave=False, disable=None) as bar:
                while sender.is_alive():
                    sender.join(0.2)
                    bar.update(sender.sent - bar.n)
            lasted = time.monotonic() - began
            daemon.until(lambda status: arrived(status) >= count, DRAIN_SECONDS)
            status = daemon.drained(DRAIN_SECONDS)
            drained = time.monotonic() - began - lasted
            daemon.measure()
            own, servers = daemon.cpu_seconds - before, server.cpu_seconds() - server_before
            ((rows,),) = server.rows_as_root(f"SELECT count(*) FROM {TABLE}", DATABASE)
            scale = 100_000 / max(rows, 1)
            print(
                f"{store}: {count:,} sent in {lasted:.1f} s ({count / lasted:,.0f}/s), {rows:,} rows,"
                f" kernel drops {status['kernel_drops']}, lost {sink_of(status)['lost'] or 0}\n"
                f"   CPU seconds for 100,000: homerd {own * scale:.2f}, server {servers * scale:.2f},"
                f" both {(own + servers) * scale:.2f}\n"
                f"   empty {drained:.1f} s after the last, peak RSS {daemon.peak_kilobytes >> 10} MB,"
                f" in the sink's writes {sink_of(status)['write_seconds'] * scale:.2f} s",
                flush=True,
            )
            return rows == count
        finally:
            daemon.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=STORES, help="all three, when none is named")
    parser.add_argument("--rate", type=int, default=5000, help="packets a second")
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    whole = True
    for store in [options.store] if options.store else STORES:
        with tempfile.TemporaryDirectory(prefix="bench-load-") as folder:
            whole &= measure(store, options.rate, options.rate * options.seconds, Path(folder))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
