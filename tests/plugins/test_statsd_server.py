"""Module statsd with a real server: what it says it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
from metric_servers import Statsd, running

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

MODULES = ("pv", "xlog", "statsd")


def send(server, message, statements, times=1, more=""):
    """Run *statements* for a packet and deliver what they send."""
    script = "".join(f'loadmodule "{name}"\n' for name in MODULES)
    script += f'modparam("statsd", "port", "{server.port}")\n{more}'
    worker = Worker(load(Path("x.cfg"), text=script + f"request_route {{ {statements} }}"))
    worker.start()
    payload = message.encode()
    frame = Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 0, 1, payload=payload)
    for _ in range(times):
        worker.engine.feed(frame)
    worker.stop()
    (sink,) = worker.sinks
    assert (sink.rejected, sink.dropped) == (0, 0)
    return sink.written


@pytest.mark.parametrize("size", [0, 512])
def test_a_counter_is_as_many_as_were_sent(statsd, invite, size):
    more = f'modparam("statsd", "datagram_size", {size})\n'
    statements = (
        (
            f'statsd_incr("a{size}." + $rm); statsd_incr("b{size}"); statsd_incr("b{size}");'
            f' statsd_incr("c{size}"); statsd_decr("c{size}"); statsd_decr("c{size}");'
            f' statsd_incr("last{size}");'
        )
        .replace('"a', '"" + "a')
        .replace(".$rm", '." + $rm + "')
    )
    # no more than the server's socket has room for (some 270) while the server waits its turn
    assert send(statsd, invite, statements, times=20, more=more) == 140
    counters = statsd.wait_for("counters", f"last{size}", "20")
    assert {name: counters[name] for name in (f"a{size}.INVITE", f"b{size}", f"c{size}")} == {
        f"a{size}.INVITE": "20",
        f"b{size}": "40",
        f"c{size}": "-20",
    }


def test_a_gauge_is_set_or_changed_when_there_is_a_sign(statsd, invite):
    statements = (
        'statsd_gauge("set", "5"); statsd_gauge("set", "7"); statsd_gauge("more", "10");'
        ' statsd_gauge("more", "+2.5"); statsd_gauge("more", "-4"); statsd_gauge("e", "9955e-2");'
        ' statsd_gauge("end", 1);'
    )
    send(statsd, invite, statements)
    gauges = statsd.wait_for("gauges", "end")
    assert gauges == {"set": "7", "more": "8.5", "e": "99.55", "end": "1"}


def test_a_timer_is_milliseconds(statsd, invite):
    send(
        statsd, invite, 'statsd_start("t"); statsd_stop("t"); statsd_start("u"); statsd_stop("u");'
    )
    timers = statsd.wait_for("timers", "u")
    assert sorted(timers) == ["t", "u"]
    assert all(0 <= float(value.strip("[ ]")) < 60_000 for value in timers.values())


def test_labels_make_series_of_their_own(statsd, invite):
    statements = (
        'statsd_incr("lab", "method:INVITE,node:1"); statsd_incr("lab"); statsd_incr("lab", "node:2");'
        ' statsd_incr("lab.end");'
    )
    send(statsd, invite, statements)
    counters = statsd.wait_for("counters", "lab.end")
    assert {name: value for name, value in counters.items() if name.startswith("lab")} == {
        "lab": "1",
        "lab;method=INVITE;node=1": "1",
        "lab;node=2": "1",
        "lab.end": "1",
    }


def test_what_the_network_sends_is_one_name(statsd, invite):
    message = invite.replace("UA/1.0 (x)", "a:1|c b@.1|#x:y")
    assert send(statsd, message, 'statsd_incr($ua); statsd_incr("net.end");') == 2
    counters = statsd.wait_for("counters", "net.end")
    # statsd leaves out what it has no use for in a name
    assert counters["a_1_c_b_.1_x_y"] == "1"


def test_no_line_was_one_that_statsd_cannot_read(statsd, invite):
    send(statsd, invite, 'statsd_histogram("h", "12"); statsd_incr("h.end");')
    # it knows no histograms, and counts their values
    assert statsd.wait_for("counters", "h.end")["h"] == "12"
    assert statsd.bad_lines() == 0


def test_a_set_has_each_value_once(invite):
    with running(Statsd) as server:
        statements = (
            'statsd_set("mos", 42); statsd_set("mos", "42"); statsd_set("mos", "4.3");'
            ' statsd_incr("set.end");'
        )
        send(server, invite, statements)
        server.wait_for("counters", "set.end")
        server.stop()
        told = (server.folder / "log").read_text()
    assert "sets: { mos: [ '42', '4.3' ] }" in told
