"""Targets of alarms: what they are written with, the webhook, the limit, the spool."""

from __future__ import annotations

import json
import logging
import re

import pytest
from alarm_peers import event, events, opened, receiving, records, wait_for
from servers import free_port

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, Rejected, RetryLater
from homerd.wire.hep import Frame
from homerd_plugins._notify import Target

LONG = 20.0
BYTES = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


# -- what is written


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("ops=>https://hooks.example/services/T/B/secret;format=slack", "https://hooks.example/…"),
        ("ops=>https://u:secret@hooks.example:8443", "https://hooks.example:8443"),
        (
            "noc=>smtp://u:secret@mail.example?from=a+b@example.org&to=c@example.org,d@example.org",
            "smtp://mail.example:587/?to=c@example.org,d@example.org",
        ),
        ("m=>smtp://[::1]:25;from=a@b;to=c@d;tls=none", "smtp://[::1]:25/?to=c@d"),
        ("m=>smtps://u:secret@mail.example/;from=a@b;to=c@d", "smtps://mail.example:465/?to=c@d"),
        ("s=>syslog://log.example;facility=local0", "syslog://log.example:514"),
        ("s=>syslog+tls://log.example;ca=/etc/ca.pem", "syslog+tls://log.example:6514"),
        ("s=>syslog:///dev/log", "syslog:///dev/log"),
        ("d=>statsd://127.0.0.1/homer.site1", "statsd://127.0.0.1:8125/homer.site1"),
        ("a=>alertmanager://u:secret@am.example", "http://am.example:9093"),
        ("a=>alertmanager+https://am.example:443/am/;label=team=voip", "https://am.example:443/am"),
        ("p=>exec:/usr/local/bin/page;timeout=3", "exec:/usr/local/bin/page"),
    ],
)
def test_a_target_is_shown_without_its_secrets(text, where):
    target = Target.from_script(text)
    assert target.where == where
    assert "secret" not in repr(target) + target.sink().where
    assert target == Target.from_script(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host/", "expected NAME=>URL;option=value"),
        ("my ops=>https://host/", "the name of letters, digits"),
        (
            "ops=>htps://host/",
            'target "ops": expected an address, did you mean "https:"; there are',
        ),
        ("ops=>host", "expected an address; there are http, https, smtp,"),
        ("ops=>https://", "expected https://host/path"),
        ("ops=>https://u:secret/x@host/", "%40 and the like for what is special"),
        ("ops=>https://u/secret@host/", "write both as %40 and %2F"),
        ("ops=>https://host/a b", "a blank or a control character"),
        ("ops=>https://ho..st/", '"ho..st" is no name of a host'),
        ("ops=>https://host/#x", '"#": write it as %23'),
        ("ops=>https://host/;fromat=slack", 'unknown option "fromat", did you mean "format"'),
        ("ops=>https://host/;format=html", "format=html: expected json or slack or teams or text"),
        ("ops=>https://host/;rate=many", "rate=many: expected a number from 0 to 100000"),
        ("ops=>https://host/;header=X", "expected header=Name: value"),
        ("ops=>https://host/;slack", 'expected option=value behind ";", got "slack"'),
        ("ops=>https://host/;format=json;format=text", "option format is written 2 times"),
        ("m=>smtp://host", "expected from=…&to=…, as in smtp://mail.example.org/?from="),
        ("m=>smtp://host?from=homer&to=a@b", '"homer" is no address: expected name@example.org'),
        ("m=>smtp://host?from=a@b&to=a@b,", '"" is no address'),
        ("m=>smtp://host?from=a@b&to=a@b&tls=yes", "tls=yes: expected starttls or none"),
        ("m=>smtp://u:s\xe9@host?from=a@b&to=a@b", "are ASCII"),
        ("s=>syslog://", "expected syslog://host:514, syslog+tcp://"),
        ("s=>syslog+tcp:///dev/log", "or syslog:///dev/log"),
        ("s=>syslog://host;facility=mine", "facility=mine: expected auth or"),
        ("s=>syslog://host:99999", "a port from 1 to 65535"),
        ("d=>statsd://host/a:b", "the prefix of letters, digits"),
        ("d=>statsd://host;rate=5", 'unknown option "rate"'),
        ("a=>alertmanager://host?x=1", 'options stand behind ";"'),
        ("a=>alertmanager://host;label=key=1", "each alert has its own key"),
        ("p=>exec:page", "expected exec:/path/to/program, from the root and without arguments"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(text, said):
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        Target.from_script(text)
    assert "secret" not in str(raised.value)


def test_a_file_of_certificates_that_is_not_there_stops_the_start():
    sink = Target.from_script("ops=>https://host/;ca=/nowhere.pem").sink()
    with pytest.raises(ConfigError, match=r'target "ops": ca=/nowhere\.pem: .*No such file'):
        sink.connect()


# -- the webhook


def test_an_event_is_posted_with_all_it_says(receiver):
    with opened(f"ops=>{receiver.url}/hook?token=t;header=Authorization: Bearer abcdef") as sink:
        sink.write(records(event()))
    ((path, headers, body),) = receiver.posts
    assert path == "/hook?token=t"
    assert (headers["authorization"], headers["content-type"]) == (
        "Bearer abcdef",
        "application/json",
    )
    told = json.loads(body)
    assert told.pop("text") == event().line()
    assert told == json.loads(json.dumps(event().as_record()))


def test_user_and_password_go_into_a_header(receiver):
    with opened(f"ops=>http://homer:p%40ss@127.0.0.1:{receiver.server_port}") as sink:
        sink.write(records(event()))
    assert receiver.posts[0][1]["authorization"] == "Basic aG9tZXI6cEBzcw=="


def test_a_chat_gets_a_line_in_which_the_network_calls_nobody(receiver):
    with opened(f"ops=>{receiver.url};format=slack") as sink:
        sink.write(records(event(key="<!channel> `@all` & co")))
    (told,) = receiver.told
    assert told == {
        "text": "`critical: scanner raised for &lt;!channel&gt; '@all' &amp; co: 20 in 60 s,"
        " threshold 20, node capture1: known user agents`"
    }


def test_teams_gets_a_card(receiver):
    with opened(f"ops=>{receiver.url};format=teams") as sink:
        sink.write(records(event(description="[click](http://evil.example)")))
    content = receiver.told[0]["attachments"][0]["content"]
    title, line, facts = content["body"]
    assert (content["type"], title["text"]) == ("AdaptiveCard", "critical: scanner raised")
    assert r"\[click\]\(http://evil.example\)" in line["text"]
    assert {"title": "Call-IDs", "value": "call-1, call-2"} in facts["facts"]


def test_plain_text_is_one_line_whatever_the_network_sent(receiver):
    with opened(f"ops=>{receiver.url};format=text") as sink:
        sink.write(records(event(key=f"a\r\nb\x1b[31m{BYTES}", description="")))
    assert receiver.posts[0][2] == (
        "critical: scanner raised for a b [31mcaf\ufffd: 20 in 60 s, threshold 20, node capture1\n"
    )


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again_without_repeating_what_it_took(receiver, status):
    receiver.answers = [200, status]
    with opened(f"ops=>{receiver.url}") as sink:
        batch = records(*events(3))
        with pytest.raises(RetryLater, match=f"{status} .*as asked"):
            sink.write(batch)
        sink.write(batch)
    assert [told["id"] for told in receiver.told] == ["a0", "a1", "a2"]
    assert sink.notifications == 3


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_what_a_server_refuses_is_rejected_and_the_others_are_told(receiver, status):
    receiver.answers = [200, status]
    receiver.body = "no\nsuch channel, token abcdefgh"
    with (
        opened(f"ops=>{receiver.url};header=X-Token: abcdefgh") as sink,
        pytest.raises(Rejected, match=f"{status} .* no such channel, token …") as raised,
    ):
        sink.write(records(*events(3)))
    assert raised.value.indices == [1]
    assert [told["id"] for told in receiver.told] == ["a0", "a2"]


def test_a_server_that_has_moved_is_said_so(receiver):
    receiver.answers = [302]
    receiver.location = "https://u:secret@elsewhere.example/secret"
    with (
        opened(f"ops=>{receiver.url}") as sink,
        pytest.raises(Rejected, match=r"302 moved to https://elsewhere.example/…: write") as raised,
    ):
        sink.write(records(event()))
    assert "secret" not in str(raised.value)


def test_a_server_that_is_away_is_waited_for():
    port = free_port()
    with (
        opened(f"ops=>http://127.0.0.1:{port}/secret") as sink,
        pytest.raises(RetryLater) as raised,
    ):
        sink.write(records(event()))
    assert str(raised.value).startswith(f"http://127.0.0.1:{port}/…: ")


def test_no_log_line_holds_the_address(receiver, caplog):
    caplog.set_level(logging.DEBUG, "homerd")
    caplog.set_level(logging.INFO)
    receiver.answers = [500, 404]
    sink = Target.from_script(f"ops=>{receiver.url}/T0/B0/secret").sink(first_delay=0.001)
    sink.start()
    sink.add(event().as_record())
    assert sink.flush(LONG)
    sink.stop()
    assert sink.counts()["rejected"] == 1
    assert "secret" not in caplog.text


# -- the limit


def test_what_is_beyond_the_limit_is_told_in_one_when_the_minute_is_over(receiver):
    now = [1000.0]
    sink = Target.from_script(f"ops=>{receiver.url};rate=3").sink(clock=lambda: now[0])
    sink.start()
    for each in (*events(40), event(id="b", alarm="mos", state="cleared")):
        sink.add(each.as_record())
    assert sink.flush(LONG)
    sink.tick(0.0)
    assert (sink.pending, len(receiver.posts)) == (0, 3)
    now[0] += 60
    sink.tick(0.0)
    for each in events(43)[40:]:
        sink.add(each.as_record())
    assert sink.flush(LONG)
    more = receiver.told[3]
    assert (more["state"], more["alarm"], more["value"]) == ("summarised", "more", 38)
    assert more["text"] == (
        "critical: 38 more alarms: scanner raised 37, mos cleared 1, node capture1"
    )
    assert [told["id"] for told in receiver.told[4:]] == ["a40", "a41"]
    assert (sink.notifications, sink.summarised) == (6, 39)
    sink.stop()
    assert receiver.told[6]["text"] == "critical: 1 more alarm: scanner raised 1, node capture1"


def test_what_is_held_back_is_held_back_once_when_another_event_is_refused(receiver):
    receiver.answers = [400]
    sink = Target.from_script(f"ops=>{receiver.url};rate=1").sink()
    sink.start()
    for each in events(3):
        sink.add(each.as_record())
    assert sink.flush(LONG)
    assert (sink.rejected, sink.summarised, sink.stored) == (1, 2, {"summarised": 2})
    sink.stop()
    assert [told["value"] for told in receiver.told] == [2]


def test_without_a_limit_each_is_told(receiver):
    with opened(f"ops=>{receiver.url};rate=0") as sink:
        sink.write(records(*events(80)))
    assert len(receiver.posts) == 80


def test_what_is_held_back_is_told_at_stop(receiver):
    sink = Target.from_script(f"ops=>{receiver.url};rate=1").sink()
    sink.start()
    for each in events(5):
        sink.add(each.as_record())
    sink.stop()
    assert [told["state"] for told in receiver.told] == ["raised", "summarised"]
    assert receiver.told[1]["value"] == 4
    assert sink.counts()["written"] in (5, 6)  # the summary may have been an event of its own


def test_a_summary_that_cannot_be_told_at_stop_waits_on_disk(receiver, tmp_path):
    target = Target.from_script(f"ops=>{receiver.url};rate=1")
    sink = target.sink(first_delay=0.001)
    sink.spool_into(tmp_path, 1 << 20)
    sink.start()
    for each in events(5):
        sink.add(each.as_record())
    assert sink.flush(LONG)
    receiver.answers = [503] * 1000
    sink.stop()
    assert sink.counts()["spooled"] == 1
    receiver.answers = []
    again = target.sink()
    again.spool_into(tmp_path, 1 << 20)
    again.start()
    wait_for(lambda: len(receiver.posts) == 2)
    again.stop()
    assert receiver.told[1]["value"] == 4


# -- a script


def test_an_alarm_of_a_script_is_told_to_its_targets(receiver, tmp_path, invite):
    page = tmp_path / "page"
    page.write_text(f"#!/bin/sh\necho $ALARM_NAME $ALARM_KEY >> {tmp_path}/told\n")
    page.chmod(0o755)
    script = f"""
        loadmodule "pv"
        loadmodule "alarm"
        modparam("alarm", "target", "ops=>{receiver.url};format=text")
        modparam("alarm", "target", "pager=>exec:{page}")
        modparam("alarm", "alarm", "calls=>window=60;raise=3;clear=0")
        modparam("alarm", "alarm", "first=>window=60;raise=1;clear=0;notify=pager")
        request_route {{ alarm_count("calls", $si); alarm_count("first", $si); }}
    """
    worker = Worker(load(tmp_path / "test.cfg", text=script))
    worker.start()
    for _ in range(3):
        worker.engine.feed(
            Frame(
                3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 1700000000, 5, 1, payload=invite.encode()
            )
        )
    worker.stop()
    ((_, _, body),) = receiver.posts
    assert "calls raised for 1.1.1.1: 3 in 60 s, threshold 3" in body
    assert (tmp_path / "told").read_text().splitlines() == ["first 1.1.1.1", "calls 1.1.1.1"]


# -- away and back


def test_alarms_that_found_nobody_are_told_in_order_after_a_restart(tmp_path):
    port = free_port()
    target = Target.from_script(f"ops=>http://127.0.0.1:{port}/hook")
    sink = target.sink(first_delay=0.001)
    sink.spool_into(tmp_path, 1 << 20)
    sink.start()
    for each in (event(), event(state="cleared", at=1700000100.0)):
        sink.add(each.as_record())
        sink.hand_over()
    wait_for(lambda: sink.retries)
    sink.stop()
    assert (sink.spooled, sink.pending, sink.dropped) == (2, 0, 0)
    with receiving(port) as receiver:
        again = target.sink()
        again.spool_into(tmp_path, 1 << 20)
        again.start()
        again.add(event(id="a2").as_record())
        assert again.flush(LONG)
        again.stop()
        assert [(told["id"], told["state"]) for told in receiver.told] == [
            ("a1", "raised"),
            ("a1", "cleared"),
            ("a2", "raised"),
        ]
        assert (
            receiver.told[0]["evidence"] == json.loads(json.dumps(event().as_record()))["evidence"]
        )
    assert (again.recovered, again.written) == (2, 3)


def test_two_targets_of_one_host_have_spools_of_their_own():
    one, other = (Target.from_script(f"ops=>https://hooks.example/{path}").sink() for path in "ab")
    assert one.where == other.where
    assert one.store_key() != other.store_key()
