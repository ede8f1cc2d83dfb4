"""Terms that no product file names are trained, published, served, evaluated and audited like the others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from models.items.signal_table import Floats, SignalTable
from models.terms.registry import TERMS
from models.terms.term import ALL, SparseFeatures, Term, TermOptions, UserSignals
from models.users.batch import UserBatch
from tests.unit.trainer.logs import drawn
from tests.unit.trainer.made import served
from tests.unit.trainer.served import evaluated_scores, scored
from trainer.data.histories import from_events
from trainer.evaluation.hrnn import Hrnn
from trainer.evaluation.protocol import split_at
from trainer.service.training import train
from trainer.settings import FittingSettings, TrainerSettings

FITTING = FittingSettings(hidden_dimension=6, epochs=1, train_threads=1, lanes=8)


class Before:
    """The item before the last one: pages are gone back to."""

    name, width, initial, reads_signals = "before", 1, (0.3,), False

    def __init__(self, options: TermOptions) -> None: ...

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        rows = np.array([last[:-1] or [0] for last in users.last_rows(2)], np.int64)
        return SparseFeatures(rows, (rows > 0)[:, :, None].astype(np.float32))


class Length:
    """How long an item's id is: something that is known of all items, and stays."""

    name, width, initial, rates = "length", 1, (0.2,), np.zeros(1)

    def __init__(self, options: TermOptions) -> None: ...

    def dense(self, table: SignalTable, at: float, rows: slice | int = ALL) -> Floats:
        return np.array([list(map(len, table.item_of_row))], np.float32)[:, rows]


class Ever:
    """Whether an item has followed one of the last ones, however seldom."""

    name, width, initial, reads_signals = "ever", 1, (0.3,), True

    def __init__(self, options: TermOptions) -> None: ...

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        assert signals is not None
        rows, _ = signals.table.successors(signals.looked_up)
        return SparseFeatures(rows, (rows > 0)[:, :, None].astype(np.float32))


@pytest.mark.parametrize("term", [Before, Length, Ever])
def test_a_new_term_is_trained_published_served_evaluated_and_audited(
    term: type[Term], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TERMS, term.name, term)
    events = drawn(7, 160)
    split = split_at(from_events(events), 0.7)
    candidate = train(split.training(), None, TrainerSettings(fitting=FITTING))
    assert candidate.verdict.passed
    model = candidate.fitted.model.requires_grad_(False)
    terms = model.config.term_set
    assert {term.name for term in (*terms.dense, *terms.sparse)} == {*TERMS} - {"taste"}
    names = [one.name for one in (*terms.dense, *terms.sparse) for _ in range(one.width)]
    column = names.index(term.name)
    weight = [*model.mixture.weight[column].tolist(), float(model.mixture.bias[column])]
    assert weight != [0.0] * 6 + [pytest.approx(term.initial[0])], "training moves its weights"
    published = served(candidate.fitted, 0.0)
    assert published.manifest.config["terms"] == list(model.config.terms)
    for one in scored(candidate.fitted, split, events):
        torch.testing.assert_close(one.evaluated, one.listed, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.audited, one.listed, atol=1e-5, rtol=1e-5)
    with_it = evaluated_scores(candidate.fitted, split)
    without = copy.deepcopy(candidate.fitted)
    without.model.mixture.weight[column], without.model.mixture.bias[column] = 0.0, 0.0
    others = evaluated_scores(without, split)
    assert any(not torch.allclose(with_it[place], others[place], atol=1e-3) for place in with_it)
    again = train(split.training(), published, TrainerSettings(fitting=FITTING))
    assert again.fitted.warm


def test_a_term_can_be_left_out() -> None:
    split = split_at(from_events(drawn(7, 200)), 0.7)
    recipe = Hrnn(FITTING.model_copy(update={"without_terms": ("successors", "repeats")}))
    recipe.fit(split)
    assert recipe.fitted is not None
    assert recipe.fitted.model.config.terms == ("taste", "trends", "neighbours", "evicted")
