"""hep: passes packets on, as HEP over UDP, TCP or TLS.

A profile says where to and how, `send_hep("central")` sends the packet there. A HEP packet leaves
as it came, byte for byte, unless the profile changes something of it; addresses, ports, time,
correlation id and every chunk are kept when it is written anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from homerd.api import (
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    Sample,
    ScriptFunction,
    Worker,
    hookimpl,
)
from homerd_plugins._hep_frames import emit_frame, line_of, payload_type
from homerd_plugins._hep_out import HepSink
from homerd_plugins._hep_profile import Profile


class Hep(Plugin):
    """Passes packets on."""

    name = "hep"

    profile = ModParam(
        Profile,
        many=True,
        help="a way out: NAME=>target=tls:10.0.0.1:9061,tcp:10.0.0.2:9060;capture_id=2001",
    )

    def __init__(self) -> None:
        super().__init__()
        self.sinks: dict[str, HepSink] = {}
        self.not_sent: Counter[str] = Counter()

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; a profile defined twice is a ValueError."""
        if isinstance(value, Profile):
            if any(each.name == value.name for each in self.profile):
                raise ValueError(f'the profile "{value.name}" is defined already')
            self.sinks[value.name] = HepSink(value)
        super().set_mod_param(name, value)

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """A module without a profile sends nothing."""
        if not self.profile:
            yield Problem(
                'module "hep" has no profile: nothing is passed on',
                help='modparam("hep", "profile", "central=>target=tcp:192.0.2.1:9060")',
                warning=True,
            )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start a sink for each profile."""
        for sink in self.sinks.values():
            worker.add_sink(sink)

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """What became of packets on their way out."""
        for name, sink in self.sinks.items():
            label = {"profile": name}
            yield Sample("homerd_hep_acknowledged_total", label, sink.acknowledged)
            yield Sample("homerd_hep_failovers_total", label, sink.failovers)
            yield Sample("homerd_hep_refused_total", label, sink.refused)
        for reason, count in self.not_sent.items():
            yield Sample("homerd_hep_not_sent_total", {"reason": reason}, count)

    @hookimpl
    def script_functions(self) -> Iterable[ScriptFunction]:
        """Functions whose argument names a profile, which is looked up while compiling."""
        profile = Parameter("profile", ParameterKind.CONSTANT, convert=self._hep_sink)
        lines = Parameter("profile", ParameterKind.CONSTANT, convert=self._json_sink)
        kind = Parameter("type", ParameterKind.CONSTANT, convert=payload_type)
        yield ScriptFunction(
            "send_hep",
            self.send_hep,
            (profile,),
            returns_bool=True,
            variadic=True,
            module=self.name,
            help="Send the packet to each of the profiles. False, and counted, when it does not fit"
            " into a frame.",
        )
        yield ScriptFunction(
            "send_hep_proto",
            self.send_hep_proto,
            (profile, kind),
            returns_bool=True,
            module=self.name,
            help="As send_hep, with another payload type.",
        )
        yield ScriptFunction(
            "send_json",
            self.send_json,
            (lines,),
            returns_bool=True,
            module=self.name,
            help="Send the packet as a line of JSON to a profile with format=json: the fields of"
            " `homerd replay`'s INPUT, without the key.",
        )

    def send_hep(self, packet: Packet, *sinks: HepSink) -> bool:
        """See script_functions."""
        done = True
        for sink in sinks:
            done = self._send(packet, sink, None) and done
        return done

    def send_hep_proto(self, packet: Packet, sink: HepSink, kind: int) -> bool:
        """See script_functions."""
        return self._send(packet, sink, kind)

    def send_json(self, packet: Packet, sink: HepSink) -> bool:
        """See script_functions."""
        return packet.emit(sink, (line_of(packet, sink.profile), _share_key(packet, sink)))

    def _send(self, packet: Packet, sink: HepSink, kind: int | None) -> bool:
        return emit_frame(packet, sink, self.not_sent, _share_key(packet, sink), kind)

    def _sink(self, value: str | int) -> HepSink:
        sink = self.sinks.get(str(value))
        if sink is None:
            known = ", ".join(sorted(self.sinks)) or "none"
            raise ValueError(f'no profile "{value}"; there is {known}')
        return sink

    def _hep_sink(self, value: str | int) -> HepSink:
        sink = self._sink(value)
        if sink.profile.format != "hep":
            raise ValueError(f'the profile "{value}" is one of send_json()')
        return sink

    def _json_sink(self, value: str | int) -> HepSink:
        sink = self._sink(value)
        if sink.profile.format != "json":
            raise ValueError(f'the profile "{value}" needs format=json')
        return sink


def _share_key(packet: Packet, sink: HepSink) -> str:
    return packet.call_id if sink.profile.balance == "callid" else ""
