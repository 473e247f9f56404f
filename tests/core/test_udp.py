import socket

import pytest

from homerd.core.settings import parse_listen
from homerd.core.udp import DRAIN_LIMIT
from homerd.errors import ConfigError

OPTIONS = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
)
KEEP = 'request_route { keep("$rm $si:$sp $Ri:$Rp $proto"); }'


def opened(worker, text):
    worker.open(parse_listen(text))
    return worker.sources[0]


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("udp:127.0.0.1:{}", "127.0.0.1"),
        ("udp:*:{}", "127.0.0.1"),
        ("udp:[::1]:{}", "::1"),
        ("udp:[::]:{}", "::1"),
        ("udp:lo:{}", "127.0.0.1"),
    ],
)
def test_a_datagram_brings_both_addresses(worker_for, free_port, listen, target):
    worker = worker_for(KEEP)
    source = opened(worker, listen.format(free_port))
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((target, free_port))
        sender.send(OPTIONS)
        port = sender.getsockname()[1]
    assert not source.drain()
    assert worker.flush(10)
    shown = f"[{target}]" if ":" in target else target
    text = f"OPTIONS {target}:{port} {target}:{free_port} udp"
    assert worker.probe.sink.rows[0].replace(shown, target).startswith(text)


def test_both_families_can_have_one_port(worker_for, free_port):
    worker = worker_for(KEEP)
    worker.open(parse_listen(f"udp:0.0.0.0:{free_port} udp:[::]:{free_port}"))
    assert [source.name for source in worker.sources] == [
        f"udp:0.0.0.0:{free_port}",
        f"udp:[::]:{free_port}",
    ]


def test_one_call_takes_a_bounded_number(worker_for, free_port):
    worker = worker_for(KEEP)
    source = opened(worker, f"udp:127.0.0.1:{free_port}")
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(DRAIN_LIMIT + 1):
            sender.sendto(OPTIONS, ("127.0.0.1", free_port))
    assert source.drain()
    assert worker.engine.received == DRAIN_LIMIT
    assert not source.drain()
    assert worker.engine.received == DRAIN_LIMIT + 1


def test_finish_takes_what_has_arrived_and_nothing_after(worker_for, free_port):
    worker = worker_for(KEEP)
    source = opened(worker, f"udp:0.0.0.0:{free_port}")
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", free_port))
        for _ in range(200):
            sender.send(OPTIONS)
        source.finish()
        assert worker.engine.received == 200
        sender.send(OPTIONS)
        with pytest.raises(ConnectionRefusedError):
            sender.send(OPTIONS)


def test_what_the_kernel_drops_is_counted(worker_for, free_port):
    worker = worker_for(f"receive_buffer=4096\nlisten=udp:127.0.0.1:{free_port}\n{KEEP}")
    source = opened(worker, f"udp:127.0.0.1:{free_port}")
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(OPTIONS, ("127.0.0.1", free_port))
    while source.drain():
        pass
    source.tick(0.0)
    source.tick(1.0)
    assert worker.engine.received < 100
    assert source.kernel_drops == 100 - worker.engine.received


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("udp:192.0.2.1:9060", "no interface of this machine has the address"),
        ("tcp:192.0.2.1:9060", "no interface of this machine has the address"),
        ("udp:no-such-host.invalid:9060", "no address, host or interface"),
    ],
)
def test_an_address_that_cannot_be_is_one_clear_line(worker_for, listen, message):
    worker = worker_for(KEEP)
    with pytest.raises(ConfigError, match=message):
        worker.open(parse_listen(listen))
