"""The module "sipcapture": SIP messages and reports into the tables of Homer 5 or 7.

A table that the script names itself is made when it is missing.  A name that the script puts
together at run time may hold what came from the network: such a table is made only if it is one of
Homer's or ends in a number, as rotation names them, and at most COMPUTED_TABLES of them a day.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from homerd.api import (
    ConfigError,
    ConstantText,
    ModParam,
    Outline,
    Packet,
    PacketPolicy,
    Parameter,
    ParameterKind,
    Plugin,
    Problem,
    ScriptFunction,
    Statistics,
    Text,
    TextOrPv,
    Worker,
    hep_chunk,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins import _capture_raw
from homerd_plugins._capture_forward import Forwards
from homerd_plugins._capture_problems import ENTRY_EVENT, MAIN_ROUTE, problems
from homerd_plugins._capture_reports import is_message, product, store_report
from homerd_plugins._capture_stores import (
    DEFAULT_MODE,
    REPORT,
    SEVEN,
    SIP,
    Stores,
    known_families,
)
from homerd_plugins._homer5 import (
    COLUMN_PARAMETERS,
    KAMAILIO_PROTOCOLS,
    REPLY,
    REPORT_TABLES,
    REQUEST,
    SIP_COLUMNS,
    ColumnWidths,
    Settings,
    column_params,
    has_rotated_name,
    is_table_name,
    report_row,
    sip_row,
)
from homerd_plugins._homer7 import (
    TYPES,
    PartitionStep,
    homer7_report_row,
    homer7_row,
    is_homer7_table,
    table_of_sip,
    table_of_type,
)
from homerd_plugins._reader import Reader
from homerd_plugins._tables import (
    HOMER5,
    HOMER7,
    CaptureMode,
    CaptureSink,
    Choice,
    HashSource,
    Mode,
    Schema,
    TableName,
    Tables,
    listed,
)
from homerd_plugins._upkeep import Kept, Retention, RetentionSize, family_of

log = logging.getLogger("homerd.sipcapture")

COMPUTED_TABLES = 1000

_COMPRESSED = 0x10  # the chunk of a packed payload; $hep(0x00f) gives it unpacked


class SipCapture(Plugin):
    """Stores SIP messages and reports in the tables of Homer 5, or of Homer 7."""

    name = "sipcapture"

    db_url = ModParam(
        str,
        "sqlite://homerd.db",
        help="where rows are stored: sqlite://PATH, postgres://…, mysql://…, file:FOLDER",
    )
    table_name = ModParam(
        Tables, ("sip_capture",), help="table of sip_capture() without one; several by |"
    )
    mt_mode = ModParam(Choice, Choice("rand"), help="choice among several tables")
    hash_source = ModParam(HashSource, HashSource("call_id"), help="what mt_mode hash is taken of")
    schema = ModParam(
        Schema,
        HOMER5,
        help="homer5: a column for each header; homer7: tables hep_proto_… for homer-app",
    )
    column_width = ModParam(
        ColumnWidths,
        {},
        help="characters of text columns in tables that are made: callid=200;user_agent=512",
    )
    partition_step = ModParam(
        PartitionStep,
        {},
        help="how long a partition of Homer 7 is: day, hour, 30m, 15m; or by table, TABLE=STEP;…",
    )
    homer_app_db = ModParam(
        str, "", help="homer-app's own database, which is told of the tables: postgres://…"
    )
    capture_mode = ModParam(CaptureMode, many=True, help="a further store and its tables")
    retention = ModParam(
        Retention,
        {},
        help="days that tables are kept, by family: sip_capture_call=10;rtcp_capture=5",
    )
    retention_size = ModParam(
        RetentionSize,
        0,
        help="how large a store may grow, as 500MB or 10GB: its oldest tables go; 0 for any size",
    )
    archive = ModParam(
        str, "", help="a folder: what retention removes is archived there first, or stays"
    )
    capture_on = ModParam(int, 0, reloadable=True, help="1: the capture functions store")
    hep_capture_on = ModParam(int, 0, reloadable=True, help="1: HEP packets are accepted")
    nonsip_hook = ModParam(
        int,
        0,
        reloadable=True,
        help=f"1: HEP packets pass event_route[{ENTRY_EVENT}] in place of built-in handling",
    )
    hep_route = ModParam(
        str,
        "",
        help="OpenSIPS: a route that every HEP packet passes first; hep_resume_sip() goes on",
    )
    capture_node = ModParam(
        str, "homer01", reloadable=True, help="this server's name in the column node"
    )
    node_from_chunk = ModParam(
        int, 0, reloadable=True, help="1: the agent's own name (chunk 0x13) in its place"
    )
    store_uncorrelated = ModParam(
        int,
        0,
        reloadable=True,
        help="1: what is stored without the script may name no call; correlation_id is then empty",
    )
    callid_aleg_header = ModParam(
        str,
        "X-CID",
        reloadable=True,
        help="header of the other leg's Call-ID; several by ;, the first found counts",
    )
    custom_field1_header = ModParam(
        str, "Mac", reloadable=True, help="header copied to custom_field1"
    )
    custom_field2_header = ModParam(
        str, "IP", reloadable=True, help="header copied to custom_field2"
    )
    custom_field3_header = ModParam(
        str, "Port", reloadable=True, help="header copied to custom_field3"
    )
    create_tables = ModParam(int, 1, help="0: missing tables are not made")
    ip_protocol_numbers = ModParam(
        int,
        0,
        reloadable=True,
        help="1: the column proto holds IP protocol numbers (17 udp), not Kamailio's (1)",
    )
    insert_retries = ModParam(
        int, 0, reloadable=True, help="accepted: a batch is retried until it is written"
    )
    insert_retry_timeout = ModParam(int, 60, reloadable=True, help="accepted, as insert_retries")
    db_insert_mode = ModParam(
        int, 0, reloadable=True, help="accepted: rows are always written in batches"
    )
    capture_bad_msgs = ModParam(
        int, 0, reloadable=True, help="accepted: what can be read is always stored"
    )
    topoh_unmask = ModParam(int, 0, reloadable=True, help="accepted")
    event_callback = ModParam(str, "", reloadable=True, help="accepted")
    raw_moni_capture_on = ModParam(int, 0, help="1: captures from raw_interface, or from all")
    raw_ipip_capture_on = ModParam(int, 0, help="1: takes copies that come in IP-in-IP tunnels")
    raw_socket_listen = ModParam(str, "", help="ports to look for, and IP-in-IP: address:low-high")
    raw_interface = ModParam(str, "", help="the interface captured from")
    promiscuous_on = ModParam(int, 0, help="1: raw_interface takes what is sent to others, too")
    raw_moni_bpf_on = ModParam(int, 0, help="1: other than UDP of these ports ends in the kernel")
    raw_sock_children = ModParam(int, 1, help="accepted: one loop reads each socket")

    def __init__(self) -> None:
        self.settings = Settings()
        self.refused: Counter[str] = Counter()
        self._forwards = Forwards()
        self._opensips = False
        self._column_names: dict[str, str] = {}
        self._modes: dict[str, Mode] = {}  # those in use: none while capture_on is 0
        self._opened: dict[str, Mode] = {}
        self._constant: dict[tuple[str, CaptureSink], TableName] = {}
        self._stores: Stores | None = None
        self._computed: set[str] = set()
        self._families: set[str] = set()
        self._computed_day = -1
        self._said = -1.0
        self.words = (
            ScriptFunction(
                "sip_capture",
                self.sip_capture,
                (
                    Parameter(
                        "table", ParameterKind.TEXT_OR_PV, False, convert=self._constant_table
                    ),
                    Parameter("mode", ParameterKind.CONSTANT, False, convert=self._mode_name),
                ),
                returns_bool=True,
                module=self.name,
                help=self.sip_capture.__doc__ or "",
            ),
            self._forwards.word(self.name),
        )

    # Parameters

    @hookimpl
    def mod_params(self) -> list[object]:
        """The ModParams of the class, and `…_column` for each column."""
        return [*super().mod_params(), *(param.declared() for param in column_params())]

    @hookimpl
    def set_mod_param(self, name: str, value: object) -> None:
        """Keep *value*; columns' names apart."""
        if name in COLUMN_PARAMETERS:
            self._column_names[COLUMN_PARAMETERS[name]] = str(value)
        else:
            super().set_mod_param(name, value)

    # Starting

    @hookimpl
    def check_script(self, outline: Outline) -> Iterable[Problem]:
        """What of the parameters does not go together."""
        self._opensips = outline.opensips
        return problems(self, outline)

    @hookimpl
    def configure(self, changed: frozenset[str]) -> None:
        """Turn the parameters into what a row needs."""
        if "capture_on" in changed:
            if self.capture_on and not self._opened:
                raise ConfigError('modparam("sipcapture", "capture_on", 1): no store is open')
            self._modes = self._opened if self.capture_on else {}
        self.settings.node = self.capture_node
        self.settings.node_from_chunk = bool(self.node_from_chunk)
        headers = (name.strip().lower() for name in self.callid_aleg_header.split(";"))
        self.settings.callid_aleg = tuple(name for name in headers if name)
        self.settings.custom = (
            self.custom_field1_header.lower(),
            self.custom_field2_header.lower(),
            self.custom_field3_header.lower(),
        )
        self.settings.protocols = (
            {number: number for number in range(256)}
            if self.ip_protocol_numbers
            else KAMAILIO_PROTOCOLS
        )

    captures = hookimpl(_capture_raw.captures)

    @hookimpl
    def packet_policy(self) -> PacketPolicy:
        """Everything through a route of its own, or reports past the script and SIP to it."""
        if self.hep_route not in MAIN_ROUTE:
            return PacketPolicy(entry_route=self.hep_route)
        if self.nonsip_hook:
            return PacketPolicy(entry_event=ENTRY_EVENT)  # whatever hep_capture_on says
        types = TYPES if self.schema == HOMER7 else tuple(REPORT_TABLES)
        handlers = dict.fromkeys(types, self._store_report)
        return PacketPolicy(bool(self.hep_capture_on), handlers=handlers)

    @hookimpl
    def startup(self, worker: Worker) -> None:
        """Open a sink for each database, and for each target of sip_capture_forward()."""
        self._forwards.start(worker)
        if not self.capture_on:
            return
        self._stores = self.make_stores()
        self._opened = self._stores.open(worker)
        for mode in self._opened.values():
            _tell(mode, worker.statistics)
        self._modes = self._opened
        if worker.deliver:
            self._stores.start_upkeep(self._kept, self.homer_app_db)

    @hookimpl
    def script_swapped(self, worker: Worker) -> None:
        """Start the sinks of targets that the new script names."""
        self._forwards.start(worker)

    @hookimpl
    def shutdown(self, worker: Worker) -> None:
        """End the upkeep."""
        if self._stores is not None:
            self._stores.stop_upkeep()

    def remove_old(self, dry: bool) -> Iterator[tuple[str, str, str]]:
        """For `homerd retention`: (store, what was or would be removed, why it was not)."""
        return self.make_stores().remove_old(self._kept, dry=dry)

    @property
    def _kept(self) -> Kept:
        known = known_families(self.retention, self._families)
        return Kept(self.retention, self.retention_size, known)

    def stored(self, url: str = "") -> list[Reader]:
        """For `homerd search`: what reads each database of the script, or that of *url* alone."""
        return self.make_stores().readers(url)

    def make_stores(self) -> Stores:
        """The stores of the capture modes, not opened; for the commands, too."""
        default = CaptureMode(
            DEFAULT_MODE, self.db_url, self.table_name, self.mt_mode, self.hash_source
        )
        modes = [
            dataclasses.replace(mode, schema=mode.schema or self.schema)
            for mode in (default, *self.capture_mode)
        ]
        for mode in modes:
            self._families.update(family_of(TableName(name).at(0)) for name in mode.tables)
        return Stores(
            modes,
            self._column_names,
            bool(self.create_tables),
            widths=self.column_width,
            shrinks=bool(self.retention_size),
            steps=self.partition_step,
            archive=self.archive,
        )

    @hookimpl
    def metrics(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """What was captured by mode, what was refused, and what could not be read."""
        for mode in self._opened.values():
            labels = {"mode": mode.name}
            yield "homerd_sipcapture_captured_requests_total", labels, mode.requests
            yield "homerd_sipcapture_captured_replies_total", labels, mode.replies
        for reason, count in self.refused.items():
            yield "homerd_sipcapture_refused_total", {"reason": reason}, count
        for field, count in self.settings.bad.items():
            yield "homerd_sipcapture_unreadable_total", {"field": field}, count
        yield "homerd_sipcapture_mended_rows_total", {}, self.settings.cleaned
        if self._stores is not None:
            yield from self._stores.samples()
        yield "homerd_sipcapture_computed_tables", {}, len(self._computed)
        yield from self._forwards.samples()

    # The script's words

    def sip_capture(
        self, packet: Packet, table: str | None = None, mode: str = DEFAULT_MODE
    ) -> bool:
        """Store the SIP message as a row of *table*.

        table: strftime codes in it are those of the packet's time, in UTC.  A table that is
        missing is made; one whose name the script computes only if it ends in a number or is one
        of Homer's.  Without a table, that of the module parameters.  In the schema homer7 it is
        that of the message's method, unless the script names one that begins with hep_proto_.
        mode: a capture_mode, which has its own database.
        """
        chosen = self._modes.get(mode)
        if chosen is None:
            return self._refuse("capture_off")
        if chosen.is_homer7:
            return self._capture_homer7(packet, table, chosen)
        name = chosen.choose(packet) if table is None else self._table(packet, table, chosen.sink)
        if name is None:
            return False
        row = sip_row(packet, self.settings)
        if row is None:
            return self._refuse("not_sip")
        if row[_TYPE] == REQUEST:
            chosen.requests += 1
        else:
            chosen.replies += 1
        packet.effects.append((chosen.sink, (name, SIP, row)))
        return True

    def _capture_homer7(self, packet: Packet, table: str | None, mode: Mode) -> bool:
        row = homer7_row(packet, self.settings)
        if row is None:
            return self._refuse("not_sip")
        if packet.sip.is_request:
            mode.requests += 1
        else:
            mode.replies += 1
        named = table is not None and is_homer7_table(table)
        name = str(table) if named else table_of_sip(packet)
        return packet.emit(mode.sink, (name, SEVEN, row))

    @script_function
    def report_capture(
        self,
        packet: Packet,
        table: TextOrPv,
        correlation_id: TextOrPv = "",
        data: TextOrPv = "",
    ) -> bool:
        """Store a report, a log line or any text as a row of 12 columns.

        correlation_id: the packet's own when empty.  data: the whole payload when empty, and in
        OpenSIPS when it is the number 1.
        """
        mode = self._modes.get(DEFAULT_MODE)
        if mode is None:
            return self._refuse("capture_off")
        name: str | None
        if mode.is_homer7:
            named = is_homer7_table(table)
            name = str(table) if named else table_of_type(packet.hep.payload_type or 0)
        else:
            name = self._plain_table(table, mode.sink)
        if name is None:
            return False
        whole = data in ("", "report_capture") or (self._opensips and data == "1")
        known = None if whole else data
        if mode.is_homer7:
            seven = homer7_report_row(packet, self.settings, correlation_id or None, known)
            return packet.emit(mode.sink, (name, SEVEN, seven))
        kind = self._report_kind(packet)
        row = report_row(packet, self.settings, kind, correlation_id or None, known)
        return packet.emit(mode.sink, (name, REPORT, row))

    @script_function
    def float2int(self, packet: Packet, value: TextOrPv, factor: TextOrPv) -> int:
        """Give *value* times *factor* as a whole number in $rc; -1 when that is zero."""
        return product(value, factor) or -1

    @pseudo_variable("hep")
    def hep(self, packet: Packet, kind: int) -> int | str:
        """A value of the HEP envelope: `version`, or the number of a chunk as 0x and 3 hex digits.

        A chunk the packet does not have gives "", one that has no value of its own -1.
        """
        frame = packet.hep
        if kind == 0:
            return frame.version
        value = hep_chunk(frame, kind)
        if value is not None:
            return value
        is_there = kind == _COMPRESSED and frame.compressed
        return -1 if is_there or any(kind == other for other, _ in frame.unknown_chunks) else ""

    @hep.bind
    def _bind_hep(self, argument: Text | None, index: Text | None) -> tuple[int]:
        name = "" if argument is None else argument.constant
        if index is not None or name is None:
            raise ValueError("expected version or 0x and 3 hex digits, as $hep(0x00b)")
        if name == "version":
            return (0,)
        if not re.fullmatch("0x[0-9a-f]{3}", name, re.I | re.A):
            raise ValueError(
                f'expected version or 0x and 3 hex digits, as $hep(0x00b), got "{name}"'
            )
        return (int(name, 16),)

    # What a packet needs

    def _store_report(self, packet: Packet) -> bool:
        """Store what is no SIP without the script; False leaves SIP to it."""
        if self.schema != HOMER7 and is_message(packet):
            return False
        mode = self._modes.get(DEFAULT_MODE)
        reason = "capture_off"
        if mode is not None:
            reason = store_report(packet, mode, self.settings, bool(self.store_uncorrelated))
        if reason:
            self._refuse(reason)
        return True

    def _report_kind(self, packet: Packet) -> int:
        """1 for a SIP request, 2 for a reply, else the number its HEP payload type has here."""
        # Hot path: an event route sees the HEP datagram, and to find no SIP in it takes 3 µs.
        if packet.frame is packet.hep or not packet.frame.version:
            if packet.sip.is_request:
                return REQUEST
            if packet.sip.is_reply:
                return REPLY
        number = packet.hep.payload_type or 0
        return REPORT_TABLES.get(number, ("", number))[1]

    def _table(self, packet: Packet, text: str, sink: CaptureSink) -> str | None:
        """The table *text* names for this packet; None when it is refused."""
        frame = packet.hep
        seconds = frame.seconds or packet.seconds
        if frame.micros >= 1_000_000:
            seconds += frame.micros // 1_000_000
        known = self._constant.get((text, sink))
        if known is not None:
            return known.at(seconds)
        constant = isinstance(text, ConstantText)
        if not constant and "%" not in text:
            return self._plain_table(text, sink)
        try:
            template = TableName(text)
        except ValueError:
            self._refuse("table_name", text)
            return None
        if constant:
            self._constant[text, sink] = template
            if self._stores is not None:
                self._stores.use(sink, template)
            return template.at(seconds)
        found = template.at(seconds)
        return found if self._may_use(found, sink) else None

    def _plain_table(self, text: str, sink: CaptureSink) -> str | None:
        """The table *text* is the name of, without codes; None when it is refused."""
        if not is_table_name(text):
            self._refuse("table_name", text)
            return None
        name = str(text)  # the spool takes no kind of text but text
        return name if isinstance(text, ConstantText) or self._may_use(name, sink) else None

    def _may_use(self, name: str, sink: CaptureSink) -> bool:
        """Whether a computed *name* is a table that is there or may be made."""
        small = name.lower()
        if small in sink.tables or small in self._computed:
            return True
        if not has_rotated_name(name):
            return self._refuse(
                "no_table", name, "make the table, or let the script name it without variables"
            )
        today = int(time.time()) // 86400
        if today != self._computed_day:
            self._computed_day = today
            self._computed.clear()
        if len(self._computed) >= COMPUTED_TABLES:
            return self._refuse(
                "too_many_tables", name, f"the script named {COMPUTED_TABLES} new tables today"
            )
        self._computed.add(small)
        return True

    def _refuse(self, reason: str, name: str = "", remedy: str = "") -> bool:
        """Count, and for what an operator can mend say so, at most once a second."""
        self.refused[reason] += 1
        if name or remedy:
            now = time.monotonic()
            if now - self._said >= 1.0:
                self._said = now
                log.warning(
                    "sip_capture refused reason=%s table=%r count=%d remedy=%r",
                    reason,
                    name[:80],
                    self.refused[reason],
                    remedy or "a table's name is at most 64 of A-Z a-z 0-9 and _",
                )
        return False

    def _constant_table(self, text: str | int) -> str:
        """A table the script names without variables, checked."""
        self._families.add(family_of(TableName(str(text)).at(0)))
        return ConstantText(text)

    def _mode_name(self, text: str | int) -> str:
        names = [DEFAULT_MODE, *(mode.name for mode in self.capture_mode)]
        if text not in names:
            raise ValueError(f'unknown capture mode "{text}", known: {listed(names)}')
        return str(text)


_TYPE = [column.key for column in SIP_COLUMNS].index("type")


def _tell(mode: Mode, statistics: Statistics) -> None:
    """Let `$stat` read what was captured: `captured_requests`, `captured_requests[MODE]`."""
    of = "" if mode.name == DEFAULT_MODE else f"[{mode.name}]"
    statistics.watch("sipcapture", f"captured_requests{of}", lambda packet: mode.requests)
    statistics.watch("sipcapture", f"captured_replies{of}", lambda packet: mode.replies)
