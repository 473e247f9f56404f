"""SIP messages read on demand: the usual, the odd, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire.sip import SipMessage, Via, looks_like_sip
from homerd.wire.uri import NameAddr

INVITE = b"""INVITE sip:bob:pw@h.example:5070;x=1 SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK1\r
Via: SIP/2.0/TCP [2001:db8::1]:5070;branch=z9hG4bK2\r
From: "Alice" <sip:alice@a.example>;tag=ft\r
To: Bob Doe <sips:bob@b.example:5061>\r
Call-ID: 7@host\r
CSeq: 314159 INVITE\r
Contact: <sip:alice@192.0.2.1:5080;transport=tcp>;expires=60\r
User-Agent: phone 1.0\r
Content-Type: application/sdp\r
Content-Length: 5\r
\r
v=0\r
"""
REPLY = b"SIP/2.0 486 Busy Here\r\nCSeq: 2 BYE\r\nTo: <sip:b@c>;tag=tt\r\n\r\n"

FIELDS = {"raw", "text", *(n for n, v in vars(SipMessage).items() if isinstance(v, property))}
FIELDS -= {"first_bodies"}


def of(headers: str, line: str = "OPTIONS sip:a@b SIP/2.0") -> SipMessage:
    return SipMessage(f"{line}\r\n{headers}\r\n\r\n".encode("utf-8", "surrogateescape"))


def test_a_request_is_read_whole():
    message = SipMessage(INVITE)
    assert {name: getattr(message, name) for name in FIELDS} == {
        "body": "v=0\r\n",
        "call_id": "7@host",
        "complete": True,
        "contact_body": "<sip:alice@192.0.2.1:5080;transport=tcp>;expires=60",
        "contact_host": "192.0.2.1",
        "contact_port": "5080",
        "contact_uri": "sip:alice@192.0.2.1:5080;transport=tcp",
        "contact_user": "alice",
        "content_length": 5,
        "content_type": "application/sdp",
        "cseq": "314159 INVITE",
        "cseq_method": "INVITE",
        "cseq_number": "314159",
        "from_body": '"Alice" <sip:alice@a.example>;tag=ft',
        "from_host": "a.example",
        "from_name": '"Alice"',
        "from_tag": "ft",
        "from_uri": "sip:alice@a.example",
        "from_user": "alice",
        "is_reply": False,
        "is_request": True,
        "method": "INVITE",
        "raw": INVITE,
        "reason": None,
        "received_ruri": "sip:bob:pw@h.example:5070;x=1",
        "ruri": "sip:bob:pw@h.example:5070;x=1",
        "ruri_host": "h.example",
        "ruri_port": "5070",
        "ruri_user": "bob",
        "status": None,
        "text": INVITE.decode(),
        "to_body": "Bob Doe <sips:bob@b.example:5061>",
        "to_host": "b.example",
        "to_name": "Bob Doe",
        "to_tag": None,
        "to_uri": "sips:bob@b.example:5061",
        "to_user": "bob",
        "user_agent": "phone 1.0",
        "via_body": "SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK1",
        "via_branch": "z9hG4bK1",
    }


def test_a_reply_has_the_method_of_its_cseq_and_no_request_uri():
    message = SipMessage(REPLY)
    assert (message.is_reply, message.is_request) == (True, False)
    assert (message.status, message.reason, message.method) == (486, "Busy Here", "BYE")
    assert (message.ruri, message.ruri_user, message.ruri_host) == (None, None, None)
    assert message.complete is False


@pytest.mark.parametrize(
    ("line", "method", "ruri"),
    [
        ("OPTIONS sip:a@b SIP/2.0", "OPTIONS", "sip:a@b"),
        ("invite sip:a@b sip/2.0", "invite", "sip:a@b"),
        ("INVITE  sip:a@b \t SIP/2.0  ", "INVITE", "sip:a@b"),
        ("INVITE sip:a@b; lr SIP/2.0", "INVITE", "sip:a@b; lr"),
        ("INVITE <sip:a@b> SIP/2.0", "INVITE", "<sip:a@b>"),
        ("!a-Method0_*+`.%indeed'~ sip:a SIP/2.0", "!a-Method0_*+`.%indeed'~", "sip:a"),
    ],
)
def test_a_request_line_is_read_leniently(line, method, ruri):
    message = of("CSeq: 1 X", line)
    assert (message.is_request, message.method, message.ruri) == (True, method, ruri)
    assert looks_like_sip(message.raw)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("SIP/2.0 200 OK", 200, "OK"),
        ("SIP/2.0 200 ", 200, ""),
        ("SIP/2.0 200", 200, ""),
        ("sip/2.0  180  Ringing you ", 180, "Ringing you"),
        ("SIP/2.0 4294967301 better not break", 4294967301, "better not break"),
    ],
)
def test_a_status_line_is_read_leniently(line, status, reason):
    message = of("", line)
    assert (message.is_reply, message.status, message.reason) == (True, status, reason)
    assert looks_like_sip(message.raw)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\0\0\0\0",
        "GET / HTTP/1.1",
        "OPTIONS sip:a@b SIP/3.0",
        "OPTIONS SIP/2.0",
        "IN VITE",
        "SIP/2.0 OK",
        "(x) sip:a@b SIP/2.0",
        '{"a": "From: x"}',
    ],
)
def test_what_has_no_first_line_of_sip_has_no_field(line):
    message = SipMessage(f"{line}\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: 7\r\n\r\n".encode())
    assert not looks_like_sip(message.raw)
    assert (message.is_request, message.is_reply) == (False, False)
    assert (message.method, message.from_body, message.call_id) == (None, None, None)
    assert (message.headers("From"), message.header_names()) == ([], [])


@pytest.mark.parametrize("start", ["\r\n", "\n", "\r\n\r\n", "\r"])
def test_line_ends_before_the_message_are_passed_over(start):
    message = SipMessage((start + "OPTIONS sip:a@b SIP/2.0\r\ni: 7\r\n\r\nbody").encode())
    assert looks_like_sip(message.raw)
    assert (message.method, message.call_id, message.body) == ("OPTIONS", "7", "body")
    assert message.text.startswith(start)


@pytest.mark.parametrize(
    ("header", "call_id"),
    [
        ("Call-ID: 7@host", "7@host"),
        ("i: 7@host", "7@host"),
        ("I:7@host", "7@host"),
        ("CALL-id  :   7@host \t", "7@host"),
        ("Call-ID:\r\n 7@host", "7@host"),
        ("Call-ID: 7@\r\n\t  host", "7@ host"),
        ("Call-ID: 7@host  \r\n  x", "7@host x"),
        ("Call-ID: first\r\ni: second", "first"),
        ("Call-ID:", ""),
        (": x\r\nCall-ID: 7@host", "7@host"),
        ("X-Call-ID: 7@host", None),
        ("Call-ID 7@host", None),
    ],
)
def test_call_id_in_all_its_spellings(header, call_id):
    message = of(f"Max-Forwards: 70\r\n{header}\r\nSubject: x")
    assert message.call_id == call_id
    assert message.header("call-id") == call_id
    assert message.header("i") == call_id
    assert message.header("s") == "x"


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_headers_of_a_body_are_not_the_messages(end):
    head = ["MESSAGE sip:a@b SIP/2.0", "i: outer", "Content-Type: message/sipfrag", "", ""]
    message = SipMessage(end.join(head).encode() + b"SIP/2.0 200 OK\r\nTo: <sip:x@y>\r\n\r\n")
    assert (message.call_id, message.to_body, message.header("To")) == ("outer", None, None)
    assert message.body == "SIP/2.0 200 OK\r\nTo: <sip:x@y>\r\n\r\n"


def test_line_ends_of_both_kinds_in_one_message():
    message = SipMessage(b"BYE sip:a@b SIP/2.0\nf: <sip:x@y>\r\ni: 7\n\r\nbody\r\n\r\nmore")
    assert (message.from_user, message.call_id, message.body) == ("x", "7", "body\r\n\r\nmore")


def test_a_message_without_an_empty_line_is_all_head():
    message = SipMessage(b"BYE sip:a@b SIP/2.0\r\ni: 7")
    assert (message.call_id, message.body) == ("7", "")


def test_a_head_of_many_lines_is_read_to_its_end():
    many = "\r\n".join(f"X-{number}: {number}" for number in range(300))
    message = SipMessage(f"BYE sip:a@b SIP/2.0\r\n{many}\r\ni: 7\r\n\r\nTo: x\r\n".encode())
    assert (message.header("x-299"), message.call_id, message.to_body) == ("299", "7", None)


def test_headers_of_one_name_come_in_order_whatever_their_spelling():
    message = of("v: a\r\nX-Foo: 1\r\nVia: b,\r\n c\r\nx-foo: 2\r\nVIA : d")
    assert message.headers("Via") == message.headers("v") == ["a", "b, c", "d"]
    assert message.headers("X-FOO") == ["1", "2"]
    assert message.headers("absent") == []
    assert message.header_names() == ["v", "X-Foo", "Via", "x-foo", "VIA"]


@pytest.mark.parametrize(
    ("body", "name", "uri", "user", "host", "tag"),
    [
        ("<sip:a@b>;tag=1", None, "sip:a@b", "a", "b", "1"),
        ("<sip:a@b>;x=y;TAG = 1 ;z", None, "sip:a@b", "a", "b", "1"),
        ("<sip:a@b>;tag=1;x=y", None, "sip:a@b", "a", "b", "1"),
        ("sip:a@b;tag=1", None, "sip:a@b", "a", "b", "1"),
        ("sip:a@b", None, "sip:a@b", "a", "b", None),
        ("<sip:b>", None, "sip:b", None, "b", None),
        ('"A <b>; \\" ," <sip:a@b>;tag=1', '"A <b>; \\" ,"', "sip:a@b", "a", "b", "1"),
        ('"" <sip:a@b>', '""', "sip:a@b", "a", "b", None),
        ("A. G. Bell <sip:a@b>", "A. G. Bell", "sip:a@b", "a", "b", None),
        ("<sip:a:p@[::1]:5060;lr>", None, "sip:a:p@[::1]:5060;lr", "a", "[::1]", None),
        ("<sip:a;b=c@d>", None, "sip:a;b=c@d", "a;b=c", "d", None),
        ("<tel:+31;phone-context=x>;tag=1", None, "tel:+31;phone-context=x", "+31", None, "1"),
        ("<urn:service:sos>", None, "urn:service:sos", "service", "sos", None),
        ("<im:a@b>;tag=1", None, "im:a@b", None, None, "1"),
        ("<sip:a@b:port>", None, "sip:a@b:port", None, None, None),
        ("", None, None, None, None, None),
    ],
)
def test_the_party_headers_are_read_alike(body, name, uri, user, host, tag):
    message = of(f"From: {body}\r\nt: {body}")
    expected = (name, uri, user, host, tag)
    assert expected == (
        message.from_name,
        message.from_uri,
        message.from_user,
        message.from_host,
        message.from_tag,
    )
    assert expected == (
        message.to_name,
        message.to_uri,
        message.to_user,
        message.to_host,
        message.to_tag,
    )


@pytest.mark.parametrize(
    ("headers", "uri", "user", "host", "port"),
    [
        ("m: <sip:a@b:99>", "sip:a@b:99", "a", "b", "99"),
        ("Contact: sip:a@b;expires=1", "sip:a@b", "a", "b", None),
        ('Contact: "x, y" <sip:1@c>;q=1, <sip:2@d>', "sip:2@d", "2", "d", None),
        ("Contact: <sip:1@c>\r\nContact: <sip:2@d>", "sip:1@c", "1", "c", None),
        ("Contact: *", "*", "*", None, None),
        ("Contact: <tel:+31>", "tel:+31", "+31", None, None),
        ('Contact: <sip:a@b>;+sip.instance="<urn:x:y>"', "sip:a@b", "a", "b", None),
        ("Contact:", None, None, None, None),
        ("Subject: x", None, None, None, None),
    ],
)
def test_the_contact_is_the_last_of_the_first_header(headers, uri, user, host, port):
    message = of(headers)
    found = (message.contact_uri, message.contact_user, message.contact_host, message.contact_port)
    assert found == (uri, user, host, port)


def test_the_contacts_are_those_of_the_first_header():
    message = of('Contact: "x, y" <sip:1@c>;q=1, <sip:2@d>\r\nContact: <sip:3@e>')
    assert message.contacts() == [
        NameAddr('"x, y"', "sip:1@c", ";q=1"),
        NameAddr("", "sip:2@d", ""),
    ]
    assert message.contacts()[0].parameter("Q") == "1"


@pytest.mark.parametrize(
    ("body", "branch"),
    [
        ("SIP/2.0/UDP a;branch=z1", "z1"),
        ("SIP/2.0/UDP a;branch=z1;rport", "z1"),
        ("SIP/2.0/UDP a;rport; BRANCH = z1 ;x", "z1"),
        ("SIP/2.0/UDP a;branch=z1, SIP/2.0/UDP b;branch=z2", "z1"),
        ("SIP/2.0/UDP a, SIP/2.0/UDP b;branch=z2", None),
        ("SIP/2.0/UDP a", None),
    ],
)
def test_the_branch_is_that_of_the_topmost_via(body, branch):
    assert of(f"Via: {body}\r\nVia: SIP/2.0/UDP c;branch=z9").via_branch == branch


def test_a_rewritten_request_uri_is_read_in_its_place_and_the_received_one_is_kept():
    message = SipMessage(INVITE)
    assert message.ruri_user == "bob"
    message.rewrite_ruri("sip:carol@new.example")
    assert (message.ruri, message.ruri_user, message.ruri_host, message.ruri_port) == (
        "sip:carol@new.example",
        "carol",
        "new.example",
        None,
    )
    assert (message.received_ruri, message.method) == ("sip:bob:pw@h.example:5070;x=1", "INVITE")


def test_a_reply_has_no_request_uri_to_rewrite():
    message = SipMessage(REPLY)
    message.rewrite_ruri("sip:carol@new.example")
    assert (message.ruri, message.status, message.received_ruri) == (None, 486, None)


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ("Via: SIP/2.0/UDP a", "a"),
        ("v:SIP/2.0/UDP a;x, SIP/2.0/UDP b", "a"),
        ("Via: nonsense, SIP/2.0/UDP b", "b"),
        ("Via: nonsense\r\nVia: SIP/2.0/UDP b", "b"),
        ("Via:\r\n SIP/2.0/UDP\r\n\ta", "a"),
    ],
)
def test_the_topmost_via_is_the_first_that_can_be_read(headers, host):
    assert of(headers).via(1).host == host


def test_via_elements_are_counted_over_all_headers():
    message = of(
        "Via: SIP/2.0/UDP a:5060;branch=z1,SIP / 2.0 / TCP  [::1] : 99 ;x\r\nv: nonsense\r\n"
        "Via: SIP/2.0/TLS c"
    )
    assert message.via(1) == Via("SIP/2.0", "UDP", "a", "5060", ";branch=z1")
    assert message.via(2) == Via("SIP/2.0", "TCP", "[::1]", "99", ";x")
    assert message.via(-1) == Via("SIP/2.0", "TLS", "c", "", "")
    assert [message.via(number) for number in (0, 4, -4)] == [None, None, None]
    assert (message.via(1).parameter("branch"), message.via(2).parameter("y")) == ("z1", None)


@pytest.mark.parametrize(
    ("body", "number", "method"),
    [
        ("1 INVITE", "1", "INVITE"),
        ("  00042   ACK  ", "00042", "ACK"),
        ("INVITE", None, None),
        ("x INVITE", None, "INVITE"),
        ("", None, None),
    ],
)
def test_cseq_has_a_number_and_a_method(body, number, method):
    message = of(f"CSeq:{body}")
    assert (message.cseq_number, message.cseq_method) == (number, method)


@pytest.mark.parametrize(
    ("body", "length"), [("5", 5), (" 0 ", 0), ("-1", None), ("x", None), ("9" * 5000, None)]
)
def test_content_length_is_a_number_or_nothing(body, length):
    assert of(f"l: {body}").content_length == length


def test_bytes_that_are_no_utf8_come_out_as_they_came_in():
    message = SipMessage(b"OPTIONS sip:a@b SIP/2.0\r\nSubject: \xff\xc3\xa9\0\r\n\r\n\xfe")
    assert message.header("Subject").encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9\0"
    assert message.body.encode("utf-8", "surrogateescape") == b"\xfe"


PIECES = st.sampled_from(
    [
        b"OPTIONS sip:a@b SIP/2.0\r\n",
        b"SIP/2.0 200 OK\r\n",
        *(line + b"\r\n" for line in INVITE.split(b"\r\n")),
        *(b"\r\n", b"\n", b" ", b":", b";", b",", b'"', b"<", b">", b"=", b"\\", b"@", b"\0"),
        *(b"From: ", b"t:", b"v:", b"m: *", b"CSeq:", b"l:", b"sip:", b"tag=", b"\xff", b"9"),
    ]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=30).map(b"".join))
def test_every_field_of_any_bytes_can_be_read(data):
    message = SipMessage(data)
    for name in FIELDS:
        getattr(message, name)
    for name in message.header_names():
        assert message.header(name) is not None
    message.contacts()
    message.vias()
    assert message.headers("via")[:1] == ([] if message.via_body is None else [message.via_body])
    assert (message.is_request or message.is_reply) == looks_like_sip(data)
    assert message.text.encode("utf-8", "surrogateescape") == data


@given(st.integers(0, len(INVITE)))
def test_every_beginning_of_a_message_can_be_read(cut):
    message = SipMessage(INVITE[:cut])
    for name in FIELDS:
        getattr(message, name)
