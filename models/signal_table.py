"""All items' signals as arrays: what the columns and the sparse part of a batch of scores are read from.

An item's count c of time `at` is kept as log(c) + at * ln 2 / T, which does not change as time passes: reading all
items' signals at a time is a subtraction and a maximum, without exponentials or logarithms. Float64 holds that to
1e-10 for Unix times and half-lives of an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

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

NEIGHBOUR_ITEMS = 10  # a user's last items whose neighbours are looked at: a taste rather than a train of thought
NEIGHBOURS_EACH = 50  # that follow each of them, best first: half of what is listed, in two thirds of the time
SHRINKAGE = 5.0  # occurrences that every item is granted: two rare ones that met once are not yet neighbours
NEIGHBOUR_GAIN = np.float32(20)  # of neighbours' sums in log(1 + GAIN x sum): the best are some hundredths

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Taken = npt.NDArray[np.int32]  # rows, half as wide: there are a hundred for each item

_LN2 = math.log(2)
_LN_FLOOR = math.log(FLOOR)
_MOST = 80.0  # of counts' logarithms: a time long before an item's last occurrence overflows nothing
_NOTHING = np.float32(1e-9)  # instead of 0, where nothing is listed
_NO_ROWS: Rows = np.zeros(0, np.int64)
_NO_WEIGHTS: Floats = np.zeros(0, np.float32)


class _List(NamedTuple):
    """What follows an item, weighed as of a time."""

    at: float
    rows: Taken
    weights: Floats


_NOTHING_FOLLOWS = _List(0.0, np.zeros(0, np.int32), _NO_WEIGHTS)


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
        self._half_lives_s = list(rules.counted_half_lives_s)
        self._rates = _LN2 / np.array(self._half_lives_s)  # (K + 1)
        self._levels = np.full((len(self._rates), len(item_ids) + 1), -np.inf)
        self._successors: dict[int, dict[int, float]] = {}
        self._landmarks: dict[int, float] = {}
        self._lists: dict[int, _List] = {}  # as `put`, or made of `_successors` when they are read
        self._sums: Floats = np.zeros((2, 0), np.float32)  # by user and row, and 0 but while some are summed

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
        counts = np.array([self._counts(record) for record in records]).T  # (K + 1, N)
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
                self._lists[row] = _List(record.at, others[begin:end].copy(), weights[begin:end].copy())

    def _counts(self, record: SignalRecord) -> list[float]:
        *half_lives_s, _ = record.half_lives_s
        if half_lives_s == self._half_lives_s:
            return record.counts
        counts = dict(zip(half_lives_s, record.counts, strict=True))
        known = [counts.get(half_life_s, 0.0) for half_life_s in self._half_lives_s]
        if self._half_lives_s[-1] not in counts:  # of an earlier release, until the item occurs again
            known[-1] = max(record.counts, default=0.0)
        return known

    def for_catalogue(self, item_ids: Sequence[str]) -> SignalTable:
        """Give the same signals by the rows of another catalogue; only what was `put` is taken along."""
        other = SignalTable(self.rules, item_ids)
        rows = np.array([0, *map(other.add, self.item_of_row[1:])], np.int32)  # ours -> its
        levels = np.full((len(self._levels), other.n_rows), -np.inf)
        levels[:, rows] = self._levels[:, : self.n_rows]
        levels[:, 0] = -np.inf
        other._levels = levels
        other._lists = {int(rows[row]): one._replace(rows=rows[one.rows]) for row, one in self._lists.items()}
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
            self._lists.pop(before, None)

    def trends(self, t: float) -> Floats:
        """Read all items' signals at a time: (K, rows), log(count / FLOOR) and nothing below 0."""
        levels = self._levels[:-1, : self.n_rows]
        return np.maximum(levels - (self._rates[:-1] * t + _LN_FLOOR)[:, None], 0.0).astype(np.float32)

    def levels(self, row: int) -> Doubles:
        """Give a row's levels (K), which `trends` reads: log(count) + t * ln 2 / T, of any t."""
        return self._levels[:-1, row]

    def successors(self, last_rows: Sequence[int], t: float) -> tuple[Rows, Floats]:
        """Read what follows a user's last items, the newest last -> rows (S,), scores (S, 2).

        A score is log(1 + GAIN x weight), first of what follows the newest item, then of what follows those before:
        they can be trusted differently.
        """
        rows, sums = _best(*self._successor_sums([last_rows], [t]))
        return rows, np.log1p(GAIN * sums)

    def successors_of(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> tuple[Rows, Floats]:
        """Read `successors` of B users, each at a time of its own, side by side -> rows (B, S), scores (B, S, 2)."""
        places, sums = self._successor_sums(last_rows, at)
        rows, sums = _best_of_each(*side_by_side(places, sums, len(last_rows), self.n_rows))
        return rows, np.log1p(GAIN * sums)

    def neighbours(self, last_rows: Sequence[int], t: float) -> tuple[Rows, Floats]:
        """Read what keeps company with a user's last items -> rows (S,), scores (S, 1).

        A score is log(1 + NEIGHBOUR_GAIN x the sum over those items q of f(q, j) / sqrt((n(q) + s) (n(j) + s))), f the
        weight of j among what follows q, n how often an item occurred, decayed alike, and s SHRINKAGE: what is frequent
        follows everything. The cosine of item-to-item recommenders (Linden, Smith & York 2003), of an order in time.
        """
        rows, sums = _best(*self._neighbour_sums([last_rows], [t]))
        return rows, np.log1p(NEIGHBOUR_GAIN * sums)

    def neighbours_of(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> tuple[Rows, Floats]:
        """Read `neighbours` of B users, each at a time of its own, side by side -> rows (B, S), scores (B, S, 1)."""
        places, sums = self._neighbour_sums(last_rows, at)
        rows, sums = _best_of_each(*side_by_side(places, sums, len(last_rows), self.n_rows))
        return rows, np.log1p(NEIGHBOUR_GAIN * sums)

    def _successor_sums(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> tuple[Rows, Floats]:
        """Sum what follows the newest item of each user, and the ones before -> places (N,), weights (N, 2)."""
        users = [user for user, last in enumerate(last_rows) if last]
        rows = [last_rows[user][-1] for user in users]
        newest = len(rows)
        for user, last in enumerate(last_rows):
            before = last[-2 : -1 - len(LAST_ITEMS) : -1]
            users += [user] * len(before)
            rows += before
        weights = np.full(len(rows), LAST_ITEMS[0])
        weights[newest:] = [
            LAST_ITEMS[back] for last in last_rows for back in range(1, min(len(last), len(LAST_ITEMS)))
        ]
        places, listed, counts = self._listed(np.array(users, np.int64), rows, weights, np.array(at, np.float64))
        end = sum(counts[:newest])
        return self._summed(len(last_rows), (places[:end], listed[:end]), (places[end:], listed[end:]))

    def _neighbour_sums(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> tuple[Rows, Floats]:
        """Sum what follows each user's items, held against how often both occur -> places (N,), weights (N, 1)."""
        times, rows = np.array(at, np.float64), [row for last in last_rows for row in last]
        users = np.repeat(np.arange(len(last_rows)), list(map(len, last_rows)))
        weights = 1 / np.sqrt(self._often(np.array(rows, np.int64), times[users]) + SHRINKAGE)
        places, listed, _ = self._listed(users, rows, weights, times, NEIGHBOURS_EACH)
        places, sums = self._summed(len(last_rows), (places, listed))
        user, row = np.divmod(places, self.n_rows) if len(last_rows) != 1 else (0, places)
        sums[:, 0] /= np.sqrt(self._often(row, times[user]) + SHRINKAGE)
        return places, sums

    def _often(self, rows: Rows, t: Doubles | np.float64) -> Doubles:
        """Count occurrences, decayed as successors are."""
        often: Doubles = np.exp(np.minimum(self._levels[-1].take(rows) - self._rates[-1] * t, _MOST))
        return often

    def _listed(
        self, users: Rows, rows: Sequence[int], weights: Doubles, times: Doubles, most: int | None = None
    ) -> tuple[Rows, Floats, list[int]]:
        """Look up what follows users' items (N), which weigh something each -> places, weights, how many of each item.

        A place is user x n_rows + row; users ask at `times` (B); at the `most` so many of each.
        """
        if not rows:
            return _NO_ROWS, _NO_WEIGHTS, []
        lists = [self._lists.get(row) or self._laid_out(row) for row in rows]
        passed = np.maximum(times[users] - [listed.at for listed in lists], 0.0)
        scales = weights * np.exp2(passed / -self.rules.successor_half_life_s)
        listed_rows = [listed.rows[:most] for listed in lists]
        counts = list(map(len, listed_rows))
        places = np.concatenate(listed_rows, dtype=np.int64)
        if len(times) > 1:
            places += np.repeat(users * self.n_rows, counts)
        listed_weights = np.concatenate([listed.weights[:most] for listed in lists])
        return places, listed_weights * np.repeat(scales.astype(np.float32), counts), counts

    def _laid_out(self, row: int) -> _List:
        """Lay out what is counted here as following an item, the best first as far as anybody asks for these alone."""
        known = self._successors.get(row)
        if not known:
            return _NOTHING_FOLLOWS
        others = np.fromiter(known, np.int32, len(known))
        weights = np.fromiter(known.values(), np.float32, len(known))
        if len(known) > NEIGHBOURS_EACH:
            best_first = np.argpartition(-weights, NEIGHBOURS_EACH)
            others, weights = others[best_first], weights[best_first]
        listed = self._lists[row] = _List(self._landmarks[row], others, weights)
        return listed

    def _summed(self, users: int, *parts: tuple[Rows, Floats]) -> tuple[Rows, Floats]:
        """Sum parts, places and weights each, by place -> places (N,), rising, sums (N, parts)."""
        if self._sums.shape[1] < users * self.n_rows:
            self._sums = np.zeros((2, users * (self.n_rows + self.n_rows // 4)), np.float32)
        for sums, (places, weights) in zip(self._sums, parts, strict=False):
            np.add.at(sums, places, weights)
        places = np.sort(np.concatenate([places for places, _ in parts]))
        first = np.ones(len(places), np.bool_)
        np.not_equal(places[1:], places[:-1], out=first[1:])
        places = places[first]
        summed = np.empty((len(places), len(parts)), np.float32)
        for part, sums in enumerate(self._sums[: len(parts)]):
            sums.take(places, out=summed[:, part])
            sums[places] = 0.0
        return places, summed


def successor_parts(scores: Floats) -> Floats:
    """Say how much follows, and as what share of all that is listed: scores (B, S, 2) -> (B, S, PARTS)."""
    laid = np.empty((len(scores), PARTS, scores.shape[1]), np.float32)  # each part along its successors: half the time
    laid[:, :2] = scores.transpose(0, 2, 1)
    weights = np.expm1(laid[:, :2])
    laid[:, 2:] = np.log1p(weights * (SHARE_GAIN / np.maximum(weights.sum(2, keepdims=True), _NOTHING)))
    return laid.transpose(0, 2, 1)


def _best(rows: Rows, sums: Floats) -> tuple[Rows, Floats]:
    """Keep the LISTED greatest: rows (S,), sums (S, parts)."""
    if len(rows) <= LISTED:
        return rows, sums
    weights = sums[:, 0] if sums.shape[1] == 1 else sums.sum(1)
    best = np.argpartition(weights, len(rows) - LISTED)[-LISTED:]
    return rows[best], sums[best]


def _best_of_each(rows: Rows, sums: Floats) -> tuple[Rows, Floats]:
    """Keep each user's LISTED greatest: rows (B, S), sums (B, S, parts)."""
    if rows.shape[1] <= LISTED:
        return rows, sums
    best = np.argpartition(sums.sum(2), rows.shape[1] - LISTED, axis=1)[:, -LISTED:]
    return np.take_along_axis(rows, best, 1), np.take_along_axis(sums, best[:, :, None], 1)


def side_by_side(places: Rows, values: Floats, queries: int, n_rows: int) -> tuple[Rows, Floats]:
    """Lay sparse values side by side: places (N,), query x n_rows + row, rising; values (N, parts).

    -> rows (queries, S), values (queries, S, parts), filled up with row 0 at 0.
    """
    bounds = np.searchsorted(places, np.arange(queries + 1) * n_rows)
    counts = np.diff(bounds)
    query, width = np.arange(queries), int(counts.max(initial=0))
    laid, scores = np.zeros(queries * width, np.int64), np.zeros((queries * width, values.shape[1]), np.float32)
    at = np.arange(len(places)) + np.repeat(query * width - bounds[:-1], counts)
    laid[at] = places - np.repeat(query * n_rows, counts)
    scores[at] = values
    return laid.reshape(queries, width), scores.reshape(queries, width, values.shape[1])
