"""A model: an encoder, and the heads that turn its output into scores.

A score is a sum of terms (models/terms/), w_j . out(h) + b_j + sum_k a_k(h) dense_k(j) + sum_f s_f(h) sparse_f(j): each
state decides how far to follow the crowd, and which crowd. Dense terms are columns of the decoder's matrix, so all of
it but the sparse terms is one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.terms.taste import with_new_items


class Decoder(NamedTuple):
    """What queries are multiplied with, at one moment; rows beyond the catalogue's are of items it does not have."""

    matrix: Tensor  # (rows, H + K): the dense terms are its last columns
    bias: Tensor  # (rows,)


Sparse = Sequence[tuple[Tensor, Tensor]]
"""Of each sparse term rows (B, S) int64 and values (B, S, width), filled up with row 0 at 0."""


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
        terms = config.term_set
        if terms.n_mixed:
            self.mixture = nn.Linear(width, terms.n_mixed)
            nn.init.zeros_(self.mixture.weight)  # all states follow the crowd alike before training
            with torch.no_grad():
                self.mixture.bias.copy_(torch.tensor(terms.initial))
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
        if not self.config.term_set.taste:
            return torch.zeros_like(output)
        return self.out(self.encoder.dropped(output))  # type: ignore[no-any-return]

    def mixture_of(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the terms beside taste: h (B, S) -> weights of dense ones (B, K), of sparse ones (B, n_sparse)."""
        if not hasattr(self, "mixture"):
            return h.new_zeros(len(h), 0), h.new_zeros(len(h), 0)
        mixed, n_dense = self.mixture(self.encoder.dropped(self.encoder.output(h))), self.config.term_set.n_dense
        return mixed[:, :n_dense], mixed[:, n_dense:]

    def decoder_at(self, dense: Tensor) -> Decoder:
        """Append the dense terms of a moment: (K, rows), rows >= n_items + 1 -> Decoder of as many rows."""
        matrix, bias = with_new_items(self.output_matrix, self.bias, dense.shape[1])
        return Decoder(torch.cat((matrix, dense.T), 1), bias)

    def scores(self, h: Tensor, decoder: Decoder | None = None, sparse: Sparse = ()) -> Tensor:
        """Score every item: h (B, S) -> (B, rows), with -inf for row 0; without a decoder dense terms count as 0."""
        queries = self.queries(h)
        dense_weights, sparse_weights = self.mixture_of(h)
        if decoder is None:
            scores = torch.addmm(self.bias, queries, self.output_matrix.T)
        else:
            scores = torch.addmm(decoder.bias, torch.cat((queries, dense_weights), 1), decoder.matrix.T)
        add_sparse(scores, sparse, sparse_weights)
        scores[:, 0] = -math.inf
        return scores


def add_sparse(scores: Tensor, sparse: Sparse, weights: Tensor) -> None:
    """Add to scores (B, rows), in place, what all sparse terms say, weighed by (B, n_sparse)."""
    begin = 0
    for rows, values in sparse:
        end = begin + values.shape[2]
        # not a product of matrices: thin ones take three times as long as this, where each part lies along the rows
        scores.scatter_add_(1, rows, (values * weights[:, None, begin:end]).sum(2))
        begin = end
