"""Live capture: real interfaces in a network namespace, frames sent from the far end of a cable."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import time

import pytest
from interfaces import FAR, NEAR, cable, ethernet, ip_command, namespace, packet, udp, wait_for

from homerd.core import metrics
from homerd.errors import ConfigError
from homerd.wire import hep

__all__ = ["cable", "namespace"]

KEEP = 'request_route { keep("$rm $si:$sp $Ri:$Rp $proto"); }'
A, B = "192.0.2.1", "192.0.2.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
KEPT = "OPTIONS 192.0.2.1:5060 192.0.2.2:5080 udp"


def sip(method="OPTIONS", call="1"):
    return (
        f"{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1\r\nFrom: <sip:a@b>;tag=1\r\n"
        f"To: <sip:b@b>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    ).encode()


@pytest.fixture
def capture(worker_for):
    """A worker that captures as the settings say; gives its sources, the worker as their part."""

    def make(settings, script=KEEP):
        worker = worker_for(settings + "\n" + script)
        worker.open([])
        return worker, worker.sources

    return make


def kept(worker):
    assert worker.flush(10)
    return worker.probe.sink.rows


TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
VLAN, QINQ = 0x8100, 0x88A8


@pytest.mark.parametrize(
    ("frame", "row"),
    [
        (ethernet(udp(sip(), A, B)), KEPT),
        (ethernet(udp(sip(), A, B), ((VLAN, 7),)), KEPT),
        (ethernet(udp(sip(), A, B), ((QINQ, 5), (VLAN, 7))), KEPT),
        (ethernet(udp(sip(), A6, B6)), "OPTIONS 2001:db8::1:5060 2001:db8::2:5080 udp"),
        (ethernet(packet(udp(sip(), A, B), "10.0.0.1", "10.0.0.2", 4)), KEPT),
        (ethernet(packet(udp(sip(), A, B), A6, B6, 4)), KEPT),
        (ethernet(b"".join((udp(sip(), A, B), b"\0" * 6))), KEPT),
    ],
    ids=["ipv4", "vlan", "qinq", "ipv6", "4in4", "4in6", "padding"],
)
def test_what_an_interface_sees_reaches_the_script(capture, cable, frame, row):
    worker, (source,) = capture(f"listen=raw:{NEAR}")
    cable.send(frame)
    wait_for(source, 1)
    assert [text.replace("[", "").replace("]", "") for text in kept(worker)] == [row]
    assert (source.name, source.gave, source.received) == (f"raw:{NEAR}", 1, 1)


def test_packets_have_the_kernels_time_the_vlan_and_the_capture_id(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}\nraw_capture_id=2001")
    seen = []
    worker.engine.__dict__["take"] = seen.extend
    before = time.time_ns() // 1000
    cable.send(ethernet(udp(sip(), A, B), ((VLAN, 7),)))
    wait_for(source, 1)
    (frame,) = seen
    assert before <= frame.seconds * 1_000_000 + frame.micros <= time.time_ns() // 1000
    assert (frame.capture_id, frame.extra["vlan"]) == (2001, 7)


def test_a_message_in_two_tcp_segments_is_one_packet(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}")
    data = sip()
    for at, part in ((0, data[:50]), (50, data[50:])):
        head = struct.pack(">HHIIBBHHH", 5060, 5080, 1000 + at, 1, 5 << 4, 0x18, 1000, 0, 0)
        cable.send(ethernet(packet(head + part, A, B, 6)))
    wait_for(source, 2)
    assert kept(worker) == [KEPT.replace("udp", "tcp")]
    assert (source.gave, source.undecoded.total()) == (1, 1)


def test_all_interfaces_and_the_loopback_once(capture, cable):
    worker, (source,) = capture("listen=raw:any")
    cable.send(ethernet(udp(sip(), A, B)))
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as to,
    ):
        to.bind(("127.0.0.1", 0))
        sender.sendto(sip(), to.getsockname())
    # far0 shows what it sent, near0 the same as it came; the loopback only what comes in
    wait_for(source, 3)
    assert sorted(row.split()[1].split(":")[0] for row in kept(worker)) == ["127.0.0.1", A, A]


def test_the_loopback_shows_a_packet_once(capture, namespace):
    _, (source,) = capture("listen=raw:lo")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as to,
    ):
        to.bind(("127.0.0.1", 0))
        for _ in range(3):
            sender.sendto(sip(), to.getsockname())
    wait_for(source, 3)
    assert source.received == 3


def test_an_interface_without_ethernet_frames(capture, namespace):
    with open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun9", IFF_TUN | IFF_NO_PI))
        ip_command("link", "set", "tun9", "addrgenmode", "none")
        ip_command("link", "set", "tun9", "up")
        worker, (source,) = capture('listen=raw:tun9\nraw_filter="udp dst port 5080"')
        device.write(udp(sip(), A, B, dport=5081))
        device.write(udp(sip(), A, B))
        wait_for(source, 1)
    assert kept(worker) == [KEPT]


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ('raw_filter="udp port 5080"', [5080]),
        (f'raw_filter="{NEAR}=>udp port 5082"', [5082]),
        (f'raw_filter="udp port 5080"\nraw_filter="{NEAR} => udp port 5082"', [5082]),
        ('raw_filter="vlan 9"', [5084]),
        ('raw_filter=""', [5080, 5082, 5084]),
    ],
)
def test_the_kernel_leaves_out_what_no_filter_wants(capture, cable, settings, ports):
    worker, (source,) = capture(f"listen=raw:{NEAR}\n{settings}", 'request_route { keep("$Rp"); }')
    cable.send(
        ethernet(udp(sip(), A, B, dport=5080)),
        ethernet(udp(sip(), A, B, dport=5082)),
        ethernet(udp(sip(), A, B, dport=5084), ((VLAN, 9),)),
    )
    wait_for(source, len(ports))
    assert kept(worker) == [str(port) for port in ports]


def promiscuity(name):
    told = subprocess.run(["ip", "-d", "link", "show", name], capture_output=True, text=True)
    return int(told.stdout.partition("promiscuity ")[2].split()[0])


@pytest.mark.parametrize(("setting", "count"), [("raw_promiscuous=yes", 1), ("", 0)])
def test_promiscuous_mode_lasts_as_long_as_the_capture(capture, cable, setting, count):
    worker, _ = capture(f"listen=raw:{NEAR}\n{setting}")
    assert promiscuity(NEAR) == count
    worker.close()
    assert promiscuity(NEAR) == 0


def test_what_is_nothing_for_us_is_counted_and_the_ledger_balances(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}")
    cable.send(
        ethernet(udp(sip(), A, B)),
        ethernet(udp(b"\x80\0junk", A, B)),
        b"\xff" * 12 + b"\x08\x06" + b"\0" * 28,
        ethernet(b"\x45\0\0\x14"),
    )
    wait_for(source, 4)
    counters = metrics.snapshot(worker)
    (told,) = counters["sources"]
    assert (told["captured"], told["gave_packets"], sum(told["undecoded"].values())) == (4, 1, 3)
    assert counters["ledger"]["captured"]["difference"] == counters["ledger"]["difference"] == 0
    assert counters["ledger"]["captured"]["in"] == {f"raw:{NEAR}": 4}


def test_captured_hep_is_not_opened(capture, cable):
    _, (source,) = capture(f"listen=raw:{NEAR}")
    frame = hep.Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1, 1, 1, 7, payload=sip())
    cable.send(ethernet(udp(hep.encode(frame, 3), A, B, dport=9060)))
    wait_for(source, 1)
    assert (source.received, dict(source.undecoded)) == (0, {"hep": 1})


def test_what_the_kernel_has_no_room_for_is_counted(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}\nreceive_buffer=4096")
    cable.send(*[ethernet(udp(sip(), A, B))] * 200)
    while source.drain():
        pass
    worker.tick()
    counters = metrics.snapshot(worker)
    assert source.captured + source.kernel_drops == 200
    assert source.kernel_drops == counters["kernel_drops"] > 0
    assert counters["ledger"]["difference"] == 0


def test_finish_takes_what_was_captured_and_nothing_after(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}")
    cable.send(*[ethernet(udp(sip(), A, B))] * 200)
    source.finish()
    cable.send(ethernet(udp(sip(), A, B)))
    assert (source.captured, worker.engine.received) == (200, 200)


def test_an_interface_that_is_made_anew_is_followed(capture, cable):
    worker, (source,) = capture(f"listen=raw:{NEAR}\nraw_promiscuous=yes")
    ip_command("link", "delete", NEAR)
    source.drain()
    worker.tick()
    ip_command("link", "add", NEAR, "type", "veth", "peer", "name", FAR)
    for name in (NEAR, FAR):
        ip_command("link", "set", name, "addrgenmode", "none")
        ip_command("link", "set", name, "up")
    worker.tick()
    cable.socket.bind((FAR, 0))
    cable.send(ethernet(udp(sip(), A, B)))
    wait_for(source, 1)
    assert (source.received, promiscuity(NEAR)) == (1, 1)


@pytest.mark.parametrize(
    ("outer", "inner", "listen", "protocol"),
    [
        ("127.0.0.1", (A, B), "ipip:127.0.0.1", 4),
        ("127.0.0.1", (A6, B6), "ipip:*", 41),
        ("::1", (A, B), "ipip:[::1]", 4),
        ("::1", (A6, B6), "ipip:::1", 41),
    ],
    ids=["4in4", "6in4", "4in6", "6in6"],
)
def test_tunnelled_copies_are_taken(capture, namespace, outer, inner, listen, protocol):
    worker, sources = capture(f"listen={listen}", 'request_route { keep("$sp $Rp $proto"); }')
    family = socket.AF_INET6 if ":" in outer else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.sendto(udp(sip(), *inner), (outer, 0))
    (source,) = [each for each in sources if each.name.endswith(f"/{protocol}")]
    wait_for(source, 1)
    assert kept(worker) == ["5060 5080 udp"]


def test_kamailios_monitoring_mode(capture, cable):
    params = {"raw_moni_capture_on": 1, "raw_socket_listen": '"0.0.0.0:5060-5070"'}
    params |= {"raw_interface": f'"{NEAR}"', "promiscuous_on": 1}
    lines = [f'modparam("sipcapture", "{name}", {value})' for name, value in params.items()]
    script = 'loadmodule "sipcapture"\n' + "\n".join(lines)
    script += '\nrequest_route { keep("$sp $Rp"); }'
    worker, (source,) = capture("listen=udp:127.0.0.1:9060", script)
    assert promiscuity(NEAR) == 1
    for ports in ((5060, 9999), (9999, 5070), (5080, 5081)):
        cable.send(ethernet(udp(sip(), A, B, *ports)))
    wait_for(source, 3)
    assert kept(worker) == ["5060 9999", "9999 5070"]
    assert dict(source.undecoded) == {"port": 1}


def test_kamailios_filter_in_the_kernel(capture, cable):
    lines = 'loadmodule "sipcapture"\n'
    for name, value in (
        ("raw_moni_capture_on", 1),
        ("raw_socket_listen", '"0.0.0.0:5060"'),
        ("raw_moni_bpf_on", 1),
    ):
        lines += f'modparam("sipcapture", "{name}", {value})\n'
    worker, (source,) = capture(lines, 'request_route { keep("$sp $Rp"); }')
    assert source.name == "raw:any"
    cable.send(ethernet(udp(sip(), A, B, 5080, 5081)), ethernet(udp(sip(), A, B, 5060, 5081)))
    wait_for(source, 2)  # at both ends of the cable
    assert kept(worker) == ["5060 5081"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("listen=raw:nosuch0", 'no interface "nosuch0", expected any or one of lo'),
        (
            'listen=raw:lo\nraw_filter="udp port 5060"\nlisten=ipip:192.0.2.99',
            "cannot capture: Cannot assign",
        ),
        ('listen=raw:any\nraw_filter="vlan 7"', "no VLAN support for Raw IP"),
    ],
)
def test_what_cannot_be_captured_is_told(capture, namespace, settings, message):
    with pytest.raises(ConfigError) as told:
        capture(settings)
    assert message in str(told.value)


def test_without_the_right_to_capture_one_line_says_what_to_do(capture, namespace):
    child = os.fork()
    if child == 0:  # it may not come back from being somebody else
        os.setresuid(65534, 65534, 65534)
        try:
            capture(f"listen=raw:{NEAR}")
        except ConfigError as error:
            told = str(error)
            right = "CAP_NET_RAW" in told and f"raw:{NEAR}" in told and "\n" not in told
            os._exit(0 if right else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
