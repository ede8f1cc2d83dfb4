"""Which items a list leaves out: the rules of a recipe, composed into one mask.

A rule is a function of a `ListBatch`; a recipe names its rules (see models/recommending/recipes.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.items.item_table import ItemTable

Rows = npt.NDArray[np.int64]

_NO_ROWS: Rows = np.zeros(0, np.int64)


class ItemMask(NamedTuple):
    """Rows that B lists leave out: some of every list, and some of single lists.

    Row 0 is nobody's, so a rule may give it for an item that has no row.
    """

    every_list: Rows = _NO_ROWS  # (M,) rows
    lists: Rows = _NO_ROWS  # (N,) numbers of lists in the batch, 0 to B - 1
    rows: Rows = _NO_ROWS  # (N,) what each of these leaves out

    @classmethod
    def joined(cls, masks: Iterable[ItemMask]) -> ItemMask:
        """Leave out what any of the masks leaves out."""
        each = list(masks)
        if len(each) == 1:
            return each[0]
        return cls(
            np.concatenate([_NO_ROWS, *(mask.every_list for mask in each)]),
            np.concatenate([_NO_ROWS, *(mask.lists for mask in each)]),
            np.concatenate([_NO_ROWS, *(mask.rows for mask in each)]),
        )

    def hide(self, scores: Tensor) -> None:
        """Overwrite what is left out with -inf, in place: scores (B, V)."""
        held = scores.numpy()
        if len(self.every_list):
            held[:, self.every_list] = -math.inf
        held[self.lists, self.rows] = -math.inf


class ListBatch(NamedTuple):
    """B lists to be made: what rules and recipes look at."""

    n_lists: int
    items: ItemTable
    had_by: Rows  # (N,) the number of a list
    had: Rows  # (N,) a row that its user has had, in the retained history or before; 0 if it has no score


MaskRule = Callable[[ListBatch], ItemMask]
"""Says what lists leave out."""


def not_had(lists: ListBatch) -> ItemMask:
    """Leave out what each list's user has had."""
    return ItemMask(lists=lists.had_by, rows=lists.had)


def mask_of(rules: Iterable[MaskRule], lists: ListBatch) -> ItemMask:
    """Compose rules into one mask."""
    return ItemMask.joined(rule(lists) for rule in rules)
