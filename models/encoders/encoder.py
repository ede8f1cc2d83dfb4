"""What an encoder is: a network from a user's events to a state, and from a state to the vector h that terms read.

The step for event k takes the gap that *follows* it: it can be taken once the next event is there, or for an assumed
time of asking. `EncoderSpec.step_inputs` makes the inputs of steps, for the worker, the trainer and the audit alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.control import levels
from models.sessions import SessionRules

Rows = npt.NDArray[np.int64]
Gaps = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


class StepInputs(NamedTuple):
    """One step's inputs, each (B,) for `step` and (B, T) for `forward`."""

    item_idx: Tensor  # int64: the item just consumed
    level: Tensor  # int64: the level of the gap that follows it
    type_idx: Tensor  # int64
    value: Tensor  # float32: standardized, 0 for none
    opens_session: Tensor  # bool: the gap ends the session, so that the next event opens another


@dataclass(frozen=True)
class EncoderSpec:
    """What a state is made of, and what an encoder reads from a gap."""

    state_width: int  # S, float32 numbers
    control_bounds_s: tuple[float, ...] = ()  # of the gap levels; none: every gap has level 0
    session_gap_s: float = SessionRules.gap_s  # a longer gap ends a session
    kept: bool = True  # with the user; else each batch replays it from the retained history, beyond which no step looks

    @property
    def state_bytes(self) -> int:
        """Count the bytes of a state."""
        return 4 * self.state_width

    def decode(self, states: Sequence[bytes]) -> Tensor:
        """Read states' bytes, b"" as zeros: N values -> (N, S)."""
        zeros = bytes(self.state_bytes)
        joined = bytearray(b"".join([state or zeros for state in states]))
        if not joined:
            return torch.zeros(len(states), self.state_width)
        return torch.frombuffer(joined, dtype=torch.float32).view(-1, self.state_width)

    def encode(self, states: Tensor) -> list[bytes]:
        """Write states as little-endian float32: (N, S) -> N values."""
        return [state.tobytes() for state in states.numpy().astype("<f4", copy=False)]

    def of_gaps(self, gaps_s: Gaps) -> tuple[Tensor, Tensor]:
        """Read gaps of any shape -> their levels (int64), and whether they end a session (bool)."""
        return torch.from_numpy(levels(gaps_s, self.control_bounds_s)), torch.from_numpy(gaps_s > self.session_gap_s)

    def step_inputs(
        self, rows: Rows, gaps_s: Gaps, types: Sequence[int] | Rows, values: Sequence[float] | Floats
    ) -> StepInputs:
        """Make the inputs of steps: items' rows, the gaps that follow, types' rows, standardized values."""
        level, opens_session = self.of_gaps(gaps_s)
        type_idx = torch.from_numpy(np.asarray(types, np.int64))
        value = torch.from_numpy(np.asarray(values, np.float32))
        return StepInputs(torch.from_numpy(rows), level, type_idx, value, opens_session)


class Encoder(nn.Module, ABC):
    """Weights and equations; no user's state is kept here. A subclass adds its cells and `step`."""

    def __init__(self, config: ModelConfig, spec: EncoderSpec, control_dimension: int = 0) -> None:
        """Draw the embeddings; `control_dimension` 0 leaves gap levels out of the inputs."""
        super().__init__()
        self.spec = spec
        self._output_width = config.hidden_dimension
        self._dropout = config.dropout
        self.item = nn.Embedding(config.n_items + 1, config.hidden_dimension)
        self.control = nn.Embedding(len(spec.control_bounds_s) + 1, control_dimension) if control_dimension else None
        self.event_type = nn.Embedding(config.n_event_types + 1, config.type_dimension)
        self.input_width = config.hidden_dimension + control_dimension + config.type_dimension + 1

    def initial(self, batch: int) -> Tensor:
        """Make the state of users without history: (B, S) zeros."""
        return self.item.weight.new_zeros(batch, self.spec.state_width)

    @abstractmethod
    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, S), inputs (B,) -> h (B, S)."""

    def forward(self, h0: Tensor, inputs: StepInputs, starts: Tensor) -> Tensor:
        """Take T steps: h0 (B, S), inputs (B, T), starts (B, T) bool -> hs (B, T, S).

        Where `starts` holds, a new user's history begins: the state is zero before that step.
        """
        h, hs = h0, []
        for t in range(starts.shape[1]):
            h = self.step(h.masked_fill(starts[:, t, None], 0.0), StepInputs(*(given[:, t] for given in inputs)))
            hs.append(h)
        return torch.stack(hs, 1)

    def output(self, h: Tensor) -> Tensor:
        """Give what terms read, the last H numbers of a state unless overridden: (..., S) -> (..., H)."""
        return h[..., -self._output_width :]

    def embedded(self, inputs: StepInputs) -> Tensor:
        """Inputs (...) -> (..., input_width), with dropout in training."""
        control = [] if self.control is None else [self.control(inputs.level)]
        parts = [self.item(inputs.item_idx), *control, self.event_type(inputs.type_idx), inputs.value.unsqueeze(-1)]
        return self.dropped(torch.cat(parts, -1))

    def dropped(self, given: Tensor) -> Tensor:
        """Drop a share of the numbers, in training only."""
        return nn.functional.dropout(given, self._dropout, self.training)
