"""All items' signals as arrays: what the columns and the sparse part of a batch of scores are read from.

An item's count c of time `at` is kept as log(c) + at * ln 2 / T, which does not change as time passes: reading all
items' signals at a time is a subtraction and a maximum, without exponentials or logarithms. Float64 holds that to
1e-10 for Unix times and half-lives of an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from models.signals import LAST_ITEMS, SignalRecord, SignalRules, followed

FLOOR = 0.05
"""The count that is nothing: one occurrence is forgotten after 4.3 half-lives, and 20 times it scores log 400."""

GAIN = 4.0  # of successors' counts in log(1 + GAIN x count): one transition is much, the hundredth little
# of their shares likewise: a rare item's only successor is a surer one than a frequent item's best
SHARE_GAIN = np.float32(50)
PARTS = 4  # of a score, that what follows the last items is
LISTED = 64  # successors of a user's last items that are scored: those beyond have a tenth of the best one's weight

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Taken = npt.NDArray[np.int32]  # rows, half as wide: there are a hundred for each item

_LN2 = math.log(2)
_LN_FLOOR = math.log(FLOOR)
_FADED = 1e-30  # what is scaled by less might become 0 in float32, by which a sum tells that it has not begun
_NOTHING = np.float32(1e-9)  # instead of 0, where nothing is listed
_NO_ROWS: Rows = np.zeros(0, np.int64)


class SignalTable:
    """Signals by row; rows are a catalogue's, those after it are of items that the catalogue does not have.

    Row 0 is nobody's. `occur` and `follow` count events where they happen, as evaluation and training do; `put`
    takes over what the item stage has counted, as workers do. A table is fed by one of the two.
    """

    def __init__(self, rules: SignalRules, item_ids: Sequence[str]) -> None:
        """Begin with a catalogue's items, none of which has occurred."""
        self.rules = rules
        self.item_of_row = ["", *item_ids]
        self._row_of_item = {item_id: row for row, item_id in enumerate(item_ids, 1)}
        self._half_lives_s = list(rules.half_lives_s)
        self._rates = _LN2 / np.array(rules.half_lives_s)  # (K)
        self._levels = np.full((len(rules.half_lives_s), len(item_ids) + 1), -np.inf)
        self._successors: dict[int, dict[int, float]] = {}
        self._landmarks: dict[int, float] = {}
        self._taken: dict[int, tuple[float, Taken, Floats]] = {}  # as `put`: of what time, rows, weights
        self._sums: Floats = np.zeros((2, 0), np.float32)  # by query and row, and 0 but while some are summed

    @property
    def n_rows(self) -> int:
        """Count the rows, row 0 and those of new items included."""
        return len(self.item_of_row)

    def row(self, item_id: str) -> int:
        """Look an item's row up; 0 if it has none."""
        return self._row_of_item.get(item_id, 0)

    def add(self, item_id: str) -> int:
        """Give an item a row if it has none -> its row."""
        row = self._row_of_item.get(item_id)
        if row is None:
            row = self._row_of_item[item_id] = len(self.item_of_row)
            self.item_of_row.append(item_id)
            if row >= self._levels.shape[1]:
                wider = np.full((len(self._levels), 2 * row), -np.inf)
                wider[:, : self._levels.shape[1]] = self._levels
                self._levels = wider
        return row

    def put(self, records: Sequence[SignalRecord]) -> None:
        """Take items' signals over, in place of what was known of them; counts of other half-lives are left out."""
        if not records:
            return
        at = np.array([record.at for record in records])
        counts = np.array([self._counts(record) for record in records]).T  # (K, N)
        rows = [self.add(record.item_id) for record in records]
        with np.errstate(divide="ignore"):
            self._levels[:, rows] = np.log(counts) + np.multiply.outer(self._rates, at)
        # all at once, then a copy of each: arrays of few numbers are mostly the making
        listed = [pair for record in records for pair in record.successors]
        known = self._row_of_item
        others = np.array([known.get(other) or self.add(other) for other, _ in listed], np.int32)
        weights = np.array([weight for _, weight in listed], np.float32)
        end = 0
        for row, record in zip(rows, records, strict=True):
            begin, end = end, end + len(record.successors)
            if record.half_lives_s[-1] == self.rules.successor_half_life_s:
                self._taken[row] = record.at, others[begin:end].copy(), weights[begin:end].copy()

    def _counts(self, record: SignalRecord) -> list[float]:
        *half_lives_s, _ = record.half_lives_s
        if half_lives_s == self._half_lives_s:
            return record.counts
        counts = dict(zip(half_lives_s, record.counts, strict=True))
        return [counts.get(half_life_s, 0.0) for half_life_s in self._half_lives_s]

    def for_catalogue(self, item_ids: Sequence[str]) -> SignalTable:
        """Give the same signals by the rows of another catalogue; only what was `put` is taken along."""
        other = SignalTable(self.rules, item_ids)
        rows = np.array([0, *map(other.add, self.item_of_row[1:])], np.int32)  # ours -> its
        levels = np.full((len(self._levels), other.n_rows), -np.inf)
        levels[:, rows] = self._levels[:, : self.n_rows]
        levels[:, 0] = -np.inf
        other._levels = levels
        other._taken = {int(rows[row]): (at, rows[of], weights) for row, (at, of, weights) in self._taken.items()}
        return other

    def occur(self, row: int, t: float) -> None:
        """Count an occurrence."""
        self._levels[:, row] = np.logaddexp(self._levels[:, row], self._rates * t)

    def follow(self, last_rows: Sequence[int], row: int, t: float) -> None:
        """Count a row as successor of a user's last ones, the newest last."""
        weights: dict[int, float] = {}
        for weight, before in zip(LAST_ITEMS, reversed(last_rows), strict=False):
            weights[before] = weights.get(before, 0.0) + weight
        for before, weight in weights.items():
            known = self._successors.setdefault(before, {})
            self._landmarks[before] = followed(self.rules, self._landmarks.get(before, 0.0), known, t, row, weight)

    def trends(self, t: float) -> Floats:
        """Read all items' signals at a time: (K, rows), log(count / FLOOR) and nothing below 0."""
        levels = self._levels[:, : self.n_rows]
        return np.maximum(levels - (self._rates * t + _LN_FLOOR)[:, None], 0.0).astype(np.float32)

    def levels(self, row: int) -> Doubles:
        """Give a row's levels (K), which `trends` reads: log(count) + t * ln 2 / T, of any t."""
        return self._levels[:, row]

    def successors(self, last_rows: Sequence[int], t: float) -> tuple[Rows, Floats]:
        """Read what follows a user's last items, the newest last -> rows (S,), log(1 + GAIN x weight) (S, 2).

        The first weight is of what follows the newest item, the second of what follows those before: a score can
        trust them differently.
        """
        if self._taken:
            laid, scored = self.successors_of([last_rows], [t])
            return laid[0], scored[0]
        rows, weights = self._weights(last_rows, t)
        if len(rows) > LISTED:
            best = np.argpartition(-weights.sum(1), LISTED)[:LISTED]
            rows, weights = rows[best], weights[best]
        return rows, np.log1p(GAIN * weights).astype(np.float32)

    def successors_of(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> tuple[Rows, Floats]:
        """Read `successors` of B users, each at a time of its own, `padded` -> rows (B, S), scores (B, S, 2)."""
        if not self._taken:
            return padded(map(self.successors, last_rows, at))
        n_rows = self.n_rows
        if self._sums.shape[1] < len(last_rows) * n_rows:
            self._sums = np.zeros((2, len(last_rows) * (n_rows + n_rows // 4)), np.float32)
        sums = self._sums
        first_seen = []
        # sums at the places' own rows, the last items first, then those before: an item lists a row once
        for back, weight in enumerate(LAST_ITEMS, 1):
            before = int(back > 1)
            parts = []
            for number, (last, t) in enumerate(zip(last_rows, at, strict=True)):
                taken = self._taken.get(last[-back]) if len(last) >= back else None
                if taken is not None:
                    scale = weight * 0.5 ** (max(t - taken[0], 0.0) / self.rules.successor_half_life_s)
                    if scale > _FADED:
                        parts.append((taken[1], taken[2], scale, number * n_rows))
            if parts:
                rows, weights, scales, begins = zip(*parts, strict=True)
                counts = list(map(len, rows))
                places = np.concatenate(rows) + np.repeat(np.array(begins, np.int64), counts)
                held = sums[before, places]
                first_seen.append(places[(held == 0.0) & (sums[0, places] == 0.0)])
                sums[before, places] = held + np.concatenate(weights) * np.repeat(np.array(scales, np.float32), counts)
        distinct = np.sort(np.concatenate(first_seen)) if first_seen else _NO_ROWS
        summed = sums[:, distinct].T
        sums[:, distinct] = 0.0
        laid, summed = side_by_side(distinct, summed, len(last_rows), n_rows)
        if laid.shape[1] > LISTED:
            best = np.argpartition(-summed.sum(2), LISTED, axis=1)[:, :LISTED]
            laid, summed = np.take_along_axis(laid, best, 1), np.take_along_axis(summed, best[:, :, None], 1)
        return laid, np.log1p(GAIN * summed)

    def _weights(self, last_rows: Sequence[int], t: float) -> tuple[Rows, Doubles]:
        """Sum what is counted here -> rows (S,), weights (S, 2)."""
        newest: dict[int, float] = {}
        before: dict[int, float] = {}
        for back, (weight, row) in enumerate(zip(LAST_ITEMS, reversed(last_rows), strict=False)):
            known = self._successors.get(row)
            if not known or row == 0:
                continue
            scale = weight * 0.5 ** (max(t - self._landmarks[row], 0.0) / self.rules.successor_half_life_s)
            if scale == 0.0:
                continue
            if back == 0:
                newest = {other: scale * count for other, count in known.items()}
            elif not before:
                before = {other: scale * count for other, count in known.items()}
            else:
                for other, count in known.items():
                    before[other] = before.get(other, 0.0) + scale * count
        rows = [*newest, *(row for row in before if row not in newest)]
        weights = np.zeros((len(rows), 2))
        weights[: len(newest), 0] = list(newest.values())
        weights[:, 1] = [before.get(row, 0.0) for row in rows]
        return np.array(rows, np.int64), weights


def successor_parts(scores: Floats) -> Floats:
    """Say how much follows, and as what share of all that is listed: scores (B, S, 2) -> (B, S, PARTS)."""
    laid = np.empty((len(scores), PARTS, scores.shape[1]), np.float32)  # each part along its successors: half the time
    laid[:, :2] = scores.transpose(0, 2, 1)
    weights = np.expm1(laid[:, :2])
    laid[:, 2:] = np.log1p(weights * (SHARE_GAIN / np.maximum(weights.sum(2, keepdims=True), _NOTHING)))
    return laid.transpose(0, 2, 1)


def padded(sparse: Iterable[tuple[Rows, Floats]]) -> tuple[Rows, Floats]:
    """Lay sparse scores of B queries side by side: rows (B, S), values (B, S, 2), filled up with row 0 at 0."""
    held = list(sparse)
    width = max((len(rows) for rows, _ in held), default=0)
    rows, values = np.zeros((len(held), width), np.int64), np.zeros((len(held), width, 2), np.float32)
    for number, (row, value) in enumerate(held):
        rows[number, : len(row)] = row
        values[number, : len(value)] = value
    return rows, values


def side_by_side(places: Rows, values: Floats, queries: int, n_rows: int) -> tuple[Rows, Floats]:
    """Lay sparse scores side by side as `padded` does: places (N,), query x n_rows + row, rising; values (N, 2)."""
    bounds = np.searchsorted(places, np.arange(queries + 1) * n_rows)
    counts = np.diff(bounds)
    query = np.repeat(np.arange(queries), counts)
    column = np.arange(len(places)) - np.repeat(bounds[:-1], counts)
    laid = np.zeros((queries, int(counts.max(initial=0))), np.int64)
    scores = np.zeros((*laid.shape, 2), np.float32)
    laid[query, column] = places - query * n_rows
    scores[query, column] = values
    return laid, scores
