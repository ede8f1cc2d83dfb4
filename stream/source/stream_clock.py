"""What time it is in the stream: that of its newest event, going on with the clock from there."""

from __future__ import annotations

import time


class StreamClock:
    """Live, this is the time of day, less the lag; where an old log is replayed, it is the log's."""

    def __init__(self) -> None:
        self._seen = 0.0, time.monotonic()  # the newest event's time, and when it was seen

    def saw(self, timestamp: float) -> None:
        """Take note of an event's time; one that is behind the clock does not set it back."""
        if timestamp > self.now():
            self._seen = timestamp, time.monotonic()

    def now(self) -> float:
        """Tell the time in Unix seconds; about 0 before the first event."""
        newest, seen_at = self._seen
        return newest + (time.monotonic() - seen_at)
