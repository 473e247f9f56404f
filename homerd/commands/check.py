"""`homerd check`: compile a script, print what is wrong with it, start nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from homerd.core.program import load
from homerd.lang.diagnostics import render

DEFAULT_SCRIPT = "homer.cfg"


def add_script_options(parser: argparse.ArgumentParser) -> None:
    """`-f FILE` and `-A NAME`, the same for every command that reads a script."""
    parser.add_argument(
        "-f", "--file", type=Path, default=Path(DEFAULT_SCRIPT), help="the script (homer.cfg)"
    )
    parser.add_argument(
        "-A",
        "--define",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="define a name for #!ifdef, may be repeated",
    )


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("check", help="compiles, prints all diagnostics, starts nothing")
    add_script_options(parser)
    parser.add_argument(
        "--listing", action="store_true", help="print the Python that the script becomes"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile the script; 0 when it can run."""
    program = load(options.file, defines=options.define)
    colour = sys.stderr.isatty()
    print(render(program.warnings, program.sources, colour=colour), end="", file=sys.stderr)
    if options.listing:
        print(program.script.listing())
        return 0
    count = len(program.warnings)
    warned = f", {count} warning{'s' if count != 1 else ''}" if count else ""
    print(f"{options.file}: ok{warned}")
    return 0
