"""Neighbours: what keeps company with the user's last ten items, held against how often each of both occurs.

The cosine of item-to-item recommenders (Linden, Smith & York 2003), of an order in time; see SignalTable.neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.terms.term import SparseFeatures, TermOptions, UserSignals
from models.users.batch import UserBatch


class Neighbours:
    """One feature: log(1 + gain x the sum of cosines)."""

    name = "neighbours"
    reads_signals = True
    initial: Sequence[float] = (0.0,)

    def __init__(self, options: TermOptions) -> None:
        """Read them from what follows what, where that is counted."""
        self.width = 1 if options.successor_half_life_s else 0

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Read the neighbours of the last items: values (B, S, 1)."""
        assert signals is not None, "it reads signals"
        return SparseFeatures(*signals.table.neighbours(signals.looked_up))
