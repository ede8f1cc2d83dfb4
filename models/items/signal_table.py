"""All items' signals as arrays: what the columns and the sparse part of a batch of scores are read from.

An item's count c of time `at` is kept as log(c) + at * ln 2 / T, which does not change as time passes: reading all
items' signals at a time is a subtraction and a maximum, without exponentials or logarithms. Float64 holds that to
1e-10 for Unix times and half-lives of an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.items.signals import LAST_ITEMS, SignalRecord, SignalRules, followed
from models.items.sparse_sums import SparseSums

FLOOR = 0.05
"""The count that is nothing: one occurrence is forgotten after 4.3 half-lives, and 20 times it scores log 400."""

GAIN = 4.0  # of successors' counts in log(1 + GAIN x count): one transition is much, the hundredth little
LISTED = 64  # successors of a user's last items that are scored: those beyond have a tenth of the best one's weight

NEIGHBOUR_ITEMS = 10  # a user's last items whose neighbours are looked at: a taste rather than a train of thought
NEIGHBOURS_EACH = 50  # that follow each of them, best first: half of what is listed, in two thirds of the time
SHRINKAGE = np.float32(5)  # occurrences that every item is granted: two rare ones that met once are not yet neighbours
NEIGHBOUR_GAIN = np.float32(20)  # of neighbours' sums in log(1 + GAIN x sum): the best are some hundredths

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Taken = npt.NDArray[np.int32]  # rows, half as wide: there are a hundred for each item

_ALL = slice(None)
_LN2 = math.log(2)
_LN_FLOOR = math.log(FLOOR)
_MOST = np.float32(80)  # of counts' logarithms: a time long before an item's last occurrence overflows nothing
_NO_ROWS: Rows = np.zeros(0, np.int64)
_NO_WEIGHTS: Floats = np.zeros(0, np.float32)
_OF_LAST_ITEMS: Doubles = np.array(LAST_ITEMS)


class _List(NamedTuple):
    """What follows an item, weighed as of a time."""

    at: float
    rows: Taken
    weights: Floats


_NOTHING_FOLLOWS = _List(0.0, np.zeros(0, np.int32), _NO_WEIGHTS)


class _Entries(NamedTuple):
    """What many lists say, one after the other."""

    rows: Rows  # (N,)
    weights: Floats  # (N,)
    counts: Rows  # of each list
    users: Rows  # (B + 1), bounds of each user's


class LookedUp(NamedTuple):
    """What was known of the last items of B users, each at a time of its own, however much is counted after."""

    at: Doubles  # (B,)
    lists: list[list[_List]]  # of each user: of each item, the newest last
    levels: Doubles  # of how often these items have occurred, one after the other
    levels_near: Doubles  # likewise of their nearest successors, list after list

    @classmethod
    def joined(cls, parts: Sequence[LookedUp]) -> LookedUp:
        """Join what was looked up one after the other."""
        at, lists, levels, levels_near = zip(*parts, strict=True)
        return cls(
            np.concatenate(at), list(chain.from_iterable(lists)), np.concatenate(levels), np.concatenate(levels_near)
        )


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
        self._sums = SparseSums()
        self.offsets: tuple[int, ...] = ()  # by partition of `signals`: every record before is in; empty: not followed

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
        other.offsets = self.offsets
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

    def trends(self, t: float, rows: slice | int = _ALL) -> Floats:
        """Read items' signals at a time: (K, rows), or (K,) of one row; log(count / FLOOR) and nothing below 0."""
        floors = self._rates[:-1] * t + _LN_FLOOR
        if isinstance(rows, int):
            above = self._levels[:-1, rows] - floors
        else:
            above = self._levels[:-1, : self.n_rows][:, rows] - floors[:, None]
        return np.maximum(above, 0.0).astype(np.float32)

    def trend(self, half_life_s: float, t: float) -> Floats:
        """Read one trend, of any half-life that is counted, the successors' included: (rows,), as in `trends`."""
        number = self._half_lives_s.index(half_life_s)
        levels = self._levels[number, : self.n_rows] - (self._rates[number] * t + _LN_FLOOR)
        above: Floats = np.maximum(levels, 0.0).astype(np.float32)
        return above

    def look_up(self, last_rows: Sequence[Sequence[int]], at: Sequence[float]) -> LookedUp:
        """Look up what is known by now of the last items of B users, the newest last, to be read as of a time each."""
        known, levels = self._lists.get, self._levels[-1]
        lists = [[known(row) or self._laid_out(row) for row in last] for last in last_rows]
        rows = np.array([row for last in last_rows for row in last], np.int64)
        near = [one.rows[:NEIGHBOURS_EACH] for of_user in lists for one in of_user]
        rows_near = np.concatenate([_NOTHING_FOLLOWS.rows, *near])
        return LookedUp(np.array(at, np.float64), lists, levels.take(rows), levels.take(rows_near))

    def successors(self, looked_up: LookedUp) -> tuple[Rows, Floats]:
        """Read what follows the last items of B users -> rows (B, S), scores (B, S, 2), filled up with row 0 at 0.

        A score is log(1 + GAIN x weight), first of what follows the newest item, then of what follows those before:
        they can be trusted differently.
        """
        last = [of_user[: -1 - len(LAST_ITEMS) : -1] for of_user in looked_up.lists]
        back = np.array([number for of_user in last for number in range(len(of_user))], np.int64)
        entries = self._entries(looked_up.at, last, _OF_LAST_ITEMS.take(back))
        parts = np.repeat(np.minimum(back, 1), entries.counts)
        rows, sums = self._sums.best(LISTED, self.n_rows, entries.users, entries.rows, entries.weights, parts)
        return rows, np.log1p(GAIN * sums)

    def neighbours(self, looked_up: LookedUp) -> tuple[Rows, Floats]:
        """Read what keeps company with the last items of B users -> rows (B, S), scores (B, S, 1), filled up likewise.

        A score is log(1 + NEIGHBOUR_GAIN x the sum over those items q of f(q, j) / sqrt((n(q) + s) (n(j) + s))), f the
        weight of j among what follows q, n how often an item occurred, decayed alike, and s SHRINKAGE: what is frequent
        follows everything. The cosine of item-to-item recommenders (Linden, Smith & York 2003), of an order in time.
        """
        at, lists, levels, levels_near = looked_up
        weights = self._held_against(levels, np.repeat(at, _lengths(lists)))
        entries = self._entries(at, lists, weights, NEIGHBOURS_EACH)
        values = entries.weights * self._held_against(levels_near, np.repeat(at, np.diff(entries.users)))
        rows, sums = self._sums.best(LISTED, self.n_rows, entries.users, entries.rows, values)
        return rows, np.log1p(NEIGHBOUR_GAIN * sums)

    def _held_against(self, levels: Doubles, at: Doubles) -> Floats:
        """Say what a weight becomes as items occur so often: 1 / sqrt(count + SHRINKAGE), decayed as successors are."""
        logs = (levels - self._rates[-1] * at).astype(np.float32)
        divided: Floats = 1 / np.sqrt(np.exp(np.minimum(logs, _MOST)) + SHRINKAGE)
        return divided

    def _entries(
        self, at: Doubles, lists: Sequence[Sequence[_List]], weights: Doubles | Floats, most: int | None = None
    ) -> _Entries:
        """Give what lists of B users say at a time each, times what a list weighs; the `most` first of each list."""
        every = [one for of_user in lists for one in of_user]
        lengths = _lengths(lists)
        passed = np.repeat(at, lengths) - [one.at for one in every]
        scales = np.exp2(np.maximum(passed, 0.0) / -self.rules.successor_half_life_s) * weights
        rows = [one.rows[:most] for one in every]
        counts = _lengths(rows)
        of_rows = np.concatenate([_NO_WEIGHTS, *(one.weights[:most] for one in every)])
        of_rows *= np.repeat(scales.astype(np.float32), counts)
        users = np.append(0, np.cumsum(counts)).take(np.append(0, np.cumsum(lengths)))
        return _Entries(np.concatenate([_NO_ROWS, *rows], dtype=np.int64), of_rows, counts, users)

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


def _lengths(lists: Sequence[Sized]) -> Rows:
    return np.fromiter(map(len, lists), np.int64, len(lists))
