"""Modules siputils and kex."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("has_totag()", -1),
        ("is_request()", 1),
        ("is_reply()", -1),
        ("is_first_hop()", -1),
        ('is_uri("sip:a@b")', 1),
        ('is_uri("ab")', -1),
        ('is_numeric("123")', 1),
        ('is_numeric("+123")', -2),
        ('is_numeric("")', -2),
        ('is_tel_number("+4930")', 1),
        ('is_tel_number("4930")', 1),
        ('is_tel_number("49-30")', -2),
        ('is_tel_number("+")', -2),
        ('cmp_uri("sip:A@b", "sip:a@b")', -1),
        ('cmp_uri("sip:a@B", "sip:a@b;x=1")', 1),
        ('cmp_uri("sip:a@b:5060", "sip:a@b")', -1),
        ('cmp_uri("sips:a@b", "sip:a@b")', -1),
        ('cmp_aor("sip:a@B;x=y", "sip:a@b")', 1),
        ('uri_param("transport")', -1),
        ('uri_param("transport", "udp")', 1),
        ('uri_param("transport", "tcp")', -1),
        ('uri_param("x")', -1),
        ('is_myself("sip:x@10.0.0.2:5061")', 1),
        ('is_myself("sip:x@10.0.0.3")', -1),
        ("isdsturiset()", -1),
    ],
)
def test_functions(log, call, code):
    assert log(f'{call}; xlog("$rc");') == [str(code)]


def test_a_reply_has_a_tag_in_to(log, reply):
    assert log('if (has_totag() && is_reply()) xlog("yes");', reply) == ["yes"]


def test_printf_into_a_variable(log):
    assert log(
        'pv_printf("$var(x)", "$rm $rU"); avp_printf("$avp(y)", "$var(x)!"); xlog("$avp(y)");'
    ) == ["INVITE bob!"]


def test_script_and_branch_flags(log):
    assert log(
        'setsflag(3); setbflag(1); resetsflag(0); if (issflagset(3)) xlog("$sf $bf $bF");'
    ) == ["8 2 00000002"]


def test_debug_level_of_the_worker(log):
    assert log('setdebug(3); xlog("L_DBG", "seen"); resetdebug(); xlog("L_DBG", "hidden");') == [
        "seen"
    ]
