"""Capture plans of captagent: their language, their words, and what leaves for the profiles."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from homerd.core.reload import Reloader
from homerd.errors import ScriptErrors
from homerd.lang.dialect import Dialect, dialect_of
from homerd.testing import Script, diagnostics, reply, request
from homerd.wire import hep
from homerd.wire.hep import Frame

ALICE, BOB = b"\x0a\0\0\x0b", b"\x0a\0\0\x09"
SDP = "v=0\r\nc=IN IP4 10.0.0.11\r\nm=audio 4000 RTP/AVP 0\r\n"
INVITE = request(
    headers={"User-Agent": "Phone/1.0", "X-CID": "other-leg", "Content-Type": "application/sdp"},
    body=SDP,
)
RECEIVER_REPORT = bytes.fromhex(
    "81c90007 00000001 00000002 10000003 00000004 00000005 00000006 00000007".replace(" ", "")
)


def captured(payload=INVITE, *, seconds=1700000000, kind=1, version=0, **more):
    """A packet as a capture file gives it."""
    return Frame(
        version, 2, 17, ALICE, BOB, 5060, 5080, seconds, 7, kind, payload=payload, raw=payload, **more
    )  # fmt: skip


def ran(plan, frame=None):
    with Script(plan) as script:
        return script.feed(captured() if frame is None else frame)


def said(condition, frame=None):
    """Whether *condition* is true of the packet."""
    plan = (
        f'capture[pcap] {{ if ({condition}) {{ clog("E", "yes"); }} else clog("E", "no"); drop; }}'
    )
    outcome = ran(plan, frame)
    assert outcome.error == ""
    return outcome.lines[-1:] == ["yes"]


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


# -- the language


@pytest.mark.parametrize(
    ("text", "by", "line"),
    [
        ("capture[pcap] {\n}", "capture[pcap] {", 1),
        ("# a plan\n\tcapture [ rtcpxr ]\n{\n}", "capture [ rtcpxr ] {", 2),
        ("debug = 3\ncapture { drop; }", "capture {", 2),
        ('#!CAPTAGENT\ninclude_file "plan.cfg"', "#!CAPTAGENT", 1),
    ],
)
def test_a_plan_is_told_by(text, by, line):
    told = dialect_of(text)
    assert (told.dialect, told.by, told.line) == (Dialect.PLAN, by, line)


@pytest.mark.parametrize(
    "text",
    [
        "# capture[pcap] {\nroute { exit; }",
        'route { xlog("capture[pcap] {"); }',
        "#!KAMAILIO\ncapture[pcap] { drop; }",
    ],
)
def test_a_script_is_no_plan(text):
    assert dialect_of(text).dialect is Dialect.KAMAILIO


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("1", True),
        ("0", False),
        ("not 0", True),
        ("!1", False),
        ("parse_sip() and sip_has_sdp()", True),
        ("0 || 1", True),
        ("1 or 0 and 0", True),
        ("1 & 0", False),
        ("0 | 1", True),
        ("(1 or 0) and 0", False),
        ("method == INVITE", True),
        ('method == "BYE"', False),
        ('method =~ "^INV|^BYE"', True),
        ('{ clog("D", "inside"); sip_is_method(); }', True),
    ],
)
def test_conditions(condition, true):
    assert said(condition) is true


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ('if 1 clog("E", "a") else clog("E", "b");', ["a"]),
        ('if (0) { clog("E", "a"); } else if (1) clog("E", "b"); clog("E", "c");', ["b", "c"]),
        ('clog("E", "a"); drop; clog("E", "b");', ["a"]),
        ('if (1) { drop(); } clog("E", "b");', []),
        ('sip_check("method", "BYE"); clog("E", "goes on");', ["goes on"]),
        ("# nothing but /* this\n ; /* and /* that */ */ ;", []),
        ('while (parse_sip()) { clog("E", "round"); break; } clog("E", "end");', ["round", "end"]),
    ],
)
def test_statements(body, lines):
    assert ran(f"capture[pcap] {{ {body} }}").lines == lines


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ('capture[pcap] { nosuch("x"); }', "E201 unknown function"),
        ('capture[pcap] { msg_check("size"); }', "E301 msg_check() takes 2 arguments, got 1"),
        ('capture[pcap] { msg_check("sizes_", "1"); sip_check("x", "1"); }', "E302 sip_check()"),
        ("capture[pcap] { ; } capture[pcap] { ; }", "E205 capture[pcap] is defined twice"),
        ("capture[pcap] { $var(x) = 1; }", 'E101 unexpected "$var(x)"'),
        ("capture[pcap] { parse_sip() + 1; }", "E101"),
        ("capture[pcap] { if (parse_sip()) { drop; } } }", 'E101 unexpected "}"'),
        ("capture[pcap] { if (parse_sip()) {", "E101 this block is never closed"),
        ("capture[pcap] { parse_tls(); }", "W912 parse_tls() does nothing here"),
        ("capture[pcap] { }", "W907 an empty block"),
        ("capture[pcap] { ; } capture[raw] { ; }", "W902 no packet is seen by capture[raw]"),
        (
            'capture[pcap] { send_hep("a"); }',
            'W906 no profile "a": what send_hep("a") sends is lost',
        ),
    ],
)
def test_what_is_wrong_is_told(plan, code):
    assert [item for item in diagnostics(plan) if item.startswith(code)], diagnostics(plan)


def test_a_mistake_has_its_place():
    with pytest.raises(ScriptErrors) as error:
        Script('debug = 3\ncapture[pcap] {\n\tif (sip_chek("method", "BYE")) { drop; }\n}\n')
    (found,) = error.value.diagnostics
    assert found.span[:4] == (3, 6, 3, 14)
    assert found.help == ('did you mean "sip_check"?',)


# -- which plan sees which packet

PLANS = """
capture[{0}] {{ clog("E", "{0}"); }}
capture[{1}] {{ clog("E", "{1}"); }}
"""


@pytest.mark.parametrize(
    ("names", "frame", "plan"),
    [
        (("collector", "pcap"), captured(), "pcap"),
        (("pcap", "collector"), captured(seconds=0), "collector"),
        (("pcap", "rtcpxr"), captured(seconds=0), "rtcpxr"),
        (("pcap", "hep"), captured(version=3), "hep"),
        (("pcap", "mine"), captured(version=3), "mine"),
        (("pcap", "collector"), captured(version=3), "pcap"),
        (("hep", "tzsp"), captured(b"\x80\0\0\0\0\0\0\0", kind=4), "tzsp"),
    ],
)
def test_a_packet_is_seen_by_the_plan_for_its_source(names, frame, plan):
    outcome = ran(PLANS.format(*names), frame)
    assert (outcome.lines, outcome.packet.route) == ([plan], f"capture[{plan}]")


# -- the words


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        (f'msg_check("size", "{len(INVITE)}")', False),
        (f'msg_check("size", "{len(INVITE) - 1}")', True),
        ('msg_check("size", "10 bytes")', True),
        ('msg_check("src_ip", "10.0.0.1")', True),  # 10.0.0.11 begins so
        ('msg_check("source_ip", "10.0.0.2")', False),
        ('msg_check("destination_ip", "10.0.0.9")', True),
        ('msg_check("any_ip", "10.0.0.9")', True),
        ('msg_check("src_port", "5060")', True),
        ('msg_check("src_port_gt", "5000")', False),  # read as src_port
        ('msg_check("dst_port", "5080")', True),
        ('source_ip("10.0.0.11")', True),
        ('sip_check("method", "INV")', True),
        ('sip_check("rmethod", "INVITE")', True),
        ('sip_check("from_user_prefix", "ali")', True),
        ('sip_check("from_user_suffix", "ice")', True),
        ('sip_check("to_user_prefix", "ali")', False),
        ('sip_check("user_agent_prefix", "Phone")', True),
        ('sip_check("user_agent_suffix", "1.0")', True),
        ('sip_check("response", "200")', False),
        ("sip_is_method()", True),
        ("sip_has_sdp() and check_rtcp_ipport() and check_redis_rtcp_ipport()", True),
        ('header_check("X-CID", "other")', True),
        ('header_check("useragent", "Phone")', True),
        ('header_check("X-None", "a")', False),
        ('is_flag_set("1", "0")', True),
        ("parse_full_sip() and light_parse_sip()", True),
        ("is_rtcp() or is_rtcp_or_rtp() or is_rtcpxr() or is_rtcp_exist()", False),
        ("parse_rtcp_to_json() or parse_isup_to_json()", False),
        ("tzsp_payload_extract()", True),
    ],
)
def test_words_about_a_request(condition, true):
    assert said(condition) is true


@pytest.mark.parametrize(
    ("condition", "payload", "kind"),
    [
        ('sip_check("response", "200") and !sip_is_method()', reply(), 1),
        ("!parse_sip()", b"\x81\xc9\0\0", 1),
        ("!parse_sip()", b"OPTIONS sip:a@b SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n", 1),  # no Call-ID
        ("is_rtcp() and is_rtcp_or_rtp() and !is_rtcpxr()", RECEIVER_REPORT, None),
        ("is_rtcpxr()", b"\x80\xcf\0\x01\0\0\0\x01", None),
        ("is_rtcp_or_rtp() and !is_rtcp()", b"\x80\x08" + bytes(18), 4),
        ("!parse_rtcp_to_json()", b"\x81\xcb\0\x01\0\0\0\x01", None),  # BYE
    ],
)
def test_words_about_other_payloads(condition, payload, kind):
    assert said(condition, captured(payload, kind=kind))


def test_custom_headers_and_patterns_are_parameters():
    plan = """
    modparam("captagent", "custom_header", "X-CID")
    modparam("captagent", "regexp", "phones=>^Phone/[0-9]")
    capture {
        if (header_check("custom", "other")) clog("E", "custom");
        if (header_regexp_match("useragent", "phones")) clog("E", "phones");
        if (header_regexp_match("raw", "phones")) clog("E", "raw");
        if (header_regexp_match("useragent", "nobody")) clog("E", "nobody");
    }
    """
    assert ran(plan).lines == ["custom", "phones"]


def test_clog_takes_its_level_from_a_letter():
    outcome = ran('capture { clog("ERROR", "a"); clog("notice", "b"); clog("x", "c"); }')
    assert outcome.log == [("ERROR", "a"), ("NOTICE", "b"), ("DEBUG", "c")]


def test_a_loop_goes_through_the_messages_of_a_payload():
    two = request("OPTIONS", call_id="1") + b"\r\n" + request("OPTIONS", call_id="2", body=SDP)
    plan = """
    capture[pcap] {
        if (parse_sip()) clog("E", "first");
        while (parse_sip()) { if (parse_full_sip()) send_hep("a"); if (sip_has_sdp()) clog("E", "2"); }
        send_hep("b");
    }
    """
    outcome = ran(plan, captured(two))
    assert outcome.lines == ["first", "2"]
    assert outcome.records == [("a",), ("a",), ("b",)]


# -- what leaves


def plan_to(receiver, body, attributes="", parameter="profile"):
    port = receiver.getsockname()[1]
    line = f'modparam("captagent", "{parameter}", "out=>target=udp:127.0.0.1:{port}{attributes}")'
    return f"{line}\ncapture[pcap] {{ {body} }}\n"


def left(receiver, plan, frame=None):
    with Script(plan, deliver=True) as script:
        outcome = script.feed(captured() if frame is None else frame)
        assert outcome.error == ""
        assert script.flush()
    return receiver.recv(65535)


def test_a_captured_packet_leaves_as_hep(receiver):
    plan = plan_to(receiver, 'send_hep("out");', ";capture_id=2001;key=myHep")
    frame = hep.decode(left(receiver, plan))
    assert (frame.src_ip, frame.src_port, frame.dst_ip, frame.dst_port) == (
        "10.0.0.11", 5060, "10.0.0.9", 5080,
    )  # fmt: skip
    assert (frame.seconds, frame.micros, frame.payload_type, frame.capture_id, frame.auth_key) == (
        1700000000, 7, 1, 2001, "myHep",
    )  # fmt: skip
    assert frame.payload == INVITE


@pytest.mark.parametrize(
    ("body", "payload", "expected"),
    [
        ('send_hep_proto("out", "99");', INVITE, {"payload_type": 99, "payload": INVITE}),
        ('send_hep_raw("out");', b"anything", {"payload": b"anything"}),
        ('set_rtcp_flag(); send_hep("out");', b"\x80\xc9", {"payload_type": 5}),
        (
            'set_tag("a", "1"); set_tag("b", "2"); send_hep("out");',
            INVITE,
            {"extra": {"tags": "a=1;b=2"}},
        ),
    ],
)
def test_what_words_change_of_it(receiver, body, payload, expected):
    frame = hep.decode(left(receiver, plan_to(receiver, body), captured(payload)))
    assert {key: getattr(frame, key) for key in expected} == expected


def test_rtcp_leaves_as_json(receiver):
    plan = plan_to(receiver, 'if (is_rtcp() && parse_rtcp_to_json()) send_hep("out");')
    frame = hep.decode(left(receiver, plan, captured(RECEIVER_REPORT, kind=None)))
    told = json.loads(frame.payload)
    assert (frame.payload_type, told["ssrc"], told["type"]) == (5, 1, 201)
    assert told["report_blocks"][0]["source_ssrc"] == 2
    assert told["report_blocks"][0]["ia_jitter"] == 5


def test_json_leaves_with_the_keys_of_the_agent(receiver):
    plan = plan_to(receiver, 'send_json("out");', ";capture_id=3", "json_profile")
    told = json.loads(left(receiver, plan))
    assert isinstance(told.pop("my_time"), int)
    assert told == {
        "packet_id": "1", "ip_family": 2, "ip_proto": 17, "src_ip4": "10.0.0.11",
        "dst_ip4": "10.0.0.9", "src_port": 5060, "dst_port": 5080, "tss": 1700000000, "tsu": 7,
        "payload": INVITE.decode(), "proto_type": 1, "capt_id": 3,
        "sip_callid": "call-1@192.0.2.10", "sip_method": "INVITE", "sip_cseq": "INVITE",
        "sip_from_uri": "sip:alice@example.org", "sip_to_uri": "sip:bob@example.net",
        "sip_request_uri": "sip:bob@example.net", "sip_sdp": 1,
    }  # fmt: skip


def test_what_has_no_profile_is_counted_as_refused():
    with Script('capture { send_hep("a", "b"); send_json("c"); }', deliver=True) as script:
        assert script.feed(captured()).effects == [
            ("send_hep", ("a",)), ("send_hep", ("b",)), ("send_json", ("c",)),
        ]  # fmt: skip
        assert script.flush()
        sinks = script.counters()["sinks"]
    assert (sinks["send_hep"]["rejected"], sinks["send_json"]["rejected"]) == (2, 1)


def test_a_profile_that_a_reload_forgot_is_counted_too(receiver, tmp_path):
    plan = tmp_path / "plan.cfg"
    plan.write_text(plan_to(receiver, 'send_hep("out");'))
    with Script(plan, deliver=True) as script:
        assert set(script.counters()["sinks"]) == {"hep:out"}
        plan.write_text(plan_to(receiver, 'send_hep("gone");'))
        assert asyncio.run(Reloader(script.worker).reload("asked")).result == "reloaded"
        assert script.feed(captured()).effects == [("send_hep", ("gone",))]
        assert script.flush()
        assert script.counters()["sinks"]["send_hep"]["rejected"] == 1


def test_a_packet_that_fits_no_frame_is_counted(receiver):
    plan = plan_to(receiver, 'if (!send_hep("out")) clog("E", "not sent");')
    with Script(plan) as script:
        outcome = script.feed(captured(bytes(70000), kind=None))
        assert outcome.lines == ["not sent"]
        assert script.metrics() == {'homerd_captagent_not_sent_total{reason="too_large"}': 1}


def test_words_of_other_modules_can_be_loaded():
    plan = 'loadmodule "xlog.so"\ncapture[pcap] { xlog("L_ERR", "ready"); }'
    assert ran(plan).lines == ["ready"]
