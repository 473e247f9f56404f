"""The pseudo-variables of time: one moment for each packet, taken when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from homerd.api import Packet, Text, Value, pseudo_variable
from homerd_plugins import _bindings

_BROKEN_DOWN: dict[str, Callable[[time.struct_time], int]] = {
    "sec": lambda moment: moment.tm_sec,
    "min": lambda moment: moment.tm_min,
    "hour": lambda moment: moment.tm_hour,
    "mday": lambda moment: moment.tm_mday,
    "mon": lambda moment: moment.tm_mon,
    "year": lambda moment: moment.tm_year,
    "wday": lambda moment: (moment.tm_wday + 1) % 7 + 1,
    "yday": lambda moment: moment.tm_yday,
    "isdst": lambda moment: moment.tm_isdst,
}
_TIMEVALS = ("s", "u", "sn", "un", "Sn")


class Moments:
    """Mixed into the module pv."""

    def __init__(self) -> None:
        self._started = time.time()
        self._formatted: dict[tuple[str, bool], tuple[int, str]] = {}

    @pseudo_variable("TS")
    def seconds_now(self, packet: Packet) -> int:
        """Seconds since 1970, the same as long as the packet is handled."""
        return int(_moment(packet))

    @pseudo_variable("Ts")
    def seconds_cached(self, packet: Packet) -> int:
        """As $TS."""
        return int(_moment(packet))

    @pseudo_variable("TF")
    def text_now(self, packet: Packet) -> str:
        """The time as `Sat Nov 21 09:33:51 2026`."""
        return time.ctime(_moment(packet))

    @pseudo_variable("Tf")
    def text_cached(self, packet: Packet) -> str:
        """As $TF."""
        return time.ctime(_moment(packet))

    @pseudo_variable("Tb")
    def started(self, packet: Packet) -> int:
        """Seconds since 1970 when homerd was started."""
        return int(self._started)

    @pseudo_variable("TV")
    def timeval(self, packet: Packet, key: str) -> Value:
        """`s`, `u`: seconds and microseconds of the packet's moment; `sn`, `un`, `Sn`: of now."""
        moment = packet.state.now() if key[-1] == "n" else _moment(packet)
        micros = int(moment * 1_000_000)
        if key == "Sn":
            return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
        return micros // 1_000_000 if key[0] == "s" else micros % 1_000_000

    @timeval.bind
    def bind_timeval(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of({key: key for key in _TIMEVALS}, argument, index)

    @pseudo_variable("timef")
    def timef(self, packet: Packet, form: str) -> str:
        """The packet's moment in local time, with strftime."""
        return self._format(packet, form, utc=False)

    @timef.bind
    def bind_timef(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.text(argument)

    @pseudo_variable("utimef")
    def utimef(self, packet: Packet, form: str) -> str:
        """The packet's moment in UTC, with strftime."""
        return self._format(packet, form, utc=True)

    @utimef.bind
    def bind_utimef(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.text(argument)

    @pseudo_variable("time")
    def local_part(self, packet: Packet, part: Callable[[time.struct_time], int]) -> int:
        """A part of the local time: sec, min, hour, mday, mon, year, wday, yday or isdst."""
        return part(time.localtime(_moment(packet)))

    @local_part.bind
    def bind_local_part(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_BROKEN_DOWN, argument, index)

    @pseudo_variable("utime")
    def utc_part(self, packet: Packet, part: Callable[[time.struct_time], int]) -> int:
        """The same of the time in UTC."""
        return part(time.gmtime(_moment(packet)))

    @utc_part.bind
    def bind_utc_part(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_BROKEN_DOWN, argument, index)

    def _format(self, packet: Packet, form: str, *, utc: bool) -> str:
        """strftime, remembered for the second: 2.5 µs otherwise."""
        second = int(_moment(packet))
        cached = self._formatted.get((form, utc))
        if cached is not None and cached[0] == second:
            return cached[1]
        if len(self._formatted) > 100:
            self._formatted.clear()
        text = time.strftime(form, time.gmtime(second) if utc else time.localtime(second))
        self._formatted[form, utc] = (second, text)
        return text


def _moment(packet: Packet) -> float:
    scratch = packet.scratch
    if "moment" not in scratch:
        scratch["moment"] = packet.state.now()
    moment: float = scratch["moment"]
    return moment
