"""Repeats: what a user's own history says of the items in it. Films are seen once, milk is bought each week.

The features of each item in the retained history:

- 1: it was had;
- log2(how often): what is bought each week is bought next week;
- 2^(-age / 1 h): what is in the basket is not put there again;
- 1 / (1 + events since): pages are gone back to;
- log(1 + GAIN x how often it came right after what the user had last): lists are ordered in the same order again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.items.signal_table import GAIN, Doubles, Floats, Rows
from models.terms.term import SparseFeatures, TermOptions, UserSignals
from models.users.batch import Mask, UserBatch

PARTS = 5
LATELY_S = 3600.0  # half-life: a basket or a visit takes less, the next one comes later


class Repeats:
    """What was had before, within the retained history."""

    name = "repeats"
    width = PARTS
    initial: Sequence[float] = (0.0,) * PARTS
    reads_signals = False

    def __init__(self, options: TermOptions) -> None:
        """Need no options."""

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Say of each user's retained history what its items are to the user: values (B, S, 5)."""
        return SparseFeatures(users.rows, parts(users.rows, users.lengths, users.times, users.at, users.newest))


def parts(rows: Rows, lengths: Rows, times: Doubles, at: Doubles, newest: Mask | None = None) -> Floats:
    """Weigh the histories of B users, oldest first, when asked at a time each -> (B, S, PARTS).

    rows (B, S), times (B, S), of which the first `lengths` (B) are real; rows below 1 are of items that nobody asks
    for. What is said of an item stands at its newest place; all else is 0. `newest` (B, S) says where that is, for
    whom it is known: at places that are not real, it may say anything.
    """
    # each part is written, and multiplied, along the places: laid out the other way that took twice as long
    said = np.zeros((len(rows), PARTS, rows.shape[1]), np.float32).transpose(0, 2, 1)
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
    order, run = _side_by_side(asked)
    ends = run > 0
    ends[:, :-1] &= run[:, 1:] != run[:, :-1]
    newest = np.empty(asked.shape, np.bool_)
    np.put_along_axis(newest, order, ends, 1)
    return newest


def _side_by_side(asked: Rows) -> tuple[Rows, Rows]:
    """Put each item's places side by side, the oldest first: asked (B, S) -> places, items (B, S)."""
    bits = asked.shape[1].bit_length()
    sorted_by_both = np.sort(asked << bits | np.arange(asked.shape[1]), axis=1)  # half the time of a stable argsort
    return sorted_by_both & ((1 << bits) - 1), sorted_by_both >> bits


def _add_what_repeats(said: Floats, users: Rows, asked: Rows, lengths: Rows) -> None:
    """Say how often, and after what, of the users (U) who have had something twice: asked (U, S), lengths (U)."""
    order, run = _side_by_side(asked)
    goes_on = (run[:, 1:] == run[:, :-1]) & (run[:, 1:] > 0)
    ends, begins = goes_on.copy(), goes_on.copy()  # of runs of two and more: their last but one place, their first
    ends[:, :-1] &= ~goes_on[:, 1:]
    begins[:, 1:] &= ~goes_on[:, :-1]
    user, end = _where(ends)
    _, begin = _where(begins)
    said[users[user], order[user, end + 1], 1] = np.log2(end - begin + 2)
    last = asked[np.arange(len(asked)), lengths - 1]
    had = (asked[:, :-1] == last[:, None]) & (asked[:, :-1] > 0)
    user, place = _where(had & (np.arange(1, asked.shape[1]) < lengths[:, None]))
    following = asked[user, place + 1]
    user, following = user[following > 0], following[following > 0]
    # each pair of a user and an item once, and how often: there are few
    rows = int(asked.max()) + 1
    pairs, often = np.unique(user * rows + following, return_counts=True)
    user, following = np.divmod(pairs, rows)
    newest = asked.shape[1] - 1 - np.argmax((asked[user] == following[:, None])[:, ::-1], axis=1)
    said[users[user], newest, 4] = np.log1p(GAIN * often)


def _where(mask: Mask) -> tuple[Rows, Rows]:
    """Name the rows and columns of what is true, as np.nonzero does, in a third of its time."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns
