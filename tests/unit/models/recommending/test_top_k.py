from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recommending import top_k as ranking
from models.recommending.mask import ItemMask
from models.recommending.top_k import top_k


def plain(scores: torch.Tensor, k: int) -> np.ndarray:
    """Rank by sorting everything: higher scores first, lower rows first among equals."""
    return np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("width", [5, 64, 1280, 1301, ranking.TWO_STAGES_FROM, ranking.TWO_STAGES_FROM + 63, 10_001])
@pytest.mark.parametrize("k", [1, 20, 100])
def test_it_is_the_exact_top_k(width: int, k: int) -> None:
    scores = torch.randn(3, width, generator=torch.Generator().manual_seed(width))
    rows, values = top_k(scores.clone(), k)
    assert np.array_equal(rows, plain(scores, k))
    assert np.array_equal(values, np.take_along_axis(scores.numpy(), rows, 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 400), st.integers(1, 6), st.booleans())
def test_ties_go_to_the_lower_row(seed: int, k: int, width: int, distinct: int, two_stages: bool) -> None:
    scores = torch.randint(0, distinct, (4, width), generator=torch.Generator().manual_seed(seed)).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "TWO_STAGES_FROM", 0 if two_stages else 10**9)
        patch.setattr(ranking, "BLOCK", 8)
        rows, _ = top_k(scores.clone(), k)
    assert np.array_equal(rows, plain(scores, k))


def test_what_a_mask_leaves_out_is_not_ranked() -> None:
    scores = torch.arange(10.0).repeat(2, 1)
    rows, values = top_k(scores, 3, ItemMask(lists=np.array([0, 0, 1]), rows=np.array([9, 8, 7])))
    assert rows.tolist() == [[7, 6, 5], [9, 8, 6]]
    assert values.tolist() == [[7, 6, 5], [9, 8, 6]]


def test_fewer_than_k_can_be_ranked() -> None:
    scores = torch.tensor([[-math.inf, 1.0, 2.0]])
    rows, values = top_k(scores, 5, ItemMask(lists=np.array([0]), rows=np.array([1])))
    assert values.tolist() == [[2.0, -math.inf, -math.inf]]
    assert rows[0, 0] == 2
