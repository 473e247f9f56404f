"""The rows of Homer 5: columns, widths, tables, and how a packet becomes a row.

The row is the one Kamailio's sipcapture writes (5.6.3, held against its rows), with five
deliberate differences: folded headers are unfolded and blanks at their ends cut, brackets of IPv6
addresses stay in the domains alone, headers are found in any case of letters, X-OIP is split at its
port, and a message whose parts cannot be read is stored with what can.
"""

from __future__ import annotations

import re
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from homerd.api import Frame, ModParam, Packet, SipMessage, parse_name_addr, parse_uri

Cell = str | int | float | bytes | None
Row = tuple[Cell, ...]

INTEGER, BIGINT, REAL, TEXT = "INTEGER", "BIGINT", "REAL", "TEXT"
ALONE, BEHIND_TIME = "alone", "behind time"
# So many characters of four bytes fit into an index of each store.
MOST_WIDTH = 512


class ColumnWidths:
    """`column_width`: `COLUMN=CHARACTERS;…`, of text columns in tables that are made."""

    @classmethod
    def from_script(cls, text: str | int) -> dict[str, int]:
        """Read modparam's value."""
        widths: dict[str, int] = {}
        for item in filter(str.strip, str(text).split(";")):
            key, _, number = (part.strip() for part in item.partition("="))
            if key not in _WIDE:
                raise ValueError(f'"{key}" is no text column with a width, as callid')
            if not number.isdecimal() or not 1 <= int(number) <= MOST_WIDTH:
                raise ValueError(f'expected {key}=1 to {MOST_WIDTH} characters, got "{number}"')
            widths[key] = int(number)
        return widths


class Column(NamedTuple):
    """One column: what it is, its SQL type and, for text, how many characters Homer 5 declares.

    parameter: what modparam's `…_column` calls it, where that is not its key.
    renamed: its name where the operator gave another one.
    nullable: whether NULL stays NULL, and is not '' or 0.
    index: ALONE or BEHIND_TIME, for layouts that say themselves what is looked for.
    """

    key: str
    type: str = TEXT
    width: int = 0
    parameter: str = ""
    renamed: str = ""
    nullable: bool = False
    index: str = ""

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self.renamed or self.key


# In the order Kamailio binds them.
SIP_COLUMNS = (
    Column("date", TEXT, 19),
    Column("micro_ts", INTEGER),
    Column("method", TEXT, 50),
    Column("reply_reason", TEXT, 100),
    Column("ruri", TEXT, 200),
    Column("ruri_user", TEXT, 100),
    Column("from_user", TEXT, 100),
    Column("from_tag", TEXT, 64),
    Column("to_user", TEXT, 100),
    Column("to_tag", TEXT, 64),
    Column("pid_user", TEXT, 100),
    Column("contact_user", TEXT, 120),
    Column("auth_user", TEXT, 120),
    Column("callid", TEXT, 120),
    Column("callid_aleg", TEXT, 120),
    Column("via_1", TEXT, 256),
    Column("via_1_branch", TEXT, 80),
    Column("cseq", TEXT, 25),
    Column("reason", TEXT, 200),
    Column("content_type", TEXT, 256),
    Column("auth", TEXT, 256, "authorization"),
    Column("user_agent", TEXT, 256),
    Column("source_ip", TEXT, 60),
    Column("source_port", INTEGER),
    Column("destination_ip", TEXT, 60),
    Column("destination_port", INTEGER),
    Column("contact_ip", TEXT, 60),
    Column("contact_port", INTEGER),
    Column("originator_ip", TEXT, 60),
    Column("originator_port", INTEGER),
    Column("proto", INTEGER),
    Column("family", INTEGER),
    Column("rtp_stat", TEXT, 256),
    Column("type", INTEGER),
    Column("node", TEXT, 125),
    Column("correlation_id", TEXT, 256, "correlation"),
    Column("from_domain", TEXT, 150),
    Column("to_domain", TEXT, 150),
    Column("ruri_domain", TEXT, 150),
    Column("diversion", TEXT, 256),
    Column("msg", TEXT, 3000),
    Column("custom_field1", TEXT, 120),
    Column("custom_field2", TEXT, 120),
    Column("custom_field3", TEXT, 120),
)
# Module parameter -> the column whose name it sets.
COLUMN_PARAMETERS = {
    f"{column.parameter or column.key}_column": column.key for column in SIP_COLUMNS
}

_BY_KEY = {column.key: column for column in SIP_COLUMNS}
_WIDE = {column.key for column in SIP_COLUMNS if column.width} - {"date", "msg"}
REPORT_COLUMNS = (
    _BY_KEY["date"],
    _BY_KEY["micro_ts"],
    _BY_KEY["correlation_id"],
    _BY_KEY["source_ip"],
    _BY_KEY["source_port"],
    _BY_KEY["destination_ip"],
    _BY_KEY["destination_port"],
    _BY_KEY["proto"],
    _BY_KEY["family"],
    _BY_KEY["type"],
    _BY_KEY["node"],
    _BY_KEY["msg"],
)

# Kamailio's numbers for the IP protocols 17 udp, 6 tcp, 22 (agents' mark of tls) and 132 sctp.
KAMAILIO_PROTOCOLS = {17: 1, 6: 2, 22: 3, 132: 4}
REQUEST, REPLY = 1, 2

RTP_STAT_HEADERS = (
    "x-rtp-stat-add",
    "x-rtp-stat-t38",
    "x-rtp-stat",
    "p-rtp-stat",
    "x-siemens-rtp-stats",
    "x-ng-rtp-stats",
    "rtp-rxstat",
)

# HEP payload type -> (table, number in the column "type"), where no script looks at the packet
REPORT_TABLES = {
    5: ("rtcp_capture", 3),
    32: ("report_capture", 2),
    **{number: ("report_capture", number) for number in range(33, 39)},
    99: ("report_capture", 4),
    100: ("logs_capture", 5),
}
# Kamailio knows none of these as reports: where SIP is in one, it is a message as any other.
SIP_OR_REPORT = range(33, 39)

# HEP payload types of vq-rtcpxr, alone or in its PUBLISH, and the line in it that names its call.
_VQ_RTCPXR = (35, 99)
_CALL_ID_LINE = re.compile(rb"^[ \t]*CallID[ \t]*:([^\r\n]*)", re.I | re.M)

# The tables of Homer 5, with the date or number that rotation puts behind a name.
_FAMILY = re.compile(
    r"sip_capture(?:_(?:call|registration|rest))?|(?:rtcp|report|logs|webrtc|isup|dns)_capture(?:_all)?",
    re.I | re.A,
)
_ROTATED = re.compile(r"[A-Za-z_]\w*?[0-9]+", re.A)
_TABLE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}", re.A)
_RESERVED = ("sqlite_", "pg_")

# username = quoted-string or token, among the parameters of a Digest
_USERNAME = re.compile(
    r"""(?:^|[\s,])username[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))""", re.I
)


@dataclass(slots=True)
class Settings:
    """What the script's parameters say of a row.

    callid_aleg, custom: names of headers, lower case; of the former the first that is there counts.
    node_from_chunk: whether the agent's own name (chunk 0x13) stands in place of the server's.
    protocols: IP protocol -> number in the column "proto"; 0 for others.
    bad, cleaned: fields that could not be read, rows whose text was mended; by column and reason.
    """

    node: str = "homer01"
    callid_aleg: tuple[str, ...] = ("x-cid",)
    custom: tuple[str, str, str] = ("mac", "ip", "port")
    node_from_chunk: bool = False
    protocols: dict[int, int] = field(default_factory=lambda: KAMAILIO_PROTOCOLS)
    bad: Counter[str] = field(default_factory=Counter)
    cleaned: int = 0
    _second: int = -1
    _date: str = ""

    def date(self, seconds: int) -> str:
        """*seconds* since 1970 as `YYYY-MM-DD HH:MM:SS`, UTC."""
        if seconds != self._second:
            # Hot path: strftime is 1.5 µs, and thousands of packets share a second.
            self._date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
            self._second = seconds
        return self._date


def format_of(layouts: Iterable[Iterable[Column]]) -> int:
    """A number that changes with the columns: rows on disk of another one fit no more."""
    return zlib.crc32(repr([[column.key for column in layout] for layout in layouts]).encode())


def column_params() -> Iterator[ModParam]:
    """The module parameter of each column's name."""
    for name, key in COLUMN_PARAMETERS.items():
        param = ModParam(str, key, help="name of the column")
        param.name = name
        yield param


def is_table_name(name: str) -> bool:
    """Whether *name* can be a table of captured messages."""
    return _TABLE_NAME.fullmatch(name) is not None and not name.lower().startswith(_RESERVED)


def is_family(name: str) -> bool:
    """Whether *name*, without date or number, is that of tables of Homer 5."""
    return _FAMILY.fullmatch(name) is not None


def has_rotated_name(name: str) -> bool:
    """Whether *name* is a table of Homer 5, or a base name with the number rotation gives it."""
    return is_family(name) or _ROTATED.fullmatch(name) is not None


def sip_row(packet: Packet, settings: Settings) -> Row | None:
    """The row of SIP_COLUMNS; None when the payload's first line is not SIP's.

    Absent text is "", but NULL where a URI has no user, a contact is "*", a preferred identity
    cannot be read, a digest has no username, and always in "auth".
    """
    # Hot path: one function, 9 µs; each helper call would add 0.1.
    frame = packet.hep
    sip = packet.sip
    if sip.is_request:
        method: str = sip.method or ""
        ruri = sip.received_ruri or ""
        ruri_user: str | None = sip.ruri_user
        ruri_domain: str | None = sip.ruri_host
        if ruri_user is None and ruri_domain is None:
            ruri_user = _unread("ruri", settings)
        kind, reply_reason = REQUEST, ""
    elif sip.is_reply:
        method = str(sip.status)
        kind, reply_reason = REPLY, sip.reason or ""
        ruri = ruri_user = ruri_domain = ""
    else:
        return None

    bodies = sip.first_bodies
    from_user, from_domain = sip.from_user, sip.from_host
    if from_user is None and from_domain is None:
        from_user = _unread("from", settings) if "from" in bodies else ""
    to_user, to_domain = sip.to_user, sip.to_host
    if to_user is None and to_domain is None:
        to_user = _unread("to", settings) if "to" in bodies else ""
    contact_user: str | None = ""
    contact_ip: str | None = ""
    contact_port: int = 0
    if "contact" in bodies:
        contact_user, contact_ip = sip.contact_user, sip.contact_host
        if contact_user == "*":
            contact_ip = None
        elif contact_ip is None:
            contact_ip = ""
            if contact_user is None:
                contact_user = _unread("contact", settings)
        else:
            if contact_ip[0] == "[":
                contact_ip = contact_ip[1:-1]
            port = sip.contact_port
            contact_port = int(port) if port and len(port) < 6 else 0

    callid = bodies.get("call-id", "").strip(" \t\r")
    callid_aleg = ""
    for name in settings.callid_aleg:
        if name in bodies:
            callid_aleg = bodies[name].strip(" \t\r")
            break
    custom1, custom2, custom3 = settings.custom
    seconds = frame.seconds
    if seconds:
        micros = frame.micros
    else:
        seconds, micros = packet.seconds, packet.micros
    if micros >= 1_000_000:
        seconds, micros = seconds + micros // 1_000_000, micros % 1_000_000
    correlation_id = frame.correlation_id
    originator = bodies.get("x-oip")
    text: Cell = sip.text
    row: Row = (
        settings.date(seconds),
        seconds * 1_000_000 + micros,
        method,
        reply_reason,
        ruri,
        ruri_user,
        from_user,
        sip.from_tag or "",
        to_user,
        sip.to_tag or "",
        _pid_user(bodies, settings),
        contact_user,
        _auth_user(bodies),
        callid,
        callid_aleg,
        bodies.get("via", "").strip(" \t\r"),
        sip.via_branch or "",
        bodies.get("cseq", "").strip(" \t\r"),
        bodies.get("reason", "").strip(" \t\r"),
        bodies.get("content-type", "").strip(" \t\r"),
        None,
        bodies.get("user-agent", "").strip(" \t\r"),
        frame.src_ip,
        frame.src_port,
        frame.dst_ip,
        frame.dst_port,
        contact_ip,
        contact_port,
        *(("", 0) if originator is None else _host_and_port(originator)),
        settings.protocols.get(frame.protocol, 0),
        frame.family or None,
        "" if _NO_RTP_STAT(bodies) else _rtp_stat(bodies),
        kind,
        node(frame, settings),
        correlation_id.partition("\0")[0] if correlation_id else callid,
        from_domain or "",
        to_domain or "",
        ruri_domain or "",
        bodies.get("diversion", "").strip(" \t\r"),
        text,
        bodies.get(custom1, "").strip(" \t\r"),
        bodies.get(custom2, "").strip(" \t\r"),
        bodies.get(custom3, "").strip(" \t\r"),
    )
    if not sip.text.isascii() or "\0" in sip.text:
        return _cleaned(row, sip, settings)
    return row


def report_row(
    packet: Packet,
    settings: Settings,
    kind: int,
    correlation_id: str | None = None,
    data: str | None = None,
) -> Row:
    """The row of REPORT_COLUMNS.

    correlation_id, data: None for told_correlation_id() (else the Call-ID) and the whole payload.
    """
    frame = packet.hep
    if frame.seconds:
        micro_ts = frame.seconds * 1_000_000 + frame.micros
    else:
        micro_ts = packet.seconds * 1_000_000 + packet.micros
    if correlation_id is None:
        correlation_id = told_correlation_id(frame) or packet.sip.call_id or ""
    return (
        settings.date(micro_ts // 1_000_000),
        micro_ts,
        storable(correlation_id.partition("\0")[0]),
        frame.src_ip,
        frame.src_port,
        frame.dst_ip,
        frame.dst_port,
        settings.protocols.get(frame.protocol, 0),
        frame.family or None,
        kind,
        node(frame, settings),
        _text_or_bytes(frame.payload) if data is None else storable(data),
    )


def told_correlation_id(frame: Frame) -> str:
    """The envelope's id; without it the call that a voice quality report names itself."""
    if frame.correlation_id or frame.payload_type not in _VQ_RTCPXR:
        return frame.correlation_id or ""
    found = _CALL_ID_LINE.search(frame.payload)
    return found[1].strip().decode("utf-8", "surrogateescape") if found else ""


def node(frame: Frame, settings: Settings) -> str:
    """The server's name, a colon and the agent's number; the name alone for bare SIP and HEP 1."""
    capture_id = frame.capture_id
    if settings.node_from_chunk and frame.extra and "node_name" in frame.extra:
        name = frame.extra["node_name"]
        return name if capture_id is None else f"{name}:{capture_id}"
    return settings.node if capture_id is None else f"{settings.node}:{capture_id}"


_NO_RTP_STAT = frozenset(RTP_STAT_HEADERS).isdisjoint


def _unread(name: str, settings: Settings) -> str:
    settings.bad[name] += 1
    return ""


def _pid_user(bodies: dict[str, str], settings: Settings) -> str | None:
    """User of the first identity: asserted, else preferred, else Remote-Party-ID."""
    body = bodies.get("p-asserted-identity")
    if body is None:
        body = bodies.get("p-preferred-identity")
        if body is None:
            body = bodies.get("remote-party-id")
            if body is None:
                return ""
    uri = parse_uri(parse_name_addr(body.strip(" \t\r")).uri)
    if uri is None:
        settings.bad["identity"] += 1
        return None
    return uri.user or None


def _auth_user(bodies: dict[str, str]) -> str | None:
    """User part of a digest's username: Proxy-Authorization, else Authorization."""
    body = bodies.get("proxy-authorization") or bodies.get("authorization")
    if not body:
        return ""
    scheme, _, rest = body.strip(" \t\r").partition(" ")
    if scheme.lower() != "digest":
        return ""
    found = _USERNAME.search(rest)
    if found is None:
        return None
    return (found[1] if found[1] is not None else found[2]).partition("@")[0]


def _host_and_port(body: str) -> tuple[str, int]:
    """`192.0.2.1:5060` or `[2001:db8::1]:5060` in its parts; port 0 when there is none."""
    body = body.strip(" \t\r")
    if body[:1] == "[":
        host, _, port = body[1:].partition("]")
        port = port[1:]
    elif body.count(":") > 1:
        host, port = body, ""
    else:
        host, _, port = body.partition(":")
    return host.strip(" \t"), int(port) if port.isdecimal() and len(port) < 6 else 0


def _rtp_stat(bodies: dict[str, str]) -> str:
    return next(bodies[name].strip(" \t\r") for name in RTP_STAT_HEADERS if name in bodies)


def _cleaned(row: Row, sip: SipMessage, settings: Settings) -> Row:
    """*row* with text any store takes; the message is bytes when it is no UTF-8."""
    message = _text_or_bytes(sip.raw)
    if isinstance(message, str) and "\0" not in message:
        return row
    cells = tuple(storable(cell) if isinstance(cell, str) else cell for cell in row)
    at = _MESSAGE
    if isinstance(message, bytes) or cells[:at] != row[:at] or cells[at + 1 :] != row[at + 1 :]:
        settings.cleaned += 1
    return (*cells[:at], message, *cells[at + 1 :])


_MESSAGE = [column.key for column in SIP_COLUMNS].index("msg")


def _text_or_bytes(data: bytes) -> Cell:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def storable(text: str) -> str:
    """*text* with U+FFFD where bytes were no UTF-8 or a NUL stood."""
    if not text.isascii():
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a character, which JSON can spell
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        else:
            text = data.decode("utf-8", "replace")
    return text.replace("\0", "\ufffd")
