"""How many sessions may go on: users by the minute of their last event, without remembering a user."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models.recommending.recommender import Moved

MINUTE_S = 60.0


class OpenSessions:
    """Counts, per partition and minute, the users whose last event was then.

    A state says when its user's last event was, so one event moves its user from one count to another. What was open
    when this worker was given a partition is not known: the count is right after one session gap.
    """

    def __init__(self, gap_s: float) -> None:
        """Begin with none; a session is over `gap_s` after its last event."""
        self._gap_s = gap_s
        self._minutes: dict[int, dict[int, int]] = {}

    def move(self, moved: Iterable[Moved], assigned: Collection[int]) -> None:
        """Take a batch's users over to their new minutes, and forget partitions that are not `assigned` any more."""
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
        """Forget the minutes whose sessions are over."""
        first = self._first(now)
        for minutes in self._minutes.values():
            for minute in [minute for minute in minutes if minute < first]:
                del minutes[minute]

    def count(self, now: float) -> int:
        """Count the sessions that an event at `now` would go on with, to the minute; any thread may ask."""
        first = self._first(now)
        # copies: the loop's thread goes on counting
        of_partitions = [list(minutes.items()) for minutes in list(self._minutes.values())]
        return sum(users for minutes in of_partitions for minute, users in minutes if minute >= first)

    def _first(self, now: float) -> int:
        return int((now - self._gap_s) // MINUTE_S)
