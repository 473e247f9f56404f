"""What a writer of plain files has committed: a side file of ends, and of the ids of batches.

A batch is appended to its files and brought to the disk, then its line to the journal:

    {"batch": "…", "at": 1767225600, "ends": {"rtcp_capture_20260101_0.jsonl": [inode, 4711]}}

A file that is longer than its end got part of a batch that nobody counted as stored, and is cut.  A
new file has its line before its first batch.  One that was moved away or emptied by whoever rotates
files is begun anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("homerd.flatstore")

MOST_WRITERS = 1000
# The journal is written anew when it has so many lines more than twice those that were needed.
MORE_LINES = 10_000


class FileJournal:
    """The journal of one writer.

    number: its number, which no other process has as long as this one runs.
    """

    def __init__(self, folder: Path, ids_kept_seconds: int) -> None:
        self.folder = folder
        self._kept_seconds = ids_kept_seconds
        self._lines = self._most_lines = 0
        self._ids: dict[str, int] = {}
        self._ends: dict[str, tuple[int, int]] = {}
        self.number, self._lock = _lock(folder)
        try:
            self._read()
            for name in self._ends:
                self._mend(name)
            self._rewrite()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another process have the number."""
        os.close(self._lock)

    def has(self, batch: str) -> bool:
        """Whether *batch* is in the files."""
        return batch in self._ids

    def size(self, name: str) -> int:
        """How long a file is, 0 for one that is not there."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, parts: Mapping[str, bytes], batch: str) -> None:
        """Append to each file, and commit; after an OSError nothing is appended."""
        ends: dict[str, tuple[int, int]] = {}
        try:
            begun = {name: end for name in parts if (end := self._begin(name)) is not None}
            if begun:
                self._commit("", begun)
            for name, data in parts.items():
                ends[name] = _append(self.folder / name, data)
            self._commit(batch, ends)
        except OSError:
            for name in parts:
                with contextlib.suppress(OSError):
                    self._mend(name)
            raise

    # Files

    def _begin(self, name: str) -> tuple[int, int] | None:
        """Have a file ready; where it ends when the journal does not know it yet."""
        self._mend(name)
        number = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            there = os.fstat(number)
        finally:
            os.close(number)
        end = (there.st_ino, there.st_size)
        if self._ends.get(name) == end:
            return None
        _sync_folder(self.folder)
        return end

    def _mend(self, name: str) -> None:
        """Cut off what was appended to a file and not committed."""
        path = self.folder / name
        try:
            there = path.stat()
        except FileNotFoundError:
            return
        inode, end = self._ends.get(name, (0, 0))
        if inode == there.st_ino and there.st_size > end:
            log.warning(
                "bytes of a batch that was not finished are cut off file=%s bytes=%d",
                path,
                there.st_size - end,
            )
            os.truncate(path, end)

    # The journal

    @property
    def _path(self) -> Path:
        return self.folder / f".homerd-{self.number}.journal"

    def _read(self) -> None:
        """Ends of this writer's files; ids of all writers' batches."""
        for path in self.folder.glob(".homerd-*.journal"):
            for line in _lines(path):
                if line["batch"]:
                    self._ids[line["batch"]] = line["at"]
                if path == self._path:
                    self._ends |= line["ends"]

    def _commit(self, batch: str, ends: dict[str, tuple[int, int]]) -> None:
        if self._lines > self._most_lines:
            self._rewrite()
        now = int(time.time())
        line = _line(batch, now, ends)
        number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            begun = os.fstat(number).st_size
            try:
                _write(number, line)
                os.fsync(number)
            except OSError:
                os.ftruncate(number, begun)
                raise
        finally:
            os.close(number)
        self._lines += 1
        if batch:
            self._ids[batch] = now
        self._ends |= ends

    def _rewrite(self) -> None:
        """Write the journal anew, without what nobody asks for any more."""
        oldest = int(time.time()) - self._kept_seconds
        self._ids = {batch: at for batch, at in self._ids.items() if at >= oldest}
        self._ends = {name: end for name, end in self._ends.items() if self._is_there(name, end)}
        lines = [_line("", 0, self._ends)]
        lines += [_line(batch, at, {}) for batch, at in self._ids.items()]
        partial = self._path.with_suffix(".partial")
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            _write(number, b"".join(lines))
            os.fsync(number)
        finally:
            os.close(number)
        os.replace(partial, self._path)
        _sync_folder(self.folder)
        self._lines = len(lines)
        self._most_lines = 2 * len(lines) + MORE_LINES

    def _is_there(self, name: str, end: tuple[int, int]) -> bool:
        try:
            return (self.folder / name).stat().st_ino == end[0]
        except FileNotFoundError:
            return False


def _lock(folder: Path) -> tuple[int, int]:
    """The first number that no process has, and the file that holds it."""
    for number in range(MOST_WRITERS):
        held = os.open(folder / f".homerd-{number}.lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            continue
        return number, held
    raise OSError(f"{MOST_WRITERS} processes write to it")


def _append(path: Path, data: bytes) -> tuple[int, int]:
    """Append, down to the disk; gives the inode and where the file ends."""
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        begun = os.fstat(number)
        try:
            _write(number, data)
            os.fsync(number)
        except OSError:
            os.ftruncate(number, begun.st_size)
            raise
        return begun.st_ino, begun.st_size + len(data)
    finally:
        os.close(number)


def _write(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _line(batch: str, at: int, ends: Mapping[str, tuple[int, int]]) -> bytes:
    return json.dumps({"batch": batch, "at": at, "ends": ends}).encode() + b"\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; the last may be half of one, of a batch that was not committed."""
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            try:
                told = json.loads(line)
                ends = {str(name): (int(end[0]), int(end[1])) for name, end in told["ends"].items()}
                yield {"batch": str(told["batch"]), "at": int(told["at"]), "ends": ends}
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                log.warning("a line of the journal cannot be read, it is left out file=%s", path)
