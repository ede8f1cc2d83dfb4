"""A mask leaves out what any of its rules leaves out."""

from __future__ import annotations

import math

import numpy as np
import torch

from models.catalogue import Catalogue
from models.items.item_table import ItemTable
from models.recommending.mask import ItemMask, ListBatch, mask_of, not_had

ITEMS = ItemTable(Catalogue(["a", "b", "c"]))


def hidden(mask: ItemMask) -> list[list[int]]:
    """What a mask leaves out of two lists."""
    scores = torch.zeros(2, 4)
    mask.hide(scores)
    return [torch.nonzero(row == -math.inf).flatten().tolist() for row in scores]


def test_a_row_can_be_left_out_of_one_list_or_of_every_list() -> None:
    assert hidden(ItemMask()) == [[], []]
    assert hidden(ItemMask(lists=np.array([0, 1, 1]), rows=np.array([2, 3, 0]))) == [[2], [0, 3]]
    assert hidden(ItemMask(every_list=np.array([1, 3]))) == [[1, 3], [1, 3]]


def test_rules_are_composed() -> None:
    def no_a(lists: ListBatch) -> ItemMask:
        return ItemMask(every_list=lists.items.rows(["a"]))

    lists = ListBatch(2, ITEMS, had_by=np.array([1]), had=ITEMS.rows(["c"]))
    assert hidden(mask_of((), lists)) == [[], []]
    assert hidden(mask_of((not_had,), lists)) == [[], [3]]
    assert hidden(mask_of((not_had, no_a), lists)) == [[1], [1, 3]]
