"""xlog: log lines from the script, with pseudo-variables.

A line is printed when its level is at most the global `debug`: alert -5, bug -4, critical -3,
error -1, warning 0, notice 1, info 2, debug 3.
"""

from __future__ import annotations

from homerd.api import Format, ModParam, Packet, Plugin, Value, script_function

ALERT, BUG, CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = -5, -4, -3, -1, 0, 1, 2, 3

_BY_THIRD_LETTER = {
    "A": ALERT,
    "B": BUG,
    "C": CRITICAL,
    "E": ERROR,
    "W": WARNING,
    "N": NOTICE,
    "I": INFO,
    "D": DEBUG,
}


class Level(int):
    """A level as text, of which only the third character counts, or a number at run time."""

    kind = Value

    @staticmethod
    def from_script(value: str | int) -> int:
        text = str(value)
        level = _BY_THIRD_LETTER.get(text[2:3])
        if level is None:
            raise ValueError(
                f'"{text}" is no log level: write L_ALERT, L_BUG, L_CRIT, L_ERR, L_WARN, L_NOTICE,'
                " L_INFO or L_DBG"
            )
        return level


class Xlog(Plugin):
    """Writes to the log."""

    name = "xlog"

    buf_size = ModParam(int, 4096, reloadable=True, help="accepted; there is no limit")
    force_color = ModParam(bool, False, reloadable=True, help="accepted")
    long_format = ModParam(bool, False, reloadable=True, help="accepted")
    prefix = ModParam(str, "<script>: ", reloadable=True, help="accepted")
    prefix_mode = ModParam(int, 0, reloadable=True, help="accepted")
    log_facility = ModParam(str, "", reloadable=True, help="accepted")
    log_colors = ModParam(str, many=True, reloadable=True, help="accepted")
    methods_filter = ModParam(int, -1, reloadable=True, help="accepted")
    auto_newline = ModParam(
        bool, False, reloadable=True, help="accepted; each line is its own record"
    )

    @script_function("xlog")
    def xlog(self, packet: Packet, text: Format) -> None:
        """Log *text* at level error."""
        packet.log(ERROR, text)

    @script_function("xlog")
    def xlog_at(self, packet: Packet, level: Level, text: Format) -> bool:
        """Log *text* at *level*: "L_INFO" and its like, or a pseudo-variable with a number."""
        return _log(packet, level, text)

    @script_function("xlog")
    def xlog_to(self, packet: Packet, facility: str, level: Level, text: Format) -> bool:
        """The same; *facility* is accepted, all lines go to one log."""
        return _log(packet, level, text)

    @script_function("xlogl")
    def xlogl(self, packet: Packet, text: Format) -> None:
        """As xlog."""
        packet.log(ERROR, text)

    @script_function("xlogl")
    def xlogl_at(self, packet: Packet, level: Level, text: Format) -> bool:
        """As xlog with a level."""
        return _log(packet, level, text)

    @script_function
    def xlogm(self, packet: Packet, level: Level, text: Format) -> bool:
        """As xlog with a level."""
        return _log(packet, level, text)

    @script_function
    def xalert(self, packet: Packet, text: Format) -> None:
        """Log *text* at level alert."""
        packet.log(ALERT, text)

    @script_function
    def xbug(self, packet: Packet, text: Format) -> None:
        """Log *text* at level bug."""
        packet.log(BUG, text)

    @script_function
    def xcrit(self, packet: Packet, text: Format) -> None:
        """Log *text* at level critical."""
        packet.log(CRITICAL, text)

    @script_function
    def xerr(self, packet: Packet, text: Format) -> None:
        """Log *text* at level error."""
        packet.log(ERROR, text)

    @script_function
    def xwarn(self, packet: Packet, text: Format) -> None:
        """Log *text* at level warning."""
        packet.log(WARNING, text)

    @script_function
    def xnotice(self, packet: Packet, text: Format) -> None:
        """Log *text* at level notice."""
        packet.log(NOTICE, text)

    @script_function
    def xinfo(self, packet: Packet, text: Format) -> None:
        """Log *text* at level info."""
        packet.log(INFO, text)

    @script_function
    def xdbg(self, packet: Packet, text: Format) -> None:
        """Log *text* at level debug."""
        packet.log(DEBUG, text)


def _log(packet: Packet, level: int | str | None, text: str) -> bool:
    """False when *level* came from a pseudo-variable that holds no number."""
    if isinstance(level, str):
        level = _BY_THIRD_LETTER.get(level[2:3])
    if level is None:
        return False
    packet.log(level, text)
    return True
