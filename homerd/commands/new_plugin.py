"""`homerd new-plugin`: a module of one's own, as a project that installs and whose tests pass."""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
import sys
from importlib import resources
from pathlib import Path

from homerd.errors import ConfigError
from homerd.plugin.registry import Registry

# Template -> the file it becomes.  Each is the module "webhook", and another name is put in.
FILES = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "homer.cfg.txt": "homer.cfg",
    "module.py.txt": "src/homerd_webhook.py",
    "test.py.txt": "tests/test_webhook.py",
}
NAME = "webhook"
LONGEST = 40


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "new-plugin",
        help="writes a module of your own to begin with",
        description="Writes a project with a module of your own to begin with: a function for the"
        " script, a sink, their tests and a script that uses them.",
    )
    parser.add_argument("name", metavar="NAME", help='what loadmodule "NAME" is to find')
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where to (homerd-NAME), a folder of its own"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the project, and say what to do with it."""
    name: str = options.name
    refuse_name(name)
    folder: Path = options.folder or Path(f"homerd-{name}")
    write(name, folder)
    python = shlex.quote(sys.executable)
    print(f"The module {name} is in {folder}.  Next:\n")
    print(f"  cd {shlex.quote(str(folder))}")
    print(f'  {python} -m pip install --editable ".[test]"')
    print(f"  {python} -m pytest")
    print(f"  {python} -m homerd check")
    return 0


def refuse_name(name: str) -> None:
    """ConfigError when a module cannot be called so."""
    meant = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")[:LONGEST]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name, re.A) or len(name) > LONGEST:
        hint = f': write "{meant}"' if re.fullmatch(r"[a-z][a-z0-9_]*", meant) else ""
        raise ConfigError(
            f'"{name}" cannot be the name of a module: small letters, digits and _ are taken,'
            f" {LONGEST} at most, a letter first{hint}"
        )
    if keyword.iskeyword(name):
        raise ConfigError(f'"{name}" cannot be the name of a module: it is a word of Python')
    registry = Registry()
    registry.load("core")
    if registry.load(name) is not None:
        raise ConfigError(f'there is a module "{name}" already: homerd plugins lists them')


def write(name: str, folder: Path) -> None:
    """Write the project of module *name*; nothing that is there is touched."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already: name another one with --folder")
        for path, text in project(name).items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from None


def project(name: str) -> dict[str, str]:
    """The project's files: path -> text."""
    templates = resources.files("homerd") / "templates" / "plugin"
    return {
        _named(path, name): _named((templates / template).read_text("utf-8"), name)
        for template, path in FILES.items()
    }


def _named(text: str, name: str) -> str:
    classes = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(NAME, name).replace(NAME.capitalize(), classes)
