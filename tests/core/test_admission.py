import gzip
import socket
import ssl
import time
import zlib

import pytest
import trustme
from listeners import DEADLINE_SECONDS, FRAME, OPTIONS_REQUEST, frame

from homerd.commands.status import lines
from homerd.core import metrics, telemetry
from homerd.core.agents import MOST_UNKNOWN, Agents, check_agents, parse_agent
from homerd.core.program import load
from homerd.errors import ScriptErrors
from homerd.wire import hep, hep_batch

OURS = ("127.0.0.1", 40000)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def refusals(said, *frames, address=OURS, clock=time.monotonic):
    agents = Agents([parse_agent(each) for each in said], clock)
    return [agents.refusal(hep.decode(data), address, None) for data in frames], agents


@pytest.mark.parametrize(
    ("said", "sent", "reason"),
    [
        ("sbc1=>id=2001", frame(2001), ""),
        ("sbc1=>id=2000,2001", frame(2001), ""),
        ("sbc1=>id=2001", frame(2002), "unknown_agent"),
        ("sbc1=>id=2001", frame(None), "unknown_agent"),
        ("sbc1=>id=2001", b"HEP1 is not of this kind", None),
        ("sbc1=>id=2001;key=s3cret", frame(2001, "s3cret"), ""),
        ("sbc1=>id=2001;key=old;key=s3cret", frame(2001, "s3cret"), ""),
        ("sbc1=>id=2001;key=s3cret", frame(2001, "s3cre"), "wrong_key"),
        ("sbc1=>id=2001;key=s3cret", frame(2001, ""), "wrong_key"),
        ("sbc1=>id=2001;key=s3cret", frame(2001), "wrong_key"),
        ("sbc1=>id=2001;key=schlüssel", frame(2001, "schlüssel"), ""),
        ("sbc1=>id=2001;network=127.0.0.0/8", frame(2001), ""),
        ("sbc1=>id=2001;network=10.0.0.0/8,127.0.0.1", frame(2001), ""),
        ("sbc1=>id=2001;network=10.0.0.0/8", frame(2001), "wrong_network"),
        ("sbc1=>id=2001;network=2001:db8::/32", frame(2001), "wrong_network"),
        ("sbc1=>id=2001;certificate=sbc1", frame(2001), "wrong_certificate"),
        ("lab=>network=127.0.0.0/8", frame(77), ""),
        ("lab=>network=10.0.0.0/8", frame(77), "unknown_agent"),
        ("all=>key=s3cret", frame(77, "s3cret"), ""),
        ("all=>key=s3cret", frame(77, "other"), "unknown_agent"),
    ],
)
def test_who_may_send(said, sent, reason):
    if reason is None:
        with pytest.raises(hep.DecodeError):
            refusals([said], sent)
    else:
        assert refusals([said], sent)[0] == [reason]


def test_an_id_of_its_own_comes_before_agents_without_one():
    told, agents = refusals(
        ["lab=>network=127.0.0.0/8", "sbc1=>id=2001;key=s3cret"], frame(2001), frame(7)
    )
    assert told == ["wrong_key", ""]
    assert agents.counts == {"lab": {"admitted": 1}, "sbc1": {"wrong_key": 1}}


def test_an_agent_sends_no_more_than_its_rate():
    clock = Clock()
    agents = Agents([parse_agent("sbc1=>id=7;rate=5;burst=8"), parse_agent("sbc2=>id=8")], clock)

    def sent(capture_id, times):
        frames = [hep.decode(frame(capture_id)) for _ in range(times)]
        return [agents.refusal(each, OURS, None) for each in frames].count("")

    assert sent(7, 100) == 8
    assert sent(8, 100) == 100
    clock.seconds = 1.0
    assert sent(7, 100) == 5
    clock.seconds = 1000.0
    assert sent(7, 100) == 8
    assert agents.counts["sbc1"] == {"admitted": 21, "rate": 279}


def test_unknown_agents_are_counted_by_number_and_beyond_that_together():
    frames = [frame(number) for number in range(1, MOST_UNKNOWN + 500)]
    _, agents = refusals(["sbc1=>id=99999"], *frames, frame(None))
    assert agents.unknown["1"] == 1
    assert agents.unknown["other"] == 500
    assert len(agents.unknown) == MOST_UNKNOWN + 1


@pytest.mark.parametrize("version", [1, 2])
def test_old_versions_have_no_key(version):
    data = hep.encode(hep.decode(frame(7)), version)
    assert refusals(["lab=>key=s3cret"], data)[0] == ["unknown_agent"]
    assert refusals(["lab=>network=127.0.0.0/8"], data)[0] == [""]


@pytest.mark.parametrize("key", ["s3cret", "", "wrong", "schlüssel"])
def test_the_key_is_gone_behind_the_door(key):
    came = hep.decode(frame(7, key, correlation_id="c1"))
    Agents([parse_agent("sbc1=>id=7;key=s3cret")]).refusal(came, OURS, None)
    assert came.auth_key is None
    assert hep.chunk(came, 14) is None
    assert came.raw == frame(7, correlation_id="c1")


def test_a_key_that_stands_in_the_payload_too_is_taken_out_of_its_chunk_alone():
    chunk = b"\0\0\0\x0e\0\x0cs3cret"
    came = hep.decode(frame(7, "s3cret", payload=OPTIONS_REQUEST + chunk))
    Agents([parse_agent("sbc1=>id=7;key=s3cret")]).refusal(came, OURS, None)
    again = hep.decode(came.raw)
    assert (again.auth_key, again.payload) == (None, OPTIONS_REQUEST + chunk)


LARGE = OPTIONS_REQUEST + bytes(100_000)  # packed it fits into a frame
KEYS = [(0, 14, b"s3cret"), (0, 14, b"another")]


@pytest.mark.parametrize("envelope", [bytes, gzip.compress])
@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
def test_a_packed_payload_that_fits_no_frame_when_it_is_unpacked_keeps_its_place(envelope, keys):
    data = hep.assemble([*keys, (0, 11, b"\1"), (0, 16, zlib.compress(LARGE))])
    came = hep.decode(envelope(data))
    Agents([parse_agent("lab=>network=127.0.0.0/8")]).refusal(came, OURS, None)
    again = hep.decode(came.raw)
    assert (came.auth_key, again.auth_key, again.payload) == (None, None, LARGE)
    assert not any(key in came.raw for _, _, key in keys)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("2001", 'agent: expected "NAME=>id=2001;'),
        ("sbc1=>", "expected at least one of id, key, network, certificate"),
        ("sbc1=>rate=5", "expected at least one of"),
        ("sbc1=>id=many", 'agent "sbc1": expected id as a number, got "many"'),
        ("sbc1=>id=5000000000", "expected id as a number"),
        ("sbc1=>network=10.0.0.1/8", "expected a network, such as 10.0.0.0/8: 10.0.0.1/8 has host"),
        ("sbc1=>pasword=s3cret", 'agent "sbc1": expected "NAME=>'),
        ("sbc1=>id=1;key=", 'agent "sbc1": expected "NAME=>'),
        ("sbc1=>id=1;key=s3cret;rate=fast", 'expected rate as a number, got "fast"'),
    ],
)
def test_a_line_that_cannot_be_is_told_without_its_key(said, message):
    with pytest.raises(ValueError, match="agent") as told:
        parse_agent(said)
    assert message in str(told.value)
    assert "s3cret" not in str(told.value)
    assert "s3cret" not in repr(parse_agent("sbc1=>id=1;key=s3cret"))


def test_two_agents_may_not_have_one_id_or_one_name():
    first = parse_agent("sbc1=>id=2001")
    with pytest.raises(ValueError, match='id 2001 belongs to "sbc1"'):
        check_agents([first], parse_agent("sbc2=>id=2000,2001"))
    with pytest.raises(ValueError, match='"sbc1" is there already'):
        check_agents([first], parse_agent("sbc1=>id=5"))


def test_a_script_with_such_a_line_does_not_load(tmp_path):
    with pytest.raises(ScriptErrors) as told:
        load(tmp_path / "homer.cfg", text='agent="sbc1"\nrequest_route { drop; }\n')
    assert told.value.diagnostics[0].message.startswith("agent: expected")


def test_what_is_refused_is_in_status_metrics_and_ledger(listener_for):
    said = 'agent = "sbc1=>id=2001;key=s3cret"\nagent = "sbc2=>id=2002;rate=1;burst=2"\n'
    listener = listener_for("tcp", said)
    client = listener.connect()
    worker = listener.worker
    client.sendall(frame(2001, "s3cret") + frame(2001, "guess") + frame(2001) + frame(5))
    listener.wait_for(lambda: worker.engine.received == 4)
    counters = listener.call(metrics.snapshot, worker)
    assert counters["agents"]["named"]["sbc1"] == {"admitted": 1, "wrong_key": 2}
    assert counters["agents"]["unknown"] == {"5": 1}
    assert counters["refused"] == {"wrong_key": 2, "unknown_agent": 1}
    assert counters["routed"] == {"request_route": 1}
    assert counters["ledger"]["difference"] == 0
    samples = {(name, *labels.values()): value for name, labels, value, *_ in telemetry.own(worker)}
    assert samples["homerd_agent_packets_total", "sbc1", "wrong_key"] == 2
    assert samples["homerd_unknown_agent_packets_total", "5"] == 1
    shown = "\n".join(lines(counters))
    assert "agent sbc1" in shown
    assert "s3cret" not in shown + repr(counters)


def test_a_batch_with_frames_of_others_is_told_and_they_are_refused(listener_for):
    listener = listener_for("tcp", 'agent = "sbc1=>id=7;key=s3cret"\n')
    worker = listener.worker
    client = listener.connect()
    frames = [frame(7, "s3cret"), frame(7, "guess"), frame(8, "s3cret"), frame(7, "s3cret")]
    batch = b"".join(frames) + hep_batch.end(len(frames), "b-1")
    client.sendall(hep_batch.message(hep_batch.HELLO) + batch)
    answers = hep.Framer()
    told = []
    while len(told) < 2:
        told += map(hep_batch.read, answers.feed(client.recv(4096)))
    assert told == [(hep_batch.WELCOME, b""), (hep_batch.TAKEN, b"b-1")]
    assert worker.agents.counts == {"sbc1": {"admitted": 2, "wrong_key": 1}}
    assert worker.engine.refused == {"wrong_key": 1, "unknown_agent": 1}
    assert worker.engine.routed == {"request_route": 2}
    assert worker.probe.sink.rows == ["192.0.2.1"] * 2
    assert listener.ledger()["difference"] == 0


def test_a_runaway_agent_keeps_nothing_from_the_others(listener_for):
    said = 'agent = "wild=>id=1;rate=1;burst=50"\nagent = "calm=>id=2"\n'
    listener = listener_for("udp", said)
    sent = 0
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", listener.port))
        for _ in range(20):
            for _ in range(100):
                client.send(frame(1))
            client.send(frame(2))
            sent += 101
            listener.wait_for(lambda: listener.worker.engine.received == sent)  # noqa: B023
    counts = listener.worker.agents.counts
    assert counts["calm"] == {"admitted": 20}
    assert 50 <= counts["wild"]["admitted"] <= 50 + DEADLINE_SECONDS
    assert counts["wild"].total() == 2000
    assert listener.ledger()["difference"] == 0


def test_bare_sip_comes_from_a_network_or_from_nobody(listener_for):
    listener = listener_for("udp", 'agent = "pbx=>network=127.0.0.0/8"\n')
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(OPTIONS_REQUEST, ("127.0.0.1", listener.port))
        listener.wait_for(lambda: listener.worker.engine.routed == {"request_route": 1})


def test_a_script_does_not_see_the_key(listener_for):
    script = 'request_route { keep("$hep(0x00e)"); }'
    said = 'loadmodule "sipcapture"\nmodparam("sipcapture", "hep_capture_on", 1)\n'
    listener = listener_for("tcp", said + 'agent = "a=>id=7;key=s3cret"\n', script)
    listener.connect().sendall(frame(7, "s3cret"))
    listener.wait_for(lambda: listener.worker.engine.routed)
    assert listener.worker.flush(DEADLINE_SECONDS)
    assert listener.worker.probe.sink.rows == [""]


def test_a_certificate_says_who_an_agent_is(listener_for, tmp_path):
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    listener = listener_for(
        "tls",
        f'tls_certificate = "{tmp_path}/server.pem"\ntls_ca_list = "{tmp_path}/ca.pem"\n'
        'tls_require_certificate = yes\nagent = "sbc1=>id=7;certificate=sbc1.example.com"\n',
    )
    for count, name in enumerate(("sbc1.example.com", "sbc2.example.com")):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        authority.issue_cert(name).configure_cert(context)
        raw = listener.connect()
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as client:
            client.sendall(FRAME)
            listener.wait_for(lambda: listener.worker.engine.received == count + 1)  # noqa: B023
    assert listener.worker.agents.counts == {"sbc1": {"admitted": 1, "wrong_certificate": 1}}


def test_a_reload_changes_who_may_send_and_keeps_the_counters(listener_for):
    listener = listener_for("tcp", 'agent = "sbc1=>id=7"\nagent = "sbc2=>id=8"\n')
    worker = listener.worker
    client = listener.connect()
    client.sendall(frame(7) + frame(8))
    listener.wait_for(lambda: worker.engine.received == 2)
    for agents, count in (('agent = "sbc1=>id=7"\n', 4), ("", 6)):
        program = load(worker.program.path, text=agents + "request_route { drop; }")
        listener.call(worker.swap, program, [])
        client.sendall(frame(7) + frame(8))
        listener.wait_for(lambda: worker.engine.received == count)  # noqa: B023
    assert worker.agents.counts == {"sbc1": {"admitted": 2}, "sbc2": {"admitted": 1}}
    assert worker.engine.refused == {"unknown_agent": 1}


def test_nobody_is_asked_where_no_agent_is_named(listener_for):
    listener = listener_for("tcp")
    listener.connect().sendall(frame(7, "anything"))
    listener.wait_for(lambda: listener.worker.engine.routed == {"request_route": 1})
    assert listener.worker.engine.admit is None
    assert "agents" not in listener.call(metrics.snapshot, listener.worker)
