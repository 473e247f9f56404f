"""Whatever befalls a database server, each packet is a row, once, or is counted with its reason.

A homerd for PostgreSQL and one for MariaDB run through it all, one mishap after the other.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from outages import MISHAPS, Daemon, Sender, Trial, sink_of

RATE = 1000
SPOOLED = 500  # an outage ends when so many records more wait on disk
MANY = 1 << 30


@pytest.fixture(scope="module")
def trials(postgres_server, mariadb_server, tmp_path_factory):
    """A homerd and its sender, which rests, for each of the servers."""
    made = []
    for server, scheme in ((postgres_server, "postgres"), (mariadb_server, "mysql")):
        server.drop()
        server.create()
        daemon = Daemon(tmp_path_factory.mktemp(scheme), server.url(scheme))
        daemon.start()
        made.append(Trial(server, daemon, Sender(daemon.port, MANY, RATE)))
        made[-1].sender.rest()
        made[-1].sender.start()
    yield made
    for trial in made:
        trial.sender.go()
        trial.sender.finish()
        trial.daemon.close()


def on_both(trials, course):
    """Both at once: most of it is waiting."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(course, trials))


@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_server_that_is_away_costs_no_record(trials, mishap):
    def course(trial):
        ends = {"restarted": trial.write_more, "cut": trial.retry}
        trial.sender.go()
        trial.write_more()
        getattr(trial, mishap)(ends.get(mishap, lambda: trial.spool_more(SPOOLED)))
        trial.sender.rest()
        status, stored = trial.settled()
        lost = Counter(sink_of(status)["lost"])
        assert status["ledger"]["difference"] == 0
        assert stored.total() == len(stored) == trial.sender.sent - lost.total()
        assert set(lost) <= ({"killed"} if mishap == "killed" else set())
        missing = set(range(trial.sender.sent)) - set(stored)
        assert not missing or max(missing) - min(missing) < len(missing)  # the last second's

    on_both(trials, course)


def test_nothing_is_left_on_disk_in_the_end(trials):
    def course(trial):
        assert trial.daemon.stop() == 0
        assert not (trial.daemon.folder / "spool").exists()

    on_both(trials, course)
