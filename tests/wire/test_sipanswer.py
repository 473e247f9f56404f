import pytest

from homerd.wire import sipanswer
from homerd.wire.sip import SipMessage
from homerd.wire.sipanswer import token, way_back

PHONE = ("192.0.2.7", 40000)


def request(*vias, to="<sip:b@b>", more="", body=""):
    lines = ["OPTIONS sip:b@b SIP/2.0", *(f"Via: {via}" for via in vias)]
    lines += ["From: <sip:a@a>;tag=1", f"To: {to}", "Call-ID: c1", "CSeq: 7 OPTIONS"]
    return SipMessage(("\r\n".join([*lines, *filter(None, [more])]) + f"\r\n\r\n{body}").encode())


def answer(asked, status, sender, more=()):
    return sipanswer.answer(asked, way_back(asked), status, sender, more)


def port_of(asked, sender):
    return sipanswer.port_of(way_back(asked).top, sender)


def transaction(asked, host):
    return sipanswer.transaction(asked, way_back(asked).top, host)


def lines(data, name):
    return [line for line in data.decode().split("\r\n") if line.startswith(f"{name}:")]


@pytest.mark.parametrize(
    ("via", "port", "answered"),
    [
        # RFC 3261 18.2.1: received where the sender is not who it says; 18.2.2: back to its port
        ("192.0.2.7;branch=z9", 5060, "192.0.2.7;branch=z9"),
        ("192.0.2.7:5070;branch=z9", 5070, "192.0.2.7:5070;branch=z9"),
        ("phone.example:5070;branch=z9", 5070, "phone.example:5070;branch=z9;received=192.0.2.7"),
        # RFC 3581: where the sender asks, its port
        ("192.0.2.7;rport;branch=z9", 40000, "192.0.2.7;branch=z9;received=192.0.2.7;rport=40000"),
        ("192.0.2.7;rport=1 ;x=2", 40000, "192.0.2.7;x=2;received=192.0.2.7;rport=40000"),
        # behind NAT
        ("10.0.0.1:5060;branch=z9", 40000, "10.0.0.1:5060;branch=z9;received=192.0.2.7"),
        ("[2001:db8::1];branch=z9", 40000, "[2001:db8::1];branch=z9;received=192.0.2.7"),
        # what the sender says of itself is not believed
        ("192.0.2.7;received=198.51.100.1;branch=z9", 5060, "192.0.2.7;branch=z9"),
        ("h;RECEIVED=198.51.100.1", 5060, "h;received=192.0.2.7"),
        ("192.0.2.7;maddr=198.51.100.1", 5060, "192.0.2.7;maddr=198.51.100.1"),
        ("192.0.2.7:99999", 40000, "192.0.2.7:99999"),
        ("192.0.2.7:0", 40000, "192.0.2.7:0"),
    ],
)
def test_the_way_back(via, port, answered):
    asked = request(f"SIP/2.0/UDP {via}")
    assert port_of(asked, PHONE) == port
    assert lines(answer(asked, 200, PHONE), "Via") == [f"Via: SIP/2.0/UDP {answered}"]


def test_an_ipv6_sender_is_known_however_it_is_written():
    asked = request("SIP/2.0/UDP [2001:DB8:0::1]:5070")
    assert port_of(asked, ("2001:db8::1", 40000)) == 5070
    assert b"received" not in answer(asked, 200, ("2001:db8::1", 40000))


def test_every_via_is_given_back_in_order_and_only_the_first_is_told_the_sender():
    asked = request("SIP/2.0/TCP a;rport, SIP/2.0/UDP b;rport", "SIP / 2.0 / UDP c:5062")
    assert lines(answer(asked, 200, PHONE), "Via") == [
        "Via: SIP/2.0/TCP a;received=192.0.2.7;rport=40000",
        "Via: SIP/2.0/UDP b;rport",
        "Via: SIP / 2.0 / UDP c:5062",
    ]


@pytest.mark.parametrize(
    "vias", [[], ["nothing"], ["SIP/2.0/UDP"], ["SIP/2.0/UDP a", "?"], ["SIP/2.0/UDP a"] * 71]
)
def test_without_vias_that_can_be_read_there_is_no_way_back(vias):
    assert way_back(request(*vias)) is None


def test_what_identifies_the_request_comes_back_and_to_gets_a_tag():
    asked = request("SIP/2.0/UDP 192.0.2.7;branch=z9")
    tag = token(asked, "to")
    assert (
        answer(asked, 489, PHONE, [("Allow-Events", "vq-rtcpxr")])
        == (
            "SIP/2.0 489 Bad Event\r\n"
            "Via: SIP/2.0/UDP 192.0.2.7;branch=z9\r\n"
            "From: <sip:a@a>;tag=1\r\n"
            f"To: <sip:b@b>;tag={tag}\r\n"
            "Call-ID: c1\r\n"
            "CSeq: 7 OPTIONS\r\n"
            "Allow-Events: vq-rtcpxr\r\n"
            "Content-Length: 0\r\n\r\n"
        ).encode()
    )


def test_a_tag_that_is_there_stays():
    asked = request("SIP/2.0/UDP 192.0.2.7", to="<sip:b@b>;tag=2")
    assert lines(answer(asked, 200, PHONE), "To") == ["To: <sip:b@b>;tag=2"]


def test_folded_and_compact_headers_are_given_back_in_full_on_one_line():
    asked = SipMessage(
        b"OPTIONS sip:b@b SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.7\r\n ;branch=z9\r\n"
        b"f: <sip:a@a>\r\n\t;tag=1\r\nt: <sip:b@b>;tag=2\r\ni: c1\r\nCSeq: 7\r\n OPTIONS\r\n\r\n"
    )
    assert answer(asked, 200, PHONE).decode().split("\r\n")[1:6] == [
        "Via: SIP/2.0/UDP 192.0.2.7 ;branch=z9",
        "From: <sip:a@a> ;tag=1",
        "To: <sip:b@b>;tag=2",
        "Call-ID: c1",
        "CSeq: 7 OPTIONS",
    ]


def test_no_header_can_be_slipped_into_an_answer():
    asked = request("SIP/2.0/UDP 192.0.2.7;x=1\rEvil: 1", to="<sip:b@b>\0;tag=2\rEvil: 2")
    text = answer(asked, 200, PHONE)
    assert b"\r" not in text.replace(b"\r\n", b"")
    assert b"\0" not in text
    assert lines(text, "Evil") == []


def test_bytes_that_are_no_utf8_come_back_as_they_came():
    asked = SipMessage(
        b"OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: \xff\xc3\r\nCall-ID: \xe9\r\n\r\n"
    )
    assert b"From: \xff\xc3\r\nCall-ID: \xe9\r\n" in answer(asked, 400, PHONE)


@pytest.mark.parametrize(
    "other",
    [
        request("SIP/2.0/UDP a;branch=z8", body="b"),
        request("SIP/2.0/UDP b;branch=z9", body="b"),
        request("SIP/2.0/UDP a:5070;branch=z9", body="b"),
        request("SIP/2.0/UDP a;branch=z9", body="c"),
    ],
)
def test_another_request_is_another_transaction(other):
    first = request("SIP/2.0/UDP a;branch=z9", body="b")
    assert transaction(first, "192.0.2.7") != transaction(other, "192.0.2.7")


def test_a_retransmission_is_the_same_transaction_of_the_same_sender_alone():
    first = request("SIP/2.0/UDP a;branch=z9", more="Max-Forwards: 70")
    again = request("SIP/2.0/UDP a;branch=z9", more="Max-Forwards: 69")
    assert transaction(first, "192.0.2.7") == transaction(again, "192.0.2.7")
    assert transaction(first, "192.0.2.7") != transaction(first, "192.0.2.8")
    assert token(first, "to") == token(again, "to") != token(first, "etag")
