"""Sinks and modules that misbehave where no packet waits for them: stores, loggers, the start."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
from servers import free_port

from homerd import testing
from homerd.api import BatchSink
from homerd.core.log import MOST_LINES, Limit


class Odd(BatchSink):
    """Raises what it is told to."""

    def __init__(self, connecting=(), writing=()):
        super().__init__("odd", batch_size=4)
        self.connecting, self.writing = list(connecting), list(writing)
        self.rows = []
        self.held = threading.Event()
        self.go_on = threading.Event()

    def connect(self):
        if self.connecting:
            raise self.connecting.pop(0)

    def write(self, batch):
        if self.writing == ["hang"]:
            self.held.set()
            self.go_on.wait(testing.SECONDS)
        for record in batch:
            if record == "poison":
                raise KeyError("no such column")
        self.rows += batch


def test_a_connect_that_raises_whatever_it_likes_is_tried_again():
    with testing.SinkRun(Odd(connecting=[KeyError("x"), OSError("y"), RuntimeError("z")])) as run:
        run.feed("a", "b")
        assert run.flush()
        assert (run.sink.rows, run.retries) == (["a", "b"], 2)


def test_a_write_that_always_raises_costs_the_records_it_is_about(tmp_path):
    with testing.SinkRun(Odd(), spool=tmp_path) as run:
        run.feed("a", "poison", "b", "poison")
        assert run.flush()
        assert sorted(run.sink.rows) == ["a", "b"]
        assert run.counts["rejected"] == 2
        assert [item["reason"] for item in run.quarantined] == ["KeyError: 'no such column'"] * 2


def test_records_behind_a_write_that_hangs_go_to_the_spool(tmp_path):
    with testing.SinkRun(Odd(writing=["hang"]), spool=tmp_path) as run:
        run.feed("a", "b", "c", "d")
        assert run.sink.held.wait(testing.SECONDS)
        run.feed("e", "f", "g", "h")
        run.tick()
        run.tick()
        testing.wait_until(lambda: run.counts["spooled"] == 4)
        run.sink.go_on.set()
        assert run.flush()
        assert sorted(run.sink.rows) == list("abcdefgh")
        counts = run.counts
        assert counts["added"] == counts["written"] == 8


@pytest.fixture
def limited():
    lines, left_out = [], []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handler.addFilter(Limit(left_out.append))
    logger = logging.getLogger("homerd_floods")
    logger.addHandler(handler)
    yield logger, lines, left_out
    logger.removeHandler(handler)


def record(second, text):
    made = logging.LogRecord("homerd_floods.part", logging.WARNING, "", 1, "%s", (text,), None)
    made.created = second + 0.5
    return made


def test_a_module_that_logs_for_ever_is_held_back(limited):
    logger, lines, left_out = limited
    for number in range(MOST_LINES + 50):
        logger.handle(record(7, f"line {number}"))
    logger.handle(record(8, "later"))
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == "later (50 lines before it left out)"
    assert left_out == ["homerd_floods.part"] * 50


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('raise KeyError("x")', "cannot start: KeyError: 'x' ("),
        ("import sys; sys.exit(3)", "cannot start: SystemExit: 3 ("),
        ("worker.add_sink(object())", "cannot start: AttributeError: "),
    ],
)
def test_a_startup_that_raises_is_one_line_and_status_1(tmp_path, body, told):
    (tmp_path / "broken.py").write_text(
        "from homerd.api import Plugin, hookimpl\n"
        "class Broken(Plugin):\n"
        "    @hookimpl\n"
        f"    def startup(self, worker):\n        {body}\n"
    )
    script = tmp_path / "homer.cfg"
    script.write_text(
        f'listen=udp:127.0.0.1:{free_port()}\nmpath "{tmp_path}"\nloadmodule "broken"\n'
        "request_route { drop; }\n"
    )
    command = [sys.executable, "-m", "homerd", "run", "-f", script, "--socket", tmp_path / "sock"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f'homerd: module "broken": {told}')
    assert len(done.stderr.splitlines()) == 1
