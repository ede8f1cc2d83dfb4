from __future__ import annotations

from models.recommending.recommender import Moved
from stream.stages.open_sessions import OpenSessions

NOW = 1_000_000.0 * 60


def test_a_user_is_counted_once_until_the_gap_has_passed() -> None:
    sessions = OpenSessions(gap_s=1800.0)
    sessions.move([Moved(0, 0.0, NOW), Moved(1, 0.0, NOW + 30)], {0, 1})
    sessions.move([Moved(0, NOW, NOW + 300)], {0, 1})
    assert sessions.count(NOW + 300) == 2
    assert sessions.count(NOW + 1800) == 2
    assert sessions.count(NOW + 1900) == 1
    assert sessions.count(NOW + 2200) == 0


def test_what_was_before_this_worker_is_not_subtracted() -> None:
    sessions = OpenSessions(gap_s=1800.0)
    sessions.move([Moved(0, NOW - 60, NOW), Moved(0, NOW - 60, NOW)], {0})
    assert sessions.count(NOW) == 2


def test_a_partition_that_left_takes_its_users_along() -> None:
    sessions = OpenSessions(gap_s=1800.0)
    sessions.move([Moved(0, 0.0, NOW), Moved(1, 0.0, NOW)], {0, 1})
    sessions.move([], {1})
    assert sessions.count(NOW) == 1


def test_minutes_that_are_over_are_forgotten() -> None:
    sessions = OpenSessions(gap_s=1800.0)
    for minute in range(1000):
        sessions.move([Moved(0, 0.0, NOW + 60 * minute)], {0})
        sessions.forget(NOW + 60 * minute)
    assert len(sessions._minutes[0]) <= 32
    assert sessions.count(NOW + 60 * 999) == 31
