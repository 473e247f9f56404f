"""Archives: tables as files that outlive their store.

A folder has one file a table and manifest.json, which names each with its size and SHA-256.  A file
is JSON lines in gzip, which any machine reads: its head, then an array of cells for each row.

    {"homerd_archive": 1, "table": "sip_capture_call_20260101", "rows": 2, "columns": […], …}
    [1, "2026-01-01 00:00:00", 1767225600000000, "INVITE", …]

Cells are null, numbers and text; times are text in UTC; {"base64": "…"} is what is no UTF-8.

A file is written under another name, read back, and renamed; what the manifest does not name is no
archive.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from homerd.errors import HomerdError

VERSION = 1
MANIFEST = "manifest.json"
SUFFIX = ".jsonl.gz"
PARTIAL = ".partial"
# SIP shrinks to a tenth at 58 MB/s; 9 gains 5 % for four times the time.
LEVEL = 6
MOST_LINE = 64 << 20

Cell = str | int | float | bytes | None
Progress = Callable[[int], object]


class ArchiveError(HomerdError):
    """An archive that cannot be written, or is not what it was when it was written."""


class DamagedError(ArchiveError):
    """A file that cannot be read, or is not what was written; others may be."""


@dataclass(frozen=True, slots=True)
class ArchiveColumn:
    """A column as its store had it.

    type: what the store calls it.  kind: "text", "integer", "real", "time", "bytes" or "other".
    key: what sipcapture knows it as, where the operator gave it another name.
    """

    name: str
    type: str
    kind: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveHead:
    """What a file holds.

    store: the capture mode.  kind: sqlite, postgres, mysql.  table: a table or partition.
    into: the table that rows belong to; of a partition, the one it is a part of.
    before: "YYYY-MM-DD" when only rows older than that were taken.
    first, last: the lowest and highest id, None for a table without ids.
    """

    table: str
    into: str
    store: str
    kind: str
    columns: tuple[ArchiveColumn, ...]
    rows: int
    before: str = ""
    first: int | None = None
    last: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The head as its line says it."""
        return {"homerd_archive": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def of_json(cls, told: Any) -> ArchiveHead:
        """The head that a line says; raises ValueError for what is none."""
        if not isinstance(told, dict) or "homerd_archive" not in told:
            raise ValueError("the first line is no head of an archive")
        if told["homerd_archive"] != VERSION:
            raise ValueError(
                f"version {told['homerd_archive']} of the format, this homerd reads {VERSION}"
            )
        columns = told.get("columns")
        if not isinstance(columns, list) or not columns:
            raise ValueError("the head names no columns")
        try:
            head = cls(
                columns=tuple(
                    ArchiveColumn(*(str(each[key]) for key in ("name", "type", "kind", "key")))
                    for each in columns
                ),
                table=str(told["table"]),
                into=str(told["into"]),
                store=str(told["store"]),
                kind=str(told["kind"]),
                rows=told["rows"],
                before=str(told["before"]),
                first=told["first"],
                last=told["last"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the head lacks {error}") from None
        if not isinstance(head.rows, int) or head.rows < 0:
            raise ValueError(f"the head says {head.rows!r} rows")
        return head


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A file as the manifest names it."""

    file: str
    bytes: int
    sha256: str
    store: str
    table: str
    before: str
    rows: int
    first: int | None
    last: int | None

    @classmethod
    def of_json(cls, told: Any) -> ArchiveEntry:
        """The entry that the manifest says; raises ValueError."""
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            entry = cls(**{name: told[name] for name in names})
            sound = isinstance(entry.bytes, int) and isinstance(entry.rows, int)
            sound = sound and os.path.basename(entry.file) == entry.file != ""
        except (KeyError, TypeError):
            sound = False
        if not sound:
            raise ValueError("an entry lacks what it must say")
        return entry


class Archive:
    """A folder of archived tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> list[ArchiveEntry]:
        """What the manifest names; nothing when there is none."""
        path = self.folder / MANIFEST
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArchiveError(f"{path}: {error.strerror}") from error
        try:
            return [ArchiveEntry.of_json(each) for each in json.loads(text)["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(f"{path}: damaged, no manifest of an archive: {error}") from None

    def strays(self) -> list[str]:
        """Files that look like archived tables, and the manifest does not name."""
        named = {entry.file for entry in self.entries()}
        return sorted(
            path.name
            for path in self.folder.glob("*")
            if path.name.endswith((SUFFIX, SUFFIX + PARTIAL)) and path.name not in named
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one who writes; the folder is made when it is missing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ArchiveError(f"{self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
            raise ArchiveError(f"{self.folder}: another export writes to it now") from None
        try:
            yield
        finally:
            os.close(number)

    def write(
        self,
        head: ArchiveHead,
        rows: Iterable[Sequence[Cell]],
        replaces: ArchiveEntry | None = None,
        progress: Progress | None = None,
    ) -> ArchiveEntry:
        """Write a table's file, read it back and enter it into the manifest, within `locked`.

        replaces: an entry whose rows are among these.
        """
        name = replaces.file if replaces else self._free_name(head)
        partial = self.folder / (name + PARTIAL)
        try:
            digest = _written(partial, head, rows, progress)
            entry = ArchiveEntry(
                name,
                partial.stat().st_size,
                digest,
                head.store,
                head.table,
                head.before,
                head.rows,
                head.first,
                head.last,
            )
            verify(partial, entry)
            os.replace(partial, self.folder / name)
            self._enter(entry)
        except OSError as error:
            raise ArchiveError(f"{partial}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return entry

    def _free_name(self, head: ArchiveHead) -> str:
        store = "" if head.store == "default" else f"{head.store}."
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{store}{head.table}")
        if head.before:
            base += f".before-{head.before}"
        taken = {entry.file for entry in self.entries()}
        number, name = 1, base + SUFFIX
        while name in taken:
            number += 1
            name = f"{base}.{number}{SUFFIX}"
        return name

    def _enter(self, entry: ArchiveEntry) -> None:
        kept = [each for each in self.entries() if each.file != entry.file]
        lines = ",\n".join(json.dumps(dataclasses.asdict(each)) for each in [*kept, entry])
        partial = self.folder / (MANIFEST + PARTIAL)
        with partial.open("w", encoding="utf-8") as file:
            file.write(f'{{"homerd_archive": {VERSION}, "files": [\n{lines}\n]}}\n')
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / MANIFEST)
        number = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def verify(
    path: Path, entry: ArchiveEntry | None = None, progress: Progress | None = None
) -> ArchiveHead:
    """Read the whole of a file and compare it with what the manifest says of it.

    Raises ArchiveError that says what is wrong, and where.
    """
    fault = ""
    head = None
    try:
        with path.open("rb") as opened:
            raw = _Hashed(opened, progress)
            try:
                head, rows = _head_and_rows(raw)
                count = sum(1 for _ in rows)
                if count != head.rows:
                    raise _FaultError(f"its head says {head.rows} rows, there are {count}")
            except _FaultError as error:
                fault = str(error)
            raw.drain()
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}") from error
    if entry is not None and not fault:
        if raw.digest.hexdigest() != entry.sha256:
            fault = f"its SHA-256 is not that of {MANIFEST}"
        elif head is not None and (head.table, head.rows) != (entry.table, entry.rows):
            fault = f"its head is not what {MANIFEST} says"
    if entry is not None and raw.size != entry.bytes:
        fault = f"{raw.size} bytes, {MANIFEST} says {entry.bytes}; {fault}"
    if fault or head is None:
        raise DamagedError(f"{path}: damaged: {fault}")
    return head


@contextlib.contextmanager
def reading(
    path: Path, progress: Progress | None = None
) -> Iterator[tuple[ArchiveHead, Iterator[list[Cell]]]]:
    """A file's head and its rows, one after the other."""
    try:
        with path.open("rb") as opened:
            yield _head_and_rows(_Hashed(opened, progress))
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror or error}") from error
    except _FaultError as error:
        raise ArchiveError(f"{path}: damaged: {error}") from None


def found(paths: Iterable[Path]) -> list[tuple[Path, ArchiveEntry | None]]:
    """The files that paths name, with what their manifest says; of a folder those it names."""
    files: list[tuple[Path, ArchiveEntry | None]] = []
    for path in paths:
        if path.is_dir():
            entries = Archive(path).entries()
            if not entries:
                raise ArchiveError(f"{path}: no archive: there is no {MANIFEST} that names a file")
            files += [(path / entry.file, entry) for entry in entries]
            continue
        named = {entry.file: entry for entry in Archive(path.parent).entries()}
        files.append((path, named.get(path.name)))
    return files


class _FaultError(Exception):
    """Something in a file is not as it must be."""


class _Hashed:
    """A file's bytes, hashed as they are read."""

    def __init__(self, file: BinaryIO, progress: Progress | None) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.size += len(data)
        if self._progress is not None:
            self._progress(len(data))
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read(1 << 20):
            pass


def _head_and_rows(raw: _Hashed) -> tuple[ArchiveHead, Iterator[list[Cell]]]:
    lines = _lines(raw)
    try:
        head = ArchiveHead.of_json(json.loads(next(lines, b"")))
    except (ValueError, RecursionError) as error:
        raise _FaultError(f"line 1: {error}") from None
    return head, _rows(lines, len(head.columns))


def _lines(raw: _Hashed) -> Iterator[bytes]:
    number = 0
    with gzip.GzipFile(fileobj=raw, mode="rb") as file:  # type: ignore[call-overload]  # read is enough
        while True:
            number += 1
            try:
                line = file.readline(MOST_LINE)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                told = f"line {number}, near byte {raw.size}: {error}"
                raise _FaultError(told) from None
            if not line:
                return
            if not line.endswith(b"\n"):
                raise _FaultError(f"line {number} has no end, or more than {MOST_LINE} bytes")
            yield line


def _rows(lines: Iterator[bytes], width: int) -> Iterator[list[Cell]]:
    for number, line in enumerate(lines, 2):
        try:
            row = json.loads(line)
            if not isinstance(row, list) or len(row) != width:
                raise ValueError(f"no array of {width} cells")
            for at, cell in enumerate(row):
                if isinstance(cell, dict):
                    row[at] = base64.b64decode(cell["base64"], validate=True)
                elif isinstance(cell, list | bool):
                    raise ValueError(f"cell {at + 1} is neither text nor number")
        except (ValueError, RecursionError, KeyError, TypeError, binascii.Error) as error:
            raise _FaultError(f"line {number}: {error}") from None
        yield row


def _written(
    path: Path, head: ArchiveHead, rows: Iterable[Sequence[Cell]], progress: Progress | None
) -> str:
    """Write head and rows to *path*, down to the disk; gives the SHA-256."""
    count = 0
    with path.open("wb") as file:
        hashing = _HashingFile(file)
        # no name and no time in it: the same rows give the same bytes
        with gzip.GzipFile("", "wb", LEVEL, hashing, mtime=0) as packed:
            packed.write(_line(head.as_json()))
            for row in rows:
                packed.write(_line(row))
                count += 1
                if progress is not None and count % 500 == 0:
                    progress(500)
        file.flush()
        os.fsync(file.fileno())
    if progress is not None:
        progress(count % 500)
    if count != head.rows:
        raise ArchiveError(f"{path}: {head.table} gave {count} rows, it has {head.rows}")
    return hashing.digest.hexdigest()


class _HashingFile:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _line(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_as_json)
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # text that its store took though it is no UTF-8
        return _line([_as_bytes(cell) for cell in value])


def _as_json(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)


def _as_bytes(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape")
    return cell
