"""The part of module qos that makes reports of calls and sends them."""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from homerd.api import (
    BatchSink,
    ConfigError,
    Frame,
    ModParam,
    Outline,
    Packet,
    Problem,
    RunState,
    Sample,
    SipMessage,
    Worker,
    hep_encode,
    parse_uri,
    script_function,
)
from homerd_plugins._hep_out import HepSink
from homerd_plugins._hep_profile import Profile, Target
from homerd_plugins._publish import Collector, Publication, PublishSink
from homerd_plugins._qos_calls import Told
from homerd_plugins._qos_reporter import CallReport, Reporter

EVENT = "qos:report"

_VQ_RTCPXR, _SIP = 35, 1  # payload types of HEP
_UDP = 17


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """Who is sent the reports: a collector of PUBLISH, or a receiver of HEP."""

    collector: Collector | None = None
    hep: Target | None = None

    @staticmethod
    def from_script(value: str | int) -> ReportTarget:
        """`sip:HOST:PORT;transport=udp`, `hep:HOST:PORT;transport=udp`; raises ValueError."""
        text = str(value).strip()
        scheme, _, rest = text.partition(":")
        if scheme == "sip":
            return ReportTarget(collector=Collector.read(text))
        if scheme != "hep" or not rest:
            raise ValueError(f'expected sip:HOST:PORT or hep:HOST:PORT, got "{text}"')
        place, _, option = rest.partition(";")
        name, _, transport = option.partition("=")
        if option and name.strip().lower() != "transport":
            raise ValueError(f'"{text}": unknown parameter "{name}", expected transport')
        return ReportTarget(hep=Target.read(f"{transport.strip() or 'udp'}:{place}"))

    def sink(self, source: str) -> PublishSink | HepSink:
        """What sends to it.  source: a SIP URI."""
        if self.collector is not None:
            return PublishSink(self.collector, source)
        assert self.hep is not None  # one of the two
        name = f"qos:hep:{self.hep}"
        return HepSink(Profile(name, (self.hep,)), name)


class SipUri:
    """A SIP URI, or "" for none."""

    @staticmethod
    def from_script(value: str | int) -> str:
        """Check it."""
        text = str(value)
        uri = parse_uri(text) if text else None
        unfit = not text.isprintable() or any(c in text for c in "<> ")
        if text and (uri is None or uri.scheme not in ("sip", "sips") or unfit):
            raise ValueError(f'expected a SIP URI such as sip:homerd@example.net, got "{text}"')
        return text


class QosReports:
    """Mixed into the module qos, which says what a packet tells and hands on its hooks."""

    report_to = ModParam(
        ReportTarget,
        many=True,
        help="who is sent reports of calls: sip:HOST:PORT;transport=udp or tcp (PUBLISH),"
        " hep:HOST:PORT;transport=udp, tcp or tls (HEP type 35)",
    )
    report_interval = ModParam(
        int,
        0,
        reloadable=True,
        help="seconds between the reports of a call that goes on; 0: one at its end",
    )
    report_from = ModParam(
        SipUri, "", help="SIP URI that PUBLISH is from; sip:homerd@ and this machine's when empty"
    )

    def __init__(self) -> None:
        super().__init__()
        self.reporter = Reporter()
        self.generated: Counter[str] = Counter()
        self._report_sinks: list[BatchSink] = []

    def told(self, packet: Packet) -> Told | None:
        """What the packet told of quality."""
        raise NotImplementedError

    def start_reports(self, worker: Worker) -> None:
        """Open the targets, and look each second at what is to be told."""
        self._worker = worker
        self._state: RunState = worker.new_state()
        source = self.report_from or f"sip:homerd@{socket.gethostname()}"
        for target in dict.fromkeys(self.report_to):
            self._report_sinks.append(worker.add_sink(target.sink(source)))
        worker.every(1.0, self._look)

    def stop_reports(self, worker: Worker) -> None:
        """Tell of the calls that go on, too."""
        self._tell(self.reporter.finish(worker.now()))

    def configure_reports(self) -> None:
        """Look at the interval."""
        if self.report_interval < 0:
            raise ConfigError(
                f'modparam("qos", "report_interval", {self.report_interval}):'
                " expected seconds, 0 or more"
            )
        self.reporter.interval = self.report_interval

    def report_problems(self, outline: Outline) -> Iterator[Problem]:
        """Reports that nobody gets, or that are not made, and event routes that there are not."""
        makes = "qos_report" in outline.functions
        if makes and not self.report_to and EVENT not in outline.events:
            yield Problem(
                f"reports of qos_report() go nowhere: no report_to, and no event_route[{EVENT}]",
                help='modparam("qos", "report_to", "sip:HOST:PORT")',
                warning=True,
            )
        if self.report_to and not makes:
            yield Problem(
                "report_to is set, and qos_report() is not called",
                parameter="report_to",
                warning=True,
            )
        for event in sorted(outline.events):
            if event.startswith("qos:") and event != EVENT:
                yield Problem(
                    f"event_route[{event}] is never run: there is {EVENT}",
                    event=event,
                    warning=True,
                )

    def report_samples(self) -> Iterator[Sample]:
        """For /metrics."""
        if calls := len(self.reporter):
            yield Sample("homerd_qos_report_calls", {}, calls, "Calls that reports are made of.")
        for kind, count in self.generated.items():
            yield Sample("homerd_qos_generated_total", {"kind": kind}, count)
        for reason, count in self.reporter.counts.items():
            yield Sample("homerd_qos_report_refused_total", {"reason": reason}, count)
        for sink in self._report_sinks:
            if isinstance(sink, PublishSink):
                where = {"target": sink.where}
                yield Sample("homerd_qos_publish_sent_again_total", where, sink.sent_again)
                for status, count in list(sink.answers.items()):
                    labels = {**where, "status": str(status)}
                    yield Sample("homerd_qos_publish_answers_total", labels, count)

    @script_function
    def qos_report(self, packet: Packet) -> bool:
        """Take the packet into the report of its call.

        Of SIP it takes who talks, where media will flow and that the call ends; of RTCP and reports
        on measured RTP the figures.  False for all else, and for what belongs to no known call.
        """
        now = packet.state.now()
        frame = packet.hep
        if frame.payload_type == _SIP:
            sip = packet.sip if packet.frame is frame else SipMessage(frame.payload)
            taken = self.reporter.learn(sip, frame, frame.seconds or packet.seconds, now)
        else:
            told = self.told(packet)
            # In the entry event the packet itself is the datagram around it, without a time.
            at = frame.seconds + frame.micros / 1_000_000 if frame.seconds else now
            taken = told is not None and self.reporter.take(told, frame, at, now)
        if self.reporter.made:
            self._tell(self.reporter.take_made())
        return taken

    def _look(self) -> None:
        self._tell(self.reporter.take_due(self._worker.now()))

    def _tell(self, reports: list[CallReport]) -> None:
        """Hand *reports* to the targets and to the script."""
        for report in reports:
            self.generated[report.kind] += 1
            frame = _frame(report)
            packet = Packet(frame, self._state)
            for sink in self._report_sinks:
                packet.emit(sink, _record(sink, report, frame))
            self._worker.run_event(EVENT, packet)


def _frame(report: CallReport) -> Frame:
    """As HEP of type 35, from the local side to the remote one."""
    (src, src_port), (dst, dst_port) = report.local, report.remote
    return Frame(
        3,
        2 if len(src) == 4 else 10,
        _UDP,
        src,
        dst,
        src_port,
        dst_port,
        report.seconds,
        0,
        _VQ_RTCPXR,
        report.capture_id,
        correlation_id=report.call_id,
        payload=report.body,
    )


def _record(sink: BatchSink, report: CallReport, frame: Frame) -> object:
    if isinstance(sink, PublishSink):
        return Publication(secrets.token_hex(16), report.call_id, report.body)
    return hep_encode(frame, 3), report.call_id
