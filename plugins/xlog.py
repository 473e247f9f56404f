"""xlog: log lines from the script, with pseudo-variables.

A line is printed when its level is at most the global `debug`: alert -5, bug -4, critical -3,
error -1, warning 0, notice 1, info 2, debug 3.
"""

from __future__ import annotations

from homerd.api import Format, ModParam, Packet, Place, Plugin, Readable, script_function

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


_MARK = "<script>: "  # what the log itself puts before lines of the script

# Bits of methods_filter.
_METHODS = (
    "INVITE",
    "CANCEL",
    "ACK",
    "BYE",
    "INFO",
    "REGISTER",
    "SUBSCRIBE",
    "NOTIFY",
    "MESSAGE",
    "OPTIONS",
    "PRACK",
    "UPDATE",
    "REFER",
    "PUBLISH",
)
_METHOD_BITS = {method: 1 << bit for bit, method in enumerate(_METHODS)}
_OTHER_METHODS = 1 << 15


class Level:
    """A level as text, of which only the third character counts, or a pseudo-variable."""

    otherwise = Readable

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
    long_format = ModParam(
        bool, False, reloadable=True, help="1: xlogl() gives the file too, file:line:text"
    )
    prefix = ModParam(
        str, _MARK, reloadable=True, help="text before each line, in place of homerd's <script>"
    )
    prefix_mode = ModParam(int, 0, reloadable=True, help="accepted: the prefix is plain text")
    log_facility = ModParam(str, "", reloadable=True, help="accepted")
    log_colors = ModParam(str, many=True, reloadable=True, help="accepted")
    methods_filter = ModParam(
        int,
        -1,
        reloadable=True,
        help="methods xlogm() is silent for, the sum of INVITE 1, CANCEL 2, ACK 4, BYE 8, INFO 16,"
        " REGISTER 32, SUBSCRIBE 64, NOTIFY 128, MESSAGE 256, OPTIONS 512 …; -1 all, as in"
        " Kamailio",
    )
    auto_newline = ModParam(
        bool, False, reloadable=True, help="accepted; each line is its own record"
    )

    @script_function("xlog")
    def xlog(self, packet: Packet, text: Format) -> None:
        """Log *text* at level error."""
        self._print(packet, ERROR, text)

    @script_function("xlog")
    def xlog_at(self, packet: Packet, level: Level, text: Format) -> bool:
        """Log *text* at *level*: "L_INFO" and its like, or a pseudo-variable with a number."""
        return self._print_at(packet, level, text)

    @script_function("xlog")
    def xlog_to(self, packet: Packet, facility: str, level: Level, text: Format) -> bool:
        """The same; *facility* is accepted, all lines go to one log."""
        return self._print_at(packet, level, text)

    @script_function("xlogl")
    def xlogl(self, packet: Packet, place: Place, text: Format) -> None:
        """As xlog, the line's number before the text: `12:text`."""
        self._print(packet, ERROR, self._located(place, text))

    @script_function("xlogl")
    def xlogl_at(self, packet: Packet, place: Place, level: Level, text: Format) -> bool:
        """As xlog with a level, the line's number before the text."""
        return self._print_at(packet, level, self._located(place, text))

    @script_function
    def xlogm(self, packet: Packet, level: Level, text: Format) -> bool:
        """As xlog with a level, unless methods_filter holds the packet's method."""
        bit = _METHOD_BITS.get(packet.sip.method or "", _OTHER_METHODS)
        return bool(self.methods_filter & bit) or self._print_at(packet, level, text)

    @script_function
    def xalert(self, packet: Packet, text: Format) -> None:
        """Log *text* at level alert."""
        self._print(packet, ALERT, text)

    @script_function
    def xbug(self, packet: Packet, text: Format) -> None:
        """Log *text* at level bug."""
        self._print(packet, BUG, text)

    @script_function
    def xcrit(self, packet: Packet, text: Format) -> None:
        """Log *text* at level critical."""
        self._print(packet, CRITICAL, text)

    @script_function
    def xerr(self, packet: Packet, text: Format) -> None:
        """Log *text* at level error."""
        self._print(packet, ERROR, text)

    @script_function
    def xwarn(self, packet: Packet, text: Format) -> None:
        """Log *text* at level warning."""
        self._print(packet, WARNING, text)

    @script_function
    def xnotice(self, packet: Packet, text: Format) -> None:
        """Log *text* at level notice."""
        self._print(packet, NOTICE, text)

    @script_function
    def xinfo(self, packet: Packet, text: Format) -> None:
        """Log *text* at level info."""
        self._print(packet, INFO, text)

    @script_function
    def xdbg(self, packet: Packet, text: Format) -> None:
        """Log *text* at level debug."""
        self._print(packet, DEBUG, text)

    def _print(self, packet: Packet, level: int, text: str) -> None:
        prefix: str = self.prefix
        packet.log(level, text if prefix == _MARK else prefix + text)

    def _print_at(self, packet: Packet, level: int | Readable, text: str) -> bool:
        """False when *level* is a pseudo-variable that holds no number."""
        number = level.get(packet) if isinstance(level, Readable) else level
        if not isinstance(number, int):
            return False
        self._print(packet, number, text)
        return True

    def _located(self, place: Place, text: str) -> str:
        return f"{place}:{text}" if self.long_format else f"{place.line}:{text}"
