"""exec: shell commands from the script.  Off unless `modparam("exec", "enabled", 1)`.

While it is off functions return -1 and are counted.  A command whose result the script cannot see
(a statement of its own, in a script that never reads $rc) runs beside the packets, when the script
is done with this one; for all others every packet waits, at most `timeout` seconds.

A command is pasted together by the script and read by a shell: what came from the network should
reach it by the environment (SIP_HF_FROM …) or on standard input, where the message stands.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

from homerd.api import (
    ConfigError,
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    ScriptFunction,
    Worker,
    Writable,
    hookimpl,
    script_function,
)
from homerd_plugins import _avps
from homerd_plugins._commands import Command, Commands, Outcome, run

log = logging.getLogger("homerd.exec")

STOP_SECONDS = 5.0
_NAMES = {"call-id": "CALLID"}  # the one name that Kamailio spells otherwise
_AVP = re.compile(r"\$avp\(\s*(?:s:)?([^)\s]+)\s*\)")


class AvpNames(tuple[str, ...]):
    """`$avp(a);$avp(b)`: where lines of output go."""

    __slots__ = ()

    @staticmethod
    def from_script(value: str | int) -> tuple[str, ...]:
        names = []
        for item in str(value).split(";"):
            found = _AVP.fullmatch(item.strip())
            if found is None:
                raise ValueError(f'expected "$avp(a);$avp(b)", got "{value}"')
            names.append(found[1])
        return tuple(names)


class Exec(Plugin):
    """Runs shell commands."""

    name = "exec"

    enabled = ModParam(bool, False, help="1: commands are run; without it none is")
    timeout = ModParam(
        float, 1.0, reloadable=True, help="seconds that all packets wait for a command at most"
    )
    time_to_kill = ModParam(
        float, 60.0, help="seconds after which a command that nobody waits for is killed"
    )
    max_processes = ModParam(int, 8, help="commands that run at once, of those nobody waits for")
    max_waiting = ModParam(int, 1000, help="commands that may wait; more are refused")
    setvars = ModParam(bool, True, reloadable=True, help="0: no SIP_… in the environment")
    bufsize = ModParam(int, 32768, help="accepted")

    @property
    def waits_seconds(self) -> float:
        """How long a packet waits at most, as its parameters say."""
        return self.timeout

    def __init__(self) -> None:
        self.commands: Commands | None = None
        self.off = 0
        self._runs = False
        self.words = (
            self._function("exec_msg", self.exec_msg, self._with_message, "The message on its"),
            self._function("exec_cmd", self.exec_cmd, self._without_message, "Nothing on its"),
        )

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """A script that loads the module most likely wants to use it."""
        if not self.enabled:
            yield Problem(
                "exec is off: its functions run nothing and return -1",
                help='if commands shall run: modparam("exec", "enabled", 1)',
                warning=True,
            )

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Check the numbers."""
        for name in ("timeout", "time_to_kill", "max_processes", "max_waiting"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f'modparam("exec", "{name}", {getattr(self, name):g}):'
                    " expected a number above 0"
                )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Say it when commands may run."""
        self.commands = Commands(
            running=self.max_processes, waiting=self.max_waiting, timeout=self.time_to_kill
        )
        self._runs = self.enabled and worker.deliver
        if self._runs:
            log.warning(
                "exec is enabled: the script may run shell commands processes=%d timeout=%gs",
                self.max_processes,
                self.timeout,
            )

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """Wait a little for what runs."""
        if self.commands is not None:
            self.commands.stop(STOP_SECONDS)

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Commands by how they ended."""
        counts = {} if self.commands is None else dict(self.commands.counts)
        for result, count in {**counts, "off": self.off}.items():
            yield "homerd_exec_commands_total", {"result": result}, count

    def exec_msg(self, packet: Packet, command: str) -> int:
        """Run *command* with the message on its standard input; true when its status is 0."""
        return self._status(self._run(Command(command, *self._message(packet))))

    def exec_cmd(self, packet: Packet, command: str) -> int:
        """Run *command* without input; true when its status is 0."""
        return self._status(self._run(Command(command)))

    @script_function("exec_avp")
    def exec_avp(self, packet: Packet, command: str) -> int:
        """Run *command*; the n-th line it prints goes to $avp(i:n), empty ones left out."""
        return self._lines(packet, command, None)

    @script_function("exec_avp")
    def exec_avp_named(self, packet: Packet, command: str, names: AvpNames) -> int:
        """The same; lines go to `$avp(a);$avp(b)` in turn, further ones are dropped."""
        return self._lines(packet, command, names)

    @script_function
    def exec_dset(self, packet: Packet, command: str) -> int:
        """Run *command*; true when it prints something.  Nothing is sent on, so no URI is set."""
        outcome = self._run(Command(command, environment=self._environment(packet)), output=True)
        return self._status(outcome) if outcome.output.strip() else -1

    # OpenSIPS

    @script_function("exec")
    def exec(self, packet: Packet, command: str) -> int:
        """Run *command*, as OpenSIPS has it; true when its status is 0."""
        return self._status(self._run(Command(command, environment=self._environment(packet))))

    @script_function("exec")
    def exec_with(self, packet: Packet, command: str, stdin: str) -> int:
        """The same with *stdin* on its standard input."""
        return self._status(self._run(self._told(packet, command, stdin)))

    @script_function("exec")
    def exec_to(self, packet: Packet, command: str, stdin: str, output: Writable) -> int:
        """The same; *output* gets what it prints."""
        outcome = self._run(self._told(packet, command, stdin), output=True)
        output.set(packet, outcome.output.decode("utf-8", "surrogateescape"))
        return self._status(outcome)

    def _function(
        self,
        name: str,
        call: Callable[[Packet, str], int],
        make: Callable[[Packet, str], Command],
        help: str,
    ) -> ScriptFunction:
        def unasked(packet: Packet, command: str) -> None:
            if self._allowed() and self.commands is not None:
                packet.emit(self.commands, make(packet, command))

        return ScriptFunction(
            name,
            call,
            (Parameter("command", ParameterKind.TEXT),),
            module=self.name,
            help=f"Run *command*.  {help} standard input; true when its status is 0.",
            unasked=unasked,
        )

    def _with_message(self, packet: Packet, command: str) -> Command:
        return Command(command, *self._message(packet))

    def _without_message(self, packet: Packet, command: str) -> Command:
        return Command(command)

    def _allowed(self) -> bool:
        if not self.enabled:
            self.off += 1
        return self.enabled

    def _run(self, command: Command, *, output: bool = False) -> Outcome:
        if not self._allowed() or not self._runs or self.commands is None:
            return Outcome("not_run")
        outcome = run(command, self.timeout, output=output)
        self.commands.count(outcome.result)
        return outcome

    def _status(self, outcome: Outcome) -> int:
        return 1 if outcome.result == "ok" else -1

    def _lines(self, packet: Packet, command: str, names: tuple[str, ...] | None) -> int:
        outcome = self._run(Command(command, environment=self._environment(packet)), output=True)
        text = outcome.output.decode("utf-8", "surrogateescape")
        lines = [line.rstrip("\r\n\t ") for line in text.split("\n")]
        lines = [line for line in lines if line]
        places = names or [f"i:{number}" for number in range(1, len(lines) + 1)]
        for place, line in zip(places, lines, strict=False):
            _avps.write(_avps.stacks_of(packet), line, place, None)
        return self._status(outcome)

    def _told(self, packet: Packet, command: str, stdin: str) -> Command:
        return Command(command, stdin.encode("utf-8", "surrogateescape"), self._environment(packet))

    def _message(self, packet: Packet) -> tuple[bytes, dict[str, str]]:
        return packet.sip.raw, self._environment(packet)

    def _environment(self, packet: Packet) -> dict[str, str]:
        """SIP_HF_… for each header, and what Kamailio tells of a request besides."""
        if not self.setvars:
            return {}
        sip = packet.sip
        told = {
            "SIP_SRCIP": packet.src_ip,
            "SIP_RURI": sip.ruri or "",
            "SIP_ORUI": sip.ruri or "",
            "SIP_USER": sip.ruri_user or "",
            "SIP_OUSER": sip.ruri_user or "",
            "SIP_DID": sip.to_tag or "",
        }
        for name in sip.header_names():
            body = ",".join(sip.headers(name))
            told[f"SIP_HF_{_NAMES.get(name.lower(), _spelled(name))}"] = body
        return {name: value.replace("\0", "") for name, value in told.items()}


def _spelled(name: str) -> str:
    """A header's name as a variable's: capitals, digits and _ only."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
