"""What search, show, flow and export read back, from each kind of store that a script may name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from servers import database_on, free_port

from homerd.cli import main
from homerd.core.inputs import item_of, read_input
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

NEW_YEAR = 1767225600  # 2026-01-01 00:00:00 UTC
DAY = 86400
ALICE, PROXY, BOB = "192.0.2.1", "192.0.2.2", "2001:db8::3"


def packet(at: float, first_line: str, call_id: str = "c1", **more: Any) -> str:
    """A HEP packet *at* seconds after new year, as a JSON line."""
    told = {"cseq": "7 INVITE", "user": "alice", "src": ALICE, "dst": PROXY, "head": ""} | more
    payload = (
        f"{first_line}\r\nVia: SIP/2.0/UDP {told['src']};branch=z9hG4bK7\r\n"
        f"From: <sip:{told['user']}@example.org>;tag=f\r\nTo: <sip:bob@example.net>\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {told['cseq']}\r\nUser-Agent: Phone/1\r\n{told['head']}"
        "Content-Length: 0\r\n\r\n"
    )
    hep = {
        "family": 10 if ":" in told["src"] else 2,
        "proto": told.get("proto", 17),
        "src_ip": told["src"],
        "src_port": 5060,
        "dst_ip": told["dst"],
        "dst_port": 5070,
        "time_sec": NEW_YEAR + int(at),
        "time_usec": round(at % 1 * 1_000_000),
        "proto_type": 1,
        "capture_id": 101,
        "payload": payload,
    }
    if "correlation_id" in told:
        hep["correlation_id"] = told["correlation_id"]
    return json.dumps({"hep": hep})


INVITE = "INVITE sip:bob@example.net SIP/2.0"
REPLY = {"src": PROXY, "dst": ALICE}
PACKETS = [
    packet(1.5, INVITE),
    packet(2.25, "SIP/2.0 200 OK", **REPLY, head="Content-Type: application/sdp\r\n"),
    packet(2.125, INVITE, "b1", head="X-CID: c1\r\n", proto=6),
    packet(2.5, INVITE, "b2", correlation_id="b1", src=BOB, dst=BOB),
    packet(60, "OPTIONS sip:a@b SIP/2.0", "C1", cseq="1 OPTIONS", user="al_ice%"),
    packet(DAY + 1, INVITE, "n1", user="alan"),
    packet(2 * DAY + 1, INVITE, "n2", user="Alice"),
]
SERVERS = {"postgres": "postgres_server", "mysql": "mariadb_server"}
STORES = ("sqlite", "postgres", "mariadb", "homer7")
FIELDS = ("callid", "method", "reply_reason", "cseq", "from_user", "to_user", "ruri_user")


class Site:
    """A script over some databases; its commands are run by `ask`."""

    def __init__(self, folder: Path, url: str, extra: str = "", statements: str = "") -> None:
        self.script = folder / "homer.cfg"
        self.url = url
        statements = statements or 'sip_capture("sip_capture_call_%Y%m%d");'
        self.script.write_text(
            'loadmodule "pv"\nloadmodule "sipcapture"\n'
            'modparam("sipcapture", "capture_on", 1)\nmodparam("sipcapture", "hep_capture_on", 1)\n'
            f'modparam("sipcapture", "db_url", "{url}")\n{extra}\n'
            f"request_route {{ {statements} }}\nonreply_route {{ {statements} }}\n"
        )

    def store(self, packets: Iterable[str]) -> None:
        """Send the packets through the script."""
        worker = Worker(load(self.script))
        worker.start()
        for line in packets:
            one = item_of(json.loads(line), "")
            assert isinstance(one, Frame)
            _, failure = worker.engine.feed(one)
            assert not isinstance(failure, Exception), failure
        worker.flush(20)
        worker.stop()


def address_in(request: Any, kind: str, folder: Path, name: str) -> str:
    """An empty database of a kind; gives its address."""
    if kind == "sqlite":
        return f"sqlite://{folder / 'x.db'}"
    server = SERVERS["mysql" if kind == "mariadb" else "postgres"]
    return database_on(request.getfixturevalue(server), name)


@pytest.fixture(scope="module", params=STORES)
def stored(request, tmp_path_factory) -> Site:
    """PACKETS in a store of each kind; tests only read."""
    folder = tmp_path_factory.mktemp("stored")
    extra = 'modparam("sipcapture", "schema", "homer7")' if request.param == "homer7" else ""
    site = Site(folder, address_in(request, request.param, folder, f"homer_{request.param}"), extra)
    site.store(PACKETS)
    return site


@pytest.fixture
def ask(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command over a site; gives exit status, output and errors."""

    def run(site: Site, command: str, *arguments: str) -> tuple[int, str, str]:
        status = main([command, "-f", str(site.script), *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def messages(ask) -> Callable[..., list[dict[str, Any]]]:
    """Runs a command over a site; gives the messages it finds, in its order."""

    def run(site: Site, command: str, *arguments: str) -> list[dict[str, Any]]:
        status, out, errors = ask(site, command, "--json", *arguments)
        assert (status, errors) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    return run


def call_ids(found: list[dict[str, Any]]) -> list[str]:
    return [message["callid"] for message in found]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["c1", "b1", "c1", "b2", "C1", "n1", "n2"]),
        (["--limit", "2"], ["n1", "n2"]),
        (["--limit", "3"], ["C1", "n1", "n2"]),
        (["--until", "2026-01-01T00:00:02.25", "--limit", "1"], ["b1"]),
        (["--since", "2026-01-01T00:00:02.25"], ["c1", "b2", "C1", "n1", "n2"]),
        (["--since", "2026-01-02", "--until", "2026-01-03"], ["n1"]),
        (["--call-id", "c1"], ["c1", "c1"]),
        (["--call-id", "n*"], ["n1", "n2"]),
        (["--from", "alice", "--until", "2026-01-01T00:00:02"], ["c1"]),
        (["--from", "al*"], ["c1", "b1", "c1", "b2", "C1", "n1"]),
        (["--from", "al_ice%*"], ["C1"]),
        (["--from", "al*", "--since", "2026-01-01T00:00:10", "--limit", "1"], ["n1"]),
        (["--from", "alan", "--to", "bob"], ["n1"]),
        (["--to", "*", "--limit", "1"], ["n2"]),
    ],
)
def test_what_is_found_is_the_same_in_every_store(stored, capsys, arguments, found):
    assert main(["search", "--json", "--db", stored.url, *arguments]) == 0
    assert call_ids([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == found


def test_a_message_is_the_same_from_every_store(stored, messages):
    _, told = messages(stored, "search", "--call-id", "c1")
    assert [told[field] for field in FIELDS] == ["c1", "200", "OK", "7 INVITE", "alice", "bob", ""]
    assert told["time"] == "2026-01-01T00:00:02.250000Z"
    assert (told["source_ip"], told["source_port"]) == (PROXY, 5060)
    assert (told["destination_ip"], told["destination_port"]) == (ALICE, 5070)
    assert (told["content_type"], told["via_1_branch"]) == ("application/sdp", "z9hG4bK7")
    assert (told["protocol"], told["user_agent"]) == ("udp", "Phone/1")
    assert told["msg"] == json.loads(PACKETS[1])["hep"]["payload"]


@pytest.mark.parametrize("asked", ["c1", "b1", "b2"])
def test_related_legs_belong_to_the_call(stored, messages, asked):
    assert call_ids(messages(stored, "flow", asked)) == ["c1", "b1", "c1", "b2"]


def test_show_prints_the_messages_whole(stored, ask):
    status, out, _ = ask(stored, "show", "n1")
    assert (status, out.splitlines()) == (
        0,
        [
            "proto:UDP 2026-01-02T00:00:01.000000Z  192.0.2.1:5060 ---> 192.0.2.2:5070",
            "",
            *json.loads(PACKETS[5])["hep"]["payload"].strip().split("\r\n"),
            "",
        ],
    )


def test_an_exported_call_is_what_was_captured(stored, ask, tmp_path):
    path = tmp_path / "calls.pcap"
    status, out, errors = ask(stored, "export", "c1", "n1", "--pcap", str(path))
    assert (status, out, errors) == (0, f"{path}: 5 messages\n", "")
    sent = [json.loads(PACKETS[at])["hep"] for at in (0, 2, 1, 3, 5)]
    keys = ("family", "src_ip", "src_port", "dst_ip", "dst_port", "time_sec", "time_usec")
    for one, hep in zip(read_input(str(path)), sent, strict=True):
        assert isinstance(one, Frame)
        told = (one.family, one.src_ip, one.src_port, one.dst_ip, one.dst_port)
        assert (*told, one.seconds, one.micros) == tuple(hep[key] for key in keys)
        assert one.payload.decode() == hep["payload"]


def test_an_exported_text_has_each_message_below_its_ends(stored, ask):
    status, out, _ = ask(stored, "export", "c1", "--text")
    assert status == 0
    assert out.count("proto:") == 4
    assert (
        "proto:TCP 2026-01-01T00:00:02.125000Z  192.0.2.1:5060 ---> 192.0.2.2:5070\n\n"
        + json.loads(PACKETS[2])["hep"]["payload"].rstrip()
        + "\n\n"
    ) in out


def test_a_call_that_is_not_there_is_a_fault_of_an_export_alone(stored, ask, tmp_path):
    path = tmp_path / "calls.pcap"
    status, out, errors = ask(stored, "export", "n1", "none", "--pcap", str(path))
    assert (status, out) == (1, f"{path}: 1 message\n")
    assert errors.startswith("homerd: no message of none in ")
    assert ask(stored, "show", "none")[0] == 0
    assert ask(stored, "export", "none", "--pcap", str(tmp_path / "no.pcap"))[:2] == (1, "")
    assert not (tmp_path / "no.pcap").exists()


@pytest.mark.parametrize("stored", STORES[1:], indirect=True)
def test_a_user_who_may_only_read_is_enough(stored, messages, request, tmp_path):
    scheme, name = stored.url.partition("://")[0], stored.url.rpartition("/")[2]
    server = request.getfixturevalue(SERVERS[scheme])
    user = f"reader_of_{name}"
    statements = [
        f"CREATE USER {user} WITH PASSWORD 'x'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}",
    ]
    if scheme == "mysql":
        statements = [
            f"CREATE USER {user} IDENTIFIED BY 'x'",
            f"GRANT SELECT ON {name}.* TO {user}",
        ]
    for statement in statements:
        server.rows_as_root(statement, name)
    site = Site(tmp_path, server.url(scheme, user, "x", name))
    assert call_ids(messages(site, "search", "--from", "al*", "--limit", "2")) == ["C1", "n1"]
    assert call_ids(messages(site, "flow", "b2")) == ["c1", "b1", "c1", "b2"]


def test_columns_may_have_the_operators_names(request, messages, tmp_path):
    for kind in ("sqlite", "postgres", "mariadb"):
        folder = tmp_path / kind
        folder.mkdir()
        url = address_in(request, kind, folder, f"homer_renamed_{kind}")
        extra = "".join(
            f'modparam("sipcapture", "{key}_column", "x_{key}")\n'
            for key in (
                "date",
                "micro_ts",
                "callid",
                "from_user",
                "correlation",
                "msg",
                "callid_aleg",
            )
        )
        site = Site(folder, url, extra)
        site.store(PACKETS)
        assert call_ids(messages(site, "search", "--since", "2026-01-01T00:01")) == [
            "C1",
            "n1",
            "n2",
        ]
        assert call_ids(messages(site, "search", "--from", "al*", "--limit", "1")) == ["n1"]
        assert call_ids(messages(site, "flow", "b2")) == ["c1", "b1", "c1", "b2"]


@pytest.fixture
def both(request, tmp_path) -> Site:
    """A script that stores every packet in an SQLite file and in PostgreSQL, as Homer 7 has it."""
    url = address_in(request, "homer7", tmp_path, "homer_both")
    mode = f'modparam("sipcapture", "capture_mode", "seven=>db_url={url};schema=homer7")'
    statements = 'sip_capture("sip_capture_%Y%m%d"); sip_capture("hep", "seven");'
    site = Site(tmp_path, f"sqlite://{tmp_path / 'x.db'}", mode, statements)
    site.store(PACKETS)
    return site


def test_a_message_in_two_stores_comes_once(both, messages):
    assert call_ids(messages(both, "search")) == ["c1", "b1", "c1", "b2", "C1", "n1", "n2"]
    assert call_ids(messages(both, "search", "--limit", "2")) == ["n1", "n2"]
    assert call_ids(messages(both, "flow", "c1")) == ["c1", "b1", "c1", "b2"]


def test_a_store_that_is_away_is_named_and_the_others_are_read(request, ask, tmp_path):
    away = f"postgres://homer:secret@127.0.0.1:{free_port()}/homer_data"
    mode = f'modparam("sipcapture", "capture_mode", "seven=>db_url={away};schema=homer7")'
    site = Site(tmp_path, f"sqlite://{tmp_path / 'x.db'}")
    site.store(PACKETS)
    site = Site(tmp_path, f"sqlite://{tmp_path / 'x.db'}", mode)
    status, out, errors = ask(site, "search", "--json", "--from", "alan")
    assert (status, json.loads(out)["callid"]) == (1, "n1")
    parameter = away.replace("homer:secret", "…")
    assert errors.startswith(
        f'homerd: modparam("sipcapture", "capture_mode", "seven=>db_url={parameter}…"): '
    )
    assert len(errors.splitlines()) == 1
    assert "secret" not in errors
