"""sip_capture_forward: what Kamailio's sipcapture sends on, through the sinks of the module "hep".

Each target that the script names has a sink of its own, with a spool.  What else a way out may
have, a key, other targets, a certificate to check, is for a profile and send_hep().
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from homerd.api import Packet, Parameter, ParameterKind, Sample, ScriptFunction, Worker, parse_uri
from homerd_plugins._hep_frames import emit_frame
from homerd_plugins._hep_out import HepSink
from homerd_plugins._hep_profile import DEFAULT_PORTS, Profile, Target

_TRANSPORT = re.compile(r"(?:^|;)transport=(\w+)", re.IGNORECASE)


class Forwards:
    """The targets of a script, and what could not be sent to them, by reason."""

    def __init__(self) -> None:
        self.sinks: dict[Target, HepSink] = {}
        self.not_sent: Counter[str] = Counter()
        self._started: set[Target] = set()

    def word(self, module: str) -> ScriptFunction:
        """The function of the script."""
        return ScriptFunction(
            "sip_capture_forward",
            self.forward,
            (Parameter("uri", ParameterKind.CONSTANT, convert=self._sink_to),),
            returns_bool=True,
            module=module,
            help="Send the packet on as HEP, byte for byte if it came as HEP 3.\n\n"
            "uri: sip:HOST:PORT;transport=udp, tcp or tls; udp and 9060 when it does not say. "
            "False, and counted, when the packet does not fit into a frame.",
        )

    def start(self, worker: Worker) -> None:
        """Start what the script that runs now names and none before did."""
        for target in self.sinks.keys() - self._started:
            self._started.add(target)
            worker.add_sink(self.sinks[target])

    def samples(self) -> Iterator[Sample]:
        """For /metrics."""
        for reason, count in self.not_sent.items():
            yield Sample("homerd_sipcapture_not_forwarded_total", {"reason": reason}, count)

    def forward(self, packet: Packet, sink: HepSink) -> bool:
        """See `word`."""
        return emit_frame(packet, sink, self.not_sent)

    def _sink_to(self, value: str | int) -> HepSink:
        target = _target_of(str(value))
        sink = self.sinks.get(target)
        if sink is None:
            name = f"forward:{target}"
            sink = self.sinks[target] = HepSink(Profile(name, (target,)), name)
        return sink


def _target_of(text: str) -> Target:
    uri = parse_uri(text)
    asked = _TRANSPORT.search(uri.params) if uri is not None else None
    scheme = asked[1].lower() if asked else "udp"
    if uri is None or not uri.host or scheme not in DEFAULT_PORTS:
        known = ", ".join(DEFAULT_PORTS)
        raise ValueError(f'expected sip:HOST:PORT, with ;transport= one of {known}, got "{text}"')
    return Target(scheme, uri.host.strip("[]"), int(uri.port or DEFAULT_PORTS[scheme]))
