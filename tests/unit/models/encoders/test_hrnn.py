from __future__ import annotations

import torch

from models.encoders.encoder import StepInputs
from models.encoders.hrnn import HRNNConfig
from tests.unit.models.encoders.test_encoder import drawn


def test_the_control_signal_is_an_input_of_the_gru() -> None:
    torch.manual_seed(0)
    encoder = HRNNConfig(20, 2).encoder().eval()
    inputs, _ = drawn(4, 1, 0)
    now = StepInputs(*(given[:, 0] for given in inputs))
    h = torch.randn(4, 43)
    assert encoder.control is not None
    embeddings = encoder.item(now.item_idx), encoder.control(now.level), encoder.event_type(now.type_idx)
    assert torch.allclose(
        encoder.step(h, now), encoder.cell(torch.cat((*embeddings, now.value[:, None]), 1), h), atol=1e-7
    )


def test_the_gap_that_follows_changes_the_state() -> None:
    encoder = HRNNConfig(20, 2).encoder().eval()
    one = torch.tensor([1])
    states = [
        encoder.step(encoder.initial(1), StepInputs(one, one * level, one, torch.zeros(1), one < 0))
        for level in range(4)
    ]
    assert len({tuple(h[0].tolist()) for h in states}) == 4
