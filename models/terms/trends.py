"""Trends: how often an item occurs now, by its exponentially decayed counts at several half-lives.

Each state weighs the half-lives: who follows the crowd, and whether that of this hour or of this season.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from models.items.signal_table import Floats, SignalTable
from models.terms.term import ALL, TermOptions


class Trends:
    """log(count / FLOOR) at each half-life, and nothing below 0."""

    name = "trends"

    def __init__(self, options: TermOptions) -> None:
        """Read the counts of the options' half-lives."""
        self._half_lives_s = options.half_lives_s
        self.width = len(self._half_lives_s)
        self.rates = math.log(2) / np.array(self._half_lives_s)
        # in proportion to counts, of all half-lives alike: everyone follows the crowd alike before training
        self.initial: Sequence[float] = [1 / max(1, self.width)] * self.width

    def dense(self, table: SignalTable, at: float, rows: slice | int = ALL) -> Floats:
        """Read the trends at a time: (K, rows); the table may count at more half-lives than the model knows."""
        trends, counted = table.trends(at, rows), table.rules.half_lives_s
        if counted == self._half_lives_s:
            return trends
        return trends[[counted.index(half_life_s) for half_life_s in self._half_lives_s]]
