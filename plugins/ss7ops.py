"""ss7ops: ISUP messages that come over SIGTRAN in HEP, as JSON and as fields."""

from __future__ import annotations

import json
from collections.abc import Iterable

from homerd.api import (
    Const,
    Packet,
    Plugin,
    Text,
    Value,
    hookimpl,
    pseudo_variable,
    script_function,
)
from homerd_plugins import _bindings, _isup

JSON = "1"  # $isup(1)

# Name in $isup(…) -> where it stands among the fields.
_FIELDS: dict[str, tuple[str, ...]] = {
    JSON: (),
    "method": ("msg_name",),
    "opc": ("opc",),
    "dpc": ("dpc",),
    "cic": ("cic",),
    "called_inn": ("called_number", "inn"),
    "called_ton": ("called_number", "ton"),
    "called_npi": ("called_number", "npi"),
    "called_num": ("called_number", "num"),
    "calling_ni": ("calling_number", "ni"),
    "calling_restrict": ("calling_number", "restrict"),
    "calling_screened": ("calling_number", "screened"),
    "calling_ton": ("calling_number", "ton"),
    "calling_npi": ("calling_number", "npi"),
    "calling_num": ("calling_number", "num"),
    "calling_category": ("calling_party", "num"),
    "cause_standard": ("cause", "standard_num"),
    "cause_location": ("cause", "location_num"),
    "cause_itu_class": ("cause", "itu_class_num"),
    "cause_itu_num": ("cause", "itu_cause_num"),
    "event_num": ("event", "event_num"),
    "hop_counter": ("hop_counter",),
    "nature_of_conn_sat": ("nature_of_connnection", "satellite"),
    "nature_of_conn_con_check": ("nature_of_connnection", "continuity_check"),
    "nature_of_conn_echo_device": ("nature_of_connnection", "echo_device"),
    "fwd_call_international": ("forward_call", "national_international_call"),
    "fwd_call_interworking": ("forward_call", "interworking"),
    "fwd_call_end_to_end_method": ("forward_call", "end_to_end_method"),
    "fwd_call_end_to_end_information": ("forward_call", "end_to_end_information"),
    "fwd_call_isup": ("forward_call", "isup"),
    "fwd_call_isup_preference": ("forward_call", "isup_preference"),
    "fwd_call_sccp_method": ("forward_call", "sccp_method"),
    "fwd_call_isdn": ("forward_call", "isdn_access"),
    "transmission_medium": ("transmission_medium", "num"),
    "user_info_coding_standard": ("user_information", "coding_standard"),
    "user_info_transfer_cap": ("user_information", "transfer_capability"),
    "user_info_transfer_mode": ("user_information", "transfer_mode"),
    "user_info_transfer_rate": ("user_information", "transfer_rate"),
    "user_info_layer1_ident": ("user_information", "layer1_ident"),
    "user_info_layer1_protocol": ("user_information", "layer1_protocol"),
}


class Ss7Ops(Plugin):
    """ISUP messages as JSON and as fields."""

    name = "ss7ops"

    def __init__(self) -> None:
        self.unread = 0

    @hookimpl
    def metrics(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Payloads that isup_to_json() could not read."""
        yield "homerd_ss7ops_unread_total", {}, self.unread

    @script_function
    def isup_to_json(self, packet: Packet, protocol: Const[int]) -> bool:
        """Read the ISUP message in `$var(payload)`, or in the packet when that is not set.

        protocol: HEP payload type of what carries it: 8 M2UA, 9 M3UA, 13 M2PA.
        """
        payload = packet.variables.get("payload") or ""
        data = str(payload).encode("utf-8", "surrogateescape") or packet.hep.payload
        try:
            packet.scratch["isup"] = _isup.decode(data, protocol)
        except ValueError:
            packet.scratch.pop("isup", None)
            self.unread += 1
            return False
        return True

    @pseudo_variable("isup")
    def isup(self, packet: Packet, path: tuple[str, ...]) -> Value:
        """A field of the message isup_to_json() read, `$isup(1)` all as JSON; null without it."""
        value: object = packet.scratch.get("isup")
        if value is None:
            return None
        if not path:
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, (str, int)) else None

    @isup.bind
    def bind_isup(self, argument: Text | None, index: Text | None) -> tuple[object, ...]:
        return _bindings.one_of(_FIELDS, argument, index)
