"""What decoding costs: `python tests/bench/bench_wire.py`, µs, the least of several repeats."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from homerd.wire import hep
from homerd.wire.sip import SipMessage, looks_like_sip

INVITE = (
    b"INVITE sip:bob@biloxi.example.com:5060;transport=udp SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK74bf9a1c;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice Liddell" <sip:alice@atlanta.example.com>;tag=9fxced76sl\r\n'
    b"To: Bob <sip:bob@biloxi.example.com>\r\n"
    b"Call-ID: 3848276298220188511@atlanta.example.com\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.10:5060;transport=udp>\r\n"
    b"User-Agent: ExamplePhone 3.2.1\r\n"
    b"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: 151\r\n"
    b"\r\n"
    b"v=0\r\no=alice 2890844526 2890844526 IN IP4 192.0.2.10\r\ns=-\r\n"
    b"c=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\n"
)

FRAME = hep.encode(
    hep.Frame(
        family=2,
        protocol=17,
        src=bytes([192, 0, 2, 10]),
        dst=bytes([198, 51, 100, 7]),
        src_port=5060,
        dst_port=5061,
        seconds=1_700_000_000,
        micros=123_456,
        payload_type=1,
        capture_id=2001,
        auth_key="myHep",
        correlation_id="3848276298220188511@atlanta.example.com",
        payload=INVITE,
    )
)

ABSENT = (
    "p-asserted-identity",
    "p-preferred-identity",
    "remote-party-id",
    "proxy-authorization",
    "authorization",
    "diversion",
    "reason",
    "X-CID",
)


def read_row() -> None:
    """What a row of sip_capture asks of a message."""
    message = SipMessage(INVITE)
    message.method, message.call_id, message.cseq  # noqa: B018
    message.ruri, message.ruri_user, message.ruri_host  # noqa: B018
    message.from_user, message.from_host, message.from_tag  # noqa: B018
    message.to_user, message.to_host, message.to_tag  # noqa: B018
    message.contact_user, message.contact_host, message.contact_port  # noqa: B018
    message.via_body, message.via_branch  # noqa: B018
    message.user_agent, message.content_type  # noqa: B018
    for name in ABSENT:
        message.header(name)


def read_index() -> None:
    """The first header costs the index of all."""
    SipMessage(INVITE).call_id  # noqa: B018


def microseconds(call: Callable[[], object], number: int = 20_000) -> float:
    """The least time of one call."""
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def main() -> None:
    """Print one line a stage."""
    print(f"SIP message of {len(INVITE)} bytes, HEP frame of {len(FRAME)}")
    print(f"hep.decode, 13 chunks      {microseconds(lambda: hep.decode(FRAME)):6.2f}")
    print(f"looks_like_sip             {microseconds(lambda: looks_like_sip(INVITE)):6.2f}")
    print(f"SipMessage()               {microseconds(lambda: SipMessage(INVITE)):6.2f}")
    print(f"  + Call-ID (the index)    {microseconds(read_index):6.2f}")
    print(f"  a row's 18 values, 8 absent headers {microseconds(read_row):6.2f}")


if __name__ == "__main__":
    main()
