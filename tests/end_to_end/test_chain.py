"""Three homerds in a row, agent, relay and store: nothing is lost or stored twice between them."""

from __future__ import annotations

import sqlite3
from collections import Counter

import pytest
import trustme
from outages import TABLE, Daemon, Sender, number_of
from servers import free_port

COUNT = 6000
RATE = 3000

PASSES_ON = """
debug=2
spool_dir="{folder}/spool"
{listen}
loadmodule "pv"
loadmodule "hep"
modparam("hep", "profile", "next=>target={target};acknowledge=yes;batch_size=200;{more}")
request_route {{
    send_hep("next");
}}
"""


class Chain:
    """The three, each in a folder of its own; the relay is met over TLS."""

    def __init__(self, folder):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            folder / "relay.pem"
        )
        ports = {"relay": free_port(), "store": free_port()}
        self.database = folder / "calls.sqlite"
        self.store = self._daemon(folder / "store", f"sqlite:///{self.database}")
        self.store.script.write_text(
            f"listen=tcp:127.0.0.1:{ports['store']}\n"
            + "\n".join(
                line
                for line in self.store.script.read_text().splitlines()
                if not line.startswith("listen")
            )
        )
        self.relay = self._daemon(folder / "relay")
        self.relay.script.write_text(
            PASSES_ON.format(
                folder=folder / "relay",
                listen=f"listen=tls:127.0.0.1:{ports['relay']}\n"
                f'tls_certificate="{folder}/relay.pem"\ntls_private_key="{folder}/relay.pem"',
                target=f"tcp:127.0.0.1:{ports['store']}",
                more="",
            )
        )
        self.agent = self._daemon(folder / "agent")
        self.agent.script.write_text(
            PASSES_ON.format(
                folder=folder / "agent",
                listen=f"listen=udp:127.0.0.1:{self.agent.port}",
                target=f"tls:127.0.0.1:{ports['relay']}",
                more=f"tls_ca={folder}/ca.pem",
            )
        )
        self.all = [self.store, self.relay, self.agent]

    @staticmethod
    def _daemon(folder, url="sqlite:///unused"):
        folder.mkdir()
        return Daemon(folder, url)

    def start(self):
        for each in self.all:
            each.start()

    def close(self):
        for each in self.all:
            each.close()

    def stored(self):
        with sqlite3.connect(self.database) as database:
            calls = database.execute(f"SELECT callid FROM {TABLE}").fetchall()
        return Counter(number_of(call) for (call,) in calls)

    def passed_on(self, daemon, records):
        """Wait until so many were passed on."""
        daemon.until(lambda status: status and written(status) >= records)


def written(status):
    return sum(sink["written"] for sink in status["sinks"].values())


@pytest.fixture
def chain(tmp_path):
    made = Chain(tmp_path)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("away", ["relay", "store"])
def test_one_of_three_is_killed_and_nothing_is_lost_or_doubled(chain, away):
    killed = getattr(chain, away)
    sender = Sender(chain.agent.port, COUNT, RATE)
    sender.start()
    for times in (1, 2):
        chain.passed_on(killed, 500)
        killed.kill()
        chain.agent.until(lambda status, wanted=1500 * times: status["received"] >= wanted)
        killed.start()
    sender.join()
    chain.agent.received(sender)
    chain.agent.drained()
    chain.relay.drained()
    chain.store.drained()
    assert chain.stored() == Counter(range(COUNT))
    for each in chain.all:
        assert each.status()["ledger"]["difference"] == 0


def test_a_relay_that_ends_in_order_has_lost_nothing(chain):
    sender = Sender(chain.agent.port, COUNT, RATE)
    sender.start()
    chain.passed_on(chain.relay, 500)
    assert chain.relay.stop() == 0
    chain.relay.start()
    sender.join()
    chain.agent.received(sender)
    for each in (chain.agent, chain.relay, chain.store):
        each.drained()
    assert chain.stored() == Counter(range(COUNT))
