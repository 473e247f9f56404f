"""core: what every script has without loadmodule: flags, log(), $null, $_s(), $rc, $env().

What only makes sense for a proxy (forward, force_rport …) is accepted and does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from homerd.api import (
    Kind,
    Packet,
    Parameter,
    ParameterKind,
    Plain,
    Plugin,
    PseudoVariable,
    ScriptFunction,
    Text,
    pseudo_variable,
    script_function,
)
from homerd_plugins import _accepted, _ruri

DEBUG = 3

_NO_OPERATIONS = (
    "forward/0-2 forward_udp/0-2 forward_tcp/0-2 forward_tls/0-2 forward_sctp/0-2 send/1-2"
    " send_tcp/1-2 force_rport/0 add_rport/0 force_tcp_alias/0-1 add_tcp_alias/0-1"
    " add_local_rport/0"
    " set_reply_close/0 set_reply_no_connect/0 set_forward_close/0 set_forward_no_connect/0"
    " exec/1 error/2"
    " append_branch/0-2 remove_branch/0-1 clear_branches/0"
    " force_send_socket/1 set_advertised_address/1 set_advertised_port/1 udp_mtu_try_proto/1"
    " cfg_select/1-2 cfg_reset/1 avpflags/0-1"
)
_FLAGS = 32


class Core(Plugin):
    """Always loaded."""

    name = "core"

    def __init__(self) -> None:
        self.flags: dict[str, int] = {}
        self.words = (
            PseudoVariable("null", get=lambda packet: None, module="core", help="Null."),
            PseudoVariable(
                "_s",
                kind=Kind.STR,
                null=False,
                get=lambda packet, text: text,
                bind=_bind_text,
                module="core",
                help="The text in the parentheses, its pseudo-variables expanded.",
            ),
            *(
                PseudoVariable(
                    name,
                    kind=Kind.INT,
                    null=False,
                    reads="rc",
                    module="core",
                    help="What the last function or route returned.",
                )
                for name in ("rc", "retcode", "?")
            ),
            *self._flag_functions("setflag", "resetflag", "isflagset", "flags"),
            *self._flag_functions("setavpflag", "resetavpflag", "isavpflagset", "avpflags"),
            *_accepted.functions(_NO_OPERATIONS, "core"),
            *_ruri.functions(),
        )

    def accepted_module(self, name: str) -> Plugin | None:
        """The module *name* when it is one that is loaded and does nothing, else None."""
        return _accepted.make(name)

    def accepted_modules(self) -> list[str]:
        """Names of the modules that are loaded and do nothing."""
        return sorted(_accepted.ACCEPTED)

    def flag(self, value: str | int) -> int:
        """The number of a flag; one named without a number gets the highest that is free.

        Raises ValueError for a number that is no flag's.
        """
        text = str(value)
        if not text.isdigit():
            if text not in self.flags:
                taken = set(self.flags.values())
                free = (number for number in range(_FLAGS - 1, -1, -1) if number not in taken)
                self.flags[text] = next(free, 0)
            return self.flags[text]
        if int(text) >= _FLAGS:
            raise ValueError(f"a flag is a number from 0 to {_FLAGS - 1}, not {text}")
        return int(text)

    @script_function("log")
    def log(self, packet: Packet, text: Plain) -> None:
        """Log *text* as it is written, at level debug."""
        packet.log(DEBUG, text)

    @script_function("log")
    def log_at(self, packet: Packet, level: int, text: Plain) -> None:
        """Log *text* as it is written, at a level from -5 (alert) to 3 (debug)."""
        packet.log(level, text)

    @pseudo_variable("env")
    def env(self, packet: Packet, name: str) -> str | None:
        """A variable of the environment; null when it is not set."""
        return os.environ.get(name)

    @env.bind
    def bind_env(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_text(argument, index)

    def _flag_functions(
        self, set_name: str, reset_name: str, test_name: str, place: str
    ) -> list[ScriptFunction]:
        """Three functions on one set of flags, kept as a number in the packet's scratch."""
        parameters = (Parameter("flag", ParameterKind.CONSTANT, convert=self.flag),)

        def set_flag(packet: Packet, flag: int, *_: object) -> None:
            packet.scratch[place] = packet.scratch.get(place, 0) | 1 << flag

        def reset_flag(packet: Packet, flag: int, *_: object) -> None:
            packet.scratch[place] = packet.scratch.get(place, 0) & ~(1 << flag)

        def is_flag_set(packet: Packet, flag: int, *_: object) -> bool:
            return bool(packet.scratch.get(place, 0) >> flag & 1)

        made: list[tuple[str, Callable[..., bool | None], str]] = [
            (set_name, set_flag, "Set a flag of the packet."),
            (reset_name, reset_flag, "Take a flag of the packet away."),
            (test_name, is_flag_set, "Whether the packet has a flag."),
        ]
        return [
            ScriptFunction(
                name, call, parameters, returns_bool=call is is_flag_set, module="core", help=text
            )
            for name, call, text in made
        ]


def _bind_text(argument: Text | None, index: Text | None) -> tuple[object, ...]:
    if argument is None:
        raise ValueError("expected text in parentheses")
    if index is not None:
        raise ValueError("it takes no index")
    return (argument if argument.constant is None else argument.constant,)
