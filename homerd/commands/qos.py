"""`homerd qos`: calls of bad quality, and one call's reports as a table and as a plot."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from homerd.commands import _qos_plot
from homerd.commands._choice import add_store_options, add_time_options, readers_of
from homerd.commands._qos_report import Report
from homerd.commands._qos_table import (
    Group,
    calls_table,
    figure,
    groups_table,
    reports_table,
    strays_table,
)
from homerd.commands._shown import known_text, printable, shows
from homerd.errors import ConfigError

LIMIT = 100
MOST_OF_A_CALL = 10_000
MOS_BELOW = 3.5  # where no threshold is given
_WIDTH = 100  # of a plot in a file

# Option, what it chooses; of thresholds the unit, highest and text.
_LIMITS = (
    ("mos", "--mos-below", "SCORE", 5.0, f"a worse MOS; {MOS_BELOW} where no threshold is given"),
    ("loss", "--loss-above", "PERCENT", 100.0, "more of the packets lost"),
    ("jitter", "--jitter-above", "MS", math.inf, "more jitter"),
    ("rtt", "--rtt-above", "MS", math.inf, "a longer round trip"),
)
_KEYS = (
    ("trunk", "--trunk", "TEXT", "of this trunk"),
    ("user_agent", "--user-agent", "TEXT", "by this user agent"),
    ("codec", "--codec", "NAME", "of this codec"),
)
_GROUPS = {"trunk": "trunk", "user-agent": "user_agent", "codec": "codec"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "qos",
        help="lists calls of bad quality, shows one call's quality over time",
        description="Lists calls with a report beyond all thresholds that are given, the worst"
        " first; with CALL-ID the reports of one call over time. Reports are those that"
        " qos_capture() stored. A text may end in *, which stands for any rest.",
    )
    parser.add_argument(
        "call_id", metavar="CALL-ID", nargs="?", type=known_text, help="the reports of this call"
    )
    add_store_options(parser)
    add_time_options(parser)
    for part, name, unit, most, text in _LIMITS:
        parser.add_argument(name, dest=f"{part}_limit", type=_number(most), metavar=unit, help=text)
    for part, name, value, text in _KEYS:
        parser.add_argument(name, dest=part, type=known_text, metavar=value, help=text)
    parser.add_argument("--by", choices=_GROUPS, help="all calls, summed up by this")
    parser.add_argument(
        "--no-call", action="store_true", help="reports that belong to no known call, one a line"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help=f"the worst N ({LIMIT})")
    parser.add_argument("--plot", action="store_true", help="CALL-ID as a plot in the terminal")
    parser.add_argument(
        "--save", type=_picture, metavar="FILE", help="CALL-ID as a picture, FILE.png or FILE.svg"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, one object a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what is found; nothing found is no fault."""
    _check(options)
    with _opened(options) as reader:
        if options.call_id is not None:
            return _print_call(options, reader)
        choice = _Choice(options)
        if options.by:
            return _print_groups(options, reader, choice)
        return _print_worst(options, reader, choice)


def _check(options: argparse.Namespace) -> None:
    """Options that do not go together are a fault of the arguments."""
    fault = options.command.error
    of_lists = [(name, getattr(options, f"{part}_limit")) for part, name, *_ in _LIMITS]
    of_lists += [(name, getattr(options, part)) for part, name, *_ in _KEYS]
    of_lists += [("--by", options.by), ("--limit", options.limit)]
    of_lists += [("--no-call", options.no_call or None)]
    if options.call_id is None:
        for name in ("plot", "save"):
            if getattr(options, name):
                fault(f"--{name} draws one call: homerd qos CALL-ID --{name}")
        return
    if not options.call_id:
        fault("CALL-ID is empty: --no-call lists reports that belong to no known call")
    for name, given in of_lists:
        if given is not None:
            fault(f"{name} chooses among calls, and does not go with CALL-ID")
    if options.json and options.plot:
        fault("--json and --plot do not go together")


class _Choice:
    """Which reports are asked for.

    is_usual: whether the threshold is the one that holds where none is given.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        typed = ((part, getattr(options, part)) for part, *_ in _KEYS)
        self.keys = tuple(
            (part, [value.removesuffix("*")], value.endswith("*"))
            for part, value in typed
            if value is not None and value != "*"
        )
        limits = [(part, getattr(options, f"{part}_limit")) for part, *_ in _LIMITS]
        self.limits = [(part, bound) for part, bound in limits if bound is not None]
        self.is_usual = not self.limits and not (options.no_call and not options.by)
        if self.is_usual:
            self.limits = [("mos", MOS_BELOW)]
        self.since, self.until = options.since, options.until
        self.limit = LIMIT if options.limit is None else options.limit

    @property
    def limits_shown(self) -> str:
        """The thresholds in words."""
        names = {part: name[2:].replace("-", " ") for part, name, *_ in _LIMITS}
        names["mos"], names["rtt"] = "MOS below", "round trip above"
        units = {"mos": "", "loss": " %", "jitter": " ms", "rtt": " ms"}
        return " and ".join(f"{names[part]} {bound:g}{units[part]}" for part, bound in self.limits)

    @property
    def usual_told(self) -> str:
        """The remark on a threshold that nobody gave."""
        options = ", ".join(name for _, name, *_ in _LIMITS)
        return f"bad is a {self.limits_shown}; {options} choose otherwise"


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Any]:  # a QosReader of the module qos
    found = readers_of(options, "qos", "module qos has no db_url")
    reader = found[0]
    try:
        reader.open()
        yield reader
    finally:
        reader.close()


def _print_worst(options: argparse.Namespace, reader: Any, choice: _Choice) -> int:
    ask = reader.without_call if options.no_call else reader.worst
    asked = choice.keys, choice.limits, choice.since, choice.until
    found = [Report.of(cells) for cells in ask(*asked, choice.limit + 1)]
    shown = found[: choice.limit]
    if options.json:
        for report in shown:
            print(json.dumps(report.as_dict()))
        return 0
    noun = "report of no known call" if options.no_call else "call"
    if shown:
        (strays_table if options.no_call else calls_table)(shown).print(sys.stdout)
    else:
        beyond = f" with {choice.limits_shown}" if choice.limits else ""
        print(f"no {noun}{beyond} in {printable(reader.where)}")
    if len(found) > len(shown):
        print(f"the worst {choice.limit}; there are more: --limit N")
    if choice.is_usual:
        print(choice.usual_told)
    if not options.no_call and (strays := reader.count_without_call(*asked)):
        print(f"besides, {_counted(strays, 'report')} of no known call: --no-call")
    return 0


def _print_groups(options: argparse.Namespace, reader: Any, choice: _Choice) -> int:
    keys = (*choice.keys, ("call_id", [""], False)) if options.no_call else choice.keys
    asked = keys, choice.limits, choice.since, choice.until
    found = [
        Group(**cells) for cells in reader.groups(_GROUPS[options.by], *asked, choice.limit + 1)
    ]
    shown = found[: choice.limit]
    if options.json:
        for group in shown:
            print(json.dumps(_described(_GROUPS[options.by], group)))
        return 0
    if not shown:
        print(f"no report in {printable(reader.where)}")
        return 0
    groups_table(options.by, shown).print(sys.stdout)
    if len(found) > len(shown):
        print(f"the worst {choice.limit}; there are more: --limit N")
    if choice.is_usual:
        print(choice.usual_told)
    return 0


def _described(by: str, group: Group) -> dict[str, object]:
    told = {name: getattr(group, name) for name in Group.__dataclass_fields__ if name != "group"}
    return {by: group.group, **told, "quality": group.quality or None}


def _print_call(options: argparse.Namespace, reader: Any) -> int:
    asked = options.call_id, options.since, options.until
    reports = [Report.of(cells) for cells in reader.call(*asked, MOST_OF_A_CALL + 1)]
    name = printable(options.call_id)
    if not reports:
        told = f"no report of {name} in {printable(reader.where)}"
        if options.save or options.plot:
            raise ConfigError(told)
        if not options.json:
            print(told)
        return 0
    is_cut = len(reports) > MOST_OF_A_CALL
    reports = reports[-MOST_OF_A_CALL:]
    plot = _qos_plot.Plot.of(name, reports) if options.save or options.plot else None
    if options.json:
        for report in reports:
            print(json.dumps(report.as_dict()))
    elif plot is None or options.plot:
        for line in _head(reports, options.call_id):
            print(line)
    if plot is not None and options.plot:
        print(_text(plot))
    elif plot is None and not options.json:
        reports_table(reports).print(sys.stdout)
    if options.save and plot is not None:
        _save(plot, options.save, sys.stderr if options.json else sys.stdout)
    remarks = [] if plot is None else list(plot.remarks())
    if is_cut:
        remarks.append(f"the newest {MOST_OF_A_CALL} reports; --since and --until choose others")
    for line in remarks:
        print(line, file=sys.stderr if options.json else sys.stdout)
    return 0


def _head(reports: Sequence[Report], call_id: str) -> Iterator[str]:
    """What stands above a call's table or plot."""
    can_show = shows(sys.stdout.encoding)
    first, last = reports[0].time, reports[-1].time
    days = f"{first:%Y-%m-%d}" + (f" to {last:%Y-%m-%d}" if last.date() != first.date() else "")
    yield f"{days} UTC, {_counted(len(reports), 'report')}"
    yield printable(f"Call-ID {call_id}", can_show)
    for part, name in (("trunk", "trunk"), ("user_agent", "user agent")):
        told = dict.fromkeys(value for each in reports if (value := getattr(each, part)))
        if told:
            yield printable(f"{name} {', '.join(told)}", can_show)
    scored = [report for report in reports if report.mos is not None]
    if scored:
        worst = min(scored, key=lambda report: report.mos or 0)
        yield f"worst MOS {figure(worst.mos, 2)} ({worst.mos_source or '?'}): {worst.quality}"
    yield ""


def _text(plot: _qos_plot.Plot) -> str:
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else _WIDTH
    can_show = shows(sys.stdout.encoding)
    return _qos_plot.text_plot(plot, width, colours=is_terminal, can_show=can_show)


def _save(plot: _qos_plot.Plot, file: Path, told: Any) -> None:
    data = _qos_plot.picture(plot, file.suffix[1:].lower())
    try:
        file.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    print(f"{printable(str(file))}: {_counted(len(plot.streams), 'stream')}", file=told)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(most: float) -> Any:  # a type of argparse
    wanted = "0 or more" if math.isinf(most) else f"0 to {most:g}"

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most or math.isinf(number):
            raise argparse.ArgumentTypeError(f'expected a number, {wanted}, got "{text}"')
        return number

    return read


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'expected a number from 1 to 1000000, got "{text}"')
    return int(text)


def _picture(text: str) -> Path:
    if Path(text).suffix[1:].lower() not in _qos_plot.FORMATS:
        raise argparse.ArgumentTypeError(f'expected FILE.png or FILE.svg, got "{text}"')
    return Path(text)
