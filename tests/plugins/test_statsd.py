"""Module statsd."""

from __future__ import annotations

import socket

import pytest

from homerd.errors import ConfigError
from homerd_plugins.statsd import StatsdSink

MODULES = ("pv", "xlog", "statsd")


def test_datagrams(script, invite):
    runner = script(
        'request_route { $var(c) = "cust"; $var(m) = 42; statsd_set($var(c) + "Mos", $var(m));'
        ' xlog("$rc");'
        ' statsd_set("k$rm", "5"); statsd_gauge("g", "+3"); statsd_incr("n"); statsd_decr("n");'
        ' statsd_histogram("h", "12"); exit; }',
        MODULES,
    )
    assert runner.feed(invite) == ["1"]
    assert runner.effects == [
        "custMos:42|s\n",
        "k$rm:5|s\n",
        "g:+3|g\n",
        "n:1|c\n",
        "n:-1|c\n",
        "h:12|h\n",
    ]


def test_a_value_that_is_no_number_ends_the_script_and_is_counted(script, invite):
    runner = script(
        'request_route { xlog("before"); statsd_set("s", "abc"); xlog("no"); }', MODULES
    )
    assert runner.feed(invite) == ["before"]
    assert runner.effects == []
    samples = runner.program.registry.plugin("statsd").metrics()
    assert list(samples) == [("homerd_statsd_not_numbers_total", {}, 1)]


def test_a_timer_counts_milliseconds(script, invite):
    runner = script(
        'request_route { statsd_start("t"); statsd_stop("t"); statsd_stop("u"); xlog("$rc"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["-1"]
    (sent,) = runner.effects
    assert sent.startswith("t:")
    assert sent.endswith("|ms\n")


def test_a_port_that_is_none_is_refused(script):
    with pytest.raises(ConfigError, match="expected a number from 1 to 65535"):
        script('modparam("statsd", "port", "http")\nrequest_route { exit; }', MODULES)


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        ('statsd_incr("n", "method:INVITE,node:1")', "n:1|c|#method:INVITE,node:1\n"),
        ('statsd_decr("n", "a:b")', "n:-1|c|#a:b\n"),
        ('statsd_gauge("g", "5", "a:b")', "g:5|g|#a:b\n"),
        ('statsd_set("s", "5", "a:b")', "s:5|s|#a:b\n"),
        ('statsd_histogram("h", "5", "a:b")', "h:5|h|#a:b\n"),
        ('statsd_incr("n", "")', "n:1|c\n"),
    ],
)
def test_labels(script, invite, call, sent):
    runner = script(f"request_route {{ {call}; exit; }}", MODULES)
    runner.feed(invite)
    assert runner.effects == [sent]


def test_what_the_network_sends_cannot_become_another_metric(script, invite):
    runner = script(
        'request_route { $var(x) = "a:1|c\\nb@.1"; statsd_incr($var(x)); statsd_gauge("g", $var(x));'
        ' statsd_incr("n", $var(x)); exit; }',
        MODULES,
    )
    runner.feed(invite)
    assert runner.effects == ["a_1_c_b_.1:1|c\n", "g:a_1_c_b_.1|g\n", "n:1|c|#a:1_c_b_.1\n"]


@pytest.mark.parametrize(
    ("size", "datagrams"),
    [
        (1432, [b"a:1|c\nb:2|g\nc:3|c\n"]),
        (12, [b"a:1|c\nb:2|g\n", b"c:3|c\n"]),
        (0, [b"a:1|c\n", b"b:2|g\n", b"c:3|c\n"]),
    ],
)
def test_the_sink_sends_as_much_in_a_datagram_as_it_may(size, datagrams):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        sink = StatsdSink("127.0.0.1", server.getsockname()[1], size)
        sink.connect()
        sink.write(["a:1|c\n", "b:2|g\n", "c:3|c\n"])
        sink.close()
        assert [server.recv(2000) for _ in datagrams] == datagrams
