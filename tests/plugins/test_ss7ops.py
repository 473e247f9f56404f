"""Module ss7ops: ISUP out of M2UA, M2PA and M3UA.

The IAM was written by hand after Q.763: circuit 5, called +49 30 123456, calling 4930987 with
presentation restricted.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire.hep import Frame, decode, encode
from homerd_plugins import _isup

MODULES = ("pv", "xlog", "sipcapture", "ss7ops")

IAM = bytes.fromhex(
    "0500 01"  # circuit, IAM
    "10"  # nature of connection: echo device
    "2100"  # forward call: international, ISDN user part used
    "0a"  # ordinary subscriber
    "03"  # 3.1 kHz audio
    "02 0a"  # where called number and optional parameters are
    "08 84 10 94 03 21 43 65 07"  # called number: international, odd
    "0a 06 84 17 94 03 89 07"  # calling number, restricted, network provided
    "1d 03 80 90 a3"  # user service information: speech, 64 kbit/s, a-law
    "3d 01 1f"  # hop counter
    "00"
)
REL = bytes.fromhex("0500 0c 02 00 02 82 90")  # cause: ITU-T, local public network, 16
CPG = bytes.fromhex("0500 2c 82 00")  # event: progress, presentation restricted

LABEL = bytes([0x85]) + (100 | 200 << 14 | 3 << 28).to_bytes(4, "little")


def m2ua(isup: bytes, label: bytes = LABEL) -> bytes:
    value = label + isup
    data = (0x0300).to_bytes(2) + (len(value) + 4).to_bytes(2) + value + bytes(-len(value) % 4)
    other = bytes.fromhex("0001000800000007")  # interface identifier
    return b"\1\0\6\1" + (8 + len(other) + len(data)).to_bytes(4) + other + data


def m2pa(isup: bytes) -> bytes:
    body = bytes(8) + b"\0" + LABEL + isup
    return b"\1\0\x0b\1" + (8 + len(body)).to_bytes(4) + body


def m3ua(isup: bytes) -> bytes:
    value = (200).to_bytes(4) + (100).to_bytes(4) + bytes([5, 2, 0, 3]) + isup
    data = (0x0210).to_bytes(2) + (len(value) + 4).to_bytes(2) + value + bytes(-len(value) % 4)
    return b"\1\0\1\1" + (8 + len(data)).to_bytes(4) + data


@pytest.mark.parametrize(("wrap", "kind"), [(m2ua, 8), (m3ua, 9), (m2pa, 13)])
def test_the_message_is_found_in_each_transport(wrap, kind):
    found = _isup.decode(wrap(REL), kind)
    assert (found["msg_name"], found["cic"], found["opc"], found["dpc"]) == ("REL", 5, 200, 100)


def test_numbers_are_read_with_their_indicators():
    found = _isup.decode_isup(IAM)
    assert found["called_number"] == {
        "inn": 0,
        "inn_name": "routing to internal network number allowed",
        "ton": 4,
        "ton_name": "international number",
        "npi": 1,
        "npi_name": "ISDN (Telephony) numbering plan (ITU-T Recommendation E.164)",
        "num": "49301234567",
    }
    calling = found["calling_number"]
    assert (calling["num"], calling["restrict"], calling["screened"]) == ("4930987", 1, 3)


def test_a_cause_is_named():
    assert _isup.decode_isup(REL[:-1] + b"\xa2")["cause"] == {
        "standard_num": 0,
        "standard_name": "ITU-T",
        "location_num": 2,
        "location_name": "public network serving the local user (LN)",
        "itu_class_name": "resource unavailable",
        "itu_class_num": 2,
        "itu_cause_name": "No circuit/channel available",
        "itu_cause_num": 34,
    }


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("0500 0c 02 00 01 82", {"msg_name": "REL"}),
        ("0500 01 00 0000 0a 03 02 00 0c 0410 00000000000000000000", {"msg_name": "IAM"}),
        ("0500 09 01 3d01 05 3d01 07 00", {"msg_name": "ANM", "hop_counter": 5}),
        ("0500 09 01 3d00 00", {"msg_name": "ANM"}),
        ("0500 41 01 7802 ffff 00", {"msg_name": "APM"}),
    ],
    ids=["a short cause", "20 digits", "two hop counters", "an empty one", "an unknown one"],
)
def test_a_parameter_of_the_wrong_size_is_left_out_and_the_first_counts(message, fields):
    found = _isup.decode_isup(bytes.fromhex(message))
    told = ("msg_name", "cause", "called_number", "hop_counter")
    assert {name: value for name, value in found.items() if name in told} == fields


FIELDS = {
    "method": "IAM",
    "opc": "200",
    "dpc": "100",
    "cic": "5",
    "called_inn": "0",
    "called_ton": "4",
    "called_npi": "1",
    "called_num": "49301234567",
    "calling_ni": "0",
    "calling_restrict": "1",
    "calling_screened": "3",
    "calling_ton": "4",
    "calling_npi": "1",
    "calling_num": "4930987",
    "calling_category": "10",
    "hop_counter": "31",
    "nature_of_conn_sat": "0",
    "nature_of_conn_con_check": "0",
    "nature_of_conn_echo_device": "1",
    "fwd_call_international": "1",
    "fwd_call_interworking": "0",
    "fwd_call_end_to_end_method": "0",
    "fwd_call_end_to_end_information": "0",
    "fwd_call_isup": "1",
    "fwd_call_isup_preference": "0",
    "fwd_call_sccp_method": "0",
    "fwd_call_isdn": "0",
    "transmission_medium": "3",
    "user_info_coding_standard": "0",
    "user_info_transfer_cap": "0",
    "user_info_transfer_mode": "0",
    "user_info_transfer_rate": "16",
    "user_info_layer1_ident": "1",
    "user_info_layer1_protocol": "3",
    "cause_standard": "<null>",
    "cause_location": "<null>",
    "cause_itu_class": "<null>",
    "cause_itu_num": "<null>",
    "event_num": "<null>",
}


@pytest.fixture
def isup(script):
    """What a hook logs for a payload of HEP type 8."""

    def run(text: str, payload: bytes, before: str = "") -> list[str]:
        runner = script(
            'modparam("sipcapture", "capture_on", 1) modparam("sipcapture", "hep_capture_on", 1)\n'
            'modparam("sipcapture", "nonsip_hook", 1)\n'
            f"event_route[sipcapture:request] {{ {before} if (isup_to_json(8)) xlog('{text}');"
            " else xlog('no: $isup(method)'); drop; }\nrequest_route { drop; }",
            MODULES,
        )
        told = Frame(3, 2, 132, b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 0, 0, 8, payload=payload)
        runner.worker.engine.feed(decode(encode(told)))
        return runner.lines

    return run


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_can_be_read(isup, name):
    assert isup(f"$isup({name})", m2ua(IAM)) == [FIELDS[name]]


def test_the_whole_is_json(isup):
    (line,) = isup("$isup(1)", m2ua(REL))
    assert line.startswith('{"cic":5,"msg_type":12,"msg_name":"REL","cause":{"standard_num":0,')
    assert json.loads(line)["opc"] == 200


def test_the_payload_may_stand_in_a_variable(isup):
    before = "$var(payload) = $hep(0x00f);"
    assert isup("$isup(method) $isup(event_num)", m2ua(CPG), before) == ["CPG 130"]


@pytest.mark.parametrize("payload", [b"", b"junk", m2pa(IAM), m2ua(IAM, b"\x83" + LABEL[1:])])
def test_what_is_no_isup_is_false_and_its_fields_null(isup, payload):
    assert isup("yes", payload) == ["no: <null>"]


def test_an_unknown_field_is_a_mistake(refusal):
    said = refusal('request_route { xlog("$isup(nope)"); }', MODULES)
    assert "expected 1, method" in said


@pytest.mark.parametrize("data", [b"", b"\5\0", b"\5\0\xff", IAM[:9], IAM[:14], REL[:5]])
def test_a_cut_message_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"message|parameter"):
        _isup.decode_isup(data)


@given(st.binary(max_size=80), st.sampled_from([8, 9, 13, 1]))
def test_any_bytes_give_fields_or_a_value_error(data, kind):
    for wrapped in (data, m2ua(data), m3ua(data), m2pa(data)):
        try:
            json.dumps(_isup.decode(wrapped, kind))
        except ValueError:
            pass
