"""The spool: batches on disk while a store is away.

    FOLDER/9f3c1a7be2041122/          one folder a run, locked by it as long as it lives
        volatile                      how many records are in memory only, two 64-bit numbers
        00000001.seg                  segments, oldest first (segment.py)

A run takes over the folders of those that have ended, however they ended.  What is appended
outlives the process at once, and the machine after `sync`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from homerd.core.segment import DamagedError, Packed, Segment, encoded

log = logging.getLogger("homerd.spool")

SPOOL_LIMIT = 1 << 30
SEGMENT_SIZE = 16 << 20
_SYSTEM = Path("/var/spool/homerd")
_VOLATILE = "volatile"
_SEGMENTS = "*.seg"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Entry:
    """A batch on disk that is in somebody's hands.  parts: pieces of it that are not settled."""

    __slots__ = ("offset", "parts", "segment")

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        self.parts = 1


class Stored:
    """A batch as it was read back."""

    __slots__ = ("entry", "id", "records")

    def __init__(self, entry: Entry, id: str, records: list[Packed]) -> None:
        self.entry = entry
        self.id = id
        self.records = records


class Spool:
    """One sink's batches on disk; every call may wait for the disk.

    format: of the records; segments of another one are left alone.
    records: those that wait, without what `take` gave.  size: bytes of the files.
    found, killed, torn: what `open` found: records that wait, records that were in memory only when
    a run was killed, batches whose writing was cut short.
    shed, damaged, foreign: records lost because there was no room, because they cannot be read,
    because they are of another format.
    volatile: two numbers that `open` of the next run adds to `killed`, unless this one is closed.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = SPOOL_LIMIT,
        *,
        format: int = 1,
        segment_size: int = SEGMENT_SIZE,
    ) -> None:
        self.folder = folder
        self.limit = limit
        self.format = format
        self.segment_size = max(1, min(segment_size, limit // 8))
        self.records = 0
        self.size = 0
        self.found = 0
        self.killed = 0
        self.torn = 0
        self.shed = 0
        self.damaged = 0
        self.foreign = 0
        self.volatile: memoryview | list[int] = [0, 0]
        self._lock = threading.Lock()
        self._runs: dict[Path, int] = {}  # folders that are ours, with their locks
        self._own = folder / secrets.token_hex(8)
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._numbers = 0
        self._unsynced = False

    def open(self) -> None:
        """Take over what earlier runs left; OSError when the folder cannot be used."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            for path in sorted(self.folder.iterdir()):
                if path.is_dir() and (lock := _lock(path)) is not None:
                    self._adopt(path, lock)
            self._own.mkdir()
            lock = _lock(self._own)
        if lock is None:
            raise OSError(errno.EBUSY, "locked by another process", str(self._own))
        self._runs[self._own] = lock
        self._segments.sort(key=lambda segment: segment.created)
        self.volatile = _shared(self._own / _VOLATILE)
        self.found = self.records

    def append(self, id: str, records: int, payload: bytes, *, taken: bool = False) -> Entry:
        """Put a batch at the end, if need be in the place of the oldest segment.

        taken: it is in hands already, `take` does not give it.  OSError when it cannot be written,
        and then nothing of it is there.
        """
        data = encoded(id, records, payload)
        with self._lock:
            while self.size + len(data) > self.limit and self._shed():
                pass
            segment, offset = self._put(data)
            self.size += len(data)
            self._unsynced = True
            if taken:
                segment.taken.add(offset)
            else:
                segment.records += records
                self.records += records
            return Entry(segment, offset)

    def take(self) -> Stored | None:
        """The oldest batch that waits; None when none does."""
        with self._lock:
            for segment in list(self._segments):
                stored = self._take_from(segment)
                if stored is not None:
                    return stored
                self._drop_if_finished(segment)
        return None

    def done(self, entry: Entry) -> None:
        """The batch is stored, or nothing can be done for it."""
        with self._lock:
            segment = entry.segment
            if not segment.gone:
                segment.mark(entry.offset)
                self._drop_if_finished(segment)

    def sync(self) -> None:
        """Have the disk hold what was appended."""
        with self._lock:
            unsynced, self._unsynced = self._unsynced, False
            if unsynced and self._current is not None:
                self._current.sync()

    @property
    def unsynced(self) -> bool:
        """Whether something waits for `sync`."""
        return self._unsynced

    def close(self) -> None:
        """End this run: what is spooled stays for the next one, of the rest nothing."""
        with contextlib.suppress(OSError):
            self.sync()
        with self._lock:
            for segment in self._segments:
                segment.close()
            for path, lock in self._runs.items():
                _end(path, lock)
            self._segments.clear()
            self._runs.clear()
            self._current = None
        for folder in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    # With the lock held

    def _adopt(self, run: Path, lock: int) -> None:
        """Everything of a run that has ended."""
        self._runs[run] = lock
        self.killed += _left_in_memory(run / _VOLATILE)
        (run / _VOLATILE).unlink(missing_ok=True)
        for path in sorted(run.glob(_SEGMENTS)):
            try:
                segment = Segment.found(path)
            except OSError as error:  # of this one; the others, and what is to come, have a place
                log.error("a spooled file cannot be read, it is left alone error=%s", error)
                segment = None
            if segment is None:
                self.torn += 1
                continue
            self.torn += segment.torn
            if segment.format != self.format:
                log.error("spool of another format left alone file=%s", path)
                self.foreign += segment.records
                segment.set_aside()
                continue
            self.records += segment.records
            self.size += segment.size
            self._segments.append(segment)
            if not segment.records:
                self._remove(segment)
        self._end_if_empty(run)

    def _put(self, data: bytes) -> tuple[Segment, int]:
        """Write *data*; on a full disk in the place of the oldest segment."""
        while True:
            try:
                segment = self._current
                if segment is None or segment.size + len(data) > self.segment_size:
                    segment = self._begin()
                return segment, segment.append(data)
            except OSError as error:
                if error.errno not in _FULL or not self._shed():
                    raise

    def _begin(self) -> Segment:
        """A new segment in place of the current one."""
        if self._current is not None:
            if self._current.empty:
                return self._current
            self._current.sync()
        self._numbers += 1
        segment = Segment.new(self._own / f"{self._numbers:08}.seg", self.format)
        self.size += segment.size
        self._segments.append(segment)
        self._current = segment
        return segment

    def _take_from(self, segment: Segment) -> Stored | None:
        while True:
            before = segment.records
            try:
                found = segment.take()
            except DamagedError as error:
                self.damaged += error.records
                self.records -= error.records
                log.error("spooled records lost records=%d error=%s", error.records, error)
                continue
            self.records -= before - segment.records
            if found is None:
                return None
            offset, id, records = found
            return Stored(Entry(segment, offset), id, records)

    def _shed(self) -> bool:
        """Give up the oldest segment; False when there is none."""
        oldest = next((segment for segment in self._segments if not segment.empty), None)
        if oldest is None:
            return False
        self.shed += oldest.records
        self._remove(oldest)
        return True

    def _drop_if_finished(self, segment: Segment) -> None:
        if segment.finished:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self.records -= segment.records
        self.size -= segment.size
        segment.records = 0
        if segment is self._current:
            self._current = None
        self._segments.remove(segment)
        segment.close()
        with contextlib.suppress(OSError):
            segment.path.unlink()
        self._end_if_empty(segment.path.parent)

    def _end_if_empty(self, run: Path) -> None:
        if run != self._own and run in self._runs and not any(run.glob(_SEGMENTS)):
            _end(run, self._runs.pop(run))


def default_folder() -> Path:
    """Where spools are when no script says.

    HOMERD_SPOOL in the environment, else the system's place if it is ours, else where we are.
    """
    if told := os.environ.get("HOMERD_SPOOL"):
        return Path(told)
    return _SYSTEM if os.access(_SYSTEM, os.W_OK | os.X_OK) else Path("homerd.spool")


def left_behind(folder: Path, known: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    """Spools in *folder* that no run holds and none of *known* is, with their sizes."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path in known or not path.is_dir():
            continue
        size = 0
        with _alone(path):
            for run in path.iterdir():
                lock = _lock(run) if run.is_dir() else None
                if lock is not None:
                    size += sum(each.stat().st_size for each in run.glob(_SEGMENTS))
                    os.close(lock)
        if size:
            yield path, size


def _lock(path: Path) -> int | None:
    """Take a run's folder; None when a living process has it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _end(run: Path, lock: int) -> None:
    """Let go of a run's folder, and of what only a living run needs."""
    with contextlib.suppress(OSError):
        (run / _VOLATILE).unlink(missing_ok=True)
        run.rmdir()  # fails while there are segments
    os.close(lock)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from taking or leaving runs in *folder* meanwhile."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _shared(path: Path) -> memoryview:
    """Two numbers that outlive the process: the kernel has them, whatever happens to us."""
    with open(path, "w+b") as file:
        file.write(bytes(16))  # never a hole: storing into one on a full disk kills the process
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")


def _left_in_memory(path: Path) -> int:
    try:
        data = path.read_bytes()
    except OSError:
        return 0
    return sum(struct.unpack("=QQ", data)) if len(data) == 16 else 0
