from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sessions import Piece, Placement, SessionRules, piece_at, place
from tests.unit.models.made import history

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


def test_a_closed_session_is_found_again() -> None:
    events = history(0, 10, 5000, 5010, 5020, 9000)
    open_piece = Piece(9000.0, 0, 5, 6)
    assert piece_at(RULES, events, 0, open_piece, whole=True) == Piece(0.0, 0, 0, 2)
    assert piece_at(RULES, events, 3, open_piece, whole=True) == Piece(5000.0, 0, 2, 5)
    assert piece_at(RULES, events, 5, open_piece, whole=True) is open_piece


def test_a_session_whose_beginning_was_cut_off_is_not_written_again() -> None:
    events = history(0, 10, 5000, 9000)
    open_piece = Piece(9000.0, 0, 3, 4)
    assert piece_at(RULES, events, 1, open_piece, whole=False) is None
    assert piece_at(RULES, events, 2, open_piece, whole=False) == Piece(5000.0, 0, 2, 3)


def test_a_long_session_is_found_part_by_part() -> None:
    rules = SessionRules(max_session_events=2)
    events = history(0, 1, 2, 3, 4)
    open_piece = Piece(0.0, 2, 4, 5)
    assert piece_at(rules, events, 1, open_piece, whole=True) == Piece(0.0, 0, 0, 2)
    assert piece_at(rules, events, 2, open_piece, whole=True) == Piece(0.0, 1, 2, 4)
