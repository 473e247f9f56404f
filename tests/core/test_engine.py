import gzip
import socket

import pytest

from homerd.core.engine import Peer
from homerd.wire import hep
from homerd.wire.hep import Frame


def sip(method="INVITE"):
    return (
        f"{method} sip:bob@example.com SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
        "From: <sip:alice@example.com>;tag=1\r\n"
        "To: <sip:bob@example.com>\r\n"
        "Call-ID: c1@example.com\r\n"
        f"CSeq: 1 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def frame(payload=None, **fields):
    return Frame(
        3,
        hep.IPV4,
        17,
        socket.inet_aton("192.0.2.1"),
        socket.inet_aton("192.0.2.2"),
        5060,
        5070,
        1500000000,
        42,
        fields.get("payload_type", hep.SIP),
        2001,
        payload=sip() if payload is None else payload,
    )


KEEP = 'request_route { keep("$rm $si $sp"); }'


def balanced(engine):
    parts = (engine.undecoded, engine.refused, engine.handled, engine.routed)
    return engine.received == sum(sum(part.values()) for part in parts)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_hep_version_reaches_the_script(worker_for, version):
    worker = worker_for(KEEP)
    worker.engine.handle([(hep.encode(frame(), version), None)])
    assert worker.flush(10)
    assert worker.probe.sink.rows == ["INVITE 192.0.2.1 5060"]


def test_a_gzip_envelope_is_opened(worker_for):
    worker = worker_for(KEEP)
    worker.engine.handle([(gzip.compress(hep.encode(frame())), None)])
    assert worker.engine.routed == {"request_route": 1}


def test_bare_sip_has_the_addresses_of_the_socket(worker_for):
    class At:
        def peer(self, address):
            assert address == ("192.0.2.9", 5062)
            return Peer(hep.IPV4, 17, bytes([192, 0, 2, 9]), 5062, bytes([192, 0, 2, 8]), 9060)

    worker = worker_for('request_route { keep("$rm $si:$sp $Ri:$Rp $proto"); }')
    worker.engine.handle([(sip("BYE"), ("192.0.2.9", 5062))], At())
    assert worker.flush(10)
    assert worker.probe.sink.rows == ["BYE 192.0.2.9:5062 192.0.2.8:9060 udp"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HEP3\x00", "truncated"),
        (b"HEP3\x00\x05", "bad_total_length"),
        (b"\x80\xc9 rtcp", "not_hep"),
        (b"", "truncated"),
        (b"\x1f\x8b broken", "decompress_failed"),
    ],
)
def test_what_is_no_packet_is_counted_by_its_reason(worker_for, data, reason):
    worker = worker_for(KEEP)
    worker.engine.handle([(data, None)])
    assert worker.engine.undecoded == {reason: 1}
    assert balanced(worker.engine)


def test_a_keep_alive_is_counted_and_no_script_sees_it(worker_for):
    worker = worker_for('request_route { keep("never"); }')
    worker.engine.handle([(hep.encode(frame(b"", payload_type=None)), None)])
    assert worker.engine.handled == {"keep_alive": 1}
    assert worker.engine.effects == {}
    assert balanced(worker.engine)


def test_a_payload_that_is_no_sip_is_refused(worker_for):
    worker = worker_for(KEEP)
    worker.engine.handle([(hep.encode(frame(b"no sip")), None)])
    assert worker.engine.refused == {"not_sip": 1}
    assert worker.engine.not_stored == {"not_sip": 1}
    assert balanced(worker.engine)


def test_packets_without_an_effect_are_counted_by_what_ended_them(worker_for):
    worker = worker_for(
        """request_route {
        if ($rm == "BYE") drop;
        keep("$rm");
        }"""
    )
    worker.engine.handle([(hep.encode(frame(sip("BYE"))), None)])
    worker.engine.handle([(hep.encode(frame(sip("INVITE"))), None)])
    assert worker.engine.not_stored == {"script:homer.cfg:6": 1}
    assert worker.engine.effects == {"kept": 1}
    assert worker.flush(10)
    assert worker.probe.sink.stored == {"INVITE": 1}


def test_a_script_that_fails_is_counted_under_its_line_and_the_next_packet_is_served(
    worker_for, caplog
):
    worker = worker_for(
        """request_route {
        keep("$rm before");
        if ($rm == "BYE") fail();
        keep("$rm after");
        }"""
    )
    for method in ("BYE", "BYE", "BYE", "INVITE"):
        worker.engine.handle([(hep.encode(frame(sip(method))), None)])
    assert worker.engine.route_errors == {"homer.cfg:7": 3}
    assert worker.engine.routed == {"request_route": 4}
    assert worker.flush(10)
    assert worker.probe.sink.rows == ["BYE before"] * 3 + ["INVITE before", "INVITE after"]
    assert [text for text in caplog.messages if "script failed" in text] == [caplog.messages[0]]
    assert "place=homer.cfg:7 route=request_route" in caplog.messages[0]
    assert "RuntimeError: on purpose" in caplog.messages[0]
    assert balanced(worker.engine)


def test_a_failure_that_stores_nothing_is_a_reason_of_its_own(worker_for):
    worker = worker_for("request_route { fail(); }")
    worker.engine.handle([(hep.encode(frame()), None)])
    assert worker.engine.not_stored == {"error:homer.cfg:5": 1}


def test_what_a_script_survives_is_counted_too(worker_for):
    worker = worker_for("request_route { $var(x) = 1 / $var(nothing); drop; }")
    worker.engine.handle([(hep.encode(frame()), None)])
    assert worker.engine.route_errors == {"homer.cfg:5": 1}
    assert worker.engine.last_failure is not None
    assert worker.engine.last_failure.place.line == 5
    assert worker.engine.routed == {"request_route": 1}


def test_without_delivery_the_effects_are_only_looked_at(worker_for):
    worker = worker_for(KEEP, deliver=False)
    packet, end = worker.engine.feed(frame())
    assert packet.effects == [(worker.probe.sink, "INVITE 192.0.2.1 5060")]
    assert end.kind == "end"
    assert worker.probe.sink.added == 0


def test_a_message_too_large_for_a_frame_is_shown_without_one(worker_for):
    engine = worker_for(KEEP).engine
    seen = []
    engine.copy_to(lambda data, peer: seen.append(data))
    large = sip() + bytes(65_500)
    captured = [Frame(0, payload_type=hep.SIP, payload=each) for each in (large, sip())]
    engine.take(captured)
    assert (seen[0], len(seen), engine.received) == (large, 2, 2)
