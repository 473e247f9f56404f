"""The manual against the code: its examples run, its tables are complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from homerd import cli
from homerd.commands.cases import read_cases
from homerd.core import metrics, settings
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.lang.diagnostics import CODES
from homerd.manual import pages
from homerd.manual.words import signature
from homerd.plugin import declare, hookspecs
from homerd.plugin.registry import Registry

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


def test_the_module_of_the_manual_is_the_example():
    shown = examples(PLUGINS, "python")[0]
    assert shown == (ROOT / "examples/webhook-plugin/src/homerd_webhook.py").read_text()


def test_the_tests_of_the_manual_pass(tmp_path):
    blocks = examples(PLUGINS, "python")
    (tmp_path / "homerd_webhook.py").write_text(blocks[0])
    (tmp_path / "test_webhook.py").write_text(next(text for text in blocks if "def test_" in text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_the_other_modules_of_the_manual_load(tmp_path):
    head = "from homerd.api import *\n\n"
    others = [text for text in examples(PLUGINS, "python") if text.startswith("class ")]
    for number, text in enumerate(others):
        (tmp_path / f"m{number}.py").write_text(head + text)
        registry = Registry()
        registry.paths = [tmp_path]
        assert registry.load(f"m{number}") is not None
    assert others


# -- the pages made from declarations

PARTS = sorted(path for path in ROOT.glob("docs/parts/*.yaml") if "cases:" in path.read_text())
MODULES = {module.name: module for module in pages.installed(ROOT)}
PAGES = sorted(ROOT.glob("docs/**/*.md"))


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_no_page_is_stale():
    assert pages.stale_pages(ROOT) == [], "python -m homerd.manual"


@pytest.mark.parametrize("name", MODULES)
def test_every_word_of_a_module_stands_on_its_page_and_in_the_index(name):
    module, text, index = MODULES[name], page(f"modules/{name}.md"), page("words.md")
    for word in module.words:
        shown = signature(word)
        assert f"`{shown}`" in text.replace("\\|", "|"), shown
        mark = {"ScriptFunction": f"`{word.name}()`", "PseudoVariable": f"`${word.name}`"}
        assert mark.get(type(word).__name__, f"`{{{word.name}}}`") in index
    assert [param.name for param in module.params if f"`{param.name}`" not in text] == []
    assert [metric for metric in module.metrics if f"`{metric}`" not in text] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_word_of_a_module_has_a_text(name):
    module = MODULES[name]
    assert [word.name for word in module.words if not word.help.strip()] == []
    assert [param.name for param in module.params if not param.help.strip()] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_page_of_a_module_has_the_fixed_shape(name):
    sections = re.findall(r"^## (.+)$", page(f"modules/{name}.md"), re.MULTILINE)
    fixed = ["Overview", "Requirements", "Parameters", "Functions", "Pseudo-variables"]
    fixed += ["Transformations", "Metrics"]
    assert sections in (fixed, [*fixed, "Examples"])


@pytest.mark.parametrize("name", MODULES)
def test_an_example_of_a_parameter_is_one_that_the_module_takes(name):
    module = MODULES[name]
    params = {param.name: param for param in module.params}
    for param, value in module.part.get("parameters", {}).items():
        params[param].convert(value)
    assert set(module.part.get("metrics", {})) <= set(module.metrics)


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_in_the_manual_with_a_script_that_has_it(code):
    folder = ROOT / "docs/parts/errors"
    assert f"### {code}\n" in page("errors.md")
    if (folder / f"{code}.cfg").is_file():
        _, script = pages.error_example(folder / f"{code}.cfg")
        assert code in {item.code for item in pages.diagnostics_of(script)[0]}
    else:
        assert (folder / f"{code}.md").is_file(), f"docs/parts/errors/{code}.cfg"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_is_in_the_manual(command):
    assert f"`homerd {command}" in COMMANDS
    assert f"## homerd {command}\n" in page("options.md")


def test_every_setting_is_in_the_manual():
    known = {*settings._FIELDS, "listen", "socket", "port", "disable_tcp"}
    assert {name for name in known if f"`{name}`" not in page("language.md")} == set()


def test_every_directive_is_in_the_manual():
    source = (ROOT / "homerd/lang/preprocess.py").read_text()
    words = "define redef trydef substdef substdefs subst defenv defenvs trydefenv trydefenvs"
    words += " ifdef ifndef else endif ifexp"
    assert [word for word in words.split() if f'"{word}"' not in source] == []
    assert [word for word in words.split() if f"`#!{word}" not in page("language.md")] == []


def test_every_counter_of_status_is_in_the_manual(tmp_path):
    script = tmp_path / "homer.cfg"
    script.write_text('loadmodule "statsd"\nrequest_route { drop; }\n')
    worker = Worker(load(script), deliver=False)
    worker.start()
    counters = metrics.snapshot(worker)
    text = page("metrics.md")
    assert [key for key in counters if f"`{key}`" not in text] == []
    assert [key for key in counters["sinks"]["statsd"] if not re.search(rf"\b{key}\b", text)] == []
    assert [name for name in pages.core_metrics() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("cases", PARTS, ids=lambda path: path.stem)
def test_the_examples_of_the_manual_hold(cases, capsys):
    status = cli.main(["test", str(cases)])
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("cases", PARTS, ids=lambda path: path.stem)
def test_every_example_is_shown(cases):
    names = [case.name for case in read_cases(cases)]
    is_module = cases.stem in MODULES
    text = page(f"modules/{cases.stem}.md" if is_module else f"{cases.stem}.md")
    mark = "### {}\n" if is_module else "<!-- case: {} -->"
    upper = (lambda name: name[:1].upper() + name[1:]) if is_module else str
    assert [name for name in names if mark.format(upper(name)) not in text] == []


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_a_link_of_a_page_leads_somewhere(document):
    text = document.read_text()
    for place, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = (document.parent / place) if place else document
        assert target.exists(), place
        if heading and target.suffix == ".md":
            slugs = {
                re.sub(r"[^\w-]", "", title.strip().lower().replace(" ", "-"))
                for title in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            }
            assert heading in slugs, f"{place}#{heading}"


def test_the_site_has_every_page():
    site = (ROOT / "mkdocs.yml").read_text()
    names = {str(path.relative_to(ROOT / "docs")) for path in PAGES}
    parts = {name for name in names if name.startswith("parts/")}
    assert {name for name in names - parts if name not in site} == set()
    assert {name for name in re.findall(r"[\w/-]+\.md", site) if name not in names} == set()
