"""pv: the pseudo-variables of a SIP message, variables, AVPs, time, selects, transformations.

For a HEP packet they tell of the captured packet, not of the agent's datagram.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from homerd.api import (
    Kind,
    ModParam,
    NameAddr,
    Packet,
    Plugin,
    PseudoVariable,
    Text,
    Value,
    parse_name_addr,
    parse_uri,
    pseudo_variable,
)
from homerd_plugins import _avps
from homerd_plugins._selects import Select, compile_select
from homerd_plugins._transformations import Transformations

VERSION = "5.6.3"  # the Kamailio whose language this is

_VN, _VZ = "\0vn\0", "\0vz\0"  # their places beside $var; a NUL cannot stand in its name

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

# Digest credentials: name "=" ( quoted / token ), separated by commas.
_CREDENTIAL = re.compile(r"""([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*)""", re.DOTALL)
_WITHOUT_CREDENTIALS = frozenset({"ACK", "CANCEL"})
_LIST_HEADERS = frozenset(
    {"via", "contact", "record-route", "route", "diversion", "p-asserted-identity", "path"}
)
_ELEMENT = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<])+""", re.DOTALL)
_FULL_NAMES = {"v": "via", "m": "contact"}


class Shared:
    """`shvset` of modparam: `name=i:1` or `name=s:text`."""

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


def _name_only(argument: Text | None, index: Text | None) -> str:
    if argument is None:
        raise ValueError("expected a name in parentheses")
    if index is not None:
        raise ValueError("it takes no index")
    return argument.source


def _attribute(
    name: str, reads: str, kind: Kind = Kind.STR, *, null: bool = True, help: str
) -> PseudoVariable:
    return PseudoVariable(name, kind=kind, null=null, reads=reads, module="pv", help=help)


def _always_null(name: str) -> PseudoVariable:
    """Where Kamailio would send the message to: no part of a capture router; may be assigned to."""
    return PseudoVariable(
        name, get=lambda packet: None, set=lambda packet, value: None, module="pv", help="Null."
    )


class Pv(Plugin, Transformations):
    """Pseudo-variables and transformations."""

    name = "pv"

    shvset = ModParam(Shared, many=True, help='first values of $shv: "name=i:1", "name=s:text"')

    words = (
        PseudoVariable(
            "var",
            null=False,
            reads="variables[]",
            writes=True,
            null_becomes=0,
            bind=lambda argument, index: (_name_only(argument, index),),
            module="pv",
            help="A variable of the worker; 0 until it is set, kept from packet to packet.",
        ),
        PseudoVariable(
            "vz",
            null=False,
            reads="variables[]",
            writes=True,
            null_becomes=0,
            bind=lambda argument, index: (_VZ + _name_only(argument, index),),
            module="pv",
            help="As $var.",
        ),
        _attribute("rm", "sip.method", help="Method; of a reply the one in its CSeq."),
        _attribute("rs", "sip.status", Kind.INT, help="Status of a reply; null in a request."),
        _attribute("rr", "sip.reason", help="Reason phrase of a reply."),
        _attribute("ru", "sip.ruri", help="R-URI; null in a reply."),
        _attribute("rU", "sip.ruri_user", help="User of the R-URI; null when it has none."),
        _attribute("rd", "sip.ruri_host", help="Host of the R-URI."),
        _attribute("ou", "sip.ruri", help="As $ru."),
        _attribute("oU", "sip.ruri_user", help="As $rU."),
        _attribute("od", "sip.ruri_host", help="As $rd."),
        _attribute("fu", "sip.from_uri", help="URI of From."),
        _attribute("fU", "sip.from_user", help="User of From."),
        _attribute("fd", "sip.from_host", help="Host of From."),
        _attribute("fn", "sip.from_name", help="Display name of From, with its quotes."),
        _attribute("ft", "sip.from_tag", help="Tag of From."),
        _attribute("tu", "sip.to_uri", help="URI of To."),
        _attribute("tU", "sip.to_user", help="User of To."),
        _attribute("td", "sip.to_host", help="Host of To."),
        _attribute("tn", "sip.to_name", help="Display name of To, with its quotes."),
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
        *map(_always_null, ("du", "dd", "dp", "dP", "ds", "fs", "br")),
    )

    def __init__(self) -> None:
        self.shared: dict[str, str | int] = {}
        self.messages = 0
        self._started = time.time()
        self._formatted: dict[tuple[str, bool], tuple[int, str]] = {}

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
        return (_VN + _name_only(argument, index),)

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
        return (_name_only(argument, index),)

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

    # The message

    @pseudo_variable("mt")
    def mt(self, packet: Packet) -> int:
        """1 for a request, 2 for a reply."""
        return 2 if packet.sip.is_reply else 1

    @pseudo_variable("ml")
    def ml(self, packet: Packet) -> int:
        """Length of the message in bytes."""
        return len(packet.sip.raw)

    @pseudo_variable("bs")
    def bs(self, packet: Packet) -> int:
        """Length of the body in bytes."""
        return self.s_len(packet.sip.body)

    @pseudo_variable("rp")
    def rp(self, packet: Packet) -> str | None:
        """Port of the R-URI, 5060 when it has none; null in a reply."""
        return (packet.sip.ruri_port or "5060") if packet.sip.ruri else None

    @pseudo_variable("op")
    def op(self, packet: Packet) -> str | None:
        """As $rp."""
        return (packet.sip.ruri_port or "5060") if packet.sip.ruri else None

    @pseudo_variable("rP")
    def ruri_transport(self, packet: Packet) -> str | None:
        """Transport of the R-URI, udp when it names none; null in a reply."""
        uri = packet.sip.ruri
        return (self.uri_transport(uri) or "udp").lower() if uri else None

    @pseudo_variable("oP")
    def original_transport(self, packet: Packet) -> str | None:
        """As $rP."""
        uri = packet.sip.ruri
        return (self.uri_transport(uri) or "udp").lower() if uri else None

    @pseudo_variable("rv")
    def rv(self, packet: Packet) -> str:
        """Version of the protocol."""
        return "SIP/2.0"

    @pseudo_variable("hdr")
    def hdr(self, packet: Packet, name: str, index: object) -> str | None:
        """Body of a header; `[i]` the i-th, negative from the end, `[*]` all joined by a comma."""
        if index is None:
            return packet.sip.header(name)
        return _pick(packet.sip.headers(name), index)

    @hdr.bind
    def bind_hdr(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_header(argument, index)

    @pseudo_variable("hdrc")
    def hdrc(self, packet: Packet, name: str, index: object) -> int:
        """How many headers of that name there are."""
        return len(packet.sip.headers(name))

    @hdrc.bind
    def bind_hdrc(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_header(argument, index)

    @pseudo_variable("hfl")
    def hfl(self, packet: Packet, name: str, index: object) -> str | None:
        """An element of a header that lists several, over all headers of that name."""
        bodies = packet.sip.headers(name)
        wanted = name.lower()
        if _FULL_NAMES.get(wanted, wanted) not in _LIST_HEADERS:
            return _pick(bodies, 0 if index is None else index)
        elements = [found.strip() for body in bodies for found in _ELEMENT.findall(body)]
        if isinstance(index, int) and index < 0:
            return None
        return _pick([element for element in elements if element], 0 if index is None else index)

    @hfl.bind
    def bind_hfl(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_header(argument, index)

    @pseudo_variable("sel")
    def sel(self, packet: Packet, select: Select) -> str | None:
        """A select: `via[1].host`, `contact.uri.host`, `cfg_get.group.field`."""
        return select(packet)

    @sel.bind
    def bind_sel(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        if argument is None or argument.constant is None:
            raise ValueError("expected a select such as via[1].host")
        return (compile_select(argument.constant),)

    # Addresses

    @pseudo_variable("Ri")
    def received_ip(self, packet: Packet) -> str:
        """Address the packet came to; for HEP the captured source, as Kamailio 5.6 has it."""
        return packet.src_ip if packet.frame.version else packet.dst_ip

    @pseudo_variable("Rp")
    def received_port(self, packet: Packet) -> int:
        """Port the packet came to; for HEP the captured source's."""
        return packet.frame.src_port if packet.frame.version else packet.frame.dst_port

    @pseudo_variable("RAi")
    def advertised_ip(self, packet: Packet) -> str:
        """As $Ri."""
        return packet.src_ip if packet.frame.version else packet.dst_ip

    @pseudo_variable("RAp")
    def advertised_port(self, packet: Packet) -> int:
        """As $Rp."""
        return packet.frame.src_port if packet.frame.version else packet.frame.dst_port

    @pseudo_variable("siz")
    def siz(self, packet: Packet) -> str:
        """Source address, in brackets for IPv6."""
        return _bracketed(packet.src_ip)

    @pseudo_variable("sas")
    def sas(self, packet: Packet) -> str:
        """Source as `proto:address:port`."""
        return f"{_protocol(packet)}:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"

    @pseudo_variable("su")
    def su(self, packet: Packet) -> str:
        """Source as a URI."""
        return f"sip:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"

    @pseudo_variable("sut")
    def sut(self, packet: Packet) -> str:
        """Source as a URI with its transport."""
        return f"{self._source_uri(packet)};transport={_protocol(packet)}"

    @pseudo_variable("Ru")
    def received_uri(self, packet: Packet) -> str:
        """$Ri and $Rp as a URI."""
        return self._received_uri(packet)

    @pseudo_variable("Rut")
    def received_uri_with_transport(self, packet: Packet) -> str:
        """$Ri and $Rp as a URI with the transport."""
        return f"{self._received_uri(packet)};transport={_protocol(packet)}"

    @pseudo_variable("pr")
    def pr(self, packet: Packet) -> str:
        """Transport: udp, or tcp for IP protocol 6."""
        return _protocol(packet)

    @pseudo_variable("proto")
    def proto(self, packet: Packet) -> str:
        """As $pr."""
        return _protocol(packet)

    @pseudo_variable("prid")
    def prid(self, packet: Packet) -> int:
        """Number of the transport: 1 udp, 2 tcp."""
        return 2 if packet.frame.protocol == 6 else 1

    # Credentials

    @pseudo_variable("aU")
    def auth_username(self, packet: Packet) -> str | None:
        """Username of the credentials, as sent; Proxy-Authorization before Authorization."""
        return _credentials(packet).get("username")

    @pseudo_variable("au")
    def auth_user(self, packet: Packet) -> str | None:
        """Username of the credentials, without `@domain`."""
        username = _credentials(packet).get("username")
        return None if username is None else username.partition("@")[0]

    @pseudo_variable("ad")
    def auth_domain(self, packet: Packet) -> str | None:
        """Domain of the credentials' username, empty when it has none."""
        username = _credentials(packet).get("username")
        return None if username is None else username.partition("@")[2]

    @pseudo_variable("ar")
    def auth_realm(self, packet: Packet) -> str | None:
        """Realm of the credentials."""
        return _credentials(packet).get("realm")

    @pseudo_variable("adu")
    def auth_uri(self, packet: Packet) -> str | None:
        """Digest URI of the credentials."""
        return _credentials(packet).get("uri")

    @pseudo_variable("aa")
    def auth_algorithm(self, packet: Packet) -> str | None:
        """Algorithm of the credentials, empty when they name none."""
        found = _credentials(packet)
        return found.get("algorithm", "") if found else None

    # Identities

    @pseudo_variable("re")
    def remote_party(self, packet: Packet) -> str | None:
        """URI of Remote-Party-ID."""
        return _header_uri(packet, "Remote-Party-ID")

    @pseudo_variable("ai")
    def asserted(self, packet: Packet) -> str | None:
        """URI of P-Asserted-Identity."""
        return _header_uri(packet, "P-Asserted-Identity")

    @pseudo_variable("pu")
    def preferred(self, packet: Packet) -> str | None:
        """URI of P-Preferred-Identity."""
        return _header_uri(packet, "P-Preferred-Identity")

    @pseudo_variable("pU")
    def preferred_user(self, packet: Packet) -> str | None:
        """User in P-Preferred-Identity."""
        uri = parse_uri(_header_uri(packet, "P-Preferred-Identity") or "")
        return (uri.user or None) if uri else None

    @pseudo_variable("pd")
    def preferred_domain(self, packet: Packet) -> str | None:
        """Domain in P-Preferred-Identity."""
        uri = parse_uri(_header_uri(packet, "P-Preferred-Identity") or "")
        return uri.host if uri else None

    @pseudo_variable("pn")
    def preferred_name(self, packet: Packet) -> str | None:
        """Display name in P-Preferred-Identity, with its quotes."""
        found = _header_address(packet, "P-Preferred-Identity")
        return (found.display or None) if found else None

    @pseudo_variable("rt")
    def refer_to(self, packet: Packet) -> str | None:
        """URI of Refer-To."""
        return _header_uri(packet, "Refer-To")

    @pseudo_variable("di")
    def diversion(self, packet: Packet) -> str | None:
        """URI of Diversion."""
        return _header_uri(packet, "Diversion")

    @pseudo_variable("dir")
    def diversion_reason(self, packet: Packet) -> str | None:
        """The reason in Diversion."""
        found = _header_address(packet, "Diversion")
        return found.parameter("reason") if found else None

    @pseudo_variable("dic")
    def diversion_counter(self, packet: Packet) -> str | None:
        """The counter in Diversion."""
        found = _header_address(packet, "Diversion")
        return found.parameter("counter") if found else None

    # Time: one moment for each packet

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
        key = _name_only(argument, index).strip()
        if key not in _TIMEVALS:
            raise ValueError(f'expected s, u, sn, un or Sn, got "{key}"')
        return (key,)

    @pseudo_variable("timef")
    def timef(self, packet: Packet, form: str) -> str:
        """The packet's moment in local time, with strftime."""
        return self._format(packet, form, utc=False)

    @timef.bind
    def bind_timef(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_text(argument)

    @pseudo_variable("utimef")
    def utimef(self, packet: Packet, form: str) -> str:
        """The packet's moment in UTC, with strftime."""
        return self._format(packet, form, utc=True)

    @utimef.bind
    def bind_utimef(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_text(argument)

    @pseudo_variable("time")
    def local_part(self, packet: Packet, part: Callable[[time.struct_time], int]) -> int:
        """A part of the local time: sec, min, hour, mday, mon, year, wday, yday or isdst."""
        return part(time.localtime(_moment(packet)))

    @local_part.bind
    def bind_local_part(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_part(argument, index)

    @pseudo_variable("utime")
    def utc_part(self, packet: Packet, part: Callable[[time.struct_time], int]) -> int:
        """The same of the time in UTC."""
        return part(time.gmtime(_moment(packet)))

    @utc_part.bind
    def bind_utc_part(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_part(argument, index)

    # The process and the script

    @pseudo_variable("mf")
    def message_flags(self, packet: Packet) -> int:
        """The packet's flags as a number."""
        flags: int = packet.scratch.get("flags", 0)
        return flags

    @pseudo_variable("mF")
    def message_flags_text(self, packet: Packet) -> str:
        """The packet's flags as eight hexadecimal digits."""
        return f"{packet.scratch.get('flags', 0):08x}"

    @pseudo_variable("sf")
    def script_flags(self, packet: Packet) -> int:
        """The packet's script flags as a number."""
        flags: int = packet.scratch.get("sflags", 0)
        return flags

    @pseudo_variable("sF")
    def script_flags_text(self, packet: Packet) -> str:
        """The packet's script flags as eight hexadecimal digits."""
        return f"{packet.scratch.get('sflags', 0):08x}"

    @pseudo_variable("bf")
    def branch_flags(self, packet: Packet) -> int:
        """The packet's branch flags as a number."""
        flags: int = packet.scratch.get("bflags", 0)
        return flags

    @pseudo_variable("bF")
    def branch_flags_text(self, packet: Packet) -> str:
        """The packet's branch flags as eight hexadecimal digits."""
        return f"{packet.scratch.get('bflags', 0):08x}"

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

    @pseudo_variable("version")
    def version(self, packet: Packet, key: str) -> str:
        """`num`: the Kamailio version whose language this is; `full`: with the product's name."""
        return VERSION if key == "num" else f"homerd (kamailio {VERSION})"

    @version.bind
    def bind_version(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        key = _name_only(argument, index)
        if key not in ("num", "full"):
            raise ValueError(f'expected num or full, got "{key}"')
        return (key,)

    @pseudo_variable("stat")
    def stat(self, packet: Packet, name: str) -> int | None:
        """A statistic, `name` or `group:name`; null when it is not known.  May be set."""
        return packet.state.statistics.get(name)

    @stat.setter
    def set_stat(self, packet: Packet, value: Value, name: str) -> None:
        number = value if isinstance(value, int) else self.s_int(value or "0")
        packet.state.statistics[name] = number or 0

    @stat.bind
    def bind_stat(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bind_text(argument)

    def _source_uri(self, packet: Packet) -> str:
        return f"sip:{_bracketed(packet.src_ip)}:{packet.frame.src_port}"

    def _received_uri(self, packet: Packet) -> str:
        frame = packet.frame
        if frame.version:
            return self._source_uri(packet)
        return f"sip:{_bracketed(packet.dst_ip)}:{frame.dst_port}"

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


def _protocol(packet: Packet) -> str:
    return "tcp" if packet.frame.protocol == 6 else "udp"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _credentials(packet: Packet) -> dict[str, str]:
    """Digest parameters by lower-case name; empty when there are no digest credentials."""
    sip = packet.sip
    body = sip.header("Proxy-Authorization") or sip.header("Authorization")
    if not body or sip.method in _WITHOUT_CREDENTIALS:
        return {}
    scheme, _, rest = body.partition(" ")
    if scheme.lower() != "digest":
        return {}
    return {
        name.lower(): value[1:-1] if value[:1] == '"' else value
        for name, value in _CREDENTIAL.findall(rest)
    }


def _header_address(packet: Packet, name: str) -> NameAddr | None:
    body = packet.sip.header(name)
    return parse_name_addr(body) if body else None


def _header_uri(packet: Packet, name: str) -> str | None:
    found = _header_address(packet, name)
    return (found.uri or None) if found else None


def _pick(bodies: list[str], index: object) -> str | None:
    """Element *index*, negative from the end, or all joined by a comma for `*`."""
    if not bodies:
        return None
    if isinstance(index, str):
        if index.strip() == "*":
            return ",".join(bodies)
        try:
            index = int(index)
        except ValueError:
            return None
    if isinstance(index, int) and -len(bodies) <= index < len(bodies):
        return bodies[index]
    return None


def _bind_header(argument: Text | None, index: Text | None) -> tuple[object, ...]:
    if argument is None:
        raise ValueError("expected a header's name in parentheses")
    name = argument.constant
    return (argument if name is None else name.strip(), _avps.bind_index(index))


def _bind_text(argument: Text | None) -> tuple[object, ...]:
    if argument is None:
        raise ValueError("expected text in parentheses")
    return (argument if argument.constant is None else argument.constant,)


def _bind_part(argument: Text | None, index: Text | None) -> tuple[object, ...]:
    key = _name_only(argument, index).strip()
    part = _BROKEN_DOWN.get(key)
    if part is None:
        raise ValueError(f'expected {", ".join(_BROKEN_DOWN)}, got "{key}"')
    return (part,)
