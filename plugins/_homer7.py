"""The rows of Homer 7: tables by type and profile, two JSON columns, partitions by time.

homer-app reads what heplify-server writes: numbers are JSON numbers, captureId is text, a key of
the usual set is there even when its value is "".
"""

from __future__ import annotations

import calendar
import functools
import json
import re
import time
from collections.abc import Iterator
from json.encoder import encode_basestring as quoted_json

from homerd.api import Packet
from homerd_plugins._homer5 import (
    SIP_COLUMNS,
    TEXT,
    Column,
    Row,
    Settings,
    sip_row,
    storable,
    told_correlation_id,
)

COLUMNS = (
    Column("sid", TEXT),
    Column("create_date", TEXT),
    Column("protocol_header", TEXT),
    Column("data_header", TEXT),
    Column("raw", TEXT),
)

CALL, REGISTRATION, DEFAULT = "hep_proto_1_call", "hep_proto_1_registration", "hep_proto_1_default"
_CALL_METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "REFER", "INFO", "NOTIFY")
_TABLE_OF_METHOD = {**dict.fromkeys(_CALL_METHODS, CALL), "REGISTER": REGISTRATION}
_TABLE_OF_TYPE = {number: f"hep_proto_{number}_default" for number in (5, 53, 54, 100)}
_OTHER_TYPES = "hep_proto_35_default"
_TABLE = re.compile(r"hep_proto_[0-9]{1,5}_[a-z][a-z0-9]{0,31}")

TYPES = (5, 32, 33, 34, 35, 36, 37, 38, 53, 54, 99, 100, 101)  # that are no SIP
_TYPE_NAMES = {1: "sip", 5: "rtcp", 34: "rtpagent", 35: "rtcpxr", 38: "horaclifix", 53: "dns"}
_TYPE_NAMES[100] = "log"
ISUP = 54

_AT = {column.key: at for at, column in enumerate(SIP_COLUMNS)}
_ALWAYS = (
    "ruri_user",
    "ruri_domain",
    "from_user",
    "from_tag",
    "to_user",
    "to_tag",
    "callid",
    "cseq",
    "method",
    "user_agent",
)
_WHEN_KNOWN = (
    "from_domain",
    "to_domain",
    "ruri",
    "pid_user",
    "auth_user",
    "contact_user",
    "callid_aleg",
    "diversion",
    "reason",
    "content_type",
)

# Seconds that a partition holds, by type.
_STEPS = {1: 2 * 3600, 100: 2 * 3600}
_OTHER_STEP = 6 * 3600
LEAST_STEP = 300
_STEP = re.compile(r"([0-9]{1,4})\s*(m|h|d)(?:in|our|ay)?s?", re.A)
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_NAMED_STEPS = {"day": "1d", "hour": "1h"}

_SIP_KEYS = (
    "ruri_domain",
    "ruri_user",
    "from_user",
    "to_user",
    "pid_user",
    "auth_user",
    "callid",
    "method",
)
_ISUP_KEYS = ("called_number", "calling_number", "opc", "dpc", "cic", "msg_name", "callid")


def is_homer7_table(name: str) -> bool:
    """Whether *name* is a table of Homer 7."""
    return _TABLE.fullmatch(name) is not None


def table_of_sip(packet: Packet) -> str:
    """The table a SIP message belongs to by the method of its CSeq."""
    method = (packet.sip.cseq_method or packet.sip.method or "").upper()
    return _TABLE_OF_METHOD.get(method, DEFAULT)


def table_of_type(number: int) -> str:
    """The table of what is no SIP."""
    return _TABLE_OF_TYPE.get(number, _OTHER_TYPES)


def homer7_row(packet: Packet, settings: Settings) -> Row | None:
    """The row of COLUMNS; None when the payload's first line is not SIP's."""
    row = sip_row(packet, settings)
    if row is None:
        return None
    cells = [f'"{key}":{quoted_json(str(row[at] or ""))}' for key, at in _ALWAYS_AT]
    cells += [f'"{key}":{quoted_json(str(row[at]))}' for key, at in _WHEN_KNOWN_AT if row[at]]
    expires = packet.sip.first_bodies.get("expires", "").strip()
    if expires:
        cells.append(f'"expires":{quoted_json(storable(expires))}')
    callid = str(row[_AT["callid"]])
    correlation_id = packet.hep.correlation_id
    if correlation_id:
        correlation_id = str(row[_AT["correlation_id"]])
    else:
        correlation_id = str(row[_AT["callid_aleg"]]) or callid
    return (
        callid or correlation_id,
        _create_date(int(row[_AT["micro_ts"]])),  # type: ignore[arg-type]
        _protocol_header(packet, int(row[_AT["micro_ts"]]), correlation_id),  # type: ignore[arg-type]
        "{" + ",".join(cells) + "}",
        row[_AT["msg"]],
    )


def homer7_report_row(
    packet: Packet, settings: Settings, correlation_id: str | None = None, data: str | None = None
) -> Row:
    """The row of what is no SIP.

    correlation_id, data: None for told_correlation_id() (else the Call-ID) and the whole payload.
    """
    frame = packet.hep
    if correlation_id is None:
        correlation_id = told_correlation_id(frame) or packet.sip.call_id or ""
    correlation_id = storable(correlation_id.partition("\0")[0])
    number = frame.payload_type or 1
    payload = frame.payload.decode("utf-8", "surrogateescape") if data is None else data
    header: dict[str, str | int] = {
        "node": _capture_id(packet),
        "proto": _TYPE_NAMES.get(number, str(number)),
    }
    if number == ISUP:
        header |= _isup(payload)
        correlation_id = correlation_id or str(header.get("callid", ""))
    micros = packet.seconds * 1_000_000 + packet.micros
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    return (
        correlation_id,
        _create_date(micros),
        _protocol_header(packet, micros, correlation_id),
        text,
        _raw(payload, frame.payload if data is None else b""),
    )


# Partitions


class PartitionStep:
    """`partition_step`: how long a partition is, of each table: `STEP`, or `TABLE=STEP;TABLE=STEP`.

    STEP is `day`, `hour`, or a number of `m`, `h` or `d` that parts a day evenly: 15m, 30m, 2h.
    """

    @classmethod
    def from_script(cls, text: str | int) -> dict[str, int]:
        """Read modparam's value: seconds by table, "" for all others."""
        steps: dict[str, int] = {}
        for item in filter(str.strip, str(text).split(";")):
            table, _, step = item.rpartition("=")
            table = table.strip()
            if table and not is_homer7_table(table):
                raise ValueError(f'"{table}" is no table of Homer 7, as hep_proto_1_call')
            steps[table] = _step_of(step.strip())
        return steps


def _step_of(text: str) -> int:
    found = _STEP.fullmatch(_NAMED_STEPS.get(text.lower(), text.lower()))
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not LEAST_STEP <= seconds <= 86400 or 86400 % seconds:
        raise ValueError(
            f'expected day, hour or a part of a day of at least 5m, as 15m, 30m, 2h, got "{text}"'
        )
    return seconds


def step_seconds(table: str) -> int:
    """How long a partition of *table* is, unless the operator says."""
    return _STEPS.get(_type_of(table), _OTHER_STEP)


def partition_name(table: str, begin: int) -> str:
    """The name of the partition that begins at a time."""
    return f"{table}_{time.strftime('%Y%m%d_%H%M', time.gmtime(begin))}"


def bound(seconds: int) -> str:
    """A partition's begin or end, as text for SQL."""
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(seconds))


@functools.lru_cache(4096)  # thousands of rows share a minute
def seconds_of(minute: str) -> int:
    """`YYYY-MM-DD HH:MM` in seconds since 1970."""
    return calendar.timegm(time.strptime(minute, "%Y-%m-%d %H:%M"))


def ddl(table: str) -> str:
    """The statement that makes a partitioned table."""
    return (
        f"CREATE TABLE IF NOT EXISTS {table} (id bigserial NOT NULL, sid varchar NOT NULL,"
        " create_date timestamp with time zone DEFAULT current_timestamp NOT NULL,"
        " protocol_header jsonb NOT NULL, data_header jsonb NOT NULL, raw varchar NOT NULL)"
        " PARTITION BY RANGE (create_date)"
    )


def default_ddl(table: str) -> Iterator[str]:
    """The statements that make the partition for rows that have no other."""
    name = f"{table}_default"
    yield f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table} DEFAULT"
    yield from index_ddl(table, name)


def index_ddl(table: str, name: str) -> Iterator[str]:
    """The statements that make the indexes of a partition."""
    number = _type_of(table)
    yield f"CREATE INDEX IF NOT EXISTS {name}_create_date ON {name} (create_date)"
    yield f"CREATE INDEX IF NOT EXISTS {name}_sid ON {name} (sid)"
    for key in ("correlation_id",) if number == ISUP else ("srcIp", "dstIp", "correlation_id"):
        yield (
            f"CREATE INDEX IF NOT EXISTS {name}_{key.lower()} ON {name}"
            f" ((protocol_header->>'{key}'))"
        )
    for key in _SIP_KEYS if number == 1 else _ISUP_KEYS if number == ISUP else ():
        yield f"CREATE INDEX IF NOT EXISTS {name}_{key} ON {name} ((data_header->>'{key}'))"


_ALWAYS_AT = tuple((key, _AT[key]) for key in _ALWAYS)
_WHEN_KNOWN_AT = tuple((key, _AT[key]) for key in _WHEN_KNOWN)


def _type_of(table: str) -> int:
    return int(table.split("_")[2])


def _create_date(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{rest:06}+00:00"


def _protocol_header(packet: Packet, micros: int, correlation_id: str) -> str:
    frame = packet.hep
    seconds, rest = divmod(micros, 1_000_000)
    return (
        f'{{"protocolFamily":{frame.family},"protocol":{frame.protocol}'
        f',"srcIp":"{frame.src_ip}","dstIp":"{frame.dst_ip}"'
        f',"srcPort":{frame.src_port},"dstPort":{frame.dst_port}'
        f',"timeSeconds":{seconds},"timeUseconds":{rest}'
        f',"payloadType":{frame.payload_type or 1},"captureId":{quoted_json(_capture_id(packet))}'
        f',"correlation_id":{quoted_json(correlation_id)}}}'
    )


def _capture_id(packet: Packet) -> str:
    """The agent's name, or its number as text."""
    frame = packet.hep
    name = frame.extra.get("node_name") if frame.extra else None
    return storable(str(name)) if name else str(frame.capture_id or 0)


def _isup(payload: str) -> dict[str, str | int]:
    """What Homer shows of captagent's ISUP; nothing when it is not that."""
    try:
        told = json.loads(payload)
        opc, dpc, cic = (int(told[key]) for key in ("opc", "dpc", "cic"))
    except (ValueError, KeyError, TypeError):
        return {}
    found: dict[str, str | int] = {"cic": cic, "dpc": dpc, "opc": opc}
    found["callid"] = f"{min(opc, dpc)}:{max(opc, dpc)}:{cic}"
    if "msg_name" in told:
        found["msg_name"] = storable(str(told["msg_name"]))
    for key in ("called_number", "calling_number"):
        number = told.get(key)
        if isinstance(number, dict) and "num" in number:
            found[key] = storable(str(number["num"]))
    return found


def _raw(text: str, payload: bytes) -> str | bytes:
    """*text*, or the bytes it was read from when they are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return payload or storable(text)
    return text
