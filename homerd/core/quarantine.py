"""The quarantine: records that a store refuses for good, as JSON lines with the reason.

The file is FOLDER/quarantine.jsonl; at half of its limit it becomes quarantine.1.jsonl, and what
was that before is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
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
        lines = [json.dumps(head | record, default=_shown) + "\n" for record in records]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_size > self.limit // 2:
                    self.path.replace(self.path.with_suffix(".1.jsonl"))
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, "".join(lines).encode())
            finally:
                os.close(file)
        except OSError:
            self.gone += len(lines)
        else:
            self.kept += len(lines)


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
