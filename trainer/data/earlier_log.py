"""The evicted items of each event's user at the time of the event, as a worker has them."""

from __future__ import annotations

import numpy as np

from models.users.earlier import take_in
from trainer.data.histories import Histories, Ints


class EarlierLog:
    """The evicted items of a log, readable at any event."""

    def __init__(self, histories: Histories, history_events: int, earlier_items: int) -> None:
        """Count, for each evicted event, the item's evicted events so far."""
        self._histories = histories
        self._history_events = history_events
        self._earlier_items = earlier_items
        self._often = np.zeros(histories.n_events, np.int64)
        long = np.flatnonzero(np.diff(histories.bounds) > history_events)
        for begin, end in zip(histories.bounds[long].tolist(), histories.bounds[long + 1].tolist(), strict=True):
            self._count(begin, end - history_events)

    def _count(self, begin: int, end: int) -> None:
        """Evict one user's events in order."""
        known: dict[int, int] = {}
        items = self._histories.items[begin:end].tolist()
        self._often[begin:end] = [take_in(known, item, self._earlier_items) for item in items]

    def before(self, events: Ints) -> tuple[Ints, Ints]:
        """Return the evicted items before events (B), each at its newest event: places (B, S), counts (B, S).

        They are in the order of eviction, padded with place 0 and count 0.
        """
        bounds = self._histories.bounds
        begins = bounds[np.searchsorted(bounds, events, side="right") - 1]
        lengths = np.maximum(events - self._history_events - begins, 0)
        ends = np.cumsum(lengths)
        asked = np.repeat(np.arange(len(events)), lengths)
        places = np.arange(int(lengths.sum())) + np.repeat(begins - ends + lengths, lengths)
        newest = self._histories.next_same.take(places) >= np.repeat(begins + lengths, lengths)
        asked, places = asked[newest], places[newest]
        counts = np.bincount(asked, minlength=len(events))
        from_the_end = np.cumsum(counts)[asked] - np.arange(len(asked))  # 1 for the item evicted last
        kept = from_the_end <= self._earlier_items
        asked, places = asked[kept], places[kept]
        counts = np.minimum(counts, self._earlier_items)
        laid = np.zeros((2, len(events), int(counts.max(initial=0))), np.int64)
        column = np.arange(len(asked)) - np.repeat(np.cumsum(counts) - counts, counts)
        laid[0, asked, column] = places
        laid[1, asked, column] = self._often.take(places)
        return laid[0], laid[1]
