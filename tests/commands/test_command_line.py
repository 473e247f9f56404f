"""What `homerd` says to what it does not know, and what `homerd plugins` tells of a module."""

from __future__ import annotations

import json

import pytest

from homerd.cli import main
from homerd.commands.status import lines

IDLE = {
    "script": "homer.cfg",
    "digest": "0",
    "loaded_at": 0,
    "last_reload": None,
    "uptime_seconds": 1,
    "sources": [],
    "notices": [],
    "received": 1000,
    "undecoded": {},
    "refused": {},
    "handled": {},
    "routed": {},
    "route_errors": {},
    "sent": {},
    "not_stored": {},
    "kernel_drops": 0,
    "sinks": {},
    "plugins": {},
    "ledger": {"difference": 0, "sinks": {}},
}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["statsu"], 'homerd: error: there is no command "statsu": did you mean "status"?'),
        (["xyz"], 'homerd: error: there is no command "xyz"\n'),
        (
            ["check", "my.cfg"],
            "homerd check: error: unrecognized arguments: my.cfg;"
            " the script is named with -f my.cfg",
        ),
        (["check", "--lsting"], "homerd check: error: unrecognized arguments: --lsting\n"),
    ],
)
def test_a_typo_on_the_command_line_is_named_with_what_would_be_right(typed, said, capsys):
    assert main(typed) == 2
    assert said in capsys.readouterr().err


def test_a_folder_is_told_from_a_missing_script(tmp_path, capsys):
    assert main(["check", "-f", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"homerd: {tmp_path}: a folder, not a script\n"
    assert main(["check", "-f", str(tmp_path / "x.cfg")]) == 1
    assert capsys.readouterr().err == f"homerd: {tmp_path}/x.cfg: no such file\n"


def test_figures_of_status_stand_below_each_other_whatever_a_table_is_called():
    tables = {
        "sip_capture_call_20261121": 1,
        "sip_capture_registration_20261121": 1_234_567,
        "a_name_that_is_longer_than_all_that_homer_has_of_its_own": 3,
    }
    told = list(lines({**IDLE, "stored": tables}))
    figures = [line for line in told if line.endswith(("1,000", " 1", "1,234,567"))]
    assert [line.split() for line in figures] == [
        ["received", "1,000"],
        ["sip_capture_registration_20261121", "1,234,567"],
        ["sip_capture_call_20261121", "1"],
    ]
    assert len(set(map(len, figures))) == 1
    assert "  a_name_that_is_longer_than_all_that_homer_has_of_its_own 3" in told


def test_plugins_tells_a_module_in_the_words_of_the_manual(capsys):
    assert main(["plugins", "alarm"]) == 0
    told = capsys.readouterr().out
    assert "\n  table (text, default alarm_data)\n      table of alarms, as Homer 5" in told
    assert "\n  target (text, several lines)\n" in told
    assert "\n\n      For alarms with `of=mean` or `of=last`.\n" in told


def test_plugins_as_json_has_the_same(capsys):
    assert main(["plugins", "sipcapture", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"][0]["name"] == "db_url"
    assert told["parameters"][0]["kind"] == "text"
    assert "\ntable: strftime codes" in told["functions"][0]["help"]
