"""FlatSink against folders: what a line says, what a kill and a full disk leave behind."""

from __future__ import annotations

import base64
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homerd.cli import main
from homerd.errors import ConfigError, RetryLater
from homerd_plugins import _filejournal
from homerd_plugins._flatstore import FileAddress, FlatSink
from homerd_plugins._homer5 import INTEGER, REPORT_COLUMNS, SIP_COLUMNS
from homerd_plugins._upkeep import Kept, remove_old

CALL = "sip_capture_call_20260101"
ODD = "INVITE sip:b|b@b SIP/2.0\r\nX: \\ \x01 grün\r\n\r\n\0" + "x" * 60_000


def sip(table: str = CALL, **cells: object):
    usual = {column.key: 0 if column.type == INTEGER else "" for column in SIP_COLUMNS}
    told = {"date": "2026-01-01 00:00:01", "micro_ts": 1767225601000000, "method": "INVITE"}
    return table, 0, tuple((usual | told | cells).values())


def report(table: str, message: str = "{}"):
    row = (
        "2026-01-01 00:00:00",
        1,
        "c",
        "10.0.0.1",
        1,
        "10.0.0.2",
        2,
        1,
        None,
        3,
        "homer01",
        message,
    )
    return table, 1, row


@pytest.fixture
def sink(tmp_path):
    """Makes sinks on one folder; closes them at the end."""
    made: list[FlatSink] = []

    def make(form: str = "file:{}") -> FlatSink:
        address = FileAddress.of(form.format(tmp_path))
        assert address is not None
        made.append(FlatSink("sipcapture", address, (SIP_COLUMNS, REPORT_COLUMNS), source="db_url"))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.close()


def named(one: FlatSink, batch: str, *records) -> None:
    """Write records as the batch of this name."""
    one.batch_id = batch
    one.write(list(records))
    one.batch_id = ""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def lines(path: Path) -> list[dict]:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("flatstore:/var/log/acc", ("flatstore", "/var/log/acc", 256 << 20, False)),
        ("file:/var/log/homer", ("file", "/var/log/homer", 256 << 20, False)),
        ("file:///var/log/homer?gzip=1&size=10MB", ("file", "/var/log/homer", 10 << 20, True)),
        ("FILE:here", ("file", "here", 256 << 20, False)),
    ],
)
def test_a_url_names_a_folder(url, address):
    assert FileAddress.of(url) == FileAddress(*address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:", "expected file:/path"),
        ("flatstore:", "expected flatstore:/path"),
        ("flatstore:/x?gzip=1", "expected flatstore:/path"),
        ("file:/x?gzip=2", 'expected size=256MB or gzip=1, got "gzip=2"'),
        ("file:/x?size=big", "expected a size"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url, said):
    with pytest.raises(ValueError, match=said.replace("?", ".")):
        FileAddress.of(url)


def test_flatstore_writes_what_kamailio_would(sink, tmp_path):
    sink("flatstore:{}").write([sip(ruri="sip:a|b", family=None, msg="A: b|\\\r\n\0\xff")])
    assert files(tmp_path) == [f"{CALL}_0.log"]
    cells = (tmp_path / f"{CALL}_0.log").read_text().rstrip("\n").split("|")
    told = dict(zip((column.key for column in SIP_COLUMNS), cells, strict=True))
    assert told["date"] == "1767225601"
    assert (told["method"], told["ruri"], told["family"]) == ("INVITE", "sip:a%7Cb", "")
    assert told["msg"] == "A: b\\x7C\\x5C\\x0D\\x0A\\x00\\xC3\\xBF"


@pytest.mark.parametrize("form", ["file:{}", "file:{}?gzip=1"])
def test_json_lines_have_whatever_came(form, sink, tmp_path):
    one = sink(form)
    one.write([sip(msg=ODD, family=None), sip(msg=b"\xff\0\xfe")])
    one.write([sip(msg=b"nul \0"), report("rtcp_capture_20260101")])
    ending = "jsonl.gz" if "gzip" in form else "jsonl"
    assert files(tmp_path) == [f"rtcp_capture_20260101_0.{ending}", f"{CALL}_0.{ending}"]
    first, second, third = lines(tmp_path / f"{CALL}_0.{ending}")
    assert (first["msg"], first["family"], first["date"]) == (ODD, None, "2026-01-01 00:00:01")
    assert base64.b64decode(second["msg"]["base64"]) == b"\xff\0\xfe"
    assert third["msg"] == "nul \0"


def test_a_table_without_a_day_has_a_file_for_each_and_a_large_one_a_further(sink, tmp_path):
    one = sink("file:{}?size=1MB")
    for _ in range(3):
        one.write([report("rtcp_capture", "x" * 600_000)])
    today = f"{datetime.now(UTC):%Y%m%d}"
    assert files(tmp_path) == [f"rtcp_capture_{today}.2_0.jsonl", f"rtcp_capture_{today}_0.jsonl"]
    assert one.sizes()[f"rtcp_capture_{today}"] > 1_800_000


def test_a_batch_that_comes_again_is_not_written_again(sink, tmp_path):
    one = sink()
    named(one, "b1", sip())
    named(one, "b1", sip())
    assert (len(lines(tmp_path / f"{CALL}_0.jsonl")), one.replayed) == (1, 1)
    one.close()
    again = sink()
    named(again, "b1", sip())
    named(again, "b2", sip())
    assert (len(lines(tmp_path / f"{CALL}_0.jsonl")), again.replayed) == (2, 1)


def test_two_writers_have_files_of_their_own_and_know_each_others_batches(sink, tmp_path):
    one, two = sink(), sink()
    named(one, "b1", sip())
    named(two, "b2", sip())
    assert files(tmp_path) == [f"{CALL}_0.jsonl", f"{CALL}_1.jsonl"]
    one.close()
    two.close()
    later = sink()
    named(later, "b2", sip())
    assert later.replayed == 1


@pytest.mark.parametrize("is_new", [False, True])
def test_what_a_killed_writer_had_not_committed_is_cut_off(is_new, sink, tmp_path, monkeypatch):
    path = tmp_path / f"{CALL}_0.jsonl"
    one = sink()
    if not is_new:
        named(one, "b1", sip())

    def killed(self, batch, ends):
        if batch:
            raise KeyboardInterrupt
        commit(self, batch, ends)

    commit = _filejournal.FileJournal._commit
    monkeypatch.setattr(_filejournal.FileJournal, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        named(one, "b2", sip())
    monkeypatch.undo()
    one.close()
    assert len(lines(path)) == 2 - is_new
    with path.open("ab") as file:
        file.write(b'{"date": "half of a li')
    again = sink()
    assert len(lines(path)) == 1 - is_new
    named(again, "b2", sip())
    assert len(lines(path)) == 2 - is_new


def test_a_file_that_was_moved_away_or_emptied_is_begun_anew(sink, tmp_path):
    one, path = sink(), tmp_path / f"{CALL}_0.jsonl"
    one.write([sip(), sip()])
    path.rename(tmp_path / "rotated")
    one.write([sip()])
    assert (len(lines(path)), len(lines(tmp_path / "rotated"))) == (1, 2)
    path.write_bytes(b"")
    one.write([sip(), sip(), sip()])
    one.write([sip()])
    assert len(lines(path)) == 4


def test_a_full_disk_leaves_no_part_of_a_batch_and_the_next_try_stores_it(sink, tmp_path):
    one = sink()
    named(one, "b1", sip(), report("rtcp_capture_20260101"))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    batch = [report("rtcp_capture_20260101"), sip(msg="x" * 2_000_000)]
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        with pytest.raises(RetryLater, match="db_url: File too large"):
            named(one, "b2", *batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    named(one, "b2", *batch)
    assert [len(lines(tmp_path / name)) for name in files(tmp_path)] == [2, 2]


def test_a_folder_that_is_not_there_is_the_operators_to_mend(tmp_path):
    address = FileAddress("file", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"db_url: no such folder: .*none"):
        FlatSink("s", address, (), source="db_url").connect()


def test_a_journal_that_cannot_be_read_stops_nobody(sink, tmp_path):
    named(sink(), "b1", sip())
    (tmp_path / ".homerd-7.journal").write_bytes(
        b'\xff\n[]\n{"batch": 1, "at": "x", "ends": []}\n{'
    )
    named(sink(), "b1", sip())
    assert files(tmp_path) == [f"{CALL}_0.jsonl"]


def test_the_journal_is_written_anew_when_it_is_long(sink, tmp_path, monkeypatch):
    monkeypatch.setattr(_filejournal, "MORE_LINES", 10)
    one = sink()
    one.ids_kept_seconds = 0
    one.close()
    one.connect()
    for number in range(40):
        named(one, f"b{number}", sip())
    journal = (tmp_path / ".homerd-0.journal").read_bytes().splitlines()
    assert len(journal) < 60
    assert len(lines(tmp_path / f"{CALL}_0.jsonl")) == 40


def test_retention_removes_files_by_the_day_in_their_name(sink, tmp_path):
    one = sink()
    now = datetime.now(UTC)
    old, new = (f"sip_capture_call_{now - timedelta(days=days):%Y%m%d}" for days in (9, 1))
    one.write([sip(old), sip(new), report("rtcp_capture")])
    (tmp_path / f"{old}_5.jsonl.gz").write_bytes(b"")
    (tmp_path / f"{old}.txt").write_bytes(b"")
    done = remove_old(one, Kept({"sip_capture_call": 5, "rtcp_capture": 5}), time.time())
    assert [str(each) for each in done] == [f"drop {old}"]
    kept = {f"rtcp_capture_{now:%Y%m%d}_0.jsonl", f"{new}_0.jsonl", f"{old}.txt"}
    assert set(files(tmp_path)) == kept


def test_a_keeper_takes_no_number_from_a_writer(sink, tmp_path, capsys):
    text = 'loadmodule "sipcapture"\nrequest_route { exit; }\n'
    text += f'modparam("sipcapture", "db_url", "file:{tmp_path}/rows")\n'
    (tmp_path / "homer.cfg").write_text(text + 'modparam("sipcapture", "retention", "calls=5")\n')
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "calls_20200101_0.jsonl").write_text("{}\n")
    for option in (["--dry-run"], []):
        assert main(["retention", "-f", str(tmp_path / "homer.cfg"), *option]) == 0
        assert "drop calls_20200101" in capsys.readouterr().out
    assert [*(tmp_path / "rows").iterdir()] == []


INVITE = json.dumps({"sip": "INVITE sip:bob@b SIP/2.0\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\r\n"})


def script(folder: Path, *modparams: str) -> Path:
    path = folder / "homer.cfg"
    rest = "\n".join(f'modparam("sipcapture", {each})' for each in modparams)
    path.write_text(
        f'loadmodule "sipcapture"\nmodparam("sipcapture", "capture_on", 1)\n{rest}\n'
        'request_route { sip_capture("calls"); sip_capture("others", "plain"); drop; }\n'
    )
    return path


def test_a_script_stores_in_files_beside_a_database(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "in").write_text(INVITE + "\n")
    mode = f"plain=>db_url=file:{tmp_path}/out?gzip=1;table_name=x;mt_mode=rand"
    cfg = script(tmp_path, f'"db_url", "flatstore:{tmp_path}/out"', f'"capture_mode", "{mode}"')
    assert main(["replay", "-f", str(cfg), str(tmp_path / "in")]) == 0
    found = files(tmp_path / "out")
    assert found == ["calls_0.log", f"others_{datetime.now(UTC):%Y%m%d}_1.jsonl.gz"]
    assert lines(tmp_path / "out" / found[1])[0]["callid"] == "c1"
    capsys.readouterr()
    assert (
        main(["archive", "export", "-f", str(cfg), "--mode", "plain", "--to", str(tmp_path / "a")])
        == 1
    )
    assert "a store of files, which are archives of their own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "file:{}/none",
            'homerd: modparam("sipcapture", "db_url", "file:{}/none"): no such folder',
        ),
        ("file:{}?gzip=yes", 'db_url: expected size=256MB or gzip=1, got "gzip=yes"'),
    ],
)
def test_what_is_wrong_is_said_in_a_line_that_names_the_parameter(url, said, tmp_path, capsys):
    (tmp_path / "in").write_text(INVITE + "\n")
    mode = f"plain=>db_url=sqlite://{tmp_path}/x.db;table_name=x;mt_mode=rand"
    cfg = script(tmp_path, f'"db_url", "{url.format(tmp_path)}"', f'"capture_mode", "{mode}"')
    assert main(["replay", "-f", str(cfg), str(tmp_path / "in")]) == 1
    told = capsys.readouterr().err.splitlines()[0]
    assert said.format(tmp_path) in told


def test_kill_leaves_whole_lines_and_no_row_twice(tmp_path):
    """A writer is killed at any moment; another one writes the same batches again."""
    program = (
        "import sys\nfrom homerd_plugins._flatstore import *\nfrom homerd_plugins._homer5 import *\n"
        f"one = FlatSink('s', FileAddress('file', {str(tmp_path)!r}), (SIP_COLUMNS, REPORT_COLUMNS))\n"
        "one.connect()\n"
        "for at in range(200):\n"
        "    one.batch_id = f'b{at}'\n"
        "    row = ('2026-01-01 00:00:00', at, 'c', '', 1, '', 2, 1, 2, 3, 'n', 'x' * 20000)\n"
        "    one.write([('r_20260101', 1, row), ('s_20260101', 1, row)])\n"
        "    print(at, flush=True)\n"
    )
    for enough in (1, 40, 90):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        while int(process.stdout.readline()) < enough:
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    for name in ("r_20260101_0.jsonl", "s_20260101_0.jsonl"):
        assert [row["micro_ts"] for row in lines(tmp_path / name)] == list(range(200))
