"""Since when a sink's store is away, and why: said when it goes and when it is back."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("homerd.sink")


class Outage:
    """One sink's, now or ended.

    since: seconds since 1970 when the store was first away, 0 while it answers.
    error: what it, or its driver, said last; "" while it answers.
    """

    def __init__(self, sink: str) -> None:
        self.sink = sink
        self.since = 0.0
        self.error = ""

    def begins(self, error: Exception) -> None:
        """The store is away, or still is; what is logged of each try is not ours."""
        self.since = self.since or time.time()
        self.error = str(error)

    def said(self, error: Exception) -> None:
        """The same at the start, when nothing else tells of it."""
        self.begins(error)
        log.warning('store is away, records wait sink=%s error="%s"', self.sink, error)

    def ends(self) -> None:
        """The store took something."""
        if self.since:
            log.warning(
                "store is back sink=%s away_seconds=%d", self.sink, time.time() - self.since
            )
            self.since, self.error = 0.0, ""

    def lost(self, records: int) -> None:
        """Records were in memory when the sink stopped, and had no spool to go to."""
        if records:
            log.error(
                'records lost at stop sink=%s records=%d error="%s"',
                self.sink,
                records,
                self.error or "the store did not answer at stop",
            )
