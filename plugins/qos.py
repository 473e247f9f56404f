"""qos: media quality out of every kind of report, as one record."""

from __future__ import annotations

import difflib
import socket
from collections import Counter
from collections.abc import Callable, Iterable

from homerd.api import (
    BatchSink,
    ConfigError,
    DecodeError,
    Frame,
    ModParam,
    Outline,
    Packet,
    Plugin,
    Problem,
    Sample,
    SipMessage,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
    qos,
    script_function,
)
from homerd_plugins._qos_calls import QosCalls, Search, Told
from homerd_plugins._qos_metrics import QosHistograms
from homerd_plugins._qos_reader import QosReader, qos_readers
from homerd_plugins._qos_reports import QosReports
from homerd_plugins._qos_rows import (
    QOS_COLUMNS,
    TABLE,
    QosRows,
    TableName,
    comes_in_message,
)
from homerd_plugins._stores import Address, sink_for, store_of_url, without_password
from homerd_plugins._upkeep import Kept, Upkeep

_KEPT = "qos"  # in packet.scratch: the frame that was read, and what it told
_VQ_RTCPXR = "application/vq-rtcpxr"


def _decimal(value: float) -> Value:
    return f"{value:.2f}"


# What stands in the parentheses -> how it is shown.  Of the whole report, then of one record.
_OF_TIE = ("call_id", "tied_by")
_REPORT = ("form", "kind", *_OF_TIE, "alert", "severity", "user_agent")
_SHOWN: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("ssrc", "clock", "packets", "octets", "lost"), int),
    **dict.fromkeys(("jitter", "max_jitter", "rtt", "one_way", "end_system"), round),
    **dict.fromkeys(("burst_duration", "gap_duration", "signal", "noise", "r"), round),
    **dict.fromkeys(("loss", "discard", "burst_loss", "gap_loss"), _decimal),
    **dict.fromkeys(("mos", "mos_lq", "mos_cq"), _decimal),
    **dict.fromkeys(("direction", "codec", "r_source", "mos_source"), str),
    **dict.fromkeys(("mos_lq_source", "mos_cq_source"), str),
}
_NAMES = (*_REPORT, *_SHOWN, *(f"{leg}.{name}" for leg in qos.LEGS for name in _SHOWN))


# A parameter whose name is that of the hook that tells the metrics.
_METRICS = ModParam(bool, True, help="0: qos_capture() fills no histograms of /metrics")
_METRICS.name = "metrics"


class Qos(QosReports, QosCalls, Plugin):
    """Reads media quality where a script asks for it, keeps it, and makes reports of calls."""

    name = "qos"

    rtcp_clock = ModParam(
        int,
        8000,
        reloadable=True,
        help="clock of the media whose jitter RTCP tells in its units; 0: such jitter is null",
    )
    legacy_integer_loss = ModParam(
        bool,
        False,
        reloadable=True,
        help="1: MOS of X-RTP-Stat takes whole percents of loss, as heplify-server does",
    )

    db_url = ModParam(
        str,
        "",
        help="where qos_capture() stores rows: sqlite://PATH, postgres://…, mysql://…; empty:"
        " nowhere",
    )
    table = ModParam(TableName, TABLE, help="table of the rows")
    create_tables = ModParam(int, 1, help="0: a missing table is not made")
    keep_days = ModParam(int, 0, help="days that rows are kept, looked at each hour; 0 for good")
    node = ModParam(str, "", help="this server's name in rows; that of the machine when empty")

    def __init__(self) -> None:
        super().__init__()
        self.reports: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.unread_fields: Counter[tuple[str, str, str]] = Counter()
        self.empty: Counter[str] = Counter()
        self.rows = QosRows()
        self.histograms: QosHistograms | None = QosHistograms()
        self._store: BatchSink | None = None
        self._upkeep: Upkeep | None = None

    # Parameters, start and stop

    @hookimpl
    def mod_params(self) -> list[object]:
        """Those of the class, and `metrics`."""
        return [*super().mod_params(), _METRICS.declared()]

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; `metrics` apart."""
        if name == _METRICS.name:
            self.histograms = QosHistograms() if value else None
        else:
            super().set_mod_param(name, value)

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """A store that there is not, what keeps nothing, and routes that are never run."""
        yield from self.report_problems(outline)
        if self.db_url:
            try:
                Address.of(store_of_url(self.db_url))
            except ValueError as error:
                yield Problem(f"db_url: {error}", parameter="db_url")
            if "qos_capture" not in outline.functions:
                yield Problem(
                    "db_url is set, and qos_capture() is not called",
                    parameter="db_url",
                    warning=True,
                )
        elif self.histograms is None:
            yield Problem(
                "qos_capture() keeps nothing: metrics is 0, and there is no db_url",
                parameter="metrics",
                help='modparam("qos", "db_url", "sqlite://homerd.db")',
                warning=True,
            )

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Look at the numbers, and learn the server's name."""
        if self.keep_days < 0:
            raise ConfigError(
                f'modparam("qos", "keep_days", {self.keep_days}): expected days, 0 or more'
            )
        self.rows.settings.node = self.node or socket.gethostname()
        self.configure_reports()

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open the store, and what reports are sent to."""
        self.start_reports(worker)
        if self.db_url:
            self._store = worker.add_sink(self._made_store())
            if self.keep_days and worker.deliver:
                kept = Kept({self.table.lower(): self.keep_days})
                self._upkeep = Upkeep([self._made_store], kept, lambda place, times: ())
                self._upkeep.start()

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Tell of the calls that go on; let old rows be."""
        self.stop_reports(worker)
        if self._upkeep is not None:
            self._upkeep.stop()

    def _made_store(self) -> BatchSink:
        source = f'modparam("qos", "db_url", "{without_password(self.db_url)}")'
        try:
            address = Address.of(store_of_url(self.db_url))
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
        made: BatchSink = sink_for(
            address, "qos", (QOS_COLUMNS,), create_tables=bool(self.create_tables), source=source
        )
        return made

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """Reports that were read and that were not, and the fields that could not be."""
        yield from self.report_samples()
        yield from self.call_samples()
        for form, count in self.reports.items():
            yield Sample("homerd_qos_reports_total", {"form": form}, count)
        for reason, count in self.unread.items():
            yield Sample("homerd_qos_unread_total", {"reason": reason}, count)
        for (form, field, fault), count in self.unread_fields.items():
            labels = {"form": form, "field": field, "fault": fault}
            yield Sample("homerd_qos_unread_fields_total", labels, count)
        for form, count in self.empty.items():
            yield Sample("homerd_qos_empty_total", {"form": form}, count)
        for (column, fault), count in self.rows.mended.items():
            yield Sample("homerd_qos_mended_total", {"column": column, "fault": fault}, count)
        for column, count in list(getattr(self._store, "truncated", {}).items()):
            yield Sample("homerd_qos_mended_total", {"column": column, "fault": "narrow"}, count)
        if self.histograms is not None:
            yield from self.histograms.samples()
            over = self.histograms.over_budget
            if over:
                yield Sample("homerd_qos_over_budget_total", {}, over)

    @script_function
    def qos_capture(self, packet: Packet, trunk: str = "") -> bool:
        """Keep every record of the packet's quality report; true when something was kept.

        A row of `db_url`'s table each, and its figures in the histograms of `/metrics`.  *trunk* is
        the call's trunk or customer, as the script knows it.
        """
        told = self.told(packet)
        if told is None:
            return False
        rows = self.rows
        if trunk:
            trunk = rows.text(str(trunk), "trunk")  # a constant's own type is none for the spool
        kept = False
        if self._store is not None:
            for row in rows.of(packet, told, trunk, self._user_agent(packet, told)):
                kept = packet.emit(self._store, (self.table, 0, row))
        if self.histograms is not None:
            for record in told.report.records:
                kept = self.histograms.observe(trunk, record) or kept
        if not kept:
            self.empty[told.report.form] += 1
        return kept

    @pseudo_variable("qos")
    def quality(
        self, packet: Packet, leg: str | None, field: str, show: Callable[..., Value]
    ) -> Value:
        """A value of the packet's quality report; null where it does not say.

        `NAME`, or `LEG.NAME` with local, remote, incoming or outgoing.
        """
        told = self.told(packet)
        if told is None:
            return None
        if field in _OF_TIE:
            return (told.tie.call_id if field == "call_id" else told.tie.by) or None
        if field == "user_agent":
            return self._user_agent(packet, told) or None
        report = told.report
        value = getattr(report, field) if field in _REPORT else report.first(leg, field)
        return None if value is None else show(value)

    @quality.bind
    def _bind_quality(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        name = None if argument is None else argument.constant
        if not name or index is not None:
            raise ValueError("expected a name in parentheses, as $qos(mos) or $qos(remote.mos)")
        name = name.strip()
        leg, dot, field = name.rpartition(".")
        if dot and leg not in qos.LEGS:
            raise ValueError(f'there is no leg "{leg}": there are {", ".join(qos.LEGS)}')
        if name not in _NAMES:
            near = difflib.get_close_matches(name.lower(), _NAMES, 1)
            known = ", ".join((*_REPORT, *_SHOWN))
            hint = f'did you mean "{near[0]}"?' if near else f"there are {known}"
            raise ValueError(f'nothing of a report is called "{name}": {hint}')
        return leg if dot else None, field, _SHOWN.get(field, str)

    def told(self, packet: Packet) -> Told | None:
        """What the packet told, read when it is first asked for; None when it is no report."""
        frame = packet.hep
        kept = packet.scratch.get(_KEPT)
        if kept is not None and kept[0] is frame:
            found: Told | None = kept[1]
            return found
        told = None
        search = Search(self, packet, frame)
        try:
            report = self._read(packet, frame, search)
        except DecodeError as error:
            self.unread[error.reason] += 1
        else:
            if report is not None:
                self.reports[report.form] += 1
                for field, fault in report.faults:
                    self.unread_fields[report.form, field, fault] += 1
                told = Told(report, search.tie(report))
        packet.scratch[_KEPT] = frame, told
        return told

    def stored(self, url: str = "") -> list[QosReader]:
        """For `homerd qos`: what reads the reports of the script's store, or of *url* alone."""
        return qos_readers(self.db_url, self.table, url)

    def _user_agent(self, packet: Packet, told: Told) -> str | None:
        """Who reports: by the report, else by what is known of its call, else by its message."""
        found = told.report.user_agent or told.tie.user_agent
        if found or not comes_in_message(packet.hep, told.report):
            return found
        return _message(packet, packet.hep).user_agent

    def _read(self, packet: Packet, frame: Frame, search: Search) -> qos.Report | None:
        report = qos.decode(frame.payload, max(0, self.rtcp_clock), search.media)
        if report is not None:
            return report
        # Agents pass a whole PUBLISH on as a report, too (HEP type 99).
        sip = _message(packet, frame)
        if (sip.content_type or "").lower().startswith(_VQ_RTCPXR):
            body = sip.body.encode("utf-8", "surrogateescape")
            return qos.decode_vqrtcpxr(body)
        report = qos.of_headers(sip.header, self.legacy_integer_loss)
        return None if report is None else report._replace(call_id=sip.call_id)


def _message(packet: Packet, frame: Frame) -> SipMessage:
    return packet.sip if packet.frame is frame else SipMessage(frame.payload)
