"""What a user's own history says of the items in it: films are seen once, milk is bought each week.

Of each item that the user has had, `parts` says, each a part of a score that the user's state weighs:

- 1: it was had;
- log2(how often): what is bought each week is bought next week;
- 2^(-age / 1 h): what is in the basket is not put there again;
- 1 / (1 + events since): pages are gone back to;
- log(1 + GAIN x how often it came right after what the user had last): lists are ordered in the same order again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.signal_table import GAIN, Doubles, Floats, Rows

PARTS = 5
LATELY_S = 3600.0  # half-life: a basket or a visit takes less, the next one comes later

Mask = npt.NDArray[np.bool_]


def parts(rows: Rows, lengths: Rows, times: Doubles, at: Doubles, newest: Mask | None = None) -> Floats:
    """Weigh the histories of B users, oldest first, when asked at a time each -> (B, S, PARTS).

    rows (B, S), times (B, S), of which the first `lengths` (B) are real; rows below 1 are of items that nobody asks
    for. What is said of an item stands at its newest place; all else is 0. `newest` (B, S) says where that is, for
    whom it is known: at places that are not real, it may say anything.
    """
    said = np.zeros((*rows.shape, PARTS), np.float32)
    place = np.arange(rows.shape[1])
    asked = (place < lengths[:, None]) & (rows > 0)
    newest = _newest(np.where(asked, rows, 0)) if newest is None else newest & asked
    said[:, :, 0] = newest
    age_s = np.maximum(at[:, None] - times, 0.0).astype(np.float32)
    said[:, :, 2] = np.exp2(age_s * np.float32(-1 / LATELY_S)) * newest
    said[:, :, 3] = newest / np.maximum(lengths[:, None] - place, 1)
    twice = np.flatnonzero(np.count_nonzero(newest, axis=1) < np.count_nonzero(asked, axis=1))
    if len(twice):
        _add_what_repeats(said, twice, np.where(asked[twice], rows[twice], 0), lengths[twice])
    return said


def _newest(asked: Rows) -> Mask:
    """Find where each item stands last; asked (B, S) is 0 where there is none -> (B, S)."""
    order = np.argsort(asked, axis=1, kind="stable")  # each item's places together, the oldest first
    run = np.take_along_axis(asked, order, 1)
    ends = run > 0
    ends[:, :-1] &= run[:, 1:] != run[:, :-1]
    newest = np.empty(asked.shape, np.bool_)
    np.put_along_axis(newest, order, ends, 1)
    return newest


def _add_what_repeats(said: Floats, users: Rows, asked: Rows, lengths: Rows) -> None:
    """Say how often, and after what, of the users (U) who have had something twice: asked (U, S), lengths (U)."""
    order = np.argsort(asked, axis=1, kind="stable")
    run = np.take_along_axis(asked, order, 1)
    begins, ends = run > 0, run > 0
    begins[:, 1:] &= run[:, 1:] != run[:, :-1]
    ends[:, :-1] &= run[:, 1:] != run[:, :-1]
    user, last = np.nonzero(ends)
    first = np.nonzero(begins)[1]
    newest = asked[np.arange(len(asked)), lengths - 1]
    followed = np.zeros(asked.shape, np.int64)
    real = np.arange(1, asked.shape[1]) < lengths[:, None]
    followed[:, 1:] = real & (asked[:, :-1] > 0) & (asked[:, :-1] == newest[:, None])
    sums = np.zeros((len(asked), asked.shape[1] + 1), np.int64)
    np.cumsum(np.take_along_axis(followed, order, 1), axis=1, out=sums[:, 1:])
    often = np.log2(last - first + 1), np.log1p(GAIN * (sums[user, last + 1] - sums[user, first]))
    said[users[user], order[user, last], 1] = often[0]
    said[users[user], order[user, last], 4] = often[1]
