"""Every word that the capture scripts in use are written with compiles (tests/data/inventory.json).

kamailio: the words of scripts for Kamailio, by kind and module.  opensips: what scripts for
OpenSIPS have beside them, or write in another way.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.errors import ScriptErrors

INVENTORY = json.loads((Path(__file__).parents[1] / "data" / "inventory.json").read_text("utf-8"))
IN_A_FILE = {"directive", "route", "global", "module", "parameter"}
IN_A_ROUTE = {"statement", "operator", "keyword", "function"}

# What most scripts begin with.
KAMAILIO = "#!KAMAILIO\nlisten=udp:127.0.0.1:9060\n"
COMMON = ("kex", "pv", "sl", "xlog", "textops", "siputils", "htable")
OPENSIPS = "listen=hep_udp:127.0.0.1:9060\nlog_level=2\n"
ROUTES = "route[STORE] { drop; }\nroute[HTTP_REPLY] { exit; }\n"

Word = tuple[str, str, str, str]  # kind, module, word, how it is written


def words(dialect: str) -> list[Word]:
    found = []
    for kind, modules in INVENTORY[dialect]["words"].items():
        for module, each in modules.items():
            pairs = each.items() if isinstance(each, dict) else ((word, word) for word in each)
            found += [(kind, module, word, written) for word, written in pairs]
    return found


def names(dialect: str) -> list[str]:
    return [f"{kind}:{module}:{word}" for kind, module, word, _ in words(dialect)]


def statements(kind: str, written: str) -> str:
    """What stands in a route."""
    return written if kind in IN_A_ROUTE else f"$var(x) = {written};"


def script(dialect: str, word: Word) -> str:
    kind, module, _, written = word
    loaded = INVENTORY[dialect]["modules"]
    # Given itself, a module is loaded by what is written; everything else needs its own.
    own = [module] if module and module not in COMMON else []
    if dialect == "kamailio":
        head = KAMAILIO + "\n".join(loaded[name] for name in (*COMMON, *own) if kind != "module")
    else:
        head = OPENSIPS + "\n".join(loaded[name] for name in own)
    if kind in IN_A_FILE:
        main = "" if "route {" in written or "request_route" in written else "route { exit; }\n"
        return f"{head}\n{written}\n{main}"
    return f"{head}\n{ROUTES}route {{\n{statements(kind, written)}\nroute(STORE);\n}}\n"


def problems(text: str, folder: Path) -> list[str]:
    (folder / "included.cfg").write_text("# nothing\n")
    try:
        load(folder / "homer.cfg", text=text)
    except ScriptErrors as errors:
        return [
            f"{found.code}: {found.message}"
            for found in errors.diagnostics
            if found.severity == "error"
        ]
    return []


@pytest.mark.parametrize("word", words("kamailio"), ids=names("kamailio"))
def test_a_word_of_kamailio_compiles(word, tmp_path):
    assert problems(script("kamailio", word), tmp_path) == []


@pytest.mark.parametrize("word", words("opensips"), ids=names("opensips"))
def test_a_word_of_opensips_compiles(word, tmp_path):
    assert problems(script("opensips", word), tmp_path) == []


def test_a_script_with_every_word_of_kamailio_compiles(tmp_path):
    loaded = INVENTORY["kamailio"]["modules"]
    inside = [
        f"if ($var(never)) {{ {statements(kind, written)} }}"
        for kind, _, _, written in words("kamailio")
        if kind not in IN_A_FILE
    ]
    text = KAMAILIO + 'stats.min = 5 desc "minutes"\n' + "\n".join(filter(None, loaded.values()))
    text += f"\n{ROUTES}request_route {{\n" + "\n".join(inside) + "\nroute(STORE);\n}\n"
    assert problems(text, tmp_path) == []
