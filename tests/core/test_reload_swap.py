"""Reload within a process: what is swapped, what stays, what is refused, when it goes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from homerd.core import metrics
from homerd.core.engine import Engine
from homerd.core.program import load
from homerd.core.reload import Limits, Reloader
from homerd.core.worker import Worker
from homerd.wire import hep

MODULES = Path(__file__).parent / "modules"
HEAD = f'mpath "{MODULES}"\nloadmodule "pv"\nloadmodule "probe"\n'
INVITE = b"INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"


class Running:
    """A worker on a script file, and its reloader."""

    def __init__(self, path: Path, text: str, **limits) -> None:
        self.path = path
        self.save(text)
        self.lines: list[str] = []
        self.worker = Worker(load(path), log=lambda level, line: self.lines.append(line))
        self.worker.start()
        self.reloader = Reloader(self.worker, Limits(**limits))

    def save(self, text: str) -> None:
        self.path.write_text(HEAD + text)

    def reload(self, text: str | None = None, why: str = "asked", digest: str = ""):
        if text is not None:
            self.save(text)
        return asyncio.run(self.reloader.reload(why, digest))

    @property
    def engine(self) -> Engine:
        return self.worker.engine

    def plugin(self, name: str):
        return self.worker.program.registry.plugin(name)

    def send(self, count: int = 1) -> None:
        frame = hep.Frame(3, hep.IPV4, 17, payload_type=1, payload=INVITE)
        for _ in range(count):
            self.engine.feed(frame)

    def kept(self) -> list[str]:
        assert self.worker.flush(10)
        rows, self.plugin("probe").sink.rows = self.plugin("probe").sink.rows, []
        return rows


@pytest.fixture
def running(tmp_path):
    started = []

    def start(text, **limits):
        started.append(Running(tmp_path / "homer.cfg", text, **limits))
        return started[-1]

    yield start
    for each in started:
        each.worker.stop()


def codes(outcome) -> list[str]:
    return [item.code for item in outcome.diagnostics]


def test_the_new_script_takes_the_next_packet(running):
    run = running('request_route { keep("old"); }')
    run.send()
    outcome = run.reload('request_route { keep("new"); }')
    run.send()
    assert (outcome.result, run.kept()) == ("reloaded", ["old", "new"])


def test_variables_tables_sinks_and_counters_stay(running):
    script = """
        loadmodule "htable"
        modparam("htable", "htable", "a=>size=8")
        request_route {{ $var(n) = $var(n) + 1; $sht(a=>k) = $(sht(a=>k){{s.int}}) + 1; keep("{}$var(n) $sht(a=>k)"); }}
    """
    run = running(script.format("old "))
    sink, plugin = run.plugin("probe").sink, run.plugin("htable")
    run.send(2)
    run.reload(script.format("new "))
    run.send(2)
    assert run.kept() == ["old 1 1", "old 2 2", "new 3 3", "new 4 4"]
    assert (run.plugin("probe").sink, run.plugin("htable")) == (sink, plugin)
    assert run.engine.received == 4
    assert run.engine.routed == {"request_route": 4}


def test_a_timer_keeps_its_beat_and_runs_the_route_of_the_new_script(running):
    run = running('request_route { drop; } route[T] { keep("old"); }')
    run.worker.every(10, lambda: run.worker.run_route("T"))
    run.worker.advance(15)
    run.reload('request_route { drop; } route[T] { keep("new"); }')
    run.worker.advance(5.5)
    assert run.kept() == ["old", "new"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('request_route { keeep("x"); }', "E201"),
        ("request_route { keep( }", "E101"),
        ('include_file "gone.cfg"\nrequest_route { drop; }', "E104"),
        ('loadmodule "nowhere"\nrequest_route { drop; }', "E401"),
        ("listen=udp:127.0.0.1:1\nrequest_route { drop; }", "E408"),
        ("receive_buffer=1M\nrequest_route { drop; }", "E408"),
        ("workers=2\nrequest_route { drop; }", "E408"),
    ],
)
def test_a_script_that_cannot_be_changes_nothing_and_is_reported(running, text, code):
    run = running('request_route { keep("old"); }')
    outcome = run.reload(text)
    run.send()
    assert outcome.result == "refused"
    assert code in codes(outcome)
    assert run.kept() == ["old"]
    status = metrics.snapshot(run.worker)
    assert status["reloads"] == {"reloaded": 0, "refused": 1, "rolled_back": 0}
    assert status["last_reload"]["result"] == "refused"
    assert code in status["last_reload"]["diagnostics"]


def test_a_script_that_is_gone_changes_nothing(running):
    run = running('request_route { keep("old"); }')
    run.path.unlink()
    outcome = run.reload()
    run.send()
    assert (outcome.result, run.kept()) == ("refused", ["old"])
    assert "no such file" in outcome.message


EXTRA = 'loadmodule "extra"\n{}\nrequest_route {{ count(); }}'


def test_a_reloadable_parameter_takes_its_new_value_and_the_module_is_told(running):
    run = running(EXTRA.format('modparam("extra", "greeting", "hi")'))
    extra = run.plugin("extra")
    assert (
        run.reload(EXTRA.format('modparam("extra", "greeting", "good day")')).result == "reloaded"
    )
    assert extra.greeting == "good day"
    assert run.reload(EXTRA.format("")).result == "reloaded"
    assert extra.greeting == "hello"
    assert extra.told == [[], "startup", ["greeting"], "swapped", ["greeting"], "swapped"]


def test_an_unchanged_parameter_is_no_change(running):
    run = running(EXTRA.format('modparam("extra", "place", "there")'))
    assert run.reload(EXTRA.format('\n\nmodparam("extra", "place", "there")')).result == "reloaded"
    assert run.plugin("extra").told == [[], "startup", "swapped"]


@pytest.mark.parametrize("line", ['modparam("extra", "place", "there")', ""])
def test_a_parameter_that_needs_a_restart_is_refused_by_name(running, line):
    run = running(EXTRA.format('modparam("extra", "place", "home")'))
    outcome = run.reload(EXTRA.format(line))
    assert outcome.described()["diagnostics"].count(
        'error[E408]: modparam("extra", "place") cannot change while homerd runs: it needs a restart'
    )
    assert run.plugin("extra").place == "home"
    assert run.plugin("extra").told == [[], "startup"]


def test_a_refused_script_leaves_the_running_parameters_alone(running):
    run = running(EXTRA.format('modparam("extra", "greeting", "hi")'))
    outcome = run.reload(
        EXTRA.format('modparam("extra", "greeting", "x")').replace("count", "cunt")
    )
    assert outcome.result == "refused"
    assert run.plugin("extra").greeting == "hi"


def test_a_module_may_refuse_its_new_parameters(running):
    run = running(EXTRA.format('modparam("extra", "greeting", "hi")'))
    outcome = run.reload(EXTRA.format('modparam("extra", "greeting", "refuse")'))
    assert (outcome.result, outcome.message) == ("refused", "no greeting; the old script stays")
    assert run.plugin("extra").greeting == "hi"


def test_a_new_module_is_started_and_one_no_longer_loaded_goes_on(running):
    run = running("request_route { drop; }")
    loaded = run.reload(EXTRA.format(""))
    run.send(2)
    extra = run.plugin("extra")
    assert (extra.counted, extra.told) == (2, [[], "startup", "swapped"])
    assert loaded.notes == ['module "extra" was loaded and started']
    gone = run.reload("request_route { drop; }")
    assert gone.notes == ['module "extra" is no longer loaded: it goes on until a restart']
    again = run.reload(EXTRA.format(""))
    run.send()
    assert again.notes == []
    assert run.plugin("extra") is extra
    assert extra.counted == 3
    run.worker.stop()
    assert extra.told[-1] == "shutdown"
    assert extra.told.count("startup") == 1


def test_a_table_may_be_added_and_not_changed(running):
    def script(*tables):
        lines = "\n".join(f'modparam("htable", "htable", "{table}")' for table in tables)
        return (
            f'loadmodule "htable"\n{lines}\nrequest_route {{ $sht(b=>k) = 1; keep("$sht(b=>k)"); }}'
        )

    run = running(script("a=>size=8"))
    run.send()
    assert run.reload(script("a=>size=4", "b=>size=8;autoexpire=60")).result == "reloaded"
    run.send()
    assert run.kept() == ["<null>", "1"]
    run.worker.advance(81)
    assert len(run.plugin("htable").tables["b"]._values) == 0
    assert codes(run.reload(script("a=>size=8;autoexpire=5", "b=>size=8;autoexpire=60"))) == [
        "E408"
    ]
    assert codes(run.reload(script("a=>size=8"))) == ["W906", "E408"]


def test_globals_and_the_log_level_follow(running):
    text = 'debug={}\nloadmodule "xlog"\nrequest_route {{ xlog("L_INFO", "seen\\n"); keep("$sel(cfg_get.my.title)"); }}'
    run = running('my.title = "one" desc "d"\n' + text.format(1))
    run.send()
    run.reload('my.title = "two" desc "d"\n' + text.format(2))
    run.send()
    assert (run.kept(), run.lines) == (["one", "two"], ["seen\n"])


def test_a_script_saved_again_after_it_was_compared_is_not_swapped(running):
    run = running("request_route { drop; }")
    outcome = run.reload('request_route { keep("new"); }', digest="another")
    assert (outcome.result, outcome.message) == (
        "refused",
        "the script was saved again after it was compared; the old script stays",
    )


def test_saving_without_a_change_is_no_reload(running):
    run = running("request_route { drop; }")
    assert run.reload(why="saved").result == "unchanged"
    assert metrics.snapshot(run.worker)["reloads"]["reloaded"] == 0


def test_what_is_watched_are_the_files_of_the_script_and_of_one_that_was_refused(running, tmp_path):
    run = running("request_route { drop; }")
    part = tmp_path / "part.cfg"
    part.write_text("route[A] { nonsense(); }")
    run.reload(f'include_file "{part}"\nrequest_route {{ route(A); }}')
    assert run.reloader.files == {run.path, part}


# Going back


def test_a_script_that_fails_too_often_gives_way_to_the_one_before(running):
    run = running('request_route { keep("old"); }', share=0.05, packets=20)
    run.reload("request_route { fail(); }")
    run.send(19)
    run.reloader.look()
    assert run.worker.reloads.counts["rolled_back"] == 0
    run.send()
    run.reloader.look()
    run.send()
    assert run.kept() == ["old"]
    last = metrics.snapshot(run.worker)["last_reload"]
    assert last["result"] == "rolled_back"
    assert last["message"].startswith("20 errors in 20 packets, most at ")


def test_as_many_failures_as_before_are_no_reason(running):
    text = 'request_route {{ $var(n) = $var(n) + 1; if ($var(n) mod 2 == 0) fail(); keep("{}"); }}'
    run = running(text.format("old"), share=0.05)
    run.send(40)
    run.reload(text.format("new"))
    run.send(40)
    run.reloader.look()
    assert run.worker.reloads.counts["rolled_back"] == 0


def test_parameters_go_back_with_the_script(running):
    run = running(EXTRA.format('modparam("extra", "greeting", "hi")'))
    run.reload(EXTRA.format('modparam("extra", "greeting", "x")').replace("count", "fail"))
    run.send(20)
    run.reloader.look()
    run.send(3)
    assert run.plugin("extra").greeting == "hi"
    assert run.plugin("extra").counted == 3


def test_two_bad_scripts_in_a_row_lead_back_to_the_good_one(running):
    run = running('request_route { keep("good"); }')
    run.reload("request_route { fail(); }")
    run.reload("request_route { fail(); drop; }")
    run.send(20)
    run.reloader.look()
    run.send()
    assert run.kept() == ["good"]


def test_a_share_of_nothing_turns_it_off(running):
    run = running('request_route { keep("old"); }', share=0)
    run.reload("request_route { fail(); }")
    run.send(100)
    run.reloader.look()
    assert run.worker.reloads.counts["rolled_back"] == 0
