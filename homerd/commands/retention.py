"""`homerd retention`: what is more than the script says to keep goes, now or for show."""

from __future__ import annotations

import argparse
import sys

from homerd.commands.check import add_script_options
from homerd.core import log
from homerd.core.program import load
from homerd.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "retention", help="drops tables beyond the script's retention; the daemon does so each hour"
    )
    add_script_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Remove what is too old or too much in every store; 1 when something could not be."""
    program = load(options.file, defines=options.define)
    plugin = program.registry.plugin("sipcapture")
    if plugin is None:
        raise ConfigError(f"{options.file}: loads no sipcapture, which has the stores")
    if not plugin.retention and not plugin.retention_size:
        raise ConfigError(
            f'{options.file}: no modparam("sipcapture", "retention", "sip_capture_call=10"), and no'
            ' modparam("sipcapture", "retention_size", "10GB")'
        )
    log.start()
    removed = faults = 0
    for store, removal, fault in plugin.remove_old(dry=options.dry_run):
        if fault:
            faults += 1
            what = f"{removal}: " if removal else ""
            print(f"homerd: {store}: {what}{fault}", file=sys.stderr)
        else:
            print(f"{store}: {removal}")
            removed += 1
    if not removed and not faults:
        print("nothing is too old or too much")
    return 1 if faults else 0
