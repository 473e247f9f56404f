"""qos_report(): calls whose RTCP and measured RTP become reports, and where these go."""

from __future__ import annotations

import json
import socket

import pytest
from sip_collectors import collecting, sipp_collector

from homerd import testing
from homerd.wire import hep, vqrtcpxr
from homerd_plugins import _qos_reporter
from homerd_plugins.qos import Qos

SCRIPT = """
loadmodule "pv"
loadmodule "sipcapture"
loadmodule "qos"
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "nonsip_hook", 1)
%s
event_route[sipcapture:request] {
    if ($hep(0x00b) == 1) return 1;
    $var(taken) = qos_report();
    drop;
}
request_route { qos_learn(); $var(taken) = qos_report(); exit; }
onreply_route { qos_learn(); $var(taken) = qos_report(); exit; }
event_route[qos:report] { exit; }
"""
ALICE, BOB = "192.0.2.10", "192.0.2.20"
CALL = "call-1@192.0.2.10"
HERE, THERE = 0xA11CE, 0xB0B


def sdp(address: str, port: int) -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
    )


def rtcp(
    own: int, sent: int, source: int, lost: int, fraction: int, highest: int, jitter: int = 80
):
    """A sender report with one block, as agents send it."""
    block = {
        "source_ssrc": source,
        "fraction_lost": fraction,
        "packets_lost": lost,
        "highest_seq_no": highest,
        "ia_jitter": jitter,
    }
    sender = {"packets": sent, "octets": sent * 160, "ntp_timestamp_sec": 1}
    told = {"ssrc": own, "type": 200, "sender_information": sender, "report_blocks": [block]}
    return json.dumps(told)


def measured(ssrc: int, packets: int, lost: int, kind: str = "PERIODIC", jitter: float = 2.0):
    return json.dumps(
        {
            "TYPE": kind,
            "SSRC": ssrc,
            "TOTAL_PK": packets,
            "EXPECTED_PK": packets + lost,
            "PACKET_LOSS": lost,
            "CODEC_NAME": "PCMA",
            "CLOCK": 8000,
            "JITTER": jitter,
        }
    )


class Run(testing.Script):
    """A script, and the reports that it made."""

    def invite(self, address: str = ALICE, port: int = 40000, **more):
        body = sdp(address, port)
        sent = {"headers": {"Content-Type": "application/sdp"}, "body": body, **more}
        return self.feed(testing.request("INVITE", **sent), src=f"{address}:5060")

    def answer(self, address: str = BOB, port: int = 41000):
        headers = {"Content-Type": "application/sdp", "To": "<sip:bob@example.net>;tag=b1"}
        message = testing.reply(200, headers=headers, body=sdp(address, port))
        return self.feed(message, src=f"{address}:5060", dst=f"{ALICE}:5060")

    def bye(self):
        return self.feed(testing.request("BYE"))

    def media(self, text: str, src: str, dst: str, type: int = 5, call: str | None = CALL):
        outcome = self.feed(text.encode(), src=src, dst=dst, type=type, correlation_id=call)
        assert outcome.error == ""
        return self.var("taken") == 1

    def both(self, number: int, lost: int = 0, fraction: int = 0, jitter: int = 80):
        """RTCP of Alice, who lost so many, and of Bob; *number* times five seconds are over."""
        sent = 250 * number
        here, there = f"{ALICE}:40001", f"{BOB}:41001"
        self.media(rtcp(HERE, sent, THERE, lost, fraction, 1000 + sent, jitter), here, there)
        self.media(rtcp(THERE, sent, HERE, 0, 0, 60_000 + sent, 16), there, here)

    @property
    def reports(self) -> list[vqrtcpxr.Report]:
        return [vqrtcpxr.decode(each.packet.frame.payload) for each in self.ran]

    @property
    def counts(self) -> dict[str, float]:
        """What is counted of reports."""
        names = ("homerd_qos_generated_total", "homerd_qos_report_refused_total")
        return {
            name.partition('="')[2].removesuffix('"}'): value
            for name, value in self.metrics().items()
            if name.startswith(names)
        }


@pytest.fixture
def run():
    runs = []

    def make(*parameters: str, **options) -> Run:
        lines = "\n".join(f'modparam("qos", {each})' for each in parameters)
        runs.append(Run(SCRIPT % lines, Qos, **options))
        return runs[-1]

    yield make
    for each in runs:
        each.stop()


def told_of_a_call(run: Run) -> None:
    """Two seconds of ringing, four times five seconds of talk: one in fifty lost by Alice."""
    run.invite()
    run.wait(2)
    run.answer()
    for number in range(1, 5):
        run.wait(5)
        run.both(number, lost=5 * number, fraction=5)
    run.bye()
    run.wait(_qos_reporter.TAIL_SECONDS + 1)


def test_a_call_is_told_of_at_its_end_as_its_rtcp_told(run):
    run = run()
    told_of_a_call(run)
    (report,) = run.reports
    assert (report.kind, report.call_term, report.call_id) == ("session", True, CALL)
    assert report.local_address == (ALICE, 40000, HERE)
    assert report.remote_address == (BOB, 41000, THERE)
    assert (report.local.nlr, report.local.iaj) == (2.0, 10)
    assert (report.remote.nlr, report.remote.iaj) == (0.0, 2)
    answered = testing._seconds(testing.START) + 2
    assert (report.local.start, report.local.stop) == (answered, answered + 20)
    assert {name: report.info[name] for name in ("localid", "remoteid", "origid")} == {
        "localid": "<sip:alice@example.org>",
        "remoteid": "<sip:bob@example.net>",
        "origid": "<sip:alice@example.org>",
    }
    assert report.faults == []
    assert run.counts == {"session": 1}


def test_times_are_those_of_the_packets(run):
    run = run()
    at = 1_700_000_000
    ends = {"src": f"{ALICE}:40001", "dst": f"{BOB}:41001", "type": 5, "correlation_id": CALL}
    for number in (1, 2):
        run.feed(rtcp(HERE, 250, THERE, 0, 0, 250 * number).encode(), at=at + 5 * number, **ends)
    run.stop()
    (report,) = run.reports
    assert (report.local.start, report.local.stop) == (at + 5, at + 10)


def test_it_is_told_of_once(run):
    run = run()
    told_of_a_call(run)
    run.both(5)
    run.bye()
    run.wait(600)
    assert len(run.reports) == 1
    assert run.counts == {"session": 1, "late": 2}


def test_an_interval_has_what_was_lost_in_it(run):
    run = run('"report_interval", 10')
    run.invite()
    run.answer()
    for number, lost in enumerate((0, 0, 50, 50, 50), 1):
        run.wait(5)
        run.both(number, lost=lost, jitter=80 * number)
    run.bye()
    run.wait(_qos_reporter.TAIL_SECONDS + 1)
    *intervals, last = run.reports
    start = intervals[0].local.start
    assert [
        (each.kind, each.local.start - start, each.local.stop - start, each.local.nlr)
        for each in intervals
    ] == [("interval", 0, 5, 0.0), ("interval", 5, 15, 10.0), ("interval", 15, 20, 0.0)]
    assert [each.local.iaj for each in intervals] == [15, 35, 50]
    assert (last.kind, last.local.nlr, last.local.iaj) == ("session", 4.0, 30)
    assert not any(each.call_term for each in intervals)


def test_local_is_the_caller_whoever_told_first(run):
    run = run()
    run.invite()
    run.answer()
    run.media(rtcp(THERE, 250, HERE, 3, 3, 9, 16), f"{BOB}:41001", f"{ALICE}:40001")
    run.bye()
    run.wait(20)
    (report,) = run.reports
    assert (report.local_address.ip, report.remote_address.ip) == (ALICE, BOB)
    # Alice told nothing, Bob one report: the share that it tells itself.
    assert (report.local.nlr, report.remote.nlr) == (None, 1.17)


def test_each_pair_of_addresses_has_a_report_of_its_own(run):
    relay = "198.51.100.1"
    run = run()
    run.invite()
    run.invite(relay, 30002)  # as the relay passes it on
    run.answer()
    run.answer(relay, 30000)
    run.media(rtcp(1, 250, 2, 5, 5, 9), f"{ALICE}:40001", f"{relay}:30001")
    run.media(rtcp(3, 250, 4, 9, 9, 9), f"{relay}:30003", f"{BOB}:41001")
    run.bye()
    run.wait(20)
    assert [
        (each.local_address[:2], each.remote_address[:2], each.local.nlr) for each in run.reports
    ] == [
        ((ALICE, 40000), (relay, 30000), 1.95),
        ((relay, 30002), (BOB, 41000), 3.52),
    ]


def test_measured_rtp_ends_a_call_whose_signalling_nobody_saw(run):
    run = run()
    here, there = f"{ALICE}:40000", f"{BOB}:41000"
    assert run.media(measured(HERE, 990, 10), here, there, type=34)
    assert run.media(measured(THERE, 900, 100), there, here, type=34)
    run.wait(20)
    run.media(measured(HERE, 1980, 20, "FINAL", 4.0), here, there, type=34)
    run.wait(10)
    assert run.reports == []
    run.media(measured(THERE, 1900, 100, "FINAL"), there, here, type=34)
    run.wait(10)
    (report,) = run.reports
    assert (report.local_address, report.call_term) == ((BOB, 41000, THERE), True)
    assert (report.local.nlr, report.local.iaj, report.local.pd, report.local.sr) == (
        1.0, 3, "PCMA", 8000,
    )  # fmt: skip
    assert (report.remote.nlr, report.remote.moslqestalg) == (5.0, "G.107")
    assert report.info.keys() & {"localid", "remoteid"} == set()


def test_rtcp_goes_before_what_was_measured_and_codec_is_of_both(run):
    run = run()
    run.invite()
    run.answer()
    run.both(1, lost=25, fraction=25)
    run.media(measured(THERE, 250, 0), f"{BOB}:41000", f"{ALICE}:40000", type=34)
    run.bye()
    run.wait(20)
    (report,) = run.reports
    assert (report.local.nlr, report.local.pd, report.local.iaj) == (10.0, "PCMA", 10)


def test_a_stream_that_is_measured_anew_adds_to_the_call(run):
    run = run()
    here, there = f"{ALICE}:40000", f"{BOB}:41000"
    run.media(measured(HERE, 490, 10, "FINAL"), here, there, type=34)
    run.media(measured(HERE, 960, 40, "FINAL"), here, there, type=34)
    run.wait(10)
    assert run.reports[0].local.nlr == 3.33


def test_voice_metrics_of_rfc_3611_are_of_the_whole_call(run):
    run = run('"report_interval", 10')
    told = json.loads(rtcp(HERE, 250, THERE, 0, 0, 1250))
    told["report_blocks_xr"] = {
        "type": 7, "id": THERE, "fraction_lost": 0, "fraction_discard": 64, "burst_density": 128,
        "burst_duration": 300, "round_trip_delay": 40, "end_system_delay": 60,
    }  # fmt: skip
    told["voip_metrics"] = {"r_factor": 70, "mos_lq": 36, "mos_cq": 35, "signal_level": -20}
    run.media(json.dumps(told), f"{ALICE}:40001", f"{BOB}:41001")
    run.wait(11)
    run.stop()
    interval, session = run.reports
    assert (interval.local.rtd, interval.local.sl, interval.local.moslq) == (40, -20, None)
    assert (interval.local.jdr, interval.local.bld) == (None, None)
    assert (session.local.jdr, session.local.bld, session.local.bd) == (25.0, 50.0, 300)
    assert (session.local.moslq, session.local.moscq, session.local.rcq) == (3.6, 3.5, 70)
    assert (session.local.rtd, session.local.esd) == (40, 60)


def test_rtcp_that_names_no_call_finds_it_by_its_addresses(run):
    run = run()
    run.invite()
    run.answer()
    assert run.media(rtcp(HERE, 250, THERE, 5, 5, 250), f"{ALICE}:40001", f"{BOB}:41001", call=None)
    run.stop()
    (report,) = run.reports
    assert (report.call_id, report.local.pd, report.local.nlr) == (CALL, "PCMA", 1.95)


def test_a_source_that_changes_is_counted_with_the_one_before(run):
    run = run()
    run.invite()
    run.answer()
    run.media(rtcp(HERE, 250, 1, 5, 5, 250), f"{ALICE}:40001", f"{BOB}:41001")
    run.media(rtcp(HERE, 500, 1, 10, 5, 500), f"{ALICE}:40001", f"{BOB}:41001")
    run.media(rtcp(HERE, 750, 2, 0, 0, 9000), f"{ALICE}:40001", f"{BOB}:41001")
    run.media(rtcp(HERE, 1000, 2, 0, 0, 9250), f"{ALICE}:40001", f"{BOB}:41001")
    run.stop()
    (report,) = run.reports
    assert (report.local.nlr, report.remote_address.ssrc) == (1.0, 2)


def test_an_invite_of_the_callee_changes_nothing_of_who_is_who(run):
    run = run()
    run.invite()
    run.answer()
    again = {
        "Content-Type": "application/sdp",
        "From": "<sip:bob@example.net>;tag=b1",
        "To": "<sip:alice@example.org>;tag=alice",
    }
    run.feed(testing.request("INVITE", headers=again, body=sdp(BOB, 41002)), src=f"{BOB}:5060")
    run.feed(testing.reply(200, headers=again, body=sdp(ALICE, 40002)), src=f"{ALICE}:5060")
    there, here = f"{BOB}:41003", f"{ALICE}:40003"
    run.media(rtcp(THERE, 250, HERE, 0, 0, 250, 16), there, here)
    run.stop()
    (report,) = run.reports
    assert (report.local_address[:2], report.remote_address[:2]) == ((ALICE, 40002), (BOB, 41002))
    assert report.info["localid"] == "<sip:alice@example.org>"
    assert report.info["dialogid"].split(";")[1] == "to-tag=b1"


def test_rtcp_that_was_overtaken_counts_nothing_twice(run):
    run = run()
    run.invite()
    run.answer()
    for number, lost in ((1, 5), (3, 15), (2, 10), (4, 20)):
        run.media(
            rtcp(HERE, 250 * number, THERE, lost, 5, 250 * number),
            f"{ALICE}:40001",
            f"{BOB}:41001",
        )
    run.stop()
    assert run.reports[0].local.nlr == 2.0


def test_a_refused_call_is_forgotten_and_one_with_a_password_goes_on(run):
    run = run()
    run.invite()
    run.feed(testing.reply(407))
    run.wait(1)
    run.invite()
    run.answer()
    run.both(1)
    run.wait(60)
    assert run.reports == []
    run.bye()
    run.invite(call_id="call-2")
    run.feed(testing.reply(486, call_id="call-2"))
    run.wait(60)
    assert [each.call_id for each in run.reports] == [CALL]
    assert len(run.plugin("qos").reporter) == 0


@pytest.mark.parametrize("after", [1, 40])
def test_a_call_that_one_telephone_refuses_and_another_takes_goes_on(run, after):
    run = run()
    run.invite()
    run.feed(testing.reply(180))
    run.feed(testing.reply(486))
    run.wait(5)
    run.feed(testing.reply(180))
    run.wait(after)
    run.answer()
    for number in range(1, 5):
        run.wait(5)
        run.both(number)
    assert run.reports == []
    run.bye()
    run.wait(_qos_reporter.TAIL_SECONDS + 1)
    (report,) = run.reports
    assert (report.local_address.ip, report.call_term, run.counts) == (ALICE, True, {"session": 1})


def test_a_call_that_falls_silent_has_ended(run):
    run = run()
    run.invite()
    run.answer()
    run.both(1)
    run.wait(200)
    run.both(40)
    run.wait(200)
    assert run.reports == []
    run.wait(200)
    assert [each.call_term for each in run.reports] == [True]


def test_at_the_stop_calls_that_go_on_are_told_of_without_an_end(run):
    run = run()
    run.invite()
    run.answer()
    run.both(1)
    run.stop()
    (report,) = run.reports
    assert (report.kind, report.call_term) == ("session", False)


def test_what_belongs_to_no_report_is_counted(run, monkeypatch):
    monkeypatch.setattr(_qos_reporter, "MAX_CALLS", 1)
    run = run()
    here, there = f"{ALICE}:40001", f"{BOB}:41001"
    text = rtcp(HERE, 250, THERE, 0, 0, 1250)
    assert not run.media(text, here, there, call=None)
    assert not run.media(text, f"{ALICE}:0", there)
    assert run.media(text, here, there)
    assert not run.media(text, here, there, call="another")
    assert not run.media("{}", here, there)
    without_blocks = json.dumps({"ssrc": HERE, "type": 201, "report_blocks": []})
    assert not run.media(without_blocks, here, there)
    assert run.counts == {"no_call": 1, "no_address": 1, "no_room": 1, "no_figures": 1}


def test_of_a_call_whose_rtcp_tells_nothing_there_is_no_report(run):
    run = run()
    run.invite()
    run.answer()
    run.media(
        json.dumps({"ssrc": HERE, "type": 201, "report_blocks": []}),
        f"{ALICE}:40001",
        f"{BOB}:41001",
    )
    run.stop()
    assert run.reports == []


def test_a_call_that_ended_makes_room_for_another(run, monkeypatch):
    monkeypatch.setattr(_qos_reporter, "MAX_CALLS", 1)
    run = run()
    run.invite()
    run.answer()
    run.both(1)
    run.bye()
    run.invite(call_id="another")
    assert [each.call_id for each in run.reports] == [CALL]
    assert run.counts == {"session": 1}


def test_calls_that_ended_make_room_for_the_streams_of_others(run, monkeypatch):
    monkeypatch.setattr(_qos_reporter, "MAX_STREAMS", 4)
    run = run()
    ends = f"{ALICE}:40000", f"{BOB}:41000"
    for ssrc in range(6):
        run.media(measured(ssrc, 100, 1), *ends, 34)
    assert run.counts == {"no_room": 2}
    run.bye()
    for ssrc in range(4):
        run.media(measured(ssrc, 100, 1, "FINAL"), *ends, 34)
    run.wait(_qos_reporter.TAIL_SECONDS + 1)
    for ssrc in range(4):
        run.media(measured(ssrc, 100, 1), *ends, 34, call="call-2")
    assert run.counts == {"no_room": 2, "session": 1}


def test_a_name_cannot_add_a_line(run):
    run = run()
    run.invite(headers={
        "Content-Type": "application/sdp",
        "From": '"A\u2028LocalMetrics:\x85PacketLoss:NLR=99" <sip:alice@example.org>;tag=a1',
    })  # fmt: skip
    run.answer()
    run.both(1)
    run.stop()
    (report,) = run.reports
    assert report.info["localid"].endswith("<sip:alice@example.org>")
    assert report.local.nlr == 0.0


# Where they go


def test_a_collector_gets_the_numbers_of_the_call(run):
    with collecting() as collector:
        run = run(f'"report_to", "sip:127.0.0.1:{collector.port}"', deliver=True)
        told_of_a_call(run)
        assert run.flush()
    (request,) = collector.requests
    report = vqrtcpxr.decode(request.body.encode())
    assert report == run.reports[0]
    assert (request.method, request.header("Event")) == ("PUBLISH", "vq-rtcpxr")
    assert (report.local.nlr, report.remote.nlr) == (2.0, 0.0)
    target = f'target="sip:127.0.0.1:{collector.port};transport=udp"'
    answers = f'homerd_qos_publish_answers_total{{status="200",{target}}}'
    assert run.metrics()[answers] == 1


def test_sipp_gets_it_too_and_report_from_is_who_it_is_from(run, tmp_path):
    with sipp_collector(tmp_path, "tcp") as sipp:
        run = run(
            f'"report_to", "sip:127.0.0.1:{sipp.port};transport=tcp"',
            '"report_from", "sip:reporter@example.net"',
            deliver=True,
        )
        told_of_a_call(run)
        assert run.flush()
        (body,) = sipp.bodies(1)
        trace = sipp.trace.read_text()
    assert vqrtcpxr.decode(body).local.nlr == 2.0
    assert "\nFrom: <sip:reporter@example.net>;tag=" in trace


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_receiver_of_hep_gets_type_35(run, transport):
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        if transport == "tcp":
            receiver.listen()
        port = receiver.getsockname()[1]
        run = run(f'"report_to", "hep:127.0.0.1:{port};transport={transport}"', deliver=True)
        told_of_a_call(run)
        for sink in run.worker.sinks:
            sink.hand_over()
        if transport == "udp":
            frames = [receiver.recv(65535)]
        else:
            frames, framer = [], hep.Framer()
            while not any(b"VQSession" in each for each in frames):
                opened, _ = receiver.accept()  # the first asks whether batches are acknowledged
                opened.settimeout(20)
                with opened:
                    frames += framer.feed(opened.recv(65535))
    frame = hep.decode(next(each for each in frames if b"VQSession" in each))
    assert (frame.payload_type, frame.correlation_id, frame.capture_id) == (35, CALL, 101)
    assert (frame.src_ip, frame.src_port, frame.dst_ip, frame.dst_port) == (
        ALICE, 40000, BOB, 41000,
    )  # fmt: skip
    assert vqrtcpxr.decode(frame.payload).local.nlr == 2.0


def test_the_script_sees_each_report(run):
    run = run()
    told_of_a_call(run)
    (seen,) = run.ran
    assert (seen.packet.hep.payload_type, seen.packet.call_id) == (35, CALL)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ('"report_to", "udp:host:1"', "expected sip:HOST:PORT or hep:HOST:PORT"),
        ('"report_to", "sip:host;transport=sctp"', 'unknown transport "sctp"'),
        ('"report_to", "hep:host;port=1"', 'unknown parameter "port"'),
        ('"report_to", "hep:host:9060;transport=ws"', 'unknown transport "ws"'),
        ('"report_from", "homerd"', "expected a SIP URI"),
        ('"report_from", "sip:a>b@c"', "expected a SIP URI"),
    ],
)
def test_a_parameter_that_cannot_be_is_told_where_it_stands(parameter, said):
    assert any(
        said in each for each in testing.diagnostics(SCRIPT % f'modparam("qos", {parameter})', Qos)
    )


def test_an_event_route_that_is_never_run_is_told():
    text = (SCRIPT % 'modparam("qos", "report_to", "hep:host")').replace("s:report]", "s:reports]")
    assert testing.diagnostics(text, Qos) == [
        "W906 event_route[qos:reports] is never run: there is qos:report"
    ]


def test_reports_that_nobody_gets_are_told_and_those_that_nobody_makes():
    target = SCRIPT % 'modparam("qos", "report_to", "hep:host")'
    without = (SCRIPT % "").replace("event_route[qos:report] { exit; }", "")
    assert {
        "both": testing.diagnostics(target, Qos),
        "an event route": testing.diagnostics(SCRIPT % "", Qos),
        "neither": testing.diagnostics(without, Qos),
        "no word": testing.diagnostics(target.replace("qos_report()", "qos_learn()"), Qos),
    } == {
        "both": [],
        "an event route": [],
        "neither": [
            "W906 reports of qos_report() go nowhere: no report_to, and no event_route[qos:report]"
        ],
        "no word": ["W906 report_to is set, and qos_report() is not called"],
    }
