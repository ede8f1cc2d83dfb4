"""The events of a fault run: many users, some hot ones who make half of the traffic, sessions that open and close."""

from __future__ import annotations

import random
import time

from models.records import Event
from tests.running import ITEMS

SPAN_S = 20 * 86_400.0  # the events' own times begin so long ago: within the topic's retention
HOT_TURN = 2000  # events after which other users are hot: a robot does not stay for a month


class Traffic:
    """One seeded sequence of events; own times rise, so that each has its place."""

    def __init__(self, rnd: random.Random, *, users: int = 60, hot: int = 2, hot_share: float = 0.5) -> None:
        self._random = rnd
        self._users = users
        self._hot = hot
        self._hot_share = hot_share
        self._at = time.time() - SPAN_S
        self.made = 0

    def events(self, count: int) -> list[Event]:
        """Make the next events."""
        return [self._event() for _ in range(count)]

    def burst(self, user_id: str, count: int) -> list[Event]:
        """Make events of which every second one is of one user."""
        return [self._event(user_id if number % 2 else None) for number in range(count)]

    def _event(self, user_id: str | None = None) -> Event:
        rnd = self._random
        # half an hour of silence now and then ends sessions; a burst of one user stays one session, in parts
        self._at = min(time.time(), self._at + (2000.0 if rnd.random() < 0.004 else rnd.uniform(0.01, 5.0)))
        self.made += 1
        if user_id is None:
            if rnd.random() < self._hot_share:
                user_id = f"hot-{self.made // HOT_TURN}-{rnd.randrange(self._hot)}"
            else:
                user_id = f"user-{rnd.randrange(self._users)}"
        item = f"item-{rnd.randrange(ITEMS + 3)}"  # a few that no model knows
        return Event(user_id, item, round(self._at, 3), "click", float(rnd.randrange(5)))
