"""`homerd check`: compile a script, print what is wrong with it, start nothing."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homerd.core.program import Program, load
from homerd.lang.diagnostics import did_you_mean, render
from homerd.lang.dialect import Dialect, dialect_of

_COMMENT = re.compile(r"\s*(?:#(?!!)|//)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_ASKED = re.compile(r"[#!]!ifn?def[ \t]+(\w+)")

DEFAULT_SCRIPT = "homer.cfg"
STORES = "HOMERD_DB"  # names the stores of a script, whatever it says itself


class Stores(argparse.Action):
    """`--db`: into the environment, where whoever opens a store looks."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        """Keep *values*; of several all count."""
        typed = ";".join(filter(None, [getattr(namespace, self.dest), str(values)]))
        setattr(namespace, self.dest, typed)
        os.environ[STORES] = typed


def add_stores_option(parser: argparse.ArgumentParser) -> None:
    """`--db STORE`, the same for every command that runs a script."""
    parser.add_argument(
        "--db",
        action=Stores,
        default="",
        metavar="[URL=]STORE",
        help="use the database STORE in place of URL of the script, or of all it names; may be"
        f" repeated, and comes before {STORES} in the environment",
    )


def add_script_options(parser: argparse.ArgumentParser) -> None:
    """`-f FILE`, `-A NAME` and `--db STORE`, the same for every command that reads a script."""
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
    add_stores_option(parser)


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
    unused = unused_defines(program)
    print("".join(f"{line}\n" for line in unused), end="", file=sys.stderr)
    count = len(program.warnings) + len(unused)
    status = 1 if count and options.strict else 0
    if options.listing:
        print(program.script.listing())
        return status
    warned = f", {count} warning{'s' if count != 1 else ''}" if count else ""
    print(f"{options.file}: {'ok' if not status else 'refused'}{warned}")
    return status


def unused_defines(program: Program) -> list[str]:
    """Warnings of names given by `-A` that stand nowhere in the script."""
    lines = [
        line
        for text in program.texts.values()
        for line in text.splitlines()
        if not _COMMENT.match(line)
    ]
    words = {word for line in lines for word in _WORD.findall(line)}
    asked = {found[1] for line in lines if (found := _ASKED.search(line))}
    warnings = []
    for item in program.defines:
        name = item.partition("=")[0]
        if name not in words:
            hint = did_you_mean(name, asked)
            told = f"warning: -A {name}: the script asks for it nowhere"
            warnings.append(f"{told}; {hint}" if hint else told)
    return warnings


def _say_dialect(path: Path) -> None:
    """Name the dialect when it is not Kamailio's, before the script's mistakes are told."""
    if not path.is_file():
        return
    told = dialect_of(path.read_text("utf-8", errors="surrogateescape"))
    if told.dialect is not Dialect.KAMAILIO:
        print(f"{path}: read as a script for {told.dialect.value}: line {told.line}, {told.by}")
