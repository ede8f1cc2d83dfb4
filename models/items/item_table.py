"""Items by row at one moment, and the rule for items that are newer than training or than the moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.catalogue import Catalogue
from models.items.signal_table import SignalTable

Rows = npt.NDArray[np.int64]


class ItemTable:
    """Row 0 is nobody's; then come the catalogue's items, then those that training has not seen.

    New items get a row in the signal table when their first signals arrive. Scores have a column for each row that the
    table had when its trends were read. An item that came later has a row, but no column yet: it can neither be listed
    nor left out of a list, and its row counts as 0 where scores are concerned.
    """

    __slots__ = ("_catalogue", "_signals", "item_of_row", "n_rows")

    def __init__(
        self, catalogue: Catalogue | None, signals: SignalTable | None = None, n_rows: int | None = None
    ) -> None:
        """Take the rows of a model's catalogue, of a signal table (with the same first rows), or of both.

        `n_rows` is how many rows have scores; by default all of them.
        """
        self._catalogue = catalogue
        self._signals = signals
        self.item_of_row: list[str] = [""]
        if signals is not None:
            self.item_of_row = signals.item_of_row
        elif catalogue is not None:
            self.item_of_row = catalogue.item_of_row
        self.n_rows = len(self.item_of_row) if n_rows is None else n_rows

    def rows(self, item_ids: Sequence[str]) -> Rows:
        """Look rows up: ids (N) -> rows (N,), 0 for items that have none."""
        known = np.zeros(len(item_ids), np.int64) if self._catalogue is None else self._catalogue.rows(item_ids)
        return self.with_new(known, item_ids)

    def with_new(self, rows: Rows, item_ids: Sequence[str]) -> Rows:
        """Fill in the rows of items that the catalogue does not have: rows (N,) by the catalogue, of ids (N)."""
        if self._signals is None or rows.all():
            return rows
        rows = rows.copy()
        for place in np.flatnonzero(rows == 0).tolist():
            rows[place] = self._signals.row(item_ids[place])
        return rows

    def scored(self, rows: Rows) -> Rows:
        """Give 0 for rows that are newer than the scores: rows (any shape) -> rows."""
        return np.where(rows < self.n_rows, rows, 0)
