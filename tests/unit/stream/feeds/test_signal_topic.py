"""Where a partition of `signals` is known to hold what the store has; what is done about the rest needs a broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.feeds.signal_topic import OwnWrites


def test_nothing_is_checked_before_it_was_compared() -> None:
    ours = OwnWrites()
    ours.acked(40, 10)
    ours.acked(50, 10)
    assert ours.checked == 0
    ours.compared(40)
    assert ours.checked == 60, "own appends that follow directly are checked, too"


def test_foreign_records_between_appends_must_be_compared() -> None:
    ours = OwnWrites()
    ours.compared(10)
    ours.acked(10, 5)
    ours.acked(16, 4)  # 15 is not ours
    assert ours.checked == 15
    ours.compared(16)
    assert ours.checked == 20


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30),
    st.lists(st.integers(0, 30), max_size=10),
)
def test_checked_ends_at_the_first_foreign_record(log: list[tuple[int, bool]], looks: list[int]) -> None:
    """Acks come in order, looks at any time: each compares up to where the log then ends."""
    ours, end, compared = OwnWrites(), 0, 0
    for place, (records, is_ours) in enumerate(log):
        if is_ours:
            ours.acked(end, records)
        end += records
        for _ in range(looks.count(place)):
            compared = end
            ours.compared(compared)
    expected, at = compared, 0
    for records, is_ours in log:
        if at == expected and is_ours:
            expected += records
        at += records
    assert ours.checked == expected
