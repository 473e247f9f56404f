"""Calls that other threads hand to the loop."""

import threading


def test_a_promised_call_runs_when_it_is_waited_for(worker_for):
    worker = worker_for('request_route { drop; } route[T] { keep("$var(n)"); }')
    deliver = worker.later()
    ran_in = []

    def call():
        ran_in.append(threading.current_thread())
        worker.run_route("T")

    threading.Thread(target=deliver, args=(call,)).start()
    assert worker.settle(10)
    assert ran_in == [threading.current_thread()]
    assert worker.promised == 0


def test_a_call_may_promise_another(worker_for):
    worker = worker_for("request_route { drop; }")
    order = []

    def first():
        order.append("first")
        worker.later()(lambda: order.append("second"))

    worker.later()(first)
    assert worker.settle(10)
    assert order == ["first", "second"]


def test_what_nobody_hands_over_is_not_waited_for_longer_than_asked(worker_for):
    worker = worker_for("request_route { drop; }")
    worker.later()
    assert not worker.settle(0)
    assert worker.promised == 1


def test_a_call_that_fails_is_counted_and_the_next_runs(worker_for):
    worker = worker_for("request_route { drop; }")
    order = []
    worker.later()(lambda: 1 // 0)
    worker.later()(lambda: order.append("next"))
    assert worker.settle(10)
    assert order == ["next"]
    assert worker.engine.route_errors == {"unknown": 1}
