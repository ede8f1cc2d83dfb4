"""Vector session kNN: what sessions like this one went on with (Ludewig & Jannach, UMUAI 2018).

It learns live, as the stream does: sessions are there to be found with their first event.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.sessions import SessionRules
from trainer.evaluation.baselines.counting import Counting
from trainer.evaluation.protocol import Split

NEIGHBOURS = 100  # the paper's
SAMPLE = 1000  # the newest sessions that share an item, the paper's
LOOKED_AT = 10  # items of the session so far: weights of older ones would be below a tenth

Floats = npt.NDArray[np.float64]


class Vsknn:
    """Sessions and what they hold. With `whole`, a user's history is one session: for logs of few events a visit."""

    def __init__(self, split: Split, *, whole: bool) -> None:
        """Begin without sessions."""
        histories = split.histories
        self._rows = split.rows
        self._n_rows = len(split.item_ids) + 1
        self._times = histories.times
        gaps = np.diff(histories.times, prepend=0.0)
        opens = np.zeros(len(self._rows), bool)
        opens[histories.bounds[:-1]] = True
        if not whole:
            opens |= gaps > SessionRules().gap_s
        self._session = np.cumsum(opens) - 1  # (N), each event's
        self._begin = np.flatnonzero(opens)
        self._first = histories.bounds[histories.users]
        self._items: list[list[int]] = [[] for _ in self._begin]
        self._sessions_of: list[list[int]] = [[] for _ in range(self._n_rows)]
        self._counts = np.zeros(self._n_rows)
        self._newest = np.zeros(len(self._begin))  # when each session's last event was

    def scores(self, event: int) -> Floats:
        """Sum the nearest sessions' items, by how alike and by how late the shared item came."""
        scores = np.zeros(self._n_rows)
        here = int(self._session[event])
        begin = int(self._begin[here])
        if begin == event:  # nothing of this session yet: what the last one was like
            here = int(self._session[event - 1])
            begin = int(self._begin[here])
        current = list(dict.fromkeys(self._rows[begin:event][::-1].tolist()))[:LOOKED_AT]  # the newest first
        found = [np.array(self._sessions_of[row][-SAMPLE:], np.int64) for row in current]
        sessions = np.concatenate(found)
        lengths = [len(part) for part in found]
        position = np.repeat(np.arange(len(current)), lengths)
        others = sessions != here
        sessions, position = sessions[others], position[others]
        if not len(sessions):
            return scores
        unique, inverse = np.unique(sessions, return_inverse=True)
        alike = np.bincount(inverse, 1.0 - position / (len(current) + 1))
        nearest = np.full(len(unique), len(current))
        np.minimum.at(nearest, inverse, position)
        if len(unique) > SAMPLE:
            newest = np.argpartition(-self._newest[unique], SAMPLE - 1)[:SAMPLE]
            unique, alike, nearest = unique[newest], alike[newest], nearest[newest]
        if len(unique) > NEIGHBOURS:
            best = np.lexsort((-self._newest[unique], -alike))[:NEIGHBOURS]
            unique, alike, nearest = unique[best], alike[best], nearest[best]
        weights = alike * (1.0 - 0.1 * nearest)
        held = [self._items[session] for session in unique.tolist()]
        rows = np.concatenate([np.array(items, np.int64) for items in held])
        scores += np.bincount(rows, np.repeat(weights, [len(items) for items in held]), minlength=self._n_rows)
        # of an item that all sessions have, another one says little
        scores *= np.log1p(len(self._begin) / (1.0 + self._counts))
        return scores

    def count(self, event: int) -> None:
        """Let a session have one more event."""
        session, row = int(self._session[event]), int(self._rows[event])
        if row not in self._items[session][-200:]:
            self._items[session].append(row)
            self._sessions_of[row].append(session)
            self._counts[row] += 1
        self._newest[session] = self._times[event]


def vsknn() -> Counting:
    """Make the baseline, with visits or with whole histories as sessions, whichever suits the log."""
    return Counting(lambda split: Vsknn(split, whole=False), lambda split: Vsknn(split, whole=True))
