"""`homerd trace`: packets from files through the script, shown one by one, nothing delivered."""

from __future__ import annotations

import argparse

from homerd.commands.check import add_script_options
from homerd.commands.replay import add_input_options, feed


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "trace",
        help="the same and delivers nothing; prints each packet's frame, log lines and effects",
    )
    add_script_options(parser)
    add_input_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Trace: nothing is delivered."""
    return feed(options, deliver=False)
