"""ISUP messages as fields, out of the SIGTRAN layers that carry them.

Source: ITU-T Q.763 (ISUP), Q.850 (causes), Q.704 14 (MTP level 3), RFC 3331 (M2UA), 4165 (M2PA),
4666 (M3UA).  The fields have the names that dashboards for Kamailio's ss7ops know, with their
spelling.  Any bytes give fields or a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from homerd_plugins import _isup_names as names

M2UA, M3UA, M2PA = 8, 9, 13  # HEP payload types
ISUP = 5  # service indicator

Fields = dict[str, object]

_M2UA_DATA, _M3UA_DATA = 0x0300, 0x0210  # parameter tags
_UNKNOWN = "Unknown"


class Layout(NamedTuple):
    """Parameters of a message: (code, length) fixed, codes of the variable, whether more follow."""

    name: str
    fixed: tuple[tuple[int, int], ...] = ()
    variable: tuple[int, ...] = ()
    optional: bool = True


MEDIUM, CALLED, CONNECTION, FORWARD, CATEGORY, CALLING = 0x02, 0x04, 0x06, 0x07, 0x09, 0x0A
CAUSE, RANGE, USER_SERVICE, EVENT, HOPS = 0x12, 0x16, 0x1D, 0x24, 0x3D

# Q.763 tables 21 to 51.
_LAYOUTS = {
    0x01: Layout("IAM", ((CONNECTION, 1), (FORWARD, 2), (CATEGORY, 1), (MEDIUM, 1)), (CALLED,)),
    0x02: Layout("SAM", (), (0x05,)),
    0x03: Layout("INR", ((0x0E, 2),)),
    0x04: Layout("INF", ((0x0F, 2),)),
    0x05: Layout("COT", ((0x10, 1),), optional=False),
    0x06: Layout("ACM", ((0x11, 2),)),
    0x07: Layout("CON", ((0x11, 2),)),
    0x08: Layout("FOT"),
    0x09: Layout("ANM"),
    0x0C: Layout("REL", (), (CAUSE,)),
    0x0D: Layout("SUS", ((0x22, 1),)),
    0x0E: Layout("RES", ((0x22, 1),)),
    0x10: Layout("RLC"),
    0x11: Layout("CCR", optional=False),
    0x12: Layout("RSC", optional=False),
    0x13: Layout("BLO", optional=False),
    0x14: Layout("UBL", optional=False),
    0x15: Layout("BLA", optional=False),
    0x16: Layout("UBA", optional=False),
    0x17: Layout("GRS", (), (RANGE,), optional=False),
    0x18: Layout("CGB", ((0x15, 1),), (RANGE,), optional=False),
    0x19: Layout("CGU", ((0x15, 1),), (RANGE,), optional=False),
    0x1A: Layout("CGBA", ((0x15, 1),), (RANGE,), optional=False),
    0x1B: Layout("CGUA", ((0x15, 1),), (RANGE,), optional=False),
    0x1F: Layout("FAR", ((0x18, 1),)),
    0x20: Layout("FAA", ((0x18, 1),)),
    0x21: Layout("FRJ", ((0x18, 1),), (CAUSE,)),
    0x24: Layout("LPA", optional=False),
    0x28: Layout("PAM", optional=False),
    0x29: Layout("GRA", (), (RANGE,), optional=False),
    0x2A: Layout("CQM", (), (RANGE,), optional=False),
    0x2B: Layout("CQR", (), (RANGE, 0x26), optional=False),
    0x2C: Layout("CPG", ((EVENT, 1),)),
    0x2D: Layout("USR", (), (0x20,)),
    0x2E: Layout("UCIC", optional=False),
    0x2F: Layout("CFN", (), (CAUSE,)),
    0x30: Layout("OLM", optional=False),
    0x32: Layout("NRM"),
    0x33: Layout("FAC"),
    0x34: Layout("UPT"),
    0x35: Layout("UPA"),
    0x36: Layout("IDR"),
    0x37: Layout("IRS"),
    0x38: Layout("SGM"),
    0x40: Layout("LOP"),
    0x41: Layout("APM"),
    0x42: Layout("PRI"),
    0x43: Layout("SDN"),
}


def decode(payload: bytes, kind: int) -> Fields:
    """The ISUP message in a SIGTRAN packet of HEP payload type *kind*."""
    if kind == M3UA:
        opc, dpc, service, data = _m3ua(payload)
    elif kind in (M2UA, M2PA):
        opc, dpc, service, data = _mtp3(_m2ua(payload) if kind == M2UA else _m2pa(payload))
    else:
        raise ValueError(f"HEP type {kind} carries no ISUP")
    if service != ISUP:
        raise ValueError(f"service {service} is not ISUP")
    return decode_isup(data) | {"opc": opc, "dpc": dpc}


def decode_isup(data: bytes) -> Fields:
    """Circuit, message type and the parameters that are known, the first of each."""
    if len(data) < 3:
        raise ValueError("message too short")
    layout = _LAYOUTS.get(data[2])
    if layout is None:
        raise ValueError(f"unknown message type {data[2]}")
    found: Fields = {
        "cic": int.from_bytes(data[:2], "little"),
        "msg_type": data[2],
        "msg_name": layout.name,
    }
    for code, body in _parameters(data[3:], layout):
        for name, value in _read(code, body).items():
            found.setdefault(name, value)
    return found


def _read(code: int, body: bytes) -> Fields:
    """What a parameter says; nothing when it is not known, or has a size it cannot have."""
    reader = _READERS.get(code)
    try:
        return {} if reader is None else reader(body)
    except ValueError:
        return {}


# The layers below


def _m2ua(data: bytes) -> bytes:
    # RFC 3331 3.1: version, spare, class, type, length; 3.3.1.1: class 6, type 1 is data.
    return _tagged(_sigtran(data, 6, 1), _M2UA_DATA)


def _m2pa(data: bytes) -> bytes:
    # RFC 4165 2.2: the common header, BSN and FSN of four bytes each; then priority, SIO, SIF.
    body = _sigtran(data, 11, 1)
    if len(body) < 10:
        raise ValueError("M2PA data too short")
    return body[9:]


def _m3ua(data: bytes) -> tuple[int, int, int, bytes]:
    # RFC 4666 3.3.1: OPC, DPC of four bytes each, SI, NI, MP, SLS, then user data.
    body = _tagged(_sigtran(data, 1, 1), _M3UA_DATA)
    if len(body) < 12:
        raise ValueError("M3UA protocol data too short")
    return int.from_bytes(body[:4]), int.from_bytes(body[4:8]), body[8], body[12:]


def _mtp3(data: bytes) -> tuple[int, int, int, bytes]:
    # Q.704 14.2: SIO; then the label, little-endian: DPC and OPC of 14 bits, SLS of 4.
    if len(data) < 5:
        raise ValueError("MTP label too short")
    label = int.from_bytes(data[1:5], "little")
    return label >> 14 & 0x3FFF, label & 0x3FFF, data[0] & 0x0F, data[5:]


def _sigtran(data: bytes, message_class: int, message_type: int) -> bytes:
    length = int.from_bytes(data[4:8])
    if data[:4] != bytes((1, 0, message_class, message_type)) or not 8 <= length <= len(data):
        raise ValueError("no data message")
    return data[8:length]


def _tagged(data: bytes, wanted: int) -> bytes:
    """The value of the first parameter *wanted*: tag, length with both, value, padding to four."""
    while len(data) >= 4:
        tag, length = int.from_bytes(data[:2]), int.from_bytes(data[2:4])
        if not 4 <= length <= len(data):
            break
        if tag == wanted:
            return data[4:length]
        data = data[length + -length % 4 :]
    raise ValueError("no data parameter")


# ISUP itself


def _parameters(data: bytes, layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Fixed ones one after the other, then a pointer to each variable one and to the others."""
    at = 0
    for code, length in layout.fixed:
        yield code, _cut(data, at, length)
        at += length
    for code in layout.variable:
        start = at + _cut(data, at, 1)[0]
        yield code, _cut(data, start + 1, _cut(data, start, 1)[0])
        at += 1
    if not layout.optional:
        return
    pointer = _cut(data, at, 1)[0]
    at += pointer
    while pointer and at < len(data) and data[at]:
        length = _cut(data, at + 1, 1)[0]
        yield data[at], _cut(data, at + 2, length)
        at += 2 + length


def _cut(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ValueError("a parameter ends behind the message")
    return data[at : at + length]


def _named(name: str, number: int, meanings: tuple[str, ...]) -> Fields:
    meaning = meanings[number] if number < len(meanings) else _UNKNOWN
    return {name: number, f"{name}_name": meaning}


def _number(body: bytes, called: bool) -> Fields:
    # Q.763 3.9, 3.10: odd/even and nature of address; then indicators; then digits, low first.
    if not 2 <= len(body) <= 10:
        raise ValueError("a number of the wrong length")
    first, second = body[0], body[1]
    digits = "".join(f"{byte & 15:X}{byte >> 4:X}" for byte in body[2:])
    if called:
        own = _named("inn", second >> 7, names.INTERNAL)
    else:
        own = (
            _named("ni", second >> 7, names.COMPLETENESS)
            | _named("restrict", second >> 2 & 3, names.PRESENTATION)
            | _named("screened", second & 3, names.SCREENING)
        )
    return {
        **own,
        **_named("ton", first & 0x7F, names.NATURES),
        **_named("npi", second >> 4 & 7, names.PLANS),
        "num": digits[:-1] if first & 0x80 else digits,
    }


def _cause(body: bytes) -> Fields:
    if len(body) < 2:
        raise ValueError("a cause too short")
    standard, location, value = body[0] >> 5 & 3, body[0] & 15, body[1] & 0x7F
    found: Fields = {
        "standard_num": standard,
        "standard_name": names.STANDARDS[standard],
        "location_num": location,
        "location_name": names.LOCATIONS.get(location, _UNKNOWN),
    }
    if standard == 0:
        # Q.850 2.2.5: the class is the upper three of seven bits; Kamailio takes two.
        found |= {
            "itu_class_name": names.CLASSES[value >> 4],
            "itu_class_num": value >> 4,
            "itu_cause_name": names.CAUSES.get(value, _UNKNOWN),
            "itu_cause_num": value,
        }
    return {"cause": found}


def _event(body: bytes) -> Fields:
    value = _cut(body, 0, 1)[0]
    return {
        "event": {
            "event_num": value,
            "event_str": names.EVENTS.get(value & 0x7F, "spare"),
            "presentation_str": "presentation restricted" if value & 0x80 else "no indication",
        }
    }


def _connection(body: bytes) -> Fields:
    value = _cut(body, 0, 1)[0]
    return {
        "nature_of_connnection": {
            **_named("satellite", value & 3, names.SATELLITES),
            **_named("continuity_check", value >> 2 & 3, names.CONTINUITY),
            **_named("echo_device", value >> 4 & 1, names.ECHO),
        }
    }


def _forward_call(body: bytes) -> Fields:
    value = int.from_bytes(_cut(body, 0, 2), "little")
    found: Fields = {}
    for name, bits, meanings in names.FORWARD_CALL:
        found |= _named(name, value & (1 << bits) - 1, meanings)
        value >>= bits
    return {"forward_call": found}


def _category(body: bytes) -> Fields:
    value = _cut(body, 0, 1)[0]
    return {"calling_party": {"num": value, "name": names.CATEGORIES.get(value, _UNKNOWN)}}


def _medium(body: bytes) -> Fields:
    value = _cut(body, 0, 1)[0]
    return {"transmission_medium": {"num": value, "name": names.MEDIA.get(value, _UNKNOWN)}}


def _user_service(body: bytes) -> Fields:
    # Q.931 4.5.5: coding and capability, mode and rate, a multiplier for rate 0x18, layer 1.
    multiplied = len(body) > 1 and body[1] & 0x1F == 0x18
    layer1 = _cut(body, 3 if multiplied else 2, 1)[0]
    standard, capability = body[0] >> 5 & 3, body[0] & 0x1F
    mode, rate = body[1] >> 5 & 3, body[1] & 0x1F
    found: Fields = {
        "coding_standard_name": names.CODING[standard],
        "coding_standard": standard,
        "transfer_capability": capability,
        "transfer_mode": mode,
        "transfer_rate": rate,
    }
    if multiplied:
        found["rate_multiplier"] = body[2] & 0x7F
    found |= {"layer1_ident": layer1 >> 5 & 3, "layer1_protocol": layer1 & 0x1F}
    if standard == 0:
        found |= {
            "transfer_capability_name": names.CAPABILITIES.get(capability, _UNKNOWN),
            "transfer_mode_name": names.MODES.get(mode, _UNKNOWN),
            "transfer_rate_name": names.RATES.get(rate, _UNKNOWN),
            "layer1_protocol_name": names.LAYER1.get(layer1 & 0x1F, _UNKNOWN),
        }
    return {"user_information": found}


_READERS: dict[int, Callable[[bytes], Fields]] = {
    MEDIUM: _medium,
    CALLED: lambda body: {"called_number": _number(body, called=True)},
    CONNECTION: _connection,
    FORWARD: _forward_call,
    CATEGORY: _category,
    CALLING: lambda body: {"calling_number": _number(body, called=False)},
    CAUSE: _cause,
    USER_SERVICE: _user_service,
    EVENT: _event,
    HOPS: lambda body: {"hop_counter": _cut(body, 0, 1)[0]},
}
