"""`homerd run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from homerd.commands.check import add_script_options, unused_defines
from homerd.commands.status import add_socket_option
from homerd.core import log, metrics
from homerd.core.control import Answer, ControlSocket
from homerd.core.program import load
from homerd.core.reload import DEFAULT, Limits, Reloader
from homerd.core.tap import Tap
from homerd.core.worker import Worker
from homerd.lang.diagnostics import render


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "run",
        help="the daemon, in the foreground",
        description="The daemon, in the foreground.  SIGTERM and SIGINT flush every sink and exit."
        "  A script that is saved, or included by it, takes over between two packets; SIGHUP and"
        " homerd reload do the same.",
    )
    add_script_options(parser)
    add_socket_option(parser)
    parser.add_argument(
        "--no-watch", action="store_true", help="reload only when asked, not when a file is saved"
    )
    parser.add_argument(
        "--rollback-percent",
        type=_not_negative,
        default=DEFAULT.share * 100,
        metavar="N",
        help="go back to the script before when so many more packets of a hundred fail"
        f" ({DEFAULT.share:.0%}%; 0 never)",
    )
    parser.add_argument(
        "--rollback-seconds",
        type=_not_negative,
        default=DEFAULT.seconds,
        metavar="N",
        help=f"how long after a reload that is looked at ({DEFAULT.seconds:g})",
    )
    parser.add_argument(
        "--rollback-packets",
        type=int,
        default=DEFAULT.packets,
        metavar="N",
        help=f"the fewest packets to judge by ({DEFAULT.packets})",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile the script, listen, and serve until told to stop."""
    log.start()
    program = load(options.file, defines=options.define)
    colour = sys.stderr.isatty()
    print(render(program.warnings, program.sources, colour=colour), end="", file=sys.stderr)
    print("".join(f"{line}\n" for line in unused_defines(program)), end="", file=sys.stderr)
    worker = Worker(program)
    limits = Limits(
        options.rollback_percent / 100, options.rollback_seconds, options.rollback_packets
    )
    reloader = Reloader(worker, limits, watching=not options.no_watch)
    control = ControlSocket(options.socket, _answers(worker, reloader))
    worker.run_forever(program.settings.listen, control, reloader)
    return 0


def _answers(worker: Worker, reloader: Reloader) -> Mapping[str, Answer]:
    """What the control socket can be asked."""

    async def reload(digest: str = "", colour: bool = False) -> dict[str, Any]:
        outcome = await reloader.reload("asked", str(digest))
        return outcome.described(colour=bool(colour))

    def script() -> dict[str, Any]:
        program = worker.program
        return {
            "path": str(program.path),
            "defines": list(program.defines),
            "texts": program.texts,
            "digest": program.script.digest,
            "folder": os.getcwd(),
        }

    return {
        "status": lambda: metrics.snapshot(worker),
        "reload": reload,
        "script": script,
        "packets": lambda seconds: Tap(worker.engine, float(seconds)),
    }


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise argparse.ArgumentTypeError(f'expected a number, 0 or more, got "{text}"')
    return number
