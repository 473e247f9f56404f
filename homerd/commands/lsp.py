"""`homerd lsp`: help for editors, the Language Server Protocol on standard input and output."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from homerd.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("lsp", help="mistakes, completion and help in an editor")
    parser.add_argument(
        "--stdio", action="store_true", help="accepted: it always speaks over standard input"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve one editor until it ends."""
    try:
        from homerd.commands import language_server
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        raise ConfigError('homerd lsp needs pygls: pip install "pygls>=2"') from None
    # The server closes its streams at the end, and what a module prints must not reach the editor.
    with contextlib.redirect_stdout(sys.stderr):
        language_server.make().start_io(_copy(0, "rb"), _copy(1, "wb"))
    return 0


def _copy(descriptor: int, mode: str) -> Any:  # a BinaryIO; fdopen knows it only for literal modes
    return os.fdopen(os.dup(descriptor), mode)
