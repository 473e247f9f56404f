"""What the repository promises: commands that exist, scripts that compile, small files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from homerd.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "scripts/README.md"]
SCRIPTS = [ROOT / "homer.cfg", *sorted(ROOT.glob("examples/*.cfg"))]
SWITCHES = re.findall(r"^##!define (DO_\w+)", (ROOT / "homer.cfg").read_text(), re.MULTILINE)


@pytest.fixture
def homerd(monkeypatch, capsys):
    """Run a command in the repository's folder; its status, and what it wrote to standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(ROOT)
        return main(arguments), capsys.readouterr().err

    return run


def tracked() -> list[Path]:
    """The files of the repository; of an unpacked archive, all that was not made there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        made = re.compile(r"(^|/)(\..*|__pycache__|build|dist|.*\.egg-info)(/|$)")
        files = [file for file in ROOT.rglob("*") if not made.search(str(file.relative_to(ROOT)))]
    return [file for file in files if file.is_file()]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", README))))
def test_a_make_command_of_the_readme_is_a_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_homerd_command_of_a_document_exists(document):
    code = re.findall(r"`[^`\n]+`|^```.*?^```", document.read_text(), re.MULTILINE | re.DOTALL)
    typed = {
        word
        for text in code
        for word in re.findall(
            r"(?:^|[`/ (])(?<!from )homerd ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE
        )
    }
    assert typed <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_in_the_documents(command):
    assert any(f"homerd {command}" in document.read_text() for document in DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_of_a_document_leads_to_a_file(document):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_no_file_names_a_machine_or_a_package_index():
    # spelt in pieces, so that this file does not find itself
    names = ["/work" + "/", "/tmp/" + "venv", "/ro" + "ot/", "/home" + "/", "--index" + "-url"]
    names += ["index" + "-url", "pypi" + ".org", "pythonhosted" + ".org"]
    pattern = re.compile("|".join(map(re.escape, names)))
    found = [
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in tracked()
        if file.suffix not in {".pcap", ".pcapng", ".db"}
        for match in pattern.finditer(file.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_script_compiles_without_a_diagnostic(script, homerd):
    assert homerd("check", "-f", str(script)) == (0, "")


def test_homer_cfg_has_switches():
    own = {"DO_IPV6", "DO_DROP_OPTIONS", "DO_DROP_SCANNERS", "DO_METHOD_COUNTS"}
    assert own <= set(SWITCHES)
    assert len(SWITCHES) == len(set(SWITCHES))


@pytest.mark.parametrize("switches", [*([name] for name in SWITCHES), SWITCHES], ids="+".join)
def test_homer_cfg_compiles_with_its_switches_on(switches, homerd):
    assert homerd("check", *(word for name in switches for word in ("-A", name))) == (0, "")


def test_every_file_of_scripts_is_included_by_homer_cfg_and_described():
    names = {path.name for path in ROOT.glob("scripts/*.cfg")}
    included = set(re.findall(r'include_file "scripts/(.*)"', (ROOT / "homer.cfg").read_text()))
    described = set(re.findall(r"`(\w+\.cfg)`", (ROOT / "scripts/README.md").read_text()))
    assert names == included == described - {"homer.cfg"}


def test_no_source_file_is_longer_than_600_lines():
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for folder in ("homerd", "plugins")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert {file: lines for file, lines in lengths.items() if lines > 600} == {}


def test_every_package_is_installed_and_every_module_has_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("homerd/**/__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == packages | {"homerd_plugins"}
    plugins = {file.stem for file in ROOT.glob("plugins/*.py") if not file.stem.startswith("_")}
    points = project["project"]["entry-points"]["homerd"].values()
    assert {point.split(":")[0].removeprefix("homerd_plugins.") for point in points} == plugins


def test_the_changelog_knows_the_version():
    from homerd import __version__

    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == __version__
