"""Packets as the HEP frames that leave for a profile's targets."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from homerd.api import Frame, Packet, hep_encode
from homerd_plugins._hep_profile import Profile

if TYPE_CHECKING:
    from homerd_plugins._hep_out import HepSink

_TYPES = (0, 255)


def emit_frame(
    packet: Packet,
    sink: HepSink,
    not_sent: Counter[str],
    share: str = "",
    kind: int | None = None,
) -> bool:
    """Send a packet through *sink*; False, and counted by why, when it makes no frame.

    share: what packets are shared out by, among the sink's targets.  kind: as in `frame_of`.
    """
    data = frame_of(packet, sink.profile, kind)
    if isinstance(data, str):
        not_sent[data] += 1
        return False
    return packet.emit(sink, (data, share))


def frame_of(packet: Packet, profile: Profile, kind: int | None = None) -> bytes | str:
    """The bytes that leave, or the reason why none do.

    kind: the payload type to write in place of the packet's own.
    """
    frame = packet.hep
    if kind is None and frame.version == profile.version and profile.as_received:
        whole = _as_it_came(frame)
        if whole:
            return whole
    if profile.version < 3 and (kind or frame.payload_type) != 1:
        return "not_sip"  # older versions carry nothing else
    try:
        return hep_encode(
            _rewritten(packet, profile, kind), profile.version, compress=profile.compress
        )
    except ValueError:
        return "too_large"


def line_of(packet: Packet, profile: Profile) -> bytes:
    """The packet as JSON, with a line end; bytes that are no UTF-8 as escapes of surrogates."""
    frame = _rewritten(packet, profile, None)
    told = {
        "family": frame.family,
        "proto": frame.protocol,
        "src_ip": frame.src_ip,
        "src_port": frame.src_port,
        "dst_ip": frame.dst_ip,
        "dst_port": frame.dst_port,
        "time_sec": frame.seconds,
        "time_usec": frame.micros,
        "proto_type": frame.payload_type,
        "capture_id": frame.capture_id,
        "correlation_id": frame.correlation_id,
        "node_name": (frame.extra or {}).get("node_name"),
        "payload": frame.payload.decode("utf-8", "surrogateescape"),
    }
    kept = {name: value for name, value in told.items() if value not in (None, "")}
    return json.dumps(kept, separators=(",", ":")).encode() + b"\n"


def _as_it_came(frame: Frame) -> bytes:
    """The datagram, if it is a frame and nothing else."""
    raw = frame.raw
    if frame.version == 3:
        if raw[:3] not in (b"HEP", b"EEP"):  # in an envelope of gzip, which no stream can carry
            return b""
        return raw[: int.from_bytes(raw[4:6], "big")]
    return raw


def _rewritten(packet: Packet, profile: Profile, kind: int | None) -> Frame:
    frame = packet.hep
    extra = dict(frame.extra or {})
    extra.pop("compressed", None)
    if profile.node is not None:
        extra["node_name"] = profile.node
    # A packet without a time gets that of its arrival here: after an outage the next receiver's
    # would be hours late.
    return Frame(
        3,
        frame.family,
        frame.protocol,
        frame.src,
        frame.dst,
        frame.src_port,
        frame.dst_port,
        packet.seconds,
        packet.micros,
        frame.payload_type if kind is None else kind,
        frame.capture_id if profile.capture_id is None else profile.capture_id,
        frame.auth_key if profile.key is None else profile.key,
        frame.correlation_id,
        frame.payload,
        warnings=frame.warnings,
        extra=extra,
    )


def payload_type(value: str | int) -> int:
    """A HEP payload type as a script writes it; ValueError says what is wrong."""
    if not str(value).isdigit() or not _TYPES[0] <= int(value) <= _TYPES[1]:
        raise ValueError(f'expected a payload type from {_TYPES[0]} to {_TYPES[1]}, got "{value}"')
    return int(value)
