"""What the stores of rows share: what a row on its way is called, and what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homerd.api import BatchSink
from homerd_plugins._homer5 import Cell, Column, Row

Record = tuple[str, int, Row]  # the table, the place of its columns in `layouts`, the row


class RowSink(BatchSink):
    """A sink of Records.

    layouts: the columns of each kind of row.
    """

    layouts: Sequence[Sequence[Column]]

    def label(self, record: Record) -> str:
        """The table."""
        return record[0]

    def describe(self, record: Record) -> dict[str, Any]:
        """The table and the row by column; bytes as text, with U+FFFD for what is none."""
        table, layout, row = record
        cells = zip(self.layouts[layout], row, strict=True)
        return {"table": table, "record": {column.name: _shown(cell) for column, cell in cells}}


def _shown(cell: Cell) -> str | float | None:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
