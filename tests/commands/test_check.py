"""homerd check: its exit status, and the dialect it names."""

from __future__ import annotations

import pytest

from homerd.cli import main

ODD = 'loadmodule "pv"\nrequest_route { if ($rm == "Invite") drop; }\n'


@pytest.mark.parametrize(
    ("script", "options", "status", "said"),
    [
        (ODD, [], 0, "ok, 1 warning"),
        (ODD, ["--strict"], 1, "refused, 1 warning"),
        ("request_route { drop; }\n", ["--strict"], 0, "ok"),
        (
            'loadmodule "proto_hep"\nroute { drop; }\n',
            ["--strict"],
            0,
            'read as a script for OpenSIPS: line 1, loadmodule "proto_hep"',
        ),
    ],
)
def test_check_says(script, options, status, said, tmp_path, capsys):
    file = tmp_path / "homer.cfg"
    file.write_text(script)
    assert main(["check", "-f", str(file), *options]) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("DO_ALARM_SCANNER", 0, ""),
        ("PORT=5060", 0, ""),
        ("DO_ALARM_SCANER", 1, 'nowhere; did you mean "DO_ALARM_SCANNER"?\n'),
        ("SPAM=1", 1, "warning: -A SPAM: the script asks for it nowhere\n"),
        ("REMARK", 1, "warning: -A REMARK: the script asks for it nowhere\n"),
    ],
)
def test_a_name_that_the_script_does_not_ask_for_is_a_warning(name, status, said, tmp_path, capsys):
    file = tmp_path / "homer.cfg"
    file.write_text(
        "# REMARK\n#!ifdef DO_ALARM_SCANNER\n#!endif\n#!trydef PORT 5061\nrequest_route { drop; }\n"
    )
    assert main(["check", "-f", str(file), "-A", name, "--strict"]) == status
    assert capsys.readouterr().err.endswith(said)
