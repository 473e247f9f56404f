"""The command line: which command, and what a fault looks like to the one who typed it.

Each command is a module `homerd.commands.NAME` with `add_parser(subparsers)`, which sets
`run(options) -> int` as the parser's default.  Only the module of the command that was typed is
imported, so that `homerd decode` need not wait for a grammar.

Exit status: 0 done, 1 the input was at fault, 2 the arguments were.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial

import homerd
from homerd.errors import HomerdError, ScriptErrors

COMMANDS = {
    "run": "the daemon, in the foreground",
    "check": "compiles, prints all diagnostics, starts nothing",
    "replay": "feeds INPUT through the script, delivers effects, prints a summary",
    "trace": "feeds INPUT through the script, delivers nothing, prints what came of each packet",
    "test": "runs a script's test cases",
    "decode": "shows capture frames",
    "capture": "captures from an interface or files and sends it on, without a script",
    "plugins": "loaded and available modules, with their manual text",
    "new-plugin": "writes a module of your own to begin with",
    "reload": "has the running daemon read its script again",
    "status": "what the running daemon has received, stored and lost",
    "lsp": "mistakes, completion and help in an editor",
    "bench": "µs per packet of each stage, with the operator's own script",
    "search": "finds stored messages by Call-ID, user or time",
    "show": "prints one stored call's messages whole",
    "flow": "draws the ladder of one stored call",
    "export": "writes stored calls to a capture file or as text",
    "qos": "lists calls of bad quality, shows one call's quality over time",
    "send": "lines of a log, of hepipe or of JSON, or a capture, to a HEP server",
    "archive": "tables into files that outlive their store, and back into any store",
    "retention": "drops tables beyond what the script keeps; the daemon does so each hour",
}

INPUT_AT_FAULT, ARGUMENTS_AT_FAULT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that was typed; gives the exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options, left = _parser(typed).parse_known_args(typed)
        if left:
            options.command.error(_not_taken(left))
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except SystemExit as done:  # argparse: 0 after --help, 2 after a mistake
        return done.code if isinstance(done.code, int) else ARGUMENTS_AT_FAULT
    except ScriptErrors as error:
        print(_rendered(error), end="", file=sys.stderr)
        return INPUT_AT_FAULT
    except HomerdError as error:
        print(f"homerd: {error}", file=sys.stderr)
        return INPUT_AT_FAULT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has gone; the interpreter must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(typed: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homerd",
        formatter_class=partial(argparse.HelpFormatter, width=100),
        description="A capture server for VoIP signalling, driven by a routing script.",
        epilog="`homerd COMMAND --help` tells a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"homerd {homerd.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((word for word in typed if not word.startswith("-")), "")
    if typed[:1] == [chosen] and chosen not in COMMANDS:
        near = difflib.get_close_matches(chosen, COMMANDS, 1)
        parser.error(
            f'there is no command "{chosen}"' + (f': did you mean "{near[0]}"?' if near else "")
        )
    for name, text in COMMANDS.items():
        if name == chosen:
            _add(commands, name, text)
        else:
            commands.add_parser(name, help=text)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> None:
    """Import the command's module and let it declare its options."""
    module = importlib.import_module(f"homerd.commands.{name.replace('-', '_')}")
    module.add_parser(commands)
    chosen = commands.choices[name]
    begun = text[0].upper() if text[0].isascii() else text[0]  # µ has a capital, but of a name
    chosen.set_defaults(command=chosen)  # what it does not take is its fault, not homerd's
    chosen.description = chosen.description or f"{begun}{text[1:]}."


def _not_taken(words: Sequence[str]) -> str:
    script = next((word for word in words if word.endswith(".cfg")), "")
    hint = f"; the script is named with -f {script}" if script else ""
    return f"unrecognized arguments: {' '.join(words)}{hint}"


def _rendered(error: ScriptErrors) -> str:
    from homerd.lang.diagnostics import render  # the other commands do without the language

    return render(error.diagnostics, error.sources, colour=sys.stderr.isatty())
