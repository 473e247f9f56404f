"""The reporter by itself: whatever comes, in whatever order, gives reports that can be read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homerd import testing
from homerd.wire import qos, vqrtcpxr
from homerd.wire.hep import Frame
from homerd.wire.qos import QosRecord
from homerd.wire.sip import SipMessage
from homerd_plugins._qos_calls import Tie, Told
from homerd_plugins._qos_reporter import Reporter

counts = st.none() | st.integers(-(1 << 53), 1 << 53) | st.integers(-5, 5)
measures = st.none() | st.floats(-1e9, 1e9) | st.floats(0, 100)
records = st.fixed_dictionaries(
    {
        "direction": st.sampled_from((qos.RECEIVED, qos.SENT)),
        "ssrc": st.none() | st.integers(0, 3),
        "codec": st.none() | st.sampled_from(("PCMA", "opus")),
        "packets": counts,
        "lost": counts,
        "highest": counts,
        "loss": measures,
        "jitter": measures,
        "rtt": measures,
        "discard": measures,
    }
).map(lambda values: QosRecord("local", **values))
reports = st.builds(
    qos.Report,
    st.sampled_from((qos.RTCP_JSON, qos.RTP_AGENT)),
    st.lists(records, min_size=1, max_size=3).map(tuple),
    kind=st.sampled_from((None, "PERIODIC", "FINAL")),
)
frames = st.builds(
    Frame,
    src=st.sampled_from((b"\xc0\0\2\1", b"\xc0\0\2\2", bytes(16))),
    dst=st.sampled_from((b"\xc0\0\2\3", b"\xc0\0\2\1", b"")),
    src_port=st.integers(1, 4),
    dst_port=st.integers(0, 4),
)
names = st.sampled_from(("call-1", "call-2", ""))
SDP = "v=0\r\nc=IN IP4 192.0.2.%d\r\nm=audio 2 RTP/AVP 8\r\n"
MESSAGES = [
    testing.request("INVITE", call_id="call-1", body=SDP % 1),
    testing.reply(200, call_id="call-1", body=SDP % 2),
    testing.reply(407, call_id="call-1"),
    testing.request("BYE", call_id="call-1"),
    testing.request("REGISTER", call_id="call-2"),
    b"",
]
steps = st.lists(
    st.tuples(st.just("take"), reports, frames, names)
    | st.tuples(st.just("learn"), st.sampled_from(MESSAGES))
    | st.tuples(st.just("wait"), st.integers(0, 400)),
    max_size=15,
)


@settings(max_examples=50)
@given(steps, st.sampled_from((0, 1, 60)), st.integers(0, 1 << 40))
def test_whatever_comes_gives_reports_that_can_be_read(steps, interval, at):
    reporter = Reporter(interval)
    now = 0.0
    made = []
    for step in steps:
        if step[0] == "take":
            reporter.take(Told(step[1], Tie(step[3], "report")), step[2], at, now)
        elif step[0] == "learn":
            frame = Frame(src=b"\xc0\0\2\1", payload=step[1])
            reporter.learn(SipMessage(step[1]), frame, at, now)
        else:
            now += step[1]
            at += step[1]
            made += reporter.take_due(now)
    made += reporter.finish(now)
    assert (len(reporter), reporter.made) == (0, [])
    for report in made:
        told = vqrtcpxr.decode(report.body)
        assert (told.kind, told.call_id, told.faults) == (report.kind, report.call_id, [])
