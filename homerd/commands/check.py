"""`homerd check`: compile a script, print what is wrong with it, start nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from homerd.core.program import load
from homerd.lang.diagnostics import render
from homerd.lang.dialect import Dialect, dialect_of

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
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 when there are warnings, too"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile the script; 0 when it can run and, where asked to be strict, nothing is odd."""
    _say_dialect(options.file)
    program = load(options.file, defines=options.define)
    colour = sys.stderr.isatty()
    print(render(program.warnings, program.sources, colour=colour), end="", file=sys.stderr)
    count = len(program.warnings)
    status = 1 if count and options.strict else 0
    if options.listing:
        print(program.script.listing())
        return status
    warned = f", {count} warning{'s' if count != 1 else ''}" if count else ""
    print(f"{options.file}: {'ok' if not status else 'refused'}{warned}")
    return status


def _say_dialect(path: Path) -> None:
    """Name the dialect when it is not Kamailio's, before the script's mistakes are told."""
    if not path.is_file():
        return
    told = dialect_of(path.read_text("utf-8", errors="surrogateescape"))
    if told.dialect is not Dialect.KAMAILIO:
        print(f"{path}: read as a script for {told.dialect.value}: line {told.line}, {told.by}")
