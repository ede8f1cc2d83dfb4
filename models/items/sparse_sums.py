"""Sums over a few of many items for each of some users, and the greatest of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class SparseSums:
    """Room to sum in, which is made once and grows; nobody else may use it meanwhile."""

    def __init__(self) -> None:
        """Begin without any."""
        self._sums: Floats = np.zeros(0, np.float32)  # by part, user and row, and 0 but while some are summed
        self._newest: npt.NDArray[np.int32] = np.zeros(0, np.int32)  # by user and row: which number came last

    def best(
        self, most: int, n_rows: int, users: Rows, rows: Rows, values: Floats, parts: Rows | None = None
    ) -> tuple[Rows, Floats]:
        """Sum values (N) by part, user and row, and keep the `most` greatest rows of each of B users by all parts.

        `users` (B + 1) bounds each user's rows and values; values are of one part, or each of that in `parts` (N),
        which are 0 and 1. -> rows (B, S), sums (B, S, parts), filled up with row 0 at 0; ties for the last place are
        anyone's.
        """
        n_users, n_parts = len(users) - 1, 1 if parts is None else 2
        n_places = n_users * n_rows
        self._make_room(n_parts, n_places)
        places = rows + np.repeat(np.arange(n_users) * n_rows, np.diff(users))
        np.add.at(self._sums, places if parts is None else places + parts * n_places, values)
        # of numbers with the same place one is the last: 34 us for 13,000, where one processor took 320 to sort places
        numbers = np.arange(len(places), dtype=np.int32)
        self._newest[places] = numbers
        kept = np.flatnonzero(self._newest[places] == numbers)
        places, rows = places[kept], rows[kept]
        sums = np.empty((len(places), n_parts), np.float32)
        for part in range(n_parts):
            of_part = places + part * n_places
            sums[:, part] = self._sums[of_part]
            self._sums[of_part] = 0.0
        rows, sums = side_by_side(np.searchsorted(kept, users), rows, sums)
        if rows.shape[1] <= most:
            return rows, sums
        weights = sums[:, :, 0] if n_parts == 1 else sums.sum(2)
        best = np.argpartition(weights, rows.shape[1] - most, axis=1)[:, -most:]
        return np.take_along_axis(rows, best, 1), np.take_along_axis(sums, best[:, :, None], 1)

    def _make_room(self, n_parts: int, n_places: int) -> None:
        spare = n_places + n_places // 4
        if len(self._sums) < n_parts * n_places:
            self._sums = np.zeros(n_parts * spare, np.float32)
        if len(self._newest) < n_places:
            self._newest = np.zeros(spare, np.int32)


def side_by_side(users: Rows, rows: Rows, values: Floats) -> tuple[Rows, Floats]:
    """Lay sparse values side by side: users (B + 1) bounds each user's rows (N,) and values (N, parts).

    -> rows (B, S), values (B, S, parts), filled up with row 0 at 0.
    """
    counts = np.diff(users)
    n_users, width = len(counts), int(counts.max(initial=0))
    laid, side = np.zeros(n_users * width, np.int64), np.zeros((n_users * width, values.shape[1]), np.float32)
    at = np.arange(len(rows)) + np.repeat(np.arange(n_users) * width - users[:-1], counts)
    laid[at], side[at] = rows, values
    return laid.reshape(n_users, width), side.reshape(n_users, width, values.shape[1])
