"""What of the catalogue is taken and shown of late: popularity to hold lists against, its drift, and coverage.

The counts of all time begin with those that the model in use was trained on, and go on with the events that this
process sees; those of the last 24 hours are of these events alone. Ranks are made anew every so many events, not at
each: what an event costs here is two lookups and two appends.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from models.users.earlier import EARLIER_ITEMS
from models.users.state import HISTORY_EVENTS, HistoryEvent

K = 10
RANKED = K + HISTORY_EVENTS + EARLIER_ITEMS  # so that ten are left when all that a user may have had is taken out
HOUR_S = 3600.0
WINDOW_HOURS = 24  # the newest, which has begun, and 23 before it
REFRESH_EVERY = 1000  # events: the ranks of large counts move slowly
REFRESH_AT_LEAST = 100  # when an hour has begun, or counts are small: ranking costs as much as 100 events' appends
PSI_BUCKETS = 10
PSI_LEAST_EVENTS = 500  # below, chance alone makes an index of (buckets - 1) / events, 0.02 and more
COVERAGE_LISTS = 10_000  # a share of the catalogue means something only beside a number of lists

_item_id = attrgetter("item_id")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class LiveItems:
    """Counts items, ranks them, and compares; one thread at a time may call."""

    def __init__(self) -> None:
        """Begin without counts."""
        self.version = ""  # the model whose counts this began with
        self.psi = math.nan
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._all_time: Floats = np.zeros(0)
        self._recent: Floats = np.zeros(0)
        self._hours: dict[int, list[Ints]] = {}  # hour -> the rows that were taken in it
        self._newest_hour = -1
        self._new_rows: list[int] = []  # since the ranks were made
        self._new_hours: list[int] = []
        self._refresh_at = REFRESH_AT_LEAST // 10
        self._all_time_ranks: dict[str, int] = {}  # best first
        self._recent_ranks: dict[str, int] = {}
        self._unranked = 0  # events since all times' ranks were made
        self._bucket_of_row: Ints = np.zeros(0, np.int64)
        self._expected: Floats = np.zeros(0)
        self._catalogue_items = 0
        self._shown: set[str] = set()
        self._shown_before = 0  # items in the last whole block of lists
        self._lists = 0
        self._blocks = 0

    def learn(self, version: str, item_ids: Sequence[str], counts: Sequence[int]) -> None:
        """Begin anew with what a model was trained on; without `counts` (an older model) the live ones go on.

        What neither the model knows nor anyone took within 24 hours is forgotten, which bounds the memory.
        """
        self._refresh()
        old_ids, old_all_time, old_recent = self._ids, self._all_time, self._recent
        taken = np.flatnonzero(old_recent)
        self._ids = list(item_ids)
        self._rows = {item_id: row for row, item_id in enumerate(item_ids)}
        moved = np.full(len(old_ids), -1, np.int64)
        for row in taken.tolist():
            moved[row] = self._row(old_ids[row])
        self._all_time, self._recent = np.zeros(len(self._ids)), np.zeros(len(self._ids))
        self._recent[moved[taken]] = old_recent[taken]
        self._hours = {hour: [moved[np.concatenate(rows)]] for hour, rows in self._hours.items()}
        if len(counts):
            self._all_time[: len(counts)] = counts
        else:
            for item_id, count in zip(old_ids, old_all_time[: len(old_ids)].tolist(), strict=True):
                if item_id in self._rows:
                    self._all_time[self._rows[item_id]] = count
        self._bucket(np.array(counts, np.float64))
        self._catalogue_items = len(item_ids)
        self.version = version
        self._shown, self._lists, self._blocks, self._shown_before = set(), 0, 0, 0
        self._recent_ranks = self._ranked(self._recent)
        self._rank_all_time()

    def places(self, item_id: str, history: Sequence[HistoryEvent], earlier: Mapping[str, int]) -> tuple[int, int]:
        """Tell where the lists of all time and of 24 hours have an item, 1 to K, without what the user has had.

        0 is for an item that a list does not have; what is in `history` or `earlier` is left out of both.
        """
        all_time, recent = self._all_time_ranks.get(item_id, 0), self._recent_ranks.get(item_id, 0)
        reach = K + len(history) + len(earlier)  # to come to the first K, all that the user has had must be better
        if not 0 < all_time <= reach and not 0 < recent <= reach:
            return 0, 0
        had = {*map(_item_id, history), *earlier}
        if item_id in had:
            return 0, 0
        return _place(self._all_time_ranks, all_time, had), _place(self._recent_ranks, recent, had)

    def take(self, item_id: str, timestamp: float) -> None:
        """Count an event."""
        row = self._rows.get(item_id)
        if row is None:
            row = self._row(item_id)
        hour = int(timestamp // HOUR_S)
        self._new_rows.append(row)
        self._new_hours.append(hour)
        waiting = len(self._new_rows)
        if waiting >= self._refresh_at or (waiting >= REFRESH_AT_LEAST and hour > self._newest_hour):
            self._unranked += waiting
            self._refresh()
            self._recent_ranks = self._ranked(self._recent)
            if self._unranked >= self._refresh_at:
                self._rank_all_time()

    def show(self, item_ids: Collection[str]) -> None:
        """Note a list's first K places."""
        self._shown.update(item_ids)
        self._lists += 1
        if self._lists >= COVERAGE_LISTS:
            self._shown_before, self._shown, self._lists = len(self._shown), set(), 0
            self._blocks += 1

    @property
    def coverage(self) -> float:
        """Give the share of the catalogue that the last whole COVERAGE_LISTS lists showed, or those so far."""
        if not self._catalogue_items:
            return math.nan
        return min(1.0, (self._shown_before if self._blocks else len(self._shown)) / self._catalogue_items)

    def _row(self, item_id: str) -> int:
        row = self._rows.setdefault(item_id, len(self._ids))
        if row == len(self._ids):
            self._ids.append(item_id)
        return row

    def _refresh(self) -> None:
        """Take the new events into the counts, and what is older than the window out of the recent ones."""
        missing = len(self._ids) - len(self._all_time)
        if missing > 0:
            room = np.zeros(max(missing, len(self._ids) // 4))
            self._all_time = np.concatenate((self._all_time, room))
            self._recent = np.concatenate((self._recent, room))
        if not self._new_rows:
            return
        rows, hours = np.array(self._new_rows, np.int64), np.array(self._new_hours, np.int64)
        self._new_rows, self._new_hours = [], []
        np.add.at(self._all_time, rows, 1.0)
        self._newest_hour = max(self._newest_hour, int(hours.max()))
        oldest = self._newest_hour - WINDOW_HOURS + 1
        for hour in np.unique(hours[hours >= oldest]).tolist():
            of_hour = rows[hours == hour]
            self._hours.setdefault(hour, []).append(of_hour)
            np.add.at(self._recent, of_hour, 1.0)
        for hour in [hour for hour in self._hours if hour < oldest]:
            for of_hour in self._hours.pop(hour):
                np.subtract.at(self._recent, of_hour, 1.0)

    def _rank_all_time(self) -> None:
        self._all_time_ranks = self._ranked(self._all_time)
        self._unranked = 0
        total = float(self._all_time.sum())
        self._refresh_at = int(min(REFRESH_EVERY, max(REFRESH_AT_LEAST // 10, total / 20)))
        if len(self._expected):
            taken = np.flatnonzero(self._recent[: len(self._bucket_of_row)])
            live = np.bincount(self._bucket_of_row[taken], self._recent[taken], PSI_BUCKETS).astype(np.float64)
            self.psi = stability_index(self._expected, live) if live.sum() >= PSI_LEAST_EVENTS else math.nan

    def _ranked(self, counts: Floats) -> dict[str, int]:
        """Rank the RANKED largest counts from 1; equal ones by row, so that equal counts make equal ranks."""
        top = np.flatnonzero(counts)  # first: partitioning thousands of equal zeros takes ten times as long
        if len(top) > RANKED:
            top = top[counts[top] >= np.partition(counts[top], -RANKED)[-RANKED]]
        best = top[np.lexsort((top, -counts[top]))][:RANKED]
        return {self._ids[row]: place for place, row in enumerate(best.tolist(), 1)}

    def _bucket(self, counts: Floats) -> None:
        """Cut the catalogue, most popular first, into buckets of about equal shares of the training events."""
        self.psi = math.nan
        self._expected, self._bucket_of_row = np.zeros(0), np.zeros(0, np.int64)
        if counts.sum() <= 0:
            return
        order = np.argsort(-counts, kind="stable")
        middle = np.cumsum(counts[order]) - counts[order] / 2
        self._bucket_of_row = np.empty(len(counts), np.int64)
        self._bucket_of_row[order] = np.minimum(PSI_BUCKETS - 1, PSI_BUCKETS * middle / counts.sum()).astype(np.int64)
        self._expected = np.bincount(self._bucket_of_row, counts, PSI_BUCKETS).astype(np.float64)


def stability_index(expected: Floats, actual: Floats) -> float:
    """Give the population stability index of counts (B,) in the same buckets: sum of (a - e) ln(a / e) over shares.

    Half an event is added to each bucket, lest an empty one makes it infinite; buckets that both have empty are left
    out. Rules of thumb: below 0.1 stable, above 0.25 shifted. Source: Siddiqi, Credit Risk Scorecards (2006), ch. 9;
    its bias, about (B - 1)(1 / N + 1 / M): Yurdakul & Naranjo, J. Risk Model Validation 14(4), 2020.
    """
    used = (expected > 0) | (actual > 0)
    e, a = expected[used] + 0.5, actual[used] + 0.5
    e, a = e / e.sum(), a / a.sum()
    return float(np.sum((a - e) * np.log(a / e)))


def _place(ranks: dict[str, int], rank: int, had: set[str]) -> int:
    """Give the place of what has a rank (0: none) once what the user has had is out."""
    if rank > 1:
        rank -= len(had.intersection(islice(ranks, rank - 1)))
    return rank if rank <= K else 0
