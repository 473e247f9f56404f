"""Modules that misbehave, and a server that goes on: faults by name, budgets, what is left out."""

from __future__ import annotations

import asyncio
import sys

import pytest

from homerd import testing
from homerd.api import (
    BatchSink,
    ConfigError,
    HttpAnswer,
    ModParam,
    Packet,
    PacketPolicy,
    Plugin,
    hookimpl,
    pseudo_variable,
    script_function,
    transformation,
)
from homerd.core import telemetry
from homerd.core.ledger import ledger
from homerd.errors import PluginError
from homerd.packet import MOST_EFFECTS, MOST_LINES


class Kept(BatchSink):
    """Keeps what is written."""

    def __init__(self):
        super().__init__("kept")
        self.rows = []

    def write(self, batch):
        self.rows += batch


class Store(Plugin):
    """A module that does what it should: store(text)."""

    @hookimpl
    def startup(self, worker):
        self.sink = worker.add_sink(Kept())

    @script_function
    def store(self, packet: Packet, text: str) -> bool:
        """Store *text*."""
        return packet.emit(self.sink, text)


class Bad(Plugin):
    """One that does not: each word fails in its own way."""

    raising = ModParam(str, "", help="hooks that raise")

    def __init__(self):
        self.calls = []

    def called(self, hook):
        self.calls.append(hook)
        if hook in self.raising.split():
            raise RuntimeError(f"on purpose\nin {hook}")

    @hookimpl
    def startup(self, worker):
        self.called("startup")
        self.sink = worker.add_sink(Kept())
        worker.every(1, lambda: self.called("timer"))

    @hookimpl
    def configure(self, changed):
        self.called("configure")

    @hookimpl
    def check_script(self, outline):
        self.called("check_script")
        return ()

    @hookimpl
    def packet_policy(self):
        self.called("packet_policy")
        return PacketPolicy(handlers={100: self.take}, http=self.answer)

    @hookimpl
    def script_swapped(self, worker):
        self.called("script_swapped")

    @hookimpl
    def shutdown(self, worker):
        self.called("shutdown")

    @hookimpl
    def metrics(self):
        self.called("metrics")
        return [("homerd_bad", {}, 1)]

    def take(self, packet):
        raise OSError("no handler")

    def answer(self, request):
        return HttpAnswer(200)

    @script_function
    def fail(self, packet: Packet) -> bool:
        """Raise."""
        raise KeyError("gone")

    @script_function
    def leave(self, packet: Packet) -> bool:
        """Try to end the process."""
        sys.exit("bye")

    @script_function
    def fine(self, packet: Packet) -> bool:
        """Work."""
        return True

    @pseudo_variable("bad")
    def bad(self, packet: Packet) -> str | None:
        """Raise."""
        raise KeyError("gone")

    @pseudo_variable("good")
    def good(self, packet: Packet) -> str | None:
        """A text."""
        return "good"

    @good.setter
    def set_good(self, packet: Packet, value: str | int | None) -> None:
        raise KeyError("gone")

    @pseudo_variable("seven")
    def seven(self, packet: Packet) -> int:
        """A number."""
        return 7

    @transformation("bad.up")
    def up(self, value: str) -> str:
        """In capitals."""
        return value.upper()

    @script_function
    def flood(self, packet: Packet) -> bool:
        """Emit for ever."""
        while True:
            packet.emit(self.sink, "x")

    @script_function
    def babble(self, packet: Packet) -> bool:
        """Log for ever."""
        while True:
            packet.log(-1, "x")


ODD = """
from homerd.api import Packet, Plugin, script_function

class Broken:
    name = "broken"

    def add(self, record):
        raise RuntimeError("full")

class Odd(Plugin):
    @script_function
    def odd(self, packet: Packet) -> bool:
        return packet.emit(Broken(), "x")
"""


HEAD = 'loadmodule "pv"\nloadmodule "xlog"\nloadmodule "store"\nloadmodule "bad"\n'


@pytest.fixture
def script():
    runs = []

    def start(text, **options):
        run = testing.Script(HEAD + text, Store, Bad, deliver=True, **options)
        runs.append(run)
        return run

    yield start
    for run in runs:
        run.stop()


def balances(run):
    return ledger(run.counters())["difference"] == 0


def feed(run, count, message=None):
    outcome = None
    for _ in range(count):
        outcome = run.feed(message or testing.request())
    return outcome


def plugin(run, name="bad"):
    return run.counters()["plugins"][name]


def rows(run):
    assert run.flush()
    return run.plugin("store").sink.rows


def test_a_word_that_raises_is_counted_by_its_module_and_the_packet_as_before(script):
    run = script('request_route { store("before"); fail(); store("after"); }')
    outcome = feed(run, 3)
    assert outcome.ended == "error"
    assert outcome.error.startswith("KeyError: 'gone' (")
    assert plugin(run)["errors"] == {"word": 3}
    assert rows(run) == ["before"] * 3
    assert balances(run)
    assert run.counters()["routed"] == {"request_route": 3}


def test_after_its_budget_a_module_is_left_out_and_the_route_goes_on(script, caplog):
    run = script('plugin_error_budget=5\nrequest_route { if (!fail()) store("$rm after"); }')
    feed(run, 4)
    assert (rows(run), plugin(run)["cut_off"]) == ([], "")
    feed(run, 4)
    assert rows(run) == ["INVITE after"] * 3
    assert plugin(run)["cut_off"] == "5 errors in 0 s"
    assert plugin(run)["skipped"] == 3
    assert balances(run)
    told = [text for text in caplog.messages if "cut off" in text]
    assert len(told) == 1
    assert "module=bad" in told[0]
    assert "KeyError: 'gone'" in told[0]
    assert "homerd reload" in told[0]


@pytest.mark.parametrize(
    ("statement", "then"),
    [
        ('xlog("$bad\\n");', "<null>"),
        ('xlog("$good\\n");', "<null>"),
        ('xlog("$seven\\n");', "0"),
        ('xlog("$(rm{bad.up})\\n");', ""),
        ('$good = "x"; xlog("set\\n");', "set"),
        ('if (fine()) xlog("yes\\n"); else xlog("no\\n");', "no"),
        ('if (defined $good) xlog("yes\\n"); else xlog("no\\n");', "no"),
        ('fail(); xlog("on\\n");', "on"),
    ],
)
def test_words_that_are_left_out_answer_nothing(script, statement, then):
    run = script(f"request_route {{ {statement} }}")
    run.worker.containment.cut_off("bad", "for a test")
    outcome = feed(run, 1)
    assert (outcome.lines, outcome.error) == ([then], "")
    assert plugin(run)["skipped"] >= 1


def test_a_word_that_fails_now_and_then_stays(script):
    run = script('plugin_error_budget=5\nrequest_route { if ($rm == "BYE") fail(); store("x"); }')
    for _ in range(8):
        feed(run, 10)
        feed(run, 1, testing.request("BYE"))
    assert plugin(run)["errors"] == {"word": 8}
    assert plugin(run)["cut_off"] == ""


def test_a_budget_of_0_leaves_nobody_out(script):
    run = script("plugin_error_budget=0\nrequest_route { fail(); }")
    feed(run, 200)
    assert plugin(run)["cut_off"] == ""
    assert plugin(run)["errors"] == {"word": 200}


def test_a_word_that_calls_exit_ends_nothing(script):
    run = script('request_route { leave(); } onreply_route { store("reply"); }')
    assert feed(run, 1).ended == "error"
    feed(run, 1, testing.reply())
    assert rows(run) == ["reply"]
    assert plugin(run)["errors"] == {"word": 1}


def test_a_module_that_calls_a_word_of_another_is_not_blamed_for_it(script):
    run = script('loadmodule "textops"\nrequest_route { xlog("$bad"); }')
    feed(run, 1)
    assert set(run.counters()["plugins"]) == {"bad"}


def test_a_timer_that_raises_does_not_stop_the_others(script):
    run = script(
        'modparam("bad", "raising", "timer")\nplugin_error_budget=3\n'
        'loadmodule "rtimer"\nmodparam("rtimer", "timer", "name=t;interval=1;mode=1;")\n'
        'modparam("rtimer", "exec", "timer=t;route=T")\n'
        'request_route { drop; } route[T] { store("tick"); }'
    )
    run.wait(10)
    assert rows(run) == ["tick"] * 10
    assert plugin(run)["errors"] == {"timer": 3}
    assert plugin(run)["skipped"] == 7
    assert run.plugin("bad").calls.count("timer") == 3


@pytest.mark.parametrize("hook", ["configure", "check_script", "packet_policy", "startup"])
def test_a_hook_that_raises_at_start_is_one_error_by_name(script, hook):
    with pytest.raises(PluginError) as raised:
        script(f'modparam("bad", "raising", "{hook}")\nrequest_route {{ drop; }}')
    assert str(raised.value).startswith('module "bad": ')
    assert "RuntimeError: on purpose" in str(raised.value)


def test_the_sinks_of_others_are_stopped_when_a_module_cannot_start(script):
    with pytest.raises(PluginError):
        script('modparam("bad", "raising", "startup")\nrequest_route { drop; }')


def test_hooks_that_raise_while_it_runs_are_counted(script, tmp_path):
    path = tmp_path / "homer.cfg"
    raising = "script_swapped metrics shutdown"
    path.write_text(
        f'{HEAD}modparam("bad", "raising", "{raising}")\nrequest_route {{ store("x"); }}'
    )
    run = testing.Script(path, Store, Bad, deliver=True)
    feed(run, 1)
    assert reload(run).result == "reloaded"
    assert b"homerd_bad" not in telemetry.page(run.worker).body
    feed(run, 1)
    assert rows(run) == ["x", "x"]
    run.stop()
    assert plugin(run)["errors"] == {"script_swapped": 1, "metrics": 1, "shutdown": 1}
    assert balances(run)


def reload(run):
    from homerd.core.reload import Reloader

    async def ask():
        return await Reloader(run.worker).reload("asked")

    return asyncio.run(ask())


def test_a_reload_lets_a_module_in_again(script, tmp_path):
    path = tmp_path / "homer.cfg"
    path.write_text(f"{HEAD}plugin_error_budget=2\nrequest_route {{ fail(); }}")
    run = testing.Script(path, Store, Bad, deliver=True)
    feed(run, 3)
    assert plugin(run)["cut_off"]
    path.write_text(f'{HEAD}request_route {{ if (fine()) store("again"); }}')
    outcome = reload(run)
    assert outcome.notes == ['module "bad" is let in again, after it failed']
    feed(run, 1)
    assert rows(run) == ["again"]
    assert plugin(run)["cut_off"] == ""
    run.stop()


def test_a_module_that_is_left_out_is_still_shut_down_unless_it_blocked(script):
    for blocks, calls in ((False, 1), (True, 0)):
        run = script("request_route { drop; }")
        if blocks:
            run.worker.containment.blocks("bad", "did not return")
        run.worker.containment.cut_off("bad", "for a test")
        run.stop()
        assert run.plugin("bad").calls.count("shutdown") == calls


def test_a_reload_that_is_refused_lets_nobody_in(script, tmp_path):
    path = tmp_path / "homer.cfg"
    path.write_text(f"{HEAD}plugin_error_budget=2\nrequest_route {{ fail(); }}")
    run = testing.Script(path, Store, Bad, deliver=True)
    feed(run, 3)
    path.write_text(f"{HEAD}request_route {{ fial(); }}")
    assert reload(run).result == "refused"
    assert feed(run, 1).error == ""
    assert plugin(run)["cut_off"]
    run.stop()


def test_who_is_left_out_stays_so_when_the_script_goes_back(script):
    run = script("request_route { fail(); }")
    run.worker.containment.cut_off("bad", "for a test")
    run.worker.swap(run.worker.program, [])
    assert feed(run, 1).error == ""


def test_what_takes_packets_in_place_of_the_script_is_left_out_too(script):
    run = script('plugin_error_budget=2\nrequest_route { store("x"); }')
    outcomes = [run.feed(testing.frame("x", type=100)) for _ in range(4)]
    assert [each.ended for each in outcomes] == ["error", "error", "handled", "handled"]
    assert plugin(run)["errors"] == {"word": 2}
    assert plugin(run)["skipped"] == 2
    assert run.worker.program.script.entry.http(None).status == 503
    assert balances(run)


@pytest.mark.parametrize(("word", "most"), [("flood", MOST_EFFECTS), ("babble", MOST_LINES)])
def test_records_and_log_lines_of_one_packet_are_bounded(script, word, most):
    run = script(f"request_route {{ {word}(); }}")
    run.worker.engine.deliver = False
    outcome = feed(run, 1)
    assert f"more than {most}" in outcome.error
    assert max(len(outcome.effects), len(outcome.log)) == most
    assert plugin(run)["errors"] == {"flood": 1}


def test_samples_of_one_module_are_bounded(script, monkeypatch):
    monkeypatch.setattr(telemetry, "MOST_SAMPLES", 3)
    run = script("request_route { drop; }")
    many = ((f"homerd_x{number}", {}, 1) for number in range(1_000_000_000))
    run.plugin("bad").metrics = lambda: many
    body = telemetry.page(run.worker).body
    assert b"homerd_x3 1" in body
    assert b"homerd_x9 1" not in body
    assert plugin(run)["errors"] == {"metrics": 1}


def test_a_sink_whose_add_raises_keeps_nothing_from_the_others(script, tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    run = script(
        f'mpath "{tmp_path}"\nloadmodule "odd"\nrequest_route {{ odd(); store("kept"); odd(); }}'
    )
    feed(run, 2)
    assert rows(run) == ["kept", "kept"]
    assert plugin(run, "odd")["errors"] == {"sink": 4}
    assert balances(run)


def test_metrics_and_status_name_the_module(script):
    from homerd.commands.status import lines

    run = script("plugin_error_budget=2\nrequest_route { fail(); }")
    feed(run, 3)
    body = telemetry.page(run.worker).body.decode()
    assert 'homerd_plugin_errors_total{plugin="bad",what="word"} 2' in body
    assert 'homerd_plugin_skipped_total{plugin="bad"} 1' in body
    assert 'homerd_plugin_cut_off{plugin="bad"} 1' in body
    told = "\n".join(lines(run.counters()))
    assert "module bad fails; last: KeyError: 'gone'" in told
    assert "cut off: 2 errors in 0 s; when it is mended homerd reload lets it in again" in told


def test_a_module_that_refuses_its_parameters_is_as_before(script):
    class Refusing(Plugin):
        """x"""

        @hookimpl
        def startup(self, worker):
            raise ConfigError("no such file")

    with pytest.raises(ConfigError, match=r"^no such file$"):
        testing.Script('loadmodule "refusing"\nrequest_route { drop; }', Refusing)
