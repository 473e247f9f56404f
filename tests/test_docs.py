"""The manual against the code: its examples run, its tables are complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from homerd.plugin import declare, hookspecs

ROOT = Path(__file__).parent.parent
PLUGINS = (ROOT / "docs/plugins.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()


def examples(document: str, language: str) -> list[str]:
    """The fenced blocks of *language*; "" for those that name none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if name == language]


def test_every_annotation_of_a_parameter_is_in_the_manual():
    table = PLUGINS.partition("| annotation |")[2].partition("\n\n")[0]
    names = {getattr(kind, "__name__", "Value") for kind in declare._KINDS}
    names |= {"Const", "Literal", "re.Pattern", "RouteName"}
    assert {name for name in names if f"`{name}" not in table} == set()


def test_every_hook_is_in_the_manual():
    hooks = {name for name in vars(hookspecs.HookSpecs) if not name.startswith("_")}
    told_elsewhere = {  # what the decorators of Plugin implement
        "script_functions",
        "pseudo_variables",
        "transformations",
        "mod_params",
        "set_mod_param",
    }
    assert hooks - told_elsewhere == set(re.findall(r"^\| `(\w+)\(", PLUGINS, re.MULTILINE))


def test_the_json_lines_of_the_manual_are_json():
    lines = [line for text in examples(COMMANDS, "json") for line in text.splitlines()]
    assert [type(json.loads(line)) for line in lines] == [dict] * len(lines)


def test_the_module_of_the_manual_adds_its_function_to_the_language(tmp_path):
    (tmp_path / "webhook.py").write_text(examples(PLUGINS, "python")[0])
    script = next(text for text in examples(PLUGINS, "") if "loadmodule" in text)
    before = f'mpath="{tmp_path}"\nloadmodule "textops"\nloadmodule "pv"\n'
    (tmp_path / "homer.cfg").write_text(before + script)
    done = subprocess.run(
        [sys.executable, "-m", "homerd", "check", "-f", str(tmp_path / "homer.cfg")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
