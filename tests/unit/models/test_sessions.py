from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sessions import Placement, SessionRules, place

RULES = SessionRules(gap_s=1800.0, grace_s=300.0, future_s=600.0)
NOON = 43200.0


@pytest.mark.parametrize(
    ("after_s", "expected"),
    [
        (0.0, Placement.SAME_SESSION),
        (1800.0, Placement.SAME_SESSION),  # the gap is inclusive
        (1800.001, Placement.NEW_SESSION),
        (-300.0, Placement.SAME_SESSION),  # out of order, within the grace
        (-300.001, Placement.LATE),
    ],
)
def test_bounds_are_inclusive(after_s: float, expected: Placement) -> None:
    assert place(RULES, NOON, NOON + after_s, now=NOON + 3600) is expected


def test_a_users_first_event_opens_a_session() -> None:
    assert place(RULES, None, NOON, now=NOON) is Placement.NEW_SESSION


def test_the_future_begins_beyond_the_tolerance() -> None:
    assert place(RULES, None, NOON + 600.0, now=NOON) is Placement.NEW_SESSION
    assert place(RULES, None, NOON + 600.001, now=NOON) is Placement.FUTURE
    assert place(RULES, NOON, NOON + 600.001, now=NOON) is Placement.FUTURE


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_rejected_event_stays_rejected_as_the_user_moves_on(last: float, later: float, timestamp: float) -> None:
    first = place(RULES, last, timestamp, now=1e9)
    again = place(RULES, max(last, later), timestamp, now=1e9)
    if first is Placement.LATE:
        assert again is Placement.LATE


@pytest.mark.parametrize("rules", [{"gap_s": 0.0}, {"grace_s": -1.0}, {"future_s": -1.0}, {"max_session_events": 0}])
def test_impossible_rules_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="below zero"):
        SessionRules(**rules)  # type: ignore[arg-type]
