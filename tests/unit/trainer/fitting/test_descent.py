"""The way down."""

from __future__ import annotations

import pytest
import torch

from models.encoders.hrnn import HRNNConfig
from models.model import Model
from trainer.fitting.descent import Descent

Weights = dict[str, torch.Tensor]


def made(layers: int = 1) -> Model:
    torch.manual_seed(0)
    return Model(HRNNConfig(5, hidden_dimension=4, layers=layers, terms=("taste", "repeats")))


def weights(model: Model) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def total(model: Model, weight: float = 1.0) -> torch.Tensor:
    """Make a loss whose gradient is the same everywhere, so that Adam goes the whole rate each step."""
    return sum((tensor.sum() for tensor in model.parameters()), torch.zeros(())) * weight


def test_weight_decay_leaves_what_only_some_items_have_alone() -> None:
    model = made(layers=2)
    before = weights(model)
    Descent(model, 0.1, 0, weight_decay=0.5).step(total(model, weight=0.0))
    decayed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    cells = {f"{cell}.weight_{side}" for cell in ("encoder.cell", "encoder.upper.0") for side in ("ih", "hh")}
    assert decayed == {*cells, "out.weight"}
    torch.testing.assert_close(model.out.weight, before["out.weight"] * (1 - 0.1 * 0.04 * 0.5))  # a rate at its rise


def test_the_mean_of_the_last_weights_is_lent_and_given_back() -> None:
    model = made()
    descent = Descent(model, 0.1, 8)
    seen = []
    for _ in range(3):
        descent.step(total(model))
        seen.append(model.out.weight.detach().clone())
    with descent.averaged():  # over half an epoch, four steps, of which there have been but three
        torch.testing.assert_close(model.out.weight, torch.stack(seen).mean(0))
    assert torch.equal(model.out.weight, seen[-1])
    with pytest.raises(KeyError), descent.averaged():
        raise KeyError
    assert torch.equal(model.out.weight, seen[-1])


def test_the_rate_rises_and_falls_where_the_end_is_known_and_stays_where_it_is_not() -> None:
    def strides(descent: Descent, model: Model, steps: int) -> list[float]:
        gone = []
        for _ in range(steps):
            before = model.out.bias[0].item()
            descent.step(total(model))
            gone.append(before - model.out.bias[0].item())
        return gone

    model = made()
    known = strides(Descent(model, 0.1, 50, epochs=2), model, 100)
    assert known[0] == pytest.approx(0.004, rel=1e-3)
    assert known[:20] == sorted(known[:20])
    assert max(known) == pytest.approx(0.1, rel=1e-3)
    assert known[20:] == sorted(known[20:], reverse=True)
    assert 0 < known[-1] < 0.001
    model = made()
    unknown = strides(Descent(model, 0.1, 50), model, 150)
    assert unknown[20:] == pytest.approx([0.1] * 130, rel=1e-3)


def test_a_short_log_is_not_at_the_full_rate_at_once() -> None:
    model = made()
    descent = Descent(model, 0.1, 2)
    before = model.out.bias[0].item()
    descent.step(total(model))
    descent.step(total(model))
    assert before - model.out.bias[0].item() < 0.02
