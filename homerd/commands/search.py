"""`homerd search`: stored SIP messages by Call-ID, user and time."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from homerd.commands._choice import add_store_options, add_time_options, opened
from homerd.commands._message import Message
from homerd.commands._shown import columns_of, known_text, printable, shows
from homerd.commands._stored import Wanted

LIMIT = 100
KEYS = (
    ("--call-id", "callid", "TEXT", "of this Call-ID"),
    ("--from", "from_user", "USER", "with this user in From"),
    ("--to", "to_user", "USER", "with this user in To"),
)
_HEAD = ("TIME (UTC)", "MESSAGE", "FROM > TO", "SOURCE > DESTINATION", "CALL-ID")
_WIDEST = (23, 32, 40, 51, 64)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "search",
        help="finds stored messages by Call-ID, user or time",
        description="Finds stored messages. A text may end in *, which stands for any rest.",
    )
    add_store_options(parser)
    for name, part, value, text in KEYS:
        parser.add_argument(name, dest=part, type=known_text, metavar=value, help=text)
    add_time_options(parser)
    parser.add_argument(
        "--limit", type=_count, default=LIMIT, metavar="N", help=f"the newest N ({LIMIT})"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, one object a message")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what is found in the order of time; nothing found is no fault."""
    typed = ((part, getattr(options, part)) for _, part, _, _ in KEYS)
    keys = tuple(
        (part, [value.removesuffix("*")], value.endswith("*"))
        for part, value in typed
        if value is not None and value != "*"
    )
    with opened(options) as stores:
        found = stores.search(Wanted(keys, options.since, options.until, options.limit + 1))
        places, status = stores.places, stores.status
    more = len(found) > options.limit
    found = found[-options.limit :]
    if options.json:
        for message in found:
            print(json.dumps(message.as_dict()))
        return status
    if not found:
        if places:
            print(f"nothing found in {places}")
        return status
    print_table(found, sys.stdout)
    if more:
        print(f"the newest {options.limit}; there are older ones: --limit N, --until TIME")
    return status


def print_table(found: Sequence[Message], out: TextIO) -> None:
    """One line a message, as wide as a terminal is; a file gets the whole text."""
    can_show = shows(out.encoding)
    width = shutil.get_terminal_size().columns if out.isatty() else None
    for cells in (_cells, _short_cells):
        rows = [tuple(printable(cell, can_show) for cell in cells(message)) for message in found]
        widths = columns_of([_HEAD, *rows], _WIDEST)
        if width is None or sum(widths) + 2 * len(widths) <= width:
            break
    cut = "…" if can_show("…") else "~"
    print(_line(_HEAD, widths, width, cut), file=out)
    for message, row in zip(found, rows, strict=True):
        line = _line(row, widths, width, cut)
        print(_coloured(line, message) if out.isatty() else line, file=out)


def _cells(message: Message) -> tuple[str, ...]:
    method = message.method
    if message.status is not None:
        method = f"{message.transaction} {message.title}".strip()
    return (
        message.time.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        method,
        f"{message.from_user or '-'} > {message.to_user or '-'}",
        f"{message.source} > {message.destination}",
        message.callid,
    )


def _short_cells(message: Message) -> tuple[str, ...]:
    """For a narrow terminal, so that the Call-ID is still seen."""
    _, method, users, _, call_id = _cells(message)
    if message.status is not None:
        method = f"{message.transaction} {message.method}".strip()
    addresses = f"{message.source_ip} > {message.destination_ip}"
    return message.time.strftime("%m-%d %H:%M:%S"), method, users, addresses, call_id


def _line(cells: Sequence[str], widths: Sequence[int], width: int | None, cut: str) -> str:
    if width is None:
        padded = [cell.ljust(size) for cell, size in zip(cells, widths, strict=True)]
        return "  ".join(padded).rstrip()
    fitted = (
        (cell if len(cell) <= size else cell[: size - 1] + cut).ljust(size)
        for cell, size in zip(cells, widths, strict=True)
    )
    line = "  ".join(fitted).rstrip()
    return line if len(line) <= width else line[: width - 1] + cut


def _coloured(line: str, message: Message) -> str:
    """Replies by their class: 2xx green, 3xx yellow, worse red."""
    status = message.status or 0
    if status < 200:
        return line
    colour = 32 if status < 300 else 33 if status < 400 else 31
    return f"\x1b[{colour}m{line}\x1b[0m"


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'expected a number from 1 to 1000000, got "{text}"')
    return int(text)
