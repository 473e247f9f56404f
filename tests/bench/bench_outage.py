"""Does a store that is away cost a record?  A real server, a real homerd, and what befalls them.

    python tests/bench/bench_outage.py --store mariadb --mishap killed

Sends numbered packets at a steady rate; in the middle of it comes the mishap (all of them when none
is named).  Then it waits until nothing is spooled, and compares what was sent with the rows of the
database and with homerd's own ledger.  Exit status 1 when the sums do not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from outages import MISHAPS, Daemon, Sender, Trial, sink_of
from servers import MariaDbServer, PostgresServer, running
from tqdm import tqdm

STORES = {"postgres": (PostgresServer, "postgres"), "mariadb": (MariaDbServer, "mysql")}
DRAIN_SECONDS = 600.0


class Bar:
    """How many packets were sent, while time passes."""

    def __init__(self, sender: Sender, title: str) -> None:
        self.sender = sender
        self.bar = tqdm(total=sender.count, desc=title, unit="pkt", leave=False, disable=None)

    def pass_(self, seconds: float) -> None:
        """Let *seconds* pass, less when all is sent."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.sender.is_alive():
            self.sender.join(0.2)
            self.bar.update(self.sender.sent - self.bar.n)


def trial(store: str, mishap: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """Run one; gives what does not hold."""
    kind, scheme = STORES[store]
    with running(kind, durable=True) as server:
        limit = f"spool_limit={options.spool_limit}" if options.spool_limit else ""
        daemon = Daemon(folder, server.url(scheme), limit)
        daemon.start()
        sender = Sender(daemon.port, options.rate * options.seconds, options.rate)
        bar = Bar(sender, f"{store} {mishap}")
        course = Trial(server, daemon, sender)
        try:
            sender.start()
            bar.pass_((options.seconds - options.outage) / 2)
            began = time.monotonic()
            pauses = 2 if mishap == "killed" else 1
            getattr(course, mishap)(lambda: bar.pass_(options.outage / pauses))
            lasted = time.monotonic() - began
            bar.pass_(float(options.seconds * 10))
            ended = time.monotonic()
            bar.bar.close()
            daemon.received(sender)
            daemon.drained(DRAIN_SECONDS)
            drained = time.monotonic() - ended
            daemon.measure()
            return report(course, f"{store} {mishap} {lasted:.1f} s", drained)
        finally:
            bar.bar.close()
            daemon.stop()


def report(course: Trial, title: str, drained: float) -> list[str]:
    """Print what came of it; gives what does not hold."""
    daemon, sender = course.daemon, course.sender
    status, stored = daemon.status(), course.stored()
    sink, ledger = sink_of(status), status["ledger"]
    rows, lost = stored.total(), Counter(sink["lost"])
    drops = daemon.kernel_drops + status["kernel_drops"]
    print(f"-- {title}")
    print(f"sent {sender.sent:,}, rows {rows:,}, distinct {len(stored):,}", end="")
    print(f", refused by nobody's port {sender.refused}" if sender.refused else "")
    print(f"lost {dict(lost) or 0}, kernel drops {drops}, retries {sink['retries']}")
    print(
        f"homerd {daemon.cpu_seconds:.1f} s CPU, server {course.server.cpu_seconds():.1f} s", end=""
    )
    print(f", peak RSS {daemon.peak_kilobytes / 1024:.0f} MB, empty {drained:.1f} s after the last")
    for name in ("sources", "packets", "fates"):
        print(f"   {name:<8} {side(ledger[name]['in'])} = {side(ledger[name]['out'])}")
    for name, part in ledger["sinks"].items():
        print(f"   {name:<8} {side(part['in'])} = {side(part['out'])}")
    faults = []
    if ledger["difference"]:
        faults.append(f"the ledger is off by {ledger['difference']}")
    if rows != len(stored):
        faults.append(f"{rows - len(stored)} rows are there twice")
    missing = sender.sent - len(stored) - lost.total() - drops - sender.refused
    if missing:
        faults.append(f"{missing} packets are neither stored nor counted as lost")
    for fault in faults:
        print(f"   FAULT    {fault}")
    sys.stdout.flush()
    return faults


def side(counts: dict[str, int]) -> str:
    """One side of an equation, without its zeros."""
    return " + ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=STORES, help="both, when none is named")
    parser.add_argument("--mishap", choices=MISHAPS, help="all, when none is named")
    parser.add_argument("--rate", type=int, default=2000, help="packets a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--outage", type=float, default=20, help="seconds of it")
    parser.add_argument("--spool-limit", help="bytes that may wait, as in a script: 8M")
    parser.add_argument("--keep", type=Path, help="a folder for homerd's log and spool")
    options = parser.parse_args()
    faults = []
    for store in [options.store] if options.store else STORES:
        for mishap in [options.mishap] if options.mishap else MISHAPS:
            with tempfile.TemporaryDirectory(prefix="bench-outage-") as scratch:
                folder = (options.keep or Path(scratch)) / f"{store}-{mishap}"
                folder.mkdir(parents=True, exist_ok=True)
                faults += trial(store, mishap, options, folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
