"""kex: what Kamailio keeps outside of its core: more flags, the debug level, printf."""

from __future__ import annotations

from homerd.api import (
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    ScriptFunction,
    Writable,
    parse_uri,
    script_function,
)
from homerd_plugins import _accepted

_FLAGS = 32
_NO_OPERATIONS = "setdsturi/1 resetdsturi/0 isdsturiset/0=-1 km_append_branch/0-1"


class Kex(Plugin):
    """More flags, the debug level, printing into variables."""

    name = "kex"

    def __init__(self) -> None:
        self.words = (
            *_flag_functions("s", "script"),
            *_flag_functions("b", "branch"),
            *_accepted.functions(_NO_OPERATIONS, "kex"),
        )
        self._debug: int | None = None

    @script_function
    def is_myself(self, packet: Packet, uri: str) -> bool:
        """Whether *uri* names the address and port the packet came to."""
        found = parse_uri(uri)
        frame = packet.frame
        if found is None or frame.version:
            return False
        port = int(found.port) if found.port else 5060
        return found.host.strip("[]") == packet.dst_ip and port == frame.dst_port

    @script_function
    def pv_printf(self, packet: Packet, variable: Writable, text: str) -> None:
        """Put *text*, its pseudo-variables expanded, into *variable*."""
        variable.set(packet, text)

    @script_function
    def avp_printf(self, packet: Packet, variable: Writable, text: str) -> None:
        """As pv_printf."""
        variable.set(packet, text)

    @script_function
    def setdebug(self, packet: Packet, level: int) -> None:
        """Set the level up to which this worker logs."""
        if self._debug is None:
            self._debug = packet.state.debug
        packet.state.debug = level

    @script_function
    def resetdebug(self, packet: Packet) -> None:
        """Set the level back to the global one."""
        if self._debug is not None:
            packet.state.debug = self._debug
            self._debug = None


def _flag(value: str | int) -> int:
    if not str(value).isdigit() or int(value) >= _FLAGS:
        raise ValueError(f'a flag is a number from 0 to {_FLAGS - 1}, not "{value}"')
    return int(value)


def _flag_functions(letter: str, kind: str) -> list[ScriptFunction]:
    """`setsflag`, `resetsflag`, `issflagset`; a branch's number after the flag is left out."""
    place = f"{letter}flags"
    parameters = (
        Parameter("flag", ParameterKind.CONSTANT, convert=_flag),
        Parameter("branch", ParameterKind.PLAIN, required=False),
    )

    def set_flag(packet: Packet, flag: int, branch: str = "") -> None:
        packet.scratch[place] = packet.scratch.get(place, 0) | 1 << flag

    def reset_flag(packet: Packet, flag: int, branch: str = "") -> None:
        packet.scratch[place] = packet.scratch.get(place, 0) & ~(1 << flag)

    def is_flag_set(packet: Packet, flag: int, branch: str = "") -> bool:
        return bool(packet.scratch.get(place, 0) >> flag & 1)

    return [
        ScriptFunction(
            f"set{letter}flag",
            set_flag,
            parameters,
            returns_bool=False,
            module="kex",
            help=f"Set a {kind} flag.",
        ),
        ScriptFunction(
            f"reset{letter}flag",
            reset_flag,
            parameters,
            returns_bool=False,
            module="kex",
            help=f"Reset a {kind} flag.",
        ),
        ScriptFunction(
            f"is{letter}flagset",
            is_flag_set,
            parameters,
            returns_bool=True,
            module="kex",
            help=f"Whether a {kind} flag is set.",
        ),
    ]
