"""The leak-free protocol: train before one instant, then predict every later event at its own time.

Events are walked in the order that they happened. Before state or signals learn of an event, every item of the
catalogue is ranked for its user at its time; weights stay as they were at the split, states and signals are live.

Counted are events whose user has an earlier event and whose item was in training; they are ranked among the items of
training. In the second figures, `with_new_items`, events on new items count too, and all items of the file are ranked,
as if its catalogue had been there from the start: an item without any event has the model's default for new ones.

With `mask_had`, what a user has had is left out of every ranking, for the model and its baselines alike, and events on
such items are not asked: what a deployment does that lists nothing twice. Without it, a predictor that knows what was
had gains by that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.control import DEFAULT_BOUNDS_S, levels
from models.measures import ranks
from models.recommending.mask import ItemMask
from models.sessions import SessionRules
from trainer.data.histories import Histories, Ints
from trainer.evaluation.tally import Tally

BLOCK = 32  # events whose scores are held at once: what fits a core's cache
LIST = 10  # places that coverage is counted over


class Unanswerable(ValueError):
    """A log that the protocol has nothing to measure on."""


@dataclass(frozen=True, eq=False)
class Split:
    """A log cut at one instant; rows are of the items, those of training first, from 1."""

    histories: Histories
    n_before: int  # events before the instant, in the order that things happened
    instant: float
    item_ids: list[str]  # row i + 1 is item_ids[i]
    n_known: int  # items of training
    rows: Ints  # (N), the events'
    asked: Ints  # (T), the later events whose user has an earlier one, in the order that they happened
    skipped: int  # later events that are a user's first
    level: Ints  # (T), of the gap before each
    opens: npt.NDArray[np.bool_]  # (T), the first of its session
    mask_had: bool = False
    skipped_had: int = 0  # later events that are not asked, as their user has had the item

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Say which of the asked events' items were in training (T)."""
        return self.rows[self.asked] <= self.n_known

    def training(self) -> Histories:
        """Give what happened before the instant, and nothing else: the same ones each time, counted but once."""
        return self._training

    def had(self, block: Ints) -> ItemMask:
        """Give what is left out of the rankings of events (B)."""
        if not self.mask_had:
            return ItemMask()
        first = self.histories.bounds[self.histories.users[block]]
        rows = [self.rows[begin:event] for begin, event in zip(first.tolist(), block.tolist(), strict=True)]
        return ItemMask(lists=np.repeat(np.arange(len(block)), block - first), rows=np.concatenate(rows))

    def mask(self, scores: Tensor, block: Ints) -> Tensor:
        """Set what is left out of the rankings of events (B) to -inf, in place: scores (B, rows)."""
        self.had(block).hide(scores)
        return scores

    @cached_property
    def _training(self) -> Histories:
        return self.histories.part(self.histories.order[: self.n_before])


class Answers(NamedTuple):
    """What a predictor says to B events: scores (B, rows), row 0 left out of all ranks, and log-probabilities.

    `among(n)` of them are those of the first n rows; None for a predictor that gives none.
    """

    scores: Tensor
    log_likelihood: npt.NDArray[np.float64] | None = None  # (B,) among the known items
    log_likelihood_all: npt.NDArray[np.float64] | None = None  # (B,) among all items


class Predictor(Protocol):
    """What an evaluation asks: the model, or a baseline."""

    def fit(self, split: Split) -> None:
        """Learn from what came before the split."""

    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        """Answer blocks of asked events (their places in the histories), learning of each event once it is past."""


@dataclass
class Result:
    """What a predictor came to."""

    name: str
    figures: dict[str, Any]


def cut_at(histories: Histories, train_fraction: float) -> tuple[int, float]:
    """Find the time that `train_fraction` of the events lie before -> how many do, the time.

    Events of that very second are later ones. Raises Unanswerable when nothing lies before.
    """
    in_time = histories.times[histories.order]
    if not len(in_time):
        raise Unanswerable("there are no events")
    instant = float(in_time[min(int(len(in_time) * train_fraction), len(in_time) - 1)])
    n_before = int(np.searchsorted(in_time, instant, side="left"))
    if not n_before:
        raise Unanswerable("no event lies before the split: all have the same time, or there are too few")
    return n_before, instant


def split_at(
    histories: Histories, train_fraction: float, offered: Sequence[str] = (), *, mask_had: bool = False
) -> Split:
    """Cut at the time that `train_fraction` of the events lie before, as `cut_at` finds it.

    `offered` are items that can be recommended, whether they occur or not; they count as new unless they were in
    training.
    Raises Unanswerable when nothing lies before or nothing can be asked after.
    """
    order = histories.order
    n_before, instant = cut_at(histories, train_fraction)
    known = np.unique(histories.items[order[:n_before]])
    row_of = np.zeros(len(histories.item_ids), np.int64)
    row_of[known] = np.arange(1, len(known) + 1)
    new = np.flatnonzero(row_of == 0)
    row_of[new] = np.arange(len(known) + 1, len(row_of) + 1)
    later = order[n_before:]
    first = histories.bounds[histories.users]
    follows = later > first[later]
    again = histories.had_before[later] & mask_had
    asked = later[follows & ~again]
    if not len(asked) and follows.any():
        raise Unanswerable("every later event is on an item that its user has had, ask about these: --no-mask-had")
    if not len(asked):
        raise Unanswerable("no user with an event after the split has an event before it, so nothing can be predicted")
    gaps = histories.times[asked] - histories.times[asked - 1]
    return Split(
        histories,
        n_before,
        instant,
        [*(histories.item_ids[item] for item in (*known, *new)), *sorted(set(offered) - set(histories.item_ids))],
        len(known),
        row_of[histories.items],
        asked,
        int((~follows).sum()),
        levels(gaps, DEFAULT_BOUNDS_S),
        gaps > SessionRules().gap_s,
        mask_had,
        int((follows & again).sum()),
    )


def evaluate(name: str, predictor: Predictor, split: Split) -> Result:
    """Fit a predictor and have it predict every later event."""
    begun = time.monotonic()
    predictor.fit(split)
    fitted = time.monotonic()
    main, everything = Tally(), Tally()
    listed = np.zeros(len(split.item_ids) + 1, bool)
    blocks = [split.asked[start : start + BLOCK] for start in range(0, len(split.asked), BLOCK)]
    targets = torch.from_numpy(split.rows)
    for block, answers in zip(blocks, predictor.answer(split, iter(blocks)), strict=True):
        at = targets[torch.from_numpy(block)]
        scores = split.mask(answers.scores, block)[:, 1:]
        among_known = scores[:, : split.n_known]
        listed[torch.topk(among_known, min(LIST, split.n_known)).indices.numpy().ravel() + 1] = True
        is_known = at <= split.n_known
        own = ranks(among_known[is_known], at[is_known] - 1)
        main.add(own, _some(answers.log_likelihood, block)[is_known.numpy()])
        everything.add(ranks(scores, at - 1), _some(answers.log_likelihood_all, block))
    done = time.monotonic()
    figures = main.figures()
    skipped = len(split.histories.items) - split.n_before - int(split.known.sum())
    known = split.known
    figures |= {
        "coverage_at_10": float(listed[1 : split.n_known + 1].mean()),
        "events_skipped": skipped,
        "events_skipped_first_of_user": split.skipped,
        "events_skipped_new_item": int((~known).sum()),
        "events_skipped_had": split.skipped_had,
        "mask_had": split.mask_had,
        "train_s": round(fitted - begun, 3),
        "evaluate_s": round(done - fitted, 3),
    }
    shown: dict[str, Any] = {"recipe": name, **figures}
    shown["with_new_items"] = everything.figures()
    shown["first_in_session"] = main.figures(split.opens[known])
    shown["by_control_level"] = {
        str(level): main.figures(split.level[known] == level) for level in range(len(DEFAULT_BOUNDS_S) + 1)
    }
    return Result(name, shown)


def _some(likelihood: npt.NDArray[np.float64] | None, block: Ints) -> npt.NDArray[np.float64]:
    return np.full(len(block), np.nan) if likelihood is None else likelihood
