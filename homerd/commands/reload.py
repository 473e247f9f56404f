"""`homerd reload`: have the daemon read its script again, or first see what would change."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homerd.commands.status import add_socket_option
from homerd.core import control
from homerd.core.inputs import Wait, read_input
from homerd.core.program import load
from homerd.core.shadow import Shadow, report
from homerd.core.tap import read
from homerd.lang.diagnostics import render
from homerd.wire.hep import Frame

_RELOAD_SECONDS = 120.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "reload",
        help="has the running daemon read its script again",
        description="Has the running daemon read its script again; with mistakes in it the old one"
        " stays.  With --shadow or --for, first shows which packets would go elsewhere.",
    )
    parser.add_argument(
        "--shadow",
        metavar="CAPTURE",
        nargs="?",
        const="",
        help="compare with the running script on this capture, and ask before the swap",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        metavar="SECONDS",
        help="compare on the packets that arrive in this time",
    )
    parser.add_argument("--yes", action="store_true", help="swap without asking")
    add_socket_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon to reload; 0 when the new script is in place, or was only compared."""
    options.socket = options.socket.absolute()
    if options.shadow is None and options.seconds is None:
        return _swap(options.socket, "")
    if options.shadow and options.seconds is not None:
        print("homerd reload: --shadow CAPTURE or --for SECONDS, not both", file=sys.stderr)
        return 2
    if not options.shadow and options.seconds is None:
        print("homerd reload: --shadow needs a CAPTURE or --for SECONDS", file=sys.stderr)
        return 2
    digest = _compare(options.socket, options.shadow, options.seconds)
    if options.yes or _agreed():
        return _swap(options.socket, digest)
    return 0


def _swap(path: Path, digest: str) -> int:
    colour = sys.stderr.isatty()
    told: dict[str, Any] = control.ask(
        path, "reload", timeout=_RELOAD_SECONDS, digest=digest, colour=colour
    )
    sys.stderr.write(told["diagnostics"])
    for note in told["notes"]:
        print(note)
    if told["result"] == "refused":
        print(f"homerd: not reloaded: {told['message']}", file=sys.stderr)
        return 1
    changed = f"{told['was']} → {told['digest']}" if told["was"] != told["digest"] else "unchanged"
    print(f"reloaded in {told['seconds']:.2f} s (digest {changed})")
    return 0


def _compare(path: Path, capture: str | None, seconds: float | None) -> str:
    """Show what would change; gives the digest of the script that was compared."""
    running = control.ask(path, "script")
    inputs = capture and (capture if capture == "-" else str(Path(capture).absolute()))
    os.chdir(running["folder"])  # its script's includes are named from there
    script, defines = Path(running["path"]), running["defines"]
    after = load(script, defines=defines)
    sys.stderr.write(render(after.warnings, after.sources, colour=sys.stderr.isatty()))
    before = load(script, defines=defines, texts=running["texts"])
    print(f"running {running['digest']}, on disk {after.script.digest}")
    with Shadow(before, after) as shadow:
        left_out = _feed_file(shadow, inputs) if inputs else _feed_live(shadow, path, seconds or 0)
        for line in report(shadow.found):
            print(line)
        if left_out:
            print(f"{left_out:,} packets came too fast to be compared")
    return after.script.digest


def _feed_file(shadow: Shadow, path: str) -> int:
    for item in read_input(path):
        if isinstance(item, Frame):
            shadow.feed(item)
        elif isinstance(item, Wait):
            shadow.advance(item.seconds)
    return 0


def _feed_live(shadow: Shadow, path: Path, seconds: float) -> int:
    """Packets as they arrive; gives how many were too fast."""
    left_out = 0
    for item in _live(path, seconds):
        if isinstance(item, int):
            left_out = item
        else:
            shadow.take(*item)
    return left_out


def _live(path: Path, seconds: float) -> Iterator[Any]:
    with control.asking(path, "packets", timeout=seconds + _RELOAD_SECONDS, seconds=seconds) as (
        _,
        reader,
    ):
        yield from read(reader)


def _agreed() -> bool:
    """Ask on the terminal; without one nothing is swapped."""
    if not sys.stdin.isatty():
        print("not swapped: without a terminal, say --yes to swap")
        return False
    sys.stdout.write("swap? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("not swapped")
    return False


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f'expected seconds above 0, got "{text}"')
    return seconds
