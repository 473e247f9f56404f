"""Calls by the addresses and the SSRCs of their media, and what is known of their sides."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd.core import calls
from homerd.core.calls import Calls
from homerd.wire.frame import IPV4, SIP, Frame
from homerd.wire.sdp import Codec

ALICE, BOB, PROXY = "192.0.2.10", "192.0.2.20", "192.0.2.1"
T0 = 1_700_000_000


def sdp(host: str, port: int, formats: str = "0 101", more: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )


def sip(
    first: str,
    body: str = "",
    *,
    call_id: str = "c1",
    cseq: str = "1 INVITE",
    tags: str = "ab",
    agent: str = "",
    src: str = PROXY,
    at: int = T0,
) -> Frame:
    text = (
        f"{first}\r\nVia: SIP/2.0/UDP {src}\r\nFrom: <sip:a@x>;tag={tags[0]}\r\n"
        f"To: <sip:b@x>;tag={tags[1]}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n{agent}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    ends = ip_address(src).packed, ip_address(PROXY).packed, 5060, 5060
    return Frame(0, IPV4, 17, *ends, at, 0, SIP, payload=text)


INVITE = sip("INVITE sip:b@x SIP/2.0", sdp(ALICE, 40000), agent="User-Agent: phone/1\r\n")
OK = sip("SIP/2.0 200 OK", sdp(BOB, 50000), agent="Server: gate/2\r\n")
BYE = sip("BYE sip:b@x SIP/2.0", cseq="2 BYE")
CANCEL = sip("CANCEL sip:b@x SIP/2.0", cseq="1 CANCEL")
REFUSED = sip("SIP/2.0 486 Busy Here")


def learnt(*frames: Frame, details: bool = True) -> Calls:
    known = Calls(details=details)
    for frame in frames:
        known.learn(frame, frame.seconds, frame.seconds)
    return known


def call_at(known: Calls, host: str, port: int, seconds: int = T0) -> str | None:
    place = known.place(ip_address(host).packed, port, seconds)
    return place.call.call_id if place is not None else None


def test_a_call_is_there_by_each_address_and_by_its_id():
    known = learnt(INVITE, OK)
    assert [call_at(known, ALICE, port) for port in (40000, 40001, 40002)] == ["c1", "c1", None]
    assert call_at(known, BOB, 50001) == "c1"
    assert known.by_id("c1", T0).call_id == "c1"
    assert known.by_id("c2", T0) is None
    assert len(known) == 1


@pytest.mark.parametrize(
    ("frames", "ended"),
    [
        ([INVITE], False),
        ([INVITE, OK], False),
        ([INVITE, OK, BYE], True),
        ([INVITE, BYE], True),
        ([INVITE, REFUSED], True),
        ([INVITE, CANCEL], True),
        ([INVITE, OK, REFUSED], False),
        ([INVITE, OK, CANCEL], False),
        ([INVITE, CANCEL, OK], False),
        ([INVITE, sip("SIP/2.0 481 x INVITE", cseq="1 CANCEL")], False),
        ([INVITE, sip("SIP/2.0 486 INVITE", call_id="c9")], False),
        ([INVITE, sip("CANCELLED sip:b@x SIP/2.0", cseq="1 CANCELLED")], False),
    ],
)
def test_an_ended_call_is_there_for_another_minute(frames, ended):
    known = learnt(*frames)
    assert call_at(known, ALICE, 40000, T0 + 59) == "c1"
    assert call_at(known, ALICE, 40000, T0 + 60) == (None if ended else "c1")
    assert call_at(known, ALICE, 40000, T0 + 14_399) == (None if ended else "c1")
    assert call_at(known, ALICE, 40000, T0 + 14_400) is None


def test_what_a_message_told_is_given_back():
    known = Calls()
    told = [known.learn(each, T0, T0) for each in (INVITE, OK, sip("ACK x SIP/2.0"), BYE, BYE)]
    assert [each and each.call_id for each in told] == ["c1", "c1", None, "c1", None]
    assert told[0].ended


def test_a_sender_whose_clock_is_wrong_ends_no_call_of_others():
    known = learnt(INVITE)
    known.learn(sip("INVITE x SIP/2.0", sdp(BOB, 6), call_id="c2"), T0 + 10**9, T0 + 1)
    known.expire(T0 + 2)
    assert call_at(known, ALICE, 40000) == "c1"
    # what it is told has its time as well
    assert call_at(known, BOB, 6, T0 + 10**9) == "c2"


def test_memory_is_freed_by_the_keepers_clock():
    known = learnt(INVITE, OK, BYE, sip("INVITE x SIP/2.0", sdp(BOB, 6), call_id="c2"))
    known.expire(T0 + 59)
    assert len(known) == 2
    known.expire(T0 + 60)
    assert len(known) == 1
    known.expire(T0 + 14_400)
    assert len(known) == 0
    assert known.counts == {}


@pytest.mark.parametrize(
    ("offer", "answer", "codec"),
    [
        ("0 101", None, Codec("PCMU", 8000)),
        ("0 8 101", "8 0 101", Codec("PCMA", 8000)),
        ("101 18", None, Codec("G729", 8000)),
        ("0", "99", Codec("PCMU", 8000)),  # the answer's is not explained
        ("96", "0", Codec("PCMU", 8000)),
        ("101", "101", None),
        ("\u0663 +8 x 1000 8", None, Codec("PCMA", 8000)),
    ],
)
def test_the_codec_is_the_first_of_the_answer_else_of_the_offer(offer, answer, codec):
    known = learnt(sip("INVITE x SIP/2.0", sdp(ALICE, 40000, offer)))
    if answer is not None:
        known.learn(sip("SIP/2.0 200 OK", sdp(BOB, 50000, answer)), T0, T0)
    assert known.by_id("c1", T0).sides.codec(None) == codec


def test_codecs_change_with_the_answer_and_are_those_of_their_line():
    video = "a=rtpmap:96 opus/48000/2\r\nm=video 41000 x 97\r\na=rtpmap:97 VP8/90000\r\n"
    known = learnt(sip("INVITE x SIP/2.0", sdp(ALICE, 40000, "96", video)), OK)
    place = known.place(ip_address(ALICE).packed, 41001, T0)
    assert place.line == 1
    sides = place.call.sides
    assert (sides.codec(0), sides.codec(1)) == (Codec("PCMU", 8000), Codec("VP8", 90000))
    assert sides.codec(None) is None
    # the offer of a re-INVITE is none yet; its answer in ACK is
    known.learn(sip("INVITE x SIP/2.0", sdp(ALICE, 40000, "8")), T0, T0)
    assert sides.codec(0).name == "PCMU"
    known.learn(sip("ACK x SIP/2.0", sdp(ALICE, 40000, "8"), cseq="1 ACK"), T0, T0)
    assert sides.codec(0).name == "PCMA"


def test_each_side_has_its_user_agent():
    known = learnt(INVITE, OK)
    alice = known.place(ip_address(ALICE).packed, 40000, T0)
    bob = known.place(ip_address(BOB).packed, 50000, T0)
    sides = alice.call.sides
    assert (sides.agents[alice.side], sides.agents[bob.side]) == ("phone/1", "gate/2")
    assert (sides.agent_beside(alice.side), sides.agent_beside(bob.side)) == ("gate/2", "phone/1")
    # a re-INVITE of the other side is that side's
    known.learn(sip("INVITE x SIP/2.0", sdp(BOB, 50010), tags="ba"), T0, T0)
    again = known.place(ip_address(BOB).packed, 50010, T0)
    assert sides.agents[again.side] == "gate/2"
    assert learnt(INVITE, details=False).by_id("c1", T0).sides is None


# -- SSRC


def test_an_ssrc_of_sdp_or_of_a_report_leads_to_its_call():
    known = learnt(sip("INVITE x SIP/2.0", sdp("0.0.0.0", 9, more="a=ssrc:7 cname:x\r\n")))
    known.hear("c1", [8], T0, T0)
    known.hear("c2", [9], T0, T0)
    found = [known.of_ssrc(ssrc, T0) for ssrc in (7, 8, 9, 10)]
    assert [each and each.call_id for each in found] == ["c1", "c1", "c2", None]
    assert known.of_ssrc(9, T0 + 14_400) is None
    known.expire(T0 + 14_400)
    assert (len(known), known.of_ssrc(7, T0)) == (0, None)


def test_an_ssrc_of_two_calls_at_once_is_of_neither_until_one_is_over():
    known = learnt(INVITE)
    known.hear("c1", [7], T0, T0)
    known.hear("c2", [7], T0, T0)
    assert known.of_ssrc(7, T0) is None
    known.learn(BYE, T0, T0)
    assert known.of_ssrc(7, T0 + 59) is None
    assert known.of_ssrc(7, T0 + 60).call_id == "c2"
    known.expire(T0 + 60)
    assert known.of_ssrc(7, T0 + 60).call_id == "c2"


def test_an_ssrc_that_every_device_has_is_of_no_call():
    known = Calls(details=True)
    for number in range(17):
        known.hear(f"c{number}", [1], T0 + 20_000 * number, T0)
    assert known.of_ssrc(1, T0 + 20_000 * 16) is None


# -- bounds


@pytest.mark.parametrize("bound", ["MAX_CALLS", "MAX_SSRCS", "MAX_ADDRESSES"])
def test_the_call_told_longest_ago_makes_room(monkeypatch, bound):
    monkeypatch.setattr(calls, bound, 4 if bound == "MAX_ADDRESSES" else 2)
    known = Calls(details=True)
    for number in (0, 1, 0, 2):
        body = sdp(ALICE, 40000 + 2 * number, more=f"a=ssrc:{number + 1}\r\n")
        known.learn(sip("INVITE x SIP/2.0", body, call_id=f"c{number}"), T0, T0)
    found = [known.of_ssrc(number + 1, T0) for number in range(3)]
    assert [each and each.call_id for each in found] == ["c0", None, "c2"]
    assert known.counts == {"media_forgotten": 1}


def test_calls_without_media_are_bounded_too(monkeypatch):
    monkeypatch.setattr(calls, "MAX_CALLS", 3)
    known = learnt(*(sip("INVITE x SIP/2.0", "v=0\r\n", call_id=f"c{n}") for n in range(9)))
    assert (len(known), known.counts["media_forgotten"]) == (3, 6)


def test_one_call_has_so_many_addresses_and_sources_and_no_more():
    lines = "".join(f"m=audio {n} x 0\r\n" for n in range(1000, 1100, 2))
    more = "".join(f"a=ssrc:{n} x\r\n" for n in range(100))
    known = learnt(
        sip("INVITE x SIP/2.0", "v=0\r\nc=IN IP4 192.0.2.9\r\n" + lines),
        sip("INVITE x SIP/2.0", "v=0\r\nm=audio 9 x 0\r\n" + more),
    )
    assert call_at(known, "192.0.2.9", 1063) == "c1"
    assert call_at(known, "192.0.2.9", 1064) is None
    known.hear("c1", [1000], T0, T0)
    assert known.of_ssrc(63, T0).call_id == "c1"
    assert known.of_ssrc(1000, T0) is None


def test_a_call_id_without_end_is_not_kept():
    known = learnt(sip("INVITE x SIP/2.0", sdp(ALICE, 6), call_id="c" * 1025))
    known.hear("c" * 1025, [7], T0, T0)
    assert (len(known), known.counts) == (0, {"media_no_call_id": 2})


MESSAGES = st.builds(
    lambda first, number, port, body, ssrc: sip(
        first,
        sdp(ALICE, port, more=f"a=ssrc:{ssrc} x\r\n") if body else "",
        call_id=f"c{number}",
        cseq=f"1 {first.split()[0] if not first.startswith('SIP') else 'INVITE'}",
    ),
    st.sampled_from(["INVITE x SIP/2.0", "SIP/2.0 200 OK", "SIP/2.0 486 x", "BYE x SIP/2.0"]),
    st.integers(0, 4),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(MESSAGES, st.integers(0, 3000), st.integers(0, 8)), max_size=30))
def test_whatever_comes_all_is_forgotten_in_the_end(steps):
    known = Calls(details=True)
    now = T0
    for message, later, ssrc in steps:
        now += later
        known.expire(now)
        known.learn(message, now, now)
        known.hear("heard", [ssrc], now, now)
        place = known.place(ip_address(ALICE).packed, 1, now)
        assert place is None or known.by_id(place.call.call_id, now) is place.call
        found = known.of_ssrc(ssrc, now)
        assert found is None or ssrc in found.sides.ssrcs
    known.expire(now + 14_400)
    assert (len(known), known._places, known._ssrcs, known._named, known._ended) == (
        0,
        {},
        {},
        0,
        {},
    )


def test_media_lines_that_share_an_address_know_each_others_codecs():
    lines = "a=rtpmap:96 opus/48000/2\r\nm=video 40000 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\n"
    known = learnt(sip("INVITE sip:b@x SIP/2.0", sdp(ALICE, 40000, "96", lines)))
    codecs = known.place(ip_address(ALICE).packed, 40000, T0).codecs
    assert (codecs[96], codecs[97]) == (Codec("opus", 48000), Codec("VP8", 90000))


def test_a_call_whose_answer_has_no_sdp_is_not_ended_by_a_refused_change():
    progress = sip("SIP/2.0 183 Session Progress", sdp(BOB, 50000))
    allow = "Allow: INVITE, BYE\r\n"
    for cseq, seconds in (("1 INVITE", 3600), ("1 PRACK", 59)):
        known = learnt(INVITE, progress, sip("SIP/2.0 200 OK", cseq=cseq, agent=allow), REFUSED)
        assert call_at(known, BOB, 50000, T0 + seconds) == "c1"
        assert (call_at(known, BOB, 50000, T0 + 61) == "c1") == (cseq == "1 INVITE")
