"""Module hep: packets passed on, over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading

import pytest

from homerd.core.inputs import item_of
from homerd.errors import ConfigError, Rejected, RetryLater, ScriptErrors
from homerd.wire import hep, hep_batch
from homerd.wire.hep import Frame, Framer
from homerd_plugins import _hep_out
from homerd_plugins._hep_out import HepSink
from homerd_plugins._hep_profile import Profile

MODULES = ("pv", "xlog", "hep")
ALICE, BOB = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
OPTIONS = b"OPTIONS sip:b@h SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n\r\n"


def packet(payload=OPTIONS, **more):
    """A frame as an agent sends it."""
    fields = {"payload_type": 1, "capture_id": 7, "correlation_id": "c1", "auth_key": "k", **more}
    return Frame(3, 2, 17, ALICE, BOB, 5060, 5061, 1700000000, 5, payload=payload, **fields)


def received(frame, version=3):
    return hep.decode(hep.encode(frame, version))


@contextlib.contextmanager
def udp_receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


class TcpReceiver:
    """Takes connections one after another; acknowledges when told to, hangs up after `breaks`.

    resets: it answers a hello with a reset, as a receiver does that closes with bytes unread.
    """

    def __init__(self, acknowledges=False, context=None, breaks=(), resets=False):
        self.acknowledges = acknowledges
        self.context = context
        self.breaks = list(breaks)
        self.resets = resets
        self.frames = []
        self.batches = []
        self.hellos = 0
        self.got = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                opened, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), opened:
                if self.context:
                    opened = self.context.wrap_socket(opened, server_side=True)
                self._read(opened)

    def _read(self, opened):
        framer = Framer()
        while data := opened.recv(65536):
            for frame in framer.feed(data):
                kind, body = hep_batch.read(frame)
                with self.got:
                    self.hellos += kind == hep_batch.HELLO
                    if not kind:
                        self.frames.append(frame)
                    if kind == hep_batch.END:
                        self.batches.append(hep_batch.read_end(body))
                    self.got.notify_all()
                if self.resets and kind == hep_batch.HELLO:
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if self.acknowledges and kind == hep_batch.HELLO:
                    opened.sendall(hep_batch.message(hep_batch.WELCOME))
                if kind == hep_batch.END:
                    if self.breaks and self.breaks.pop(0):
                        return
                    opened.sendall(hep_batch.message(hep_batch.TAKEN, body[4:]))

    def wait(self, frames):
        with self.got:
            assert self.got.wait_for(lambda: len(self.frames) >= frames, 5)
        return self.frames

    def close(self):
        self.listener.close()


@pytest.fixture
def receiver():
    made = []

    def make(**more):
        made.append(TcpReceiver(**more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def sink():
    """A sink for a profile's text, opened."""
    made = []

    def make(text):
        made.append(HepSink(Profile.from_script("p=>" + text)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def records(count):
    return [(hep.encode(packet(correlation_id=f"c{n}")), f"c{n}") for n in range(count)]


def sent(script, text, frame):
    runner = script(text, MODULES)
    runner.effects += runner.run.feed(frame).records
    return [data for data, _ in runner.effects]


# What leaves


@pytest.mark.parametrize(
    ("attributes", "changed"),
    [
        ("", {}),
        (";capture_id=2001", {"capture_id": 2001}),
        (";key=secret", {"auth_key": "secret"}),
        (";node=east", {"extra": {"node_name": "east"}}),
    ],
)
def test_a_packet_leaves_as_it_came_but_for_what_the_profile_says(script, attributes, changed):
    text = (
        f'modparam("hep", "profile", "a=>target=udp:127.0.0.1:9{attributes}")\n'
        'request_route { send_hep("a"); }'
    )
    changed = dict(changed)
    came = received(packet(extra={"vendor_chunks": [(4, 1, b"x")]} | changed.pop("extra", {})))
    (data,) = sent(script, text, received(packet(extra={"vendor_chunks": [(4, 1, b"x")]})))
    expected = hep.to_dict(came) | changed
    assert hep.to_dict(hep.decode(data)) == expected
    if not attributes:
        assert data == came.raw


def test_odd_frames_leave_byte_for_byte_and_without_what_trails_them(script):
    chunks = [(0, 15, OPTIONS), (0, 1, b"\x02"), (0, 11, b"\x01"), (9, 77, b"?"), (0, 3, ALICE)]
    odd = hep.assemble(chunks)
    text = (
        'modparam("hep", "profile", "a=>target=tcp:127.0.0.1:9")\nrequest_route { send_hep("a"); }'
    )
    assert sent(script, text, hep.decode(odd + b"trailing")) == [odd]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_version_is_written_from_each(script, version):
    text = (
        f'modparam("hep", "profile", "a=>target=udp:127.0.0.1:9;version={version}")\n'
        'request_route { send_hep("a"); }'
    )
    for came in (1, 2, 3):
        (data,) = sent(script, text, received(packet(), came))
        frame = hep.decode(data)
        assert frame.version == version
        assert (frame.src, frame.src_port, frame.payload) == (ALICE, 5060, OPTIONS)
        if came > 1 and version > 1:
            assert (frame.seconds, frame.micros, frame.capture_id) == (1700000000, 5, 7)


def test_a_compressed_payload_is_read_as_it_was(script):
    text = (
        'modparam("hep", "profile", "a=>target=udp:127.0.0.1:9;compress=yes")\n'
        'request_route { send_hep("a"); }'
    )
    long = OPTIONS[:-2] + b"X: " + b"y" * 5000 + b"\r\n\r\n"
    (data,) = sent(script, text, received(packet(long)))
    assert len(data) < 500
    frame = hep.decode(data)
    assert (frame.payload, frame.compressed) == (long, "zlib")


def test_another_type_and_what_does_not_fit(script):
    text = (
        'modparam("hep", "profile", "a=>target=udp:127.0.0.1:9;capture_id=1")\n'
        'request_route { send_hep_proto("a", "99"); if (!send_hep("a")) { xlog("no"); } }'
    )
    runner = script(text, MODULES)
    runner.effects += runner.run.feed(received(packet())).records
    assert [hep.decode(data).payload_type for data, _ in runner.effects] == [99, 1]
    large = packet(OPTIONS + b"x" * 65536)
    assert runner.run.feed(large).lines == ["no"]
    samples = {
        (s.name, *s.labels.values()): s.value
        for s in runner.program.registry.plugin("hep").metrics()
    }
    assert samples["homerd_hep_not_sent_total", "too_large"] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a", "expected NAME=>target="),
        ("a=>version=3", "target=udp:HOST:PORT is missing"),
        ("a=>target=udp:h:0", "port from 1 to 65535"),
        ("a=>target=sctp:h:1", 'unknown transport "sctp", expected udp, tcp, tls'),
        ("a=>target=tcp:h;version=2", "cannot be sent over a stream"),
        ("a=>target=h;version=4", "expected a number from 1 to 3"),
        ("a=>target=h;acknowledge=yes", "nothing is acknowledged over udp:"),
        ("a=>target=h;colour=red", 'unknown attribute "colour"'),
        ("a=>target=h;version=1;compress=yes", "no compressed payload"),
        ("a=>target=h;format=json;key=k", "format=json knows no key"),
        ("a=>target=tcp:h;format=json;acknowledge=yes", "format=json knows no acknowledge"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        Profile.from_script(text)


def test_addresses_are_read_with_and_without_scheme_and_port():
    profile = Profile.from_script("a=>target=h, tcp:[::1]:7 ,tls:x")
    assert [str(each) for each in profile.targets] == ["udp:h:9060", "tcp:[::1]:7", "tls:x:9061"]


def test_a_key_is_never_shown():
    assert "hidden" not in repr(Profile.from_script("a=>target=h;key=hidden"))


def test_a_line_of_json_is_read_again_by_send(script):
    text = (
        'modparam("hep", "profile", "a=>target=udp:127.0.0.1:9;format=json;node=east")\n'
        'request_route { send_json("a"); }'
    )
    (line,) = sent(script, text, received(packet(OPTIONS + b"\xff")))
    again = item_of({"hep": json.loads(line)}, "line")
    told = hep.to_dict(again)
    came = hep.to_dict(packet(OPTIONS + b"\xff", auth_key=None)) | {"node_name": "east"}
    assert told == came
    assert b'"k"' not in line


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ('send_hep("b")', 'no profile "b"; there is a, j'),
        ('send_hep("j")', '"j" is one of send_json'),
        ('send_json("a")', '"a" needs format=json'),
        ('send_hep_proto("a", "300")', "expected a payload type from 0 to 255"),
    ],
)
def test_a_word_that_names_no_way_out_is_a_mistake(script, call, told):
    profiles = (
        'modparam("hep", "profile", "a=>target=tcp:127.0.0.1:9")\n'
        'modparam("hep", "profile", "j=>target=udp:127.0.0.1:9;format=json")\n'
    )
    with pytest.raises(ScriptErrors) as caught:
        script(profiles + f"request_route {{ {call}; }}", MODULES)
    assert any(told in each.message for each in caught.value.diagnostics)


# Over UDP


def test_datagrams_arrive(sink):
    with udp_receiver() as opened:
        made = sink(f"target=udp:127.0.0.1:{opened.getsockname()[1]}")
        made.connect()
        made.write(records(3))
        assert [hep.decode(opened.recv(65535)).correlation_id for _ in range(3)] == [
            "c0", "c1", "c2"
        ]  # fmt: skip


def test_a_closed_port_is_counted_and_its_datagrams_are_sent_when_it_is_open(sink):
    with udp_receiver() as opened:
        address = opened.getsockname()
    made = sink(f"target=udp:127.0.0.1:{address[1]}")
    made.batch_id = "b-1"
    made.connect()
    with pytest.raises(RetryLater, match="nobody listens on the port"):
        made.write(records(3))
    assert made.refused == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)
        again.settimeout(5)
        made.connect()
        made.write(records(3))
        assert [hep.decode(again.recv(65535)).correlation_id for _ in range(3)] == [
            "c0", "c1", "c2"
        ]  # fmt: skip


def test_what_no_datagram_holds_is_refused_by_itself(sink):
    with udp_receiver() as opened:
        made = sink(f"target=udp:127.0.0.1:{opened.getsockname()[1]}")
        made.connect()
        with pytest.raises(Rejected, match="larger than a datagram") as caught:
            made.write([*records(1), (b"x" * 65508, "")])
        assert caught.value.indices == [1]


# Over TCP


def test_frames_arrive_over_tcp_at_who_acknowledges_nothing(sink, receiver):
    plain = receiver()
    made = sink(f"target=tcp:127.0.0.1:{plain.port};acknowledge=no")
    made.connect()
    made.write(records(1000))
    assert plain.wait(1000) == [data for data, _ in records(1000)]
    assert plain.hellos == 0


def test_an_acknowledging_receiver_is_told_the_batch(sink, receiver):
    ours = receiver(acknowledges=True)
    made = sink(f"target=tcp:127.0.0.1:{ours.port}")
    made.batch_id = "b-1"
    made.connect()
    made.write(records(10))
    assert ours.batches == [(10, "b-1")]
    assert made.acknowledged == 10


def test_a_batch_that_was_not_acknowledged_comes_again_under_its_id(sink, receiver):
    ours = receiver(acknowledges=True, breaks=[True])
    made = sink(f"target=tcp:127.0.0.1:{ours.port}")
    made.batch_id = "b-1"
    made.connect()
    with pytest.raises(RetryLater, match="closed the connection"):
        made.write(records(10))
    made.close()
    made.connect()
    made.write(records(10))
    assert ours.batches == [(10, "b-1"), (10, "b-1")]


def test_who_must_acknowledge_and_does_not_is_away(sink, receiver):
    plain = receiver()
    made = sink(f"target=tcp:127.0.0.1:{plain.port};acknowledge=yes;timeout=0.2")
    with pytest.raises(RetryLater, match="does not acknowledge batches"):
        made.connect()


def test_who_breaks_off_at_a_hello_is_sent_plain_frames(sink, receiver):
    plain = receiver(resets=True)
    made = sink(f"target=tcp:127.0.0.1:{plain.port}")
    made.connect()
    made.write(records(3))
    assert plain.wait(3) == [data for data, _ in records(3)]


def test_the_next_target_takes_over(sink, receiver):
    second = receiver()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    made = sink(f"target=tcp:127.0.0.1:{port},tcp:127.0.0.1:{second.port};acknowledge=no")
    made.connect()
    made.write(records(5))
    assert len(second.wait(5)) == 5
    assert made.failovers == 1


def test_a_target_that_drops_everything_is_seldom_tried(sink, receiver, monkeypatch, caplog):
    monkeypatch.setattr(_hep_out, "AWAY_SECONDS", 0.0)
    caplog.set_level("INFO", "homerd.hep")
    second = receiver()
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # what is beyond the backlog gets no answer
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        ports = f"tcp:127.0.0.1:{full.getsockname()[1]},tcp:127.0.0.1:{second.port}"
        made = sink(f"target={ports};acknowledge=no;timeout=0.3")
        made.connect()
        for _ in range(3):
            made.write(records(5))
        assert len(second.wait(15)) == 15
    assert caplog.text.count("target is away") == 1


def test_calls_are_shared_out_and_keep_together(sink, receiver):
    both = [receiver(acknowledges=True), receiver(acknowledges=True)]
    targets = ",".join(f"tcp:127.0.0.1:{each.port}" for each in both)
    made = sink(f"target={targets};balance=callid")
    made.batch_id = "b-1"
    made.connect()
    made.write(records(50) + records(50))
    calls = [{hep.decode(frame).correlation_id for frame in each.frames} for each in both]
    assert all(calls)
    assert not calls[0] & calls[1]
    assert sorted(len(each.frames) for each in both) == sorted(2 * len(each) for each in calls)
    assert {id for each in both for _, id in each.batches} == {"b-1/0", "b-1/1"}


# Over TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls_receiver(receiver, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return receiver(acknowledges=True, context=context)


def test_frames_arrive_over_tls(sink, tls_receiver, certificate):
    made = sink(
        f"target=tls:127.0.0.1:{tls_receiver.port};tls_ca={certificate}/cert.pem;tls_name=localhost"
    )
    made.batch_id = "b-1"
    made.connect()
    made.write(records(100))
    assert tls_receiver.batches == [(100, "b-1")]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", "certificate is not accepted: self-signed certificate; tls_ca=FILE"),
        (";tls_ca=CA", "certificate is not accepted: IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_trusted_says_so(sink, tls_receiver, certificate, more, told):
    more = more.replace("CA", f"{certificate}/cert.pem")
    made = sink(f"target=tls:127.0.0.1:{tls_receiver.port}{more}")
    with pytest.raises(RetryLater, match=told):
        made.connect()


def test_certificates_that_cannot_be_read_stop_the_start(sink):
    with pytest.raises(ConfigError, match="tls_ca=/nowhere: No such file"):
        sink("target=tls:127.0.0.1:1;tls_ca=/nowhere").connect()
