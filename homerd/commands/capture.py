"""`homerd capture`: an agent on demand: what an interface sees, or files hold, sent on as HEP.

It runs a script of its own, which hands every packet to the module "hep".
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from homerd.commands.decode import show
from homerd.core import bpf, log
from homerd.core.dissect import Dissector
from homerd.core.inputs import Undecoded, Wait, input_size, read_input
from homerd.core.live import capture_of, check_filter
from homerd.core.program import load
from homerd.core.raw import Router, open_capture
from homerd.core.settings import RECEIVE_BUFFER
from homerd.core.worker import Worker
from homerd.errors import ConfigError, ScriptErrors
from homerd.plugin.hookspecs import ANY, RAW, Capture
from homerd.wire.frame import Frame

STOP_SECONDS = 30.0
# A file is read faster than a network takes it.
WAIT_ABOVE_PENDING = 20_000
_AT_ONCE = 64

_SCRIPT = """
spool_limit=0
{module}
loadmodule "sipcapture"
modparam("sipcapture", "nonsip_hook", 1)
request_route {{ {send} }}
onreply_route {{ {send} }}
event_route[sipcapture:request] {{ {send} drop; }}
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "capture",
        help="captures from an interface or files and sends it on, without a script",
        description="Captures SIP and RTCP from an interface or from capture files and sends it on"
        " as HEP, without a script; --print shows it.  Ends with Ctrl-C, or with the last file.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[FILE…] [FILTER]",
        help="capture files, - for standard input; what is no file begins a filter as for tcpdump",
    )
    parser.add_argument(
        "-i", "--interface", metavar="IFACE", help=f"capture live, from IFACE or from {ANY}"
    )
    parser.add_argument(
        "--promiscuous", action="store_true", help="what is sent to others, too (mirrored ports)"
    )
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="[hep:]SCHEME:HOST:PORT",
        help="send it there as HEP: udp, tcp or tls; of several, each gets everything",
    )
    parser.add_argument("--id", type=int, metavar="N", help="the capture id to tell")
    parser.add_argument("--key", metavar="KEY", help="the key to tell")
    parser.add_argument("--print", action="store_true", help="show each packet")
    parser.add_argument("--json", action="store_true", help="show each as one JSON object a line")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Capture until stopped; 1 when something could not be sent."""
    shown = options.print or options.json
    if not options.to and not shown:
        options.parser.error("expected --to, --print or --json: nothing is to be done with it")
    files, filter = _files_and_filter(options)
    try:
        check_filter(filter)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    log.start()
    worker = _worker(options)
    router: Router = Shown(worker, options.json) if shown else worker.engine
    if files:
        captured = _from_files(worker, router, files, filter)
    else:
        captured = _live(worker, router, options, filter)
    return _told(worker, captured)


class Shown:
    """Prints packets on their way to the engine."""

    def __init__(self, worker: Worker, as_json: bool) -> None:
        self._engine = worker.engine
        self._as_json = as_json

    def take(self, frames: list[Frame]) -> None:
        """Print them, and hand them on."""
        for frame in frames:
            show(frame, as_json=self._as_json)
        if frames:
            sys.stdout.flush()
        self._engine.take(frames)


def _files_and_filter(options: argparse.Namespace) -> tuple[list[str], str]:
    words: list[str] = options.words
    files: list[str] = []
    while words and not options.interface and (words[0] == "-" or os.path.exists(words[0])):
        files.append(words[0])
        words = words[1:]
    if not files and not options.interface:
        told = f'there is no file "{words[0]}"; ' if words else ""
        options.parser.error(f"{told}expected capture files, or -i IFACE")
    return files, " ".join(words)


def _worker(options: argparse.Namespace) -> Worker:
    """Runs the script that sends everything on."""
    names = [f"to{number}" for number in range(1, len(options.to) + 1)]
    lines = ['loadmodule "hep"'] if names else []
    for name, target in zip(names, options.to, strict=True):
        told = [f"{name}=>target={target.removeprefix('hep:')}"]
        told += [f"capture_id={options.id}"] if options.id is not None else []
        told += [f"key={options.key}"] if options.key is not None else []
        if any(sign in "".join(told[:1] + told[-1:]) for sign in '";\\\n'):
            options.parser.error('--to and --key may not hold any of " ; \\')
        lines.append(f'modparam("hep", "profile", "{";".join(told)}")')
    listed = ", ".join(f'"{name}"' for name in names)
    send = f"send_hep({listed});" if names else ""
    text = _SCRIPT.format(module="\n".join(lines), send=send)
    try:
        return Worker(load(Path("capture"), text=text))
    except ScriptErrors as error:  # of a target: the rest of the script is not the operator's
        message = error.diagnostics[0].message
        raise ConfigError(f"--to: {message.rpartition('target: ')[2]}") from None


def _live(worker: Worker, router: Router, options: argparse.Namespace, filter: str) -> int:
    try:
        asked = capture_of(RAW, options.interface, f"raw:{options.interface}")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    capture = Capture(
        RAW,
        asked.where,
        asked.text,
        filter=filter,
        promiscuous=options.promiscuous and asked.where != ANY,
        capture_id=options.id,
    )
    sources = open_capture(capture, router, RECEIVE_BUFFER)
    worker.sources += sources
    worker.run_forever([])
    return sum(each.captured for each in sources)


def _from_files(worker: Worker, router: Router, files: list[str], filter: str) -> int:
    wanted = bpf.Filter(filter).passes if filter else None
    dissector = Dissector(wanted=wanted)
    count = 0
    worker.start()
    try:
        with _progress(sum(map(input_size, files))) as progress:
            taken: list[Frame] = []
            for path in files:
                for item in read_input(path, progress, dissector):
                    count += 1
                    if isinstance(item, Undecoded | Wait):
                        continue
                    taken.append(item)
                    if len(taken) >= _AT_ONCE:
                        _hand_on(worker, router, taken)
            _hand_on(worker, router, taken + dissector.finish())
        worker.flush(STOP_SECONDS)
    finally:
        worker.stop()
    return count


def _hand_on(worker: Worker, router: Router, taken: list[Frame]) -> None:
    router.take(taken)
    taken.clear()
    if any(sink.pending > WAIT_ABOVE_PENDING for sink in worker.sinks):
        worker.flush(STOP_SECONDS)


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], object] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield None
        return
    with tqdm(total=size or None, unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar:
        yield bar.update


def _told(worker: Worker, captured: int) -> int:
    """Say what became of it; gives the exit status."""
    packets = worker.engine.received
    sent = sum(sink.written for sink in worker.sinks)
    lost = sum(sink.dropped + sink.rejected for sink in worker.sinks)
    text = f"captured {captured:,} frames, {packets:,} packets"
    if worker.sinks:
        text += f", sent {sent:,}, not sent {lost:,}"
    print(text, file=sys.stderr)
    for sink in worker.sinks:
        for reason, count in sink.lost.items():
            print(f"   {count:>9,}  not sent to {sink.where}: {reason}", file=sys.stderr)
    return 1 if lost else 0
