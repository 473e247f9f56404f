"""Where CI=true a skipped test is a failed run: what was not tried is not known to hold.

A test that needs a privilege which the machine does not give says so with PRIVILEGE, and may be
skipped.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

PRIVILEGE = "Skipped: privilege: "


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    skipped = [reason for reason in _skipped(session.config) if not reason.startswith(PRIVILEGE)]
    if os.environ.get("CI") == "true" and session.exitstatus == 0 and skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for reason, count in _skipped(config).most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


def _skipped(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped, by reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter is not None else []
    return Counter(str(each.longrepr[-1]) for each in reports)
