"""Which call a quality report belongs to."""

from __future__ import annotations

from typing import NamedTuple

from homerd.api import Frame, qos

_SIP = 1  # payload type of HEP

BY_REPORT, BY_CORRELATION = "report", "correlation_id"


class Tie(NamedTuple):
    """The call of a report.

    call_id: "" when no call is known.  by: what told it, BY_REPORT or BY_CORRELATION; "" without.
    """

    call_id: str = ""
    by: str = ""


class Told(NamedTuple):
    """What a packet told of quality, and of which call."""

    report: qos.Report
    tie: Tie


def tie(report: qos.Report, frame: Frame) -> Tie:
    """The call that the report names, else the one its sender says it is of.

    What agents say of a PUBLISH is its own Call-ID, not that of the call it tells of.
    """
    if report.call_id:
        return Tie(report.call_id, BY_REPORT)
    is_publish = report.form == qos.VQ_RTCPXR and frame.payload_type == _SIP
    if frame.correlation_id and not is_publish:
        return Tie(frame.correlation_id, BY_CORRELATION)
    return Tie()
