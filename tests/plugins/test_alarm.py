"""Module alarm: thresholds, windows, keys, words; time is the script's clock."""

from __future__ import annotations

import pytest

from homerd.commands.status import lines
from homerd.core import metrics
from homerd.wire.hep import Frame
from homerd_plugins._alarm_definition import Definition
from homerd_plugins._alarm_event import AlarmEvent
from homerd_plugins._alarm_window import Window

MODULES = ("pv", "xlog", "textops", "alarm")
ROUTES = """
request_route {
    if ($hdr(X-Clear) != $null) { if (alarm_clear("a", "$hdr(X-Key)")) xlog("clear"); exit; }
    if ($hdr(X-Value) != $null) { alarm_value("a", "$hdr(X-Key)", "$hdr(X-Value)"); exit; }
    if (alarm_count("a", "$hdr(X-Key)", $(hdr(X-Count){s.int}))) xlog("is raised");
}
event_route[alarm:raised] { xlog("raised $alarm_event(key) $alarm_event(value)/$alarm_event(threshold)"); }
event_route[alarm:cleared] { xlog("cleared $alarm_event(key) $alarm_event(value) of $alarm_event(total)"); }
event_route[alarm:repeated] { xlog("repeated $alarm_event(key) $alarm_event(value)"); }
"""


class Alarms:
    """A script with the alarm "a", fed with counts, values and seconds."""

    def __init__(self, script, definition, extra="", routes=ROUTES):
        line = f'modparam("alarm", "alarm", "a=>{definition}")\n'
        self.runner = script(line + extra + routes, MODULES)
        self.plugin = self.runner.program.registry.plugin("alarm")

    def count(self, amount=1, key="k"):
        return self.runner.feed(message(f"X-Key: {key}", f"X-Count: {amount}"))

    def measure(self, value, key="k"):
        return self.runner.feed(message(f"X-Key: {key}", f"X-Value: {value}"))

    def clear(self, key="k"):
        return self.runner.feed(message(f"X-Key: {key}", "X-Clear: 1"))

    def wait(self, seconds=1):
        """What the event routes say in that time."""
        self.runner.lines.clear()
        self.runner.worker.advance(seconds)
        return list(self.runner.lines)

    def metric(self, name, **labels):
        return next(
            sample.value
            for sample in self.plugin.metrics()
            if sample.name == f"homerd_alarm_{name}" and sample.labels == labels
        )


def message(*headers, method="INVITE"):
    lines = [f"{method} sip:b@example.org SIP/2.0", "Call-ID: c1", f"CSeq: 1 {method}", *headers]
    return "\r\n".join(lines) + "\r\n\r\n"


@pytest.fixture
def alarms(script):
    return lambda definition, extra="", routes=ROUTES: Alarms(script, definition, extra, routes)


# Thresholds and time


def test_it_is_raised_at_its_threshold_and_cleared_at_the_other(alarms):
    run = alarms("window=60;raise=5;clear=2")
    run.count(4)
    assert run.wait() == []
    assert run.count(1) == ["is raised"]
    assert run.wait() == ["raised k 5/5"]
    run.wait(30)
    run.count(2)  # 7, of which 5 go when the first minute is over
    assert run.wait(31) == ["cleared k 2 of 7"]


def test_between_the_thresholds_nothing_changes(alarms):
    run = alarms("window=60;raise=5;clear=2")
    run.count(5)
    run.wait(30)
    run.count(3)
    assert run.wait(35) == []  # 3 left, above clear
    assert run.count(1) == ["is raised"]  # and 4, below raise, is raised still


def test_one_event_a_raised_state_however_much_comes(alarms):
    run = alarms("window=60;raise=5;clear=2")
    for _ in range(50):
        run.count(1)
    assert run.wait() == ["raised k 5/5"]
    assert run.wait(55) == []
    assert run.wait(10) == ["cleared k 0 of 50"]
    assert run.metric("raised_total", alarm="a") == 1


def test_what_is_older_than_the_window_does_not_count(alarms):
    run = alarms("window=60;raise=5")
    for _ in range(20):
        run.count(1)
        run.wait(16)  # four a minute
    assert run.metric("raised_total", alarm="a") == 0


def test_it_stays_raised_for_as_long_as_hold_says(alarms):
    run = alarms("window=10;raise=1;hold=300")
    run.count()
    assert run.wait() == ["raised k 1/1"]
    assert run.wait(297) == []
    assert run.wait(4) == ["cleared k 0 of 1"]


def test_it_is_not_raised_again_within_pause(alarms):
    run = alarms("window=10;raise=1;pause=100")
    run.count()
    assert run.wait(15) == ["raised k 1/1", "cleared k 0 of 1"]
    assert run.count() == []
    assert run.wait(20) == []
    assert run.metric("suppressed_total", alarm="a") == 1
    run.wait(100)
    assert run.count() == ["is raised"]


def test_what_is_still_so_when_pause_ends_is_raised_then(alarms):
    run = alarms("window=20;raise=1;pause=60")
    run.count()
    run.wait(25)
    for _ in range(8):
        run.count()
        lines = run.wait(10)
    assert lines == []
    assert run.metric("raised_total", alarm="a") == 2


def test_it_is_told_again_each_time_repeat_is_over(alarms):
    run = alarms("window=10;raise=1;hold=100;repeat=30")
    run.count()
    assert run.wait(95) == ["raised k 1/1", "repeated k 0", "repeated k 0", "repeated k 0"]


def test_without_clear_half_of_raise_is_where_it_clears():
    assert Definition.from_script("a=>raise=20").clear_at == 10


def test_keys_are_apart(alarms):
    run = alarms("window=60;raise=3")
    for key in ("x", "y", "y", "y"):
        run.count(1, key)
    assert run.wait() == ["raised y 3/3"]


def test_a_negative_amount_takes_back_but_not_below_nothing(alarms):
    run = alarms("window=60;raise=3")
    for amount in (-1, -1, 1, -1, 1, 1, -1, 1):
        run.count(amount)
    assert run.wait() == []
    run.count(1)
    assert run.wait() == ["raised k 3/3"]


def test_what_was_not_there_to_be_taken_back_is_no_part_of_the_total(alarms):
    run = alarms("window=60;raise=3;hold=300")
    run.count(3)
    run.wait(70)
    run.count(2)
    run.count(-50)
    run.count(1)
    assert run.wait(300)[-1] == "cleared k 0 of 4"


# Falling, and measured values


def test_an_alarm_that_falls_is_raised_when_what_was_there_stays_away(alarms):
    run = alarms("window=60;raise=0;clear=3")
    run.count(2)
    assert run.wait(50) == []
    assert run.wait(15) == ["raised k 0/0"]
    run.count(2)
    assert run.wait() == []
    run.count(1)
    assert run.wait() == ["cleared k 3 of 3"]


def test_an_alarm_that_falls_waits_for_a_whole_window(alarms):
    run = alarms("window=60;raise=5;clear=20")
    run.count(1)
    assert run.wait(58) == []
    assert len(run.wait(3)) == 1


def test_what_is_expected_is_missed_from_the_start(alarms):
    run = alarms("window=60;raise=0;clear=1;expect=all")
    assert run.wait(59) == []
    assert run.wait(2) == ["raised all 0/0"]


def test_a_key_that_is_silent_for_good_is_forgotten(alarms):
    run = alarms("window=10;raise=0;clear=1;forget=100")
    run.count()
    assert run.wait(20) == ["raised k 0/0"]
    assert run.wait(120) == ["cleared k 0 of 0"]
    assert run.metric("keys", alarm="a") == 0


def test_a_mean_is_raised_and_cleared(alarms):
    run = alarms("of=mean;window=60;raise=30;clear=20;samples=3")
    run.measure("50")
    run.measure("50")
    assert run.wait() == []  # two say nothing yet
    run.measure("5.5")
    assert run.wait() == ["raised k 35.167/30"]
    for _ in range(6):
        run.measure("1")
    assert run.wait() == ["cleared k 12.389 of 9"]


def test_a_mean_that_falls(alarms):
    run = alarms("of=mean;window=60;raise=3.1;clear=3.5")
    run.measure("4.2")
    assert run.wait() == []
    run.measure("1.9")
    assert run.wait() == ["raised k 3.05/3.1"]
    run.measure("4.5")
    assert run.wait() == ["cleared k 3.533 of 3"]


def test_the_last_value_counts_with_of_last(alarms):
    run = alarms("of=last;window=60;raise=80;clear=50")
    run.measure("79")
    run.measure("81")
    assert run.wait() == ["raised k 81/80"]
    run.measure("10")
    assert run.wait() == ["cleared k 10 of 3"]


def test_without_any_value_left_a_measured_alarm_clears(alarms):
    run = alarms("of=mean;window=60;raise=30")
    run.measure("50")
    assert run.wait() == ["raised k 50/30"]
    assert run.wait(60) == ["cleared k 0 of 1"]


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e999"])
def test_a_value_that_is_no_number_is_refused_and_counted(alarms, value):
    run = alarms("of=mean;raise=1")
    run.measure(value)
    assert run.metric("refused_total", reason="not_a_number") == 1


def test_counting_a_measured_alarm_and_the_other_way_round_is_counted(alarms):
    measured, counted = alarms("of=mean;raise=1"), alarms("raise=1")
    measured.count()
    counted.measure("5")
    assert measured.metric("refused_total", reason="not_a_count") == 1
    assert counted.metric("refused_total", reason="not_a_value") == 1


# Words


def test_the_script_clears_an_alarm(alarms):
    run = alarms("raise=2")
    assert run.clear() == []
    run.count(2)
    assert run.wait() == ["raised k 2/2"]
    assert run.clear() == ["clear"]
    assert run.wait() == ["cleared k 2 of 2"]
    run.count(1)
    assert run.wait() == []  # what was counted before is forgotten


def test_state_and_count_can_be_asked_for(alarms):
    routes = """request_route {
        alarm_count("a", "$si"); $var(count) = $alarm(a=>$si);
        if (alarm_raised("a", "$si")) xlog("raised at $var(count)"); else xlog("quiet at $var(count)");
        xlog("$alarm(a=>nobody)");
    }"""
    run = alarms("raise=2", routes=routes)
    assert run.runner.feed(message()) == ["quiet at 1", "0"]
    assert run.runner.feed(message()) == ["raised at 2", "0"]


def test_an_event_route_runs_on_the_packet_that_raised_the_alarm(alarms):
    routes = """request_route { $var(x) = 1; alarm_count("a", "$si", 1, "from $ua"); }
    event_route[alarm:raised] {
        xlog("$rm $si $ua: $alarm_event(name) $alarm_event(severity) $alarm_event(description) $alarm_event(window) $var(x)");
    }"""
    run = alarms("raise=1;severity=major;description=of no use", routes=routes)
    assert run.runner.feed(message("User-Agent: sipcli")) == []
    assert run.wait() == ["INVITE 10.0.0.1 sipcli: a major from sipcli 60 0"]


def test_without_a_key_all_is_counted_together(alarms):
    run = alarms("raise=2", routes='request_route { if (alarm_count("a")) xlog("raised"); }')
    assert [run.runner.feed(message()), run.runner.feed(message())] == [[], ["raised"]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('alarm_count("scaner");', 'unknown alarm "scaner": did you mean "scanner"?'),
        ('alarm_count("x");', "(defined: loss, scanner, spool)"),
        ('alarm_count($var(x));', "alarm_count"),
        ('xlog("$alarm(scaner=>x)");', 'did you mean "scanner"?'),
        ('xlog("$alarm(scanner)");', "expected NAME=>key"),
        ('xlog("$alarm_event(colour)");', "expected one of id, name, key"),
    ],
)  # fmt: skip
def test_a_word_with_a_wrong_argument_does_not_compile(refusal, line, said):
    head = 'modparam("alarm", "alarm", "scanner=>raise=5")\n'
    assert said in refusal(head + f"request_route {{ {line} }}", MODULES)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("scanner", 'expected "NAME=>window=60;raise=20'),
        ("sc anner=>raise=1", "the name of letters"),
        ("a=>window=60", 'alarm "a": raise= is missing'),
        ("a=>rise=20", 'unknown attribute "rise": did you mean "raise"?'),
        ("a=>raise=20;raise=2", "raise= is there twice"),
        ("a=>raise=many", 'raise= takes a number, got "many"'),
        ("a=>raise=nan", 'raise= takes a number, got "nan"'),
        ("a=>raise=5;clear=5", "raise and clear are both 5"),
        ("a=>raise=0", "always be so"),
        ("a=>raise=-1;clear=1", "never reached"),
        ("a=>raise=5;window=0", 'window= takes a number from 1 to 86400, got "0"'),
        ("a=>raise=5;window=99999999999999999999999", "window= takes a number"),
        ("a=>raise=5;hold=1.5", "hold= takes a number"),
        ("a=>raise=5;severity=bad", "severity= takes one of info, warning"),
        ("a=>raise=5;of=max", "of= takes one of count, mean, last"),
        ("a=>raise=5;samples=3", "samples= is for of=mean"),
        ("a=>raise=5;expect=all", "expect= is for an alarm that falls"),
        ("a=>raise=3.1;when=low", "when=low needs a clear= above raise=3.1"),
        ("a=>raise=3;clear=4;when=high", "when=high needs a clear= below raise=3, or none"),
        ("a=>raise=3;when=up", 'when= takes one of high, low, got "up"'),
    ],
)
def test_a_wrong_definition_does_not_compile(refusal, value, said):
    told = refusal(f'modparam("alarm", "alarm", "{value}")\nrequest_route {{ drop; }}', MODULES)
    assert said in told
    assert 'modparam("alarm", "alarm"): ' in told


def test_two_alarms_of_one_name_do_not_compile(refusal):
    lines = 'modparam("alarm", "alarm", "a=>raise=1")\n' * 2
    assert 'the alarm "a" is defined already' in refusal(lines + "request_route { drop; }", MODULES)


def test_an_alarm_for_a_target_that_there_is_not_does_not_compile(refusal):
    script = (
        'modparam("alarm", "target", "ops=>http://127.0.0.1:1/x")\n'
        'modparam("alarm", "alarm", "a=>raise=1;notify=ops,opps")\nrequest_route { drop; }'
    )
    assert 'alarm "a": unknown target "opps": did you mean "ops"?' in refusal(script, MODULES)


def test_a_store_that_there_is_not_does_not_compile(refusal):
    script = 'modparam("alarm", "db_url", "sqlit://alarms.db")\nrequest_route { drop; }'
    said = 'db_url: there is no store for sqlit: did you mean "sqlite"?'
    assert said in refusal(script, MODULES)


def test_a_description_may_hold_what_it_likes():
    said = Definition.from_script("a=>raise=1;description=more than 20; clear=5 = enough;")
    assert said.description == "more than 20; clear=5 = enough"
    assert said.clear_at == 0.5


# Bounds


def test_keys_are_bounded_and_what_comes_then_is_counted_together(alarms):
    run = alarms("raise=3;keys=2")
    for key in ("x", "y", "p", "q", "r"):
        run.count(1, key)
    assert run.wait() == ["raised other 3/3"]
    assert run.metric("over_budget_total", alarm="a") == 3
    assert run.metric("keys", alarm="a") == 3


def test_a_key_that_is_one_too_many_can_be_asked_for(alarms):
    routes = """request_route {
        alarm_count("a", "$hdr(X-Key)");
        xlog("$alarm(a=>$hdr(X-Key)) $alarm(a=>never)");
        if (alarm_raised("a", "$hdr(X-Key)")) xlog("raised");
        if ($hdr(X-Clear) != $null && !alarm_clear("a", "$hdr(X-Key)")) xlog("others stay");
    }"""
    feed = alarms("raise=2;keys=1", routes=routes).runner.feed
    assert feed(message("X-Key: x")) == ["1 0"]  # nobody was one too many yet
    assert feed(message("X-Key: y")) == ["1 1"]
    assert feed(message("X-Key: z", "X-Clear: 1")) == ["2 2", "raised", "others stay"]
    assert feed(message("X-Key: x", "X-Clear: 1")) == ["2 2", "raised"]


def test_phones_that_are_let_in_raise_no_alarm_in_a_full_table(alarms):
    routes = """request_route {
        if ($alarm(a=>$hdr(X-Key)) > 0) alarm_count("a", "$hdr(X-Key)", -1);
    }
    onreply_route { alarm_count("a", "$hdr(X-Key)"); }"""
    run = alarms("raise=5;keys=3", routes=routes)
    for number in range(100):
        asked = message(f"X-Key: {number}").replace("INVITE sip:b@example.org", "SIP/2.0 401")
        run.runner.feed(asked.replace(" SIP/2.0\r\n", " Unauthorized\r\n", 1))
        if number >= 3:
            run.runner.feed(message(f"X-Key: {number}"))
    assert run.metric("over_budget_total", alarm="a") > 90
    assert run.metric("raised_total", alarm="a") == 0


def test_keys_that_nothing_is_known_of_any_more_make_room(alarms):
    run = alarms("window=10;raise=3;keys=2")
    run.count(1, "x")
    run.count(1, "y")
    run.wait(25)
    run.count(1, "z")
    assert run.metric("over_budget_total", alarm="a") == 0
    assert run.metric("keys", alarm="a") == 1


def test_of_many_keys_all_make_room(alarms):
    run = alarms("window=10;raise=3;keys=2500")
    for number in range(2500):
        run.count(1, number)
    run.wait(25)
    assert run.metric("keys", alarm="a") == 0
    assert run.metric("over_budget_total", alarm="a") == 0


def test_a_key_is_cut(alarms):
    run = alarms("raise=1")
    run.count(1, "x" * 60_000)
    run.count(1, "x" * 60_000)
    assert run.metric("keys", alarm="a") == 1
    assert run.wait() == [f"raised {'x' * 128} 1/1"]


def test_a_window_is_small_however_much_is_counted():
    window = Window(60)
    for second in range(100_000):
        window.add(second / 10, 1)
    assert window.value(9999.9, "count") in range(570, 601)
    assert len(window._buckets) <= 20


def test_a_clock_that_is_set_back_begins_the_window_anew():
    window = Window(60)
    window.add(10_000, 5)
    assert window.add(100, 1) == 1


def test_fractions_leave_nothing_behind():
    window = Window(60)
    for second in range(1000):
        window.add(second, 0.1)
    window.move(5000)
    assert window.sum == 0


# Evidence


def feed(run, payload, **parts):
    frame = Frame(3, 2, 17, b"\xc0\0\2\1", b"\xc0\0\2\2", 5060, 5061, 1_700_000_000, 7, 1, 42)
    frame.payload = frame.raw = payload
    for name, value in parts.items():
        setattr(frame, name, value)
    return run.runner.worker.engine.feed(frame)[0]


def raised(run, number, **parts):
    """Event of the alarm that the last of *number* packets raises."""
    for each in range(number):
        text = message(f"X-Number: {each}").replace("c1", f"call-{each}").encode()
        packet = feed(run, text, **parts)
    return packet


def rows(packet, table):
    return [record[2] for _, record in packet.effects if record[0] == table]


STORE = 'modparam("alarm", "db_url", "sqlite://x.db")\n'
COUNT = 'request_route { alarm_count("a", "$si"); }'


def test_the_packets_that_raised_it_are_its_evidence_the_first_of_them_whole(
    alarms, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = alarms("raise=5;evidence=4;whole=2;description=many", STORE, COUNT)
    packet = raised(run, 5, correlation_id="x1")
    (alarm,) = rows(packet, "alarm_data")
    assert alarm[1:] == ("a", 5, "192.0.2.1", "192.0.2.1: many", 1)
    seen = rows(packet, "alarm_evidence")
    assert {row[0] for row in seen} == {alarm[0]}
    assert [row[1:2] + row[3:11] for row in seen] == [
        (
            1_700_000_000_000_007,
            "a",
            "192.0.2.1",
            "192.0.2.1:5060",
            "192.0.2.2:5061",
            "42",
            "INVITE",
            f"call-{n}",
            "x1",
        )
        for n in (1, 2, 3, 4)
    ]
    assert [bool(row[11]) for row in seen] == [True, True, False, False]
    assert "X-Number: 1" in seen[0][11]


def test_packets_older_than_the_window_are_no_evidence(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = alarms("window=60;raise=2", STORE, COUNT)
    raised(run, 1)
    run.wait(70)
    assert len(rows(raised(run, 2), "alarm_evidence")) == 2


def test_evidence_is_bounded_over_all_keys(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = STORE + 'modparam("alarm", "evidence_memory", 1)\n'
    run = alarms("raise=1000", extra, COUNT)
    for number in range(200):
        feed(run, message().encode() + b"x" * 10_000, src=bytes((10, 0, 0, number)))
    assert run.metric("evidence_bytes") <= 1 << 20
    assert run.metric("evidence_refused_total") > 0
    run.wait(130)
    assert run.metric("evidence_bytes") == 0


def test_the_packet_that_raises_is_kept_even_without_room(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = STORE + 'modparam("alarm", "evidence_memory", 0)\n'
    packet = raised(alarms("raise=3", extra, COUNT), 3)
    assert [row[9] for row in rows(packet, "alarm_evidence")] == ["call-2"]


def test_without_evidence_no_packet_is_kept(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = alarms("raise=3;evidence=0", STORE, COUNT)
    assert rows(raised(run, 3), "alarm_evidence") == []
    assert run.metric("evidence_bytes") == 0


def test_a_packet_there_is_no_room_for_is_let_go_when_it_raises_nothing(alarms):
    run = alarms("of=mean;raise=3", 'modparam("alarm", "evidence_memory", 0)\n')
    run.measure(1)
    assert run.metric("evidence_bytes") == 0


def test_a_timer_has_no_packet_for_evidence(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = 'loadmodule "rtimer"\nmodparam("rtimer", "timer", "name=t;interval=1;mode=1;")\n'
    head += 'modparam("rtimer", "exec", "timer=t;route=T")\n'
    run = alarms("raise=1", head, 'request_route { drop; } route[T] { alarm_count("a"); }')
    assert run.plugin.alarms["a"].raised == 0
    run.wait(2)
    (subject,) = run.plugin.alarms["a"].subjects.values()
    assert (subject.raised != "", len(subject.seen)) == (True, 0)


def test_bytes_that_are_no_text_are_mended_in_events(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = alarms("raise=1", STORE, 'request_route { alarm_count("a", "$ua", 1, "$ua"); }')
    packet = feed(run, message("User-Agent: \udcff\udcfe\0x").encode("utf-8", "surrogateescape"))
    (alarm,) = rows(packet, "alarm_data")
    assert alarm[4] == "��\ufffdx: ��\ufffdx"


@pytest.mark.parametrize("payload", [b"", b"\xff" * 70, b"SIP/2.0 200 OK\r\n\r\n", b"INVITE\r\n"])
def test_evidence_of_anything_can_be_told(alarms, tmp_path, monkeypatch, payload):
    from homerd_plugins._alarm_evidence import evidence_of

    (told,) = evidence_of([(1.5, Frame(0, payload=payload))], 1)
    assert (told.seconds, told.micros, told.capture_id) == (1, 500_000, 0)


def test_an_event_comes_back_from_its_record(alarms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = alarms("raise=2;severity=critical;description=text", STORE + TARGET, COUNT)
    packet = raised(run, 2)
    (record,) = [record for sink, record in packet.effects if sink.name == "alarm_ops"]
    event = AlarmEvent.from_record(record)
    assert event.as_record() == record
    assert event.line().startswith(
        "critical: a raised for 192.0.2.1: 2 in 60 s, threshold 2, node "
    )
    assert len(event.evidence) == 2


# Targets

TARGET = 'modparam("alarm", "target", "ops=>http://127.0.0.1:1/x")\n'
BOTH = TARGET + 'modparam("alarm", "target", "noc=>http://127.0.0.1:2/x")\n'


@pytest.mark.parametrize(
    ("notify", "told"),
    [("", ["alarm_ops", "alarm_noc"]), (";notify=noc", ["alarm_noc"]), (";notify=", [])],
)
def test_an_alarm_tells_the_targets_it_names_or_all(alarms, notify, told):
    packet = raised(alarms("raise=1" + notify, BOTH, COUNT), 1)
    assert [sink.name for sink, _ in packet.effects] == told


def test_ids_are_one_from_raise_to_clear_and_then_others(alarms):
    routes = COUNT + 'event_route[alarm:raised] { xlog("$alarm_event(id)"); }'
    routes += 'event_route[alarm:cleared] { xlog("$alarm_event(id)"); }'
    run = alarms("window=10;raise=1", "", routes)
    raised(run, 1)
    first = run.wait(20)
    raised(run, 1)
    second = run.wait(20)
    assert first[0] == first[1] != second[0] == second[1]


def test_status_tells_of_alarms_that_are_raised(alarms):
    run = alarms("raise=1;severity=critical;description=too many\n")
    for number in range(25):
        run.count(1, f"k{number}")
        run.wait(1)
    told = metrics.snapshot(run.runner.worker)
    assert len(told["notices"]) == 21
    assert told["notices"][0].startswith("critical alarm a for k24 since 20")
    assert told["notices"][0].endswith(": too many")
    assert told["notices"][20] == "and 5 more alarms"
    assert f"notice    {told['notices'][0]}" in list(lines(told))
