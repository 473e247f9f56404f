"""Module ipops; outcomes are Kamailio 5.6.3's."""

from __future__ import annotations

import socket

import pytest

MODULES = ("pv", "xlog", "ipops")


def run(script, invite, statements: str) -> list[str]:
    return script(f"request_route {{ {statements} exit; }}", MODULES).feed(invite)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ('is_ip("[::1]")', "1"),
        ('is_ip("::ffff:1.2.3.4")', "1"),
        ('is_ip("host")', "-1"),
        ('is_pure_ip("[::1]")', "-1"),
        ('is_ipv4("1.2.3.4")', "1"),
        ('is_ipv4("1.2.3.256")', "-1"),
        ('is_ipv4("01.2.3.4")', "-1"),
        ('is_ipv4("[1.2.3.4]")', "-1"),
        ('is_ipv6("[::1]")', "-1"),
        ('is_ipv6("::1")', "1"),
        ('is_ipv6_reference("[::1]")', "1"),
        ('ip_type("1.2.3.4")', "1"),
        ('ip_type("::1")', "2"),
        ('ip_type("[::1]")', "3"),
        ('ip_type("x")', "-1"),
        ('compare_ips("[::1]", "0:0:0:0:0:0:0:1")', "1"),
        ('compare_ips("::ffff:1.2.3.4", "1.2.3.4")', "-1"),
        ('compare_pure_ips("[::1]", "::1")', "-1"),
        ('is_in_subnet("10.1.2.3", "10.0.0.0/8")', "1"),
        ('is_in_subnet("10.1.2.3", "192.168.0.0/16, 10.1.0.0/16")', "1"),
        ('is_in_subnet("10.1.2.3", "192.168.0.0/16,10.1.0.0/255.255.0.0")', "-1"),
        ('is_in_subnet("10.1.2.3", "10.1.2.9/24")', "1"),
        ('is_in_subnet("10.1.2.3", "10.1.2.3")', "1"),
        ('is_in_subnet("10.1.2.3", "bogus")', "-1"),
        ('is_in_subnet("2001:db8::1", "2001:db8::/32")', "1"),
        ('is_in_subnet("[2001:db8::1]", "2001:db8::/32")', "-1"),
        ('is_in_subnet("bogus", "10.0.0.0/8")', "-1"),
        ('is_ip_rfc1918("172.31.0.1")', "1"),
        ('is_ip_rfc1918("172.32.0.1")', "-1"),
        ('is_ip_rfc1918("169.254.1.1")', "-1"),
        ('is_ip_rfc1918("fc00::1")', "-1"),
        ('is_ip_rfc1918("bogus")', "-1"),
    ],
)
def test_tests(script, invite, call, code):
    assert run(script, invite, f'{call}; xlog("$rc");') == [code]


@pytest.mark.parametrize(
    ("address", "use"),
    [
        ("192.168.1.1", "PRIVATE"),
        ("8.8.8.8", "PUBLIC"),
        ("127.0.0.1", "LOOPBACK"),
        ("224.0.0.1", "MULTICAST"),
        ("100.64.1.1", "SHARED"),
        ("0.0.0.0", "PRIVATE"),
        ("255.255.255.255", "BROADCAST"),
        ("192.0.2.1", "TEST-NET"),
        ("169.254.1.1", "LINK-LOCAL"),
        ("240.0.0.1", "RESERVED"),
        ("192.88.99.1", "6TO4-RELAY"),
        ("198.18.0.1", "RESERVED"),
        ("::1", "LOOPBACK"),
        ("::", "UNSPECIFIED"),
        ("[fe80::1]", "LINK-LOCAL-UNICAST"),
        ("fc00::1", "UNIQUE-LOCAL-UNICAST"),
        ("ff02::1", "MULTICAST"),
        ("2001:db8::1", "DOCUMENTATION"),
        ("2001:4860::1", "GLOBAL-UNICAST"),
        ("2002::1", "6TO4"),
        ("2001::1", "TEREDO"),
        ("64:ff9b::1", "RESERVED"),
    ],
)
def test_uses_of_addresses(script, invite, address, use):
    lines = run(script, invite, f'detailed_ip_type("{address}", "$var(t)"); xlog("$rc $var(t)");')
    assert lines == [f"1 {use}"]


def test_a_use_is_asked_of_one_family_only(script, invite):
    statements = (
        'detailed_ipv4_type("::1", "$var(t)"); xlog("$rc"); detailed_ipv6_type("::1", "$var(t)"); xlog("$rc");'
        ' dns_query("example.com", "x"); xlog("$rc");'
    )
    assert run(script, invite, statements) == ["-1", "1", "-1"]


def test_the_hosts_name(script, invite):
    name = socket.gethostname().partition(".")[0]
    assert run(script, invite, 'xlog("$HN(n)");') == [name]
