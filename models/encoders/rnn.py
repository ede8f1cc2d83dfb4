"""RNN: a GRU over a user's whole history that does not see the gaps between events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.encoders.encoder import Encoder, EncoderSpec, StepInputs
from models.encoders.gru_backward import recur


@dataclass(frozen=True)
class RNNConfig(ModelConfig):
    """The shape of a model with this encoder."""

    architecture: ClassVar[str] = "rnn"

    layers: int = 1  # each further one reads the states of the one below

    def encoder(self) -> RNN:
        """Make the encoder."""
        return RNN(self, EncoderSpec(self.layers * self.hidden_dimension))


class RNN(Encoder):
    """Stacked GRUs; a state has H numbers of each of L layers, the topmost's last."""

    def __init__(self, config: RNNConfig, spec: EncoderSpec, control_dimension: int = 0, more_inputs: int = 0) -> None:
        """Draw the weights; a subclass may give the lowest layer more inputs than the event's."""
        super().__init__(config, spec, control_dimension)
        width = self._width = config.hidden_dimension
        self.cell = nn.GRUCell(self.input_width + more_inputs, width)
        # apart from the first, whose name all models have had
        self.upper = nn.ModuleList(nn.GRUCell(width, width) for _ in range(config.layers - 1))

    @property
    def cells(self) -> list[nn.GRUCell]:
        """Name the layers, the lowest first."""
        return [self.cell, *cast("list[nn.GRUCell]", list(self.upper))]

    def stacked(self, given: Tensor, h: Tensor) -> list[Tensor]:
        """Take one step of all layers: inputs (B, input), h (B, LH) -> each layer's (B, H), the topmost's last."""
        states: list[Tensor] = []
        for cell, state in zip(self.cells, torch.split(h, self._width, 1), strict=True):
            below = self.dropped(states[-1]) if states else given
            # not cell(...): its input checks cost as much as a small product
            states.append(torch.gru_cell(below, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))
        return states

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, LH), inputs (B,) -> h (B, LH)."""
        return torch.cat(self.stacked(self.embedded(inputs), h), 1)

    def forward(self, h0: Tensor, inputs: StepInputs, starts: Tensor) -> Tensor:
        """Take T steps, each layer's for all T at once: h0 (B, LH), inputs (B, T), starts (B, T) -> hs (B, T, LH)."""
        given = self.embedded(StepInputs(*(tensor.T for tensor in inputs)))  # (T, B, ...)
        goes_on = (~starts).T.to(h0.dtype).unsqueeze(-1)
        states: list[Tensor] = []
        for cell, state in zip(self.cells, torch.split(h0, self._width, 1), strict=True):
            below = self.dropped(states[-1]) if states else given
            gates = nn.functional.linear(below, cell.weight_ih, cell.bias_ih)  # (T, B, 3H)
            states.append(recur(state, gates, goes_on, cell.weight_hh, cell.bias_hh))
        return torch.cat(states, 2).transpose(0, 1)
