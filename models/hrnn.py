"""HRNN: a GRU over a user's whole history, told by a control signal how long each silence was.

Ma & Narayanaswamy, Hierarchical Temporal-Contextual Recommenders (NIPS 2018 workshop). The step for item k
takes the gap that *follows* it: it can be taken once the next event is there, or a time of asking is assumed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.control import DEFAULT_BOUNDS_S


@dataclass(frozen=True)
class HRNNConfig:
    """The shape of an HRNN; raises ValueError for a shape that can't be."""

    n_items: int
    n_event_types: int = 0  # without type 0, which stands for none and for the unknown
    hidden_dimension: int = 43  # Amazon Personalize's default for this recipe
    control_bounds_s: tuple[float, ...] = DEFAULT_BOUNDS_S
    control_dimension: int = 8  # four levels need no more; a one-hot code would be as wide as 4
    type_dimension: int = 4  # shops and sites have some 3 to 10 event types
    dropout: float = 0.1  # in training only: on the inputs and before the output layer
    tied: bool = False  # a separate output matrix: what an item leads to is not what leads to it

    def __post_init__(self) -> None:
        """Refuse shapes that no weights can have."""
        for name, least in _LEAST.items():
            number = getattr(self, name)
            if type(number) is not int or not least <= number <= _MOST:
                raise ValueError(f"{name} is {number!r}, not a whole number from {least} to {_MOST}")
        bounds = self.control_bounds_s
        if any(type(bound) not in (int, float) or not math.isfinite(bound) or bound <= 0 for bound in bounds):
            raise ValueError(f"control_bounds_s {bounds!r} are not finite positive seconds")
        if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
            raise ValueError(f"control_bounds_s {bounds!r} do not rise")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}, not a share below 1")
        if type(self.tied) is not bool:
            raise ValueError(f"tied is {self.tied!r}, neither true nor false")

    @property
    def n_levels(self) -> int:
        """Count the levels of the control signal: one more than its bounds."""
        return len(self.control_bounds_s) + 1

    def to_dict(self) -> dict[str, Any]:
        """Write the shape as JSON can hold it."""
        return {**dataclasses.asdict(self), "control_bounds_s": list(self.control_bounds_s)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HRNNConfig:
        """Read `to_dict`'s shape back; raises ValueError for unknown keys, missing ones and wrong values."""
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown or "n_items" not in fields:
            raise ValueError(f"unknown keys {sorted(unknown)}" if unknown else "n_items is missing")
        bounds = fields.get("control_bounds_s", DEFAULT_BOUNDS_S)
        if not isinstance(bounds, list | tuple):
            raise ValueError(f"control_bounds_s is {bounds!r}, not a list")
        return cls(**{**fields, "control_bounds_s": tuple(bounds)})


_MOST = 1 << 30  # beyond this no weights fit the size that is accepted anyway
_LEAST = {
    "n_items": 1,
    "n_event_types": 0,
    "hidden_dimension": 1,
    "control_dimension": 1,
    "type_dimension": 1,
}


class StepInputs(NamedTuple):
    """One step's inputs, each (B,) for `step` and (B, T) for `forward`."""

    item_idx: Tensor  # int64: the item just consumed
    level: Tensor  # int64: the level of the gap that follows it
    type_idx: Tensor  # int64
    value: Tensor  # float32: standardized, 0 for none


class HRNN(nn.Module):
    """The weights and the equations; no user's state is kept here."""

    def __init__(self, config: HRNNConfig) -> None:
        """Draw the weights of a model that has learned nothing."""
        super().__init__()
        self.config = config
        width = config.hidden_dimension
        self.item = nn.Embedding(config.n_items + 1, width)
        self.control = nn.Embedding(config.n_levels, config.control_dimension)
        self.event_type = nn.Embedding(config.n_event_types + 1, config.type_dimension)
        self.cell = nn.GRUCell(width + config.control_dimension + config.type_dimension + 1, width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(config.n_items + 1))
        # scores start near zero, so that the first losses are those of a uniform guess
        nn.init.normal_(self.item.weight, std=1 / math.sqrt(width))
        if not config.tied:
            self.decoder = nn.Embedding(config.n_items + 1, width)
            nn.init.normal_(self.decoder.weight, std=1 / math.sqrt(width))
        with torch.no_grad():
            self.item.weight[0] = 0  # what training never saw says nothing, rather than something at random

    @property
    def output_matrix(self) -> Tensor:
        """Name the rows that scores are products with: (n_items + 1, H)."""
        return self.item.weight if self.config.tied else self.decoder.weight

    def initial(self, batch: int) -> Tensor:
        """Make the state of users without history: (B, H) zeros."""
        return self.bias.new_zeros(batch, self.config.hidden_dimension)

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, H), inputs (B,) -> h (B, H)."""
        return torch.gru_cell(  # not self.cell(...): its input checks cost as much as a small product
            self._encode(inputs),
            h,
            self.cell.weight_ih,
            self.cell.weight_hh,
            self.cell.bias_ih,
            self.cell.bias_hh,
        )

    def forward(self, h0: Tensor, inputs: StepInputs, starts: Tensor) -> Tensor:
        """Take T steps: h0 (B, H), inputs (B, T), starts (B, T) bool -> hs (B, T, H).

        Where `starts` holds, a new user's history begins: the state is zero before that step.
        """
        projected = nn.functional.linear(self._encode(inputs), self.cell.weight_ih, self.cell.bias_ih)
        goes_on = (~starts).to(h0.dtype).unsqueeze(-1)  # (B, T, 1)
        widths = [2 * h0.shape[1], h0.shape[1]]
        h, hs = h0, []
        for given, keep in zip(projected.unbind(1), goes_on.unbind(1), strict=True):
            h = h * keep
            # the gates as torch.gru_cell has them: reset, update, new
            recurrent = nn.functional.linear(h, self.cell.weight_hh, self.cell.bias_hh)
            given_gates, given_new = torch.split(given, widths, 1)
            recurrent_gates, recurrent_new = torch.split(recurrent, widths, 1)
            reset, update = torch.sigmoid(given_gates + recurrent_gates).chunk(2, 1)
            new = torch.tanh(torch.addcmul(given_new, reset, recurrent_new))
            h = torch.lerp(new, h, update)
            hs.append(h)
        return torch.stack(hs, 1)

    def queries(self, h: Tensor) -> Tensor:
        """Turn states into what items are scored by: h (..., H) -> (..., H)."""
        return self.out(nn.functional.dropout(h, self.config.dropout, self.training))  # type: ignore[no-any-return]

    def scores(self, h: Tensor) -> Tensor:
        """Score every item: h (B, H) -> (B, n_items + 1), with -inf for row 0."""
        scores = torch.addmm(self.bias, self.queries(h), self.output_matrix.T)
        scores[:, 0] = -math.inf
        return scores

    def _encode(self, inputs: StepInputs) -> Tensor:
        """Inputs (...) -> (..., H + control + type + 1)."""
        encoded = torch.cat(
            (
                self.item(inputs.item_idx),
                self.control(inputs.level),
                self.event_type(inputs.type_idx),
                inputs.value.unsqueeze(-1),
            ),
            -1,
        )
        return nn.functional.dropout(encoded, self.config.dropout, self.training)
