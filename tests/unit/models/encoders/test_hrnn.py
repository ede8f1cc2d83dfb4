from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.encoders.hrnn import HRNN, HRNNConfig, StepInputs

torch.set_num_threads(1)


def made(*, seed: int = 0, **fields: Any) -> HRNN:
    torch.manual_seed(seed)
    return HRNN(HRNNConfig(20, 2, **fields)).eval()


def drawn(batch: int, steps: int, seed: int) -> tuple[StepInputs, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    inputs = StepInputs(
        torch.randint(0, 21, (batch, steps), generator=draw),
        torch.randint(0, 4, (batch, steps), generator=draw),
        torch.randint(0, 3, (batch, steps), generator=draw),
        torch.randn(batch, steps, generator=draw),
    )
    return inputs, torch.rand(batch, steps, generator=draw) < 0.3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(0, 2**31),
    st.sampled_from([1, 7, 43]),
    st.integers(1, 3),
    st.booleans(),
)
@torch.inference_mode()
def test_steps_one_by_one_are_forward(batch: int, steps: int, seed: int, hidden: int, layers: int, tied: bool) -> None:
    model = made(hidden_dimension=hidden, layers=layers, tied=tied)
    inputs, starts = drawn(batch, steps, seed)
    h = torch.randn(batch, layers * hidden, generator=torch.Generator().manual_seed(seed))
    hs = model(h, inputs, starts)
    for t in range(steps):
        h = torch.where(starts[:, t, None], torch.zeros(()), h)
        h = model.step(h, StepInputs(*(given[:, t] for given in inputs)))
        assert (h - hs[:, t]).abs().max() <= 1e-6


def test_a_step_is_the_gru_cell_that_torch_has() -> None:
    model = made()
    inputs, _ = drawn(4, 1, 0)
    now = StepInputs(*(given[:, 0] for given in inputs))
    h = torch.randn(4, 43)
    encoded = torch.cat(
        (model.item(now.item_idx), model.control(now.level), model.event_type(now.type_idx), now.value[:, None]), 1
    )
    assert torch.allclose(model.step(h, now), model.cell(encoded, h), atol=1e-7)


def test_layers_are_stacked_as_torch_stacks_them() -> None:
    model = made(layers=3, dropout=0.0).train()
    inputs, _ = drawn(4, 6, 0)
    stacked = torch.nn.GRU(model.cell.input_size, 43, num_layers=3, batch_first=True)
    for number, cell in enumerate(model.cells):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(stacked, f"{name}_l{number}").data.copy_(getattr(cell, name))
    h = torch.randn(4, 3 * 43)
    topmost, last = stacked(model._encode(inputs), torch.stack(h.split(43, 1)))
    hs = model(h, inputs, torch.zeros(4, 6, dtype=torch.bool))
    torch.testing.assert_close(hs[:, :, -43:], topmost)
    torch.testing.assert_close(hs[:, -1], torch.cat(tuple(last), 1))
    topmost.square().sum().backward()
    hs[:, :, -43:].square().sum().backward()
    for number, cell in enumerate(model.cells):
        torch.testing.assert_close(cell.weight_hh.grad, getattr(stacked, f"weight_hh_l{number}").grad)


def test_what_is_asked_is_the_topmost_layer() -> None:
    model = made(layers=2, **SIGNALS)
    torch.nn.init.normal_(model.mixture.weight)
    h = model.initial(3).normal_()
    other = h.clone()
    other[:, :43] += 1.0
    assert model.initial(3).shape == (3, 86)
    assert torch.equal(model.queries(h), model.queries(other))
    assert all(torch.equal(a, b) for a, b in zip(model.mixture_of(h), model.mixture_of(other), strict=True))
    assert not torch.equal(model.queries(h), model.queries(h + 1.0))
    assert made(layers=2, net=False, **SIGNALS).queries(h).shape == (3, 43)


def test_a_model_of_one_layer_has_the_weights_that_it_had_before_there_were_more() -> None:
    one, two = made().state_dict().keys(), made(layers=2).state_dict().keys()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert two - one == {f"upper.0.{name}" for name in names}
    assert one >= {f"cell.{name}" for name in names}


def test_what_was_before_a_start_is_forgotten() -> None:
    model = made()
    inputs, _ = drawn(2, 5, 0)
    starts = torch.tensor([[False, False, True, False, False]] * 2)
    hs = model(torch.randn(2, 43), inputs, starts)
    rest = StepInputs(*(given[:, 2:] for given in inputs))
    alone = model(torch.zeros(2, 43), rest, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.allclose(hs[:, 2:], alone, atol=1e-6)


def test_the_gap_that_follows_changes_the_state() -> None:
    model = made()
    one = torch.tensor([1])
    level = [model.step(model.initial(1), StepInputs(one, one * n, one, torch.zeros(1))) for n in range(4)]
    assert len({tuple(h[0].tolist()) for h in level}) == 4


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
    inputs, starts = drawn(2, 3, 0)
    h = torch.zeros(2, 43)
    assert torch.equal(model(h, inputs, starts), model(h, inputs, starts))
    model.train()
    assert not torch.equal(model(h, inputs, starts), model(h, inputs, starts))


def test_a_config_survives_json() -> None:
    config = HRNNConfig(5, 1, hidden_dimension=3, control_bounds_s=(1.0, 2.0), tied=True)
    assert HRNNConfig.from_dict(config.to_dict()) == config
    assert config.n_levels == 3
    assert HRNNConfig.from_dict({"n_items": 5}) == HRNNConfig(5)  # a model of before there were layers has one


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_items": 0},
        {"n_items": "5"},
        {"n_items": True},
        {"n_items": 2**40},
        {"n_items": 5, "cells": 2},
        {"n_items": 5, "layers": 0},
        {"n_items": 5, "layers": 1.0},
        {"n_items": 5, "hidden_dimension": 2.5},
        {"n_items": 5, "control_bounds_s": 60},
        {"n_items": 5, "control_bounds_s": [60, 60]},
        {"n_items": 5, "control_bounds_s": [-1]},
        {"n_items": 5, "control_bounds_s": ["60"]},
        {"n_items": 5, "control_bounds_s": [math.nan]},
        {"n_items": 5, "dropout": 1.0},
        {"n_items": 5, "dropout": "0"},
        {"n_items": 5, "tied": 1},
    ],
)
def test_an_impossible_config_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HRNNConfig.from_dict(fields)


SIGNALS: dict[str, Any] = {
    "half_lives_s": (3600.0, 86400.0),
    "successor_half_life_s": 86400.0,
    "neighbours": True,
    "repeats": True,
    "earlier": True,
}


def with_signals() -> HRNN:
    model = made(**SIGNALS)
    torch.nn.init.normal_(model.mixture.weight)
    return model.requires_grad_(False)


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


@pytest.mark.parametrize(
    "fields", [{"half_lives_s": (0.0,)}, {"successor_half_life_s": -1.0}, {"repeats": 1}, {"neighbours": True}]
)
def test_signals_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"half-lives|repeats|neighbours are read from what follows"):
        made(**fields)
