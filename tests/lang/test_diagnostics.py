"""How diagnostics are printed."""

import subprocess
import sys

import pytest

from homerd.lang.diagnostics import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://homer:secret@db/homer", "postgres://homer:******@db/homer"),
        ("smtp://a:p@ss/w:rd@mail:25/", "smtp://a:*********@mail:25/"),
        ("https://hooks.example:8443/x", "https://hooks.example:8443/x"),
        ('"mysql://u:p@h/d" and x@y', '"mysql://u:*@h/d" and x@y'),
    ],
)
def test_a_password_is_starred_out_and_the_text_stays_as_wide(text, shown):
    assert without_passwords(text) == shown


def test_a_faulty_parameter_is_shown_without_its_password(tmp_path):
    script = tmp_path / "homer.cfg"
    script.write_text(
        'loadmodule "sqlops"\n'
        'modparam("sqlops", "sqlcon", "ca=>oracle://homer:secret@db/homer")\n'
        "request_route { drop; }\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "homerd", "check", "-f", str(script)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "oracle://homer:******@db/homer" in done.stderr
    assert "secret" not in done.stdout + done.stderr
