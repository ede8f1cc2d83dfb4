"""How good lists are: from the rank of the item that came next, 1 the best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ranks = npt.NDArray[np.int64]


def ranks(scores: Tensor, targets: Tensor) -> Ranks:
    """Rank the targets: scores (B, V), targets (B,) columns -> (B,) from 1; ties count against us.

    A target at -inf or NaN is last: a model that can't score an item has not found it.
    """
    own = scores.gather(1, targets.unsqueeze(1))  # (B, 1)
    beaten = (scores < own).sum(1)
    found: Ranks = (scores.shape[1] - beaten).numpy(force=True).astype(np.int64)
    return found


def recall_at_k(ranks: Ranks, k: int) -> float:
    """Count the share of ranks (N,) within k; with one right item each it is the hit-rate. 0 for no ranks."""
    return float(np.mean(ranks <= k)) if len(ranks) else 0.0


def ndcg_at_k(ranks: Ranks, k: int) -> float:
    """Average 1 / log2(rank + 1) over ranks (N,), 0 beyond k: one right item each, so the ideal is 1."""
    return float(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0))) if len(ranks) else 0.0


def mrr_at_k(ranks: Ranks, k: int) -> float:
    """Average 1 / rank over ranks (N,), 0 beyond k."""
    return float(np.mean(np.where(ranks <= k, 1 / ranks, 0.0))) if len(ranks) else 0.0
