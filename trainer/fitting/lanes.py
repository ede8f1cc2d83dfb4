"""Histories laid end to end in lanes, for truncated back-propagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data.histories import Ints


@dataclass(frozen=True)
class Chunk:
    """T steps of B lanes."""

    index: Tensor  # (B, T) int64: which event
    starts: Tensor  # (B, T) bool: a user's first event, before which the state is zero
    real: Tensor  # (B, T) bool: false where a lane has ended


class Lanes:
    """Whole histories in B lanes of about equal length; no history is cut, or its second half would start from zero."""

    def __init__(self, first: Ints, lengths: Ints, lanes: int) -> None:
        """Lay out users' events first[u] ... first[u] + lengths[u] - 1, in the order given; none may be empty."""
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        lanes = max(1, min(lanes, len(lengths)))
        lane = (ends - lengths) * lanes // max(total, 1)  # by where a user begins: lanes exceed by one user at most
        begins = np.searchsorted(lane, np.arange(lanes))  # the first user of each lane
        taken = np.append(np.append(0, ends)[begins], total)
        widths = np.diff(taken)
        self.length = int(widths.max()) if total else 0
        self._index = np.zeros((lanes, self.length), np.int64)
        self._starts = np.ones((lanes, self.length), bool)
        self._real: npt.NDArray[np.bool_] = np.arange(self.length) < widths[:, None]
        self._index[self._real] = np.arange(total) + np.repeat(first - (ends - lengths), lengths)
        starts = np.zeros(total, bool)
        starts[ends - lengths] = True
        self._starts[self._real] = starts

    @property
    def width(self) -> int:
        """Count the lanes, B: as many as asked for, or one a user."""
        return len(self._index)

    def chunks(self, steps: int, device: torch.device) -> Iterator[Chunk]:
        """Cut all lanes at every `steps`-th step; the caller carries the state over."""
        index, starts, real = (torch.from_numpy(a).to(device) for a in (self._index, self._starts, self._real))
        for begin in range(0, self.length, steps):
            at = slice(begin, begin + steps)
            yield Chunk(index[:, at], starts[:, at], real[:, at])
