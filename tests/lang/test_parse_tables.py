"""The tables that Lark makes of the grammar are kept beside the modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.errors import ScriptErrors
from homerd.lang import parse

SCRIPT = 'request_route { if ($rm == "INVITE" { exit; } }\nroute[A] { drop }\n'


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where the tables are kept, in a place of its own; call it for what is said of SCRIPT."""
    monkeypatch.setattr(parse, "__file__", str(tmp_path / "parse.py"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "__pycache__"
    folder.mkdir()

    def told():
        parse._parser.cache_clear()
        with pytest.raises(ScriptErrors) as caught:
            load(Path("a.cfg"), text=SCRIPT)
        return [(each.code, each.message, str(each.span)) for each in caught.value.diagnostics]

    told.folder = folder
    yield told
    parse._parser.cache_clear()


def test_what_is_read_back_parses_alike(kept):
    made = kept()
    (file,) = kept.folder.iterdir()
    before = file.read_bytes()
    assert kept() == made
    assert file.read_bytes() == before
    assert len(made) >= 2


def test_a_damaged_file_is_made_again(kept, capfd):
    made = kept()
    (file,) = kept.folder.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert kept() == made
    assert file.stat().st_size > 1000
    assert capfd.readouterr() == ("", "")


def test_nothing_is_kept_where_python_keeps_nothing(kept, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert kept()
    assert list(kept.folder.iterdir()) == []
    kept.folder.rmdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert kept()
