"""Who may import whom: the table of the architecture, held against the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("homerd/**/*.py"), *ROOT.glob("plugins/**/*.py")])

# Part of homerd -> the parts of homerd and the packages from outside it may import.  The longest
# name that fits a module is its row; each part may import itself and the standard library.  What
# stands under `if TYPE_CHECKING:` is for mypy alone and not held against the table.
MAY_IMPORT = {
    "homerd": [],
    "homerd.errors": [],
    "homerd.wire": ["homerd.errors"],
    "homerd.wire._speed": ["homerd.wire", "homerd_speedups"],
    "homerd.packet": ["homerd.wire", "homerd.errors"],
    "homerd.lang": ["homerd.errors", "lark"],
    "homerd.lang.linear": ["homerd.lang.chain", "re2", "regex"],
    "homerd.plugin": [
        "homerd.errors",
        "homerd.packet",
        "homerd.lang.vocabulary",
        "homerd.lang.diagnostics",
        "homerd.lang.posix",
        "homerd.lang.nodes",
        "homerd.lang.source",
        "pluggy",
    ],
    "homerd.core": [
        "homerd.errors",
        "homerd.packet",
        "homerd.wire",
        "homerd.lang",
        "homerd.plugin",
        "h11",
        "watchfiles",
        "wsproto",
    ],
    "homerd.api": [
        "homerd.errors",
        "homerd.packet",
        "homerd.wire",
        "homerd.lang",
        "homerd.plugin",
        "homerd.core.archive",
        "homerd.core.calls",
        "homerd.core.sink",
        "homerd.core.table",
    ],
    "homerd.commands": [
        "homerd",
        "dpkt",
        "tqdm",
        "yaml",
        "pygls",
        "lsprotocol",
        "matplotlib",
        "plotext",
    ],
    "homerd.manual": ["homerd", "yaml"],
    "homerd.cli": ["homerd"],
    "homerd.testing": ["homerd"],
    "homerd.__main__": ["homerd.cli"],
    "homerd_plugins": ["homerd.api"],
}

# What talks to one store or does one chore, and must not be paid for by who does not use it.
DRIVERS = [
    "psycopg",
    "influxdb_client",
    "elasticsearch",
    "pymysql",
    "watchfiles",
    "tqdm",
    "dpkt",
    "httpx",
    "maxminddb",
    "sqlglot",
    "re2",
    "regex",
    "matplotlib",
    "plotext",
]


def module_of(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "plugins":
        parts[0] = "homerd_plugins"
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def row_of(module: str) -> str:
    """The longest name in the table that *module* is or lies in."""
    while module not in MAY_IMPORT:
        module = module.rpartition(".")[0]
    return module


def lies_in(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that *file* imports at run time."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    nodes: list[ast.AST] = [ast.parse(file.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in MODULES else base
        else:
            nodes += ast.iter_child_nodes(node)


def forbidden(file: Path) -> Iterator[str]:
    module = module_of(file)
    row = row_of(module)
    in_plugins = row == "homerd_plugins"
    for line, name in imports(file):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or name == module:
            continue
        if in_plugins:
            # drivers as they like, own siblings when private, of homerd the api alone
            private = lies_in(name, "homerd_plugins") and name.rpartition(".")[2].startswith("_")
            allowed = private or not top.startswith("homerd")
        else:
            allowed = lies_in(name, row) and row != "homerd"
        if allowed or any(lies_in(name, part) for part in MAY_IMPORT[row]):
            continue
        yield f"{file.relative_to(ROOT)}:{line}: {row} may not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_its_row_of_the_table_allows(file):
    assert list(forbidden(file)) == []


def test_every_row_of_the_table_has_a_module_or_is_still_to_come():
    to_come = {"homerd.wire._speed"}
    assert {row for row in MAY_IMPORT if not any(lies_in(name, row) for name in MODULES)} <= to_come


@pytest.mark.parametrize(
    "statement", ["import homerd.cli", "import homerd.api", "import homerd_plugins.sipcapture"]
)
def test_drivers_are_not_imported_before_something_asks_for_them(statement):
    script = f"import sys; {statement}; print(*sorted(set({DRIVERS}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_command_line_starts_without_the_language():
    script = "import sys, homerd.cli; print(*sorted({'lark', 'pluggy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("", "")
