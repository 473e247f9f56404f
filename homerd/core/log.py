"""Log levels: Kamailio's numbers, their names and logging's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

NAMES = {
    -5: "ALERT",
    -4: "BUG",
    -3: "CRITICAL",
    -2: "CRITICAL",
    -1: "ERROR",
    0: "WARNING",
    1: "NOTICE",
    2: "INFO",
    3: "DEBUG",
}
NOTICE = 25
_NUMBERS = {-5: 60, -4: 55, -3: 50, -2: 50, -1: 40, 0: 30, 1: NOTICE, 2: 20, 3: 10}

Values = tuple[object, ...] | Mapping[str, object] | None  # of a record

MOST_LINES = 100  # a second, of a package that logs for itself

_CONVERSION = re.compile(r"%[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[a-zA-Z%]")
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"})

script_log = logging.getLogger("homerd.script")


class Formatter(logging.Formatter):
    """`TIME LEVEL message`, a line of the script marked as such."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line; values that stand in quotes have theirs escaped."""
        given = record.args
        try:
            record.args = _escaped(str(record.msg), given)
            return super().format(record)
        finally:
            record.args = given

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        """The line; what the script printed is printed as it is."""
        if record.name == script_log.name:
            return f"{record.asctime} {record.levelname} <script>: {record.message}"
        return super().formatMessage(record)


def _escaped(text: str, values: Values) -> Values:
    if not isinstance(values, tuple):
        return values
    quoted = _in_quotes(text)
    if not quoted:
        return values
    return tuple(
        str(value).translate(_ESCAPES) if place in quoted else value
        for place, value in enumerate(values)
    )


@lru_cache(maxsize=1024)
def _in_quotes(text: str) -> frozenset[int]:
    """Which values of a format stand in quotes."""
    found = [each for each in _CONVERSION.finditer(text) if each[0] != "%%"]
    if any("*" in each[0] for each in found):
        return frozenset()
    return frozenset(
        place
        for place, each in enumerate(found)
        if each[0] == "%s" and text[each.start() - 1 : each.end() + 1] == '"%s"'
    )


class Limit(logging.Filter):
    """Lines of loggers that are not homerd's own: so many a second of each package.

    left_out: told the logger's name of each line above that.
    """

    def __init__(self, left_out: Callable[[str], None]) -> None:
        super().__init__()
        self._left_out = left_out
        self._lines: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is printed."""
        package = record.name.partition(".")[0]
        second = int(record.created)
        last, lines = self._lines.get(package, (second, 0))
        if last != second:
            if lines > MOST_LINES:
                record.msg = (
                    f"{record.getMessage()} ({lines - MOST_LINES} lines before it left out)"
                )
                record.args = ()
            lines = 0
        self._lines[package] = (second, lines + 1)
        if lines < MOST_LINES:
            return True
        self._left_out(record.name)
        return False


def limit_others(left_out: Callable[[str], None]) -> None:
    """Print what modules log for themselves, warnings and above, in our form, and not too much."""
    others = logging.lastResort
    if others is not None:
        others.setFormatter(Formatter())
        others.filters[:] = [Limit(left_out)]


def name(level: int) -> str:
    """Kamailio's name of *level*, without its `L_`."""
    return NAMES[min(max(level, -5), 3)]


def script_line(level: int, text: str) -> None:
    """One line of the script into the log; RunState.log of a running daemon."""
    script_log.log(_NUMBERS[min(max(level, -5), 3)], "%s", text.removesuffix("\n"))


def start() -> None:
    """Send the log to standard error; which script lines are wanted the script says itself."""
    for number, text in ((60, "ALERT"), (55, "BUG"), (NOTICE, "NOTICE")):
        logging.addLevelName(number, text)
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    root = logging.getLogger("homerd")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    script_log.setLevel(logging.DEBUG)
