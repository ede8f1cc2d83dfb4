"""UserBatch: what terms of a score read of users, as arrays.

It has two builders, which a property test holds against each other: `JobHistories`, from users' states, and
trainer/data/user_batches.py, from the histories of a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.items.item_table import ItemTable
from models.items.signal_table import Doubles, Rows
from models.users.walk import Ask

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class UserBatch:
    """B users, each at a time of asking; rows are those of items, 0 for none and for an item without a row."""

    at: Doubles  # (B,)
    rows: Rows  # (B, S): the retained history, oldest first, filled up with 0
    times: Doubles  # (B, S)
    lengths: Rows  # (B,): how many of these are real
    evicted_rows: Rows  # (B, E): what fell out of the history, filled up with 0
    evicted_counts: Rows | Doubles  # (B, E)
    newest: Mask | None = None  # (B, S): where each item stands last, for a builder that knows it anyway

    def last_rows(self, most: int) -> list[list[int]]:
        """Name each user's last items, the newest last."""
        lengths = self.lengths.tolist()
        return [row[max(0, end - most) : end].tolist() for row, end in zip(self.rows, lengths, strict=True)]


class _Concatenated(NamedTuple):
    """Items of B users, one user's after the other's."""

    rows: Rows  # (N,)
    lengths: Rows  # (B,)

    def part(self, start: int, stop: int) -> _Concatenated:
        """Cut some users out."""
        begin, end = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        return _Concatenated(self.rows[begin:end], self.lengths[start:stop])

    def padded(self, values: Iterable[float]) -> tuple[Rows, Doubles]:
        """Lay each user's rows, and a value for each, out in a row of their own: (B, S), (B, S), filled up with 0."""
        real = np.arange(int(self.lengths.max(initial=0))) < self.lengths[:, None]
        rows, laid = np.zeros(real.shape, np.int64), np.zeros(real.shape)
        rows[real], laid[real] = self.rows, np.fromiter(values, np.float64, len(self.rows))
        return rows, laid


class JobHistories(NamedTuple):
    """The histories behind a batch's list jobs, from users' states."""

    asks: Sequence[Ask]
    at: Doubles  # (B,)
    retained: _Concatenated
    evicted: _Concatenated

    @classmethod
    def of(cls, asks: Sequence[Ask], at: Sequence[float], items: ItemTable) -> JobHistories:
        """Look the items' rows up; walks have those of the catalogue already."""
        columns = [ask.walk.rows[ask.begin : ask.end] for ask in asks]
        rows = np.concatenate(columns)
        if not rows.all():
            rows = items.with_new(
                rows, [event.item_id for ask in asks for event in ask.walk.history[ask.begin : ask.end]]
            )
        evicted_rows = items.rows(list(chain.from_iterable(ask.earlier for ask in asks)))
        lengths, evicted_lengths = list(map(len, columns)), [len(ask.earlier) for ask in asks]
        return cls(
            asks,
            np.array(at),
            _Concatenated(rows, np.array(lengths, np.int64)),
            _Concatenated(evicted_rows, np.array(evicted_lengths, np.int64)),
        )

    def part(self, start: int, stop: int) -> JobHistories:
        """Cut some jobs out."""
        retained, evicted = self.retained.part(start, stop), self.evicted.part(start, stop)
        return JobHistories(self.asks[start:stop], self.at[start:stop], retained, evicted)

    def users(self) -> UserBatch:
        """Lay the histories out for the terms."""
        # a list first: it took two thirds of an iterator's time
        timestamps = [event.timestamp for ask in self.asks for event in ask.walk.history[ask.begin : ask.end]]
        rows, times = self.retained.padded(timestamps)
        evicted_rows, counts = self.evicted.padded(chain.from_iterable(ask.earlier.values() for ask in self.asks))
        return UserBatch(self.at, rows, times, self.retained.lengths, evicted_rows, counts)

    def had(self) -> tuple[Rows, Rows]:
        """Name all items that users have had -> numbers of jobs (N,), rows (N,)."""
        both = self.retained, self.evicted
        jobs = [np.repeat(np.arange(len(self.at)), part.lengths) for part in both]
        return np.concatenate(jobs), np.concatenate([part.rows for part in both])
