"""The stream's time: the newest event's time, continued with the clock."""

from __future__ import annotations

import time


class StreamClock:
    """The current time minus the lag in live operation; the log's own time during a replay."""

    def __init__(self) -> None:
        self._newest = 0.0, time.monotonic()  # the newest event's time, and when it arrived

    def advance(self, timestamp: float) -> None:
        """Advance to an event's time. An earlier one does not set the clock back."""
        if timestamp > self.now():
            self._newest = timestamp, time.monotonic()

    def now(self) -> float:
        """Return the time in Unix seconds; about 0 before the first event."""
        newest, arrived_at = self._newest
        return newest + (time.monotonic() - arrived_at)
