"""`homerd test`: an operator's script against its cases, told as a test runner tells it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from homerd.commands.cases import ENDINGS, Case, Outcome, chosen, files_of, read_cases, run_case
from homerd.commands.check import DEFAULT_SCRIPT, add_stores_option
from homerd.commands.replay import TextReport
from homerd.errors import ConfigError

ALL_PASSED, SOME_FAILED = 0, 1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("test", help="runs a script's test cases")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE.cfg [CASES…]",
        help=f"the script ({DEFAULT_SCRIPT}) and files of cases (NAME.test.yaml beside it or in"
        " tests/ beside it); cases that bring their own script need no FILE.cfg",
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
    parser.add_argument("-k", "--name", default="", help="only the cases with this in their name")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also what happened to each packet"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, one object a case")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the cases; 0 when all passed."""
    script, files = _script_and_cases([Path(name) for name in options.files])
    printer = JsonPrinter() if options.json else Printer(verbose=options.verbose)
    started = time.perf_counter()
    passed = failed = 0
    with _quiet():
        for file in files:
            printer.file(file)
            for case in chosen(read_cases(file), options.name):
                outcome = _run(case, script, options.define, options.db)
                passed, failed = passed + outcome.passed, failed + (not outcome.passed)
                printer.outcome(outcome)
    if not passed + failed:
        raise ConfigError(
            f"no case has {options.name!r} in its name" if options.name else "no case"
        )
    printer.summary(passed, failed, time.perf_counter() - started)
    return SOME_FAILED if failed else ALL_PASSED


def _run(case: Case, script: Path | None, defines: Sequence[str], stores: str) -> Outcome:
    try:
        return run_case(case, script, defines, stores)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(
            text if text.startswith(case.place) else f"{case.place}: {text}"
        ) from None


def _script_and_cases(files: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """What was typed, sorted into the script and its files of cases."""
    cases = [path for path in files if path.suffix in ENDINGS]
    scripts = [path for path in files if path.suffix not in ENDINGS]
    if len(scripts) > 1:
        raise ConfigError(f"one script at a time: {', '.join(map(str, scripts))}")
    if cases:
        return (scripts[0] if scripts else None), cases
    script = scripts[0] if scripts else Path(DEFAULT_SCRIPT)
    if not script.is_file():
        raise ConfigError(f"{script}: no such file")
    found = files_of(script)
    if not found:
        raise ConfigError(
            f"{script}: no cases: neither {script.stem}.test.yaml nor tests/{script.stem}.test.yaml"
        )
    return script, found


class Printer:
    """For people."""

    def __init__(self, *, verbose: bool, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.verbose = verbose
        self.colour = self.out.isatty()

    def file(self, path: Path) -> None:
        """The cases of *path* follow."""
        print(self._painted(str(path), "1"), file=self.out)

    def outcome(self, outcome: Outcome) -> None:
        """A line for the case; what is wrong below it."""
        name = outcome.case.name
        if outcome.passed:
            print(f"  {self._painted('ok  ', '32')}  {name}", file=self.out)
        else:
            print(f"  {self._painted('FAIL', '31')}  {name}", file=self.out)
        for mismatch in outcome.wrong:
            print(f"        {mismatch.what}: - expected, + got", file=self.out)
            for line in mismatch.lines():
                tone = {"- ": "31", "+ ": "32"}.get(line[:2], "")
                print(f"          {self._painted(line, tone)}", file=self.out)
        if self.verbose:
            report = TextReport(each=True, out=self.out)
            for event in outcome.events:
                report.event(event)

    def summary(self, passed: int, failed: int, seconds: float) -> None:
        """The last line."""
        text = f"{passed} passed, {failed} failed"
        print(f"{self._painted(text, '31' if failed else '32')} in {seconds:.2f} s", file=self.out)

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text


class JsonPrinter:
    """JSON lines on standard output."""

    def __init__(self) -> None:
        self.path = Path()

    def file(self, path: Path) -> None:
        """The cases of *path* follow."""
        self.path = path

    def outcome(self, outcome: Outcome) -> None:
        """One object a case."""
        wrong: list[dict[str, Any]] = [
            {"what": item.what, "expected": item.expected, "got": item.got, "note": item.note}
            for item in outcome.wrong
        ]
        told = {
            "file": str(self.path),
            "name": outcome.case.name,
            "passed": outcome.passed,
            "wrong": wrong,
            "seconds": round(outcome.seconds, 3),
        }
        print(json.dumps(told))

    def summary(self, passed: int, failed: int, seconds: float) -> None:
        """The last object."""
        told = {"passed": passed, "failed": failed, "seconds": round(seconds, 3)}
        print(json.dumps({"summary": told}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the server would log is no line of a test: faults of the script are in its outcome."""
    logger = logging.getLogger("homerd")
    silent = logging.NullHandler()
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)
