from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models.records import Event
from trainer.data.histories import Ints, from_events
from trainer.evaluation.baselines.registry import ABLATIONS, PREDICTORS
from trainer.evaluation.protocol import Answers, Split, Unanswerable, evaluate, split_at
from trainer.settings import FittingSettings

from tests.unit.trainer.logs import drawn  # isort: skip

QUICK = FittingSettings(hidden_dimension=6, epochs=1, train_threads=1, lanes=8)


def split(seed: int = 0, n: int = 300, offered: tuple[str, ...] = ()) -> Split:
    return split_at(from_events(drawn(seed, n, items=25)), 0.8, offered)


class Fixed:
    """Says the same to every event: the higher the row, the better."""

    def fit(self, split: Split) -> None:
        self.trained = split.training()

    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        for block in blocks:
            yield Answers(torch.arange(len(split.item_ids) + 1.0).repeat(len(block), 1))


def test_the_split_is_an_instant_and_training_ends_before_it() -> None:
    events = [Event("u", f"i{n}", t) for n, t in enumerate([1.0, 2.0, 3.0, 3.0, 3.0, 4.0])]
    cut = split_at(from_events(events), 0.6)  # the fourth event: two others have its time
    assert (cut.n_before, cut.instant) == (2, 3.0)
    assert cut.training().times.tolist() == [1.0, 2.0]
    assert cut.n_known == 2
    assert cut.known.tolist() == [False] * 4


def test_what_counts_and_what_is_skipped_adds_up() -> None:
    cut = split()
    figures = evaluate("fixed", Fixed(), cut).figures
    later = len(cut.histories.items) - cut.n_before
    assert figures["events"] + figures["events_skipped"] == later
    assert figures["events_skipped"] == figures["events_skipped_first_of_user"] + figures["events_skipped_new_item"]
    assert figures["with_new_items"]["events"] == figures["events"] + figures["events_skipped_new_item"]
    assert sum(level["events"] for level in figures["by_control_level"].values()) == figures["events"]
    assert figures["perplexity"] is None
    ranks = cut.n_known + 1 - cut.rows[cut.asked[cut.known]]
    assert figures["recall_at_5"] == pytest.approx(np.mean(ranks <= 5))
    assert figures["coverage_at_10"] == pytest.approx(10 / cut.n_known)


@pytest.mark.parametrize("events", [[], [Event("u", "i", 1.0)], [Event("u", "i", 1.0), Event("u", "j", 1.0)]])
def test_logs_that_say_nothing_are_refused(events: list[Event]) -> None:
    with pytest.raises(Unanswerable):
        split_at(from_events(events), 0.9)


def test_offered_items_are_ranked_as_new_ones() -> None:
    assert len(split(offered=("zzz", "i1")).item_ids) == len(split().item_ids) + 1


@pytest.mark.parametrize("name", PREDICTORS)
def test_nothing_is_learned_before_it_is_asked(name: str) -> None:
    """Cut the log off anywhere after the split: what was answered until there must not change."""
    whole = split(1)
    cut = len(whole.asked) // 2
    end = int(np.flatnonzero(whole.histories.order == whole.asked[cut])[0])
    first = dataclasses.replace(whole, asked=whole.asked[:cut], level=whole.level[:cut], opens=whole.opens[:cut])
    answers = []
    for log in (whole, first):
        torch.manual_seed(0)
        predictor = PREDICTORS[name](QUICK)
        predictor.fit(log)
        if log is first:  # the future is another one
            rows = log.rows.copy()
            rows[log.histories.order[end:]] = 1
            log = dataclasses.replace(log, rows=rows)
        answers.append(next(predictor.answer(log, iter([log.asked[:cut]]))).scores)
    assert torch.allclose(*answers, rtol=1e-4, atol=1e-5)  # waves of other sizes round otherwise


@pytest.mark.parametrize("name", [*PREDICTORS, *ABLATIONS])
def test_every_predictor_and_ablation_gives_finite_figures(name: str) -> None:
    figures = evaluate(name, ({**PREDICTORS, **ABLATIONS})[name](QUICK), split(2, 200)).figures
    assert figures["events"] > 0
    for one in (figures, figures["with_new_items"]):
        assert one["perplexity"] >= 1.0
        assert all(math.isfinite(value) for value in one.values() if isinstance(value, float))


@pytest.mark.parametrize("name", ["popularity", "recent-popularity", "hrnn"])
def test_probabilities_are_those_of_the_scores_catalogue(name: str) -> None:
    """A log of one item can't surprise: its perplexity is 1."""
    events = [Event(f"u{n % 3}", "only", 1e9 + 60.0 * n) for n in range(60)]
    figures = evaluate(name, PREDICTORS[name](QUICK), split_at(from_events(events), 0.8)).figures
    assert figures["perplexity"] == pytest.approx(1.0)
    assert figures["recall_at_5"] == 1.0
