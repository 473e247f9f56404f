"""Rows into plain files, one or more for each table, appended to and never read.

    flatstore:/var/log/homer        Kamailio's db_flatstore: TABLE_0.log, cells between |
    file:/var/log/homer?gzip=1      JSON lines: TABLE_20260131_0.jsonl.gz, a new file each day

The number is that of the writer: a process takes the first that no other one has.  What a batch
brought is on the disk before its journal says so; what the journal does not know, because of a
kill or a full disk, is cut off before the next batch.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from homerd.api import ConfigError, RetryLater
from homerd_plugins._filejournal import FileJournal
from homerd_plugins._homer5 import Cell, Column, Row, format_of
from homerd_plugins._rowsink import Record, RowSink
from homerd_plugins._stores import Address
from homerd_plugins._upkeep import RetentionSize, date_of

log = logging.getLogger("homerd.flatstore")

FLAT, FILE = "flatstore", "file"


BATCH_SIZE = 5000
QUEUE_LIMIT = 100_000
LEVEL = 6  # as archives
FILE_SIZE = 256 << 20

# file:/path, file:///path; what follows a ? are settings of file: alone
_URL = re.compile(
    r"(?P<store>flatstore|file):(?://(?=/))?(?P<path>[^?]+)(?:\?(?P<settings>.*))?", re.I
)

_NAME = re.compile(r"(?P<table>\w+?)(?:\.[0-9]+)?_[0-9]+\.(?:log|jsonl(?:\.gz)?)", re.A)
# What parts cells and rows; a % stays, as in Kamailio, so that text with %7C may have been either.
_ESCAPES = str.maketrans({"|": "%7C", "\n": "%0A", "\r": "%0D"})
# Kamailio binds the message as a blob, whose bytes that do not print are told by number.
_BLOB = [
    chr(byte) if 32 <= byte < 127 and byte not in b"\\|" else f"\\x{byte:02X}"
    for byte in range(256)
]


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A folder for files.

    size: bytes after which a table's next file is begun.  gzip: whether files are compressed.
    """

    store: str
    database: str
    size: int = FILE_SIZE
    gzip: bool = False

    @classmethod
    def of(cls, url: str) -> FileAddress | None:
        """Read a URL, None for one of a database; raises ValueError."""
        scheme = url.strip().partition(":")[0].lower()
        if scheme not in (FLAT, FILE):
            return None
        found = _URL.fullmatch(url.strip())
        if found is None or (scheme == FLAT and found["settings"] is not None):
            form = "flatstore:/path" if scheme == FLAT else "file:/path?size=256MB&gzip=1"
            raise ValueError(f"expected {form}")
        settings: dict[str, Any] = {}
        for item in filter(None, (found["settings"] or "").split("&")):
            key, _, value = item.partition("=")
            if key == "size":
                settings["size"] = RetentionSize.from_script(value) or FILE_SIZE
            elif key == "gzip" and value in ("0", "1"):
                settings["gzip"] = value == "1"
            else:
                raise ValueError(f'expected size=256MB or gzip=1, got "{item}"')
        return cls(scheme, found["path"], **settings)

    @property
    def shown(self) -> str:
        """The address for people."""
        return f"{self.store}:{self.database}"


AnyAddress = FileAddress | Address


def address_in(url: str) -> AnyAddress:
    """The files or the database that *url* names; raises ValueError."""
    return FileAddress.of(url) or Address.of(url)


class FlatSink(RowSink):
    """Appends batches to files in a folder.

    layouts: the columns of each kind of row.  source: what the operator wrote, for messages.
    writes: whether it is a writer, and no keeper, which needs no number and no journal.
    replayed: records that a batch which came again brought again.
    """

    ids_kept_seconds = 86_400

    def __init__(
        self,
        name: str,
        address: FileAddress,
        layouts: Sequence[Sequence[Column]],
        *,
        source: str = "",
        writes: bool = True,
        create_tables: bool = True,
        batch_size: int = BATCH_SIZE,
        batch_age: float = 1.0,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        super().__init__(name, batch_size=batch_size, batch_age=batch_age, queue_limit=queue_limit)
        self.folder = Path(address.database)
        self.where = address.shown
        self.source = source or address.shown
        self.layouts = [tuple(layout) for layout in layouts]
        self.record_format = format_of(self.layouts)
        self.writes = writes
        self.create_tables = create_tables  # a file is made when its first row comes
        self.tables: frozenset[str] = frozenset()
        self.replayed = 0
        self._is_json = address.store == FILE
        self._most = address.size
        self._packs = address.gzip
        self._journal: FileJournal | None = None

    # What BatchSink asks for

    def connect(self) -> None:
        """Take a number and cut off what was not committed."""
        if not self.folder.is_dir():
            raise ConfigError(f"{self.source}: no such folder: {self.folder}")
        try:
            if self.writes:
                self._journal = FileJournal(self.folder, self.ids_kept_seconds)
            self.tables = frozenset(name.lower() for name in self._names())
        except PermissionError as error:
            raise ConfigError(f"{self.source}: {_told(error)}") from error
        except OSError as error:
            raise RetryLater(f"{self.source}: {_told(error)}") from error

    def write(self, batch: list[Record]) -> None:
        """Append *batch* to the files of its tables; all of it or nothing."""
        journal = self._journal
        assert journal is not None
        if journal.has(self.batch_id):
            self.replayed += len(batch)
            return
        groups: dict[tuple[str, int], list[Row]] = {}
        for table, layout, row in batch:
            groups.setdefault((table, layout), []).append(row)
        parts: dict[str, bytes] = {}
        for (table, layout), rows in groups.items():
            name = self._name(table, journal)
            parts[name] = parts.get(name, b"") + self._lines(self.layouts[layout], rows)
        if self._packs:
            # Each batch is a member of its own: it is whole, or cut off as a whole.
            parts = {name: gzip.compress(text, LEVEL, mtime=0) for name, text in parts.items()}
        try:
            journal.append(parts, self.batch_id)
        except OSError as error:
            raise RetryLater(f"{self.source}: {_told(error)}") from error
        self.tables |= {table.lower() for table, _ in groups}

    def close(self) -> None:
        """Give the number back."""
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def store_key(self) -> str:
        """The folder, wherever it is named from."""
        return str(self.folder.resolve())

    # Upkeep, on a sink that is never started

    errors = (OSError,)

    def is_connected(self) -> bool:
        """Whether the folder is there."""
        return self.folder.is_dir()

    def kept_tables(self) -> list[str]:
        """The tables whose names have a day; of others' files no rows can be removed."""
        return sorted(name for name in self._names() if date_of(name))

    def remove(self, table: str, before: str, whole: bool) -> None:
        """Remove the files of *table*."""
        if not whole:
            return
        for path, name in self._files():
            if name == table:
                path.unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Bytes of each table's files."""
        sizes: dict[str, int] = {}
        for path, name in self._files():
            with contextlib.suppress(FileNotFoundError):
                sizes[name] = sizes.get(name, 0) + path.stat().st_size
        return sizes

    def give_back(self) -> None:
        """Nothing: a removed file takes no room."""

    def make_ahead(self, table: str, layout: int) -> None:
        """Nothing: a file is made when its first row comes."""

    def make_partitions_ahead(self, seconds: Sequence[int]) -> None:
        """Nothing: files have no partitions."""

    # Files

    def _files(self) -> list[tuple[Path, str]]:
        """Each file and its table, for those without a day with that of the file."""
        found = []
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None and path.name.endswith(".log") != self._is_json:
                found.append((path, match["table"]))
        return found

    def _names(self) -> set[str]:
        return {name for _, name in self._files()}

    def _name(self, table: str, journal: FileJournal) -> str:
        """The file that rows of *table* go to now."""
        if not self._is_json:
            return f"{table}_{journal.number}.log"
        today = datetime.fromtimestamp(time.time(), UTC)
        base = table if date_of(table) else f"{table}_{today:%Y%m%d}"
        ending = f"_{journal.number}.jsonl" + (".gz" if self._packs else "")
        name, part = base + ending, 1
        while journal.size(name) >= self._most:
            part += 1
            name = f"{base}.{part}{ending}"
        return name

    def _lines(self, columns: Sequence[Column], rows: list[Row]) -> bytes:
        if self._is_json:
            names = [column.name for column in columns]
            return b"".join(_json_line(dict(zip(names, row, strict=True))) for row in rows)
        return b"".join(_flat_line(columns, row) for row in rows)


def _json_line(row: dict[str, Cell]) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_as_json)
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        told = {
            name: cell.encode("utf-8", "surrogateescape") if isinstance(cell, str) else cell
            for name, cell in row.items()
        }
        return _json_line(told)


def _as_json(cell: bytes) -> object:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(cell).decode()}


def _flat_line(columns: Sequence[Column], row: Row) -> bytes:
    """A row as Kamailio's sipcapture and db_flatstore write it: times are seconds since 1970."""
    return "|".join(map(_flat_cell, columns, row)).encode("utf-8", "surrogateescape") + b"\n"


def _flat_cell(column: Column, cell: Cell) -> str:
    if cell is None:
        return ""
    if column.key == "msg":
        data = cell if isinstance(cell, bytes) else str(cell).encode("utf-8", "surrogateescape")
        return "".join([_BLOB[byte] for byte in data])
    if column.key == "date":
        moment = datetime.fromisoformat(str(cell)).replace(tzinfo=UTC)
        return str(round(moment.timestamp()))
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "surrogateescape")
    return str(cell).translate(_ESCAPES)


def _told(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}"
