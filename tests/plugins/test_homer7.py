"""The layout of Homer 7: what a packet becomes, and what PostgreSQL holds of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, ScriptErrors
from homerd.wire.hep import Frame
from homerd_plugins._homer7 import partition_name, step_seconds

NOVEMBER_14 = 1700000000  # 2023-11-14 22:13:20 UTC
NOW = int(time.time())


def sip(method: str = "INVITE", cseq: str = "", more: str = "") -> str:
    return (
        f"{method} sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKa\r\n"
        "From: <sip:alice@a.example>;tag=f\r\nTo: <sip:bob@b.example>\r\n"
        f"Call-ID: c1\r\nCSeq: 7 {cseq or method}\r\n{more}\r\n"
    )


def frame(payload: str | bytes, payload_type: int = 1, **chunks) -> Frame:
    told = {
        "family": 2,
        "protocol": 17,
        "src": bytes([192, 0, 2, 10]),
        "dst": bytes([198, 51, 100, 7]),
        "src_port": 5060,
        "dst_port": 5061,
        "seconds": NOVEMBER_14,
        "micros": 123456,
        "capture_id": 2001,
        "payload": payload.encode() if isinstance(payload, str) else payload,
        "payload_type": payload_type,
    }
    return Frame(**(told | chunks))


def partition(table: str, seconds: int) -> tuple[str, int]:
    """Name and first second of the partition that holds a time."""
    begin = seconds // step_seconds(table) * step_seconds(table)
    return partition_name(table, begin), begin


class Node:
    """A worker over a script that stores in the layout of Homer 7."""

    def __init__(self, url: str, statements: str, extra: str, deliver: bool) -> None:
        text = (
            'loadmodule "pv"\nloadmodule "sipcapture"\n'
            'modparam("sipcapture", "capture_on", 1)\nmodparam("sipcapture", "hep_capture_on", 1)\n'
            f'modparam("sipcapture", "schema", "homer7")\nmodparam("sipcapture", "db_url", "{url}")\n'
            f"{extra}\nrequest_route {{ {statements} }}\nonreply_route {{ {statements} }}\n"
        )
        self.worker = Worker(load(Path("test.cfg"), text=text), deliver=deliver)
        self.worker.start()

    def feed(self, one: Frame) -> list[tuple[str, tuple[object, ...]]]:
        packet, failure = self.worker.engine.feed(one)
        assert not isinstance(failure, Exception), failure
        return [(record[0], record[2]) for _, record in packet.effects]

    def stop(self) -> None:
        self.worker.flush(20)
        self.worker.stop()


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(
        url="postgres://u:p@127.0.0.1/d", statements="sip_capture();", extra="", deliver=False
    ):
        made.append(Node(url, statements, extra, deliver))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize(
    ("message", "table"),
    [
        (sip("INVITE"), "hep_proto_1_call"),
        (sip("NOTIFY"), "hep_proto_1_call"),
        (sip("REGISTER"), "hep_proto_1_registration"),
        (sip("OPTIONS"), "hep_proto_1_default"),
        (sip("WHATEVER"), "hep_proto_1_default"),
        (
            sip(cseq="INVITE").replace("INVITE sip:bob@b.example SIP/2.0", "SIP/2.0 200 OK"),
            "hep_proto_1_call",
        ),
    ],
)
def test_the_table_is_that_of_the_method(node, message, table):
    ((found, _),) = node().feed(frame(message))
    assert found == table


@pytest.mark.parametrize(
    ("statements", "table"),
    [
        ('sip_capture("sip_capture_call_%Y%m%d");', "hep_proto_1_call"),
        ('sip_capture("hep_proto_1_default");', "hep_proto_1_default"),
        ('$var(t) = "x; DROP"; sip_capture("$var(t)");', "hep_proto_1_call"),
    ],
)
def test_the_script_may_name_a_table_of_homer_7(node, statements, table):
    ((found, _),) = node(statements=statements).feed(frame(sip()))
    assert found == table


def test_protocol_header_is_that_of_homer(node):
    one = frame(sip(), correlation_id="c1@h", auth_key="myHep", extra={"node_name": "node1"})
    ((_, (sid, date, header, _, raw)),) = node().feed(one)
    assert (sid, date, raw) == ("c1", "2023-11-14 22:13:20.123456+00:00", sip())
    assert json.loads(header) == {
        "protocolFamily": 2,
        "protocol": 17,
        "srcIp": "192.0.2.10",
        "dstIp": "198.51.100.7",
        "srcPort": 5060,
        "dstPort": 5061,
        "timeSeconds": 1700000000,
        "timeUseconds": 123456,
        "payloadType": 1,
        "captureId": "node1",
        "correlation_id": "c1@h",
    }


@pytest.mark.parametrize(
    ("more", "chunks", "correlation_id", "capture_id"),
    [
        ("", {}, "c1", "2001"),
        ("X-CID: other\r\n", {}, "other", "2001"),
        ("X-CID: other\r\n", {"correlation_id": "chunk"}, "chunk", "2001"),
    ],
)
def test_correlation_is_the_first_that_is_known(node, more, chunks, correlation_id, capture_id):
    ((_, row),) = node().feed(frame(sip(more=more), **chunks))
    header = json.loads(row[2])
    assert (header["correlation_id"], header["captureId"]) == (correlation_id, capture_id)


def test_data_header_has_the_usual_keys_and_those_with_a_value(node):
    ((_, row),) = node().feed(frame(sip(more='Reason: Q.850;text="a\\"b"\r\nExpires: 60\r\n')))
    assert json.loads(row[3]) == {
        "ruri_user": "bob",
        "ruri_domain": "b.example",
        "from_user": "alice",
        "from_tag": "f",
        "to_user": "bob",
        "to_tag": "",
        "callid": "c1",
        "cseq": "7 INVITE",
        "method": "INVITE",
        "user_agent": "",
        "from_domain": "a.example",
        "to_domain": "b.example",
        "ruri": "sip:bob@b.example",
        "reason": 'Q.850;text="a\\"b"',
        "expires": "60",
    }


@pytest.mark.parametrize(
    ("payload_type", "table", "proto"),
    [
        (5, "hep_proto_5_default", "rtcp"),
        (32, "hep_proto_35_default", "32"),
        (33, "hep_proto_35_default", "33"),
        (34, "hep_proto_35_default", "rtpagent"),
        (35, "hep_proto_35_default", "rtcpxr"),
        (36, "hep_proto_35_default", "36"),
        (37, "hep_proto_35_default", "37"),
        (38, "hep_proto_35_default", "horaclifix"),
        (99, "hep_proto_35_default", "99"),
        (53, "hep_proto_53_default", "dns"),
        (100, "hep_proto_100_default", "log"),
    ],
)
def test_what_is_no_sip_has_a_table_of_its_type(node, payload_type, table, proto):
    one = frame('{"x":1}', payload_type, correlation_id="c1")
    ((found, row),) = node().feed(one)
    assert (found, row[0], json.loads(row[3])) == (table, "c1", {"node": "2001", "proto": proto})


def test_what_belongs_to_no_call_is_not_stored(node):
    assert node().feed(frame("{}", 5)) == []


def test_what_belongs_to_no_call_is_stored_on_demand_with_an_empty_id(node):
    one = node(extra='modparam("sipcapture", "store_uncorrelated", 1)\n')
    ((table, row),) = one.feed(frame("{}", 5))
    assert (table, row[0]) == ("hep_proto_5_default", "")
    assert json.loads(row[2])["correlation_id"] == ""


def test_a_voice_quality_report_belongs_to_the_call_that_it_names(node):
    text = sip("PUBLISH") + "VQSessionReport: CallTerm\r\nCallID: c7@host\r\n"
    ((table, row),) = node().feed(frame(text, 99))
    assert (table, row[0], row[4]) == ("hep_proto_35_default", "c7@host", text)


def test_isup_is_told_by_its_circuit(node):
    told = {"opc": 7, "dpc": 3, "cic": 9, "msg_name": "IAM", "called_number": {"num": "49"}}
    ((table, row),) = node().feed(frame(json.dumps(told), 54))
    header = json.loads(row[3])
    assert (table, row[0], header["opc"], header["called_number"]) == (
        "hep_proto_54_default",
        "3:7:9",
        7,
        "49",
    )


@pytest.mark.parametrize("url", ["sqlite://x.db", "mysql://homer:secret@127.0.0.1/homer_data"])
def test_other_stores_have_no_such_layout_and_check_says_so(node, url):
    with pytest.raises(ScriptErrors) as refused:
        node(url=url)
    (told,) = refused.value.diagnostics
    assert "schema homer7 is for PostgreSQL alone" in told.message
    assert "secret" not in told.message


def test_a_capture_mode_in_another_store_is_told_at_its_line(node):
    mode = 'modparam("sipcapture", "capture_mode", "{}=>db_url=mysql://h/d;table_name=t;mt_mode=rand{}")\n'
    extra = mode.format("five", ";schema=homer5") + mode.format("seven", "")
    with pytest.raises(ScriptErrors) as refused:
        node(extra=extra)
    (told,) = refused.value.diagnostics
    assert (told.code, "seven=>" in told.message or told.span.line) == ("E407", 8)


def test_a_store_named_from_outside_has_no_such_layout_either(node, tmp_path, monkeypatch):
    monkeypatch.setenv("HOMERD_DB", f"sqlite://{tmp_path}/x.db")
    with pytest.raises(ConfigError, match=r'HOMERD_DB="sqlite://.*homer7 is for PostgreSQL'):
        node(deliver=True)


@pytest.mark.parametrize(
    ("table", "seconds", "name"),
    [
        ("hep_proto_1_call", NOVEMBER_14, "hep_proto_1_call_20231114_2200"),
        ("hep_proto_5_default", NOVEMBER_14, "hep_proto_5_default_20231114_1800"),
    ],
)
def test_partitions_are_named_by_their_first_minute(table, seconds, name):
    assert partition(table, seconds)[0] == name


def store(node: Callable[..., Node], postgres, *frames: Frame, **options) -> Node:
    one = node(url=postgres.url("postgres"), deliver=True, **options)
    for each in frames:
        one.worker.engine.feed(each)
    one.stop()
    return one


def test_rows_are_found_as_homer_app_searches(node, postgres):
    store(node, postgres, frame(sip(), seconds=NOW), frame(sip("REGISTER"), seconds=NOW))
    found = postgres.rows(
        "SELECT sid, raw, protocol_header->>'srcIp', jsonb_typeof(protocol_header->'srcPort'),"
        " extract(epoch FROM create_date)::bigint FROM hep_proto_1_call"
        f" WHERE create_date BETWEEN to_timestamp({NOW - 60}) AND to_timestamp({NOW + 60})"
        " AND data_header->>'callid' = 'c1'"
    )
    assert found == [("c1", sip(), "192.0.2.10", "number", NOW)]
    assert postgres.rows("SELECT count(*) FROM hep_proto_1_registration") == [(1,)]


def test_each_partition_has_the_indexes_of_homer(node, postgres):
    store(node, postgres, frame(sip(), seconds=NOW))
    name = partition("hep_proto_1_call", NOW)[0]
    assert postgres.rows(f"SELECT count(*) FROM {name}") == [(1,)]
    rows = postgres.rows(f"SELECT indexname FROM pg_indexes WHERE tablename = '{name}'")
    assert {row[0].removeprefix(name) for row in rows} == {
        "_create_date", "_sid", "_srcip", "_dstip", "_correlation_id", "_ruri_domain", "_ruri_user",
        "_from_user", "_to_user", "_pid_user", "_auth_user", "_callid", "_method",
    }  # fmt: skip


def test_odd_clocks_go_to_the_default_partition_and_are_counted(node, postgres):
    ten_days = NOW + 10 * 86400
    one = store(
        node,
        postgres,
        frame(sip(), seconds=ten_days),
        frame(sip(), seconds=60),
        frame(sip(), seconds=NOW),
    )
    assert postgres.rows("SELECT count(*) FROM hep_proto_1_call_default") == [(2,)]
    (sink,) = one.worker.sinks
    assert (sink.written, sink.partitions.odd_clocks) == (3, 2)


def test_nul_and_broken_text_abort_no_batch(node, postgres):
    odd = sip().encode().replace(b"alice", b"al\xff\0ice") + b"body\0\xfe"
    store(node, postgres, frame(odd, seconds=NOW), frame(sip(), seconds=NOW))
    found = postgres.rows(
        "SELECT raw LIKE '%%body%%', data_header->>'from_user' FROM hep_proto_1_call"
    )
    assert found == [(True, "al\ufffd\ufffdice"), (False, "alice")]


def test_one_packet_goes_to_both_layouts_and_several_stores(node, postgres, mariadb, tmp_path):
    mode = 'modparam("sipcapture", "capture_mode", "{}=>db_url={};table_name=sip_capture;mt_mode=rand;schema=homer5")\n'
    extra = (
        mode.format("pg5", postgres.url("postgres"))
        + mode.format("my5", mariadb.url("mysql"))
        + mode.format("lite", f"sqlite://{tmp_path}/x.db")
    )
    statements = (
        'sip_capture("calls"); sip_capture("calls", "pg5"); sip_capture("calls", "my5");'
        ' sip_capture("calls", "lite");'
    )
    one = store(node, postgres, frame(sip(), seconds=NOW), statements=statements, extra=extra)
    assert postgres.rows("SELECT sid, callid FROM hep_proto_1_call, calls") == [("c1", "c1")]
    assert mariadb.rows("SELECT callid, msg FROM calls") == [("c1", sip())]
    assert [sink.written for sink in one.worker.sinks] == [2, 1, 1]
