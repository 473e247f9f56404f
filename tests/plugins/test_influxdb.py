"""Module influxdb: lines, and what two real servers make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import free_port

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, Rejected, RetryLater
from homerd.wire.hep import Frame
from homerd_plugins._influx import InfluxV1Sink, InfluxV2Sink
from homerd_plugins._lines import BadPart, key_of, line, named

MODULES = ("pv", "xlog", "influxdb")
HOST = 'modparam("influxdb", "host", "h1")\n'
COMMON = (5.0, 1000, True)  # timeout, batch size, compressed
AWKWARD = 'a, b=c\\"d"é\n'


def refused(runner):
    plugin = runner.program.registry.plugin("influxdb")
    return {
        labels["reason"]: value
        for name, labels, value, *_ in plugin.metrics()
        if name == "homerd_influxdb_refused_total"
    }


# -- lines


@pytest.mark.parametrize(
    ("measurement", "tags", "key"),
    [
        ("stats_method", [("method", "INVITE")], "stats_method,method=INVITE"),
        ("a, b=c", [], r"a\,\ b=c"),
        ("m", [("k, =", "v, =")], r"m,k\,\ \==v\,\ \="),
        ("m", [("k", "back\\")], "m,k=back/"),
        ("m", [("k", "two\nlines")], r"m,k=two\ lines"),
        ("m", [("k", "1"), ("k", "2")], "m,k=2"),
        ("#m", [], "_m"),
    ],
)
def test_a_measurement_and_its_tags_are_escaped(measurement, tags, key):
    assert key_of(measurement, tags) == key


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("v=1", "v=1"),
        ("v=-1.5e3", "v=-1500"),
        ("v=.5", "v=0.5"),
        ("v=5i", "v=5i"),
        ("v=true", "v=true"),
        ("v=F", "v=false"),
        ('v="1"', 'v="1"'),
        ('v="say "hi" \\"', 'v="say \\"hi\\" \\\\"'),
        ('v="a=b,c"', 'v="a=b,c"'),
        ('v=""', 'v=""'),
        ('v="two\r\nlines"', 'v="two  lines"'),
    ],
)
def test_a_field_is_written_as_what_it_is(part, shown):
    assert line("m", named((part,)).fields, 17) == f"m {shown} 17"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("v=abc", "bad_field"),
        ("v=1,w=2", "bad_field"),
        ("v=nan", "bad_field"),
        ("v=99999999999999999999i", "bad_field"),
        ('v="', "bad_field"),
        ("v", "no_name"),
        ("=1", "no_name"),
        ("#=1", "no_name"),
        ("@tomorrow", "bad_time"),
    ],
)
def test_a_part_that_says_nothing_has_a_reason(part, reason):
    with pytest.raises(BadPart, match=f"^{reason}$"):
        named((part,))


@given(st.text(), st.text(), st.text())
def test_no_value_can_become_another_part(measurement, tag, field):
    text = line(key_of("m" + measurement, [("t", tag or "x")]), {"f": field}, 1)
    assert "\n" not in text
    bare = (
        text.replace("\\\\", "")
        .replace('\\"', "")
        .replace("\\,", "")
        .replace("\\ ", "")
        .replace("\\=", "")
    )
    key, _, rest = bare.partition(" ")
    assert key.count(",") == 1
    assert rest.count('"') == 2


# -- words


def test_a_point_has_the_packets_time_and_the_host(script, invite):
    runner = script(
        HOST + 'request_route { influxdb_write("stats_4xx", "#response=404", "#ua=$ua",'
        ' \'from="$fu"\', "value=1"); xlog("$rc"); }',
        MODULES,
    )
    payload = invite.encode()
    frame = Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 5432, 1, payload=payload)
    packet, _ = runner.worker.engine.feed(frame)
    assert [record for _, record in packet.effects] == [
        r"stats_4xx,host=h1,response=404,ua=UA/1.0\ (x)"
        ' from="sip:alice@atlanta.example",value=1 1700000000005432'
    ]
    assert runner.lines == ["1"]


def test_the_time_may_be_given_and_what_has_no_value_is_left_out(script, invite):
    runner = script(
        HOST
        + 'request_route { influxdb_write("m", "#a=$avp(none)", "b=$avp(none)", "v=1", "@17"); }',
        MODULES,
    )
    runner.feed(invite)
    assert runner.effects == ["m,host=h1 v=1 17"]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('influxdb_write("m", "v=$ua")', "bad_field"),
        ('influxdb_write("m", "#a=b")', "no_field"),
        ('influxdb_write("", "v=1")', "no_measurement"),
        ('influxdb_count("m", "v=1")', "fields_in_a_count"),
    ],
)
def test_a_point_that_cannot_be_made_is_false_and_counted(script, invite, call, reason):
    runner = script(HOST + f'request_route {{ {call}; xlog("$rc"); }}', MODULES)
    assert runner.feed(invite) == ["-1"]
    assert (runner.effects, refused(runner)) == ([], {reason: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", 3), ("url", '"127.0.0.1"'), ("interval", 0), ("max_series", 0)],
)
def test_a_parameter_that_is_wrong_is_refused(script, name, value):
    with pytest.raises(ConfigError, match=f'"{name}"'):
        script(f'modparam("influxdb", "{name}", {value})\nrequest_route {{ exit; }}', MODULES)


# -- servers


def worker_of(script):
    head = "".join(f'loadmodule "{name}"\n' for name in MODULES)
    worker = Worker(load(Path("test.cfg"), text=head + HOST + script))
    worker.start()
    return worker


def feed(worker, invite, *agents):
    for agent in agents:
        payload = invite.replace("UA/1.0 (x)", agent).encode()
        frame = Frame(
            3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 5432, 1, payload=payload
        )
        worker.engine.feed(frame)


def test_a_v1_server_keeps_what_was_written(influx_v1, invite):
    worker = worker_of(
        f'modparam("influxdb", "version", 1)\nmodparam("influxdb", "url", "{influx_v1.url}")\n'
        'request_route { influxdb_write("calls", "#ua=$ua", \'from="$fu"\', "value=1", "n=5i");'
        ' influxdb_count("counted", "#method=$rm"); exit; }'
    )
    feed(worker, invite, "A", "a, b=c\\")
    worker.stop()
    assert worker.sinks[0].written == 3
    assert influx_v1.rows("SELECT * FROM calls") == [
        {
            "time": 1700000000005432,
            "from": "sip:alice@atlanta.example",
            "host": "h1",
            "n": 5,
            "ua": agent,
            "value": 1,
        }
        for agent in ("A", "a, b=c/")
    ]
    (counted,) = influx_v1.rows("SELECT * FROM counted")
    assert (counted["host"], counted["method"], counted["value"]) == ("h1", "INVITE", 2)


def test_counts_are_written_each_interval_and_beyond_the_budget_as_other(influx_v1, invite):
    worker = worker_of(
        f'modparam("influxdb", "version", 1)\nmodparam("influxdb", "url", "{influx_v1.url}")\n'
        'modparam("influxdb", "max_series", 1)\n'
        'request_route { influxdb_count("budget", "#ua=$ua"); exit; }'
    )
    feed(worker, invite, "A", "B", "A", "C")
    worker.advance(60)
    worker.flush(10)
    rows = influx_v1.rows("SELECT ua, value FROM budget")
    assert sorted((row["ua"], row["value"]) for row in rows) == [("A", 2), ("other", 2)]
    feed(worker, invite, "A")
    worker.stop()
    assert [row["value"] for row in influx_v1.rows("SELECT value FROM budget WHERE ua = 'A'")] == [
        2,
        1,
    ]


def test_awkward_text_comes_back_as_it_was_from_a_v1_server(influx_v1):
    sink = InfluxV1Sink(
        influx_v1.url, *COMMON, db="homer", rp="", user="", password="", create=True
    )
    sink.connect()
    sink.write([line(key_of(AWKWARD, [(AWKWARD, AWKWARD)]), {AWKWARD: AWKWARD}, 5)])
    sink.close()
    (row,) = influx_v1.rows("SELECT * FROM /^a,/")
    as_tag, as_field = 'a, b=c/"d"é ', 'a, b=c\\"d"é '
    assert row == {"time": 5, as_tag: as_field, f"{as_tag}_1": as_tag}


def test_lines_that_a_v1_server_refuses_are_found(influx_v1):
    sink = InfluxV1Sink(
        influx_v1.url, *COMMON, db="homer", rp="", user="", password="", create=True
    )
    sink.connect()
    sink.write(["typed v=1 1"])
    lines = ["typed v=2 2", 'typed v="text" 3', "typed v=4 4", "no line at all", "typed v=6 6"]
    with pytest.raises(Rejected) as raised:
        sink.write(lines)
    assert raised.value.indices == [1, 3]
    sink.write([text for number, text in enumerate(lines) if number not in (1, 3)])
    sink.close()
    assert [row["v"] for row in influx_v1.rows("SELECT v FROM typed")] == [1, 2, 4, 6]


def test_a_database_that_is_missing_is_told_with_its_parameter(influx_v1):
    sink = InfluxV1Sink(
        influx_v1.url, *COMMON, db="none", rp="", user="", password="", create=False
    )
    sink.connect()
    with pytest.raises(RetryLater, match=r'modparam\("influxdb", "db"\).*404.*not found'):
        sink.write(["m v=1 1"])
    sink.close()


def test_a_v2_server_keeps_what_was_written(victoria_metrics, invite):
    worker = worker_of(
        f'modparam("influxdb", "url", "{victoria_metrics.url}")\n'
        'request_route { influxdb_write("calls", "#ua=$ua", "value=1", "n=5i"); exit; }'
    )
    feed(worker, invite, "A", "a, b=c\\")
    worker.stop()
    assert worker.sinks[0].written == 2
    assert victoria_metrics.series('{__name__=~"calls_.*"}') == [
        (
            {"__name__": f"calls_{field}", "host": "h1", "ua": agent},
            [value],
            [1700000000005],
        )
        for field, value in (("n", 5), ("value", 1))
        for agent in ("A", "a, b=c/")
    ]


@pytest.mark.parametrize("kind", [InfluxV1Sink, InfluxV2Sink])
def test_a_server_that_is_away_is_waited_for(kind):
    port = free_port()
    own = {"org": "o", "bucket": "b", "token": "t"}
    if kind is InfluxV1Sink:
        own = {"db": "d", "rp": "", "user": "", "password": "", "create": False}
    sink = kind(f"http://127.0.0.1:{port}", *COMMON, **own)
    sink.connect()
    with pytest.raises(RetryLater, match=str(port)):
        sink.write(["m v=1 1"])
    sink.close()
