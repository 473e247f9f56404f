"""Module elasticsearch: documents, and what a node makes of them (tests/elasticsearch_node.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers import free_port

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, Rejected, RetryLater
from homerd.wire.hep import Frame
from homerd_plugins._elastic import Document, ElasticSink

MODULES = ("pv", "xlog", "elasticsearch")
HOST = 'modparam("elasticsearch", "host", "h1")\n'
OPTIONS = {
    "user": "",
    "password": "",
    "api_key": "",
    "ca_file": "",
    "verify": True,
    "timeout": 5.0,
    "batch_size": 1000,
    "pattern": "homerd-*",
}


def frame_of(message, seconds=1700000000):
    payload = message if isinstance(message, bytes) else message.encode()
    return Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, seconds, 5432, 1, payload=payload)


def documents(runner, message, **when):
    packet, _ = runner.worker.engine.feed(frame_of(message, **when))
    return [(index, json.loads(text)) for _, (index, _, text) in packet.effects]


def refused(runner):
    plugin = runner.program.registry.plugin("elasticsearch")
    return {sample.labels["reason"]: sample.value for sample in plugin.metrics() if sample.labels}


@pytest.fixture
def sink_of():
    """Makes a connected sink of a node's address."""
    made = []

    def make(url, **options):
        sink = ElasticSink([url], **OPTIONS | options)
        made.append(sink)
        sink.connect()
        return sink

    yield make
    for sink in made:
        sink.close()


# -- documents


def test_a_document_has_the_packets_time_and_lies_in_the_index_of_its_day(script, invite):
    runner = script(
        HOST + 'request_route { elastic_index("Calls", \'call_id="$ci"\', \'src_ip="$si"\','
        ' "#method=$rm", "n=5i", "value=1.5", "@@"); elastic_index("Calls", \'call_id="$ci"\','
        ' "#method=$rm", "#none=$avp(x)", "n=5i", "value=1.5", "ok=true"); xlog("$rc"); }',
        MODULES,
    )
    fields = {"call_id": "cid-1@test", "method": "INVITE", "n": 5, "value": 1.5, "ok": True}
    assert documents(runner, invite) == [
        (
            "homerd-calls-2023.11.14",
            {"@timestamp": "2023-11-14T22:13:20.005432Z", "host": "h1"} | fields,
        )
    ]
    assert (runner.lines, refused(runner)) == (["1"], {"bad_time": 1})


def test_a_document_may_be_json_text(script, invite):
    runner = script(
        HOST
        + 'request_route { $var(d) = \'{"a":{"b":[1,null]}}\'; elastic_index("x y", "$var(d)"); }',
        MODULES,
    )
    ((index, document),) = documents(runner, invite)
    assert index == "homerd-x_y-2023.11.14"
    assert document["a"] == {"b": [1, None]}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ("'{\"a\":'", "bad_json"),
        ("'{\"a\":NaN}'", "bad_json"),
        ("'{\"a\":1e999}'", "bad_json"),
        ("'{}'", "no_field"),
        ('"a=$ua"', "bad_field"),
    ],
)
def test_a_document_that_cannot_be_made_is_false_and_counted(script, invite, parts, reason):
    runner = script(f'request_route {{ elastic_index("x", {parts}); xlog("$rc"); }}', MODULES)
    assert documents(runner, invite) == []
    assert (runner.lines, refused(runner)) == (["-1"], {reason: 1})


def test_the_name_of_the_index_is_a_parameter(script, invite):
    runner = script(
        'modparam("elasticsearch", "index", "homer-%d.%m.%Y")\n'
        'request_route { elastic_index("x", "v=1"); }',
        MODULES,
    )
    assert [index for index, _ in documents(runner, invite)] == ["homer-14.11.2023"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", '"localhost"'),
        ("index", '"Homer-%Y"'),
        ("index", '"a b"'),
        ("interval", 0),
        ("ca_file", '"/no/such/file"'),
    ],
)
def test_a_parameter_that_is_wrong_is_refused(script, name, value):
    with pytest.raises(ConfigError, match=f'"{name}"'):
        script(f'modparam("elasticsearch", "{name}", {value})\nrequest_route {{ exit; }}', MODULES)


# -- a node


def test_documents_and_counts_reach_the_node(elasticsearch_node, invite):
    head = "".join(f'loadmodule "{name}"\n' for name in MODULES)
    script = (
        f'modparam("elasticsearch", "url", "{elasticsearch_node.url}")\n'
        'request_route { elastic_index("calls", \'ua="$ua"\'); elastic_count("n", "#method=$rm"); }'
    )
    worker = Worker(load(Path("test.cfg"), text=head + HOST + script))
    worker.start()
    for agent in (b"A", b'"\n x', b"\xff"):
        worker.engine.feed(frame_of(invite.encode().replace(b"UA/1.0 (x)", agent)))
    worker.stop()
    assert worker.sinks[0].written == 4
    found = elasticsearch_node.of("homerd-calls-2023.11.14")
    assert [document["ua"] for document in found] == ["A", '" x', "?"]
    (count,) = (text for text in elasticsearch_node.documents.values() if "method" in text)
    assert (count["method"], count["value"], count["host"]) == ("INVITE", 3, "h1")


def test_the_template_makes_texts_keywords_and_addresses_addresses(elasticsearch_node, sink_of):
    sink_of(elasticsearch_node.url)
    template = elasticsearch_node.templates["homerd"]
    assert template["index_patterns"] == ["homerd-*"]
    mappings = template["template"]["mappings"]
    kinds = {
        (rule.get("match") or rule["match_mapping_type"]): rule["mapping"]["type"]
        for each in mappings["dynamic_templates"]
        for rule in each.values()
    }
    assert kinds == {"*_ip": "ip", "*IP": "ip", "string": "keyword", "long": "double"}
    assert mappings["properties"]["@timestamp"] == {"type": "date"}


def test_what_the_node_is_too_busy_for_is_sent_again_alone(elasticsearch_node, sink_of):
    sink = sink_of(elasticsearch_node.url)
    batch = [Document("homerd-x", f"id{n}", f'{{"n":{n}}}') for n in range(5)]
    elasticsearch_node.busy = {"id1": 2, "id3": 1}
    with pytest.raises(RetryLater, match="2 of 5"):
        sink.write(batch)
    with pytest.raises(RetryLater, match="1 of 2"):
        sink.write(batch)
    sink.write(batch)
    assert [count for _, count in elasticsearch_node.requests] == [5, 2, 1]
    assert sorted(each["n"] for each in elasticsearch_node.of("homerd-x")) == [0, 1, 2, 3, 4]


def test_documents_that_the_node_refuses_are_named(elasticsearch_node, sink_of):
    sink = sink_of(elasticsearch_node.url)
    batch = [
        Document("homerd-x", f"id{n}", f'{{"v":{v}}}')
        for n, v in enumerate(("1", '"a"', "2", "{}"))
    ]
    with pytest.raises(Rejected, match=r"400 document_parsing_exception: field \[v\]") as raised:
        sink.write(batch)
    assert raised.value.indices == [1, 3]
    sink.write([batch[0], batch[2]])
    assert [count for _, count in elasticsearch_node.requests] == [4]


def test_a_batch_that_is_sent_twice_is_stored_once(elasticsearch_node, sink_of):
    batch = [Document("homerd-x", "one", '{"v":1}')]
    sink_of(elasticsearch_node.url).write(batch)
    sink_of(elasticsearch_node.url).write(batch)
    assert elasticsearch_node.of("homerd-x") == [{"v": 1}]


def test_a_large_batch_goes_in_several_requests(elasticsearch_node, sink_of):
    text = f'{{"v":"{"x" * (2 << 20)}"}}'
    sink_of(elasticsearch_node.url).write([Document("homerd-x", f"id{n}", text) for n in range(5)])
    assert [count for _, count in elasticsearch_node.requests] == [2, 2, 1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_node_in_trouble_is_waited_for(elasticsearch_node, sink_of, status):
    sink = sink_of(elasticsearch_node.url)
    elasticsearch_node.answers = [status]
    batch = [Document("homerd-x", "one", '{"v":1}')]
    with pytest.raises(RetryLater, match=str(status)):
        sink.write(batch)
    sink.write(batch)
    assert elasticsearch_node.of("homerd-x") == [{"v": 1}]


def test_a_wrong_password_is_told_with_its_parameter(elasticsearch_node, sink_of):
    elasticsearch_node.user = "homer:secret"
    with pytest.raises(RetryLater, match=r'modparam\("elasticsearch", "user"\).*401'):
        sink_of(elasticsearch_node.url, user="homer", password="wrong")
    sink_of(elasticsearch_node.url, user="homer", password="secret")


def test_what_is_no_elasticsearch_is_told(elasticsearch_node, sink_of):
    elasticsearch_node.product = ""
    with pytest.raises(RetryLater, match=r'"url"\).*not Elasticsearch'):
        sink_of(elasticsearch_node.url)


def test_a_node_that_is_away_is_waited_for(sink_of):
    port = free_port()
    with pytest.raises(RetryLater, match=str(port)):
        sink_of(f"http://127.0.0.1:{port}")
