from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.encoders.encoder import StepInputs
from models.encoders.hrnn import HRNN, HRNNConfig

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
        torch.rand(batch, steps, generator=draw) < 0.3,
    )
    return inputs, torch.rand(batch, steps, generator=draw) < 0.3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(0, 2**31),
    st.sampled_from([1, 7, 43]),
    st.integers(1, 3),
)
@torch.inference_mode()
def test_steps_one_by_one_are_forward(batch: int, steps: int, seed: int, hidden: int, layers: int) -> None:
    model = made(hidden_dimension=hidden, layers=layers)
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
    topmost, last = stacked(model.embedded(inputs), torch.stack(h.split(43, 1)))
    hs = model(h, inputs, torch.zeros(4, 6, dtype=torch.bool))
    torch.testing.assert_close(hs[:, :, -43:], topmost)
    torch.testing.assert_close(hs[:, -1], torch.cat(tuple(last), 1))
    topmost.square().sum().backward()
    hs[:, :, -43:].square().sum().backward()
    for number, cell in enumerate(model.cells):
        torch.testing.assert_close(cell.weight_hh.grad, getattr(stacked, f"weight_hh_l{number}").grad)


def test_what_was_before_a_start_is_forgotten() -> None:
    model = made()
    inputs, _ = drawn(2, 5, 0)
    starts = torch.tensor([[False, False, True, False, False]] * 2)
    hs = model(torch.randn(2, 43), inputs, starts)
    rest = StepInputs(*(given[:, 2:] for given in inputs))
    alone = model(torch.zeros(2, 43), rest, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.allclose(hs[:, 2:], alone, atol=1e-6)


def test_dropout_is_for_training_alone() -> None:
    model = made(dropout=0.5)
    inputs, starts = drawn(2, 3, 0)
    h = torch.zeros(2, 43)
    assert torch.equal(model(h, inputs, starts), model(h, inputs, starts))
    model.train()
    assert not torch.equal(model(h, inputs, starts), model(h, inputs, starts))


def test_the_gap_that_follows_changes_the_state() -> None:
    model = made()
    one = torch.tensor([1])
    level = [model.step(model.initial(1), StepInputs(one, one * n, one, torch.zeros(1), one < 0)) for n in range(4)]
    assert len({tuple(h[0].tolist()) for h in level}) == 4
