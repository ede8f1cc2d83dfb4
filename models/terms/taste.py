"""Taste: items as learned vectors, which the user's query is multiplied with.

The weights of this term are the query itself, H numbers from the output layer, and its features are learned with them:
the rows of the decoder's matrix, and a bias for each item.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.terms.term import TermOptions


class Taste:
    """Learned features of every item; without this term, states only weigh the other terms."""

    name = "taste"
    width = 0  # in the mixture: the output layer has its weights
    initial: Sequence[float] = ()

    def __init__(self, options: TermOptions) -> None:
        """Need no options."""


def with_new_items(matrix: Tensor, bias: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Extend matrix (rows, H) and bias (rows,) to `n_rows`: a new item has row 0's, which stand for any such item."""
    new = n_rows - len(bias)
    return torch.cat((matrix, matrix[:1].expand(new, -1))), torch.cat((bias, bias[:1].expand(new)))
