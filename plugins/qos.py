"""qos: media quality out of every kind of report, as one record."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable

from homerd.api import (
    DecodeError,
    Frame,
    ModParam,
    Packet,
    Plugin,
    Sample,
    SipMessage,
    Text,
    Value,
    hookimpl,
    pseudo_variable,
    qos,
)
from homerd_plugins._qos_calls import Told, tie

_KEPT = "qos"  # in packet.scratch: the frame that was read, and what it told
_VQ_RTCPXR = "application/vq-rtcpxr"


def _decimal(value: float) -> Value:
    return f"{value:.2f}"


# What stands in the parentheses -> how it is shown.  Of the whole report, then of one record.
_REPORT = ("form", "kind", "call_id", "alert", "severity", "user_agent")
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


class Qos(Plugin):
    """Reads media quality where a script asks for it."""

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

    def __init__(self) -> None:
        self.reports: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.unread_fields: Counter[tuple[str, str, str]] = Counter()

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """Reports that were read and that were not, and the fields that could not be."""
        for form, count in self.reports.items():
            yield Sample("homerd_qos_reports_total", {"form": form}, count)
        for reason, count in self.unread.items():
            yield Sample("homerd_qos_unread_total", {"reason": reason}, count)
        for (form, field, fault), count in self.unread_fields.items():
            labels = {"form": form, "field": field, "fault": fault}
            yield Sample("homerd_qos_unread_fields_total", labels, count)

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
        if field == "call_id":
            return told.tie.call_id or None
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
        try:
            report = self._read(packet, frame)
        except DecodeError as error:
            self.unread[error.reason] += 1
        else:
            if report is not None:
                self.reports[report.form] += 1
                for field, fault in report.faults:
                    self.unread_fields[report.form, field, fault] += 1
                told = Told(report, tie(report, frame))
        packet.scratch[_KEPT] = frame, told
        return told

    def _read(self, packet: Packet, frame: Frame) -> qos.Report | None:
        report = qos.decode(frame.payload, max(0, self.rtcp_clock))
        if report is not None:
            return report
        # Agents pass a whole PUBLISH on as a report, too (HEP type 99).
        sip = packet.sip if packet.frame is frame else SipMessage(frame.payload)
        if (sip.content_type or "").lower().startswith(_VQ_RTCPXR):
            body = sip.body.encode("utf-8", "surrogateescape")
            return qos.decode_vqrtcpxr(body)
        report = qos.of_headers(sip.header, self.legacy_integer_loss)
        return None if report is None else report._replace(call_id=sip.call_id)
