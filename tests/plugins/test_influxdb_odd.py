"""Module influxdb: odd names, values and refusals, with real servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import Rejected
from homerd.wire.hep import Frame
from homerd_plugins._influx import InfluxV1Sink, InfluxV2Sink
from homerd_plugins._lines import BadPart, key_of, line, named

COMMON = (5.0, 1000, True)  # timeout, batch size, compressed
V1 = {"db": "homer", "rp": "", "user": "", "password": "", "create": True}


@pytest.fixture
def sink(influx_v1):
    made = InfluxV1Sink(influx_v1.url, *COMMON, **V1)
    made.connect()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("5i", 5),
        ("9223372036854775807i", 9223372036854775807),
        ("-9223372036854775808i", -9223372036854775808),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("1e-400", 0),
        ("-0.0", 0),
        ("007", 7),
        ("+5", 5),
        ("5.", 5),
        ("TRUE", True),
        ("f", False),
        ('""', ""),
        ('"\\"', "\\"),
        ('"a\\"', "a\\"),
        ('"\\""', '\\"'),
        ('"a b,c=d"', "a b,c=d"),
        ('"line\nend"', "line end"),
        ('"\x00\x7f"', "  "),
        ('"é \U0001f600"', "é \U0001f600"),
    ],
)
def test_a_value_comes_back_as_what_it_was(influx_v1, sink, value, stored, request):
    measurement = f"value of {request.node.callspec.id}"
    sink.write([line(key_of(measurement, []), named((f"v={value}",)).fields, 7)])
    name = measurement.replace("\\", "/").replace("\n", " ").replace('"', '\\"')
    (row,) = influx_v1.rows(f'SELECT v FROM "{name}"')
    assert (row["v"], type(row["v"]) is bool) == (stored, type(stored) is bool)


@pytest.mark.parametrize(
    "value",
    ["nan", "NaN", "inf", "-Infinity", "1e999", "0x5", "1_000", "5u", "9223372036854775808i", "٣", "1,5", "tru"],
)  # fmt: skip
def test_what_is_no_value_does_not_leave_the_script(value):
    with pytest.raises(BadPart, match="bad_field"):
        named((f"v={value}",))


@pytest.mark.parametrize(
    "name", ["a b", "a,b", "a=b", "a\\", "\\", "\\ ", 'a"b', "a\nb", "é", "#x", "=", ","]
)
def test_a_name_and_a_tag_of_any_characters(influx_v1, sink, name):
    sink.write([line(key_of(name, [(name, name), ("of", "names")]), {name + "f": 1.0}, 7)])
    shown = name.replace("\n", " ").replace("\\", "/")
    measurement = f"_{shown[1:]}" if shown.startswith("#") else shown
    quoted = measurement.replace('"', '\\"')
    (row,) = influx_v1.rows(f'SELECT * FROM "{quoted}"')
    assert row == {"time": 7, shown: shown, f"{shown}f": 1, "of": "names"}


def test_numbers_in_a_v2_server(victoria_metrics):
    made = InfluxV2Sink(victoria_metrics.url, *COMMON, org="o", bucket="b", token="")
    made.connect()
    fields = named(("i=-5i", "f=1.5e3", "yes=true", "no=F", 'text="gone"')).fields
    made.write([line(key_of("odd one", [("t g", "x,y=z\\")]), fields, 1700000000000000)])
    made.close()
    found = {
        labels["__name__"]: values
        for labels, values, _ in victoria_metrics.series('{__name__=~"odd one_.*"}')
    }
    # it keeps numbers only
    assert found.pop("odd one_text") == [0]
    assert found == {"odd one_i": [-5], "odd one_f": [1500], "odd one_yes": [1], "odd one_no": [0]}


class Counting(InfluxV1Sink):
    """Counts its requests."""

    sent = 0

    def send(self, lines):
        self.sent += 1
        super().send(lines)


def test_a_batch_that_is_refused_whole_is_not_sent_line_by_line(influx_v1):
    made = Counting(influx_v1.url, *COMMON, **V1)
    made.connect()
    made.write(["whole v=1 1"])
    made.sent = 0
    with pytest.raises(Rejected, match="field type conflict") as raised:
        made.write([f'whole v="text" {number}' for number in range(2, 502)])
    made.close()
    assert (len(raised.value.indices), made.sent) == (500, 1)


def test_points_too_old_for_the_server_are_named(influx_v1, sink):
    influx_v1.get("/query", q="CREATE RETENTION POLICY day ON homer DURATION 1d REPLICATION 1")
    made = InfluxV1Sink(influx_v1.url, *COMMON, **(V1 | {"rp": "day"}))
    made.connect()
    with pytest.raises(Rejected, match="points beyond retention policy") as raised:
        made.write(["old v=1 1", "old v=2 2"])
    made.close()
    assert raised.value.indices == [0, 1]


def test_a_point_that_is_refused_goes_into_quarantine_and_the_others_are_stored(
    influx_v1, invite, spool_folder
):
    script = (
        'loadmodule "pv"\nloadmodule "influxdb"\nmodparam("influxdb", "version", 1)\n'
        f'modparam("influxdb", "url", "{influx_v1.url}")\nmodparam("influxdb", "host", "h1")\n'
        'request_route { influxdb_write("mixed", "v=1", "@1");'
        ' influxdb_write("mixed", \'v="text"\', "@2"); influxdb_write("mixed", "v=3", "@3"); }'
    )
    worker = Worker(load(Path("x.cfg"), text=script))
    worker.start()
    source, target = b"\1\1\1\1", b"\2\2\2\2"
    frame = Frame(3, 2, 17, source, target, 1, 2, 1700000000, 0, 1, payload=invite.encode())
    worker.engine.feed(frame)
    worker.stop()
    (sink,) = worker.sinks
    assert (sink.written, sink.rejected, sink.retries) == (2, 1, 0)
    assert [row["v"] for row in influx_v1.rows("SELECT v FROM mixed")] == [1, 3]
    (kept,) = (
        json.loads(text) for file in spool_folder.rglob("quarantine.jsonl") for text in file.open()
    )
    assert kept["record"] == 'mixed,host=h1 v="text" 2'
    assert "field type conflict" in kept["reason"]
