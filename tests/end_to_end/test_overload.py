"""What has no room, in the kernel or on the disk, is counted; a store may be there late."""

from __future__ import annotations

from pathlib import Path

import pytest
from outages import Daemon, Sender, Trial, sink_of

RATE = 1000
MANY = 1 << 30


@pytest.fixture
def trial(tmp_path):
    """Makes a homerd that stores in a server, and a sender that has begun."""
    made = []

    def make(server, *settings, count=MANY, rate=RATE):
        scheme = "postgres" if server.package == "postgresql" else "mysql"
        daemon = Daemon(tmp_path, server.url(scheme), "\n".join(settings))
        made.append(Trial(server, daemon, Sender(daemon.port, count, rate)))
        daemon.start()
        made[-1].sender.start()
        return made[-1]

    yield make
    for each in made:
        each.sender.finish()
        each.daemon.close()


def test_homerd_may_be_started_before_the_server(mariadb, trial):
    mariadb.stop()
    try:
        on = trial(mariadb)
        on.spool_more(500)
    finally:
        mariadb.start()
    on.sender.finish()
    status, stored = on.settled()
    assert status["ledger"]["difference"] == 0
    assert stored.total() == len(stored) == on.sender.sent


def test_a_spool_that_is_full_gives_up_its_oldest_records_and_counts_them(postgres, trial):
    on = trial(postgres, "spool_limit=1M")
    on.write_more()
    postgres.stop()
    try:
        status = on.daemon.until(lambda status: "spool_full" in sink_of(status)["lost"])
        assert status["ledger"]["difference"] == 0
    finally:
        postgres.start()
    on.sender.finish()
    status, stored = on.settled()
    lost = sink_of(status)["lost"]
    assert set(lost) == {"spool_full"}
    assert status["ledger"]["difference"] == 0
    assert stored.total() == len(stored) == on.sender.sent - lost["spool_full"]
    assert max(stored) == on.sender.sent - 1


def test_what_the_kernel_had_no_room_for_is_counted_as_the_kernel_counts_it(postgres, trial):
    on = trial(postgres, "receive_buffer=4096", count=10_000, rate=0)
    on.sender.join()
    drops = kernel_drops(on.daemon.port)
    status, stored = on.settled()
    assert drops == status["kernel_drops"] > 0
    assert status["ledger"]["difference"] == 0
    assert stored.total() == len(stored) == on.sender.sent - drops


def kernel_drops(port):
    """What the kernel says of the sockets of a port."""
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(line[-1]) for line in lines if line[1].endswith(f":{port:04X}"))
