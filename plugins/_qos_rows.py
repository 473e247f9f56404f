"""Quality records as rows of the table `qos_capture`: one row a record, of whatever report.

What a report does not say is NULL.  What the network sent is not trusted: a number that no column
holds is NULL, a text that is too long is cut, and both are counted by column.
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from operator import itemgetter

from homerd.api import Frame, Packet, qos
from homerd_plugins._homer5 import (
    ALONE,
    BEHIND_TIME,
    BIGINT,
    INTEGER,
    REAL,
    TEXT,
    Cell,
    Column,
    Row,
    Settings,
    is_table_name,
    node,
    storable,
)
from homerd_plugins._qos_calls import Told

TABLE = "qos_capture"
TRUNK_LENGTH = 64


def _text(key: str, width: int) -> Column:
    return Column(key, TEXT, width, nullable=True)


def _count(key: str) -> Column:
    return Column(key, BIGINT, nullable=True)


def _figure(key: str) -> Column:
    return Column(key, REAL, nullable=True)


# Of the packet and its report.
_OF_REPORT = (
    Column("date", TEXT, 19),
    Column("micro_ts", BIGINT),
    Column("call_id", TEXT, 256, index=ALONE),
    Column("tied_by", TEXT, 20),
    _text("correlation_id", 256),
    Column("source_ip", TEXT, 60),
    Column("source_port", INTEGER),
    Column("destination_ip", TEXT, 60),
    Column("destination_port", INTEGER),
    Column("node", TEXT, 125),
    Column("trunk", TEXT, 64),
    _text("user_agent", 256),
    Column("form", TEXT, 20),
    _text("kind", 50),
    _text("alert", 20),
    _text("severity", 20),
)
# Of one record.
_OF_RECORD = (
    _text("leg", 10),
    _text("direction", 10),
    _count("ssrc"),
    _text("codec", 50),
    _count("clock"),
    _count("packets"),
    _count("octets"),
    _count("lost"),
    _figure("loss"),
    _figure("discard"),
    _figure("jitter"),
    _figure("max_jitter"),
    _figure("rtt"),
    _figure("one_way"),
    _figure("end_system"),
    _figure("burst_loss"),
    _figure("burst_duration"),
    _figure("gap_loss"),
    _figure("gap_duration"),
    _figure("signal_level"),
    _figure("noise_level"),
    _figure("r"),
    _text("r_source", 10),
    _figure("mos_lq"),
    _text("mos_lq_source", 10),
    _figure("mos_cq"),
    _text("mos_cq_source", 10),
)
QOS_COLUMNS = (
    *_OF_REPORT,
    *_OF_RECORD,
    Column("mos", REAL, nullable=True, index=BEHIND_TIME),
    _text("mos_source", 10),
)
_WIDTHS = {column.key: column.width for column in QOS_COLUMNS}

_OTHERWISE = {"signal_level": "signal", "noise_level": "noise"}
_FIELDS = [_OTHERWISE.get(column.key, column.key) for column in _OF_RECORD]
_cells = itemgetter(*map(qos.QosRecord._fields.index, _FIELDS))
_CODEC = _FIELDS.index("codec")
_counts = itemgetter(*(at for at, each in enumerate(_OF_RECORD) if each.type == BIGINT))
_figures = itemgetter(*(at for at, each in enumerate(_OF_RECORD) if each.type == REAL))
_NOTHING: Row = (None,) * (len(_OF_RECORD) + 2)

_MOST = (1 << 63) - 1  # of a BIGINT; no measured figure comes near it

LONG, RANGE = "long", "range"


class TableName:
    """The table's name."""

    @classmethod
    def from_script(cls, value: str | int) -> str:
        """Check it."""
        if not is_table_name(str(value)):
            raise ValueError(f'expected a table of at most 64 of A-Z a-z 0-9 and _, got "{value}"')
        return str(value)


class QosRows:
    """Makes rows of reports.

    settings: the server's name in the column node.  mended: values that a column could not hold as
    they are, by (column, LONG or RANGE).
    """

    def __init__(self) -> None:
        self.settings = Settings()
        self.mended: Counter[tuple[str, str]] = Counter()

    def of(self, packet: Packet, told: Told, trunk: str, user_agent: str | None) -> list[Row]:
        """A row for each record of a report; of an alert that has none, a row without figures."""
        report, tie = told
        records = report.records
        if not records and report.alert is None:
            return []
        frame = packet.hep
        if frame.seconds:
            micro_ts = frame.seconds * 1_000_000 + frame.micros
        else:
            micro_ts = packet.seconds * 1_000_000 + packet.micros
        # Hot path: 2.4 µs a report and 2.4 a record; a call for each text would be one more.
        text = self.text
        call_id, correlation_id, kind = tie.call_id, frame.correlation_id, report.kind
        head = (
            self.settings.date(micro_ts // 1_000_000),
            micro_ts,
            call_id and text(call_id, "call_id"),
            tie.by,
            text(correlation_id, "correlation_id") if correlation_id else None,
            frame.src_ip,
            frame.src_port,
            frame.dst_ip,
            frame.dst_port,
            node(frame, self.settings),
            trunk,
            text(user_agent, "user_agent") if user_agent else None,
            report.form,
            kind and text(kind, "kind"),
            report.alert and text(report.alert, "alert"),
            report.severity and text(report.severity, "severity"),
        )
        if not records:
            return [(*head, *_NOTHING)]
        return [head + self._figures(record) for record in records]

    def text(self, value: str, column: str) -> str:
        """*value* as the column can hold it."""
        width = _WIDTHS[column]
        if len(value) <= width and value.isascii() and "\0" not in value:
            return value
        if len(value) > width:
            self.mended[column, LONG] += 1
        return storable(value[:width])

    def _figures(self, record: qos.QosRecord) -> Row:
        if not _fits(_cells(record)):
            record = self._mended(record)
        cells: Row = _cells(record)
        codec = record.codec
        if codec and (mended := self.text(codec, "codec")) is not codec:
            cells = (*cells[:_CODEC], mended, *cells[_CODEC + 1 :])
        return (*cells, record.mos, record.mos_source)

    def _mended(self, record: qos.QosRecord) -> qos.QosRecord:
        """*record* without the numbers that their columns cannot hold."""
        kept: dict[str, Cell] = {}
        for column, field in zip(_OF_RECORD, _FIELDS, strict=True):
            value = getattr(record, field)
            if column.type != TEXT and value is not None:
                if column.type == BIGINT:
                    kept[field] = int(value) if -_MOST <= value <= _MOST else None
                else:
                    kept[field] = value if _is_finite(value) else None
                if kept[field] is None:
                    self.mended[column.key, RANGE] += 1
        return record._replace(**kept)


def _fits(cells: Row) -> bool:
    """Whether columns can hold all numbers of a record."""
    for count in _counts(cells):
        if count is not None and not (count.__class__ is int and -_MOST <= count <= _MOST):
            return False
    # Hot path: a sum shows whether one of them is none that a column holds; one by one is 1 µs.
    try:
        return isfinite(sum(filter(None, _figures(cells))))
    except OverflowError:  # of an integer beyond any measure
        return False


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False


def comes_in_message(frame: Frame, report: qos.Report) -> bool:
    """Whether the report came within a SIP message, not by itself."""
    if report.form == qos.VQ_RTCPXR:
        return frame.payload[:2] != b"VQ"
    return report.form == qos.RTP_STAT
