from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.encoders.encoder import Encoder, EncoderSpec, StepInputs
from models.encoders.registry import ENCODERS

torch.set_num_threads(1)

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"layers": layers}) for name in ENCODERS for layers in (1, 3)),
    ("hgru", {"user_state": "all"}),
    ("hgru", {"user_state": "all", "layers": 2}),
]


def made(name: str, **fields: Any) -> Encoder:
    torch.manual_seed(0)
    return ENCODERS[name](20, 2, **fields).encoder().eval()


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


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(0, 2**31),
    st.sampled_from([1, 7, 43]),
    st.sampled_from(VARIANTS),
)
@torch.inference_mode()
def test_steps_one_by_one_are_forward(
    batch: int, steps: int, seed: int, hidden: int, variant: tuple[str, dict[str, Any]]
) -> None:
    name, fields = variant
    encoder = made(name, hidden_dimension=hidden, **fields)
    inputs, starts = drawn(batch, steps, seed)
    h = torch.randn(batch, encoder.spec.state_width, generator=torch.Generator().manual_seed(seed))
    hs = encoder(h, inputs, starts)
    default = Encoder.forward(encoder, h, inputs, starts)
    for t in range(steps):
        h = torch.where(starts[:, t, None], torch.zeros(()), h)
        h = encoder.step(h, StepInputs(*(given[:, t] for given in inputs)))
        assert (h - hs[:, t]).abs().max() <= 1e-6
        assert (h - default[:, t]).abs().max() <= 1e-6


@pytest.mark.parametrize(("name", "fields"), VARIANTS)
def test_what_was_before_a_start_is_forgotten(name: str, fields: dict[str, Any]) -> None:
    encoder = made(name, **fields)
    inputs, _ = drawn(2, 5, 0)
    starts = torch.tensor([[False, False, True, False, False]] * 2)
    width = encoder.spec.state_width
    hs = encoder(torch.randn(2, width), inputs, starts)
    rest = StepInputs(*(given[:, 2:] for given in inputs))
    alone = encoder(torch.zeros(2, width), rest, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.allclose(hs[:, 2:], alone, atol=1e-6)


@pytest.mark.parametrize(("name", "fields"), VARIANTS)
def test_dropout_is_for_training_alone(name: str, fields: dict[str, Any]) -> None:
    encoder = made(name, dropout=0.5, **fields)
    inputs, starts = drawn(2, 3, 0)
    h = encoder.initial(2)
    assert torch.equal(encoder(h, inputs, starts), encoder(h, inputs, starts))
    encoder.train()
    assert not torch.equal(encoder(h, inputs, starts), encoder(h, inputs, starts))


@pytest.mark.parametrize(("name", "fields"), VARIANTS)
def test_every_weight_gets_a_gradient(name: str, fields: dict[str, Any]) -> None:
    encoder = made(name, **fields).train()
    inputs, starts = drawn(4, 8, 0)
    encoder.output(encoder(encoder.initial(4), inputs, starts)).square().sum().backward()
    assert [weight for weight, tensor in encoder.named_parameters() if tensor.grad is None] == []


def test_states_survive_their_bytes_and_no_bytes_are_zeros() -> None:
    spec = EncoderSpec(3)
    states = torch.randn(2, 3)
    assert torch.equal(spec.decode(spec.encode(states)), states)
    assert torch.equal(spec.decode([b"", spec.encode(states)[1]]), torch.stack([torch.zeros(3), states[1]]))
    assert spec.decode([]).shape == (0, 3)
    assert all(len(state) == spec.state_bytes for state in spec.encode(states))


def test_a_gap_ends_a_session_when_it_is_longer_than_the_session_gap() -> None:
    spec = EncoderSpec(1, control_bounds_s=(60.0, 3600.0), session_gap_s=1800.0)
    level, opens_session = spec.of_gaps(np.array([0.0, 60.0, 1800.0, 1800.5, 3600.0]))
    assert level.tolist() == [0, 1, 1, 1, 2]
    assert opens_session.tolist() == [False, False, False, True, True]


def test_step_inputs_have_the_types_that_steps_take() -> None:
    inputs = EncoderSpec(1).step_inputs(np.array([3]), np.array([7200.0]), [1], [0.5])
    assert [given.dtype for given in inputs] == [torch.int64, torch.int64, torch.int64, torch.float32, torch.bool]
    assert [given.tolist() for given in inputs] == [[3], [0], [1], [0.5], [True]]
