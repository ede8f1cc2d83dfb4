"""The live hit-rate, compared with popularity baselines at the same times."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from models.records import Event

K = 10
RECENT_S = 86_400.0


class PopularityBaselines:
    """Popularity of all time and of the last 24 hours of events, tested with each event before it is counted.

    Both lists leave out a user's history. Items with equal counts are ranked by their first event.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._all_time = np.zeros(1024)
        self._recent = np.zeros(1024)
        self._window: deque[tuple[float, int]] = deque()
        self._seen: dict[str, list[int]] = {}

    def hits(self, event: Event) -> tuple[bool, bool]:
        """Return whether the event's item is in the first ten of each list, all-time and recent."""
        row = self._rows.get(event.item_id)
        while self._window and self._window[0][0] <= event.timestamp - RECENT_S:
            self._recent[self._window.popleft()[1]] -= 1
        if row is None:
            return False, False
        seen = self._seen.get(event.user_id, [])
        return self._in_top(self._all_time, row, seen), self._in_top(self._recent, row, seen)

    def learn(self, event: Event) -> None:
        """Count an event."""
        row = self._rows.setdefault(event.item_id, len(self._rows))
        if row >= len(self._all_time):
            self._all_time = np.concatenate([self._all_time, np.zeros_like(self._all_time)])
            self._recent = np.concatenate([self._recent, np.zeros_like(self._recent)])
        self._all_time[row] += 1
        self._recent[row] += 1
        self._window.append((event.timestamp, row))
        self._seen.setdefault(event.user_id, []).append(row)

    @staticmethod
    def _in_top(counts: np.ndarray[tuple[int], np.dtype[np.float64]], row: int, seen: Sequence[int]) -> bool:
        mine = counts[row]
        if mine <= 0 or row in seen:
            return False
        better = counts > mine
        better[:row] |= counts[:row] == mine
        better[list(seen)] = False
        return int(better.sum()) < K


class LiveQuality:
    """Counts hits of lists and baselines, over events of users with an earlier list."""

    def __init__(self) -> None:
        self._baselines = PopularityBaselines()
        self._baseline_hits: dict[int, tuple[bool, bool]] = {}
        self._last_list: dict[str, list[str]] = {}
        self._users: set[str] = set()
        self.trials = 0
        self.hits = 0
        self.all_time_hits = 0
        self.recent_hits = 0

    def sent(self, index: int, event: Event, *, counted: bool) -> None:
        """Record an event, in time order. `counted` events of known users become trials."""
        if counted and event.user_id in self._users:
            self._baseline_hits[index] = self._baselines.hits(event)
        self._baselines.learn(event)
        self._users.add(event.user_id)

    def requested(self, user_id: str, items: list[str]) -> None:
        """Record the list that a user requested. It replaces the previous one."""
        self._last_list[user_id] = items[:K]

    def answered(self, index: int, event: Event, items: list[str]) -> None:
        """Record the list of an event. A user's lists come in the order of the user's events."""
        baseline = self._baseline_hits.pop(index, None)
        before = self._last_list.get(event.user_id)
        self._last_list[event.user_id] = items[:K]
        if baseline is not None and before is not None:
            self.trials += 1
            self.hits += event.item_id in before
            self.all_time_hits += baseline[0]
            self.recent_hits += baseline[1]

    def rates(self) -> tuple[float, float, float] | None:
        """Return the three hit-rates: ours, all-time popularity's, recent popularity's; None before the first trial."""
        n = self.trials
        return (self.hits / n, self.all_time_hits / n, self.recent_hits / n) if n else None
