"""The pure sessionizer: which of a user's events belong together, and which can't be applied at all.

With a gap of 30 min and a grace period of 5 min, after an event at 12:00: one at 12:30 goes on with the session, one
at 12:30:01 begins the next; one at 11:55 came out of order and goes on too; one at 11:54:59 is late.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class SessionRules:
    """How long sessions last; raises ValueError for rules that no event could meet."""

    gap_s: float = 1800.0  # what web analytics has used since the nineties; inclusive
    grace_s: float = 300.0  # mobile clients send what they queued within some minutes
    future_s: float = 600.0  # clocks that are wrong by more than this are wrong by anything
    max_session_events: int = 100  # a longer session is written in parts: a robot's would outgrow its record

    def __post_init__(self) -> None:
        """Refuse negative durations and sessions without events."""
        if not (self.gap_s > 0 and self.grace_s >= 0 and self.future_s >= 0 and self.max_session_events > 0):
            raise ValueError(f"{self} has a duration below zero or sessions without events")


class Placement(enum.Enum):
    """Where an event goes; the values are what rejects are counted under."""

    SAME_SESSION = "same_session"
    NEW_SESSION = "new_session"
    LATE = "late"
    FUTURE = "future"


class Piece(NamedTuple):
    """A session, or a part of a long one: `history[begin:end]`."""

    start: float
    part: int
    begin: int
    end: int


def place(rules: SessionRules, last_timestamp: float | None, timestamp: float, now: float) -> Placement:
    """Place an event by the user's last one (None: the first ever) and the time that the broker took it at."""
    if timestamp > now + rules.future_s:
        return Placement.FUTURE
    if last_timestamp is None or timestamp - last_timestamp > rules.gap_s:
        return Placement.NEW_SESSION
    if last_timestamp - timestamp > rules.grace_s:
        return Placement.LATE
    return Placement.SAME_SESSION
