"""Counters as values: what `homerd status` shows, in one dictionary of JSON values."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from homerd.core.collector_sockets import TcpCollector, UdpCollector
from homerd.core.ledger import ledger
from homerd.core.raw import LiveSource
from homerd.core.tcp import TcpSource
from homerd.core.udp import UdpSource
from homerd.errors import FAULTS

if TYPE_CHECKING:
    from homerd.core.sink import BatchSink
    from homerd.core.source import Source
    from homerd.core.worker import Worker

MOST_NOTICES = 100  # of one module


def snapshot(worker: Worker) -> dict[str, Any]:
    """Every counter of *worker* as it is now."""
    engine = worker.engine
    stored, sent = written(worker.sinks)
    reloads = worker.reloads
    counters = {
        "uptime_seconds": round(worker.uptime_seconds, 1),
        "script": worker.script_name,
        "digest": engine.script.digest,
        "loaded_at": round(reloads.loaded_at, 3),
        "reloads": dict(reloads.counts),
        "last_reload": None if reloads.last is None else reloads.last.described(),
        "received": engine.received,
        "undecoded": dict(engine.undecoded),
        "refused": dict(engine.refused),
        "handled": dict(engine.handled),
        "routed": dict(engine.routed),
        "route_errors": dict(engine.route_errors),
        "effects": dict(engine.effects),
        "gave_records": engine.gave_records,
        "stored": stored,
        "sent": sent,
        "not_stored": dict(engine.not_stored),
        "kernel_drops": sum(_drops(source) for source in worker.sources),
        "timer_runs_missed": worker.timers.missed,
        "loop_lag_seconds": round(worker.loop_lag_seconds, 4),
        "sources": [_source(source) for source in worker.sources],
        "sinks": {sink.name: _sink(sink) for sink in worker.sinks},
        "notices": _notices(worker),
        "plugins": {name: faults.described() for name, faults in worker.containment.faults.items()},
    }
    if worker.agents is not None:
        counters["agents"] = worker.agents.described()
    counters["ledger"] = ledger(counters)
    return counters


def written(sinks: Iterable[BatchSink]) -> tuple[dict[str, int], dict[str, int]]:
    """Records that are stored, by table; those that are sent, by sink and what it calls them."""
    stored: Counter[str] = Counter()
    sent: dict[str, int] = {}
    for sink in sinks:
        labels = dict(sink.stored)  # at once, for the sink's thread goes on counting
        if sink.is_store:
            stored.update(labels)
        else:
            sent |= {f"{sink.name}: {label}": count for label, count in labels.items()}
    return dict(stored), sent


def _notices(worker: Worker) -> list[str]:
    """What the modules have to say; one that fails is counted like a timer."""
    found: list[str] = []
    registry = worker.program.registry
    for name in registry.names:
        hook = getattr(registry.plugin(name), "notices", None)
        if hook is None or worker.containment.is_out(name):
            continue
        try:
            found += map(str, itertools.islice(hook(), MOST_NOTICES))
        except FAULTS as error:  # counted
            worker.containment.failed(name, "notices", error)
    return found


def _drops(source: Source) -> int:
    return source.kernel_drops if isinstance(source, UdpSource | LiveSource) else 0


def _source(source: Source) -> dict[str, Any]:
    if isinstance(source, UdpSource):
        waiting = {} if source.turns is None else {"waiting": source.turns.lengths()}
        return {
            "listen": source.name,
            "received": source.received,
            "receive_buffer": source.receive_buffer,
            "kernel_drops": source.kernel_drops,
            "errors": source.errors,
            **waiting,
            **_answers(source),
        }
    if isinstance(source, LiveSource):
        return {
            "listen": source.name,
            "captured": source.captured,
            "gave_packets": source.gave,
            "undecoded": dict(source.undecoded),
            "received": source.received,
            "receive_buffer": source.receive_buffer,
            "kernel_drops": source.kernel_drops,
            "errors": source.errors,
        }
    if isinstance(source, TcpSource):
        return {
            "listen": source.name,
            "received": source.received,
            "connections": len(source.connections),
            "accepted": source.accepted,
            "closed": dict(source.closed),
            "http": dict(source.http),
            **_answers(source),
        }
    return {"listen": source.name}


def _answers(source: Source) -> dict[str, Any]:
    if isinstance(source, UdpCollector | TcpCollector):
        return {"answers": dict(source.answers)}
    return {}


def _sink(sink: BatchSink) -> dict[str, Any]:
    counts = sink.counts()
    spool, quarantine = sink.spool, sink.quarantine
    return {
        "where": sink.where,
        "away_seconds": int(time.time() - sink.outage.since) if sink.outage.since else 0,
        "error": sink.outage.error,
        "added": counts["added"],
        "recovered": counts["recovered"],
        "queued": counts["pending"],
        "spooled": counts["spooled"],
        "written": counts["written"],
        "sent": {} if sink.is_store else dict(sink.stored),
        "rejected": counts["rejected"],
        "dropped": counts["dropped"],
        "quarantined": 0 if quarantine is None else quarantine.kept,
        "not_quarantined": 0 if quarantine is None else quarantine.gone,
        "not_packed": sink.not_packed,
        "spool": "" if spool is None else str(spool.folder),
        "spool_bytes": 0 if spool is None else spool.size,
        "torn": 0 if spool is None else spool.torn,
        "lost": dict(sink.lost),
        "retries": sink.retries,
        "batches": sink.batches,
        "write_seconds": round(sink.write_seconds, 3),
    }
