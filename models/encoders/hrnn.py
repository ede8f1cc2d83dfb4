"""HRNN: a GRU over a user's whole history that reads each gap's level as a control signal.

Ma & Narayanaswamy, Hierarchical Temporal-Contextual Recommenders (NIPS 2018 workshop).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from models.config import ModelConfig, require_positive
from models.control import DEFAULT_BOUNDS_S
from models.encoders.encoder import Encoder, EncoderSpec, StepInputs
from models.encoders.gru_backward import recur


@dataclass(frozen=True)
class HRNNConfig(ModelConfig):
    """The shape of a model with this encoder."""

    architecture: ClassVar[str] = "hrnn"

    layers: int = 1  # the paper's; each further one reads the states of the one below
    control_bounds_s: tuple[float, ...] = DEFAULT_BOUNDS_S
    control_dimension: int = 8  # four levels need no more; a one-hot code would be as wide as 4

    def encoder(self) -> HRNN:
        """Make the encoder."""
        return HRNN(self)

    def __post_init__(self) -> None:
        """Refuse bounds that do not rise, too."""
        super().__post_init__()
        bounds = self.control_bounds_s
        require_positive("control_bounds_s", bounds)
        if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
            raise ValueError(f"control_bounds_s {bounds!r} do not rise")


class HRNN(Encoder):
    """Stacked GRUs; a state has H numbers of each of L layers, the topmost's last."""

    def __init__(self, config: HRNNConfig) -> None:
        """Draw the weights."""
        width = config.hidden_dimension
        spec = EncoderSpec(config.layers * width, config.control_bounds_s)
        super().__init__(config, spec, config.control_dimension)
        self._width = width
        self.cell = nn.GRUCell(self.input_width, width)
        # apart from the first, whose name all models have had
        self.upper = nn.ModuleList(nn.GRUCell(width, width) for _ in range(config.layers - 1))

    @property
    def cells(self) -> list[nn.GRUCell]:
        """Name the layers, the lowest first."""
        return [self.cell, *cast("list[nn.GRUCell]", list(self.upper))]

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, LH), inputs (B,) -> h (B, LH)."""
        given, states = self.embedded(inputs), []
        for cell, state in zip(self.cells, torch.split(h, self._width, 1), strict=True):
            # not cell(...): its input checks cost as much as a small product
            given = torch.gru_cell(given, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            states.append(given)
        return torch.cat(states, 1)

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
