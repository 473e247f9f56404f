"""`homerd archive`: tables into files that outlive their store, and back into any store."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from homerd.commands.check import add_script_options
from homerd.core import archive as archives
from homerd.core import log
from homerd.core.archive import Archive, ArchiveError, DamagedError
from homerd.core.program import load
from homerd.errors import ConfigError

Count = Callable[[int], object] | None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's own commands and their options."""
    parser = commands.add_parser("archive", help="tables into files, and files into tables")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    export = actions.add_parser(
        "export",
        help="tables of the script's stores into a folder",
        description="Writes tables of captured messages to a folder, one file each."
        " What is there already, unchanged and sound, is not written again.",
    )
    add_script_options(export)
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the archive")
    export.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="a table or a family, as sip_capture_call; may be repeated (all)",
    )
    age = export.add_mutually_exclusive_group()
    age.add_argument(
        "--before",
        type=_day,
        metavar="DATE",
        help="days before 2026-01-31 (UTC); of tables without a date in their name, older rows",
    )
    age.add_argument("--days", type=_days, metavar="N", help="older than N days, as --before")
    export.add_argument(
        "--mode", action="append", default=[], metavar="NAME", help="of this capture mode (all)"
    )
    export.add_argument(
        "--drop",
        action="store_true",
        help="remove what is archived, once its file was read back; never a table of today",
    )
    _add_json(export)
    export.set_defaults(run=run_export)

    restore = actions.add_parser(
        "import",
        help="files into a store of the script",
        description="Stores archived rows, each as often as its file has it: what is there already"
        " stays, and is not stored again. A file is verified before its first row is stored.",
    )
    add_script_options(restore)
    restore.add_argument("--mode", default="default", metavar="NAME", help="into this capture mode")
    _add_json(restore)
    _add_paths(restore)
    restore.set_defaults(run=run_import)

    listing = actions.add_parser(
        "list",
        help="what an archive holds",
        description="What an archive holds, as its manifest.json says; verify reads the files too.",
    )
    _add_json(listing)
    listing.add_argument("folder", type=Path, metavar="FOLDER", help="the archive")
    listing.set_defaults(run=run_list)

    verify = actions.add_parser(
        "verify",
        help="whether files are what was written",
        description="Reads files whole and compares them with what was written; status 1 when one"
        " is damaged.",
    )
    _add_json(verify)
    _add_paths(verify)
    verify.set_defaults(run=run_verify)


def run_export(options: argparse.Namespace) -> int:
    """Export what the options select; 1 when a table that was to go could not."""
    stores = _stores(options)
    archive = Archive(options.to)
    before = options.before
    if options.days is not None:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        before = midnight - timedelta(days=options.days)
    tables = rows = 0
    status = 0
    with archive.locked():
        for store in stores.archived(options.mode):
            with store:
                for selection in store.selections(options.table, before):
                    with _bar(options.json, "row") as counted:
                        done = store.export(
                            archive,
                            selection,
                            drop=options.drop,
                            counted=counted(str(selection)),
                        )
                    tables += 1
                    rows += done.rows
                    status = status or int(done.changed)
                    _tell_export(options.json, store, selection, done)
    if options.json:
        print(json.dumps({"summary": {"tables": tables, "rows": rows, "to": str(options.to)}}))
    else:
        print(f"{tables:,} tables, {rows:,} rows in {options.to}")
    return status


def run_import(options: argparse.Namespace) -> int:
    """Import files one after the other; 1 when one is damaged or the store refused rows."""
    files = archives.found(options.paths)
    refill = _stores(options).refill(options.mode)
    totals = {"files": 0, "rows": 0, "stored": 0, "there": 0, "refused": 0, "damaged": 0}
    for path, entry in files:
        with _bar(options.json, "B") as counted:
            count = counted(path.name)(2 * _size(path))  # it is read twice
            try:
                done = refill.run(path, entry, count, count)
            except DamagedError as error:
                totals["damaged"] += 1
                if options.json:
                    print(json.dumps({"file": str(path), "fault": str(error)}))
                else:
                    print(f"homerd: {error}", file=sys.stderr)
                continue
        told = {"file": str(path), **dataclasses.asdict(done)}
        totals["files"] += 1
        for key in ("rows", "stored", "there", "refused"):
            totals[key] += told[key]
        if options.json:
            print(json.dumps(told))
            continue
        print(f"{path}: {done}")
    if options.json:
        print(json.dumps({"summary": totals}))
    else:
        print(
            "{files:,} files, {rows:,} rows: {stored:,} stored, {there:,} there already,"
            " {refused:,} refused".format(**totals)
            + (", {damaged:,} files damaged".format(**totals) if totals["damaged"] else "")
        )
    return 1 if totals["refused"] or totals["damaged"] else 0


def run_list(options: argparse.Namespace) -> int:
    """What the manifest names, and files that it does not."""
    archive = Archive(options.folder)
    entries = [entry for _, entry in archives.found([options.folder]) if entry]
    for entry in entries:
        if options.json:
            print(json.dumps(dataclasses.asdict(entry)))
            continue
        of = "" if entry.store == "default" else f"  of {entry.store}"
        before = f" before {entry.before}" if entry.before else ""
        name = f"{entry.table}{before}{of}"
        print(f"{entry.rows:>14,} rows {entry.bytes:>16,} bytes  {name}")
    for name in archive.strays():
        print(f"{options.folder / name}: {_STRAY}", file=sys.stderr)
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Read every file and compare it with its manifest; 1 when one is damaged."""
    status = 0
    for path, entry in archives.found(options.paths):
        fault = ""
        rows = None
        with _bar(options.json, "B") as counted:
            try:
                rows = archives.verify(path, entry, counted(path.name)(_size(path))).rows
            except ArchiveError as error:
                fault = str(error)
                status = 1
        if options.json:
            print(json.dumps({"file": str(path), "ok": not fault, "rows": rows, "fault": fault}))
        elif fault:
            print(f"homerd: {fault}", file=sys.stderr)
        else:
            named = "" if entry else f", of which {archives.MANIFEST} says nothing"
            print(f"{path}: sound, {rows:,} rows{named}")
    for folder in (path for path in options.paths if path.is_dir()):
        for name in Archive(folder).strays():
            print(f"{folder / name}: {_STRAY}", file=sys.stderr)
    return status


_STRAY = f"{archives.MANIFEST} does not name it: an export was cut short, the next one starts anew"


def _stores(options: argparse.Namespace) -> Any:
    program = load(options.file, defines=options.define)
    plugin = program.registry.plugin("sipcapture")
    if plugin is None:
        raise ConfigError(f"{options.file}: loads no sipcapture, which has the stores")
    log.start()
    return plugin.make_stores()


def _tell_export(as_json: bool, store: Any, selection: Any, done: Any) -> None:
    if as_json:
        told = {
            "store": store.where,
            "mode": store.mode,
            "table": selection.table,
            "before": selection.before,
            "state": done.state,
            "rows": done.rows,
            "removed": done.removed,
            "kept": done.kept,
        }
        entry = done.entry
        told |= {key: entry and getattr(entry, key) for key in ("file", "bytes", "sha256")}
        print(json.dumps(told))
        return
    what = f"{done.rows:,} rows, {done.state}" if done.rows else done.state
    gone = ", removed" if done.removed else ""
    kept = f", not removed: {done.kept}" if done.kept else ""
    print(f"{store.where} {selection}: {what}{gone}{kept}")


@contextlib.contextmanager
def _bar(quiet: bool, unit: str) -> Iterator[Callable[[str], Callable[[int], Count]]]:
    """Makes a progress bar, of a name and then of how much there is, on a terminal alone."""
    with contextlib.ExitStack() as bars:

        def begun(name: str) -> Callable[[int], Count]:
            def counted(total: int) -> Count:
                if quiet or not sys.stderr.isatty():
                    return None
                bar = bars.enter_context(
                    tqdm(
                        desc=name,
                        total=total,
                        unit=unit,
                        unit_scale=True,
                        leave=False,
                        file=sys.stderr,
                    )
                )
                return bar.update

            return counted

        yield begun


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON lines on standard output")


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="FILE|FOLDER", help="archived files, or an archive"
    )


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a day as 2026-01-31, got "{text}"') from None


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 99_999):
        raise argparse.ArgumentTypeError(f'expected a number of days, got "{text}"')
    return int(text)
