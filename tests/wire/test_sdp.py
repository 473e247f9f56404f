"""Where media will flow, by SDP."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.wire import sdp
from homerd.wire.sdp import Codec

HEAD = b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\n"
SESSION = HEAD + b"c=IN IP4 192.0.2.10\r\nt=0 0\r\n"


def told(body: bytes) -> list[tuple[str, int, str, int]]:
    return [
        (str(ip_address(each.address)), each.port, str(ip_address(each.rtcp_address)), each.rtcp_port)
        for each in sdp.media(body)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (SESSION + b"m=audio 40000 RTP/AVP 0\r\n", [("192.0.2.10", 40000, "192.0.2.10", 40001)]),
        (SESSION + b"m=audio 40000 RTP/AVP 0\n", [("192.0.2.10", 40000, "192.0.2.10", 40001)]),
        (
            SESSION + b"m=audio 40000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\nm=video 6 RTP/AVP 31\r\n",
            [("2001:db8::1", 40000, "2001:db8::1", 40001), ("192.0.2.10", 6, "192.0.2.10", 7)],
        ),
        (
            SESSION + b"m=audio 40000 RTP/AVP 0\r\na=rtcp:50000\r\n",
            [("192.0.2.10", 40000, "192.0.2.10", 50000)],
        ),
        (
            SESSION + b"m=audio 40000 RTP/AVP 0\r\na=rtcp:50000 IN IP4 192.0.2.99\r\n",
            [("192.0.2.10", 40000, "192.0.2.99", 50000)],
        ),
        (
            SESSION + b"m=audio 4000/2 RTP/AVP 0\r\n",
            [("192.0.2.10", 4000, "192.0.2.10", 4001), ("192.0.2.10", 4002, "192.0.2.10", 4003)],
        ),
        (HEAD + b"c=IN IP4 224.2.1.1/127/3\r\nm=audio 6 RTP/AVP 0", [("224.2.1.1", 6, "224.2.1.1", 7)]),
        (SESSION + b"m=audio 0 RTP/AVP 0\r\n", []),
        (HEAD + b"c=IN IP4 0.0.0.0\r\nm=audio 40000 RTP/AVP 0\r\n", []),
        (HEAD + b"c=IN IP4 host.example\r\nm=audio 40000 RTP/AVP 0\r\n", []),
        (HEAD + b"m=audio 40000 RTP/AVP 0\r\n", []),
        (SESSION + b"m=audio 99999 RTP/AVP 0\r\n", []),
        (SESSION + b"m=\r\nm=audio\r\nc=\r\na=rtcp:\r\na=rtpmap:\r\n", []),
        (
            SESSION + b"m=audio 6 RTP/AVP 0\r\n--boundary\r\nContent-Type: x\r\n\r\nm=audio 8 a 0\r\n",
            [("192.0.2.10", 6, "192.0.2.10", 7)],
        ),
    ],
)  # fmt: skip
def test_media_lines_say_where_rtp_and_rtcp_will_come(body, media):
    assert told(body) == media


def test_payload_types_have_the_names_and_clocks_of_the_line_they_stand_under():
    audio, video = sdp.media(
        SESSION
        + b"m=audio 6 RTP/AVP 96 101\r\na=rtpmap:96 opus/48000/2\r\n"
        + b"a=rtpmap:101 telephone-event/8000\r\na=rtcp-mux\r\na=rtpmap:x y/z\r\n"
        + b"m=video 8 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:128 none/8000\r\n"
    )
    assert audio.codecs == {96: Codec("opus", 48000), 101: Codec("telephone-event", 8000)}
    assert video.codecs == {96: Codec("VP8", 90000)}
    assert (audio.mux, video.mux) == (True, False)


def test_a_line_says_which_it_is_and_what_it_prefers():
    body = SESSION + b"m=video 0 x 31\r\nm=audio 6/2 RTP/AVP 8 0 101\r\n"
    assert [(each.line, each.port, [*each.formats]) for each in sdp.media(body)] == [
        (1, 6, [b"8", b"0", b"101"]),
        (1, 8, [b"8", b"0", b"101"]),
    ]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (b"", []),
        (b"a=ssrc:7 cname:x\r\na=ssrc:7 msid:x\r\na=ssrc:4294967295\r\n", [7, 4294967295]),
        (b"a=ssrc:4294967296 x\r\na=ssrc: 7\r\na=ssrc:-7\r\na=ssrc-group:FID 8 9\r\n", []),
        (b"".join(b"a=ssrc:%d x\n" % n for n in range(100)), [*range(sdp.MAX_SSRCS)]),
    ],
)
def test_sources_are_told_wherever_media_flow(lines, found):
    body = HEAD + b"c=IN IP4 0.0.0.0\r\nm=audio 9 RTP/AVP 0\r\n" + lines
    assert sdp.ssrcs(body) == dict.fromkeys(found, 0)


def test_a_source_is_of_the_media_line_above_it():
    body = HEAD + b"m=audio 9 RTP/AVP 0\r\na=ssrc:7 x\r\nm=video 9 RTP/AVP 97\r\na=ssrc:8 x\r\n"
    assert sdp.ssrcs(body) == {7: 0, 8: 1}


def test_a_body_is_found_behind_the_head_and_in_one_part_of_several():
    assert sdp.find(b"INVITE sip:a SIP/2.0\r\n\r\nv=0\r\n") == 24
    assert sdp.find(b"\r\n\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n") == 42
    assert sdp.find(b"BYE sip:a SIP/2.0\r\n\r\n") == -1


def test_what_one_body_can_ask_for_is_bounded():
    lines = b"".join(b"m=audio %d/65535 RTP/AVP 0\r\n" % (1000 + n) for n in range(1000))
    assert len(sdp.media(SESSION + lines)) == sdp.MAX_MEDIA * sdp.MAX_PAIRS
    codecs = b"".join(b"a=rtpmap:%d x/8000\r\n" % n for n in range(128))
    (media,) = sdp.media(SESSION + b"m=audio 6 RTP/AVP 0\r\n" + codecs)
    assert len(media.codecs) == sdp.MAX_CODECS


@given(st.binary(max_size=300), st.lists(st.sampled_from(
    [b"m=audio 40000 RTP/AVP 0", b"c=IN IP4 192.0.2.1", b"c=IN IP6 ::1", b"a=rtcp:7", b"m=",
     b"a=rtcp-mux", b"a=rtpmap:0 PCMU/8000", b"m=audio 65535/9 x", "a=rtcp:\u0663".encode()]
)))  # fmt: skip
def test_any_bytes_are_read_without_a_fault(data, lines):
    for each in sdp.media(data + b"\n" + b"\n".join(lines)):
        assert 0 < each.port < 65536
        assert 0 <= each.rtcp_port < 65536
        assert len(each.address) in (4, 16)
