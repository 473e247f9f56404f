"""`homerd status`: what the running daemon has received, stored and lost."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from homerd.core import control
from homerd.core.ledger import unbalanced

_WIDTH = 47
# Of a sink, shown when there are any: by key what they are called.
_SELDOM = {
    "recovered": "of earlier runs",
    "quarantined": "in quarantine",
    "not_quarantined": "not in quarantine",
    "not_packed": "not for the spool",
    "torn": "batches cut short",
    "spool_bytes": "bytes on disk",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "status", help="what the running daemon has received, stored and lost"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON line")
    add_socket_option(parser)
    parser.set_defaults(run=run)


def add_socket_option(parser: argparse.ArgumentParser) -> None:
    """`--socket PATH`, the same for every command that speaks to the daemon."""
    path = control.default_path()
    parser.add_argument(
        "--socket", type=Path, default=path, metavar="PATH", help=f"the control socket ({path})"
    )


def run(options: argparse.Namespace) -> int:
    """Ask the daemon and print what it says."""
    status = control.ask(options.socket, "status")
    print(json.dumps(status) if options.json else "\n".join(lines(status)))
    return 0


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The status for people: what came in, where it went, what was lost."""
    yield f"script    {status['script']} (digest {status['digest']})"
    yield from _reload(status)
    yield f"uptime    {_duration(status['uptime_seconds'])}"
    for item in status["sources"]:
        at = f", {item['connections']} connections" if "connections" in item else ""
        yield f"listens   {item['listen']}{at}"
        if waiting := item.get("waiting"):
            yield from _block("  waiting for a turn", waiting)
        if answers := item.get("answers"):
            yield from _block("  answers", answers)
    for line in status["notices"]:
        yield f"notice    {line}"
    yield ""
    yield _line("received", status["received"])
    yield from _block("  undecoded", status["undecoded"])
    yield from _block("  refused", status["refused"])
    yield from _agents(status.get("agents"))
    yield from _block("  taken by modules", status["handled"])
    yield from _block("  routed", status["routed"])
    yield from _block("script failures", status["route_errors"])
    yield from _block("stored", status["stored"])
    if status["sent"]:
        yield from _block("sent", status["sent"])
    yield from _block("not stored", status["not_stored"])
    yield _line("lost in the kernel", status["kernel_drops"])
    for name, sink in status["sinks"].items():
        yield ""
        where = "" if name.endswith(sink["where"]) else sink["where"]
        yield f"sink {name} {where}".rstrip()
        if sink["error"]:
            yield f"  away for {_duration(sink['away_seconds'])}: {sink['error']}"
        for key in ("added", "written", "queued", "spooled", "rejected", "dropped", "retries"):
            yield _line(f"  {key}", sink[key])
        yield from _block("  lost", sink["lost"])
        for key, label in _SELDOM.items():
            if sink[key]:
                yield _line(f"  {label}", sink[key])
    yield from _plugins(status["plugins"])
    yield ""
    yield from _ledger(status["ledger"])


def _reload(status: Mapping[str, Any]) -> Iterator[str]:
    """Since when the script runs, and how the last reload ended."""
    yield f"loaded    {_moment(status['loaded_at'])}"
    last = status["last_reload"]
    if last is None:
        return
    counts = ", ".join(f"{count} {name}" for name, count in status["reloads"].items() if count)
    said = f": {last['message']}" if last["message"] else ""
    yield f"reload    {last['result']} {_moment(last['at'])} ({last['why']}; {counts}){said}"
    for line in last["diagnostics"].splitlines() if last["result"] == "refused" else ():
        yield f"          {line}"


def _agents(agents: Mapping[str, Any] | None) -> Iterator[str]:
    """What each agent sent, where the script names agents."""
    if agents is None:
        return
    for name, counts in agents["named"].items():
        yield from _block(f"  agent {name}", counts)
    if agents["unknown"]:
        yield from _block("  unknown agents", agents["unknown"])


def _plugins(plugins: Mapping[str, Any]) -> Iterator[str]:
    """The modules that failed, and what may be done about one that was cut off."""
    for name, told in plugins.items():
        yield ""
        yield f"module {name} fails; last: {told['last_error']}"
        yield from _block("  errors", told["errors"])
        if told["skipped"]:
            yield _line("  skipped", told["skipped"])
        if told["cut_off"]:
            yield f"  cut off: {told['cut_off']}; when it is mended homerd reload lets it in again"


def _ledger(ledger: Mapping[str, Any]) -> Iterator[str]:
    """One line when every sum adds up; each that does not."""
    if not ledger["difference"]:
        yield "ledger    balances: every packet and every record is accounted for"
    for line in unbalanced(ledger):
        yield f"ledger    {line}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _line(label: str, count: int) -> str:
    figure = f" {count:,}"  # a table's name may be long: the figure takes what it leaves
    return label + figure.rjust(_WIDTH - len(label))


def _block(label: str, counts: Mapping[str, int]) -> Iterator[str]:
    """A sum and, when there is more than nothing, its parts."""
    yield _line(label, sum(counts.values()))
    indent = " " * (len(label) - len(label.lstrip()) + 2)
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield _line(f"{indent}{name}", count)


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days} days " if days else "") + f"{hour:02}:{minute:02}:{second:02}"
