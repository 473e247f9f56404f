"""The quarantine: records that a store refuses for good, as JSON lines with the reason.

The file is FOLDER/quarantine.jsonl; at half of its limit it becomes quarantine.1.jsonl, and what
was that before is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LIMIT = 32 << 20


class Quarantine:
    """Where one sink's refused records end.

    kept, gone: records written here, and those that could not be.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.path = folder / "quarantine.jsonl"
        self.limit = limit
        self.kept = 0
        self.gone = 0

    def put(self, sink: str, batch: str, reason: str, records: Iterable[dict[str, Any]]) -> None:
        """Append *records*, as `describe` gives them; never raises."""
        at = round(time.time(), 3)
        head = {"at": at, "sink": sink, "batch": batch, "reason": reason}
        lines = [_line(head, record) for record in records]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_size > self.limit // 2:
                    self.path.replace(self.path.with_suffix(".1.jsonl"))
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = memoryview("".join(lines).encode())
                while data:
                    data = data[os.write(file, data) :]
            finally:
                os.close(file)
        except OSError:
            self.gone += len(lines)
        else:
            self.kept += len(lines)


def described_by(describe: Callable[[Any], dict[str, Any]], record: object) -> dict[str, Any]:
    """What a sink's *describe* gives; the record as it is when it cannot be described."""
    try:
        return describe(record)
    except Exception:  # a record the store refuses may be one nobody can describe
        return {"record": record}


def shown(value: object) -> str:
    """*value* as text, whatever it is."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return repr(value)
    except Exception:  # somebody else's class
        return f"{type(value).__name__} (it cannot be shown)"


def _line(head: dict[str, Any], record: dict[str, Any]) -> str:
    try:
        return json.dumps(head | record, default=shown) + "\n"
    except Exception:  # a plugin's `describe` gives what is no JSON: names that are no text, itself
        return json.dumps(head | {"record": shown(record)}) + "\n"
