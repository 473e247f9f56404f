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
        ('agent="a=>id=1;key=s3cret;rate=x"', 'agent="a=>id=1;key=******;rate=x"'),
        ('"a=>key=old; key = new one "', '"a=>key=***; key = ********"'),
        ('"a=>key=s\\"3;id=1"', '"a=>key=****;id=1"'),
        ('"a=>key=it\'s"', '"a=>key=****"'),
        ('"a=>key=s3cret', '"a=>key=******'),
        ('expected "NAME=>key=…;network=10.0.0.0/8"', 'expected "NAME=>key=…;network=10.0.0.0/8"'),
        ('"monkey=banana;key=>5"', '"monkey=banana;key=>5"'),
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


@pytest.mark.parametrize(
    "line",
    [
        'agent = "sbc1=>id=many;key=s3cret;rate=5"',
        'agent = "sbc1=>id=1;pasword=x;key=s3cret"',
        'agnt = "sbc1=>id=1;key=s3cret"',
        'loadmodule "hep"\nmodparam("hep", "profile", "c=>target=udp:192.0.2.1:x;key=s3cret")',
        'loadmodule "hep"\nmodparam("hep", "profil", "c=>key=s3cret;target=udp:192.0.2.1:9060")',
    ],
)
def test_a_faulty_agent_or_profile_is_shown_without_its_key(tmp_path, line):
    script = tmp_path / "homer.cfg"
    script.write_text(line + "\nrequest_route { drop; }\n")
    done = subprocess.run(
        [sys.executable, "-m", "homerd", "check", "-f", str(script)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "key=******" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
