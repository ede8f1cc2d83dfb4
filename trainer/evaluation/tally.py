"""Answers to many trials, cut up in the ways that they are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.measures import mrr_at_k, ndcg_at_k, recall_at_k

Mask = npt.NDArray[np.bool_]


class Tally:
    """Ranks and likelihoods of trials as they are answered, and what sort of trial each was."""

    def __init__(self) -> None:
        """Begin without trials."""
        self._ranks: list[npt.NDArray[np.int64]] = []
        self._likelihoods: list[npt.NDArray[np.float64]] = []

    def add(self, ranks: npt.NDArray[np.int64], log_likelihoods: npt.NDArray[np.float64]) -> None:
        """Take some trials' answers (B,), (B,); likelihoods are NaN for what gives no probabilities."""
        self._ranks.append(ranks)
        self._likelihoods.append(log_likelihoods)

    def figures(self, where: Mask | None = None) -> dict[str, float | int | None]:
        """Name the figures of the trials `where` (T,) holds, of all by default; None where there is nothing to say."""
        ranks = np.concatenate([*self._ranks, np.zeros(0, np.int64)])
        likelihoods = np.concatenate([*self._likelihoods, np.zeros(0)])
        if where is not None:
            ranks, likelihoods = ranks[where], likelihoods[where]
        figures: dict[str, float | int | None] = {"events": len(ranks)}
        for name, measure, k in _MEASURES:
            figures[name] = measure(ranks, k) if len(ranks) else None
        mean = float(likelihoods.mean()) if len(ranks) else math.nan
        figures["perplexity"] = math.exp(min(-mean, 700.0)) if math.isfinite(mean) else None
        return figures


_MEASURES: Sequence[tuple[str, Any, int]] = (
    ("recall_at_5", recall_at_k, 5),
    ("recall_at_10", recall_at_k, 10),
    ("recall_at_20", recall_at_k, 20),
    ("ndcg_at_10", ndcg_at_k, 10),
    ("mrr_at_20", mrr_at_k, 20),
)
