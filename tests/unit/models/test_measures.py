from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.measures import mrr_at_k, ndcg_at_k, ranks, recall_at_k


def test_ties_count_against_us() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0], [-math.inf, 0.0, 1.0], [math.nan, 0.0, 1.0]])
    assert ranks(scores, torch.tensor([1, 0, 0, 0])).tolist() == [1, 3, 3, 3]
    assert ranks(scores, torch.tensor([2, 1, 2, 2])).tolist() == [2, 3, 1, 2]


def test_measures_by_hand() -> None:
    found = np.array([1, 2, 11, 4])
    assert recall_at_k(found, 10) == 0.75
    assert mrr_at_k(found, 10) == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)
    assert ndcg_at_k(found, 10) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(5)) / 4)


def test_nothing_to_rank_is_nothing_found() -> None:
    none = np.zeros(0, np.int64)
    assert (recall_at_k(none, 10), ndcg_at_k(none, 10), mrr_at_k(none, 10)) == (0.0, 0.0, 0.0)
