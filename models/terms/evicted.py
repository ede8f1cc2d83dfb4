"""Evicted: what a user had before the retained history. How often is known, when is not.

Two features of each such item: 1, and log2(how often).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.items.signal_table import Doubles, Floats, Rows
from models.terms.term import SparseFeatures, TermOptions, UserSignals
from models.users.batch import UserBatch

PARTS = 2


class Evicted:
    """What was had before, of what fell out of the retained history."""

    name = "evicted"
    width = PARTS
    initial: Sequence[float] = (0.0,) * PARTS
    reads_signals = False

    def __init__(self, options: TermOptions) -> None:
        """Need no options."""

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Say of each user's evicted items how often they were had: values (B, S, 2)."""
        return SparseFeatures(users.evicted_rows, parts(users.evicted_rows, users.evicted_counts))


def parts(rows: Rows, counts: Rows | Doubles) -> Floats:
    """Weigh what B users had so often: (B, S), (B, S) -> (B, S, PARTS), 0 where there is no row."""
    often = counts.astype(np.float32) * (rows > 0)
    features = np.empty((len(rows), PARTS, rows.shape[1]), np.float32)  # each part along the items, as in repeats
    features[:, 0] = often > 0
    np.log2(np.maximum(often, 1), out=features[:, 1])  # in two thirds of float64's time
    return features.transpose(0, 2, 1)
