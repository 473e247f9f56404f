"""PublishSink: reports to collectors of SIP PUBLISH."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections import Counter

import pytest
from servers import free_port
from sip_collectors import collecting, reply_to, sipp_collector

from homerd import testing
from homerd.wire.sip import SipMessage
from homerd.wire.sipstream import SipFramer
from homerd_plugins._publish import Collector, Publication, PublishSink

BODY = b"VQSessionReport: CallTerm\r\nCallID:call-1\r\n"
QUICK = 0.01  # T1, so that timer F is 0.64 s


def report(number: int = 1, body: bytes = BODY) -> Publication:
    return Publication(f"{number:032x}", f"call-{number}", body)


def sink_to(port: int, transport: str = "udp", **options) -> PublishSink:
    target = Collector.read(f"sip:reports@127.0.0.1:{port};transport={transport}")
    return PublishSink(target, "sip:homerd@192.0.2.1", **options)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_sipp_takes_reports_over(tmp_path, transport):
    with sipp_collector(tmp_path, transport) as sipp:
        with testing.SinkRun(sink_to(sipp.port, transport)) as run:
            run.feed(*(report(number) for number in range(50)))
            assert run.flush()
            counts, answers = run.counts, dict(run.sink.answers)
        bodies = sipp.bodies(50)
    assert (counts["written"], counts["rejected"], answers) == (50, 0, {200: 50})
    assert [body.strip().splitlines() for body in bodies] == [BODY.strip().splitlines()] * 50


def test_a_request_has_what_the_rfcs_ask_for():
    with collecting() as collector, testing.SinkRun(sink_to(collector.port)) as run:
        run.feed(report(7))
        assert run.flush()
    (request,) = collector.requests
    id = f"{7:032x}"
    uri = f"sip:reports@127.0.0.1:{collector.port};transport=udp"
    via = request.via(1) or request.via(0)
    assert (request.method, request.ruri, request.call_id) == ("PUBLISH", uri, id)
    assert (request.from_body, request.to_body) == (
        f"<sip:homerd@192.0.2.1>;tag={id[:16]}",
        f"<{uri}>",
    )
    assert (via.transport, via.host, via.parameter("rport")) == ("UDP", "127.0.0.1", "")
    assert via.parameter("branch").startswith("z9hG4bK")
    assert [request.header(name) for name in ("CSeq", "Event", "Content-Type", "Max-Forwards")] == [
        "1 PUBLISH", "vq-rtcpxr", "application/vq-rtcpxr", "70",
    ]  # fmt: skip
    assert (request.content_length, request.body.encode()) == (len(BODY), BODY)


def test_a_request_without_an_answer_is_repeated_as_it_was():
    with (
        collecting(lambda request, number: 200 if number == 3 else 0) as collector,
        testing.SinkRun(sink_to(collector.port, t1=QUICK)) as run,
    ):
        run.feed(report())
        assert run.flush()
        assert (run.counts["written"], run.retries) == (1, 0)
        assert run.sink.sent_again >= 3
    assert len({request.raw for request in collector.requests}) == 1


def test_a_provisional_answer_is_not_the_last():
    with (
        collecting(lambda request, number: 200 if number else 100) as collector,
        testing.SinkRun(sink_to(collector.port, t1=QUICK)) as run,
    ):
        run.feed(report())
        assert run.flush()
        assert (run.counts["written"], dict(run.sink.answers)) == (1, {200: 1})


@pytest.mark.parametrize("status", [408, 480, 503, 504])
def test_an_answer_that_may_change_leaves_the_report_for_later(status):
    with (
        collecting(lambda request, number: 200 if number else status) as collector,
        testing.SinkRun(sink_to(collector.port)) as run,
    ):
        run.feed(report())
        assert run.flush()
        assert (run.counts["written"], run.retries) == (1, 1)
        assert dict(run.sink.answers) == {status: 1, 200: 1}
    first, second = collector.requests
    assert first.call_id == second.call_id
    assert first.via_branch != second.via_branch


@pytest.mark.parametrize("status", [301, 401, 403, 407, 415, 489, 500, 603])
def test_another_answer_refuses_the_report_alone(tmp_path, status):
    def answer(request: SipMessage, number: int) -> int:
        return status if request.call_id == report(2).id else 200

    with (
        collecting(answer) as collector,
        testing.SinkRun(sink_to(collector.port), tmp_path) as run,
    ):
        run.feed(report(1), report(2), report(3))
        assert run.flush()
        assert (run.counts["written"], run.counts["rejected"]) == (2, 1)
        assert dict(run.sink.answers) == {200: 2, status: 1}
        (refused,) = run.quarantined
    assert len(collector.requests) == 3
    assert f"{status} Told" in str(refused)
    assert "call-2" in str(refused)


def test_a_collector_that_was_away_gets_the_report_later():
    port = free_port()
    with testing.SinkRun(sink_to(port, t1=QUICK)) as run:
        run.feed(report(1), report(2))
        run.sink.hand_over()
        testing.wait_until(lambda: run.retries >= 2)
        assert run.counts["written"] == 0
        with collecting(port=port) as collector:
            assert run.flush()
        counts = run.counts
    assert (counts["added"], counts["written"], counts["dropped"]) == (2, 2, 0)
    assert {request.call_id for request in collector.requests} == {report(1).id, report(2).id}


def test_a_collector_that_does_not_answer_is_asked_again_later():
    asked = threading.Event()
    with (
        collecting(lambda request, number: 200 if asked.is_set() else 0) as collector,
        testing.SinkRun(sink_to(collector.port, t1=0.002)) as run,
    ):
        run.feed(report())
        run.sink.hand_over()
        testing.wait_until(lambda: run.retries)
        asked.set()
        assert run.flush()
        assert run.counts["written"] == 1
    assert {request.call_id for request in collector.requests} == {report().id}


def test_what_was_answered_is_not_sent_again_for_what_was_not():
    silent = threading.Event()
    silent.set()

    def answer(request: SipMessage, number: int) -> int:
        return 0 if silent.is_set() and request.call_id == report(2).id else 200

    with (
        collecting(answer) as collector,
        testing.SinkRun(sink_to(collector.port, t1=0.002)) as run,
    ):
        run.feed(report(1), report(2))
        run.sink.hand_over()
        testing.wait_until(lambda: run.retries)
        silent.clear()
        assert run.flush()
        assert run.counts["written"] == 2
    asked = {each.via_branch for each in collector.requests if each.call_id == report(1).id}
    assert len(asked) == 1


def test_a_report_that_alone_is_never_answered_does_not_keep_the_others(tmp_path):
    def answer(request: SipMessage, number: int) -> int:
        return 0 if request.call_id == report(0).id else 200

    with (
        collecting(answer) as collector,
        testing.SinkRun(sink_to(collector.port, t1=0.005), tmp_path) as run,
    ):
        run.feed(*(report(number) for number in range(40)))
        assert run.flush()
        assert (run.counts["written"], run.counts["rejected"]) == (39, 1)
        (refused,) = run.quarantined
    assert "no answer to 3 tries, while others had one" in str(refused)
    assert "OPTIONS" in {request.method for request in collector.requests}


def test_a_report_that_alone_is_put_off_does_not_keep_the_others(tmp_path):
    def answer(request: SipMessage, number: int) -> int:
        return 503 if request.call_id == report(0).id else 200

    with (
        collecting(answer) as collector,
        testing.SinkRun(sink_to(collector.port), tmp_path) as run,
    ):
        run.feed(*(report(number) for number in range(40)))
        assert run.flush()
        assert (run.counts["written"], run.counts["rejected"]) == (39, 1)
        (refused,) = run.quarantined
    assert "put off 10 times: 503 Told" in str(refused)
    asked = Counter(request.call_id for request in collector.requests)
    assert asked.pop(report(0).id) == 10
    assert set(asked.values()) == {1}


def test_a_collector_that_puts_all_off_gets_them_later(tmp_path):
    rounds = 20 * 32 + 5  # it is back in the midst of one
    with (
        collecting(lambda request, number: 200 if number > rounds else 503) as collector,
        testing.SinkRun(sink_to(collector.port), tmp_path) as run,
    ):
        run.feed(*(report(number) for number in range(40)))
        assert run.flush()
        assert (run.counts["written"], run.counts["rejected"]) == (40, 0)


def test_a_stop_leaves_what_has_no_answer_to_the_next_run(tmp_path):
    with collecting(lambda request, number: 0) as collector:
        run = testing.SinkRun(sink_to(collector.port), tmp_path)
        run.feed(report())
        run.sink.hand_over()
        testing.wait_until(lambda: collector.requests)
        run.stop()
        assert (run.counts["dropped"], run.counts["spooled"]) == (0, 1)
    with (
        collecting(port=collector.port) as collector,
        testing.SinkRun(sink_to(collector.port), tmp_path) as run,
    ):
        testing.wait_until(lambda: run.counts["written"] == 1)
        assert run.counts["recovered"] == 1
    assert collector.requests[0].body.encode() == BODY


def test_a_thousand_open_files_are_no_hindrance():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, most[1]), most[1]))
    try:
        with contextlib.ExitStack() as stack, collecting() as collector:
            for _ in range(1024):
                stack.enter_context(open(os.devnull))
            with testing.SinkRun(sink_to(collector.port)) as run:
                run.feed(report())
                assert run.flush()
                assert (run.counts["written"], run.counts["rejected"]) == (1, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_what_no_datagram_holds_is_refused():
    with collecting() as collector, testing.SinkRun(sink_to(collector.port)) as run:
        run.feed(report(1, b"x" * 70_000), report(2))
        assert run.flush()
        assert (run.counts["written"], run.counts["rejected"]) == (1, 1)


def test_a_connection_that_breaks_is_opened_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            listener.accept()[0].close()
            opened, _ = listener.accept()
            framer = SipFramer()
            with opened:
                answered = 0
                while answered < 2 and (data := opened.recv(65535)):
                    for message in framer.feed(data):
                        opened.sendall(reply_to(SipMessage(message), 200))
                        answered += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with testing.SinkRun(sink_to(port, "tcp")) as run:
            run.feed(report(1), report(2))
            assert run.flush()
            assert run.counts["written"] == 2
        thread.join(20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("collector", "expected sip:HOST:PORT"),
        ("sips:host", "expected sip:HOST:PORT"),
        ("sip:", "expected sip:HOST:PORT"),
        ("sip:host;transport=tls", 'unknown transport "tls", expected udp, tcp'),
        ("sip:host;maddr=1", 'unknown parameter "maddr"'),
        ("sip:host:70000", "a port from 1 to 65535"),
        ("sip:user:secret@host", "PUBLISH is not authenticated"),
    ],
)
def test_another_target_is_told_what_is_wrong(text, said):
    with pytest.raises(ValueError, match=said) as raised:
        Collector.read(text)
    assert "secret" not in str(raised.value)


def test_ipv6_stands_in_brackets():
    target = Collector.read("sip:[2001:db8::1]")
    assert (target.host, str(target)) == ("2001:db8::1", "sip:[2001:db8::1]:5060;transport=udp")
