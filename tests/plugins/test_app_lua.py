"""Module app_lua: Python in place of Lua."""

from __future__ import annotations

import pytest

from homerd.errors import ConfigError

MODULES = ("pv", "xlog", "app_lua")


def test_a_function_of_a_python_file_is_called(script, invite, tmp_path):
    file = tmp_path / "hooks.py"
    file.write_text(
        "def place(packet, latitude, longitude):\n"
        "    packet.variables['geohash'] = f'{latitude}/{longitude}/{packet.sip.method}'\n"
        "    return 7\n\n"
        "def no(packet):\n    return False\n\n"
        "def nothing(packet):\n    pass\n"
    )
    runner = script(
        f'modparam("app_lua", "load", "{file}")\n'
        'request_route { lua_run("place", "50.1", "8.6"); xlog("$rc $var(geohash)"); lua_run("no"); xlog("$rc");'
        ' lua_run("nothing"); xlog("$rc"); lua_run("_none"); xlog("$rc"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["7 50.1/8.6/INVITE", "-1", "1", "-1"]


def test_lua_is_accepted_and_not_run(script, invite):
    runner = script(
        'modparam("app_lua", "load", "/etc/geohash.lua")\nrequest_route { lua_run("encode", "1"); xlog("$rc"); }',
        MODULES,
    )
    assert runner.feed(invite) == ["-1"]
    (warning,) = runner.program.warnings
    assert warning.message == "Lua is not run here: its functions return -1"
    assert list(runner.program.registry.plugin("app_lua").metrics()) == [
        ("homerd_app_lua_not_run_total", {}, 1)
    ]


@pytest.mark.parametrize(
    ("text", "message"), [("1 / 0", "ZeroDivisionError"), ("(", "SyntaxError")]
)
def test_a_file_that_fails_stops_the_start(script, tmp_path, text, message):
    (tmp_path / "hooks.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        script(
            f'modparam("app_lua", "load", "{tmp_path}/hooks.py")\nrequest_route {{ exit; }}',
            MODULES,
        )


def test_a_file_that_is_not_there_stops_the_start(script):
    with pytest.raises(ConfigError, match="No such file"):
        script('modparam("app_lua", "load", "none.py")\nrequest_route { exit; }', MODULES)
