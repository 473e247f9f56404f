"""SIP over WebSocket in captured connections: frames, masks, what is lost and what cannot be."""

from __future__ import annotations

import zlib
from collections import Counter
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from homerd.wire.streams import SYN, TcpStreams
from homerd.wire.websocket import WebSocketFramer, is_upgrade

MASK = b"\x12\x34\x56\x78"
OPTIONS = b"OPTIONS sip:b@h SIP/2.0\r\nCall-ID: 1\r\n\r\n"
OK = b"SIP/2.0 200 OK\r\nCall-ID: 1\r\nContent-Length: 5\r\n\r\nhello"
GET = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-protocol:sip\r\n\r\n"
)
FIN, COMPRESSED = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def ws(payload: bytes, first: int = FIN | TEXT, mask: bytes = b"", long: int = 0) -> bytes:
    """A frame; long: the bytes of a length that is longer than it has to be."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if long == 8 or size > 0xFFFF:
        head = pack(">BBQ", first, bit | 127, size)
    elif long == 2 or size > 125:
        head = pack(">BBH", first, bit | 126, size)
    else:
        head = pack(">BB", first, bit | size)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else payload
    return head + mask + masked


def framed(*pieces: bytes, limit: int = 65536) -> tuple[list[bytes], dict[str, int]]:
    framer = WebSocketFramer(Counter(), limit)
    messages = [message for piece in pieces for message in framer.feed(piece)]
    return messages, dict(framer.counts)


def deflated(*messages: bytes) -> list[bytes]:
    """As one peer sends them, which keeps its window."""
    packer = zlib.compressobj(wbits=-15)
    return [
        (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4] for message in messages
    ]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("mask", [b"", MASK, b"\0\0\0\0"])
@pytest.mark.parametrize("long", [0, 2, 8])
def test_a_message_is_one_sip_message(opcode, mask, long):
    frame = ws(OPTIONS, FIN | opcode, mask, long)
    assert framed(frame + ws(OK)) == ([OPTIONS, OK], {})


@pytest.mark.parametrize("size", [125, 126, 127, 65000])
def test_lengths_of_every_kind_are_read(size):
    message = OPTIONS + b"x" * (size - len(OPTIONS))
    assert framed(ws(message, mask=MASK) + ws(OK)) == ([message, OK], {})


def test_a_message_may_come_in_frames_with_others_between_them():
    stream = ws(OPTIONS[:5], TEXT, MASK) + ws(b"", FIN | PING) + ws(OPTIONS[5:9], CONTINUATION)
    stream += ws(b"", CONTINUATION) + ws(b"on?", FIN | PONG, MASK) + ws(OPTIONS[9:], FIN)
    assert framed(stream + ws(OK)) == ([OPTIONS, OK], {"ws_control": 2})


def test_text_that_is_no_utf_8_is_taken_as_it_is():
    message = OPTIONS.replace(b"1", b"\xe9\xff")
    assert framed(ws(message)) == ([message], {})


@pytest.mark.parametrize(
    ("payload", "counts"),
    [
        (b"\r\n\r\n", {"keep_alive": 1}),
        (b"", {"keep_alive": 1}),
        (b'{"a": 1}', {"ws_not_sip": 1}),
        (b"\x80\0\xff", {"ws_not_sip": 1}),
    ],
)
def test_a_message_that_is_no_sip_is_counted(payload, counts):
    assert framed(ws(payload, mask=MASK) + ws(OK)) == ([OK], counts)


def test_line_ends_before_a_message_are_not_part_of_it():
    assert framed(ws(b"\r\n\r\n" + OPTIONS)) == ([OPTIONS], {})


@pytest.mark.parametrize(
    "frame",
    [
        ws(b"", FIN | 3),
        ws(b"", FIN | 11),
        ws(b"", FIN | TEXT | 0x20),
        ws(b"", PING),
        ws(b"", FIN | COMPRESSED | PING),
        ws(b"x" * 126, FIN | CLOSE),
        ws(b"", FIN | CONTINUATION),
        pack(">BBQ", FIN | TEXT, 127, 1 << 40),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_frame_that_cannot_be_is_counted_and_the_next_message_found(frame):
    assert framed(ws(OPTIONS) + frame + ws(OK, mask=MASK)) == ([OPTIONS, OK], {"ws_bad_frame": 1})


def test_a_message_that_begins_within_another_is_taken_and_the_other_counted():
    assert framed(ws(OPTIONS[:9], TEXT) + ws(OK)) == ([OK], {"ws_bad_frame": 1})


def test_a_message_beyond_the_limit_is_passed_over_and_not_kept():
    framer = WebSocketFramer(Counter(), 1000)
    large = ws(OPTIONS + b"x" * 5000, mask=MASK)
    for at in range(0, len(large), 100):
        assert framer.feed(large[at : at + 100]) == []
        assert framer.pending <= 100
    assert framer.feed(ws(OK)) == [OK]
    assert framer.counts == {"sip_too_large": 1}


def test_frames_of_a_message_without_an_end_are_passed_over_at_the_limit():
    framer = WebSocketFramer(Counter(), 1000)
    framer.feed(ws(OPTIONS, TEXT))
    for _ in range(1000):
        assert framer.feed(ws(b"x" * 50, CONTINUATION) + ws(b"", CONTINUATION)) == []
        assert framer.pending <= 1000
    assert framer.feed(ws(b"", FIN | CONTINUATION) + ws(OK)) == [OK]
    assert framer.counts == {"sip_too_large": 1}


def test_compressed_messages_are_unpacked():
    frames = [ws(body, FIN | COMPRESSED | TEXT, MASK) for body in deflated(OPTIONS, OK, OPTIONS)]
    assert framed(*frames, ws(OK)) == ([OPTIONS, OK, OPTIONS, OK], {})


def test_compressed_messages_of_a_peer_that_forgets_its_window_are_unpacked():
    frames = [ws(deflated(body)[0], FIN | COMPRESSED | TEXT) for body in (OPTIONS, OK, OPTIONS)]
    assert framed(*frames) == ([OPTIONS, OK, OPTIONS], {})


def test_a_message_that_unpacks_to_more_than_the_limit_is_counted():
    bomb = deflated(b"\0" * (10 << 20))[0]
    frames = [ws(body, FIN | COMPRESSED | TEXT) for body in (bomb, deflated(OK)[0])]
    assert framed(*frames) == ([OK], {"sip_too_large": 1})


def test_what_cannot_be_unpacked_is_counted():
    frames = [ws(body, FIN | COMPRESSED | TEXT) for body in (b"\xff" * 20, deflated(OK)[0])]
    assert framed(*frames) == ([OK], {"ws_bad_deflate": 1})


@pytest.mark.parametrize("mask", [b"", MASK])
def test_behind_lost_bytes_the_next_message_is_found(mask):
    framer = WebSocketFramer(Counter(), 65536)
    assert framer.feed(ws(OPTIONS[:20], TEXT, mask)) == []
    framer.lose()
    rest = b"\x81\x85rest of \x82\xfe\x01 a frame" + ws(b"", FIN | PING, mask)
    stream = rest + ws(OK, mask=mask) + ws(OPTIONS, mask=mask)
    assert [m for at in range(len(stream)) for m in framer.feed(stream[at : at + 1])] == [
        OK,
        OPTIONS,
    ]


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (GET, True),
        (SWITCHING, True),
        (GET.replace(b": sip", b": xmpp, SIP ,x"), True),
        (GET.replace(b": sip", b": xmpp"), False),
        (GET.replace(b": sip", b": sipx"), False),
        (GET.replace(b": sip", b": msrp-sip"), False),
        (GET.replace(b"Upgrade: websocket", b"Upgrade: h2c"), False),
        (SWITCHING.replace(b"101", b"400"), False),
        (OPTIONS, False),
    ],
)
def test_an_upgrade_is_one_to_the_sub_protocol_sip(head, upgrade):
    assert is_upgrade(head) == upgrade


def captured(*segments: bytes, mid_stream: bool = False) -> tuple[list[bytes], dict[str, int]]:
    streams, sequence, messages = TcpStreams(), 1000, []
    place = (b"\x0a\0\0\x01", 40000, b"\x0a\0\0\x02", 80)
    if not mid_stream:
        streams.feed(*place, sequence - 1, SYN, b"", 1)
    for segment in segments:
        messages += streams.feed(*place, sequence, 0x10, segment, 1)
        sequence += len(segment)
    return messages, dict(streams.counts)


@pytest.mark.parametrize("size", [1, 3, 50, 5000])
@pytest.mark.parametrize(("head", "mask"), [(GET, MASK), (SWITCHING, b"")])
def test_a_connection_is_followed_through_its_upgrade(head, mask, size):
    stream = head + ws(OPTIONS, mask=mask) + ws(OK, mask=mask)
    segments = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert captured(*segments) == ([OPTIONS, OK], {})


@pytest.mark.parametrize("mask", [b"", MASK])
def test_a_connection_whose_upgrade_was_not_captured_is_told_by_a_frame(mask):
    frame = ws(OPTIONS, mask=mask)
    assert captured(frame[:7], frame[7:], ws(OK), mid_stream=True) == ([OPTIONS, OK], {})


def test_http_that_is_no_upgrade_gives_nothing_and_is_counted():
    page = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + b"<p>\r\n" * 10
    assert captured(page, page) == ([], {"no_start_line": 1})


def test_a_head_that_never_ends_is_not_kept_for_ever():
    streams = TcpStreams()
    place = (b"\x0a\0\0\x01", 40000, b"\x0a\0\0\x02", 80)
    line = b"GET / HTTP/1.1\r\n" * 64
    for number in range(200):
        streams.feed(*place, number * len(line), 0x10, line, 1)
        assert streams.kept < 20_000
    assert streams.counts["not_sip"] > 0


@pytest.mark.parametrize("extensions", [[], ["permessage-deflate"]], ids=["plain", "deflate"])
def test_what_a_browser_and_a_proxy_say_to_each_other_is_read(extensions):
    """Both ends are wsproto's."""
    phone, proxy = WSConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    offered = [PerMessageDeflate() for _ in extensions]
    there = phone.send(Request("h", "/", subprotocols=["sip"], extensions=offered))
    proxy.receive_data(there)
    accept = AcceptConnection("sip", extensions=[PerMessageDeflate() for _ in extensions])
    back = proxy.send(accept)
    phone.receive_data(back)
    assert [type(event) for event in phone.events()] == [AcceptConnection]
    for part in (OPTIONS[:9], OPTIONS[9:]):
        there += phone.send(TextMessage(part.decode(), message_finished=part == OPTIONS[9:]))
        there += phone.send(Ping(b"still there?"))
    for _ in range(3):
        there += phone.send(TextMessage(OPTIONS.decode()))
        back += proxy.send(BytesMessage(OK))
    there += phone.send(CloseConnection(1000))
    assert captured(there) == ([OPTIONS] * 4, {"ws_control": 3})
    assert captured(back) == ([OK] * 3, {})


MESSAGES = st.sampled_from([OPTIONS, OK, b"\r\n", b"no SIP", OPTIONS + b"x" * 900])
MASKS = st.sampled_from([b"", MASK]) | st.binary(min_size=4, max_size=4)


@st.composite
def frames(draw: st.DrawFn, message: bytes) -> bytes:
    cuts = sorted(draw(st.lists(st.integers(0, len(message)), max_size=4)))
    stream, places = b"", [*cuts, len(message)]
    start = 0
    for number, end in enumerate(places):
        first = (TEXT if number == 0 else CONTINUATION) | (FIN if number == len(cuts) else 0)
        stream += ws(message[start:end], first, draw(MASKS))
        if draw(st.booleans()) and number < len(cuts):
            stream += ws(b"hello", FIN | PING, draw(MASKS))
        start = end
    return stream


@given(st.data(), st.lists(MESSAGES, max_size=5))
def test_messages_come_whole_however_they_are_framed_and_cut(data, messages):
    stream = b"".join(data.draw(frames(message)) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert framed(*pieces)[0] == [m for m in messages if m.startswith((b"OPTIONS", b"SIP"))]


@given(
    st.lists(st.binary(max_size=60) | MESSAGES.map(ws) | st.just(b"\x81\xfe\x01"), max_size=20),
    st.booleans(),
)
def test_whatever_comes_stays_within_the_bounds(pieces, seeking):
    framer = WebSocketFramer(Counter(), 500, seeking)
    for piece in pieces:
        assert all(len(message) <= 500 for message in framer.feed(piece))
        assert framer.pending <= 2 * 500 + 14 + 44_000
