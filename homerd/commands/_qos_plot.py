"""A call's quality over time: drawn in the terminal by plotext, in a file by matplotlib."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from homerd.commands._qos_report import CLASSES, Report
from homerd.commands._qos_table import ssrc_of
from homerd.commands._shown import printable
from homerd.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
MOST_STREAMS = 8  # as many as can be told apart
NARROWEST, WIDEST = 40, 120  # characters
# Colours that the colour-blind tell apart, Okabe and Ito; and of a terminal.
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000",
)  # fmt: skip
_ANSI = (34, 31, 32, 35, 33, 36, 37, 90)
_TERMINAL = ("blue", "red", "green", "magenta", "yellow", "cyan", "white", "gray")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_HIGHEST = 1e300  # where an axis ends
_MARKED = 100  # points; of more the marks hide one another
_LETTERS = "x+o*#@%&"  # where there are no colours
_BOX = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")
_SHORTEST = timedelta(seconds=20)  # of an axis
_DAY = 86400
# Between times of an axis, in seconds.
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, _DAY)

Point = tuple[datetime, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """What has an axis of its own.

    height: of its picture, in inches; rows: of text.
    """

    part: str
    name: str
    unit: str
    height: float
    rows: int

    @property
    def label(self) -> str:
        """What stands at the axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


PANELS = (
    Panel("mos", "MOS", "", 2.8, 12),
    Panel("loss", "loss", "%", 1.7, 9),
    Panel("jitter", "jitter", "ms", 1.7, 9),
    Panel("rtt", "round trip", "ms", 1.7, 9),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """The reports of one leg's media, by one reporter."""

    label: str
    reports: Sequence[Report]

    def points(self, part: str) -> list[Point]:
        """What they say of *part*, in the order of time."""
        told = ((report.time, getattr(report, part)) for report in self.reports)
        return [(time, value) for time, value in told if value is not None]


@dataclass(frozen=True, slots=True)
class Plot:
    """A call's streams.

    panels: of which there is something to draw.  left_out: how many streams there are besides.
    """

    title: str
    streams: Sequence[Stream]
    panels: Sequence[Panel]
    left_out: int

    @classmethod
    def of(cls, title: str, reports: Sequence[Report]) -> Plot:
        """Those with the most reports, if there are too many; ConfigError without a figure."""
        streams = [stream for stream in _streams(reports) if _shown(stream)]
        if not streams:
            raise ConfigError(f"{title}: its reports tell neither MOS, loss, jitter nor round trip")
        drawn = sorted(streams, key=lambda stream: -len(stream.reports))[:MOST_STREAMS]
        drawn = [stream for stream in streams if stream in drawn]
        panels = [panel for panel in PANELS if any(stream.points(panel.part) for stream in drawn)]
        return cls(title, drawn, panels, len(streams) - len(drawn))

    def remarks(self) -> Iterator[str]:
        """What is to be said beside it."""
        if self.left_out:
            yield f"{self.left_out} streams with fewer reports are not drawn"

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From the first report that is drawn to the last, and longer if that is too short."""
        times = [
            time
            for stream in self.streams
            for panel in self.panels
            for time, _ in stream.points(panel.part)
        ]
        first, last = min(times), max(times)
        more = max((_SHORTEST - (last - first)) / 2, timedelta())
        return first - more, last + more


def _shown(stream: Stream) -> bool:
    return any(stream.points(panel.part) for panel in PANELS)


def _streams(reports: Sequence[Report]) -> Iterator[Stream]:
    """Reports by leg, stream and reporter; a label tells no more than sets them apart."""
    grouped: dict[tuple[str, ...], list[Report]] = {}
    for report in reports:
        told = (report.leg, report.direction, ssrc_of(report), report.form, report.source_ip)
        grouped.setdefault(tuple(part or "" for part in told), []).append(report)
    for key, own in grouped.items():
        alike = [other for other in grouped if other[:2] == key[:2]]
        label = list(key[:2])
        for place, part in enumerate(key[2:], 2):
            if part and any(other[place] != part for other in alike):
                label.append(part)
                alike = [other for other in alike if other[place] == part]
        own.sort(key=lambda report: report.micro_ts)
        yield Stream(printable(" ".join(filter(None, label))) or "reports", own)


# In the terminal


def text_plot(plot: Plot, width: int, *, colours: bool, can_show: Callable[[str], bool]) -> str:
    """A panel below the other, with a legend.

    can_show: whether the terminal has a character.
    """
    try:
        import plotext
    except ModuleNotFoundError as error:
        raise _missing(error, "--plot", "plotext>=6,<7") from None
    plotext.terminal.limit(False, False)
    width = max(NARROWEST, min(width, WIDEST))
    can_draw = can_show("▚─│")
    first, last = plot.span
    seconds = (last - first).total_seconds()
    ticks = _moments(first, seconds, width // 20)
    labels = [f"{first + timedelta(seconds=tick):{_clock(seconds)}}" for tick in ticks]
    lines = [_legend(plot, colours, can_show)]
    for panel in plot.panels:
        figure = plotext.figure
        figure.clear()
        figure.theme("colorless")  # but for the lines; the usual one has a ground of its own
        figure.plot_size(width, panel.rows)
        figure.title(panel.label)
        top = 0.0
        # plotext ends the program at a point far beyond the axis.
        low, high = (1.0, 5.0) if panel.part == "mos" else (0.0, math.inf)
        for place, stream in enumerate(plot.streams):
            points = stream.points(panel.part)
            if not points:
                continue
            symbol = "hd" if colours and can_draw else _LETTERS[place]
            marker = plotext.marker(symbol, _TERMINAL[place] if colours else None)
            times = [(time - first).total_seconds() for time, _ in points]
            values = [min(max(value, low), high) for _, value in points]
            signal = figure.signal(times, values, marker=marker)
            figure.draw(signal.lines())
            top = max(top, *values)
        figure.ruler("x").lim(0, seconds)
        figure.ruler("x").ticks(ticks, labels)
        levels = [1.0, 2.0, 3.0, 4.0, 5.0] if panel.part == "mos" else _levels(top)
        figure.ruler("y").lim(levels[0], levels[-1])
        # As wide in each panel, so that a time is below itself.
        figure.ruler("y").ticks(levels, [f"{level:g}".rjust(6) for level in levels])
        drawn: str = figure.build().string(colorless=not colours)
        lines.append(drawn.rstrip("\n") if can_draw else drawn.rstrip("\n").translate(_BOX))
    figure.clear()
    return "\n".join(lines)


def _legend(plot: Plot, colours: bool, can_show: Callable[[str], bool]) -> str:
    shown = []
    for place, stream in enumerate(plot.streams):
        sign = f"\x1b[{_ANSI[place]}m--\x1b[0m" if colours else _LETTERS[place]
        shown.append(f"{sign} {printable(stream.label, can_show)}")
    return "\n".join(shown)


def _moments(first: datetime, seconds: float, most: int) -> list[float]:
    """Seconds from *first* to full minutes or the like, at most so many."""
    step = next((step for step in _STEPS if seconds / step <= max(most, 2)), seconds / 2)
    begin = -first.timestamp() % step
    return [begin + place * step for place in range(int((seconds - begin) / step) + 1)]


def _levels(top: float) -> list[float]:
    """From 0 to the next round number above *top*."""
    unit = 10.0 ** math.floor(math.log10(top / 4)) if top > 0 else 0.25
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor * 4 >= top)
    return [step * place for place in range(5)]


def _clock(seconds: float) -> str:
    """How times are written, of so long a call."""
    return "%H:%M:%S" if seconds < _DAY else "%m-%d %H:%M"


# In a file


def picture(plot: Plot, form: str) -> bytes:
    """A PNG or SVG."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise _missing(error, "--save", "matplotlib>=3.8") from None
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    settings = {
        "text.parse_math": False,  # a Call-ID may have dollars
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "homerd",
        "font.size": 9,
    }
    # A character that the font has not is drawn as a box, and no affair of the terminal's.
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        height = sum(panel.height for panel in plot.panels) + 0.9 + 0.2 * len(plot.streams) / 3
        figure = Figure(figsize=(10, height), dpi=120, layout="constrained")
        _draw(figure, plot)
        out = io.BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else None)
        return out.getvalue()


def _draw(figure: Figure, plot: Plot) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter

    heights = [panel.height for panel in plot.panels]
    rows: Any = figure.subplots(  # an array of Axes
        len(plot.panels), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    axes: list[Axes] = list(rows[:, 0])
    lines: dict[str, Any] = {}  # Line2D by label
    for panel, axis in zip(plot.panels, axes, strict=True):
        top = 1.0
        for place, stream in enumerate(plot.streams):
            points = stream.points(panel.part)
            if not points:
                continue
            (line,) = axis.plot(
                [time for time, _ in points],
                [value for _, value in points],
                color=_COLOURS[place],
                marker=_MARKERS[place] if len(points) <= _MARKED else "",
                markersize=4,
                linewidth=1.4 if len(points) <= _MARKED else 0.8,
                alpha=0.85,
            )
            lines.setdefault(stream.label, line)
            top = min(max(top, *(value for _, value in points)), _HIGHEST)
        axis.set_ylabel(panel.label)
        axis.grid(visible=True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if panel.part == "mos":
            _classes(axis)
        else:
            axis.set_ylim(-0.03 * top, 1.08 * top)  # room for the marks
    first, last = plot.span
    margin = (last - first) * 0.02
    axes[-1].set_xlim(first - margin, last + margin)
    seconds = (last - first).total_seconds()
    axes[-1].xaxis.set_major_locator(AutoDateLocator(tz=UTC, maxticks=9))
    axes[-1].xaxis.set_major_formatter(DateFormatter(_clock(seconds), tz=UTC))
    axes[-1].set_xlabel(f"time on {first:%Y-%m-%d}, UTC" if seconds < _DAY else "time, UTC")
    figure.align_ylabels()
    title = f"Call-ID {plot.title}"
    figure.suptitle(title if len(title) <= 100 else title[:99] + "…", fontsize=11)
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=max(1, min(3, len(lines), 120 // (6 + max(map(len, lines))))),
        frameon=False,
    )


def _classes(axis: Axes) -> None:
    """The words for scores, at the right of their axis."""
    axis.set_ylim(1, 5)
    axis.set_yticks([1, 2, 3, 4, 5])
    above = 5.0
    for least, words in CLASSES:
        axis.axhspan(least, above, color=_SHADES[words], linewidth=0, zorder=0)
        axis.text(
            1.005,
            (least + above) / 2,
            words,
            transform=axis.get_yaxis_transform(),
            fontsize=7,
            color="#555555",
            verticalalignment="center",
        )
        above = least


_SHADES = dict(
    zip(
        (words for _, words in CLASSES),
        ("#e5f5e9", "#eff9f1", "#fffbe6", "#fff3dc", "#fdeae3", "#fbe0dd"),
        strict=True,
    )
)


def _missing(error: ModuleNotFoundError, option: str, needed: str) -> Exception:
    library = needed.partition(">")[0]
    if error.name != library:
        return error
    return ConfigError(f'{option} needs {library}: pip install "{needed}"')
