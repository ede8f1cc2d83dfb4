from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from models.records import Event
from trainer.data.histories import from_events
from trainer.evaluation.baselines.registry import PREDICTORS
from trainer.evaluation.hrnn import Hrnn, without_signals
from trainer.evaluation.protocol import Split, split_at
from trainer.evaluation.retraining import Retrained, evaluate_retrained, moments
from trainer.settings import FittingSettings, TrainerSettings

from tests.unit.trainer.logs import drawn  # isort: skip

QUICK = FittingSettings(hidden_dimension=6, epochs=1, train_threads=1, lanes=8)


def predictor() -> Hrnn:
    made = PREDICTORS["hrnn"](QUICK)
    assert isinstance(made, Hrnn)
    return made


def trainer(min_new_events: int = 20) -> TrainerSettings:
    return TrainerSettings(train_min_new_events=min_new_events, fitting=QUICK)


def at(*times: float) -> Split:
    """A log of one user with an event before the split, and later ones at these times after it."""
    events = [Event("u", "i", 0.0), *(Event("u", "i", 1000.0 + t) for t in (0.0, *times))]
    return split_at(from_events(events), 1 / len(events))


@pytest.mark.parametrize(
    ("times", "min_new_events", "expected"),
    [
        ([1.0, 2.0], 1, []),  # the first moment is after all that is asked
        ([1.0, 10.0], 1, [1010.0]),  # at the moment itself the new weights answer, and it has not been learned
        ([1.0, 10.0, 21.0], 1, [1010.0, 1020.0]),
        ([1.0, 95.0], 1, [1010.0]),  # nothing new, nothing trained
        ([1.0, 95.0], 2, [1010.0]),
        ([1.0, 95.0], 3, []),
        ([1.0, 11.0, 12.0, 95.0], 3, [1020.0]),
        ([1.0, 3e9], 2, [1010.0]),  # most moments of a century are not looked at
    ],
)
def test_the_moments_are_those_at_which_enough_is_new(
    times: list[float], min_new_events: int, expected: list[float]
) -> None:
    assert list(moments(at(*times), 10.0, min_new_events)) == expected


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("events", "events_skipped", "ndcg_at_10", "perplexity", "with_new_items", "first_in_session")
    return all(one[name] == pytest.approx(other[name]) for name in names)


def test_without_a_retraining_the_figures_are_the_frozen_ones() -> None:
    split = split_at(from_events(drawn(3, 300, items=25)), 0.8)
    frozen, retrained = (r.figures for r in evaluate_retrained("hrnn", predictor(), split, trainer(10_000), 3600.0))
    assert (frozen["recipe"], retrained["recipe"]) == ("hrnn", "hrnn retrained")
    assert (retrained["retrainings"], retrained["retrainings_accepted"]) == (0, 0)
    assert same(frozen, retrained)


def test_retraining_learns_what_is_new() -> None:
    """Before the split users walk a circle, after it another one, of new items: frozen weights can't know."""
    events = [
        Event(f"u{user:02d}", f"{'ab'[n >= 20]}{(user + n) % 8}", 1e6 + 1000.0 * n + user)
        for n in range(40)
        for user in range(20)
    ]
    split = split_at(from_events(events), 0.5)
    settings = without_signals(  # those would know at once
        FittingSettings(hidden_dimension=16, epochs=6, learning_rate=0.02, lanes=8, bptt=8, train_threads=1, tied=False)
    )
    frozen, retrained = evaluate_retrained(
        "net", Hrnn(settings), split, TrainerSettings(train_min_new_events=50, fitting=settings), 4000.0
    )
    assert retrained.figures["retrainings"] == 4
    assert 1 <= retrained.figures["retrainings_accepted"] <= 4
    before, after = (r.figures["with_new_items"]["ndcg_at_10"] for r in (frozen, retrained))
    assert after > before + 0.1
    assert retrained.figures["train_s"] == frozen.figures["train_s"]


def test_a_retrained_model_has_not_seen_what_it_is_asked() -> None:
    """Another future after an event changes no answer up to it."""
    events = drawn(5, 320, items=25)
    split = split_at(from_events(events), 0.7)
    cut = len(split.asked) * 2 // 3
    end = int(np.flatnonzero(split.histories.order == split.asked[cut])[0])
    later = split.histories.order[end:]
    rows, items = split.rows.copy(), split.histories.items.copy()
    rows[later], items[later] = rows[0], items[0]
    other = dataclasses.replace(split, rows=rows, histories=dataclasses.replace(split.histories, items=items))
    found = []
    for log in (split, other):
        retrained = Retrained(predictor(), trainer(), 4 * 900.0)
        retrained.fit(split)
        found.append(next(retrained.answer(log, iter([log.asked[:cut]]))).scores.numpy())
        assert retrained.runs > 1
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
