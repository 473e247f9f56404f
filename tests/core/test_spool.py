import errno
import os
import signal
import subprocess
import sys

import pytest

from homerd.core import segment
from homerd.core.segment import dump
from homerd.core.spool import Spool, left_behind

ROWS = [("sip_capture", 0, ("INVITE", 1, None, b"\xff", "\udcff"))]


@pytest.fixture
def opened(tmp_path):
    spools = []

    def begin(limit=1 << 20, **options):
        made = Spool(tmp_path / "sip", limit, **options)
        made.open()
        spools.append(made)
        return made

    yield begin
    for each in spools:
        each.close()


def put(to, id, *records, **options):
    return to.append(id, len(records), dump(records), **options)


def ids(of):
    found = []
    while (stored := of.take()) is not None:
        found.append(stored.id)
    return found


def only_file(tmp_path):
    (file,) = (tmp_path / "sip").glob("*/*.seg")
    return file


def test_a_batch_comes_back_as_it_was_under_its_id(opened):
    spooled = opened()
    put(spooled, "run-1", *ROWS)
    stored = spooled.take()
    assert (stored.id, stored.records) == ("run-1", ROWS)
    assert spooled.take() is None


def test_the_oldest_comes_first_over_segments_and_runs(opened):
    first = opened(segment_size=100)
    for number in range(3):
        put(first, f"a-{number}", "x" * 80)
    first.close()
    second = opened(segment_size=100)
    put(second, "b-1", "y")
    assert (second.found, second.records) == (3, 4)
    assert ids(second) == ["a-0", "a-1", "a-2", "b-1"]


def test_what_was_stored_does_not_come_back_after_a_restart(opened):
    first = opened()
    for number in range(3):
        put(first, str(number), number)
    first.take()
    first.done(first.take().entry)
    first.close()
    assert ids(opened()) == ["0", "2"]


def test_files_and_folders_are_gone_when_all_is_stored(opened, tmp_path):
    spooled = opened()
    put(spooled, "1", "a")
    spooled.done(spooled.take().entry)
    assert list((tmp_path / "sip").glob("*/*.seg")) == []
    spooled.close()
    assert not (tmp_path / "sip").exists()


def test_a_batch_in_hands_is_not_given_again(opened):
    spooled = opened()
    entry = put(spooled, "1", "a", taken=True)
    put(spooled, "2", "b")
    assert spooled.records == 1
    assert ids(spooled) == ["2"]
    spooled.done(entry)
    spooled.close()
    assert ids(opened()) == ["2"]


def test_a_file_is_gone_when_all_that_was_in_hands_is_stored(opened, tmp_path):
    spooled = opened()
    spooled.done(put(spooled, "1", "a", taken=True))
    assert list((tmp_path / "sip").glob("*/*.seg")) == []


def test_a_batch_in_hands_comes_back_after_a_restart(opened):
    first = opened()
    put(first, "1", "a", taken=True)
    first.close()
    assert ids(opened()) == ["1"]


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_an_end_that_was_cut_off_is_counted_and_the_rest_comes_back(opened, tmp_path, cut):
    first = opened()
    put(first, "1", "a" * 20)
    put(first, "2", "b" * 20)
    first.close()
    file = only_file(tmp_path)
    os.truncate(file, file.stat().st_size - cut)
    second = opened()
    assert (second.torn, second.records, ids(second)) == (1, 1, ["1"])


@pytest.mark.parametrize("at", range(16, 47, 3))
def test_a_damaged_batch_is_counted_and_the_next_comes_back(opened, tmp_path, at):
    first = opened()
    put(first, "1", "a" * 20, "b")
    put(first, "2", "c")
    first.close()
    file = only_file(tmp_path)
    data = bytearray(file.read_bytes())
    data[24 + at] ^= 0x55
    file.write_bytes(data)
    second = opened()
    assert ids(second) == ["2"]
    assert (second.damaged, second.records) == (2, 0)


def test_a_damaged_head_costs_the_rest_of_its_segment(opened, tmp_path):
    spooled = opened()
    for number in range(3):
        put(spooled, str(number), "x")
    spooled.take()
    file = only_file(tmp_path)
    data = bytearray(file.read_bytes())
    data[24 + (len(data) - 24) // 3] = 0
    file.write_bytes(data)
    assert ids(spooled) == []
    assert (spooled.damaged, spooled.records) == (2, 0)


def test_a_file_that_is_no_segment_is_left_alone(opened, tmp_path):
    first = opened()
    put(first, "1", "a")
    first.close()
    file = only_file(tmp_path)
    (file.parent / "00000000.seg").write_bytes(b"something else, and longer than a header")
    second = opened()
    assert (second.torn, ids(second)) == (1, ["1"])
    assert (file.parent / "00000000.unreadable").exists()


def test_a_file_that_cannot_be_opened_is_left_alone(opened, tmp_path, caplog):
    (tmp_path / "sip" / "0123" / "00000001.seg").mkdir(parents=True)  # as one of another user's
    spool = opened()
    assert (spool.torn, spool.found) == (1, 0)
    assert "00000001.seg" in caplog.text
    put(spool, "a", 1)
    assert ids(spool) == ["a"]


def test_records_of_another_format_are_left_alone_and_counted(opened, tmp_path):
    first = opened(format=1)
    put(first, "1", "a", "b")
    first.close()
    second = opened(format=2)
    assert (second.found, second.foreign, ids(second)) == (0, 2, [])
    assert len(list((tmp_path / "sip").glob("*/*.unreadable"))) == 1


def test_above_the_limit_the_oldest_segment_goes(opened):
    spooled = opened(1000, segment_size=125)
    for number in range(20):
        put(spooled, f"{number:02}", "x" * 60)
    kept = 20 - spooled.shed
    assert spooled.size <= 1000
    assert 0 < spooled.shed < 20
    assert spooled.records == kept
    assert ids(spooled) == [f"{number:02}" for number in range(spooled.shed, 20)]


def test_a_batch_in_hands_is_not_counted_as_lost_when_its_segment_goes(opened):
    spooled = opened(1000, segment_size=125)
    put(spooled, "00", "x" * 60)
    stored = spooled.take()
    for number in range(1, 20):
        put(spooled, f"{number:02}", "x" * 60)
    assert spooled.shed + spooled.records == 19
    spooled.done(stored.entry)


def test_on_a_full_disk_the_oldest_segment_makes_room(opened, monkeypatch):
    spooled = opened(segment_size=125)
    for number in range(3):
        put(spooled, str(number), "x" * 60)
    write, room = os.pwrite, [False]

    def full(file, data, offset):
        if len(data) > 1 and not room[0]:
            room[0] = True
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(segment.os, "pwrite", full)
    put(spooled, "3", "x" * 60)
    assert spooled.shed == 1
    assert ids(spooled) == ["1", "2", "3"]


def test_a_broken_disk_is_an_error_and_nothing_of_the_batch_is_there(opened, monkeypatch):
    spooled = opened()
    put(spooled, "1", "a")
    write = os.pwrite

    def broken(file, data, offset):
        write(file, data[:5], offset)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(segment.os, "pwrite", broken)
        with pytest.raises(OSError, match="Input/output"):
            put(spooled, "2", "b")
    put(spooled, "3", "c")
    assert ids(spooled) == ["1", "3"]


def test_two_at_the_same_time_leave_each_other_alone(opened):
    first = opened()
    put(first, "1", "a")
    second = opened()
    put(second, "2", "b")
    assert (second.found, ids(second), ids(first)) == (0, ["2"], ["1"])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "sip").write_text("a file")
    with pytest.raises(FileExistsError):
        Spool(tmp_path / "sip").open()


def test_what_belongs_to_no_store_is_found(opened, tmp_path):
    first = opened()
    put(first, "1", "a")
    assert list(left_behind(tmp_path, [])) == []
    first.close()
    ((path, size),) = left_behind(tmp_path, [])
    assert (path, size) == (tmp_path / "sip", only_file(tmp_path).stat().st_size)
    assert list(left_behind(tmp_path, [path])) == []
    assert list(left_behind(tmp_path / "none", [])) == []


def test_after_a_kill_what_was_appended_is_there_and_what_was_not_is_counted(opened, tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from homerd.core.segment import dump; from homerd.core.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1])); spool.open()\n"
        "for n in range(5): spool.append(str(n), 2, dump(['a', 'b']))\n"
        "spool.done(spool.take().entry); spool.take()\n"
        "spool.volatile[0], spool.volatile[1] = 7, 35\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "sip"], timeout=60)
    assert done.returncode == -signal.SIGKILL
    second = opened()
    assert (second.found, second.killed, second.torn) == (8, 42, 0)
    second.close()
    third = opened()
    assert (third.found, third.killed, ids(third)) == (8, 0, ["1", "2", "3", "4"])


def test_dump_takes_plain_values_only():
    with pytest.raises(ValueError, match="unmarshallable"):
        dump([object()])
