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
