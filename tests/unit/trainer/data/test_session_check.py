"""Records on `sessions` that are valid JSON and no sessions: skipped, counted, logged, and never the end of a run."""

import math

import pytest

from models.records import MAX_EVENT_TYPE_CHARS
from tests.unit.trainer.data.test_session_copy import Log
from tests.unit.trainer.made import Row, session
from trainer.data.histories import from_sessions
from trainer.data.session_check import MAX_AHEAD_S
from trainer.data.session_copy import MOST_BAD_LOGGED, SessionCopy

NOW = 1e9


def raw(user_id: str = "u", start: str = "1.0", end: str = "2.0", events: str = '["a",1.0,null,null]') -> bytes:
    return f'{{"user_id":"{user_id}","session_id":"s","start":{start},"end":{end},"events":[{events}]}}'.encode()


ODD = {
    "no events": raw(events=""),
    "an empty user": raw(user_id=""),
    "a NUL in a user": raw(user_id="u\\u0000v"),
    "a long user": raw(user_id="u" * 300),
    "an empty item": raw(events='["",1.0,null,null]'),
    "a NUL in an item": raw(events='["a\\u0000",1.0,null,null]'),
    "a negative time": raw(events='["a",1.0,null,null],["a",-5,null,null]'),
    "a time of no calendar": raw(events='["a",1e300,null,null]'),
    "a time a week ahead": raw(events=f'["a",{NOW + 7 * 86_400},null,null]'),
    "a start of no calendar": raw(start="1e300"),
    "a negative start": raw(start="-1"),
    "a number beyond floats": raw(events='["a",1e999,null,null]'),
    "a value beyond floats": raw(events='["a",1.0,null,1e999]'),
    "text for a time": raw(events='["a","now",null,null]'),
    "a number for an item": raw(events="[1,1.0,null,null]"),
    "a list": b"[]",
    "a surrogate": raw(events='["\\ud800",1.0,null,null]'),
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
def test_what_is_no_session_is_skipped_and_the_others_are_read(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    log, copy = Log(partitions=1), SessionCopy()
    log.add(0, b"u|1", value)
    log.add(0, *session("v", [("a", 1.0, None, None), ("b", 2.0, None, None)]))
    copy.update(log, now=NOW)
    histories = from_sessions(copy.sessions(), copy.offsets)
    assert histories.user_ids[-1] == "v"
    assert all(math.isfinite(time) and 0 <= time <= NOW + MAX_AHEAD_S for time in histories.times)
    assert (copy.bad_records, caplog.text.count("bad session record skipped")) == (1, 1)
    assert "partition=0 offset=0" in caplog.text


def test_odd_content_that_can_be_bounded_is_kept() -> None:
    log, copy = Log(partitions=1), SessionCopy()
    events: list[Row] = [
        ("a", 5.0, "x" * (MAX_EVENT_TYPE_CHARS + 1), 1e200),
        ("b", 3.0, "click", None),  # out of order
        ("c", 6.0, "y" * MAX_EVENT_TYPE_CHARS, -1e308),
    ]
    log.add(0, *session("u", events))
    copy.update(log, now=NOW)
    histories = from_sessions(copy.sessions(), {})
    assert copy.bad_records == 0
    assert histories.times.tolist() == [5.0, 5.0, 6.0]
    assert histories.event_types == ["click", "y" * MAX_EVENT_TYPE_CHARS]
    assert histories.types.tolist() == [-1, 0, 1]


def test_records_without_a_key_are_skipped() -> None:
    log, copy = Log(partitions=1), SessionCopy()
    for value in (None, raw()):
        log.records[0].append((None, value))  # type: ignore[arg-type]
    copy.update(log, now=NOW)
    assert copy.events == 0
    assert copy.bad_records == 1, "the newest of what has the same key"


def test_a_topic_full_of_odd_records_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log, copy = Log(partitions=1), SessionCopy()
    for n in range(MOST_BAD_LOGGED + 50):
        log.add(0, f"u{n}|1".encode(), ODD["no events"])
    copy.update(log, now=NOW)
    assert copy.bad_records == MOST_BAD_LOGGED + 50
    assert caplog.text.count("bad session record skipped") == MOST_BAD_LOGGED
