"""HRNN: a GRU over a user's whole history, told by a control signal how long each silence was.

Ma & Narayanaswamy, Hierarchical Temporal-Contextual Recommenders (NIPS 2018 workshop). The step for item k
takes the gap that *follows* it: it can be taken once the next event is there, or a time of asking is assumed.

With signals, a score is w_j . out(h) + b_j + sum_k a_k(h) trend_k(j) + sum_f s_f(h) sparse_f(j): each state decides
how far to follow the crowd, and which crowd. Trends are columns of the decoder's matrix, so all of it but the
sparse part is one product. Sparse are what follows the last items, their neighbours, and what the user's own
history says, of late and of before.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from models.control import DEFAULT_BOUNDS_S
from models.encoders.gru_backward import recur
from models.items import signal_table
from models.items.signals import SignalRules
from models.terms import repeats
from models.users import earlier


@dataclass(frozen=True)
class HRNNConfig:
    """The shape of an HRNN; raises ValueError for a shape that can't be."""

    n_items: int
    n_event_types: int = 0  # without type 0, which stands for none and for the unknown
    hidden_dimension: int = 43  # Amazon Personalize's default for this recipe
    layers: int = 1  # the paper's; each one more reads the states of the one below
    control_bounds_s: tuple[float, ...] = DEFAULT_BOUNDS_S
    control_dimension: int = 8  # four levels need no more; a one-hot code would be as wide as 4
    type_dimension: int = 4  # shops and sites have some 3 to 10 event types
    dropout: float = 0.1  # in training only: on the inputs and before the output layer
    tied: bool = False  # a separate output matrix: what an item leads to is not what leads to it
    half_lives_s: tuple[float, ...] = ()  # of trends; none: a model that knows no signals, as the paper's
    successor_half_life_s: float = 0.0  # of what follows the last items; 0: not looked at
    neighbours: bool = False  # of the last ten items, read from what follows what
    repeats: bool = False  # weights for what the user has had: films are seen once, milk is bought each week
    earlier: bool = False  # likewise for what was had before the retained history
    net: bool = True  # without, states only weigh the signals: what the rest is worth is measured so

    def __post_init__(self) -> None:
        """Refuse shapes that no weights can have."""
        for name, least in _LEAST.items():
            number = getattr(self, name)
            if type(number) is not int or not least <= number <= _MOST:
                raise ValueError(f"{name} is {number!r}, not a whole number from {least} to {_MOST}")
        bounds = self.control_bounds_s
        lives = (*self.half_lives_s, *([self.successor_half_life_s] if self.successor_half_life_s else []))
        if any(type(life) not in (int, float) or not math.isfinite(life) or life <= 0 for life in lives):
            raise ValueError(f"half-lives {lives!r} are not finite positive seconds")
        if any(type(bound) not in (int, float) or not math.isfinite(bound) or bound <= 0 for bound in bounds):
            raise ValueError(f"control_bounds_s {bounds!r} are not finite positive seconds")
        if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
            raise ValueError(f"control_bounds_s {bounds!r} do not rise")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}, not a share below 1")
        for name in ("tied", "neighbours", "repeats", "earlier", "net"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {getattr(self, name)!r}, neither true nor false")
        if self.neighbours and not self.successor_half_life_s:
            raise ValueError("neighbours are read from what follows what: they need a successor_half_life_s")

    @property
    def n_levels(self) -> int:
        """Count the levels of the control signal: one more than its bounds."""
        return len(self.control_bounds_s) + 1

    @property
    def state_width(self) -> int:
        """Count the numbers of a state, LH: H of each of L layers, the topmost's last."""
        return self.layers * self.hidden_dimension

    @property
    def n_trends(self) -> int:
        """Count the trends, K."""
        return len(self.half_lives_s)

    @property
    def n_sparse(self) -> int:
        """Count the sparse parts of a score: what follows the last items, their neighbours, what the user has had."""
        follow = signal_table.PARTS * (self.successor_half_life_s > 0)
        had = repeats.PARTS * self.repeats + earlier.PARTS * self.earlier
        return follow + self.neighbours + had

    @property
    def signal_rules(self) -> SignalRules | None:
        """Say what is to be counted for this model; None for one that looks at no counts."""
        if not self.half_lives_s and not self.successor_half_life_s:
            return None
        successors = self.successor_half_life_s or SignalRules.successor_half_life_s
        return SignalRules(half_lives_s=self.half_lives_s, successor_half_life_s=successors)

    def to_dict(self) -> dict[str, Any]:
        """Write the shape as JSON can hold it."""
        return {**dataclasses.asdict(self), **{name: list(getattr(self, name)) for name in _LISTS}}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> HRNNConfig:
        """Read `to_dict`'s shape back; raises ValueError for unknown keys, missing ones and wrong values."""
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown or "n_items" not in fields:
            raise ValueError(f"unknown keys {sorted(unknown)}" if unknown else "n_items is missing")
        lists = {name: fields[name] for name in _LISTS if name in fields}
        for name, given in lists.items():
            if not isinstance(given, list | tuple):
                raise ValueError(f"{name} is {given!r}, not a list")
        return cls(**{**fields, **{name: tuple(given) for name, given in lists.items()}})


_LISTS = ("control_bounds_s", "half_lives_s")  # tuples, which JSON has not
_MOST = 1 << 30  # beyond this no weights fit the size that is accepted anyway
_LEAST = {
    "n_items": 1,
    "n_event_types": 0,
    "hidden_dimension": 1,
    "layers": 1,
    "control_dimension": 1,
    "type_dimension": 1,
}


class StepInputs(NamedTuple):
    """One step's inputs, each (B,) for `step` and (B, T) for `forward`."""

    item_idx: Tensor  # int64: the item just consumed
    level: Tensor  # int64: the level of the gap that follows it
    type_idx: Tensor  # int64
    value: Tensor  # float32: standardized, 0 for none


class Decoder(NamedTuple):
    """What queries are multiplied with, at one moment; rows beyond the catalogue's are of items it does not have."""

    matrix: Tensor  # (rows, H + K): the trends are its last columns
    bias: Tensor  # (rows,)


Sparse = Sequence[tuple[Tensor, Tensor]]
"""Rows (B, S) int64 and what some parts of a score say of them (B, S, parts), filled up with row 0 at 0."""


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
        # apart from the first, whose name all models have had
        self.upper = nn.ModuleList(nn.GRUCell(width, width) for _ in range(config.layers - 1))
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(config.n_items + 1))
        # scores start near zero, so that the first losses are those of a uniform guess
        nn.init.normal_(self.item.weight, std=1 / math.sqrt(width))
        if not config.tied:
            self.decoder = nn.Embedding(config.n_items + 1, width)
            nn.init.normal_(self.decoder.weight, std=1 / math.sqrt(width))
        if config.n_trends + config.n_sparse:
            self.mixture = nn.Linear(width, config.n_trends + config.n_sparse)
            nn.init.zeros_(self.mixture.weight)  # everyone follows the crowd alike, until told otherwise
            start = [1 / max(1, config.n_trends)] * config.n_trends  # in proportion to counts, of all half-lives alike
            start += [0.0] * config.n_sparse
            if config.successor_half_life_s:
                start[config.n_trends] = 0.5
            with torch.no_grad():
                self.mixture.bias.copy_(torch.tensor(start))
        with torch.no_grad():
            self.item.weight[0] = 0  # what training never saw says nothing, rather than something at random

    @property
    def output_matrix(self) -> Tensor:
        """Name the rows that scores are products with: (n_items + 1, H)."""
        return self.item.weight if self.config.tied else self.decoder.weight

    @property
    def cells(self) -> list[nn.GRUCell]:
        """Name the layers, the lowest first."""
        return [self.cell, *cast("list[nn.GRUCell]", list(self.upper))]

    def initial(self, batch: int) -> Tensor:
        """Make the state of users without history: (B, LH) zeros."""
        return self.bias.new_zeros(batch, self.config.state_width)

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        """Take one step: h (B, LH), inputs (B,) -> h (B, LH)."""
        given, states = self._encode(inputs), []
        for cell, state in zip(self.cells, torch.split(h, self.config.hidden_dimension, 1), strict=True):
            # not cell(...): its input checks cost as much as a small product
            given = torch.gru_cell(given, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            states.append(given)
        return torch.cat(states, 1)

    def forward(self, h0: Tensor, inputs: StepInputs, starts: Tensor) -> Tensor:
        """Take T steps: h0 (B, LH), inputs (B, T), starts (B, T) bool -> hs (B, T, LH).

        Where `starts` holds, a new user's history begins: the state is zero before that step.
        """
        given = self._encode(StepInputs(*(tensor.T for tensor in inputs)))  # (T, B, ...)
        goes_on = (~starts).T.to(h0.dtype).unsqueeze(-1)
        states: list[Tensor] = []
        for cell, state in zip(self.cells, torch.split(h0, self.config.hidden_dimension, 1), strict=True):
            below = self._dropped(states[-1]) if states else given
            gates = nn.functional.linear(below, cell.weight_ih, cell.bias_ih)  # (T, B, 3H)
            states.append(recur(state, gates, goes_on, cell.weight_hh, cell.bias_hh))
        return torch.cat(states, 2).transpose(0, 1)

    def queries(self, h: Tensor) -> Tensor:
        """Turn states into what items are scored by: h (..., LH) -> (..., H)."""
        if not self.config.net:
            return torch.zeros_like(self._topmost(h))
        return self.out(self._dropped(self._topmost(h)))  # type: ignore[no-any-return]

    def mixture_of(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the signals: h (B, LH) -> of trends (B, K), of sparse parts (B, n_sparse)."""
        if not hasattr(self, "mixture"):
            return h.new_zeros(len(h), 0), h.new_zeros(len(h), 0)
        mixed = self.mixture(self._dropped(self._topmost(h)))
        return mixed[:, : self.config.n_trends], mixed[:, self.config.n_trends :]

    def decoder_at(self, trends: Tensor) -> Decoder:
        """Append the trends of a moment: (K, rows), rows >= n_items + 1 -> Decoder of as many rows.

        Items that training has not seen have row 0's weights, which stand for any such item.
        """
        new = trends.shape[1] - self.config.n_items - 1
        matrix = torch.cat((self.output_matrix, self.output_matrix[:1].expand(new, -1)))
        bias = torch.cat((self.bias, self.bias[:1].expand(new)))
        return Decoder(torch.cat((matrix, trends.T), 1), bias)

    def scores(self, h: Tensor, decoder: Decoder | None = None, sparse: Sparse = ()) -> Tensor:
        """Score every item: h (B, LH) -> (B, rows), with -inf for row 0; without a decoder trends count as 0."""
        queries = self.queries(h)
        trend_weights, sparse_weights = self.mixture_of(h)
        if decoder is None:
            scores = torch.addmm(self.bias, queries, self.output_matrix.T)
        else:
            scores = torch.addmm(decoder.bias, torch.cat((queries, trend_weights), 1), decoder.matrix.T)
        add_sparse(scores, sparse, sparse_weights)
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
        return self._dropped(encoded)

    def _topmost(self, h: Tensor) -> Tensor:
        """Cut the topmost layer's part out of states: (..., LH) -> (..., H)."""
        return h[..., -self.config.hidden_dimension :]

    def _dropped(self, given: Tensor) -> Tensor:
        return nn.functional.dropout(given, self.config.dropout, self.training)


def add_sparse(scores: Tensor, sparse: Sparse, weights: Tensor) -> None:
    """Add to scores (B, rows), in place, what all sparse parts say, weighed by (B, n_sparse)."""
    begin = 0
    for rows, values in sparse:
        end = begin + values.shape[2]
        # not a product of matrices: thin ones take three times as long as this, where each part lies along the rows
        scores.scatter_add_(1, rows, (values * weights[:, None, begin:end]).sum(2))
        begin = end
