"""Module exec, with commands that are really run."""

from __future__ import annotations

import logging
import os
import select

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError
from homerd.wire.hep import Frame

MODULES = ("pv", "xlog", "avpops", "exec")
ON = 'modparam("exec", "enabled", 1)\nmodparam("exec", "timeout", 20)\n'


@pytest.fixture
def run(tmp_path, invite):
    """Routes an INVITE through statements; gives what is logged, once all commands have ended."""

    def make(statements, params=ON, message=invite):
        head = "".join(f'loadmodule "{name}.so"\n' for name in MODULES)
        text = f"debug=2\n{head}{params}\nrequest_route {{ {statements} }}"
        lines = []
        make.program = load(tmp_path / "test.cfg", text=text)
        worker = Worker(make.program, log=lambda level, line: lines.append(line))
        worker.start()
        worker.engine.feed(Frame(0, 2, 17, b"\x0a\0\0\1", payload=message.encode()))
        worker.stop()
        assert worker.engine.route_errors == {}
        plugin = make.program.registry.plugin("exec")
        make.counts = {labels["result"]: count for _, labels, count in plugin.metrics() if count}
        return lines

    return make


def test_while_it_is_off_nothing_runs_and_check_warns(run, tmp_path):
    lines = run(
        f'exec_msg("touch {tmp_path}/x"); xlog("$rc"); exec_cmd("true"); xlog("$rc");', params=""
    )
    assert lines == ["-1", "-1"]
    assert not (tmp_path / "x").exists()
    assert run.counts == {"off": 2}
    assert [found.message for found in run.program.warnings if "exec" in found.message] == [
        "exec is off: its functions run nothing and return -1"
    ]


def test_when_it_is_on_the_log_says_so(run, caplog):
    with caplog.at_level(logging.WARNING, "homerd.exec"):
        run("exit;")
    assert "exec is enabled: the script may run shell commands" in caplog.text


def test_the_status_is_the_result(run):
    assert run(
        'exec_msg("true"); xlog("$rc"); exec_msg("exit 3"); xlog("$rc"); exec_cmd("true"); xlog("$rc");'
        ' exec_cmd("exit 2"); xlog("$rc"); exec_cmd("no-such-command 2> /dev/null"); xlog("$rc");'
    ) == ["1", "-1", "1", "-1", "-1"]


def test_a_command_sees_the_message_and_its_headers(run, tmp_path, invite):
    run(f'if (exec_msg("cat > {tmp_path}/in; env > {tmp_path}/env")) xlog("ok");')
    assert (tmp_path / "in").read_bytes() == invite.encode()
    lines = (tmp_path / "env").read_text().splitlines()
    assert {
        "SIP_HF_CALLID=cid-1@test", "SIP_HF_X_NUM=42", "SIP_HF_X_MULTI=one,two", "SIP_HF_USER_AGENT=UA/1.0 (x)",
        "SIP_SRCIP=10.0.0.1", "SIP_RURI=sip:bob@example.com;transport=udp", "SIP_USER=bob",
    } <= set(lines)  # fmt: skip


def test_without_setvars_the_environment_is_the_workers(run, tmp_path):
    run(f'exec_msg("env > {tmp_path}/env");', ON + 'modparam("exec", "setvars", 0)\n')
    assert "SIP_" not in (tmp_path / "env").read_text()


def test_a_command_whose_result_nobody_sees_runs_beside_the_packets(run, tmp_path, invite):
    assert run(f'exec_msg("cat > {tmp_path}/in; exit 3"); xlog("on");') == ["on"]
    assert (tmp_path / "in").read_bytes() == invite.encode()
    assert run.counts == {"failed": 1}


@pytest.mark.parametrize(
    ("statements", "extra", "beside"),
    [
        ('exec_msg("true"); exit;', "", True), ('exec_msg("true");', "", True),
        ('if (exec_msg("true")) exit;', "", False), ('exec_msg("true"); xlog("$rc");', "", False),
        ("route(A);", 'route[A] { exec_msg("true"); }', True),
        ("if (route(A)) exit;", 'route[A] { exec_msg("true"); }', False),
        ("if (route(A)) exit;", 'route[A] { exec_msg("true"); return 1; }', True),
    ],
)  # fmt: skip
def test_what_can_be_seen_of_a_result_decides(script, invite, statements, extra, beside):
    runner = script(f"{ON} request_route {{ {statements} }} {extra}", MODULES)
    runner.feed(invite)
    assert bool(runner.effects) is beside


def test_exec_avp_takes_lines(run):
    assert run(
        'exec_avp("printf \'a \\n\\nb\\nc\\n\'", "$avp(x);$avp(s:y)"); xlog("$rc [$avp(x)] [$avp(y)] [$(avp(x)[1])]");'
        ' exec_avp("printf \'a\\nb\\n\'; exit 1"); xlog("$rc [$avp(i:1)] [$avp(i:2)] [$avp(1)]");'
    ) == ["1 [a] [b] [<null>]", "-1 [a] [b] [<null>]"]


def test_exec_dset_wants_output(run):
    assert run('exec_dset("echo sip:a@b"); xlog("$rc"); exec_dset("true"); xlog("$rc");') == [
        "1",
        "-1",
    ]


def test_exec_of_opensips(run):
    assert run(
        'exec("true"); xlog("$rc"); exec("cat; exit 1", "in", $var(out)); xlog("$rc $var(out)");'
    ) == ["1", "-1 in"]


def test_a_command_that_does_not_end_is_killed_with_its_children(run, tmp_path):
    lines = run(
        'exec_avp("echo $$$$; sleep 1000 & echo $$!; wait", "$avp(a);$avp(b)"); xlog("$rc $avp(a) $avp(b)");',
        'modparam("exec", "enabled", 1)\nmodparam("exec", "timeout", 1)\n',
    )
    result, shell, child = lines[0].split()
    assert result == "-1"
    assert run.counts == {"timed_out": 1}
    for process in (shell, child):
        assert has_ended(int(process))


def has_ended(process):
    """Whether a process is gone, or goes now: who kills it does not wait for its children."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_output_without_end_is_cut_off(run):
    assert run('exec_avp("yes", "$avp(a)"); xlog("$rc $avp(a)");') == ["-1 <null>"]
    assert run.counts == {"too_much": 1}


def test_a_command_need_not_read_the_message(run, invite):
    message = invite.replace("v=0", "v=0" + "a" * 60_000)
    assert run('exec_msg("true"); xlog("$rc");', message=message) == ["1"]


def test_beyond_the_limit_commands_are_refused_and_counted(run):
    params = f'{ON}modparam("exec", "max_processes", 1)\nmodparam("exec", "max_waiting", 1)\n'
    run('exec_cmd("sleep 0.2"); ' * 5 + "exit;", params)
    assert run.counts["ok"] + run.counts["refused"] == 5
    assert run.counts["refused"] >= 3


def test_trace_shows_a_command_and_runs_none(script, invite, tmp_path):
    runner = script(f'{ON} request_route {{ exec_cmd("touch {tmp_path}/x"); exit; }}', MODULES)
    runner.feed(invite)
    (command,) = runner.effects
    runner.worker.stop()
    assert command.text == f"touch {tmp_path}/x"
    assert not (tmp_path / "x").exists()


def test_names_that_are_no_avps_are_a_diagnostic(refusal):
    message = refusal('request_route { exec_avp("ls", "$var(x)"); }', MODULES)
    assert 'expected "$avp(a);$avp(b)", got "$var(x)"' in message


def test_a_number_below_1_is_refused(script):
    with pytest.raises(ConfigError, match=r'"timeout", 0.: expected a number above 0'):
        script('modparam("exec", "timeout", 0)\nrequest_route { exit; }', MODULES)
