"""Check session records, which older releases or other clients may have written."""

from __future__ import annotations

from models.records import MAX_ID_CHARS, SessionRecord

MAX_AHEAD_S = 86_400.0
"""Times may be so far ahead of the trainer's clock. Workers allow HRNN_FUTURE_S, 10 minutes by default. One event of
the year 5000 would make all real ones old."""


class BadSession(ValueError):
    """A record with a session's form but invalid content."""


def check_session(record: SessionRecord, now: float) -> None:
    """Raise BadSession for ids and times that no current worker writes.

    Event values and types are not checked: the encoding limits them, so the session is kept. Times may be out of order
    because of late events: they are raised to the latest before them (see histories.py).
    """
    _check_id("user_id", record.user_id)
    if not record.events:
        raise BadSession("it has no events")
    latest = now + MAX_AHEAD_S
    if not 0 <= record.start <= latest:
        raise BadSession(f"its start is {record.start}, not a Unix time up to now")
    for item_id, timestamp, _, _ in record.events:
        _check_id("item_id", item_id)
        if not 0 <= timestamp <= latest:  # NaN too
            raise BadSession(f"an event's timestamp is {timestamp}, not a Unix time up to now")


def _check_id(name: str, value: str) -> None:
    if not value or "\0" in value or len(value) > MAX_ID_CHARS:
        raise BadSession(f"{name} {value[:20]!r} is empty, longer than {MAX_ID_CHARS} characters or holds a NUL")
