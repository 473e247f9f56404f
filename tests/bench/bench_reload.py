"""The longest pause of the loop while a script of some 1,150 lines is reloaded under load.

    python tests/bench/bench_reload.py --rate 20000 --reloads 10

A sender in a process of its own keeps the rate; a pause is the time between two drains of the
socket.  The script stores each packet in SQLite, behind a chain of routes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from homerd.core import reload
from homerd.core.program import load
from homerd.core.reload import Reloader
from homerd.core.worker import Worker

HEAD = """listen=udp:127.0.0.1:{port}
loadmodule "pv"
loadmodule "xlog"
loadmodule "htable"
loadmodule "textops"
loadmodule "siputils"
loadmodule "sipcapture"
modparam("htable", "htable", "a=>size=8;autoexpire=60")
modparam("sipcapture", "db_url", "sqlite:///{folder}/homer.db")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
# reload {number}
request_route {{ route(R{number}); sip_capture("sip_capture"); }}
onreply_route {{ route(R{number}); sip_capture("sip_capture"); }}
"""
ROUTE = """route[R{n}] {{
    if ($rm == "INVITE" && $si =~ "^10\\\\.{n}\\\\.") {{
        $var(x{n}) = $(rU{{s.substr,0,4}}) + "-" + $fU;
        if ($sht(a=>$ci::{n}) == $null) $sht(a=>$ci::{n}) = 1;
        else {{
            xlog("L_DBG", "again $ci $rm from $si:$sp\\n");
        }}
    }} else if ($rm == "X{n}") {{
        $var(y) = $var(y) + {n};
        if (has_totag()) route(R{next});
    }}
}}
"""
ROUTES = 95


def script(folder: Path, port: int, number: int) -> str:
    routes = (ROUTE.format(n=n, next=n + 1) for n in range(ROUTES - 1))
    last = f"route[R{ROUTES - 1}] {{ return; }}\n"
    return HEAD.format(folder=folder, port=port, number=number) + "".join(routes) + last


class Pauses:
    """The longest time between two drains, since it was last asked."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.longest = 0.0

    def wrap(self, drain):
        def timed():
            now = time.perf_counter()
            self.longest = max(self.longest, now - self.last)
            more = drain()
            self.last = time.perf_counter()
            return more

        return timed

    def take(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


async def measure(folder: Path, options: argparse.Namespace) -> None:
    path = folder / "homer.cfg"
    path.write_text(script(folder, options.port, 0))
    worker = Worker(load(path))
    reloader = Reloader(worker, watching=False)
    worker.open(worker.program.settings.listen)
    worker.start()
    (source,) = worker.sources
    pauses = Pauses()
    source.drain = pauses.wrap(source.drain)
    gc.collect()  # as the daemon does
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    source.attach(asyncio.get_running_loop())
    seconds = options.reloads + 3
    sender = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("hepgen.py")),
            *("--rate", str(options.rate), "--count", str(options.rate * seconds)),
            f"127.0.0.1:{source.local[1]}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    while not worker.engine.received:
        await asyncio.sleep(0.01)
    lines = len(path.read_text().splitlines())
    print(f"{lines} lines, {options.rate}/s, receive buffer {source.receive_buffer}")
    quiet, busy = [], []
    for number in range(1, options.reloads + 1):
        pauses.take()
        await asyncio.sleep(0.4)
        worker.tick()
        quiet.append(pauses.take())
        path.write_text(script(folder, options.port, number))
        outcome = await reloader.reload("asked")
        await asyncio.sleep(0.1)
        busy.append(pauses.take())
        source.tick(0.0)
        print(
            f"   {outcome.result} in {outcome.seconds:.3f} s, longest pause {busy[-1]:.4f} s, "
            f"lost in the kernel so far {source.kernel_drops}"
        )
    while sender.poll() is None or worker.engine.received < options.rate * seconds:
        before = worker.engine.received
        await asyncio.sleep(0.5)
        if sender.poll() is not None and before == worker.engine.received:
            break
    source.finish()
    worker.stop()
    busy.sort()
    print(f"longest pause without a reload {max(quiet):.4f} s")
    print(f"during a reload: median {busy[len(busy) // 2]:.4f} s, longest {busy[-1]:.4f} s")
    stored = sum(sink.written for sink in worker.sinks)
    sent = options.rate * seconds
    print(f"sent {sent}, received {worker.engine.received}, stored {stored}")
    print(f"lost in the kernel {source.kernel_drops}")
    sender.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=20000)
    parser.add_argument("--port", type=int, default=19060)
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--turns", type=float, help="seconds of a thread's turn (0.0005)")
    options = parser.parse_args()
    if options.turns:
        reload.SWITCH_SECONDS = options.turns
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options))


if __name__ == "__main__":
    main()
