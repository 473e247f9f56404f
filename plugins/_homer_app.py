"""What homer-app must be told of the tables of Homer 7: rows of `mapping_schema` in its database.

homer-app searches a table, and a field of it, only if a row names them.  Rows that are there are
the operator's, whoever made them, and stay as they are.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

from homerd.api import ConfigError
from homerd_plugins._stores import POSTGRES, Address, store_of_url

log = logging.getLogger("homerd.sipcapture")

PARTITION_ID = 10  # the group of users all rows of homer-app belong to
RETENTION_DAYS, STEP_SECONDS = 10, 3600  # which homer-app only shows

# (HEP type, profile) -> what homer-app calls it; a table is hep_proto_TYPE_PROFILE
MAPPINGS = {
    (1, "call"): "SIP",
    (1, "registration"): "SIP",
    (1, "default"): "SIP",
    (5, "default"): "RTCP",
    (35, "default"): "REPORT",
    (53, "default"): "DNS",
    (54, "default"): "ISUP",
    (100, "default"): "LOG",
}
_SIP, _ISUP = 1, 54

# id, name, whether it is a number, whether it is shown before the user asks for it
_ENVELOPE = (
    ("protocol_header.correlation_id", "Correlation ID", False, False),
    ("protocol_header.srcIp", "Source IP", False, True),
    ("protocol_header.srcPort", "Source port", True, True),
    ("protocol_header.dstIp", "Destination IP", False, True),
    ("protocol_header.dstPort", "Destination port", True, True),
    ("protocol_header.timeSeconds", "Seconds", True, False),
    ("protocol_header.timeUseconds", "Microseconds", True, False),
    ("protocol_header.payloadType", "HEP type", True, False),
    ("protocol_header.protocolFamily", "IP family", True, False),
    ("protocol_header.protocol", "IP protocol", True, False),
    ("protocol_header.captureId", "Capture ID", False, False),
)
_SIP_FIELDS = (
    ("data_header.method", "SIP method", False, True),
    ("data_header.callid", "Call-ID", False, False),
    ("data_header.from_user", "From user", False, True),
    ("data_header.to_user", "To user", False, True),
    ("data_header.ruri_user", "R-URI user", False, False),
    ("data_header.ruri_domain", "R-URI domain", False, False),
    ("data_header.ruri", "R-URI", False, False),
    ("data_header.from_domain", "From domain", False, False),
    ("data_header.from_tag", "From tag", False, False),
    ("data_header.to_domain", "To domain", False, False),
    ("data_header.to_tag", "To tag", False, False),
    ("data_header.cseq", "CSeq", False, False),
    ("data_header.user_agent", "User agent", False, False),
    ("data_header.pid_user", "Asserted user", False, False),
    ("data_header.auth_user", "Digest user", False, False),
    ("data_header.contact_user", "Contact user", False, False),
    ("data_header.callid_aleg", "Call-ID of the other leg", False, False),
    ("data_header.diversion", "Diversion", False, False),
    ("data_header.reason", "Reason", False, False),
    ("data_header.content_type", "Content type", False, False),
    ("data_header.expires", "Expires", False, False),
)
_ISUP_FIELDS = (
    ("data_header.msg_name", "Message", False, True),
    ("data_header.called_number", "Called number", False, True),
    ("data_header.calling_number", "Calling number", False, True),
    ("data_header.opc", "OPC", True, False),
    ("data_header.dpc", "DPC", True, False),
    ("data_header.cic", "CIC", True, False),
    ("data_header.callid", "Circuit", False, False),
)
_OTHER_FIELDS = (
    ("data_header.node", "Node", False, True),
    ("data_header.proto", "Protocol", False, False),
)
_METHODS = ["INVITE", "BYE", "CANCEL", "REGISTER", "OPTIONS", "100", "180", "200", "404", "486"]
_SECOND_LEG = (
    "var returnData=[]; for (var i = 0; i < data.length; i++)"
    " { returnData.push(data[i]+'_b2b-1'); }; returnData;"
)
_RANGE = [-300, 200]  # seconds around what was found

_INSERT = (
    "INSERT INTO mapping_schema (guid, profile, hepid, hep_alias, partid, version, retention,"
    " partition_step, create_index, create_table, correlation_mapping, fields_mapping,"
    " mapping_settings, schema_mapping, schema_settings, create_date)"
    " SELECT %s::uuid, %s, %s, %s, %s, 1, %s, %s, '{}', '', %s::json, %s::json, '{}', '{}', '{}',"
    " now() WHERE NOT EXISTS"
    " (SELECT FROM mapping_schema WHERE profile = %s AND hepid = %s AND partid = %s)"
)


def address_of_homer_app(url: str) -> Address:
    """homer-app's database; ValueError when it cannot be one."""
    address = Address.of(store_of_url(url))
    if address.store != POSTGRES:
        raise ValueError("expected postgres://user:password@host/homer_config")
    return address


def tell_homer_app(url: str) -> list[str]:
    """Add the rows that are missing; gives their tables.  ConfigError when they cannot be added."""
    import psycopg

    from homerd_plugins._postgres import connected

    try:
        address = address_of_homer_app(url)
        with connected(address) as connection, connection.transaction():
            # Others who add rows wait: homer-app itself, another worker.
            connection.execute("LOCK TABLE mapping_schema IN SHARE ROW EXCLUSIVE MODE")
            made = [table for table, row in _rows() if connection.execute(_INSERT, row).rowcount]
    except psycopg.errors.UndefinedTable:
        raise ConfigError(
            f"homer_app_db: no table mapping_schema in {address.shown}: make homer-app's tables,"
            " homer-app -create-table-db-config"
        ) from None
    except (psycopg.Error, ValueError) as error:
        raise ConfigError(f"homer_app_db: {' '.join(str(error).split())}") from error
    for table in made:
        log.info("homer-app was told of a table table=%s store=%s", table, address.shown)
    return made


def fields_of(number: int) -> list[dict[str, Any]]:
    """What homer-app may search and show of a HEP type."""
    own = {_SIP: _SIP_FIELDS, _ISUP: _ISUP_FIELDS}.get(number, _OTHER_FIELDS)
    fields = [_field("sid", "Session ID", index="secondary", sid_type=True)]
    for key, name, is_number, is_shown in (*own, *_ENVELOPE):
        more: dict[str, Any] = {"type": "integer"} if is_number else {}
        if key == "data_header.method":
            more |= {"form_default": _METHODS, "method_type": True}
        if key in ("data_header.callid", "protocol_header.correlation_id"):
            more["sid_type"] = True
        fields.append(_field(key, name, hide=not is_shown, skip=False, **more))
    fields.append(_field("raw", "Raw", hide=True, skip=True))
    fields.append(
        _field(
            "node",
            "Homer node",
            form_type="multiselect",
            form_default=[{"value": "localnode", "name": "Local node"}],
            _form_api="/database/node/list",
            system_param=True,
            mapping="param.location.node",
            hide=True,
            skip=True,
        )
    )
    return [field | {"position": place} for place, field in enumerate(fields, 1)]


def correlation_of(number: int, profile: str) -> list[dict[str, Any]]:
    """What else belongs to a call that was found, by table and field."""
    if number != _SIP:
        profiles = ("call", "registration", "default") if number == 100 else ("call",)
        return [_lookup("sid", _SIP, each, "data_header.callid") for each in profiles]
    found = [_lookup("data_header.callid", other, "default", "sid") for other in (100, 5, 35)]
    found.append(_lookup("protocol_header.correlation_id", _SIP, profile, "sid"))
    if profile == "call":
        second = _lookup("data_header.callid", _SIP, "call", "data_header->>'callid'")
        found.append(second | {"input_function_js": _SECOND_LEG})
    return found


def _rows() -> Iterator[tuple[str, tuple[Any, ...]]]:
    for (number, profile), alias in MAPPINGS.items():
        key = (profile, number)
        values = (
            *(str(uuid.uuid4()), *key, alias, PARTITION_ID, RETENTION_DAYS, STEP_SECONDS),
            json.dumps(correlation_of(number, profile)),
            json.dumps(fields_of(number)),
            *(*key, PARTITION_ID),
        )
        yield f"hep_proto_{number}_{profile}", values


def _field(key: str, name: str, **more: Any) -> dict[str, Any]:
    usual = {"type": "string", "index": "none", "form_type": "input", "hide": False}
    return {"id": key, "name": name} | usual | more


def _lookup(source: str, number: int, profile: str, field: str) -> dict[str, Any]:
    return {
        "source_field": source,
        "lookup_id": number,
        "lookup_profile": profile,
        "lookup_field": field,
        "lookup_range": _RANGE,
    }
