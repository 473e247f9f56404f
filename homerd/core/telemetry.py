"""The counters of a worker and of its modules as samples, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from homerd.core.metrics import snapshot
from homerd.errors import FAULTS, Flood
from homerd.plugin.exposition import CONTENT_TYPE, render
from homerd.plugin.hookspecs import HttpAnswer, Sample

if TYPE_CHECKING:
    from homerd.core.worker import Worker

# Key of the snapshot -> metric, the label its members carry ("" for a plain number), help.
_TOTALS = (
    ("uptime_seconds", "homerd_uptime_seconds", "", "Seconds since the first packet could come."),
    ("received", "homerd_received_total", "", "Packets received."),
    ("undecoded", "homerd_undecoded_total", "reason", "Packets that could not be read."),
    ("refused", "homerd_refused_total", "reason", "Packets that no route was run for."),
    ("handled", "homerd_handled_total", "how", "Packets that a module took, and keep-alives."),
    ("routed", "homerd_routed_total", "route", "Packets by the route they ran through."),
    ("route_errors", "homerd_route_errors_total", "line", "Faults of the script while it ran."),
    ("effects", "homerd_effects_total", "sink", "Records that left the script."),
    ("gave_records", "homerd_gave_records_total", "", "Packets that gave records."),
    ("stored", "homerd_stored_total", "table", "Records written."),
    ("not_stored", "homerd_not_stored_total", "line", "Packets that left nothing in a store."),
    ("kernel_drops", "homerd_kernel_drops_total", "", "Datagrams the kernel had no room for."),
    ("timer_runs_missed", "homerd_timer_runs_missed_total", "", "Runs of timers left out."),
    ("loop_lag_seconds", "homerd_loop_lag_seconds", "", "How late the loop came to its work."),
    ("reloads", "homerd_reloads_total", "result", "Reloads of the script."),
)
_OF_SINK = (
    ("added", "homerd_sink_added_total", "", "Records given to the sink."),
    ("recovered", "homerd_sink_recovered_total", "", "Records of earlier runs."),
    ("queued", "homerd_sink_queued", "", "Records that wait to be written."),
    ("spooled", "homerd_sink_spooled", "", "Records that wait on disk."),
    ("spool_bytes", "homerd_sink_spool_bytes", "", "Bytes that wait on disk."),
    ("quarantined", "homerd_sink_quarantined_total", "", "Records put into quarantine."),
    ("written", "homerd_sink_written_total", "", "Records written."),
    ("sent", "homerd_sink_sent_total", "what", "Records written where no store is."),
    ("rejected", "homerd_sink_rejected_total", "", "Records the store refused for good."),
    ("dropped", "homerd_sink_dropped_total", "", "Records lost before they were written."),
    ("lost", "homerd_sink_lost_total", "reason", "Rejected and dropped records by reason."),
    ("away_seconds", "homerd_sink_away_seconds", "", "Since when the store is away; 0: it is not."),
    ("retries", "homerd_sink_retries_total", "", "Writes that were tried again."),
    ("batches", "homerd_sink_batches_total", "", "Batches written."),
    ("write_seconds", "homerd_sink_write_seconds_total", "", "Seconds spent in writes."),
)
_OF_SOURCE = (
    ("received", "homerd_listen_received_total", "", "Datagrams or frames taken."),
    ("captured", "homerd_listen_captured_total", "", "Frames captured live."),
    ("gave_packets", "homerd_listen_gave_packets_total", "", "Of them those that gave packets."),
    ("undecoded", "homerd_listen_undecoded_total", "reason", "Of them those that gave none."),
    ("receive_buffer", "homerd_listen_receive_buffer_bytes", "", "What the kernel granted."),
    ("kernel_drops", "homerd_listen_kernel_drops_total", "", "Datagrams dropped by the kernel."),
    ("errors", "homerd_listen_errors_total", "", "Errors of the socket."),
    ("waiting", "homerd_listen_waiting", "agent", "Datagrams that wait for their turn."),
    ("connections", "homerd_listen_connections", "", "Connections that are open."),
    ("accepted", "homerd_listen_accepted_total", "", "Connections accepted."),
    ("closed", "homerd_listen_closed_total", "reason", "Connections closed."),
    ("http", "homerd_listen_http_total", "result", "HTTP requests."),
    ("answers", "homerd_listen_answers_total", "status", "SIP requests a collector answered."),
)
_OF_PLUGIN = (
    ("errors", "homerd_plugin_errors_total", "what", "Faults of a module, by what failed."),
    ("skipped", "homerd_plugin_skipped_total", "", "Uses of a module while it was cut off."),
    (
        "cut_off",
        "homerd_plugin_cut_off",
        "",
        "1 while a module is cut off, for it failed too often.",
    ),
)
_OF_AGENT = (
    ("packets", "homerd_agent_packets_total", "result", "Packets by agent: admitted, or why not."),
)
_OF_UNKNOWN = (
    ("unknown", "homerd_unknown_agent_packets_total", "capture_id", "Packets of agents not named."),
)
MOST_SAMPLES = 50_000  # of one module; what Prometheus should not be given
# Tables are named by the packets' time, and agents' clocks say anything: the first so many members
# of one metric have a series of their own.
MOST_MEMBERS = 10_000
OTHER = "other"

_Table = Iterable[tuple[str, str, str, str]]


def page(worker: Worker) -> HttpAnswer:
    """What Prometheus reads: the worker's own counters, then its modules'."""
    headers = (("Content-Type", CONTENT_TYPE),)
    return HttpAnswer(200, "OK", headers, render([*own(worker), *of_modules(worker)]))


def own(worker: Worker) -> Iterator[Sample]:
    """The counters that every worker has."""
    counters = snapshot(worker)
    script = {"script": counters["script"], "digest": counters["digest"]}
    yield Sample("homerd_script_info", script, 1, "The script that runs.")
    yield Sample(
        "homerd_script_loaded_timestamp_seconds",
        {},
        counters["loaded_at"],
        "When the script took over.",
    )
    yield from _samples(_TOTALS, counters, {})
    yield Sample(
        "homerd_ledger_difference",
        {},
        counters["ledger"]["difference"],
        "Packets and records that are unaccounted for.",
    )
    for name, sink in counters["sinks"].items():
        yield from _samples(_OF_SINK, sink, {"sink": name})
    agents = counters.get("agents", {"named": {}, "unknown": {}})
    for name, results in agents["named"].items():
        yield from _samples(_OF_AGENT, {"packets": results}, {"agent": name})
    yield from _samples(_OF_UNKNOWN, agents, {})
    for name, plugin in counters["plugins"].items():
        told = {**plugin, "cut_off": int(bool(plugin["cut_off"]))}
        yield from _samples(_OF_PLUGIN, told, {"plugin": name})
    for source in counters["sources"]:
        yield from _samples(_OF_SOURCE, source, {"listen": source["listen"]})
    if worker.endpoint is not None:
        yield from _samples(_OF_SOURCE, {"http": worker.endpoint.http}, _named(worker))


def of_modules(worker: Worker) -> list[Sample]:
    """What the modules count; one that fails is left out, and that is counted like a timer's."""
    found: list[Sample] = []
    registry = worker.program.registry
    for name in registry.names:
        hook = getattr(registry.plugin(name), "metrics", None)
        most = len(found) + MOST_SAMPLES
        if hook is None:
            continue
        if worker.containment.is_out(name):
            continue
        try:
            for given in hook():
                sample = Sample(*given)
                told = sample.help or f"Counted by the module {name}."
                found.append(sample._replace(help=told))
                if len(found) > most:
                    raise Flood(f"more than {MOST_SAMPLES} samples, the rest is left out")
        except FAULTS as error:  # counted
            worker.containment.failed(name, "metrics", error)
    return found


def _named(worker: Worker) -> dict[str, str]:
    return {"listen": worker.endpoint.name} if worker.endpoint is not None else {}


def _samples(
    table: _Table, counters: Mapping[str, Any], labels: dict[str, str]
) -> Iterator[Sample]:
    for key, name, label, help in table:
        value = counters.get(key)
        if value is None:
            continue
        if not label:
            yield Sample(name, labels, value, help)
            continue
        members = list(value.items())
        for member, count in members[:MOST_MEMBERS]:
            yield Sample(name, {**labels, label: member}, count, help)
        if len(members) > MOST_MEMBERS:
            rest = sum(count for _, count in members[MOST_MEMBERS:])
            yield Sample(name, {**labels, label: OTHER}, rest, help)
