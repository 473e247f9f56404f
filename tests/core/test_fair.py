import socket

import pytest
from listeners import DEADLINE_SECONDS, OPTIONS_REQUEST, frame

from homerd.commands.status import lines
from homerd.core import metrics, telemetry
from homerd.core.agents import Agents, parse_agent
from homerd.core.fair import OVERHEAD, Turns
from homerd.core.settings import parse_listen
from homerd.core.udp import DRAIN_LIMIT, READS_A_TURN
from homerd.wire import hep

HERE = ("127.0.0.1", 40000)
ELSEWHERE = ("192.0.2.9", 40000)
SIZE = len(frame(1)) + OVERHEAD
WILD, CALM = 1, 2
NAMED = 'agent = "wild=>id=1"\nagent = "calm=>id=2"\n'
BIG_BUFFER = "receive_buffer = 67108864\n"


@pytest.fixture
def turns_of(worker_for):
    """Turns of agents with room for so many datagrams of SIZE."""

    def make(said, room=1000):
        engine = worker_for("request_route { drop; }").engine
        return Turns(Agents([parse_agent(each) for each in said]), engine, room * SIZE)

    return make


@pytest.fixture
def source_for(worker_for, free_port):
    """A worker, its UDP source that nobody reads, and a socket that sends to it."""
    clients = []

    def make(settings, script='request_route { keep("$hep(0x00c)"); }'):
        head = 'loadmodule "sipcapture"\nmodparam("sipcapture", "hep_capture_on", 1)\n'
        worker = worker_for(BIG_BUFFER + settings + head + script)
        worker.open(parse_listen(f"udp:127.0.0.1:{free_port}"))
        client = socket.socket(type=socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", free_port))
        clients.append(client)
        return worker, worker.sources[0], client

    yield make
    for client in clients:
        client.close()


def ids(datagrams):
    return [hep.decode(data).capture_id for data, _ in datagrams]


def routed_ids(worker):
    assert worker.flush(DEADLINE_SECONDS)
    return [int(row) for row in worker.probe.sink.rows]


def test_each_agent_is_served_in_turn_and_in_its_own_order(turns_of):
    turns = turns_of(["a=>id=1", "b=>id=2", "c=>id=3"])
    came = [(frame(id, seconds=second), HERE) for second, id in enumerate([1, 1, 1, 1, 2, 3, 3], 1)]
    turns.put(came)
    assert turns.lengths() == {"a": 4, "b": 1, "c": 2}
    found = turns.take(2) + turns.take(10)
    assert ids(found) == [1, 2, 3, 1, 3, 1, 1]
    assert [hep.decode(data).seconds for data, _ in found] == [1, 5, 6, 2, 7, 3, 4]
    assert (len(turns), turns.lengths(), turns.take(10)) == (0, {}, [])


def test_the_newest_of_the_longest_queue_is_refused(turns_of):
    turns = turns_of(["a=>id=1", "b=>id=2"], room=10)
    turns.put([(frame(1, seconds=second), HERE) for second in range(1, 11)])
    turns.put([(frame(2), HERE)] * 3)
    assert turns.lengths() == {"a": 7, "b": 3}
    left = [hep.decode(data) for data, _ in turns.take(20)]
    assert [each.seconds for each in left if each.capture_id == 1] == [1, 2, 3, 4, 5, 6, 7]
    assert turns.agents.counts == {"a": {"crowded": 3}, "b": {}}
    assert turns.engine.refused == turns.engine.not_stored == {"crowded": 3}
    assert turns.engine.received == 3


def test_a_datagram_that_is_larger_than_all_the_room_is_refused(turns_of):
    turns = turns_of(["a=>id=1"], room=2)
    turns.put([(frame(1, payload=OPTIONS_REQUEST + bytes(4 * SIZE)), HERE)])
    assert (len(turns), turns.take(1)) == (0, [])
    turns.put([(frame(1), HERE)])
    assert ids(turns.take(1)) == [1]


@pytest.mark.parametrize(
    ("said", "data", "address", "owner"),
    [
        (["a=>id=1"], frame(1), HERE, "a"),
        (["a=>id=1"], frame(2), HERE, ""),
        (["a=>id=1"], frame(None), HERE, ""),
        (["a=>id=1;network=127.0.0.0/8"], frame(1), HERE, "a"),
        (["a=>id=1;network=127.0.0.0/8"], frame(1), ELSEWHERE, ""),
        (["a=>id=1;network=127.0.0.0/8", "b=>network=192.0.2.0/24"], frame(1), ELSEWHERE, ""),
        (["a=>id=1", "b=>network=192.0.2.0/24"], frame(7), ELSEWHERE, "b"),
        (["a=>id=1", "b=>network=192.0.2.0/24"], OPTIONS_REQUEST, ELSEWHERE, "b"),
        (["a=>id=1"], hep.encode(hep.decode(frame(1)), 2), HERE, "a"),
        (["a=>id=1"], b"HEP3", HERE, ""),
        (["a=>id=1"], b"", HERE, ""),
    ],
)
def test_whose_a_datagram_seems_to_be(said, data, address, owner):
    assert Agents([parse_agent(each) for each in said]).owner(data, address) == owner


def test_a_runaway_agent_pushes_nobody_out(source_for):
    worker, source, client = source_for(NAMED)
    wild = min(10_000, source.receive_buffer // 1000)  # a datagram takes 768 bytes of it, and more
    source.turns.limit = 300 * SIZE
    for _ in range(wild):
        client.send(frame(WILD))
    for _ in range(100):
        client.send(frame(CALM))
    while source.drain():
        assert len(source.turns) <= 300
    source.tick(0.0)
    assert source.kernel_drops == 0
    routed = routed_ids(worker)
    assert routed.count(CALM) == 100
    crowded = worker.agents.counts["wild"]["crowded"]
    assert worker.agents.counts == {
        "wild": {"admitted": routed.count(WILD), "crowded": crowded},
        "calm": {"admitted": 100},
    }
    assert crowded + routed.count(WILD) == wild
    assert wild < 1000 or crowded > wild // 2
    assert metrics.snapshot(worker)["ledger"]["difference"] == 0


def test_agents_that_are_not_named_count_as_one_and_by_their_number(source_for):
    worker, source, client = source_for(NAMED)
    source.turns.limit = 150 * SIZE
    for number in range(READS_A_TURN * DRAIN_LIMIT - 20):
        client.send(frame(1000 + number % 10))
    for _ in range(20):
        client.send(frame(CALM))
    while source.drain():
        pass
    assert worker.agents.counts["calm"] == {"admitted": 20}
    assert worker.engine.refused["crowded"] > 0
    assert worker.agents.unknown.total() == READS_A_TURN * DRAIN_LIMIT - 20
    assert set(worker.agents.unknown) == {str(1000 + number) for number in range(10)}


def test_the_loop_serves_all_that_waits(listener_for):
    listener = listener_for("udp", NAMED + BIG_BUFFER)
    worker = listener.worker

    def send():  # on the loop, so that it reads only when all is there
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", listener.port))
            for _ in range(1000):
                client.send(frame(WILD))
            client.send(frame(CALM))

    listener.call(send)
    listener.wait_for(lambda: worker.engine.received == 1001)
    assert worker.agents.counts == {"wild": {"admitted": 1000}, "calm": {"admitted": 1}}
    assert len(listener.source.turns) == 0
    assert listener.ledger()["difference"] == 0


def test_what_waits_is_shown_and_is_in_the_ledger(source_for):
    worker, source, client = source_for(NAMED)
    for id, times in ((WILD, 200), (CALM, 40), (77, 50)):
        for _ in range(times):
            client.send(frame(id))
    assert source.drain()
    counters = metrics.snapshot(worker)
    (listening,) = counters["sources"]
    assert listening["waiting"] == {"wild": 178, "calm": 19, "(unknown)": 29}
    assert counters["ledger"]["sources"]["out"] == {"received": 64, "waiting": 226}
    assert counters["ledger"]["difference"] == 0
    shown = [line.split() for line in lines(counters)]
    assert ["wild", "178"] in shown
    samples = {(name, *labels.values()): value for name, labels, value, *_ in telemetry.own(worker)}
    assert samples["homerd_listen_waiting", source.name, "calm"] == 19


def test_the_stop_serves_what_waits_and_refuses_nothing(source_for):
    worker, source, client = source_for(NAMED)
    source.turns.limit = 200 * SIZE
    for _ in range(200):
        client.send(frame(WILD))
    assert source.drain()
    assert len(source.turns) > 0
    for _ in range(1000):
        client.send(frame(WILD))
    source.finish()
    assert routed_ids(worker).count(WILD) == 1200
    assert worker.engine.refused == {}


def test_without_agents_nobody_waits(source_for):
    worker, source, client = source_for("")
    for _ in range(DRAIN_LIMIT + 1):
        client.send(frame(WILD))
    assert source.drain()
    assert (source.turns, worker.engine.received) == (None, DRAIN_LIMIT)
    assert "waiting" not in metrics.snapshot(worker)["sources"][0]


def test_what_comes_while_the_loop_keeps_up_does_not_wait(source_for):
    worker, source, client = source_for(NAMED)
    sent = [WILD, WILD, CALM, WILD]
    for id in sent:
        client.send(frame(id))
    assert not source.drain()
    assert routed_ids(worker) == sent
