"""HRNN: an RNN that reads each gap's level as a control signal.

Ma & Narayanaswamy, Hierarchical Temporal-Contextual Recommenders (NIPS 2018 workshop).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from models.config import require_positive
from models.control import DEFAULT_BOUNDS_S
from models.encoders.encoder import EncoderSpec
from models.encoders.rnn import RNN, RNNConfig


@dataclass(frozen=True)
class HRNNConfig(RNNConfig):
    """The shape of a model with this encoder."""

    architecture: ClassVar[str] = "hrnn"

    control_bounds_s: tuple[float, ...] = DEFAULT_BOUNDS_S
    control_dimension: int = 8  # four levels need no more; a one-hot code would be as wide as 4

    def encoder(self) -> RNN:
        """Make the encoder."""
        spec = EncoderSpec(self.layers * self.hidden_dimension, self.control_bounds_s)
        return RNN(self, spec, self.control_dimension)

    def __post_init__(self) -> None:
        """Refuse bounds that do not rise, too."""
        super().__post_init__()
        bounds = self.control_bounds_s
        require_positive("control_bounds_s", bounds)
        if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
            raise ValueError(f"control_bounds_s {bounds!r} do not rise")
