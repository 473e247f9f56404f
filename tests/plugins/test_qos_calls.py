"""Module qos: reports find their call, its codec and user agents, and their round trip."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homerd import testing
from homerd_plugins.qos import Qos
from homerd_plugins.sipcapture import SipCapture
from homerd_plugins.xlog import Xlog

ALICE, BOB, PROXY = "192.0.2.10", "192.0.2.20", "192.0.2.1"
T0 = 1_700_000_000
NTP = T0 + 2_208_988_800


def sdp(host: str, port: int, formats: str = "8 101", more: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )


def invite(body: str, call_id: str = "c1", agent: str = "phone/1") -> bytes:
    headers = {"User-Agent": agent, "From": "<sip:a@x>;tag=a", "To": "<sip:b@x>"}
    return testing.request("INVITE", call_id=call_id, headers=headers, body=body)


def answer(body: str, call_id: str = "c1") -> bytes:
    headers = {"Server": "gate/2", "From": "<sip:a@x>;tag=a", "To": "<sip:b@x>;tag=b"}
    return testing.reply(200, call_id=call_id, headers=headers, body=body)


def bye(call_id: str = "c1") -> bytes:
    return testing.request("BYE", call_id=call_id)


def rtcp(ssrc: int = 7, about: int = 9, **block: object) -> str:
    """RTCP of agents: a receiver report of *ssrc*; 25 percent lost, jitter of 160 units."""
    fields = {"source_ssrc": about, "fraction_lost": 64, "packets_lost": 3, "ia_jitter": 160}
    blocks = [{**fields, **block}]
    return json.dumps({"ssrc": ssrc, "type": 201, "report_blocks": blocks})


def sender(ssrc: int, seconds: object, fraction: object, **more: object) -> str:
    """A sender report without a block."""
    info = {"ntp_timestamp_sec": seconds, "ntp_timestamp_usec": fraction, "packets": 5}
    return json.dumps({"ssrc": ssrc, "type": 200, "sender_information": info, **more})


TIE = "$qos(call_id) $qos(tied_by)"


class Run:
    """A script that learns of SIP and logs `text` of reports."""

    def __init__(self, text: str, before: str = "") -> None:
        self.script = testing.Script(
            SCRIPT.format(text=text, before=before),
            Xlog,
            SipCapture,
            Qos,
        )

    def sip(self, message: bytes, src: str = PROXY, at: float = T0) -> str:
        outcome = self.script.feed(message, src=f"{src}:5060", dst=f"{PROXY}:5060", at=at)
        assert outcome.error == ""
        return outcome.lines[-1]

    def report(
        self,
        payload: str,
        src: tuple[str, int] = (ALICE, 40001),
        dst: tuple[str, int] = (BOB, 50001),
        at: float = T0,
        type: int = 5,
        **envelope: object,
    ) -> str:
        ends = {"src": f"{src[0]}:{src[1]}", "dst": f"{dst[0]}:{dst[1]}"}
        outcome = self.script.feed(payload, **ends, at=at, type=type, **envelope)
        assert outcome.error == ""
        return outcome.lines[0]

    def counted(self, name: str) -> dict[str, float]:
        metrics = self.script.metrics()
        return {key: metrics[key] for key in metrics if key.startswith(f"homerd_qos_{name}")}


SCRIPT = """
loadmodule "xlog"
loadmodule "kex"
loadmodule "textops"
loadmodule "sipcapture"
loadmodule "qos"
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "nonsip_hook", 1)
{before}
event_route[sipcapture:request] {{
    if ($hep(0x00b) == 1) return 1;
    xlog("{text}");
    drop;
}}
request_route {{
    if (is_method("PUBLISH")) xlog("{text}");
    if (qos_learn()) xlog("learnt"); else xlog("no");
    exit;
}}
onreply_route {{
    if (qos_learn()) xlog("learnt"); else xlog("no");
    exit;
}}
"""


@pytest.fixture
def run():
    """A script that learns of SIP and logs a text of each report."""
    runs = []

    def start(text: str = TIE, before: str = "") -> Run:
        runs.append(Run(text, before))
        return runs[-1]

    yield start
    for each in runs:
        each.script.stop()


def test_rtcp_of_agents_without_a_correlation_id_finds_its_call_by_sdp(run):
    made = run()
    assert made.sip(invite(sdp(ALICE, 40000))) == "learnt"
    assert made.sip(answer(sdp(BOB, 50000))) == "learnt"
    assert made.report(rtcp()) == "c1 sdp"
    assert made.report(rtcp(), (BOB, 50001), (PROXY, 9)) == "c1 sdp"
    assert made.report(rtcp(11, 12), (PROXY, 9), (BOB, 50001)) == "c1 sdp"
    assert made.report(rtcp(11, 13), (ALICE, 40002), (BOB, 50003)) == "c1 ssrc"
    assert made.report(rtcp(14, 15), (ALICE, 40002), (BOB, 50003)) == "<null> <null>"
    assert made.counted("ties") == {
        'homerd_qos_ties_total{by="sdp"}': 3,
        'homerd_qos_ties_total{by="ssrc"}': 1,
        'homerd_qos_ties_total{by="none"}': 1,
    }
    assert made.counted("calls") == {"homerd_qos_calls": 1}


@pytest.mark.parametrize(
    ("body", "src", "port", "found"),
    [
        (sdp(ALICE, 40000, more="a=rtcp:77\r\n"), PROXY, 77, "c1 sdp"),
        (sdp(ALICE, 40000, more="a=rtcp-mux\r\n"), PROXY, 40000, "c1 sdp"),
        (sdp(ALICE, "40000/2"), PROXY, 40003, "c1 sdp"),
        (sdp("10.0.0.5", 40000), ALICE, 40001, "c1 sdp"),  # behind NAT
        (sdp("192.0.2.99", 40000), ALICE, 40001, "<null> <null>"),
        (sdp("0.0.0.0", 40000), ALICE, 40001, "<null> <null>"),
        (sdp(ALICE, 0), ALICE, 40001, "<null> <null>"),
        (sdp("0.0.0.0", 9, more="a=ssrc:9 cname:x\r\n"), ALICE, 5, "c1 ssrc"),
    ],
)
def test_where_media_flow_is_what_sdp_says(run, body, src, port, found):
    made = run()
    made.sip(invite(body), src)
    assert made.report(rtcp(), (ALICE, port), (PROXY, 9)) == found


def test_the_report_goes_before_the_agent_and_the_agent_before_sdp_and_ssrc(run):
    made = run()
    made.sip(invite(sdp(ALICE, 40000)))
    made.sip(invite(sdp(BOB, 40000, more="a=ssrc:9\r\n"), "c2"))
    measured = json.dumps({"MOS": 4, "CORRELATION_ID": "c9", "SSRC": 9})
    assert made.report(measured, type=34, correlation_id="c8") == "c9 report"
    # Asterisk may say its channel there: it is taken as it is
    assert made.report(rtcp(), correlation_id="PJSIP/a-0001") == "PJSIP/a-0001 correlation_id"
    assert made.report('{"MOS":4,"SSRC":9}', type=34) == "c1 sdp"
    assert made.report('{"INC_MOS":400}', type=38) == "<null> <null>"


def test_an_ssrc_of_two_calls_ties_to_neither(run):
    made = run()
    made.report(rtcp(7, 9), correlation_id="c1")
    made.report(rtcp(8, 9), correlation_id="c2")
    assert made.report(rtcp(0, 9)) == "<null> <null>"
    assert made.report(rtcp(8, 9)) == "c2 ssrc"  # the reporter's own is one call's
    assert made.report(rtcp(7, 8)) == "<null> <null>"


def test_a_publish_is_of_no_call_for_where_it_comes_from(run):
    made = run()
    made.sip(invite(sdp(ALICE, 5060)))
    body = "VQSessionReport: CallTerm\r\nLocalMetrics:\r\nQualityEst: MOSLQ=4.0\r\n"
    headers = {"Content-Type": "application/vq-rtcpxr"}
    publish = testing.request("PUBLISH", headers=headers, body=body)
    outcome = made.script.feed(publish, src=f"{ALICE}:5060", at=T0, correlation_id="p1")
    assert outcome.lines[0] == "<null> <null>"


def test_an_ended_call_is_found_for_another_minute(run):
    made = run()
    made.sip(invite(sdp(ALICE, 40000)))
    assert made.sip(bye(), at=T0 + 100) == "learnt"
    assert made.sip(bye(), at=T0 + 100) == "no"
    assert made.report(rtcp(), at=T0 + 159) == "c1 sdp"
    assert made.report(rtcp(), at=T0 + 160) == "<null> <null>"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (testing.request("OPTIONS"), "no"),
        (testing.reply(180, "Ringing"), "no"),
        (testing.reply(486, "Busy Here", call_id="c1"), "learnt"),
        (testing.request("CANCEL", call_id="c1"), "learnt"),
        (bye("c2"), "no"),
        (invite(sdp(ALICE, 40000), "c" * 2000), "no"),
    ],
)
def test_qos_learn_says_whether_it_was_told_something(run, message, said):
    made = run()
    made.sip(invite(sdp(ALICE, 40000)))
    assert made.sip(message) == said


def test_qos_learn_takes_reports_too():
    script = """
        loadmodule "xlog"
        loadmodule "sipcapture"
        loadmodule "qos"
        modparam("sipcapture", "capture_on", 1)
        modparam("sipcapture", "hep_capture_on", 1)
        modparam("sipcapture", "nonsip_hook", 1)
        event_route[sipcapture:request] {
            if (qos_learn()) xlog("learnt"); else xlog("no");
            drop;
        }
        request_route { exit; }
    """
    with testing.Script(script, Xlog, SipCapture, Qos) as made:
        assert made.feed(rtcp(), type=5).lines == ["learnt"]
        assert made.feed("a line", type=5).lines == ["no"]
        assert made.feed(invite(sdp(ALICE, 40000))).lines == ["learnt"]
        assert made.feed(testing.request("OPTIONS")).lines == ["no"]
        assert made.feed("a line", type=100).lines == ["no"]
        assert made.metrics()["homerd_qos_calls"] == 1


def test_what_was_not_learnt_is_counted(run):
    made = run()
    made.sip(invite(sdp(ALICE, 40000), "c" * 2000))
    assert made.counted("unlearnt") == {
        'homerd_qos_unlearnt_total{reason="media_no_call_id"}': 1,
    }


# -- what the call tells of a report

MEDIA = "$qos(codec) $qos(clock) $qos(jitter) $qos(mos) $qos(mos_source)"


def test_the_codec_of_the_call_has_the_clock_of_jitter_and_lets_it_be_rated(run):
    made = run(MEDIA)
    # 160 units are 20 ms at 8 kHz, 25 percent lost of G.711
    assert made.report(rtcp()) == "<null> <null> 20 <null> <null>"
    made.sip(invite(sdp(ALICE, 40000, "0 8 101")))
    assert made.report(rtcp()) == "PCMU 8000 20 2.36 g107"
    made.sip(answer(sdp(BOB, 50000, "8 101")))
    assert made.report(rtcp()) == "PCMA 8000 20 2.36 g107"
    made.sip(answer(sdp(BOB, 50000, "96", "a=rtpmap:96 opus/48000/2\r\n")))
    assert made.report(rtcp()) == "opus 48000 3 <null> <null>"
    # by the Call-ID, where the addresses are others
    assert made.report(rtcp(), (PROXY, 6), (PROXY, 8), correlation_id="c1").startswith("opus")
    assert made.report(rtcp(), (PROXY, 6), (PROXY, 8)).startswith("opus")


def test_rtcp_clock_holds_where_no_call_is_known(run):
    made = run(MEDIA, before='modparam("qos", "rtcp_clock", 16000)')
    made.sip(invite(sdp(ALICE, 40000)))
    assert made.report(rtcp()) == "PCMA 8000 20 2.36 g107"
    assert made.report(rtcp(3, 4), (PROXY, 6), (PROXY, 8)) == "<null> <null> 10 <null> <null>"


def test_a_call_of_several_media_says_nothing_of_an_unknown_line(run):
    made = run("$qos(codec) $qos(tied_by)")
    video = "m=video 41000 RTP/AVP 31\r\n"
    made.sip(invite(sdp(ALICE, 40000, more=video)))
    assert made.report(rtcp(), (ALICE, 41001)) == "H261 sdp"
    assert made.report(rtcp(), (ALICE, 40001)) == "PCMA sdp"
    assert made.report(rtcp(), (PROXY, 6), (PROXY, 8), correlation_id="c1") == (
        "<null> correlation_id"
    )


def test_media_that_share_an_address_are_told_apart_by_their_ssrc(run):
    made = run("$qos(codec) $qos(jitter)")
    audio = "a=rtcp-mux\r\na=rtpmap:96 opus/48000/2\r\na=ssrc:21 cname:x\r\n"
    video = (
        "m=video 40000 RTP/AVP 97\r\na=rtcp-mux\r\na=rtpmap:97 VP8/90000\r\na=ssrc:22 cname:x\r\n"
    )
    made.sip(invite(sdp(ALICE, 40000, "96", audio + video)))
    assert made.report(rtcp(21, 5, ia_jitter=480), (ALICE, 40000)) == "opus 10"
    assert made.report(rtcp(6, 21, ia_jitter=480), (BOB, 9), (ALICE, 40000)) == "opus 10"
    assert made.report(rtcp(22, 5, ia_jitter=900), (ALICE, 40000)) == "VP8 10"


def test_reports_of_rtp_agents_have_the_codec_where_they_do_not_name_it(run):
    made = run(MEDIA)
    made.sip(invite(sdp(ALICE, 40000)))
    rtp = (ALICE, 40000), (BOB, 50000)
    told = {"TOTAL_PK": 75, "PACKET_LOSS": 25, "JITTER": 4}
    assert made.report(json.dumps(told), *rtp, type=34) == "PCMA 8000 4 2.36 g107"
    told.update(CODEC_NAME="G729", CLOCK=8000)
    assert made.report(json.dumps(told), *rtp, type=34).startswith("G729 8000 4")


def test_the_user_agent_is_that_of_the_side_that_reports(run):
    made = run("$qos(user_agent)")
    made.sip(invite(sdp(ALICE, 40000)))
    made.sip(answer(sdp(BOB, 50000)))
    assert made.report(rtcp()) == "phone/1"
    assert made.report(rtcp(), (BOB, 50001), (ALICE, 40001)) == "gate/2"
    assert made.report(rtcp(), (PROXY, 6), (ALICE, 40001)) == "gate/2"
    assert made.report(rtcp(), (PROXY, 6), (PROXY, 8)) == "<null>"


# -- round trip

TRIP = "$qos(rtt) $qos(mos_cq) $qos(mos_cq_source)"


@pytest.mark.parametrize(
    ("seconds", "fraction", "lsr"),
    [
        (NTP, 0x80001234, (NTP & 0xFFFF) << 16 | 0x8000),
        (str(T0), "500000", str((NTP & 0xFFFF) << 16 | 0x8000)),  # Asterisk
        (str(T0), "499995", str((NTP & 0xFFFF) << 16 | 0x8000)),
        # printed with its sign
        (NTP + 0x8000, 0x80001234, ((NTP + 0x8000 & 0xFFFF) << 16 | 0x8000) - (1 << 32)),
    ],
)
def test_what_answers_a_sender_report_tells_the_round_trip(run, seconds, fraction, lsr):
    made = run(TRIP)
    made.report(sender(9, seconds, fraction), (BOB, 50001), (ALICE, 40001))
    assert made.report(rtcp(lsr=lsr, dlsr=65536), at=T0 + 1.08) == "80 <null> <null>"
    made.sip(invite(sdp(ALICE, 40000)))
    # R = 93.2 - 47.41 for the loss - 0.96 for a way of 40 ms
    assert made.report(rtcp(lsr=lsr, dlsr=65536), at=T0 + 1.08) == "80 2.31 g107"


@pytest.mark.parametrize(
    ("block", "at", "envelope"),
    [
        ({"lsr": 1, "dlsr": 0}, T0 + 1, {}),
        ({"lsr": 0, "dlsr": 0}, T0 + 1, {}),
        ({"lsr": (NTP & 0xFFFF) << 16, "dlsr": 65700}, T0 + 1, {}),
        ({"lsr": (NTP & 0xFFFF) << 16, "dlsr": 0}, T0 + 3601, {}),
        ({"lsr": (NTP & 0xFFFF) << 16, "dlsr": "x"}, T0 + 1, {}),
        ({"lsr": (NTP & 0xFFFF) << 16, "dlsr": 0}, T0 + 1, {"capture_id": 102}),
    ],
)
def test_a_round_trip_that_cannot_be_is_null(run, block, at, envelope):
    made = run(TRIP)
    made.report(sender(9, NTP, 0))
    assert made.report(rtcp(**block), at=at, **envelope) == "<null> <null> <null>"


def test_round_trips_of_rtcp_as_it_was_on_the_wire(run):
    # As two baresip 1.0.0 sent them, the second answers the first.
    first = "81c8000c1dfc991feeaa9cae1a36f3b200011e2b000000f900009ba06b76b25c0000000000004ec600000017000000000000000081ca00081dfc991f01167369703a7562403132372e302e302e313a313534313000000000"
    back = "81c8000c6b76b25ceeaa9cae2385c67d00014557000000f800009b001dfc991f0000000000006829000000299cae1a360000093781ca00066b76b25c01107369703a7561403132372e302e302e310000"
    made = run("$qos(rtt) $qos(local.ssrc)")
    assert made.report(bytes.fromhex(first), at=T0 + 0.1) == "<null> 1802941020"
    # DLSR 0x937 is 36 ms
    assert made.report(bytes.fromhex(back), at=T0 + 0.150) == "14 503093535"


def test_the_default_mode_keeps_no_rtcp_of_unknown_calls():
    script = """
        loadmodule "sipcapture"
        loadmodule "qos"
        modparam("sipcapture", "capture_on", 1)
        modparam("sipcapture", "hep_capture_on", 1)
        request_route { qos_learn(); exit; }
    """
    with testing.Script(script, SipCapture, Qos) as made:
        made.feed(invite(sdp(ALICE, 40000)))
        outcome = made.feed(rtcp(), src=f"{ALICE}:40001", dst=f"{BOB}:50001", type=5)
        assert outcome.effects == []
        assert made.metrics()['homerd_sipcapture_refused_total{reason="no_correlation_id"}'] == 1


# -- whatever comes

WORDS = st.sampled_from([0, 1, 7, 9, (NTP & 0xFFFF) << 16, -1, None, "x", "7", 1 << 40, 1.5])
REPORTS = st.builds(
    lambda ssrc, about, lsr, dlsr, lost: rtcp(ssrc, about, lsr=lsr, dlsr=dlsr, fraction_lost=lost),
    *[WORDS] * 5,
) | st.builds(sender, WORDS, st.sampled_from([NTP, T0, "x", None, 0]), WORDS)
SIGNALLING = st.builds(
    lambda first, call_id, host, port, formats, more: sip_of(
        first, call_id, sdp(host, port, formats, more)
    ),
    st.sampled_from(["INVITE", "BYE", "CANCEL", "200", "486"]),
    st.sampled_from(["c1", "c2", ""]),
    st.sampled_from([ALICE, BOB, "10.0.0.5", "0.0.0.0", "x"]),
    st.sampled_from([0, 40000, 40001, "40000/9", 70000]),
    st.sampled_from(["8", "101", "96", "", "x y"]),
    st.sampled_from(["", "a=ssrc:7 x\r\n", "a=rtcp-mux\r\n", "a=rtpmap:96 a/1\r\n", "m=video 6 x"]),
)


def sip_of(first: str, call_id: str, body: str) -> bytes:
    """A message by its method or status; some with SDP where there should be none."""
    if first.isdigit():
        return testing.reply(int(first), call_id=call_id, body=body if first == "200" else "")
    return testing.request(first, call_id=call_id, body=body if first == "INVITE" else "")


@pytest.fixture(scope="module")
def lasting():
    """One run for all examples: what was learnt before is no reason to fail."""
    made = Run("$qos(form)|$qos(tied_by)|$qos(call_id)|$qos(rtt)|$qos(user_agent)")
    yield made
    made.script.stop()


@given(steps=st.lists(st.tuples(SIGNALLING | REPORTS, st.integers(-9, 9)), max_size=12))
def test_whatever_comes_a_report_has_one_tie_or_none(lasting, steps):
    for message, later in steps:
        if isinstance(message, bytes):
            lasting.sip(message, at=T0 + later)
            continue
        line = lasting.report(message, (ALICE, 40001), (BOB, 40000), at=T0 + later)
        form, by, call_id, trip, _ = line.split("|")
        assert form == "rtcp-json"
        assert (by == "<null>") == (call_id == "<null>")
        assert by in ("sdp", "ssrc", "<null>")
        assert trip == "<null>" or 0 <= int(trip) <= 3_600_000
