from __future__ import annotations

import math
from typing import Any

import torch

from models.encoders.hrnn import HRNNConfig
from models.model import Model

torch.set_num_threads(1)

SIGNALS: dict[str, Any] = {
    "half_lives_s": (3600.0, 86400.0),
    "successor_half_life_s": 86400.0,
    "terms": ("taste", "trends", "successors", "neighbours", "repeats", "evicted"),
}


def made(*, seed: int = 0, **fields: Any) -> Model:
    torch.manual_seed(seed)
    return Model(HRNNConfig(20, 2, **fields)).eval()


def with_signals() -> Model:
    model = made(**SIGNALS)
    torch.nn.init.normal_(model.mixture.weight)
    return model.requires_grad_(False)


def test_what_is_asked_is_the_topmost_layer() -> None:
    model = made(layers=2, **SIGNALS)
    torch.nn.init.normal_(model.mixture.weight)
    h = model.encoder.initial(3).normal_()
    other = h.clone()
    other[:, :43] += 1.0
    assert model.encoder.initial(3).shape == (3, 86)
    assert torch.equal(model.queries(h), model.queries(other))
    assert all(torch.equal(a, b) for a, b in zip(model.mixture_of(h), model.mixture_of(other), strict=True))
    assert not torch.equal(model.queries(h), model.queries(h + 1.0))
    without_taste = made(layers=2, **{**SIGNALS, "terms": SIGNALS["terms"][1:]})
    assert torch.equal(without_taste.queries(h), torch.zeros(3, 43))


def test_tensors_are_stored_under_the_names_that_blobs_have_always_had() -> None:
    cell = {f"cell.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    heads = {"bias", "out.weight", "out.bias", "decoder.weight", "mixture.weight", "mixture.bias"}
    one, two = made(**SIGNALS).stored_names(), made(layers=2, **SIGNALS).stored_names()
    assert one.keys() == {"item.weight", "control.weight", "event_type.weight"} | cell | heads
    assert two.keys() - one.keys() == {name.replace("cell", "upper.0") for name in cell}
    assert {*two.values()} == {*made(layers=2, **SIGNALS).state_dict()}


def test_a_name_that_the_encoder_shares_with_the_model_is_stored_with_its_prefix() -> None:
    model = made()
    model.encoder.bias = torch.nn.Parameter(torch.zeros(1))
    names = model.stored_names()
    assert (names["bias"], names["encoder.bias"]) == ("bias", "encoder.bias")
    assert len(names) == len(model.state_dict())


def test_row_0_is_never_ranked_and_gets_no_gradient() -> None:
    model = made().train()
    scores = model.scores(torch.randn(3, 43))
    assert scores.shape == (3, 21)
    assert (scores[:, 0] == -math.inf).all()
    scores.log_softmax(1)[:, 5].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.bias.grad is not None
    assert model.bias.grad[0] == 0


def test_scores_are_products_of_queries_with_item_rows() -> None:
    for tied in (False, True):
        model = made(tied=tied)
        h = torch.randn(3, 43)
        expected = model.queries(h) @ model.output_matrix.T + model.bias
        assert torch.allclose(model.scores(h)[:, 1:], expected[:, 1:], atol=1e-6)
        assert ("decoder.weight" in model.state_dict()) is not tied


def test_dropout_is_for_training_alone() -> None:
    model = made(dropout=0.5)
    h = torch.randn(2, 43)
    assert torch.equal(model.queries(h), model.queries(h))
    model.train()
    assert not torch.equal(model.queries(h), model.queries(h))


def test_scores_with_signals_are_their_sum() -> None:
    model = with_signals()
    h, trends = torch.randn(3, 43), torch.rand(2, 21)
    rows = torch.tensor([[1, 2], [5, 0], [3, 20]])
    values = torch.rand(3, 2, 4)
    values[rows == 0] = 0
    near = (torch.tensor([[7, 2], [0, 0], [3, 0]]), torch.tensor([[[0.5], [1.0]], [[0.0], [0.0]], [[2.0], [0.0]]]))
    seen = (torch.tensor([[4], [4], [0]]), torch.rand(3, 1, 5) * torch.tensor([1.0, 1.0, 0.0])[:, None, None])
    before = torch.tensor([[9, 4], [0, 0], [1, 0]]), torch.rand(3, 2, 2)
    before[1][before[0] == 0] = 0
    scores = model.scores(h, model.decoder_at(trends), [(rows, values), near, seen, before])
    a, s = model.mixture_of(h)
    for b in range(3):
        expected = model.output_matrix @ model.queries(h)[b] + model.bias + a[b] @ trends
        said = [(s[b, :4], (rows, values)), (s[b, 4:5], near), (s[b, 5:10], seen), (s[b, 10:], before)]
        for weights, (at, worth) in said:
            for row, value in zip(at[b], worth[b], strict=True):
                expected[row] += weights @ value
        assert torch.allclose(scores[b, 1:], expected[1:], atol=1e-5)
    assert (scores[:, 0] == -math.inf).all()


def test_items_beyond_the_catalogue_are_told_apart_by_their_signals_alone() -> None:
    model = with_signals()
    with torch.no_grad():
        model.mixture.weight.zero_()
    trends = torch.zeros(2, 24)
    trends[:, 22] = 2.0
    scores = model.scores(torch.randn(3, 43), model.decoder_at(trends))
    assert scores.shape == (3, 24)
    assert torch.isfinite(scores[:, 1:]).all()
    assert torch.equal(scores[:, 21], scores[:, 23])
    assert (scores[:, 22] > scores[:, 21]).all()


def test_without_signals_there_are_no_weights_of_them() -> None:
    assert "mixture.weight" not in made().state_dict()
    assert made().config.signal_rules is None
    rules = made(**SIGNALS).config.signal_rules
    assert rules is not None
    assert rules.half_lives_s == (3600.0, 86400.0)
    assert HRNNConfig.from_dict(with_signals().config.to_dict()) == with_signals().config
