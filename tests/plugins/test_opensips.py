"""Scripts for OpenSIPS over packets: variables, time, HEP chunks, timers, and the routes of HEP."""

from __future__ import annotations

import pytest

from homerd.wire.hep import Frame

FIRST = "#!OPENSIPS\n"


@pytest.fixture
def log(script):
    """What the statements of a main route log for an INVITE."""
    return lambda statements, extra="": script(
        FIRST + extra + f"\nroute {{ {statements} exit; }}", modules=()
    ).feed(INVITE)


INVITE = (
    "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK1\r\n"
    "From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\n"
    "Call-ID: c1\r\nCSeq: 7 INVITE\r\n\r\n"
)


@pytest.mark.parametrize(
    ("statements", "line"),
    [
        ('if ($var(x) == NULL) xlog("null");', "null"),
        ('$var(x) = 1; $var(x) = NULL; if ($var(x) == NULL) xlog("null");', "null"),
        ('$var(n) += 1; $var(n) += 1; xlog("$var(n)");', "2"),
        ('if ($adu != "") xlog("present"); else xlog("absent");', "absent"),
        ('$var(s) = ""; if (!$var(s)) xlog("empty");', "empty"),
        ('xlog($rm);', "INVITE"),
        ('xlog("L_INFO", "$rm\\n");', "INVITE"),
        ('$avp(l) = 1; $avp(l) = 2; $avp(l) := 3; xlog("$(avp(l)[*])");', "3"),
        ('$avp(l) = 1; $avp(l) = 2; $avp(l) := NULL; xlog("$avp(l)");', "<null>"),
        ('$var(r) = $(rm{re.subst,/INV/x/}); xlog("$var(r)");', "xITE"),
        ('if ($time(%Y) == $ctime(year)) xlog("same year");', "same year"),
    ],
)  # fmt: skip
def test_what_is_logged(log, statements, line):
    assert log(statements) == [line]


def test_words_of_pv_and_xlog_are_there_without_loadmodule(log):
    assert log('xlog("$rm $ci $Ts{s.len}");')[0].startswith("INVITE c1 ")


def test_a_timer_route_runs_by_its_seconds_and_startup_route_once(script):
    runner = script(
        FIRST + 'startup_route { xlog("up"); }\n'
        'timer_route[tick, 60] { $var(n) += 1; xlog("tick $var(n)"); }\nroute { exit; }\n',
        modules=(),
    )
    assert runner.lines == ["up"]
    runner.lines.clear()
    runner.worker.timers.advance(125)
    assert runner.lines == ["tick 1", "tick 2"]


HEP_SCRIPT = (
    FIRST
    + 'loadmodule "sipcapture.so"\n'
    + 'modparam("sipcapture", "hep_route", "every")\n'
    + "route[every] {\n"
    + '  hep_get("11",, $var(type));\n'
    + '  if (!hep_get("utf8-string", "0x0011", "$var(vendor)", "$var(id)")) $var(id) := "none";\n'
    + '  xlog("$var(type) $var(id)");\n'
    + '  if ($var(type) == 1) { hep_resume_sip(); }\n'
    + '  xlog("kept back");\n'
    + "}\n"
    + 'route { xlog("main $rm $si"); exit; }\n'
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "correlation_id", "payload", "lines"),
    [
        (1, None, INVITE.encode(), ["1 none", "main INVITE 10.0.0.1"]),
        (5, "c9", b"{}", ["5 c9", "kept back"]),
    ],
)
def test_a_hep_route_sees_each_packet_and_lets_sip_go_on(
    script, kind, correlation_id, payload, lines
):
    runner = script(HEP_SCRIPT, modules=())
    frame = Frame(
        3, 2, 17, b"\x0a\0\0\1", b"\x0a\0\0\2", 5060, 5061, 9, 0, kind, 7, None, correlation_id,
        payload,
    )  # fmt: skip
    runner.worker.engine.feed(frame)
    assert runner.lines == lines


@pytest.mark.parametrize(
    ("statements", "line"),
    [
        ('hep_set("0x0011", "other"); hep_get("17",, $var(x)); xlog("$var(x)");', "other"),
        ('hep_set("17", "a"); hep_del("17"); if (!hep_get("17")) xlog("gone");', "gone"),
        ('if (!hep_get("0x0020")) xlog("not sent");', "not sent"),
    ],
)
def test_hep_chunks_can_be_changed_for_the_script(log, statements, line):
    assert log(statements) == [line]


def test_a_hep_route_that_is_not_there_is_an_error(refusal):
    text = FIRST + 'loadmodule "sipcapture.so"\nmodparam("sipcapture", "hep_route", "x")\n'
    assert "there is no route[x]" in refusal(text + "route { exit; }\n", modules=())
