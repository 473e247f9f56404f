"""Which stores, which call, what time: what the commands that read back have in common."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from homerd.commands._message import EPOCH
from homerd.commands._shown import known_text
from homerd.commands._stored import Call, Stores
from homerd.commands.check import DEFAULT_SCRIPT
from homerd.errors import ConfigError, HomerdError

_AGO = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
_IN_FILES = "stores in files alone, which are not searched"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """`-f FILE`, `-A NAME` and `--db PATH`: which databases are read."""
    parser.add_argument(
        "-f",
        "--file",
        type=Path,
        default=Path(DEFAULT_SCRIPT),
        help="the script whose stores are read (homer.cfg)",
    )
    parser.add_argument(
        "-A",
        "--define",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="define a name for #!ifdef, may be repeated",
    )
    parser.add_argument(
        "--db",
        metavar="PATH",
        type=known_text,
        help="an SQLite file, or a database's URL, in place of those of the script",
    )


def add_time_options(parser: argparse.ArgumentParser) -> None:
    """`--since TIME` and `--until TIME`."""
    parser.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="not before: 90s, 5m, 1h, 2d or 1w ago, or a time as 2026-01-31T12:00:00 (UTC)",
    )
    parser.add_argument("--until", type=moment, metavar="TIME", help="before, as --since")


def add_call_options(parser: argparse.ArgumentParser) -> None:
    """A Call-ID and what else the commands about one call take."""
    parser.add_argument("call_id", metavar="CALL-ID", type=known_text, help="of any leg")
    add_store_options(parser)
    add_time_options(parser)
    parser.add_argument("--json", action="store_true", help="JSON lines, one object a message")


def call_of(options: argparse.Namespace) -> Call:
    """The call that the options name, and whether there are reports of its quality."""
    with opened(options) as stores:
        call = stores.call(options.call_id, options.since, options.until)
    call.has_quality = bool(call.messages) and not options.json and _has_reports(options)
    return call


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Stores]:
    """The stores the options name; ConfigError in one line when there is nothing to read."""
    stores = Stores(readers_of(options, "sipcapture", _IN_FILES))
    with ExitStack() as closing:
        for reader in stores.readers:
            closing.callback(reader.close)
        stores.open()
        yield stores


def readers_of(options: argparse.Namespace, module: str, without: str) -> list[Any]:
    """What reads the databases that the options name, as *module* gives it.

    without: what is wrong with a script that names none.  Raises ConfigError.
    """
    if options.db:
        from homerd.plugin.registry import from_entry_point  # --db does without the language

        url = options.db if "://" in options.db else f"sqlite://{options.db}"
        return list(from_entry_point(module).stored(url))
    plugin = _registry(options).plugin(module)
    if plugin is None:
        raise ConfigError(
            f"{options.file}: loads no {module}: give -f and -A as to homerd run, or --db PATH"
        )
    readers = list(plugin.stored())
    if not readers:
        raise ConfigError(f"{options.file}: {without}: --db PATH names a database")
    return readers


def _registry(options: argparse.Namespace) -> Any:  # a Registry
    """The modules of the script, which is read once."""
    if not hasattr(options, "registry"):
        from homerd.core.program import load

        options.registry = load(options.file, defines=options.define).registry
    return options.registry


def _has_reports(options: argparse.Namespace) -> bool:
    """Whether quality reports of the call are stored; a fault is no affair of who asks for SIP."""
    try:
        reader = readers_of(options, "qos", "")[0]
        try:
            reader.open()
            return bool(reader.has_call(options.call_id))
        finally:
            reader.close()
    except HomerdError:
        return False


def moment(text: str, now: datetime | None = None) -> int:
    """`90s`, `5m`, `1h`, `2d`, `1w` ago, or an ISO date or time, UTC where it names no zone.

    In microseconds since 1970.  Raises ArgumentTypeError.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            now = now or datetime.now(UTC)
            found = now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        else:
            found = datetime.fromisoformat(text.strip())
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return (found - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f'expected a time as 1h, 2026-01-31 or 2026-01-31T12:00:00, got "{text}"'
        ) from None
