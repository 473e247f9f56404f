"""Module elasticsearch with a real server; the stand-in of the other tests answers as it does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import Rejected, RetryLater
from homerd.wire.hep import Frame
from homerd_plugins._elastic import Document, ElasticSink

NDJSON = "application/x-ndjson"
OPTIONS = {
    "user": "",
    "password": "",
    "api_key": "",
    "ca_file": "",
    "verify": True,
    "timeout": 30.0,
    "batch_size": 1000,
    "pattern": "homerd-*",
}


@pytest.fixture
def sink(elasticsearch):
    made = ElasticSink([elasticsearch.url], **OPTIONS)
    made.connect()
    yield made
    made.close()


def documents(*texts):
    return [Document("homerd-x", f"id{number}", text) for number, text in enumerate(texts)]


def test_documents_and_counts_are_found_again(elasticsearch, invite):
    script = (
        "".join(f'loadmodule "{name}"\n' for name in ("pv", "xlog", "elasticsearch"))
        + f'modparam("elasticsearch", "url", "{elasticsearch.url}")\n'
        'modparam("elasticsearch", "host", "h1")\nmodparam("elasticsearch", "timeout", 30)\n'
        'request_route { elastic_index("calls", \'ua="$ua"\', \'src_ip="$si"\', "n=5i", "v=1.5",'
        ' "ok=true"); elastic_count("n", "#method=$rm"); }'
    )
    worker = Worker(load(Path("test.cfg"), text=script))
    worker.start()
    for agent in (b"A", b'"\n x', b"\xff"):
        payload = invite.encode().replace(b"UA/1.0 (x)", agent)
        source, target = b"\1\1\1\1", b"\2\2\2\2"
        worker.engine.feed(
            Frame(3, 2, 17, source, target, 1, 2, 1700000000, 5432, 1, payload=payload)
        )
    worker.stop()
    assert worker.sinks[0].written == 4
    common = {"@timestamp": "2023-11-14T22:13:20.005432Z", "host": "h1", "src_ip": "1.1.1.1"}
    assert elasticsearch.of("homerd-calls-2023.11.14", "ua") == [
        common | {"ua": agent, "n": 5, "v": 1.5, "ok": True} for agent in ('" x', "?", "A")
    ]
    (count,) = elasticsearch.of("homerd-n-*")
    assert (count["method"], count["value"], count["host"]) == ("INVITE", 3, "h1")
    # by network, and by the hour: what the template is for
    query = {"query": {"bool": {"filter": [{"term": {"src_ip": "1.1.0.0/16"}}]}}}
    hits = elasticsearch.ask("POST", "/homerd-calls-*/_count", json.dumps(query))[1]["count"]
    query = {"query": {"range": {"@timestamp": {"gte": "2023-11-14T22:00:00Z"}}}}
    hours = elasticsearch.ask("POST", "/homerd-calls-*/_count", json.dumps(query))[1]["count"]
    assert (hits, hours) == (3, 3)


def test_the_template_says_what_fields_are(elasticsearch, sink):
    sink.write(
        documents(
            '{"@timestamp":"2023-11-14T22:13:20.005432Z","value":1,"src_ip":"::1","dstIP":"1.1.1.1","to":"sip:a"}',
            '{"value":1.5,"src_ip":"nobody knows","to":"1"}',
        )
    )
    mapping = elasticsearch.get("/homerd-x/_mapping")["homerd-x"]["mappings"]["properties"]
    assert {name: field["type"] for name, field in mapping.items()} == {
        "@timestamp": "date",
        "host": "keyword",
        "value": "double",
        "src_ip": "ip",
        "dstIP": "ip",
        "to": "keyword",
    }


def test_documents_that_do_not_fit_are_named_and_the_others_stored(elasticsearch, sink):
    batch = documents('{"v":1}', '{"v":"a"}', '{"v":2', '{"host":{"a":1}}', '{"v":3}')
    with pytest.raises(Rejected, match="400 document_parsing_exception") as raised:
        sink.write(batch)
    assert raised.value.indices == [1, 2, 3]
    sink.write([batch[0], batch[4]])
    assert [each["v"] for each in elasticsearch.of("homerd-x", "v")] == [1, 3]


def test_a_batch_that_comes_twice_is_stored_once(elasticsearch, sink):
    batch = documents('{"v":1}', '{"v":2}')
    sink.write(batch)
    sink.write(batch)
    assert [each["v"] for each in elasticsearch.of("homerd-x", "v")] == [1, 2]


def test_a_full_disk_is_waited_out(elasticsearch, sink):
    sink.write(documents('{"v":1}'))
    # what Elasticsearch does by itself when its disk fills up, and takes back when there is room
    full = {"index.blocks.read_only_allow_delete": True}
    elasticsearch.ask("PUT", "/homerd-x/_settings", json.dumps(full))
    batch = [Document("homerd-x", "id7", '{"v":7}'), Document("homerd-y", "id8", '{"v":8}')]
    with pytest.raises(RetryLater, match="busy, 1 of 2 documents wait"):
        sink.write(batch)
    elasticsearch.ask("PUT", "/homerd-x/_settings", json.dumps(full).replace("true", "null"))
    sink.write(batch)
    assert [each["v"] for each in elasticsearch.of("homerd-*", "v")] == [1, 7, 8]


def item(document, index="homerd-x", **more):
    action = {"index": {"_index": index, "_id": "1", **more}}
    return f"{json.dumps(action)}\n{document}\n"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (item('{"v":1}'), NDJSON),
        (item('{"v":1}'), "application/json"),
        (item('{"v":1}'), "text/plain"),
        (item('{"v":1}'), "application/vnd.elasticsearch+x-ndjson; compatible-with=8"),  # no Accept
        (item('{"v":1}').rstrip("\n"), NDJSON),
        (item('{"v":1}') + '{"index":{}}\n', NDJSON),
        (item('{"v":1}', _type="t"), NDJSON),
        (item('{"v":1}', index="Upper"), NDJSON),
        (item('{"v":1}', index="a b"), NDJSON),
        (item('{"v":1}', index="_x"), NDJSON),
        (item('{"v":1'), NDJSON),
        (item('{"v":NaN}'), NDJSON),
        (item('{"v":1,"v":2}'), NDJSON),
        (item('{"v":1}') + item('{"v":"a"}'), NDJSON),
        (item('{"v":1}') + item('{"v":"2"}'), NDJSON),
        (item('{"v":1}') + item('{"v":[]}'), NDJSON),
        (item('{"v":1}') + item('{"v":null}'), NDJSON),
        (item('{"v":1}') + item('{"v":{"a":1}}'), NDJSON),
        (item('{"v":"a"}') + item('{"v":1}'), NDJSON),
        (item('{"v":true}') + item('{"v":1}'), NDJSON),
        (item('{"v":true}') + item('{"v":"false"}'), NDJSON),
        (item('{"v":1}') + item('{"v":[1,"a"]}'), NDJSON),
        (item('{"v":{"a":1}}') + item('{"v":1}'), NDJSON),
        (item('{"v":[null]}') + item('{"v":"a"}'), NDJSON),
        (item('{"v":[1,2]}') + item('{"v":true}'), NDJSON),
        (item('{"src_ip":"1.1.1.1"}') + item('{"src_ip":"x"}'), NDJSON),
        (item('{"v":1}') + "nonsense\n{}\n", NDJSON),
        ("", NDJSON),
    ],
)
def test_the_stand_in_answers_as_the_server_does(elasticsearch, elasticsearch_node, body, kind):
    told = []
    for url in (elasticsearch.url, elasticsearch_node.url):
        made = ElasticSink([url], **OPTIONS)
        made.connect()  # the template
        made.close()
        told.append(answer_of(url, body, kind))
    assert told[1] == told[0]


def answer_of(url, body, kind):
    """The status, and of each item its status and the error's type."""
    request = urllib.request.Request(
        f"{url}/_bulk", body.encode(), {"Content-Type": kind}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            items = json.load(answer)["items"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    results = [each["index"] for each in items]
    return 200, [(each["status"], each.get("error", {}).get("type")) for each in results]
