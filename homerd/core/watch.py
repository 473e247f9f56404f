"""Files that are watched: which of them were saved, however an editor does it.

Folders are watched, not files: many editors write a new file and put it in the old one's place.
What counts is whether a watched name now leads to something else.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from watchfiles import Change, awatch

_QUIET_MS = 50  # saving goes on as long as the next change comes within
_LONGEST_MS = 400
_LOOK_MS = 1000  # also without a word from the kernel: links and network folders are silent

State = tuple[int, int, int]


async def saved(files: Callable[[], frozenset[Path]]) -> AsyncIterator[None]:
    """Comes each time one of *files* was saved; which those are is asked anew each time.

    Also comes whenever it begins to watch, for what was saved before that.
    """
    while True:
        watched = files()
        folders = {file.absolute().parent for file in watched}
        known = {file: _state(file) for file in watched}
        yield
        if files() != watched:
            continue
        async for _ in awatch(
            *(folder for folder in folders if folder.is_dir()),
            watch_filter=_Wanted(watched),
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
        ):
            now = {file: _state(file) for file in watched}
            if now != known:
                known = now
                yield
            if files() != watched:
                break


class _Wanted:
    """Which changes matter in a folder where much else may be written.

    Any does from time to time: while others come, there is no time-out to look at.
    """

    def __init__(self, files: frozenset[Path]) -> None:
        self.paths = {str(file.absolute()) for file in files}
        self._look_at = 0.0

    def __call__(self, change: Change, path: str) -> bool:
        now = time.monotonic()
        if path in self.paths or now >= self._look_at:
            self._look_at = now + _LOOK_MS / 1000
            return True
        return False


def _state(file: Path) -> State | None:
    """What tells one content of a file from another; None when it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
