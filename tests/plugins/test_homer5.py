"""The Homer 5 row of a message; expected cells are those Kamailio 5.6.3 stored, unless noted."""

from __future__ import annotations

import pytest

from homerd.packet import Packet, RunState
from homerd.wire.hep import Frame
from homerd_plugins._homer5 import (
    SIP_COLUMNS,
    Settings,
    has_rotated_name,
    is_table_name,
    report_row,
    sip_row,
    storable,
)

HEAD = (
    "Via: SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1\r\n"
    "From: <sip:alice@atlanta.example>;tag=ft1\r\n"
    "To: <sip:bob@biloxi.example>\r\n"
    "Call-ID: c1\r\n"
    "CSeq: 7 INVITE\r\n"
)
INVITE = f"INVITE sip:bob@example.com SIP/2.0\r\n{HEAD}Content-Length: 0\r\n\r\n"


def invite(*headers: str, ruri: str = "sip:bob@example.com", head: str = HEAD) -> str:
    """An INVITE with *headers* added."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"INVITE {ruri} SIP/2.0\r\n{head}{lines}Content-Length: 0\r\n\r\n"


def packet(message: str | bytes, **envelope: object) -> Packet:
    """*message* in HEP 3 from 10.0.0.1:5060 to 10.0.0.2:5061, captured by agent 2001."""
    told = {
        "family": 2,
        "protocol": 17,
        "src": bytes([10, 0, 0, 1]),
        "dst": bytes([10, 0, 0, 2]),
        "src_port": 5060,
        "dst_port": 5061,
        "seconds": 1500000000,
        "micros": 123456,
        "payload_type": 1,
        "capture_id": 2001,
        "payload": message.encode() if isinstance(message, str) else message,
    }
    frame = Frame(**(told | envelope))  # type: ignore[arg-type]
    return Packet(frame, RunState(lambda level, text: None))


def cells(
    message: str | bytes, *columns: str, settings: Settings | None = None, **envelope: object
):
    """The named cells of the message's row."""
    row = sip_row(packet(message, **envelope), settings or Settings())
    assert row is not None
    named = dict(zip([column.key for column in SIP_COLUMNS], row, strict=True))
    return tuple(named[column] for column in columns)


def test_a_request_in_all_columns():
    assert sip_row(packet(INVITE), Settings()) == (
        "2017-07-14 02:40:00",  # as text, UTC; Kamailio's driver writes a Julian day
        1500000000123456,
        "INVITE",
        "",
        "sip:bob@example.com",
        "bob",
        "alice",
        "ft1",
        "bob",
        "",
        "",
        "",
        "",
        "c1",
        "",
        "SIP/2.0/UDP 10.1.1.1:5070;branch=z9hG4bKaaa1",
        "z9hG4bKaaa1",
        "7 INVITE",
        "",
        "",
        None,
        "",
        "10.0.0.1",
        5060,
        "10.0.0.2",
        5061,
        "",
        0,
        "",
        0,
        1,
        2,
        "",
        1,
        "homer01:2001",
        "c1",
        "atlanta.example",
        "biloxi.example",
        "example.com",
        "",
        INVITE,
        "",
        "",
        "",
    )


def test_a_reply_has_its_code_as_method_and_no_request_uri():
    message = f"SIP/2.0 486 Busy Here\r\n{HEAD}\r\n"
    assert cells(message, "method", "reply_reason", "ruri", "ruri_user", "ruri_domain", "type") == (
        "486",
        "Busy Here",
        "",
        "",
        "",
        2,
    )


@pytest.mark.parametrize(
    ("ruri", "user", "domain"),
    [
        ("sip:bob:pw@h.example;x=1", "bob", "h.example"),
        ("sips:bob@EXAMPLE.com:5061;transport=tcp?a=b", "bob", "EXAMPLE.com"),
        ("sip:biloxi.example", None, "biloxi.example"),
        ("sip:bob@[2001:db8::9]:5071", "bob", "[2001:db8::9]"),
        ("tel:+3130;phone-context=x", "+3130", ""),
        ("urn:service:sos", "service", "sos"),
    ],
)
def test_the_request_uri_in_parts(ruri, user, domain):
    assert cells(invite(ruri=ruri), "ruri", "ruri_user", "ruri_domain") == (ruri, user, domain)


@pytest.mark.parametrize(
    ("contact", "user", "address", "port"),
    [
        ("<sip:a@1.1.1.1:5070>", "a", "1.1.1.1", 5070),
        ('<sip:a@1.1.1.1>, "x, y" <sip:b@2.2.2.2:99>;q=1', "b", "2.2.2.2", 99),
        ("<sip:u@9.9.9.9>", "u", "9.9.9.9", 0),
        ("<sip:10.1.1.9:5070>", None, "10.1.1.9", 5070),
        ("<tel:+49123>", "+49123", "", 0),
        ("*", "*", None, 0),
        ("<sip:a@[2001:db8::1]:5070>", "a", "2001:db8::1", 5070),  # Kamailio keeps the brackets
        ("<sip:a@1.1.1.1:99999999999999999999>", "a", "1.1.1.1", 0),  # Kamailio refuses it
        ("<im:a@b>", "", "", 0),  # Kamailio refuses the message
    ],
)
def test_the_last_contact_of_the_first_header(contact, user, address, port):
    message = invite(f"Contact: {contact}", "Contact: <sip:c@3.3.3.3>")
    assert cells(message, "contact_user", "contact_ip", "contact_port") == (user, address, port)


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        (['P-Asserted-Identity: "A" <sip:one@x>, <tel:+1>'], "one"),
        (["P-Asserted-Identity: <tel:+31>"], "+31"),
        (["P-Preferred-Identity: <sip:two@x>", "Remote-Party-ID: <sip:three@x>"], "two"),
        (['Remote-Party-ID: "x" <sip:three@x>;party=calling'], "three"),
        (["P-Asserted-Identity: <foo>", "P-Preferred-Identity: <sip:two@x>"], None),
        (["P-Asserted-Identity: <sip:x.example>"], None),
        ([], ""),
    ],
)
def test_the_identity_that_counts(headers, user):
    assert cells(invite(*headers), "pid_user") == (user,)


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        (
            [
                'Authorization: Digest username="a1@r", realm="r"',
                'Proxy-Authorization: Digest realm="r", username="p1"',
            ],
            "p1",
        ),
        (['Authorization: Digest username="a1@r", realm="r"'], "a1"),
        (['Authorization: Digest username=abc, realm="r"'], "abc"),
        (['Authorization: Digest realm="r", nonce="n"'], None),
        (["Authorization: Basic dTpw"], ""),
        (
            ["Proxy-Authorization: Basic dTpw", 'Authorization: Digest username="zz"'],
            "",
        ),
    ],
)
def test_the_user_of_a_digest(headers, user):
    assert cells(invite(*headers), "auth_user") == (user,)


def test_headers_that_are_copied():
    message = invite(
        'Reason: Q.850;cause=16;text="x"',
        "Reason: SIP;cause=2",
        "Diversion: <sip:d@x>;reason=u",
        "User-Agent: UA 1",
        "Server: S",
        "Content-Type: application/sdp",
        "x-cid: leg2",  # Kamailio wants the first letter as asked for
        "Mac: aa",
        "IP: 1.1.1.1",
        "Port: 9",
    )
    copied = ("reason", "diversion", "user_agent", "content_type", "callid_aleg")
    assert cells(message, *copied) == (
        'Q.850;cause=16;text="x"',
        "<sip:d@x>;reason=u",
        "UA 1",
        "application/sdp",
        "leg2",
    )
    assert cells(message, "custom_field1", "custom_field2", "custom_field3") == (
        "aa",
        "1.1.1.1",
        "9",
    )


def test_folds_become_a_blank_and_blanks_at_the_end_go():
    # Kamailio keeps both in these columns.
    message = invite("Diversion: <sip:d@x>;\r\n  reason=u  ", "User-Agent: UA  ")
    assert cells(message, "diversion", "user_agent", "msg") == (
        "<sip:d@x>; reason=u",
        "UA",
        message,
    )


def test_the_first_statistics_header_in_kamailios_order():
    message = invite("X-RTP-Stat: PS=1", "P-RTP-Stat: PS=2", "X-RTP-Stat-Add: DQ=3")
    assert cells(message, "rtp_stat") == ("DQ=3",)


@pytest.mark.parametrize(
    ("value", "address", "port"),
    [
        ("192.0.2.1:5060", "192.0.2.1", 5060),
        ("192.0.2.1", "192.0.2.1", 0),
        ("[2001:db8::77]:5067", "2001:db8::77", 5067),
        ("2001:db8::77", "2001:db8::77", 0),
        ("192.0.2.1:port", "192.0.2.1", 0),
    ],
)
def test_the_originator_is_split_at_its_port(value, address, port):
    # Kamailio writes a NUL into the message in place of the first colon.
    assert cells(invite(f"X-OIP: {value}"), "originator_ip", "originator_port") == (address, port)


@pytest.mark.parametrize(
    ("protocol", "number"), [(17, 1), (6, 2), (22, 3), (132, 4), (50, 0), (0, 0)]
)
def test_protocols_have_kamailios_numbers(protocol, number):
    assert cells(INVITE, "proto", protocol=protocol) == (number,)


def test_protocols_may_have_their_ip_numbers():
    settings = Settings(protocols={number: number for number in range(256)})
    assert cells(INVITE, "proto", settings=settings, protocol=17) == (17,)


def test_compact_names_and_several_vias():
    message = (
        "REGISTER sip:x SIP/2.0\r\n"
        "v: SIP/2.0/TCP 1.1.1.1;branch = z9hG4bKx , SIP/2.0/UDP 2.2.2.2;branch=z9hG4bKy\r\n"
        "Via: SIP/2.0/UDP 3.3.3.3\r\nf: sip:b@x;tag=1\r\nt: sip:b@x\r\ni: reg\r\n"
        "CSeq: 1 REGISTER\r\nm: <sip:b@1.1.1.1>\r\nc: text/plain\r\n\r\n"
    )
    assert cells(message, "via_1", "via_1_branch", "callid", "from_tag", "content_type") == (
        "SIP/2.0/TCP 1.1.1.1;branch = z9hG4bKx , SIP/2.0/UDP 2.2.2.2;branch=z9hG4bKy",
        "z9hG4bKx",
        "reg",
        "1",
        "text/plain",
    )


def test_display_names_and_users_with_odd_signs():
    head = (
        "Via: SIP/2.0/UDP 1.1.1.1;branch=z9hG4bKx\r\n"
        'From: "A <x> ; \\" q" <sip:al%40ice;x=1@h.example:5070;p=1>;x=y;tag=ft9\r\n'
        "To: <tel:+1234>\r\nCall-ID:   c3@h\r\nCSeq: 0007 INVITE\r\n"
    )
    parts = ("from_user", "from_domain", "from_tag", "to_user", "to_domain", "callid", "cseq")
    assert cells(invite(head=head), *parts) == (
        "al%40ice;x=1",
        "h.example",
        "ft9",
        "+1234",
        "",
        "c3@h",
        "0007 INVITE",
    )


def test_a_from_without_user_is_null_and_one_that_is_missing_is_empty():
    without_user = HEAD.replace("<sip:alice@atlanta.example>", "<sip:atlanta.example>")
    assert cells(invite(head=without_user), "from_user", "from_domain") == (None, "atlanta.example")
    assert cells("INVITE sip:a@b SIP/2.0\r\n\r\n", "from_user", "from_domain", "callid") == (
        "",
        "",
        "",
    )


def test_what_cannot_be_read_is_empty_and_counted():
    settings = Settings()
    broken = HEAD.replace("<sip:bob@biloxi.example>", "<bob>")
    message = invite("Contact: <im:x@y>", head=broken, ruri="<sip:a@b>")
    assert cells(message, "ruri_user", "to_user", "contact_user", settings=settings) == ("", "", "")
    assert settings.bad == {"ruri": 1, "to": 1, "contact": 1}


def test_the_correlation_id_is_that_of_the_envelope_up_to_a_nul_else_the_call_id():
    assert cells(INVITE, "correlation_id", correlation_id="corr-1\0x") == ("corr-1",)
    assert cells(INVITE, "correlation_id") == ("c1",)


def test_the_node_has_the_agents_number_when_there_is_one():
    assert cells(INVITE, "node", capture_id=4294967295) == ("homer01:4294967295",)
    assert cells(INVITE, "node", capture_id=None) == ("homer01",)
    chosen = Settings(node="x", node_from_chunk=True)
    named = {"node_name": "edge7"}
    assert cells(INVITE, "node", settings=chosen, extra=named) == ("edge7:2001",)


def test_microseconds_above_a_million_add_seconds():
    assert cells(INVITE, "date", "micro_ts", micros=2_500_000) == (
        "2017-07-14 02:40:02",
        1500000002500000,
    )


def test_a_packet_without_time_has_that_of_its_arrival():
    date, micro_ts = cells(INVITE, "date", "micro_ts", seconds=0, micros=5)
    assert date >= "2024"
    assert micro_ts > 1_700_000_000_000_000


def test_text_that_is_no_utf8_is_kept_as_bytes_in_msg_and_mended_elsewhere():
    settings = Settings()
    message = invite("User-Agent: UA").encode().replace(b"UA\r", b"\xdcA\r")
    assert cells(message, "user_agent", "msg", settings=settings) == ("\ufffdA", message)
    assert settings.cleaned == 1


def test_utf8_is_text():
    message = invite("User-Agent: ÜA")
    assert cells(message, "user_agent", "msg") == ("ÜA", message)


def test_a_nul_in_the_body_stays_and_one_in_a_header_is_mended():
    message = invite("User-Agent: U\0A") + "a\0b"
    assert cells(message, "user_agent", "msg") == ("U\ufffdA", message)


def test_what_is_no_sip_has_no_row():
    assert sip_row(packet('{"type":200}'), Settings()) is None


def test_a_report_in_all_columns():
    report = packet('{"type":200}', payload_type=5, correlation_id="c1")
    assert report_row(report, Settings(), 3) == (
        "2017-07-14 02:40:00",
        1500000000123456,
        "c1",
        "10.0.0.1",
        5060,
        "10.0.0.2",
        5061,
        1,
        2,
        3,
        "homer01:2001",
        '{"type":200}',
    )


def test_a_report_with_an_id_and_text_of_the_scripts_own():
    row = report_row(packet(b"\xff\0"), Settings(), 1, "id\udc80", "text\0")
    assert (row[2], row[11]) == ("id\ufffd", "text\ufffd")
    assert report_row(packet(b"\xff\0"), Settings(), 1)[11] == b"\xff\0"


@pytest.mark.parametrize("name", ["sip_capture_call_20260101", "a" * 64])
def test_names_of_tables(name):
    assert is_table_name(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "a-b", 'a"b', "tä", "a\n", "sqlite_stat1"])
def test_names_that_are_no_table(name):
    assert not is_table_name(name)


@pytest.mark.parametrize(
    "name", ["t1", "x_20260101", "sip_capture", "sip_capture_call", "report_capture_all"]
)
def test_names_as_rotation_gives_them(name):
    assert has_rotated_name(name)


@pytest.mark.parametrize("name", ["t", "t1_x", "2026", "sip_capture_mine"])
def test_names_that_rotation_does_not_give(name):
    assert not has_rotated_name(name)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("Ü\udcff", "Ü\ufffd"),
        ("\udcc3\udc9c", "Ü"),
        ("half \ud800 and \udfff", "half \ufffd and \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_any_text_becomes_one_that_every_store_takes(text, kept):
    assert storable(text) == kept
