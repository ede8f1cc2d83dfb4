"""Count the open sessions: users by the minute of their last event."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models.recommending.recommender import Moved

MINUTE_S = 60.0


class OpenSessions:
    """Counts users by partition and the minute of their last event.

    A state has the time of its user's last event, so an event moves its user from one count to another. Sessions that
    were open when this worker got a partition are unknown: the count is right after one session gap.
    """

    def __init__(self, gap_s: float) -> None:
        """Start empty. A session ends `gap_s` after its last event."""
        self._gap_s = gap_s
        self._minutes: dict[int, dict[int, int]] = {}

    def move(self, moved: Iterable[Moved], assigned: Collection[int]) -> None:
        """Move a batch's users to their new minutes, and forget partitions that are no longer `assigned`."""
        for partition, before, after in moved:
            minutes = self._minutes.setdefault(partition, {})
            left = int(before // MINUTE_S)
            if minutes.get(left, 0) > 0:
                minutes[left] -= 1
            entered = int(after // MINUTE_S)
            minutes[entered] = minutes.get(entered, 0) + 1
        for partition in [partition for partition in self._minutes if partition not in assigned]:
            del self._minutes[partition]

    def forget(self, now: float) -> None:
        """Forget the minutes whose sessions have ended."""
        first = self._first(now)
        for minutes in self._minutes.values():
            for minute in [minute for minute in minutes if minute < first]:
                del minutes[minute]

    def count(self, now: float) -> int:
        """Return the number of open sessions at `now`, to the minute. Any thread may call this."""
        first = self._first(now)
        # copies: the loop's thread may be counting
        of_partitions = [list(minutes.items()) for minutes in list(self._minutes.values())]
        return sum(users for minutes in of_partitions for minute, users in minutes if minute >= first)

    def _first(self, now: float) -> int:
        return int((now - self._gap_s) // MINUTE_S)
