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

from models.items.item_table import ItemTable
from models.recommending.mask import ItemMask
from models.records import RankedItem

BLOCK = 64  # columns: 16, 32 and 128 were all slower, at 10,000 columns and at 100,000
SCORE_DIGITS = 6  # float32 holds hardly more, and the rest would be half of a list's bytes
TWO_STAGES_FROM = 6000  # columns: below, finding the blocks costs as much as it saves

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def ranked_lists(scores: Tensor, mask: ItemMask, places: Rows, items: ItemTable) -> list[list[RankedItem]]:
    """Rank B lists of `places` (B,) items, fewer where no more are above -inf: scores (B, V), which are consumed."""
    rows, ranked = top_k(scores, int(places.max()), mask)
    item_of_row = items.item_of_row.__getitem__
    counts = np.minimum(np.count_nonzero(ranked > -math.inf, axis=1), places).tolist()
    shown = ranked.astype(np.float64).round(SCORE_DIGITS).tolist()
    return [
        list(map(RankedItem, map(item_of_row, row[:count]), score))
        for row, score, count in zip(rows.tolist(), shown, counts, strict=True)
    ]


def top_k(scores: Tensor, k: int, mask: ItemMask | None = None) -> tuple[Rows, Scores]:
    """Rank: scores (B, V) -> columns (B, k), scores (B, k), without what the mask leaves out.

    `scores` is consumed: what is left out is overwritten with -inf. Where fewer than k columns are above -inf, the
    rest of the row is -inf, and its columns mean nothing. With k > V there are V places.
    """
    if mask is not None:
        mask.hide(scores)
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
