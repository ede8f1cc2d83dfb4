from __future__ import annotations

from typing import Any

import torch

from models.encoders.encoder import StepInputs
from models.encoders.rnn import RNN, RNNConfig
from tests.unit.models.encoders.test_encoder import drawn


def made(**fields: Any) -> RNN:
    torch.manual_seed(0)
    return RNNConfig(20, 2, **fields).encoder().eval()


def test_a_step_is_the_gru_cell_that_torch_has() -> None:
    encoder = made()
    inputs, _ = drawn(4, 1, 0)
    now = StepInputs(*(given[:, 0] for given in inputs))
    h = torch.randn(4, 43)
    given = torch.cat((encoder.item(now.item_idx), encoder.event_type(now.type_idx), now.value[:, None]), 1)
    assert torch.allclose(encoder.step(h, now), encoder.cell(given, h), atol=1e-7)


def test_layers_are_stacked_as_torch_stacks_them() -> None:
    encoder = made(layers=3, dropout=0.0).train()
    inputs, _ = drawn(4, 6, 0)
    stacked = torch.nn.GRU(encoder.cell.input_size, 43, num_layers=3, batch_first=True)
    for number, cell in enumerate(encoder.cells):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(stacked, f"{name}_l{number}").data.copy_(getattr(cell, name))
    h = torch.randn(4, 3 * 43)
    topmost, last = stacked(encoder.embedded(inputs), torch.stack(h.split(43, 1)))
    hs = encoder(h, inputs, torch.zeros(4, 6, dtype=torch.bool))
    torch.testing.assert_close(hs[:, :, -43:], topmost)
    torch.testing.assert_close(hs[:, -1], torch.cat(tuple(last), 1))
    topmost.square().sum().backward()
    hs[:, :, -43:].square().sum().backward()
    for number, cell in enumerate(encoder.cells):
        torch.testing.assert_close(cell.weight_hh.grad, getattr(stacked, f"weight_hh_l{number}").grad)


def test_gaps_do_not_change_the_state() -> None:
    encoder = made()
    inputs, _ = drawn(4, 1, 0)
    now = StepInputs(*(given[:, 0] for given in inputs))
    later = now._replace(level=now.level + 1, opens_session=~now.opens_session)
    assert torch.equal(encoder.step(encoder.initial(4), now), encoder.step(encoder.initial(4), later))
