"""captagent: the words of capture plans.

Loaded by itself for a file of plans. What captagent keeps in XML files are parameters here: where
`send_hep("NAME")` sends to is a profile of that name.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from homerd.api import (
    BatchSink,
    Const,
    ModParam,
    Outline,
    Packet,
    Parameter,
    ParameterKind,
    Place,
    Plugin,
    PosixPattern,
    Problem,
    Rejected,
    Sample,
    ScriptFunction,
    Worker,
    compile_posix,
    hookimpl,
    script_function,
)
from homerd_plugins import _isup, _plan_json, _plan_tests
from homerd_plugins._hep_frames import emit_frame, payload_type
from homerd_plugins._hep_out import HepSink
from homerd_plugins._hep_profile import Profile

SIP = 1  # HEP payload type

_ERROR, _NOTICE, _DEBUG = -1, 1, 3
_NO_SIP = "a script sends no SIP; listen=collector:ADDRESS:PORT answers phones by itself"
_NO_KEYS = "TLS is not decrypted"
_NO_DIAMETER = "Diameter is not read"


class NoProfile(BatchSink):
    """Takes what is sent to profiles that nobody defined, and counts it as refused."""

    spools = False

    def write(self, batch: list[Any]) -> None:  # (profile, …)
        """Nowhere to write to."""
        names = ", ".join(sorted({str(profile) for profile, *_ in batch}))
        raise Rejected(range(len(batch)), f"no profile {names}")

    def describe(self, record: Any) -> dict[str, Any]:
        """The profile that it was for."""
        return {"table": record[0], "target": record[0], "record": {}}


class Pattern:
    """A named regular expression, `NAME=>pattern`."""

    def __init__(self, name: str, pattern: PosixPattern) -> None:
        self.name = name
        self.pattern = pattern

    @staticmethod
    def from_script(value: str | int) -> Pattern:
        name, arrow, pattern = str(value).partition("=>")
        if not name.strip() or not arrow:
            raise ValueError(f'expected NAME=>pattern, got "{value}"')
        return Pattern(name.strip(), compile_posix(pattern))


class Captagent(Plugin):
    """The words of capture plans."""

    name = "captagent"

    profile = ModParam(
        Profile, many=True, help="where send_hep sends to: NAME=>target=udp:10.0.0.1:9060"
    )
    json_profile = ModParam(
        Profile, many=True, help="where send_json sends to: NAME=>target=tcp:10.0.0.1:9000"
    )
    custom_header = ModParam(str, "", help='the header that header_check("custom", …) looks at')
    regexp = ModParam(
        Pattern, many=True, help="a pattern for header_regexp_match: NAME=>expression"
    )

    def __init__(self) -> None:
        self.sinks: dict[str, HepSink] = {}
        self.json_sinks: dict[str, HepSink] = {}
        self.nowhere = {word: NoProfile(word) for word in ("send_hep", "send_json")}
        self.nowhere_started: set[str] = set()
        self.undefined: set[tuple[str, str]] = set()
        self.not_sent: Counter[str] = Counter()
        self.sent_json = 0

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; a name defined twice is a ValueError."""
        if isinstance(value, Profile | Pattern) and any(
            each.name == value.name for each in getattr(self, name)
        ):
            raise ValueError(f'"{value.name}" is defined already')
        if isinstance(value, Profile):
            if name == "profile":
                self.sinks[value.name] = HepSink(value)
            else:
                value = replace(value, acknowledge="no")
                self.json_sinks[value.name] = HepSink(value, f"json:{value.name}")
        super().set_mod_param(name, value)

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """What is sent to a profile that is not there is lost."""
        for word, name in sorted(self.undefined):
            parameter = "profile" if word == "send_hep" else "json_profile"
            yield Problem(
                f'no profile "{name}": what {word}("{name}") sends is lost',
                parameter=parameter,
                help=f'modparam("captagent", "{parameter}", "{name}=>target=udp:192.0.2.1:9060")',
                warning=True,
            )

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Start a sink for each profile."""
        for sink in (*self.sinks.values(), *self.json_sinks.values()):
            worker.add_sink(sink)
        self.script_swapped(worker)

    @hookimpl
    def script_swapped(self, worker: Worker) -> None:
        """Start what takes the records for profiles that are not there, once they are used."""
        for word in sorted({word for word, _ in self.undefined} - self.nowhere_started):
            worker.add_sink(self.nowhere[word])
            self.nowhere_started.add(word)

    @hookimpl
    def metrics(self) -> Iterable[Sample]:
        """What became of packets on their way out."""
        for reason, count in self.not_sent.items():
            yield Sample("homerd_captagent_not_sent_total", {"reason": reason}, count)

    @hookimpl
    def script_functions(self) -> Iterable[ScriptFunction]:
        """Those with constants of their own, and those that homerd cannot carry out."""
        yield from super().script_functions()
        constant = ParameterKind.CONSTANT
        value = Parameter("value", constant, convert=str)
        hep = Parameter("profile", constant, convert=self._hep_sink)
        for word, test, parameters, help in (
            (
                "msg_check",
                self._check,
                (_selector("packet"), value),
                "Compare a fact of the packet.",
            ),
            ("sip_check", self._check, (_selector("message"), value), "The same of the message."),
            ("send_hep", self._send_hep, (hep, replace(hep, required=False)), "Send the packet."),
            ("send_hep_raw", self._send_hep, (hep,), "The same."),
            (
                "send_hep_proto",
                self._send_hep_as,
                (hep, Parameter("type", constant, convert=payload_type)),
                "The same with another payload type.",
            ),
            (
                "send_json",
                self._send_json,
                (Parameter("profile", constant, convert=self._json_sink),),
                "Send the packet as a line of JSON, with captagent's keys.",
            ),
        ):
            yield ScriptFunction(
                word, test, parameters, returns_bool=True, module=self.name, help=help
            )
        code = (
            Parameter("code", constant, convert=str),
            Parameter("reason", constant, convert=str),
        )
        for word, parameters, why, call in (
            ("send_reply", (), _NO_SIP, _yes),
            ("send_reply", code, _NO_SIP, _yes),
            ("send_rtcpxr_reply", (), _NO_SIP, _yes),
            ("send_rtcpxr_reply", code, _NO_SIP, _yes),
            ("parse_tls", (), _NO_KEYS, _no),
            ("is_diameter", (), _NO_DIAMETER, _no),
            ("parse_diameter_to_json", (), _NO_DIAMETER, _no),
        ):
            yield ScriptFunction(
                word,
                call,
                parameters,
                returns_bool=True,
                module=self.name,
                help=f"Does nothing, and is {'true' if call is _yes else 'false'}: {why}.",
                does_nothing=why,
            )

    # SIP

    @script_function
    def parse_sip(self, packet: Packet, place: Place) -> bool:
        """Whether the payload is a SIP message; as a loop's condition, its messages one by one."""
        return _parse(packet, place)

    @script_function
    def parse_full_sip(self, packet: Packet, place: Place) -> bool:
        """The same."""
        return _parse(packet, place)

    @script_function
    def light_parse_sip(self, packet: Packet, place: Place) -> bool:
        """The same."""
        return _parse(packet, place)

    @script_function
    def sip_is_method(self, packet: Packet) -> bool:
        """Whether the message is a request."""
        return packet.sip.is_request

    @script_function
    def sip_has_sdp(self, packet: Packet) -> bool:
        """Whether the message describes media."""
        return _plan_tests.has_sdp(packet.sip)

    @script_function
    def source_ip(self, packet: Packet, value: Const[str]) -> bool:
        """msg_check("source_ip", value)."""
        return packet.src_ip.startswith(value)

    @script_function
    def header_check(self, packet: Packet, name: Const[str], value: Const[str]) -> bool:
        """Whether a header begins with *value*; "useragent" and "custom" stand for theirs."""
        return (self._header(packet, name) or "").startswith(value)

    @script_function
    def header_regexp_match(self, packet: Packet, name: Const[str], regexp: Const[str]) -> bool:
        """Whether the pattern named *regexp* is found in a header, or in the message: "raw"."""
        pattern = next((each.pattern for each in self.regexp if each.name == regexp), None)
        if name.startswith(("body", "raw")):
            found: str | None = packet.sip.text
        else:
            found = self._header(packet, name)
        return pattern is not None and bool(found) and bool(pattern.search(found or ""))

    @script_function
    def set_tag(self, packet: Packet, key: Const[str], value: Const[str]) -> None:
        """Add KEY=VALUE to the tags that are sent along."""
        extra = dict(packet.frame.extra or {})
        extra["tags"] = ";".join(filter(None, [extra.get("tags", ""), f"{key}={value}"]))
        _change(packet, extra=extra)

    @script_function
    def is_flag_set(self, packet: Packet, number: Const[int], value: Const[int]) -> bool:
        """Whether a flag of the packet has this value; nothing sets one, so all are 0."""
        return value == 0

    # Media

    @script_function
    def check_rtcp_ipport(self, packet: Packet) -> bool:
        """Whether the message says where media will flow; homerd takes note of that by itself."""
        return _plan_tests.has_sdp(packet.sip)

    @script_function
    def check_redis_rtcp_ipport(self, packet: Packet) -> bool:
        """The same; what is known is kept in memory, not in Redis."""
        return _plan_tests.has_sdp(packet.sip)

    @script_function
    def is_rtcp(self, packet: Packet) -> bool:
        """Whether the packet is RTCP."""
        return _plan_tests.is_rtcp(packet)

    @script_function
    def is_rtcp_or_rtp(self, packet: Packet) -> bool:
        """Whether the packet is RTCP or RTP."""
        return _plan_tests.is_rtcp_or_rtp(packet)

    @script_function
    def is_rtcpxr(self, packet: Packet) -> bool:
        """Whether the packet is an extended report of RTCP."""
        return _plan_tests.is_extended_report(packet)

    @script_function
    def is_rtcp_exist(self, packet: Packet) -> bool:
        """Whether the call of an RTCP packet is known."""
        return bool(packet.frame.correlation_id)

    @script_function
    def is_rtcp_exists(self, packet: Packet) -> bool:
        """The same."""
        return bool(packet.frame.correlation_id)

    @script_function
    def is_redis_rtcp_exist(self, packet: Packet) -> bool:
        """The same; what is known is kept in memory, not in Redis."""
        return bool(packet.frame.correlation_id)

    @script_function
    def set_rtcp_flag(self, packet: Packet) -> None:
        """Send the packet as RTCP, whatever it holds."""
        _change(packet, payload_type=_plan_tests.RTCP_TYPE)

    @script_function
    def parse_rtcp_to_json(self, packet: Packet) -> bool:
        """Make JSON of RTCP; false when it reports nothing."""
        return _convert(packet, _plan_json.of_rtcp(packet.frame), _plan_tests.RTCP_TYPE)

    @script_function
    def parse_rtcpxr_to_json(self, packet: Packet) -> bool:
        """The same."""
        return _convert(packet, _plan_json.of_rtcp(packet.frame), _plan_tests.RTCP_TYPE)

    @script_function
    def parse_isup_to_json(self, packet: Packet) -> bool:
        """Make JSON of the ISUP message in a packet of M2UA, M3UA or M2PA."""
        frame = packet.frame
        try:
            found = _isup.decode(frame.payload, frame.payload_type or 0)
        except ValueError:
            return False
        return _convert(packet, [found], _plan_tests.ISUP_TYPE)

    @script_function
    def tzsp_payload_extract(self, packet: Packet) -> bool:
        """True: what was captured over TZSP is unwrapped before a plan sees it."""
        return True

    @script_function
    def clog(self, packet: Packet, level: Const[str], text: Const[str]) -> None:
        """Log *text*: an error, a notice or for debugging, by the first letter of *level*."""
        number = {"E": _ERROR, "N": _NOTICE}.get(level[:1].upper(), _DEBUG)
        packet.log(number, text + "\n")

    # What the words share

    def _check(self, packet: Packet, test: _plan_tests.Test, value: str) -> bool:
        return test(packet, value)

    def _header(self, packet: Packet, name: str) -> str | None:
        if name == "custom":
            return packet.sip.header(self.custom_header) if self.custom_header else None
        if name.lower() in ("useragent", "user-agent"):
            return packet.sip.user_agent
        return packet.sip.header(name)

    def _hep_sink(self, value: str | int) -> HepSink | str:
        return self._sink("send_hep", self.sinks, str(value))

    def _json_sink(self, value: str | int) -> HepSink | str:
        return self._sink("send_json", self.json_sinks, str(value))

    def _sink(self, word: str, sinks: dict[str, HepSink], name: str) -> HepSink | str:
        if name not in sinks:
            self.undefined.add((word, name))
        return sinks.get(name, name)

    def _send_hep(self, packet: Packet, *sinks: HepSink | str) -> bool:
        done = True
        for sink in sinks:
            done = self._send(packet, sink, None) and done
        return done

    def _send_hep_as(self, packet: Packet, sink: HepSink | str, kind: int) -> bool:
        return self._send(packet, sink, kind)

    def _send(self, packet: Packet, sink: HepSink | str, kind: int | None) -> bool:
        if isinstance(sink, str):
            return packet.emit(self.nowhere["send_hep"], (sink,))
        return emit_frame(packet, sink, self.not_sent, packet.call_id, kind)

    def _send_json(self, packet: Packet, sink: HepSink | str) -> bool:
        if isinstance(sink, str):
            return packet.emit(self.nowhere["send_json"], (sink,))
        self.sent_json += 1
        told = _plan_json.of_packet(packet, self.sent_json, int(time.time()), sink.profile)
        return packet.emit(sink, (_plan_json.line(told), packet.call_id))


def _selector(of: str) -> Parameter:
    table = _plan_tests.PACKET if of == "packet" else _plan_tests.MESSAGE
    convert = _plan_tests.selector(table)
    return Parameter("selector", ParameterKind.CONSTANT, convert=convert)


class _Messages:
    """Where a plan is among the messages of a payload.

    asked: the places of parse_sip() and its like that were told of the current message.
    """

    __slots__ = ("asked", "rest")

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self.asked: set[Place] = set()


def _parse(packet: Packet, place: Place) -> bool:
    """Whether there is a message; asked again at the same place, as a loop does, the next one."""
    at: _Messages | None = packet.scratch.get("plan_messages")
    if at is None:
        at = packet.scratch["plan_messages"] = _Messages(packet.frame.payload)
        _go_on(packet, at)
    elif place in at.asked:
        at.asked.clear()
        if not at.rest:
            return False
        _go_on(packet, at)
    at.asked.add(place)
    return (packet.sip.is_request or packet.sip.is_reply) and bool(packet.sip.call_id)


def _go_on(packet: Packet, at: _Messages) -> None:
    message, at.rest = _plan_tests.messages(at.rest)
    if message is not packet.frame.payload:
        _change(packet, payload=message, payload_type=SIP)


def _convert(packet: Packet, found: list[Any], kind: int) -> bool:
    """Replace the payload by what was made of it."""
    if not found:
        return False
    payload = json.dumps(found[0], separators=(",", ":"), ensure_ascii=False).encode()
    _change(packet, payload=payload, payload_type=kind)
    return True


def _change(packet: Packet, **changes: Any) -> None:
    """Go on with a packet that is like this one but for *changes*, and no longer as it came."""
    frame = copy.copy(packet.frame)
    frame.raw = b""
    for name, value in changes.items():
        setattr(frame, name, value)
    packet.become(frame)


def _yes(packet: Packet, *arguments: str) -> bool:
    return True


def _no(packet: Packet) -> bool:
    return False
