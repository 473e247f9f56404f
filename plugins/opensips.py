"""opensips: what a script for OpenSIPS has without loadmodule, where it differs from Kamailio.

Loaded by itself for a script of that dialect, beside pv and xlog: `$var` that is null until it is
set, time as text, HEP chunks, and the routes that run by time and at start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from homerd.api import (
    Outline,
    Packet,
    Plugin,
    Problem,
    RunState,
    Substitution,
    Text,
    Value,
    Worker,
    Writable,
    hep_chunk,
    hookimpl,
    pseudo_variable,
    script_function,
    transformation,
)
from homerd_plugins import _accepted, _bindings

STARTUP_ROUTE = "startup_route"
HEP_RESUMED = "hep_resumed"  # in a packet's scratch: the message inside goes on to the main route
END_OF_SCRIPT = 0

_PASSED_ON = "hep_relay/0=-1 is_myself/1-2=-1 script_trace/0-3"

_PARTS: dict[str, Callable[[time.struct_time], int]] = {
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

Timer = tuple[str, int]  # a route, and how many seconds lie between its runs


class ChunkId(int):
    """The number of a HEP chunk: `11`, `0x000b` or `"0x000b"`."""

    @staticmethod
    def from_script(value: str | int) -> int:
        try:
            number = int(str(value), 16 if str(value).lower().startswith("0x") else 10)
        except ValueError:
            raise ValueError(f'expected the number of a HEP chunk, got "{value}"') from None
        if not 0 < number < 1 << 16:
            raise ValueError(f"expected the number of a HEP chunk from 1 to 65535, got {number}")
        return number


class OpenSips(Plugin):
    """The words and routes of the dialect."""

    name = "opensips"

    def __init__(self) -> None:
        self.words = _accepted.functions(_PASSED_ON, self.name)
        self.timers: tuple[Timer, ...] = ()
        self._running: dict[Timer, RunState] = {}
        self._worker: Worker | None = None

    # Routes that no packet begins

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """Take note of the timers; those that a reload adds begin at once, others rest."""
        self.timers = outline.timers
        if self._worker is not None:
            self._begin(self._worker)
        return ()

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Run startup_route, and begin the timers."""
        self._worker = worker
        worker.run_route(STARTUP_ROUTE)
        self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        for timer in self.timers:
            if timer not in self._running:
                self._running[timer] = worker.new_state()
                worker.every(timer[1], self._runner(worker, timer))

    def _runner(self, worker: Worker, timer: Timer) -> Callable[[], None]:
        def run() -> None:
            if timer in self.timers:
                worker.run_route(timer[0], self._running[timer], timer[0])

        return run

    # Variables

    @pseudo_variable("var")
    def var(self, packet: Packet, name: str) -> Value:
        """A variable of the worker; null until it is set, kept from packet to packet."""
        return packet.variables.get(name)

    @var.setter
    def set_var(self, packet: Packet, value: Value, name: str) -> None:
        if value is None:
            packet.variables.pop(name, None)
        else:
            packet.variables[name] = value

    @var.bind
    def bind_var(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return (_bindings.name_only(argument, index),)

    @pseudo_variable("time")
    def local_text(self, packet: Packet, form: str) -> str:
        """The local time as text, with strftime: `$time(%Y-%m-%d)`."""
        return time.strftime(form, _local(packet))

    @local_text.bind
    def bind_time(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.text(argument)

    @pseudo_variable("ctime")
    def ctime(self, packet: Packet, part: Callable[[time.struct_time], int]) -> int:
        """A part of the local time: sec, min, hour, mday, mon, year, wday, yday or isdst."""
        return part(_local(packet))

    @ctime.bind
    def bind_ctime(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_PARTS, argument, index)

    @transformation("re.subst")
    def re_subst(self, value: str, expression: Substitution) -> str:
        """Replace what a regular expression finds: /pattern/replacement/flags."""
        return expression.apply(value)

    # HEP

    @script_function("hep_get")
    def hep_get(
        self,
        packet: Packet,
        chunk: ChunkId,
        vendor: Writable | None = None,
        data: Writable | None = None,
    ) -> bool:
        """Read a chunk of the HEP packet, its data as text; false when it was not sent.

        vendor, data: variables, either may be left out.
        """
        return self._get(packet, chunk, vendor, data)

    @script_function("hep_get")
    def hep_get_typed(
        self,
        packet: Packet,
        kind: str,
        chunk: ChunkId,
        vendor: Writable | None = None,
        data: Writable | None = None,
    ) -> bool:
        """The same; *kind*, the data's type (uint8, utf8-string …), is known without it."""
        return self._get(packet, chunk, vendor, data)

    @script_function("hep_set")
    def hep_set(self, packet: Packet, chunk: ChunkId, data: str) -> None:
        """Give a chunk another value, which hep_get then reads; the packet itself stays."""
        self._changed(packet)[chunk] = data

    @script_function("hep_set")
    def hep_set_typed(
        self, packet: Packet, kind: str, chunk: ChunkId, vendor: str, data: str
    ) -> None:
        """The same, with type and vendor."""
        self._changed(packet)[chunk] = data

    @script_function
    def hep_del(self, packet: Packet, chunk: ChunkId) -> None:
        """Take a chunk away from what hep_get reads."""
        self._changed(packet)[chunk] = None

    @script_function
    def hep_resume_sip(self, packet: Packet) -> int:
        """End the HEP route; the SIP message inside goes on to the main route."""
        packet.scratch[HEP_RESUMED] = True
        return END_OF_SCRIPT

    def _get(
        self, packet: Packet, chunk: int, vendor: Writable | None, data: Writable | None
    ) -> bool:
        changed, maker = self._changed(packet), 0
        found: Value = changed[chunk] if chunk in changed else hep_chunk(packet.hep, chunk)
        if found is None and chunk not in changed:
            maker, found = _rare_chunk(packet, chunk)
        if found is None:
            return False
        if vendor is not None:
            vendor.set(packet, maker)
        if data is not None:
            data.set(packet, str(found))
        return True

    @staticmethod
    def _changed(packet: Packet) -> dict[int, str | None]:
        changed: dict[int, str | None] = packet.scratch.setdefault("hep_changed", {})
        return changed


def _rare_chunk(packet: Packet, chunk: int) -> tuple[int, str | None]:
    """Vendor and text of a chunk that has no name here; text None when it was not sent."""
    frame = packet.hep
    rare = [*frame.vendor_chunks, *((0, kind, body) for kind, body in frame.unknown_chunks)]
    for vendor, kind, body in rare:
        if kind == chunk:
            return vendor, body.decode("utf-8", "surrogateescape")
    return 0, None


def _local(packet: Packet) -> time.struct_time:
    """The packet's moment, the same for all who ask."""
    if "moment" not in packet.scratch:
        packet.scratch["moment"] = packet.state.now()
    return time.localtime(packet.scratch["moment"])
