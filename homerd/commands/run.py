"""`homerd run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import sys

from homerd.commands.check import add_script_options
from homerd.commands.status import add_socket_option
from homerd.core import log, metrics
from homerd.core.control import ControlSocket
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError
from homerd.lang.diagnostics import render


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "run",
        help="the daemon, in the foreground",
        description="The daemon, in the foreground.  SIGTERM and SIGINT flush every sink and exit.",
    )
    add_script_options(parser)
    add_socket_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile the script, listen, and serve until told to stop."""
    log.start()
    program = load(options.file, defines=options.define)
    colour = sys.stderr.isatty()
    print(render(program.warnings, program.sources, colour=colour), end="", file=sys.stderr)
    worker = Worker(program)
    answers = {"status": lambda: metrics.snapshot(worker), "reload": _no_reload}
    worker.run_forever(program.settings.listen, ControlSocket(options.socket, answers))
    return 0


def _no_reload() -> None:
    raise ConfigError("this homerd cannot reload its script yet: restart it")
