"""From scores to lists: the exact top-k.

One core, k = 20, microseconds a row, torch.topk over all columns against the two stages here: 10,000 columns 13 and
9, 27,000 columns 35 and 14, 100,000 columns 100 and 28. Ties go to the lower row, so that the same scores make the
same list wherever they are computed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 64  # columns: 16, 32 and 128 were all slower, at 10,000 columns and at 100,000
TWO_STAGES_FROM = 6000  # columns: below, finding the blocks costs as much as it saves

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def top_k(scores: Tensor, k: int, seen: tuple[Rows, Rows] | None = None) -> tuple[Rows, Scores]:
    """Rank: scores (B, V), seen (row indices (N,), column indices (N,)) -> columns (B, k), scores (B, k).

    `scores` is consumed: what `seen` names is overwritten with -inf. Where fewer than k columns are above -inf, the
    rest of the row is -inf, and its columns mean nothing. With k > V there are V places.
    """
    if seen is not None:
        scores.numpy()[seen] = -math.inf
    k = min(k, scores.shape[1])
    more = min(k + 1, scores.shape[1])  # one more tells whether the last place is tied
    values, columns = _largest(scores, more)
    top, rows = values.numpy()[:, :k], columns.numpy()[:, :k]
    if more > k:
        last = top[:, -1]
        for tied in np.flatnonzero((values.numpy()[:, k] == last) & (last > -math.inf)):
            rows[tied] = _with_lowest_rows(scores[tied].numpy(), last[tied], k)
            top[tied] = scores[tied].numpy()[rows[tied]]
    if (top[:, 1:] == top[:, :-1]).any():
        order = np.lexsort((rows, -top))
        rows, top = np.take_along_axis(rows, order, 1), np.take_along_axis(top, order, 1)
    return rows, top


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k largest: scores (B, V) -> values (B, k) falling, columns (B, k).

    Every one of the k largest is in one of the k blocks with the largest maxima (or ties with one that is).
    """
    width = scores.shape[1]
    blocks = width // BLOCK
    if width < TWO_STAGES_FROM or k >= blocks:
        return torch.topk(scores, k)
    blocked = scores.narrow(1, 0, blocks * BLOCK).unflatten(1, (blocks, BLOCK))  # type: ignore[no-untyped-call]
    chosen = torch.topk(blocked.amax(2), k, sorted=False)[1]  # (B, k)
    candidates = torch.gather(blocked, 1, chosen.unsqueeze(2).expand(-1, -1, BLOCK)).flatten(1)
    rest = scores[:, blocks * BLOCK :]
    values, places = torch.topk(torch.cat((candidates, rest), 1), k)
    in_blocks = places < k * BLOCK
    block = torch.gather(chosen, 1, torch.where(in_blocks, places // BLOCK, 0))
    columns = torch.where(in_blocks, block * BLOCK + places % BLOCK, places + (blocks - k) * BLOCK)
    return values, columns


def _with_lowest_rows(scores: Scores, last: np.float32, k: int) -> Rows:
    """Rank one row whose last place is tied: all above it, then the lowest of the tied."""
    above = np.flatnonzero(scores > last)
    tied = np.flatnonzero(scores == last)[: k - len(above)]
    chosen = np.concatenate((above, tied))
    return chosen[np.lexsort((chosen, -scores[chosen]))]
