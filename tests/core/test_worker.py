import pytest

from homerd.errors import ConfigError


def test_script_lines_go_where_the_worker_was_told(worker_for):
    lines = []
    worker = worker_for(
        'debug=1\nrequest_route { drop; }\nroute[HELLO] { xlog("L_NOTICE", "$rm $ci $ru\\n"); }',
        log=lambda level, text: lines.append((level, text)),
    )
    assert worker.run_route("HELLO") == "end"
    assert lines == [(1, "OPTIONS 123 sip:you@kamailio.org\n")]


@pytest.mark.parametrize(
    ("statement", "ending"),
    [("drop;", "drop"), ("exit;", "exit"), ("fail();", "error")],
)
def test_a_route_tells_how_it_ended(worker_for, statement, ending):
    worker = worker_for(f"request_route {{ drop; }} route[X] {{ {statement} }}")
    assert worker.run_route("X") == ending


def test_a_route_or_event_that_is_not_there_gives_nothing(worker_for):
    worker = worker_for("request_route { drop; }")
    assert worker.run_route("X") == ""
    assert worker.run_event("htable:mod-init") == ""


def test_effects_of_a_route_are_delivered(worker_for):
    worker = worker_for('request_route { drop; } event_route[core:tick] { keep("$rm"); }')
    assert worker.run_event("core:tick") == "end"
    assert worker.flush(10)
    assert worker.probe.sink.rows == ["OPTIONS"]


def test_timers_run_on_the_scripts_clock(worker_for):
    worker = worker_for('request_route { drop; } route[T] { keep("$TS"); }')
    worker.every(10, lambda: worker.run_route("T"))
    before = worker.now()
    worker.advance(25)
    assert worker.flush(10)
    first, second = (int(row) for row in worker.probe.sink.rows)
    assert second - first == 10
    assert worker.now() - before >= 25


def test_a_timer_keeps_variables_of_its_own(worker_for):
    worker = worker_for(
        'request_route { drop; } route[T] { $var(n) = $var(n) + 1; keep("$var(n)"); }'
    )
    state = worker.new_state()
    worker.run_route("T", state)
    worker.run_route("T", state)
    worker.run_route("T")
    assert worker.flush(10)
    assert worker.probe.sink.rows == ["1", "2", "1"]


def test_a_timer_that_fails_is_counted_and_comes_again(worker_for):
    worker = worker_for("request_route { drop; }")
    worker.every(1, lambda: 1 // 0)
    worker.advance(2)
    assert worker.engine.route_errors == {"unknown": 2}


def test_stop_tells_the_plugins_before_the_sinks_end(worker_for):
    worker = worker_for('request_route { drop; } route[T] { keep("late"); }')
    worker.run_route("T")
    worker.stop()
    worker.stop()
    assert worker.probe.calls == ["startup", "shutdown"]
    assert worker.probe.sink.rows == ["late"]


def test_a_port_in_use_names_the_listen_value(worker_for, free_port):
    script = (
        f"listen=udp:127.0.0.1:{free_port} tcp:127.0.0.1:{free_port}\nrequest_route {{ drop; }}"
    )
    first, second = worker_for(script), worker_for(script)
    first.open(first.program.settings.listen)
    with pytest.raises(ConfigError, match=rf'listen "udp:127.0.0.1:{free_port}".*in use'):
        second.open(second.program.settings.listen)
    assert second.sources == []
