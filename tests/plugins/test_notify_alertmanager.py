"""Alarms to a real Alertmanager."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from alarm_peers import Alertmanager, event, events, opened, receiving, records, wait_for
from metric_servers import running

from homerd.errors import Rejected, RetryLater
from homerd_plugins._alarm_event import AlarmEvent
from homerd_plugins._notify import Target
from homerd_plugins._notify_alertmanager import RESEND

LONG = 20.0


@pytest.fixture(scope="module")
def alertmanager():
    with running(Alertmanager) as server:
        yield server


def target(server, options=""):
    return Target.from_script(f"am=>alertmanager://127.0.0.1:{server.port}{options}")


def now_event(**changes) -> AlarmEvent:
    now = time.time()
    return event(started_at=now - 10, at=now, **changes)


@pytest.fixture
def start():
    """Starts a target's sink; away with it afterwards."""
    started = []

    def begin(target, **options):
        sink = target.sink(first_delay=0.001, **options)
        sink.start()
        started.append(sink)
        return sink

    yield begin
    for sink in started:
        sink.stop(0.0)


def test_an_alarm_is_active_until_it_clears(alertmanager, start):
    sink = start(target(alertmanager, ";label=team=voip"))
    raised = now_event(alarm="until_clear")
    sink.add(raised.as_record())
    assert sink.flush(LONG)
    (alert,) = alertmanager.alerts("until_clear")
    assert alert["labels"] == {
        "alertname": "until_clear",
        "key": "192.0.2.66",
        "node": "capture1",
        "severity": "critical",
        "team": "voip",
    }
    assert alert["annotations"] == {
        "call_ids": "call-1 call-2",
        "description": "known user agents",
        "source_ip": "192.0.2.66",
        "summary": raised.line(),
        "threshold": "20",
        "total": "20",
        "value": "20",
    }
    assert alert["status"]["state"] in ("active", "unprocessed")
    sink.add(now_event(alarm="until_clear", state="cleared").as_record())
    assert sink.flush(LONG)
    assert alertmanager.alerts("until_clear") == []


def test_keys_are_alerts_of_their_own(alertmanager, start):
    sink = start(target(alertmanager))
    for key in ("a", "b", 'c"{}\n\ud800'):
        sink.add(now_event(alarm="by_key", key=key).as_record())
    assert sink.flush(LONG)
    keys = sorted(alert["labels"]["key"] for alert in alertmanager.alerts("by_key"))
    assert keys == ["a", "b", 'c"{}\n\ufffd']


def ends_at(alertmanager, name):
    (alert,) = alertmanager.alerts(name)
    return alert["endsAt"]


def test_what_is_raised_is_posted_again_and_outlives_a_restart_of_alertmanager(start):
    with running(Alertmanager) as own:
        sink = start(target(own, ";resend=2"))
        sink.tick(1000.0)
        sink.add(now_event(alarm="again").as_record())
        assert sink.flush(LONG)
        before = ends_at(own, "again")
        own.stop()
        own.start()
        assert own.alerts("again") == []
        sink.tick(1001.0)
        assert sink.pending == 0
        sink.tick(1002.0)
        assert sink.flush(LONG)
        assert ends_at(own, "again") > before
        assert sink.stored == {"again": 1, "resent": 1}
        sink.add(now_event(alarm="again", state="cleared").as_record())
        sink.tick(1010.0)
        assert sink.flush(LONG)
        assert own.alerts("again") == []


def test_an_alarm_ends_by_itself_when_nothing_is_heard_of_it(alertmanager, start):
    sink = start(target(alertmanager, ";resend=30"))
    sink.add(now_event(alarm="by_itself").as_record())
    assert sink.flush(LONG)
    end = datetime.fromisoformat(ends_at(alertmanager, "by_itself"))
    assert end.timestamp() <= time.time() + 120


def test_alarms_wait_for_an_alertmanager_that_comes_back(start, tmp_path):
    with running(Alertmanager) as own:
        own.stop()
        sink = target(own).sink(first_delay=0.001, last_delay=0.05)
        sink.spool_into(tmp_path, 1 << 20)
        sink.start()
        sink.add(now_event(alarm="away").as_record())
        sink.add(now_event(alarm="gone").as_record())
        sink.add(now_event(alarm="gone", state="cleared").as_record())
        sink.hand_over()
        wait_for(lambda: sink.retries)
        own.start()
        assert sink.flush(LONG)
        assert (len(own.alerts("away")), own.alerts("gone")) == (1, [])
        sink.stop()


def test_what_an_earlier_run_raised_is_not_kept_alive(start, tmp_path):
    """Nobody would ever clear it."""
    with running(Alertmanager) as own:
        own.stop()
        sink = target(own).sink(first_delay=0.001)
        sink.spool_into(tmp_path, 1 << 20)
        sink.start()
        sink.add(event(alarm="earlier").as_record())
        sink.stop(0.0)
        assert sink.spooled == 1
        own.start()
        again = target(own).sink()
        again.spool_into(tmp_path, 1 << 20)
        again.start()
        assert again.flush(LONG)
        again.tick(1e6)
        again.stop()
        assert (again.written, own.alerts("earlier")) == (1, [])


def test_an_alert_that_is_refused_does_not_keep_the_others_out():
    with receiving() as server:
        server.answers = [400, 200, 400, 200]
        with (
            opened(f"am=>alertmanager://127.0.0.1:{server.server_port}") as sink,
            pytest.raises(Rejected, match="400 ") as raised,
        ):
            sink.write(records(*events(3)))
        assert [told[0]["labels"]["key"] for told in server.told] == ["192.0.2.0", "192.0.2.2"]
    assert raised.value.indices == [1]


def test_an_alert_that_is_refused_again_ends_no_other(caplog):
    with receiving() as server:
        target = Target.from_script(f"am=>alertmanager://127.0.0.1:{server.server_port};resend=1")
        sink = target.sink()
        first, second, new = records(*events(3))
        for record in (first, second):
            sink.add(record)
        sink.connect()
        server.answers = [200, 400, 200, 400]
        with pytest.raises(Rejected, match="400 ") as raised:
            sink.write([new, RESEND])
        assert raised.value.indices == [1]
        sink.write([RESEND])
        told = [[alert["labels"]["key"] for alert in each] for each in server.told]
        assert told == [["192.0.2.2"], ["192.0.2.0"], ["192.0.2.0"]]
        sink.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_proxy_that_has_no_alertmanager_is_waited_for(status):
    with receiving() as proxy:
        proxy.answers = [status]
        with opened(f"am=>alertmanager://u:secret99@127.0.0.1:{proxy.server_port}/am/") as sink:
            with pytest.raises(RetryLater, match=f"{status}"):
                sink.write(records(event()))
            sink.write(records(event()))
        ((path, headers, _),) = proxy.posts
    assert path == "/am/api/v2/alerts"
    assert headers["authorization"].startswith("Basic ")
