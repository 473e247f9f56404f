"""`homerd reload`: have the running daemon read its script again."""

from __future__ import annotations

import argparse

from homerd.commands.status import add_socket_option
from homerd.core import control


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("reload", help="has the running daemon read its script again")
    add_socket_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon to reload; 0 when the new script is in place."""
    control.ask(options.socket, "reload")
    print("reloaded")
    return 0
