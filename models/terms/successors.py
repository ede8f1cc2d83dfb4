"""Successors: what follows the user's last three items, by decayed counts of who went from one item to another.

Four features: log(1 + GAIN x weight) of what follows the newest item, and of what follows those before, as they can be
trusted differently; then both as shares of all that is listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.items.signal_table import Floats
from models.terms.term import SparseFeatures, TermOptions, UserSignals
from models.users.batch import UserBatch

PARTS = 4

# of shares in log(1 + gain x share): a rare item's only successor is a surer one than a frequent item's best
SHARE_GAIN = np.float32(50)
_NOTHING = np.float32(1e-9)  # instead of 0, where nothing is listed


class Successors:
    """What follows the last items, how much and as what share."""

    name = "successors"
    reads_signals = True
    kept = 2  # shares are made of the weights: half the memory of a log's events
    initial: Sequence[float] = (0.5, 0.0, 0.0, 0.0)

    def __init__(self, options: TermOptions) -> None:
        """Read what follows what, where that is counted."""
        self.width = PARTS if options.successor_half_life_s else 0

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Read what follows the last items: values (B, S, 4)."""
        rows, weights = self.compact(users, signals)
        return SparseFeatures(rows, self.complete(weights))

    def compact(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Read the weights alone: values (B, S, 2)."""
        assert signals is not None, "it reads signals"
        return SparseFeatures(*signals.table.successors(signals.looked_up))

    def complete(self, values: Floats) -> Floats:
        """Add the shares to the weights: (B, S, 2) -> (B, S, 4)."""
        laid = np.empty((len(values), PARTS, values.shape[1]), np.float32)  # each part along its rows: half the time
        laid[:, :2] = values.transpose(0, 2, 1)
        weights = np.expm1(laid[:, :2])
        laid[:, 2:] = np.log1p(weights * (SHARE_GAIN / np.maximum(weights.sum(2, keepdims=True), _NOTHING)))
        return laid.transpose(0, 2, 1)
