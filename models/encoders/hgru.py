"""HGRU: a GRU over a user's sessions starts the GRU over the events of each session.

Quadrana et al., Personalizing Session-based Recommendations with Hierarchical Recurrent Neural Networks (RecSys 2017).
When a gap ends the session, the user's GRU takes a step with the session's state, and the next session starts from
the user's state. So the step of a session's last event prepares the next session's first event. With `user_state`
"init" that is all; with "all" the user's state is an input to each step of the session, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.config import require_positive
from models.encoders.encoder import EncoderSpec, StepInputs
from models.encoders.rnn import RNN, RNNConfig
from models.sessions import SessionRules


@dataclass(frozen=True)
class HGRUConfig(RNNConfig):
    """The shape of a model with this encoder; `layers` are the session's."""

    architecture: ClassVar[str] = "hgru"

    user_state: str = "init"
    session_gap_s: float = SessionRules.gap_s  # of the worker that serves the model

    def encoder(self) -> HGRU:
        """Make the encoder."""
        return HGRU(self)

    def __post_init__(self) -> None:
        """Refuse what the paper does not have, too."""
        super().__post_init__()
        require_positive("session_gap_s", (self.session_gap_s,))
        if self.user_state not in ("init", "all"):
            raise ValueError(f"user_state is {self.user_state!r}, neither 'init' nor 'all'")


class HGRU(RNN):
    """A state has H numbers of the user, then H of each of the session's L layers, the topmost's last."""

    def __init__(self, config: HGRUConfig) -> None:
        """Draw the weights."""
        width = config.hidden_dimension
        spec = EncoderSpec((1 + config.layers) * width, session_gap_s=config.session_gap_s)
        super().__init__(config, spec, more_inputs=width * (config.user_state == "all"))
        self._reads_user = config.user_state == "all"
        self.user = nn.GRUCell(width, width)
        self.start = nn.Linear(width, config.layers * width)

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, S), inputs (B,) -> h (B, S)."""
        return self._advance(h, self.embedded(inputs), inputs.opens_session)

    def forward(self, h0: Tensor, inputs: StepInputs, starts: Tensor) -> Tensor:
        """Take T steps, one by one: h0 (B, S), inputs (B, T), starts (B, T) -> hs (B, T, S)."""
        given, goes_on = self.embedded(inputs), (~starts).to(h0.dtype).unsqueeze(-1)
        h, hs = h0, []
        for t in range(starts.shape[1]):
            h = self._advance(h * goes_on[:, t], given[:, t], inputs.opens_session[:, t])
            hs.append(h)
        return torch.stack(hs, 1)

    def _advance(self, h: Tensor, given: Tensor, opens_session: Tensor) -> Tensor:
        user, session = h[:, : self._width], h[:, self._width :]
        states = self.stacked(torch.cat((given, user), 1) if self._reads_user else given, session)
        next_user = self.user(states[-1], user)
        opened = torch.cat((next_user, torch.tanh(self.start(next_user))), 1)
        return torch.where(opens_session.unsqueeze(1), opened, torch.cat((user, *states), 1))
