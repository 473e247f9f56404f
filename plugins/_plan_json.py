"""What capture plans make JSON of: RTCP, and whole packets with captagent's keys."""

from __future__ import annotations

import json
from typing import Any

from homerd.api import DecodeError, Frame, Packet, rtcp
from homerd_plugins import _plan_tests
from homerd_plugins._hep_profile import Profile


def of_rtcp(frame: Frame) -> list[dict[str, Any]]:
    """An object for each report; none when nothing is reported, or the payload is no RTCP."""
    if frame.payload_type == _plan_tests.RTCP_TYPE and frame.payload.startswith(
        _plan_tests.JSON_BEGINS
    ):
        return _read(frame.payload)
    try:
        return rtcp.as_json(rtcp.decode(frame.payload))
    except DecodeError:
        return []


def of_packet(packet: Packet, number: int, now: int, profile: Profile) -> dict[str, Any]:
    """The packet as captagent's transport_json tells it."""
    frame, sip = packet.frame, packet.sip
    version = "6" if len(frame.src) == 16 else "4"
    told: dict[str, Any] = {
        "packet_id": str(number),
        "my_time": now,
        "ip_family": frame.family,
        "ip_proto": frame.protocol,
        f"src_ip{version}": frame.src_ip,
        f"dst_ip{version}": frame.dst_ip,
        "src_port": frame.src_port,
        "dst_port": frame.dst_port,
        "tss": packet.seconds,
        "tsu": packet.micros,
        "payload": frame.payload.decode("utf-8", "replace"),
        "corr_id": frame.correlation_id,
        "proto_type": frame.payload_type or 0,
        "capt_id": profile.capture_id or frame.capture_id or 0,
    }
    if sip.is_request or sip.is_reply:
        told |= {
            "sip_callid": sip.call_id,
            "sip_method": sip.method if sip.is_request else None,
            "sip_response": sip.status if sip.is_reply else None,
            "sip_cseq": sip.cseq_method,
            "sip_from_uri": sip.from_uri,
            "sip_to_uri": sip.to_uri,
            "sip_request_uri": sip.ruri if sip.is_request else None,
            "sip_sdp": 1 if _plan_tests.has_sdp(sip) else None,
        }
    return {key: value for key, value in told.items() if value is not None}


def line(told: dict[str, Any]) -> bytes:
    """A line of JSON."""
    return json.dumps(told, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _read(payload: bytes) -> list[dict[str, Any]]:
    try:
        told = json.loads(payload)
    except ValueError:
        return []
    return [told] if isinstance(told, dict) else []
