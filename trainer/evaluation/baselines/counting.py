"""Baselines that count: popularity, recent popularity, and items that occur together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from models.items.signals import DAY_S, HOUR_S, LAST_ITEMS
from models.measures import ndcg_at_k
from trainer.data.histories import Ints
from trainer.evaluation.protocol import Answers, Split, Unanswerable, split_at

Floats = npt.NDArray[np.float64]

SMOOTHING = 0.1  # occurrences that every item is granted, as the model's biases are
TIE = 1e-6  # of popularity's share: decides among items that a baseline says nothing of
CHOICE = 0.9  # of the training period: what options are chosen by comes after
CHOICE_TRIALS = 1500  # the newest are asked: enough to tell options apart that differ by much
RECENT_HALF_LIVES_S = (HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S)
CO_WINDOW = 100  # events of a user within which two items occur together: as many as a state retains


class Counter(Protocol):
    """What a counting baseline knows; `scores` are read before an event is counted."""

    def scores(self, event: int) -> Floats:
        """Score all rows for the user of an event, at its time: (rows,), none below 0."""

    def count(self, event: int) -> None:
        """Learn of an event."""


def predict(split: Split, blocks: Iterator[Ints], counter: Counter) -> Iterator[Answers]:
    """Answer from a counter that has seen nothing yet: the log up to the split is counted first.

    Probabilities are a blend of the scores' shares and popularity's, in the proportion that has predicted best so
    far (a Bayesian mixture of the two): a counter alone would call what it has not seen impossible.
    """
    order, place = split.histories.order.tolist(), 0
    counts = np.full(len(split.item_ids) + 1, SMOOTHING)
    counts[0] = 0.0
    fors = against = 1.0
    known = split.n_known + 1
    for block in blocks:
        scored = np.zeros((len(block), len(counts)))
        had = split.had(block)
        likelihoods = np.full((2, len(block)), math.nan)
        for number, event in enumerate(block.tolist()):
            while order[place] != event:
                counter.count(order[place])
                counts[split.rows[order[place]]] += 1
                place += 1
            scores = counter.scores(event).copy()
            out = np.unique(had.rows[had.lists == number])  # what the user has had is no answer
            scores[out] = 0.0
            row, trust = split.rows[event], fors / (fors + against)
            for way, end in enumerate((known, len(counts))):
                share = counts[row] / (counts[:end].sum() - counts[out[out < end]].sum()) if row < end else 0.0
                total = scores[1:end].sum()
                own = scores[row] / total if row < end and total > 0 else share
                if row < end:
                    likelihoods[way, number] = math.log(trust * own + (1 - trust) * share)
                    if way:
                        posterior = trust * own / (trust * own + (1 - trust) * share)
                        fors, against = fors + posterior, against + 1 - posterior
            top = scores.max()
            scored[number] = scores / (top if top > 0 else 1.0) + TIE * counts / counts.sum()
        yield Answers(torch.from_numpy(scored), *likelihoods)


def choose(split: Split, makers: Sequence[Callable[[Split], Counter]]) -> int:
    """Find which counter predicts the end of the training period best (ndcg@10) -> its place."""
    try:
        inner = split_at(split.training(), CHOICE, mask_had=split.mask_had)
    except Unanswerable:
        return 0
    asked = inner.asked[inner.known][-CHOICE_TRIALS:]
    inner = replace(inner, asked=asked)
    blocks = [asked[start : start + 256] for start in range(0, len(asked), 256)]
    reached = []
    for make in makers:
        ranks = [np.zeros(0, np.int64)]
        for block, answers in zip(blocks, predict(inner, iter(blocks), make(inner)), strict=True):
            scores = inner.mask(answers.scores, block).numpy()[:, 1 : inner.n_known + 1]
            own = np.take_along_axis(scores, inner.rows[block][:, None] - 1, 1)
            ranks.append((scores >= own).sum(1))
        reached.append(ndcg_at_k(np.concatenate(ranks), 10))
    return int(np.argmax(reached))


class Popular:
    """What occurred most so far; with a half-life, what did recently."""

    def __init__(self, split: Split, half_life_s: float = math.inf) -> None:
        """Begin without counts."""
        self._rows = split.rows
        self._times = split.histories.times
        self._half_life_s = half_life_s
        self._counts = np.zeros(len(split.item_ids) + 1)
        self._at = float(self._times[split.histories.order[0]])

    def scores(self, event: int) -> Floats:
        """Give all counts: a decay that is common to all changes no share and no rank."""
        return self._counts.copy()

    def count(self, event: int) -> None:
        """Count one more."""
        t = float(self._times[event])
        if math.isfinite(self._half_life_s):
            passed = (t - self._at) / self._half_life_s
            if passed > 30:  # weights grow with time instead of being decayed, until they have grown enough
                self._counts *= 0.5**passed
                self._at, passed = t, 0.0
            self._counts[self._rows[event]] += 2.0**passed
        else:
            self._counts[self._rows[event]] += 1.0


class Sims:
    """Items that the same users had, by cosine: co-occurrences / sqrt(occurrences of both), as of the split."""

    popularity_discount_factor = 0.5  # Personalize's default for SIMS; 0.5 is the cosine
    min_cointeraction_count = 3  # Personalize's default too

    def __init__(self, split: Split) -> None:
        """Count pairs of different items within CO_WINDOW events of one user."""
        self._split = split
        self._first = split.histories.bounds[split.histories.users]
        self._n_rows = len(split.item_ids) + 1
        rows, keys = split.rows, []
        users = split.histories.users
        before = np.zeros(len(rows), bool)
        before[split.histories.order[: split.n_before]] = True
        for apart in range(1, min(CO_WINDOW, int(np.diff(split.histories.bounds).max()) - 1) + 1):
            pair = (users[apart:] == users[:-apart]) & before[apart:] & (rows[apart:] != rows[:-apart])
            one, other = rows[:-apart][pair], rows[apart:][pair]
            keys += [one * self._n_rows + other, other * self._n_rows + one]
        pairs, together = np.unique(np.concatenate([*keys, np.zeros(0, np.int64)]), return_counts=True)
        enough = together >= self.min_cointeraction_count
        pairs, together = pairs[enough], together[enough]
        one, other = pairs // self._n_rows, pairs % self._n_rows
        occurrences = np.maximum(np.bincount(rows[before], minlength=self._n_rows), 1.0)
        discount = self.popularity_discount_factor
        self._others = other
        self._values = together / (occurrences[one] ** (1 - discount) * occurrences[other] ** discount)
        self._bounds = np.searchsorted(one, np.arange(self._n_rows + 1))

    def scores(self, event: int) -> Floats:
        """Sum what goes with the user's last items, the newest weighing most."""
        last = self._split.rows[max(self._first[event], event - len(LAST_ITEMS)) : event][::-1]
        scores = np.zeros(self._n_rows)
        for weight, row in zip(LAST_ITEMS, last.tolist(), strict=False):
            here = slice(self._bounds[row], self._bounds[row + 1])
            scores[self._others[here]] += weight * self._values[here]
        return scores

    def count(self, event: int) -> None:
        """Learn nothing: weights stay as they were at the split, only the user's last items move on."""


class Counting:
    """A baseline made of a counter, the best of some on the end of the training period."""

    def __init__(self, *makers: Callable[[Split], Counter]) -> None:
        """Name the counters to choose from."""
        self._makers = makers
        self.chosen = 0
        self._counter: Counter | None = None

    def fit(self, split: Split) -> None:
        """Choose, and count what is counted at once."""
        self.chosen = choose(split, self._makers) if len(self._makers) > 1 else 0
        self._counter = self._makers[self.chosen](split)

    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        """Answer with live counts."""
        assert self._counter is not None, "fit comes first"
        return predict(split, blocks, self._counter)


def popularity() -> Counting:
    """Make the baseline of all-time popularity."""
    return Counting(Popular)


def recent_popularity() -> Counting:
    """Make the baseline of recent popularity, at the half-life that suits the log."""
    return Counting(*(_decayed(half_life_s) for half_life_s in RECENT_HALF_LIVES_S))


def _decayed(half_life_s: float) -> Callable[[Split], Counter]:
    return lambda split: Popular(split, half_life_s)
