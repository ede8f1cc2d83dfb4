"""A whole run of the trainer with signals: fit, gate, finish, and weights that travel."""

from __future__ import annotations

import math

import pytest
import torch

from models.items.signal_table import SignalTable
from models.weights import describe, pack, unpack
from tests.unit.trainer.logs import drawn
from tests.unit.trainer.made import circles, quick
from trainer.data.histories import from_events
from trainer.evaluation.hrnn import Hrnn
from trainer.evaluation.protocol import split_at
from trainer.evaluation.trials import evaluate, trials
from trainer.fitting.fit import fit, newest_slice
from trainer.service.training import train
from trainer.settings import FittingSettings, TrainerSettings

FITTING = FittingSettings(hidden_dimension=6, epochs=2, train_threads=1, lanes=8, item_dropout=0.1)


def test_a_run_with_signals_ends_with_weights_that_can_be_served() -> None:
    histories = from_events(drawn(0, 400, items=20))
    candidate = train(histories, None, TrainerSettings(fitting=FITTING))
    assert candidate.verdict.passed
    assert math.isfinite(candidate.metrics()["perplexity"])
    model, catalogue = candidate.fitted.model, candidate.fitted.catalogue
    blob = pack(model, catalogue)
    manifest = describe(
        blob,
        version="v1",
        config=model.config,
        catalogue=catalogue,
        metrics={},
        trained_at=1.0,
        data_watermark=1.0,
        data_offsets={},
    )
    serving = unpack(manifest, blob)
    assert serving.model.config == model.config
    rules = serving.model.config.signal_rules
    assert rules is not None
    table = SignalTable(rules, serving.catalogue.item_ids)
    table.occur(table.add("brand new"), 0.0)
    scores = serving.model.scores(torch.zeros(1, 6), serving.model.decoder_at(torch.from_numpy(table.trends(0.0))))
    assert scores.shape == (1, len(catalogue.item_ids) + 2)
    assert torch.isfinite(scores[:, 1:]).all()
    again = train(histories, serving, TrainerSettings(fitting=FITTING))
    assert again.fitted.warm


def test_a_fit_on_samples_comes_near_to_one_on_everything() -> None:
    histories = circles(users=80, items=40, length=20)
    cutoff = newest_slice(histories, 0.1)
    shape = {"half_lives_s": (3600.0,), "successor_half_life_s": 1e6, "repeats": True, "epochs": 6}
    full, sample = (
        fit(histories, cutoff, quick(**shape, full_softmax_max_items=most, sampled_items=20)) for most in (40, 39)
    )
    assert full.valid_perplexity < 1.01  # of 40 items
    assert sample.valid_perplexity < 1.01


def test_a_split_is_fitted_once_by_the_same_settings() -> None:
    split = split_at(from_events(drawn(4, 200)), 0.7)
    live, frozen, other = Hrnn(FITTING), Hrnn(FITTING, frozen=True), Hrnn(FITTING.model_copy(update={"seed": 1}))
    for predictor in (live, frozen, other):
        predictor.fit(split)
    assert frozen.fitted is live.fitted
    assert other.fitted is not live.fitted


def test_neighbours_are_not_looked_at_where_nothing_is_known_to_follow() -> None:
    histories = from_events(drawn(3, 200))
    for successor_half_life_s, parts in ((3600.0, 12), (0.0, 7)):
        settings = FITTING.model_copy(update={"successor_half_life_s": successor_half_life_s, "epochs": 1})
        config = fit(histories, math.inf, settings).model.config
        assert ("neighbours" in config.terms, config.term_set.n_sparse) == (successor_half_life_s > 0, parts)


def test_the_same_seed_gives_the_same_weights() -> None:
    histories = from_events(drawn(1, 200))
    one, other = (fit(histories, math.inf, FITTING).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_replayed_and_live_signals_score_alike() -> None:
    """The gate's way (snapshots of the whole log) and the protocol's (a live table) give one likelihood."""
    split = split_at(from_events(drawn(2, 300)), 0.7)
    predictor = Hrnn(FITTING)
    predictor.fit(split)
    assert predictor.fitted is not None
    assert split.known.all()
    (answers,) = predictor.answer(split, iter([split.asked]))
    asked = trials(split.histories, split.instant - 0.5)
    assert sorted(asked + 1) == sorted(split.asked)
    report = evaluate(predictor.fitted, split.histories, asked, None)
    assert answers.log_likelihood is not None
    assert answers.log_likelihood.mean() == pytest.approx(report.log_likelihood, rel=1e-3)
