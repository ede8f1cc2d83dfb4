"""UserBatch of a log's events: what the state of the event's user held just before the event."""

from __future__ import annotations

import numpy as np

from models.users.batch import UserBatch
from models.users.earlier import EARLIER_ITEMS
from models.users.state import HISTORY_EVENTS
from trainer.data.earlier_log import EarlierLog
from trainer.data.histories import Floats, Histories, Ints


class LoggedUsers:
    """The users of a log before each of its events, as the terms of a score read them."""

    def __init__(
        self,
        histories: Histories,
        rows: Ints,
        history_events: int | None = None,
        evicted_items: int | None = None,
    ) -> None:
        """Name the events' items by `rows` (N), 0 for an item without a row; by default keep as much as workers do."""
        self._histories = histories
        self._rows = rows
        self._history_events = HISTORY_EVENTS if history_events is None else history_events
        self._evicted = EarlierLog(
            histories, self._history_events, EARLIER_ITEMS if evicted_items is None else evicted_items
        )

    def before(self, events: Ints, at: Floats | None = None) -> UserBatch:
        """Lay out what was known before events (B); they ask at their own times, or at `at` (B)."""
        histories = self._histories
        places, lengths = histories.before(events, self._history_events)
        real = np.arange(places.shape[1]) < lengths[:, None]
        evicted, counts = self._evicted.before(events)
        return UserBatch(
            at=histories.times[events] if at is None else at,
            rows=self._rows.take(places) * real,
            times=histories.times.take(places),
            lengths=lengths,
            evicted_rows=self._rows.take(evicted) * (counts > 0),
            evicted_counts=counts,
            newest=(histories.next_same.take(places) >= events[:, None]) & real,
        )
