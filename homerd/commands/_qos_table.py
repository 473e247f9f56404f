"""Quality reports as tables of text."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from homerd.commands._qos_report import Report, colour_of, quality_of
from homerd.commands._shown import printable, shows

_GAP = "  "
_PLAIN = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head and how a row's cell is shown, "" for none.

    spare: columns with the highest go first where a terminal is too narrow; 0 stays.
    """

    head: str
    cell: Callable[[Any], str]
    spare: int = 0
    right: bool = False


@dataclass(slots=True)
class Table:
    """Rows in columns; one that no row has a cell in is left out, but for those that stay."""

    columns: Sequence[Column]
    rows: Sequence[Any]
    score: Callable[[Any], float | None]
    left_out: list[str] = field(default_factory=list)

    def print(self, out: TextIO) -> None:
        """As wide as a terminal is, coloured there by score; a file gets the whole text."""
        is_terminal = out.isatty()
        can_show = shows(out.encoding)
        width = shutil.get_terminal_size().columns if is_terminal else None
        cut = "…" if can_show("…") else "~"
        head, *lines = self._lines(width, can_show)
        for line, row in zip([head, *lines], [None, *self.rows], strict=True):
            if width is not None and len(line) > width:
                line = line[: width - 1] + cut
            colour = colour_of(self.score(row)) if is_terminal and row is not None else 0
            print(f"\x1b[{colour}m{line}{_PLAIN}" if colour else line, file=out)
        if self.left_out:
            print(f"no room for {', '.join(self.left_out)}: --json tells all", file=out)

    def _lines(self, width: int | None, can_show: Callable[[str], bool]) -> Iterator[str]:
        cells = {
            column: [printable(column.cell(row), can_show) for row in self.rows]
            for column in self.columns
        }
        shown = [column for column in self.columns if not column.spare or any(cells[column])]
        widths = {
            column: max(len(column.head), *(len(cell) for cell in cells[column]), 1)
            for column in shown
        }
        while width is not None and sum(widths.values()) + len(_GAP) * (len(shown) - 1) > width:
            spare = max(shown, key=lambda column: column.spare)
            if not spare.spare:
                break
            shown.remove(spare)
            del widths[spare]
            self.left_out.append(spare.head)
        yield _joined([(column, column.head) for column in shown], widths)
        for place in range(len(self.rows)):
            yield _joined([(column, cells[column][place] or "-") for column in shown], widths)


def _joined(cells: Sequence[tuple[Column, str]], widths: Mapping[Column, int]) -> str:
    return _GAP.join(
        text.rjust(widths[column]) if column.right else text.ljust(widths[column])
        for column, text in cells
    ).rstrip()


def figure(value: float | None, digits: int = 1) -> str:
    """A number as it is shown, "" for none."""
    return "" if value is None else f"{value:.{digits}f}"


def _of(part: str) -> Callable[[Any], str]:
    return lambda row: str(value) if (value := getattr(row, part)) is not None else ""


def _real(part: str, digits: int = 1) -> Callable[[Any], str]:
    return lambda row: figure(getattr(row, part), digits)


def _moment(report: Report) -> str:
    return report.time.strftime("%Y-%m-%d %H:%M:%S")


def ssrc_of(report: Report) -> str:
    """The stream, as other programs show it."""
    return "" if report.ssrc is None else f"0x{report.ssrc:08x}"


def _ends(report: Report) -> str:
    ends = (
        (report.source_ip, report.source_port),
        (report.destination_ip, report.destination_port),
    )
    told = (f"[{ip}]:{port}" if ":" in (ip or "") else f"{ip}:{port}" for ip, port in ends)
    return " > ".join(told)


_TIME = Column("TIME (UTC)", _moment)
_FIGURES = (
    Column("MOS", _real("mos", 2), right=True),
    Column("SOURCE", _of("mos_source"), 3),
    Column("USERS", _of("quality"), 2),
    Column("LOSS %", _real("loss"), 1, right=True),
    Column("JITTER ms", _real("jitter"), 1, right=True),
    Column("RTT ms", _real("rtt", 0), 1, right=True),
    Column("CODEC", _of("codec"), 2),
    Column("TRUNK", _of("trunk"), 2),
    Column("USER AGENT", _of("user_agent"), 4),
)


def calls_table(reports: Sequence[Report]) -> Table:
    """One line a call."""
    columns = (_TIME, *_FIGURES, Column("CALL-ID", _of("call_id")))
    return Table(columns, reports, lambda report: report.mos)


def strays_table(reports: Sequence[Report]) -> Table:
    """One line a report of no known call."""
    columns = (
        _TIME,
        *_FIGURES,
        Column("SSRC", ssrc_of, 2),
        Column("SOURCE > DESTINATION", _ends),
        Column("CORRELATION ID", _of("correlation_id"), 1),
    )
    return Table(columns, reports, lambda report: report.mos)


@dataclass(frozen=True, slots=True)
class Group:
    """What many reports have in common, and how good they are.

    bad: calls with a report beyond the thresholds.
    """

    group: str
    reports: int
    calls: int
    bad: int
    worst_mos: float | None
    mean_mos: float | None
    worst_loss: float | None
    mean_loss: float | None
    worst_jitter: float | None
    mean_jitter: float | None
    worst_rtt: float | None
    mean_rtt: float | None

    @property
    def quality(self) -> str:
        """What the mean score means."""
        return quality_of(self.mean_mos)


def groups_table(by: str, groups: Sequence[Group]) -> Table:
    """One line a group."""
    columns = [
        Column(by.replace("-", " ").upper(), _of("group")),
        Column("CALLS", _of("calls"), right=True),
        Column("BAD", _of("bad"), right=True),
        Column("REPORTS", _of("reports"), 3, right=True),
        Column("WORST MOS", _real("worst_mos", 2), 1, right=True),
        Column("MEAN MOS", _real("mean_mos", 2), right=True),
        Column("USERS", _of("quality"), 4),
    ]
    for part, unit, digits in (("loss", "%", 1), ("jitter", "ms", 1), ("rtt", "ms", 0)):
        for which in ("worst", "mean"):
            of = _real(f"{which}_{part}", digits)
            columns.append(Column(f"{which} {part}".upper() + f" {unit}", of, 2, right=True))
    return Table(columns, groups, lambda group: group.mean_mos)


def reports_table(reports: Sequence[Report]) -> Table:
    """A call's reports over time."""
    days = {report.time.date() for report in reports}
    clock = "%H:%M:%S.%f" if len(days) == 1 else "%Y-%m-%d %H:%M:%S.%f"
    columns = (
        Column("TIME (UTC)", lambda report: report.time.strftime(clock)[:-3]),
        Column("REPORT", lambda each: " ".join(filter(None, (each.form, each.kind))), 3),
        Column("FROM", _of("source_ip"), 4),
        Column("LEG", _of("leg")),
        Column("DIRECTION", _of("direction"), 2),
        Column("SSRC", ssrc_of, 2),
        Column("CODEC", _of("codec"), 3),
        Column("MOS", _real("mos", 2), right=True),
        Column("SOURCE", _of("mos_source"), 3),
        Column("USERS", _of("quality"), 4),
        Column("R", _real("r"), 3, right=True),
        Column("MOS LQ", _real("mos_lq", 2), 5, right=True),
        Column("MOS CQ", _real("mos_cq", 2), 5, right=True),
        Column("PACKETS", _of("packets"), 5, right=True),
        Column("LOST", _of("lost"), 5, right=True),
        Column("LOSS %", _real("loss"), 1, right=True),
        Column("DISCARD %", _real("discard"), 6, right=True),
        Column("JITTER ms", _real("jitter"), 1, right=True),
        Column("MAX JITTER ms", _real("max_jitter"), 6, right=True),
        Column("RTT ms", _real("rtt"), 1, right=True),
        Column("ONE WAY ms", _real("one_way"), 6, right=True),
        Column("END SYSTEM ms", _real("end_system"), 7, right=True),
        Column("BURST LOSS %", _real("burst_loss"), 8, right=True),
        Column("BURST ms", _real("burst_duration", 0), 8, right=True),
        Column("GAP LOSS %", _real("gap_loss"), 8, right=True),
        Column("GAP ms", _real("gap_duration", 0), 8, right=True),
        Column("SIGNAL dBm0", _real("signal_level", 0), 9, right=True),
        Column("NOISE dBm0", _real("noise_level", 0), 9, right=True),
        Column("ALERT", lambda each: " ".join(filter(None, (each.alert, each.severity))), 4),
        Column("TIED BY", _of("tied_by"), 7),
    )
    return Table(columns, reports, lambda report: report.mos)
