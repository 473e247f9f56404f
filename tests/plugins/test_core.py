"""Module core: what is there without loadmodule."""

from __future__ import annotations

import pytest

from homerd.errors import ScriptErrors
from homerd_plugins._accepted import ACCEPTED
from homerd_plugins.core import Core


def test_flags_live_as_long_as_the_packet(script, invite):
    runner = script('request_route { if (isflagset(5)) xlog("set"); setflag(5); xlog("$mf $mF"); }')
    assert runner.feed(invite) == ["32 00000020"]
    assert runner.feed(invite) == ["32 00000020"]


def test_flags_are_reset_and_may_have_names(log):
    assert log('setflag(1); setflag(SEEN); resetflag(1); if (isflagset(SEEN)) xlog("$mF");') == [
        "80000000"
    ]


def test_a_flag_above_31_is_an_error(log):
    with pytest.raises(ScriptErrors):
        log("setflag(32);")


def test_text_is_expanded_by_s(log):
    assert log('$var(x) = $_s($rm::$ci x "q" [$hdr(Nope)]); xlog("$var(x)");') == [
        'INVITE::cid-1@test x "q" [<null>]'
    ]


def test_return_codes_under_three_names(show):
    assert show("$rc $retcode $?", before='is_method("BYE");') == "-1 -1 -1"


def test_environment(show, monkeypatch):
    monkeypatch.setenv("HOMERD_TEST", "x")
    assert show("$env(HOMERD_TEST) $env(HOMERD_NOPE)") == "x <null>"


def test_what_only_a_proxy_does_is_accepted(log):
    assert log(
        "forward(); force_rport(); force_rport; set_reply_close(); set_reply_no_connect();"
        ' exec("x");'
        ' rewriteuri("sip:a@b"); strip(2); setavpflag(1); append_branch(); xlog("$rc $ru");'
    ) == ["1 sip:b"]


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_modules_without_a_part_here_can_be_made(name):
    plugin = Core().accepted_module(name)
    assert plugin is not None
    assert plugin.name == name
    assert plugin.accepted
    for function in plugin.script_functions():
        assert function.call(None, "argument") in (1, -1)


def test_a_module_nobody_knows_is_none():
    assert Core().accepted_module("nope") is None


def test_modules_without_a_part_here_take_any_parameter_and_warn_unless_they_are_usual(
    script, invite
):
    runner = script(
        'modparam("tm|rr", "whatever", 1)\nmodparam("db_mysql", "ping_interval", 5)\n'
        'request_route { t_relay(); xlog("$rc"); t_check_trans(); xlog("$rc");'
        ' if (!loose_route()) xlog("no"); sl_send_reply("200", "OK"); t_on_reply("X"); exit; }',
        ("tm", "rr", "sl", "db_mysql", "dispatcher", "usrloc", "xlog"),
    )
    assert runner.feed(invite) == ["1", "-1", "no"]
    warned = [found.message for found in runner.program.warnings if "no part" in found.message]
    assert [message.split('"')[1] for message in warned] == ["dispatcher", "usrloc"]


# Each line is what Kamailio 5.6.3 printed.


@pytest.mark.parametrize(
    ("statement", "printed"),
    [
        ('seturi("sip:k@l");', "sip:k@l"),
        ('rewriteuri("sip:k@l"); setuser("jj");', "sip:jj@l"),
        ('seturi("sip:jj@l"); sethost("hh");', "sip:jj@hh"),
        ('seturi("sip:jj@hh"); setport("77");', "sip:jj@hh:77"),
        ('seturi("sip:jj@hh:77"); sethostport("aa:88");', "sip:jj@aa:88"),
        ('seturi("sip:jj@aa:88"); prefix("00");', "sip:00jj@aa:88"),
        ('seturi("sip:00jj@aa:88"); strip(1);', "sip:0jj@aa:88"),
        ('seturi("sip:0jj@aa:88"); strip_tail(1);', "sip:0j@aa:88"),
        ('seturi("sip:0j@aa:88"); setuserpass("u:p");', "sip:u:p@aa:88"),
        ('seturi("sip:u:p@aa:88"); userphone();', "sip:u:p@aa:88;user=phone"),
        ('seturi("sip:k@l"); revert_uri();', "sip:bob@example.com;transport=udp"),
    ],
)
def test_the_request_uri_can_be_rewritten(show, statement, printed):
    assert show("$ru", before=statement) == printed
