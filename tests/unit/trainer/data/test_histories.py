import random

import numpy as np

from models.records import session_key
from tests.unit.trainer.made import session
from trainer.data.histories import from_sessions


def test_sessions_of_a_user_are_joined_in_time_order_whatever_order_they_come_in() -> None:
    sessions = [
        session("b", [("x", 5.0, None, None)]),
        session("a", [("x", 10.0, "click", 1.0), ("y", 20.0, None, None)]),
        session("a", [("z", 9000.0, "buy", 2.0)]),
        session("a", [("w", 100_000.0, "click", None)]),
    ]
    random.Random(1).shuffle(sessions)
    histories = from_sessions(sessions, {0: 4})
    assert histories.user_ids == ["a", "b"]
    assert [histories.item_ids[item] for item in histories.items] == ["x", "y", "z", "w", "x"]
    assert histories.times.tolist() == [10.0, 20.0, 9000.0, 100_000.0, 5.0]
    assert histories.bounds.tolist() == [0, 4, 5]
    assert histories.event_types == ["buy", "click"]
    assert histories.types.tolist() == [1, -1, 0, 1, -1]
    np.testing.assert_array_equal(histories.values, [1.0, np.nan, 2.0, np.nan, np.nan])
    assert histories.users.tolist() == [0, 0, 0, 0, 1]


def test_parts_of_a_long_session_are_joined_by_number_not_by_text() -> None:
    # all at one time and from one start: nothing but the key's end tells their order
    sessions = [session("u|1#2", [(f"i{part}", 7.0, None, None)], part) for part in (10, 2, 0, 1)]
    assert session_key("u|1#2", 7.0, 10).encode() == sessions[0][0]
    histories = from_sessions(sessions, {})
    assert [histories.item_ids[item] for item in histories.items] == ["i0", "i1", "i2", "i10"]


def test_times_never_fall_within_a_user_but_may_between_users() -> None:
    sessions = [
        session("a", [("x", 100.0, None, None), ("y", 90.0, None, None), ("z", 101.0, None, None)]),
        session("b", [("x", 1.0, None, None)]),
    ]
    assert from_sessions(sessions, {}).times.tolist() == [100.0, 100.0, 101.0, 1.0]


def test_no_sessions_make_no_histories() -> None:
    histories = from_sessions([], {0: 0})
    assert (histories.n_events, histories.n_users, histories.users.tolist()) == (0, 0, [])
