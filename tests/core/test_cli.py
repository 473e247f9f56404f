import subprocess
import sys

import pytest

import homerd
from homerd.cli import COMMANDS, main


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"homerd {homerd.__version__}\n"


def test_help_has_a_line_for_each_command(capsys):
    assert main(["--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, text in COMMANDS.items():
        assert f" {name} {text}" in words


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--no-such-option"]])
def test_wrong_arguments_end_with_2(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: homerd" in capsys.readouterr().err


def test_a_missing_script_is_one_line(capsys, tmp_path):
    assert main(["run", "-f", str(tmp_path / "none.cfg")]) == 1
    assert capsys.readouterr().err == f"homerd: {tmp_path}/none.cfg: no such file\n"


def test_a_script_with_mistakes_is_shown_with_carets(capsys, tmp_path):
    script = tmp_path / "wrong.cfg"
    script.write_text("debg=3\nrequest_route { exit; }\n")
    assert main(["run", "-f", str(script)]) == 1
    shown = capsys.readouterr().err
    assert 'wrong.cfg:1:1: error[E405]: unknown global parameter "debg"' in shown
    assert '   help: did you mean "debug"?' in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["status", "reload"])
def test_without_a_daemon_status_and_reload_say_so(capsys, tmp_path, command):
    path = tmp_path / "homerd.sock"
    assert main([command, "--socket", str(path)]) == 1
    assert capsys.readouterr().err == f"homerd: no homerd is running at {path}\n"


def test_a_reader_that_goes_away_is_no_fault():
    command = f"{sys.executable} -m homerd --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_that_need_no_language_start_without_it():
    text = "import sys; from homerd.cli import main; main(['status', '--help'])"
    code = f"{text}; print('lark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"
