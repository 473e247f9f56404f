from types import SimpleNamespace

import pytest

from homerd.core import settings
from homerd.core.settings import Listen, parse_listen


def parse(**values):
    lines = [SimpleNamespace(name=name, value=value) for name, value in values.items()]
    found, problems = settings.parse(lines)
    return found, [message for _, message in problems]


def test_without_listen_both_protocols_are_served_on_the_hep_port():
    found, problems = parse()
    assert problems == []
    assert [(item.scheme, item.host, item.port) for item in found.listen] == [
        ("udp", "0.0.0.0", 9060),
        ("tcp", "0.0.0.0", 9060),
    ]


@pytest.mark.parametrize(
    ("text", "sockets"),
    [
        ("udp:127.0.0.1:9060", [("udp", "127.0.0.1", 9060)]),
        ("tcp:[::1]:9061", [("tcp", "::1", 9061)]),
        ("udp:*:9060", [("udp", "*", 9060)]),
        ("127.0.0.1:9060", [("udp", "127.0.0.1", 9060), ("tcp", "127.0.0.1", 9060)]),
        ("udp:eth0:9060", [("udp", "eth0", 9060)]),
        ("udp:10.0.0.1", [("udp", "10.0.0.1", 9060)]),
        ("hep_udp:10.0.0.1:9063", [("udp", "10.0.0.1", 9063)]),
        ("hep_tcp:10.0.0.1:9063", [("tcp", "10.0.0.1", 9063)]),
        ("tls:10.0.0.1:9061", [("tls", "10.0.0.1", 9061)]),
        ("hep_tls:10.0.0.1", [("tls", "10.0.0.1", 9060)]),
        ("*:9060", [("udp", "*", 9060), ("tcp", "*", 9060)]),
        ("udp:1.1.1.1:1 tcp:2.2.2.2:2", [("udp", "1.1.1.1", 1), ("tcp", "2.2.2.2", 2)]),
        ("udp:1.1.1.1:1 advertise 9.9.9.9:5060", [("udp", "1.1.1.1", 1)]),
        ('udp:1.1.1.1:1 name "edge"', [("udp", "1.1.1.1", 1)]),
        ("udp : 1.1.1.1 :7 tcp:[::1]:8", [("udp", "1.1.1.1", 7), ("tcp", "::1", 8)]),
        ("udp:(1.1.1.1, 2.2.2.2):7", [("udp", "1.1.1.1", 7), ("udp", "2.2.2.2", 7)]),
        (
            "collector:10.0.0.1:5070",
            [("collector_udp", "10.0.0.1", 5070), ("collector_tcp", "10.0.0.1", 5070)],
        ),
        (
            "collector:10.0.0.1",
            [("collector_udp", "10.0.0.1", 5060), ("collector_tcp", "10.0.0.1", 5060)],
        ),
        ("collector:*:5060", [("collector_udp", "*", 5060), ("collector_tcp", "*", 5060)]),
        ("collector_udp:[::1]", [("collector_udp", "::1", 5060)]),
        ("collector_tcp:10.0.0.1:5062", [("collector_tcp", "10.0.0.1", 5062)]),
        ("collector_tls:10.0.0.1", [("collector_tls", "10.0.0.1", 5061)]),
    ],
)
def test_listen_values(text, sockets):
    assert [(item.scheme, item.host, item.port) for item in parse_listen(text)] == sockets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("udp:127.0.0.1:99999", 'expected a port from 1 to 65535, got "99999"'),
        ("udp:127.0.0.1:hep", 'got "hep"'),
        ("udp:[::1:9060", "not closed"),
        ("udp::9060", "expected an address"),
        ("sctp:127.0.0.1:9061", "not on sctp"),
        ("tls:127.0.0.1:9061", "TLS needs tls_certificate"),
        ("", "got nothing"),
    ],
)
def test_a_listen_value_that_cannot_be_is_told(text, message):
    found, problems = parse(listen=text)
    assert found.listen == ()
    assert message in problems[0]


def test_disable_tcp_drops_only_what_nobody_asked_for():
    found, _ = parse(listen="127.0.0.1:9060 tcp:127.0.0.1:9061", disable_tcp="yes")
    assert [(item.scheme, item.port) for item in found.listen] == [("udp", 9060), ("tcp", 9061)]


def test_disable_tcp_leaves_a_collector_udp_alone_and_port_is_not_its():
    found, problems = parse(listen="collector:127.0.0.1", disable_tcp="yes", port=9999)
    assert problems == []
    assert [(item.scheme, item.port) for item in found.listen] == [("collector_udp", 5060)]


@pytest.mark.parametrize(("value", "stores"), [("forward", False), ("store", True)])
def test_a_collectors_reports_go_through_the_script_or_to_the_stores(value, stores):
    found, problems = parse(collector_mode=value)
    assert (found.collector_stores, problems) == (stores, [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"collector_mode": "both"}, 'expected forward or store, got "both"'),
        ({"listen": "collector_tls:127.0.0.1"}, "TLS needs tls_certificate"),
        ({"listen": "colector:127.0.0.1:5060"}, 'did you mean "collector"?'),
        ({"listen": "collector:127.0.0.1:0"}, "expected a port from 1 to 65535"),
    ],
)
def test_what_is_wrong_with_a_collector_is_told(values, message):
    _, (problem,) = parse(**values)
    assert message in problem


def test_the_same_socket_twice_is_opened_once():
    found, _ = parse(listen="udp:127.0.0.1:1 udp:127.0.0.1:1")
    assert found.listen == (Listen("udp", "127.0.0.1", 1, "udp:127.0.0.1:1"),)


def test_values_are_converted():
    found, problems = parse(
        debug=-2, max_while_loops="0", receive_buffer="8M", tcp_connection_lifetime=30, port=5060
    )
    assert problems == []
    assert (found.debug, found.max_while_loops, found.receive_buffer) == (-2, 0, 8 << 20)
    assert found.tcp_idle_seconds == 30
    assert found.listen[0].port == 5060


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("debug", "loud", 'expected a number, got "loud"'),
        ("receive_buffer", "much", 'expected bytes, such as "64M", got "much"'),
        ("port", 0, "expected a number from 1 to 65535, got 0"),
        ("childern", 4, 'unknown global parameter "childern"\ndid you mean "children"?'),
        ("no_such_thing", 4, 'unknown global parameter "no_such_thing"'),
    ],
)
def test_what_is_wrong_is_told(name, value, message):
    assert parse(**{name: value})[1] == [message]


def test_globals_of_another_server_are_ignored():
    _, problems = parse(children=8, fork="yes", memlog=5, tcp_accept_hep3="yes", log_name="x")
    assert problems == []


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 20), ("yes", 20), (0, 0), ("no", 0), (5, 5), ("3600", 3600)]
)
def test_rtp_reports_are_seconds_or_yes_or_no(value, seconds):
    found, problems = parse(rtp_reports=value)
    assert (found.rtp_reports, problems) == (seconds, [])


@pytest.mark.parametrize("value", [4, 3601, -5, "often"])
def test_rtp_reports_that_are_no_interval_are_refused(value):
    _, (message,) = parse(rtp_reports=value)
    assert message == f'expected yes, no, or seconds from 5 to 3600, got "{value}"'


@pytest.mark.parametrize("value", ["upd:127.0.0.1:9060", "upd:[::1]:9060", "htp:*:80"])
def test_a_protocol_that_nobody_speaks_is_named(value):
    with pytest.raises(ValueError, match=f'unknown protocol "{value.partition(":")[0]}"'):
        parse_listen(value)
