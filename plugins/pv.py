"""pv: the pseudo-variables of a SIP message, variables, AVPs, time, selects, transformations.

For a HEP packet they tell of the captured packet, not of the agent's datagram.
"""

from __future__ import annotations

import os

from homerd.api import (
    Kind,
    ModParam,
    Packet,
    Plugin,
    PseudoVariable,
    Text,
    Value,
    Worker,
    hookimpl,
    pseudo_variable,
)
from homerd_plugins import _avps, _bindings, _ruri
from homerd_plugins._endpoints import Endpoints
from homerd_plugins._headers import Headers
from homerd_plugins._identities import Identities
from homerd_plugins._moments import Moments
from homerd_plugins._selects import Select, compile_select
from homerd_plugins._transformations import Transformations

VERSION = "5.6.3"  # the Kamailio whose language this is

_VN, _VZ = "\0vn\0", "\0vz\0"  # their places beside $var; a NUL cannot stand in its name

_CONSTANTS = {
    "IPv4": 2,
    "IPv6": 10,
    "INET": 2,
    "INET6": 10,
    "UDP": 1,
    "TCP": 2,
    "TLS": 3,
    "SCTP": 4,
    "WS": 5,
    "WSS": 6,
}


class Preset:
    """`varset` and `shvset` of modparam: `name=i:1` or `name=s:text`."""

    @staticmethod
    def from_script(value: str | int) -> tuple[str, str | int]:
        name, equals, rest = str(value).partition("=")
        kind, colon, text = rest.partition(":")
        if not (equals and colon and kind in ("i", "s") and name):
            raise ValueError(f'expected name=i:number or name=s:text, got "{value}"')
        try:
            return name, int(text) if kind == "i" else text
        except ValueError:
            raise ValueError(f'expected a number after i:, got "{text}"') from None


def _attribute(
    name: str, reads: str, kind: Kind = Kind.STR, *, null: bool = True, help: str
) -> PseudoVariable:
    return PseudoVariable(name, kind=kind, null=null, reads=reads, module="pv", help=help)


def _party(name: str, reads: str, help: str) -> PseudoVariable:
    """Of From and To; an assignment would change what is sent, and is not seen, as in Kamailio."""
    return PseudoVariable(
        name, kind=Kind.STR, reads=reads, set=_assign_nothing, module="pv", help=help
    )


def _assign_nothing(packet: Packet, value: Value) -> None:
    """What is sent is no part of a capture server."""


def _null(packet: Packet) -> None:
    """Nothing."""


def _flags(letter: str, kind: str) -> tuple[PseudoVariable, PseudoVariable]:
    """The flags of one kind, as a number and as text."""
    place = {"m": "flags", "s": "sflags", "b": "bflags"}[letter]

    def assign(packet: Packet, value: Value) -> None:
        if not isinstance(value, str):
            packet.scratch[place] = (value or 0) & 0xFFFFFFFF

    return (
        PseudoVariable(
            f"{letter}f",
            kind=Kind.INT,
            null=False,
            get=lambda packet: packet.scratch.get(place, 0),
            set=assign,
            module="pv",
            help=f"The packet's {kind}flags as a number.",
        ),
        PseudoVariable(
            f"{letter}F",
            kind=Kind.STR,
            null=False,
            get=lambda packet: f"{packet.scratch.get(place, 0):08x}",
            set=assign,
            module="pv",
            help=f"The packet's {kind}flags as eight hexadecimal digits.",
        ),
    )


def _kept(name: str, help: str) -> PseudoVariable:
    """Null until the script assigns to it."""

    def assign(packet: Packet, value: Value) -> None:
        packet.scratch[name] = value if isinstance(value, str) else None

    return PseudoVariable(
        name,
        kind=Kind.STR,
        get=lambda packet: packet.scratch.get(name),
        set=assign,
        module="pv",
        help=help,
    )


class Pv(Plugin, Transformations, Endpoints, Headers, Identities, Moments):
    """Pseudo-variables and transformations."""

    name = "pv"

    shvset = ModParam(Preset, many=True, help='first value of a $shv: "name=i:1", "name=s:text"')
    varset = ModParam(Preset, many=True, help='first value of a $var: "name=i:1", "name=s:text"')

    words = (
        PseudoVariable(
            "var",
            null=False,
            reads="variables[]",
            writes=True,
            null_becomes=0,
            bind=lambda argument, index: (_bindings.name_only(argument, index),),
            module="pv",
            help="A variable of the worker; 0 until it is set, kept from packet to packet.",
        ),
        PseudoVariable(
            "vz",
            null=False,
            reads="variables[]",
            writes=True,
            null_becomes=0,
            bind=lambda argument, index: (_VZ + _bindings.name_only(argument, index),),
            module="pv",
            help="As $var.",
        ),
        _attribute("rm", "sip.method", help="Method; of a reply the one in its CSeq."),
        _attribute("rs", "sip.status", Kind.INT, help="Status of a reply; null in a request."),
        _attribute("rr", "sip.reason", help="Reason phrase of a reply."),
        _party("fu", "sip.from_uri", "URI of From."),
        _party("fU", "sip.from_user", "User of From."),
        _party("fd", "sip.from_host", "Host of From."),
        _party("fn", "sip.from_name", "Display name of From, with its quotes."),
        _attribute("ft", "sip.from_tag", help="Tag of From."),
        _party("tu", "sip.to_uri", "URI of To."),
        _party("tU", "sip.to_user", "User of To."),
        _party("td", "sip.to_host", "Host of To."),
        _party("tn", "sip.to_name", "Display name of To, with its quotes."),
        _attribute("tt", "sip.to_tag", help="Tag of To; null without one."),
        _attribute("ci", "sip.call_id", help="Call-ID."),
        _attribute("cs", "sip.cseq_number", help="Number of CSeq, as text."),
        _attribute("csb", "sip.cseq", help="CSeq whole."),
        _attribute("ct", "sip.contact_body", help="Body of Contact."),
        _attribute("cT", "sip.content_type", help="Content-Type."),
        _attribute("cl", "sip.content_length", Kind.INT, help="Content-Length."),
        _attribute("ua", "sip.user_agent", help="User-Agent."),
        _attribute("rb", "sip.body", null=False, help="Body, empty when there is none."),
        _attribute("mb", "sip.text", null=False, help="The whole message."),
        _attribute("mbu", "sip.text", null=False, help="As $mb."),
        _attribute("si", "src_ip", null=False, help="Source address."),
        _attribute("sp", "frame.src_port", Kind.INT, null=False, help="Source port."),
        *_ruri.words(),
        *_flags("m", ""),
        *_flags("s", "script "),
        *_flags("b", "branch "),
        _kept("fs", "Null until the script assigns a socket: nothing is sent."),
        _kept("br", "Null until the script assigns a branch: nothing is sent."),
        *(
            PseudoVariable(name, get=_null, module="pv", help="Null: nothing is sent.")
            for name in ("ds", "conid", "Rn")
        ),
        *(
            PseudoVariable(f"err.{part}", get=_null, module="pv", help="Null.")
            for part in ("class", "level", "info", "rcode", "rreason")
        ),
        *(
            PseudoVariable(
                name,
                get=_null,
                bind=lambda argument, index: (),
                module="pv",
                help="Null: nothing is sent.",
            )
            for name in ("snd", "sndto", "sndfrom", "rcv")
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[str, str | int] = {}
        self.messages = 0
        self._statistics: set[str] = set()

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Give the variables of varset their first values."""
        for name, value in self.varset:
            worker.preset(name, value)
        self.script_swapped(worker)

    @hookimpl
    def script_swapped(self, worker: Worker) -> None:
        """Have the statistics counted that the script names."""
        for name in self._statistics:
            worker.statistics.expect(name)

    # $vn, $shv

    @pseudo_variable("vn")
    def vn(self, packet: Packet, key: str) -> Value:
        """As $var, but null until it is set."""
        return packet.variables.get(key)

    @vn.setter
    def set_vn(self, packet: Packet, value: Value, key: str) -> None:
        if value is None:
            packet.variables.pop(key, None)
        else:
            packet.variables[key] = value

    @vn.bind
    def bind_vn(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return (_VN + _bindings.name_only(argument, index),)

    @pseudo_variable("shv", null_becomes=0)
    def shv(self, packet: Packet, name: str) -> Value:
        """A variable of all routes and timers of the worker; 0 until it is set."""
        shared = self.shared
        if name in shared:
            return shared[name]
        return next((value for key, value in self.shvset if key == name), 0)

    @shv.setter
    def set_shv(self, packet: Packet, value: Value, name: str) -> None:
        self.shared[name] = 0 if value is None else value

    @shv.bind
    def bind_shv(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return (_bindings.name_only(argument, index),)

    # $avp, $xavp

    @pseudo_variable("avp")
    def avp(self, packet: Packet, name: str, index: object) -> Value:
        """A value of the packet's; assignment pushes, `[i]` reads older values, `[*]` all."""
        return _avps.read(_avps.stacks_of(packet), name, index)

    @avp.setter
    def set_avp(self, packet: Packet, value: Value, name: str, index: object) -> None:
        _avps.write(_avps.stacks_of(packet), value, name, index)

    @avp.bind
    def bind_avp(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return (*_avps.bind_name(argument), _avps.bind_index(index))

    @pseudo_variable("xavp")
    def xavp(self, packet: Packet, root: str, place: object, key: str, index: object) -> Value:
        """A field of a record of the packet's: `root=>key`, `root[i]=>key[j]`."""
        return _avps.read_xavp(_avps.roots_of(packet, "xavp"), root, place, key, index)

    @xavp.setter
    def set_xavp(
        self, packet: Packet, value: Value, root: str, place: object, key: str, index: object
    ) -> None:
        _avps.write_xavp(_avps.roots_of(packet, "xavp"), value, root, place, key, index)

    @xavp.bind
    def bind_xavp(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _avps.bind_xavp(argument)

    @pseudo_variable("xavu")
    def xavu(self, packet: Packet, root: str, place: object, key: str, index: object) -> Value:
        """As $xavp, but each name holds one value."""
        return _avps.read_xavp(_avps.roots_of(packet, "xavu"), root, place, key, index)

    @xavu.setter
    def set_xavu(
        self, packet: Packet, value: Value, root: str, place: object, key: str, index: object
    ) -> None:
        roots = _avps.roots_of(packet, "xavu")
        record = roots.setdefault(root, [{}])[0]
        if value is None:
            record.pop(key, None)
        else:
            record[key] = [value]

    @xavu.bind
    def bind_xavu(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _avps.bind_xavp(argument)

    @pseudo_variable("xavi")
    def xavi(self, packet: Packet, root: str, place: object, key: str, index: object) -> Value:
        """As $xavp; names in any case are the same."""
        roots = _avps.roots_of(packet, "xavi")
        return _avps.read_xavp(roots, root.lower(), place, key.lower(), index)

    @xavi.setter
    def set_xavi(
        self, packet: Packet, value: Value, root: str, place: object, key: str, index: object
    ) -> None:
        roots = _avps.roots_of(packet, "xavi")
        _avps.write_xavp(roots, value, root.lower(), place, key.lower(), index)

    @xavi.bind
    def bind_xavi(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _avps.bind_xavp(argument)

    # The message

    @pseudo_variable("mt")
    def mt(self, packet: Packet) -> int:
        """1 for a request, 2 for a reply."""
        return 2 if packet.sip.is_reply else 1

    @pseudo_variable("mts")
    def mts(self, packet: Packet) -> str:
        """`rq` for a request, `rp` for a reply."""
        return "rp" if packet.sip.is_reply else "rq"

    @pseudo_variable("ml")
    def ml(self, packet: Packet) -> int:
        """Length of the message in bytes."""
        return len(packet.sip.raw)

    @pseudo_variable("bs")
    def bs(self, packet: Packet) -> int:
        """Length of the body in bytes."""
        return self.s_len(packet.sip.body)

    @pseudo_variable("rv")
    def rv(self, packet: Packet) -> str:
        """Version of the protocol."""
        return "SIP/2.0"

    @pseudo_variable("sel")
    def sel(self, packet: Packet, select: Select) -> str | None:
        """A select: `via[1].host`, `contact.uri.host`, `cfg_get.group.field`."""
        return select(packet)

    @sel.bind
    def bind_sel(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None or argument.constant is None:
            raise ValueError("expected a select such as via[1].host")
        return (compile_select(argument.constant),)

    # The process and the script

    @pseudo_variable("pp")
    def pid(self, packet: Packet) -> int:
        """Number of the process."""
        return os.getpid()

    @pseudo_variable("mi")
    def message_id(self, packet: Packet) -> int:
        """A number of the packet's own, counted in this process."""
        scratch = packet.scratch
        if "mi" not in scratch:
            self.messages += 1
            scratch["mi"] = self.messages
        number: int = scratch["mi"]
        return number

    @pseudo_variable("sid")
    def server_id(self, packet: Packet) -> int:
        """The server's number: 0."""
        return 0

    @pseudo_variable("K")
    def constant(self, packet: Packet, number: int) -> int:
        """A number by its name: IPv4, IPv6, INET, INET6, UDP, TCP, TLS, SCTP, WS, WSS."""
        return number

    @constant.bind
    def bind_constant(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_CONSTANTS, argument, index)

    @pseudo_variable("version")
    def version(self, packet: Packet, text: str) -> str:
        """`num`: the Kamailio version whose language this is; `full`: with the product's name."""
        return text

    @version.bind
    def bind_version(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        known = {"num": VERSION, "full": f"homerd (kamailio {VERSION})"}
        return _bindings.one_of(known, argument, index)

    @pseudo_variable("stat")
    def stat(self, packet: Packet, name: str) -> int | None:
        """A statistic, `name` or `group:name`; null when it is not known.  May be set."""
        return packet.state.statistics.value(name, packet)

    @stat.setter
    def set_stat(self, packet: Packet, value: Value, name: str) -> None:
        number = value if isinstance(value, int) else self.s_int(value or "0")
        packet.state.statistics[name] = number or 0

    @stat.bind
    def bind_stat(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        bound = _bindings.text(argument)
        if isinstance(bound[0], str):
            self._statistics.add(bound[0])
        return bound
