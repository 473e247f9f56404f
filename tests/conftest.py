"""What holds for all tests, and the fixtures they share: the servers."""

from __future__ import annotations

import logging
import os

import pytest
from elasticsearch_node import elasticsearch_node, elasticsearch_session
from hypothesis import settings
from metric_servers import (
    elasticsearch,
    elasticsearch_server,
    influx_v1,
    statsd,
    victoria_metrics,
)
from no_skips import pytest_sessionfinish, pytest_terminal_summary
from servers import free_port as chosen_port
from servers import mariadb, mariadb_server, postgres, postgres_server

__all__ = [
    "elasticsearch",
    "elasticsearch_node",
    "elasticsearch_server",
    "elasticsearch_session",
    "influx_v1",
    "mariadb",
    "mariadb_server",
    "postgres",
    "postgres_server",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "statsd",
    "victoria_metrics",
]


@pytest.fixture(autouse=True)
def spool_folder(tmp_path_factory, monkeypatch):
    """A place for spools, away from where the tests are run."""
    folder = tmp_path_factory.mktemp("spool")
    monkeypatch.setenv("HOMERD_SPOOL", str(folder))
    return folder


@pytest.fixture
def free_port():
    """A port of 127.0.0.1 that nobody listens on, neither for UDP nor for TCP."""
    return chosen_port()


@pytest.fixture(autouse=True)
def own_log():
    """What a command did to the log is undone: the standard error it writes to is one test's."""
    root = logging.getLogger("homerd")
    handlers, level, propagate = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    root.propagate = propagate


# No example has a deadline, as machines differ; where the outcome decides what lands, the examples
# are the same each time.
settings.register_profile("homerd", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("homerd")
