"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import pytest
from shipped import Shipped


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Makes a Shipped in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(*switches, **more):
        made.append(Shipped(*switches, **more))
        return made[-1]

    yield make
    for each in made:
        each.worker.stop()
