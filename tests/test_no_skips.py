"""That a run with a skipped test fails where CI=true."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_one():
    pass

def test_two():
    pytest.skip("no server")
"""


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["alone", "in two"])
@pytest.mark.parametrize(
    ("ci", "reason", "status"),
    [("true", "no server", 1), ("", "no server", 0), ("true", "privilege: no namespace", 0)],
)
def test_a_skipped_test_fails_the_run_in_ci(tmp_path, ci, reason, status, processes):
    (tmp_path / "test_some.py").write_text(TESTS.replace("no server", reason))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no_skips", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *processes],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"CI": ci, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == status
    assert f"skipped 1: Skipped: {reason}" in done.stdout
