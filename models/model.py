"""A model: an encoder, and the heads that turn its output into scores.

A score is w_j . out(h) + b_j + sum_k a_k(h) trend_k(j) + sum_f s_f(h) sparse_f(j): each state decides how far to follow
the crowd, and which crowd. Trends are columns of the decoder's matrix, so all of it but the sparse part is one product.
Sparse are what follows the last items, their neighbours, and what the user's own history says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import ModelConfig


class Decoder(NamedTuple):
    """What queries are multiplied with, at one moment; rows beyond the catalogue's are of items it does not have."""

    matrix: Tensor  # (rows, H + K): the trends are its last columns
    bias: Tensor  # (rows,)


Sparse = Sequence[tuple[Tensor, Tensor]]
"""Rows (B, S) int64 and what some parts of a score say of them (B, S, parts), filled up with row 0 at 0."""


class Model(nn.Module):
    """Weights and equations; no user's state is kept here."""

    def __init__(self, config: ModelConfig) -> None:
        """Draw the weights of a model that has learned nothing."""
        super().__init__()
        self.config = config
        width = config.hidden_dimension
        self.encoder = config.encoder()
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(config.n_items + 1))
        # scores start near zero, so that the first losses are those of a uniform guess
        nn.init.normal_(self.encoder.item.weight, std=1 / math.sqrt(width))
        if not config.tied:
            self.decoder = nn.Embedding(config.n_items + 1, width)
            nn.init.normal_(self.decoder.weight, std=1 / math.sqrt(width))
        if config.n_trends + config.n_sparse:
            self.mixture = nn.Linear(width, config.n_trends + config.n_sparse)
            nn.init.zeros_(self.mixture.weight)  # all states follow the crowd alike before training
            start = [1 / max(1, config.n_trends)] * config.n_trends  # in proportion to counts, of all half-lives alike
            start += [0.0] * config.n_sparse
            if config.successor_half_life_s:
                start[config.n_trends] = 0.5
            with torch.no_grad():
                self.mixture.bias.copy_(torch.tensor(start))
        with torch.no_grad():
            self.encoder.item.weight[0] = 0  # what training never saw says nothing, rather than something at random

    @property
    def output_matrix(self) -> Tensor:
        """Name the rows that scores are products with: (n_items + 1, H)."""
        return self.encoder.item.weight if self.config.tied else self.decoder.weight

    def stored_names(self) -> dict[str, str]:
        """Name each tensor as weights blobs do -> its name here.

        Blobs name an encoder's tensors without its prefix, as before encoders were apart, unless the model itself
        has a tensor of that name.
        """
        own = self.state_dict().keys()
        short = {name: name.removeprefix("encoder.") for name in own}
        return {name if short[name] in own else short[name]: name for name in own}

    def queries(self, h: Tensor) -> Tensor:
        """Turn states into what items are scored by: h (..., S) -> (..., H)."""
        output = self.encoder.output(h)
        if not self.config.net:
            return torch.zeros_like(output)
        return self.out(self.encoder.dropped(output))  # type: ignore[no-any-return]

    def mixture_of(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the signals: h (B, S) -> of trends (B, K), of sparse parts (B, n_sparse)."""
        if not hasattr(self, "mixture"):
            return h.new_zeros(len(h), 0), h.new_zeros(len(h), 0)
        mixed = self.mixture(self.encoder.dropped(self.encoder.output(h)))
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
        """Score every item: h (B, S) -> (B, rows), with -inf for row 0; without a decoder trends count as 0."""
        queries = self.queries(h)
        trend_weights, sparse_weights = self.mixture_of(h)
        if decoder is None:
            scores = torch.addmm(self.bias, queries, self.output_matrix.T)
        else:
            scores = torch.addmm(decoder.bias, torch.cat((queries, trend_weights), 1), decoder.matrix.T)
        add_sparse(scores, sparse, sparse_weights)
        scores[:, 0] = -math.inf
        return scores


def add_sparse(scores: Tensor, sparse: Sparse, weights: Tensor) -> None:
    """Add to scores (B, rows), in place, what all sparse parts say, weighed by (B, n_sparse)."""
    begin = 0
    for rows, values in sparse:
        end = begin + values.shape[2]
        # not a product of matrices: thin ones take three times as long as this, where each part lies along the rows
        scores.scatter_add_(1, rows, (values * weights[:, None, begin:end]).sum(2))
        begin = end
